"""What a method is: a frozen dataclass whose fields are its parameters and whose call turns one block into one tensor.

A method never sees a file. soup does the upcast, the one cast at the end, integers, equal tensors, devices and files.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, overload

if TYPE_CHECKING:
    import torch

__all__ = ["Block", "Method"]


@dataclass(frozen=True)
class Block(Sequence["torch.Tensor"]):
    """The same slice of one tensor from every ingredient, in recipe order.

    `block[i]` is a copy of ingredient i's slice, [elements] (or the tensor's own shape for a method that needs whole
    tensors), in the dtype that values are accumulated in: yours to change in place, for the time of the call. Taking
    them one after another by `copy`, instead of all at once, keeps the block in the processor's cache.

    `lend(slot, like)` gives memory for a copy, if there is some to be used again: fresh memory costs more than the sum.
    """

    tensor_name: str
    weights: tuple[float, ...]
    raw: tuple[torch.Tensor, ...]
    accumulate_in: torch.dtype
    raw_base: torch.Tensor | None = None
    lend: Callable[[int, torch.Tensor], torch.Tensor] | None = None
    _lent: set[int] = field(default_factory=set, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.raw)

    @overload
    def __getitem__(self, index: int) -> torch.Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> list[torch.Tensor]: ...
    def __getitem__(self, index: int | slice) -> torch.Tensor | list[torch.Tensor]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self.copy(index)

    def copy(self, index: int, out: torch.Tensor | None = None) -> torch.Tensor:
        """Ingredient `index`'s slice in the accumulating dtype, written into `out` if that is given."""
        return self._copied(range(len(self))[index], self.raw[index], out)

    @property
    def base(self) -> torch.Tensor:
        """The base's slice, a fresh copy; only for a method with `needs_base`."""
        assert self.raw_base is not None, "a method that reads the base says so with needs_base = True"
        return self._copied(len(self), self.raw_base, None)

    def _copied(self, slot: int, raw: torch.Tensor, out: torch.Tensor | None) -> torch.Tensor:
        if out is None and self.lend is not None and slot not in self._lent:
            self._lent.add(slot)  # once a call: a second copy must not be the first
            out = self.lend(slot, raw)
        return raw.to(self.accumulate_in, copy=True) if out is None else out.copy_(raw)


class Method(ABC):
    """The arithmetic that turns ingredient tensors into one. Subclass it as a frozen dataclass and name its source.

    `granularity` says whether any flat slice will do (`element`: the result at a place depends on the inputs at that
    place alone) or the whole tensor is needed (`tensor`). The result has the shape of the block's entries.
    """

    granularity: ClassVar[Literal["element", "tensor"]] = "element"
    needs_base: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, block: Block) -> torch.Tensor:
        """One tensor from the block's, in `block.accumulate_in` and the shape of its entries."""

    def check(self, weights: Sequence[float]) -> None:  # noqa: B027 - most methods take any weights
        """Refuse weights that this method can't use, before anything is read.

        Raises:
            RecipeError: the weights can't be used.
        """

    def keeps_equal(self, weights: Sequence[float]) -> bool:
        """Whether K equal values give that very value, bit for bit, after the cast to a narrower dtype.

        And whether no result is larger in size than the largest of its inputs. Where this is False, soup looks for
        places at which all ingredients agree and copies them.
        """
        return False
