"""Pictures of rows: counted and measured by their headers, or opened. A video is its frames, one tile each."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from PIL import Image

from finetune.data.rows import Fault, Picture
from finetune.media.images import frame_count, frames_of, open_picture, size_of
from finetune.media.sources import shown
from finetune.points.video import Video
from soup.errors import FinetuneError

Tiles = TypeVar("Tiles")
__all__ = ["load_image", "tiles_of"]


def load_image(picture: Picture) -> Image.Image | Video:
    """Decode a picture, or make a `Video` of its frames.

    Raises:
        FinetuneError: it can't be read; by its row and file.
    """
    if picture.frames:
        return Video(frames_of(picture.source, picture.frames, name=picture.name))
    return open_picture(picture.source, name=picture.name)


def tiles_of(picture: Picture, tiles: Callable[[int, int], Tiles], decode: bool = False) -> int | Tiles | Fault:
    """Count the tiles that a picture will have, or give what is wrong with it, as far as its header tells.

    Args:
        picture: not opened yet.
        tiles: counts those of a width and height, or tells what else is wanted of a size; of a video, frames count.
        decode: decode the whole picture, too.
    """
    # os.path's is False, not an error, for a name that no file can have
    absent = [shown(str(file)) for file in _files(picture.source) if not os.path.exists(file)]  # noqa: PTH110  # see sources.py
    if absent:
        return Fault("image_missing", f"no such file: {', '.join(absent[:3])}")
    try:
        if decode:
            load_image(picture)
        if picture.frames:
            return frame_count(picture.source, picture.frames, name=picture.name)
        return tiles(*size_of(picture.source, name=picture.name))
    except (FinetuneError, OSError) as error:
        return Fault("image_unreadable", str(error).removeprefix(f"{picture.name}: "))


def _files(source: object) -> list[Path]:
    """Return the paths that a picture is read from."""
    if isinstance(source, list):
        return [path for frame in source for path in _files(frame)]
    if isinstance(source, dict):
        return []  # with bytes: one with a path alone became that path when the row was read
    return [source] if isinstance(source, Path) else []
