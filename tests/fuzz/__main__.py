"""`python -m tests.fuzz [TARGET ...] [--executions N]`: fuzz soup's readers; exit code 1 if one of them failed.

Each target is a process of its own: atheris (libFuzzer, led by the branches that an input reaches) where it is
installed, else hypothesis with the same mutations. Inputs begin as the files of `tests/fuzz/corpus/TARGET`. What made
a target fail is kept in `tests/fuzz/work/findings/TARGET`, one input for each place in soup, beside its trace: mend
the reader, make the input small, and put it into the corpus, which the tests replay.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from tests.fuzz.mutation import WORDS, mutate, mutate_bytes

HERE = Path(__file__).parent
CORPUS, FINDINGS, FOUND = HERE / "corpus", HERE / "work" / "findings", HERE / "work" / "corpus"
MOST_BYTES = 4096  # of an input
TIMEOUT_SECONDS = 60  # of one input, by the clock: the machine may be busy
MEMORY_MB = 4096
TARGETS = sorted(path.name for path in CORPUS.iterdir() if path.is_dir())


def main() -> None:
    """Fuzz the targets that are named, one after another, each in a process of its own."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.split("\n")[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"by default all: {', '.join(TARGETS)}")
    parser.add_argument("--executions", type=int, default=100_000, help="inputs for each target")
    parser.add_argument("--seconds", type=int, default=0, help="for each target, at most; by default no limit")
    parser.add_argument("--inside", help=argparse.SUPPRESS)  # the folder of a target's process
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.targets) - set(TARGETS)):
        parser.error(f"no such target: {', '.join(unknown)}; there are {', '.join(TARGETS)}")
    if arguments.inside:
        fuzz = _fuzz_by_atheris if find_spec("atheris") else _fuzz_by_hypothesis
        fuzz(arguments.targets[0], arguments.executions, arguments.seconds, Path(arguments.inside))
        return
    print(f"{'target':14} {'executions':>10} {'a second':>9} {'new inputs':>10} {'findings':>8}", flush=True)
    failed = [name for name in arguments.targets or TARGETS if _fuzz(name, arguments.executions, arguments.seconds)]
    sys.exit(bool(failed))


def _fuzz(name: str, executions: int, most_seconds: int) -> bool:
    """Fuzz one target in a process of its own, print its line, and return whether something was found."""
    (FINDINGS / name).mkdir(parents=True, exist_ok=True)
    before = set((FINDINGS / name).iterdir())
    shm = Path("/dev/shm")  # in memory: targets write each input into a file
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None) as folder:
        bounds = ["--executions", str(executions), "--seconds", str(most_seconds)]
        command = [sys.executable, "-m", "tests.fuzz", name, *bounds, "--inside", folder]
        log = Path(folder, "fuzz.log")
        with log.open("wb") as file:
            status = subprocess.run(command, cwd=HERE.parents[1], stdout=file, stderr=file, check=False).returncode
        text = log.read_text(errors="replace")
    seconds = time.monotonic() - began
    findings = sorted(path for path in (FINDINGS / name).iterdir() if path not in before and path.suffix != ".txt")
    done = [int(count) for count in re.findall(r"(?:number_of_executed_units: |^done )(\d+)", text, re.MULTILINE)]
    new = [int(number) for number in re.findall(r"new_units_added: +(\d+)", text)]
    count = done[-1] if done else 0
    print(f"{name:14} {count:10,} {count / seconds:9,.0f} {new[-1] if new else 0:10,} {len(findings):8}", flush=True)
    for path in findings:
        print(f"  {path.relative_to(HERE.parents[1])}", flush=True)
    if status not in (0, 1) and not findings:
        print(f"  ended with exit code {status}:\n{text[-3000:]}", flush=True)
    return bool(findings) or status != 0


def _keep(name: str, target: Callable[[str, bytes, Path], object], folder: Path) -> Callable[[bytes], None]:
    """Make a function that runs a target, and keeps the first input that fails in each place."""
    faults: set[str] = set()

    def once(data: bytes) -> None:
        try:
            target(name, data, folder)
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            ours = [
                frame
                for frame in frames
                if "site-packages" not in frame.filename and "/lib/python" not in frame.filename
            ]
            fault = f"{type(error).__name__} {ours[-1].filename}:{ours[-1].lineno}"
            if fault in faults:
                return
            faults.add(fault)
            path = FINDINGS / name / hashlib.sha256(fault.encode()).hexdigest()[:12]
            path.write_bytes(data)
            path.with_suffix(".txt").write_text("".join(traceback.format_exception(error)), errors="replace")

    return once


def _fuzz_by_atheris(name: str, executions: int, most_seconds: int, folder: Path) -> None:
    import atheris

    with atheris.instrument_imports(include=["soup", "finetune", "evaluators"]):
        from tests.fuzz.targets import run

        _remember_entry_points()

    def changed(data: bytes, most_bytes: int, seed: int) -> bytes:
        dice = random.Random(seed)
        return mutate(name, data, most_bytes, dice, lambda part: bytes(atheris.Mutate(part, most_bytes)))

    for path in (FINDINGS / name, FOUND / name):
        path.mkdir(parents=True, exist_ok=True)
    words = folder / "words.dict"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in WORDS if len(word) < 60))
    flags = {"runs": executions, "max_len": MOST_BYTES, "timeout": TIMEOUT_SECONDS, "rss_limit_mb": MEMORY_MB}
    flags |= {
        "max_total_time": most_seconds,
        "report_slow_units": TIMEOUT_SECONDS,
        "dict": words,
        "artifact_prefix": f"{FINDINGS / name}/",
        "print_final_stats": 1,
    }
    argv = [sys.argv[0], *(f"-{flag}={value}" for flag, value in flags.items()), str(FOUND / name), str(CORPUS / name)]
    (folder / "target").mkdir()
    os.chdir(folder)
    atheris.Setup(argv, _keep(name, run, folder / "target"), custom_mutator=changed)
    atheris.Fuzz()


def _remember_entry_points() -> None:
    """List the metadata of all packages once: it takes 60 ms. In this process alone, never in the tests'."""
    from soup.support import plugins

    plugins.entry_points = cache(plugins.entry_points)


def _escaped(word: str) -> str:
    data = word.encode("utf-8", "surrogatepass")
    return "".join(f"\\x{byte:02x}" if byte in b'"\\' or not 32 <= byte < 127 else chr(byte) for byte in data)


def _fuzz_by_hypothesis(name: str, executions: int, most_seconds: int, folder: Path) -> None:
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st

    from tests.fuzz.targets import run

    _remember_entry_points()

    seeds = [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]
    once = _keep(name, run, folder)
    count, began = 0, time.monotonic()

    @settings(max_examples=executions, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(seeds) | st.binary(), st.integers(0, 2**64), st.integers(1, 5))
    def fuzz(data: bytes, seed: int, changes: int) -> None:
        nonlocal count
        if most_seconds and time.monotonic() - began > most_seconds:
            return
        dice = random.Random(seed)
        for _ in range(changes):
            data = mutate(name, data, MOST_BYTES, dice, lambda part: mutate_bytes(part, dice))
        once(data)
        count += 1

    fuzz()
    print(f"done {count}")


if __name__ == "__main__":
    main()
