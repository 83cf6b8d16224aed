"""Where a checkpoint is to lie: what may not be there, the lock beside it, and the soup that it replaces.

`.NAME.partial` is what is being written, `.NAME.lock` is locked by who writes it, `.NAME.old` is what was replaced.
"""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import suppress
from pathlib import Path

from soup.errors import OutputError
from soup.support.atomic_files import make_folders
from soup.support.disk_space import free_space, require_bytes
from soup.support.file_lock import FileLock
from soup.support.options import option_name
from soup.support.text import format_bytes

__all__ = [
    "claim",
    "disk_advice",
    "move_aside",
    "refuse_destination",
    "refuse_small_disk",
    "refuse_unwritable",
    "remove_replaced",
]


def refuse_destination(out: Path, *, overwrite: bool) -> None:
    """Refuse a destination that holds something.

    With `overwrite` an earlier soup (it has a recipe.yaml) may be replaced, and nothing else ever is.

    Raises:
        OutputError: The destination holds something.
    """
    if not out.exists() and not out.is_symlink():
        return
    if not out.is_dir() or out.is_symlink():
        raise OutputError(f"{out}: exists and is no directory. Choose another {option_name('out')}.")
    if not any(out.iterdir()):
        return
    is_soup = (out / "recipe.yaml").is_file()
    if not overwrite:
        otherwise = f"pass {option_name('overwrite')}" if is_soup else "remove it if you don't need it"
        raise OutputError(f"{out}: exists and is not empty. Choose another {option_name('out')}, or {otherwise}.")
    if not is_soup:
        raise OutputError(
            f"{out}: {option_name('overwrite')} replaces soups only, and this directory has no recipe.yaml. "
            f"Remove it yourself if you don't need it, or choose another {option_name('out')}."
        )


def refuse_unwritable(out: Path, needed_bytes: int) -> None:
    """Refuse a destination below what is no writable directory, or on a disk without room for so many bytes.

    Raises:
        OutputError: It is such a one.
    """
    parent = free_space(out.absolute().parent).location
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        why = "gives you no right to write" if parent.is_dir() else "is no directory"
        raise OutputError(f"{out}: can't be written: {parent} {why}. Choose another {option_name('out')}.")
    refuse_small_disk(out.absolute(), needed_bytes)


def refuse_small_disk(out: Path, needed_bytes: int, option: str = "out") -> None:
    """Refuse a destination on a disk without room for so many bytes; `option` says where it is chosen.

    Raises:
        OutputError: It is such a one.
    """
    require_bytes(
        out.parent,
        needed_bytes,
        lambda free: OutputError(
            f"{out}: the disk is too small: {format_bytes(needed_bytes)} needed, {format_bytes(free.bytes)} free. "
            f"Free some space, or choose another {option_name(option)}."
        ),
    )


def disk_advice(out: Path, error: OSError) -> str:
    """Say how much room is left, or how files become smaller, for an error in mid-writing."""
    if error.errno == errno.EFBIG:  # of FAT file systems, of `ulimit -f`
        shards = option_name("max_shard_bytes", "max-shard-size")
        return f"No file may be so large there: {shards} makes smaller ones. Or choose another {option_name('out')}."
    return f"{format_bytes(free_space(out.parent).bytes)} are free on that disk: make room there."


def claim(out: Path) -> tuple[Path, FileLock]:
    """Lock the destination; make and empty the folder in which the checkpoint is written."""
    partial = out.parent / f".{out.name}.partial"
    try:
        make_folders(out.parent)
        lock = FileLock.take(_lock_file(out), temporary=True)
        if lock is None:
            raise OutputError(
                f"{out}: another run is writing it just now. Wait for it, or choose another {option_name('out')}."
            )
        try:
            partial.mkdir(exist_ok=True)
            _empty(partial)
        except BaseException:
            with suppress(OSError):
                partial.rmdir()
            lock.release()
            raise
    except OSError as error:
        raise OutputError(f"{out}: can't be written ({error.strerror or error}).") from error
    return partial, lock


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def remove_replaced(out: Path) -> None:
    """Remove the soup that `out` replaced and the file of its lock, if a run was killed before it could."""
    shutil.rmtree(_replaced(out), ignore_errors=True)
    if _lock_file(out).exists() and (lock := FileLock.take(_lock_file(out), temporary=True)):
        lock.release()


def _lock_file(out: Path) -> Path:
    return out.parent / f".{out.name}.lock"


def _replaced(out: Path) -> Path:
    return out.parent / f".{out.name}.old"


def move_aside(out: Path) -> Path | None:
    """Rename the directory at `out` to a hidden name, and return that; None where there is none."""
    old = _replaced(out)
    if old.exists():  # of an earlier run that was killed between its two renames
        shutil.rmtree(old)
    if not out.exists():
        return None
    out.rename(old)
    return old
