"""Text benchmarks by EleutherAI's lm-eval: its tasks, prompts and metrics, our hot swap.

`lm_eval:TASK` is a task or a group of lm-eval's own, `lm_eval:TASK@DIR` one of the YAML files below DIR. The model is
asked with text alone, as lm-eval asks any language model: no chat template, the task's own number of examples.

The score is the task's first metric of which more is better (a group's first aggregate), through the task's first
filter, as a percentage. Nothing is ever looked up in lm-eval's caches of answers.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from evaluators.answering.engines.transformers import few_threads
from evaluators.answering.hot_swap import shared_swap
from evaluators.lm_eval.model import alone, language_model
from soup.errors import EvaluatorError, SoupError
from soup.evaluation.api import Benchmark, Candidate, Harness, Score, Split
from soup.evaluation.harnesses import Catalog
from soup.evaluation.settings import EvalSettings
from soup.support.text import did_you_mean

__all__ = ["LMEval"]

INSTALL = 'pip install "vlm-soup[lm-eval]"'
HIGHEST = {"f1": 1, "bleu": 100, "chrf": 100}
"""Metrics of a whole test set, with the best that they can be; the least is 0."""


@dataclass(frozen=True)
class Asked:
    """A task, or a group of them, loaded with its data."""

    name: str
    manager: Any
    tasks: Mapping[str, Any]
    group: Any = None
    folder: Path | None = None

    @cached_property
    def metric(self) -> str:
        """The name of the metric that counts."""
        if self.group is not None:
            chosen = [aggregate.metric for aggregate in self.group.aggregate_metric_list or ()]
        else:
            (task,) = self.tasks.values()
            chosen = [name for name, more in task.higher_is_better().items() if more]
        if not chosen:
            inside = ",".join(self.tasks)
            raise EvaluatorError(f"lm_eval:{self.name} has no one score of which more is better. Inside: {inside}")
        return str(chosen[0])

    @cached_property
    def documents(self) -> dict[str, list[Any]]:
        """The questions of each task, in lm-eval's order."""
        return {name: list(task.eval_docs) for name, task in self.tasks.items()}

    @cached_property
    def data(self) -> str:
        """A digest of all questions, and of all that examples may be taken from."""
        known = hashlib.sha256()
        for name, task in self.tasks.items():
            shots = list(task.fewshot_docs() or ()) if task.get_config("num_fewshot") else []
            for document in (*self.documents[name], *shots):
                known.update(json.dumps([name, document], sort_keys=True, default=str).encode())
        return known.hexdigest()

    @cached_property
    def code(self) -> str | None:
        """A digest of the files that define a local task; the version says it of lm-eval's own."""
        if self.folder is None:
            return None
        known = hashlib.sha256()
        for path in sorted(self.folder.rglob("*")):
            if path.suffix in (".yaml", ".yml", ".py"):
                known.update(f"{path.relative_to(self.folder)}\0".encode() + path.read_bytes() + b"\0")
        return known.hexdigest()

    def places(self, split: Split) -> dict[str, list[int]] | None:
        """Which questions of each task count, by their place; None for all of them."""
        if split.part == "all":
            return None
        found = {
            name: [place for place in range(len(documents)) if split.holds(question(name, place))]
            for name, documents in self.documents.items()
        }
        if empty := [name for name, places in found.items() if not places]:
            raise EvaluatorError(f"lm_eval:{self.name}: no question in the {split.part} part of {', '.join(empty)}.")
        return found


def question(task: str, place: int) -> str:
    """The identity of a question. A slash would make a group of all that a task asks."""
    return f"{task}:{place}".replace("/", "_")


class LMEval(Harness):
    """Judges candidates on lm-eval's tasks, in the one loaded model that other benchmarks share.

    Raises:
        EvaluatorError: the model that `settings.model` names is not there.
    """

    has_parts = False
    target_hint = "TASK[@DIR]"
    target_syntax = "list"

    def __init__(self, settings: EvalSettings) -> None:
        self.settings = settings
        self._swap = shared_swap(settings)
        self._asked: dict[str, Asked] = {}
        self._managers: dict[str, Any] = {}  # lm-eval's own list of tasks takes seconds to read

    def identity(self, benchmark: Benchmark) -> Mapping[str, Any]:
        """Versions, the digests of task and data, the metric, and how the model is made to answer."""
        version = str(_lm_eval().__version__)
        asked = self._of(benchmark)
        asked.places(benchmark.split)
        return {
            "evaluator": "lm_eval",
            "version": version,
            "task": asked.name,
            "tasks": {
                name: {"version": str(task.VERSION), "examples": task.get_config("num_fewshot") or 0}
                for name, task in sorted(asked.tasks.items())
            },
            "metric": asked.metric,
            "prompt": "the task's, without a chat template",
            "data": asked.data,
            "code": asked.code,
            "answering": dict(self._swap.identity()),
        }

    def evaluate(self, candidate: Candidate, benchmark: Benchmark) -> Score:
        """The candidate's score by lm-eval's own `simple_evaluate`, with each question's points where it is a mean."""
        asked = self._of(benchmark)
        answerer = self._swap.engine_for(candidate)
        with alone():
            model = language_model(answerer, self.settings.batch_size)
            with few_threads(model.model):
                told = _lm_eval().simple_evaluate(
                    model=model,
                    tasks=[asked.group] if asked.group is not None else list(asked.tasks.values()),
                    task_manager=asked.manager,  # or lm-eval would read its thousands of files again
                    samples=asked.places(benchmark.split),
                    bootstrap_iters=0,
                    log_samples=True,
                )
        return _score(asked, told)

    def _of(self, benchmark: Benchmark) -> Asked:
        if benchmark.target not in self._asked:
            name, _, place = benchmark.target.partition("@")
            _lm_eval()
            with alone():
                if place not in self._managers:
                    self._managers[place] = _manager(benchmark.target, Path(place) if place else None)
                manager = self._managers[place]
                self._asked[benchmark.target] = _load(manager, name, Path(place) if place else None)
        return self._asked[benchmark.target]


def _lm_eval() -> Any:
    try:
        return importlib.import_module("lm_eval")
    except ImportError as cause:
        raise EvaluatorError(f"lm_eval: needs lm-eval, not importable here ({cause}): {INSTALL}.") from cause


def _manager(target: str, folder: Path | None) -> Any:
    """What finds tasks by name: in the folder alone, or among lm-eval's own.

    Raises:
        EvaluatorError: no such folder.
    """
    if folder is not None and not folder.is_dir():
        raise EvaluatorError(f"lm_eval:{target}: no such folder: {folder.resolve()}")
    kind = importlib.import_module("lm_eval.tasks").TaskManager
    return kind(include_path=str(folder) if folder else None, include_defaults=folder is None)


def _load(manager: Any, name: str, folder: Path | None) -> Asked:
    """The task with its data.

    Raises:
        EvaluatorError: no such task, or data that can't be had.
    """
    if name not in manager.all_tasks:
        hint = did_you_mean(name, [*manager.all_tasks, *Catalog.load().benchmarks])
        where = f" in {folder}" if folder else ""
        raise EvaluatorError(f"lm_eval:{name}: lm-eval knows no task '{name}'{where}.{hint}")
    try:
        loaded = manager.load([name])
    except SoupError:
        raise
    except Exception as cause:
        raise EvaluatorError(
            f"lm_eval:{name}: the task or its data can't be loaded: {type(cause).__name__}: {cause}"
        ) from cause
    group = loaded["groups"].get(name)
    if group is None and len(loaded["tasks"]) != 1:
        inside = ",".join(loaded["tasks"])
        raise EvaluatorError(f"lm_eval:{name}: several tasks without one score; name them: lm_eval:{inside}")
    return Asked(name, manager, loaded["tasks"], group, folder)


def _score(asked: Asked, told: Mapping[str, Any]) -> Score:
    rows = told["groups" if asked.group is not None else "results"][asked.name]
    keys = [key for key in rows if key.partition(",")[0] == asked.metric and isinstance(rows[key], int | float)]
    if not keys:
        raise EvaluatorError(f"lm_eval:{asked.name}: lm-eval gave no {asked.metric}, only {', '.join(rows)}.")
    value = float(rows[keys[0]])
    if not math.isfinite(value):
        raise EvaluatorError(f"lm_eval:{asked.name}: lm-eval gave {asked.metric} {value}.")
    points = dict(_points(told["samples"], asked.metric, keys[0].partition(",")[2]))
    count = sum(len({row["doc_id"] for row in rows}) for rows in told["samples"].values())
    if len(points) == count and all(0 <= point <= 1 for point in points.values()):
        is_their_mean = math.isclose(math.fsum(points.values()) / count, value, abs_tol=1e-9)
        return Score(100 * value, count, points if is_their_mean else None)
    if asked.metric in HIGHEST:
        return Score(100 * value / HIGHEST[asked.metric], count)
    raise EvaluatorError(
        f"lm_eval:{asked.name}: the scale of its metric {asked.metric} is not known, so it can't stand beside others."
    )


def _points(
    samples: Mapping[str, Sequence[Mapping[str, Any]]], metric: str, through: str
) -> Iterator[tuple[str, float]]:
    """Each question's points, where the metric gives a number for each."""
    for task, rows in samples.items():
        for row in rows:
            value = row.get(metric)
            if row["filter"] == through and isinstance(value, int | float):
                yield question(task, row["doc_id"]), float(value)
