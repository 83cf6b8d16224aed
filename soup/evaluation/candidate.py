"""A recipe about to be evaluated: as a directory made on demand, or streamed block by block into a loaded module."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from soup.checkpoints.digest import ContentDigest
from soup.checkpoints.dtypes import TensorSpec
from soup.checkpoints.side_files import lent_kinds
from soup.checkpoints.writer import CheckpointWriter
from soup.evaluation.dealing import Dealer
from soup.evaluation.known_bytes import KnownBytes
from soup.evaluation.module_slots import find_slots
from soup.evaluation.run_directory import RunDirectory
from soup.hf.key_mapping import Conversion
from soup.merging.block_arithmetic import Blend
from soup.merging.block_loop import Sink, for_each_block
from soup.merging.cached_merge import merge_cached_tensors
from soup.merging.method_building import wrap_method_errors
from soup.merging.options import MergeOptions
from soup.merging.plan import plan_merge
from soup.merging.pool import Pool
from soup.merging.pool_locations import PoolLocations
from soup.merging.recipe import Recipe
from soup.merging.soup_files import add_side_files
from soup.support.removal import remove_tree
from soup.support.threads import run_on_threads
from soup.support.torch_threads import single_threaded_torch

if TYPE_CHECKING:
    import torch

__all__ = ["OnAnswers", "PortableCandidate", "SoupCandidate", "ignore_answers", "make_candidate"]

OnAnswers = Callable[[int, int, str], None]
"""Takes how many of how many prompts are answered, and the word for them; see `Candidate.answered`."""

GROUP_BYTES = 256 * 2**20
"""How much of a soup's weights is blended at a time where whole tensors are wanted."""


def ignore_answers(count: int, total: int, what: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class PortableCandidate:
    """A soup for another process of this host; it can be pickled.

    Args:
        recipe: The sealed recipe.
        pool: Where its ingredients lie.
        digests: The ingredients' digests.
        options: How it is merged.
        home: The candidate's own directory.
        layout: Each tensor's dtype and shape, by its name on disk.
    """

    recipe: Recipe
    pool: PoolLocations
    digests: tuple[ContentDigest, ...]
    options: MergeOptions | None
    home: Path
    layout: Mapping[str, tuple[str, tuple[int, ...]]]

    @contextmanager
    def opened(self) -> Iterator[SoupCandidate]:
        """Open the pool's files, and give the candidate, for the time of a `with`."""
        with self.pool.open() as pool:
            yield SoupCandidate(self.recipe, pool, self.home, self.digests, options=self.options)


class SoupCandidate:
    """The soup of a sealed recipe, for an evaluator. See `soup.evaluation.Candidate` for what the members promise.

    Args:
        recipe: The sealed recipe.
        pool: Holds its ingredients, open.
        home: The candidate's own directory, for what is removed after its evaluation.
        digests: The ingredients' digests: a tensor that does not differ between them is read once.
        allow_nonfinite: Whether NaN and infinity are merged instead of refused.
        kept: The directory for answers that outlive a run that stops (default: in `home`).
        logs: The directory for what processes print (default: in `home`).
        on_answers: Called with how many of how many prompts are answered, by evaluators that tell; see `answered`.
        on_remark: Called with what is strange about the answers.

    Raises:
        RecipeError: See `soup.merging.plan.plan_merge`.
    """

    def __init__(
        self,
        recipe: Recipe,
        pool: Pool,
        home: Path,
        digests: Iterable[ContentDigest] = (),
        *,
        options: MergeOptions | None = None,
        kept: Path | None = None,
        logs: Path | None = None,
        on_answers: OnAnswers = ignore_answers,
        on_remark: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.dealer: Dealer | None = None
        self.digest = recipe.digest
        self.names = recipe.names
        self.home = home
        self.kept = kept or home / "kept"
        self.logs = logs or home / "logs"
        self.scratch = home / "scratch"
        self._plan = plan_merge(recipe, pool, options)
        self._pool, self._digests, self._options = pool, tuple(digests), options
        self._known = KnownBytes(self._plan, self._digests)
        self._directory: Path | None = None
        self._on_answers = on_answers
        self._on_remark = on_remark

    @property
    def template(self) -> Path:
        """A checkpoint with just the candidate's config, tokenizer and processor files: the lead, if it is such."""
        lead = self._plan.lead
        if self._plan.untied_output:  # as no config.json here says
            return self.directory()
        if "adapter_config.json" in lead.side_files.left_out:  # transformers would load that adapter's base
            return self.directory()
        differs = lead.side_files.refused or lent_kinds(lead, *self._plan.blend.inputs, tokenizer=self._plan.tokenizer)
        return self.directory() if differs else lead.path

    def directory(self) -> Path:
        """Give the candidate as a complete checkpoint directory; the first call writes it.

        The path is absolute: what it is handed to may work in another directory.
        """
        if self._directory is None:
            self._directory = self._write(self.home.absolute() / "checkpoint")
        return self._directory

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the weights under their names on disk, whole, in the files' order; some at a time are in memory.

        Raises:
            CheckpointError: an ingredient was changed meanwhile; said after the last tensor.
        """
        import torch

        reads = {spec.name: spec for spec in self._plan.reads}
        for specs in _groups(self._plan.writes):
            values = {spec.name: torch.empty(spec.shape, dtype=spec.dtype.torch) for spec in specs}
            self._merge_into(values, reads)
            yield from values.items()
        self.refuse_changed()

    def portable(self) -> PortableCandidate:
        """Return all that another process of this host needs to blend the weights by itself."""
        recipe, home = self._plan.recipe, self.home
        layout = {spec.name: (spec.dtype.name, spec.shape) for spec in self._plan.writes}
        return PortableCandidate(recipe, PoolLocations.of(self._pool), self._digests, self._options, home, layout)

    def load_into(
        self, module: torch.nn.Module, names: Mapping[str, str] | None = None, conversions: Sequence[Conversion] = ()
    ) -> None:
        """Stream the weights into a torch module, block by block, without a second copy of the model in memory.

        Of what is converted, the sources of two conversions at most (one layer's experts each, say) lie in main memory
        besides, and what they become; a conversion may take three times the size of its sources.

        Raises:
            CheckpointError: Names, shapes or dtypes of module and candidate do not match; all are listed.
        """
        reads = {spec.name: spec for spec in self._plan.reads}
        writes = {spec.name: spec for spec in self._plan.writes}
        if names is None:
            converted = {name for conversion in conversions for name in conversion.sources}
            names = {name: name for name in writes if name not in converted}
        slots = find_slots(module, writes, names, conversions, self._known.are_same)
        self._merge_into({name: slots[names[name]] for name in reads if name in names}, reads)
        self._convert_into(slots, conversions, reads, writes)
        self.refuse_changed()

    def dealt(self, dealer: Dealer, on_answers: OnAnswers) -> SoupCandidate:
        """Return the same candidate for one evaluation beside others: with a scratch of its own, for a dealer."""
        dealt = copy(self)
        dealt.dealer, dealt._on_answers = dealer, on_answers
        return dealt

    def answered(self, count: int, of: int, what: str = "answers") -> None:
        """Pass on that `count` of so many prompts are answered; `what` is the word for them."""
        self._on_answers(count, of, what)

    def remark(self, text: str) -> None:
        """Pass on what is strange about the answers."""
        self._on_remark(text)

    @contextmanager
    def evaluation(self, name: str) -> Iterator[Path]:
        """Make a scratch directory for one evaluation: removed after success, kept after a failure for its log."""
        self.scratch = self.home / re.sub(r"[^\w.-]+", "_", name)[:80]
        remove_tree(self.scratch)
        self.scratch.mkdir(parents=True)
        try:
            yield self.scratch
        except KeyboardInterrupt:
            remove_tree(self.scratch)
            raise
        except BaseException:
            with suppress(OSError):
                self.scratch.rmdir()  # which fails where there is a log
            raise
        remove_tree(self.scratch)

    def refuse_changed(self) -> None:
        """Refuse ingredients that were changed since they were opened: scores would be those of other weights.

        Raises:
            CheckpointError: Says which.
        """
        for checkpoint in self._plan.blend.inputs:
            checkpoint.refuse_changed()

    def remove(self) -> None:
        """Remove the checkpoint directory; what a failed evaluation left stays."""
        if self._directory is not None:
            remove_tree(self._directory)
            self._directory = None
        with suppress(OSError):
            self.home.rmdir()  # not empty after a failure

    def _write(self, out: Path) -> Path:
        """Write the candidate as a checkpoint whose files are its own: an evaluator may write into them."""
        plan = self._plan
        out.parent.mkdir(parents=True, exist_ok=True)
        remove_tree(out)  # of a worker that died while it evaluated this very soup
        with CheckpointWriter(out, plan.files, {"format": "pt"}, durable=False) as writer:
            self._stream(plan.reads, writer.write)
            self.refuse_changed()
            add_side_files(writer, plan, plan.recipe, out)
            writer.commit({"format": "pt"})
        return out

    def _merge_into(self, targets: Mapping[str, torch.Tensor], reads: Mapping[str, TensorSpec]) -> None:
        """Merge tensors into memory, contiguous and of the result's dtype."""
        import torch

        flat = {name: values.view(-1) for name, values in targets.items()}
        plain = {name: values for name, values in flat.items() if values.device.type == "cpu"}
        memory = {name: values.view(torch.uint8).numpy().data for name, values in plain.items()}

        def copy_block(name: str, start: int, data: memoryview) -> None:
            values = torch.frombuffer(data, dtype=flat[name].dtype)
            flat[name][start : start + values.numel()].copy_(values)

        self._stream([reads[name] for name in targets], copy_block, memory)

    def _convert_into(
        self,
        slots: Mapping[str, torch.Tensor],
        conversions: Iterable[Conversion],
        reads: Mapping[str, TensorSpec],
        writes: Mapping[str, TensorSpec],
    ) -> None:
        """Merge the sources of one conversion after another; while the next are merged, convert the last."""
        import torch

        def merge_sources() -> Iterator[tuple[Conversion, dict[str, torch.Tensor]]]:
            for conversion in conversions:
                specs = [writes[name] for name in conversion.sources]
                sources = {spec.name: torch.empty(spec.shape, dtype=spec.dtype.torch) for spec in specs}
                self._merge_into(sources, reads)
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


def make_candidate(
    recipe: Recipe,
    pool: Pool,
    run: RunDirectory,
    digests: Mapping[str, ContentDigest],
    options: MergeOptions,
    *,
    on_answers: OnAnswers = ignore_answers,
    on_remark: Callable[[str], None] = lambda text: None,
    process: str = "",
) -> SoupCandidate:
    """Return a recipe's candidate, with its own folders in the run's directory.

    `process` names the process, where several have the same candidate at once: each then has its own files.
    """
    home = run.candidate(recipe)
    return SoupCandidate(
        recipe,
        pool,
        home.with_name(f"{home.name}-{process}") if process else home,
        digests.values(),
        options=options,
        kept=run.answers(recipe),
        logs=run.logs,
        on_answers=on_answers,
        on_remark=on_remark,
    )


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
