"""A study's table: what each way came to on each seed, the mean over seeds, and how far they spread."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, stdev
from typing import Any

from soup.evaluation.trial import Trial
from soup.report.tables import ScoreRow, ScoreTable

__all__ = ["Result", "StudyTable"]


@dataclass(frozen=True)
class Result:
    """Overall, 0 to 100, on the questions that chose and on those that reported: alike where none were kept apart."""

    chose: float
    reported: float
    benchmarks: Mapping[str, float] = field(default_factory=dict)
    names: str = ""

    @classmethod
    def of(cls, trial: Trial, names: str | None = None) -> "Result":
        """A trial's."""
        judged = trial.report or trial.scores
        overall = trial.overall if trial.report_overall is None else trial.report_overall
        shown = " + ".join(trial.names) if names is None else names
        return cls(trial.overall, overall, {name: score.value for name, score in judged.items()}, shown)

    @classmethod
    def mean(cls, results: Sequence["Result"]) -> "Result":
        """The mean of several."""
        benchmarks = {name: fmean(one.benchmarks[name] for one in results) for name in results[0].benchmarks}
        return cls(fmean(one.chose for one in results), fmean(one.reported for one in results), benchmarks)


@dataclass(frozen=True)
class StudyTable:
    """Results by seed and by way; `split` says whether questions were kept apart from the choosing."""

    split: bool
    seeds: Mapping[int, Mapping[str, Result]] = field(default_factory=dict)

    def with_seed(self, seed: int, results: Mapping[str, Result]) -> "StudyTable":
        """The same with one seed more."""
        return replace(self, seeds={**self.seeds, seed: results})

    @property
    def ways(self) -> list[str]:
        """The rows, in the order in which they came."""
        return list(dict.fromkeys(way for results in self.seeds.values() for way in results))

    def overall(self, way: str) -> list[float]:
        """A way's overall by seed, on the questions that report."""
        return [results[way].reported for results in self.seeds.values() if way in results]

    def table(self) -> ScoreTable:
        """A column for each seed, the mean, the standard deviation over seeds (n - 1), and what was chosen."""
        many = len(self.seeds) > 1
        columns = (*(f"seed {seed}" for seed in self.seeds), *(("mean", "sd") if many else ()))
        rows = []
        for way in self.ways:
            found = self.overall(way)
            values = [results[way].reported if way in results else None for results in self.seeds.values()]
            spread = [fmean(found), stdev(found) if len(found) > 1 else None] if many else []
            names = "; ".join(results[way].names for results in self.seeds.values() if way in results)
            rows.append(ScoreRow(way, (*values, *spread), names.strip("; ")))
        return ScoreTable(columns, tuple(rows))

    def as_json(self) -> dict[str, Any]:
        """One object a seed and way."""
        return {
            "schema": 1,
            "questions": "report" if self.split else "all",
            "seeds": {
                str(seed): {
                    way: {
                        "overall": one.reported,
                        "selection": one.chose if self.split else None,
                        "benchmarks": dict(one.benchmarks),
                        "ingredients": one.names,
                    }
                    for way, one in results.items()
                }
                for seed, results in self.seeds.items()
            },
        }

    def as_markdown(self) -> str:
        """The table, for a README."""
        table = self.table()
        head = f"| | {' | '.join(table.columns)} | chosen |"
        rule = f"| --- | {' | '.join('--:' for _ in table.columns)} | --- |"
        rows = []
        for row in table.rows:
            values = ("" if value is None else f"{value:.2f}" for value in row.values)
            rows.append(f"| {row.label} | {' | '.join(values)} | {row.remark} |")
        return "\n".join([head, rule, *rows]) + "\n"
