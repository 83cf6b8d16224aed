"""The jobs of a configuration, and the folder that each lives in.

    base/                          the start, where it is trained here
    ckpts/<name>/                  one ingredient each, under its name only when complete
    ckpts/<name>-step500/          the model as it was then, with `keep_every: 500`
    ckpts.finetune/<name>/         the job's folder (`start` is the start's):
        job.json                   what is to be trained: the whole of it, so that one command trains it anywhere
        state.json                 how far it is (`State`), rewritten whole
        log.txt                    what the process said, of every attempt
        place.json                 where the last attempt runs, and by which command (`finetune/launching/executors`)
        checkpoints/               to resume from
        part/                      the ingredient while it is written

One job is one process (or one per GPU): `python -m finetune.training.job ckpts.finetune/<name>`. Its exit code is 0
when the ingredient is complete, 1 when it failed (state.json says why), 143 or 130 when a signal stopped it after a
checkpoint.
"""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from finetune.config import RENAMED_SETTINGS, DataSet, FinetuneConfig, Stage, TrainSettings, read_config, wrong_values
from soup.errors import FinetuneError
from soup.support.atomic_files import write_atomic
from soup.support.text import bullet_list

__all__ = [
    "START",
    "Job",
    "State",
    "at_root",
    "job_command",
    "log_tail",
    "plan",
    "read_job",
    "read_plan",
    "read_stamp",
    "read_state",
    "stamp_time",
    "write_state",
]

START = "start"  # the job that trains what the others start from
STAMP = "finetune.json"  # what a complete checkpoint of ours says of itself
LOG_LINES = 15
Phase = Literal["waiting", "running", "done", "failed", "stopped"]


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
    digests: Mapping[str, Any] = field(default_factory=dict)  # of the start and of each data set

    def as_json(self, digest: str) -> dict[str, Any]:
        """All of it."""
        return {
            "name": self.name,
            "digest": digest,
            "digests": dict(self.digests),
            "start": self.start,
            "data": [one.model_dump() for one in self.data],
            "settings": self.settings.as_stored(),
            "out": str(self.out),
        }

    def write(self, digest: str) -> None:
        """Put `job.json` into the job's folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        document = self.as_json(digest)
        write_atomic(self.folder / "job.json", json.dumps(document, indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> tuple["Job", str]:
        """The job of a folder, and its digest.

        Raises:
            OSError, ValueError, KeyError: no `job.json` there, or not one of ours.
        """
        found = json.loads((folder / "job.json").read_text(encoding="utf-8"))
        data = tuple(DataSet.model_validate(one) for one in found["data"])
        settings = TrainSettings.from_stored(found["settings"])
        digests = found.get("digests", {})
        job = cls(found["name"], found["start"], data, settings, Path(found["out"]), folder, digests=digests)
        return job, found["digest"]


@dataclass(frozen=True)
class State:
    """How far a job is. Times are seconds since the epoch; `loss` is of the last step that was logged."""

    phase: Phase
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


def job_command(job: Job, gpus: int) -> list[str]:
    """What trains a job, here or anywhere: one process, or torchrun with one for each GPU, on any free port."""
    if gpus <= 1:
        return [sys.executable, "-m", "finetune.training.job", str(job.folder)]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(gpus)]
    return [*torchrun, "-m", "finetune.training.job", str(job.folder)]


def read_job(folder: Path) -> dict[str, Any] | None:
    """What a folder's `job.json` says, or None where there is none."""
    return _read(folder / "job.json")


def read_stamp(out: Path) -> dict[str, Any] | None:
    """What a finished job left in its checkpoint (`finetune.json`, with the job's digest), or None."""
    return _read(out / STAMP)


def stamp_time(out: Path) -> float:
    """When a finished job left its stamp, in seconds since the epoch.

    Raises:
        OSError: there is none.
    """
    return (out / STAMP).stat().st_mtime


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def log_tail(folder: Path, lines: int = LOG_LINES) -> str:
    """The last lines of a job's log, without reading all of it."""
    try:
        with (folder / "log.txt").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 200 * lines))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def read_state(folder: Path) -> State | None:
    """The job's state, or None where none was written yet."""
    try:
        return State(**json.loads((folder / "state.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def write_state(folder: Path, state: State) -> None:
    """Replace the job's state, all of it at once."""
    write_atomic(folder / "state.json", json.dumps(asdict(state)) + "\n")


def read_plan(path: Path | str) -> tuple[FinetuneConfig, Path, list[Job]]:
    """The configuration in a file, the whole path of its root, and its jobs.

    Raises:
        FinetuneError: a wrong configuration, a value of `sweep` among it, or several checkpoints for one place.
    """
    path = Path(path)
    config = read_config(path)
    root = (path.parent / config.root).resolve()  # one name for each folder, wherever the command is typed
    try:
        jobs = plan(config, root)
    except ValidationError as error:
        raise FinetuneError(f"{path}: a value of `sweep` is wrong.\n{bullet_list(wrong_values(error))}") from error
    places = [job.out.resolve() for job in jobs]
    twice = sorted({str(place) for place in places if places.count(place) > 1})
    if twice:
        raise FinetuneError(
            f"{path}: several checkpoints for one place: rename an added data set, or take out the value of `sweep` "
            f"that is there twice.\n{bullet_list(twice)}"
        )
    return config, root, jobs


def plan(config: FinetuneConfig, root: Path) -> list[Job]:
    """The jobs of a configuration, a job after the one that it needs.

    Raises:
        pydantic.ValidationError: a varied setting's value is wrong.
    """
    folders = root / f"{config.out}.finetune"
    jobs, start, after = [], config.start, None
    if isinstance(start, Stage):
        out = root / start.out
        origin, data = _place(start.start, root), at_root(start.data, root)
        jobs.append(Job(START, origin, data, _of_its_rows(config.stage_settings(), data), out, folders / START))
        start, after = str(out), START
    sets = {**config.added, **({"base": []} if config.include_base else {})}
    for name, added in sets.items():
        for suffix, changed in _variations(config):
            own = f"{name}{suffix}"
            data = at_root([*config.data, *added], root)
            settings = _of_its_rows(config.settings(**changed), data)
            jobs.append(Job(own, _place(start, root), data, settings, root / config.out / own, folders / own, after))
    return jobs


def _of_its_rows(settings: TrainSettings, data: tuple[DataSet, ...]) -> TrainSettings:
    """The settings with a mixture of those categories that the job's data sets have: others' are for other jobs."""
    own = {one.category for one in data}
    ratios = {name: ratio for name, ratio in settings.mixture.categories.items() if name in own}
    return settings.model_copy(update={"mixture": settings.mixture.model_copy(update={"categories": ratios})})


def _variations(config: FinetuneConfig) -> list[tuple[str, dict[str, Any]]]:
    """Each combination of the swept settings, with what it adds to the ingredient's name."""
    found = []
    for values in product(*config.sweep.values()):
        changed = dict(zip(config.sweep, values, strict=True))
        settings = config.settings(**changed)
        words = (f"-{RENAMED_SETTINGS.get(name, name)}{_word(getattr(settings, name))}" for name in changed)
        found.append(("".join(words), changed))
    return found


def _word(value: Any) -> str:
    """A value as a part of a directory's name: of a mapping what was said of it, without the defaults."""
    if isinstance(value, BaseModel):
        value = value.model_dump(exclude_unset=True)
    if isinstance(value, dict):
        return "-".join(f"{name}{_word(one)}" for name, one in value.items())
    if isinstance(value, list | tuple):
        return "-".join(map(_word, value))
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return "".join(c if c.isalnum() or c in "+-." else "_" for c in text)


def _place(start: str, root: Path) -> str:
    """A checkpoint beside the configuration, or the word as it is: a preset, or a Hub id."""
    return str(root / start) if (root / start).exists() else start


def at_root(data: list[DataSet], root: Path) -> tuple[DataSet, ...]:
    """The data sets with what is here by its whole path; `images` starts at the root, too."""
    whole = root.resolve()
    placed = []
    for one in data:
        path = str(whole / one.path) if (root / one.path).exists() else one.path
        images = str(whole / one.images) if one.images else None
        placed.append(one.model_copy(update={"path": path, "images": images}))
    return tuple(placed)
