"""Pictures of rows: their sizes by their headers, or opened. A video is its frames, one tile each."""

from pathlib import Path
from typing import Any

from PIL import Image

from finetune.data.rows import Picture
from soup.errors import FinetuneError

__all__ = ["look", "missing", "sizes"]


def look(picture: Picture) -> Any:
    """The picture, decoded."""
    try:
        with Image.open(picture.source) as image:
            return image.convert("RGB")
    except OSError as error:
        raise FinetuneError(f"{picture.name}: an image of the training data that can't be opened ({error}).") from error


def missing(picture: Picture) -> bool:
    """Whether its file, or a frame's, is not there."""
    return not Path(picture.source).exists()


def sizes(picture: Picture) -> list[tuple[int, int]]:
    """Width and height by its header."""
    try:
        with Image.open(picture.source) as image:
            return [image.size]
    except OSError as error:
        raise FinetuneError(f"{picture.name}: an image of the training data that can't be opened ({error}).") from error
