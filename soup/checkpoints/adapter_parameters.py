"""Adapters on parameters that are no module's weight, as PEFT's `target_parameters` makes them: a layer's experts, say.

Factors of a stack [experts, rows, columns] lie side by side: A is [rank x experts, in], expert by expert; B is
[out, rank x experts], rank by rank. PEFT wraps a module once for each of its parameters, and saves under the wrapper's
name, which does not say whose parameter it is: the module's own order does. What is a stack in memory may be a file's
matrices one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from soup.checkpoints.adapter import Adapter
from soup.checkpoints.adapter_deltas import Delta, Factor, Part
from soup.checkpoints.reader import Checkpoint
from soup.checkpoints.tensor_names import plain_name
from soup.hf.key_mapping import bare_module, stacked_sources

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Parameter", "ParameterTargets", "StackFactors"]

_WRAPPER = ".base_layer"


@dataclass(frozen=True)
class Parameter:
    """A parameter that an adapter changes.

    Args:
        name: Its name in memory.
        shape: [matrices, rows, columns], or [rows, columns].
        is_transposed: Whether its matrices are [in, out].
    """

    name: str
    shape: tuple[int, ...]
    is_transposed: bool


@dataclass(frozen=True)
class StackFactors:
    """The factors of a stack of matrices in an adapter's file.

    Args:
        adapter: The adapter.
        a: The key of A, [rank x matrices, in].
        b: The key of B, [out, rank x matrices].
        parameter: What they belong to.
    """

    adapter: Adapter
    a: str
    b: str
    parameter: Parameter

    @property
    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The shapes of A and B in the file."""
        return self.adapter.tensors[self.a].shape, self.adapter.tensors[self.b].shape

    @property
    def fit(self) -> bool:
        """Whether the shapes are those of the parameter."""
        count, rows, columns = self.parameter.shape
        outer, inner = (columns, rows) if self.parameter.is_transposed else (rows, columns)
        total = self.shapes[0][0] if self.shapes[0] else 0
        return total > 0 and total % count == 0 and self.shapes == ((total, inner), (outer, total))

    def delta(self, index: int, first: int, rows: int, *, in_stack: bool, swapped: bool = False) -> Delta:
        """Return what is added to some rows of a matrix.

        Args:
            index: The number of the matrix.
            first: The first row.
            rows: How many.
            in_stack: Whether the file that is changed holds the stack.
            swapped: Whether it holds the matrix the other way round.
        """
        (total, inner), (outer, _) = self.shapes
        count = self.parameter.shape[0]
        rank = total // count
        a, b = Part(index * rank * inner, inner, 1), Part(index, total, count)  # (rank, in) and (out, rank)
        if self.parameter.is_transposed:
            left = Factor(self.adapter, self.a, (inner, rank), part=_turned(a))
            right = Factor(self.adapter, self.b, (rank, outer), part=_turned(b))
        else:
            left = Factor(self.adapter, self.b, (outer, rank), part=b)
            right = Factor(self.adapter, self.a, (rank, inner), part=a)
        left = _rows(left, first, rows)
        if swapped:
            left, right = _transposed(right), _transposed(left)
        scale = self.adapter.scale(self.parameter.name, rank)
        return Delta(left, right, scale, index=index if in_stack else None)


class ParameterTargets:
    """The parameters that an adapter's config names, by the modules that PEFT wraps.

    Args:
        adapter: The adapter.
        base: What it is put on.
    """

    def __init__(self, adapter: Adapter, base: Checkpoint) -> None:
        self.adapter, self.base = adapter, base
        listed = adapter.settings.get("target_parameters")
        self.targets = [target for target in listed if isinstance(target, str)] if isinstance(listed, list) else []

    @cached_property
    def _module(self) -> nn.Module | None:
        return bare_module(self.base.path) if self.targets else None

    @property
    def why_unknown(self) -> str:
        """Why a key may belong to nothing, for an error; empty where there is no reason that is known."""
        if not self.targets or self._module is not None:
            return ""
        return f", or target_parameters ({', '.join(self.targets)}) of a model whose class transformers does not have"

    @cached_property
    def _modules(self) -> Mapping[str, nn.Module]:
        return {} if self._module is None else dict(self._module.named_modules())

    @cached_property
    def _paths(self) -> Mapping[str, str]:
        """The names of modules by their plain names; those that are not the only one are left out."""
        names: dict[str, list[str]] = {}
        for name in self._modules:
            names.setdefault(plain_name(name), []).append(name)
        return {plain: same[0] for plain, same in names.items() if len(same) == 1}

    @cached_property
    def sources(self) -> Mapping[str, tuple[tuple[str, ...], ...]]:
        """See `stacked_sources`."""
        return {} if self._module is None else stacked_sources(self._module, self.base.tensors)

    def find(self, wrapper: str) -> Parameter | None:
        """Return the parameter that a wrapper changes, by the wrapper's name; None where it is none of the config's."""
        path, depth = wrapper, 0
        while path.endswith(_WRAPPER):
            path, depth = path.removesuffix(_WRAPPER), depth + 1
        path = path if path in self._modules else self._paths.get(plain_name(path), path)
        if (module := self._modules.get(path)) is None:
            return None
        names = [name for name, _ in module.named_parameters(recurse=False) if self._is_target(f"{path}.{name}")]
        if depth >= len(names):
            return None
        name = names[-1 - depth]  # the last one is wrapped around the others
        shape = tuple(getattr(module, name).shape)
        return Parameter(f"{path}.{name}", shape, bool(getattr(module, "is_transposed", False)))

    def _is_target(self, name: str) -> bool:
        return any(name == target or name.endswith(f".{target}") for target in self.targets)

    def deltas(self, factors: StackFactors) -> Iterator[tuple[str, Delta]]:
        """Yield what is added to each tensor of the base, by its name on disk; nothing where that is not known."""
        name, (count, rows, columns) = factors.parameter.name, factors.parameter.shape
        sources = self.sources.get(name, ())
        if len(sources) == 1 and len(self.base.tensors[sources[0][0]].shape) == 3:
            on_disk = sources[0][0]
            swapped = self.base.tensors[on_disk].shape != (count, rows, columns)
            for index in range(count):
                yield on_disk, factors.delta(index, 0, rows, in_stack=True, swapped=swapped)
            return
        for index, parts in enumerate(sources if len(sources) == count else ()):
            first = 0
            for part in parts:
                height = self.base.tensors[part].shape[0]
                yield part, factors.delta(index, first, height, in_stack=False)
                first += height


def _turned(part: Part) -> Part:
    return Part(part.first, part.step, part.stride)


def _transposed(factor: Factor) -> Factor:
    return Factor(factor.adapter, factor.name, factor.shape[::-1], part=_turned(factor.lies))


def _rows(factor: Factor, first: int, rows: int) -> Factor:
    start, stride, step = factor.lies
    return Factor(factor.adapter, factor.name, (rows, factor.shape[1]), part=Part(start + first * stride, stride, step))
