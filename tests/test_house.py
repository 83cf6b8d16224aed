"""The rules of the house that a machine can hold: imports go down, names are complete, help is quick."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import soup

ROOT = Path(soup.__file__).parents[1]

# A room imports rooms of lower floors, and those before it on its own.
FLOORS = (
    ("errors", "tensors", "locks", "atomic", "_version"),
    ("shard", "checkpoint", "digest", "writer", "hub", "processors", "plugins", "evaluation", "objective", "certainty"),
    ("methods", "sidefiles"),
    ("recipe", "journal", "pool", "fused", "blend", "blocks", "card"),
    ("merge",),
    ("candidate", "jury", "strategies", "trial"),
    ("crew", "ray_crew", "speculate", "simulation"),
    ("search", "chosen", "outcome", "plan", "cook", "report", "tiny", "testing"),
    ("inspection", "console", "options", "training_commands", "cli"),
)
# So do those of the wing that makes the pool; `toy` stands beside them.
WING = ("mapping", "config", "jobs", "media", "points", "data", "training", "launching", "study")
PLACES = {room: place for place, room in enumerate(room for floor in FLOORS for room in floor)}
FILES = sorted(path for path in (ROOT / "soup").rglob("*.py") if path != ROOT / "soup/__init__.py")


def imported(path):
    """Every module that a file imports, those within functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_only_go_down(path):
    room = path.relative_to(ROOT / "soup").parts[0].removesuffix(".py")
    assert room in PLACES, f"a new room, {room}: give it a place in FLOORS"
    for module in imported(path):
        assert not module.startswith("."), f"{module}: imports name their module in full"
        package, _, rest = module.partition(".")
        assert package not in ("evaluators", "finetune"), "the wings import soup, never the reverse"
        if package == "soup":
            other = rest.partition(".")[0]
            assert other, "a room imports from the room that it needs, not from the package"
            assert other == room or PLACES[other] < PLACES[room], f"{other} is not below {room}"


@pytest.mark.parametrize("path", sorted((ROOT / "finetune").rglob("*.py")), ids=lambda path: path.stem)
def test_imports_of_the_wing_only_go_down(path):
    room = path.relative_to(ROOT / "finetune").parts[0].removesuffix(".py")
    for module in imported(path):
        package, _, rest = module.partition(".")
        other = rest.partition(".")[0]
        if package == "finetune" and room in WING and other != room:
            assert other in WING[: WING.index(room)], f"{other} is not below {room}"
        assert package != "finetune" or room in (*WING, "toy"), f"a new room, {room}: give it a place in WING"


def test_soup_s_names_are_sorted_complete_and_importable():
    assert soup.__all__ == sorted(soup.__all__)
    assert all(getattr(soup, name) is not None for name in soup.__all__)
    assert {*soup._HOMES, "__version__"} == set(soup.__all__)
    checked = ast.parse((ROOT / "soup/__init__.py").read_text(encoding="utf-8"))
    typed = {alias.name for node in ast.walk(checked) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert set(soup.__all__) <= typed, "type checkers see what TYPE_CHECKING imports"
    with pytest.raises(AttributeError, match="has no attribute 'gumbo'"):
        _ = soup.gumbo


def test_merge_and_cook_stay_functions_after_their_modules_are_imported():
    code = "import soup.merge, soup.cook, soup; assert callable(soup.merge) and callable(soup.cook)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
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
        "import json, sys; from soup.cli import main\n"
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
    code = (
        "import soup, soup.errors, soup.checkpoint, soup.evaluation, soup.digest, sys; sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
