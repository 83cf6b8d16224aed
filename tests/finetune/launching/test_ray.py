"""Jobs as tasks of a Ray that is started here."""

from __future__ import annotations

import json
import signal
import time

import pytest

from finetune.launching.launch import LaunchProgress, finetune
from soup.errors import FinetuneError
from tests.helpers.stand_in_jobs import CONFIG, command, place, seen, set_moods, state

pytest.importorskip("ray")
NAMES = ["a", "b", "c"]


@pytest.fixture(autouse=True)
def no_gpus(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")


@pytest.mark.slow
def test_jobs_run_skip_fail_stop_and_go_on_as_anywhere(tmp_path):
    path = place(tmp_path, CONFIG + "jobs_at_once: 2\nexecutor: ray\n", b="fail")
    with pytest.raises(FinetuneError, match="b failed: out of luck") as error:
        finetune(path, command=command)
    assert "2 of 3 jobs done; not done:" in str(error.value)
    assert sorted(line["name"] for line in seen(tmp_path)) == NAMES
    where = json.loads((tmp_path / "ckpts.finetune" / "a" / "place.json").read_text())
    assert (where["on"], where["address"]) == ("ray", "local")
    set_moods(tmp_path)
    assert finetune(path, command=command) == [tmp_path / "ckpts" / name for name in NAMES]
    assert [line["name"] for line in seen(tmp_path)][3:] == ["b"]


@pytest.mark.slow
def test_an_interrupt_reaches_jobs_of_the_cluster(tmp_path):
    path = place(tmp_path, CONFIG.replace("steps: 20", "steps: 200"), a="slow")

    once = []

    def board(rows):
        if not once and any(row.state == "running" and row.step for row in rows):
            once.append(True)
            raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        finetune(path, executor="ray", command=command, listener=LaunchProgress(board=board))
    assert state(tmp_path, "a")["phase"] == "stopped"
    assert signal.getsignal(signal.SIGTERM) == before
    set_moods(tmp_path)
    finetune(path, command=command)  # elsewhere, from the same checkpoint
    assert [line["first"] > 0 for line in seen(tmp_path)] == [False, True, False, False]


def test_a_cluster_that_is_not_there_is_told_at_once(tmp_path):
    began = time.monotonic()
    with pytest.raises(FinetuneError, match=r"--executor ray:127\.0\.0\.1:9: no cluster there"):
        finetune(place(tmp_path), executor="ray:127.0.0.1:9", command=command)
    assert time.monotonic() - began < 60
