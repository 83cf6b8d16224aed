"""Remove folders of soup's own, as far as they can be removed."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

__all__ = ["remove_tree"]


def remove_tree(folder: Path) -> bool:
    """Remove a folder and all in it; what can't be removed stays.

    Folders in it that somebody's code made read-only, as an evaluator may, are made writable first. A link to a folder
    is left alone.

    Returns:
        Whether all is gone.
    """
    with suppress(OSError):
        if folder.is_symlink():  # whose target a change of permissions would reach
            return False
        _make_writable(folder)
    shutil.rmtree(folder, ignore_errors=True)
    return _is_gone(folder)


def _make_writable(folder: Path) -> None:
    with suppress(OSError):
        folder.chmod(0o700)
    for root, names, _ in os.walk(folder):
        for path in (Path(root, name) for name in names):
            with suppress(OSError):
                if not path.is_symlink():
                    path.chmod(0o700)


def _is_gone(folder: Path) -> bool:
    try:
        folder.lstat()
    except FileNotFoundError:
        return True
    except OSError:  # nobody can look at it
        return False
    return False
