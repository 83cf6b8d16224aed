"""Scenes in which something is pointed to: points, boxes, and elements of small interfaces.

Answers are pixels in round brackets, (x,y) or (left,top,right,bottom): the convention `parentheses:pixels`. `row` is
the scene in the words of a file of questions of `grounding:`.
"""

from __future__ import annotations

from random import Random

from finetune.toy import render
from finetune.toy.tasks import COLORS, Question, Scene

__all__ = ["PLACES", "RADIUS"]

RADIUS = 5
"""Of a point, in pixels, within which an answer hits."""
NOTHING = "There are none."
WORDS = ("OK", "NO", "UP", "GO", "ON", "IN")
COMMANDS = {"text": "press {}", "icon": "open the {}", "widget": "use the {}"}
NAMES = {"text": WORDS, "icon": ("circle", "cross", "triangle", "ring"), "widget": render.WIDGETS}
SOURCES = {"mobile": "ios", "desktop": "windows", "web": "shop"}
INSTRUCTION = (  # ScreenSpot's own
    'In this UI screenshot, what is the position of the element corresponding to the command "{}" (with point)?'
)


def _points(random: Random) -> Scene:
    """Draw three figures of two shapes, none to three of the one that is asked for; points go from left to right."""
    wanted, other = random.sample(render.SHAPES, 2)
    count = random.randint(0, 3)
    shapes = [wanted] * count + [other] * (3 - count)
    image, boxes = render.figures(random, _placed(random, shapes))
    points = sorted([(a + b) / 2 for a, b in zip(box[:2], box[2:], strict=True)] for box in boxes[:count])
    answer = " ".join(f"({x:.0f},{y:.0f})" for x, y in points) or NOTHING
    question = Question(f"Point to each {wanted}.", answer)
    return Scene("points", (image,), {"point": question}, row={"points": points, "radius": RADIUS})


def _boxes(random: Random) -> Scene:
    """Draw three figures of different colors, one of which is asked for."""
    placed = _placed(random, random.choices(render.SHAPES, k=3))
    image, boxes = render.figures(random, placed)
    index = random.randrange(3)
    question = Question(f"Where is the {placed[index][1]} shape?", f"({','.join(map(str, boxes[index]))})")
    return Scene("boxes", (image,), {"box": question}, row={"boxes": [list(boxes[index])]})


def _interface(random: Random) -> Scene:
    """Draw a text, an icon and a widget, one of which is to be used: a row of ScreenSpot's."""
    platform = random.choice(list(SOURCES))
    elements = [(kind, random.choice(names)) for kind, names in NAMES.items()]
    image, boxes = render.screen(random, platform, elements)
    index = random.randrange(3)
    (kind, name), (left, top, right, bottom) = elements[index], boxes[index]
    command = COMMANDS[kind].format(name)
    question = Question(INSTRUCTION.format(command), f"({(left + right) // 2},{(top + bottom) // 2})")
    row: dict[str, object] = {"bbox": [left, top, right - left, bottom - top], "instruction": command}
    row |= {"data_type": kind, "data_source": SOURCES[platform]}
    return Scene("interface", (image,), {"interface": question}, row=row)


def _placed(random: Random, shapes: list[str]) -> list[tuple[str, str, int]]:
    """Give shapes, each in a color and a corner of its own."""
    colors, corners = random.sample(COLORS, len(shapes)), random.sample(range(4), len(shapes))
    return list(zip(shapes, colors, corners, strict=True))


PLACES = {"points": _points, "boxes": _boxes, "interface": _interface}
