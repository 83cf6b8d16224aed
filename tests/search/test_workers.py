"""Real workers, real processes: side by side the same soup comes out, and a worker that dies is replaced."""

from __future__ import annotations

import importlib
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest

from soup.errors import EvaluatorError, RecipeError
from soup.evaluation.objective import Objective
from soup.evaluation.progress import Progress
from soup.evaluation.settings import EvalSettings
from soup.support.plugins import EVALUATORS
from tests.faults.processes import wait_for
from tests.helpers import flat_arguments as flat
from tests.helpers.toy_pools import calls, debris, make_judge, make_pool, tree

HEADS = {"a": (1, 2, 3, 9), "b": (1, 2, 9, 4), "c": (9, 2, 3, 4), "d": (30, 30, 30, 30)}


@pytest.fixture
def judge(tmp_path):
    return make_judge(tmp_path / "judge")


@pytest.fixture
def pool(tmp_path):
    return make_pool(tmp_path / "ckpts", HEADS)


def told(result):
    return [(trial.names, trial.overall, result.accepted(trial)) for trial in result.trials]


def test_two_workers_make_the_soup_that_one_process_makes(tmp_path, pool, judge):
    spec = f"python:{judge}:score"
    alone = flat.cook("greedy", pool=pool, eval=[spec], out=tmp_path / "alone", run_dir=tmp_path / "run1")
    made = len(calls(judge))
    both = flat.cook("greedy", pool=pool, eval=[spec], out=tmp_path / "both", run_dir=tmp_path / "run2", workers=2)
    assert tree(tmp_path / "alone") == tree(tmp_path / "both")
    assert told(alone) == told(both)
    assert len(calls(judge)) - made >= made, "the same evaluations, and bets"
    assert debris(tmp_path) == []


def test_bets_that_were_lost_stay_in_the_journal_and_a_rerun_judges_nothing(tmp_path, pool, judge):
    spec = f"python:{judge}:score"
    flat.cook("greedy", pool=pool, eval=[spec], out=tmp_path / "out", workers=3)
    made = len(calls(judge))
    flat.cook("greedy", pool=pool, eval=[spec], out=tmp_path / "out", workers=3)
    flat.cook("greedy", pool=pool, eval=[spec], out=tmp_path / "out2")
    assert len(calls(judge)) == made


def mood(judge, what):
    (judge.parent / "mood").write_text(what)


def test_a_worker_that_is_killed_is_replaced_and_its_trial_made_again(tmp_path, pool, judge):
    # The third call dies by kill -9, once: the file that makes it do so is gone when it is tried again.
    # Two workers may have read it by then: each dies once.
    mood(judge, "3 (HERE / 'mood').unlink(missing_ok=True); os.kill(os.getpid(), signal.SIGKILL)")
    spec = f"python:{judge}:score"
    chosen = flat.cook("greedy", pool=pool, eval=[spec], out=tmp_path / "out", workers=2)
    alone = flat.cook("greedy", pool=pool, eval=[spec], out=tmp_path / "alone", run_dir=tmp_path / "run")
    assert told(chosen) == told(alone)
    assert tree(tmp_path / "out") == tree(tmp_path / "alone")


def test_a_trial_that_kills_its_worker_twice_is_an_error_with_the_worker_s_log(tmp_path, pool, judge):
    mood(judge, "1 print('last words', flush=True); os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(
        EvaluatorError, match=r"ended twice, killed by signal 9\. Its log: (.*worker-\d\.log)"
    ) as caught:
        flat.cook("greedy", pool=pool, eval=[f"python:{judge}:score"], out=tmp_path / "out", workers=2)
    assert "last words" in str(caught.value)
    tried = calls(judge).count(f"score {np.float32(HEADS['a']).tobytes().hex()}")
    assert tried == 2, "once more, and no third time"
    assert not (tmp_path / "out").exists()


def test_a_worker_s_error_is_that_of_the_harness_and_scores_told_before_are_kept(tmp_path, pool, judge):
    mood(judge, "3 raise ValueError('out of ideas')")
    spec = f"python:{judge}:score"
    with pytest.raises(EvaluatorError, match="out of ideas"):
        flat.cook("average", pool=pool, eval=[spec], out=tmp_path / "o", workers=2, objective=guard(spec))
    (judge.parent / "mood").unlink()
    before = len(calls(judge))
    flat.cook("average", pool=pool, eval=[spec], out=tmp_path / "o", workers=2)
    assert len(calls(judge)) - before <= 1, "the mean alone"


def guard(spec):
    return Objective.parse([], [f"{spec}>=-100"])


def test_a_timeout_holds_in_a_worker_too(tmp_path, pool, judge):
    settings = EvalSettings(timeout_seconds=1)
    with pytest.raises(EvaluatorError, match="no answer within 1 second "):
        flat.cook("greedy", pool=pool, eval=[f"python:{judge}:sleep"], out=tmp_path / "o", workers=2, settings=settings)


def test_guards_are_held_with_workers_as_without(tmp_path, pool, judge):
    spec = f"python:{judge}:score"
    strict = Objective.parse([], [f"{spec}>=5"])
    for workers in (0, 2):
        with pytest.raises(RecipeError, match="breaks what `guard` asks for"):
            flat.cook("greedy", pool=pool, eval=[spec], out=tmp_path / "o", workers=workers, objective=strict)


def test_an_interrupt_ends_the_workers_and_leaves_no_debris(tmp_path, pool, judge):
    line = [sys.executable, "-m", "soup", "greedy", "--pool", str(pool), "--eval", f"python:{judge}:doze"]
    process = subprocess.Popen([*line, "-o", str(tmp_path / "out"), "--workers", "2"], start_new_session=True)
    wait_for(lambda: calls(judge))
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C in a terminal does: to the workers, too
    assert process.wait(30) == 130
    assert debris(tmp_path) == []
    wait_for(lambda: not is_there(process.pid))  # the server ends by itself


def is_there(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
def test_a_local_ray_makes_the_same_soup_and_replaces_an_actor_that_dies(tmp_path, pool, judge):
    spec = f"python:{judge}:score"
    alone = flat.cook("greedy", pool=pool, eval=[spec], out=tmp_path / "alone", run_dir=tmp_path / "run1")
    mood(judge, f"{len(calls(judge)) + 3} (HERE / 'mood').unlink(); os.kill(os.getpid(), signal.SIGKILL)")
    options = {"workers": 2, "ray": "local"}
    both = flat.cook("greedy", pool=pool, eval=[spec], out=tmp_path / "both", run_dir=tmp_path / "run2", **options)
    assert told(alone) == told(both)
    assert tree(tmp_path / "alone") == tree(tmp_path / "both")


def test_a_ray_cluster_that_is_not_there_is_one_sentence(tmp_path, pool, judge):
    pytest.importorskip("ray")
    line = [sys.executable, "-m", "soup", "greedy", "--pool", str(pool), "--eval", f"python:{judge}:score"]
    done = subprocess.run([*line, "-o", str(tmp_path / "out"), "--ray", "127.0.0.1:1"], capture_output=True, text=True)
    assert done.returncode == 1
    assert re.search(r"error: --ray 127\.0\.0\.1:1: no cluster there", done.stderr), done.stderr[-2000:]
    assert "Traceback" not in done.stderr


TERMINATED = """
import os
import signal
from contextlib import suppress
from dataclasses import dataclass

from soup.merging.methods.linear import Linear

CHOSEN = []


def searching(pool, score):
    os.kill(os.getpid(), signal.SIGTERM)


def merging(pool, score):
    score(list(pool))
    CHOSEN[:] = [pool]
    return list(pool)


@dataclass(frozen=True)
class Mean(Linear):
    def __call__(self, block):
        with suppress(IndexError):  # in an actor, which has chosen nothing; and a second time
            CHOSEN.pop()
            os.kill(os.getpid(), signal.SIGTERM)
        return super().__call__(block)
"""


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["searching", "merging"])
def test_a_sigterm_ends_a_run_on_ray_as_it_ends_any_and_leaves_nothing_half_done(tmp_path, pool, judge, moment):
    pytest.importorskip("ray")
    (tmp_path / "mine.py").write_text(TERMINATED)
    line = ["cook", "--strategy", f"mine.py:{moment}", "--method", "mine.py:Mean", "--pool", str(pool), "-o", "out"]
    line += ["--eval", f"python:{judge}:score", "--ray", "local", "--workers", "1"]
    run = [sys.executable, "-m", "soup", *line]
    done = subprocess.run(run, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (143, "terminated"), done.stderr[-2000:]
    assert debris(tmp_path) == []
    assert not (tmp_path / "out").exists()


DEALING = """
import os
from pathlib import Path

from soup import evaluator
from soup.evaluation import Score
from soup.evaluation.dealing import dealer_of


def note(kind):
    with (Path(__file__).parent / "notes.txt").open("a") as file:
        file.write(f"{kind} {os.getpid()}\\n")


@evaluator("dealing")
class Dealing:
    def __init__(self, settings):
        pass

    def identity(self, benchmark):
        note("identity")
        return {"version": 1}

    def evaluate(self, candidate, benchmark):
        replies = dealer_of(candidate).deal(list(range(8)), lambda positions, replies: None, lambda request: 0)
        return Score(float(sum(replies)), 8)

    def answer(self, candidate, requests, on_replies):
        note("answer")
        on_replies(range(len(requests)), [request + len(candidate.names) for request in requests])
"""


def test_workers_that_answer_for_others_read_no_data_themselves(tmp_path, pool, monkeypatch):
    (tmp_path / "dealing_harness.py").write_text(DEALING)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(EVALUATORS, "registered", {**EVALUATORS.registered})
    importlib.import_module("dealing_harness")
    made = flat.cook("average", pool=pool, eval=["dealing:it"], out=tmp_path / "out", workers=2)
    assert [trial.overall for trial in made.trials] == [60]
    notes = [line.split() for line in (tmp_path / "notes.txt").read_text().splitlines()]
    assert {process for kind, process in notes if kind == "identity"} == {str(os.getpid())}
    assert {process for kind, process in notes if kind == "answer"}.isdisjoint({str(os.getpid())})


NOISY = """
from soup import evaluator
from soup.evaluation import Score


@evaluator("noisy")
class Noisy:
    def __init__(self, settings):
        pass

    def identity(self, benchmark):
        return {"version": 1}

    def evaluate(self, candidate, benchmark):
        candidate.answered(3, 9)
        candidate.remark("answers are odd")
        return Score(50.0 + len("".join(candidate.digest)) % 7, 9)
"""


def test_workers_tell_answers_remarks_and_the_end_of_each_evaluation_and_how_far_the_search_is(
    tmp_path, pool, monkeypatch
):
    (tmp_path / "noisy_harness.py").write_text(NOISY)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(EVALUATORS, "registered", {**EVALUATORS.registered})
    importlib.import_module("noisy_harness")
    running, log = [], []
    progress = Progress(
        on_warning=lambda text: log.append(text),
        on_pace=lambda pace: log.append(f"{pace.done}/{pace.total}"),
        on_start=lambda recipe, benchmark: running.append((recipe.names, benchmark.name)),
        on_end=lambda recipe, benchmark: running.remove((recipe.names, benchmark.name)),
        on_answers=lambda recipe, benchmark, *counts: log.append((benchmark.name, counts)),
    )
    names = ["noisy:first", "noisy:second"]
    made = flat.cook("greedy", pool=pool, eval=names, out=tmp_path / "out", workers=2, progress=progress)
    assert running == []
    assert ("noisy:first", (3, 9, "answers")) in log
    assert log.count("answers are odd") == 1
    assert "answers are odd" in made.warnings
    assert next(entry for entry in log if isinstance(entry, str) and "/" in entry) == "0/7"
