"""What a job would be trained from, as one digest: its settings, the content of its data, and its start.

    data     sha256 of the row files' bytes, and of the names and sizes of the pictures named there
    start    the digest of a checkpoint's weights and side files (`soup/checkpoints/digest.py`), of the job
             that trains it, or the commit of a Hub id
    job      sha256 of both and of all settings; paths are left out: a folder that moved holds the same models

Pictures are not read: a million of them would take hours. One that is replaced by another of the same name and the
same size leaves the digest as it is. Its time tells, but so would a copy's of the whole folder: those that are younger
than an ingredient are a remark (`finetune/launching/job_plans.py`), and make no other model of it.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from finetune.config import JSON_SUFFIXES, ROW_SUFFIXES, DataSet
from finetune.jobs import Job, JobDigests
from soup.checkpoints.digest import DigestCache, digest_checkpoint, side_digest
from soup.checkpoints.hub import HubId, is_hub_id
from soup.checkpoints.reader import Checkpoint
from soup.errors import FinetuneError
from soup.support.json_text import parse_json
from soup.support.text import did_you_mean

__all__ = ["Content", "Digests", "is_preset", "picture_root", "row_files", "unread_files"]

FORMAT = 2  # moves on when the same settings would train another model
PRESETS = ("tiny", "0.5b", "7b", "9b")  # those of finetune/points/presets.py, which imports transformers
# A string of JSON that ends as the names of pictures and videos do, whatever key it stands under.
PICTURE = re.compile(
    rb'"((?:[^"\\\n]|\\.){1,4096}\.(?:png|jpe?g|webp|gif|bmp|tiff?|ppm|avif|mp4|avi|mov|mkv|webm))"', re.IGNORECASE
)
FLAT_ROW = re.compile(rb'(?<!\\)"(?:output|response|answer)"\s*:')
ROW = re.compile(rb'(?<!\\)"(?:conversations|messages)"\s*:')


@dataclass(frozen=True)
class Content:
    """What a data set holds: its digest, and how many rows and pictures (None: not known without reading it all).

    `youngest` is the picture that was written last, and when, in seconds since the epoch.
    """

    digest: str
    rows: int | None = None
    pictures: int | None = None
    youngest: tuple[float, str] | None = field(default=None, compare=False)


@dataclass
class Digests:
    """Digests of data sets and starts, each made once; the file `cache_path` keeps those of checkpoints.

    Without `writing` it is read alone.
    """

    cache_path: Path | None = None
    writing: bool = True
    _files: dict[tuple[str, int, int], tuple[str, int | None, list[str]]] = field(default_factory=dict)
    _contents: dict[DataSet, Content] = field(default_factory=dict)
    _starts: dict[str, str] = field(default_factory=dict)

    def content(self, data_set: DataSet) -> Content:
        """Give what a data set holds.

        Raises:
            FinetuneError: it is neither here nor on the Hub.
        """
        if data_set not in self._contents:
            is_local = Path(data_set.path).exists()
            self._contents[data_set] = (
                self._local(data_set) if is_local else Content(_on_hub("datasets", data_set.path))
            )
        return self._contents[data_set]

    def _local(self, data_set: DataSet) -> Content:
        location = Path(data_set.path)
        root = picture_root(data_set)
        whole, rows, pictures = hashlib.sha256(), [], []
        for file in row_files(location):
            digest, count, named = self._file(file)
            whole.update(f"{os.path.relpath(file, location)} {digest}\n".encode())
            rows.append(count)
            pictures += named
        names = sorted(set(pictures))
        times = []
        for name in names:
            path = root / name
            # os.path's is False, not an error, for a name that no file can have
            stat = path.stat() if os.path.isfile(path) else None  # noqa: PTH113  # pathlib raises where a name is too long
            whole.update(f"{name} {stat.st_size if stat else None}\n".encode())
            times += [(stat.st_mtime, name)] if stat else []
        known = [count for count in rows if count is not None]
        count = sum(known) if len(known) == len(rows) and data_set.columns is None else None
        return Content(whole.hexdigest(), count, len(names), max(times, default=None))

    def _file(self, file: Path) -> tuple[str, int | None, list[str]]:
        """Digest, number of rows and named pictures of one file, remembered by path, size and time."""
        stat = file.stat()
        key = str(file), stat.st_size, stat.st_mtime_ns
        if key not in self._files:
            with file.open("rb") as data:
                digest = hashlib.file_digest(data, "sha256").hexdigest()
            named = list(_pictures(file)) if file.suffix in JSON_SUFFIXES else []
            self._files[key] = digest, _count_rows(file), named
        return self._files[key]

    def start(self, start: str) -> str:
        """Give the digest of a start: a checkpoint here, a preset, or a Hub id.

        Raises:
            FinetuneError: it is none of these.
            SoupError: a checkpoint that is incomplete or damaged.
        """
        if start not in self._starts:
            self._starts[start] = self._start(start)
        return self._starts[start]

    def check_start(self, start: str) -> None:
        """Look for what a start lacks, without reading its weights.

        Raises:
            SoupError: as `start`.
        """
        if not Path(start).is_dir():
            self.start(start)
            return
        with Checkpoint(start) as checkpoint:
            side_digest(checkpoint)

    def _start(self, start: str) -> str:
        if Path(start).is_dir():
            with Checkpoint(start) as checkpoint:
                cache = DigestCache(self.cache_path) if self.cache_path else None
                if cache and (self.writing or cache.knows(checkpoint)):
                    digest = cache.get(checkpoint)
                else:
                    digest = digest_checkpoint(checkpoint)
                return f"{digest.content} {side_digest(checkpoint)}"
        if is_preset(start):
            return start
        if not is_hub_id(start):
            raise FinetuneError(f"{start}: no directory, no Hub id, no preset.{did_you_mean(start, PRESETS)}")
        return _on_hub("models", start)

    def parts(self, job: Job, start_digest: str | None = None) -> JobDigests:
        """Give the digests of a job's start and of each of its data sets.

        Args:
            job: the job.
            start_digest: of the job that trains its start, where one does.
        """
        return {
            "start": start_digest or self.start(job.start),
            "data": {data_set.path: self.content(data_set).digest for data_set in job.data},
        }

    def _described(self, data_set: DataSet) -> list[object]:
        return [self.content(data_set).digest, data_set.model_dump(exclude={"path", "images"})]

    def job(self, job: Job, start_digest: str | None = None) -> str:
        """Give the digest of a job; arguments as `parts` has them."""
        data = [self._described(data_set) for data_set in job.data]
        settings = {
            name: value for name, value in job.settings.as_stored().items() if name not in job.settings.watching
        }
        if "validation" in settings and job.settings.validation_sets:
            settings["validation"] = [self._described(data_set) for data_set in job.settings.validation_sets]
        whole = [FORMAT, start_digest or self.start(job.start), data, settings]
        if job.start == "tiny" and len(job.data) > 1:
            whole.append("the words of the first data set")  # once it was those of all
        if job.settings.packing and job.settings.epochs:
            whole.append("epochs end between packs")  # once a job trained on, up to 255 rows
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def is_preset(start: str) -> bool:
    """Whether a start is a model that is made from nothing."""
    return start in PRESETS


def row_files(location: Path) -> Sequence[Path]:
    """Give the files that hold a data set's rows: itself, `data.json`, or all files of rows within the directory.

    Raises:
        FinetuneError: there is none.
    """
    if location.is_file():
        return [location]
    if (location / "data.json").is_file():
        return [location / "data.json"]
    files = sorted(path for path in location.rglob("*") if path.suffix in ROW_SUFFIXES and path.is_file())
    if not files:
        raise FinetuneError(f"{location}: no data.json, and no other file of rows ({', '.join(ROW_SUFFIXES)})")
    return files


def picture_root(data_set: DataSet) -> Path:
    """Give where the relative paths of a data set's pictures start."""
    location = Path(data_set.path)
    return Path(data_set.images or (location if location.is_dir() else location.parent))


def unread_files(data_set: DataSet, made: Iterable[Path] = ()) -> list[str]:
    """Tell of files of rows that lie beside a directory's `data.json`, which is read alone.

    Args:
        data_set: the directory.
        made: files that are known not to be of its rows.
    """
    location, known = Path(data_set.path), {path.resolve() for path in made}
    if not (location / "data.json").is_file():
        return []
    files = sorted(path for path in location.iterdir() if path.suffix in ROW_SUFFIXES and path.is_file())
    others = [path.name for path in files if path.name != "data.json" and path.resolve() not in known]
    named = ", ".join(others)
    return [f"data {location}: data.json alone is read, not {named}; name a file to have it read"] if others else []


def _pictures(file: Path) -> Iterator[str]:
    """Return the pictures that a file of JSON names, without loading its rows."""
    for match in _matches(PICTURE, file):
        try:
            name = str(parse_json(b'"' + match + b'"', file, FinetuneError))
        except FinetuneError:
            continue
        if "://" not in name[:12] and not name.startswith("data:"):
            yield name


def _matches(pattern: re.Pattern[bytes], file: Path) -> Iterator[bytes]:
    if not file.stat().st_size:  # which can't be mapped
        return
    with file.open("rb") as data, mmap.mmap(data.fileno(), 0, access=mmap.ACCESS_READ) as view:
        for match in pattern.finditer(view):
            yield match[match.lastindex or 0]


def _count_rows(file: Path) -> int | None:
    """How many rows a file holds; None where only loading it would tell."""
    if file.suffix in JSON_SUFFIXES:
        return sum(1 for _ in _matches(ROW, file)) or sum(1 for _ in _matches(FLAT_ROW, file))
    try:
        from pyarrow import parquet

        return parquet.ParquetFile(file).metadata.num_rows if file.suffix == ".parquet" else None
    except Exception:  # no pyarrow, or not what its name says: the job's own reading tells that better
        return None


def _on_hub(kind: str, location: str) -> str:
    """Return the Hub id with the commit that it means: by the Hub, or the one that the cache here holds."""
    hub_id = HubId.parse(location)
    if hub_id is None:
        raise FinetuneError(f"{location}: no such file or directory")
    name, revision = hub_id.name, hub_id.revision
    from huggingface_hub import HfApi, constants

    why = "HF_HUB_OFFLINE is set"
    if not constants.HF_HUB_OFFLINE:
        try:
            api = HfApi()
            info = (api.dataset_info if kind == "datasets" else api.model_info)(name, revision=revision)
        except Exception as error:  # the Hub's client raises many kinds: network, permission, missing
            why = f"{type(error).__name__}: {error}"
        else:
            return str(replace(hub_id, revision=info.sha))
    if hub_id.is_pinned:
        return location
    ref = Path(constants.HF_HUB_CACHE, f"{kind}--{name.replace('/', '--')}", "refs", revision or "main")
    if ref.is_file():
        return str(replace(hub_id, revision=ref.read_text(encoding="utf-8").strip()))
    raise FinetuneError(f"{location}: no such file or directory, and not to be had from the Hub ({why})")
