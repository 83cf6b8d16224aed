"""A real run's points as a table to play strategies on: no model, no data, no time.

table = ScoreTable.from_run("ckpts.soup")
chosen = my_strategy(table.pool, table)
table.trials                        # what it asked for, in order
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from soup.errors import EvaluatorError, JournalError
from soup.evaluation.api import LIKELIHOOD, Score
from soup.evaluation.journal import Journal
from soup.evaluation.journal_entry import Entry
from soup.evaluation.objective import PLAIN, Objective
from soup.evaluation.run_directory import RunDirectory
from soup.search.result import search_estimates
from soup.support.json_text import read_json_object
from soup.testing.table_scorer import TableRecipe, TableScorer

__all__ = ["ScoreTable"]

Shares = frozenset[tuple[str, float]]


@dataclass
class ScoreTable(TableScorer):
    """Scores of a pool's soups, to be asked for as a strategy asks. `from_run` makes one; else see `TableScorer`."""

    @classmethod
    def from_run(
        cls, run: str | Path, *, part: str | None = None, objective: Objective = PLAIN, exclude: Collection[str] = ()
    ) -> ScoreTable:
        """Read the scores of a run; a soup that it did not score has none.

        Args:
            run: The run's directory.
            part: Of the questions; by default those that chose.
            objective: How scores are summed up.
            exclude: Names of models that are no ingredients, such as a base that was scored beside them.

        Raises:
            JournalError: there is no journal, or it is damaged.
            EvaluatorError: by asking for a soup that the run did not score.
        """
        with Journal(run, write=False) as journal:
            entries = [entry for entry in journal if not entry.benchmark.endswith(LIKELIHOOD)]
        wanted = part or ("selection" if any(entry.split.part == "selection" for entry in entries) else "all")
        results = sorted(RunDirectory(Path(run)).result_files, key=lambda path: path.stat().st_mtime)
        estimates = search_estimates(read_json_object(path, JournalError) for path in results)
        scores = _by_shares([entry for entry in entries if entry.split.part == wanted], estimates)
        singles = dict.fromkeys(name for shares in scores if len(shares) == 1 for name, _ in shares)
        names = [name for name in singles if name not in exclude]

        def look_up(recipe: TableRecipe) -> Mapping[str, Score]:
            row = scores.get(_shares(recipe.names, recipe.weights))
            if row is None or recipe.method or recipe.params:
                raise EvaluatorError(f"{recipe.digest}: the run in {run} did not score it on {wanted} questions.")
            return row

        return cls(names, look_up, objective=objective)


def _by_shares(entries: list[Entry], estimates: Mapping[tuple[str, str, str], float]) -> dict[Shares, dict[str, Score]]:
    """Gather scores by ingredients and weights: of several recipes the first, and scores before estimates.

    Estimates have what their search came to.
    """
    recipes: dict[Shares, str] = {}
    scores: dict[Shares, dict[str, Score]] = {}
    for entry in entries:
        shares = _shares(entry.names, entry.weights)
        if recipes.setdefault(shares, entry.recipe) == entry.recipe:
            by_benchmark = scores.setdefault(shares, {})
            if entry.benchmark not in by_benchmark or entry.score.estimate is None:
                value = estimates.get((entry.recipe, entry.split.part, entry.benchmark), entry.score.value)
                by_benchmark[entry.benchmark] = entry.score.corrected(value - entry.score.value)
    return scores


def _shares(names: tuple[str, ...], weights: tuple[float, ...]) -> Shares:
    return frozenset((name, round(weight, 9)) for name, weight in zip(names, weights, strict=True))
