"""A benchmark: a named test set, and the part of its questions that count."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from soup.errors import EvaluatorError
from soup.support.options import option_name

__all__ = ["ALL", "LIKELIHOOD", "Benchmark", "BenchmarkInfo", "Location", "Part", "Split"]

Part = Literal["all", "selection", "report"]

LIKELIHOOD = " likelihood"
"""What a benchmark's name ends in where it measures that."""


@dataclass(frozen=True)
class Split:
    """Which of a benchmark's questions count: all of them, those that choose, or those that only report.

    A question belongs to the selection part when the hash of its index falls into the lowest `fraction` of the hash's
    range: the same for every model, whatever the order of the file. Rotations of one question share its index, so
    that they stay together. What stands before a slash in an index is the question's group (`figure_7/VS_...`): where
    a metric counts a group only if all of it is right, all of it lies in one part.

    Args:
        part: `all`, `selection` (those that choose) or `report` (the others).
        fraction: The share of the selection, between 0 and 1; of `all` it says nothing.

    Raises:
        EvaluatorError: a fraction that is none.
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


@dataclass(frozen=True)
class Benchmark:
    """A named test set, the harness that runs it, and the part of its questions that count.

    Args:
        name: What the user typed and what tables show: `mmbench`, `python:mine.py:score`.
        harness: The registered name of the evaluator that knows it: `python`.
        target: What the harness calls it: `mine.py:score`.
        split: The questions that count.
        measures: `score`, or the `likelihood` of the reference answers: then a score is `Score.of_loss`. A harness is
            asked for it only where its `why_no_likelihood` says None, and its identity then says so, too.
        only: The questions that are asked, by their indices, where some of those that count are known without; None:
            all are asked.
        function: What `target` names, where that is a function of this process alone.
    """

    name: str
    harness: str
    target: str
    split: Split = ALL
    measures: Literal["score", "likelihood"] = "score"
    only: frozenset[str] | None = None
    function: Callable[[str], object] | None = field(default=None, compare=False, repr=False)

    @property
    def likelihood(self) -> Benchmark:
        """The same questions, and how likely their reference answers are."""
        return replace(self, name=f"{self.name}{LIKELIHOOD}", measures="likelihood")

    def holds(self, index: str) -> bool:
        """Whether the question of that index is asked."""
        return self.split.holds(index) if self.only is None else index in self.only


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
    """Where a benchmark's data are expected on this machine.

    Args:
        path: A file or a folder.
        url: The address that they are downloaded from; None where that is not known.
    """

    path: Path
    url: str | None = None
