"""What is here of all that soup can use: versions, devices, extras, data, disks, locks; and what mends each."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from soup._version import __version__
from soup.errors import SoupError
from soup.evaluation.api import Benchmark
from soup.evaluation.harnesses import Catalog, build_evaluator, locate
from soup.merging.kernel_library import has_kernels
from soup.support.disk_space import free_space
from soup.support.extras import DISTRIBUTION, EXTRAS, absent_requirements, install_line
from soup.support.file_lock import FileLock
from soup.support.text import format_bytes
from soup.support.threads import count_cores

__all__ = ["Finding", "examine"]

State = Literal["here", "absent", "problem"]
LITTLE_BYTES = 20_000_000_000
"""A model of 7 billion parameters and its soup take more."""
MOST_NAMES = 4


@dataclass(frozen=True)
class Finding:
    """A line of `soup doctor`.

    Args:
        subject: What was looked at.
        state: `absent` is what some work needs and other work does not, `problem` what will be in the way.
        text: What there is.
        mend: The line to type, or what to do; empty where nothing is to be done.
    """

    subject: str
    state: State
    text: str
    mend: str = ""

    def as_json(self) -> dict[str, str]:
        """Return it as JSON values."""
        return asdict(self)


def examine(run_dir: Path) -> list[Finding]:
    """Look at this environment.

    Args:
        run_dir: Where a run's work would live; it need not exist.
    """
    examinations: tuple[Callable[[], Iterator[Finding]], ...] = (
        _versions,
        _devices,
        _kernels,
        _extras,
        _vllm,
        _benchmarks,
        lambda: _disks(run_dir),
        lambda: _locks(run_dir),
    )
    return [finding for examination in examinations for finding in examination()]


def _versions() -> Iterator[Finding]:
    python = f"Python {platform.python_version()}, {platform.system()} on {platform.machine()}"
    yield Finding("soup", "here", f"{__version__}, {python}")
    for library in ("torch", "transformers"):
        version = _version(library)
        if version:
            yield Finding(library, "here", version)
        else:
            yield Finding(library, "absent", "merging needs none of it; answering does", install_line(library))


def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


def _devices() -> Iterator[Finding]:
    import torch

    for number in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(number)
        yield Finding(f"GPU {number}", "here", f"{device.name}, {format_bytes(device.total_memory)}")
    if torch.cuda.device_count():
        return
    cores = count_cores()
    if torch.accelerator.is_available():
        yield Finding("device", "here", f"{torch.accelerator.current_accelerator()}, {cores} processors")
    elif shutil.which("nvidia-smi"):
        remark = f"nvidia-smi is here, and torch {torch.__version__} sees no GPU"
        yield Finding(
            "device", "problem", remark, "nvidia-smi; https://pytorch.org/get-started has torch for each CUDA"
        )
    else:
        yield Finding("device", "here", f"no GPU, {cores} processors: merges need none, answering takes its time")


def _kernels() -> Iterator[Finding]:
    if has_kernels():
        yield Finding("kernels", "here", "the arithmetic of merges is compiled")
    else:
        rebuild = f"pip install --force-reinstall --no-deps --no-cache-dir --no-binary :all: {DISTRIBUTION}"
        remark = "torch does the arithmetic of merges: the same bytes, slower"
        yield Finding("kernels", "absent", remark, f"with a C compiler (apt-get install gcc): {rebuild}")


def _extras() -> Iterator[Finding]:
    for extra, purpose in EXTRAS.items():
        if extra == "vllm":
            continue
        absent = absent_requirements(extra)
        line = f'pip install "{DISTRIBUTION}[{extra}]"'
        if extra == "vlmeval-light":
            absent += [] if _version("ms-vlmeval") else ["ms-vlmeval"]
            line += " && pip install --no-deps ms-vlmeval"
        if not absent:
            yield Finding(f"[{extra}]", "here", purpose)
            continue
        more = f" and {len(absent) - MOST_NAMES} more" if len(absent) > MOST_NAMES else ""
        yield Finding(f"[{extra}]", "absent", f"{purpose}; not here: {', '.join(absent[:MOST_NAMES])}{more}", line)


def _vllm() -> Iterator[Finding]:
    if version := _version("vllm"):
        yield Finding("vllm", "here", f"{version} with transformers {_version('transformers')}")
        return
    pip = "vllm-env/bin/pip install"
    line = f"{pip} '{DISTRIBUTION}[vllm,vlmeval-light]' && {pip} --no-deps ms-vlmeval"
    remark = f"{EXTRAS['vllm']}; not in this one"
    yield Finding("vllm", "absent", remark, f"python3 -m venv vllm-env && {line}")


def _benchmarks() -> Iterator[Finding]:
    catalog = Catalog.load()
    folders: dict[str, dict[str, bool]] = {}
    for name, listed in catalog.benchmarks.items():
        try:
            location = locate(build_evaluator(listed.harness), Benchmark(name, listed.harness, name))
        except SoupError:
            text = f"their data are looked for once [{listed.harness}] is here, see above"
            yield Finding("benchmarks", "absent", text)
            return
        if location:
            folders.setdefault(str(location.path.parent), {})[name] = location.path.exists()
    for folder, is_here_by_name in folders.items():
        absent = [name for name, is_here in is_here_by_name.items() if not is_here]
        state: State = "absent" if absent else "here"
        line = f"soup list benchmarks --fetch {','.join(absent)}" if absent else ""
        yield Finding(
            "benchmarks",
            state,
            f"{len(is_here_by_name) - len(absent)} of {len(is_here_by_name)} have data in {folder}",
            line,
        )


def _disks(run_dir: Path) -> Iterator[Finding]:
    from huggingface_hub.constants import HF_HUB_CACHE

    places = (
        ("run's disk", run_dir, "--run-dir DIR, on a larger disk"),
        ("Hub's cache", Path(HF_HUB_CACHE), "export HF_HOME=DIR"),
    )
    for subject, path, line in places:
        free = free_space(path.absolute())
        is_little = free.bytes < LITTLE_BYTES
        text = f"{format_bytes(free.bytes)} free in {free.location}"
        yield Finding(subject, "problem" if is_little else "here", text, line if is_little else "")


def _locks(run_dir: Path) -> Iterator[Finding]:
    """Lock a file twice: the second time must be refused."""
    folder = free_space(run_dir.absolute()).location
    folder = folder if folder.is_dir() else folder.parent
    mend = "--run-dir DIR, on a local disk (Lustre: mounted with -o flock); else start one run at a time"
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".soup-doctor") as file:
            first, second = FileLock.take(Path(file.name)), FileLock.take(Path(file.name))
            for lock in filter(None, (first, second)):
                lock.release()
    except OSError as error:
        yield Finding("locks", "problem", f"{folder} can't be written to ({error.strerror or error})", "--run-dir DIR")
        return
    if first is not None and second is None:
        yield Finding("locks", "here", f"two runs can't share a directory in {folder}")
    else:
        yield Finding("locks", "problem", f"{folder} has no locks: nothing keeps two runs apart", mend)
