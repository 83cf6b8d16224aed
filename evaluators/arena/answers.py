"""Candidates answer an arena's questions: through the engine of the run, its workers and its response cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from evaluators.answering.batching import prompt_size
from evaluators.answering.response_cache import ResponseCache, cached_answers, prompt_keys
from evaluators.answering.session import shared_session
from evaluators.arena.record import Arena, Member, Question
from soup.errors import EvaluatorError
from soup.evaluation.api import Benchmark, Candidate, Harness, OnBatch, OnReplies, Prompt, Score
from soup.evaluation.config import EvalConfig
from soup.evaluation.dealing import dealer_of
from soup.evaluation.pace import Evaluations
from soup.evaluation.progress import Progress
from soup.evaluation.run_directory import RunDirectory
from soup.evaluation.settings import EvalSettings
from soup.evaluation.suite import BenchmarkSuite, build_suite, check_entries
from soup.merging.pool import Pool
from soup.merging.template import RecipeTemplate
from soup.search.session import Session, answering_settings

__all__ = ["Answers", "Asking", "kept_answers"]

CACHE_NAME = "arena.jsonl"


class Answers(Harness):
    """Has candidates answer an arena's questions; the score is the share of answers that are not empty.

    Raises:
        EvaluatorError: the engine that `settings.model` names is not there.
    """

    target_hint = "RUN"
    ranks = False

    def __init__(self, settings: EvalSettings) -> None:
        self.settings = settings
        self.engine = shared_session(settings)
        self._arenas: dict[str, Arena] = {}

    def identity(self, benchmark: Benchmark) -> Mapping[str, object]:
        """Return the digest of questions and pictures, and how the engine answers."""
        data = self.arena(benchmark).digest
        return {"evaluator": "arena answers", "version": 1, "data": data, "answering": dict(self.engine.identity())}

    def evaluate(self, candidate: Candidate, benchmark: Benchmark) -> Score:
        """Have the candidate answer what it has not answered yet."""
        answers = self.ask(candidate, benchmark)
        points = {index: float(bool(text.strip())) for index, text in answers.items()}
        return Score(100 * sum(points.values()) / len(points), len(points), points)

    def answer(self, candidate: Candidate, requests: Sequence[Prompt], on_replies: OnReplies) -> None:
        """Answer some of the prompts that another process dealt out."""
        self.engine.answer_dealt(candidate, requests, on_replies)

    def check(self, benchmark: Benchmark, checkpoint: Path) -> None:
        """Have the engine look at the checkpoint's files."""
        self.engine.check(checkpoint)

    def count(self, benchmark: Benchmark) -> int:
        """Count the benchmark's questions."""
        return len(self.questions(benchmark))

    def arena(self, benchmark: Benchmark) -> Arena:
        """Return the arena that a benchmark names, as it was when it was first asked for."""
        path = self.path_of(benchmark)
        if str(path) not in self._arenas:
            self._arenas[str(path)] = Arena(path)
        return self._arenas[str(path)]

    def path_of(self, benchmark: Benchmark) -> Path:
        """Return the arena's folder."""
        return Path(benchmark.target)

    def questions(self, benchmark: Benchmark) -> dict[str, Question]:
        """Return the questions that count.

        Raises:
            EvaluatorError: none of them lies in the benchmark's part.
        """
        questions = {index: query for index, query in self.arena(benchmark).questions.items() if benchmark.holds(index)}
        if not questions:
            raise EvaluatorError(f"{benchmark.name}: no question lies in the {benchmark.split.part} part.")
        return questions

    def ask(self, candidate: Candidate, benchmark: Benchmark) -> dict[str, str]:
        """Return the candidate's answers, by question; where the arena or the cache has all, no engine is loaded."""
        arena, questions, identity = self.arena(benchmark), self.questions(benchmark), dict(self.engine.identity())
        for member in arena.members.values():
            if member.recipe == candidate.digest and member.answering == identity:
                return {index: member.answers[index] for index in questions}
        prompts = [arena.prompt(question) for question in questions.values()]
        dealer = dealer_of(candidate)

        def answer(missing: list[Prompt], on_batch: OnBatch) -> list[str]:
            if dealer is None:
                return self.engine.answer(candidate, missing, on_batch)
            hear = on_batch
            return dealer.deal(missing, lambda at, replies: hear([missing[i] for i in at], [*replies]), prompt_size)

        cache = ResponseCache(candidate.kept / CACHE_NAME)
        texts = cached_answers(cache, [candidate.digest, identity], prompts, answer, candidate.answered)
        return dict(zip(questions, texts, strict=True))

    def remembered(self, recipe_digest: str, kept: Path, benchmark: Benchmark) -> dict[str, str]:
        """Return answers that were kept.

        Raises:
            EvaluatorError: some are not there any more.
        """
        arena, identity = self.arena(benchmark), dict(self.engine.identity())
        texts = kept_answers(arena, [*arena.questions.values()], recipe_digest, kept, identity)
        answers = {index: text for index, text in zip(arena.questions, texts, strict=True) if text is not None}
        if gone := len(texts) - len(answers):
            raise EvaluatorError(
                f"{kept / CACHE_NAME}: {gone} of {len(texts)} answers are gone, though the journal beside it says that "
                f"they came. Remove {RunDirectory(arena.path).journal}, and they are asked for again."
            )
        return answers


def kept_answers(
    arena: Arena, questions: Sequence[Question], recipe_digest: str, kept: Path, answering: object
) -> list[str | None]:
    """Return what a candidate answered, as far as it was kept: in its run, or with the arena.

    Args:
        arena: Whose questions.
        questions: Some of them.
        recipe_digest: The candidate's.
        kept: Its directory in the run.
        answering: What its answers depended on besides.
    """
    cache = ResponseCache(kept / CACHE_NAME)
    keys = prompt_keys([recipe_digest, answering], [arena.prompt(question) for question in questions])
    texts = [cache.get(key) for key in keys]
    for member in arena.members.values():
        if member.recipe == recipe_digest and member.answering == answering:
            texts = [member.answers[question.index] for question in questions]
    return texts


class Asking:
    """Candidates that are to answer an arena's questions.

    Args:
        arena: The arena; their answers are added to it.
        locations: Checkpoints, or a folder of such.
        config: How they are asked; its benchmarks are not looked at.
    """

    def __init__(self, arena: Arena, locations: Sequence[str], config: EvalConfig) -> None:
        self.arena, self._locations, self._config = arena, locations, config.without_judge()
        self._benchmark = Benchmark("answers", f"{Answers.__module__}:Answers", str(arena.path.absolute()))

    def check(self) -> list[str]:
        """Return the candidates' names, after all that can be checked before one is asked.

        Raises:
            SoupError: a checkpoint or the engine is not there, or can't be asked.
        """
        with self._pool() as pool:
            check_entries(self._suite().entries, pool)
            return [*pool.names]

    def run(self, progress: Progress) -> None:
        """Have all candidates answer; typed again after a stop, only the rest is asked.

        Raises:
            SoupError: a candidate can't be asked.
        """
        suite = self._suite()
        quiet = replace(progress, on_trial=lambda trial: None)
        run = RunDirectory(self.arena.path)
        (entry,) = suite.entries
        harness = entry.evaluator
        assert isinstance(harness, Answers)
        with (
            self._pool() as pool,
            Session.open(pool, suite, self._config, run, RecipeTemplate(), quiet, Evaluations(len(pool))) as session,
        ):
            recipes = {part.name: session.scorer.recipe([part]) for part in pool}
            self.arena.refuse_other_weights({name: recipe.digest for name, recipe in recipes.items()})
            session.evaluate_singles()
        answering = dict(harness.engine.identity())
        known = {member.recipe: member for member in self.arena.members.values() if member.answering == answering}
        for name, recipe in recipes.items():
            if member := known.get(recipe.digest):
                if member.name != name:
                    progress.on_warning(f"{name}: the arena has these weights as {member.name}, and takes them once.")
                continue
            answers = harness.remembered(recipe.digest, run.answers(recipe), self._benchmark)
            self.arena.add(Member(name, recipe.digest, answering, answers))

    def _pool(self) -> Pool:
        return Pool(self._locations[0] if len(self._locations) == 1 else self._locations)

    def _suite(self) -> BenchmarkSuite:
        return build_suite([self._benchmark], answering_settings([self._benchmark], self._config))
