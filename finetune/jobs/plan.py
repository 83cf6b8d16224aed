"""The jobs of a configuration: one for each ingredient, and one for a start that is trained first."""

from __future__ import annotations

from itertools import product
from pathlib import Path

from pydantic import BaseModel, ValidationError

from finetune.config import RENAMED_SETTINGS, ROW_SUFFIXES, DataSet, FinetuneConfig, Stage, TrainSettings
from finetune.config_file import read_config, wrong_values
from finetune.jobs.documents import Json
from finetune.jobs.job import Job
from soup.errors import FinetuneError
from soup.support.text import bullet_list

__all__ = [
    "START",
    "at_root",
    "plan_jobs",
    "read_plan",
]


START = "start"  # the job that trains what the others start from


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
    """Return the path of a checkpoint beside the configuration, or the text as it is: a preset, or a Hub id.

    Raises:
        FinetuneError: there is none beside it, but one in the working directory.
    """
    path = root / start
    if not path.exists() and (Path(start) / "config.json").is_file():
        raise _elsewhere(start, root)
    return str(path) if path.exists() else start


def at_root(data: list[DataSet], root: Path) -> tuple[DataSet, ...]:
    """Give the data sets with whole paths.

    Args:
        data: data sets as the configuration has them.
        root: where paths start; what is not below it and has no suffix is a Hub id.

    Raises:
        FinetuneError: a data set that is not there, but in the working directory.
    """
    whole = root.resolve()
    resolved = []
    for data_set in data:
        path = whole / data_set.path
        if not path.exists() and Path(data_set.path).exists():
            raise _elsewhere(data_set.path, whole)
        is_ours = path.exists() or path.suffix in ROW_SUFFIXES
        images = str(whole / data_set.images) if data_set.images else None
        resolved.append(data_set.model_copy(update={"path": str(path) if is_ours else data_set.path, "images": images}))
    return tuple(resolved)


def _elsewhere(text: str, root: Path) -> FinetuneError:
    """Make the error about what would be taken from wherever the command happens to be typed."""
    return FinetuneError(
        f"{text}: paths in a pool's file start at {root} (its folder, or `root` in it), and there is none there, but "
        f"one in the working directory, {Path.cwd()}. Write its whole path, or the way to it from there."
    )
