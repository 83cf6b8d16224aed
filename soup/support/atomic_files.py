"""A small file as a whole or not at all: written beside its place, and then renamed."""

from __future__ import annotations

from pathlib import Path

__all__ = ["write_atomic"]


def write_atomic(path: Path, text: str) -> None:
    """Put `text` at `path`. Whoever reads there meets the old file or the new one; an interrupt leaves no third."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")  # one name for all: a later run writes over what a kill left
    try:
        new.write_text(text, encoding="utf-8")
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
