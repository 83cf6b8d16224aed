"""Pipes, folders and devices in place of files: nothing waits for ever, nothing is read without end."""

from __future__ import annotations

import os

import pytest

from tests.faults.points import COMMANDS
from tests.faults.scene import Scene, remove
from tests.helpers.forked_cli import Forge

SHARD = "model-00002-of-00002.safetensors"
INPUTS = [f"ckpts/b/{name}" for name in (SHARD, "model.safetensors.index.json", "config.json", "tokenizer.json")]
KEPT = ["ckpts.soup/journal.jsonl", "ckpts.soup/digests.json", "ckpts.soup/soups/greedy.json", "ckpts.soup/scratch"]
OUTPUTS = [
    "out",
    ".out.lock",
    ".out.partial",
    f".out.partial/{SHARD}",
    "out/recipe.yaml",
    f"out/{SHARD}",
    "out/config.json",
]
PLACES = {
    "average": [*INPUTS, *OUTPUTS],
    "merge": [*INPUTS, "made/recipe.yaml"],
    "check": INPUTS,
    "eval": [*INPUTS, *KEPT],
    "greedy": [*INPUTS, *KEPT, "judge/judge.py"],
}


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    with Forge() as soup:
        yield Scene(tmp_path_factory.mktemp("scene"), soup)


def put(path, kind):
    """Put something odd in the place of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    remove(path)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        (path / "in it").mkdir(parents=True)
    else:
        path.symlink_to({"zeros": "/dev/zero", "itself": path.name, "nowhere": "gone"}[kind])


def cases():
    """Every place in every command; of the kinds one by turns every day."""
    kinds = ["pipe", "zeros", "folder", "itself", "nowhere"]
    number = 0
    for command, locations in PLACES.items():
        for location in locations:
            number += 1
            for kind in kinds:
                daily = number % 4 == 0 and kind == kinds[number // 4 % len(kinds)]
                name = f"{kind}-{location}-{command}"
                yield pytest.param(command, location, kind, id=name, marks=[] if daily else [pytest.mark.slow])


@pytest.mark.parametrize(("command", "location", "kind"), [*cases()])
def test_something_odd_in_place_of_a_file_is_told_or_left_and_nothing_hangs(scene, command, location, kind):
    whole = scene.undisturbed(command)[1]
    scene.prepare("average again" if location.startswith("out/") else command)
    path = scene.folder / location
    before = path.read_bytes() if path.is_file() else None
    put(path, kind)
    done = scene.soup(*COMMANDS[command], cwd=scene.folder)
    made = scene.made(command, done) if done.code == 0 else None
    remove(path)
    if before is not None:
        path.write_bytes(before)
    assert not done.hangs, done
    assert done.code in (0, 1, 2), done
    assert "Traceback" not in done.stderr, done
    if done.code:
        owner = "/".join(location.split("/")[:2]) if location.startswith("ckpts/") else location.split("/")[0]
        assert owner.strip(".").split(".")[0] in done.stderr + done.stdout, done
    if location in INPUTS:
        assert done.code == 1 or location.endswith(("config.json", "tokenizer.json")), done
    elif done.code == 0:
        assert made == whole
    scene.prepare(command)
    again = scene.soup(*COMMANDS[command], cwd=scene.folder)
    assert again.code == 0, again
    assert scene.made(command, again) == whole
