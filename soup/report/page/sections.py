"""The sections of a report that are views of a run: steps, scores by ingredient, categories, cost, provenance."""

from __future__ import annotations

import datetime
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from soup._version import __version__
from soup.errors import SoupError
from soup.evaluation.benchmark_names import parse_benchmarks
from soup.evaluation.bootstrap import paired_difference
from soup.evaluation.harnesses import build_evaluator, categories
from soup.report.page.run_record import RunModel, RunRecord, read_document, wrap_damage
from soup.report.page.search_record import SearchRecord
from soup.report.pool_maps import map_to_plane

__all__ = ["by_category", "cost", "ingredient_scores", "pool_check", "provenance", "steps", "sweeps"]


def steps(record: RunRecord) -> list[dict[str, object]]:
    """Return each search with its trials, in the order asked; of a run under way what was scored so far."""
    if record.searches:
        newest_first = record.searches[::-1]
        return [_search(search) for search in sorted(newest_first, key=lambda search: search is not record.main)]
    if not record.is_under_way:
        return []
    trials: list[dict[str, object]] = []
    best: RunModel | None = None
    soups = record.soups
    for model in (model for model in record.models.values() if len(model.names) == 1 or model in soups):
        scores, overall = model.on(record.choosing, record.benchmarks), record.overall(model, record.choosing)
        if scores is None or overall is None:
            continue
        rival = best.on(record.choosing, record.benchmarks) if best else None
        difference = paired_difference(scores, rival, record.objective) if rival else None
        trial: dict[str, object] = {"label": model.label, "overall": overall, "single": len(model.names) == 1}
        if any(score.estimate for score in scores.values()):
            trial["estimated"] = True
        if best and difference:
            trial["versus"] = {"label": best.label, **difference.as_json(), "benchmarks": {}}
        trials.append(trial)
        best = max(filter(None, [best, model]), key=lambda candidate: record.overall(candidate, record.choosing) or 0.0)
    return [{"strategy": "under way", "trials": trials}] if trials else []


def _search(search: SearchRecord) -> dict[str, object]:
    document = search.document
    kept = ("label", "overall", "interval", "estimated", "single", "accepted", "why", "broken_guards")
    trials = []
    for trial in document["trials"]:
        shown = {"label": " + ".join(trial["ingredients"])} | {key: trial[key] for key in kept if key in trial}
        if "report" in trial:
            shown["report_overall"] = trial["report"]["overall"]
        if versus := trial.get("versus_best"):
            shown["versus"] = {
                "label": " + ".join(versus["ingredients"]),
                "benchmarks": versus.get("benchmarks", {}),
                **{key: versus[key] for key in ("difference", "low", "high", "p_better") if key in versus},
            }
        trials.append(shown)
    return {
        "strategy": search.title,
        "chosen": document.get("label", " + ".join(search.chosen)),
        "objective": document.get("objective", {}),
        "notes": document.get("notes", []),
        "warnings": document.get("warnings", []),
        "trials": trials,
    }


def ingredient_scores(record: RunRecord) -> dict[str, object]:
    """Return the score of each ingredient, the base and the chosen soup on each benchmark, by part."""
    models = {model.label: model for model in (record.base, *record.singles, record.chosen) if model}
    rows = {}
    for part in record.parts:
        cells = ((label, model.scores.get(part, {})) for label, model in models.items())
        rows[part] = {
            label: {name: score.value for name, score in scores.items() if score.estimate is None}
            for label, scores in cells
        }
    return {"benchmarks": list(record.benchmarks), "parts": rows}


def by_category(record: RunRecord) -> tuple[list[dict[str, object]], list[str]]:
    """Return the share of points by category of each benchmark, for the models of the headline; and what lacks."""
    models = {"base": record.base, "best single model": record.best_single, "chosen": record.chosen}
    rows: list[dict[str, object]] = []
    missing: list[str] = []
    for name in record.benchmarks:
        try:
            [benchmark] = parse_benchmarks([name])
            kinds = categories(build_evaluator(benchmark.harness), benchmark)
        except (SoupError, ValueError) as reason:
            missing.append(f"{name}: no categories ({reason})")
            continue
        for part in record.parts:
            points = {
                title: dict(score.questions)
                for title, model in models.items()
                if model and (score := model.scores.get(part, {}).get(name)) and score.questions
            }
            rows += _category_rows(name, part, kinds, points)
    return rows, missing


def _category_rows(
    name: str, part: str, kinds: Mapping[str, str], points: Mapping[str, Mapping[str, float]]
) -> list[dict[str, object]]:
    members: dict[str, list[str]] = {}
    for index in next(iter(points.values()), {}):
        if index in kinds:
            members.setdefault(kinds[index], []).append(index)
    if len(members) < 2:
        return []
    return [
        {
            "benchmark": name,
            "part": part,
            "category": kind,
            "n": len(indices),
            "scores": {
                title: 100 * sum(row[index] for index in indices) / len(indices)
                for title, row in points.items()
                if all(index in row for index in indices)
            },
        }
        for kind, indices in sorted(members.items())
    ]


def cost(record: RunRecord) -> dict[str, object]:
    """Count what the run asked and took; bytes are those of the run directory."""
    questions_asked = sum(e.score.estimate.asked if e.score.estimate else e.score.n or 0 for e in record.entries)
    total = sum(entry.score.n or 0 for entry in record.entries)
    times = sorted(entry.time for entry in record.entries)
    files = [path for path in record.directory.path.rglob("*") if path.is_file()]
    return {
        "evaluations": len(record.entries),
        "recipes": len(record.models),
        "questions_asked": questions_asked,
        "questions_of_all": total,
        "evaluation_seconds": round(sum(entry.seconds for entry in record.entries), 3),
        "first_score": times[0] if times else None,
        "last_score": times[-1] if times else None,
        "span_seconds": _span(times),
        "workers": len([*record.directory.logs.glob("worker-*.log")]) or None,
        "run_directory_bytes": sum(path.stat().st_size for path in files),
    }


def _span(times: Sequence[str]) -> float | None:
    if not times:
        return None
    first, last = (datetime.datetime.fromisoformat(time) for time in (times[0], times[-1]))
    return (last - first).total_seconds()


def provenance(record: RunRecord) -> dict[str, object]:
    """Say what made the scores and the chosen soup: no paths of this machine."""
    harnesses: dict[str, dict[str, object]] = {}
    for entry in record.entries:
        harnesses.setdefault(entry.benchmark, {"harness": entry.harness, **entry.identity})
    facts: dict[str, object] = {"soup": __version__, "benchmarks": harnesses}
    if record.main:
        recipe = record.main.document["recipe"]
        facts["recipe"] = _without_paths(recipe)
        with wrap_damage(record.main.path):
            facts["command"] = _command(record, record.main)
    return facts


def _without_paths(recipe: Mapping[str, Any]) -> dict[str, Any]:
    parts = {key: _source(recipe[key]) for key in ("base", "tokenizer") if recipe.get(key)}
    rows = [_source(row) for row in recipe["ingredients"]]
    return {
        **{key: value for key, value in recipe.items() if value not in ({}, [], None)},
        **parts,
        "ingredients": rows,
    }


def _source(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a checkpoint of a recipe with its Hub id, or the last name of its path."""
    path = str(row.get("path", ""))
    return {**row, "path": Path(path).name if path.startswith(("/", ".", "~")) else path}


def _command(record: RunRecord, search: SearchRecord) -> str:
    """Return the line that makes such a search, from what the run recorded."""
    recipe, asked, objective = (
        search.document["recipe"],
        _arguments(record, search),
        search.document.get("objective", {}),
    )
    plain = search.strategy in ("greedy", "average", "maximum") and not asked["strategy_args"]
    words = ["soup", *([search.strategy] if plain else ["cook", "--strategy", search.strategy])]
    words += _pairs("--strategy-arg", asked["strategy_args"])
    words += ["--pool", *asked["pool"]]
    words += ["--base", _source(recipe["base"])["path"]] if recipe.get("base") else []
    words += ["--eval", ",".join(asked["eval"])] if asked["eval"] else []
    words += [] if asked["split"] is None else ["--split", f"{asked['split']:g}"]
    for name, weight in objective.get("weights", {}).items():
        words += ["--weights", f"{name}={weight:g}"]
    for guard in objective.get("guards", []):
        words += ["--guard", guard]
    words += ["--method", asked["method"]] if asked["method"] != "linear" else []
    words += _pairs("--method-arg", asked["method_args"])
    words += ["--dtype", recipe["dtype"]] if recipe.get("dtype") else []
    words += [word for pattern in recipe.get("drop", []) for word in ("--drop", pattern)]
    words += ["--tokenizer", recipe["tokenizer"]["name"]] if recipe.get("tokenizer") else []
    words += ["--questions", asked["questions"]] if asked["questions"] != "all" else []
    return shlex.join(words)


def _arguments(record: RunRecord, search: SearchRecord) -> Mapping[str, Any]:
    """Return what a search was asked with; of an earlier version's what its recipe and the journal tell."""
    recipe = search.document["recipe"]
    estimated = any(entry.score.estimate for entry in record.entries)
    return {
        "pool": record.pool_names,
        "eval": [*dict.fromkeys(entry.benchmark for entry in record.entries)],
        "split": next((e.split.fraction for e in record.entries if e.split.part == "selection"), None),
        "questions": "disputed" if estimated else "all",
        "strategy_args": {},
        "method": recipe.get("method", "linear"),
        "method_args": recipe.get("params", {}),
        **search.document.get("arguments", {}),
    }


def _pairs(flag: str, values: Mapping[str, Any]) -> list[str]:
    """Return `KEY=VALUE` words after their flag, the values as YAML reads them."""
    return [word for key, value in values.items() for word in (flag, f"{key}={_yaml(value)}")]


def _yaml(value: object) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=math.inf, allow_unicode=True, sort_keys=False)
    return text.removesuffix("\n...\n").rstrip("\n")


def sweeps(record: RunRecord) -> list[dict[str, Any]]:
    """Return the lines between models that were measured in the run, as `soup sweep --json` prints them."""
    return [_line(path) for path in sorted(record.directory.sweeps.glob("[!.]*.json"))]


def _line(path: Path) -> dict[str, Any]:
    line, kept = read_document(path), ("t", "label", "overall", "scores", "losses", "report")
    with wrap_damage(path):
        trials = line["trials"] = [{key: trial[key] for key in kept if key in trial} for trial in line["trials"]]
        curves = {name: [(t["t"], t["scores"][name]["value"]) for t in trials] for name in trials[0]["scores"]}
        return line | {"curves": curves | {"overall": [(t["t"], t["overall"]) for t in trials]}}


def pool_check(record: RunRecord) -> dict[str, Any] | None:
    """Return what `soup check` measured of the pool; None where it was not asked."""
    path = record.directory.pool_check
    if not path.is_file():
        return None
    document = read_document(path)
    with wrap_damage(path):
        distances = document["distances"]
        return {**document, "map": _map(distances) if distances else None}


def _map(distances: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return where ingredients lie around their base, in the plane that holds most of the distances; None of base 0."""
    if distances["distances"] is None:
        return None
    norms = [row["norm"] for row in distances["ingredients"]]
    rows = [[0.0, *norms], *([norm, *row] for norm, row in zip(norms, distances["distances"], strict=True))]
    points, share = map_to_plane(rows)
    names = [distances["reference"], *(row["name"] for row in distances["ingredients"])]
    return {"names": names, "points": points, "share": share}
