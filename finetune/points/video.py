"""Video: N frames, uniformly sampled, one squashed tile each, in the order of time; no thumbnail.

Which frames: `finetune.media.sampling`. Source: MM1.5-Video, arXiv 2409.20566, section 5: N = 24, no splitting of a
frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from finetune.media.sampling import frame_indices
from finetune.points.tiling import Single, TilePlan, Tiling, check_parameters
from soup.errors import FinetuneError

__all__ = ["UniformFrames", "Video"]


@dataclass(frozen=True)
class Video:
    """Pictures that are one item of a prompt: one `<|image_pad|>` in the text stands for all of them.

    A class of its own, because transformers takes a list within a list for the images of one row of a batch.
    """

    frames: Sequence[object]

    def __post_init__(self) -> None:
        if not len(self.frames):
            raise FinetuneError("a video without frames: give at least one picture.")


@dataclass(frozen=True)
class UniformFrames(Tiling):
    """At most `frames` of a video's frames, each squashed into one tile. A still image is a video of one frame."""

    name: ClassVar[str] = "video"

    frames: int = 24

    def __post_init__(self) -> None:
        check_parameters(self, {"frames": 1})

    def plan(self, width: int, height: int, tile: int) -> TilePlan:
        """Give one box for a frame, all of it."""
        return Single().plan(width, height, tile)

    def chosen(self, video: Video) -> list[object]:
        """Give the frames that are used."""
        return [video.frames[i] for i in frame_indices(len(video.frames), self.frames)]
