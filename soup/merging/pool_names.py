"""The short names of a pool's ingredients, and which of them are left out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from soup.checkpoints.hub import HubId
from soup.errors import PoolError
from soup.merging.pool_folders import PoolListing
from soup.support.options import option_name
from soup.support.text import bullet_list

__all__ = ["name_locations"]


def name_locations(listing: PoolListing, exclude: Sequence[str]) -> dict[str, str]:
    """Return the locations of a pool's ingredients by their short names, without the excluded ones.

    Args:
        listing: The locations, and where they were looked for.
        exclude: Names to leave out, or patterns of such, as a shell has them.

    Raises:
        PoolError: a location that stands twice, an excluded name that is not there, or no ingredient.
    """
    folder = listing.folder
    locations = dict(zip(_short_names(listing.locations), listing.locations, strict=True))
    all_names = ", ".join(locations)
    excluded = {
        pattern: {name for name in locations if name == pattern or fnmatchcase(name, pattern)} for pattern in exclude
    }
    unknown = [pattern for pattern, names in excluded.items() if not names]
    if unknown:
        raise PoolError(
            f"{folder or 'pool'}: {option_name('exclude')} {', '.join(unknown)}: no such ingredient. Here: {all_names}"
        )
    kept = {name: location for name, location in locations.items() if name not in set().union(*excluded.values())}
    if locations and not kept:
        raise PoolError(f"{folder or 'pool'}: {option_name('exclude')} leaves no ingredient. Here: {all_names}")
    if not kept:
        raise PoolError(
            f"{folder or 'The pool'}: no ingredient. A pool is a directory whose subdirectories are checkpoints, "
            f"or {option_name('pool')} repeated, each a checkpoint's directory or Hub id."
            + "".join(f"\n{line}" for line in listing.skipped if "can't be read" in line)
            + (f"\n{listing.deeper}" if listing.deeper else "")
        )
    return kept


def _short_names(locations: Sequence[str]) -> list[str]:
    """Shorten each location to its last part, with as many parts before it as tell them all apart."""
    if not locations:
        return []
    parts = [_name_parts(location) for location in locations]
    for length in range(1, max((len(words) for words in parts), default=0) + 1):
        names = ["/".join(words[-length:]) for words in parts]
        if len(set(names)) == len(names):
            return names
    twice = sorted({location for location in locations if locations.count(location) > 1})
    raise PoolError(f"The same checkpoint is given twice:\n{bullet_list(twice)}")


def _name_parts(location: str) -> list[str]:
    if (hub_id := HubId.parse(location)) and not Path(location).exists():
        return [hub_id.name.partition("/")[0], hub_id.label]
    return re.split(r"[/\\]+", str(Path(location).absolute()).rstrip("/\\"))
