"""The contract of methods: a frozen dataclass of parameters, whose call turns one block into one tensor.

A method never sees a file. soup does the upcast, the cast at the end, integers, equal tensors, devices and files.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, overload

from soup.checkpoints.dtypes import Dtype
from soup.hf.places import Place
from soup.merging.compiled import Arithmetic

if TYPE_CHECKING:
    import torch

__all__ = ["Block", "FirstPass", "Granularity", "LowRank", "MergedTensor", "Method", "Work"]

Granularity = Literal["element", "tensor"]


@dataclass(frozen=True)
class MergedTensor:
    """What is known of a tensor whose blocks are merged.

    Args:
        tensor_name: The tensor's name.
        weights: The ingredients' weights, in recipe order.
        place: Where the tensor stands in the model, for a method with `uses_places`.
        digests: The digests of the ingredients' weights, for a method with `needs_digests`.
        constants: What the method's `prepare` returned.
    """

    tensor_name: str
    weights: tuple[float, ...]
    place: Place | None = field(default=None, kw_only=True)
    digests: tuple[str, ...] = field(default=(), kw_only=True)
    constants: Any = field(default=None, kw_only=True)


@dataclass(frozen=True)
class Block(MergedTensor, Sequence["torch.Tensor"]):
    """The same slice of one tensor from every ingredient, in recipe order.

    `block[i]` is a copy of ingredient i's slice, [elements] (or the tensor's shape for a method of granularity
    `tensor`), in the dtype that values are accumulated in. The method may change it in place during the call. Taking
    the copies one after another by `copy`, instead of all at once, keeps the block in the processor's cache.

    It holds what `MergedTensor` holds, too.

    Args:
        raw: The ingredients' slices in their own dtype; never to be changed.
        accumulate_in: The dtype in which values are accumulated.
        raw_base: The base's slice in its own dtype, for a method with `needs_base`; never to be changed.
        first: The index of the slice's first element in its tensor.
        lend: Gives memory for the copy of a slot, like a tensor: new memory for each block costs more than the sum.
    """

    raw: tuple[torch.Tensor, ...]
    accumulate_in: torch.dtype
    raw_base: torch.Tensor | None = None
    first: int = 0
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
        """Copy a slice to the accumulating dtype.

        Args:
            index: The ingredient's, in recipe order.
            out: Takes the copy, of the slice's shape and the accumulating dtype; None: new or lent memory.
        """
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


class LowRank(NamedTuple):
    """A matrix as a product: left [rows, rank] times right [rank, columns], both of float64."""

    left: torch.Tensor
    right: torch.Tensor


class Work(NamedTuple):
    """What a method needs for a whole tensor beside its inputs.

    Args:
        bytes: The memory of its own arrays, at most.
        operations: How much there is to decompose, in the method's own unit: the time grows with it.
    """

    bytes: int = 0
    operations: float = 0.0


class FirstPass(Protocol):
    """What a method's `prepare` is given: the floating tensors that are merged, and sums over all of their elements."""

    @property
    def weights(self) -> tuple[float, ...]:
        """The ingredients' weights, in recipe order."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shapes of the tensors, by name."""

    @property
    def places(self) -> Mapping[str, Place]:
        """Where the tensors stand in the model."""

    def sums(
        self, statistic: Callable[[Block], torch.Tensor], sample: int | None = None
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """Read all inputs once, and yield each tensor's name with the sum of a statistic over its blocks, in order.

        Args:
            statistic: Returns a new tensor, of the same shape for all blocks of a tensor; several threads call it at
                once. Sums of float64 and of integers lose nothing that matters.
            sample: How many elements at the head of a leaf are read, of a shorter one as large a share, of several
                leaves for a block; None: all.
        """

    def with_constants(self, constants: object) -> FirstPass:
        """Return the same pass with blocks that have constants already, for a second statistic that needs them."""


class Method(ABC):
    """The arithmetic that turns ingredient tensors into one. Subclass it as a frozen dataclass, and name the paper.

    With `granularity` `element` an element of the result depends on the same element of the inputs alone, so that the
    method gets any flat slice; with `tensor` it gets whole tensors. The result has the shape of the block's entries.
    """

    granularity: ClassVar[Granularity] = "element"
    needs_base: ClassVar[bool] = False
    needs_digests: ClassVar[bool] = False

    @property
    def uses_places(self) -> bool:
        """Whether blocks are to say where their tensors stand in the model."""
        return False

    @property
    def first_passes(self) -> int:
        """How often `prepare` reads all inputs before the first element is written."""
        return 0

    def granularity_of(self, name: str, shape: tuple[int, ...]) -> Granularity:
        """Return whether a floating tensor is merged by any flat slices of it, or as a whole.

        Args:
            name: The tensor's name on disk.
            shape: Its shape, [rows, columns] of a matrix.
        """
        return self.granularity

    def takes_low_rank(self, name: str, shape: tuple[int, ...]) -> bool:
        """Return whether `merge_low_rank` merges a floating tensor that adapters on the base alone change.

        Args:
            name: The tensor's name on disk.
            shape: Its shape, [rows, columns].
        """
        return False

    def merge_low_rank(self, deltas: Sequence[LowRank], weights: Sequence[float]) -> LowRank:
        """Merge deltas of a low rank, as adapters have them, into what is added to the base.

        Then the tensor is merged by slices, whatever its size and granularity, and no delta is ever a whole matrix.

        Args:
            deltas: One for each ingredient, of rank 0 where it leaves the tensor as it is.
            weights: The ingredients' weights, in recipe order.
        """
        raise NotImplementedError

    def work(self, shape: tuple[int, ...], count: int, rank: int | None = None) -> Work:
        """Return what merging a whole tensor takes beside its inputs.

        Args:
            shape: The tensor's shape.
            count: The number of ingredients.
            rank: The sum of the ranks of what adapters add, for `merge_low_rank`.
        """
        return Work()

    def prepare(self, first_pass: FirstPass) -> Any:
        """Return what the whole model decides before the first element is written: every block's `constants`.

        It must be a function of the inputs alone. `soup/merging/first_pass.py` reads them.

        Args:
            first_pass: The inputs' tensors, and sums over all of their elements.
        """
        return None

    def remarks(self, constants: Any) -> Sequence[str]:
        """Return what a user should know of these inputs, a text each.

        Args:
            constants: What `prepare` returned.
        """
        return ()

    def idle_parameters(self, places: Collection[Place]) -> Sequence[str]:
        """Return which parameters change nothing in this model, a text each: it has no tensors that they speak of.

        Args:
            places: Where the floating tensors that are merged stand in the model.
        """
        return ()

    def arithmetic(self, tensor: MergedTensor) -> Arithmetic | None:
        """Say what the call does with every block of a tensor, so that it is done in one compiled pass; None: in torch.

        Only the class's own counts: one that is inherited knows nothing of what a subclass does.

        Args:
            tensor: What is known of the tensor.
        """
        return None

    def take_bytes(self, name: str, dtype: Dtype, inputs: Sequence[memoryview], first: int) -> bool:
        """Look at a block's bytes instead of being called, for what merges nothing: the first input is the result then.

        Args:
            name: The tensor.
            dtype: The dtype of all inputs.
            inputs: The block's bytes in each, in writable memory; the base, if the method reads one, comes last.
            first: The index of the block's first element in its tensor.

        Returns:
            Whether it is done; False: the method is called.
        """
        return False

    @abstractmethod
    def __call__(self, block: Block) -> torch.Tensor:
        """Merge the block's slices into one.

        Args:
            block: A slice of each ingredient, of one shape.

        Returns:
            A tensor of that shape, in `block.accumulate_in`; with NaN where an input has it: soup looks for it there.
        """

    def check(self, weights: Sequence[float]) -> None:  # noqa: B027 - most methods take any weights
        """Refuse weights that this method can't use; called before anything is read.

        Args:
            weights: The ingredients', in recipe order.

        Raises:
            RecipeError: The weights can't be used.
        """

    def keeps_equal(self, weights: Sequence[float]) -> bool:
        """Whether K equal values give that very value, bit for bit, after the cast to a narrower dtype.

        And whether no result is larger in size than the largest of its inputs. Where this is False, soup looks for
        elements on which all ingredients agree, and copies them.

        Args:
            weights: The ingredients', in recipe order.
        """
        return False
