"""What VLMEvalKit's own tables of contents say, read as text: importing them would import all of its classes."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from evaluators.vlmeval.light_import import vlmeval_module
from evaluators.vlmeval_version import version
from soup.errors import EvaluatorError

__all__ = ["DataSetClass", "FilmSetting", "classes_in", "collections", "film_settings", "module_of", "source_of"]


@dataclass(frozen=True)
class DataSetClass:
    """A class of VLMEvalKit's, and the module below `vlmeval` that has it."""

    name: str
    module: str

    def load(self) -> Any:
        """Import the class."""
        return getattr(vlmeval_module(self.module), self.name)

    def data_sets(self) -> list[str]:
        """Import the class and return the names of its data sets."""
        return [str(name) for name in self.load().supported_datasets()]


@dataclass(frozen=True)
class FilmSetting:
    """A name that VLMEvalKit has for showing a data set of films in one way.

    Args:
        name: VLMEvalKit's.
        class_name: Its class.
        data_set: The data set's own name.
        frames: How many frames of a film are shown; 0 where that is not all that the setting says.
    """

    name: str
    class_name: str
    data_set: str
    frames: int


@cache
def classes_in(table: str) -> tuple[DataSetClass, ...]:
    """Return the classes of a table such as `IMAGE_DATASET`, in VLMEvalKit's order."""
    names: list[str] = []
    for node in _index().body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        value = getattr(node, "value", None)
        if isinstance(target, ast.Name) and target.id == table and isinstance(value, ast.List):
            names += [element.id for element in value.elts if isinstance(element, ast.Name)]
    return tuple(DataSetClass(name, _modules()[name]) for name in names if name in _modules())


@cache
def collections() -> Mapping[str, tuple[str, ...]]:
    """Return the names that stand for several data sets of images together, with those."""
    values = [
        statement.value
        for node in _index().body
        if isinstance(node, ast.ClassDef) and node.name == "ConcatDataset"
        for statement in node.body
        if isinstance(statement, ast.Assign) and getattr(statement.targets[0], "id", "") == "DATASET_SETS"
    ]
    return {name: tuple(parts) for value in values for name, parts in ast.literal_eval(value).items()}


@cache
def film_settings() -> tuple[FilmSetting, ...]:
    """Return VLMEvalKit's names for ways to show films."""
    tree = ast.parse((_root() / "dataset" / "video_dataset_config.py").read_text("utf-8"))
    return tuple(_settings_in(tree))


def _settings_in(tree: ast.Module) -> Iterator[FilmSetting]:
    for node in (node for node in ast.walk(tree) if isinstance(node, ast.Dict)):
        for key, call in zip(node.keys, node.values, strict=True):
            if not (isinstance(key, ast.Constant) and isinstance(call, ast.Call) and call.args):
                continue
            settings = {setting.arg: getattr(setting.value, "value", None) for setting in call.keywords}
            frames = settings.get("nframe")
            is_plain = not settings.get("pack") and set(settings) <= {"dataset", "nframe", "pack"}
            count = frames if is_plain and isinstance(frames, int) else 0
            yield FilmSetting(str(key.value), getattr(call.args[0], "id", ""), str(settings["dataset"]), count)


def module_of(class_name: str) -> str:
    """Return the module below `vlmeval` that has a class."""
    return _modules()[class_name]


@cache
def source_of(module: str) -> str:
    """Return the text of a module below `vlmeval`; empty where it is no file."""
    path = _root().joinpath(*module.split("."))
    file = path.with_suffix(".py")
    return file.read_text("utf-8") if file.is_file() else ""


@cache
def _index() -> ast.Module:
    return ast.parse((_root() / "dataset" / "__init__.py").read_text("utf-8"))


@cache
def _modules() -> dict[str, str]:
    return {
        alias.name: f"dataset.{node.module}"
        for node in _index().body
        if isinstance(node, ast.ImportFrom) and node.level == 1
        for alias in node.names
    }


@cache
def _root() -> Path:
    version()
    spec = importlib.util.find_spec("vlmeval")
    if spec is None or not spec.submodule_search_locations:
        raise EvaluatorError("VLMEvalKit's package vlmeval can't be found.")
    return Path(next(iter(spec.submodule_search_locations)))
