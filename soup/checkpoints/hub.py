"""Checkpoints by Hub id: `organisation/name` or `organisation/name@revision`, fetched into the Hub's own cache."""

from __future__ import annotations

import re
from pathlib import Path

from soup.errors import CheckpointError

__all__ = ["fetch_checkpoint", "is_hub_id"]

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w./-]+)?")
_IGNORED = ["*.bin", "*.pt", "*.pth", "*.h5", "*.msgpack", "*.onnx", "*.gguf", "*.ot", "original/*", "onnx/*"]


def is_hub_id(place: str) -> bool:
    """Whether a text has the form of a Hub id; a local directory of that name comes first."""
    return _HUB_ID.fullmatch(place) is not None


def fetch_checkpoint(place: str) -> tuple[Path, str]:
    """The local directory of a checkpoint on the Hub, downloaded if it is not here yet, and its id with the commit.

    Raises:
        CheckpointError: the Hub could not be reached, or has no such checkpoint.
    """
    from huggingface_hub import snapshot_download

    name, _, revision = place.partition("@")
    try:
        folder = Path(snapshot_download(name, revision=revision or None, ignore_patterns=_IGNORED))
    except Exception as error:  # the Hub's client raises many kinds: network, permission, missing, offline
        raise CheckpointError(
            f"{place}: neither a directory here nor to be had from the Hub: {type(error).__name__}: {error}"
        ) from error
    return folder, f"{name}@{folder.name}"  # a snapshot's folder is named by its commit
