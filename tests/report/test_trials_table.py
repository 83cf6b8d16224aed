"""The table of a search's trials: what it shows of each, and what it leaves blank."""

from __future__ import annotations

from soup.report.tables import ScoreRow, trials_table


def trial(names, overall, scores, **other):
    values = {name: {"value": value, "n": 1, "split": "all"} for name, value in scores.items()}
    return {"ingredients": names, "overall": overall, "scores": values, **other}


def test_trials_stand_in_their_order_with_a_score_for_each_benchmark_and_the_overall():
    table = trials_table({"trials": [trial(["b"], 3.0, {"x": 2, "y": 4}), trial(["a", "b"], 1.0, {"x": 1})]})
    assert table.columns == ("x", "y", "overall")
    assert table.rows == (ScoreRow("b", (2, 4, 3.0)), ScoreRow("a + b", (1, None, 1.0)))


def test_an_overall_over_the_questions_that_report_has_a_column_where_any_trial_has_one():
    trials = [trial(["a"], 3.0, {"x": 3}, report={"overall": 5.0, "scores": {}}), trial(["b"], 4.0, {"x": 4})]
    table = trials_table({"trials": trials})
    assert table.columns == ("x", "overall", "report overall")
    assert [row.values for row in table.rows] == [(3, 3.0, 5.0), (4, 4.0, None)]


def test_a_remark_tells_what_was_accepted_how_sure_that_is_and_which_guard_was_broken():
    rival = {"ingredients": ["a"], "difference": 1.5, "low": -0.25, "high": 3.0}
    told = trial(["a", "b"], 1.0, {"x": 1}, accepted=True, versus_best=rival, broken_guards=["x>=0: 1.00, best 2.00"])
    (row,) = trials_table({"trials": [told]}).rows
    assert row.remark == "accepted, +1.50 [-0.25, +3.00] against a, breaks x>=0: 1.00, best 2.00"
