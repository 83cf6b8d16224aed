"""SLURM: what it is asked for, and jobs on a real one.

The slow tests start slurmctld, slurmd and munged of this machine (Debian's packages slurmctld, slurmd, slurm-client and
munge) as a cluster of one node with two CPUs and two made-up GPUs, and are skipped where these are not there or the
user is not root. The quick ones put small stand-ins for sbatch, srun, squeue, scancel and scontrol on PATH: they show
what SLURM is told and what is made of its answers, not what it does.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from finetune.config import FinetuneConfig, slurm_minutes
from finetune.launching.executors.protocol import Task
from finetune.launching.launch import LaunchProgress, finetune
from finetune.launching.status import status
from soup.errors import FinetuneError
from tests.faults.processes import wait_for
from tests.helpers.launch_boards import interrupt_when
from tests.helpers.stand_in_jobs import CONFIG, command, place, seen, set_moods, state

pytest.importorskip("submitit")
from finetune.launching.executors import slurm
from finetune.launching.executors.slurm import SlurmExecutor, queued

NAMES = ["a", "b", "c"]
STAGE = CONFIG.replace("start: tiny", "start: {start: tiny, data: data/base, out: base, steps: 5}")
SLURM = "gpus_per_job: 0\nexecutor: slurm\n"
SLURM += 'slurm: {partition: main, time: "00:10:00", cpus_per_gpu: 1, max_requeues: 1}\n'

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("limit", "wanted"),
    [
        ("90", 90),
        ("90:30", 91),
        ("24:00:00", 1440),
        ("0:30:00", 30),
        ("1-0", 1440),
        ("2-12", 3600),
        ("2-12:30", 3630),
        ("1-00:00:01", 1441),
    ],
)
def test_time_limits_are_minutes(limit, wanted):
    assert slurm_minutes(limit) == wanted


@pytest.mark.parametrize("limit", ["", "soon", "1:2:3:4", "0", "-5", "1-x", "12h"])
def test_what_is_no_time_limit_is_told(limit):
    with pytest.raises(ValueError, match="no time limit of SLURM"):
        slurm_minutes(limit)


@pytest.fixture
def stand_ins(tmp_path, monkeypatch):
    """Programs called as SLURM's, each a shell script, beside a note of how they were called."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def put(name, script):
        (folder / name).write_text(f'#!/bin/sh\necho {name} "$@" >> {tmp_path}/calls\n{script}\n')
        (folder / name).chmod(0o755)

    put("srun", "exit 1")
    put("scancel", "")
    put("squeue", "")
    put("scontrol", "exit 1")
    put(
        "sbatch",
        f"cat $1 >> {tmp_path}/submitted\nn=$(ls {tmp_path}/n* 2>/dev/null | wc -l)\n"
        f"touch {tmp_path}/n$n\necho Submitted batch job $((100 + n))",
    )
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return put


def configured(**keys):
    return FinetuneConfig(start="tiny", data="data", added={"a": "a"}, lr=1, steps=1, **keys)


def tasks(root, *names, after=None):
    made = [Task(name, root / "ckpts.finetune" / name, ("train", name), 2, after) for name in names]
    for path in made:
        path.folder.mkdir(parents=True, exist_ok=True)
    return made


def asked_for(root):
    lines = (root / "submitted").read_text().splitlines()
    return [line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH")]


def test_slurm_is_asked_for_what_the_configuration_says(tmp_path, stand_ins):
    keys = {"partition": "h200", "account": "vlm", "time": "2-0", "memory": "64GB", "at_once": 3}
    executor = SlurmExecutor(configured(gpus_per_job=2, slurm={**keys, "extra": {"qos": "low"}}))
    executor.submit(tasks(tmp_path, "start") + tasks(tmp_path, "a", "b", "c", "d", after="start"))
    asked = asked_for(tmp_path)
    for word in ("partition=h200", "account=vlm", "time=2880", "mem=64GB", "gpus-per-node=2", "cpus-per-task=16"):
        assert asked.count(word) == 2, word
    for word in ("qos=low", "requeue", "kill-on-invalid-dep=yes", "signal=TERM@120"):
        assert asked.count(word) == 2, word
    assert [word for word in asked if word.startswith("array")] == ["array=0-3%3"]
    assert [word for word in asked if word.startswith("dependency")] == ["dependency=afterok:100"]
    places = {name: json.loads((tmp_path / "ckpts.finetune" / name / "place.json").read_text()) for name in "abcd"}
    assert [places[name]["job"] for name in "abcd"] == ["101_0", "101_1", "101_2", "101_3"]


def test_the_user_s_own_way_to_ask_for_gpus_comes_first(tmp_path, stand_ins):
    SlurmExecutor(configured(slurm={"extra": {"gres": "gpu:h200:1"}})).submit(tasks(tmp_path, "a"))
    asked = asked_for(tmp_path)
    assert "gres=gpu:h200:1" in asked
    assert not [word for word in asked if word.startswith("gpus")]


def test_what_is_submitted_holds_no_code_of_ours(tmp_path, stand_ins):
    SlurmExecutor(configured()).submit(tasks(tmp_path, "a"))
    (pickle,) = (tmp_path / "ckpts.finetune" / "slurm").glob("*.pkl")
    held = pickle.read_bytes()
    assert b"submitit.core.utils" in held
    assert b"finetune.launching.executors.attempt" in held  # as a word of the command
    assert b"SlurmExecutor" not in held


def test_a_refusal_of_slurm_s_is_told(tmp_path, stand_ins):
    stand_ins("sbatch", "echo 'sbatch: error: invalid partition specified: moon' >&2; exit 1")
    with pytest.raises(FinetuneError, match="invalid partition specified: moon"):
        SlurmExecutor(configured()).submit(tasks(tmp_path, "a"))


def test_jobs_that_slurm_does_not_take_leave_no_folder_of_ingredients(tmp_path, stand_ins):
    stand_ins("sbatch", "echo 'sbatch: error: invalid partition specified: moon' >&2; exit 1")
    with pytest.raises(FinetuneError, match="invalid partition specified: moon"):
        finetune(place(tmp_path), executor="slurm", command=command)
    assert not (tmp_path / "ckpts").exists()


def test_no_answer_of_slurm_s_is_no_sign_that_jobs_are_gone(tmp_path, stand_ins):
    executor = SlurmExecutor(configured(), query_seconds=0.0)
    executor.submit(tasks(tmp_path, "a", "b"))
    stand_ins("squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    assert executor.poll() == []
    stand_ins("squeue", "echo '100_0|RUNNING'")
    assert [ended.name for ended in executor.poll()] == ["b"]
    stand_ins("squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert [ended.name for ended in executor.poll()] == ["a"]


def test_what_slurm_ended_is_told_with_its_word_for_it(tmp_path, stand_ins):
    executor = SlurmExecutor(configured(), query_seconds=0.0)
    executor.submit(tasks(tmp_path, "a"))
    stand_ins("scontrol", "echo JobId=100 JobState=OUT_OF_MEMORY Reason=OutOfMemory")
    assert executor.poll()[0].why == "SLURM ended job 100: OUT_OF_MEMORY (OutOfMemory)"


def test_a_job_that_never_began_is_told_with_slurm_s_own_log(tmp_path, stand_ins):
    executor = SlurmExecutor(configured(), query_seconds=0.0)
    executor.submit(tasks(tmp_path, "a"))
    assert executor.poll()[0].why.endswith(f"{tmp_path}/ckpts.finetune/slurm/100_0_log.out")


def test_a_host_without_slurm_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FinetuneError, match="--executor slurm: Could not detect"):
        SlurmExecutor(configured()).submit(tasks(tmp_path, "a"))
    assert queued(["1"]) is None


PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "squeue")
FOUND = all(shutil.which(name, path=f"{os.environ.get('PATH')}:/usr/sbin") for name in PROGRAMS)
real = pytest.mark.skipif(not FOUND or os.geteuid() != 0, reason="no SLURM here to start, or not root")


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The path of the configuration of a SLURM of one node, which ends with the tests."""
    home = tmp_path_factory.mktemp("slurm")
    host = socket.gethostname()
    for name in ("state", "spool", "munge"):
        (home / name).mkdir(mode=0o700)
    key = home / "munge" / "key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    for number in range(2):
        os.mknod(home / f"gpu{number}", stat.S_IFCHR | 0o600, os.makedev(1, 3))  # as null is: SLURM asks for devices
    (home / "gres.conf").write_text(f"Name=gpu File={home}/gpu[0-1]\n")
    (home / "slurm.conf").write_text(
        f"ClusterName=one\nSlurmctldHost={host}(127.0.0.1)\nSlurmctldPort={free_port()}\nSlurmdPort={free_port()}\n"
        f"AuthType=auth/munge\nAuthInfo=socket={home}/munge/sock,cred_expire=5\nCredType=cred/munge\n"
        f"SlurmUser=root\nSlurmdUser=root\nStateSaveLocation={home}/state\nSlurmdSpoolDir={home}/spool\n"
        f"SlurmctldPidFile={home}/ctld.pid\nSlurmdPidFile={home}/slurmd.pid\nSlurmctldLogFile={home}/ctld.log\n"
        f"SlurmdLogFile={home}/slurmd.log\nProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nMpiDefault=none\n"
        "SwitchType=switch/none\nJobAcctGatherType=jobacct_gather/none\nAccountingStorageType=accounting_storage/none\n"
        "SelectType=select/cons_tres\nSelectTypeParameters=CR_CPU\nReturnToService=2\nKillWait=20\n"
        "PreemptType=preempt/partition_prio\nPreemptMode=REQUEUE\nGresTypes=gpu\n"
        f"NodeName={host} NodeAddr=127.0.0.1 CPUs=2 Gres=gpu:2 State=UNKNOWN\n"
        f"PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP PriorityTier=1\n"
        f"PartitionName=urgent Nodes={host} MaxTime=INFINITE State=UP PriorityTier=10\n"
    )
    munge = [f"--{name}-file={home}/munge/{name}" for name in ("key", "pid", "log", "seed")]
    daemons = [
        ["munged", "--foreground", "--force", f"--socket={home}/munge/sock", *munge],
        ["slurmctld", "-D", "-i"],
        ["slurmd", "-D", "-N", host],
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(home / "slurm.conf"))
        patch.setenv("PATH", f"{os.environ['PATH']}:/usr/sbin")
        running = [started(words, home) for words in daemons]
        try:
            wait_for(lambda: "idle" in subprocess.run(["sinfo"], capture_output=True, text=True, check=False).stdout)
            yield home
        finally:
            subprocess.run(["scancel", "--user=root"], check=False)  # what a failed test left
            with suppress(AssertionError):
                wait_for(no_jobs, 40)
            for process in reversed(running):
                process.terminate()
            for process in running:
                process.wait(timeout=30)


def started(words, home):
    with (home / f"{words[0]}.out").open("w") as out:
        process = subprocess.Popen(words, stdout=out, stderr=out)
    time.sleep(1)
    return process


@pytest.fixture
def asking(cluster, monkeypatch):
    monkeypatch.setattr(slurm, "QUERY_SECONDS", 0.5)
    return cluster


def no_jobs():
    return not subprocess.run(["squeue", "-h"], capture_output=True, text=True, check=True).stdout


@real
@pytest.mark.slow
def test_the_array_waits_for_the_start_and_one_failure_stops_no_other(asking, tmp_path):
    path = place(tmp_path, STAGE + SLURM, b="fail")
    with pytest.raises(FinetuneError, match="b failed: out of luck") as error:
        finetune(path, command=command)
    assert "3 of 4 jobs done; not done:" in str(error.value)
    begins, ends = seen(tmp_path), seen(tmp_path, "end")
    assert begins[0]["name"] == ends[0]["name"] == "start"
    assert all(line["at"] > ends[0]["at"] for line in begins[1:])
    assert all(line["SLURM_JOB_ID"] for line in begins)
    set_moods(tmp_path)
    assert finetune(path, command=command) == [tmp_path / "ckpts" / name for name in NAMES]
    assert [line["name"] for line in seen(tmp_path)][4:] == ["b"]


@real
@pytest.mark.slow
def test_when_the_start_fails_slurm_drops_the_others(asking, tmp_path):
    with pytest.raises(FinetuneError) as error:
        finetune(place(tmp_path, STAGE + SLURM, start="fail"), command=command)
    assert "start failed: out of luck" in str(error.value)
    assert all(f"{name} not started: its start, start, failed" in str(error.value) for name in NAMES)
    wait_for(no_jobs)


@real
@pytest.mark.slow
def test_a_job_has_the_gpus_that_slurm_gives_it(asking, tmp_path):
    finetune(place(tmp_path, CONFIG + SLURM.replace("gpus_per_job: 0", "gpus_per_job: 1")), command=command)
    assert {line["CUDA_VISIBLE_DEVICES"] for line in seen(tmp_path)} <= {"0", "1"}


@real
@pytest.mark.slow
def test_a_preempted_job_writes_a_checkpoint_is_queued_again_and_goes_on(asking, tmp_path):
    config = CONFIG.replace("steps: 20", "steps: 200").replace(", b: data/b, c: data/c", "")
    path = place(tmp_path, config + SLURM.replace("cpus_per_gpu: 1", "cpus_per_gpu: 2"), a="slow at first")
    urgent = ["sbatch", "-p", "urgent", "-c", "2", "-o", "/dev/null", "--wrap", "sleep 1"]
    preempted = []

    def board(rows):
        if not preempted and rows[0].state == "running" and rows[0].step > 3:
            preempted.append(subprocess.run(urgent, check=True, capture_output=True))

    finetune(path, command=command, listener=LaunchProgress(board=board))
    first, second = seen(tmp_path)
    assert preempted
    assert first["first"] == 0
    assert second["first"] > 3


@real
@pytest.mark.slow
def test_an_interrupt_stops_what_runs_and_cancels_what_waits(asking, tmp_path):
    config = CONFIG.replace("steps: 20", "steps: 2000")
    path = place(tmp_path, config + SLURM.replace("cpus_per_gpu: 1", "cpus_per_gpu: 2"), a="slow")
    with pytest.raises(KeyboardInterrupt):
        finetune(path, command=command, listener=LaunchProgress(board=interrupt_when("a")))
    wait_for(no_jobs)
    assert state(tmp_path, "a")["phase"] == "stopped"
    assert [line["name"] for line in seen(tmp_path)] == ["a"]


@real
@pytest.mark.slow
def test_jobs_outlive_their_launcher_and_the_next_one_adopts_them(asking, tmp_path):
    path = place(tmp_path, CONFIG.replace("steps: 20", "steps: 200") + SLURM, a="slow", b="slow")
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tests.helpers import stand_in_jobs\n"
        f"from finetune.launching.launch import finetune; finetune({str(path)!r}, command=stand_in_jobs.command)"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    wait_for(lambda: len(seen(tmp_path)) == 2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    rows = {row.name: row.state for row in status(path)}
    assert (rows["a"], rows["b"], rows["c"]) == ("running", "running", "waiting")
    said = []
    with pytest.raises(FinetuneError, match=r"a on slurm \(job"):
        finetune(path, executor="local", command=command)
    finetune(path, command=command, listener=LaunchProgress(say=said.append))
    assert [text.partition(":")[0] for text in said if "still runs" in text] == NAMES
    assert sorted(line["name"] for line in seen(tmp_path)) == NAMES
