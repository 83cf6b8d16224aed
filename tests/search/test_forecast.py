"""How many evaluations a search comes to."""

from __future__ import annotations

import pytest

from soup.search.forecast import most_evaluations
from soup.search.strategies.base import Budget

GREEDY, PRUNE = Budget(singles=5, soups=4), Budget(singles=0, soups=15)


@pytest.mark.parametrize(
    ("budget", "wishes", "most"),
    [
        (GREEDY, {}, (9, 0, 0)),
        (GREEDY, {"split"}, (9, 0, 6)),
        (GREEDY, {"estimates"}, (7, 4, 0)),
        (GREEDY, {"estimates", "split"}, (7, 4, 7)),
        (PRUNE, {}, (15, 0, 0)),
        (PRUNE, {"split"}, (15, 0, 1)),
        (PRUNE, {"all_singles"}, (20, 0, 0)),
        (PRUNE, {"estimates", "split"}, (7, 15, 7)),
    ],
)
def test_evaluations_are_those_of_the_strategy_the_guards_the_finalists_and_the_report(budget, wishes, most):
    flags = {flag: flag in wishes for flag in ("all_singles", "estimates", "split")}
    evaluations = most_evaluations(budget, 5, **flags)
    assert (evaluations.whole, evaluations.estimates, evaluations.reported) == most
    assert evaluations.total == sum(most)
