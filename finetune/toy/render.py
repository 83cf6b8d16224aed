"""Small pictures drawn from a random stream: what is asked about is given, all else is chance.

Every function takes the stream and the truth, and gives an RGB image: 32 x 32 pixels (one tile), or 64 x 32 for words
(two tiles and a thumbnail). `figures` and `screen` give the boxes of what they drew, too, `video` gives many frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from math import hypot
from random import Random

from PIL import Image, ImageDraw, ImageFont

__all__ = [
    "COLORS",
    "SHAPES",
    "WIDGETS",
    "bars",
    "dots",
    "figure",
    "figures",
    "grid",
    "line_of_text",
    "screen",
    "video",
]

SIDE = 32

Rgb = tuple[int, int, int]
Box = tuple[int, int, int, int]
"""Left, upper, right and lower edge in pixels; the last two are the first pixels behind it."""

COLORS: dict[str, Rgb] = {
    "red": (214, 39, 40),
    "green": (44, 160, 44),
    "blue": (31, 80, 200),
    "yellow": (235, 215, 40),
    "orange": (250, 130, 20),
    "purple": (135, 60, 180),
    "brown": (120, 75, 45),
    "pink": (245, 150, 195),
}

SHAPES = ("circle", "square", "triangle", "cross", "diamond", "ring")
WIDGETS = ("checkbox", "slider", "switch")


def line_of_text(random: Random, text: str, width: int = SIDE) -> Image.Image:
    """Draw the characters in one line, each a little off its place, dark on light."""
    paper, ink = _paper_and_ink(random)
    image = Image.new("RGB", (width, SIDE), paper)
    draw = ImageDraw.Draw(image)
    step = width / len(text)
    for i, character in enumerate(text):
        x = (i + 0.5) * step + random.uniform(-1, 1)
        y = SIDE / 2 + random.uniform(-1.5, 1.5)
        draw.text((x, y), character, fill=ink, font=_font(random.choice((16, 17))), anchor="mm")
    return image


def grid(random: Random, digits: Sequence[str]) -> Image.Image:
    """Draw a diagram of four fields, a digit in each: upper left, upper right, lower left, lower right."""
    paper, ink = _paper_and_ink(random)
    image = Image.new("RGB", (SIDE, SIDE), paper)
    draw = ImageDraw.Draw(image)
    draw.line((SIDE / 2, 0, SIDE / 2, SIDE), fill=ink)
    draw.line((0, SIDE / 2, SIDE, SIDE / 2), fill=ink)
    for corner, digit in enumerate(digits):
        x, y = (SIDE * (0.25 + 0.5 * half) + random.uniform(-0.5, 0.5) for half in (corner % 2, corner // 2))
        draw.text((x, y), digit, fill=ink, font=_font(14), anchor="mm")
    return image


def figure(random: Random, shape: str, color: str, corner: int | None = None) -> Image.Image:
    """One shape of that colour somewhere, or in that corner (upper left, upper right, lower left, lower right)."""
    image = _paper(random)
    if corner is None:
        radius = random.uniform(6, 10)
        x, y = (random.uniform(radius + 1, SIDE - radius - 1) for _ in range(2))
    else:
        radius = random.uniform(4, 6)
        x, y = (half * SIDE / 2 + random.uniform(6, 10) for half in (corner % 2, corner // 2))
    _draw_shape(ImageDraw.Draw(image), shape, x, y, radius, _shade(random, COLORS[color]))
    return image


def dots(random: Random, n: int) -> Image.Image:
    """Just n discs that don't touch, of any colours and sizes."""
    image = _paper(random)
    draw = ImageDraw.Draw(image)
    for x, y, radius in _apart(random, n):
        color = _shade(random, random.choice(list(COLORS.values())))
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)
    return image


def bars(random: Random, tallest: int, n: int) -> Image.Image:
    """Draw a chart of n bars, that one (from 0) taller than all others, be it by a pixel."""
    image = _paper(random)
    draw = ImageDraw.Draw(image)
    top = random.randint(12, 28)
    step = SIDE // n
    for i in range(n):
        height = top if i == tallest else random.randint(3, top - 1)
        color = _shade(random, random.choice(list(COLORS.values())))
        draw.rectangle((i * step + 1, SIDE - height, i * step + step - 1, SIDE - 1), fill=color)
    return image


def figures(random: Random, placed: Sequence[tuple[str, str, int]]) -> tuple[Image.Image, list[Box]]:
    """Draw shapes of a color in corners, as (shape, color, corner), and give the box of each."""
    image = _paper(random)
    boxes = []
    for shape, color, corner in placed:
        radius = random.uniform(3.5, 5.5)
        x, y = (half * SIDE / 2 + random.uniform(6, 10) for half in (corner % 2, corner // 2))
        shade = _shade(random, COLORS[color])
        boxes.append(_stamped(image, partial(_draw_shape, shape=shape, x=x, y=y, r=radius), shade))
    return image, boxes


def video(random: Random, shape: str, colors: tuple[str, str]) -> tuple[Image.Image, ...]:
    """Draw 9 to 16 frames of a shape that drifts, and changes its color once, between 3/8 and 5/8 of the time."""
    count = random.randint(9, 16)
    change = random.randint(-(-3 * count // 8), 5 * count // 8)
    paper, radius = _paper(random), random.uniform(6, 9)
    start, end = ([random.uniform(radius + 1, SIDE - radius - 1) for _ in range(2)] for _ in range(2))
    shades = [_shade(random, COLORS[color]) for color in colors]
    frames = []
    for i in range(count):
        x, y = (a + (b - a) * i / (count - 1) for a, b in zip(start, end, strict=True))
        frames.append(paper.copy())
        _draw_shape(ImageDraw.Draw(frames[-1]), shape, x, y, radius, shades[i >= change])
    return tuple(frames)


def screen(random: Random, platform: str, elements: Sequence[tuple[str, str]]) -> tuple[Image.Image, list[Box]]:
    """Draw three elements of a small interface, each (kind, name), and give their boxes.

    A kind is `text` (its name on a button), `icon` (a shape) or `widget`. On `mobile` they stand one below the other,
    on `desktop` in four fields above a bar, on `web` below one.
    """
    image = _paper(random)
    draw = ImageDraw.Draw(image)
    ink = _between(random, 0, 90)
    bar = _between(random, 120, 190)
    if platform == "mobile":
        centers = [(random.uniform(9, 23), 5.5 + 10.5 * row) for row in random.sample(range(3), 3)]
    else:
        top = 0 if platform == "desktop" else 4
        draw.rectangle((0, 28, SIDE, SIDE) if platform == "desktop" else (0, 0, SIDE, 3), fill=bar)
        fields = random.sample(range(4), 3)
        centers = [
            (8 + 16 * (f % 2) + random.uniform(-1, 1), top + 7 + 14 * (f // 2) + random.uniform(-1, 1)) for f in fields
        ]
    return image, [
        _stamped(image, partial(_draw_element, kind=kind, name=name, x=x, y=y), ink)
        for (kind, name), (x, y) in zip(elements, centers, strict=True)
    ]


def _draw_element(draw: ImageDraw.ImageDraw, kind: str, name: str, x: float, y: float, color: Rgb) -> None:
    if kind == "text":
        draw.rectangle((x - 7, y - 4.5, x + 7, y + 4.5), outline=color)
        draw.text((x, y), name, fill=color, font=_font(8), anchor="mm")
    elif kind == "icon":
        _draw_shape(draw, name, x, y, 4, color)
    elif name == "checkbox":
        draw.rectangle((x - 4, y - 4, x + 4, y + 4), outline=color)
        draw.line((x - 2, y, x, y + 2, x + 3, y - 3), fill=color)
    elif name == "slider":
        draw.line((x - 6, y, x + 6, y), fill=color)
        draw.rectangle((x - 1, y - 3, x + 1, y + 3), fill=color)
    else:
        draw.rounded_rectangle((x - 6, y - 3, x + 6, y + 3), 3, outline=color)
        draw.ellipse((x, y - 3, x + 6, y + 3), fill=color)


def _stamped(image: Image.Image, draw: Callable[..., None], color: Rgb) -> Box:
    """Draw onto the image, and give the box of the pixels that were drawn."""
    mask = Image.new("RGB", image.size)
    draw(ImageDraw.Draw(mask), color=(255, 255, 255))
    draw(ImageDraw.Draw(image), color=color)
    box = mask.getbbox()
    assert box is not None, "something is drawn"
    return box


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _paper_and_ink(random: Random) -> tuple[Rgb, Rgb]:
    """Draw by chance a light colour and a dark one."""
    return _between(random, 200, 255), _between(random, 0, 80)


def _between(random: Random, least: int, most: int) -> Rgb:
    return random.randint(least, most), random.randint(least, most), random.randint(least, most)


def _paper(random: Random) -> Image.Image:
    """Paper in a light grey."""
    level = random.randint(225, 255)
    return Image.new("RGB", (SIDE, SIDE), (level, level, level))


def _shade(random: Random, color: Rgb) -> Rgb:
    red, green, blue = (max(0, min(255, part + random.randint(-18, 18))) for part in color)
    return red, green, blue


def _apart(random: Random, n: int) -> list[tuple[float, float, float]]:
    """Centres and radii of n discs with at least 2 pixels between any two; a layout that gets stuck starts afresh."""
    while True:
        discs: list[tuple[float, float, float]] = []
        for _ in range(60):
            r = random.uniform(2.5, 4.5)
            x, y = (random.uniform(r + 1, SIDE - r - 1) for _ in range(2))
            if all(hypot(x - a, y - b) >= r + s + 2 for a, b, s in discs):
                discs.append((x, y, r))
            if len(discs) == n:
                return discs


def _draw_shape(draw: ImageDraw.ImageDraw, shape: str, x: float, y: float, r: float, color: Rgb) -> None:
    box = (x - r, y - r, x + r, y + r)
    if shape == "circle":
        draw.ellipse(box, fill=color)
    elif shape == "ring":
        draw.ellipse(box, outline=color, width=max(2, int(r / 3)))
    elif shape == "square":
        draw.rectangle((x - 0.85 * r, y - 0.85 * r, x + 0.85 * r, y + 0.85 * r), fill=color)
    elif shape == "triangle":
        draw.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=color)
    elif shape == "diamond":
        draw.polygon([(x, y - r), (x + r, y), (x, y + r), (x - r, y)], fill=color)
    else:
        t = r / 3
        draw.rectangle((x - t, y - r, x + t, y + r), fill=color)
        draw.rectangle((x - r, y - t, x + r, y + t), fill=color)
