"""Video: N frames, uniformly sampled, one squashed tile each, in the order of time; no thumbnail.

Of a video of F frames the middles of N equal stretches are taken: frame floor((2 i + 1) F / (2 N)) for i = 0 ... N - 1.
So no frame is nearer to the ends than to its neighbours, and the first and last, which are often black, are left out.
A video of N frames or fewer gives each of its frames once: none is repeated, and it has fewer tiles.

Source: MM1.5-Video, arXiv 2409.20566, section 5: N = 24 uniformly sampled frames, no splitting of a frame. Which frame
of a stretch, and what of fewer frames, the paper does not say.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from finetune.points.tiling import Plan, Single, Tiling, check_parameters
from soup.errors import FinetuneError

__all__ = ["UniformFrames", "Video", "frame_indices"]


def frame_indices(total: int, frames: int = 24) -> list[int]:
    """Which of `total` frames are taken: at most `frames`, in order, none twice.

    Raises:
        ValueError: fewer than one frame is there, or asked for.
    """
    if min(total, frames) < 1:
        raise ValueError(f"expected at least one frame of at least one, found {frames} of {total}.")
    if total <= frames:
        return list(range(total))
    return [(2 * i + 1) * total // (2 * frames) for i in range(frames)]


@dataclass(frozen=True)
class Video:
    """Pictures that are one item of a prompt: one `<|image_pad|>` in the text stands for all of them.

    A class of its own, because transformers takes a list within a list for the images of one row of a batch.
    """

    frames: Sequence[Any]

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

    def plan(self, width: int, height: int, tile: int) -> Plan:
        """One frame: one box, all of it."""
        return Single().plan(width, height, tile)

    def chosen(self, video: Video) -> list[Any]:
        """The frames that are looked at."""
        return [video.frames[i] for i in frame_indices(len(video.frames), self.frames)]
