"""Which frames of a video: N, uniformly sampled.

Of a video of F frames the middles of N equal stretches are taken: frame floor((2 i + 1) F / (2 N)) for i = 0 ... N - 1.
So no frame is nearer to the ends than to its neighbours, and the first and last, which are often black, are left out.
A video of N frames or fewer gives each of its frames once: none is repeated, and it has fewer tiles.

Source: MM1.5-Video, arXiv 2409.20566, section 5: N = 24 uniformly sampled frames, no splitting of a frame. Which frame
of a stretch, and what of fewer frames, the paper does not say.
"""

from __future__ import annotations

__all__ = ["frame_indices"]


def frame_indices(total: int, frames: int = 24) -> list[int]:
    """Give which of `total` frames are taken: at most `frames`, in order, none twice.

    Raises:
        ValueError: `total` or `frames` is below 1.
    """
    if min(total, frames) < 1:
        raise ValueError(f"expected at least one frame of at least one, found {frames} of {total}.")
    if total <= frames:
        return list(range(total))
    return [(2 * i + 1) * total // (2 * frames) for i in range(frames)]
