"""Scenes with their PNG files, and which pictures are held out: none of a benchmark's is ever drawn for training."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from PIL import Image

from finetune.toy.tasks import SKILLS, Scene, Skills, draw_scene

__all__ = ["Gallery", "base64_png", "gif", "pixel_digest", "png"]


@dataclass
class Gallery:
    """All that one seed draws of these skills. `held_out` are the digests of the pictures that benchmarks show."""

    seed: int
    skills: Skills = field(default_factory=lambda: SKILLS)
    held_out: set[str] = field(default_factory=set)

    def training(self, split: str, skill: str, n: int) -> Iterator[Scene]:
        """Return the first n scenes of a split of which no picture is held out."""
        i = 0
        while n:
            scene = draw_scene(self.seed, f"train/{split}", skill, i, self.skills)
            i += 1
            if not self.held_out.intersection(map(pixel_digest, scene.images)):
                n -= 1
                yield scene

    def testing(self, benchmark: str, skill: str, n: int | None = None) -> Iterator[Scene]:
        """The first n scenes of a benchmark (or as many as are asked for), no picture twice. They are held out."""
        i = 0
        while n is None or n:
            scene = draw_scene(self.seed, f"test/{benchmark}", skill, i, self.skills)
            i += 1
            digests = set(map(pixel_digest, scene.images))
            if not self.held_out & digests:
                self.held_out |= digests
                n = n if n is None else n - 1
                yield scene


def pixel_digest(image: Image.Image) -> str:
    """Equal for images of equal size and pixels."""
    return hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()


def png(image: Image.Image) -> bytes:
    """Return the image as a file."""
    file = io.BytesIO()
    image.save(file, format="PNG", compress_level=1)
    return file.getvalue()


def gif(frames: Sequence[Image.Image]) -> bytes:
    """Return the frames as an animated file, each with all of its pixels."""
    file = io.BytesIO()
    frames[0].save(file, format="GIF", save_all=True, append_images=frames[1:], duration=100, loop=0, disposal=2)
    return file.getvalue()


def base64_png(image: Image.Image) -> str:
    """Return the image as a cell of a benchmark's table."""
    return base64.b64encode(png(image)).decode()
