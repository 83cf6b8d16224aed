"""What the source of VLMEvalKit's classes says of them, without importing them: that takes seconds for all."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import re
import warnings
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from evaluators.vlmeval.light_import import unused_by
from evaluators.vlmeval_version import INSTALL, version
from soup.errors import EvaluatorError

__all__ = [
    "entry_in_source",
    "library_root",
    "missing_packages",
    "missing_requirements",
    "names_in_source",
    "source_of",
    "text_in_source",
    "tree_of",
]

PACKAGE = "vlmeval"
BARE = ("", "dataset")
"""Packages of which no code is run, see `light_import`."""
REQUIREMENTS = {"antlr4": "antlr4-python3-runtime==4.11.*", "dotenv": "python-dotenv"}
"""What is to be installed for packages of other names; of one the version that sympy reads LaTeX with, and no other."""
KEYS = re.compile(r"list\(cls\.DATASET_URL(\.keys\(\))?\)")
"""What a class returns where its data sets are the keys of a dictionary, as they are by default."""


@cache
def library_root() -> Path:
    """Return VLMEvalKit's folder.

    Raises:
        EvaluatorError: it is not installed.
    """
    version()
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise EvaluatorError(f"VLMEvalKit's package vlmeval can't be found: {INSTALL}.")
    return Path(next(iter(spec.submodule_search_locations)))


@cache
def source_of(module: str) -> str:
    """Return the text of a module below `vlmeval`; empty where it is no file."""
    path = library_root().joinpath(*module.split("."))
    file = next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)
    return "" if file is None else file.read_text("utf-8")


@cache
def tree_of(module: str) -> ast.Module:
    """Return what a module below `vlmeval` is made of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd escapes in VLMEvalKit's texts
        return ast.parse(source_of(module))


def names_in_source(module: str, class_name: str) -> list[str] | None:
    """Return the names of a class's data sets; None where the source does not say them in plain words."""
    for body in _bodies(module, class_name):
        function = next((node for node in body if getattr(node, "name", "") == "supported_datasets"), None)
        if isinstance(function, ast.FunctionDef):
            last = function.body[-1]
            value = last.value if isinstance(last, ast.Return) else None
            if isinstance(value, ast.List):
                return _texts(value.elts)
            if value is None or not KEYS.fullmatch(ast.unparse(value)):
                return None
            break
    table = _assigned(module, class_name, "DATASET_URL")
    return _texts(table.keys) if isinstance(table, ast.Dict) else None


def text_in_source(module: str, class_name: str, name: str) -> str | None:
    """Return a class's attribute that is a text; None where the source does not say it in plain words."""
    value = _assigned(module, class_name, name)
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else None


def entry_in_source(module: str, class_name: str, name: str, key: str) -> str | None:
    """Return a text of a class's dictionary; None where the source does not say it in plain words."""
    table = _assigned(module, class_name, name)
    pairs = zip(table.keys, table.values, strict=True) if isinstance(table, ast.Dict) else ()
    values = (getattr(value, "value", None) for each, value in pairs if getattr(each, "value", None) == key)
    return next((value for value in values if isinstance(value, str)), None)


@cache
def missing_packages(module: str) -> tuple[str, ...]:
    """Return the packages that importing a module below `vlmeval` asks for, and that are not installed."""
    seen, waiting, missing, unused = {*BARE, module}, [module], dict[str, None](), unused_by(module)
    while waiting:
        for name in _imports(waiting.pop()):
            top, _, below = name.partition(".")
            if top != PACKAGE and top not in unused and not _is_installed(top):
                missing[top] = None
            elif top == PACKAGE and below not in seen:
                seen.add(below)
                waiting.append(below)
    return tuple(missing)


def missing_requirements(packages: Sequence[str]) -> list[str]:
    """Return what is to be installed of packages, by the names that they are imported by, in the words of pip."""
    missing = []
    for package in packages:
        name, _, version = (requirement := REQUIREMENTS.get(package, package)).partition("==")
        is_here = importlib.util.find_spec(package) is not None
        if not is_here or (version and not importlib.metadata.version(name).startswith(version.rstrip("*"))):
            missing.append(requirement)
    return missing


def _imports(module: str) -> Iterator[str]:
    """Yield the full names of what a module below `vlmeval` imports as it is imported itself."""
    is_package = library_root().joinpath(*module.split(".")).is_dir()
    parent = f"{PACKAGE}.{module}" if is_package else f"{PACKAGE}.{module}".rpartition(".")[0]
    for node in tree_of(module).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield importlib.util.resolve_name("." * node.level + (node.module or ""), parent)


@cache
def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


@cache
def _bodies(module: str, class_name: str) -> tuple[Sequence[ast.stmt], ...]:
    """Return the statements of a class, then of what it inherits from, as far as that is VLMEvalKit's."""
    return tuple(_find_bodies(module, class_name))


def _find_bodies(module: str, class_name: str) -> Iterator[Sequence[ast.stmt]]:
    tree = tree_of(module)
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == class_name:
            yield node.body
            for base in node.bases:
                yield from _bodies(module, getattr(base, "id", ""))
            return
        if isinstance(node, ast.ImportFrom) and class_name in (alias.name for alias in node.names):
            parent = f"{PACKAGE}.{module}".rpartition(".")[0]
            full = importlib.util.resolve_name("." * node.level + (node.module or ""), parent)
            if full.startswith(f"{PACKAGE}."):
                yield from _bodies(full.removeprefix(f"{PACKAGE}."), class_name)
            return


@cache
def _assigned(module: str, class_name: str, name: str) -> ast.expr | None:
    """Return what a name of a class is assigned, unless something else is done with it, too."""
    for body in _bodies(module, class_name):
        about = [node for node in body if not isinstance(node, ast.FunctionDef) and name in _names_in(node)]
        if about:
            node = about[0]
            return node.value if len(about) == 1 and isinstance(node, ast.Assign | ast.AnnAssign) else None
    return None


def _names_in(node: ast.stmt) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def _texts(nodes: Sequence[ast.expr | None]) -> list[str] | None:
    values = [getattr(node, "value", None) for node in nodes]
    texts = [value for value in values if isinstance(value, str)]
    return texts if len(texts) == len(values) else None
