"""All that can be known before the first step: the jobs, what is wrong with them, and what is to be done about each.

A checkpoint that stands at a job's `out` but was made from something else is an error that names what differs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from finetune.config import FinetuneConfig
from finetune.jobs import (
    Job,
    at_root,
    has_digest,
    read_job,
    read_plan,
    read_stamp,
    stamp_time,
)
from finetune.launching.differences import differences, foreign_error, in_the_way_error, made_from
from finetune.launching.digests import Content, Digests, picture_root, unread_files
from finetune.launching.start_check import faults_of_settings, faults_of_start
from finetune.training.parallel import configuration_path
from finetune.training.watching import check_evaluation
from soup.errors import FinetuneError, OutputError, SoupError
from soup.support.disk_space import require_bytes
from soup.support.extras import absent_libraries
from soup.support.text import bullet_list, format_bytes

__all__ = ["JobAction", "JobPlan", "LaunchPlan", "absent_needs", "plan_launch", "snapshots"]


class JobAction(StrEnum):
    """What is to be done about a job."""

    SKIP = "done"  # its checkpoint is there, made from just this
    BEGIN = "begin"  # nothing is there
    RESUME = "go on"  # an attempt at just this was stopped, failed, or still runs
    RESTART = "anew"  # an attempt at something else was begun in its folder, which is set aside


@dataclass(frozen=True)
class JobPlan:
    """A job, its digest ("" where nothing asked for it), and what is to be done about it."""

    job: Job
    digest: str
    action: JobAction


@dataclass(frozen=True)
class LaunchPlan:
    """A configuration and the plans of its jobs.

    Args:
        config: The configuration.
        root: The folder that relative paths in it start from.
        jobs: The plans, in the order of the pool.
        contents: What the data sets hold, by their paths.
        remarks: What a user should know although it stops nothing.
    """

    config: FinetuneConfig
    root: Path
    jobs: tuple[JobPlan, ...]
    contents: Mapping[str, Content]
    remarks: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """The folder of the jobs' folders."""
        return self.jobs[0].job.folder.parent


@dataclass
class _Findings:
    """What the checks of a configuration collect."""

    digests: Digests
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    contents: dict[str, Content] = field(default_factory=dict)
    job_digests: dict[str, str] = field(default_factory=dict)
    in_the_way: dict[tuple[str, ...], list[Path]] = field(default_factory=dict)  # by what they were made otherwise
    foreign: list[Path] = field(default_factory=list)  # in the way, too, and not made by jobs


def plan_launch(config_path: Path | str, *, writing: bool = True) -> LaunchPlan:
    """Check a configuration, its data and what stands at its jobs' `out`, and give what is to be done.

    Args:
        config_path: the YAML file.
        writing: keep the digests of checkpoints on the disk, and check its size; else nothing is written, and weights
            are read only where there are jobs, begun or done, that may have had others.

    Raises:
        FinetuneError: a wrong configuration, data sets or a start that are not there, or ingredients of other settings
            in the way; all that is wrong is listed.
        OutputError: the disk is too small for the ingredients.
    """
    path = Path(config_path)
    config, root, jobs = read_plan(path)
    findings = _Findings(Digests(jobs[0].folder.parent / "digests.json", writing))
    is_compared = writing or any(_is_begun(job) for job in jobs)
    _check_data(jobs, findings)
    _check_starts(jobs, findings, is_compared)
    _check_settings(jobs, config.gpus_per_job, findings)
    if findings.problems:
        raise FinetuneError(f"{path}: nothing was started.\n{bullet_list(findings.problems)}")
    _check_twins(config, root, findings)
    plans = tuple(_plan_job(job, findings) if is_compared else JobPlan(job, "", JobAction.BEGIN) for job in jobs)
    _check_times(plans, findings)
    faults = [in_the_way_error(paths, changed) for changed, paths in findings.in_the_way.items()]
    faults += [foreign_error(findings.foreign)] if findings.foreign else []
    if faults:
        raise FinetuneError("\n".join(faults))
    if writing:
        _check_disk(plans)
    return LaunchPlan(config, root, plans, findings.contents, tuple(findings.remarks))


def _check_data(jobs: list[Job], findings: _Findings) -> None:
    """Every data set once: is it there, and is there anything in it?"""
    for data_set in dict.fromkeys(each for job in jobs for each in (*job.data, *job.settings.validation_sets)):
        try:
            content = findings.digests.content(data_set)
        except (SoupError, OSError) as error:
            findings.problems.append(f"data set {error}")
            continue
        findings.contents[data_set.path] = content
        findings.remarks += unread_files(data_set)
        if content.pictures and content.youngest is None:
            findings.remarks.append(
                f"data {data_set.path}: none of the {content.pictures:,} pictures that its rows name is in "
                f"{picture_root(data_set)}: `images` says where they are; --check tells more"
            )
        if content.rows and data_set.shots and content.rows <= data_set.shots:
            findings.problems.append(
                f"data set {data_set.path}: shots {data_set.shots}: expected more rows than that, found {content.rows}"
            )
        if content.rows == 0:
            findings.problems.append(
                f"data set {data_set.path}: no rows were found in it (no conversations or messages); --check tells more"
            )


def _is_begun(job: Job) -> bool:
    """Whether anything of a job is there."""
    return job.out.exists() or bool(snapshots(job)) or read_job(job.folder) is not None


def _check_starts(jobs: list[Job], findings: _Findings, is_compared: bool) -> None:
    for start in dict.fromkeys(job.start for job in jobs if job.after is None):
        try:
            (findings.digests.start if is_compared else findings.digests.check_start)(start)
        except (SoupError, OSError) as error:
            findings.problems.append(f"start {error}")
            continue
        if Path(start).is_dir():
            findings.problems += [f"start {start}: {fault}" for fault in faults_of_start(Path(start))]


def _check_settings(jobs: list[Job], gpus_per_job: int, findings: _Findings) -> None:
    """Check what settings name: parts, where the start is here, packages, files. Listed once for all jobs."""
    starts = {job.name: job.start for job in jobs}
    faults: dict[str, None] = {}
    for job in jobs:
        start = Path(starts.get(job.after or "", job.start))
        faults |= dict.fromkeys(f"start {start}: {fault}" for fault in faults_of_settings(start, job.settings))
    findings.problems += [*faults, *absent_needs(jobs, gpus_per_job)]


def absent_needs(jobs: Sequence[Job], gpus_per_job: int) -> list[str]:
    """Give what settings name outside of the model and is not here: packages, files, benchmarks; each once.

    Args:
        jobs: all of them.
        gpus_per_job: processes that train each.
    """
    faults: dict[str, None] = {}
    for job in jobs:
        faults |= {f"log_to: {text}": None for text in absent_libraries(job.settings.log_to, "finetune")}
        try:
            configuration_path(job.settings.parallel)
        except FinetuneError as error:
            faults[str(error)] = None
    for settings in {repr(job.settings.evaluate): job.settings for job in jobs}.values():
        try:
            check_evaluation(settings, gpus_per_job)
        except FinetuneError as error:
            faults[str(error)] = None
        except SoupError as error:
            faults[f"evaluate: {error}"] = None
    return list(faults)


def _check_twins(config: FinetuneConfig, root: Path, findings: _Findings) -> None:
    """Find added sets that hold what the base set holds, or another added set."""
    base = {findings.digests.content(data_set).digest for data_set in at_root(config.data, root)}
    names: dict[tuple[str, ...], str] = {}
    for name, sets in config.added.items():
        added = tuple(findings.digests.content(data_set).digest for data_set in at_root(sets, root))
        if base.issuperset(added):
            findings.remarks.append(f"{name}: the added data set holds just what the base set holds")
        if added in names:
            findings.remarks.append(f"{name}: the added data set holds just what {names[added]} holds")
        names.setdefault(added, name)


def _plan_job(job: Job, findings: _Findings) -> JobPlan:
    """Decide what is to be done about a job; checkpoints in its way go to `findings`."""
    start_digest = findings.job_digests.get(job.after) if job.after else None
    digest = findings.digests.job(job, start_digest)
    job = replace(job, digests=findings.digests.parts(job, start_digest))
    findings.job_digests[job.name] = digest
    if has_digest(job.out, digest):
        return JobPlan(job, digest, JobAction.SKIP)
    before = read_job(job.folder)
    others = [job.out] * job.out.exists()
    others += [path for path in snapshots(job) if not has_digest(path, digest)]
    for path in others:
        if (stamp := read_stamp(path)) is None:
            findings.foreign.append(path)
            continue
        differs = tuple(differences(made_from(stamp, before), job, digest))
        findings.in_the_way.setdefault(differs, []).append(path)
    same = before is not None and before.get("digest") == digest
    begun = (job.folder / "checkpoints").is_dir() and any((job.folder / "checkpoints").iterdir())
    if before and not same and begun:
        changed = ", ".join(differences(before, job, digest)) or "its settings or data"
        findings.remarks.append(f"{job.name}: begins anew, for what it was begun with changed: {changed}")
        return JobPlan(job, digest, JobAction.RESTART)
    return JobPlan(job, digest, JobAction.RESUME if same else JobAction.BEGIN)


def _check_times(plans: Sequence[JobPlan], findings: _Findings) -> None:
    """Remarks on pictures that are younger than what was trained on them: of the same name and size, but the same?"""
    later: dict[tuple[str, str], list[str]] = {}
    for plan in plans:
        if plan.action != JobAction.SKIP:
            continue
        made = stamp_time(plan.job.out)
        for data_set in plan.job.data:
            youngest = findings.digests.content(data_set).youngest
            if youngest and youngest[0] > made:
                later.setdefault((data_set.path, youngest[1]), []).append(plan.job.name)
    for (path, picture), names in later.items():
        findings.remarks.append(
            f"data {path}: {picture} was written after {', '.join(names)} had been trained on it. It has the same "
            "name and size; if it is another picture, remove these ingredients to train them anew"
        )


def snapshots(job: Job) -> list[Path]:
    """Give the checkpoints of the midst of a job that are ingredients, too (`keep_every`), by their step."""
    if not job.settings.keep_every:
        return []
    prefix = f"{job.out.name}-step"
    paths = {path.name.removeprefix(prefix): path for path in job.out.parent.glob(f"{prefix}*")}
    return [paths[step] for step in sorted((step for step in paths if step.isdecimal()), key=int)]


def _check_disk(plans: Sequence[JobPlan]) -> None:
    """Whether the disk holds the ingredients that are to come.

    Raises:
        OutputError: it does not, not even by the weights alone.
    """
    needed_bytes = sum(_weights_bytes(plan.job) for plan in plans if plan.action != JobAction.SKIP)
    folder = plans[0].job.folder
    require_bytes(
        folder,
        needed_bytes,
        lambda free: OutputError(
            f"{folder.parent}: the ingredients need {format_bytes(needed_bytes)} by their weights alone, and "
            f"{format_bytes(free.bytes)} are free at {free.location}."
        ),
    )


def _weights_bytes(job: Job) -> int:
    """How large an ingredient becomes, as far as its start tells."""
    start = Path(job.start)
    size = sum(path.stat().st_size for path in start.glob("*.safetensors")) if start.is_dir() else 0
    return size * (1 + job.settings.earlier_models(job.settings.steps or 1))
