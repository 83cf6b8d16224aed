"""A run directory, recipes and a pool that an earlier version made still answer: nothing is evaluated or trained again.

`tests/data/earlier_run` was written by the commit before the packages became layers.
"""

import json
import shutil
from pathlib import Path

import pytest

import soup
from soup.evaluation.objective import Objective
from soup.merging.recipe import Recipe
from soup.report.tables import run_table
from tests.helpers import flat_arguments as flat

EARLIER = Path(__file__).parent / "data" / "earlier_run"
EVAL = ["python:judge.py:score", "python:judge.py:two"]
GUARDED = Objective.parse(["python:judge.py:score=2"], ["reading>=-5"])


@pytest.fixture
def run(tmp_path, monkeypatch):
    shutil.copytree(EARLIER, tmp_path / "run")
    monkeypatch.chdir(tmp_path / "run")
    return tmp_path / "run"


def scores(run):
    return (run / "ckpts.soup" / "journal.jsonl").read_bytes()


def outcome(run, strategy):
    return json.loads((run / "ckpts.soup" / "soups" / f"{strategy}.json").read_text())


@pytest.mark.parametrize(
    ("strategy", "out", "options"),
    [
        ("greedy", "out", {"objective": GUARDED}),
        ("maximum", "soups/maximum", {}),
        ("average", "soups/average", {"dtype": "float64"}),
    ],
)
def test_the_same_search_evaluates_nothing_and_chooses_the_same_soup(run, strategy, out, options):
    before, journal, weights = outcome(run, strategy), scores(run), (run / out / "model.safetensors").read_bytes()
    soup_again = flat.cook(strategy, pool="ckpts", base="base", eval=EVAL, out=f"{out}-again", **options)
    assert all(trial.seconds is None for trial in soup_again.trials)
    assert scores(run) == journal
    assert soup_again.recipe.digest == before["recipe"]["digest"]
    assert [*soup_again.chosen] == before["chosen"]
    assert (run / f"{out}-again" / "model.safetensors").read_bytes() == weights


@pytest.mark.parametrize("out", ["out", "soups/maximum", "soups/average"])
def test_an_earlier_recipe_makes_the_same_bytes_and_has_the_same_digest(run, out):
    recipe = Recipe.read(run / out / "recipe.yaml")
    assert f"Recipe digest: `{recipe.digest}`" in (run / out / "README.md").read_text()
    soup.merge(run / out / "recipe.yaml", "again")
    assert (run / "again" / "model.safetensors").read_bytes() == (run / out / "model.safetensors").read_bytes()


def test_the_report_of_an_earlier_run_has_all_of_its_models(run):
    labels = [row.label for row in run_table(run / "ckpts.soup").rows]
    assert labels == [*"abcd", "average", "greedy", "maximum"]
