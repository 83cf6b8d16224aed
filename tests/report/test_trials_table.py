"""The table of a search's trials: what it shows of each, and what it leaves blank."""

from __future__ import annotations

import re
from pathlib import Path

from soup.evaluation.api import Score
from soup.evaluation.bootstrap import Difference
from soup.evaluation.trial import Trial
from soup.merging.recipe import CheckpointSource, Recipe
from soup.report.tables import ScoreRow, trials_table
from soup.search.result import Soup
from soup.search.strategies.acceptance import describe_difference


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


def remarks(strategy, chosen, *trials):
    """The remarks of a table of trials; `chosen` is the recipe that came out."""
    soup = Soup(strategy, Path("out"), chosen.names, chosen.recipe, trials)
    return [row.remark for row in trials_table(trials, soup).rows]


def test_a_refused_trial_names_both_overalls_and_the_benchmarks_that_it_lost_on_the_largest_loss_first():
    single = trial("a", {"mmbench": 60.1, "ocrbench": 56.1, "ai2d": 50.0})
    both = trial("ab", {"mmbench": 58.0, "ocrbench": 56.06, "ai2d": 50.2})
    shown = remarks("greedy", single, single, both)
    assert shown == ["accepted", "refused: 54.75 < 55.40 (mmbench -2.1, ocrbench -0.04)"]


def test_overalls_that_look_alike_are_shown_with_all_their_digits():
    single, both = trial("a", {"x": 58.104}), trial("ab", {"x": 58.101})
    assert remarks("greedy", single, single, both)[1] == "refused: 58.101 < 58.104 (x -0.003)"


def test_a_trial_refused_for_a_guard_or_a_tie_says_so():
    single = trial("a", {"x": 50})
    guarded, tie = trial("ab", {"x": 60}, broken=("y>=0: 1.00, best 2.00",)), trial("ac", {"x": 50})
    assert remarks("greedy", single, single, guarded, tie)[1:] == [
        "refused: breaks y>=0: 1.00, best 2.00",
        "refused: 50.00 = 50.00",
    ]


def test_a_better_trial_that_was_not_taken_was_passed_over_and_says_how_likely_better_is():
    points = {"a": {"1": 0.0, "2": 1.0, "3": 0.0}, "ab": {"1": 1.0, "2": 1.0, "3": 0.0}}
    single, both = (
        Trial(recipe(names), {"x": Score(100 * sum(points[names].values()) / 3, 3, points[names])}) for names in points
    )
    by_benchmark = r"\(x \+33\.3 \[[-+]\d+\.\d, \+\d+\.\d\]\)"
    pattern = rf"passed over: 66\.67 > 33\.33, better with a probability of 0\.\d\d {by_benchmark}, "
    assert re.match(pattern, remarks("greedy", single, single, both)[1])


def test_a_difference_that_rounds_to_zero_has_no_minus():
    assert str(Difference(-0.001, -0.004, 0.004, 0.5)) == "+0.00 [+0.00, +0.00]"
    assert describe_difference(trial("a", {"x": 50.001}), trial("b", {"x": 50.002})) == "+0.00"
