"""What a search maximizes and what it must not break: benchmark weights, and guards against a drop."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from soup.errors import EvaluatorError
from soup.evaluation.api import Score
from soup.support.options import option, option_name, refuse_wrong_type
from soup.support.text import did_you_mean

__all__ = ["DECIMALS", "PLAIN", "Guard", "Objective", "ObjectiveJson"]

LEAST_WEIGHT, MOST_WEIGHT = 1e-6, 1e6
"""Beyond that the others do not count, and sums of weights are none."""

DECIMALS = 9
"""Scores are compared to so many decimals: the same points in another order come to a sum that is off by less."""

_GUARD = re.compile(r"(.+?)\s*>=\s*([+-]?\d+(?:\.\d+)?)")


@dataclass(frozen=True)
class Guard:
    """A benchmark on which a soup must score at least the best single model's score plus `margin` (mostly below 0)."""

    benchmark: str
    margin: float

    def __str__(self) -> str:
        return f"{self.benchmark}>={self.margin:g}"


class ObjectiveJson(TypedDict, total=False):
    """An objective in a recipe's YAML and a result's JSON; both keys are absent for the plain mean."""

    weights: dict[str, float]
    guards: list[str]


@dataclass(frozen=True)
class Objective:
    """The overall to maximize, a mean of the benchmarks' scores, and what a soup must not break.

    Args:
        weights: Of benchmarks by name, 1e-6 to 1e6; the others weigh 1.
        guards: Each says how far below the best single model a soup may be on a benchmark.
    """

    weights: Mapping[str, float] = option(
        {}, "Weigh benchmarks in the overall: mmbench=2,ocrbench=1. Repeatable.", "Evaluate", "texts", metavar="NAME=W"
    )
    guards: tuple[Guard, ...] = option(
        (),
        "ocrbench>=-1.0: at most 1.0 below the best single model. Repeatable.",
        "Evaluate",
        "texts",
        flag="guard",
        metavar="NAME>=M",
    )

    def __post_init__(self) -> None:
        kinds: dict[str, type | tuple[type, ...]] = {"weights": Mapping, "guards": (tuple, list)}
        refuse_wrong_type({name: getattr(self, name) for name in kinds}, kinds, EvaluatorError)
        if wrong := [guard for guard in self.guards if not isinstance(guard, Guard)]:
            raise EvaluatorError(f"guards: expected Guard(benchmark, margin), found {wrong[0]!r:.80}.")
        for name, weight in self.weights.items():
            if not isinstance(weight, int | float) or not LEAST_WEIGHT <= weight <= MOST_WEIGHT:
                raise EvaluatorError(
                    f"{option_name('weights')}: expected a number from {LEAST_WEIGHT:g} to {MOST_WEIGHT:g} for {name}, "
                    f"found {weight!r:.80}."
                )

    @classmethod
    def parse(cls, weights: Iterable[str], guards: Iterable[str]) -> Objective:
        """Parse weights such as `mmbench=2,ocrbench=1`, and guards such as `ocrbench>=-1.0`.

        Args:
            weights: Texts of BENCHMARK=NUMBER, each comma-separated.
            guards: Texts of BENCHMARK>=MARGIN, each comma-separated.

        Raises:
            EvaluatorError: A text of another form, a weight that is none, or two for one benchmark.
        """
        pairs = [_weight(pair) for text in weights for pair in text.split(",") if pair.strip()]
        rules = [_guard(rule) for text in guards for rule in text.split(",") if rule.strip()]
        for flag, names in (
            (option_name("weights"), [name for name, _ in pairs]),
            (option_name("guard"), [rule.benchmark for rule in rules]),
        ):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise EvaluatorError(f"{flag}: two for {', '.join(twice)}: which one is meant?")
        return cls(dict(pairs), tuple(rules))

    def check(self, names: Sequence[str]) -> None:
        """Refuse weights and guards for benchmarks that are not among `names`.

        Raises:
            EvaluatorError: All of them are listed.
        """
        used = [*self.weights, *(guard.benchmark for guard in self.guards)]
        wrong = [
            f"No benchmark '{name}' to weigh or guard.{did_you_mean(name, names)}" for name in used if name not in names
        ]
        if wrong:
            raise EvaluatorError("\n".join(dict.fromkeys(wrong)))

    def shares(self, names: Iterable[str]) -> dict[str, float]:
        """Return the weight of each of these benchmarks."""
        return {name: self.weights.get(name, 1.0) for name in names}

    def overall(self, scores: Mapping[str, Score]) -> float:
        """Compute the weighted mean of scores by benchmark, 0 to 100; the plain mean where no weights are given.

        It is rounded to nine decimals, so that what is as good is equal.
        """
        shares = self.shares(scores)
        total = math.fsum(shares[name] * score.value for name, score in scores.items())
        return round(total / math.fsum(shares.values()), DECIMALS)

    def broken(self, scores: Mapping[str, Score], singles: Iterable[Mapping[str, Score]]) -> tuple[str, ...]:
        """List the guards that a soup breaks, each with both scores.

        Args:
            scores: The soup's scores by benchmark.
            singles: The scores of each single model; the best of them on a guarded benchmark is what counts.
        """
        messages = []
        rows = list(singles) if self.guards else []
        for guard in self.guards:
            best = max(row[guard.benchmark].value for row in rows)
            value = scores[guard.benchmark].value
            if round(value - best - guard.margin, DECIMALS) < 0:
                mark = "~" if scores[guard.benchmark].estimate else ""
                messages.append(f"{guard}: {mark}{value:.2f}, and the best single model has {best:.2f}")
        return tuple(messages)

    def as_json(self) -> ObjectiveJson:
        """Give the objective as it stands in a recipe and a report."""
        document: ObjectiveJson = {}
        if self.weights:
            document["weights"] = dict(self.weights)
        if self.guards:
            document["guards"] = [str(guard) for guard in self.guards]
        return document


PLAIN = Objective()


def _weight(pair: str) -> tuple[str, float]:
    name, equals, value = pair.rpartition("=")  # a command's name may hold `=` itself
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not equals or not math.isfinite(number):
        raise EvaluatorError(f"{option_name('weights')}: expected BENCHMARK=NUMBER, e.g. mmbench=2, found '{pair}'.")
    return name.strip(), number


def _guard(rule: str) -> Guard:
    match = _GUARD.fullmatch(rule.strip())
    if not match:
        raise EvaluatorError(
            f"{option_name('guard')}: expected BENCHMARK>=MARGIN, e.g. ocrbench>=-1.0, found '{rule}'."
        )
    return Guard(match[1], float(match[2]))
