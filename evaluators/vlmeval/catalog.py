"""Every data set of VLMEvalKit, by its own name: the class that has it, and the rule by which it is scored here.

What there is stands in VLMEvalKit's `dataset/__init__.py`, read as text: importing it would import all. A class is
imported once its data set is asked for.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from evaluators.vlmeval.benchmarks import BENCHMARKS, CHOICE, CHOICES, OPEN, YES_NO, VLMEvalBenchmark
from evaluators.vlmeval.light_import import vlmeval_module
from evaluators.vlmeval.metrics import METRICS
from evaluators.vlmeval.rules import IN_MEMORY, REFUSED, RULES, Rule
from evaluators.vlmeval_version import version
from soup.errors import EvaluatorError
from soup.evaluation.api import Benchmark, BenchmarkInfo
from soup.support.text import did_you_mean

__all__ = ["all_data_sets", "is_data_set", "known_benchmark"]

CIRCULAR_NAMES = ("mmbench", "ccbench", "circular", "mmcr")
"""VLMEvalKit's rule: a multiple choice data set with one of these in its name is asked in rotations."""
OWN_REPORTS = ("MMVP", "MMSci")
"""Multiple choice data sets, by the start of their names, that VLMEvalKit reports by a table of their own."""
KINDS = {"MCQ": CHOICE, "Y/N": YES_NO, "Caption": "captions"}
FILM_KINDS = {
    "TempCompass_MCQ": CHOICE,
    "TempCompass_YorN": YES_NO,
    "TempCompass_Captioning": "captions",
    "VideoMME": CHOICE,
    "MMBenchVideo": OPEN,
}
PARTS_OF_FILMS = ("TempCompass_MCQ", "TempCompass_YorN", "TempCompass_Captioning")
"""Data sets of which VLMEvalKit has names for numbers of frames only all together; so are their classes called."""
DEFAULT_FRAMES = 8
METRICS_OF_ONE_CLASS = ("contained", "extracted", "graded")
COLUMNS = {"choices": CHOICES[:-1], "circular": CHOICES[:-1], "vqa": ("index", "question")}


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


def known_benchmark(benchmark: Benchmark) -> VLMEvalBenchmark:
    """Return what is known of a benchmark that was asked for: by its short name, or by the data set's in VLMEvalKit.

    Raises:
        EvaluatorError: there is none of that name, or it can't be scored here; says why.
    """
    name = benchmark.target
    if name in BENCHMARKS:
        return BENCHMARKS[name]
    if (short := next((entry for entry in BENCHMARKS.values() if entry.data_set == name), None)) is not None:
        return short
    if (films := _films().get(name)) is not None:
        return films
    if (data_set := find_data_set(name)) is None:
        known = [*BENCHMARKS, *(row for owner in _classes() for row in _names_if_any(owner) or ())]
        raise EvaluatorError(f"Unknown benchmark '{name}'.{did_you_mean(name, known)}")
    return _entry(name, data_set)


def is_data_set(name: str) -> bool:
    """Whether VLMEvalKit has a data set of that name."""
    return name in _films() or find_data_set(name) is not None


@cache
def find_data_set(name: str) -> DataSetClass | None:
    """Return the class of a data set of images of VLMEvalKit's; of several, the one that VLMEvalKit takes.

    Classes whose source names the data set are imported first: mostly that is one.
    """
    version()
    classes = _classes()
    naming = [owner for owner in classes if f"'{name}'" in (text := _source(owner.module)) or f'"{name}"' in text]
    for owner in dict.fromkeys((*naming, *classes)):
        names = _names_if_any(owner)
        if names is None and naming == [owner]:
            owner.data_sets()  # which says what is missing
        if names and name in names:
            return owner
    return None


@cache
def _names_if_any(owner: DataSetClass) -> frozenset[str] | None:
    """Return the names of a class's data sets, imported once; None where it can't be imported."""
    try:
        return frozenset(owner.data_sets())
    except (EvaluatorError, AttributeError):
        return None


def all_data_sets() -> Iterator[tuple[str, BenchmarkInfo, str]]:
    """Yield every data set of VLMEvalKit's with what is known of it, and why it can't be scored here, if so."""
    yield from ((name, entry.info, "") for name, entry in _films().items())
    seen = {entry.data_set for entry in BENCHMARKS.values()}
    for owner in _classes():
        try:
            names = owner.data_sets()
        except (EvaluatorError, AttributeError) as reason:
            yield owner.name, BenchmarkInfo("", owner.name, None, ""), str(reason)
            continue
        for name in names:
            if name not in seen:
                seen.add(name)
                try:
                    yield name, _entry(name, owner).info, ""
                except EvaluatorError as reason:
                    yield name, BenchmarkInfo(_kind(owner), name, None, ""), str(reason)


@cache
def _films() -> dict[str, VLMEvalBenchmark]:
    """Return the data sets of films, by VLMEvalKit's names for numbers of frames; without a number, with a default."""
    modules = _modules()
    named = [(f"{name}_{frames}frame", name, name, frames) for name in PARTS_OF_FILMS for frames in (8, 64)]
    films = {}
    for name, class_name, data_set, frames in (*_configured_films(), *named):
        for each, count in ((name, frames), (data_set, DEFAULT_FRAMES)):
            films[each] = _film_entry(each, data_set, DataSetClass(class_name, modules[class_name]), count)
    return films


def _configured_films() -> Iterator[tuple[str, str, str, int]]:
    """Yield name, class, data set and frames of VLMEvalKit's settings that show a fixed number of frames, no more."""
    tree = ast.parse((_root() / "dataset" / "video_dataset_config.py").read_text("utf-8"))
    for node in (node for node in ast.walk(tree) if isinstance(node, ast.Dict)):
        for key, call in zip(node.keys, node.values, strict=True):
            if not (isinstance(key, ast.Constant) and isinstance(call, ast.Call) and call.args):
                continue
            settings = {setting.arg: getattr(setting.value, "value", None) for setting in call.keywords}
            class_name, frames = getattr(call.args[0], "id", ""), settings.get("nframe")
            is_plain = not settings.get("pack") and set(settings) <= {"dataset", "nframe", "pack"}
            if class_name in FILM_KINDS and is_plain and isinstance(frames, int):
                yield str(key.value), class_name, str(settings["dataset"]), frames


def _film_entry(name: str, data_set: str, owner: DataSetClass, frames: int) -> VLMEvalBenchmark:
    rule = RULES[owner.name]
    info = BenchmarkInfo(
        f"films, {frames} frames",
        data_set,
        None,
        rule.description,
        judge=rule.judge == "always",
        kind=FILM_KINDS[owner.name],
    )
    return VLMEvalBenchmark(name, info, owner.module, owner.name, (), "evaluate", rule=rule, frames=frames)


def _entry(name: str, owner: DataSetClass) -> VLMEvalBenchmark:
    metric, rule = _metric(name, owner.name)
    if metric is None and rule is None:
        reason = REFUSED.get(owner.name, "no rule says how VLMEvalKit's result for it becomes 0 to 100")
        raise EvaluatorError(f"{name}: not judged here: {reason}.")
    words = rule.description if rule else METRICS[str(metric)].description
    is_judged = metric in ("extracted", "graded") or (rule is not None and rule.judge == "always")
    info = BenchmarkInfo("", name, None, words, judge=is_judged, kind=_kind(owner))
    same = next((entry for entry in BENCHMARKS.values() if entry.class_name == owner.name), None)
    model = same if metric in METRICS_OF_ONE_CLASS else None
    return VLMEvalBenchmark(
        name,
        info,
        owner.module,
        owner.name,
        model.columns if model else COLUMNS.get(metric or "", ("index",)),
        metric or "evaluate",
        literals=model.literals if model else (),
        filled=model.filled if model else (),
        judge_tokens=model.judge_tokens if model else 2048,
        rule=rule,
    )


def _metric(name: str, class_name: str) -> tuple[str | None, Rule | None]:
    special = next((start for start in OWN_REPORTS if name.startswith(start)), None)
    if class_name == "ImageMCQDataset" and special:
        return None, RULES[special]
    metric = next((metric for metric, classes in IN_MEMORY.items() if class_name in classes), None)
    if metric == "choices" and any(part in name.lower() for part in CIRCULAR_NAMES):
        metric = "circular"
    return metric, RULES.get(class_name)


def _kind(owner: DataSetClass) -> str:
    kind = str(getattr(owner.load(), "TYPE", "VQA"))
    return KINDS.get(kind.removeprefix("Video-"), OPEN)


@cache
def _classes() -> tuple[DataSetClass, ...]:
    """All classes over images, in VLMEvalKit's order: of two that have a data set, the first has it."""
    tree, modules = _index(), _modules()
    names: list[str] = []
    for node in tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        value = getattr(node, "value", None)
        if isinstance(target, ast.Name) and target.id == "IMAGE_DATASET" and isinstance(value, ast.List):
            names += [element.id for element in value.elts if isinstance(element, ast.Name)]
    return tuple(DataSetClass(name, modules[name]) for name in names if name in modules)


@cache
def _index() -> ast.Module:
    return ast.parse((_root() / "dataset" / "__init__.py").read_text("utf-8"))


@cache
def _modules() -> dict[str, str]:
    """Return the module below `vlmeval` of each class."""
    return {
        alias.name: f"dataset.{node.module}"
        for node in _index().body
        if isinstance(node, ast.ImportFrom) and node.level == 1
        for alias in node.names
    }


@cache
def _source(module: str) -> str:
    path = _root().joinpath(*module.split("."))
    file = path.with_suffix(".py")
    return file.read_text("utf-8") if file.is_file() else ""


@cache
def _root() -> Path:
    version()
    spec = importlib.util.find_spec("vlmeval")
    if spec is None or not spec.submodule_search_locations:
        raise EvaluatorError("VLMEvalKit's package vlmeval can't be found.")
    return Path(next(iter(spec.submodule_search_locations)))
