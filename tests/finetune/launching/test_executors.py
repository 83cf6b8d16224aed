"""Where jobs run: slots of this host, what a job's process sees, who ends it; and the attempts of other machines."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from finetune.config import FinetuneConfig
from finetune.jobs import read_state
from finetune.launching.executors.attempt import clear_requests, has_heartbeat, request_kill, request_stop
from finetune.launching.executors.liveness import is_alive
from finetune.launching.executors.local import LocalExecutor, local_gpus
from finetune.launching.executors.processes import is_running, kill_tree, start_time
from finetune.launching.executors.protocol import Task, read_placement, write_placement
from finetune.launching.executors.registry import open_executor
from finetune.launching.launch import LaunchProgress, finetune
from finetune.training.job import run as job_run
from soup.errors import FinetuneError
from soup.report.pool_check import check
from tests.faults.processes import wait_for
from tests.helpers.launch_boards import interrupt_when
from tests.helpers.stand_in_jobs import CONFIG, STANDIN, Release, command, place, seen, set_moods, state


@pytest.fixture(autouse=True)
def no_gpus(monkeypatch):
    """Jobs see the GPUs that a test names, whatever this machine has."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def configured(**keys):
    return FinetuneConfig(start="tiny", data="data", added={"a": "a"}, lr=1, steps=1, **keys)


def task(folder, code, name="job"):
    folder.mkdir(exist_ok=True)
    return Task(name, folder, (sys.executable, "-c", code), 1)


def drained(executor, seconds=300):
    """All ends, by name."""
    ends, end = {}, time.monotonic() + seconds
    while executor._running or executor._queue or executor._ended:
        ends |= {task_exit.name: task_exit for task_exit in executor.poll()}
        assert time.monotonic() < end, "it never ended"
        time.sleep(0.02)
    return ends


@pytest.mark.parametrize(
    ("devices", "each", "most", "slots"),
    [
        ("0,1,2,3", 1, None, ["0", "1", "2", "3"]),
        ("0,1,2,3", 2, None, ["0,1", "2,3"]),
        ("4,6,7", 2, None, ["4,6"]),
        ("0,1,2,3", 1, 2, ["0", "1"]),
        ("GPU-a,GPU-b", 1, None, ["GPU-a", "GPU-b"]),
        ("0,1", 3, None, []),
        ("", 1, None, [""]),
        ("-1", 1, 3, ["", "", ""]),
        ("0,1", 0, 2, ["", ""]),
    ],
)
def test_gpus_are_shared_out_as_slots(monkeypatch, devices, each, most, slots):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
    assert LocalExecutor(configured(gpus_per_job=each, jobs_at_once=most))._free == slots


def test_without_a_word_the_driver_s_gpus_count(monkeypatch, tmp_path):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho '0, GPU-x, 81559'\necho '1, GPU-y, 40960'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert [(gpu.name, gpu.memory_bytes) for gpu in local_gpus()] == [("0", 81559 * 2**20), ("1", 40960 * 2**20)]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-y")
    assert [(gpu.name, gpu.memory_bytes) for gpu in local_gpus()] == [("GPU-y", 40960 * 2**20)]


def test_a_gpu_that_tells_no_memory_counts_as_any(monkeypatch, tmp_path):
    lines = ["0, GPU-x, 81559", "1, GPU-y, [N/A]", "No devices were found", "2, GPU-z, 40960"]
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines))
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    known = [(gpu.name, gpu.memory_bytes and gpu.memory_bytes // 2**20) for gpu in local_gpus()]
    assert known == [("0", 81559), ("1", None), ("2", 40960)]


def test_a_job_of_more_gpus_than_there_are_is_refused(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with pytest.raises(FinetuneError, match=r"gpus_per_job: 4, but this host has 2 \(0, 1\)"):
        open_executor("local", configured(gpus_per_job=4)).describe()


def test_each_job_sees_its_own_gpus_and_no_two_at_a_time_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    finetune(place(tmp_path, CONFIG, a="slow", b="slow", c="slow"), command=command)
    begins, ends = ({line["name"]: line for line in seen(tmp_path, what)} for what in ("begin", "end"))
    assert {line["CUDA_VISIBLE_DEVICES"] for line in begins.values()} == {"2", "3"}
    for name in "abc":
        for other in {*"abc"} - {name}:
            apart = begins[name]["at"] > ends[other]["at"] or begins[other]["at"] > ends[name]["at"]
            assert apart or begins[name]["CUDA_VISIBLE_DEVICES"] != begins[other]["CUDA_VISIBLE_DEVICES"]


def test_jobs_on_the_cpu_share_its_cores_unless_the_user_said_otherwise(tmp_path, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: range(6))
    finetune(place(tmp_path / "a", CONFIG + "jobs_at_once: 3\n"), command=command)
    assert {line["OMP_NUM_THREADS"] for line in seen(tmp_path / "a")} == {"2"}
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    finetune(place(tmp_path / "b", CONFIG + "jobs_at_once: 3\n"), command=command)
    assert {line["OMP_NUM_THREADS"] for line in seen(tmp_path / "b")} == {"5"}


def test_a_slot_whose_gpu_is_lost_is_not_used_again(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with pytest.raises(FinetuneError, match="a failed"):
        finetune(place(tmp_path, CONFIG, a="gpu", b="slow"), command=command)
    devices = {line["name"]: line["CUDA_VISIBLE_DEVICES"] for line in seen(tmp_path)}
    assert devices == {"a": "0", "b": "1", "c": "1"}


def test_when_the_last_gpu_is_lost_the_rest_is_not_started(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(FinetuneError) as error:
        finetune(place(tmp_path, CONFIG, a="gpu"), command=command)
    assert "b failed: not started: GPU 0 is lost, and there is no other" in str(error.value)
    assert [line["name"] for line in seen(tmp_path)] == ["a"]


def test_a_file_of_the_user_s_does_not_stand_in_for_a_module(tmp_path, monkeypatch):
    (tmp_path / "random.py").write_text("raise RuntimeError('the wrong random')")
    monkeypatch.chdir(tmp_path)
    executor = LocalExecutor(configured())
    executor.submit([Task("job", tmp_path, (sys.executable, "-m", "json.tool", "--help"), 1)])
    assert drained(executor)["job"].code == 0


def test_the_exit_code_is_told_and_the_log_goes_on(tmp_path):
    executor = LocalExecutor(configured())
    executor.submit([task(tmp_path / "a", "print('one'); raise SystemExit(3)")])
    assert drained(executor)["job"].code == 3
    executor.submit([task(tmp_path / "a", "import os; print('two', flush=True); os.kill(os.getpid(), 9)")])
    assert drained(executor)["job"].code == -signal.SIGKILL
    assert (tmp_path / "a" / "log.txt").read_text() == "one\ntwo\n"


def test_killing_reaches_children_in_sessions_of_their_own(tmp_path):
    child = "import subprocess, sys; p = subprocess.Popen(['sleep', '1000'], start_new_session=True); "
    executor = LocalExecutor(configured())
    executor.submit([task(tmp_path / "a", child + "print(p.pid, flush=True); p.wait()")])
    end = time.monotonic() + 120
    while not (tmp_path / "a" / "log.txt").read_text() and time.monotonic() < end:
        time.sleep(0.02)
    pid = int((tmp_path / "a" / "log.txt").read_text())
    executor.kill()
    assert drained(executor)["job"].code == -signal.SIGKILL
    _, alive = psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=10)
    assert not alive


def test_a_process_is_told_from_a_later_one_of_the_same_number():
    process = subprocess.Popen(["sleep", "1000"])
    since = start_time(process.pid)
    assert is_running(process.pid, since)
    assert not is_running(process.pid, since - 5)
    kill_tree(process.pid)
    process.wait()
    assert not is_running(process.pid, since)
    assert start_time(process.pid) is None


def test_a_job_started_by_hand_is_adopted(tmp_path):
    path = place(tmp_path, b="slow")
    with pytest.raises(KeyboardInterrupt):
        finetune(path, command=command, listener=LaunchProgress(board=interrupt_when("b")))
    set_moods(tmp_path, b="held")
    process = subprocess.Popen(command(Folder(tmp_path / "ckpts.finetune" / "b"), 1), stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: state(tmp_path, "b")["phase"] == "running")
        say = Release(tmp_path, "b: still runs from an earlier call")
        finetune(path, command=command, listener=LaunchProgress(say=say))
    finally:
        process.wait(timeout=90)
    assert say.text in say
    assert [line["name"] for line in seen(tmp_path)].count("b") == 2


@pytest.mark.parametrize(("gpus", "slots"), [("4", ["4"]), ("", [""])])
def test_jobs_that_are_adopted_beyond_the_slots_give_none_back(tmp_path, monkeypatch, gpus, slots):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    executor = open_executor("local", configured())
    sleepers = [subprocess.Popen(["sleep", "60"]) for _ in range(2)]
    try:
        for name, sleeper, slot in zip("ab", sleepers, ("0", "1"), strict=True):  # an earlier launcher had two GPUs
            task = Task(name, tmp_path / name, ("x",), 1)
            task.folder.mkdir()
            host, born = os.uname().nodename, start_time(sleeper.pid)
            write_placement(task, {"on": "local", "host": host, "pid": sleeper.pid, "born": born, "slot": slot})
            assert executor.adopt(task)
        assert executor._free == []
    finally:
        for sleeper in sleepers:
            sleeper.kill()
            sleeper.wait()
    assert {task_exit.name for task_exit in executor.poll()} == {"a", "b"}
    assert executor._free == slots


class Folder:
    def __init__(self, folder):
        self.folder = folder


def test_jobs_that_still_run_elsewhere_are_not_started_twice(tmp_path):
    path = place(tmp_path)
    folder = tmp_path / "ckpts.finetune" / "a"
    folder.mkdir(parents=True)
    write_placement(Task("a", folder, ("x",), 1), {"on": "ray", "address": "10.0.0.1:6379"})
    (folder / "alive").touch()
    with pytest.raises(FinetuneError, match=r"a on ray \(address 10\.0\.0\.1:6379\)"):
        finetune(path, command=command)
    os.utime(folder / "alive", (time.time() - 1000,) * 2)
    finetune(path, command=command)


def test_a_job_of_another_host_can_t_be_seen_from_here(tmp_path):
    elsewhere = {"on": "local", "host": "elsewhere", "pid": 1, "born": 0.0, "slot": ""}
    write_placement(Task("a", tmp_path, ("x",), 1), elsewhere)
    assert is_alive(tmp_path) is None


def test_a_missing_package_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    monkeypatch.delitem(sys.modules, "finetune.launching.executors.slurm", raising=False)
    with pytest.raises(FinetuneError, match=r"--executor slurm needs submitit: pip install \"vlm-soup\[slurm\]\""):
        open_executor("slurm", configured())


def attempt(folder, *words, **environment):
    words = [sys.executable, "-m", "finetune.launching.executors.attempt", str(folder), *words]
    return subprocess.Popen(words, env={**os.environ, **environment}, stdout=subprocess.DEVNULL)


def job_folder(root, **moods):
    """A job folder as the launcher prepares it, and the command for it."""
    with pytest.raises(FinetuneError):
        finetune(place(root, CONFIG.replace("steps: 20", "steps: 400"), a="fail", b="fail", c="fail"), command=command)
    folder = root / "ckpts.finetune" / "a"
    (folder / "state.json").unlink()
    set_moods(root, **moods)
    return folder, [sys.executable, str(STANDIN), str(folder)]


def stepped(folder):
    def look():
        try:
            return json.loads((folder / "state.json").read_text())["step"] > 0
        except (OSError, ValueError):
            return False

    return look


def test_an_attempt_ends_as_its_command_does_and_gives_signs_of_life(tmp_path):
    folder, words = job_folder(tmp_path, a="slow at first")
    process = attempt(folder, *words)
    wait_for(stepped(folder))
    assert has_heartbeat(folder)
    request_stop(folder)
    assert process.wait(timeout=30) == 143
    assert state(tmp_path, "a")["phase"] == "stopped"
    assert not has_heartbeat(folder)
    assert attempt(folder, *words).wait(timeout=30) == 143, "it was asked before it began"
    clear_requests(folder)
    set_moods(tmp_path, a="die")
    assert attempt(folder, *words).wait(timeout=30) == 128 + signal.SIGKILL


def test_an_attempt_passes_a_signal_on_and_a_killed_one_takes_its_command_along(tmp_path):
    folder, words = job_folder(tmp_path, a="slow")
    process = attempt(folder, *words)
    wait_for(stepped(folder))
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 143
    assert state(tmp_path, "a")["phase"] == "stopped"
    process = attempt(folder, *words)
    wait_for(lambda: state(tmp_path, "a")["phase"] == "running")
    process.kill()
    process.wait()
    wait_for(lambda: state(tmp_path, "a")["phase"] == "stopped")


def test_an_attempt_that_is_asked_to_kill_does(tmp_path):
    folder, words = job_folder(tmp_path, a="deaf")
    process = attempt(folder, *words)
    wait_for(stepped(folder))
    request_kill(folder)
    assert process.wait(timeout=30) == 128 + signal.SIGKILL


@pytest.mark.parametrize(("again", "asked", "requeued"), [("0", False, True), ("2", False, False), ("0", True, False)])
def test_a_job_that_slurm_stopped_goes_back_into_the_queue_so_many_times(tmp_path, again, asked, requeued):
    folder, words = job_folder(tmp_path, a="slow")
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    # In place of SLURM's own, which would end the step: it kills whoever called.
    (bin_ / "scontrol").write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/called\nkill -9 $PPID\n')
    (bin_ / "scontrol").chmod(0o755)
    names = {"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3", "SLURM_RESTART_COUNT": again}
    process = attempt(folder, *words, PATH=f"{bin_}:{os.environ['PATH']}", SOUP_MAX_REQUEUES="2", **names)
    wait_for(stepped(folder))
    if asked:
        request_stop(folder)
    else:  # SLURM signals all processes of a job
        os.kill(state(tmp_path, "a")["pid"], signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == (-signal.SIGKILL if requeued else 143)
    called = tmp_path / "called"
    assert called.read_text().split() == ["requeue", "7_3"] if requeued else not called.exists()


REAL = """
start: {start: tiny, data: toy/data/base, out: base, lr: 2.0e-3, steps: 40}
added: {number: toy/data/number, bars: toy/data/bars}
data: toy/data/base
cache_features: true
freeze: [general_vit, ocr_vit]
lr: 1.0e-3
steps: 30
global_batch_size: 8
max_shard_size: 1MB
jobs_at_once: 2
"""


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    from finetune.toy.write import QUESTIONS, Sizes, make_toy

    few = Sizes(base=8, added=8, questions=dict.fromkeys(QUESTIONS, 12))
    return make_toy(tmp_path_factory.mktemp("toy") / "toy", sizes=few)


def real_place(root, toy, text=REAL):
    root.mkdir(exist_ok=True)
    if not (root / "toy").exists():
        (root / "toy").symlink_to(toy)
    (root / "finetune.yaml").write_text(text)
    return root / "finetune.yaml"


@pytest.fixture(scope="module")
def trained(toy, tmp_path_factory):
    """A base and two ingredients of the tiny model, trained side by side on the CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        path = real_place(tmp_path_factory.mktemp("trained"), toy)
        return path.parent, finetune(path)


def weights_bytes(made):
    return {file.name: file.read_bytes() for file in sorted(made.glob("*.safetensors"))}


@pytest.mark.slow
def test_real_jobs_side_by_side_leave_a_pool_that_belongs_together(trained):
    root, made = trained
    assert made == [root / "ckpts" / "number", root / "ckpts" / "bars"]
    report = check(root / "ckpts", root / "base")
    assert report.ingredients == ("bars", "number")
    assert report.ok
    stamp = json.loads((made[0] / "finetune.json").read_text())
    assert len(stamp["digests"]["data"]) == 2
    assert stamp["digests"]["start"] == json.loads((root / "base" / "finetune.json").read_text())["digest"]


@pytest.mark.slow
def test_real_jobs_that_were_interrupted_go_on_to_the_same_bytes(trained, toy, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # two threads that wait for each other on a busy machine take minutes
    path = real_place(tmp_path, toy, REAL.replace("jobs_at_once: 2", "jobs_at_once: 1"))
    interrupted = []

    def board(rows):
        done = {row.name for row in rows if row.state in ("done", "stopped")}
        for row in rows:
            if row.name not in interrupted and row.name not in done and row.state == "running" and row.step > 1:
                interrupted.append(row.name)
                raise KeyboardInterrupt

    for _ in range(4):
        try:
            made = finetune(path, listener=LaunchProgress(board=board))
            break
        except KeyboardInterrupt:
            continue
    assert interrupted
    assert [weights_bytes(folder) for folder in made] == [weights_bytes(folder) for folder in trained[1]]


@pytest.mark.slow
def test_a_real_job_of_two_processes_stops_after_a_checkpoint_and_goes_on(toy, tmp_path):
    text = REAL.replace(", bars: toy/data/bars", "").replace("jobs_at_once: 2", "gpus_per_job: 2")
    path = real_place(tmp_path, toy, text)
    with pytest.raises(KeyboardInterrupt):
        finetune(path, listener=LaunchProgress(board=interrupt_when("start")))
    folder = tmp_path / "ckpts.finetune" / "start"
    stopped = json.loads((folder / "state.json").read_text())
    assert stopped["phase"] == "stopped"
    assert "checkpoint" in stopped["why"]
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(folder) in (p.info["cmdline"] or [])]
    assert finetune(path) == [tmp_path / "ckpts" / "number"]
    assert json.loads((folder / "state.json").read_text())["attempt"] == 2


@pytest.mark.slow
def test_a_real_failure_tells_what_to_do(trained):
    root, _ = trained
    (root / "wrong.yaml").write_text(REAL.replace("ocr_vit]", "ocr_tower]\nout: elsewhere"))
    with pytest.raises(FinetuneError, match=r"ocr_tower.*general_vit") as error:
        finetune(root / "wrong.yaml")
    assert "1 of 3 jobs done; not done:" in str(error.value)
    assert not (root / "elsewhere").exists()


@pytest.mark.slow
def test_real_jobs_on_ray_have_the_same_bytes(trained, toy, tmp_path):
    pytest.importorskip("ray")
    made = finetune(real_place(tmp_path, toy), executor="ray")
    assert [weights_bytes(path) for path in made] == [weights_bytes(path) for path in trained[1]]


@pytest.mark.parametrize(
    "text",
    [
        "[" * 3000,
        '{"on": "local"}',
        '{"on": ["local"]}',
        '{"on": "local", "host": "x", "pid": "1", "born": 1.0}',
        '{"on": "slurm"}',
        '{"on": "ray", "address": null}',
    ],
)
def test_a_placement_that_cant_be_read_is_none(tmp_path, text):
    (tmp_path / "place.json").write_text(text)
    assert read_placement(tmp_path) is None


@pytest.mark.parametrize(
    "text", ["[" * 3000, "[]", '{"phase": "no"}', '{"phase": "running", "step": "x"}', '{"phase": []}']
)
def test_a_state_that_cant_be_read_is_none(tmp_path, text):
    (tmp_path / "state.json").write_text(text)
    (tmp_path / "job.json").write_text(text)
    assert read_state(tmp_path) is None
    assert job_run(tmp_path) == 1, "no trace, but a job that is none of ours"
