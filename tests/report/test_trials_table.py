"""The table of a search's trials: what it shows of each, and what it leaves blank."""

from __future__ import annotations

import re
from pathlib import Path

from soup.evaluation.api import Score
from soup.evaluation.trial import Trial
from soup.merging.recipe import CheckpointSource, Recipe
from soup.report.tables import ScoreRow, trials_table
from soup.search.result import Soup


def recipe(names):
    sources = [CheckpointSource(name=name, path=f"/{name}", digest=f"xxh3:{name}") for name in names]
    return Recipe.uniform(sources).model_copy(update={"side_digest": "sha256:s"})


def trial(names, scores, **others):
    return Trial(recipe(names), {name: Score(value) for name, value in scores.items()}, **others)


def test_trials_stand_in_their_order_with_a_score_for_each_benchmark_and_the_overall():
    table = trials_table([trial("b", {"x": 2, "y": 4}), trial("ab", {"x": 1})])
    assert table.columns == ("x", "y", "overall")
    assert table.rows == (ScoreRow("b", (2, 4, 3.0)), ScoreRow("a + b", (1, None, 1.0)))


def test_an_overall_over_the_questions_that_report_has_a_column_where_any_trial_has_one():
    table = trials_table([trial("a", {"x": 3}, report={"x": Score(5.0)}), trial("b", {"x": 4})])
    assert table.columns == ("x", "overall", "report overall")
    assert [row.values for row in table.rows] == [(3, 3.0, 5.0), (4, 4.0, None)]


def test_a_remark_tells_what_was_accepted_how_sure_that_is_and_which_guard_was_broken():
    points = {"a": {"1": 0.0, "2": 1.0, "3": 0.0}, "ab": {"1": 1.0, "2": 1.0, "3": 0.0}}
    single, both = (
        Trial(recipe(names), {"x": Score(100 * sum(points[names].values()) / 3, 3, points[names])}, broken=broken)
        for names, broken in (("a", ()), ("ab", ("x>=0: 1.00, best 2.00",)))
    )
    soup = Soup("greedy", Path("out"), ("a", "b"), both.recipe, (single, both))
    first, second = trials_table(soup.trials, soup).rows
    assert first.remark == "accepted"
    pattern = r"accepted, \+33\.33 \[\+0\.00, \+\d+\.\d\d\] against a, breaks x>=0: 1\.00, best 2\.00"
    assert re.fullmatch(pattern, second.remark)
