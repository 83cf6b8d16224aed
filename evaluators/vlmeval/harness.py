"""OpenCompass's eight benchmarks by VLMEvalKit: its data sets, prompts, matching and metrics, our hot swap.

Every candidate is judged in a fresh directory; nothing is ever looked up by a model's name.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from evaluators.answering.batching import Prompt, ask
from evaluators.answering.hot_swap import shared_swap
from evaluators.answering.response_cache import ResponseCache, cached_answers
from evaluators.vlmeval.benchmarks import BENCHMARKS, VLMEvalBenchmark, known_benchmark
from evaluators.vlmeval.data_sets import Images, digest, home, locate, open_dataset, questions
from evaluators.vlmeval.download import fetch
from evaluators.vlmeval.llm_judge import JudgeSession, LLMJudge
from evaluators.vlmeval.metrics import METRICS
from evaluators.vlmeval.scoring import ask_circles, ask_rows, score
from evaluators.vlmeval_version import version
from soup.errors import EvaluatorError
from soup.evaluation.api import Benchmark, BenchmarkInfo, Candidate, Harness, Location, Score
from soup.evaluation.settings import EvalSettings
from soup.support.text import did_you_mean

__all__ = ["VLMEval"]


class VLMEval(Harness):
    """Judges candidates on OpenCompass benchmarks with VLMEvalKit, one loaded model for all of them.

    Answers and judgements are kept beside the run as they come, so that a run that stops midway goes on from there.

    Raises:
        EvaluatorError: the model that `settings.model` names is not there, half of a judge is given, or an unknown
            benchmark for it.
    """

    benchmarks: ClassVar[Mapping[str, BenchmarkInfo]] = {name: benchmark.info for name, benchmark in BENCHMARKS.items()}
    has_parts = False
    target_hint = "BENCHMARK"

    def __init__(self, settings: EvalSettings) -> None:
        self.settings = settings
        self._swap = shared_swap(settings)
        self._judge = LLMJudge.of(settings)
        for name in settings.judge_for:
            if name not in BENCHMARKS:
                raise EvaluatorError(f"--judge-for: unknown benchmark '{name}'.{did_you_mean(name, BENCHMARKS)}")
        self._waiting: str | None = None  # a benchmark that will need the judge
        self._heard = False  # whether the judge has ever answered
        self._images = Images()
        self._datasets: dict[str, Any] = {}

    def identity(self, benchmark: Benchmark) -> Mapping[str, Any]:
        """Versions, the digest of the data, how the model is made to answer, and the judge where one is asked."""
        entry = known_benchmark(benchmark)
        vlmeval_version = version()
        data, judge = _all_of(lambda: digest(locate(entry)), lambda: self._judge_of(entry))
        self._dataset(entry, benchmark)
        told = {
            "evaluator": "vlmeval",
            "version": vlmeval_version,
            "dataset": entry.data_set,
            "data": data,
            "prompt": "the data set's",
            "metric": METRICS[entry.metric].words,
            "answering": dict(self._swap.identity()),
        }
        return told if judge is None else {**told, "judge": dict(judge.identity())}

    def evaluate(self, candidate: Candidate, benchmark: Benchmark) -> Score:
        """The candidate's score by VLMEvalKit's own metric, with each question's points."""
        entry = known_benchmark(benchmark)
        dataset = self._dataset(entry, benchmark)
        remembered = ResponseCache(candidate.kept / f"{entry.name}.jsonl")
        judge = self._judge_of(entry)
        judging = JudgeSession(judge, remembered, entry.name, entry.judge_tokens) if judge else None
        self._greet()
        asked = self._asker(candidate, remembered)
        if entry.is_circular:
            found = ask_circles(entry, dataset, asked, judged=judging is not None)
        else:
            found = ask_rows(dataset, asked)
        return score(entry, dataset, found, candidate.scratch, judging)

    def count(self, benchmark: Benchmark) -> int:
        """How many questions of the benchmark are here and count; its data are read and checked, no judge is needed.

        Raises:
            EvaluatorError: the data are not here, or damaged.
        """
        entry = known_benchmark(benchmark)
        return len(set(questions(entry, self._dataset(entry, benchmark).data)))

    def locate(self, benchmark: Benchmark) -> Location:
        """Where the benchmark's data are expected, and from where VLMEvalKit downloads them."""
        entry = known_benchmark(benchmark)
        url = entry.data_set_class().DATASET_URL[entry.data_set]
        return Location(home() / f"{entry.data_set}.tsv", url)

    def fetch(self, benchmark: Benchmark, phase: Callable[[str, int], None], progress: Callable[[int], None]) -> Path:
        """Download the benchmark's data from where VLMEvalKit has them; where they lie then.

        Raises:
            EvaluatorError: they can't be had, or other data are in their place.
        """
        return fetch(known_benchmark(benchmark), phase, progress)

    def _greet(self) -> None:
        """Hear the judge before the model's hours, not after them: whichever benchmark comes first."""
        if self._judge is not None and self._waiting is not None and not self._heard:
            self._judge.greet(self._waiting)
            self._heard = True

    def _asker(self, candidate: Candidate, remembered: ResponseCache) -> Callable[[list[Prompt]], list[str]]:
        """Asks the candidate for what it has not answered yet; where that is nothing, no model is even loaded."""
        who = [candidate.digest, dict(self._swap.identity())]

        def rest(messages: list[Prompt], told: Callable[[list[Prompt], list[str]], None]) -> list[str]:
            return ask(self._swap.engine_for(candidate), messages, self.settings.batch_size, told)

        return lambda messages: cached_answers(remembered, who, messages, rest, candidate.answered)

    def _judge_of(self, entry: VLMEvalBenchmark) -> LLMJudge | None:
        """The judge for this benchmark, if it needs one or was asked to use one."""
        wanted = entry.name in self.settings.judge_for
        if wanted and not METRICS[entry.metric].can_use_judge:
            raise EvaluatorError(f"{entry.name}: its metric has no use for a judge; leave it out of --judge-for.")
        if not wanted and not entry.needs_judge:
            return None
        if self._judge is None:
            raise EvaluatorError(
                f"{entry.name}: its answers are graded by a judge, and none is named. Pass --judge-url and "
                f"--judge-model (any endpoint that speaks OpenAI's chat completions; its key, if it wants one, in the "
                f"environment variable {self.settings.judge_key_env}), or leave {entry.name} out of --eval."
            )
        self._waiting = self._waiting or entry.name
        return self._judge

    def _dataset(self, entry: VLMEvalBenchmark, benchmark: Benchmark) -> Any:
        """VLMEvalKit's data set with the rows that count; the file is read and checked once for each digest."""
        path = locate(entry)
        data = digest(path)
        if data not in self._datasets:
            self._datasets[data] = open_dataset(entry, path, self._images)
        part = copy.copy(self._datasets[data])
        counts = [benchmark.split.holds(question) for question in questions(entry, part.data)]
        if not any(counts):
            raise EvaluatorError(f"{entry.name}: no question of {path} lies in the {benchmark.split.part} part.")
        part.data = part.data[counts]
        return part


def _all_of(*asks: Callable[[], Any]) -> list[Any]:
    """What each of them gives; what is missing is told together, so that nobody mends it piece by piece."""
    found, missing = [], []
    for ask_one in asks:
        try:
            found.append(ask_one())
        except EvaluatorError as why:
            missing.append(str(why))
    if missing:
        raise EvaluatorError("\n".join(missing))
    return found
