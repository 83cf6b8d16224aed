"""One model to train, whole: `job.json` holds all that a process needs to train it anywhere."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from finetune.config import DataSet, TrainSettings
from finetune.jobs.documents import JobDigests, JobDocument
from soup.errors import FinetuneError
from soup.support.atomic_files import write_atomic
from soup.support.json_text import read_json_object

__all__ = [
    "Job",
    "job_command",
]


@dataclass(frozen=True)
class Job:
    """One model to train.

    Args:
        name: Its name in the pool.
        start: The directory or Hub id of the model that it starts from.
        data: What it learns from.
        settings: How.
        out: Where the model goes.
        folder: Where the job's own files lie: state, log, snapshots.
        after: The name of the job that makes its start.
        digests: Of what it is made from.
    """

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
