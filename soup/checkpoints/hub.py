"""Checkpoints by Hub id: `organisation/name` or `organisation/name@revision`, fetched into the Hub's own cache."""

from __future__ import annotations

import re
from pathlib import Path

from soup.errors import CheckpointError

__all__ = ["fetch_checkpoint", "is_hub_id"]

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w./-]+)?")
_IGNORED = ["*.bin", "*.pt", "*.pth", "*.h5", "*.msgpack", "*.onnx", "*.gguf", "*.ot", "original/*", "onnx/*"]


def is_hub_id(text: str) -> bool:
    """Whether a text has the form of a Hub id; callers let a local directory of that name come first."""
    return _HUB_ID.fullmatch(text) is not None


def fetch_checkpoint(hub_id: str) -> tuple[Path, str]:
    """Download a checkpoint from the Hub, if it is not in the cache yet.

    Returns:
        Its local directory, and its id with the commit as the revision.

    Raises:
        CheckpointError: The Hub could not be reached, or has no such checkpoint.
    """
    from huggingface_hub import snapshot_download

    name, _, revision = hub_id.partition("@")
    try:
        folder = Path(snapshot_download(name, revision=revision or None, ignore_patterns=_IGNORED))
    except Exception as error:  # the Hub's client raises many kinds: network, permission, missing, offline
        raise CheckpointError(
            f"{hub_id}: neither a directory here nor to be had from the Hub: {type(error).__name__}: {error}"
        ) from error
    return folder, f"{name}@{folder.name}"  # a snapshot's folder is named by its commit
