"""How many pixels a picture or a frame may have: checked by headers, before anything is decoded."""

from __future__ import annotations

from finetune.media.sources import ImageSource

__all__ = ["MAX_PIXELS", "check_size"]

MAX_PIXELS = 100_000_000
"""300 MB in memory."""


def check_size(size: tuple[int, int], source: ImageSource, max_pixels: int) -> None:
    """Raise FinetuneError for a picture of no pixels, or of more than `max_pixels`."""
    width, height = size
    if min(size) < 1:
        raise source.fault(f"has no pixels ({width} x {height}); leave it out.")
    if width * height > max_pixels:
        raise source.fault(
            f"{width} x {height} is {width * height:,} pixels, more than the {max_pixels:,} allowed; make it smaller, "
            "or raise max_pixels."
        )
