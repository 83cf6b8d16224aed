"""The contract of methods: a frozen dataclass of parameters, whose call turns one block into one tensor.

A method never sees a file. soup does the upcast, the cast at the end, integers, equal tensors, devices and files.
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

    `block[i]` is a copy of ingredient i's slice, [elements] (or the tensor's shape for a method of granularity
    `tensor`), in the dtype that values are accumulated in. The method may change it in place during the call. Taking
    the copies one after another by `copy`, instead of all at once, keeps the block in the processor's cache.

    Args:
        tensor_name: The tensor's name.
        weights: The ingredients' weights, in recipe order.
        raw: The ingredients' slices in their own dtype; never to be changed.
        accumulate_in: The dtype in which values are accumulated.
        raw_base: The base's slice, for a method with `needs_base`.
        lend: Gives memory for the copy of a slot, like a tensor: new memory for each block costs more than the sum.
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
        """Copy ingredient `index`'s slice to the accumulating dtype, into `out` if there is one."""
        return self._copied(range(len(self))[index], self.raw[index], out)

    @property
    def base(self) -> torch.Tensor:
        """A copy of the base's slice; only for a method with `needs_base`."""
        assert self.raw_base is not None, "a method that reads the base says so with needs_base = True"
        return self._copied(len(self), self.raw_base, None)

    def _copied(self, slot: int, raw: torch.Tensor, out: torch.Tensor | None) -> torch.Tensor:
        if out is None and self.lend is not None and slot not in self._lent:
            self._lent.add(slot)  # once a call: a second copy must not be the first
            out = self.lend(slot, raw)
        return raw.to(self.accumulate_in, copy=True) if out is None else out.copy_(raw)


class Method(ABC):
    """The arithmetic that turns ingredient tensors into one. Subclass it as a frozen dataclass, and name the paper.

    With `granularity` `element` an element of the result depends on the same element of the inputs alone, so that the
    method gets any flat slice; with `tensor` it gets whole tensors. The result has the shape of the block's entries.
    """

    granularity: ClassVar[Literal["element", "tensor"]] = "element"
    needs_base: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, block: Block) -> torch.Tensor:
        """Merge the block's slices into one, in `block.accumulate_in` and the shape of its entries."""

    def check(self, weights: Sequence[float]) -> None:  # noqa: B027 - most methods take any weights
        """Refuse weights that this method can't use; called before anything is read.

        Raises:
            RecipeError: The weights can't be used.
        """

    def keeps_equal(self, weights: Sequence[float]) -> bool:
        """Whether K equal values give that very value, bit for bit, after the cast to a narrower dtype.

        And whether no result is larger in size than the largest of its inputs. Where this is False, soup looks for
        elements on which all ingredients agree, and copies them.
        """
        return False
