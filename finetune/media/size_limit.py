"""How many pixels a picture or a frame may have: asked of headers, before anything is decoded."""

from finetune.media.sources import ImageSource

__all__ = ["MAX_PIXELS", "check_size"]

MAX_PIXELS = 100_000_000
"""300 MB in memory."""


def check_size(size: tuple[int, int], place: ImageSource, max_pixels: int) -> None:
    """Raises FinetuneError for a picture of no pixels, or of more than `max_pixels`."""
    width, height = size
    if min(size) < 1:
        raise place.fault(f"has no pixels ({width} x {height}); leave it out.")
    if width * height > max_pixels:
        raise place.fault(
            f"{width} x {height} is {width * height:,} pixels, more than the {max_pixels:,} allowed; make it smaller, "
            "or raise max_pixels."
        )
