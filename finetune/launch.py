"""All jobs of a configuration, one after another: the start where it is to be trained, then each ingredient.

A job that was done is known by the digest in its `finetune.json`, which covers settings, data and start: typing the
same command again goes on where it stopped.
"""

import hashlib
import json
import os
import shutil
import time
import traceback
from functools import cache
from pathlib import Path
from typing import Any

from finetune.config import read_config
from finetune.data import Album, read_samples
from finetune.jobs import START, Job, plan
from soup.errors import FinetuneError, SoupError, listing

__all__ = ["finetune"]

STAMP = "finetune.json"
FORMAT = 1  # moves on when the same settings would train another model
LOG_LINES = 15


def finetune(config_path: Path | str, *, progress: Any = None) -> list[Path]:
    """Trains what the configuration asks for and is not there yet; gives the ingredients' directories.

    `progress(name, step, steps, loss)` is called after each step; a job that was done before calls it once, with all
    its steps and its last loss.

    Raises:
        FinetuneError: a wrong configuration, missing data, or a job that failed: with the end of its log, and its path.
    """
    path = Path(config_path)
    config = read_config(path)
    jobs = plan(config, path.parent / config.root)
    _check(jobs)
    features = Album()
    _data_digest.cache_clear()  # several jobs share a data set within one call; between calls it may change
    for job in jobs:
        _run(job, features, progress)
    return [job.out for job in jobs if job.name != START]


def _check(jobs: list[Job]) -> None:
    """All that can be known before the first step.

    Raises:
        FinetuneError: data sets that are not there, or two jobs with one name; all of them are listed.
    """
    missing = sorted({one.path for job in jobs for one in job.data if not Path(one.path, "data.json").is_file()})
    if missing:
        raise FinetuneError(f"no data.json in {len(missing)} of the data sets:\n{listing(missing)}")
    if len({job.out.resolve() for job in jobs}) < len(jobs):
        raise FinetuneError("an added data set is called as the start's directory is: two checkpoints for one place.")


def _run(job: Job, features: Album, progress: Any) -> None:
    """Trains one model, unless just this one is there; a directory that holds another is never overwritten."""
    stamp = _read_stamp(job.out)
    digest = _digest(job)
    if stamp and stamp.get("digest") == digest:
        if progress:
            progress(job.name, stamp["steps"], stamp["steps"], stamp["last_loss"])
        return
    if job.out.exists():
        raise FinetuneError(
            f"{job.out}: stands there already, but was not made by these settings, data and start. "
            "Remove it to train it anew, or name another `out`."
        )
    part = job.folder / "part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    told = _train_logged(job, part, features, progress)
    (part / STAMP).write_text(json.dumps({"digest": digest, **_about(job), **told}, indent=2) + "\n")
    job.out.parent.mkdir(parents=True, exist_ok=True)
    part.rename(job.out)


def _train_logged(job: Job, part: Path, features: Album, progress: Any) -> dict[str, Any]:
    """Trains with a line of log a step; an error of whatever kind comes out with the end of the log."""
    from finetune.train import train

    log = job.folder / "log.txt"
    with log.open("w", encoding="utf-8") as file:

        def tell(name: str, step: int, steps: int, loss: float) -> None:
            print(f"step {step} of {steps}: loss {loss:.4f}", file=file, flush=True)
            if progress:
                progress(name, step, steps, loss)

        began = time.monotonic()
        try:
            told = train(
                job.name,
                job.start,
                [Path(one.path) for one in job.data],
                job.settings,
                part,
                features=features,
                progress=tell,
            )
        except SoupError as error:
            print(error, file=file)
            raise FinetuneError(f"{job.name}: {error}\nIts log: {log}") from error
        except Exception as error:
            traceback.print_exc(file=file)
            file.flush()
            tail = "\n".join(log.read_text(encoding="utf-8").splitlines()[-LOG_LINES:])
            raise FinetuneError(f"{job.name} failed; the end of its log:\n{tail}\nAll of it: {log}") from error
    return told | {"seconds": round(time.monotonic() - began, 1)}


def _read_stamp(out: Path) -> dict[str, Any] | None:
    """What a finished job left, or nothing."""
    try:
        return json.loads((out / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _about(job: Job) -> dict[str, Any]:
    """What a job was made from, for people."""
    return {"name": job.name, "start": job.start, "data": [one.path for one in job.data]} | job.settings.model_dump()


def _digest(job: Job) -> str:
    """Of settings, of the data sets, and of the start: its own digest, or its weights' sizes and dates.

    Paths are left out: a folder that moved holds the same models.
    """
    start = Path(job.start)
    stamp = _read_stamp(start)
    if stamp:
        origin: Any = stamp["digest"]
    elif start.is_dir():
        origin = [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in sorted(start.glob("*.safetensors"))]
    else:
        origin = job.start
    data = [_data_digest(Path(one.path)) for one in job.data]
    whole = json.dumps([FORMAT, origin, data, job.settings.model_dump()], sort_keys=True)
    return hashlib.sha256(whole.encode()).hexdigest()


@cache
def _data_digest(directory: Path) -> str:
    """Of a data set's conversations, and of the names and sizes of its images: reading them all would take minutes."""
    digest = hashlib.sha256((directory / "data.json").read_bytes())
    for image in sorted({path for sample in read_samples(directory) for path in sample["images"]}):
        place = Path(image)
        size = place.stat().st_size if place.is_file() else None
        digest.update(f"{os.path.relpath(place, directory)} {size}\n".encode())
    return digest.hexdigest()
