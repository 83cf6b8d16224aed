"""A study's report: the overall of each way by seed, and how far each is above the best single model."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean, stdev
from typing import Any, cast

from soup.report.page.run_record import read_document, wrap_damage
from soup.report.tables import ScoreRow, ShownTable

__all__ = ["STUDY", "study_document", "study_table"]

STUDY = "study.json"
RIVAL = "best single"


def study_document(path: Path) -> dict[str, object]:
    """Return what a study's file tells, with means over seeds, spreads, and differences from the best single model.

    Raises:
        JournalError: the file is damaged.
    """
    study = read_document(path)
    with wrap_damage(path):
        seeds: dict[str, Any] = study["seeds"]
        ways = list(dict.fromkeys(way for results in seeds.values() for way in results))
        rows = [_row(way, seeds) for way in ways]
        benchmarks = list(dict.fromkeys(n for row in rows for n in cast("dict[str, float]", row["benchmarks"])))
    return {
        "schema": 1,
        "kind": "study",
        "questions": str(study.get("questions", "all")),
        "seeds": list(seeds),
        "benchmarks": benchmarks,
        "ways": rows,
        "remarks": [],
    }


def study_table(document: dict[str, object]) -> ShownTable:
    """Return the same as a table: a column for each seed, the mean and the spread."""
    seeds = cast("list[str]", document["seeds"])
    rows = []
    for way in cast("list[dict[str, Any]]", document["ways"]):
        values = [way["overalls"].get(seed) for seed in seeds]
        rows.append(ScoreRow(way["way"], (*values, way["mean"], way["sd"]), "; ".join(way["ingredients"].values())))
    return ShownTable((*(f"seed {seed}" for seed in seeds), "mean", "sd"), tuple(rows))


def _row(way: str, seeds: dict[str, Any]) -> dict[str, object]:
    results = {seed: rows[way] for seed, rows in seeds.items() if way in rows}
    overalls = {seed: float(result["overall"]) for seed, result in results.items()}
    gains = [overalls[seed] - seeds[seed][RIVAL]["overall"] for seed in results if RIVAL in seeds[seed]]
    names = dict.fromkeys(name for result in results.values() for name in result["benchmarks"])
    return {
        "way": way,
        "overalls": overalls,
        "mean": fmean(overalls.values()),
        "sd": stdev(overalls.values()) if len(overalls) > 1 else None,
        "gain": fmean(gains) if gains else None,
        "better_seeds": sum(gain > 0 for gain in gains),
        "benchmarks": {
            name: fmean(result["benchmarks"][name] for result in results.values() if name in result["benchmarks"])
            for name in names
        },
        "ingredients": {seed: result["ingredients"] for seed, result in results.items() if result["ingredients"]},
    }
