"""Which directories a pool is made of: what is skipped and why, and what lies deeper than a pool looks.

Trainer leaves `run/checkpoint-100`, LLaMA-Factory `saves/MODEL/lora/sft/checkpoint-100`, ms-swift
`output/v0-DATE/checkpoint-100`. None of these layouts is known here: checkpoints are looked for a few folders down.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from soup.checkpoints.hub import is_hub_id
from soup.checkpoints.weight_files import INDEX, looks_like_checkpoint, no_directory, pickles_in
from soup.errors import PoolError
from soup.support.open_files import read_errors
from soup.support.options import option_name, refuse_wrong_type

__all__ = ["PoolListing", "list_locations", "list_pool"]

_STEP = re.compile(r"(?:checkpoint|ckpt|(?:global_?)?step|epoch|iter(?:ation)?)[-_=]?\d+", re.IGNORECASE)
"""How checkpoints of one run are called, of which the last is its model."""
_DEPTH = 4
_SHOWN = 8


@dataclass(frozen=True)
class PoolListing:
    """The locations of a pool's ingredients, a line for each thing that was skipped, and what lies deeper if anything.

    `folder` is the directory whose subdirectories they are; None where they were named one by one.
    """

    locations: tuple[str, ...]
    skipped: tuple[str, ...]
    deeper: str | None
    folder: Path | None


def list_locations(locations: object) -> list[str | Path]:
    """Return what is named as a pool, one by one.

    Raises:
        PoolError: It names nothing, or is no path, Hub id, or sequence of such.
    """
    refuse_wrong_type({"pool": locations}, {"pool": (str, Path, Sequence)}, PoolError)
    paths = [locations] if isinstance(locations, str | Path) else list(cast("Sequence[str | Path]", locations))
    wrong = [path for path in paths if not isinstance(path, str | Path)]
    if wrong or not paths:
        raise PoolError(f"pool: expected paths or Hub ids, found {f'{wrong[0]!r:.80}' if wrong else 'none'}.")
    return paths


def list_pool(locations: Sequence[str | Path], base: str | Path | None) -> PoolListing:
    """Find the checkpoints of a directory, or among all that it holds, as a shell makes it of `ckpts/*`.

    Of locations that were named one by one none is skipped: what is no checkpoint can't be opened.

    Raises:
        PoolError: The only location is no directory, or can't be read.
    """
    folder = _folder(locations)
    if folder is not None:
        entries = sorted(entry for entry in folder.iterdir() if _is_shown(entry) and entry.is_dir())
        reasons = {entry: _why_skipped(entry) for entry in entries}
    else:
        known = [Path(location) for location in locations if Path(location).exists()]
        reasons = {path: _why_skipped(path) for path in known}
    strange = {entry: why for entry, why in reasons.items() if why is not None}
    below = [path for entry in strange for path in _checkpoints_below(entry)]
    if folder is None:
        skipped = strange if None in reasons.values() and _are_all_of_a_folder(locations) else {}
        taken_locations = [str(location) for location in locations if Path(location) not in skipped]
        below += _checkpoints_below(Path(locations[0])) if len(locations) == 1 else []
    else:
        skipped = strange
        taken_locations = [str(entry) for entry in reasons if entry not in skipped and not _is_base(entry, base)]
    below = [path for path in below if not _is_base(path, base)]
    lines = tuple(f"{entry.name}: skipped, {why}" for entry, why in skipped.items())
    beside = [location for location in taken_locations if strange and Path(location) not in strange]
    return PoolListing(tuple(taken_locations), lines, _deeper(below, beside), folder)


def _is_shown(entry: Path) -> bool:
    return not entry.name.startswith(".")


def _are_all_of_a_folder(locations: Sequence[str | Path]) -> bool:
    """Whether the locations are all that a directory holds, or all directories in it: `ckpts/*`, `ckpts/*/`."""
    paths = {Path(location).absolute() for location in locations}
    folder = Path(locations[0]).absolute().parent
    try:
        shown = {entry for entry in folder.iterdir() if _is_shown(entry)}
        return paths in (shown, {entry for entry in shown if entry.is_dir()})
    except OSError:
        return False


def _folder(locations: Sequence[str | Path]) -> Path | None:
    """Find the directory whose subdirectories are the pool; None where the locations are checkpoints themselves."""
    if len(locations) != 1 or (is_hub_id(str(locations[0])) and not Path(locations[0]).exists()):
        return None
    folder = Path(locations[0])
    if not folder.is_dir():
        raise PoolError(
            f"{folder}: {no_directory(folder)}. Expected a directory of checkpoints, or checkpoints one by one."
        )
    why = _why_skipped(folder)
    if why is not None and "can't be read" in why:
        raise PoolError(f"{folder}: {why}.")
    return folder if why else None


def _why_skipped(path: Path) -> str | None:
    """Say why a file or a directory is no ingredient; None where it is meant as one."""
    with read_errors(path, PoolError):  # a disk that fails must not make the pool smaller
        try:
            if not path.is_dir():
                return "not a directory"
            if not looks_like_checkpoint(path):
                pickles = pickles_in(entry.name for entry in path.iterdir())
                return "not a checkpoint" + (f" in safetensors: {pickles[0]} is a pickle" if pickles else "")
            # An index may name shards in folders of the checkpoint.
            weights = any(entry.name.endswith((".safetensors", ".bin", INDEX)) for entry in path.iterdir())
        except PermissionError as error:  # as of lost+found
            return f"can't be read ({error.strerror})"
    return None if weights or not _checkpoints_below(path) else "without weights of its own"


def _is_base(entry: Path, base: str | Path | None) -> bool:
    """Whether an entry of the pool's directory is the base, which is no ingredient then."""
    return base is not None and Path(base).exists() and entry.samefile(base)


def _checkpoints_below(folder: Path) -> list[Path]:
    return list(_walk(folder, _DEPTH))


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    """Yield the checkpoints below a directory, `checkpoint-100` after `checkpoint-20`; links are not followed."""
    try:
        entries = [entry for entry in folder.iterdir() if entry.is_dir() and _is_shown(entry)]
    except OSError:
        return
    for entry in sorted((entry for entry in entries if not entry.is_symlink()), key=_natural):
        try:
            if looks_like_checkpoint(entry):
                yield entry
        except OSError:
            continue
        if depth > 1:
            yield from _walk(entry, depth - 1)


def _natural(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", path.name)]


def _deeper(below: Sequence[Path], beside: Sequence[str]) -> str | None:
    """Name checkpoints that lie deeper, and the option that takes them: of several runs the last of each.

    A folder of checkpoints that are no steps of a run is a pool, which has no last one.
    """
    if not below:
        return None
    runs = {path.parent: path for path in below if _STEP.fullmatch(path.name)}
    chosen = [path for path in below if len(runs) < 2 or runs.get(path.parent, path) == path]
    shown = ", ".join(map(str, below[:_SHOWN])) + (f", ... and {len(below) - _SHOWN} more" if below[_SHOWN:] else "")
    kind = "the last of each run" if len(chosen) < len(below) else "them"
    line = " ".join([*beside, *map(str, chosen)])
    return f"checkpoints lie deeper: {shown}. {option_name('pool')} {line} takes {kind}"
