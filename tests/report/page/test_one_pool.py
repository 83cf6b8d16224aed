"""A run directory that searches over several pools share: models of one name are not taken for each other."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from soup.cli.app import cli
from soup.errors import JournalError
from soup.evaluation.progress import Progress
from soup.report.page.document import run_document
from soup.report.sweep import sweep
from soup.report.tables import run_table
from soup.search.evaluate import evaluate
from tests.helpers import flat_arguments as flat
from tests.helpers.earlier_results import without_key
from tests.helpers.toy_pools import make_checkpoint, make_judge, make_pool


@pytest.fixture
def cook(tmp_path, monkeypatch):
    """Searches in one run directory; `c` of the pool may be trained anew between them."""
    monkeypatch.chdir(tmp_path)
    make_pool("ckpts")
    judge = make_judge("judge")

    def search(strategy, **options):
        return flat.cook(
            strategy, "ckpts", eval=f"python:{judge}:score", run_dir="run", out=f"out-{strategy}", **options
        )

    return search


def train_anew(name, head):
    shutil.rmtree(Path("ckpts", name))
    make_checkpoint(Path("ckpts", name), 3, head=head)


def test_a_model_that_was_trained_anew_is_the_one_of_the_last_search(cook):
    train_anew("a", [1, 2, 3, 4])
    assert cook("exhaustive").chosen == ("a",)
    train_anew("a", [9, 9, 9, 9])
    made = cook("greedy")
    assert made.chosen == ("b", "c")
    document = run_document(Path("run"))
    titles = {row["title"]: row for row in document["headline"]["rows"]}
    assert titles["best single model"]["label"] == "b", "the a of before was the best of all"
    assert [*titles] == ["best single model", "greedy"], "the mean of all holds the a of before"
    assert document["ingredients"]["parts"]["all"]["a"] == {f"python:{Path('judge/judge.py')}:score": 93.5}
    assert [search["strategy"] for search in document["searches"]] == ["greedy"]
    [remark] = [remark for remark in document["remarks"] if "left out" in remark]
    assert remark == "exhaustive: left out, for it searched over other models of the same names (a)"


def test_a_model_that_was_scored_alone_later_is_not_the_pool_s_of_that_name(cook):
    cook("greedy")
    make_checkpoint("elsewhere/a", 3, head=[1, 2, 3, 4])
    evaluate([Path("elsewhere/a")], eval="python:judge/judge.py:score", run_dir="run")
    rows = run_document(Path("run"))["headline"]["rows"]
    assert next(row["label"] for row in rows if row["title"] == "best single model") == "b"


def test_the_points_of_a_line_are_no_search_that_is_under_way(cook):
    sweep("ckpts/a", "ckpts/b", eval="python:judge/judge.py:score", steps=5, run_dir="run")
    document = run_document(Path("run"))
    assert (document["under_way"], document["searches"]) == (False, [])
    assert (document["headline"]["singles"], document["headline"]["soups"]) == (2, 0)
    assert len(document["sweeps"][0]["trials"]) == 5
    cook("greedy")
    Path("run/soups/greedy.json").unlink()
    document = run_document(Path("run"))
    assert document["under_way"]
    assert [trial["label"] for trial in document["searches"][0]["trials"]] == [
        *"abcd",
        "b + c",
        "b + c + d",
        "a + b + c",
    ]


def test_models_that_were_scored_alone_are_no_search_that_is_under_way(cook):
    evaluate([Path("ckpts/a"), Path("ckpts/b")], eval="python:judge/judge.py:score", run_dir="run")
    document = run_document(Path("run"))
    assert (document["under_way"], document["searches"]) == (False, [])
    Path("run/scratch").mkdir()
    assert run_document(Path("run"))["under_way"], "a model is being scored"


def test_a_mean_that_an_unfinished_search_scored_is_shown_where_a_later_line_has_it_too(cook):
    cook("greedy")
    Path("run/soups/greedy.json").unlink()
    sweep("ckpts/b", "ckpts/c", eval="python:judge/judge.py:score", steps=5, run_dir="run")
    labels = [trial["label"] for trial in run_document(Path("run"))["searches"][0]["trials"]]
    assert labels == [*"abcd", "b + c", "b + c + d", "a + b + c"]


def test_a_refusal_stands_beside_the_model_that_was_refused_alone(cook):
    cook("maximum")
    train_anew("d", [1, 2, 6, 4.4])
    cook("greedy")
    remarks = [row.remark for row in run_table(Path("run")).rows if row.label == "d"]
    assert [remark.partition(" refused")[0] for remark in remarks] == ["maximum", "greedy"]


def test_searches_by_two_methods_are_over_one_pool(cook):
    cook("maximum")
    cook("greedy", method="karcher")
    document = run_document(Path("run"))
    assert {search["strategy"] for search in document["searches"]} == {"maximum", "greedy"}
    assert not any("left out" in remark for remark in document["remarks"])


def test_a_result_of_an_earlier_version_that_tells_no_single_models_is_taken(cook):
    cook("maximum")
    without_key(Path("run/soups/maximum.json"), "single")
    cook("greedy")
    assert len(run_document(Path("run"))["searches"]) == 2


def test_the_line_that_makes_a_search_again_has_its_base_and_how_it_merged(cook):
    make_checkpoint("base", 9, head=[0, 0, 0, 0])
    cook("greedy", base="base", method="task-arithmetic", dtype="float16", drop=["vision.*"])
    command = run_document(Path("run"))["provenance"]["command"]
    assert command == (
        "soup greedy --pool a b c d --base base --eval python:judge/judge.py:score --method task-arithmetic "
        "--dtype float16 --drop 'vision.*'"
    )


def typed_again(command):
    """What the command line makes of the line, over the same pool, without what only says where things are."""
    words = shlex.split(command)
    paths = [f"ckpts/{word}" if word in ("a", "b", "c", "d") else word for word in words]
    outcome = CliRunner().invoke(cli, [*paths[1:], "--run-dir", "again", "-o", "again-out", "--json"])
    assert outcome.exit_code == 0, outcome.stderr
    return json.loads(outcome.stdout)


def test_the_line_that_makes_a_search_again_has_what_was_asked_for_and_not_what_the_strategy_varied(cook):
    make_checkpoint("base", 9, head=[0, 0, 0, 0])
    grid = {"scale": [0.5, 0.00001, 1.25]}
    made = cook("scale", base="base", strategy_args={"grid": grid, "start": "average", "accept": "gt"})
    assert (made.recipe.method, made.recipe.params["scale"]) == ("task-arithmetic", 0.5)
    command = run_document(Path("run"))["provenance"]["command"]
    assert command == (
        "soup cook --strategy scale --strategy-arg 'grid={scale: [0.5, 1.0e-05, 1.25]}' --strategy-arg start=average "
        "--pool a b c d --base base --eval python:judge/judge.py:score"
    )
    again = typed_again(command)
    assert again["recipe"] == json.loads(json.dumps(made.as_json()["recipe"]))
    assert [trial["recipe"] for trial in again["trials"]] == [trial.recipe.digest for trial in made.trials]


def test_the_line_that_makes_a_search_again_is_of_that_search_alone(cook):
    cook("average")
    made = cook("greedy", exclude=["d"], strategy_args={"accept": "gt"})
    evaluate([Path("ckpts/a")], eval="python:judge/judge.py:other", run_dir="run", progress=Progress())
    command = run_document(Path("run"))["provenance"]["command"]
    assert command == (
        "soup cook --strategy greedy --strategy-arg accept=gt --pool a b c --eval python:judge/judge.py:score"
    )
    assert typed_again(command)["recipe"]["digest"] == made.recipe.digest


def test_the_line_of_a_search_of_an_earlier_version_is_from_its_recipe(cook):
    cook("greedy", method="karcher", method_args={"unit": "row"})
    expected = run_document(Path("run"))["provenance"]["command"]
    result = Path("run/soups/greedy.json")
    document = json.loads(result.read_text())
    del document["arguments"]
    result.write_text(json.dumps(document))
    assert run_document(Path("run"))["provenance"]["command"] == expected
    assert expected.endswith("--method karcher --method-arg unit=row")
    result.write_text(json.dumps({**document, "arguments": {"method_args": 3}}))
    with pytest.raises(JournalError, match=r"greedy\.json: damaged"):
        run_document(Path("run"))
