"""Configurations of a few rows, and jobs that the stand-in process does in milliseconds."""

from __future__ import annotations

import json
import sys
from pathlib import Path

STANDIN = Path(__file__).parent / "stand_in_process.py"


def rows(name, count=3):
    return [
        {
            "id": f"{name}{i}",
            "image": f"images/{name}{i}.png",
            "conversations": [
                {"from": "human", "value": f"<image>\nWhat is {i}?"},
                {"from": "gpt", "value": f"{name} {i}"},
            ],
        }
        for i in range(count)
    ]


def data_set(root, name, count=3):
    folder = root / "data" / name
    (folder / "images").mkdir(parents=True)
    for i in range(count):
        (folder / "images" / f"{name}{i}.png").write_bytes(b"x" * (i + 1))
    (folder / "data.json").write_text(json.dumps(rows(name, count)))
    return folder


CONFIG = """
start: tiny
data: data/base
added: {a: data/a, b: data/b, c: data/c}
lr: 1.0e-3
steps: 20
"""


def place(root, config=CONFIG, **moods):
    """A configuration with its data below `root`; jobs in `moods` misbehave."""
    for name in ("base", "a", "b", "c"):
        if not (root / "data" / name).exists():
            data_set(root, name)
    path = root / "finetune.yaml"
    path.write_text(config)
    set_moods(root, **moods)
    return path


def set_moods(root, **moods):
    (root / "ckpts.finetune").mkdir(exist_ok=True)
    new = root / "ckpts.finetune" / ".moods"
    new.write_text(json.dumps(moods))
    new.rename(root / "ckpts.finetune" / "moods.json")  # whole for a held job, which reads it again and again


class Release(list):
    """What a launch says, as its listener's `say`; held jobs of `root` go on once `text` is said."""

    def __init__(self, root, text):
        super().__init__()
        self.root, self.text = root, text

    def __call__(self, said):
        self.append(said)
        if said == self.text:
            set_moods(self.root)


def command(job, gpus):
    return [sys.executable, str(STANDIN), str(job.folder)]


def seen(root, what="begin"):
    path = root / "ckpts.finetune" / "seen.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [line for line in lines if line["what"] == what]


def state(root, name):
    return json.loads((root / "ckpts.finetune" / name / "state.json").read_text())
