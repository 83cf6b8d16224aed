"""A base with an adapter on it, seen as one more checkpoint of the base's names, shapes and dtypes.

Nothing is written or held: the bytes of most tensors are the base's, and what the adapter adds to the others is a
product of two small matrices, which the loop over blocks adds to the blocks that it reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TypeGuard

from soup.checkpoints.adapter import Adapter
from soup.checkpoints.adapter_deltas import Change, Delta
from soup.checkpoints.adapter_targets import find_changes, unties
from soup.checkpoints.carried_files import SideFiles
from soup.checkpoints.dtypes import TensorSpec
from soup.checkpoints.reader import Checkpoint
from soup.checkpoints.tied import UntiedCheckpoint, is_tied

__all__ = ["AdaptedCheckpoint", "is_adapted", "output_layer", "untied"]


class AdaptedCheckpoint(Checkpoint):
    """A base with an adapter on it.

    Args:
        path: The adapter's directory.
        base: The open base; closing it is not this one's to do.

    Raises:
        CheckpointError: See `Adapter` and `find_changes`.
    """

    def __init__(self, path: Path | str, base: Checkpoint) -> None:  # no weights of its own are opened
        adapter = Adapter(path)
        self._put_on(adapter, UntiedCheckpoint(base) if unties(adapter, base) else base)

    def _put_on(self, adapter: Adapter, base: Checkpoint) -> None:
        self.adapter, self.base = adapter, base
        self.path = self.adapter.path
        self.changes: Mapping[str, Change] = find_changes(self.adapter, base)
        self.warnings = [
            *self.adapter.warnings,
            *(
                f"{self.path}: {text} ({module}): the file's counts, and PEFT would not load it"
                for text, module in self.adapter.other_ranks.items()
            ),
        ]
        self.files, self.sharded = base.files, base.sharded

    @cached_property
    def untied(self) -> AdaptedCheckpoint:
        """The same adapter on its base seen with an output layer of its own."""
        if isinstance(self.base, UntiedCheckpoint) or not is_tied(self.base):
            return self
        untied = AdaptedCheckpoint.__new__(AdaptedCheckpoint)
        untied._put_on(self.adapter, UntiedCheckpoint(self.base))
        return untied

    @property
    def stored(self) -> Checkpoint:
        """The adapter by itself."""
        return self.adapter

    @cached_property
    def tensors(self) -> Mapping[str, TensorSpec]:
        """The base's specs: what the adapter adds is rounded to the base's dtype."""
        return self.base.tensors

    @cached_property
    def layout(self) -> Mapping[str, str]:
        """The base's."""
        return self.base.layout

    @property
    def bytes(self) -> int:
        """The size of the adapter's own tensors."""
        return self.adapter.bytes

    @cached_property
    def config(self) -> dict[str, object]:
        """The base's: an adapter's directory has none, or a copy."""
        return self.base.config

    @cached_property
    def side_files(self) -> SideFiles:
        """The adapter's: training often saves tokenizer and template beside it."""
        return self.adapter.side_files

    @cached_property
    def quantised(self) -> str | None:
        """None: whether the base is, the base says."""
        return None

    @cached_property
    def quantisation(self) -> str | None:
        """None: see `quantised`."""
        return None

    def deltas_of(self, name: str) -> tuple[Delta, ...]:
        """Return what is added to tensor `name`."""
        return self.changes[name].deltas if name in self.changes else ()

    def source_of(self, name: str) -> tuple[Checkpoint, str]:
        """Return the checkpoint whose files hold what the deltas are added to, and the tensor's name there."""
        stored_as = self.changes[name].stored_as if name in self.changes else None
        return self.base.source_of(name) if stored_as is None else (self.adapter, stored_as)

    def read_into(self, name: str, start: int, view: memoryview) -> None:
        """Read what the deltas are added to; see `Checkpoint.read_into`."""
        checkpoint, stored_as = self.source_of(name)
        checkpoint.read_into(stored_as, start, view)

    def refuse_changed(self) -> None:
        """See `Checkpoint.refuse_changed`."""
        self.adapter.refuse_changed()
        self.base.refuse_changed()

    def close(self) -> None:
        """Close the adapter's file."""
        self.adapter.close()

    def __repr__(self) -> str:
        return f"AdaptedCheckpoint({str(self.path)!r}, {self.base!r})"


def output_layer(checkpoint: Checkpoint) -> str | None:
    """Return the output layer that an adapter trains apart from the embeddings that its base ties it to."""
    base = checkpoint.base if is_adapted(checkpoint) else checkpoint
    return base.output if isinstance(base, UntiedCheckpoint) else None


def is_adapted(checkpoint: Checkpoint) -> TypeGuard[AdaptedCheckpoint]:
    """Whether it is a base with an adapter on it."""
    return isinstance(checkpoint, AdaptedCheckpoint)


def untied(checkpoint: Checkpoint) -> Checkpoint:
    """Return a checkpoint as it is, or one that ties its output layer as one that has it by itself."""
    if is_adapted(checkpoint):
        return checkpoint.untied
    return UntiedCheckpoint(checkpoint) if is_tied(checkpoint) else checkpoint
