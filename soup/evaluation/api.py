"""The words of judging: what an evaluator gets, and what it gives back.

An evaluator never sees a tensor. It gets a `Candidate` (a soup that may or may not lie on disk yet) and a `Benchmark`
(a named test set and the part of its questions that count), and gives back one `Score`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from soup.errors import EvaluatorError
from soup.support.plugins import EVALUATORS
from soup.support.text import did_you_mean

__all__ = [
    "ALL",
    "OPENCOMPASS",
    "Benchmark",
    "BenchmarkInfo",
    "Candidate",
    "Evaluator",
    "Score",
    "Split",
    "may_have_parts",
    "parse_benchmarks",
]

Part = Literal["all", "selection", "report"]


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
            raise EvaluatorError(f"--split must lie between 0 and 1, exclusive; found {self.fraction}.")

    def holds(self, index: str) -> bool:
        """Whether the question of that index counts in this part; of `GROUP/INDEX` the group alone decides."""
        if self.part == "all":
            return True
        group = index.partition("/")[0]
        place = int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big") / 2**64
        return (place < self.fraction) == (self.part == "selection")


ALL = Split()


@dataclass(frozen=True)
class BenchmarkInfo:
    """What is known of a benchmark before its data are here: the rows of `soup list benchmarks`.

    `questions` is the size of the published test set, `judge` whether a language model grades the answers, `metric`
    what a score of 0 to 100 counts, `source` the data set's name in the harness.
    """

    summary: str
    source: str
    questions: int
    metric: str
    judge: bool = False


OPENCOMPASS = {
    "mmbench": BenchmarkInfo(
        "perception and reasoning", "MMBench_DEV_EN", 1164, "right in every rotation of the options"
    ),
    "mmstar": BenchmarkInfo("questions that need the image", "MMStar", 1500, "right option"),
    "mmmu": BenchmarkInfo("college-level subjects", "MMMU_DEV_VAL", 900, "right option, validation questions"),
    "mathvista": BenchmarkInfo(
        "mathematics in images", "MathVista_MINI", 1000, "right answer, as extracted", judge=True
    ),
    "hallusionbench": BenchmarkInfo("illusions", "HallusionBench", 951, "mean of right answers, figures and questions"),
    "ai2d": BenchmarkInfo("diagrams of school science", "AI2D_TEST", 3088, "right option"),
    "ocrbench": BenchmarkInfo("reading text in images", "OCRBench", 1000, "the text is in the answer"),
    "mmvet": BenchmarkInfo("open questions", "MMVet", 218, "mean grade", judge=True),
}
"""The benchmarks that need no prefix: OpenCompass's eight, run by the harness `vlmeval` (VLMEvalKit)."""


@dataclass(frozen=True)
class Benchmark:
    """A named test set, the harness that runs it, and the part of its questions that count.

    `name` is what the user typed and what tables show (`mmbench`, `python:judge.py:score`), `harness` the evaluator
    that knows it (`vlmeval`, `python`), `target` what the harness calls it (`mmbench`, `judge.py:score`).
    """

    name: str
    harness: str
    target: str
    split: Split = ALL


@dataclass(frozen=True)
class Score:
    """One number for one recipe on one benchmark, 0 to 100, higher is better.

    `n` is the number of questions behind it (None where the harness does not say), `questions` maps a question's
    index to its points (0 to 1) where the harness tells them. `parts` is for a harness that judges several things at
    once: each part then counts as a benchmark of its own, and `value` is their plain mean.

    Raises:
        EvaluatorError: a value that is no number, not finite, or outside of 0 to 100.
    """

    value: float
    n: int | None = None
    questions: Mapping[str, float] | None = None
    parts: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for what, value in [("score", self.value), *self.parts.items()]:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise EvaluatorError(f"{what}: expected a number from 0 to 100, found {value!r}.")
            if not math.isfinite(value) or not 0 <= value <= 100:
                raise EvaluatorError(f"{what}: expected a finite number from 0 to 100, found {value}.")


def parse_benchmarks(texts: Iterable[str], split: Split = ALL) -> list[Benchmark]:
    """The benchmarks that `--eval` names: comma-separated and repeatable, each once, in the given order.

    `NAME` is an OpenCompass benchmark and `opencompass` all of them; `HARNESS:TARGET` is what harness calls target. A
    `command:` goes to the end of its text, for shell commands have commas of their own. Names right after an
    `lm_eval:` that are no benchmark themselves are tasks of lm-eval too: `lm_eval:arc_easy,boolq,mmbench` is two tasks
    and MMBench.

    Raises:
        EvaluatorError: no benchmark at all, or unknown ones; all are listed, each with the nearest known.
    """
    names = [name for text in texts for name in _separate(text)]
    names = [each for name in names for each in (OPENCOMPASS if name == "opencompass" else [name])]
    unknown = [name for name in names if name not in OPENCOMPASS and name.partition(":")[0] not in EVALUATORS.names()]
    if unknown:
        known = [
            *OPENCOMPASS,
            "opencompass",
            *(f"{harness}:" for harness in EVALUATORS.names() if harness != "vlmeval"),
        ]
        raise EvaluatorError("\n".join(f"Unknown benchmark '{name}'.{did_you_mean(name, known)}" for name in unknown))
    if not names:
        raise EvaluatorError(f"--eval names no benchmark. Known: {', '.join(OPENCOMPASS)}.")
    return [_benchmark(name, split) for name in dict.fromkeys(names)]


def may_have_parts(benchmark: Benchmark) -> bool:
    """Whether a score on it may come in parts, so that the names to weigh are not known before."""
    return benchmark.harness not in ("vlmeval", "lm_eval")


def _separate(text: str) -> list[str]:
    before, comma, command = f",{text}".partition(",command:")
    names: list[str] = []
    for name in filter(None, map(str.strip, before.split(","))):
        is_bare = ":" not in name and name not in (*OPENCOMPASS, "opencompass")
        is_task = is_bare and bool(names) and names[-1].startswith("lm_eval:")
        names.append(f"lm_eval:{name}" if is_task else name)
    return names + ([f"command:{command}"] if comma else [])


def _benchmark(name: str, split: Split) -> Benchmark:
    harness, colon, target = name.partition(":")
    return Benchmark(name, harness, target, split) if colon else Benchmark(name, "vlmeval", name, split)


class Candidate(Protocol):
    """A recipe about to be judged. What is judged is, bit for bit, what would be written."""

    @property
    def digest(self) -> str:
        """The recipe's digest: equal digests mean equal weights, configuration, tokenizer and processor."""

    @property
    def template(self) -> Path:
        """A checkpoint directory with the candidate's config, tokenizer and processor files (but other weights)."""

    @property
    def scratch(self) -> Path:
        """A fresh directory for this evaluation's files; removed after success, kept after a failure."""

    @property
    def kept(self) -> Path:
        """A directory of this candidate's own for what is worth keeping for a rerun; made by whoever writes first."""

    def directory(self) -> Path:
        """The candidate as a complete checkpoint directory. Read-only: files may be hard links to an ingredient's."""

    def load_into(self, module: Any, names: Mapping[str, str] | None = None) -> None:
        """Stream the weights into a torch module, every parameter and persistent buffer, block by block.

        `names` maps names on disk to names in memory where those differ; what it does not name is not loaded (a
        library may have no use for a tensor). Every place in the module is filled, bit for bit, or nothing is touched.

        Raises:
            CheckpointError: names, shapes or dtypes of module and candidate do not match; all are listed.
        """

    def answered(self, count: int, of: int) -> None:
        """Tell whoever waits that `count` prompts of so many are answered; an evaluator of seconds need not."""


@runtime_checkable
class Evaluator(Protocol):
    """Turns a candidate into scores. Built once per search from `EvalSettings`, then asked again and again."""

    def identity(self, benchmark: Benchmark) -> Mapping[str, Any]:
        """All that a score depends on besides the candidate: version, settings, digest of the data (JSON values).

        It is a part of the journal's key, so that a remembered score can't be another data file's. It is asked for
        before any work starts, and is the place to say that data are not here.

        Raises:
            EvaluatorError: the benchmark is unknown, its data are not here, or it can't be split.
        """

    def evaluate(self, candidate: Candidate, benchmark: Benchmark) -> Score:
        """The candidate's score over the benchmark's questions for which `benchmark.split.holds(index)`.

        Raises:
            EvaluatorError: the harness failed or an answer never came. Never a zero in place of a failure.
        """
