"""This host: its GPUs as slots of `gpus_per_job`, or `jobs_at_once` processes where it has none.

Each job is a process in a session of its own, so that Ctrl-C reaches the launcher alone, which passes it on in order. A
launcher that dies leaves its jobs running; the next one adopts them.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

from finetune.config import FinetuneConfig
from finetune.jobs import attempt_end
from finetune.launching.executors.liveness import is_alive
from finetune.launching.executors.processes import (
    end_leftovers,
    is_running,
    job_process,
    kill_tree,
    start_time,
    stop_gently,
)
from finetune.launching.executors.protocol import Placement, Task, TaskExit, read_placement, write_placement
from soup.errors import FinetuneError
from soup.support.text import pluralize
from soup.support.threads import count_cores

__all__ = ["Gpu", "LocalExecutor", "local_gpus"]

# What a job's log says when its GPU is gone: the next job on it would fail, too.
LOST_GPU = ("GPU is lost", "fallen off the bus", "no CUDA-capable device", "uncorrectable ECC", "CUDA error: unknown")
SHUTDOWN_SECONDS = 3600  # torchrun kills its workers after 30 otherwise, in the midst of a large checkpoint


@dataclass(frozen=True)
class Gpu:
    """A GPU as CUDA_VISIBLE_DEVICES names it, and its memory, where the driver tells."""

    name: str
    memory_bytes: int | None = None


def local_gpus() -> list[Gpu]:
    """Give the GPUs that jobs may use: those of CUDA_VISIBLE_DEVICES, else all that the driver lists."""
    known = {}
    with suppress(OSError, subprocess.SubprocessError):
        query = ["nvidia-smi", "--query-gpu=index,uuid,memory.total", "--format=csv,noheader,nounits"]
        output = subprocess.run(query, capture_output=True, text=True, timeout=60, check=True).stdout
        for line in output.splitlines():
            words = [word.strip() for word in line.split(",")]
            if len(words) == 3 and words[0].isdecimal():
                index, uuid, mebibytes = words  # "[N/A]" where a GPU shares the host's memory
                memory_bytes = int(mebibytes) * 2**20 if mebibytes.isdecimal() else None
                known[index] = known[uuid] = Gpu(index, memory_bytes)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return list(dict.fromkeys(known.values()))
    names = [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    return [Gpu(name, known[name].memory_bytes if name in known else None) for name in names]


@dataclass
class _RunningTask:
    task: Task
    slot: str | None
    process: subprocess.Popen[bytes] | psutil.Process
    stopped: bool = False

    def code(self) -> int | None:
        """Return the exit code of a child that is over; None while it runs."""
        return self.process.poll() if isinstance(self.process, subprocess.Popen) else None

    @property
    def is_over(self) -> bool:
        if isinstance(self.process, subprocess.Popen):
            return self.process.poll() is not None
        return not is_running(self.process.pid, self.process.create_time())


@dataclass
class LocalExecutor:
    """A pool of slots on this host, and the queue before it."""

    config: FinetuneConfig
    address: str = ""
    chains: bool = False
    pause_seconds: float = 0.1
    _queue: list[Task] = field(default_factory=list)
    _running: list[_RunningTask] = field(default_factory=list)
    _ended: list[TaskExit] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.gpus = [gpu.name for gpu in local_gpus()] if self.config.gpus_per_job else []
        self._free = self._slots()
        self.size = len(self._free)

    def _slots(self) -> list[str]:
        """Return the value of CUDA_VISIBLE_DEVICES for each job that can run at a time."""
        most, each = self.config.jobs_at_once, self.config.gpus_per_job
        if not self.gpus:
            return [""] * (most or 1)
        groups = [self.gpus[i : i + each] for i in range(0, len(self.gpus) - each + 1, each)]
        return [",".join(group) for group in groups][:most]

    def describe(self) -> str:
        """Name the slots that there are."""
        if not self.gpus:
            return f"the CPU of this host, {self.size} at a time"
        if not self.size:
            raise FinetuneError(
                f"gpus_per_job: {self.config.gpus_per_job}, but this host has {len(self.gpus)} "
                f"({', '.join(self.gpus)}). Lower it, or go elsewhere: --executor slurm, --executor ray:ADDRESS."
            )
        gpus = pluralize(len(self.gpus), "GPU")
        return f"{gpus} of this host, {self.config.gpus_per_job} a job, {self.size} at a time"

    def adopt(self, task: Task) -> bool:
        """Watch a process of an earlier launcher that still runs; it keeps its slot where that is free."""
        process = job_process(task.folder)
        placement = read_placement(task.folder) or Placement()
        if placement.get("on", "local") != "local" and is_alive(task.folder):
            return False  # it is another executor's, even if that runs it here
        if placement.get("on") == "local" and placement["host"] == os.uname().nodename:
            process = placement["pid"] if is_running(placement["pid"], placement["born"]) else process
        if process is None:
            return False
        slot = placement["slot"] if placement.get("slot") in self._free else next(iter(self._free), None)
        if slot is not None:  # an earlier launcher may have had more slots
            self._free.remove(slot)
        self._running.append(_RunningTask(task, slot, psutil.Process(process)))
        return True

    def submit(self, tasks: Sequence[Task]) -> None:
        """Queue tasks behind those that wait."""
        self._queue += tasks
        self._fill()

    def poll(self) -> list[TaskExit]:
        """Give what ended since the last call, and fill the free slots again."""
        for run in [run for run in self._running if run.is_over]:
            self._running.remove(run)
            self._ended.append(TaskExit(run.task.name, run.code()))
            end_leftovers(run.task.folder)
            if _lost_gpu(run):
                self._ended += self._retire(run.slot)
            elif run.slot is not None:
                self._free.append(run.slot)
        self._fill()
        ended, self._ended = self._ended, []
        return ended

    def _retire(self, slot: str | None) -> list[TaskExit]:
        """Never use a slot again; without any left, what waits can't be run."""
        if self._free or self._running:
            return []
        waiting, self._queue = self._queue, []
        return [
            TaskExit(task.name, None, f"not started: GPU {slot} is lost, and there is no other") for task in waiting
        ]

    def _fill(self) -> None:
        while self._queue and self._free:
            self._start(self._queue.pop(0), self._free.pop(0))

    def _start(self, task: Task, slot: str) -> None:
        try:
            with task.log.open("a", encoding="utf-8") as log:
                process = subprocess.Popen(
                    task.command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    env=self._environment(slot),
                )
        except OSError as error:  # the disk is full, or the command is not there: this job's failure alone
            self._ended.append(TaskExit(task.name, None, f"could not be started: {error}"))
            self._free.append(slot)
            return
        self._running.append(_RunningTask(task, slot, process))
        with suppress(OSError):  # without the file the job runs as well
            pid, host = process.pid, os.uname().nodename
            write_placement(task, {"on": "local", "host": host, "pid": pid, "born": start_time(pid), "slot": slot})

    def _environment(self, slot: str) -> dict[str, str]:
        # PYTHONSAFEPATH: a file called `random.py` in the user's directory is none of the job's business.
        variables = {"PYTHONSAFEPATH": "1", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(SHUTDOWN_SECONDS)}
        if self.gpus:
            variables["CUDA_VISIBLE_DEVICES"] = slot
        elif self.size > 1 and "OMP_NUM_THREADS" not in os.environ:
            variables["OMP_NUM_THREADS"] = str(max(1, count_cores() // self.size))
        return {**os.environ, **variables}

    def stop(self) -> None:
        """SIGTERM to all processes; what is queued is given as ended."""
        self._drop_queue()
        for run in self._running:
            if not run.stopped:
                run.stopped = True
                stop_gently(run.process.pid, run.task.folder)

    def _drop_queue(self) -> None:
        self._ended += [TaskExit(task.name, 143, "not started") for task in self._queue]
        self._queue = []

    def kill(self) -> None:
        """SIGKILL to all processes and all that they started."""
        self._drop_queue()
        for run in self._running:
            run.stopped = True
            kill_tree(run.process.pid)

    def close(self) -> None:
        """Wait for children that were killed: no zombie is left."""
        for run in self._running:
            if isinstance(run.process, subprocess.Popen) and run.stopped:
                run.process.wait()


def _lost_gpu(run: _RunningTask) -> bool:
    if not run.slot or run.code() == 0:
        return False
    return any(word in attempt_end(run.task.folder, 60) for word in LOST_GPU)
