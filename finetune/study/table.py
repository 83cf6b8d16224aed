"""A study's table: the overall of each way on each seed, the mean over seeds, and the spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, stdev

from soup.evaluation.trial import Trial
from soup.report.table_texts import as_markdown
from soup.report.tables import ScoreRow, ShownTable

__all__ = ["StudyResult", "StudyTable"]


@dataclass(frozen=True)
class StudyResult:
    """Overall, 0 to 100, on the questions that chose and on those that reported: alike where none were kept apart."""

    chose: float
    reported: float
    benchmarks: Mapping[str, float] = field(default_factory=dict)
    names: str = ""

    @classmethod
    def of(cls, trial: Trial, names: str | None = None) -> StudyResult:
        """Make the result of a trial; `names`: of what was chosen, in place of the trial's."""
        scores = trial.report or trial.scores
        overall = trial.overall if trial.report_overall is None else trial.report_overall
        shown = " + ".join(trial.names) if names is None else names
        return cls(trial.overall, overall, {name: score.value for name, score in scores.items()}, shown)

    @classmethod
    def mean(cls, results: Sequence[StudyResult]) -> StudyResult:
        """Make the mean of several."""
        benchmarks = {name: fmean(result.benchmarks[name] for result in results) for name in results[0].benchmarks}
        return cls(fmean(result.chose for result in results), fmean(result.reported for result in results), benchmarks)


@dataclass(frozen=True)
class StudyTable:
    """Results by seed and by way; `split` says whether questions were kept apart from the choosing."""

    split: bool
    seeds: Mapping[int, Mapping[str, StudyResult]] = field(default_factory=dict)

    def with_seed(self, seed: int, results: Mapping[str, StudyResult]) -> StudyTable:
        """Add the results of a seed."""
        return replace(self, seeds={**self.seeds, seed: results})

    @property
    def ways(self) -> list[str]:
        """The rows, in the order in which they came."""
        return list(dict.fromkeys(way for results in self.seeds.values() for way in results))

    def overall(self, way: str) -> list[float]:
        """Give a way's overall by seed, on the questions that report."""
        return [results[way].reported for results in self.seeds.values() if way in results]

    def table(self) -> ShownTable:
        """Give a column for each seed, the mean, the standard deviation over seeds (n - 1), and what was chosen."""
        many = len(self.seeds) > 1
        columns = (*(f"seed {seed}" for seed in self.seeds), *(("mean", "sd") if many else ()))
        rows = []
        for way in self.ways:
            overalls = self.overall(way)
            values = [results[way].reported if way in results else None for results in self.seeds.values()]
            spread = [fmean(overalls), stdev(overalls) if len(overalls) > 1 else None] if many else []
            names = "; ".join(results[way].names for results in self.seeds.values() if way in results)
            rows.append(ScoreRow(way, (*values, *spread), names.strip("; ")))
        return ShownTable(columns, tuple(rows))

    def as_json(self) -> dict[str, object]:
        """Give one object for each seed and way."""
        return {
            "schema": 1,
            "questions": "report" if self.split else "all",
            "seeds": {
                str(seed): {
                    way: {
                        "overall": result.reported,
                        "selection": result.chose if self.split else None,
                        "benchmarks": dict(result.benchmarks),
                        "ingredients": result.names,
                    }
                    for way, result in results.items()
                }
                for seed, results in self.seeds.items()
            },
        }

    def as_markdown(self) -> str:
        """Give the table for a README."""
        return as_markdown(self.table(), label="", remark="chosen")
