"""On which base the adapters of a pool stand, where nobody says it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from soup.checkpoints.adapter import Adapter
from soup.checkpoints.hub import fetch_checkpoint, is_hub_id
from soup.checkpoints.weight_files import is_adapter
from soup.errors import PoolError, SoupError
from soup.support.options import option_name
from soup.support.text import bullet_list

__all__ = ["base_of_adapters"]


def base_of_adapters(locations: Iterable[str], beside: Path | None = None) -> str | None:
    """Find the base that the configs of adapters name: a directory or a Hub id.

    Args:
        locations: Of adapters and whole models; one that can't be opened is passed over.
        beside: A folder that a relative path may be relative to, after the adapter's own and the working directory.

    Returns:
        None where there is no adapter, or none that names a base.

    Raises:
        PoolError: They name several bases.
    """
    bases: dict[str, list[str]] = {}
    for location in locations:
        if (base := _base_of(location)) is not None:
            folders = [Path(), Path(location), *([beside] if beside else [])]
            known = next((str((folder / base).resolve()) for folder in folders if (folder / base).is_dir()), base)
            bases.setdefault(known, []).append(location)
    if len(bases) > 1:
        lines = [f"{base}: {', '.join(adapters)}" for base, adapters in bases.items()]
        raise PoolError(
            f"The adapters were trained on different bases:\n{bullet_list(lines)}\n{option_name('base')} puts all of "
            f"them on one base (where these are one model in several places); {option_name('exclude')} leaves some out."
        )
    return next(iter(bases), None)


def _base_of(location: str) -> str | None:
    try:
        hub = is_hub_id(location) and not Path(location).exists()
        folder = fetch_checkpoint(location)[0] if hub else Path(location)
        return Adapter(folder).base_location if is_adapter(folder) else None
    except (SoupError, OSError):
        return None
