"""Rules of admission: when a soup replaces the best one so far."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar, cast

from soup.errors import EvaluatorError, RecipeError
from soup.search.strategies.base import Scored, allowed
from soup.support.options import option_name

__all__ = ["Rule", "best_of", "careful_rule", "describe_difference", "describe_form", "describe_overall"]

S = TypeVar("S", bound=Scored)
T = TypeVar("T")


class _Comparable(Protocol):
    """A trial that can be compared with another, question by question."""

    def better_than(self, other: Scored) -> float:
        """Give the probability that this soup beats the other."""


@dataclass(frozen=True)
class Rule:
    """A rule by its text: `ge` (as good), `gt` (better), `p>0.9` (better with that probability, paired bootstrap)."""

    text: str
    beats: Callable[[Scored, Scored], bool]

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Parse the text that a user typed.

        Raises:
            RecipeError: There is no such rule.
        """
        if text == "ge":
            return cls(text, lambda trial, best: trial.overall >= best.overall)
        if text == "gt":
            return cls(text, lambda trial, best: trial.overall > best.overall)
        match = re.fullmatch(r"p\s*>\s*(0?\.\d+)", str(text))
        if not match:
            raise RecipeError(
                f"Unknown rule '{text}' for {option_name('accept')}. Known: ge, gt, or p>0.9 (a number between 0 "
                "and 1)."
            )
        least = float(match[1])
        return cls(text, lambda trial, best: cast("_Comparable", trial).better_than(best) > least)

    def check(self, trial: Scored) -> None:
        """Fail now, and not many scores later, where no trial tells what the rule needs.

        Raises:
            EvaluatorError: `p>...`, and a benchmark does not give its questions' points.
        """
        self.beats(trial, trial)

    def admits(self, trial: Scored, best: Scored) -> bool:
        """Whether a trial replaces the best one so far: never if it breaks a guard, always if only the best does."""
        return allowed(trial) and (not allowed(best) or self.beats(trial, best))


def careful_rule(accept: str | None, trial: Scored) -> Rule:
    """Return the rule that was asked for; else `p>0.8` where a trial tells its questions' points, and `gt` elsewhere.

    For strategies that compare so many soups that most steps would win by noise.
    """
    if accept is not None:
        return Rule.parse(accept)
    try:
        cast("_Comparable", trial).better_than(trial)
    except (AttributeError, EvaluatorError):
        return Rule.parse("gt")
    return Rule.parse("p>0.8")


def best_of(trials: Iterable[tuple[T, S]]) -> tuple[T, S]:
    """Return the (soup, trial) with the highest overall, one that keeps the guards first; of equals the first."""
    return max(trials, key=lambda pair: (allowed(pair[1]), pair[1].overall))


def describe_form(trial: Scored) -> str:
    """Return `, 3.1 % of answers unparsed`, over the benchmarks that know it; nothing where none does."""
    scores = getattr(trial, "scores", {}).values()
    known = [(score.unparsed, score.n or 1) for score in scores if score.unparsed is not None]
    if not known:
        return ""
    share = math.fsum(share * count for share, count in known) / sum(count for _, count in known)
    return f", {100 * share:.1f} % of answers unparsed"


def describe_difference(trial: Scored, other: Scored) -> str:
    """Return `-0.42 [-0.80, -0.03]`: how much higher an overall is, and its paired 95 % interval where one is known.

    After a tilde where one of both is an estimate.
    """
    difference = getattr(trial, "difference", lambda other: None)(other)
    return f"{_mark(trial) or _mark(other)}{difference or f'{trial.overall - other.overall:+z.2f}'}"


def describe_overall(trial: Scored) -> str:
    """Return `61.80`, after a tilde where that is an estimate."""
    return f"{_mark(trial)}{trial.overall:.2f}"


def _mark(trial: Scored) -> str:
    return "~" if getattr(trial, "is_estimated", False) else ""
