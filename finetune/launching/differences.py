"""What a checkpoint in a job's way was made from, and how that differs from what the job would make it from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from finetune.config import NEW_SETTINGS
from finetune.jobs import Job, JobDigests, JobDocument, Json
from soup.support.text import bullet_list

__all__ = ["differences", "foreign_error", "in_the_way_error", "made_from"]


def made_from(stamp: JobDocument, job: JobDocument | None) -> JobDocument:
    """Return what a checkpoint was made from, by the job's folder if that is of this attempt, else by its stamp."""
    return job if job and job.get("digest") == stamp.get("digest") else stamp


def in_the_way_error(paths: Sequence[Path], changed: Sequence[str]) -> str:
    """Return the error about checkpoints that stand where jobs' ought to be, and what made them differ."""
    unknown = "\nNothing that they tell of themselves differs: another version of soup trained them otherwise.\n"
    what = f" What differs:\n{bullet_list(changed)}\n" if changed else unknown
    if len(paths) == 1:
        return (
            f"{paths[0]}: stands there already, but was not made by these settings, data and start.{what}"
            "Remove it to train it anew, or name another `out`."
        )
    return (
        f"{len(paths)} checkpoints stand there already, but were not made by these settings, data and start:\n"
        f"{bullet_list(map(str, paths))}\n{what.lstrip()}Remove them to train them anew, or name another `out`."
    )


def foreign_error(paths: Sequence[Path]) -> str:
    """Return the error about what stands where ingredients ought to be and is none: data, or a model of elsewhere."""
    return (
        f"{len(paths)} ingredients have no place: what stands there already is not of soup finetune "
        f"(it has no finetune.json):\n{bullet_list(map(str, paths))}\nName another `out`, or move that away."
    )


def differences(before: JobDocument, job: Job, digest: str) -> Iterator[str]:
    """Return what was otherwise when a checkpoint was made: `lr: 1e-05 there, 2e-05 now`."""
    stored = before.get("settings")
    settings: Mapping[str, object] = stored if isinstance(stored, dict) else before
    for name, value in job.as_json(digest)["settings"].items():
        there, now = _plain(settings.get(name)), _plain(value)
        if name in settings and there != now:
            yield f"{NEW_SETTINGS.get(name, name)}: {there} there, {now} now"
    digests = before.get("digests") or JobDigests()
    there, now = digests.get("start"), job.digests["start"]
    if there and there.partition(" ")[0] == now.partition(" ")[0] and there != now:
        yield (
            f"start: {job.start} holds the same weights, but other files beside them than {before.get('start')} held: "
            "configuration, tokenizer, processor or template"
        )
    elif there and there != now:
        yield f"start: {before.get('start')} held other weights than {job.start} holds now"
    yield from _data_differences(digests.get("data"), job.digests["data"])
    yield from _option_differences(before.get("data"), job)


def _data_differences(stored: Mapping[str, str] | None, now: Mapping[str, str]) -> Iterator[str]:
    if not isinstance(stored, dict) or sorted(stored.values()) == sorted(now.values()):
        return
    for path, digest in now.items():
        if stored.get(path) not in (None, digest):
            yield f"data {path}: its content changed"
        elif path not in stored and digest not in stored.values():
            yield f"data {path}: not there, but now"
    removed = [path for path, digest in stored.items() if path not in now and digest not in now.values()]
    yield from (f"data {path}: there, but not now" for path in removed)


def _option_differences(stored: Sequence[Json] | None, job: Job) -> Iterator[str]:
    """Options of the same data set that were others: its weight, its category, ..."""
    options = {data_set.get("path"): data_set for data_set in stored or () if isinstance(data_set, dict)}
    for data_set in job.data:
        before = options.get(data_set.path, {})
        for name, value in data_set.model_dump(exclude={"path", "images"}).items():
            if name in before and before[name] != value:
                yield f"data {data_set.path}: {name}: {before[name]} there, {value} now"


def _plain(value: object) -> object:
    """Return a value as JSON gives it back."""
    return list(value) if isinstance(value, tuple) else value
