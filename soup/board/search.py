"""A search on the board: models by benchmarks, scores filling in; the best so far; workers; questions; time left."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.text import Text

from soup.board.evaluations import Running, RunningEvaluations
from soup.board.layout import Row, cut, fit_rows, fit_table, plain, short_names
from soup.board.workers import Workers
from soup.support.text import format_duration, format_rate, pluralize, printable

if TYPE_CHECKING:
    from soup.evaluation.api import Benchmark, Score
    from soup.evaluation.pace import Pace
    from soup.evaluation.progress import SearchStart
    from soup.evaluation.trial import Trial
    from soup.merging.recipe import Recipe

__all__ = ["SearchSection", "describe_trial"]

LEAST_ROWS = 4
"""So many lines the table has at least, its head among them, however many workers there are."""

BEST, RUNNING = 2_000_000, 1_000_000
"""How much a row matters that is the best or is being evaluated; of the others, those that were heard of last."""


@dataclass
class _Model:
    """A row: a model, and its scores by column; `order` grows with what was heard of last."""

    label: str
    digest: str = ""
    scores: dict[str, Score] = field(default_factory=dict)
    trial: Trial | None = None
    order: int = 0


@dataclass
class SearchSection:
    """What is known of a search by what was told of it.

    Args:
        now: The clock, in seconds.
        start: What is about to be scored; None before a search.
    """

    now: Callable[[], float]
    start: SearchStart | None = None

    def __post_init__(self) -> None:
        self.begin(None)

    def begin(self, start: SearchStart | None) -> None:
        """Forget what was, and show what is about to be scored; None: nothing."""
        self.start = start
        self.columns: list[str] = list(start.benchmarks) if start else []
        self.models: list[_Model] = [_Model(name) for name in start.names] if start else []
        self.evaluations = RunningEvaluations(self.now)
        self.workers = Workers(self.now, self.evaluations.expected_seconds)
        self._question_counts: dict[tuple[str, str, str], int | None] = {}
        self._pace: tuple[Pace, float] | None = None
        self._heard, self.is_over = 0, False
        self._best_digest: str | None = None

    def take_pace(self, pace: Pace) -> None:
        """Take in how far the search is by its journal."""
        self._pace = pace, self.now()

    def take_score(self, recipe: Recipe, benchmark: Benchmark, score: Score, seconds: float) -> None:
        """Show a score, or those of a benchmark's parts, in columns of their own."""
        self.evaluations.learn(benchmark, seconds)
        self._count(recipe, benchmark.split.part, {benchmark.name: score})
        if benchmark.split.part == "report":
            return
        named = score.by_name(benchmark.name)
        if benchmark.name in self.columns and benchmark.name not in named:
            at = self.columns.index(benchmark.name)
            self.columns[at : at + 1] = [name for name in named if name not in self.columns]
        self._model(recipe).scores |= named

    def take_trial(self, trial: Trial) -> None:
        """Show a trial, whose scores may have been remembered."""
        model = self._model(trial.recipe)
        model.trial, model.scores = trial, dict(trial.scores)
        self.columns = list(trial.scores)  # where scores were remembered, parts are known by now
        for part, scores in ((trial.part, trial.scores), ("report", trial.report)):
            self._count(trial.recipe, part, scores)

    def take_best(self, trial: Trial) -> None:
        """Show which soup the search itself would end with, from now on."""
        self._best_digest = trial.recipe.digest

    def lines(self, width: int, height: int) -> list[Text]:
        """Return at most so many lines, none wider than so many cells."""
        if self.start is None and not self.evaluations.running:
            return []
        third = max(1, height // 3)
        below = self.workers.lines(width, third) or self.evaluations.lines(width, third)
        head = [plain(text, width) for text in self._head()]
        best = [plain(text, width) for text in self._best_lines(width)]
        table = self._table(width, max(LEAST_ROWS, height - len(head) - len(best) - len(below)))
        return [*head, *table, *best, *below][:height]

    def line(self) -> str:
        """Return how far it is, in one line; nothing where nothing is being evaluated."""
        if not self.evaluations.running:
            return ""
        best = f"best so far {printable(self.best.label)}: {_overall(self.best)}" if self.best else ""
        return "; ".join(filter(None, [*self._head(), *self.evaluations.texts(most=3), best]))

    @property
    def best(self) -> Trial | None:
        """What the search would end with if it ended now.

        Where its strategy does not tell: the trial of the highest overall that keeps the guards; of equal ones a soup,
        of those the last.
        """
        chosen = [model.trial for model in self.models if model.trial and model.digest == self._best_digest]
        if chosen:
            return chosen[-1]
        trials = [model.trial for model in self.models if model.trial and model.trial.allowed]
        return max(reversed(trials), key=lambda trial: (trial.overall, not trial.is_single), default=None)

    def _head(self) -> list[str]:
        """Return how many evaluations are done of all, with the time that is left, and questions with their rate."""
        pace, passed = (self._pace[0], self.now() - self._pace[1]) if self._pace else (None, 0.0)
        total = pace.total if pace and pace.total is not None else self.start.evaluations if self.start else None
        done = sum((model.trial is not None) + bool(model.trial and model.trial.report) for model in self.models)
        most = None if total is None else pluralize(max(total, done), "evaluation")
        parts = [pluralize(done, "evaluation") if most is None else f"{done} of at most {most}"]
        if pace and pace.seconds_left is not None and not self.is_over and done != total:
            parts.append(f"about {format_duration(max(0.0, pace.seconds_left - passed))} left")
        return [f"{f'{self.start.title}: ' if self.start else ''}{', '.join(parts)}", *self._questions(pace)]

    def _questions(self, pace: Pace | None) -> list[str]:
        counts = list(self._question_counts.values())
        if None in counts:
            return []
        questions_done = sum(count or 0 for count in counts) + sum(
            map(self._questions_of, self.evaluations.running.values())
        )
        if not questions_done:
            return []
        text = f"{questions_done:,} questions"
        if pace and pace.questions_left is not None:
            total = max(questions_done, (pace.questions or 0) + pace.questions_left)
            text = f"{questions_done:,} of about {total:,.0f} questions"
        rate = self.workers.rate or (pace.questions_per_second if pace else None)
        return [f"{text}, about {format_rate(rate)} a second" if rate else text]

    def _questions_of(self, running: Running) -> int:
        """Return how many questions an evaluation has asked: as many as others, by the share of its prompts."""
        entry = [running.part, running.benchmark]
        known = [count for (_, *others), count in self._question_counts.items() if others == entry and count]
        return int(known[-1] * running.count / running.total) if known and running.total else running.count

    def _best_lines(self, width: int) -> list[str]:
        best = self.best
        if best is None:
            return []
        singles = [model.trial for model in self.models if model.trial and model.trial.is_single]
        rival = max(singles, key=lambda trial: trial.overall, default=None)
        beside = f", {best.overall - rival.overall:+z.2f} beside {rival.label}" if rival and not best.is_single else ""
        interval = " in {:z.2f} to {:z.2f}".format(*best.interval) if best.interval else ""
        head, tail = "best so far: ", f" {_overall(best)}{interval}{cut(beside, max(8, width // 3))}"
        return [f"{head}{cut(best.label, max(8, width - len(head) - len(tail)))}{tail}"]

    def _table(self, width: int, height: int) -> list[Text]:
        is_reported = any(model.trial and model.trial.report for model in self.models)
        last = ["overall"] * (self.columns != ["overall"]) + ["report"] * is_reported
        best, running, rows = self.best, self.evaluations.labels, []
        for model in self.models:
            is_best = model.trial is not None and model.trial is best
            importance = BEST * is_best + RUNNING * (model.label in running) + model.order
            cells = self._cells(model, [*self.columns, *last])
            rows.append(Row([f"{'*' if is_best else ' '} {model.label}", *cells], importance, is_best))
        lines, hidden_columns = fit_table(["  model", *short_names(self.columns), *last], rows, width, kept=len(last))
        said = [pluralize(len(hidden_columns), "more benchmark")] if hidden_columns else []
        shown = list(range(len(rows)))
        if len(rows) > height - 1 - len(said):
            shown = fit_rows(rows, height - 2)
            hidden = [model for i, model in enumerate(self.models) if i not in shown]
            scored = sum(model.trial is not None for model in hidden)
            said.insert(0, f"{pluralize(len(hidden), 'more model')}, {scored} of them scored")
        below = [plain(f"... {'; '.join(said)}", width)] if said else []
        return [lines[0], *(lines[1 + i] for i in shown), *below]

    def _cells(self, model: _Model, columns: list[str]) -> list[str]:
        trial, cells = model.trial, []
        for name in columns:
            if name == "overall" and trial:
                cells.append(_overall(trial))
            elif name == "report" and trial and trial.report_overall is not None:
                cells.append(f"{trial.report_overall:.2f}")
            elif score := model.scores.get(name):
                cells.append(_text(score))
            else:
                cells.append(self.evaluations.share(model.label, name))
        return cells

    def _model(self, recipe: Recipe) -> _Model:
        """Return the row of a recipe, by its label and what it holds."""
        label, digest = recipe.describe(), recipe.digest
        model = next((each for each in self.models if each.label == label and each.digest in ("", digest)), None)
        if model is None:
            model = _Model(label)
            self.models.append(model)
        self._heard += 1
        model.digest, model.order = digest, self._heard
        return model

    def _count(self, recipe: Recipe, part: str, scores: Mapping[str, Score]) -> None:
        for name, score in scores.items():
            self._question_counts[recipe.digest, part, name] = score.asked


def describe_trial(trial: Trial) -> str:
    """Return a trial's line: `a + b: overall 61.20 (mmbench 61.20; 12.3 s)`."""
    part, scored = ("report ", trial.report) if trial.report else ("", trial.scores)
    scores = ", ".join(f"{name} {_text(score)}" for name, score in scored.items())
    when = "remembered" if trial.seconds is None else f"{trial.seconds:.1f} s"
    overall = f"overall {trial.objective.overall(scored):.2f}"
    if trial.interval and not part:
        overall = "overall ~{:.2f}, estimated in {:z.2f} to {:z.2f}".format(trial.overall, *trial.interval)
    return f"{printable(trial.label)}: {part}{overall} ({scores}; {when})"


def _overall(trial: Trial) -> str:
    return f"{'~' if trial.is_estimated else ''}{trial.overall:.2f}"


def _text(score: Score) -> str:
    return f"{'~' if score.estimate else ''}{score.value:.2f}"
