"""Several searches by one strategy in one run: each is kept, and called by what it was asked otherwise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from soup.evaluation.objective import Objective
from soup.report.page.document import run_document
from soup.report.tables import run_table
from soup.search.result import search_titles
from tests.helpers import flat_arguments as flat
from tests.helpers.toy_pools import make_judge, make_pool

SCALES = ["scale (method x,y)", "scale (method x,y) #2"]
RESULT, SECOND = Path("run/soups/greedy.json"), Path("run/soups/greedy-2.json")


@pytest.fixture
def search(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_pool("ckpts")
    judge = make_judge("judge")

    def cook(out, benchmark="score", strategy="greedy", **options):
        return flat.cook(strategy, "ckpts", eval=f"python:{judge}:{benchmark}", run_dir="run", out=out, **options)

    return cook


def test_a_search_with_other_arguments_keeps_the_result_of_the_first(search):
    first = search("first", strategy="maximum", strategy_args={"top_k": 3})
    narrow = search("narrow", strategy="maximum", strategy_args={"top_k": 1})
    assert (len(first.chosen), len(narrow.chosen)) == (3, 1)
    assert [row.label for row in run_table(Path("run")).rows][-2:] == ["maximum (top_k 3)", "maximum (top_k 1)"]
    document = run_document(Path("run"))
    assert [each["strategy"] for each in document["searches"]] == ["maximum (top_k 1)", "maximum (top_k 3)"]
    labels = {row["title"]: row["label"] for row in document["headline"]["rows"]}
    assert labels["maximum (top_k 3)"].split(" + ") == sorted(first.chosen)
    assert labels["maximum (top_k 1)"] == narrow.chosen[0]
    assert "--strategy-arg top_k=1" in document["provenance"]["command"]


def test_the_same_search_replaces_its_own_result_alone(search):
    search("first")
    search("second", "two")
    before = SECOND.read_bytes()
    search("third")
    assert json.loads(RESULT.read_text())["out"] == "third"
    assert SECOND.read_bytes() == before
    assert len([*RESULT.parent.iterdir()]) == 2


@pytest.mark.parametrize(
    "options",
    [
        {"dtype": "float32"},
        {"drop": ["unit*"]},
        {"base": "ckpts/a"},
        {"objective": "weights"},
        {"method": "task-arithmetic", "base": "ckpts/a"},
    ],
    ids=str,
)
def test_a_search_that_merges_or_weighs_otherwise_is_another(search, options):
    search("first")
    (name,) = json.loads(RESULT.read_text())["trials"][0]["scores"]
    if "objective" in options:
        options = {"objective": Objective.parse([f"{name}=2"], [])}
    search("second", **options)
    assert [json.loads(path.read_text())["out"] for path in (RESULT, SECOND)] == ["first", "second"]


def test_a_search_with_guards_leaves_the_result_of_version_0_1_that_had_none(search):
    search("first")
    document = json.loads(RESULT.read_text())
    del document["arguments"]
    RESULT.write_text(json.dumps(document))
    (name,) = document["trials"][0]["scores"]
    search("second", objective=Objective.parse([], [f"{name}>=-5"]))
    assert json.loads(RESULT.read_text()) == document
    assert SECOND.exists()


@pytest.mark.parametrize("earlier", ["of a version that kept no arguments", "damaged"])
def test_a_result_of_an_earlier_version_and_a_damaged_one_are_replaced(search, earlier):
    search("first")
    if earlier == "damaged":
        RESULT.write_text("{")
    else:
        document = json.loads(RESULT.read_text())
        del document["arguments"]
        RESULT.write_text(json.dumps(document))
    search("again")
    assert json.loads(RESULT.read_text())["out"] == "again"
    assert not SECOND.exists()


def test_searches_are_called_by_what_tells_them_apart_and_by_nothing_else():
    def document(strategy="greedy", score="b", **arguments):
        scores = {name: {} for name in score.split(",")}
        return {"strategy": strategy, "trials": [{"scores": scores}], "recipe": {}, "arguments": arguments}

    alike = {"method": "linear", "split": 0.5}
    documents = [
        document(**alike),
        document(score="c", **alike),
        document(**alike, strategy_args={"patience": 2}),
        document("prune", **alike),
        *(document("soce", score=name, **alike) for name in ("a,b,c", "a,c,d")),
        *(document("scale", method="dare", **{kind: {"method": "x,y"}}) for kind in ("method_args", "strategy_args")),
    ]
    titles = ["greedy (eval b)", "greedy (eval c)", "greedy (eval b, patience 2)", "prune"]
    assert search_titles([document(split=split) for split in (None, 0.5)]) == [
        f"greedy (split {x})" for x in ("none", 0.5)
    ]
    assert search_titles(documents) == [*titles, "soce (eval a and 2 more)", "soce (eval a and 2 more) #2", *SCALES]


@pytest.mark.parametrize(
    ("key", "values", "shown"),
    [
        ("dtype", ["float16", "float32"], ["float16", "float32"]),
        ("drop", [["a*"], ["a*", "b*"]], ["a*", "a* b*"]),
        ("base", [{"name": "first"}, {"name": "second"}], ["first", "second"]),
        ("tokenizer", [{"name": "first"}, {"name": "second"}], ["first", "second"]),
    ],
)
def test_searches_whose_recipes_have_another_value_are_called_by_it(key, values, shown):
    documents = [{"strategy": "greedy", "trials": [], "recipe": {key: value}, "arguments": {}} for value in values]
    assert search_titles(documents) == [f"greedy ({key} {value})" for value in shown]
