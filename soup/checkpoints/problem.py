"""A reason why checkpoints can't be souped: a sentence for people, and its parts for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

__all__ = ["Problem", "ProblemKind"]

ProblemKind = Literal[
    "unreadable",  # a checkpoint that can't be opened
    "quantised",  # packed numbers
    "adapter",  # parts of an adapter among the weights
    "empty",  # weights that were not gathered
    "names",  # tensors that only one has, or has under other names
    "shape",
    "dtype",
    "integers",  # whole numbers that differ
    "config",  # a value of config.json
    "tokenizer",
    "nonfinite",  # NaN or infinity among the weights
    "overflow",  # a result that its dtype can't hold
    "recipe",  # what is asked for can't be made
]

_LISTED = ("names", "adapter", "empty")
"""Kinds whose texts count and list their tensors."""


@dataclass(frozen=True)
class Problem:
    """A reason why ingredients can't be souped; `str` gives the sentence.

    Args:
        kind: What kind of reason it is.
        text: What is wrong, without the ingredient and the key.
        ingredient: Whose it is; several, by commas; empty where it is the pool's.
        keys: The tensors, or the key paths in `file`.
        file: The file beside the weights that it is about.
        against: The ingredient that it was held against.
        expected: The value there.
        found: The value here.
        cure: What to do next.
    """

    kind: ProblemKind
    text: str
    ingredient: str = ""
    keys: Sequence[str] = ()
    file: str = ""
    against: str = ""
    expected: str | None = None
    found: str | None = None
    cure: str = ""

    @classmethod
    def differing(
        cls, kind: ProblemKind, who: tuple[str, str], expected: object, found: object, note: str = "", **parts: object
    ) -> Problem:
        """Make the problem of a value that differs; `who`: the ingredient it is held against, and the other."""
        against, ingredient = who
        text = f"expected {expected} as in {against}, found {found}{note}"
        values = {"against": against, "expected": str(expected), "found": str(found)}
        return cls(kind, text, ingredient, **values, **parts)  # type: ignore[arg-type]  # fields of this class

    def __str__(self) -> str:
        key = self.keys[0] if len(self.keys) == 1 and self.kind not in _LISTED else ""
        statement = ": ".join(filter(None, [self.ingredient, self.file, key, self.text]))
        return f"{statement}. {self.cure}" if self.cure else statement

    def as_json(self) -> dict[str, object]:
        """Return its parts, without those that are empty, and the sentence."""
        parts = {name: value for name, value in asdict(self).items() if value not in ("", (), None)}
        return {**parts, "text": str(self)}
