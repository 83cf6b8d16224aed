"""Two runs in one place: one is told, the other completes, and nothing is mixed."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.faults.points import COMMANDS, EVALUATIONS
from tests.faults.processes import start, wait_for
from tests.faults.scene import Scene
from tests.helpers.forked_cli import Forge
from tests.helpers.toy_pools import calls, debris, tree

AVERAGE, GREEDY = COMMANDS["average"], COMMANDS["greedy"]


@pytest.fixture(scope="module")
def soup():
    with Forge() as forge:
        yield forge


@pytest.fixture
def scene(tmp_path, soup):
    return Scene(tmp_path, soup)


@pytest.mark.parametrize("command", ["average", pytest.param("merge", marks=pytest.mark.slow), "greedy"])
def test_of_two_runs_that_start_at_the_same_time_one_completes_and_the_other_does_or_is_told(scene, soup, command):
    """Which is first is left to chance: the second starts a little later each time."""
    whole, losers = scene.undisturbed(command)[1], 0
    dice = random.Random(command)

    def late(forge, seconds):
        time.sleep(seconds)
        return forge(*COMMANDS[command], cwd=scene.folder)

    with Forge() as other, ThreadPoolExecutor(2) as threads:
        other("list", "methods", cwd=scene.folder)  # from here on both are as fast
        delays = [0, 0, 0, dice.uniform(0, 0.05), dice.uniform(0, 0.1)]
        for number, seconds in enumerate([*delays, *delays, *delays, *delays]):
            if number >= len(delays) and losers:
                break
            scene.prepare(command)
            ends = [*threads.map(late, (soup, other), (0, seconds))]
            for ended in ends:
                assert ended.code in (0, 1), ended
                assert not ended.hangs, ended
                assert "Traceback" not in ended.stderr, ended
            assert 0 in (ends[0].code, ends[1].code), ends
            for ended in ends:
                refusals = ("another run", "exists and is not empty")
                assert ended.code == 0 or any(text in ended.stderr for text in refusals), ended
                losers += ended.code
            assert tree(scene.folder / "out") == whole
            assert debris(scene.folder) == []
            assert scene.asked == EVALUATIONS.get(command, 0)
    assert losers, "they never met"


def test_of_two_runs_in_one_run_directory_one_is_told_and_the_other_completes(scene, soup):
    here, judge = scene.folder, scene.folder / "judge" / "judge.py"
    (here / "judge" / "mood").write_text("1 while not Path('go').exists(): time.sleep(0.01)")
    first = start(*GREEDY, cwd=here)
    try:
        wait_for(lambda: calls(judge))
        second = soup(*GREEDY, cwd=here)
        assert second.code == 1
        assert "journal.jsonl: another run is using it. Wait for that run" in second.stderr
        (here / "go").touch()
        assert first.wait(60) == 0
    finally:
        first.kill()
        first.communicate()
    assert len(calls(judge)) == EVALUATIONS["greedy"]
    assert debris(here) == []


def test_of_two_runs_into_one_output_one_is_told_and_the_other_completes(scene, soup):
    """The first stands still in the middle of its merge: its lock is what the second meets."""
    here, whole = scene.folder, scene.undisturbed("average")[1]
    scene.clear()
    slow = (
        "import sys, time; from pathlib import Path; import soup.checkpoints.writer, soup.cli.app\n"
        "write = soup.checkpoints.writer.CheckpointWriter.write\n"
        "def wait(*given):\n"
        "    Path('merging').touch()\n"
        "    while not Path('go').exists(): time.sleep(0.01)\n"
        "    write(*given)\n"
        "soup.checkpoints.writer.CheckpointWriter.write = wait\n"
        f"sys.argv = ['soup', *{AVERAGE!r}]\n"
        "soup.cli.app.main()\n"
    )
    first = subprocess.Popen([sys.executable, "-c", slow], cwd=here)
    try:
        wait_for((here / "merging").exists)
        second = soup(*AVERAGE, cwd=here)
        assert second.code == 1
        assert "another run is writing it just now" in second.stderr
        assert not (here / "out").exists()
        (here / "go").touch()
        assert first.wait(60) == 0
    finally:
        first.kill()
        first.wait()
    assert tree(here / "out") == whole
