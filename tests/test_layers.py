"""The rules of the house that a machine can hold: imports go down, names are complete, help is quick."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import soup

ROOT = Path(soup.__file__).parents[1]

PACKAGES = ("soup", "evaluators", "finetune")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
MODULES = [path for path in FILES if path.name not in ("__init__.py", "__main__.py")]


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def test_import_linter_s_contracts_hold():
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as lint; lint()", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert ", 0 broken" in done.stdout


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("soup/support/text.py", "from soup.checkpoints import shard"),
        ("soup/search/run.py", "from finetune import jobs"),
        ("finetune/jobs/job.py", "from soup.cli import app"),
        ("finetune/points/model.py", "from evaluators.answering import batching"),
        ("evaluators/python.py", "from finetune.training import train"),
        ("soup/merging/recipe.py", "from soup.merging import pool"),
        ("finetune/media/images.py", "from finetune.points import model"),
        ("soup/kitchen.py", "from soup import errors"),
    ],
    ids=lambda word: word.split()[-1],
)
def test_an_import_that_goes_up_is_told(file, line, tmp_path):
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "setup.cfg", tmp_path)
    path = tmp_path / file
    path.write_text((path.read_text(encoding="utf-8") if path.exists() else '"""New."""\n') + f"{line}\n")
    code = "import sys; sys.path.insert(0, ''); from importlinter.cli import lint_imports_command as lint; lint()"
    done = subprocess.run(
        [sys.executable, "-c", code, "--no-cache"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stdout
    assert "BROKEN" in done.stdout or "kitchen" in done.stdout


def imported(path):
    """Every module that a file imports, those within functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_name_their_module_in_full(path):
    assert not [module for module in imported(path) if module.startswith(".")]


# Plug-ins are found by name, and what `import soup` offers is imported on first use: there alone modules are strings.
BY_NAME = {"soup/support/plugins.py", "soup/search/workers/forking.py", "soup/__init__.py"}


def imports_by_string(path):
    """Whether a file imports a module of ours, or one that nobody can tell, by a string."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("importlib.import_module", "import_module"):
            name = ast.unparse(node.args[0]).removeprefix("f").strip("'\"")
            if isinstance(node.args[0], ast.Name) or name.partition(".")[0] in (*PACKAGES, "_MODULES[name]"):
                yield name


def test_no_module_of_ours_is_imported_by_a_string_but_plug_ins():
    keys = {name_of(path) for path in FILES if list(imports_by_string(path))}
    assert keys - {"evaluators/lm_eval/model.py"} == BY_NAME  # lm-eval's modules, from a list there


def test_soup_s_names_are_sorted_complete_and_importable():
    assert soup.__all__ == sorted(soup.__all__)
    assert all(getattr(soup, name) is not None for name in soup.__all__)
    assert {*soup._MODULES, "__version__"} == set(soup.__all__)
    checked = ast.parse((ROOT / "soup/__init__.py").read_text(encoding="utf-8"))
    typed = {alias.name for node in ast.walk(checked) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert set(soup.__all__) <= typed, "type checkers see what TYPE_CHECKING imports"
    with pytest.raises(AttributeError, match="has no attribute 'gumbo'"):
        _ = soup.gumbo


def test_merge_and_cook_stay_functions_after_all_modules_are_imported():
    code = "import soup.merging.merge, soup.search.run, soup; assert callable(soup.merge) and callable(soup.cook)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_says_what_it_is_and_what_it_offers(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    assert "__all__" in names_set_by(tree) or path.name == "_version.py"


def names_set_by(tree):
    assigned = [node for node in tree.body if isinstance(node, ast.Assign)]
    return {target.id for node in assigned for target in node.targets if isinstance(target, ast.Name)}


def test_the_newest_version_in_the_changelog_is_the_package_s():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d{2}-\d{2}$", text, flags=re.MULTILINE)
    assert versions[0] == soup.__version__


def loaded_by(*arguments):
    code = (
        "import json, sys; from soup.cli.app import main\n"
        "sys.argv[1:] = json.loads(sys.argv[1])\n"
        "try: main()\n"
        "finally: print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, json.dumps(arguments)], capture_output=True, text=True)
    return done.stdout, set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize("arguments", [["--help"], ["greedy", "--help"], ["--version"]], ids=" ".join)
def test_help_answers_without_the_heavy_imports(arguments):
    said, modules = loaded_by(*arguments)
    assert "soup" in said
    assert not {"torch", "pydantic", "numpy", "transformers", "rich", "yaml", "safetensors"} & modules


def test_inspecting_a_package_needs_no_torch():
    code = "import soup, soup.errors, soup.checkpoints.digest, soup.evaluation, sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
