"""OpenCompass benchmarks by VLMEvalKit: its data sets, prompts, circular evaluation and metrics, our hot swap.

Every candidate is judged in a fresh directory; nothing is ever looked up by a model's name.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from evaluators import vlmeval_light as light
from evaluators.answering import HotSwap, Message, ask
from evaluators.vlmeval_data import Images, Source, digest, locate, open_dataset, questions
from evaluators.vlmeval_scoring import ask_circles, ask_rows, score, strange_categories
from soup.errors import EvaluatorError, did_you_mean
from soup.evaluation import Benchmark, Candidate, Score, Settings

__all__ = ["SOURCES", "VLMEval"]

SOURCES = {
    source.name: source
    for source in (
        Source(
            "mmbench",
            "MMBench_DEV_EN",
            "dataset.image_mcq",
            "ImageMCQDataset",
            columns=("index", "question", "A", "B", "answer", "image"),
            circular=True,
        ),
        Source(
            "ocrbench",
            "OCRBench",
            "dataset.image_vqa",
            "OCRBench",
            columns=("index", "question", "answer", "category", "image"),
            literal="answer",
        ),
    )
}

METRICS = {
    True: "Overall x 100, circular evaluation, exact matching",
    False: "Final Score per 100 questions",
}


class VLMEval:
    """Judges candidates on OpenCompass benchmarks with VLMEvalKit, one loaded model for all of them.

    Raises:
        EvaluatorError: the model that `settings.model` names is not there.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._swap = HotSwap(settings)
        self._images = Images()
        self._datasets: dict[str, Any] = {}

    def identity(self, benchmark: Benchmark) -> Mapping[str, Any]:
        """Versions, the digest of the data, and how the model is made to answer."""
        source = _source(benchmark)
        version = light.version()
        data = digest(locate(source))
        self._dataset(source, benchmark)
        return {
            "evaluator": "vlmeval",
            "version": version,
            "dataset": source.dataset,
            "data": data,
            "prompt": "the data set's",
            "metric": METRICS[source.circular],
            "answering": dict(self._swap.identity()),
        }

    def evaluate(self, candidate: Candidate, benchmark: Benchmark) -> Score:
        """The candidate's score by VLMEvalKit's own metric, with each question's points."""
        source = _source(benchmark)
        dataset = self._dataset(source, benchmark)
        answerer = self._swap.answerer_for(candidate)

        def asked(messages: list[Message]) -> list[str]:
            return ask(answerer, messages, self.settings.batch_size)

        answers = (ask_circles if source.circular else ask_rows)(source, dataset, asked)
        return score(source, dataset, answers, candidate.scratch)

    def _dataset(self, source: Source, benchmark: Benchmark) -> Any:
        """VLMEvalKit's data set with the rows that count; the file is read and checked once for each digest."""
        path = locate(source)
        data = digest(path)
        if data not in self._datasets:
            dataset = open_dataset(source, path, self._images)
            if strange := strange_categories(source, dataset):
                raise EvaluatorError(
                    f"{source.name}: {path} has categories unknown to VLMEvalKit: {', '.join(strange)}."
                )
            self._datasets[data] = dataset
        part = copy.copy(self._datasets[data])
        counts = [benchmark.split.holds(question) for question in questions(source, part.data)]
        if not any(counts):
            raise EvaluatorError(f"{source.name}: no question of {path} lies in the {benchmark.split.part} part.")
        part.data = part.data[counts]
        return part


def _source(benchmark: Benchmark) -> Source:
    if benchmark.target not in SOURCES:
        raise EvaluatorError(f"Unknown benchmark '{benchmark.target}'.{did_you_mean(benchmark.target, SOURCES)}")
    return SOURCES[benchmark.target]
