"""What a run directory holds, as a report needs it: models with their scores, and what strategies came to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from soup.errors import JournalError, SoupError
from soup.evaluation.api import LIKELIHOOD, Score
from soup.evaluation.journal_entry import Entry
from soup.evaluation.objective import PLAIN, Objective
from soup.evaluation.run_directory import RunDirectory
from soup.report.page.search_record import SearchRecord, trial_digests
from soup.report.tables import read_run
from soup.search.result import search_estimates, search_titles, single_digests
from soup.support.json_text import read_json_object
from soup.support.text import reason_of

__all__ = ["PLAIN_SEARCHES", "RunModel", "RunRecord", "read_document", "wrap_damage"]

PLAIN_SEARCHES = ("average", "maximum")
"""Strategies that other soups are compared with: where there is another, that one is the run's choice."""


@dataclass(frozen=True)
class RunModel:
    """A recipe that was scored.

    Args:
        digest: Of the recipe.
        names: Its ingredients.
        weights: Theirs.
        scores: By the part of the questions, then by benchmark.
    """

    digest: str
    names: tuple[str, ...]
    weights: tuple[float, ...]
    scores: Mapping[str, Mapping[str, Score]]

    @property
    def is_plain_mean(self) -> bool:
        """Whether all ingredients weigh the same."""
        return len({*self.weights}) == 1

    @property
    def label(self) -> str:
        """The ingredients, with their weights where they differ."""
        if self.is_plain_mean:
            return " + ".join(self.names)
        return " + ".join(f"{name} ({weight:.3g})" for name, weight in zip(self.names, self.weights, strict=True))

    def on(self, part: str, benchmarks: Sequence[str]) -> Mapping[str, Score] | None:
        """Return its scores on these benchmarks over a part of the questions; None where one is missing."""
        scores = self.scores.get(part, {})
        return {name: scores[name] for name in benchmarks} if all(name in scores for name in benchmarks) else None


@dataclass(frozen=True)
class RunRecord:
    """A run, read once.

    Args:
        directory: Where it is.
        entries: Its journal.
        models: By the recipe's digest, in the order in which they were scored.
        searches: In the order in which they were written, those over the main one's models.
        left_out: What is said of the others.
    """

    directory: RunDirectory
    entries: tuple[Entry, ...]
    models: Mapping[str, RunModel]
    searches: tuple[SearchRecord, ...] = ()
    left_out: tuple[str, ...] = ()

    @classmethod
    def read(cls, run: Path) -> RunRecord:
        """Read a run directory.

        Raises:
            JournalError: there is no journal, or a file is damaged.
        """
        directory = RunDirectory(run)
        lines, _ = read_run(run)
        entries = tuple(entry for entry in lines if not entry.benchmark.endswith(LIKELIHOOD))
        documents = [read_document(path) for path in directory.result_files]
        titled = zip(directory.result_files, documents, search_titles(documents), strict=True)
        searches = [SearchRecord(document, path.stat().st_mtime, path, title) for path, document, title in titled]
        ordered = sorted(searches, key=lambda search: (search.time, search.title))
        record = cls(directory, entries, {}, tuple(ordered))._of_one_pool()
        foreign = trial_digests(ordered) - trial_digests(record.searches)
        known = [entry for entry in entries if entry.recipe not in foreign]
        return replace(record, models=_models(known, record.estimates))

    def _of_one_pool(self) -> RunRecord:
        """Leave out searches over other models of the same names: trained anew since, or of another pool."""
        other = {search: search.other_models(self.main) for search in self.searches if self.main}
        remarks = [
            f"{search.title}: left out, for it searched over other models of the same names ({', '.join(names)})"
            for search, names in other.items()
            if names
        ]
        same = tuple(search for search in self.searches if not other.get(search))
        return replace(self, searches=same, left_out=tuple(remarks))

    @property
    def estimates(self) -> Mapping[tuple[str, str, str], float]:
        """The estimates that searches came to, the main one's before others', by recipe, part and benchmark.

        The journal has them as they were before a search corrected them by what all of its audits say together.
        """
        searches = sorted(self.searches, key=lambda search: search is self.main)
        return search_estimates(search.document for search in searches)

    @property
    def main(self) -> SearchRecord | None:
        """The search whose choice is the run's: the last one that is not there for comparison alone."""
        strategy_searches = [search for search in self.searches if search.strategy not in PLAIN_SEARCHES]
        candidates = strategy_searches or [*self.searches]
        return candidates[-1] if candidates else None

    @property
    def objective(self) -> Objective:
        """How scores are summed up: the main search's."""
        return self.main.objective if self.main else PLAIN

    @property
    def benchmarks(self) -> tuple[str, ...]:
        """The benchmarks that are summed up: the main search's, or those of the first model."""
        if self.main and self.main.document["trials"]:
            return tuple(self.main.document["trials"][0]["scores"])
        first = next(iter(self.models.values()), None)
        return tuple(dict.fromkeys(name for scores in first.scores.values() for name in scores)) if first else ()

    @property
    def parts(self) -> tuple[str, ...]:
        """Which parts of the questions there are: that which chose first."""
        present = {entry.split.part for entry in self.entries}
        return tuple(part for part in ("selection", "all", "report") if part in present)

    @property
    def choosing(self) -> str:
        """The part of the questions that chose."""
        return self.parts[0] if self.parts else "all"

    @property
    def base(self) -> RunModel | None:
        """The model that the pool was tuned from, where it was scored."""
        names = {"base"}
        for search in self.searches:
            if base := search.document["recipe"].get("base"):
                names |= {str(base.get("name")), Path(str(base.get("path"))).name}
        members = {*self.pool_names}
        return next((m for m in self.models.values() if m.names[0] in names - members and len(m.names) == 1), None)

    @property
    def pool_names(self) -> tuple[str, ...]:
        """The ingredients: of all searches; without one, all single models but one called base."""
        trials = [trial for search in self.searches for trial in search.document["trials"]]
        names = dict.fromkeys(name for trial in trials for name in trial["ingredients"])
        singles = (model.names[0] for model in self.models.values() if len(model.names) == 1)
        return tuple(names) or tuple(name for name in dict.fromkeys(singles) if name != "base")

    @property
    def singles(self) -> tuple[RunModel, ...]:
        """The ingredients alone, in the order in which they were scored.

        Of several models of one name (one was trained anew, or is another pool's) that of the main search, or of the
        last that has one; else the last that was scored.
        """
        varied = {
            trial["recipe"] for s in self.searches for trial in s.document["trials"] if trial.get("single") is False
        }
        alone = [m for m in self.models.values() if len(m.names) == 1 and m.digest not in varied]
        digests = {model.names[0]: model.digest for model in alone}
        for search in sorted(self.searches, key=lambda search: search is self.main):
            digests |= single_digests(search.document)
        pool = {*self.pool_names}
        return tuple(m for m in alone if m.names[0] in pool and m.digest == digests[m.names[0]])

    @property
    def soups(self) -> tuple[RunModel, ...]:
        """The soups that were tried: those of the searches; without one, all that were scored but points of lines."""
        tried, swept = trial_digests(self.searches), self.swept
        soups = [model for model in self.models.values() if len(model.names) > 1]
        return tuple(m for m in soups if (m.digest in tried if self.searches else m.digest not in swept))

    @cached_property
    def swept(self) -> frozenset[str]:
        """The digests of the points of lines between models, but for a mean that was scored before its line was."""
        digests: set[str] = set()
        turns = {digest: turn for turn, digest in enumerate(self.models)}
        for path in self.directory.sweeps.glob("[!.]*.json"):
            with wrap_damage(path):
                points = {trial["recipe"] for trial in read_document(path)["trials"]}
            weighted = [turns[digest] for digest in points & turns.keys() if not self.models[digest].is_plain_mean]
            digests |= {digest for digest in points if turns.get(digest, 0) >= min(weighted, default=0)}
        return frozenset(digests)

    @property
    def is_under_way(self) -> bool:
        """Whether models are being scored, or a search was stopped that tried soups: it has no result yet."""
        return self.directory.scratch.is_dir() or bool(self.soups and not self.searches)

    def overall(self, model: RunModel | None, part: str) -> float | None:
        """Return a model's overall on a part of the questions; None where a score is missing."""
        scores = model.on(part, self.benchmarks) if model else None
        return self.objective.overall(scores) if scores else None

    @property
    def best_single(self) -> RunModel | None:
        """The ingredient with the best overall on the questions that choose."""
        known = [(self.overall(model, self.choosing), model) for model in self.singles]
        ranked = [(overall, model) for overall, model in known if overall is not None]
        return max(ranked, key=lambda pair: pair[0])[1] if ranked else None

    @property
    def chosen(self) -> RunModel | None:
        """The main search's soup."""
        return self.models.get(self.main.digest) if self.main else None

    def mean_of(self, names: Sequence[str]) -> RunModel | None:
        """Return the plain mean of these ingredients, if it was scored or estimated; of several the main search's."""
        of_main = trial_digests([self.main] if self.main else [])
        means = [m for m in self.models.values() if sorted(m.names) == sorted(names) and m.is_plain_mean]
        return max(means, key=lambda model: model.digest in of_main, default=None)


def read_document(path: Path) -> dict[str, Any]:
    """Read a JSON object of the run directory's.

    Raises:
        JournalError: it is damaged.
    """
    with wrap_damage(path):
        return cast("dict[str, Any]", read_json_object(path, JournalError))


@contextmanager
def wrap_damage(path: Path) -> Iterator[None]:
    """Say of whatever fails while a file's document is read that the file is damaged.

    Raises:
        JournalError: something failed.
    """
    try:
        yield
    except (SoupError, KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        reason = reason_of(error, path)
        raise JournalError(f"{path}: damaged ({reason}). Remove it; the same command writes it anew.") from error


def _models(entries: Sequence[Entry], estimates: Mapping[tuple[str, str, str], float]) -> dict[str, RunModel]:
    """Gather scores by recipe; a score replaces an estimate, and of several the last counts."""
    models: dict[str, RunModel] = {}
    for entry in entries:
        scores: dict[str, dict[str, Score]] = {}
        model = models.setdefault(entry.recipe, RunModel(entry.recipe, entry.names, entry.weights, scores))
        of_part = cast("dict[str, dict[str, Score]]", model.scores).setdefault(entry.split.part, {})
        for name, score in _parts_of(entry).items():
            before, value = of_part.get(name), estimates.get((entry.recipe, entry.split.part, name), score.value)
            if before is None or before.estimate is not None or score.estimate is None:
                of_part[name] = score.corrected(value - score.value)
    return models


def _parts_of(entry: Entry) -> Mapping[str, Score]:
    """Return an entry's score by its benchmark, or each of its parts, as a search counts them."""
    scores = entry.score.by_name(entry.benchmark)
    return {name: replace(score, n=entry.score.n) for name, score in scores.items()}
