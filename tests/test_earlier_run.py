"""A run directory, recipes and a pool that an earlier version made still answer: nothing is evaluated or trained again.

`tests/data/earlier_run` was written by the commit before the packages became layers.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import soup
from finetune.launching.launch import finetune
from finetune.launching.status import status
from soup.errors import FinetuneError
from soup.evaluation.objective import Objective
from soup.merging.recipe import Recipe
from soup.report.tables import run_table
from tests.helpers import flat_arguments as flat
from tests.helpers.toy_pools import tree

# The pool's configuration in today's words; finetune.yaml beside the pool has those of the version that made it.
POOL = """
start: tiny
data: data/base
added: {a: data/a, b: {path: data/b, category: text}}
include_base: true
sweep: {lr: [1.0e-3], warmup_ratio: [0.0, 0.1]}
lr: 1.0e-3
lr_overrides: {vision_projector: 1.0e-4}
global_batch_size: 4
attn_implementation: eager
mixture: {categories: {text: 0.5}}
steps: 3
executor: local
"""

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


def test_an_earlier_pool_is_done_and_nothing_of_it_is_trained_again(tmp_path):
    pool = tmp_path / "pool"
    shutil.copytree(EARLIER / "pool", pool)
    (pool / "finetune.yaml").write_text(POOL)
    before = tree(pool / "ckpts")
    jobs = [f"{name}-lr0.001-warmup{share}" for name in ("a", "b", "base") for share in ("0", "0.1")]
    assert {row.name: row.state for row in status(pool / "finetune.yaml")} == dict.fromkeys(jobs, "done")
    made = finetune(pool / "finetune.yaml", command=_not_called)
    assert [path.name for path in made] == jobs
    assert tree(pool / "ckpts") == before


def test_what_differs_from_an_earlier_pool_is_told_in_today_s_words(tmp_path):
    pool = tmp_path / "pool"
    shutil.copytree(EARLIER / "pool", pool)
    (pool / "finetune.yaml").write_text(POOL.replace("global_batch_size: 4", "global_batch_size: 8"))
    with pytest.raises(FinetuneError, match="- global_batch_size: 4 there, 8 now"):
        finetune(pool / "finetune.yaml", command=_not_called)


def _not_called(job, gpus):
    raise AssertionError(f"{job.name} would be trained")
