"""A run directory that searches over several pools share: models of one name are not taken for each other."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

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
