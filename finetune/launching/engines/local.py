"""This host: its GPUs as slots of `gpus_per_job`, or `jobs_at_once` processes where it has none.

Each job is a process in a session of its own, so that Ctrl-C reaches the launcher alone, which passes it on in order. A
launcher that dies leaves its jobs running; the next one adopts them.
"""

import os
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

from finetune.config import FinetuneConfig
from finetune.jobs import log_tail
from finetune.launching.engines import Ended, Task, is_alive, read_place, write_place
from finetune.launching.engines.processes import born, end_leftovers, is_running, job_process, kill_family, stop_gently
from soup.errors import FinetuneError

__all__ = ["Gpu", "LocalEngine", "gpus_here"]

# What a job's log says when its GPU is gone: the next job on it would fail, too.
LOST_GPU = ("GPU is lost", "fallen off the bus", "no CUDA-capable device", "uncorrectable ECC", "CUDA error: unknown")
SHUTDOWN_SECONDS = 3600  # torchrun kills its workers after 30 otherwise, in the midst of a large checkpoint


@dataclass(frozen=True)
class Gpu:
    """A GPU as CUDA_VISIBLE_DEVICES names it, and its memory, where the driver tells."""

    name: str
    memory_bytes: int | None = None


def gpus_here() -> list[Gpu]:
    """The GPUs that jobs may use: those of CUDA_VISIBLE_DEVICES, else all that the driver lists."""
    known = {}
    with suppress(OSError, subprocess.SubprocessError, ValueError):
        asked = ["nvidia-smi", "--query-gpu=index,uuid,memory.total", "--format=csv,noheader,nounits"]
        said = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=True).stdout
        for line in said.splitlines():
            index, uuid, mebibytes = (word.strip() for word in line.split(","))
            known[index] = known[uuid] = Gpu(index, int(mebibytes) * 2**20)
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return list(dict.fromkeys(known.values()))
    names = [name.strip() for name in named.split(",") if name.strip() not in ("", "-1")]
    return [Gpu(name, known[name].memory_bytes if name in known else None) for name in names]


@dataclass
class _Run:
    task: Task
    slot: str
    process: subprocess.Popen[bytes] | psutil.Process
    stopped: bool = False

    def code(self) -> int | None:
        """The exit code of a child that is over; None while it runs."""
        return self.process.poll() if isinstance(self.process, subprocess.Popen) else None

    @property
    def over(self) -> bool:
        if isinstance(self.process, subprocess.Popen):
            return self.process.poll() is not None
        return not is_running(self.process.pid, self.process.create_time())


@dataclass
class LocalEngine:
    """A pool of slots on this host, and the queue before it."""

    config: FinetuneConfig
    address: str = ""
    chains: bool = False
    pause_seconds: float = 0.1
    _queue: list[Task] = field(default_factory=list)
    _running: list[_Run] = field(default_factory=list)
    _ended: list[Ended] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.gpus = [gpu.name for gpu in gpus_here()] if self.config.gpus_per_job else []
        self._free = self._slots()
        self.size = len(self._free)

    def _slots(self) -> list[str]:
        """What CUDA_VISIBLE_DEVICES is for each job that can run at a time."""
        most, each = self.config.jobs_at_once, self.config.gpus_per_job
        if not self.gpus:
            return [""] * (most or 1)
        groups = [self.gpus[i : i + each] for i in range(0, len(self.gpus) - each + 1, each)]
        return [",".join(group) for group in groups][:most]

    def describe(self) -> str:
        """Which slots there are."""
        if not self.gpus:
            return f"the CPU of this host, {self.size} at a time"
        if not self.size:
            raise FinetuneError(
                f"gpus_per_job: {self.config.gpus_per_job}, but this host has {len(self.gpus)} "
                f"({', '.join(self.gpus)}). Lower it, or go elsewhere: --executor slurm, --executor ray:ADDRESS."
            )
        return f"{len(self.gpus)} GPUs of this host, {self.config.gpus_per_job} a job, {self.size} at a time"

    def adopt(self, task: Task) -> bool:
        """Watch a process of an earlier launcher that still runs; it holds a slot, its own where that is free."""
        process = job_process(task.folder)
        place = read_place(task.folder) or {}
        if place.get("on", "local") != "local" and is_alive(task.folder):
            return False  # it is another engine's, even if that runs it here
        if place.get("on") == "local" and place["host"] == os.uname().nodename:
            process = place["pid"] if is_running(place["pid"], place["born"]) else process
        if process is None:
            return False
        slot = place["slot"] if place.get("slot") in self._free else next(iter(self._free), "")
        with suppress(ValueError):
            self._free.remove(slot)
        self._running.append(_Run(task, slot, psutil.Process(process)))
        return True

    def submit(self, tasks: Sequence[Task]) -> None:
        """Queue tasks behind those that wait."""
        self._queue += tasks
        self._fill()

    def poll(self) -> list[Ended]:
        """What ended since the last call; free slots are filled again."""
        for run in [run for run in self._running if run.over]:
            self._running.remove(run)
            self._ended.append(Ended(run.task.name, run.code()))
            end_leftovers(run.task.folder)
            if _lost_its_gpu(run):
                self._ended += self._retire(run.slot)
            else:
                self._free.append(run.slot)
        self._fill()
        ended, self._ended = self._ended, []
        return ended

    def _retire(self, slot: str) -> list[Ended]:
        """Never use a slot again; without any left, what waits can't be run."""
        if self._free or self._running:
            return []
        waiting, self._queue = self._queue, []
        return [Ended(task.name, None, f"not started: GPU {slot} is lost, and there is no other") for task in waiting]

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
            self._ended.append(Ended(task.name, None, f"could not be started: {error}"))
            self._free.append(slot)
            return
        self._running.append(_Run(task, slot, process))
        with suppress(OSError):  # without a note of it the job runs as well
            pid = process.pid
            write_place(task, "local", host=os.uname().nodename, pid=pid, born=born(pid), slot=slot)

    def _environment(self, slot: str) -> dict[str, str]:
        # PYTHONSAFEPATH: a file called `random.py` in the user's directory is none of the job's business.
        own = {"PYTHONSAFEPATH": "1", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(SHUTDOWN_SECONDS)}
        if self.gpus:
            own["CUDA_VISIBLE_DEVICES"] = slot
        elif self.size > 1 and "OMP_NUM_THREADS" not in os.environ:
            own["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // self.size))
        return {**os.environ, **own}

    def stop(self) -> None:
        """SIGTERM to all processes; what is queued is told as ended."""
        self._drop_queue()
        for run in self._running:
            if not run.stopped:
                run.stopped = True
                stop_gently(run.process.pid, run.task.folder)

    def _drop_queue(self) -> None:
        self._ended += [Ended(task.name, 143, "not started") for task in self._queue]
        self._queue = []

    def kill(self) -> None:
        """SIGKILL to all processes and all that came from them."""
        self._drop_queue()
        for run in self._running:
            run.stopped = True
            kill_family(run.process.pid)

    def close(self) -> None:
        """Wait for children that were killed: no zombie is left."""
        for run in self._running:
            if isinstance(run.process, subprocess.Popen) and run.stopped:
                run.process.wait()


def _lost_its_gpu(run: _Run) -> bool:
    if not run.slot or run.code() == 0:
        return False
    return any(word in log_tail(run.task.folder, 60) for word in LOST_GPU)
