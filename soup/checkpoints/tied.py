"""Models whose output layer is tied to their embeddings, and how one is seen with an output layer of its own.

An adapter that trains one of the two alone is no longer tied. Nothing is copied for it: the output layer that a tied
checkpoint lacks is read from its embeddings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

from soup.checkpoints.carried_files import SideFiles
from soup.checkpoints.dtypes import TensorSpec
from soup.checkpoints.reader import Checkpoint
from soup.hf.key_mapping import output_name

__all__ = [
    "EMBEDDINGS",
    "OUTPUT",
    "UntiedCheckpoint",
    "embeddings_of",
    "is_tied",
    "is_tied_by_another_name",
    "output_of",
    "untie_config",
]

EMBEDDINGS, OUTPUT = "embed_tokens.weight", "lm_head.weight"
"""How the names of input embeddings and of the output layer end, which a model may tie to each other."""
TIED = "tie_word_embeddings"
_OTHER_EMBEDDINGS = (
    *("wte.weight", "shared.weight", "word_embeddings.weight"),
    *("embed_in.weight", "tok_embeddings.weight"),
)
_OUTPUTS = (OUTPUT, "embed_out.weight", "output.weight", "output_layer.weight", "ff_out.weight")


def embeddings_of(names: Iterable[str]) -> str | None:
    """Return the only tensor that is named as input embeddings are; None where there is none, or several."""
    return _only(names, EMBEDDINGS)


def output_of(names: Iterable[str]) -> str | None:
    """Return the only tensor that is named as output layers are; None where there is none, or several."""
    return _only(names, OUTPUT)


def is_tied(checkpoint: Checkpoint) -> bool:
    """Whether the output layer is tied to the embeddings.

    One that has a tensor of its own is where the config says so; one that has none is, unless all of the config says
    that it is not: transformers then draws one, as for a model that has no output layer.
    """
    if isinstance(checkpoint, UntiedCheckpoint):
        return True
    if embeddings_of(checkpoint.tensors) is None:
        return False
    if any(name.endswith(OUTPUT) for name in checkpoint.tensors):
        return next((part[TIED] for part in _parts(checkpoint.config) if TIED in part), None) is True
    return not all(part.get(TIED) is False for part in _parts(checkpoint.config))


def is_tied_by_another_name(checkpoint: Checkpoint, name: str) -> bool:
    """Whether a tensor is input embeddings, not called `embed_tokens`, that the output layer is tied to.

    How such a model is untied its class alone knows.
    """
    if any(other.endswith((EMBEDDINGS, *_OUTPUTS)) for other in checkpoint.tensors):
        return False
    is_other = f".{name}".endswith(tuple(f".{other}" for other in _OTHER_EMBEDDINGS))
    return is_other and not all(part.get(TIED) is False for part in _parts(checkpoint.config))


def untie_config(config: dict[str, object]) -> bool:
    """Set `tie_word_embeddings` to false in a config and in those within it of its language model.

    Returns:
        Whether something changed.
    """
    inner = [(key, part) for key, part in config.items() if isinstance(part, dict)]
    parts = [config, *(part for key, part in inner if key.startswith("text") or {"vocab_size", TIED} & part.keys())]
    tied = [part for part in parts if part.get(TIED) is not False]
    for part in tied:
        part[TIED] = False
    return bool(tied)


class UntiedCheckpoint(Checkpoint):
    """A checkpoint that ties its output layer to its embeddings, seen with a tensor for each, which are equal.

    Args:
        tied: The open checkpoint, whose files are read.
    """

    def __init__(self, tied: Checkpoint) -> None:  # no weights of its own are opened
        self.tied = tied
        self.path, self.warnings, self.files, self.sharded = tied.path, tied.warnings, tied.files, tied.sharded

    @cached_property
    def _embeddings(self) -> str:
        name = embeddings_of(self.tied.tensors)
        assert name is not None, "it is tied"
        return name

    @cached_property
    def output(self) -> str:
        """The name of its output layer."""
        return output_of(self.tied.tensors) or output_name(self.path, self.tied.tensors, self._embeddings)

    @property
    def stored(self) -> Checkpoint:
        """What it is a view of."""
        return self.tied.stored

    @cached_property
    def tensors(self) -> Mapping[str, TensorSpec]:
        """The tied checkpoint's specs, and the output layer's."""
        return dict(self.tied.tensors) | {self.output: replace(self.tied.tensors[self._embeddings], name=self.output)}

    @cached_property
    def layout(self) -> Mapping[str, str]:
        """The tied checkpoint's; an output layer that it has no tensor of stands in the file of the embeddings."""
        return {self.output: self.tied.layout[self._embeddings], **self.tied.layout}

    @property
    def bytes(self) -> int:
        """The size of what is read."""
        return self.tied.bytes

    @cached_property
    def config(self) -> dict[str, object]:
        """The tied checkpoint's: the config of a soup that is not tied is made from it."""
        return self.tied.config

    @cached_property
    def side_files(self) -> SideFiles:
        """The tied checkpoint's."""
        return self.tied.side_files

    @cached_property
    def quantised(self) -> str | None:
        """The tied checkpoint's."""
        return self.tied.quantised

    @cached_property
    def quantisation(self) -> str | None:
        """The tied checkpoint's."""
        return self.tied.quantisation

    def source_of(self, name: str) -> tuple[Checkpoint, str]:
        """Return the checkpoint whose files hold a tensor, and its name there: the output layer is the embeddings."""
        return self.tied.source_of(name if name in self.tied.tensors else self._embeddings)

    def read_into(self, name: str, start: int, view: memoryview) -> None:
        """See `Checkpoint.read_into`."""
        checkpoint, stored_as = self.source_of(name)
        checkpoint.read_into(stored_as, start, view)

    def refuse_changed(self) -> None:
        """See `Checkpoint.refuse_changed`."""
        self.tied.refuse_changed()

    def close(self) -> None:
        """Close the files of what it is a view of."""
        self.tied.close()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UntiedCheckpoint) and other.tied is self.tied

    def __hash__(self) -> int:
        return hash((UntiedCheckpoint, self.tied))

    def __repr__(self) -> str:
        return f"UntiedCheckpoint({self.tied!r})"


def _only(names: Iterable[str], end: str) -> str | None:
    matches = [name for name in names if name.endswith(end)]
    return matches[0] if len(matches) == 1 else None


def _parts(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the parts of a config that may say whether embeddings are tied: the whole, and the language model's."""
    inner = [(key, part) for key, part in config.items() if isinstance(part, dict)]
    return [config, *(part for key, part in inner if key.startswith(("text", "llm", "language")))]
