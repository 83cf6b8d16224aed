"""Toy data sets and toy benchmarks as files: LLaVA conversations with PNG images, and VLMEvalKit's TSV schemas.

OUT/data/base/data.json, OUT/data/base/images/*.png      the base set, a mix of all skills
OUT/data/<skill>/...                                     one added set per skill that the base set is weak at
OUT/LMUData/MMBench_DEV_EN.tsv, OUT/LMUData/OCRBench.tsv held-out questions
OUT/toy.json                                             what all of it was made from; written last
"""

import base64
import csv
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from finetune.toy.tasks import CHOICE_SKILLS, READING_SKILLS, SKILLS, Row, choice_prompt, draw_row, rotated

__all__ = ["ADDED", "Sizes", "make_toy"]

FORMAT = 1  # moves on when the same seed would draw other files
ADDED = ("number", "word", "count", "shape", "bars")
# Of the base set's images: numbers are slow to learn, colors quick.
BASE_SHARES = {"number": 2.0, "color": 0.5}
STEP = 1_000_000  # between the rotations of one question, as in MMBench's own files

MMBENCH_COLUMNS = [
    *("index", "question", "hint", "A", "B", "C", "D", "answer"),
    *("category", "image", "source", "l2-category", "comment", "split"),
]
OCRBENCH_COLUMNS = ["index", "image", "question", "answer", "category"]
OCR_CATEGORY = {"number": "Digit String Recognition", "word": "Regular Text Recognition"}
CHOICE_CATEGORY = {
    "color": ("attribute_recognition", "finegrained_perception (instance-level)"),
    "shape": ("object_shape", "finegrained_perception (instance-level)"),
    "count": ("counting", "finegrained_perception (instance-level)"),
    "bars": ("structuralized_imagetext_understanding", "logic_reasoning"),
}


@dataclass(frozen=True)
class Sizes:
    """How many images per skill: of the base set (on the mean), of an added set, and questions of the benchmarks."""

    base: int = 1500
    added: int = 3000
    mmbench: int = 300
    ocrbench: int = 500


def make_toy(
    out: Path, seed: int = 0, sizes: Sizes | None = None, progress: Callable[[str], object] | None = None
) -> Path:
    """Makes all files under `out`, unless just these stand there already; `out` appears when complete.

    Raises:
        FileExistsError: something else stands at `out`.
    """
    sizes = sizes or Sizes()
    made_from = {"format": FORMAT, "seed": seed, "sizes": asdict(sizes)}
    if _is_made_from(out, made_from):
        return out
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{out}: holds something else than toy data of seed {seed}. Remove it, or name another.")
    part = out.with_name(f".{out.name}.part-{os.getpid()}")
    part.mkdir(parents=True)
    try:
        _write_all(part, seed, sizes, progress or (lambda text: None))
        (part / "toy.json").write_text(json.dumps(made_from, indent=2) + "\n")
        part.replace(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return out


def _is_made_from(out: Path, made_from: dict[str, Any]) -> bool:
    stamp = out / "toy.json"
    return stamp.is_file() and json.loads(stamp.read_text()) == made_from


def _write_all(out: Path, seed: int, sizes: Sizes, progress: Callable[[str], object]) -> None:
    held_out: set[str] = set()
    progress("benchmarks")
    data_root = out / "LMUData"
    data_root.mkdir()
    _write_mmbench(data_root / "MMBench_DEV_EN.tsv", seed, sizes.mmbench, held_out)
    _write_ocrbench(data_root / "OCRBench.tsv", seed, sizes.ocrbench, held_out)
    progress("base")
    images = {skill: round(sizes.base * BASE_SHARES.get(skill, 1.0)) for skill in SKILLS}
    _write_set(out / "data" / "base", seed, images, held_out)
    for skill in ADDED:
        progress(skill)
        # A choice gives two rows an image, a reading one: twice the images make sets of equal size.
        n = sizes.added if skill in CHOICE_SKILLS else 2 * sizes.added
        _write_set(out / "data" / skill, seed, {skill: n}, held_out)


def _fresh_rows(seed: int, split: str, skill: str, n: int, seen: set[str]) -> Iterator[tuple[Row, bytes]]:
    """The first n rows whose pixels are not in `seen`, with their PNG files."""
    i = 0
    while n:
        row = draw_row(seed, split, skill, i)
        i += 1
        if pixel_digest(row.image) not in seen:
            n -= 1
            yield row, _png(row.image)


def pixel_digest(image: Image.Image) -> str:
    """Equal for images of equal size and pixels."""
    return hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, format="PNG", compress_level=1)
    return file.getvalue()


def _write_set(out: Path, seed: int, images_per_skill: dict[str, int], held_out: set[str]) -> None:
    """One data set: `data.json` of LLaVA conversations, and its images. None of them is held out."""
    (out / "images").mkdir(parents=True)
    samples: list[dict[str, Any]] = []
    for skill, n in images_per_skill.items():
        for i, (row, png) in enumerate(_fresh_rows(seed, f"train/{out.name}", skill, n, held_out)):
            name = f"images/{skill}-{i:05}.png"
            (out / name).write_bytes(png)
            samples += [_sample(f"{skill}-{i:05}-{kind}", name, *turn) for kind, turn in _turns(row).items()]
    (out / "data.json").write_text(json.dumps(samples, indent=0) + "\n")


def _turns(row: Row) -> dict[str, tuple[str, str]]:
    """The question in free form and, for a choice, as the benchmark puts it.

    A choice is answered in the option's words, which VLMEvalKit takes as well as its letter: this size was never seen
    to bind letters to options in the time that a demo has.
    """
    turns = {"open": (row.question, row.answer)}
    if row.options:
        turns["choice"] = (choice_prompt(row), row.answer)
    return turns


def _sample(name: str, image: str, question: str, answer: str) -> dict[str, Any]:
    turns = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]
    return {"id": name, "image": image, "conversations": turns}


def _write_mmbench(path: Path, seed: int, n: int, held_out: set[str]) -> None:
    """Multiple choice in MMBench_DEV_EN's schema: a question, then its rotations, which name the question's image."""
    originals, turned = [], []
    for skill in CHOICE_SKILLS:
        for row, png in list(_fresh_rows(seed, "test", skill, n, held_out)):
            held_out.add(pixel_digest(row.image))
            index = len(originals)
            originals.append(_mmbench_line(row, index, base64.b64encode(png).decode()))
            turned += [_mmbench_line(rotated(row, k), index + k * STEP, str(index)) for k in range(1, len(row.options))]
    _write_tsv(path, MMBENCH_COLUMNS, originals + turned)


def _mmbench_line(row: Row, index: int, image: str) -> dict[str, Any]:
    category, level_2 = CHOICE_CATEGORY[row.skill]
    about = {"index": index, "question": row.question, "hint": row.hint, "answer": row.letter, "category": category}
    rest = {"image": image, "source": "toy", "l2-category": level_2, "comment": "", "split": "dev"}
    return about | rest | dict(zip("ABCD", row.options, strict=True))


def _write_ocrbench(path: Path, seed: int, n: int, held_out: set[str]) -> None:
    """Reading in OCRBench's schema: the answer is a Python list of accepted strings."""
    lines = []
    for skill in READING_SKILLS:
        for row, png in list(_fresh_rows(seed, "test", skill, n, held_out)):
            held_out.add(pixel_digest(row.image))
            image = base64.b64encode(png).decode()
            about = {"index": len(lines), "image": image, "question": row.question}
            lines.append(about | {"answer": repr([row.answer]), "category": OCR_CATEGORY[skill]})
    _write_tsv(path, OCRBENCH_COLUMNS, lines)


def _write_tsv(path: Path, columns: list[str], lines: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
