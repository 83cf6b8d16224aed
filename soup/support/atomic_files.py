"""Write a small file as a whole or not at all: under another name in the same directory, and then renamed."""

from __future__ import annotations

from pathlib import Path

__all__ = ["write_atomic"]


def write_atomic(path: Path, text: str) -> None:
    """Write `text` to `path` in UTF-8; missing parent directories are made.

    Whoever reads `path` at any time sees the whole old file or the whole new one. An error or an interrupt leaves the
    old one, and nothing beside it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")  # the same name each time: a later run overwrites what a kill left
    try:
        new.write_text(text, encoding="utf-8")
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
