"""Pictures of rows: counted and measured by their headers, or opened. A video is its frames, one tile each."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from finetune.data.rows import Fault, Picture
from finetune.media.images import frame_count, frames_of, open_picture, size_of
from finetune.points.video import Video
from soup.errors import FinetuneError

__all__ = ["look", "tiles_of"]


def look(picture: Picture) -> Any:
    """The picture, decoded, or a `Video` of its frames.

    Raises:
        FinetuneError: it can't be read; by its row and file.
    """
    if picture.frames:
        return Video(frames_of(picture.source, picture.frames, name=picture.name))
    return open_picture(picture.source, name=picture.name)


def tiles_of(picture: Picture, tiles: Callable[[int, int], int], decode: bool = False) -> int | Fault:
    """How many tiles a picture will have, or what is wrong with it, as far as its header tells.

    `tiles` counts those of a width and height. With `decode` the whole picture is looked at.
    """
    absent = [file for file in _files(picture.source) if not file.exists()]
    if absent:
        return Fault("image_missing", f"no such file: {', '.join(map(str, absent[:3]))}")
    try:
        if decode:
            look(picture)
        if picture.frames:
            return frame_count(picture.source, picture.frames, name=picture.name)
        return tiles(*size_of(picture.source, name=picture.name))
    except FinetuneError as error:
        return Fault("image_unreadable", str(error).removeprefix(f"{picture.name}: "))


def _files(source: Any) -> list[Path]:
    """The paths among what a picture is made of."""
    if isinstance(source, list):
        return [path for one in source for path in _files(one)]
    if isinstance(source, dict):
        return []  # with bytes: one with a path alone became that path when the row was read
    return [source] if isinstance(source, Path) else []
