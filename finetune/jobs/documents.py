"""What a job writes of itself: `job.json` before it runs, and the stamp in its ingredient when it is done."""

from __future__ import annotations

from pathlib import Path
from types import UnionType
from typing import TypedDict, cast

from soup.errors import FinetuneError
from soup.support.json_text import check_kinds, read_json_object

__all__ = [
    "STAMP",
    "JobDigests",
    "JobDocument",
    "Json",
    "Stamp",
    "has_digest",
    "read_job",
    "read_json",
    "read_stamp",
    "stamp_time",
]


STAMP = "finetune.json"  # what a complete checkpoint of ours says of itself
Json = dict[str, object]
"""An object of JSON as it was read: what its keys hold is looked at where they are used."""


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
    document = read_json(path)
    try:
        check_kinds(document or {}, _KINDS, {"data": dict})
        parts = cast("JobDocument", document or {})
        check_kinds(parts.get("digests") or {}, {"start": str | None, "data": dict | None}, {"data": str})
        for data_set in parts.get("data") or []:
            check_kinds(data_set, {"path": str | None})
    except ValueError:
        return None
    return document


def read_json(path: Path) -> Json | None:
    """Read an object; None where there is none, or the file is damaged."""
    try:
        return read_json_object(path, FinetuneError)
    except FinetuneError:
        return None
