"""The files of `points.sh`, POINTS' whole road in small: `python -m finetune.toy.road OUT --seed 0`.

OUT/raw/data.json                captions from the web, most of them bad in some way (`captions.py`)
OUT/clean/data.json              a few that somebody wrote with care
OUT/data/base/, OUT/data/<set>/  the base set, all of it about single pictures, and the added sets
OUT/points.jsonl, boxes.jsonl    questions of `grounding:`; ScreenSpot's files are in OUT/screenspot
OUT/LMUData/                     MMStar and HallusionBench as in `write.py`, and videos with TempCompass' questions
OUT/start/                       a fresh model whose tokenizer has the words of all this, as a large one's would
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from finetune.toy.benchmarks import BENCHMARKS
from finetune.toy.captions import CAPTIONS
from finetune.toy.commands import rendering_command
from finetune.toy.gallery import Gallery, gif, png
from finetune.toy.places import PLACES
from finetune.toy.render import SHAPES
from finetune.toy.tasks import COLORS, CORNERS, COUNTS, ORDER, SKILLS, Question, Scene
from finetune.toy.videos import VIDEOS, video_rows
from finetune.toy.write import make_once, write_rows, write_set, write_tsv

__all__ = ["ROAD_ADDED", "ROAD_SKILLS", "RoadSizes", "make_road"]

FORMAT = 1  # moves on when the same seed would draw other files

ROAD_SKILLS = {**SKILLS, **PLACES, **VIDEOS, **CAPTIONS}
ROAD_BASE = {"color": 0.6, "shape": 1.2, "both": 0.8, "place": 0.8, "count": 1.2, "bars": 0.8}
"""Scenes of the base set, in units of `RoadSizes.base`."""

ROAD_ADDED = {
    "points": {"points": 2.0},
    "boxes": {"boxes": 2.0},
    "interfaces": {"interface": 2.0},
    "videos": {"video": 2.0},
    "count": {"count": 0.7},
    "shape": {"shape": 0.5},
    "bars": {"bars": 0.5},
}
"""Of which skill an added set has scenes, in units of `RoadSizes.added`: about as many questions in each."""

PLATFORMS = {"ios": "mobile", "windows": "desktop", "shop": "web"}
TESTED = {"mmstar": 2, "hallusionbench": 2}
"""Of the eight benchmarks, those that the base set is about; so many times the questions of the others."""


@dataclass(frozen=True)
class RoadSizes:
    """How much of it: captions, units of the base set and of the added sets in scenes, questions of each benchmark."""

    raw: int = 4000
    clean: int = 800
    base: int = 1000
    added: int = 1000
    questions: int = 200


def make_road(
    out: Path, seed: int = 0, sizes: RoadSizes | None = None, progress: Callable[[str], object] | None = None
) -> Path:
    """Make all files under `out`, unless just these stand there already; `out` appears when complete.

    Raises:
        FileExistsError: something else stands at `out`.
    """
    sizes = sizes or RoadSizes()
    tell = progress or (lambda text: None)
    made_from = {"road": FORMAT, "seed": seed, "sizes": asdict(sizes)}
    return make_once(out, made_from, lambda part: _write_all(part, Gallery(seed, ROAD_SKILLS), sizes, tell))


def _write_all(out: Path, gallery: Gallery, sizes: RoadSizes, progress: Callable[[str], object]) -> None:
    """Write the benchmarks first: what they show is held out of all that follows."""
    progress("benchmarks")
    for name, times in TESTED.items():
        source, rows = BENCHMARKS[name]
        write_tsv(out / "LMUData" / f"{source}.tsv", list(rows(gallery, times * sizes.questions)))
    _write_questions(out, gallery, sizes.questions)
    _write_videos(out / "LMUData" / "TempCompass_MCQ", list(gallery.testing("tempcompass", "video", sizes.questions)))
    progress("captions")
    _write_captions(out / "raw", gallery.training("raw", "caption", sizes.raw))
    clean = (_rewritten(scene) for scene in gallery.training("clean", "caption", sizes.clean))
    _write_captions(out / "clean", clean)
    sets = {"base": (sizes.base, ROAD_BASE)} | {name: (sizes.added, shares) for name, shares in ROAD_ADDED.items()}
    for name, (unit, shares) in sets.items():
        progress(name)
        write_set(out / "data" / name, gallery, {skill: unit * share for skill, share in shares.items()})
    progress("start")
    _write_start(out / "start", gallery.seed, _questions(out))


def _write_questions(out: Path, gallery: Gallery, count: int) -> None:
    """Write points and boxes as files of `grounding:`, and interfaces as ScreenSpot's folder."""
    for name in ("points", "boxes"):
        rows = []
        for i, scene in enumerate(gallery.testing(name, name, count)):
            image = f"images/{name}-{i:05}.png"
            _write(out / image, png(scene.images[0]))
            rows.append({"image": image, "question": _only(scene).text, **scene.row})
        _write(out / f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    tables: dict[str, list[dict[str, object]]] = {}
    for i, scene in enumerate(gallery.testing("screenspot", "interface", count)):
        platform = PLATFORMS[str(scene.row["data_source"])]
        image = f"{platform}-{i:05}.png"
        _write(out / "screenspot" / "screenspot_imgs" / image, png(scene.images[0]))
        tables.setdefault(platform, []).append({"img_filename": image, **scene.row})
    for platform, table in tables.items():
        _write(out / "screenspot" / f"screenspot_{platform}.json", json.dumps(table, indent=0).encode())


def _write_videos(out: Path, scenes: list[Scene]) -> None:
    for i, scene in enumerate(scenes):
        _write(out / "videos" / f"video{i}.gif", gif(scene.images))
    write_tsv(out / f"{out.name}.tsv", video_rows(scenes))


def _write_captions(out: Path, scenes: Iterable[Scene]) -> None:
    """Write captions with what is true of their pictures beside them; nobody but `captions.py` looks at that."""
    (out / "images").mkdir(parents=True)
    rows = []
    for i, scene in enumerate(scenes):
        rows += [{**row, **scene.row} for row in write_rows(out, f"caption-{i:05}", scene)]
    _write(out / "data.json", (json.dumps(rows, indent=0) + "\n").encode())


def _rewritten(scene: Scene) -> Scene:
    """Give the scene with the true caption in place of the raw one."""
    question = Question(_only(scene).text, str(scene.row["clean"]))
    return Scene(scene.skill, scene.images, {"caption": question}, row={**scene.row, "kind": "plain"})


def _write_start(out: Path, seed: int, questions: Iterable[str]) -> None:
    """Write a fresh model; its tokenizer has whole questions, and of answers the words alone."""
    import torch

    from finetune.points import PointsForConditionalGeneration
    from finetune.points.tiny import common_phrases, tiny_config, tiny_processor

    words = [*COLORS, *CORNERS, *COUNTS, *ORDER, *SHAPES, "a ", " in the ", ", no. ", "There are none.", "Yes", "No"]
    processor = tiny_processor({*common_phrases(questions, least=20), *words})
    ids = (processor.image_token_id, processor.tokenizer.pad_token_id, processor.tokenizer.eos_token_id)
    torch.manual_seed(seed)
    PointsForConditionalGeneration(tiny_config(len(processor.tokenizer), *ids)).save_pretrained(out)
    processor.save_pretrained(out)


def _questions(out: Path) -> Iterator[str]:
    """Give all questions of all rows."""
    for file in sorted(out.glob("**/data.json")):
        for row in json.loads(file.read_text()):
            yield row["conversations"][0]["value"].replace("<image>\n", "").replace("<video>\n", "")


def _only(scene: Scene) -> Question:
    [question] = scene.questions.values()
    return question


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


main = rendering_command(make_road, "Render the files of points.sh into OUT.")

if __name__ == "__main__":
    main()
