"""Test sets from where VLMEvalKit takes them, checked against its own digests; resumed after an interruption.

A file appears under its name only when it is whole and right. One that is here already is never touched.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evaluators.vlmeval.benchmarks import VLMEvalBenchmark
from evaluators.vlmeval.data_sets import data_folder
from soup.errors import EvaluatorError, OutputError
from soup.support.atomic_files import sync
from soup.support.disk_space import require_bytes
from soup.support.file_lock import FileLock
from soup.support.text import format_bytes

__all__ = ["fetch"]

CHUNK_BYTES = 1 << 20
TIMEOUT_SECONDS = 60.0
STATUS_PARTIAL, STATUS_NO_SUCH_RANGE = 206, 416


def fetch(benchmark: VLMEvalBenchmark, phase: Callable[[str, int], None], progress: Callable[[int], None]) -> Path:
    """Download the benchmark's file if it is not here, and return its path.

    Args:
        benchmark: Whose file.
        phase: Called with what is downloaded and the bytes to come.
        progress: Called with the bytes of each chunk.

    Raises:
        EvaluatorError: it can't be had, is not the file whose digest VLMEvalKit knows, or another one is in its place.
        OutputError: the disk is too small.
    """
    base = benchmark.data_set_class()
    if benchmark.frames:
        raise EvaluatorError(
            f"{benchmark.name}: its videos are many files, which VLMEvalKit downloads: put the folder that it makes at "
            f"{data_folder() / benchmark.data_set}."
        )
    url, expected = base.DATASET_URL.get(benchmark.data_set), base.DATASET_MD5.get(benchmark.data_set)
    if not url or not expected:
        raise EvaluatorError(
            f"{benchmark.name}: VLMEvalKit tells no {'digest' if url else 'address'} of its table, so that it can't be "
            f"fetched here: put it at {data_folder() / benchmark.data_set}.tsv."
        )
    path = data_folder() / f"{benchmark.data_set}.tsv"
    if path.exists():
        _refuse_another(benchmark, path, expected)
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    lock = FileLock.take(path.with_name(f".{path.name}.lock"), temporary=True)
    if lock is None:
        raise OutputError(f"{path}: another process downloads it just now. Wait for it, and type the command again.")
    try:
        _download(url, part, lambda size: phase(f"fetching {benchmark.data_set}", size), progress)
        _publish(benchmark, part, path, url, expected)
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as cause:
        reason = getattr(cause, "reason", None) or cause
        raise EvaluatorError(
            f"{benchmark.name}: {url} can't be downloaded: {reason}. Type the same command to go on from where it "
            f"stopped, or get that file in another way and put it at {path.absolute()} (md5 {expected})."
        ) from cause
    finally:
        lock.release()
    return path


def _publish(benchmark: VLMEvalBenchmark, part: Path, path: Path, url: str, expected: str) -> None:
    """Give a download its name if it has the digest that VLMEvalKit knows; else remove it."""
    actual = _md5(part)
    if actual != expected:
        part.unlink()
        raise EvaluatorError(
            f"{benchmark.name}: what {url} sent is not the file that VLMEvalKit knows: expected md5 {expected}, found "
            f"{actual}. Nothing was kept."
        )
    sync(part)
    part.replace(path)
    sync(path.parent)


def _refuse_another(benchmark: VLMEvalBenchmark, path: Path, expected: str) -> None:
    actual = _md5(path)
    if actual != expected:
        raise EvaluatorError(
            f"{benchmark.name}: {path} is here, and is not the file that VLMEvalKit would download: expected md5 "
            f"{expected}, found {actual}. It is used as it is; move it away to fetch the other one."
        )


def _download(url: str, part: Path, size: Callable[[int], None], progress: Callable[[int], None]) -> None:
    """Append what is missing to the partial file; start over where the server can't send a part."""
    here_bytes = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={here_bytes}-"} if here_bytes else {})
    try:
        # A context of our own: a full import of VLMEvalKit turns verification off for everybody who has none.
        verified = ssl.create_default_context()
        response: Any = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS, context=verified)
    except urllib.error.HTTPError as error:
        error.close()
        if not here_bytes or error.code != STATUS_NO_SUCH_RANGE:
            raise
        return  # it is whole already, or longer than what is there now: the digest will tell
    with response:
        resumed = response.status == STATUS_PARTIAL
        coming_bytes = int(response.headers.get("Content-Length") or 0)
        require_bytes(part.parent, coming_bytes, lambda free: _disk_error(part.parent, coming_bytes, free.bytes))
        size(coming_bytes + (here_bytes if resumed else 0))
        progress(here_bytes if resumed else 0)
        with part.open("ab" if resumed else "wb") as file:
            arrived_bytes = 0
            while chunk := response.read(CHUNK_BYTES):
                file.write(chunk)
                arrived_bytes += len(chunk)
                progress(len(chunk))
            os.fsync(file.fileno())
    if arrived_bytes < coming_bytes:
        raise ConnectionError(f"the connection ended after {arrived_bytes:,} of {coming_bytes:,} bytes")


def _disk_error(folder: Path, coming_bytes: int, free_bytes: int) -> OutputError:
    return OutputError(f"{folder}: {format_bytes(coming_bytes)} are to come, and {format_bytes(free_bytes)} are free.")


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
