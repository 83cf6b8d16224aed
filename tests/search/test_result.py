"""What stays of a run beside its journal, and what a run leaves alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import soup
from soup.errors import OutputError
from tests.helpers import flat_arguments as flat
from tests.helpers.toy_pools import make_checkpoint, make_judge, make_pool


@pytest.fixture
def spec(tmp_path, monkeypatch):
    """The benchmark of a judge of weights, beside a pool."""
    monkeypatch.chdir(tmp_path)
    make_pool("ckpts")
    return f"python:{make_judge(tmp_path / 'judge')}:score"


def read(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


def test_a_strategy_s_outcome_is_kept_as_the_document_that_json_prints(spec):
    made = soup.cook("greedy", pool="ckpts", eval=[spec], out="out")
    kept = read("ckpts.soup/soups/greedy.json")
    document = json.loads(json.dumps(made.as_json()))
    assert {**kept, "warnings": []} == {**document, "warnings": []}
    assert (kept["chosen"], len(kept["trials"])) == (["b", "c"], 7)


def test_a_base_that_the_method_does_not_read_is_not_read_and_has_no_digest(spec):
    make_checkpoint("base", 9)
    made = soup.cook("average", pool="ckpts", base="base", eval=[spec], out="out")
    assert made.recipe.base.digest is None
    assert {path.rpartition("/")[2] for path in read("ckpts.soup/digests.json")} == {"a", "b", "c", "d"}


@pytest.mark.parametrize("out", ["ckpts.soup/soups/out", "ckpts.soup/scratch/out", "ckpts.soup"])
def test_a_dry_run_refuses_an_output_among_the_run_s_own_files_too(spec, out):
    with pytest.raises(OutputError, match="is where the run keeps its own files"):
        flat.plan_cook("greedy", pool="ckpts", eval=[spec], out=out)
