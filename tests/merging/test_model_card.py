from __future__ import annotations

from soup.merging.model_card import model_card
from soup.merging.recipe import Recipe

HOSTILE = "a\x1b[31m\n\n# Mine | ![x](http://x/y.png) <script> `code` \u202e"


def card(name, **fields):
    parts = [{"name": name, "path": "/a", "digest": "xxh3:1"}, {"name": "b", "path": "/b", "digest": "xxh3:2"}]
    recipe = Recipe(ingredients=parts, side_digest="sha256:1", **fields)
    return model_card(recipe, {name: {"all": 61.8}}, {"model_type": name})


def test_a_hostile_name_stays_in_its_cell():
    text = card(HOSTILE, strategy=HOSTILE, objective={"weights": {HOSTILE: 2.0}})
    body = text.partition("\n---\n")[2]
    assert not [character for character in text if character in "\x1b\u202e"]
    cell = r"a\\u001b\[31m\\n\\n# Mine \| !\[x\](http://x/y.png) \<script> \`code\` \\u202e"
    assert f"\n| {cell} | 1 | `xxh3:1` |\n" in body
    assert f"\n| {cell} | 61.80 |\n" in body
    assert f"Objective: {cell} weighs 2." in body
    assert [line for line in body.splitlines() if line.startswith("#")] == ["# A model soup", "## Scores"]


def test_an_ordinary_name_stands_as_it_is():
    assert "\n| my_model-1.5@v2 | 1 | `xxh3:1` |\n" in card("my_model-1.5@v2")
