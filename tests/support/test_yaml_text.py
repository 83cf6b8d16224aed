from __future__ import annotations

import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from finetune.config_file import read_config
from finetune.study.config import read_study
from soup.errors import RecipeError, SoupError
from soup.merging.recipe import Recipe
from soup.support.yaml_text import parse_yaml


def bomb(first, level):
    """Nine levels, each with nine aliases of the one before it."""
    lines = [f"a: &a {first}"]
    for below, name in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{name}: &{name} {level % ', '.join([f'*{below}'] * 9)}")
    return "\n".join(lines)


HOSTILE = {
    "aliases that unfold": (bomb("[x, x, x]", "[%s]"), "with all aliases unfolded"),
    "merged aliases that unfold": (bomb("{x: 1}", "{<<: [%s]}"), "with all aliases unfolded"),
    "an alias within what it names": ("a: &a [*a]", "*a: stands within what it names"),
    "3,000 lists in one another": ("[" * 3000 + "]" * 3000, "nested more than 100 deep"),
    "mappings in one another": ("\n".join(" " * depth + "a:" for depth in range(300)), "nested more than 100 deep"),
    "half a surrogate pair": (r'a: "\ud800"', "half of a surrogate pair"),
    "half a surrogate pair as a key": (r'"\ud800": 1', "half of a surrogate pair"),
    "an escape beyond Unicode": (r'a: "\UFFFFFFFF"', "not readable as YAML"),
    "keys of two types": ("1: a\nb: c", "b: keys of one mapping must be all text, or all numbers"),
    "a mapping for a key": ("{{}: 3}", "a key must be text"),
    "a list for a key": ("? [a]\n: 3", "a key must be text"),
    "nothing for a key": ("~: 3", "a key must be text"),
    "no bool": ("a: !!bool x", "'x' can't be read as bool"),
    "no int": ("a: !!int ''", "can't be read as int"),
    "no float": ("a: !!float x", "can't be read as float"),
    "a date by tag": ("a: !!timestamp 2020-99-99", "timestamp"),
    "a set": ("a: !!set {b, c}", "set"),
    "an object": ("a: !!python/object/apply:os.getcwd []", "python/object"),
    "5,000 digits": ("a: " + "9" * 5000, "a number of 5,000 digits"),
    "5,000 digits in a directive": ("%YAML " + "9" * 5000 + ".1\n---\na: 1", "not readable as YAML"),
    "a key that stands twice": ("a: 1\na: 2", "a: stands there twice"),
    "a number that stands twice": ("1: a\n0x1: b", "0x1: stands there twice"),
    "a control character": ("a: \x1b[31m", "special characters are not allowed"),
    "60,000 keys": ("\n".join(f"k{number}: 1" for number in range(60_000)), "more than 50,000 keys and values"),
    "2 MB": ("a: " + "x" * 2_000_000, "at most 1,000,000 bytes"),
}


@pytest.mark.parametrize("read", [Recipe.read, read_config, read_study], ids=["recipe", "finetune", "study"])
@pytest.mark.parametrize(("text", "reason"), HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_yaml_is_one_error_that_names_file_and_reason(tmp_path, text, reason, read):
    path = tmp_path / "file.yaml"
    path.write_text(text)
    began = time.process_time()
    with pytest.raises(SoupError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert time.process_time() - began < 10


@pytest.mark.parametrize(
    ("text", "document"),
    [
        ("a: 2020-99-99\nb: 2020-01-01", {"a": "2020-99-99", "b": "2020-01-01"}),
        ("on: 1\nyes: on", {"on": 1, "yes": True}),
        ("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: [*a, *a]", {"a": {"x": 1}, "b": {"x": 1, "y": 2}, "c": [{"x": 1}] * 2}),
        ("a: 1e-5\nb: 010\nc: 1:30", {"a": "1e-5", "b": 8, "c": 90}),
        ("1: a\n2: b", {1: "a", 2: "b"}),
        ("", None),
    ],
)
def test_yaml_is_read_as_its_version_1_1_has_it_without_dates(text, document):
    assert parse_yaml(text, "x", SoupError) == document


texts = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]))  # yaml writes no other line ends right
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
    max_leaves=20,
)


@given(values)
def test_what_was_written_is_read_again(document):
    assert parse_yaml(yaml.safe_dump(document, allow_unicode=True), "x", SoupError) == document


@pytest.mark.parametrize(
    "line", ["method: {long}.py:M", "base: {{name: b, path: {long}}}", 'base: {{name: b, path: "\\0"}}']
)
def test_a_name_that_no_disk_can_hold_is_told(tmp_path, line):
    path = tmp_path / "recipe.yaml"
    path.write_text(line.format(long="x" * 300) + "\ningredients: [{name: a, path: a}]")
    with pytest.raises(RecipeError, match=r"recipe\.yaml: "):
        Recipe.read(path)
    with pytest.raises(RecipeError, match="no recipe can be read there"):
        Recipe.read("x" * 300)
