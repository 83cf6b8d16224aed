"""Give a file or folder its name when it is whole, and on the disk: under another name first, synced, then renamed.

A rename alone is not enough: after a power cut ext4 and XFS may show a file under its final name whose bytes, or whose
entry in the folder, were never written.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from soup.support.file_lock import FileLock

__all__ = ["atomic_file", "make_folders", "rename_synced", "sync", "sync_tree", "write_atomic"]

PATIENCE_SECONDS = 60


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Give a file to write; it gets its name at the end. Missing parent directories are made.

    Whoever reads `path` at any time, after a power cut too, sees the whole old file or the whole new one, and so with
    several that write it at once. An error or an interrupt leaves the old one, and nothing beside it. What is no file
    stays what it is: root would have a device replaced.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EEXIST, "a pipe, a device or a folder lies there. Choose another name", str(path))
    make_folders(path.parent)
    new = path.with_name(f".{path.name}.new")  # the same name each time: a later run overwrites what a kill left
    lock = FileLock.wait(new, PATIENCE_SECONDS, temporary=True)
    if lock is None:
        raise OSError(errno.EBUSY, f"another process writes it, for {PATIENCE_SECONDS} s already", str(path))
    try:
        with new.open("wb") as file:
            yield file
        sync(new)
        new.replace(path)
    except BaseException as error:
        with suppress(OSError):
            new.unlink()
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # the system names no file where a write fails
        raise
    finally:
        lock.release()
    sync(path.parent)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write bytes, or text in UTF-8, to a file by `atomic_file`."""
    with atomic_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def make_folders(folder: Path) -> None:
    """Make a folder and its missing parents, and sync their entries."""
    if not folder.is_dir():
        make_folders(folder.parent)
        try:
            folder.mkdir(exist_ok=True)
        except FileExistsError as error:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from error
        sync(folder.parent)


def rename_synced(written: Path, final: Path) -> None:
    """Sync all that lies in a folder, give it its final name, and sync that."""
    sync_tree(written)
    written.rename(final)
    sync(final.parent)


def sync_tree(folder: Path) -> None:
    """Sync a folder, and all files and folders in it; what its links lead to is not touched."""
    for root, _, names in os.walk(folder):
        for path in (Path(root, name) for name in names):
            if not path.is_symlink():
                sync(path)
        sync(Path(root))


def sync(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on the disk.

    Raises:
        OSError: The disk failed.
    """
    is_folder = path.is_dir()
    if is_folder and os.name == "nt":  # Windows opens no folders
        return
    fd = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError as error:
        if not is_folder or error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.ENOSYS):
            error.filename = str(path)
            raise  # some file systems (FUSE, SMB) keep folders in their own way, and have nothing to sync
    finally:
        os.close(fd)
