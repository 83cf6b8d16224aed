"""The whole road from raw captions to a soup, at a few steps: all of its commands, twice, and what it leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from finetune.toy.captions import count_true
from finetune.toy.road import RoadSizes, make_road

HERE = Path(__file__).parents[3]
SCRIPT = HERE / "examples" / "toy" / "points.sh"


@pytest.fixture
def work(tmp_path):
    """A folder with little data and settings of a few steps, and three added sets."""
    make_road(tmp_path / "toy", sizes=RoadSizes(raw=40, clean=20, base=10, added=10, questions=16))
    for file in sorted((SCRIPT.parent / "points").glob("*.yaml")):
        settings = yaml.safe_load(file.read_text()) | {"steps": 3, "epochs": None, "global_batch_size": 8}
        if "added" in settings:
            settings["added"] = {name: settings["added"][name] for name in ("points", "videos", "count")}
        else:
            settings |= {"steps": 40}
        (tmp_path / file.name).write_text(yaml.safe_dump(settings, sort_keys=False))
    return tmp_path


def road(work):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(HERE), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(["sh", str(SCRIPT), str(work)], env=environment, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_the_road_goes_from_raw_captions_to_a_report_and_finds_all_of_it_done_the_next_time(work):
    figures = road(work)
    rows = [sum(n for n, _ in count_true(str(work / name)).values()) for name in ("fused.jsonl", "kept.jsonl")]
    assert rows == [40, 16]
    selected = yaml.safe_load((work / "pool.selected.yaml").read_text())
    kept = len(selected["data"]) - 1
    assert kept + len(selected["added"]) == 3
    assert {path.name for path in (work / "ckpts-selected").iterdir()} == set(selected["added"])
    journal = work / "ckpts-selected.soup" / "journal.jsonl"
    scored = {json.loads(line)["benchmark"].partition("@")[0] for line in journal.read_text().splitlines()}
    places = {f"grounding:toy/{name}" for name in ("points.jsonl", "boxes.jsonl", "screenspot")}
    assert scored == {"mmstar", "hallusionbench", "TempCompass_MCQ_8frame", *places}
    assert (work / "report.html").stat().st_size > 10_000
    left = [work / "kept.jsonl", work / "pool.selected.yaml", work / "out" / "recipe.yaml", journal]
    before = [path.read_bytes() for path in left]
    again = road(work)
    assert [path.read_bytes() for path in left] == before
    assert figures[figures.rindex("$ soup report") :] == again[again.rindex("$ soup report") :]
