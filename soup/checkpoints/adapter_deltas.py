"""What an adapter does to the tensors of a base: products of factors of its file, rows of tokens, whole tensors."""

from __future__ import annotations

from dataclasses import dataclass

from soup.checkpoints.adapter import Adapter

__all__ = ["Change", "Delta", "Factor"]


@dataclass(frozen=True)
class Factor:
    """A tensor of an adapter's file as a matrix; `transposed`: the file holds it the other way round."""

    adapter: Adapter
    name: str
    shape: tuple[int, int]
    transposed: bool = False


@dataclass(frozen=True)
class Delta:
    """What is added to a tensor, seen as a matrix [rows, columns] by its first dimension: scale x left x right.

    Args:
        left: [rows, rank].
        right: [rank, columns]; None: a single 1, for a vector that is added to a vector.
        scale: A number.
        magnitude: DoRA's lengths, to which the rows (or with `by_column` the columns) of the sum are brought.
        by_column: See `magnitude`.
        tokens: The numbers of the rows that `left` takes the place of, instead of being added.
    """

    left: Factor
    right: Factor | None
    scale: float
    magnitude: Factor | None = None
    by_column: bool = False
    tokens: tuple[int, ...] = ()

    @property
    def is_sum(self) -> bool:
        """Whether it is added, and nothing else."""
        return self.magnitude is None and not self.tokens

    @property
    def rank(self) -> int:
        """How many columns `left` has."""
        return self.left.shape[1]


@dataclass(frozen=True)
class Change:
    """What an adapter does to one tensor of its base.

    Args:
        deltas: What is added.
        stored_as: The tensor of the adapter's file that takes the place of the base's, if there is one.
    """

    deltas: tuple[Delta, ...] = ()
    stored_as: str | None = None
