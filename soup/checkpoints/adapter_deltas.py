"""What an adapter does to the tensors of a base: products of factors of its file, rows of tokens, whole tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from soup.checkpoints.adapter import Adapter

__all__ = ["Change", "Delta", "Factor", "Part"]


@dataclass(frozen=True)
class Factor:
    """A tensor of an adapter's file, or a part of it, as a matrix.

    Args:
        adapter: Whose file holds it.
        name: The tensor's name there.
        shape: Of the matrix.
        transposed: Whether the tensor is the matrix the other way round.
        part: Where the matrix lies in the tensor, if it is not all of it.
    """

    adapter: Adapter
    name: str
    shape: tuple[int, int]
    transposed: bool = False
    part: Part | None = None

    @property
    def lies(self) -> Part:
        """Where its elements lie in the tensor."""
        return self.part or (Part(0, 1, self.shape[0]) if self.transposed else Part(0, self.shape[1], 1))


class Part(NamedTuple):
    """Where a matrix lies in a tensor: element (i, k) is number `first + i * stride + k * step` of the tensor's."""

    first: int
    stride: int
    step: int


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
        index: Which matrix of a stack [matrices, rows, columns] it is added to; None: the tensor is one matrix.
    """

    left: Factor
    right: Factor | None
    scale: float
    magnitude: Factor | None = None
    by_column: bool = False
    tokens: tuple[int, ...] = ()
    index: int | None = None

    @property
    def is_sum(self) -> bool:
        """Whether it is added, and nothing else."""
        return self.magnitude is None and not self.tokens

    @property
    def factors(self) -> list[Factor]:
        """What it is made of in the adapter's file."""
        return [factor for factor in (self.left, self.right, self.magnitude) if factor]

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

    @property
    def is_copy(self) -> bool:
        """Whether what is stored is the base's own tensor: PEFT saves embeddings beside their factors."""
        return self.stored_as is not None and self.stored_as.endswith(".base_layer.weight")
