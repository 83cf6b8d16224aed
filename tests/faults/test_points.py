"""Every kind of fault in every command, at places drawn by a seed: the contract is in `scene.Scene.faults_of`.

SOUP_FAULT_SEED=7 pytest tests/faults/test_points.py -k 'EIO-on-read and greedy'
"""

from __future__ import annotations

import os
import random

import pytest

from tests.faults.points import COMMANDS, KINDS, REWRITE, TERM, Point
from tests.faults.scene import Scene
from tests.helpers.forked_cli import Forge
from tests.helpers.injected_faults import EVERY, Fault
from tests.helpers.toy_pools import debris

SEED = int(os.environ.get("SOUP_FAULT_SEED", "0"))
EACH = 2
"""Points of each kind in each command."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    with Forge() as soup:
        yield Scene(tmp_path_factory.mktemp("scene"), soup)


def pairs():
    """Every kind in every command; a dozen of them every day."""
    for number, kind in enumerate(KINDS):
        commands = KINDS[kind].commands
        for command in commands:
            daily = number % 3 == 0 and command == commands[number // 3 % len(commands)]
            name = f"{kind}-{command}".replace(" ", "-").replace(",", "").replace(":", "")
            yield pytest.param(kind, command, id=name, marks=[] if daily else [pytest.mark.slow])


@pytest.mark.parametrize(("kind", "command"), [*pairs()])
def test_the_command_fails_clearly_or_not_at_all_and_runs_again_to_the_same_end(scene, kind, command):
    dice = random.Random(f"{SEED} {kind} {command}")
    struck = 0
    for _ in range(5 * EACH):
        point = scene.draw(kind, command, dice)
        faults = scene.faults_of(point)
        assert not faults, f"SOUP_FAULT_SEED={SEED}\n" + "\n".join(faults)
        struck += faults is not None
        if struck == EACH:
            return
    pytest.fail(f"SOUP_FAULT_SEED={SEED}: none of these points was reached")


SHARD = "ckpts/b/model-00001-of-00002.safetensors"
ONCE = [
    Point("average", "EIO on stat", Fault(("listdir",), "^ckpts/b$", error="EIO")),
    Point("average", "EIO on stat", Fault(("stat",), r"^\.out\.lock$", error="EIO")),
    Point("average", "EIO on stat", Fault(("listdir",), r"^\.out\.partial$", error="EIO")),
    Point("average", "SIGTERM", Fault(("stat",), r"^\.out\.lock$", signals=(TERM,))),
    Point("average", "SIGTERM", Fault(("flock",), r"^\.out\.lock$", signals=(TERM,))),
    Point("average", "EIO on read", Fault(("read",), r"^ckpts/c/tokenizer\.json$", times=EVERY, error="EIO")),
    Point("eval", "EIO on sync", Fault(("fsync",), r"^ckpts\.soup/\.digests\.json\.new$", error="EIO")),
    Point("eval", "ENOSPC on write", Fault(("write",), r"^ckpts\.soup/\.digests\.json\.new$", error="ENOSPC")),
    Point("greedy", "EDQUOT", Fault(("write",), r"^ckpts\.soup/scratch/.*/config\.json$", error="EDQUOT")),
    Point("check", "a shard rewritten", Fault(("preadv",), SHARD, code=REWRITE.format(path=SHARD))),
    Point("average again", "a shard rewritten", Fault(("preadv",), SHARD, code=REWRITE.format(path=SHARD))),
]


@pytest.mark.parametrize("point", ONCE, ids=str)
def test_what_once_went_wrong_does_so_no_more(scene, point):
    assert scene.faults_of(point) == []


def test_weights_that_are_rewritten_while_they_are_evaluated_leave_no_score(scene):
    scene.clear()
    mood = scene.folder / "judge" / "mood"
    mood.write_text("2 " + repr(REWRITE.format(path=str(scene.folder / SHARD))).join(["exec(", ", {})"]))
    try:
        done = scene.soup(*COMMANDS["eval"], cwd=scene.folder)
    finally:
        mood.unlink()
    assert done.code == 1
    assert "ckpts/b: its weights changed while they were in use" in done.stderr
    assert len(scene.scores()) == 1
    assert debris(scene.folder) == []
    scene.restore_pool()
    assert scene.soup(*COMMANDS["eval"], cwd=scene.folder).code == 0
    assert scene.scores() == scene.undisturbed("eval")[1]
