"""The jobs of a configuration, and the folder that each lives in.

    base/                          the start, where it is trained here
    ckpts/<name>/                  one ingredient each, under its name only when complete
    ckpts/<name>-step500/          the model as it was then, with `keep_every: 500`
    ckpts.finetune/<name>/         the job's folder (`start` is the start's):
        job.json                   what is to be trained: the whole of it, so that one command trains it anywhere
        state.json                 how far it is (`State`), rewritten whole
        log.txt                    the output of the process, of every attempt behind a line of its own
        place.json                 where the last attempt runs, and by which command (`finetune/launching/executors`)
        loss.jsonl                 the losses of all steps, and those on held-out rows
        checkpoints/               to resume from
        best-step40/               the best model so far, with `keep_best`
        part/                      the ingredient while it is written

One job is one process (or one per GPU): `python -m finetune.training.job ckpts.finetune/<name>`. Its exit code is 0
when the ingredient is complete, 1 when it failed (state.json says why), 143 or 130 when a signal stopped it after a
checkpoint.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from itertools import product
from pathlib import Path
from types import UnionType
from typing import TypedDict, cast

from pydantic import BaseModel, TypeAdapter, ValidationError

from finetune.config import RENAMED_SETTINGS, DataSet, FinetuneConfig, Stage, TrainSettings
from finetune.config_file import read_config, wrong_values
from soup.errors import FinetuneError
from soup.support.atomic_files import write_atomic
from soup.support.json_text import check_kinds, read_json_object
from soup.support.text import bullet_list

__all__ = [
    "LEFT_OUT",
    "LOSSES",
    "START",
    "Job",
    "JobDigests",
    "JobDocument",
    "JobStatus",
    "Json",
    "Stamp",
    "State",
    "at_root",
    "divide_log",
    "has_digest",
    "job_command",
    "log_tail",
    "plan_jobs",
    "read_job",
    "read_plan",
    "read_stamp",
    "read_state",
    "rows_lost",
    "stamp_time",
    "write_state",
]

START = "start"  # the job that trains what the others start from
STAMP = "finetune.json"  # what a complete checkpoint of ours says of itself
LOSSES = "loss.jsonl"  # in a job's folder
LOG_LINES = 15
LEFT_OUT = "left out: "  # what a log says of a row that turned out to be bad in training
ATTEMPT = "===== another attempt, begun at "
Json = dict[str, object]
"""An object of JSON as it was read: what its keys hold is looked at where they are used."""


class JobStatus(StrEnum):
    """How a job stands. Files on disk have the five that its process or launcher wrote; people see all."""

    NOT_STARTED = "not started"
    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"  # by a signal, after a checkpoint
    LOST = "lost"  # its files say that it runs, and nothing does


class JobDigests(TypedDict, total=False):
    """Digests of a job's start, and of each data set by its path."""

    start: str
    data: dict[str, str]


class JobDocument(TypedDict, total=False):
    """What `job.json` holds; settings under their first names (`TrainSettings.as_stored`)."""

    name: str
    digest: str
    digests: JobDigests
    start: str
    data: list[Json]
    settings: Json
    out: str


class Stamp(JobDocument, total=False):
    """What a finished job leaves in its checkpoint: what it was made from, and how training went.

    `step`: of a snapshot, and of the best model where that is kept, whose `validation_loss` it was.
    `first_loss`, `last_loss`: means of the first and last tenth of the steps.
    """

    mixture: Json
    precision: str
    versions: dict[str, str]
    steps: int
    rows: int
    rows_seen: int
    tokens: int
    seconds: float
    first_loss: float
    last_loss: float
    step: int
    validation_loss: float


@dataclass(frozen=True)
class Job:
    """One model to train: from what, on what, to where; `after` names the job that makes its start."""

    name: str
    start: str
    data: tuple[DataSet, ...]
    settings: TrainSettings
    out: Path
    folder: Path
    after: str | None = None
    digests: JobDigests = field(default_factory=JobDigests)

    def as_json(self, digest: str) -> JobDocument:
        """Give all of it, as `job.json` has it."""
        return {
            "name": self.name,
            "digest": digest,
            "digests": self.digests,
            "start": self.start,
            "data": [data_set.model_dump() for data_set in self.data],
            "settings": self.settings.as_stored(),
            "out": str(self.out),
        }

    def write(self, digest: str) -> None:
        """Write `job.json` into the job's folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        document = self.as_json(digest)
        write_atomic(self.folder / "job.json", json.dumps(document, indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> tuple[Job, str]:
        """Read the job of a folder, and its digest.

        Raises:
            FinetuneError: no `job.json` there, or not one of ours.
        """
        document = cast("JobDocument", read_json_object(folder / "job.json", FinetuneError))
        try:
            data = tuple(DataSet.model_validate(data_set) for data_set in document["data"])
            settings = TrainSettings.from_stored(document["settings"])
            out, digests = Path(document["out"]), document.get("digests", {})
            job = cls(document["name"], document["start"], data, settings, out, folder, digests=digests)
            return job, document["digest"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FinetuneError(f"{folder / 'job.json'}: not as soup writes it ({error!r}).") from error


@dataclass(frozen=True)
class State:
    """How far a job is, as `state.json` has it. Times are in seconds since the epoch; `loss` is the last logged one.

    `scores` are the last ones of `evaluate_every`, by benchmark, of the model after `scored_step` steps;
    `validation_loss` is the last one on rows that are held out, after `validated_step` steps, and the lowest so far is
    that of `best_step`. `shares`: of categories that follow the model, as the losses after `shares_step` made them.
    """

    phase: JobStatus
    step: int = 0
    steps: int = 0
    loss: float | None = None
    seconds_per_step: float | None = None
    started: float | None = None
    updated: float | None = None
    attempt: int = 1
    pid: int | None = None
    host: str | None = None
    why: str | None = None
    scores: dict[str, float] | None = None
    scored_step: int | None = None
    validation_loss: float | None = None
    validated_step: int | None = None
    best_step: int | None = None
    shares: dict[str, float] | None = None
    shares_step: int | None = None


_STATE = TypeAdapter(State)


def job_command(job: Job, gpus: int) -> list[str]:
    """Give the command that trains a job, here or anywhere.

    Args:
        job: in its folder is all that the command needs.
        gpus: up to one, it is one process; else torchrun with a process for each, on any free port.
    """
    if gpus <= 1:
        return [sys.executable, "-m", "finetune.training.job", str(job.folder)]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(gpus)]
    return [*torchrun, "-m", "finetune.training.job", str(job.folder)]


def read_job(folder: Path) -> JobDocument | None:
    """Read a folder's `job.json`, or None where there is none."""
    return cast("JobDocument | None", _read_document(folder / "job.json"))


def read_stamp(out: Path) -> Stamp | None:
    """Read what a finished job left in its checkpoint (`finetune.json`, with the job's digest), or None."""
    return cast("Stamp | None", _read_document(out / STAMP))


def stamp_time(out: Path) -> float:
    """Give when a finished job left its stamp, in seconds since the epoch.

    Raises:
        OSError: there is none.
    """
    return (out / STAMP).stat().st_mtime


def has_digest(out: Path, digest: str) -> bool:
    """Whether a complete checkpoint of just this job stands at a path."""
    return (read_stamp(out) or {}).get("digest") == digest


_KINDS: dict[str, type | UnionType] = {
    **dict.fromkeys(("name", "digest", "start"), str | None),
    **dict.fromkeys(("digests", "settings", "mixture"), dict | None),
    "data": list | None,
    "steps": int | None,
    "last_loss": int | float | None,
}


def _read_document(path: Path) -> Json | None:
    """Read what a job was made from; None where there is none, or its values are of other kinds than ours."""
    document = _read_json(path)
    try:
        check_kinds(document or {}, _KINDS, {"data": dict})
        parts = cast("JobDocument", document or {})
        check_kinds(parts.get("digests") or {}, {"start": str | None, "data": dict | None}, {"data": str})
        for data_set in parts.get("data") or []:
            check_kinds(data_set, {"path": str | None})
    except ValueError:
        return None
    return document


def _read_json(path: Path) -> Json | None:
    try:
        return read_json_object(path, FinetuneError)
    except FinetuneError:
        return None


def divide_log(folder: Path) -> None:
    """Write a line into a job's log, where it has one, that parts the attempt to come from those before."""
    log = folder / "log.txt"
    if log.is_file() and log.stat().st_size:
        with log.open("a", encoding="utf-8") as file:
            file.write(f"\n{ATTEMPT}{datetime.now().astimezone():%Y-%m-%d %H:%M:%S %z}\n")


def log_tail(folder: Path, lines: int = LOG_LINES) -> str:
    """Give the last lines that a job's last attempt logged, without reading the whole log."""
    try:
        with (folder / "log.txt").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 200 * lines))
            tail = file.read().decode(errors="replace").splitlines()[-lines:]
    except OSError:
        return ""
    begins = [i for i, line in enumerate(tail, 1) if line.startswith(ATTEMPT)]
    return "\n".join(tail[begins[-1] if begins else 0 :])


def rows_lost(folder: Path) -> list[str]:
    """List the rows that turned out to be bad in training, each once with the reason, over all attempts."""
    try:
        with (folder / "log.txt").open(errors="replace") as log:
            return sorted({line.split(LEFT_OUT, 1)[1].strip() for line in log if LEFT_OUT in line})
    except OSError:
        return []


def read_state(folder: Path) -> State | None:
    """Read the job's state; None where none was written yet."""
    document = _read_json(folder / "state.json")
    try:
        return None if document is None else _STATE.validate_python(document)
    except ValidationError:
        return None


def write_state(folder: Path, state: State) -> None:
    """Replace the job's state, all of it at once."""
    write_atomic(folder / "state.json", json.dumps(asdict(state)) + "\n")


def read_plan(path: Path | str) -> tuple[FinetuneConfig, Path, list[Job]]:
    """Read a configuration, and give it, the whole path of its root, and its jobs.

    Raises:
        FinetuneError: a wrong configuration, a value of `sweep` among it, or several checkpoints for one place.
    """
    path = Path(path)
    config = read_config(path)
    root = (path.parent / config.root).resolve()  # one name for each folder, wherever the command is typed
    try:
        jobs = plan_jobs(config, root)
    except ValidationError as error:
        raise FinetuneError(f"{path}: a value of `sweep` is wrong.\n{bullet_list(wrong_values(error))}") from error
    targets = [job.out.resolve() for job in jobs]
    twice = sorted({str(target) for target in targets if targets.count(target) > 1})
    if twice:
        raise FinetuneError(
            f"{path}: several checkpoints for one place: rename an added data set, or take out the value of `sweep` "
            f"that is there twice.\n{bullet_list(twice)}"
        )
    return config, root, jobs


def plan_jobs(config: FinetuneConfig, root: Path) -> list[Job]:
    """Give the jobs of a configuration, a job after the one that it needs.

    Raises:
        pydantic.ValidationError: a varied setting's value is wrong.
    """
    folders = root / f"{config.out}.finetune"
    jobs, start, after = [], config.start, None
    if isinstance(start, Stage):
        out = root / start.out
        data = at_root(start.data, root)
        settings = _of_job(config.stage_settings(), data, root)
        jobs.append(Job(START, _resolve_start(start.start, root), data, settings, out, folders / START))
        start, after = str(out), START
    sets = {**config.added, **({"base": []} if config.include_base else {})}
    for name, added in sets.items():
        for suffix, suffix_then, changed in _combinations(config):
            title, title_then = f"{name}{suffix}", f"{name}{suffix_then}"
            was_begun_then = (folders / title_then).exists() or (root / config.out / title_then).exists()
            title = title_then if was_begun_then and not (folders / title).exists() else title
            data = at_root([*config.data, *added], root)
            settings = _of_job(config.settings(changed), data, root)
            origin, out = _resolve_start(start, root), root / config.out / title
            jobs.append(Job(title, origin, data, settings, out, folders / title, after))
    return jobs


def _of_job(settings: TrainSettings, data: tuple[DataSet, ...], root: Path) -> TrainSettings:
    """Return the settings with whole paths, mixing only those categories that the job's data sets have."""
    categories = {data_set.category for data_set in data}
    ratios = {name: ratio for name, ratio in settings.mixture.categories.items() if name in categories}
    changed: Json = {"mixture": settings.mixture.model_copy(update={"categories": ratios})}
    if settings.validation_sets:
        changed["validation"] = list(at_root(settings.validation_sets, root))
    return settings.model_copy(update=changed)


def _combinations(config: FinetuneConfig) -> list[tuple[str, str, Json]]:
    """Each combination of the swept settings, with what it adds to the ingredient's name, now and in version 0.1."""
    combinations = []
    for values in product(*config.sweep.values()):
        changed = dict(zip(config.sweep, values, strict=True))
        settings = config.settings(changed)
        pairs = [(RENAMED_SETTINGS.get(name, name), getattr(settings, name)) for name in changed]
        words = [f"-no{name}" if value is None else f"-{name}{_word(value)}" for name, value in pairs]
        words_then = [f"-{name}{_word(value)}" for name, value in pairs]
        combinations.append(("".join(words), "".join(words_then), changed))
    return combinations


def _word(value: object) -> str:
    """Return a value as a part of a directory's name: of a mapping the keys that were written, without the defaults."""
    if isinstance(value, BaseModel):
        value = value.model_dump(exclude_unset=True)
    if isinstance(value, dict):
        return "-".join(f"{name}{_word(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return "-".join(map(_word, value))
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return "".join(c if c.isalnum() or c in "+-." else "_" for c in text)


def _resolve_start(start: str, root: Path) -> str:
    """Return the path of a checkpoint beside the configuration, or the text as it is: a preset, or a Hub id."""
    return str(root / start) if (root / start).exists() else start


def at_root(data: list[DataSet], root: Path) -> tuple[DataSet, ...]:
    """Give the data sets with whole paths.

    Args:
        data: data sets as the configuration has them.
        root: where paths that exist below it start, and `images` in any case; other paths are Hub ids.
    """
    whole = root.resolve()
    resolved = []
    for data_set in data:
        path = str(whole / data_set.path) if (root / data_set.path).exists() else data_set.path
        images = str(whole / data_set.images) if data_set.images else None
        resolved.append(data_set.model_copy(update={"path": path, "images": images}))
    return tuple(resolved)
