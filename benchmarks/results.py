"""What benchmarks measured, kept as results/NAME.json: a list of rows, each with its machine, for draw.py."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

RESULTS = Path(__file__).parent / "results"

Row = Mapping[str, object]


def read(name: str) -> list[dict[str, object]]:
    """Return the rows of a benchmark; none where it was never recorded."""
    path = RESULTS / f"{name}.json"
    rows: list[dict[str, object]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return rows


def record(name: str, rows: Sequence[Row], key: Sequence[str]) -> None:
    """Keep rows in results/NAME.json: each takes the place of the row that has the same values of `key`."""
    kept = {tuple(row.get(part) for part in key): dict(row) for row in read(name)}
    for row in rows:
        kept[tuple(row.get(part) for part in key)] = {**row, "machine": machine()}
    RESULTS.mkdir(exist_ok=True)
    lines = ",\n".join(json.dumps(row) for row in kept.values())
    (RESULTS / f"{name}.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def machine() -> str:
    """Describe this machine in a few words, without its name."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.machine()}, Python {platform.python_version()}"
