"""The process of one job: stopped, killed, out of luck or of disk, it says so, and goes on where it was."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import finetune
from finetune.data import Corpus, TrainingRows
from finetune.jobs import State, read_stamp, read_state, write_state
from finetune.points.tiny import tiny_processor
from finetune.training import checkpoints
from finetune.training.job import SIGNALS, StateFile, main, run
from finetune.training.logs import LossFile
from tests.helpers.training_basics import make_job, write_rows

ROOT = Path(finetune.__file__).parents[1]


@pytest.fixture(autouse=True)
def as_before():
    """One thread, and this process's own way with signals, which a job changes."""
    threads, handlers = torch.get_num_threads(), {number: signal.getsignal(number) for number in SIGNALS}
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("data") / "rows")


def files(out):
    return {path.name: path.read_bytes() for path in out.glob("*.safetensors")}


def steps_of(folder):
    return sorted(path.name for path in (folder / "checkpoints").glob("step-*"))


def at_step(monkeypatch, step, act):
    """Has something happen just after a step was told: before its checkpoint is written."""
    original = StateFile.step

    def step_and_act(self, *words):
        original(self, *words)
        if words[0] == step:
            act()

    monkeypatch.setattr(StateFile, "step", step_and_act)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, data):
    """What jobs come to that nobody disturbs, by what they were told."""
    done = {}

    def of(**settings):
        key = json.dumps(settings, sort_keys=True)
        if key not in done:
            job = make_job(tmp_path_factory.mktemp("undisturbed"), data, **settings)
            assert run(job.folder) == 0
            done[key] = job
        return done[key]

    return of


def test_a_job_that_is_done_says_so_and_leaves_only_what_is_of_use(undisturbed):
    job = undisturbed(checkpoint_every=2)
    state = read_state(job.folder)
    assert (state.phase, state.step, state.steps, state.attempt, state.why) == ("done", 6, 6, 1, None)
    assert state.pid == os.getpid()
    assert state.updated >= state.started
    assert sorted(path.name for path in job.folder.iterdir()) == ["job.json", "loss.jsonl", "state.json"]
    assert read_stamp(job.out)["digest"] == "d"


def test_a_job_that_was_done_is_not_done_again(undisturbed, monkeypatch):
    job = undisturbed(checkpoint_every=2)
    monkeypatch.setattr("finetune.training.train.train_job", None)
    assert run(job.folder) == 0
    assert read_state(job.folder).phase == "done"


SETTINGS = {
    "in parts": {"micro_batch": 2},
    "a second epoch": {"steps": 9, "keep_every": 4},
    "adapters": {"lora": {"dropout": 0.2, "rank": 4}, "freeze": ["general_vit", "ocr_vit"], "cache_features": True},
    "bfloat16": {"precision": "bfloat16", "gradient_checkpointing": True},
}


class DeathError(BaseException):
    """Nobody catches it: as good as a kill, but that this process lives."""


def die():
    raise DeathError


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("in parts", 3),
        ("adapters", 3),
        ("a second epoch", 5),
        pytest.param("in parts", 5, marks=pytest.mark.slow),
        pytest.param("bfloat16", 3, marks=pytest.mark.slow),
    ],
)
def test_killed_and_resumed_is_undisturbed_bit_for_bit(undisturbed, data, tmp_path, monkeypatch, name, step):
    settings = {"checkpoint_every": 2, **SETTINGS[name]}
    reference = undisturbed(**settings)
    job = make_job(tmp_path, data, **settings)
    with monkeypatch.context() as patch:
        at_step(patch, step, die)
        with pytest.raises(DeathError):
            run(job.folder)
    assert steps_of(job.folder) == [f"step-{step - 1}"]
    messages = []
    with monkeypatch.context() as patch:
        original = StateFile.step
        patch.setattr(StateFile, "step", lambda self, *words: (messages.append(words[0]), original(self, *words)))
        assert run(job.folder) == 0
    assert messages[0] == step
    assert files(job.out) == files(reference.out)
    assert read_state(job.folder).attempt == 2
    mine, wanted = read_stamp(job.out), read_stamp(reference.out)
    for key in ("steps", "tokens", "first_loss", "last_loss", "rows_seen"):
        assert mine[key] == wanted[key]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_job_after_a_checkpoint_and_it_goes_on(
    undisturbed, data, tmp_path, monkeypatch, number, code
):
    reference = undisturbed(micro_batch=2)
    job = make_job(tmp_path, data, micro_batch=2)
    with monkeypatch.context() as patch:
        at_step(patch, 3, lambda: os.kill(os.getpid(), number))
        assert run(job.folder) == code
    state = read_state(job.folder)
    # The signal came as the third step was told, which is after the stop was asked for at its end.
    assert (state.phase, state.step) == ("stopped", 4)
    assert signal.Signals(number).name in state.why
    assert steps_of(job.folder) == ["step-4"]
    assert not job.out.exists()
    assert run(job.folder) == 0
    assert files(job.out) == files(reference.out)


def test_a_signal_while_the_ingredient_is_written_lets_it_be_finished(data, tmp_path, monkeypatch):
    job = make_job(tmp_path, data)
    at_step(monkeypatch, 6, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert run(job.folder) == 0
    assert read_stamp(job.out)["steps"] == 6


def test_a_signal_before_the_first_step_ends_the_job_at_once(data, tmp_path, monkeypatch):
    job = make_job(tmp_path, data)
    monkeypatch.setattr("finetune.training.train.prepare", lambda *words: os.kill(os.getpid(), signal.SIGTERM))
    assert run(job.folder) == 143
    assert read_state(job.folder).phase == "stopped"


def test_models_on_the_way_are_ingredients_too(undisturbed):
    job = undisturbed(checkpoint_every=2, **SETTINGS["a second epoch"])
    kept = sorted(path.name for path in job.out.parent.glob("out-job-*"))
    assert kept == ["out-job-step4", "out-job-step8"]
    stamps = [read_stamp(job.out.parent / name) for name in kept]
    assert [(reason["digest"], reason["step"], reason["steps"]) for reason in stamps] == [("d", 4, 4), ("d", 8, 8)]
    assert files(job.out.parent / kept[0]) != files(job.out.parent / kept[1]) != files(job.out)


def test_a_model_on_the_way_is_the_shorter_job_s_at_a_constant_rate(data, tmp_path):
    # The schedule knows the length; a rate of (almost) nothing lets only the start through.
    job = make_job(tmp_path, data, lr=1e-30, keep_every=2, steps=4)
    other = make_job(tmp_path, data, name="other", lr=1e-30, steps=2)
    assert run(job.folder) == run(other.folder) == 0
    assert files(tmp_path / "out-job-step2") == files(other.out)


def test_a_broken_loss_is_told_with_its_step_each_time(data, tmp_path):
    job = make_job(tmp_path, data, lr=1e30, checkpoint_every=1)
    assert run(job.folder) == 1
    state = read_state(job.folder)
    assert state.phase == "failed"
    assert "became nan at step" in state.why
    assert "try a lower lr" in state.why
    good = steps_of(job.folder)
    weights = load_file(job.folder / "checkpoints" / good[0] / checkpoints.WEIGHTS)
    assert all(tensor.isfinite().all() for tensor in weights.values())
    assert run(job.folder) == 1
    assert steps_of(job.folder) == good
    assert read_state(job.folder).why == f"{state.why}\nSo it was in attempt 1."
    assert run(job.folder) == 1
    assert read_state(job.folder).why == f"{state.why}\nSo it was in attempt 2."


def test_a_full_disk_is_told_and_the_checkpoint_before_stays(undisturbed, data, tmp_path, monkeypatch):
    job = make_job(tmp_path, data, checkpoint_every=2)
    original, calls = checkpoints.save_trained, []

    def full(model, directory):
        calls.append(directory)
        if len(calls) == 2:
            directory.mkdir(parents=True)
            (directory / checkpoints.WEIGHTS).write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(directory))
        original(model, directory)

    monkeypatch.setattr(checkpoints, "save_trained", full)
    assert run(job.folder) == 1
    assert "the disk is full" in read_state(job.folder).why
    assert steps_of(job.folder) == ["step-2"]
    assert run(job.folder) == 0
    assert files(job.out) == files(undisturbed(checkpoint_every=2).out)


def test_a_disk_that_fills_up_while_torch_writes_is_told_too(data, tmp_path, monkeypatch):
    job = make_job(tmp_path, data, checkpoint_every=2)

    def full(*words, **more):
        raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 5 vs 4")

    monkeypatch.setattr("torch.save", full)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(2**40, 2**40 - 4096, 4096))
    monkeypatch.setattr("finetune.training.train.check_disk_space", lambda *words: None)
    assert run(job.folder) == 1
    assert "the disk is full" in read_state(job.folder).why


def test_too_small_a_disk_is_told_before_the_first_step(data, tmp_path, monkeypatch):
    job = make_job(tmp_path, data, checkpoint_every=2, keep_every=2, steps=6)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(2**30, 2**30 - 2**20, 2**20))
    assert run(job.folder) == 1
    why = read_state(job.folder).why
    assert "1.05 MB are free" in why
    assert "3 ingredients. Make room" in why
    assert read_state(job.folder).step == 0


def test_what_stands_there_already_is_never_overwritten(data, tmp_path):
    job = make_job(tmp_path, data)
    job.out.mkdir()
    (job.out / "thesis.txt").write_text("mine")
    assert run(job.folder) == 1
    assert "stands there already" in read_state(job.folder).why
    job.out.rename(tmp_path / "out-job-step3")
    make_job(tmp_path, data, keep_every=3)
    assert run(job.folder) == 1
    assert "out-job-step3" in read_state(job.folder).why
    assert (tmp_path / "out-job-step3" / "thesis.txt").read_text() == "mine"


def test_a_damaged_line_of_the_losses_is_left_out_where_a_job_goes_on(tmp_path):
    path, kept = tmp_path / "loss.jsonl", '{"step": 1, "loss": 2.0}\n{"step": 2, "loss": NaN}\n'
    path.write_text(kept.replace("\n", "\n\0\0\0\n", 1) + '{"step": 3, "loss": 1.0}\n{"step": 2, "lo')
    LossFile(path, 2)
    assert path.read_text() == kept


def test_a_checkpoint_of_another_job_is_not_resumed_from(undisturbed, data, tmp_path, monkeypatch):
    job = make_job(tmp_path, data, checkpoint_every=2, lr=1e-3, digest="other")
    with monkeypatch.context() as patch:
        at_step(patch, 3, die)
        with pytest.raises(DeathError):
            run(job.folder)
    job = make_job(tmp_path, data, checkpoint_every=2)
    assert checkpoints.newest(job.folder, "d") is None
    assert run(job.folder) == 0
    assert files(job.out) == files(undisturbed(checkpoint_every=2).out)


def test_a_checkpoint_that_was_not_finished_is_never_resumed_from(tmp_path):
    for name in ("part/checkpoint-9", "step-4", "step-10", "step-x"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
        (tmp_path / "checkpoints" / name / checkpoints.JOB).write_text("d\n")
    (tmp_path / "checkpoints" / "step-12").mkdir()  # nothing says whose it is
    assert checkpoints.newest(tmp_path, "d").name == "step-10"
    assert checkpoints.newest(tmp_path, "other") is None


def test_attempts_are_counted_and_a_waiting_job_has_begun_none(tmp_path):
    assert StateFile(tmp_path, 0).state.attempt == 1
    assert StateFile(tmp_path, 0).state.attempt == 2
    write_state(tmp_path, State("waiting", attempt=5))
    assert StateFile(tmp_path, 0).state.attempt == 5


def test_what_the_first_process_to_fail_said_stays(tmp_path):
    first, second = StateFile(tmp_path, 0), StateFile(tmp_path, 1)
    second.end("failed", "out of memory")
    first.end("failed", "connection closed by peer")
    first.end("stopped", "SIGTERM")
    state = read_state(tmp_path)
    assert (state.phase, state.why, state.attempt, state.pid) == ("failed", "out of memory", 1, os.getpid())


def test_an_error_of_somebody_else_s_is_told_in_a_line(data, tmp_path, monkeypatch, capsys):
    def broken(*words):
        raise RuntimeError("out of luck\nand more")

    job = make_job(tmp_path, data)
    monkeypatch.setattr("finetune.training.train.prepare", broken)
    assert run(job.folder) == 1
    assert read_state(job.folder).why == "RuntimeError: out of luck"
    assert "Traceback" in capsys.readouterr().err


def test_a_folder_without_a_job_and_a_command_without_a_folder_are_told(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
    assert "no job.json" in capsys.readouterr().err
    assert main([]) == 2


def test_tensorboard_has_each_step_once_though_the_job_was_disturbed(data, tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    job = make_job(tmp_path, data, checkpoint_every=2, log_to="tensorboard")
    with monkeypatch.context() as patch:
        at_step(patch, 5, die)
        with pytest.raises(DeathError):
            run(job.folder)
    time.sleep(1)  # its files are named by the second
    assert run(job.folder) == 0
    events = EventAccumulator(str(job.folder / "tensorboard"))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    wanted = {"loss", "learning_rate", "grad_norm", "tokens_per_second", "rows_per_second"}
    assert {f"train/{name}" for name in wanted} <= tags
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4, 5, 6]


def environment(**more):
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"micro_batch": 2}, SETTINGS["adapters"]], ids=["full", "adapters"])
def test_a_process_killed_at_any_time_goes_on_to_the_same_bytes(undisturbed, data, tmp_path, settings):
    keys = {"checkpoint_every": 3, "steps": 40, **settings}
    reference = undisturbed(**keys)
    job = make_job(tmp_path, data, **keys)
    command = [sys.executable, "-m", "finetune.training.job", str(job.folder)]
    for wanted in (3, 12):
        process = subprocess.Popen(command, env=environment())
        deadline = time.monotonic() + 120
        while not any(int(name[5:]) >= wanted for name in steps_of(job.folder)) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.kill()
        assert process.wait(timeout=30) == -signal.SIGKILL
    assert subprocess.run(command, env=environment(), timeout=120).returncode == 0
    assert files(job.out) == files(reference.out)
    assert read_state(job.folder).attempt == 3


TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
PAIR = [*TWO, "-m", "finetune.training.job"]


def together(folder, timeout=180):
    return subprocess.run(
        [*PAIR, str(folder)],
        env=environment(),
        timeout=timeout,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, too small for two checkpoints."""
    folder = tmp_path / "disk"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(words, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_disk_that_is_really_full_is_told_and_the_job_goes_on_once_there_is_room(
    undisturbed, data, small_disk, monkeypatch
):
    # The tiny model's checkpoint is 14 MB, of which one fits, and not the second before the first one goes.
    monkeypatch.setattr("finetune.training.train.check_disk_space", lambda *words: None)
    job = make_job(small_disk, data, checkpoint_every=2)
    assert run(job.folder) == 1
    assert "the disk is full" in read_state(job.folder).why
    assert steps_of(job.folder) == ["step-2"]
    subprocess.run(["mount", "-o", "remount,size=256m", str(small_disk)], check=True)
    assert run(job.folder) == 0
    assert files(job.out) == files(undisturbed(checkpoint_every=2).out)


@pytest.mark.slow
def test_two_processes_train_what_one_does(undisturbed, tmp_path):
    data = write_rows(tmp_path / "rows", pictures=(1, 0))
    settings = {"micro_batch": 1, "steps": 5, "global_batch_size": 4, "checkpoint_every": 2}
    alone = make_job(tmp_path, data, name="alone", **settings)
    # Ranks take turns: more than once stamps has a picture where the other has none, and nobody waits for ever.
    rows = TrainingRows(Corpus(alone.data), alone.settings, tiny_processor())
    has_pictures = [bool(rows[i]["images"]) for i in range(20)]
    assert sum(stamps != other for stamps, other in zip(has_pictures[::2], has_pictures[1::2], strict=True)) > 3
    pair = make_job(tmp_path, data, name="pair", **settings)
    assert run(alone.folder) == 0
    done = together(pair.folder)
    assert done.returncode == 0, done.stderr
    stamps, two = (read_stamp(job.out) for job in (alone, pair))
    assert two["last_loss"] == pytest.approx(stamps["last_loss"], rel=1e-4)
    assert two["tokens"] == stamps["tokens"]
    mine, theirs = (
        {n: t for p in job.out.glob("*.safetensors") for n, t in load_file(p).items()} for job in (alone, pair)
    )
    assert max((mine[name] - theirs[name]).abs().max().item() for name in mine) < 1e-3
    state = read_state(pair.folder)
    assert (state.phase, state.step) == ("done", 5)


SHARDED = """
import os, sys
from pathlib import Path

import accelerate.state
import torch
from accelerate.utils import DistributedType

from finetune.training import job, parallel

begin = accelerate.state.PartialState.__init__


def as_if_on_gpus(self, *words, **more):
    begin(self, *words, **more)
    if self._shared_state.get("distributed_type") == DistributedType.MULTI_CPU:
        self._shared_state["distributed_type"] = DistributedType.MULTI_GPU


accelerate.state.PartialState.__init__ = as_if_on_gpus
parallel.join = lambda wanted: os.environ.update(parallel.environment_of(wanted))
torch.set_num_threads(1)
step = job.StateFile.step


def step_or_die(self, *words):
    step(self, *words)
    if words[0] == int(sys.argv[2]):
        os._exit(9)


job.StateFile.step = step_or_die
sys.exit(job.run(Path(sys.argv[1])))
"""


@pytest.mark.slow
def test_fsdp_trains_what_one_process_does_and_goes_on_after_a_kill(undisturbed, data, tmp_path):
    # Where there is no GPU, accelerate shards only if it is made to believe in some; the sharding itself is real.
    settings = {"lora": {"rank": 4}, "freeze": ["general_vit", "ocr_vit"], "checkpoint_every": 2}
    reference = undisturbed(**settings)
    job = make_job(tmp_path, data, parallel="fsdp", **settings)
    (tmp_path / "sharded.py").write_text(SHARDED)
    for dies_at, code in ((5, 1), (0, 0)):
        command = [*PAIR[:-2], str(tmp_path / "sharded.py"), str(job.folder), str(dies_at)]
        done = subprocess.run(command, env=environment(), timeout=300, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        if dies_at:
            assert steps_of(job.folder) == ["step-4"]
            assert (job.folder / "checkpoints" / "step-4" / "pytorch_model_fsdp_0").is_dir()
    mine, theirs = (load_file(trained_job.out / "model.safetensors") for trained_job in (job, reference))
    assert mine.keys() == theirs.keys()
    assert max((mine[name] - theirs[name]).abs().max().item() for name in mine) < 1e-4


@pytest.mark.slow
def test_a_signal_to_one_of_two_processes_stops_both_at_the_same_step(data, tmp_path):
    job = make_job(tmp_path, data, steps=4000, micro_batch=1)
    process = subprocess.Popen([*PAIR, str(job.folder)], env=environment())
    deadline = time.monotonic() + 120
    while not ((state := read_state(job.folder)) and state.step) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(state.pid, signal.SIGTERM)
    assert process.wait(timeout=120) == 1  # torchrun's own
    state = read_state(job.folder)
    assert state.phase == "stopped"
    assert steps_of(job.folder) == [f"step-{state.step}"]
    assert not job.out.exists()
