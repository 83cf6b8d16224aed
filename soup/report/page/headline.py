"""The head of a report: base, best single, average, maximum and the chosen soups, on both halves of the questions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from soup.evaluation.api import Score
from soup.evaluation.bootstrap import Difference, paired_difference
from soup.report.page.chance import chance_gain, difference_error, overall_interval
from soup.report.page.run_record import PLAIN_SEARCHES, RunModel, RunRecord

__all__ = ["Headline", "HeadlineRow", "PartScore", "contributions", "headline"]


@dataclass(frozen=True)
class PartScore:
    """An overall on a part of the questions.

    Args:
        overall: The value.
        interval: Its 95 % interval, where the points of the questions are known.
        gain: What it is above the best single model, paired; None for that one.
        estimated: Whether it was not asked everything.
    """

    overall: float
    interval: tuple[float, float] | None
    gain: dict[str, float] | None
    estimated: bool


@dataclass(frozen=True)
class HeadlineRow:
    """A model: what it is here, its ingredients, its overall by part, and how much higher it is where it was chosen."""

    title: str
    label: str
    parts: dict[str, PartScore] = field(default_factory=dict)
    gap: float | None = None


@dataclass(frozen=True)
class Headline:
    """The head of a report.

    Args:
        rows: The models.
        singles: How many single models were tried.
        soups: How many soups were tried.
        chance: What the best of so many soups would gain by chance alone, at most, in points; None without points.
        largest_error: The largest standard error of a soup's difference from the best single model, in points.
        gain: What the chosen soup is above the best single model, by the part of the questions.
    """

    rows: tuple[HeadlineRow, ...]
    singles: int
    soups: int
    chance: float | None
    largest_error: float | None
    gain: dict[str, dict[str, float] | None] = field(default_factory=dict)

    def as_json(self) -> dict[str, object]:
        """Return it as JSON values."""
        return asdict(self)


def headline(record: RunRecord) -> Headline:
    """Sum up a run."""
    rows = [_row(record, title, model) for title, model in _models(record)]
    soups = record.soups
    errors = _errors(record, soups)
    chosen = next((row for row in rows if record.chosen and record.main and row.title == record.main.title), None)
    gain = {part: score.gain for part, score in chosen.parts.items()} if chosen else {}
    known = bool(errors)
    return Headline(
        tuple(rows),
        len(record.singles),
        len(soups),
        chance_gain(errors) if known else None,
        max(errors) if known else None,
        gain,
    )


def contributions(record: RunRecord) -> list[dict[str, object]]:
    """Compare the chosen soup with the mean of its other ingredients, for each that the journal knows it without."""
    chosen = record.chosen
    rows: list[dict[str, object]] = []
    if chosen is None or len(chosen.names) < 2 or not chosen.is_plain_mean:
        return []
    for name in record.main.chosen if record.main else ():
        without = record.mean_of([other for other in chosen.names if other != name])
        parts = {part: _difference(record, chosen, without, part) for part in record.parts}
        values = {part: value for part, value in parts.items() if value}
        rows.append({"ingredient": name, "parts": values})
    return rows


def _models(record: RunRecord) -> Iterator[tuple[str, RunModel]]:
    named = [("base", record.base), ("best single model", record.best_single)]
    searched = {search.title: record.models.get(search.digest) for search in record.searches}
    strategies = {search.title: search.strategy for search in record.searches}
    if "average" not in strategies.values() and len(record.pool_names) > 1:
        named.append(("average", record.mean_of(record.pool_names)))
    order = sorted(searched, key=lambda title: (*PLAIN_SEARCHES, strategies[title]).index(strategies[title]))
    named += [(name, searched[name]) for name in order]
    for title, model in named:
        if model is not None:
            yield title, model


def _row(record: RunRecord, title: str, model: RunModel) -> HeadlineRow:
    parts = {}
    for part in record.parts:
        scores, overall = model.on(part, record.benchmarks), record.overall(model, part)
        if scores is None or overall is None:
            continue
        is_best = record.best_single is not None and model.digest == record.best_single.digest
        gain = None if is_best else _difference(record, model, record.best_single, part)
        interval = overall_interval(scores, record.objective)
        parts[part] = PartScore(overall, interval, gain, _is_estimated(scores))
    is_split = "selection" in parts and "report" in parts
    gap = parts["selection"].overall - parts["report"].overall if is_split else None
    return HeadlineRow(title, model.label, parts, gap)


def _difference(record: RunRecord, model: RunModel, other: RunModel | None, part: str) -> dict[str, float] | None:
    """Return how much higher a model's overall is than another's; without points the difference alone."""
    scores = model.on(part, record.benchmarks)
    others = other.on(part, record.benchmarks) if other else None
    if not scores or not others:
        return None
    difference: Difference | None = paired_difference(scores, others, record.objective)
    if difference:
        shown = difference.as_json()
    else:
        shown = {"difference": record.objective.overall(scores) - record.objective.overall(others)}
    return shown | ({"estimated": True} if _is_estimated(scores) or _is_estimated(others) else {})


def _is_estimated(scores: Mapping[str, Score]) -> bool:
    return any(score.estimate for score in scores.values())


def _errors(record: RunRecord, soups: Sequence[RunModel]) -> list[float]:
    best = record.best_single.on(record.choosing, record.benchmarks) if record.best_single else None
    errors = []
    for model in soups:
        scores = model.on(record.choosing, record.benchmarks)
        error = difference_error(scores, best, record.objective) if scores and best else None
        errors += [] if error is None else [error]
    return errors
