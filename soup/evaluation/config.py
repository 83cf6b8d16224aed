"""How soups are evaluated: by which benchmarks, weighed and guarded how, by how many workers."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from soup.errors import EvaluatorError
from soup.evaluation.api import ALL, Benchmark, Split
from soup.evaluation.benchmark_names import parse_benchmarks
from soup.evaluation.functions import benchmark_of_function
from soup.evaluation.harnesses import may_have_parts
from soup.evaluation.objective import PLAIN, Objective
from soup.evaluation.question_rule import QuestionRule
from soup.evaluation.settings import EvalSettings
from soup.support.options import option, option_name, refuse_wrong_type

__all__ = ["BenchmarkNames", "EvalConfig"]

BenchmarkFunction = Callable[[str], object]
"""Gets a checkpoint's directory; gives a number from 0 to 100, or a dict of such."""

BenchmarkNames = str | BenchmarkFunction | Sequence[str | BenchmarkFunction]


@dataclass(frozen=True)
class EvalConfig(EvalSettings):
    """What a search or an evaluation scores by: benchmarks, the split of their questions, the objective, workers.

    It takes what `EvalSettings` takes, too.

    Args:
        benchmarks: Their names, as on the command line: `"mmbench,ocrbench"`, a function that scores a checkpoint's
            directory, or a list of such.
        split: This share of each benchmark's questions chooses, the others only report.
        objective: How benchmarks are weighed in the overall, and guarded against a drop.
        workers: So many processes evaluate candidates at once, one GPU each; 0: this process does.
        ray: The address of a Ray cluster whose actors evaluate, or `local`.
        questions: `all`, or `disputed:audit=0.05`: a search asks soups the questions on which the single models differ
            and that share of the others, at least 50 of a benchmark; what it chooses is asked everything. With
            `disputed` alone a search of many soups asks a part of that, and more where it does not suffice.

    Raises:
        EvaluatorError: values of a wrong type, a split outside of 0 to 1, or an objective or split of no benchmarks.
    """

    benchmarks: BenchmarkNames = option(
        (),
        "Benchmarks by name, as HARNESS:TARGET, or a plug-in; comma-separated, repeatable.",
        "Evaluate",
        "texts",
        flag="eval",
        metavar="NAMES",
    )
    split: float | None = option(
        None, "This share of the questions chooses, the rest only reports.", "Evaluate", "number", metavar="F"
    )
    objective: Objective = PLAIN
    workers: int = option(
        0, "Processes that evaluate at once, a GPU each; 0: this one.", "Evaluate", "count", metavar="N", minimum=0
    )
    ray: str | None = option(
        None, "Evaluate on a Ray cluster, one actor a GPU (or --workers of them).", "Evaluate", metavar="ADDRESS|local"
    )

    questions: str = option(
        "all",
        "Ask soups all questions, or those on which single models differ and this share of the others.",
        "Evaluate",
        metavar="all|disputed[:audit=F]",
    )

    def __post_init__(self) -> None:
        kinds: dict[str, type | tuple[type, ...]] = {
            "split": (float, int, type(None)),
            "objective": Objective,
            "workers": int,
            "ray": (str, type(None)),
            "questions": str,
        }
        refuse_wrong_type({name: getattr(self, name) for name in kinds}, kinds, EvaluatorError)
        QuestionRule.parse(self.questions)
        if not all(isinstance(entry, str) or callable(entry) for entry in _entries(self.benchmarks)):
            raise EvaluatorError(f"benchmarks: expected the names of benchmarks, found {self.benchmarks!r:.80}.")

    @classmethod
    def of(cls, benchmarks: BenchmarkNames | EvalConfig) -> EvalConfig:
        """Return what says all, or that of benchmarks alone."""
        return benchmarks if isinstance(benchmarks, EvalConfig) else cls(benchmarks)

    @property
    def settings(self) -> EvalSettings:
        """The part of it that evaluators are built from."""
        names = [entry.name for entry in dataclasses.fields(EvalSettings)]
        dealt = bool(self.workers or self.ray)
        return EvalSettings(**{name: getattr(self, name) for name in names} | {"dealt": dealt})

    @property
    def question_rule(self) -> QuestionRule:
        """Which questions a search asks soups."""
        return QuestionRule.parse(self.questions)

    @property
    def selection(self) -> Split:
        """The questions that choose."""
        return ALL if self.split is None else Split("selection", self.split)

    def parse(self) -> tuple[Benchmark, ...]:
        """Return the benchmarks that its texts name; none where there are no texts.

        Raises:
            EvaluatorError: an unknown benchmark, a split that is no share; or an objective, split or questions of none.
        """
        if not self.benchmarks:
            if self.objective != PLAIN or self.split is not None or self.question_rule.audit is not None:
                names = ", ".join(option_name(name) for name in ("weights", "guard", "split", "questions"))
                raise EvaluatorError(f"{names} are about benchmarks: pass {option_name('eval')}, too.")
            return ()
        entries, split = _entries(self.benchmarks), self.selection
        texts = [entry for entry in entries if isinstance(entry, str)]
        benchmarks = parse_benchmarks(texts, split) if texts else []
        benchmarks += [benchmark_of_function(entry, split) for entry in entries if not isinstance(entry, str)]
        counts = Counter(benchmark.name for benchmark in benchmarks)
        if twice := sorted(name for name, count in counts.items() if count > 1):
            raise EvaluatorError(
                f"{option_name('eval')}: several benchmarks have one name: {', '.join(twice)}. Rename the functions."
            )
        if not any(may_have_parts(benchmark.harness) for benchmark in benchmarks):
            self.objective.check([benchmark.name for benchmark in benchmarks])
        return tuple(benchmarks)


def _entries(benchmarks: BenchmarkNames) -> Sequence[str | BenchmarkFunction]:
    if isinstance(benchmarks, str) or callable(benchmarks):
        return [benchmarks]
    if not isinstance(benchmarks, Sequence):
        raise EvaluatorError(f"benchmarks: expected the names of benchmarks, found {benchmarks!r:.80}.")
    return benchmarks
