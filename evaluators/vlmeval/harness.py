"""OpenCompass's eight benchmarks by VLMEvalKit: its data sets, prompts, matching and metrics, our hot swap.

Every candidate is scored in a fresh directory; nothing is ever looked up by a model's name.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, TypeVar

from evaluators.answering.batching import prompt_size
from evaluators.answering.engines.transformers import TransformersModel
from evaluators.answering.file_digest import file_digest
from evaluators.answering.response_cache import ResponseCache, cached_answers
from evaluators.answering.session import shared_session
from evaluators.vlmeval.benchmarks import BENCHMARKS, VLMEvalBenchmark
from evaluators.vlmeval.catalog import all_data_sets, is_data_set, known_benchmark, near_data_sets
from evaluators.vlmeval.data_sets import data_file, data_folder, open_data_set, question_ids
from evaluators.vlmeval.download import fetch
from evaluators.vlmeval.image_files import ImageFiles
from evaluators.vlmeval.judging import Judging
from evaluators.vlmeval.library_types import DataSet
from evaluators.vlmeval.metrics import metric_of
from evaluators.vlmeval.reading_answers import AnswerRemarks, final_answer, splits_thoughts
from evaluators.vlmeval.reference_answers import reference_answers, why_no_reference
from evaluators.vlmeval.scoring import ask_circles, ask_rows, score, total_of
from evaluators.vlmeval.shots import RULE, add_examples
from evaluators.vlmeval.shown_questions import categories, show_questions
from evaluators.vlmeval.videos import VideoFolder
from evaluators.vlmeval_version import version
from soup.errors import EvaluatorError
from soup.evaluation.api import (
    AskedModel,
    Benchmark,
    BenchmarkInfo,
    Candidate,
    Harness,
    Location,
    OnBatch,
    OnReplies,
    Prompt,
    Score,
    ShownQuestion,
)
from soup.evaluation.dealing import dealer_of
from soup.evaluation.settings import EvalSettings

__all__ = ["VLMEval"]

First = TypeVar("First")
Second = TypeVar("Second")


class VLMEval(Harness):
    """Scores candidates on OpenCompass benchmarks with VLMEvalKit, one loaded engine for all of them.

    Answers and judgements are kept beside the run as they come, so that a run that stops midway goes on from there.

    Raises:
        EvaluatorError: the engine that `settings.model` names is not there, half of a judge is given, or an unknown
            benchmark for it.
    """

    benchmarks: ClassVar[Mapping[str, BenchmarkInfo]] = {name: entry.info for name, entry in BENCHMARKS.items()}
    has_parts = False
    target_hint = "BENCHMARK"

    def __init__(self, settings: EvalSettings) -> None:
        self.settings = settings
        self._engine = shared_session(settings)
        self._judging = Judging(settings, self._engine.close)
        self._images = ImageFiles()
        self._data_sets: dict[str, DataSet] = {}  # by name, and the digest of the file
        self._totals: dict[tuple[Benchmark, str], Callable[[Mapping[str, float]], float]] = {}  # by the same digest

    @classmethod
    def target_of(cls, name: str) -> str | None:
        """Return the benchmark that a data set's name in VLMEvalKit stands for, in any spelling of VLMEvalKit's."""
        short = next((entry.name for entry in BENCHMARKS.values() if entry.data_set == name), None)
        try:
            return short or (name if is_data_set(name) else None)
        except EvaluatorError:  # it is not installed, or the class can't be imported: judging tells why
            return None

    @classmethod
    def near_names(cls, name: str) -> Sequence[str]:
        """Return VLMEvalKit's own names of data sets that are nearly this one."""
        try:
            return near_data_sets(name)
        except EvaluatorError:
            return ()

    @classmethod
    def unlisted(cls) -> Mapping[str, BenchmarkInfo | str]:
        """Return all other data sets of VLMEvalKit's, each with what is known of it, or why it can't be scored here."""
        return {name: reason or info for name, info, reason in all_data_sets()}

    def identity(self, benchmark: Benchmark) -> Mapping[str, object]:
        """Return versions, the digest of the data, how the engine answers, and the judge where one is asked."""
        entry = known_benchmark(benchmark)
        library_version = version()
        digest, judge = _both(lambda: file_digest(data_file(entry)), lambda: self._judging.judge_of(entry))
        data_set = self._data_set(entry, benchmark)
        facts: dict[str, object] = {
            "evaluator": "vlmeval",
            "version": library_version,
            "dataset": entry.data_set,
            "data": digest,
            "prompt": "the data set's",
            "metric": metric_of(entry).description,
            "answering": dict(self._engine.identity()),
        }
        if self.settings.shots:
            facts["shots"] = {"count": self.settings.shots, "from": RULE}
        if benchmark.measures == "likelihood":
            return {**facts, "measures": "likelihood of the first reference answer, mean over tokens, then questions"}
        # Said only where they change a score: all other scores keep their keys.
        if data_set.mended_rows:
            facts["right options"] = "as written"
        if data_set.image_sizes:
            facts["images"] = data_set.image_sizes
        if entry.frames:
            facts |= {
                "frames": entry.frames,
                "videos": VideoFolder(data_file(entry).parent).digest(),
                "shown": "as videos",
            }
        if entry.rule is not None:
            facts |= entry.rule.questions.values_of_variables()
        if splits_thoughts():
            facts["thoughts"] = "split off"
        return facts if judge is None else {**facts, "judge": dict(judge.identity())}

    def evaluate(self, candidate: Candidate, benchmark: Benchmark) -> Score:
        """Return the candidate's score by VLMEvalKit's own metric, with each question's points."""
        entry = known_benchmark(benchmark)
        data_set = self._data_set(entry, benchmark)
        if benchmark.measures == "likelihood":
            return self._likelihood(entry, data_set, candidate)
        cache = ResponseCache(candidate.kept / f"{entry.name}.jsonl")
        session = self._judging.session(entry, candidate, cache)
        self._judging.check()
        for text in data_set.remarks:
            candidate.remark(text)
        answer = self._answering(entry, candidate, cache)
        if entry.is_circular:
            answers = ask_circles(entry, data_set, answer, has_judge=session is not None)
        else:
            answers = ask_rows(data_set, answer)
        return score(entry, data_set, answers, candidate.scratch, session)

    def answer(self, candidate: Candidate, requests: Sequence[Prompt], on_replies: OnReplies) -> None:
        """Answer some of the prompts that another process dealt out."""
        self._engine.answer_dealt(candidate, requests, on_replies)

    def check(self, benchmark: Benchmark, checkpoint: Path) -> None:
        """Reach the judge if one is needed, and make a prompt with the checkpoint's own processor.

        Raises:
            EvaluatorError: the judge does not answer, or no prompt can be made.
        """
        self._judging.judge_of(known_benchmark(benchmark))
        self._judging.check()
        self._engine.check(checkpoint)

    def why_no_likelihood(self, benchmark: Benchmark) -> str | None:
        """Say why there is no likelihood of the reference answers: of this engine, or of this benchmark."""
        return self._engine.why_no_loss or why_no_reference(known_benchmark(benchmark))

    def count(self, benchmark: Benchmark) -> int:
        """Count the benchmark's questions that are here; its data are read and checked, no judge is needed.

        Raises:
            EvaluatorError: the data are not here, or damaged.
        """
        entry = known_benchmark(benchmark)
        return len(set(question_ids(entry, self._data_set(entry, benchmark).data)))

    def asks_some(self, benchmark: Benchmark) -> bool:
        """Say that any of its questions can be asked alone."""
        return True

    def total(self, benchmark: Benchmark, points: Mapping[str, float]) -> float:
        """Return what the points of all questions come to, by VLMEvalKit's own sum."""
        entry = known_benchmark(benchmark)
        key = (benchmark, file_digest(data_file(entry)))
        if key not in self._totals:
            self._totals[key] = total_of(entry, self._data_set(entry, benchmark))
        return self._totals[key](points)

    def categories(self, benchmark: Benchmark) -> Mapping[str, str]:
        """Return the category of each question, by the column of the data that VLMEvalKit reports by."""
        entry = known_benchmark(benchmark)
        return categories(entry, self._data_set(entry, benchmark))

    def show(
        self, benchmark: Benchmark, indices: Sequence[str], models: Sequence[AskedModel]
    ) -> Mapping[str, ShownQuestion]:
        """Return questions with their images and what models answered, by the prompts that they were asked.

        Raises:
            EvaluatorError: the data are not here, damaged, or others than the models were asked.
        """
        entry = known_benchmark(benchmark)
        path = data_file(entry)
        if any(model.identity.get("data") != file_digest(path) for model in models):
            raise EvaluatorError(f"{entry.name}: {path.name} is not the file that the models were asked.")
        # The prompts that the models were asked, whatever this process itself would ask.
        shots = next((facts["count"] for model in models if isinstance(facts := model.identity.get("shots"), dict)), 0)
        return show_questions(entry, self._data_set(entry, benchmark, shots), self._images, indices, models)

    def locate(self, benchmark: Benchmark) -> Location:
        """Return where the benchmark's data are expected, and from where VLMEvalKit downloads them."""
        entry = known_benchmark(benchmark)
        if entry.frames:
            return Location(data_folder() / entry.data_set / f"{entry.data_set}.tsv")
        return Location(data_folder() / f"{entry.data_set}.tsv", entry.address())

    def fetch(self, benchmark: Benchmark, phase: Callable[[str, int], None], progress: Callable[[int], None]) -> Path:
        """Download the benchmark's data from where VLMEvalKit has them, and return where they lie then.

        Raises:
            EvaluatorError: they can't be had, or other data are in their place.
        """
        return fetch(known_benchmark(benchmark), phase, progress)

    def _likelihood(self, entry: VLMEvalBenchmark, data_set: DataSet, candidate: Candidate) -> Score:
        """Return how likely the candidate finds the reference answers, one prompt at a time."""
        references, losses = reference_answers(entry, data_set), []
        wait_for_images = self._images.start_writing([reference.prompt for reference in references])
        model = self._engine.model_for(candidate, "vlmeval")
        assert isinstance(model, TransformersModel), "another engine says why_no_loss"
        wait_for_images()
        for reference in references:
            losses.append(model.loss(*reference))
            candidate.answered(len(losses), len(references))
        return Score.of_loss(losses)

    def _answering(
        self, entry: VLMEvalBenchmark, candidate: Candidate, cache: ResponseCache
    ) -> Callable[[list[Prompt]], list[str]]:
        """Answer what the cache lacks with the candidate; where that is nothing, no engine is even loaded.

        What is kept is all that the model said, what is returned the part of it that is judged.
        """
        facts, dealer = [candidate.digest, dict(self._engine.identity())], dealer_of(candidate)

        def answer(prompts: list[Prompt], on_batch: OnBatch) -> list[str]:
            remarks = AnswerRemarks(entry.name, len(prompts))

            def hear(batch: list[Prompt], replies: list[str]) -> None:
                on_batch(batch, replies)
                for text in remarks.hear(replies):
                    candidate.remark(text)

            self._judging.make_room()
            wait_for_images = self._images.start_writing(prompts)
            if dealer is not None:
                wait_for_images()
                return dealer.deal(prompts, lambda at, replies: hear([prompts[i] for i in at], [*replies]), prompt_size)
            self._engine.hold(candidate)  # may take long: images are written meanwhile
            wait_for_images()
            return self._engine.answer(candidate, prompts, hear)

        def judged_answers(prompts: list[Prompt]) -> list[str]:
            return [final_answer(text) for text in cached_answers(cache, facts, prompts, answer, candidate.answered)]

        return judged_answers

    def _data_set(self, entry: VLMEvalBenchmark, benchmark: Benchmark, shots: int | None = None) -> DataSet:
        """VLMEvalKit's data set with the rows that count; the file is read and checked once for each digest."""
        path = data_file(entry)
        digest = file_digest(path)
        shots = self.settings.shots if shots is None else shots
        key = f"{entry.name} {digest} {shots}"  # of one video, several numbers of frames may be shown
        if key not in self._data_sets:
            data_set = open_data_set(entry, path, self._images)
            data_set.known_results = {}  # its parts will share them
            if shots:
                add_examples(entry, data_set, shots)
            self._data_sets[key] = data_set
        part = copy.copy(self._data_sets[key])
        counts = [benchmark.holds(question) for question in question_ids(entry, part.data)]
        if not any(counts):
            raise EvaluatorError(f"{entry.name}: no question of {path} lies in the {benchmark.split.part} part.")
        part.data = part.data[counts]
        return part


def _both(first: Callable[[], First], second: Callable[[], Second]) -> tuple[First, Second]:
    """Call both; what both lack is in one error, so that nobody mends it piece by piece."""
    try:
        value = first()
    except EvaluatorError as reason:
        try:
            second()
        except EvaluatorError as other:
            raise EvaluatorError(f"{reason}\n{other}") from other
        raise
    return value, second()
