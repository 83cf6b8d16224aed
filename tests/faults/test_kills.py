"""The plug is pulled at every effect that a run has on files, and nothing half-done may be seen afterwards."""

from __future__ import annotations

import json
import random
import shutil
import signal
from pathlib import Path

import pytest

from tests.faults.processes import start, wait_for
from tests.helpers.injected_faults import CALLS, Fault
from tests.helpers.toy_pools import calls, debris, make_checkpoint, tree

AVERAGE = ("average", "--pool", "ckpts", "-o", "out")
GREEDY = ("greedy", "--pool", "ckpts", "-o", "out", "--eval", "python:judge/judge.py:score")
NEEDED = 7  # evaluations of greedy in this pool: four alone, three together


def afresh(here):
    for name in ("out", ".out.partial", ".out.old", "ckpts.soup"):
        shutil.rmtree(here / name, ignore_errors=True)
    (here / "judge" / "calls.txt").unlink(missing_ok=True)


def told(here):
    """The whole lines of the journal: what a run has told."""
    journal = here / "ckpts.soup" / "journal.jsonl"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def moments(effects, most):
    """Every moment where there are few; else the first, the last, and as many as `most` drawn between them."""
    every = range(1, effects + 1)
    if effects <= most:
        return every
    drawn = random.Random(effects).sample(every, most - 20)
    return sorted({*drawn, *every[:4], *every[-16:]})


def undisturbed(soup, here, argv):
    done = soup(*argv, cwd=here, fault=Fault())
    assert done.code == 0, done.stderr
    whole = tree(here / "out")
    afresh(here)
    return done, whole


def faults_of_kills(soup, here, argv, effects, whole, needed=0):
    """What a kill at each of these effects, and the same command after it, got wrong: nothing, one hopes."""
    faults = []
    for at in effects:
        killed = soup(*argv, cwd=here, fault=Fault(signals=(signal.SIGKILL,), at=at))
        half = tree(here / "out") not in ({}, whole)
        before, calls_before = told(here), len(calls(here / "judge" / "judge.py"))
        again = soup(*argv, cwd=here)
        held = {
            "it was killed": killed.code == -signal.SIGKILL,
            "no half an output after the kill": not half,
            "every answer but the last was journaled": before <= calls_before <= before + 1,
            "the second run ended well": again.code == 0,
            "the bytes are those of an undisturbed run": tree(here / "out") == whole,
            "nothing was evaluated twice": len(calls(here / "judge" / "judge.py")) - calls_before == needed - before,
            "nothing was left lying about": debris(here) == [],
        }
        faults += [f"effect {at}: not so: {what} ({killed}, {again})" for what, holds in held.items() if not holds]
        afresh(here)
    return faults


def test_an_average_killed_at_any_effect_leaves_nothing_or_all_and_runs_again_to_the_same_bytes(soup, here):
    done, whole = undisturbed(soup, here, AVERAGE)
    assert done.effects > 30, "the forge no longer sees what a merge does"
    assert faults_of_kills(soup, here, AVERAGE, moments(done.effects, 1000), whole) == []


def test_a_greedy_search_killed_anywhere_evaluates_nothing_twice_and_ends_in_the_same_bytes(soup, here):
    done, whole = undisturbed(soup, here, GREEDY)
    assert faults_of_kills(soup, here, GREEDY, moments(done.effects, 32), whole, NEEDED) == []


@pytest.mark.slow
@pytest.mark.parametrize(("name", "option"), [("prune", "accept=gt"), ("forward-backward", "steps=2")])
def test_other_searches_killed_anywhere_go_the_same_way_again(soup, here, name, option):
    argv = ("cook", "--strategy", name, "--strategy-arg", option, *GREEDY[1:])
    assert soup(*argv, cwd=here).code == 0
    needed = len(calls(here / "judge" / "judge.py"))
    afresh(here)
    done, whole = undisturbed(soup, here, argv)
    assert faults_of_kills(soup, here, argv, moments(done.effects, 32), whole, needed) == []


@pytest.mark.slow
def test_a_greedy_search_killed_at_every_single_effect_does_so_too(soup, here):
    done, whole = undisturbed(soup, here, GREEDY)
    assert faults_of_kills(soup, here, GREEDY, moments(done.effects, 10_000), whole, NEEDED) == []


def test_a_search_killed_again_and_again_gets_to_its_end(soup, here):
    done, whole = undisturbed(soup, here, GREEDY)
    dice = random.Random(0)
    for _ in range(60):
        strike_at = dice.randint(done.effects // 5, done.effects * 2 // 3)
        ended = soup(*GREEDY, cwd=here, fault=Fault(signals=(signal.SIGKILL,), at=strike_at))
        if ended.code == 0:
            break
    assert ended.code == 0
    assert tree(here / "out") == whole
    lines = (here / "ckpts.soup" / "journal.jsonl").read_text().splitlines()
    assert len({json.loads(line)["key"] for line in lines}) == len(lines) == NEEDED


@pytest.mark.parametrize("when", ["before it answers", "while it answers"])
def test_a_kill_within_the_nth_evaluation_costs_that_one_alone(soup, here, when):
    _, whole = undisturbed(soup, here, GREEDY)
    mood = here / "judge" / "mood"
    for n in range(1, NEEDED + 1):
        mood.write_text(f"{n} os.kill(os.getpid(), signal.SIGKILL)")
        assert soup(*GREEDY, cwd=here).code == -signal.SIGKILL
        mood.unlink()
        assert told(here) == n - 1
        assert soup(*GREEDY, cwd=here).code == 0
        assert len(calls(here / "judge" / "judge.py")) == NEEDED + 1
        assert tree(here / "out") == whole
        afresh(here)


def test_a_replaced_soup_is_the_old_one_or_the_new_one_or_gone_but_never_a_mix(soup, here):
    make_checkpoint(here / "ckpts" / "e", 9, shards=2)
    done, new = undisturbed(soup, here, AVERAGE)
    assert soup(*AVERAGE, "--exclude", "e", cwd=here).code == 0
    old = tree(here / "out")
    keep = shutil.copytree(here / "out", here / "kept")
    done = soup(*AVERAGE, "--overwrite", cwd=here, fault=Fault())
    assert tree(here / "out") == new
    for at in moments(done.effects, 40):
        shutil.rmtree(here / "out", ignore_errors=True)
        shutil.copytree(keep, here / "out")
        assert (
            soup(*AVERAGE, "--overwrite", cwd=here, fault=Fault(signals=(signal.SIGKILL,), at=at)).code
            == -signal.SIGKILL
        )
        assert tree(here / "out") in (old, new, {}), at
        replaced = tree(here / "out") == new  # then the plain command has nothing to do but to tidy up
        assert soup(*AVERAGE, *([] if replaced else ["--overwrite"]), cwd=here).code == 0, at
        assert tree(here / "out") == new, at
        assert debris(here) == [], at


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("argv", [AVERAGE, GREEDY], ids=["average", "greedy"])
def test_an_interrupt_at_any_effect_leaves_no_debris(soup, here, number, code, argv):
    done, whole = undisturbed(soup, here, argv)
    for at in moments(len(done.calls), 24):
        stopped = soup(*argv, cwd=here, fault=Fault(CALLS, signals=(number,), at=at))
        assert stopped.code == code, (at, stopped)
        assert "Traceback" not in stopped.stderr, (at, stopped.stderr)
        assert debris(here) == [], (at, stopped)
        assert tree(here / "out") in ({}, whole), at
        journal = here / "ckpts.soup" / "journal.jsonl"
        assert all(map(json.loads, journal.read_text().splitlines() if journal.exists() else [])), at
        afresh(here)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_and_third_signal_do_not_cut_the_clean_up_short(soup, here, number):
    """`timeout` sends two; a user presses Ctrl-C again."""
    done, whole = undisturbed(soup, here, AVERAGE)
    for at in moments(len(done.calls), 24):
        stopped = soup(*AVERAGE, cwd=here, fault=Fault(CALLS, signals=(number,) * 4, at=at))
        assert stopped.code == 128 + number, (at, stopped)
        assert "Traceback" not in stopped.stderr, (at, stopped.stderr)
        assert debris(here) == [], (at, stopped)
        assert tree(here / "out") in ({}, whole), at
        afresh(here)


def test_an_interrupt_at_any_time_leaves_no_debris(soup, here):
    _, whole = undisturbed(soup, here, GREEDY)
    dice, latest = random.Random(1), 0.3
    codes = []
    for _ in range(30):
        after = dice.uniform(0.001, latest)
        stopped = soup(*GREEDY, cwd=here, fault=Fault(signals=(signal.SIGINT,), after=after))
        codes.append(stopped.code)
        assert stopped.code in (0, 130), (after, stopped)
        assert debris(here) == [], (after, stopped)
        assert tree(here / "out") in ({}, whole), after
        afresh(here)
        if stopped.code == 0:
            latest = after  # it was over by then
    assert codes.count(130) > 10


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_command_of_the_users_dies_with_the_run(soup, here, number, code):
    mark = "echo $$ > pid; sleep 333; echo 50 # {checkpoint}"
    argv = ("eval", "ckpts/a", "--eval", f"command:{mark}")
    stopped = soup(*argv, cwd=here, fault=Fault(signals=(number,), after=1.0))
    assert stopped.code == code, stopped
    assert debris(here) == []
    child = int((here / "pid").read_text())
    assert not Path(f"/proc/{child}").exists() or not Path("/proc").exists()


def test_the_console_script_killed_and_interrupted_for_real(here, soup):
    """The same once more without the forge: the script that users type, signals from outside."""
    _, whole = undisturbed(soup, here, GREEDY)
    judge, mood = here / "judge" / "judge.py", here / "judge" / "mood"
    for number, code, n in [(signal.SIGKILL, -9, 2), (signal.SIGINT, 130, 4), (signal.SIGTERM, 143, 6)]:
        mood.write_text(f"{n} time.sleep(60)")
        count = len(calls(judge))
        process = start(*GREEDY, cwd=here)
        wait_for(lambda: len(calls(judge)) >= max(n, count + 1))  # noqa: B023
        process.send_signal(number)
        _, talk = process.communicate(timeout=60)
        assert process.returncode == code, talk
        assert "Traceback" not in talk
        assert not (here / "out").exists()
        assert (debris(here) == []) == (number != signal.SIGKILL)
    mood.unlink()
    assert soup(*GREEDY, cwd=here).code == 0
    assert tree(here / "out") == whole
    assert len(calls(judge)) == NEEDED + 3
