"""lm-eval's tasks, loaded with their data: which metric counts, which questions, and what they depend on."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from soup.errors import EvaluatorError, SoupError
from soup.evaluation.api import Benchmark
from soup.evaluation.harnesses import Catalog
from soup.support.text import bullet_list, did_you_mean

__all__ = ["LoadedTask", "Manager", "load_task", "question_id", "scale_error", "task_manager"]

Manager = Any
"""lm-eval's `TaskManager`."""

Task = Any
"""A task of lm-eval."""

Group = Any
"""A group of lm-eval's tasks."""


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
            EvaluatorError: of no metric more is better, or a group sums up what its tasks do not give.
        """
        reasons: dict[str, list[str]] = {}
        if self.group is not None:
            for aggregate in self.group.aggregate_metric_list or ():
                reasons[str(aggregate.metric)] = self._faults_of(aggregate)
            metrics = [name for name, faults in reasons.items() if not faults]
        else:
            (task,) = self.tasks.values()
            metrics = [name for name, is_better in task.higher_is_better().items() if is_better]
        if not metrics:
            inside = ",".join(self.tasks)
            why = "".join(f"\n{bullet_list(faults)}" for faults in reasons.values())
            raise EvaluatorError(f"lm_eval:{self.name} has no one score of which more is better. Inside: {inside}{why}")
        return str(metrics[0])

    def _faults_of(self, aggregate: Any) -> list[str]:
        """List why a group's metric is no score: tasks that lack it or its filter, or of which less is better."""
        faults = []
        for name, task in self.tasks.items():
            metrics = task.higher_is_better()
            filters = [ensemble.name for ensemble in getattr(task, "_filters", ())]
            if aggregate.metric not in metrics:
                faults.append(f"the group sums up {aggregate.metric}, and {name} gives {', '.join(metrics)} alone")
            elif not metrics[aggregate.metric]:
                faults.append(f"{aggregate.metric} of {name}: less is better")
            elif aggregate.filter_list and filters and not {*aggregate.filter_list} & {*filters}:
                wanted = ", ".join(aggregate.filter_list)
                faults.append(f"the group sums up the filter {wanted}, and {name} has {', '.join(filters)} alone")
        return faults

    def refuse_unknown_scale(self, known: Collection[str]) -> None:
        """Refuse a metric that lm-eval computes over a whole test set, on a scale that is not known here.

        What a task's own `process_results` gives shows with its first answers alone.

        Args:
            known: Metrics of a whole test set whose scale is known.

        Raises:
            EvaluatorError: the metric is none of them.
        """
        registry = importlib.import_module("lm_eval.api.registry")
        mean = registry.get_aggregation("mean")
        for task in self.tasks.values():
            is_own = getattr(getattr(task, "config", None), "process_results", None) is not None
            is_builtin = not is_own and self.metric in registry.METRIC_REGISTRY
            if is_builtin and self.metric not in known and task.aggregation().get(self.metric) is not mean:
                raise EvaluatorError(scale_error(self.name, self.metric))

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
            if path.suffix in (".yaml", ".yml", ".py") and path.is_file():
                digest.update(f"{path.relative_to(self.folder)}\0".encode() + path.read_bytes() + b"\0")
        return digest.hexdigest()

    def indices(self, benchmark: Benchmark) -> dict[str, list[int]] | None:
        """Return the indices of each task's questions that are asked; None for all of them.

        A task of which none is asked, though others are, is asked its first one that counts: lm-eval runs all tasks.

        Raises:
            EvaluatorError: a task has none.
        """
        split = benchmark.split
        if split.part == "all" and benchmark.only is None:
            return None
        counting = {
            name: [index for index in range(len(documents)) if split.holds(question_id(name, index))]
            for name, documents in self.documents.items()
        }
        if empty := [name for name, indices in counting.items() if not indices]:
            raise EvaluatorError(f"lm_eval:{self.name}: no question in the {split.part} part of {', '.join(empty)}.")
        return {
            name: [index for index in indices if benchmark.holds(question_id(name, index))] or indices[:1]
            for name, indices in counting.items()
        }


def scale_error(task: str, metric: str) -> str:
    """Say that a metric's scale is not known."""
    return f"lm_eval:{task}: the scale of its metric {metric} is not known, so it can't stand beside others."


def question_id(task: str, index: int) -> str:
    """Name a question of a task. A slash would make a group of all that a task asks."""
    return f"{task}:{index}".replace("/", "_")


def task_manager(target: str, folder: Path | None) -> Manager:
    """Build what finds tasks by name: in the folder alone, or among lm-eval's own.

    Args:
        target: The benchmark's, for errors.
        folder: Where YAML files are; None for lm-eval's own.

    Raises:
        EvaluatorError: no such folder.
    """
    if folder is not None and not folder.is_dir():
        raise EvaluatorError(f"lm_eval:{target}: no such folder: {folder.resolve()}")
    manager_class = importlib.import_module("lm_eval.tasks").TaskManager
    return manager_class(include_path=str(folder) if folder else None, include_defaults=folder is None)


def load_task(manager: Manager, name: str, folder: Path | None) -> LoadedTask:
    """Load a task with its data.

    Args:
        manager: From `task_manager`.
        name: The task's or a group's.
        folder: The manager's.

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
