"""The result of a search: the soup, its trials, and both as JSON for programs and later reports."""

from __future__ import annotations

import html
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soup.errors import JournalError, OutputError
from soup.evaluation.api import Score
from soup.evaluation.bootstrap import benchmark_difference, paired_difference
from soup.evaluation.run_directory import RunDirectory
from soup.evaluation.score_picture import ScoredModel, draw_scores
from soup.evaluation.trial import Trial, Trials
from soup.merging.recipe import Recipe, describe_objective
from soup.search.verdict import describe_verdict
from soup.support.atomic_files import write_atomic
from soup.support.json_text import read_json_object
from soup.support.pictures import Picture, draw

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["Soup", "card_scores", "save_result", "search_estimates", "search_titles", "single_digests", "trial_as_json"]


@dataclass(frozen=True, repr=False)
class Soup:
    """The result of a run.

    Args:
        strategy: Its name.
        out: Where the soup lies.
        chosen: The chosen ingredients, in the order of admission.
        recipe: The sealed recipe.
        trials: Every trial on the way, in the order asked.
        warnings: What was worth a remark and stopped nothing.
        path: The digests of the recipes that were the best so far, where the strategy tells.
        notes: What the strategy says beside the table.
        arguments: What it was asked with, where the recipe does not say it: the names of `pool` and `eval`, `split`,
            `questions`, `strategy_args` that are not its defaults, and the run's `method` and `method_args`, which a
            strategy may vary.
    """

    strategy: str
    out: Path
    chosen: tuple[str, ...]
    recipe: Recipe
    trials: tuple[Trial, ...] = ()
    warnings: tuple[str, ...] = ()
    path: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return `the mean of a + b`; with its weights or its method where it is no plain mean."""
        what = "the mean" if self.recipe.method == "linear" else self.recipe.method_name
        return f"{what} of {self.recipe.describe(self.chosen)}"

    def __repr__(self) -> str:
        return f"<Soup by {self.strategy}: {self}, in {self.out}>"

    def to_pandas(self) -> DataFrame:
        """Return the trials as a table of pandas: scores by benchmark, overall, and whether each was accepted."""
        return Trials(self.trials).to_pandas().assign(accepted=[self.accepted(trial) for trial in self.trials])

    def plot(self, path: str | Path | None = None) -> Picture | None:
        """Draw the search step by step: each trial's scores, its overall, and whether it was accepted.

        Args:
            path: A png, svg or pdf file; an earlier one is replaced. Without one, a picture for a notebook is returned.

        Raises:
            OutputError: another suffix, no matplotlib, or nothing was scored.
        """
        if not self.trials:
            raise OutputError(f"{self.strategy} asked for no score: there is nothing to draw.")
        return draw(lambda target: draw_scores([self._scored_model(trial) for trial in self.trials], target), path)

    def _scored_model(self, trial: Trial) -> ScoredModel:
        accepted = self.accepted(trial)
        return trial.as_scored_model(accepted=None if trial.is_single and not accepted else accepted)

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        table = self.to_pandas().to_html(index=False, float_format="%.2f") if self.trials else ""
        return f"<p>{html.escape(str(self))}</p>{table}"

    def accepted(self, trial: Trial) -> bool:
        """Whether a trial became the best so far on the way to the chosen soup."""
        if trial.recipe.digest == self.recipe.digest:
            return True
        if self.path:
            return trial.recipe.digest in self.path
        prefixes = [frozenset(self.chosen[:count]) for count in range(1, len(self.chosen))]
        if frozenset(trial.names) not in prefixes or len({share.weight for share in trial.recipe.ingredients}) > 1:
            return False
        before = prefixes[: prefixes.index(frozenset(trial.names))]
        return all(trial.overall >= other.overall for other in self.trials if frozenset(other.names) in before)

    def best_before(self, trial: Trial) -> Trial | None:
        """Return the best single model or accepted soup that was evaluated before a trial; None for the first.

        One that breaks a guard is no rival of one that keeps them all.
        """
        earlier = self.trials[: self.trials.index(trial)]
        rivals = [other for other in earlier if other.is_single or self.accepted(other)]
        rivals = [other for other in rivals if other.allowed or not trial.allowed]
        return max(rivals, key=lambda other: (other.allowed, other.overall), default=None)

    def why(self, trial: Trial) -> str:
        """Say why a trial was accepted or refused, in numbers: `refused: 56.28 < 58.10 (mmbench -2.1 [-3.4, -0.8])`."""
        return describe_verdict(trial, self.best_before(trial), accepted=self.accepted(trial))

    def _trial_as_json(self, trial: Trial) -> dict[str, object]:
        shown = {**trial_as_json(trial), "accepted": self.accepted(trial), "why": self.why(trial)}
        rival = self.best_before(trial)
        difference = paired_difference(trial.scores, rival.scores, trial.objective) if rival else None
        if rival and difference:
            changes = {name: benchmark_difference(score, rival.scores[name]) for name, score in trial.scores.items()}
            shown["versus_best"] = {
                "ingredients": list(rival.names),
                **difference.as_json(),
                "benchmarks": {name: change.as_json() for name, change in changes.items() if change},
            }
        if trial.broken:
            shown["broken_guards"] = list(trial.broken)
        return shown

    def as_json(self) -> dict[str, object]:
        """Return the document that `--json` prints; `versus_best` compares each trial with the best before it."""
        return {
            "schema": 1,
            "strategy": self.strategy,
            "out": str(self.out),
            "chosen": list(self.chosen),
            "label": self.recipe.describe(self.chosen),
            "recipe": self.recipe.as_json(),
            "trials": [self._trial_as_json(trial) for trial in self.trials],
            "objective": self.recipe.objective,
            "notes": list(self.notes),
            "warnings": list(self.warnings),
            "arguments": dict(self.arguments),
        }


def trial_as_json(trial: Trial) -> dict[str, object]:
    """Return a trial as JSON; with a report split, its scores stand beside those that chose."""
    shown: dict[str, object] = {
        "ingredients": list(trial.names),
        "label": trial.label,
        "overall": trial.overall,
        "scores": {name: _score_as_json(score, trial.part) for name, score in trial.scores.items()},
        "recipe": trial.recipe.digest,
        "single": trial.is_single,
        "remembered": trial.seconds is None,
    }
    if trial.interval:
        shown |= {"estimated": True, "interval": list(trial.interval)}
    if trial.report:
        scores = {name: _score_as_json(score, "report") for name, score in trial.report.items()}
        shown["report"] = {"overall": trial.report_overall, "scores": scores}
    return shown


def _score_as_json(score: Score, part: str) -> dict[str, object]:
    shown: dict[str, object] = {"value": score.value, "n": score.n, "split": part}
    if score.estimate:
        interval = list(score.estimate.interval(score.value))
        shown |= {"estimated": True, "interval": interval, "asked": score.estimate.asked}
    return shown


def single_digests(document: Mapping[str, Any]) -> dict[str, str]:
    """Return the digests of the single models that a search scored, by name.

    Args:
        document: What `Soup.as_json` gave; that of an earlier version may not say what is a single model.
    """
    trials = document["trials"]
    alone = (trial for trial in trials if len(trial["ingredients"]) == 1 and trial.get("single") is not False)
    return {trial["ingredients"][0]: trial["recipe"] for trial in alone}


def search_estimates(documents: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str, str], float]:
    """Return the estimates that searches came to, by the recipe's digest, the part of the questions and the benchmark.

    Args:
        documents: What `Soup.as_json` gave, of each search; the last that has an estimate counts.
    """
    return {
        (trial["recipe"], score["split"], name): score["value"]
        for document in documents
        for trial in document["trials"]
        for name, score in trial["scores"].items()
        if score.get("estimated")
    }


def card_scores(trial: Trial, notes: Mapping[str, str] | None = None) -> dict[str, dict[str, float]]:
    """Return a trial's scores for the model card: by benchmark, then by the part of the questions.

    Args:
        trial: The trial.
        notes: What stands beside a benchmark's name.
    """
    rows = {name: {str(trial.part): score.value} for name, score in trial.scores.items()}
    for name, score in trial.report.items():
        rows[name]["report"] = score.value
    rows["overall"] = {trial.part: trial.overall}
    if trial.report_overall is not None:
        rows["overall"]["report"] = trial.report_overall
    return {f"{name} ({notes[name]})" if notes and name in notes else name: row for name, row in rows.items()}


def save_result(run: RunDirectory, soup: Soup) -> None:
    """Keep the result of a search beside its journal, for `soup report`; that of the same search before is replaced."""
    document = soup.as_json()
    paths = (run.result(soup.strategy, number) for number in itertools.count(1))
    path = next(path for path in paths if not path.exists() or _is_same_search(path, document))
    write_atomic(path, json.dumps(document, indent=2))


def _is_same_search(path: Path, document: Mapping[str, Any]) -> bool:
    """Whether a file holds a search that was asked for the same, or nothing that can be read."""
    try:
        known = read_json_object(path, JournalError)
        return known["strategy"] == document["strategy"] and not _differences(known, document)
    except (JournalError, ValueError, KeyError, TypeError, AttributeError, IndexError):
        return True


def search_titles(documents: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name searches by their strategies, and those of one strategy by what they were asked otherwise, too.

    Args:
        documents: What `Soup.as_json` gave, of each search, as `RunDirectory.result_files` orders them.
    """
    titles: list[str] = []
    for document in documents:
        rivals = [other for other in documents if other["strategy"] == document["strategy"]]
        apart = {key for rival in rivals for key in _differences(document, rival)}
        parts = [_title_part(*key, value) for key, value in _asked(document).items() if key in apart and value]
        title = document["strategy"] + (f" ({', '.join(parts)})" if parts else "")
        same = sum(other.partition(" #")[0] == title for other in titles)
        titles.append(f"{title} #{same + 1}" if same else title)
    return titles


def _title_part(kind: str, name: str, value: str) -> str:
    first, *others = value.split(",") if kind == "eval" else [value]
    return f"{name or kind} {first}" + (f" and {len(others)} more" if others else "")


def _differences(left: Mapping[str, Any], right: Mapping[str, Any]) -> set[tuple[str, str]]:
    """Return in what two searches were asked otherwise, as far as both tell: version 0.1 kept no arguments."""
    ours, theirs = _asked(left), _asked(right)
    both_tell = "arguments" in left and "arguments" in right
    keys = ours.keys() | theirs.keys() if both_tell else ours.keys() & theirs.keys()
    return {key for key in keys if ours.get(key) != theirs.get(key)}


def _asked(document: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """Return what a search was asked with beside its ingredients, as people read it, by its kind and its name."""
    scores = document["trials"][0]["scores"] if document["trials"] else {}
    recipe, arguments = document["recipe"], document.get("arguments", {})
    base, tokenizer = ((recipe.get(key) or {}).get("name") or "" for key in ("base", "tokenizer"))
    facts = {"eval": ",".join(scores), "objective": describe_objective(document.get("objective", {}))}
    facts |= {"dtype": recipe.get("dtype") or "", "drop": " ".join(recipe.get("drop") or [])}
    facts |= {"base": base, "tokenizer": tokenizer}
    facts |= {key: str(arguments[key] or "none") for key in ("split", "questions", "method") if key in arguments}
    kinds = ("method_args", "strategy_args")
    named = {(kind, name): str(value) for kind in kinds for name, value in arguments.get(kind, {}).items()}
    return {**{(key, ""): value for key, value in facts.items()}, **named}
