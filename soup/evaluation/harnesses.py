"""The registered harnesses: the benchmarks that each offers, and the defaults for what one leaves out.

Nothing here knows a harness by name: what ships and what a package or a user registers are asked the same questions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MethodType
from typing import Any

from soup.errors import EvaluatorError, SoupError
from soup.evaluation.api import (
    AskedModel,
    Benchmark,
    BenchmarkInfo,
    Candidate,
    Evaluator,
    Harness,
    Location,
    OnReplies,
    ShownQuestion,
    TargetSyntax,
)
from soup.evaluation.settings import EvalSettings
from soup.support.plugins import EVALUATORS

__all__ = [
    "Catalog",
    "ListedBenchmark",
    "answer",
    "asks_some",
    "build_evaluator",
    "can_be_dealt",
    "can_fetch",
    "categories",
    "check",
    "count",
    "fetch",
    "has_check",
    "locate",
    "may_have_parts",
    "near_names",
    "ranks",
    "show",
    "target_hint",
    "target_of",
    "target_syntax",
    "total",
    "unlisted",
    "why_no_likelihood",
]


@dataclass(frozen=True)
class ListedBenchmark:
    """A benchmark that needs no prefix, with the registered name of its harness."""

    harness: str
    info: BenchmarkInfo


@dataclass(frozen=True)
class Catalog:
    """The benchmarks of all registered harnesses, and why some harnesses can't be asked for theirs.

    Args:
        benchmarks: By bare name. Of two harnesses that list one name, what ships comes before plug-ins.
        broken: The reason by the harness's registered name.
    """

    benchmarks: Mapping[str, ListedBenchmark]
    broken: Mapping[str, str]

    @classmethod
    def load(cls) -> Catalog:
        """Import all registered harnesses and ask each for its benchmarks; a broken one breaks no other."""
        benchmarks: dict[str, ListedBenchmark] = {}
        broken: dict[str, str] = {}
        for harness in sorted(EVALUATORS.names(), key=lambda name: name not in EVALUATORS.shipped):
            try:
                offered = _benchmarks(harness)
            except SoupError as reason:
                broken[harness] = str(reason)
                continue
            for name, info in offered.items():
                benchmarks.setdefault(name, ListedBenchmark(harness, info))
        return cls(benchmarks, broken)

    @cached_property
    def groups(self) -> Mapping[str, list[str]]:
        """The names of benchmarks by the name of their group."""
        groups: dict[str, list[str]] = {}
        for name, listed in self.benchmarks.items():
            if listed.info.group:
                groups.setdefault(listed.info.group, []).append(name)
        return groups


def target_of(harness: str, name: str) -> str | None:
    """Call `Harness.target_of` of a registered harness; None where it can't be imported."""
    target: str | None = _class_member(harness, "target_of")(name)
    return target


def near_names(harness: str, name: str) -> Sequence[str]:
    """Call `Harness.near_names` of a registered harness; nothing where it can't be imported."""
    names: Sequence[str] = _class_member(harness, "near_names")(name)
    return names


def unlisted(harness: str) -> Mapping[str, BenchmarkInfo | str]:
    """Call `Harness.unlisted` of a registered harness; nothing where it can't be imported."""
    infos: Mapping[str, BenchmarkInfo | str] = _class_member(harness, "unlisted")()
    return infos


def build_evaluator(harness: str) -> Evaluator:
    """Build the evaluator of a registered harness with default settings: enough to ask about its data.

    Raises:
        EvaluatorError: it can't be imported or built.
    """
    factory: Callable[[EvalSettings], Evaluator] = EVALUATORS.get(harness)
    try:
        return factory(EvalSettings())
    except SoupError:
        raise
    except Exception as cause:
        raise EvaluatorError(f"evaluator '{harness}' can't be built: {type(cause).__name__}: {cause}") from cause


def may_have_parts(harness: str) -> bool:
    """Whether a score of the registered harness may come in parts; so too where it can't be imported."""
    return bool(_class_member(harness, "has_parts"))


def target_hint(harness: str) -> str:
    """Return what stands for a target after the registered harness's name; empty where it needs none."""
    return str(_class_member(harness, "target_hint"))


def target_syntax(harness: str) -> TargetSyntax:
    """Return where a target of the registered harness ends in `--eval`."""
    syntax: TargetSyntax = _class_member(harness, "target_syntax")
    return syntax


def locate(evaluator: Evaluator, benchmark: Benchmark) -> Location | None:
    """Call `Harness.locate` of any evaluator."""
    location: Location | None = _member(evaluator, "locate")(benchmark)
    return location


def check(evaluator: Evaluator, benchmark: Benchmark, checkpoint: Path) -> None:
    """Call `Harness.check` of any evaluator."""
    _member(evaluator, "check")(benchmark, checkpoint)


def has_check(evaluator: Evaluator) -> bool:
    """Whether the evaluator has a `check` of its own."""
    return _overrides(evaluator, "check")


def ranks(evaluator: Evaluator) -> bool:
    """Look up `Harness.ranks` of any evaluator."""
    return bool(_member(evaluator, "ranks"))


def count(evaluator: Evaluator, benchmark: Benchmark) -> int | None:
    """Call `Harness.count` of any evaluator."""
    questions: int | None = _member(evaluator, "count")(benchmark)
    return questions


def why_no_likelihood(evaluator: Evaluator, benchmark: Benchmark) -> str | None:
    """Call `Harness.why_no_likelihood` of any evaluator."""
    reason: str | None = _member(evaluator, "why_no_likelihood")(benchmark)
    return reason


def asks_some(evaluator: Evaluator, benchmark: Benchmark) -> bool:
    """Call `Harness.asks_some` of any evaluator."""
    return bool(_member(evaluator, "asks_some")(benchmark))


def total(evaluator: Evaluator, benchmark: Benchmark, points: Mapping[str, float]) -> float:
    """Call `Harness.total` of any evaluator."""
    return float(_member(evaluator, "total")(benchmark, points))


def can_be_dealt(evaluator: Evaluator, benchmark: Benchmark) -> bool:
    """Whether the evaluator's requests for a benchmark may be answered by other processes; no likelihood's are."""
    return benchmark.measures == "score" and _overrides(evaluator, "answer")


def answer(evaluator: Evaluator, candidate: Candidate, requests: Sequence[Any], on_replies: OnReplies) -> None:
    """Call `Harness.answer` of any evaluator."""
    _member(evaluator, "answer")(candidate, requests, on_replies)


def categories(evaluator: Evaluator, benchmark: Benchmark) -> Mapping[str, str]:
    """Call `Harness.categories` of any evaluator."""
    names: Mapping[str, str] = _member(evaluator, "categories")(benchmark)
    return names


def show(
    evaluator: Evaluator, benchmark: Benchmark, indices: Sequence[str], models: Sequence[AskedModel]
) -> Mapping[str, ShownQuestion]:
    """Call `Harness.show` of any evaluator."""
    shown: Mapping[str, ShownQuestion] = _member(evaluator, "show")(benchmark, indices, models)
    return shown


def can_fetch(evaluator: Evaluator) -> bool:
    """Whether the evaluator has a `fetch` of its own."""
    return _overrides(evaluator, "fetch")


def fetch(
    evaluator: Evaluator, benchmark: Benchmark, phase: Callable[[str, int], None], progress: Callable[[int], None]
) -> Path:
    """Call `Harness.fetch` of any evaluator."""
    return Path(_member(evaluator, "fetch")(benchmark, phase, progress))


def _benchmarks(harness: str) -> Mapping[str, BenchmarkInfo]:
    offered = _member(EVALUATORS.get(harness), "benchmarks")
    if not isinstance(offered, Mapping) or not all(isinstance(info, BenchmarkInfo) for info in offered.values()):
        raise EvaluatorError(
            f"evaluator '{harness}': expected its `benchmarks` to map names to soup.evaluation.api.BenchmarkInfo, "
            f"found {offered!r:.80}."
        )
    return offered


def _class_member(harness: str, name: str) -> Any:
    try:
        return _member(EVALUATORS.get(harness), name)
    except SoupError:  # building it will tell why
        return getattr(Harness, name)


def _overrides(evaluator: Evaluator, name: str) -> bool:
    method = _member(evaluator, name)
    return getattr(method, "__func__", method) is not getattr(Harness, name)


def _member(harness: object, name: str) -> Any:
    """Return the harness's own member of that name, or else the default of `Harness`, its methods bound to it."""
    default = getattr(Harness, name)
    is_method = callable(default) and not hasattr(default, "__self__")  # a class method is bound already
    return getattr(harness, name, MethodType(default, harness) if is_method else default)
