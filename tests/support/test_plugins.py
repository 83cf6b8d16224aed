"""Plug-ins are found by name: those that ship, those of other packages, those in a user's file."""

from __future__ import annotations

import hashlib
import json
import sys

import pytest

from soup.errors import EvaluatorError, RecipeError
from soup.support.plugins import EVALUATORS, METHODS, STRATEGIES, PluginInfo, Registry, code_digest, load_object


@pytest.fixture
def registry():
    return Registry("toy", "soup.no_such_group", RecipeError, {"dumps": "json:dumps", "gone": "no_such_module:gone"})


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package that offers two toys by entry points, one under a name that soup has itself."""
    (tmp_path / "toy_soup-1.0.dist-info").mkdir()
    (tmp_path / "toy_soup-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: toy-soup\nVersion: 1.0\n")
    entry_points = "[soup.no_such_group]\nball = toy_soup:ball\ndumps = toy_soup:ball\n"
    (tmp_path / "toy_soup-1.0.dist-info/entry_points.txt").write_text(entry_points)
    (tmp_path / "toy_soup.py").write_text("def ball():\n    '''A round one.\n\n    And more.\n    '''\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("toy_soup", None)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "my.py"
    path.write_text("import dataclasses\n\n@dataclasses.dataclass\nclass Toy:\n    size: int = 1\n\nvalue = 1\n")
    return path


def test_what_ships_is_imported_when_it_is_asked_for(registry):
    assert registry.get("dumps") is json.dumps


def test_a_package_s_plug_in_is_known_by_its_entry_point_and_can_t_replace_what_ships(registry, package):
    assert registry.names() == ["ball", "dumps", "gone"]
    assert registry.get("ball").__module__ == "toy_soup"
    assert registry.get("dumps") is json.dumps


def test_a_decorated_function_is_known_for_the_rest_of_the_process(registry):
    @registry.register("mine")
    def mine():
        """My own toy."""

    assert registry.get("mine") is mine
    assert registry.names() == ["dumps", "gone", "mine"]
    assert registry.entries()[-1] == PluginInfo("mine", "this process", "My own toy.")


def test_a_listing_names_source_and_summary_and_why_one_is_broken(registry, package):
    ball, dumps, gone = registry.entries()
    assert ball == PluginInfo("ball", "toy_soup:ball", "A round one.")
    assert (dumps.source, dumps.summary, dumps.broken) == ("soup", json.dumps.__doc__.split("\n")[0], None)
    assert (gone.source, gone.summary) == ("soup", "")
    assert "importing no_such_module failed: ModuleNotFoundError" in gone.broken


def test_an_unknown_name_is_told_with_the_nearest_one_in_the_registry_s_own_error(registry):
    with pytest.raises(RecipeError, match=r"^Unknown toy 'dump'\. Did you mean 'dumps'\? Known: dumps, gone\.$"):
        registry.get("dump")


def test_a_class_of_a_user_s_file_is_loaded_once_while_the_file_stays(registry, file):
    toy = registry.get(f"{file}:Toy")
    assert toy().size == 1, "a dataclass finds its own module"
    assert registry.get(f"{file}:Toy") is toy


def test_two_files_of_one_name_are_two_modules(registry, file):
    other = file.parent / "other" / "my.py"
    other.parent.mkdir()
    other.write_text("value = 2\n")
    assert (registry.get(f"{file}:value"), registry.get(f"{other}:value")) == (1, 2)


@pytest.mark.parametrize("location", ["my.py", ":Toy", "my.py:", "json:"])
def test_half_a_location_is_refused(location):
    with pytest.raises(EvaluatorError, match=r"^model '.*': expected FILE.py:NAME or package.module:NAME\.$"):
        load_object(location, "model", EvaluatorError)


def test_a_missing_file_module_or_name_is_told(file):
    for location, message in (
        (f"{file.parent}/none.py:Toy", f"no such file: {file.parent}/none.py"),
        ("no_such_module:Toy", "importing no_such_module failed: ModuleNotFoundError"),
        (f"{file}:Tpy", "has no 'Tpy'. Did you mean 'Toy'? Known: Toy, dataclasses, value."),
    ):
        with pytest.raises(EvaluatorError) as caught:
            load_object(location, "model", EvaluatorError)
        assert str(caught.value).startswith(f"model '{location}': ")
        assert message in str(caught.value)


def test_a_module_beside_the_file_is_told_with_what_finds_it(file):
    file.write_text("import a_helper_of_mine")
    with pytest.raises(EvaluatorError) as caught:
        load_object(f"{file}:value", "model", EvaluatorError)
    assert "PYTHONPATH" not in str(caught.value)
    (file.parent / "a_helper_of_mine.py").touch()
    with pytest.raises(EvaluatorError, match=f"a_helper_of_mine.py is found with {file.parent} in PYTHONPATH"):
        load_object(f"{file}:value", "model", EvaluatorError)


@pytest.mark.parametrize("line", ["1 / 0", "raise SystemExit(3)", "def broken(:"])
def test_whatever_a_file_raises_is_told_as_its_failure_and_it_may_be_mended(line, file):
    whole = file.read_text()
    file.write_text(line)
    before = set(sys.modules)
    with pytest.raises(EvaluatorError, match=r"importing .*my.py failed: (ZeroDivision|SystemExit|Syntax)"):
        load_object(f"{file}:value", "model", EvaluatorError)
    assert not [name for name in set(sys.modules) - before if name.startswith("soup_file_")]
    file.write_text(whole)
    assert load_object(f"{file}:value", "model", EvaluatorError) == 1


def test_an_interrupt_while_a_file_is_imported_is_an_interrupt(file):
    file.write_text("raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load_object(f"{file}:value", "model", EvaluatorError)


def test_the_digest_of_code_is_its_file_s_and_soup_s_own_and_typed_code_have_none(file):
    expected = "sha256:" + hashlib.sha256(file.read_bytes()).hexdigest()
    assert code_digest(load_object(f"{file}:Toy", "model", EvaluatorError)) == expected
    assert code_digest(METHODS.get("linear")) is None
    prompt = {"__name__": "__main__"}
    exec("def typed(): pass", prompt)
    assert code_digest(prompt["typed"]) is None


@pytest.mark.parametrize("registry", [METHODS, STRATEGIES, EVALUATORS], ids=lambda registry: registry.kind)
def test_all_that_ships_can_be_imported_and_says_what_it_is(registry):
    shipped = [entry for entry in registry.entries() if entry.source == "soup"]
    assert {entry.name for entry in shipped} == set(registry.shipped)
    assert all(entry.summary and entry.broken is None for entry in shipped), shipped
