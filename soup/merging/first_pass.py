"""The first pass of a method that needs statistics of the whole model before the first element is written.

The inputs are read once for each statistic, out of core. Sums are added up in one order, by fixed blocks, so that the
same inputs give the same constants whatever the number of threads and the size of the blocks that are merged later.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING

from soup.checkpoints.digest import ByteProgress, leaves
from soup.checkpoints.dtypes import LEAF_ELEMENTS, TensorSpec
from soup.hf.places import Place, places_of
from soup.merging.block_arithmetic import Blend
from soup.merging.methods.base import Block
from soup.merging.scratch import Scratch
from soup.merging.tensor_inputs import TensorInputs, takes_whole, tensor_inputs
from soup.support.threads import default_threads
from soup.support.torch_threads import single_threaded_torch

if TYPE_CHECKING:
    import torch

__all__ = ["StreamedFirstPass"]

HEADS = 32
"""The heads of how many leaves are one block of a sample."""

_Piece = tuple[int, int]
"""The first of some elements in their tensor, and how many they are."""


@dataclass(frozen=True)
class StreamedFirstPass:
    """A `FirstPass` over open checkpoints.

    Args:
        blend: How blocks are merged, and from which inputs.
        specs: The tensors that are merged, as the first input has them.
        threads: The number of threads (default: `default_threads`).
        progress: Called with the number of bytes read since its last call.
        scratch: Lends memory for blocks.
    """

    blend: Blend
    specs: Sequence[TensorSpec]
    threads: int | None = None
    progress: ByteProgress | None = None
    scratch: Scratch = field(default_factory=Scratch)

    @property
    def weights(self) -> tuple[float, ...]:
        """The ingredients' weights, in recipe order."""
        return self.blend.weights

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shapes of the floating tensors that are merged, by name."""
        return {spec.name: spec.shape for spec in self._floats()}

    @property
    def places(self) -> Mapping[str, Place]:
        """Where the tensors stand in the model."""
        return places_of(self.blend.inputs[0].tensors)

    def with_constants(self, constants: object) -> StreamedFirstPass:
        """Return the same pass with blocks that have constants already, for a second statistic that needs them."""
        return replace(self, blend=replace(self.blend, constants=constants))

    def sums(
        self, statistic: Callable[[Block], torch.Tensor], sample: int | None = None
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield each tensor's name with the sum of a statistic over its blocks, in order; see `FirstPass`."""
        units = ((spec, pieces) for spec in self._floats() for pieces in self._units(spec, sample))
        progress = self.progress if sample is None else None  # a sample is little
        threads = self.threads or default_threads()
        local = threading.local()
        waiting: deque[tuple[TensorSpec, Future[torch.Tensor]]] = deque()
        with single_threaded_torch() as prepare, _shut_down(ThreadPoolExecutor(threads, initializer=prepare)) as pool:
            prepare()  # this thread adds up: torch's own threads would wait for work all the time
            name, total = "", None
            for spec, pieces in units:
                waiting.append((spec, pool.submit(self._value, local, statistic, spec, pieces, progress)))
                if len(waiting) > 2 * threads:  # no more results than this are ever held
                    name, total, done = _add(name, total, *waiting.popleft())
                    yield from done
            while waiting:
                name, total, done = _add(name, total, *waiting.popleft())
                yield from done
            if total is not None:
                yield name, total

    def _floats(self) -> list[TensorSpec]:
        return [spec for spec in self.specs if spec.dtype.kind == "float" and spec.elements]

    def _units(self, spec: TensorSpec, sample: int | None) -> Iterator[Sequence[_Piece]]:
        """Yield what makes a block: a leaf, the whole tensor, or the heads of a few leaves."""
        if takes_whole(self.blend, spec):
            yield [(0, spec.elements)]
        elif sample is None:
            yield from ([leaf] for leaf in leaves(spec))
        else:
            heads = ((start, -(-count * sample // LEAF_ELEMENTS)) for start, count in leaves(spec))
            while pieces := list(islice(heads, HEADS)):
                yield pieces

    def _value(
        self,
        local: threading.local,
        statistic: Callable[[Block], torch.Tensor],
        spec: TensorSpec,
        pieces: Sequence[_Piece],
        progress: ByteProgress | None,
    ) -> torch.Tensor:
        import torch

        inputs = self._inputs_of(local, spec.name)
        parts = []
        for start, count in pieces:
            views = self.scratch.buffers([count * source.spec.dtype.bits // 8 for source in inputs.sources])
            inputs.read(views, start)
            values = inputs.values(views, start, self.scratch)
            parts.append(values if len(pieces) == 1 else [each.clone() for each in values])
            if progress:
                progress(sum(map(len, views)))
        values = parts[0] if len(parts) == 1 else [torch.cat(each) for each in zip(*parts, strict=True)]
        return statistic(inputs.blend.block(inputs.specs, values, pieces[0][0]))

    def _inputs_of(self, local: threading.local, name: str) -> TensorInputs:
        """Plan how a tensor is read; the last plan is held, for all leaves share its factors."""
        if getattr(local, "name", None) != name:
            local.name, local.inputs = name, tensor_inputs(self.blend, name)
        inputs: TensorInputs = local.inputs
        return inputs


@contextmanager
def _shut_down(pool: ThreadPoolExecutor) -> Iterator[ThreadPoolExecutor]:
    """Close the pool at the end; what waits is given up."""
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _add(
    name: str, total: torch.Tensor | None, spec: TensorSpec, value: Future[torch.Tensor]
) -> tuple[str, torch.Tensor | None, list[tuple[str, torch.Tensor]]]:
    """Add a block's value to its tensor's sum; returns the sum of the tensor before it where that is complete."""
    if total is None or spec.name == name:
        return spec.name, value.result() if total is None else total.add_(value.result()), []
    return spec.name, value.result(), [(name, total)]
