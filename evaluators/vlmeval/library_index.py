"""What VLMEvalKit's own tables of contents say, read as text: importing them would import all of its classes."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from evaluators.vlmeval.library_source import entry_in_source, names_in_source, text_in_source, tree_of
from evaluators.vlmeval.light_import import vlmeval_module

__all__ = ["DataSetClass", "VideoSetting", "classes_in", "collections", "module_of", "video_settings"]


@dataclass(frozen=True)
class DataSetClass:
    """A class of VLMEvalKit's, and the module below `vlmeval` that has it."""

    name: str
    module: str

    def load(self) -> Any:
        """Import the class."""
        return getattr(vlmeval_module(self.module), self.name)

    def data_sets(self) -> list[str]:
        """Return the names of its data sets; only where its source does not say them is the class imported."""
        names = names_in_source(self.module, self.name)
        return [str(name) for name in self.load().supported_datasets()] if names is None else names

    def address(self, data_set: str) -> str | None:
        """Return where VLMEvalKit downloads a data set's table from; None where it does not say that."""
        address = entry_in_source(self.module, self.name, "DATASET_URL", data_set)
        return (self.load().DATASET_URL.get(data_set) if address is None else address) or None

    def kind(self) -> str:
        """Return VLMEvalKit's word for the kind of its questions."""
        kind = text_in_source(self.module, self.name, "TYPE")
        return str(getattr(self.load(), "TYPE", "VQA")) if kind is None else kind


@dataclass(frozen=True)
class VideoSetting:
    """A name that VLMEvalKit has for showing a data set of videos in one way.

    Args:
        name: VLMEvalKit's.
        class_name: Its class.
        data_set: The data set's own name.
        frames: How many frames of a video are shown; 0 where that is not all that the setting says.
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
def video_settings() -> tuple[VideoSetting, ...]:
    """Return VLMEvalKit's names for ways to show videos."""
    return tuple(_settings_in(tree_of("dataset.video_dataset_config")))


def _settings_in(tree: ast.Module) -> Iterator[VideoSetting]:
    for node in (node for node in ast.walk(tree) if isinstance(node, ast.Dict)):
        for key, call in zip(node.keys, node.values, strict=True):
            if not (isinstance(key, ast.Constant) and isinstance(call, ast.Call) and call.args):
                continue
            settings = {setting.arg: getattr(setting.value, "value", None) for setting in call.keywords}
            frames = settings.get("nframe")
            is_plain = not settings.get("pack") and set(settings) <= {"dataset", "nframe", "pack"}
            count = frames if is_plain and isinstance(frames, int) else 0
            yield VideoSetting(str(key.value), getattr(call.args[0], "id", ""), str(settings["dataset"]), count)


def module_of(class_name: str) -> str:
    """Return the module below `vlmeval` that has a class."""
    return _modules()[class_name]


def _index() -> ast.Module:
    return tree_of("dataset")


@cache
def _modules() -> dict[str, str]:
    return {
        alias.name: f"dataset.{node.module}"
        for node in _index().body
        if isinstance(node, ast.ImportFrom) and node.level == 1
        for alias in node.names
    }
