"""The table of a run tells what the run chose by: its overall, its benchmarks, its warnings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from soup.cli.app import cli
from tests.helpers.earlier_results import without_key
from tests.helpers.toy_pools import make_checkpoint

JUDGE = """
from pathlib import Path

from safetensors.numpy import load_file


def head(checkpoint):
    (file,) = Path(checkpoint).glob("*.safetensors")
    return [float(value) for value in load_file(file)["head"]]


def pair(checkpoint):
    reading, counting, _ = head(checkpoint)
    return {"reading": reading, "counting": counting}


def extra(checkpoint):
    return head(checkpoint)[2]


def points(checkpoint):
    return {"questions": {str(index): head(checkpoint)[0] / 100 for index in range(20)}}
"""

HEADS = {"a": [53.25, 99.25, 10], "b": [49.25, 91.25, 20]}
PLAIN = {"a": (53.25 + 99.25) / 2, "b": (49.25 + 91.25) / 2}
WEIGHTED = {"a": (3 * 53.25 + 99.25) / 4, "b": (3 * 49.25 + 91.25) / 4}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Two models whose scores are the numbers in their heads, and a judge that reads them."""
    monkeypatch.chdir(tmp_path)
    for seed, (name, head) in enumerate(HEADS.items()):
        make_checkpoint(Path("ckpts", name), seed, head=head)
    Path("judge.py").write_text(JUDGE)


def run(*line):
    """The document that a command prints with --json."""
    done = CliRunner().invoke(cli, [*line, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def search(strategy="greedy", *more):
    return run(strategy, "--pool", "ckpts", "-o", f"out-{strategy}", "--eval", "python:judge.py:pair", *more)


def overalls():
    """The overall of each row of the run's table, by name."""
    return {row["name"]: row["values"]["overall"] for row in run("report", "ckpts.soup")["rows"]}


def test_the_report_s_overall_is_the_weighted_one_that_the_run_chose_by():
    made = search("greedy", "--weights", "reading=3")
    chosen = {"+".join(trial["ingredients"]): trial["overall"] for trial in made["trials"]}
    assert chosen == pytest.approx({**WEIGHTED, "a+b": (WEIGHTED["a"] + WEIGHTED["b"]) / 2})
    assert WEIGHTED["a"] == 64.75  # and 76.25 would be the plain mean
    assert overalls() == pytest.approx({**WEIGHTED, "greedy": WEIGHTED["a"]})


def test_each_soup_in_the_report_has_the_overall_that_it_was_chosen_by():
    search("greedy", "--weights", "reading=3")
    search("average")
    search("maximum", "--weights", "counting=7")
    shown = overalls()
    for strategy in ("greedy", "average", "maximum"):
        kept = json.loads(Path(f"ckpts.soup/soups/{strategy}.json").read_text())
        (overall,) = {t["overall"] for t in kept["trials"] if t["recipe"] == kept["recipe"]["digest"]}
        assert shown[strategy] == pytest.approx(overall), strategy


def test_one_more_benchmark_for_one_model_leaves_all_overalls_as_they_were():
    search("greedy")
    assert overalls() == pytest.approx({**PLAIN, "greedy": PLAIN["a"]})
    run("eval", "ckpts/a", "--eval", "python:judge.py:extra")
    table = run("report", "ckpts.soup")
    assert table["columns"] == ["reading", "counting", "python:judge.py:extra", "overall"]
    assert [row["values"]["python:judge.py:extra"] for row in table["rows"] if row["name"] == "a"] == [10]
    assert overalls() == pytest.approx({**PLAIN, "greedy": PLAIN["a"]})


def test_without_a_search_a_model_keeps_its_overall_when_another_has_one_benchmark_more():
    run("eval", "ckpts/a", "ckpts/b", "--eval", "python:judge.py:pair")
    assert overalls() == pytest.approx(PLAIN)
    run("eval", "ckpts/a", "--eval", "python:judge.py:extra")
    assert overalls()["b"] == pytest.approx(PLAIN["b"])


@pytest.mark.parametrize("strategy", ["greedy", "average"])
def test_a_strategy_s_outcome_holds_the_pool_s_warnings_as_the_printed_document_does(strategy):
    Path("ckpts/logs").mkdir()
    made = search(strategy)
    assert made["warnings"] == ["logs: skipped, not a checkpoint"]
    assert json.loads(Path(f"ckpts.soup/soups/{strategy}.json").read_text()) == made


def test_the_report_says_on_an_ingredient_s_row_why_it_was_refused():
    search("greedy")
    remarks = {row["name"]: row["remark"] for row in run("report", "ckpts.soup")["rows"]}
    assert remarks == {
        "a": "",
        "b": "greedy refused: 73.25 < 76.25 (counting -4.0, reading -2.0)",
        "greedy": "a",
    }


def test_beside_scores_of_another_split_a_refusal_says_which_questions_it_is_about():
    search("greedy")
    run("average", "--pool", "ckpts", "--eval", "python:judge.py:points", "--split", "0.5", "-o", "halves")
    remarks = {row["name"]: row["remark"] for row in run("report", "ckpts.soup")["rows"]}
    assert remarks["b"].endswith("(counting -4.0, reading -2.0) (all questions)")


def test_strategies_that_refused_an_ingredient_for_one_reason_share_it():
    search("greedy")
    search("maximum")
    remarks = {row["name"]: row["remark"] for row in run("report", "ckpts.soup")["rows"]}
    assert remarks["b"] == "greedy, maximum refused: 73.25 < 76.25 (counting -4.0, reading -2.0)"


def test_the_report_of_an_earlier_version_s_result_says_nothing_of_why():
    search("greedy")
    without_key(Path("ckpts.soup/soups/greedy.json"), "why")
    assert {row["name"]: row["remark"] for row in run("report", "ckpts.soup")["rows"]} == {
        "a": "",
        "b": "",
        "greedy": "a",
    }
