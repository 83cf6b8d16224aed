"""All jobs of a configuration, over whatever devices there are: the start where it is to be trained, then the rest.

A job that was done is known by the digest in its `finetune.json`, which covers settings, data and start: typing the
same command again goes on where it stopped. One job's failure never stops another's; the end reports all of them.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from finetune.jobs import (
    START,
    Job,
    JobStatus,
    State,
    has_digest,
    job_command,
    read_stamp,
    read_state,
)
from finetune.launching.executors.processes import read_launcher, remove_launcher, write_launcher
from finetune.launching.executors.protocol import Executor, Task, TaskExit
from finetune.launching.executors.registry import open_executor
from finetune.launching.job_folders import prepare_folder, where_it_runs, write_outcome
from finetune.launching.job_plans import JobAction, JobPlan, LaunchPlan, plan_launch, snapshots
from finetune.launching.outcomes import JobOutcome, classify_exit, failure_report, rows_left_out
from finetune.launching.status import JobRow, job_row
from soup.errors import FinetuneError
from soup.support.file_lock import FileLock
from soup.support.text import bullet_list, pluralize

__all__ = ["LOCK", "LaunchProgress", "finetune"]

HANGUP = getattr(signal, "SIGHUP", None)
LOCK = "launcher.lock"
"""The file in a launch's folder that its launcher holds locked."""
REFRESH_SECONDS = 0.5
Command = Callable[[Job, int], Sequence[str]]
"""From a job and its number of GPUs to what is run."""
OnStep = Callable[[str, int, int, float], object]
"""Called with a job's name, step, steps and loss."""


def _ignore(*values: object) -> None:
    pass


@dataclass(frozen=True)
class LaunchProgress:
    """What a launch calls: with a line for people, a remark, and how all jobs are, twice a second."""

    say: Callable[[str], object] = _ignore
    warn: Callable[[str], object] = _ignore
    board: Callable[[Sequence[JobRow]], object] = _ignore


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
        listener: what else is called, for people.
        command: what trains a job on so many GPUs.

    Raises:
        FinetuneError: a wrong configuration, missing data, another launcher at work, or jobs that failed: with the end
            of each one's log, and its path.
        OutputError: the disk is too small for the ingredients.
        KeyboardInterrupt: after an interrupt, when all jobs have ended.
    """
    root = Path(config_path).parent
    plan = plan_launch(config_path)
    listener = listener or LaunchProgress()
    for remark in plan.remarks:
        listener.warn(remark)
    opened = open_executor(executor or plan.config.executor, plan.config)
    with _only_launcher(plan):
        _Launch(plan, opened, listener, progress or _ignore, command).run()
    outputs = [path for each in plan.jobs if each.job.name != START for path in [*snapshots(each.job), each.job.out]]
    return [root / plan.config.root / path.relative_to(plan.root) for path in outputs]


@contextmanager
def _only_launcher(plan: LaunchPlan) -> Iterator[None]:
    """Keep a second launcher from the same jobs; a pool's folder in which no job left anything does not stay.

    Raises:
        FinetuneError: there is one already, or nothing can be written there.
    """
    new_folders = {each.job.out.parent for each in plan.jobs if not each.job.out.parent.exists()}
    try:
        plan.folder.mkdir(parents=True, exist_ok=True)
        for out in {each.job.out.parent for each in plan.jobs}:
            out.mkdir(parents=True, exist_ok=True)
            if not os.access(out, os.W_OK | os.X_OK):
                raise FinetuneError(f"{out}: no permission to write there. Name another `out`.")
        lock = FileLock.take(plan.folder / LOCK, temporary=True)
        launcher = read_launcher(plan.folder) or "who it is can't be seen from here"
        if lock is not None:
            write_launcher(plan.folder)
    except OSError as error:
        raise FinetuneError(f"{error.filename}: can't be written ({error.strerror}). Name another `out`.") from error
    if lock is None:
        raise FinetuneError(
            f"{plan.folder}: another soup finetune is at work there ({launcher}). Its --status shows how far it is."
        )
    try:
        yield
    finally:
        for folder in new_folders:
            with suppress(OSError):
                folder.rmdir()  # which fails where there is an ingredient
        remove_launcher(plan.folder)
        lock.release()


@dataclass
class _Launch:
    """The jobs under way, until each has an outcome. Dictionaries are by the jobs' names."""

    plan: LaunchPlan
    executor: Executor
    listener: LaunchProgress
    progress: OnStep
    command: Command
    outcomes: dict[str, JobOutcome] = field(default_factory=dict)
    reported_steps: dict[str, int] = field(default_factory=dict)
    states_before: dict[str, State | None] = field(default_factory=dict)
    waiting: list[JobPlan] = field(default_factory=list)
    under_way: dict[str, JobPlan] = field(default_factory=dict)
    interrupted: bool = False
    refreshed: float = 0.0

    def run(self) -> None:
        """Run all jobs that are not done.

        Raises:
            FinetuneError: some failed.
        """
        for plan in self.plan.jobs:
            if plan.action == JobAction.SKIP or has_digest(plan.job.out, plan.digest):
                self.outcomes[plan.job.name] = JobOutcome(JobStatus.DONE)
                self._report_step(plan.job)
        todo = [plan for plan in self.plan.jobs if plan.job.name not in self.outcomes]
        if todo:
            self.listener.say(f"{len(todo)} of {len(self.plan.jobs)} jobs, on {self.executor.describe()}")
            self._run(todo)
        for remark in rows_left_out([plan.job for plan in todo if self._is_done(plan.job.name)]):
            self.listener.warn(remark)
        failed = [plan for plan in self.plan.jobs if not self._is_done(plan.job.name)]
        if failed:
            outcomes = [(plan.job, self.outcomes[plan.job.name]) for plan in failed]
            raise FinetuneError(failure_report(outcomes, len(self.plan.jobs)))

    def _is_done(self, name: str) -> bool:
        return name in self.outcomes and self.outcomes[name].status == JobStatus.DONE

    def _run(self, todo: list[JobPlan]) -> None:
        try:
            try:
                self._begin(todo)
                self._watch()
            except KeyboardInterrupt as stop:
                if getattr(stop, "number", None) != HANGUP:  # a line that breaks ends no training: jobs are adopted
                    self._stop()
                raise
        finally:
            self.executor.close()

    def _begin(self, todo: list[JobPlan]) -> None:
        """Adopt what still runs, make the other jobs' folders ready, and submit those that may begin.

        Raises:
            FinetuneError: a job still runs where this executor does not reach.
        """
        for plan in todo:
            if self.executor.adopt(self._task(plan)):
                self.under_way[plan.job.name] = plan
                self.listener.say(f"{plan.job.name}: still runs from an earlier call")
        others = [plan for plan in todo if plan.job.name not in self.under_way]
        elsewhere = [f"{plan.job.name} {where}" for plan in others if (where := where_it_runs(plan.job.folder))]
        if elsewhere:
            raise FinetuneError(
                f"Not over yet, where an earlier call put it: {pluralize(len(elsewhere), 'job')}. "
                f"Go on there (--executor), or end it first:\n{bullet_list(elsewhere)}"
            )
        for plan in others:
            prepare_folder(plan)
            self.states_before[plan.job.name] = read_state(plan.job.folder)
        self.waiting += others
        self._submit_ready()

    def _submit_ready(self) -> None:
        """Submit the jobs whose start is there; to an executor that chains, all of them."""
        ready = [plan for plan in self.waiting if self.executor.chains or self._may_begin(plan.job)]
        self.waiting = [plan for plan in self.waiting if plan not in ready]
        self.under_way |= {plan.job.name: plan for plan in ready}
        if ready:
            self.executor.submit([self._task(plan) for plan in ready])

    def _may_begin(self, job: Job) -> bool:
        return job.after is None or self._is_done(job.after)

    def _task(self, plan: JobPlan) -> Task:
        job, gpus = plan.job, self.plan.config.gpus_per_job
        after = None if self._may_begin(job) else job.after
        return Task(job.name, job.folder, tuple(self.command(job, gpus)), gpus, after)

    def _watch(self) -> None:
        """Wait until nothing is under way."""
        while self.under_way:
            for task_exit in self.executor.poll():
                self._end(task_exit)
            self._refresh()
            if self.under_way:
                time.sleep(self.executor.pause_seconds)
        self._refresh(last=True)

    def _end(self, task_exit: TaskExit) -> None:
        plan = self.under_way.pop(task_exit.name, None)
        if plan is None:
            return
        job, before = plan.job, self.states_before.get(task_exit.name)
        outcome = classify_exit(job, plan.digest, task_exit, before, interrupted=self.interrupted)
        start = self.outcomes.get(job.after or "")
        if start and start.status != JobStatus.DONE and outcome.status != JobStatus.DONE:
            outcome = JobOutcome(JobStatus.NOT_STARTED, f"its start, {job.after}, {start.status}")
        self.outcomes[job.name] = outcome
        if outcome.status == JobStatus.DONE:
            self._report_step(job)
        else:
            write_outcome(job, outcome)
            first = outcome.why.partition("\n")[0].removesuffix(":")
            self.listener.say(f"  {job.name}: {outcome.status}: {first}")
        self._release(job, outcome)

    def _release(self, job: Job, outcome: JobOutcome) -> None:
        """Submit the jobs that waited for this one, or give them up where it is not done."""
        if outcome.status == JobStatus.DONE and not self.interrupted:
            self._submit_ready()
            return
        for plan in [plan for plan in self.waiting if plan.job.after == job.name]:
            self.waiting.remove(plan)
            why = f"its start, {job.name}, {outcome.status}"
            self.outcomes[plan.job.name] = JobOutcome(JobStatus.NOT_STARTED, why)

    def _stop(self) -> None:
        """Pass an interrupt on, and wait for the jobs' checkpoints; a second interrupt ends them at once."""
        self.interrupted = True
        running = pluralize(len(self.under_way), "job")
        self.listener.say(f"stopping {running}, each after a checkpoint; interrupt again to end them at once")
        try:
            self.executor.stop()
            self._watch()
        except KeyboardInterrupt:
            self.listener.say("ending all jobs at once")
            self.executor.kill()
            self._watch()

    def _refresh(self, last: bool = False) -> None:
        """Report how far all jobs are, not too often."""
        now = time.monotonic()
        if now - self.refreshed < REFRESH_SECONDS and not last:
            return
        self.refreshed = now
        for plan in self.under_way.values():
            self._report_step(plan.job)
        self.listener.board([job_row(plan.job, self._is_alive) for plan in self.plan.jobs])

    def _is_alive(self, folder: Path) -> bool:
        return any(plan.job.folder == folder for plan in (*self.under_way.values(), *self.waiting))

    def _report_step(self, job: Job) -> None:
        """Report how far a job is, when it moved."""
        state, stamp = read_state(job.folder), read_stamp(job.out)
        step, steps = (state.step, state.steps) if state else (0, 0)
        if job.name in self.outcomes:
            steps = steps or (stamp.get("steps", 0) if stamp else 0)
            step = steps
        loss = state.loss if state else None
        if loss is None:
            loss = stamp.get("last_loss", float("nan")) if stamp else float("nan")
        if steps and step and self.reported_steps.get(job.name) != step:
            self.reported_steps[job.name] = step
            self.progress(job.name, step, steps, loss)
