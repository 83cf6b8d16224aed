"""One run's judging: where its journal and scratch live, who judges, one by one or side by side.

RUN/journal.jsonl    every score, one line each
RUN/digests.json     the pool's digests, so that it is read once
RUN/scratch/         candidates on disk while they are judged; a failed evaluation's log stays
RUN/answers/         what a model answered, so that a judge that stopped is asked only for the rest
RUN/logs/            what workers print
RUN/soups/           what each strategy came to
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from soup.checkpoints.digest import ByteProgress, ContentDigest, DigestCache
from soup.checkpoints.hub import is_hub_id
from soup.checkpoints.reader import looks_like_checkpoint
from soup.errors import EvaluatorError, OutputError
from soup.evaluation.api import ALL, Benchmark, EvalSettings, Split, parse_benchmarks
from soup.evaluation.journal import Journal
from soup.evaluation.objective import PLAIN, Objective
from soup.evaluation.scorer import Scorer, Trial, clear_scratch
from soup.evaluation.suite import BenchmarkSuite, build_suite
from soup.merging.pool import Ingredient, Pool
from soup.merging.recipe import Recipe
from soup.search.workers.local import LocalPool, WorkerPool, worker_spec
from soup.search.workers.ray import RayPool
from soup.search.workers.speculation import SpeculativeRunner
from soup.support.plugins import METHODS, code_digest

__all__ = ["Judging", "Progress", "Session", "run_directory"]

_WHOLE = ("vlmeval", "lm_eval")
"""Harnesses whose scores have no parts, so that all names that may be weighed are known from the start."""


@dataclass(frozen=True)
class Progress:
    """Whom to tell what happens: warnings, the start of an evaluation, each trial, and progress in bytes.

    `phase` names what the next bytes belong to, and how many they will be. `answered` is told of how many prompts so
    many are answered, where the harness tells it and judges in this process.
    """

    warn: Callable[[str], None] = lambda text: None
    starting: Callable[[Recipe, Benchmark], None] = lambda recipe, benchmark: None
    told: Callable[[Trial], None] = lambda trial: None
    phase: Callable[[str, int], None] = lambda name, total_bytes: None
    progress: ByteProgress = lambda count: None
    answered: Callable[[int, int], None] = lambda count, of: None


@dataclass(frozen=True)
class Judging:
    """How the soups of a run are judged; see `soup.cook.cook` for what the fields mean."""

    benchmarks: tuple[Benchmark, ...]
    home: Path
    split: float | None = None
    settings: EvalSettings = field(default_factory=EvalSettings)
    objective: Objective = PLAIN
    workers: int = 0
    ray: str | None = None
    allow_nonfinite: bool = False

    @classmethod
    def of(
        cls, eval: str | Sequence[str], run: str | Path | None, places: Any, split: float | None, **fields: Any
    ) -> Judging:
        """From what a user names; without `eval` there are no benchmarks.

        Raises:
            EvaluatorError: an unknown benchmark, a split that is no share, or an objective or split of no benchmarks.
        """
        part = ALL if split is None else Split("selection", split)
        texts = [eval] if isinstance(eval, str) else eval
        home = Path(run) if run is not None else run_directory(places)
        judging = cls(tuple(parse_benchmarks(texts, part)) if texts else (), home, split, **fields)
        judging.refuse_vain_wishes()
        return judging

    def refuse_vain_wishes(self) -> None:
        """Say at once what no score will ever fulfil: a weight for a misspelt benchmark, a split of nothing.

        Raises:
            EvaluatorError: the objective or the split is about benchmarks that are not judged.
        """
        if not self.benchmarks and (self.objective != PLAIN or self.split is not None):
            raise EvaluatorError("--weights, --guard and --split are about benchmarks: pass --eval, too.")
        if self.benchmarks and all(benchmark.harness in _WHOLE for benchmark in self.benchmarks):
            self.objective.check([benchmark.name for benchmark in self.benchmarks])

    def jury(self) -> BenchmarkSuite:
        """The harnesses, asked about their benchmarks before any work.

        Raises:
            EvaluatorError: see `build_suite`.
        """
        return build_suite(self.benchmarks, self.settings)

    def refuse_as_output(self, out: Path) -> None:
        """A soup among the run's own files would be in its way, and one in its scratch would be removed with it.

        Raises:
            OutputError: `out` is such a place.
        """
        run, soup = self.home.resolve(), out.resolve()
        if run.is_relative_to(soup) or any(soup.is_relative_to(run / own) for own in ("scratch", "soups")):
            raise OutputError(
                f"{out}: is where the run keeps its own files (--run {self.home}). Choose another -o/--out."
            )


def run_directory(places: str | Path | Sequence[str | Path]) -> Path:
    """Where a run's work lives by default: beside the pool, `ckpts.soup/` for `ckpts/` and for checkpoints in it."""
    given = [places] if isinstance(places, str | Path) else list(places)
    first = Path(given[0])
    if is_hub_id(str(given[0])) and not first.exists():
        return Path("pool.soup")
    folder = first.absolute()
    folder = folder.parent if len(given) > 1 or looks_like_checkpoint(folder) else folder
    if Path.cwd().is_relative_to(folder):
        return Path("pool.soup")  # beside it would be outside of where the user works
    return folder.with_name(f"{folder.name}.soup")


@dataclass(frozen=True)
class Session:
    """A run's scores, open for asking: through this process, or through workers if there are any."""

    scorer: Scorer
    crew: SpeculativeRunner | None
    split: float | None

    @classmethod
    @contextmanager
    def open(
        cls,
        pool: Pool,
        judging: Judging,
        fields: Mapping[str, Any],
        listener: Progress,
        jury: BenchmarkSuite | None = None,
    ) -> Iterator[Session]:
        """A search over a pool; the journal belongs to this process until it is left.

        Raises:
            JournalError: another run uses the journal, or it is damaged.
        """
        ready = jury or judging.jury()
        with (
            _scorer(pool, ready, judging, fields, listener) as scorer,
            _side_by_side(scorer, judging) as crew,
        ):
            yield cls(scorer, crew, judging.split)

    def choose(self, picks: Callable[[Callable[..., Any]], Any]) -> Any:
        """What a strategy picks, given a score."""
        return self.crew.choose(picks) if self.crew else picks(self.scorer)

    def judge_singles(self) -> None:
        """The trial of each ingredient alone."""
        if self.crew:
            part = self.scorer.jury.seats[0][0].split
            self.crew.complete([self.scorer.recipe([ingredient]) for ingredient in self.scorer.pool], part)
        for ingredient in self.scorer.pool:
            self.scorer([ingredient])

    def reported(self, recipe: Recipe | None = None) -> tuple[Trial, ...]:
        """All trials; with a split, single models and the chosen recipe are judged on the report questions too."""
        if self.split is not None:
            report = Split("report", self.split)
            chosen = recipe.digest if recipe else None
            trials = self.scorer.trials.values()
            wanted = [trial for trial in trials if len(trial.names) == 1 or trial.recipe.digest == chosen]
            if self.crew:
                self.crew.complete([trial.recipe for trial in wanted], report)
            for trial in wanted:
                self.scorer.report(trial, report)
        return tuple(self.scorer.trials.values())


@contextmanager
def _scorer(
    pool: Pool, jury: BenchmarkSuite, judging: Judging, fields: Mapping[str, Any], listener: Progress
) -> Iterator[Scorer]:
    with Journal(judging.home / "journal.jsonl") as journal:
        scratch = judging.home / "scratch"
        clear_scratch(scratch)
        method = METHODS.get(fields.get("method", "linear"))
        read = [*pool, *([pool.base] if pool.base and method.needs_base else [])]
        digests = _digests(read, DigestCache(judging.home / "digests.json"), listener)
        sources = [part.source(digest.content) for part, digest in zip(pool, digests, strict=False)]
        for text in Recipe.uniform(sources).repeated:
            listener.warn(text)
        scorer = Scorer(
            pool,
            jury,
            journal,
            scratch,
            dict(zip(pool.names, digests, strict=False)),
            {**fields, "code": code_digest(method)},
            judging.objective,
            judging.allow_nonfinite,
            listener.starting,
            listener.told,
            listener.answered,
            base_digest=digests[-1].content if len(digests) > len(pool) else None,
        )
        try:
            yield scorer
        except KeyboardInterrupt:
            clear_scratch(scratch)
            raise
        finally:
            with suppress(OSError):
                scratch.rmdir()  # what a failed evaluation left there stays


def _digests(read: Sequence[Ingredient], cache: DigestCache, listener: Progress) -> list[ContentDigest]:
    """The digests of all that is merged, in order: the ingredients', and then the base's if the method reads it."""
    unknown = [part.checkpoint for part in read if not cache.knows(part.checkpoint)]
    if unknown:
        listener.phase("reading the pool", sum(checkpoint.bytes for checkpoint in unknown))
    return [cache.get(part.checkpoint, listener.progress) for part in read]


@contextmanager
def _side_by_side(scorer: Scorer, judging: Judging) -> Iterator[SpeculativeRunner | None]:
    """Workers for the time of a search; None where candidates are judged one by one, in this process."""
    if not judging.workers and not judging.ray:
        yield None
        return
    brief = worker_spec(
        scorer.pool,
        judging.benchmarks,
        judging.settings,
        scorer.scratch,
        scorer.digests,
        allow_nonfinite=judging.allow_nonfinite,
    )
    crew: WorkerPool
    if judging.ray:
        crew = RayPool(brief, judging.workers, judging.ray)
    else:
        crew = LocalPool(brief, judging.workers, judging.home / "logs")
    try:
        yield SpeculativeRunner(scorer, crew)
    finally:
        crew.close()
        for home in scorer.scratch.glob("*/checkpoint"):  # of soups that were still being judged in vain
            clear_scratch(home.parent)
