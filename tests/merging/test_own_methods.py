"""A method of the user's own, in a file: what it did is remembered for its code and its base, and for no other."""

from __future__ import annotations

import json

import numpy as np
import pytest

import soup
from soup.errors import RecipeError
from soup.merging.options import MergeOptions
from soup.merging.recipe import Recipe
from soup.report.tables import run_table
from tests.helpers import flat_arguments as flat
from tests.helpers.toy_pools import calls, make_checkpoint, make_judge, make_pool

METHOD = """
from dataclasses import dataclass

from soup.merging.methods import Method


@dataclass(frozen=True)
class Towards(Method):
    needs_base = True

    def __call__(self, block):
        return block.base + 0.5 * (sum(theta - block.base for theta in block) / len(block))
"""


@pytest.fixture
def judge(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_pool(tmp_path / "ckpts")
    make_checkpoint(tmp_path / "base", 8, head=[0, 0, 0, 0])
    (tmp_path / "my.py").write_text(METHOD)
    return make_judge(tmp_path / "judge")


def cook(out, base="base", strategy="greedy"):
    evals = "python:judge/judge.py:score"
    return flat.cook(strategy, pool="ckpts", base=base, method="my.py:Towards", eval=evals, out=out)


def test_scores_of_an_edited_method_are_not_remembered(judge, tmp_path):
    before = cook("one")
    count = len(calls(judge))
    assert cook("one").recipe.digest == before.recipe.digest
    assert len(calls(judge)) == count, "the same code answers from the journal"
    (tmp_path / "my.py").write_text(METHOD.replace("0.5", "0.9"))
    after = cook("two")
    assert len(calls(judge)) > count
    assert {trial.overall for trial in after.trials}.isdisjoint(trial.overall for trial in before.trials)


def test_scores_with_another_base_are_not_remembered(judge, tmp_path):
    before = cook("one", strategy="average")
    count = len(calls(judge))
    make_checkpoint(tmp_path / "other", 9, head=[90, 90, 90, 90])  # the same configuration, other weights
    after = cook("two", base="other", strategy="average")
    assert len(calls(judge)) > count
    assert after.recipe.digest != before.recipe.digest


def test_what_a_method_with_a_base_came_to_is_the_trial_that_was_scored(judge):
    made = cook("one")
    assert made.recipe.digest in {trial.recipe.digest for trial in made.trials}
    (row,) = (row for row in run_table(judge.parent.parent / "ckpts.soup").rows if row.label == "greedy")
    assert row.values[0] is not None


def test_a_recipe_finds_its_method_from_any_folder_and_refuses_other_code(judge, tmp_path, monkeypatch):
    made = cook("one", strategy="average")
    assert "my.py:Towards" in (tmp_path / "one/README.md").read_text()
    assert str(tmp_path) not in (tmp_path / "one/README.md").read_text()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/my.py").write_text("raise SystemExit('not this one')")
    again = soup.merge("../one/recipe.yaml", "again", merge=MergeOptions(trust_code=True))
    assert again.digest == made.recipe.digest
    assert (tmp_path / "elsewhere/again/model.safetensors").read_bytes() == (
        tmp_path / "one/model.safetensors"
    ).read_bytes()
    (tmp_path / "my.py").write_text(METHOD.replace("0.5", "0.9"))
    with pytest.raises(RecipeError, match=r"The code of method .*my\.py:Towards is not the one"):
        soup.merge("../one/recipe.yaml", "third", merge=MergeOptions(trust_code=True))


def test_a_recipe_from_somebody_else_runs_no_code_without_trust_code(judge, tmp_path):
    made = cook("one", strategy="average")
    marker = f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
    (tmp_path / "my.py").write_text(METHOD + marker)
    for trusted in (False, True):
        with pytest.raises(RecipeError, match="is not the one that the recipe names"):
            soup.merge("one/recipe.yaml", "again", merge=MergeOptions(trust_code=trusted))
    text = (tmp_path / "one/recipe.yaml").read_text()
    (tmp_path / "foreign.yaml").write_text(
        text.replace("path: ../", "path: ")
        .replace("method: ../", "method: ")
        .replace(f"code: {made.recipe.code}\n", "")
    )
    with pytest.raises(RecipeError, match=r"comes with the recipe, and not with this install.*`trust_code`"):
        soup.merge("foreign.yaml", "again")
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "again").exists()
    soup.merge("foreign.yaml", "again", merge=MergeOptions(trust_code=True))
    assert (tmp_path / "ran").exists()


def test_a_module_that_a_recipe_names_is_not_imported_without_trust_code(tmp_path, monkeypatch):
    (tmp_path / "surprise.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    make_pool(tmp_path / "ckpts")
    (tmp_path / "recipe.yaml").write_text("method: surprise:M\ningredients: [{name: a, path: ckpts/a}]")
    with pytest.raises(RecipeError, match="comes with the recipe"):
        soup.merge(tmp_path / "recipe.yaml", tmp_path / "out")


def test_soups_own_methods_have_no_digest_of_code():
    parts = [{"name": "a", "path": "/a", "digest": "xxh3:1"}]
    sealed = Recipe(ingredients=parts).sealed(["xxh3:1"], "sha256:2")
    assert sealed.code is None
    assert "code" not in json.loads(sealed.model_dump_json(exclude_none=True))


FAULTY = {
    "raises": ("def __call__(self, block):\n        return {}[block.tensor_name]", "KeyError"),
    "gives no tensor": ("def __call__(self, block):\n        return 3", "'int' object has no attribute 'shape'"),
    "cuts in no known way": ("granularity = 'row'\n    def __call__(self, block):\n        return block[0]", "'row'"),
}


@pytest.mark.parametrize("fault", FAULTY)
def test_a_method_that_fails_is_one_error_with_its_name_and_its_trace(tmp_path, fault):
    body, said = FAULTY[fault]
    head = "from dataclasses import dataclass\nfrom soup.merging.methods import Method\n@dataclass(frozen=True)\n"
    (tmp_path / "bad.py").write_text(f"{head}class Bad(Method):\n    {body}\n")
    make_pool(tmp_path / "ckpts")
    with pytest.raises(RecipeError) as caught:
        flat.cook("average", pool=tmp_path / "ckpts", method=f"{tmp_path}/bad.py:Bad", out=tmp_path / "out")
    assert "bad.py:Bad" in str(caught.value)
    assert said in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["class Bad: pass", "class Bad(Method): __call__ = min"])
def test_what_is_no_method_is_told_before_anything_is_read(tmp_path, kind):
    (tmp_path / "bad.py").write_text(f"from soup.merging.methods import Method\n{kind}\n")
    make_checkpoint(tmp_path / "ckpts/a", tensors={"w": np.zeros(1, np.float32)})
    with pytest.raises(RecipeError, match="expected a frozen dataclass that is a subclass of"):
        flat.cook("average", pool=tmp_path / "ckpts", method=f"{tmp_path}/bad.py:Bad", out=tmp_path / "out")
