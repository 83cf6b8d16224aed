"""Decide all of a merge before a weight is read: the method, the inputs, and which files hold which tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from soup.checkpoints.adapted import output_layer
from soup.checkpoints.digest import ByteProgress, ContentDigest, digest_checkpoint
from soup.checkpoints.dtypes import Dtype, TensorSpec, named_dtype
from soup.checkpoints.file_plan import FilePlan, plan_files
from soup.checkpoints.hub import is_hub_id
from soup.checkpoints.reader import Checkpoint
from soup.checkpoints.side_files import complete_side_files
from soup.errors import RecipeError
from soup.merging.adapter_soup import AdapterPlan, plan_adapter
from soup.merging.block_arithmetic import Blend
from soup.merging.block_loop import thread_bytes
from soup.merging.first_pass import StreamedFirstPass
from soup.merging.ingredient import Ingredient, is_dropped, untied_together
from soup.merging.method_building import build_method, wrap_method_errors
from soup.merging.options import MergeOptions, WriteOptions
from soup.merging.pool import Pool
from soup.merging.recipe import Recipe
from soup.merging.tensor_inputs import stored_checkpoints
from soup.merging.whole_tensors import decomposition_seconds, work_on
from soup.support.options import option_name
from soup.support.threads import default_threads

__all__ = ["MergePlan", "plan_merge"]

IMPORTED_BYTES = 245_000_000
"""What Python with torch takes before a merge begins, as measured; the blocks' buffers come on top."""


@dataclass(frozen=True)
class MergePlan:
    """A merge about to happen, from headers alone: what is read, and which files will hold which tensors.

    Args:
        recipe: What is made.
        options: How it is merged.
        write: How it is written.
        lead: Whose layout and side files the soup takes: the base, or the recipe's first ingredient.
        tokenizer: Whose tokenizer and chat template it takes, where one was chosen.
        blend: The arithmetic over the open inputs.
        reads: The tensors that are read of each input.
        files: The files that are written.
        adapter: What is written where it is one adapter.
        sources: Where ingredients and base lie, by name.
    """

    recipe: Recipe
    options: MergeOptions
    write: WriteOptions
    lead: Checkpoint
    tokenizer: Checkpoint | None
    blend: Blend
    reads: tuple[TensorSpec, ...]
    files: tuple[FilePlan, ...]
    adapter: AdapterPlan | None = None
    sources: Mapping[str, Path] = field(default_factory=dict)

    @property
    def writes(self) -> tuple[TensorSpec, ...]:
        """The specs of the output's tensors."""
        return tuple(spec for plan in self.files for spec in plan.tensors)

    def prepared(
        self, on_bytes: ByteProgress | None = None, digests: Mapping[Checkpoint, ContentDigest] | None = None
    ) -> Blend:
        """Return the blend with all that its method needs to know before the first element is written.

        Args:
            on_bytes: Called with the number of input bytes done since its last call.
            digests: What `missing_digests` found (default: it is asked).
        """
        method, blend = self.blend.method, self.blend
        with wrap_method_errors(self.recipe.method):
            if method.needs_digests:
                found = self.missing_digests(on_bytes) if digests is None else digests
                parts = zip(self.recipe.ingredients, blend.inputs, strict=False)
                blend = replace(
                    blend, digests=tuple(share.digest or found[part.stored].content for share, part in parts)
                )
            constants = method.prepare(StreamedFirstPass(blend, self.reads, self.options.threads, on_bytes))
        return replace(blend, constants=constants)

    def missing_digests(self, on_bytes: ByteProgress | None = None) -> dict[Checkpoint, ContentDigest]:
        """Read through the ingredients whose digests the method needs to know first and the recipe does not tell.

        Args:
            on_bytes: Called with the number of input bytes done since its last call.
        """
        return {checkpoint: digest_checkpoint(checkpoint, on_bytes) for checkpoint in self._undigested}

    @property
    def _undigested(self) -> set[Checkpoint]:
        if not self.blend.method.needs_digests:
            return set()
        parts = zip(self.recipe.ingredients, self.blend.inputs, strict=False)
        return {part.stored for share, part in parts if not share.digest}

    def refuse_changed(self) -> None:
        """Refuse inputs that another program changed meanwhile; see `Checkpoint.refuse_changed`."""
        for checkpoint in self.blend.inputs:
            checkpoint.refuse_changed()

    @property
    def untied_output(self) -> str | None:
        """The output layer that the soup has of its own, although its base ties it to the embeddings."""
        return output_layer(self.lead)

    @property
    def idle_parameters(self) -> Sequence[str]:
        """Which parameters of the method change nothing in this model; see `Method.idle_parameters`."""
        places = [self.blend.places.get(spec.name) for spec in self.reads if spec.dtype.kind == "float"]
        return self.blend.method.idle_parameters([place for place in places if place])

    @property
    def read_bytes(self) -> int:
        """The size of all that is read; a method that needs to know the whole model first reads it more than once."""
        names = {spec.name for spec in self.reads}
        once = sum(
            spec.bytes
            for checkpoint in {*stored_checkpoints(self.blend)}
            for name, spec in checkpoint.tensors.items()
            if name in names or checkpoint not in self.blend.inputs
        )
        return (1 + self.blend.method.first_passes) * once + sum(checkpoint.bytes for checkpoint in self._undigested)

    @property
    def write_bytes(self) -> int:
        """The size of the tensors that are written."""
        return sum(plan.data_bytes for plan in self.files)

    @property
    def side_files(self) -> dict[str, Path]:
        """Where the files lie that the soup takes along, by their paths in it."""
        return complete_side_files(self.lead, *self.blend.inputs, tokenizer=self.tokenizer)

    @property
    def ram_bytes(self) -> int:
        """An upper bound of the memory that the merge takes, but for what a method of somebody else's takes itself."""
        works = [work.bytes for spec in self.reads if (work := work_on(self.blend, spec))]
        in_thread = thread_bytes(self.blend, self.reads) + max(works, default=0)
        return IMPORTED_BYTES + self.threads * in_thread

    @property
    def threads(self) -> int:
        """How many threads merge."""
        return self.options.threads or default_threads()

    def as_json(self, out: Path) -> dict[str, object]:
        """Return what `--dry-run` prints: tensors, files, bytes to read and to write, and the bound of memory.

        And where the method decomposes matrices, about how many seconds that takes here: a small one is measured.
        """
        seconds = decomposition_seconds(self.blend, self.reads, self.threads)
        plan: dict[str, object] = {
            "out": str(out),
            "ingredients": list(self.recipe.names),
            "method": self.recipe.method,
            "tensors": len(self.writes),
            "dtypes": sorted({spec.dtype.name for spec in self.writes}),
            "shards": [file.name for file in self.files],
            "read_bytes": self.read_bytes,
            "write_bytes": self.write_bytes,
            "ram_bytes": self.ram_bytes,
            **({"untied": self.untied_output} if self.untied_output else {}),
        }
        return plan if seconds is None else {**plan, "decomposition_seconds": float(f"{seconds:.2g}")}


def plan_merge(
    recipe: Recipe, pool: Pool, options: MergeOptions | None = None, write: WriteOptions | None = None
) -> MergePlan:
    """Decide everything about a merge before a weight is read.

    Args:
        recipe: What is made.
        pool: Holds the recipe's ingredients by name, or more.
        options: How it is merged; what the recipe says itself is taken from there.
        write: How it is written.

    Raises:
        RecipeError: the method is unknown, does not take these parameters or weights, or needs a base.
    """
    options, write = options or MergeOptions(), write or WriteOptions()
    recipe = _pinned(recipe, pool)
    blend, lead = _blend(recipe, pool, options)
    reads = _reads(blend, recipe.drop)
    adapter = plan_adapter(blend, write.adapter_rank, recipe.drop) if write.as_adapter else None
    files = adapter.files if adapter else _files(reads, lead, blend.dtype, write)
    tokenizer = pool.tokenizer.checkpoint if pool.tokenizer else None
    names = {*recipe.names, *([pool.base.name] if pool.base else [])}
    sources = {part.name: part.checkpoint.path for part in pool.all if part.name in names}
    return MergePlan(recipe, options, write, lead, tokenizer, blend, reads, files, adapter, sources)


def _blend(recipe: Recipe, pool: Pool, options: MergeOptions) -> tuple[Blend, Checkpoint]:
    """Return the arithmetic over the recipe's inputs, and the lead: the base, or the first ingredient."""
    method = build_method(recipe)
    if method.needs_base and pool.base is None:
        raise RecipeError(
            f"Method {recipe.method} needs the base that the ingredients were tuned from: pass {option_name('base')}, "
            "or name it as `base` in the recipe's file."
        )
    chosen: list[Ingredient] = [pool[share.name] for share in recipe.ingredients]
    parts = untied_together([*chosen, *([pool.base] if pool.base else [])])
    lead = parts[-1 if pool.base else 0].checkpoint
    parts = parts if method.needs_base else parts[: len(chosen)]
    blend = Blend(
        method,
        inputs=tuple(part.checkpoint for part in parts),
        names=tuple(part.name for part in parts),
        weights=tuple(share.weight for share in recipe.ingredients),
        dtype=named_dtype(recipe.dtype) if recipe.dtype else None,
        allow_nonfinite=options.allow_nonfinite,
    )
    return blend, lead


def _reads(blend: Blend, drop: Sequence[str]) -> tuple[TensorSpec, ...]:
    """Return the tensors that are read of each input: all that are not dropped."""
    reads = tuple(spec for name, spec in blend.inputs[0].tensors.items() if not is_dropped(name, drop))
    if not reads:
        who = f"drop {', '.join(drop)} leaves" if drop else f"{blend.inputs[0].path}: its files hold"
        raise RecipeError(f"{who} no tensor to merge.")
    return reads


def _files(
    reads: Sequence[TensorSpec], lead: Checkpoint, dtype: Dtype | None, write: WriteOptions
) -> tuple[FilePlan, ...]:
    """Return the files that are written: in the lead's order, and where it has all of the tensors, in its shards."""
    order = {name: index for index, name in enumerate(lead.tensors)}
    writes = [spec.cast(dtype) for spec in sorted(reads, key=lambda spec: order.get(spec.name, len(order)))]
    layout = lead.layout if lead.sharded and all(spec.name in order for spec in writes) else None
    return plan_files(writes, layout, write.max_shard_bytes)


def _pinned(recipe: Recipe, pool: Pool) -> Recipe:
    """Return the recipe with the commits in place of what it says of branches and tags of the Hub."""
    parts = [*zip(recipe.ingredients, (pool[share.name] for share in recipe.ingredients), strict=True)]
    others = ((recipe.base, pool.base), (recipe.tokenizer, pool.tokenizer))
    commits = {
        source.path: part.location for source, part in (*parts, *others) if source and part and is_hub_id(part.location)
    }
    return recipe.with_paths(lambda path: commits.get(path, path))
