"""The words of judging: what an evaluator gets, and what it gives back.

An evaluator never sees a tensor. It gets a `Candidate` (a soup that may or may not lie on disk yet) and a `Benchmark`
(a named test set and the part of its questions that count), and gives back one `Score`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from soup.errors import EvaluatorError
from soup.evaluation.estimates import Estimate
from soup.hf.key_mapping import Conversion
from soup.support.options import option_name

__all__ = [
    "ALL",
    "LIKELIHOOD",
    "AskedModel",
    "Benchmark",
    "BenchmarkInfo",
    "Candidate",
    "Evaluator",
    "Harness",
    "Location",
    "OnReplies",
    "Score",
    "ShownQuestion",
    "Split",
    "TargetSyntax",
]

Part = Literal["all", "selection", "report"]
TargetSyntax = Literal["one", "list", "rest"]


@dataclass(frozen=True)
class Split:
    """Which of a benchmark's questions count: all of them, those that choose, or those that only report.

    A question belongs to the selection part when the hash of its index falls into the lowest `fraction` of the hash's
    range: the same for every model, whatever the order of the file. Rotations of one question share its index, so
    that they stay together. What stands before a slash in an index is the question's group (`figure_7/VS_...`): where
    a metric counts a group only if all of it is right, all of it lies in one part.
    """

    part: Part = "all"
    fraction: float = 1.0

    def __post_init__(self) -> None:
        if self.part != "all" and not 0.0 < self.fraction < 1.0:
            raise EvaluatorError(f"{option_name('split')} must lie between 0 and 1, exclusive; found {self.fraction}.")

    def holds(self, index: str) -> bool:
        """Whether the question of that index counts in this part; of `GROUP/INDEX` the group alone decides."""
        if self.part == "all":
            return True
        group = index.partition("/")[0]
        share = int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big") / 2**64
        return (share < self.fraction) == (self.part == "selection")


ALL = Split()

OnReplies = Callable[[Sequence[int], Sequence[Any]], None]
"""Hears of some replies as soon as they are there, each with its request's position among all that were handed over."""

LIKELIHOOD = " likelihood"
"""What a benchmark's name ends in where it measures that."""
MOST_LOSS = 700.0
"""A larger loss has a likelihood that no float64 holds."""


@dataclass(frozen=True)
class BenchmarkInfo:
    """What is known of a benchmark before its data are here: the rows of `soup list benchmarks`.

    Args:
        summary: What it asks for, in a few words.
        source: The data set's name in the harness.
        questions: The size of the published test set; None where only its file tells.
        metric: What a score of 0 to 100 counts.
        judge: Whether a language model grades the answers.
        group: A name that `--eval` takes for all benchmarks of this group together; empty: none.
        kind: What is asked: multiple choice, yes or no, open questions, ...; empty: not told.
    """

    summary: str
    source: str
    questions: int | None
    metric: str
    judge: bool = False
    group: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Location:
    """Where a benchmark's data are expected on this machine, and the address that they are downloaded from."""

    path: Path
    url: str | None = None


@dataclass(frozen=True)
class AskedModel:
    """A model that was asked before, for those who want to see what it answered.

    Args:
        digest: Its recipe's.
        kept: The directory of its answers, `Candidate.kept` of then.
        identity: What the evaluator's `identity` was then.
    """

    digest: str
    kept: Path
    identity: Mapping[str, object]


@dataclass(frozen=True)
class ShownQuestion:
    """A question for people to look at.

    Args:
        text: As the models were asked.
        images: The bytes of image files.
        answers: What each model said; None where that was not kept.
        reference: The right answer, where there is a single one.
    """

    text: str
    images: tuple[bytes, ...] = ()
    answers: tuple[str | None, ...] = ()
    reference: str = ""


@dataclass(frozen=True)
class Benchmark:
    """A named test set, the harness that runs it, and the part of its questions that count.

    `name` is what the user typed and what tables show (`mmbench`, `python:judge.py:score`), `harness` the evaluator
    that knows it (`python`), `target` what the harness calls it (`judge.py:score`), `only` the questions that are
    asked, where some of those that count are known without; None: all are asked.

    Where it `measures` the likelihood, a score is `Score.of_loss` of the reference answers; a harness is asked for it
    only where its `why_no_likelihood` says None, and its identity then says so, too.
    """

    name: str
    harness: str
    target: str
    split: Split = ALL
    measures: Literal["score", "likelihood"] = "score"
    only: frozenset[str] | None = None

    @property
    def likelihood(self) -> Benchmark:
        """The same questions, and how likely their reference answers are."""
        return replace(self, name=f"{self.name}{LIKELIHOOD}", measures="likelihood")

    def holds(self, index: str) -> bool:
        """Whether the question of that index is asked."""
        return self.split.holds(index) if self.only is None else index in self.only


@dataclass(frozen=True)
class Score:
    """One number for one recipe on one benchmark, 0 to 100, higher is better.

    `n` is the number of questions behind it (None where the harness does not say), `questions` maps a question's
    index to its points (0 to 1) where the harness tells them. `parts` is for a harness that judges several things at
    once: each part then counts as a benchmark of its own, and `value` is their plain mean; `part_questions` are the
    points of each part that is a mean of some. `part_of` is the benchmark that a score is a part of; soup itself sets
    it, and leaves `n` out, since a question that counts for several parts is asked once. `unparsed` is the share of
    answers (0 to 1) that are none by their form, where the harness knows: no option named, neither yes nor no.
    `estimate` says how far the value may be off where not all questions were asked; soup itself sets it.

    Raises:
        EvaluatorError: a value that is no number, not finite, or outside of 0 to 100; a share outside of 0 to 1; points
            of no part.
    """

    value: float
    n: int | None = None
    questions: Mapping[str, float] | None = None
    parts: Mapping[str, float] = field(default_factory=dict)
    unparsed: float | None = None
    estimate: Estimate | None = None
    part_questions: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    part_of: str | None = None

    @classmethod
    def of_loss(cls, losses: Sequence[float]) -> Score:
        """Return the likelihood of the reference answers: 100 exp(-loss).

        Args:
            losses: Of each question, the mean over its answer's tokens of their negative log likelihood, in nats; the
                loss is their mean.

        Raises:
            EvaluatorError: there is none, or it is NaN.
        """
        loss = math.fsum(losses) / len(losses) if losses else math.nan
        if math.isnan(loss):
            raise EvaluatorError(f"likelihood: expected the losses of questions, found {list(losses)[:5]}.")
        return cls(100 * math.exp(-min(max(loss, 0.0), MOST_LOSS)), len(losses))

    @property
    def asked(self) -> int | None:
        """How many questions were asked for it; None where the harness does not say."""
        return self.estimate.asked if self.estimate else self.n

    def by_name(self, benchmark: str) -> dict[str, Score]:
        """Return what counts under which name: the score by its benchmark's, or each of its parts by its own."""
        points = self.part_questions
        return {
            part: Score(value, questions=points.get(part), part_of=benchmark) for part, value in self.parts.items()
        } or {benchmark: self}

    @property
    def loss(self) -> float:
        """The loss that a likelihood was made of."""
        return -math.log(self.value / 100) if self.value else MOST_LOSS

    def __post_init__(self) -> None:
        if self.unparsed is not None and not 0 <= self.unparsed <= 1:
            raise EvaluatorError(f"unparsed: expected a share from 0 to 1, found {self.unparsed!r}.")
        if unknown := sorted(self.part_questions.keys() - self.parts.keys()):
            raise EvaluatorError(f"part_questions: points of what is no part: {', '.join(unknown)}.")
        for what, value in [("score", self.value), *self.parts.items()]:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise EvaluatorError(f"{what}: expected a number from 0 to 100, found {value!r}.")
            if not math.isfinite(value) or not 0 <= value <= 100:
                raise EvaluatorError(f"{what}: expected a finite number from 0 to 100, found {value}.")


class Candidate(Protocol):
    """A recipe about to be judged. What is judged is, bit for bit, what would be written."""

    @property
    def digest(self) -> str:
        """The recipe's digest: equal digests mean equal weights, configuration, tokenizer and processor."""

    @property
    def names(self) -> Sequence[str]:
        """The names of the ingredients that it is made of, in the recipe's order; one alone is a checkpoint."""

    @property
    def template(self) -> Path:
        """A checkpoint directory with the candidate's config, tokenizer and processor files (but other weights)."""

    @property
    def scratch(self) -> Path:
        """A fresh directory for this evaluation's files; removed after success, kept after a failure."""

    @property
    def kept(self) -> Path:
        """A directory of this candidate's own for what is worth keeping for a rerun; made by whoever writes first."""

    @property
    def logs(self) -> Path:
        """The run's directory for what processes print; made by whoever writes first."""

    def directory(self) -> Path:
        """Return the candidate as a complete checkpoint directory; its files may be hard links: only read them."""

    def load_into(
        self, module: Any, names: Mapping[str, str] | None = None, conversions: Sequence[Conversion] = ()
    ) -> None:
        """Stream the weights into a torch module, every parameter and persistent buffer, block by block.

        Every place in the module is filled, bit for bit, or nothing is touched. `soup.hf.key_mapping.plan_loading` has
        both arguments for a module of transformers. What neither names is not loaded: a library may have no use for it.

        Args:
            module: The module.
            names: Maps names on disk to names in memory, for tensors that are loaded as they are. Default: all that
                `conversions` do not take, each under its own name.
            conversions: Make tensors in memory from several on disk, or several from one.

        Raises:
            CheckpointError: names, shapes or dtypes of module and candidate do not match, or a conversion fails; all
                are listed.
        """

    def answered(self, count: int, of: int) -> None:
        """Tell whoever waits that `count` prompts of so many are answered; an evaluator of seconds need not."""

    def remark(self, text: str) -> None:
        """Tell whoever waits of something strange that stops nothing; the same text is told once in a run."""


@runtime_checkable
class Evaluator(Protocol):
    """Turns a candidate into scores. Built once per search from `EvalSettings`, then asked again and again.

    These two methods are all that an evaluator must have; see `Harness` for what it may have besides.
    """

    def identity(self, benchmark: Benchmark) -> Mapping[str, object]:
        """Return all that a score depends on besides the candidate, as JSON values: version, settings, data's digest.

        It is a part of the journal's key, so that a remembered score can't be another data file's. It is asked for
        before any work starts, and is the place to say that data are not here.

        Raises:
            EvaluatorError: the benchmark is unknown, its data are not here, or it can't be split.
        """

    def evaluate(self, candidate: Candidate, benchmark: Benchmark) -> Score:
        """Return the candidate's score over the benchmark's questions for which `benchmark.holds(index)`.

        Raises:
            EvaluatorError: the harness failed or an answer never came. Never a zero in place of a failure.
        """


class Harness(Evaluator, Protocol):
    """All that soup asks of an evaluator, each member besides the two of `Evaluator` with its default.

    Inherit this class to get the defaults; or define the members that differ, on any class: what is missing counts as
    written here (`soup.evaluation.harnesses` looks it up).

    Attributes:
        benchmarks: The benchmarks that `--eval` takes by their bare names.
        has_parts: Whether a score may come in parts, so that the names to weigh are not known before.
        target_hint: What stands for a target in `HARNESS:TARGET`, e.g. `FILE.py:FUNCTION`. Empty: the harness's bare
            name is a benchmark.
        target_syntax: Where a target ends in `--eval`. `one`: at a comma. `list`: at a comma too, and names right
            after it that are no benchmarks are further targets. `rest`: at the end of the text, commas included.
    """

    benchmarks: ClassVar[Mapping[str, BenchmarkInfo]] = MappingProxyType({})
    has_parts: ClassVar[bool] = True
    target_hint: ClassVar[str] = ""
    target_syntax: ClassVar[TargetSyntax] = "one"

    @classmethod
    def target_of(cls, name: str) -> str | None:
        """Return the target of a bare name that `benchmarks` does not list, if the harness knows it all the same."""
        return None

    @classmethod
    def unlisted(cls) -> Mapping[str, BenchmarkInfo | str]:
        """Return what can be named besides `benchmarks`, or the reason why it can't be judged; may take seconds."""
        return {}

    def locate(self, benchmark: Benchmark) -> Location | None:
        """Return where the benchmark's data are expected; None where that says nothing to a user."""
        return None

    def check(self, benchmark: Benchmark, checkpoint: Path) -> None:
        """Look for what would stop an evaluation, as far as it shows before the first question.

        It is called once before a run's first evaluation, and never for scores that are remembered.

        Args:
            benchmark: What will be asked.
            checkpoint: A directory whose config, tokenizer and processor files candidates will have.

        Raises:
            EvaluatorError: an evaluation can't succeed.
        """

    def answer(self, candidate: Candidate, requests: Sequence[Any], on_replies: OnReplies) -> None:
        """Answer requests with the candidate's weights in a worker; `evaluate` deals them out in another process.

        A harness that has this method hands its requests to the dealer in `evaluate`, if there is one
        (`soup.evaluation.dealing.dealer_of`): then the questions of one candidate are spread over all workers. A
        harness without it evaluates a candidate in one worker, whole.

        Args:
            candidate: Whose weights; one after the other may come, each for several calls.
            requests: Some of those that `evaluate` dealt out, as they come out of a pickle.
            on_replies: Called once for every request, with some of them at a time.

        Raises:
            EvaluatorError: an answer did not come. `MissingFilesError` for files that are not on this machine.
        """
        raise EvaluatorError(f"{type(self).__name__}: evaluates whole candidates only.")

    def why_no_likelihood(self, benchmark: Benchmark) -> str | None:
        """Say why `evaluate` can't give the likelihood of the benchmark's reference answers; None where it can."""
        return "its harness gives scores alone"

    def count(self, benchmark: Benchmark) -> int | None:
        """Count the benchmark's questions that are here; None where the harness does not know.

        Raises:
            EvaluatorError: the data are not here, or damaged.
        """
        return None

    def asks_some(self, benchmark: Benchmark) -> bool:
        """Say whether `benchmark.only` is heeded, and an answer is the same whatever is asked beside it.

        If so, the score is what `total` makes of all questions' points, those of `only` and others that are known.
        """
        return False

    def total(self, benchmark: Benchmark, points: Mapping[str, float]) -> float:
        """Return the score, 0 to 100, that the points of all of the benchmark's questions come to: here their mean.

        Args:
            benchmark: Whose questions.
            points: 0 to 1, by the question's index.
        """
        return 100 * math.fsum(points.values()) / len(points)

    def categories(self, benchmark: Benchmark) -> Mapping[str, str]:
        """Return the category of each question by its index; nothing where the data name none.

        Raises:
            EvaluatorError: the data are not here, or damaged.
        """
        return {}

    def show(
        self, benchmark: Benchmark, indices: Sequence[str], models: Sequence[AskedModel]
    ) -> Mapping[str, ShownQuestion]:
        """Return questions by their indices, with what models answered; those that can't be shown are left out.

        Raises:
            EvaluatorError: the data are not here, damaged, or others than the models were asked.
        """
        return {}

    def fetch(self, benchmark: Benchmark, phase: Callable[[str, int], None], progress: Callable[[int], None]) -> Path:
        """Download the benchmark's data, and return where they lie then.

        Args:
            benchmark: Whose data.
            phase: Called with what is downloaded and the bytes to come.
            progress: Called with the bytes of each chunk.

        Raises:
            EvaluatorError: they can't be had.
        """
        raise EvaluatorError(f"There is nothing to fetch for {benchmark.name}.")
