"""All jobs of a configuration, over whatever devices there are: the start where it is to be trained, then the rest.

A job that was done is known by the digest in its `finetune.json`, which covers settings, data and start: typing the
same command again goes on where it stopped. One job's failure never stops another's; the end tells of all of them.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from finetune.jobs import START, Job, State, job_command, log_tail, read_stamp, read_state, write_state
from finetune.launching.executors.attempt import clear_requests
from finetune.launching.executors.liveness import is_alive
from finetune.launching.executors.processes import read_launcher, remove_launcher, write_launcher
from finetune.launching.executors.protocol import Executor, Task, TaskExit, read_placement
from finetune.launching.executors.registry import open_executor
from finetune.launching.job_plans import Standing, Survey, snapshots, survey
from finetune.launching.outcomes import Ending, judge
from finetune.launching.status import Row, row_of
from soup.errors import FinetuneError
from soup.support.file_lock import FileLock
from soup.support.text import bullet_list

__all__ = ["LaunchProgress", "finetune"]

BOARD_SECONDS = 0.5
SILENT_SECONDS = 900  # without a word from another machine for so long, a job there is taken for gone
Command = Callable[[Job, int], Sequence[str]]
"""From a job and its number of GPUs to what is run."""


def _nothing(*told: Any) -> None:
    pass


@dataclass(frozen=True)
class LaunchProgress:
    """Who is told: of a line of talk, a remark, and how all jobs are, twice a second."""

    say: Callable[[str], object] = _nothing
    warn: Callable[[str], object] = _nothing
    board: Callable[[Sequence[Row]], object] = _nothing


def finetune(
    config_path: Path | str,
    *,
    executor: str | None = None,
    progress: Callable[[str, int, int, float], object] | None = None,
    listener: LaunchProgress | None = None,
    command: Command = job_command,
) -> list[Path]:
    """Train what the configuration asks for and is not there yet, and give the ingredients' directories.

    An interrupt is passed on to the jobs, each of which writes a checkpoint; a second one ends them at once.

    Args:
        config_path: the YAML file.
        executor: where jobs run: `local`, `slurm`, `ray` or `ray:ADDRESS`; by default as the configuration has it.
        progress: called with a job's name, step, steps and loss as it comes on; of a job that was done before, once,
            with all its steps and its last loss.
        listener: what else is told, for people.
        command: what trains a job on so many GPUs.

    Raises:
        FinetuneError: a wrong configuration, missing data, another launcher at work, or jobs that failed: with the end
            of each one's log, and its path.
        OutputError: the disk is too small for the ingredients.
        KeyboardInterrupt: after an interrupt, when all jobs have ended.
    """
    root = Path(config_path).parent
    found = survey(config_path)
    listener = listener or LaunchProgress()
    for remark in found.remarks:
        listener.warn(remark)
    where = open_executor(executor or found.config.executor, found.config)
    with _alone(found):
        _Launch(found, where, listener, progress or _nothing, command).run()
    made = [path for one in found.jobs if one.job.name != START for path in [*snapshots(one.job), one.job.out]]
    return [root / found.config.root / path.relative_to(found.root) for path in made]


@contextmanager
def _alone(found: Survey) -> Iterator[None]:
    """Keeps a second launcher from the same jobs.

    Raises:
        FinetuneError: there is one already, or nothing can be written there.
    """
    try:
        found.folder.mkdir(parents=True, exist_ok=True)
        for out in {one.job.out.parent for one in found.jobs}:
            out.mkdir(parents=True, exist_ok=True)
            if not os.access(out, os.W_OK | os.X_OK):
                raise FinetuneError(f"{out}: no permission to write there. Name another `out`.")
        lock = FileLock.take(found.folder)
        who = read_launcher(found.folder) or "who it is can't be seen from here"
        if lock is not None:
            write_launcher(found.folder)
    except OSError as error:
        raise FinetuneError(f"{error.filename}: can't be written ({error.strerror}). Name another `out`.") from error
    if lock is None:
        raise FinetuneError(
            f"{found.folder}: another soup finetune is at work there ({who}). Its --status shows how far it is."
        )
    try:
        yield
    finally:
        remove_launcher(found.folder)
        lock.release()


@dataclass
class _Launch:
    """The jobs under way, until each has an ending."""

    found: Survey
    executor: Executor
    listener: LaunchProgress
    progress: Callable[..., object]
    command: Command
    endings: dict[str, Ending] = field(default_factory=dict)
    told: dict[str, int] = field(default_factory=dict)
    before: dict[str, State | None] = field(default_factory=dict)
    held: list[Standing] = field(default_factory=list)
    under_way: dict[str, Standing] = field(default_factory=dict)
    asked: bool = False
    painted: float = 0.0

    def run(self) -> None:
        """Run all jobs that are not done.

        Raises:
            FinetuneError: some failed.
        """
        for one in self.found.jobs:
            if self._is_done(one):
                self.endings[one.job.name] = Ending("done")
                self._tell(one.job)
        todo = [one for one in self.found.jobs if one.job.name not in self.endings]
        if todo:
            self.listener.say(f"{len(todo)} of {len(self.found.jobs)} jobs, on {self.executor.describe()}")
            self._run(todo)
        failed = [one for one in self.found.jobs if self.endings[one.job.name].phase != "done"]
        if failed:
            raise FinetuneError(self._report(failed))

    def _is_done(self, one: Standing) -> bool:
        return one.plan == "done" or (read_stamp(one.job.out) or {}).get("digest") == one.digest

    def _run(self, todo: list[Standing]) -> None:
        try:
            try:
                self._begin(todo)
                self._watch()
            except KeyboardInterrupt:
                self._stop()
                raise
        finally:
            self.executor.close()

    def _begin(self, todo: list[Standing]) -> None:
        """Take over what still runs, make the other jobs' folders ready, and hand over those that may begin.

        Raises:
            FinetuneError: a job still runs where this executor does not reach.
        """
        for one in todo:
            if self.executor.adopt(self._task(one)):
                self.under_way[one.job.name] = one
                self.listener.say(f"{one.job.name}: still runs from an earlier call")
        others = [one for one in todo if one.job.name not in self.under_way]
        elsewhere = [f"{one.job.name} {where}" for one in others if (where := _elsewhere(one.job.folder))]
        if elsewhere:
            raise FinetuneError(
                f"{len(elsewhere)} jobs still run or wait where an earlier call put them. "
                f"Go on there (--executor), or end them first:\n{bullet_list(elsewhere)}"
            )
        for one in others:
            _prepare(one)
            self.before[one.job.name] = read_state(one.job.folder)
        self.held += others
        self._submit_ready()

    def _submit_ready(self) -> None:
        """Hand over what waits for nothing; an executor that chains is given all of it."""
        ready = [one for one in self.held if self.executor.chains or self._may_begin(one.job)]
        self.held = [one for one in self.held if one not in ready]
        self.under_way |= {one.job.name: one for one in ready}
        if ready:
            self.executor.submit([self._task(one) for one in ready])

    def _may_begin(self, job: Job) -> bool:
        return job.after is None or (job.after in self.endings and self.endings[job.after].phase == "done")

    def _task(self, one: Standing) -> Task:
        gpus = self.found.config.gpus_per_job
        after = None if self._may_begin(one.job) else one.job.after
        return Task(one.job.name, one.job.folder, tuple(self.command(one.job, gpus)), gpus, after)

    def _watch(self) -> None:
        """Wait until nothing is under way."""
        while self.under_way:
            for ended in self.executor.poll():
                self._end(ended)
            self._paint()
            if self.under_way:
                time.sleep(self.executor.pause_seconds)
        self._paint(last=True)

    def _end(self, ended: TaskExit) -> None:
        one = self.under_way.pop(ended.name, None)
        if one is None:
            return
        ending = judge(one.job, one.digest, ended, self.before.get(ended.name), asked=self.asked)
        before = self.endings.get(one.job.after or "")
        if before and before.phase != "done" and ending.phase != "done":
            ending = Ending("not started", f"its start, {one.job.after}, {before.phase}")
        self.endings[one.job.name] = ending
        if ending.phase == "done":
            self._tell(one.job)
        else:
            _note(one.job, ending)
            first = ending.why.partition("\n")[0].removesuffix(":")
            self.listener.say(f"  {one.job.name}: {ending.phase}: {first}")
        self._release(one.job, ending)

    def _release(self, job: Job, ending: Ending) -> None:
        """Those that waited for a job can begin, or never will."""
        if ending.phase == "done" and not self.asked:
            self._submit_ready()
            return
        for one in [one for one in self.held if one.job.after == job.name]:
            self.held.remove(one)
            self.endings[one.job.name] = Ending("not started", f"its start, {job.name}, {ending.phase}")

    def _stop(self) -> None:
        """Pass an interrupt on, and wait for the jobs' checkpoints; a second interrupt ends them at once."""
        self.asked = True
        running = len(self.under_way)
        self.listener.say(f"stopping {running} jobs, each after a checkpoint; interrupt again to end them at once")
        try:
            self.executor.stop()
            self._watch()
        except KeyboardInterrupt:
            self.listener.say("ending all jobs at once")
            self.executor.kill()
            self._watch()

    def _paint(self, last: bool = False) -> None:
        """Tell how far all jobs are, not too often."""
        now = time.monotonic()
        if now - self.painted < BOARD_SECONDS and not last:
            return
        self.painted = now
        for one in self.under_way.values():
            self._tell(one.job)
        self.listener.board([row_of(one.job, self._alive) for one in self.found.jobs])

    def _alive(self, folder: Path) -> bool:
        names = {*self.under_way, *(one.job.name for one in self.held)}
        return any(one.job.folder == folder and one.job.name in names for one in self.found.jobs)

    def _tell(self, job: Job) -> None:
        """Pass on how far a job is, when it moved."""
        state, stamp = read_state(job.folder), read_stamp(job.out) or {}
        done = job.name in self.endings
        step, steps = (state.step, state.steps) if state else (0, 0)
        if done:
            steps = steps or stamp.get("steps") or 0
            step = steps
        loss = state.loss if state and state.loss is not None else stamp.get("last_loss", float("nan"))
        if steps and step and self.told.get(job.name) != step:
            self.told[job.name] = step
            self.progress(job.name, step, steps, loss)

    def _report(self, failed: Sequence[Standing]) -> str:
        """What failed, each with the end of its log and its path."""
        words = []
        for one in failed:
            ending, log = self.endings[one.job.name], one.job.folder / "log.txt"
            words.append(f"{one.job.name} {ending.phase}: {ending.why}")
            if ending.phase == "not started" or not log.is_file():
                continue
            if tail := _beyond(log_tail(one.job.folder), ending.why):
                words.append("  the end of its log:\n" + "\n".join(f"    {line}" for line in tail))
            words.append(f"  all of it: {log}")
        done = len(self.found.jobs) - len(failed)
        mend = any(self.endings[one.job.name].phase == "failed" for one in failed)
        again = f"{'When that is mended, the' if mend else 'The'} same command goes on with what is not done."
        return f"{len(failed)} of {len(self.found.jobs)} jobs are not done, {done} are.\n" + "\n".join([*words, again])


def _beyond(tail: str, why: str) -> list[str]:
    """The last lines of a log, without the words that it ends with if they are told already."""
    lines, told = tail.splitlines(), why.splitlines()
    common = min(len(lines), len(told))
    return lines[: len(lines) - common] if common and lines[-common:] == told[-common:] else lines


def _elsewhere(folder: Path) -> str | None:
    """Where a job still runs or waits, in words; None if it does not, as far as that can be seen from here."""
    placement, state = read_placement(folder), read_state(folder)
    alive = is_alive(folder) if placement else False
    recent = state and state.phase == "running" and time.time() - (state.updated or 0) < SILENT_SECONDS
    if placement is None or not (alive or (alive is None and recent)):
        return None
    if placement["on"] == "slurm":
        return f"on slurm (job {placement['job']})"
    if placement["on"] == "ray":
        return f"on ray (address {placement['address']})"
    return f"on local (host {placement['host']})"


def _prepare(one: Standing) -> None:
    """Make a job's folder ready for an attempt; what was begun there otherwise is set aside, never resumed."""
    folder = one.job.folder
    if one.plan == "anew":
        number = 1
        while folder.with_name(f"{folder.name}~{number}").exists():
            number += 1
        folder.rename(folder.with_name(f"{folder.name}~{number}"))
    elif one.plan == "begin":
        (folder / "state.json").unlink(missing_ok=True)
    one.job.write(one.digest)
    clear_requests(folder)
    if read_state(folder) is None:
        write_state(folder, State("waiting", steps=one.job.settings.steps or 0))


def _note(job: Job, ending: Ending) -> None:
    """Put down what the job itself could not say."""
    state = read_state(job.folder) or State("waiting")
    if state.phase not in ("failed", "stopped") and ending.phase in ("failed", "stopped"):
        write_state(job.folder, replace(state, phase=ending.phase, why=ending.why))
