"""A recipe as it is written, read and told."""

from __future__ import annotations

import pytest

from soup.merging.recipe import CheckpointSource, Recipe


def recipe(*names, **fields):
    return Recipe.uniform(CheckpointSource(name=name, path=f"team/{name}") for name in names).model_copy(update=fields)


@pytest.mark.parametrize("text", ["a\x85b", "a\u2028b", "\u732b", "a: b", "x" * 200, " a\nb "], ids=ascii)
def test_any_text_in_a_recipe_is_read_as_it_was_written(tmp_path, text):
    written = recipe("a", "b", params={"note": text})
    (tmp_path / "recipe.yaml").write_text(written.text(tmp_path), encoding="utf-8")
    assert Recipe.read(tmp_path / "recipe.yaml").params == {"note": text}


def test_ingredients_whose_weights_are_not_known_yet_are_not_taken_for_one_another():
    assert recipe("a", "b").repeated == []
    same = [CheckpointSource(name=name, path=f"team/{name}", digest="xxh3:1") for name in "ab"]
    assert Recipe.uniform(same).repeated == ["b holds the same weights as a: it counts twice"]
