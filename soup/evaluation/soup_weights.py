"""The weights of a soup that is evaluated: written, given one by one, or streamed into a loaded module."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from soup.checkpoints.digest import ContentDigest
from soup.checkpoints.dtypes import TensorSpec
from soup.checkpoints.writer import CheckpointWriter
from soup.evaluation.known_bytes import KnownBytes
from soup.evaluation.module_slots import find_slots
from soup.hf.key_mapping import Conversion
from soup.merging.block_arithmetic import Blend
from soup.merging.block_loop import Sink, for_each_block
from soup.merging.cached_merge import merge_cached_tensors
from soup.merging.method_building import wrap_method_errors
from soup.merging.plan import MergePlan
from soup.merging.soup_files import add_side_files
from soup.support.removal import remove_tree
from soup.support.threads import run_on_threads
from soup.support.torch_threads import single_threaded_torch

if TYPE_CHECKING:
    import torch

__all__ = ["SoupWeights"]

GROUP_BYTES = 256 * 2**20
"""How much of a soup's weights is blended at a time where whole tensors are wanted."""


class SoupWeights:
    """The weights of a soup, merged anew each time that they are wanted.

    Args:
        plan: How they are merged; its pool is open.
        digests: The ingredients' digests: a tensor that does not differ between them is read once.
    """

    def __init__(self, plan: MergePlan, digests: Iterable[ContentDigest]) -> None:
        self._plan = plan
        self._known = KnownBytes(plan, digests)
        self._reads = {spec.name: spec for spec in plan.reads}
        self._writes = {spec.name: spec for spec in plan.writes}

    def write(self, out: Path) -> Path:
        """Write the candidate as a checkpoint whose files are its own: an evaluator may write into them."""
        plan = self._plan
        out.parent.mkdir(parents=True, exist_ok=True)
        remove_tree(out)  # of a worker that died while it evaluated this very soup
        with CheckpointWriter(out, plan.files, {"format": "pt"}, durable=False) as writer:
            self._stream(plan.reads, writer.write)
            plan.refuse_changed()
            add_side_files(writer, plan, plan.recipe, out)
            writer.commit({"format": "pt"})
        return out

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the weights under their names on disk, whole, in the files' order; some at a time are in memory.

        Raises:
            CheckpointError: an ingredient was changed meanwhile; said after the last tensor.
        """
        import torch

        for specs in _groups(self._plan.writes):
            values = {spec.name: torch.empty(spec.shape, dtype=spec.dtype.torch) for spec in specs}
            self._merge_into(values)
            yield from values.items()
        self._plan.refuse_changed()

    def load_into(
        self, module: torch.nn.Module, names: Mapping[str, str] | None = None, conversions: Sequence[Conversion] = ()
    ) -> None:
        """Stream the weights into a torch module, block by block, without a second copy of the model in memory.

        Of what is converted, the sources of two conversions at most (one layer's experts each, say) lie in main memory
        besides, and what they become; a conversion may take three times the size of its sources.

        Raises:
            CheckpointError: Names, shapes or dtypes of module and candidate do not match; all are listed.
        """
        if names is None:
            converted = {name for conversion in conversions for name in conversion.sources}
            names = {name: name for name in self._writes if name not in converted}
        slots = find_slots(module, self._writes, names, conversions, self._known.are_same)
        self._merge_into({name: slots[names[name]] for name in self._reads if name in names})
        self._convert_into(slots, conversions)
        self._plan.refuse_changed()

    def _merge_into(self, targets: Mapping[str, torch.Tensor]) -> None:
        """Merge tensors into memory, contiguous and of the result's dtype."""
        import torch

        flat = {name: values.view(-1) for name, values in targets.items()}
        plain = {name: values for name, values in flat.items() if values.device.type == "cpu"}
        memory = {name: values.view(torch.uint8).numpy().data for name, values in plain.items()}

        def copy_block(name: str, start: int, data: memoryview) -> None:
            values = torch.frombuffer(data, dtype=flat[name].dtype)
            flat[name][start : start + values.numel()].copy_(values)

        self._stream([self._reads[name] for name in targets], copy_block, memory)

    def _convert_into(self, slots: Mapping[str, torch.Tensor], conversions: Iterable[Conversion]) -> None:
        """Merge the sources of one conversion after another; while the next are merged, convert the last."""
        import torch

        def merge_sources() -> Iterator[tuple[Conversion, dict[str, torch.Tensor]]]:
            for conversion in conversions:
                specs = [self._writes[name] for name in conversion.sources]
                sources = {spec.name: torch.empty(spec.shape, dtype=spec.dtype.torch) for spec in specs}
                self._merge_into(sources)
                yield conversion, sources

        def convert(job: tuple[Conversion, dict[str, torch.Tensor]]) -> None:
            conversion, sources = job
            for name, values in conversion.convert(sources).items():
                slots[name].copy_(values)

        with single_threaded_torch() as prepare:
            run_on_threads(convert, merge_sources(), 2, prepare)

    def _stream(
        self, specs: Sequence[TensorSpec], sink: Sink, memory: Mapping[str, memoryview] = MappingProxyType({})
    ) -> None:
        """Merge tensors into the sink; what is the same in all ingredients is read from the first of them alone.

        What has memory of its own is merged there, and not handed to the sink, where that is faster.
        """
        blend = self._blend
        shared = {spec.name for spec in specs if self._known.is_shared(spec.name)}
        first = replace(blend, inputs=blend.inputs[:1], names=blend.names[:1], weights=(1.0,))
        for source, names in ((first, shared), (blend, {spec.name for spec in specs} - shared)):
            wanted = [spec for spec in specs if spec.name in names]
            with wrap_method_errors(self._plan.recipe.method):
                merged = merge_cached_tensors(source, wanted, memory)
                for_each_block(source, [spec for spec in wanted if spec.name not in merged], sink)

    @cached_property
    def _blend(self) -> Blend:
        """The plan's blend, prepared once for all that is streamed of it."""
        return self._plan.prepared()


def _groups(specs: Iterable[TensorSpec]) -> Iterator[list[TensorSpec]]:
    """Yield tensors in their order, as many together as `GROUP_BYTES` hold, one at least."""
    group: list[TensorSpec] = []
    for spec in specs:
        if group and sum(each.bytes for each in [*group, spec]) > GROUP_BYTES:
            yield group
            group = []
        group.append(spec)
    if group:
        yield group
