"""Inspect a checkpoint: tensors, dtypes, components, bytes, digest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from soup.checkpoints.adapter import PREFIX, Adapter
from soup.checkpoints.digest import digest_checkpoint
from soup.checkpoints.dtypes import TensorSpec
from soup.checkpoints.reader import Checkpoint
from soup.evaluation.progress import Progress
from soup.hf.components import group_by_component
from soup.merging.ingredient import open_alone

__all__ = ["CheckpointReport", "ComponentRow", "TensorRow", "inspect_checkpoint"]


@dataclass(frozen=True)
class TensorRow:
    """A tensor, and the file that holds it."""

    name: str
    dtype: str
    shape: list[int]
    file: str


@dataclass(frozen=True)
class ComponentRow:
    """A part of the model: how many tensors and numbers it has, and of which dtypes."""

    name: str
    tensors: int
    elements: int
    bytes: int
    dtypes: str


@dataclass(frozen=True)
class CheckpointReport:
    """What a checkpoint holds.

    Args:
        checkpoint: Its directory or Hub id.
        model_type: transformers' name of the architecture, where its config says it.
        bytes: The size of all tensors.
        quantised: How its weights are quantised; None where they are not.
        files: The weight files.
        side_files: The files that a soup takes along.
        left_out: The files that it does not.
        warnings: What a user should know although it stops nothing.
        components: The parts of the model.
        tensors: All tensors, in the order of the files.
        digest: That of its weights, where it was asked for.
        adapter: What its config says, where it is an adapter.
    """

    checkpoint: str
    model_type: str | None
    bytes: int
    quantised: str | None
    files: list[str]
    side_files: list[str]
    left_out: list[str]
    warnings: list[str]
    components: list[ComponentRow]
    tensors: list[TensorRow]
    digest: str | None = None
    adapter: dict[str, object] | None = None

    def as_json(self) -> dict[str, object]:
        """Return the document that `soup inspect --json` prints."""
        document = {"schema": 1, **asdict(self)}
        missing = [key for key in ("digest", "adapter") if not document[key]]
        return {key: value for key, value in document.items() if key not in missing}


def inspect_checkpoint(
    location: str | Path, *, digest: bool = True, progress: Progress | None = None
) -> CheckpointReport:
    """Find out what a checkpoint holds, from its headers.

    Args:
        location: A directory or a Hub id; of an adapter, its own factors are shown.
        digest: Whether the digest of its weights is made, for which all of them are read.
        progress: Who hears warnings and bytes.

    Raises:
        CheckpointError: it is not to be had, or damaged.
    """
    progress = progress or Progress()
    with open_alone(str(location)) as checkpoint:
        for warning in checkpoint.warnings:
            progress.on_warning(warning)
        content = None
        if digest:
            progress.on_phase("reading", checkpoint.bytes)
            content = digest_checkpoint(checkpoint, progress.on_bytes).content
        return _report(checkpoint, content)


def _report(checkpoint: Checkpoint, digest: str | None) -> CheckpointReport:
    specs = list(checkpoint.tensors.values())
    model_type = checkpoint.config.get("model_type")
    return CheckpointReport(
        checkpoint=str(checkpoint.path),
        model_type=None if model_type is None else str(model_type),
        bytes=checkpoint.bytes,
        quantised=checkpoint.quantised,
        files=list(checkpoint.files),
        side_files=list(checkpoint.side_files.carried),
        left_out=list(checkpoint.side_files.left_out),
        warnings=list(checkpoint.warnings),
        components=_components(checkpoint.tensors),
        tensors=[
            TensorRow(spec.name, spec.dtype.name, list(spec.shape), checkpoint.layout[spec.name]) for spec in specs
        ],
        digest=digest,
        adapter=_adapter_facts(checkpoint) if isinstance(checkpoint, Adapter) else None,
    )


def _adapter_facts(adapter: Adapter) -> dict[str, object]:
    """Return what an adapter's config says, as far as it decides what is added to the base."""
    settings = adapter.settings
    shown = ("lora_alpha", "alpha_pattern", "use_rslora", "use_dora", "modules_to_save")
    facts = {"base": adapter.base_location, "ranks": list(adapter.ranks)}
    return facts | {key: settings[key] for key in shown if settings.get(key)}


def _components(tensors: Mapping[str, TensorSpec]) -> list[ComponentRow]:
    """One row for each component of a checkpoint, with the size of its tensors."""
    tensors = {name.removeprefix(PREFIX): spec for name, spec in tensors.items()}
    groups = {name: [tensors[member] for member in members] for name, members in group_by_component(tensors).items()}
    return [
        ComponentRow(
            name,
            len(specs),
            sum(spec.elements for spec in specs),
            sum(spec.bytes for spec in specs),
            ", ".join(sorted({spec.dtype.name for spec in specs})),
        )
        for name, specs in groups.items()
    ]
