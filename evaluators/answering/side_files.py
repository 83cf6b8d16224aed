"""The files around a checkpoint's weights, which no engine can swap."""

from __future__ import annotations

from pathlib import Path

from soup.checkpoints.carried_files import find_side_files
from soup.checkpoints.digest import digest_files

__all__ = ["side_files_digest"]


def side_files_digest(directory: Path) -> str:
    """Digest the files around the weights: configuration, tokenizer, processor, template, code."""
    return digest_files({name: directory / name for name in find_side_files(directory, ()).carried})
