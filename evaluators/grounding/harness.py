"""`grounding:FILE[@CONVENTION]`: boxes, points and interfaces of a file, asked of the shared engine and scored here."""

from __future__ import annotations

import shutil
import statistics
import tempfile
import weakref
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from evaluators.answering.file_digest import file_digest
from evaluators.answering.response_cache import ResponseCache, cached_answers
from evaluators.answering.session import shared_session
from evaluators.grounding.question_files import Question, QuestionFile
from evaluators.grounding.scoring import judge, parts_of
from finetune.coordinates.conventions import Convention, named_convention
from finetune.coordinates.regions import CoordinateError
from soup.errors import EvaluatorError
from soup.evaluation.api import Benchmark, Candidate, Harness, Location, OnBatch, Prompt, Score
from soup.evaluation.settings import EvalSettings
from soup.support.text import pluralize

__all__ = ["Grounding"]

VERSION = 1
"""Moves on when the same answers would get another score."""
DEFAULT_CONVENTION = "seeclick"


class Grounding(Harness):
    """Scores candidates by where they say that things are; the convention of their answers is declared.

    Args:
        settings: The engine that answers, and how it is asked.

    Raises:
        EvaluatorError: the engine that `settings.model` names is not there.
    """

    target_hint = "FILE[@CONVENTION]"

    def __init__(self, settings: EvalSettings) -> None:
        self.settings = settings
        self._engine = shared_session(settings)
        self._files: dict[tuple[str, int], QuestionFile] = {}

    def identity(self, benchmark: Benchmark) -> Mapping[str, object]:
        """Return the digest of questions and images, the convention, and how the engine answers."""
        path, convention = _target(benchmark)
        file = self._file(path)
        self._questions(benchmark)
        return {
            "evaluator": "grounding",
            "version": VERSION,
            "asks for": file.kind,
            "data": file.digest,
            "convention": repr(convention),
            "answering": dict(self._engine.identity()),
        }

    def evaluate(self, candidate: Candidate, benchmark: Benchmark) -> Score:
        """Return the candidate's score, with each question's points and, but for boxes, its parts."""
        path, convention = _target(benchmark)
        kind, questions = self._file(path).kind, self._questions(benchmark)
        answers = self._answers(candidate, benchmark, questions)
        verdicts = [judge(kind, *pair, convention) for pair in zip(questions, answers, strict=True)]
        points = {question.index: verdict.points for question, verdict in zip(questions, verdicts, strict=True)}
        over_samples = 100 * statistics.fmean(points.values())
        parts = parts_of(kind, list(zip(questions, verdicts, strict=True)))
        named = {f"{path.stem} {part}": 100 * statistics.fmean(each.values()) for part, each in parts.items()}
        value = statistics.fmean(named.values()) if parts else over_samples
        unparsed = sum(not verdict.is_parsed for verdict in verdicts)
        if kind == "interfaces":
            candidate.remark(
                f"{benchmark.name}: {'+'.join(candidate.names)}: {over_samples:.2f} over {len(points):,} samples, "
                f"{value:.2f} over {pluralize(len(parts), 'cell')}, {pluralize(unparsed, 'answer')} without a place."
            )
        part_points = dict(zip(named, parts.values(), strict=True))
        return Score(value, len(points), points, named, unparsed / len(points), part_questions=part_points)

    def check(self, benchmark: Benchmark, checkpoint: Path) -> None:
        """Have the engine look at the checkpoint's files."""
        self._engine.check(checkpoint)

    def count(self, benchmark: Benchmark) -> int:
        """Count the benchmark's questions."""
        return len(self._questions(benchmark))

    def asks_some(self, benchmark: Benchmark) -> bool:
        """Say whether the score is the mean of the questions' points: of boxes alone."""
        return self._file(_target(benchmark)[0]).kind == "boxes"

    def locate(self, benchmark: Benchmark) -> Location:
        """Return the file."""
        return Location(_target(benchmark)[0])

    def _file(self, path: Path) -> QuestionFile:
        key = str(path), path.stat().st_mtime_ns if path.exists() else 0
        if key not in self._files:
            self._files[key] = QuestionFile(path)
        return self._files[key]

    def _questions(self, benchmark: Benchmark) -> list[Question]:
        path, _ = _target(benchmark)
        questions = [question for question in self._file(path).questions if benchmark.holds(question.index)]
        if not questions:
            raise EvaluatorError(f"{benchmark.name}: no question lies in the {benchmark.split.part} part.")
        return questions

    def _answers(self, candidate: Candidate, benchmark: Benchmark, questions: list[Question]) -> list[str]:
        """Ask what the candidate's cache lacks; where that is nothing, no engine is even loaded."""

        def answer(prompts: list[Prompt], on_batch: OnBatch) -> list[str]:
            return self._engine.answer(candidate, prompts, on_batch)

        cache = ResponseCache(candidate.kept / f"grounding-{_target(benchmark)[0].stem}.jsonl")
        facts = [candidate.digest, dict(self._engine.identity())]
        prompts = [self._prompt(question) for question in questions]
        return cached_answers(cache, facts, prompts, answer, candidate.answered)

    def _prompt(self, question: Question) -> Prompt:
        # By its content: the cache knows an image by the name of its file.
        link = self._links / f"{file_digest(question.image)}{question.image.suffix}"
        if not link.is_symlink():
            link.symlink_to(question.image.absolute())
        return [{"type": "image", "value": str(link)}, {"type": "text", "value": question.text}]

    @cached_property
    def _links(self) -> Path:
        directory = tempfile.mkdtemp(prefix="soup-grounding-")
        weakref.finalize(self, shutil.rmtree, directory, ignore_errors=True)
        return Path(directory)


def _target(benchmark: Benchmark) -> tuple[Path, Convention]:
    """Return the file that a benchmark names, and how answers write points and boxes."""
    name, at, convention = benchmark.target.rpartition("@")
    if not at:
        name, convention = benchmark.target, DEFAULT_CONVENTION
    try:
        return Path(name), named_convention(convention)
    except CoordinateError as error:
        raise EvaluatorError(f"{benchmark.name}: {error}.") from error
