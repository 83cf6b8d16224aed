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
from evaluators.lm_eval.model import isolated, language_model
from soup.errors import EvaluatorError, SoupError
from soup.evaluation.api import Benchmark, Candidate, Harness, Score, Split
from soup.evaluation.harnesses import Catalog
from soup.evaluation.settings import EvalSettings
from soup.support.text import did_you_mean

__all__ = ["LMEval"]

INSTALL = 'pip install "vlm-soup[lm-eval]"'
BEST_VALUES = {"f1": 1, "bleu": 100, "chrf": 100}
"""Metrics of a whole test set, with the best that they can be; the least is 0."""

Manager = Any
"""lm-eval's `TaskManager`."""

Task = Any
"""A task of lm-eval."""

Group = Any
"""A group of lm-eval's tasks."""

Row = Mapping[str, Any]
"""lm-eval's row about one question and one filter."""


@dataclass(frozen=True)
class LoadedTask:
    """A task, or a group of them, loaded with its data.

    Args:
        name: The task's or the group's.
        manager: What found it.
        tasks: By name; one where there is no group.
        group: lm-eval's group, if it is one.
        folder: Where its YAML files are; None for lm-eval's own.
    """

    name: str
    manager: Manager
    tasks: Mapping[str, Task]
    group: Group = None
    folder: Path | None = None

    @cached_property
    def metric(self) -> str:
        """The name of the metric that counts.

        Raises:
            EvaluatorError: of no metric more is better.
        """
        if self.group is not None:
            metrics = [aggregate.metric for aggregate in self.group.aggregate_metric_list or ()]
        else:
            (task,) = self.tasks.values()
            metrics = [name for name, is_better in task.higher_is_better().items() if is_better]
        if not metrics:
            inside = ",".join(self.tasks)
            raise EvaluatorError(f"lm_eval:{self.name} has no one score of which more is better. Inside: {inside}")
        return str(metrics[0])

    @cached_property
    def documents(self) -> dict[str, list[object]]:
        """The questions of each task, in lm-eval's order."""
        return {name: list(task.eval_docs) for name, task in self.tasks.items()}

    @cached_property
    def data_digest(self) -> str:
        """A digest of all questions, and of all that examples may be taken from."""
        digest = hashlib.sha256()
        for name, task in self.tasks.items():
            shots = list(task.fewshot_docs() or ()) if task.get_config("num_fewshot") else []
            for document in (*self.documents[name], *shots):
                digest.update(json.dumps([name, document], sort_keys=True, default=str).encode())
        return digest.hexdigest()

    @cached_property
    def code_digest(self) -> str | None:
        """A digest of the files that define a local task; of lm-eval's own the version says it."""
        if self.folder is None:
            return None
        digest = hashlib.sha256()
        for path in sorted(self.folder.rglob("*")):
            if path.suffix in (".yaml", ".yml", ".py"):
                digest.update(f"{path.relative_to(self.folder)}\0".encode() + path.read_bytes() + b"\0")
        return digest.hexdigest()

    def indices(self, split: Split) -> dict[str, list[int]] | None:
        """Return the indices of each task's questions that count; None for all of them.

        Raises:
            EvaluatorError: a task has none.
        """
        if split.part == "all":
            return None
        indices = {
            name: [index for index in range(len(documents)) if split.holds(question_id(name, index))]
            for name, documents in self.documents.items()
        }
        if empty := [name for name, counting in indices.items() if not counting]:
            raise EvaluatorError(f"lm_eval:{self.name}: no question in the {split.part} part of {', '.join(empty)}.")
        return indices


def question_id(task: str, index: int) -> str:
    """Name a question of a task. A slash would make a group of all that a task asks."""
    return f"{task}:{index}".replace("/", "_")


class LMEval(Harness):
    """Judges candidates on lm-eval's tasks, in the loaded engine that other benchmarks share.

    Raises:
        EvaluatorError: the engine that `settings.model` names is not there.
    """

    has_parts = False
    target_hint = "TASK[@DIR]"
    target_syntax = "list"

    def __init__(self, settings: EvalSettings) -> None:
        self.settings = settings
        self._swap = shared_swap(settings)
        self._tasks: dict[str, LoadedTask] = {}  # by target
        self._managers: dict[str, Manager] = {}  # by folder: lm-eval's own list of tasks takes seconds to read

    def identity(self, benchmark: Benchmark) -> Mapping[str, object]:
        """Return versions, the digests of task and data, the metric, and how the engine answers."""
        version = str(_lm_eval().__version__)
        loaded = self._loaded(benchmark)
        loaded.indices(benchmark.split)
        return {
            "evaluator": "lm_eval",
            "version": version,
            "task": loaded.name,
            "tasks": {
                name: {"version": str(task.VERSION), "examples": task.get_config("num_fewshot") or 0}
                for name, task in sorted(loaded.tasks.items())
            },
            "metric": loaded.metric,
            "prompt": "the task's, without a chat template",
            "data": loaded.data_digest,
            "code": loaded.code_digest,
            "answering": dict(self._swap.identity()),
        }

    def evaluate(self, candidate: Candidate, benchmark: Benchmark) -> Score:
        """Return the score by lm-eval's own `simple_evaluate`, with each question's points where it is their mean."""
        loaded = self._loaded(benchmark)
        engine = self._swap.engine_for(candidate)
        with isolated():
            model = language_model(engine, self.settings.batch_size)
            with few_threads(model.model):
                results = _lm_eval().simple_evaluate(
                    model=model,
                    tasks=[loaded.group] if loaded.group is not None else list(loaded.tasks.values()),
                    task_manager=loaded.manager,  # or lm-eval would read its thousands of files again
                    samples=loaded.indices(benchmark.split),
                    bootstrap_iters=0,
                    log_samples=True,
                )
        return _score(loaded, results)

    def _loaded(self, benchmark: Benchmark) -> LoadedTask:
        if benchmark.target not in self._tasks:
            name, _, directory = benchmark.target.partition("@")
            folder = Path(directory) if directory else None
            _lm_eval()
            with isolated():
                if directory not in self._managers:
                    self._managers[directory] = _task_manager(benchmark.target, folder)
                self._tasks[benchmark.target] = _load(self._managers[directory], name, folder)
        return self._tasks[benchmark.target]


def _lm_eval() -> Any:
    try:
        return importlib.import_module("lm_eval")
    except ImportError as cause:
        raise EvaluatorError(f"lm_eval: needs lm-eval, not importable here ({cause}): {INSTALL}.") from cause


def _task_manager(target: str, folder: Path | None) -> Manager:
    """What finds tasks by name: in the folder alone, or among lm-eval's own.

    Raises:
        EvaluatorError: no such folder.
    """
    if folder is not None and not folder.is_dir():
        raise EvaluatorError(f"lm_eval:{target}: no such folder: {folder.resolve()}")
    manager_class = importlib.import_module("lm_eval.tasks").TaskManager
    return manager_class(include_path=str(folder) if folder else None, include_defaults=folder is None)


def _load(manager: Manager, name: str, folder: Path | None) -> LoadedTask:
    """Load the task with its data.

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
    return LoadedTask(name, manager, loaded["tasks"], group, folder)


def _score(loaded: LoadedTask, results: Mapping[str, Any]) -> Score:
    row = results["groups" if loaded.group is not None else "results"][loaded.name]
    keys = [key for key in row if key.partition(",")[0] == loaded.metric and isinstance(row[key], int | float)]
    if not keys:
        raise EvaluatorError(f"lm_eval:{loaded.name}: lm-eval gave no {loaded.metric}, only {', '.join(row)}.")
    value = float(row[keys[0]])
    if not math.isfinite(value):
        raise EvaluatorError(f"lm_eval:{loaded.name}: lm-eval gave {loaded.metric} {value}.")
    points = dict(_points(results["samples"], loaded.metric, keys[0].partition(",")[2]))
    count = sum(len({row["doc_id"] for row in rows}) for rows in results["samples"].values())
    if len(points) == count and all(0 <= point <= 1 for point in points.values()):
        is_their_mean = math.isclose(math.fsum(points.values()) / count, value, abs_tol=1e-9)
        return Score(100 * value, count, points if is_their_mean else None)
    if loaded.metric in BEST_VALUES:
        return Score(100 * value / BEST_VALUES[loaded.metric], count)
    raise EvaluatorError(
        f"lm_eval:{loaded.name}: the scale of its metric {loaded.metric} is not known, so it can't stand beside others."
    )


def _points(samples: Mapping[str, Sequence[Row]], metric: str, filter_name: str) -> Iterator[tuple[str, float]]:
    """Yield each question's points, where the metric gives a number for each."""
    for task, rows in samples.items():
        for row in rows:
            value = row.get(metric)
            if row["filter"] == filter_name and isinstance(value, int | float):
                yield question_id(task, row["doc_id"]), float(value)
