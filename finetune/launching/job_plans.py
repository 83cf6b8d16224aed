"""All that can be known before the first step: the jobs, what is wrong with them, and what is to be done about each.

    done       its checkpoint stands there, made from just this
    begin      nothing stands there
    go on      an attempt at just this was stopped, failed, or still runs
    anew       an attempt at something else was begun in its folder, which is set aside

A checkpoint that stands in a job's place but was made from something else is an error that says what differs.
"""

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from finetune.config import NEW_SETTINGS, FinetuneConfig
from finetune.jobs import Job, at_root, read_job, read_plan, read_stamp, stamp_time
from finetune.launching.digests import Content, Digests
from finetune.launching.start_check import faults_of_start, unknown_parts
from finetune.training.parallel import configuration_path
from soup.errors import FinetuneError, OutputError, SoupError
from soup.support.disk_space import require_bytes
from soup.support.text import bullet_list

__all__ = ["Standing", "Survey", "snapshots", "survey"]

Plan = Literal["done", "begin", "go on", "anew"]


@dataclass(frozen=True)
class Standing:
    """A job, its digest, and what is to be done about it."""

    job: Job
    digest: str
    plan: Plan


@dataclass(frozen=True)
class Survey:
    """A configuration, and how its jobs stand; `remarks` stop nothing."""

    config: FinetuneConfig
    root: Path
    jobs: tuple[Standing, ...]
    contents: Mapping[str, Content]
    remarks: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Where the jobs' folders are."""
        return self.jobs[0].job.folder.parent


@dataclass
class _Found:
    """What the look at a configuration collects."""

    digests: Digests
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    contents: dict[str, Content] = field(default_factory=dict)
    of_job: dict[str, str] = field(default_factory=dict)
    in_the_way: dict[tuple[str, ...], list[Path]] = field(default_factory=dict)  # by what they were made otherwise


def survey(config_path: Path | str, *, writing: bool = True) -> Survey:
    """Look at a configuration, its data and what stands in its place. Without `writing`, nothing is left on the disk.

    Raises:
        FinetuneError: a wrong configuration, data sets or a start that are not there, or ingredients of other settings
            in the way; all that is wrong is listed.
    """
    path = Path(config_path)
    config, root, jobs = read_plan(path)
    found = _Found(Digests(jobs[0].folder.parent / "digests.json" if writing else None))
    _check_data(jobs, found)
    _check_starts(jobs, found)
    _check_settings(jobs, found)
    if found.problems:
        raise FinetuneError(f"{path}: nothing was started.\n{bullet_list(found.problems)}")
    _check_twins(config, root, found)
    standings = tuple(_stand(job, found) for job in jobs)
    _check_times(standings, found)
    if found.in_the_way:
        told = [_in_the_way(places, changed) for changed, places in found.in_the_way.items()]
        raise FinetuneError("\n".join(told))
    if writing:
        _check_room(standings)
    return Survey(config, root, standings, found.contents, tuple(found.remarks))


def _check_data(jobs: list[Job], found: _Found) -> None:
    """Every data set once: is it there, and is there anything in it?"""
    for one in dict.fromkeys(one for job in jobs for one in job.data):
        try:
            content = found.digests.content(one)
        except (SoupError, OSError) as error:
            found.problems.append(f"data set {error}")
            continue
        found.contents[one.path] = content
        if content.rows == 0:
            found.problems.append(
                f"data set {one.path}: no rows were found in it (no conversations or messages); --check tells more"
            )


def _check_starts(jobs: list[Job], found: _Found) -> None:
    for start in dict.fromkeys(job.start for job in jobs if job.after is None):
        try:
            found.digests.start(start)
        except (SoupError, OSError) as error:
            found.problems.append(f"start {error}")
            continue
        if Path(start).is_dir():
            found.problems += [f"start {start}: {fault}" for fault in faults_of_start(Path(start))]


def _check_settings(jobs: list[Job], found: _Found) -> None:
    """What settings name: parts, where the start is here to be asked, packages, files. Told once for all jobs."""
    starts = {job.name: job.start for job in jobs}
    faults: dict[str, None] = {}
    for job in jobs:
        start = Path(starts.get(job.after or "", job.start))
        faults |= dict.fromkeys(f"start {start}: {fault}" for fault in unknown_parts(start, job.settings))
        absent = [one for one in job.settings.log_to if importlib.util.find_spec(one) is None]
        if absent:
            faults[f"log_to: {', '.join(absent)} not installed: pip install {' '.join(absent)}"] = None
        try:
            configuration_path(job.settings.parallel)
        except FinetuneError as error:
            faults[str(error)] = None
    found.problems += faults


def _check_twins(config: FinetuneConfig, root: Path, found: _Found) -> None:
    """Added sets that hold what the base set holds, or another added set."""
    base = {found.digests.content(one).digest for one in at_root(config.data, root)}
    held: dict[tuple[str, ...], str] = {}
    for name, sets in config.added.items():
        added = tuple(found.digests.content(one).digest for one in at_root(sets, root))
        if base.issuperset(added):
            found.remarks.append(f"{name}: the added data set holds just what the base set holds")
        if added in held:
            found.remarks.append(f"{name}: the added data set holds just what {held[added]} holds")
        held.setdefault(added, name)


def _stand(job: Job, found: _Found) -> Standing:
    """What is to be done about a job; what stands in its way is a problem."""
    of_start = found.of_job.get(job.after) if job.after else None
    digest = found.digests.job(job, of_start)
    job = replace(job, digests=found.digests.parts(job, of_start))
    found.of_job[job.name] = digest
    stamp, before = read_stamp(job.out), read_job(job.folder)
    if stamp and stamp.get("digest") == digest:
        return Standing(job, digest, "done")
    others = [job.out] * job.out.exists()
    others += [old for old in snapshots(job) if (read_stamp(old) or {}).get("digest") != digest]
    for old in others:
        differs = tuple(_differences(_before(read_stamp(old), before) or {}, job, digest))
        found.in_the_way.setdefault(differs, []).append(old)
    mine = before is not None and before.get("digest") == digest
    begun = (job.folder / "checkpoints").is_dir() and any((job.folder / "checkpoints").iterdir())
    if before and not mine and begun:
        changed = ", ".join(_differences(before, job, digest)) or "its settings or data"
        found.remarks.append(f"{job.name}: begins anew, for what it was begun with changed: {changed}")
        return Standing(job, digest, "anew")
    return Standing(job, digest, "go on" if mine else "begin")


def _check_times(standings: Sequence[Standing], found: _Found) -> None:
    """Remarks on pictures that are younger than what was trained on them: of the same name and size, but the same?"""
    later: dict[tuple[str, str], list[str]] = {}
    for one in standings:
        if one.plan != "done":
            continue
        made = stamp_time(one.job.out)
        for data_set in one.job.data:
            youngest = found.digests.content(data_set).youngest
            if youngest and youngest[0] > made:
                later.setdefault((data_set.path, youngest[1]), []).append(one.job.name)
    for (place, picture), names in later.items():
        found.remarks.append(
            f"data {place}: {picture} was written after {', '.join(names)} had been trained on it. It has the same "
            "name and size; if it is another picture, remove these ingredients to train them anew"
        )


def snapshots(job: Job) -> list[Path]:
    """The checkpoints of the midst of a job that are ingredients, too (`keep_every`), by their step."""
    if not job.settings.keep_every:
        return []
    before = f"{job.out.name}-step"
    found = {path.name.removeprefix(before): path for path in job.out.parent.glob(f"{before}*")}
    return [found[step] for step in sorted((step for step in found if step.isdecimal()), key=int)]


def _before(stamp: dict[str, Any] | None, job: dict[str, Any] | None) -> dict[str, Any] | None:
    """What a checkpoint was made from, by the job's folder if that is of the same attempt, else by its own word."""
    return job if job and stamp and job.get("digest") == stamp.get("digest") else stamp


def _in_the_way(places: Sequence[Path], changed: Sequence[str]) -> str:
    """Checkpoints that stand where jobs' ought to be, and what they were all made from otherwise."""
    unknown = "\nNothing that they tell of themselves differs: another version of soup trained them otherwise.\n"
    what = f" What differs:\n{bullet_list(changed)}\n" if changed else unknown
    if len(places) == 1:
        return (
            f"{places[0]}: stands there already, but was not made by these settings, data and start.{what}"
            "Remove it to train it anew, or name another `out`."
        )
    return (
        f"{len(places)} checkpoints stand there already, but were not made by these settings, data and start:\n"
        f"{bullet_list(map(str, places))}\n{what.lstrip()}Remove them to train them anew, or name another `out`."
    )


def _differences(before: Mapping[str, Any], job: Job, digest: str) -> Iterator[str]:
    """What was otherwise when a checkpoint was made: `lr: 1e-05 there, 2e-05 now`."""
    now = job.as_json(digest)
    told = before.get("settings")
    settings: Mapping[str, Any] = told if isinstance(told, dict) else before
    for name, value in now["settings"].items():
        there = _plain(settings.get(name))
        if name in settings and there != _plain(value):
            yield f"{NEW_SETTINGS.get(name, name)}: {there} there, {_plain(value)} now"
    digests = before.get("digests") or {}
    if digests.get("start") and digests["start"] != job.digests["start"]:
        yield f"start: {before.get('start')} held other weights than {job.start} holds now"
    yield from _data_differences(digests.get("data"), job.digests["data"])
    yield from _option_differences(before.get("data"), job)


def _data_differences(there: Any, now: Mapping[str, str]) -> Iterator[str]:
    if not isinstance(there, dict) or sorted(there.values()) == sorted(now.values()):
        return
    for path, digest in now.items():
        if there.get(path) not in (None, digest):
            yield f"data {path}: its content changed"
        elif path not in there and digest not in there.values():
            yield f"data {path}: not there, but now"
    gone = [path for path, digest in there.items() if path not in now and digest not in now.values()]
    yield from (f"data {path}: there, but not now" for path in gone)


def _option_differences(there: Any, job: Job) -> Iterator[str]:
    """What was said of the same data set otherwise: its weight, its category, ..."""
    told = {one.get("path"): one for one in there or () if isinstance(one, dict)}
    for one in job.data:
        before = told.get(one.path, {})
        for name, value in one.model_dump(exclude={"path", "images"}).items():
            if name in before and before[name] != value:
                yield f"data {one.path}: {name}: {before[name]} there, {value} now"


def _plain(value: Any) -> Any:
    """A value as JSON gives it back."""
    return list(value) if isinstance(value, tuple) else value


def _check_room(standings: tuple[Standing, ...]) -> None:
    """Whether the disk holds the ingredients that are to come.

    Raises:
        OutputError: it does not, not even by the weights alone.
    """
    wanted_bytes = sum(_weights_bytes(one.job) for one in standings if one.plan != "done")
    job = standings[0].job
    require_bytes(
        job.folder,
        wanted_bytes,
        lambda free: OutputError(
            f"{job.folder.parent}: the ingredients need {wanted_bytes / 2**30:.1f} GiB by their weights alone, "
            f"and {free.bytes / 2**30:.1f} GiB are free at {free.location}."
        ),
    )


def _weights_bytes(job: Job) -> int:
    """How large an ingredient becomes, as far as its start tells."""
    start = Path(job.start)
    size = sum(path.stat().st_size for path in start.glob("*.safetensors")) if start.is_dir() else 0
    kept = 0
    if job.settings.keep_every and job.settings.steps:
        kept = (job.settings.steps - 1) // job.settings.keep_every
    return size * (1 + kept)
