"""Toy data sets and toy benchmarks as files: LLaVA conversations with PNG images, and VLMEvalKit's TSV schemas.

OUT/data/base/data.json, OUT/data/base/images/*.png      the base set, a mix of all skills
OUT/data/<added>/...                                     one added set per group of skills that the base is weak at
OUT/LMUData/MMBench_DEV_EN.tsv, ...                      held-out questions, a file for each of the eight benchmarks
OUT/toy.json                                             what all of it was made from; written last
"""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from finetune.toy.benchmarks import BENCHMARKS
from finetune.toy.gallery import Gallery, gif, png
from finetune.toy.tasks import Scene, prompt
from soup.errors import FinetuneError
from soup.support.atomic_files import rename_synced
from soup.support.json_text import read_json

__all__ = ["ADDED", "Sizes", "make_once", "make_toy", "write_rows", "write_set", "write_tsv"]

FORMAT = 3  # moves on when the same seed would draw other files

# Scenes of the base set, in units of `Sizes.base`: what is slow to learn gets more, what is asked in many forms less.
BASE_SHARES = {
    "number": 1.8,
    "decimal": 0.5,
    "grid": 0.9,
    "word": 1.0,
    "count": 1.1,
    "color": 0.5,
    "shape": 1.0,
    "both": 0.6,
    "place": 0.3,
    "pair": 0.5,
    "bars": 1.1,
}

# Of which skills an added set has scenes, in units of `Sizes.added`, so that all sets have about as many questions.
ADDED = {
    "number": {"number": 2.6, "decimal": 1.0, "grid": 1.5},
    "word": {"word": 12.0},
    "count": {"count": 3.0},
    "shape": {"shape": 1.8, "both": 2.0, "pair": 2.0},
    "bars": {"bars": 3.0},
    "place": {"place": 6.0},
    "color": {"color": 3.0},
}

QUESTIONS = {
    "mmbench": 1200,
    "mmstar": 300,
    "mmmu": 300,
    "mathvista": 300,
    "hallusionbench": 400,
    "ai2d": 300,
    "ocrbench": 1000,
    "mmvet": 300,
}


@dataclass(frozen=True)
class Sizes:
    """How much of it: the units of the base set and of the added sets, in scenes, and questions of each benchmark."""

    base: int = 1000
    added: int = 1000
    questions: Mapping[str, int] = field(default_factory=lambda: dict(QUESTIONS))


def make_toy(
    out: Path, seed: int = 0, sizes: Sizes | None = None, progress: Callable[[str], object] | None = None
) -> Path:
    """Make all files under `out`, unless just these stand there already; `out` appears when complete.

    Raises:
        FileExistsError: something else stands at `out`.
    """
    sizes = sizes or Sizes()
    tell = progress or (lambda text: None)
    made_from = {"format": FORMAT, "seed": seed, "sizes": asdict(sizes)}
    return make_once(out, made_from, lambda part: _write_all(part, Gallery(seed), sizes, tell))


def make_once(out: Path, made_from: dict[str, object], write: Callable[[Path], object]) -> Path:
    """Have files written into a folder that appears when complete, unless one made from just this stands there already.

    Raises:
        FileExistsError: something else stands at `out`.
    """
    if _is_made_from(out, made_from):
        return out
    if out.exists() and any(out.iterdir()):
        seed = made_from["seed"]
        raise FileExistsError(f"{out}: holds something else than toy data of seed {seed}. Remove it, or name another.")
    part = out.with_name(f".{out.name}.part-{os.getpid()}")
    part.mkdir(parents=True)
    try:
        write(part)
        (part / "toy.json").write_text(json.dumps(made_from, indent=2) + "\n")
        rename_synced(part, out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return out


def _is_made_from(out: Path, made_from: dict[str, object]) -> bool:
    stamp = out / "toy.json"
    return stamp.is_file() and read_json(stamp, FinetuneError) == made_from


def _write_all(out: Path, gallery: Gallery, sizes: Sizes, progress: Callable[[str], object]) -> None:
    """Write the benchmarks first: what they show is held out of all that follows."""
    progress("benchmarks")
    for name, (source, rows) in BENCHMARKS.items():
        write_tsv(out / "LMUData" / f"{source}.tsv", list(rows(gallery, sizes.questions[name])))
    sets = {"base": {skill: sizes.base * share for skill, share in BASE_SHARES.items()}}
    sets |= {name: {skill: sizes.added * share for skill, share in shares.items()} for name, shares in ADDED.items()}
    for name, scenes in sets.items():
        progress(name)
        write_set(out / "data" / name, gallery, scenes)


def write_tsv(path: Path, rows: list[dict[str, object]]) -> None:
    """Write a benchmark's table; its columns are the first row's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_set(out: Path, gallery: Gallery, scenes: Mapping[str, float]) -> None:
    """Write a data set of so many scenes of each skill: `data.json`, LLaVA's conversations, and its images.

    None of the images is held out.
    """
    (out / "images").mkdir(parents=True)
    samples: list[dict[str, object]] = []
    for skill in gallery.skills:
        count = max(1, round(scenes[skill])) if skill in scenes else 0
        for i, scene in enumerate(gallery.training(out.name, skill, count)):
            samples += write_rows(out, f"{skill}-{i:05}", scene)
    (out / "data.json").write_text(json.dumps(samples, indent=0) + "\n")


def write_rows(out: Path, name: str, scene: Scene) -> list[dict[str, object]]:
    """Write a scene's pictures, and give one conversation for each form in which it is asked about.

    A choice is answered in the option's words, which VLMEvalKit takes as well as its letter: this size was never seen
    to bind letters to options in the time that a demo has.
    """
    if scene.is_video:
        video = f"images/{name}.gif"
        (out / video).write_bytes(gif(scene.images))
        return [
            _sample(f"{name}-{form}", {"video": video}, f"<video>\n{question.text}", question.answer)
            for form, question in scene.questions.items()
        ]
    images = [f"images/{name}-{k}.png" if k else f"images/{name}.png" for k in range(len(scene.images))]
    for path, image in zip(images, scene.images, strict=True):
        (out / path).write_bytes(png(image))
    shown: dict[str, object] = {"image": images[0] if len(images) == 1 else images}
    return [
        _sample(f"{name}-{form}", shown, _with_markers(prompt(form, question), len(images)), question.answer)
        for form, question in scene.questions.items()
    ]


def _with_markers(text: str, images: int) -> str:
    """Write the text with LLaVA's markers: in the places that it names, or before all of it."""
    if "<image 1>" not in text:
        return "<image>\n" * images + text
    for k in range(1, images + 1):
        text = text.replace(f"<image {k}>", "<image>\n")
    return text


def _sample(name: str, shown: Mapping[str, object], question: str, answer: str) -> dict[str, object]:
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": name, **shown, "conversations": turns}
