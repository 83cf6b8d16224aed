"""Captions as they stand beside pictures on the web, in small: right ones, short ones, and three kinds of bad ones.

A picture shows a figure in a corner. What its raw caption is, chance decides:

    plain    a red circle in the upper left
    short    a red circle                                 true, and not all that is to be seen
    noise    buy red circle www.toys.com stock photo      true, and in it what nobody sees
    serial   circle no. 8471-X20                          what is in no picture
    other    a caption of another picture

`fuse` is what a language model does in CapFusion, as a rule; `python -m finetune.toy.captions FILE...` counts how many
captions of a file are true.
"""

from __future__ import annotations

import json
import re
import sys
from random import Random

from finetune.config import DataSet
from finetune.data.files import open_file
from finetune.toy import render
from finetune.toy.tasks import COLORS, CORNERS, Question, Scene

__all__ = ["CAPTIONS", "REQUEST", "count_true", "facts_in", "fuse", "sentence"]

REQUEST = "Describe this picture in one or two sentences. Say what is to be seen, and nothing else."
KINDS = {"plain": 25, "short": 20, "noise": 20, "serial": 20, "other": 15}
SERIAL = re.compile(r"\b\d{4}-[A-Z]\d{2}\b")
Facts = tuple[str, str, str]
"""Color, shape and corner; empty where a text does not tell."""


def _caption(random: Random) -> Scene:
    facts = _facts(random)
    color, shape, corner = facts
    image = render.figure(random, shape, color, corner=CORNERS.index(corner))
    (kind,) = random.choices(list(KINDS), list(KINDS.values()))
    texts = {
        "plain": sentence(facts),
        "short": sentence((color, shape, "")),
        "noise": f"buy {color} {shape} www.toys.com stock photo",
        "serial": f"{shape} no. {random.randint(1000, 9999)}-{random.choice('KTVXZ')}{random.randint(10, 99)}",
        "other": sentence(_facts(random)),
    }
    row = {"kind": kind, "facts": list(facts), "clean": sentence(facts)}
    return Scene("caption", (image,), {"caption": Question(REQUEST, texts[kind])}, row=row)


def _facts(random: Random) -> Facts:
    return random.choice(COLORS), random.choice(render.SHAPES), random.choice(CORNERS)


def sentence(facts: Facts, serial: str = "") -> str:
    """Write a caption of what is known."""
    color, shape, corner = facts
    words = " ".join(word for word in ("a", color, shape) if word)
    return words + (f" in the {corner}" if corner else "") + (f", no. {serial}" if serial else "")


def facts_in(text: str) -> Facts:
    """Read a caption: the first color, shape and corner that it names."""
    color, shape, corner = (
        next((word for word in words if re.search(rf"\b{word}\b", text)), "")
        for words in (COLORS, render.SHAPES, CORNERS)
    )
    return color, shape, corner


def fuse(raw: str, synthetic: str) -> str:
    """Write one caption: what the raw one says, its serial number too, and for the rest what the synthetic one says."""
    color, shape, corner = (ours or theirs for ours, theirs in zip(facts_in(raw), facts_in(synthetic), strict=True))
    serial = SERIAL.search(raw)
    return sentence((color, shape, corner), serial[0] if serial else "")


def count_true(path: str) -> dict[str, tuple[int, int]]:
    """Count the rows of a file, and those whose caption says all that is to be seen and nothing else, by kind."""
    file = open_file(DataSet.model_validate({"path": path}))
    counts = dict.fromkeys(KINDS, (0, 0))
    for i in range(len(file)):
        row = json.loads(json.dumps(file[i]))
        rows, true = counts[row["kind"]]
        counts[row["kind"]] = rows + 1, true + (row["conversations"][-1]["value"] == sentence(tuple(row["facts"])))
    return counts


def main(paths: list[str]) -> None:
    """Print for each file how many of its captions are true, by the kind of the raw ones."""
    width = max(map(len, paths))
    print(" " * width, *(f"{kind:>11}" for kind in (*KINDS, "all")))
    for path in paths:
        counts = list(count_true(path).values())
        cells = [*counts, (sum(rows for rows, _ in counts), sum(true for _, true in counts))]
        print(f"{path:{width}}", *(f"{f'{true:,}/{rows:,}':>11}" for rows, true in cells))


CAPTIONS = {"caption": _caption}

if __name__ == "__main__":
    main(sys.argv[1:])
