"""Small pictures of a figure with a colour, a shape and a place, drawn from a seed; and as PNG files."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

__all__ = ["ANSWERS", "SIDE", "Pictures", "draw_pictures", "png_file"]

SIDE = 8  # pixels
ANSWERS = {
    "colour": ("red", "green", "blue", "yellow"),
    "shape": ("cross", "ring", "corner", "stairs"),
    "place": ("northwest", "northeast", "southwest", "southeast"),
}
"""What is asked of a picture, and the answers to choose from."""

_INKS = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.5, 0.5, 0.0))
_STENCILS = ((".#.", "###", ".#."), ("###", "#.#", "###"), ("#..", "#..", "###"), ("##.", ".##", "..#"))
_PAPER, _CONTRAST, _NOISE = 75.0, 95.0, 50.0


class Pictures(NamedTuple):
    """Pictures as bytes `[pictures, 3, SIDE, SIDE]`, and of each question the number of the right answer of each."""

    pixels: torch.Tensor
    right: dict[str, torch.Tensor]


def draw_pictures(count: int, seed: int) -> Pictures:
    """Draw figures of three by three squares on a noisy ground.

    Args:
        count: How many.
        seed: Another one gives other pictures.
    """
    import torch

    numbers = torch.Generator().manual_seed(seed)
    colours, shapes, places = (torch.randint(4, (count,), generator=numbers) for _ in ANSWERS)
    stencils = torch.tensor([[[float(mark == "#") for mark in line] for line in stencil] for stencil in _STENCILS])
    figures = torch.tensor(_INKS)[colours][:, :, None, None] * stencils[shapes][:, None]
    ink = torch.zeros(count, 3, 4, 4)
    for corner in range(4):
        top, left = divmod(corner, 2)
        ink[places == corner, :, top : top + 3, left : left + 3] = figures[places == corner]
    ink = ink.repeat_interleave(SIDE // 4, 2).repeat_interleave(SIDE // 4, 3)
    shades = _PAPER + _CONTRAST * ink + _NOISE * torch.randn(ink.shape, generator=numbers)
    right = dict(zip(ANSWERS, (colours, shapes, places), strict=True))
    return Pictures(shades.round().clamp(0, 255).to(torch.uint8), right)


def png_file(pixels: torch.Tensor) -> bytes:
    """Pack a picture into a PNG file: no library for images needs to be there.

    Args:
        pixels: Its bytes `[3, rows, columns]`.
    """
    _, rows, columns = pixels.shape
    lines = b"".join(b"\0" + bytes(line.flatten().tolist()) for line in pixels.permute(1, 2, 0))
    header = struct.pack(">2I5B", columns, rows, 8, 2, 0, 0, 0)  # 8 bits of red, green and blue
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
