"""Text benchmarks by EleutherAI's lm-eval: its tasks, prompts and metrics, our hot swap.

`lm_eval:TASK` is a task or a group of lm-eval's own, `lm_eval:TASK@DIR` one of the YAML files below DIR. The model is
asked with text alone, as lm-eval asks any language model: no chat template, the task's own number of examples.

The score is the task's first metric of which more is better (a group's first aggregate), through the task's first
filter, as a percentage. Nothing is ever looked up in lm-eval's caches of answers.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from evaluators.answering.batching import Model
from evaluators.answering.engines.transformers import few_threads
from evaluators.answering.response_cache import ResponseCache, response_key
from evaluators.answering.session import shared_session
from evaluators.lm_eval.choice_losses import losses_of_choices
from evaluators.lm_eval.dealing import Request, answer_requests, evaluate_dealt
from evaluators.lm_eval.model import HFLM, isolated, language_model
from evaluators.lm_eval.tasks import LoadedTask, Manager, load_task, question_id, scale_error, task_manager
from soup.errors import EvaluatorError
from soup.evaluation.api import Benchmark, Candidate, Harness, OnReplies, Score
from soup.evaluation.dealing import dealer_of
from soup.evaluation.settings import EvalSettings
from soup.support.extras import install_line

__all__ = ["LMEval"]

BEST_VALUES = {"f1": 1, "bleu": 100, "chrf": 100}
"""Metrics of a whole test set, with the best that they can be; the least is 0."""

Row = Mapping[str, Any]
"""lm-eval's row about one question and one filter."""


class LMEval(Harness):
    """Scores candidates on lm-eval's tasks, in the loaded engine that other benchmarks share.

    Args:
        settings: The engine that answers, and how it is asked.

    Raises:
        EvaluatorError: the engine that `settings.model` names is not there.
    """

    has_parts = False
    target_hint = "TASK[@DIR]"
    target_syntax = "list"

    def __init__(self, settings: EvalSettings) -> None:
        self.settings = settings
        self._engine = shared_session(settings)
        self._tasks: dict[str, LoadedTask] = {}  # by target
        self._models: WeakKeyDictionary[Model, HFLM] = WeakKeyDictionary()
        self._managers: dict[str, Manager] = {}  # by folder: lm-eval's own list of tasks takes seconds to read

    def identity(self, benchmark: Benchmark) -> Mapping[str, object]:
        """Return versions, the digests of task and data, the metric, and how the engine answers."""
        version = str(_lm_eval().__version__)
        loaded = self._loaded(benchmark)
        loaded.indices(benchmark)
        loaded.refuse_unknown_scale(BEST_VALUES)
        measures = {} if benchmark.measures == "score" else {"measures": "likelihood of the right choice, per token"}
        return measures | {
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
            "answering": dict(self._engine.identity()),
        }

    def evaluate(self, candidate: Candidate, benchmark: Benchmark) -> Score:
        """Return the score by lm-eval's own `simple_evaluate`, with each question's points where it is their mean."""
        loaded = self._loaded(benchmark)
        if (dealer := dealer_of(candidate)) is not None:
            kept = ResponseCache(candidate.kept / f"lm_eval-{response_key(benchmark.target)}.jsonl")
            facts = ["lm_eval", candidate.digest, dict(self._engine.identity())]
            evaluate = partial(self._results, loaded, benchmark)
            results = evaluate_dealt(evaluate, candidate, dealer, kept, facts)
            return _score(loaded, results, is_part=benchmark.only is not None)
        with self._model(candidate) as model:
            results = self._results(loaded, benchmark, model)
        if benchmark.measures == "likelihood":
            return Score.of_loss(list(losses_of_choices(results["samples"], model.tok_encode)))
        return _score(loaded, results, is_part=benchmark.only is not None)

    def asks_some(self, benchmark: Benchmark) -> bool:
        """Say whether there are no examples in prompts: lm-eval draws them by what it asked before."""
        tasks = self._loaded(benchmark).tasks.values()
        return not any(task.get_config("num_fewshot") for task in tasks)

    def answer(self, candidate: Candidate, requests: Sequence[Request], on_replies: OnReplies) -> None:
        """Answer some of the requests that lm-eval makes in another process."""
        with self._model(candidate) as model, isolated():
            answer_requests(model, requests, on_replies)

    @contextmanager
    def _model(self, candidate: Candidate) -> Iterator[HFLM]:
        """Give lm-eval's model around the engine's, with the candidate's weights in it."""
        engine = self._engine.model_for(candidate, "lm_eval")
        model = None
        with suppress(TypeError):  # a user's class may have no hash or no weak references: then each call builds anew
            model = self._models.get(engine)
        if model is None:
            with isolated():
                model = language_model(engine, self.settings.batch_size)
        with suppress(TypeError):
            self._models[engine] = model
        with few_threads(model.model):
            yield model

    def _results(self, loaded: LoadedTask, benchmark: Benchmark, model: Any) -> Mapping[str, Any]:
        with isolated():
            results: Mapping[str, Any] = _lm_eval().simple_evaluate(
                model=model,
                tasks=[loaded.group] if loaded.group is not None else list(loaded.tasks.values()),
                task_manager=loaded.manager,  # or lm-eval would read its thousands of files again
                samples=loaded.indices(benchmark),
                bootstrap_iters=0,
                log_samples=True,
            )
        return results

    def why_no_likelihood(self, benchmark: Benchmark) -> str | None:
        """Say why there is no likelihood of the right answers: of a task that has the model write, or choose not."""
        kinds = {str(task.OUTPUT_TYPE) for task in self._loaded(benchmark).tasks.values()}
        other = sorted(kinds - {"multiple_choice"})
        return f"lm-eval asks for {', '.join(other)}, and not for the likelihood of choices" if other else None

    def check(self, benchmark: Benchmark, checkpoint: Path) -> None:
        """Open the checkpoint's tokenizer, which is its processor's.

        Raises:
            EvaluatorError: there is none, or the engine could not be built around it, or gives no likelihoods.
        """
        self._engine.require_model("lm_eval")
        self._engine.check(checkpoint)

    def _loaded(self, benchmark: Benchmark) -> LoadedTask:
        if benchmark.target not in self._tasks:
            name, _, directory = benchmark.target.partition("@")
            folder = Path(directory) if directory else None
            _lm_eval()
            with isolated():
                if directory not in self._managers:
                    self._managers[directory] = task_manager(benchmark.target, folder)
                self._tasks[benchmark.target] = load_task(self._managers[directory], name, folder)
        return self._tasks[benchmark.target]


def _lm_eval() -> Any:
    try:
        return importlib.import_module("lm_eval")
    except ImportError as cause:
        raise EvaluatorError(
            f"lm_eval: needs lm-eval, not importable here ({cause}): {install_line('lm_eval')}."
        ) from cause


def _score(loaded: LoadedTask, results: Mapping[str, Any], *, is_part: bool = False) -> Score:
    """Return lm-eval's score; of a part of the questions the points count, and are no mean by any weights of tasks."""
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
        return Score(100 * value, count, points if is_their_mean or is_part else None)
    if loaded.metric in BEST_VALUES:
        return Score(100 * value / BEST_VALUES[loaded.metric], count)
    raise EvaluatorError(scale_error(loaded.name, loaded.metric))


def _points(samples: Mapping[str, Sequence[Row]], metric: str, filter_name: str) -> Iterator[tuple[str, float]]:
    """Yield each question's points, where the metric gives a number for each."""
    for task, rows in samples.items():
        for row in rows:
            value = row.get(metric)
            if row["filter"] == filter_name and isinstance(value, int | float):
                yield question_id(task, row["doc_id"]), float(value)
