"""A rule: how the result of VLMEvalKit's own `evaluate` becomes a score of 0 to 100."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from evaluators.vlmeval.library_types import Row
from soup.errors import EvaluatorError

__all__ = ["Call", "PointsOf", "Questions", "Replies", "Rule", "for_classes"]

Judging = Literal["never", "may", "always"]
PointsOf = Callable[[Sequence[Row], Any], Sequence[float]]
"""From rows that a function of VLMEvalKit's took, as they are after the call, and its result, to the points of each."""


@dataclass(frozen=True)
class Questions:
    """Which questions a benchmark asks, and how it shows them.

    Args:
        is_asked: Of a row, whether it counts in VLMEvalKit's total: others are not asked. Without it all are.
        frames: Which frames of a video are shown: from its first to its last (`ends`), in the middles of equal parts
            (`middles`), or at equal distances between the ends.
        built_with: What else VLMEvalKit's class is built with, by name.
        variables: Variables of the environment that choose what is asked, with the values that are scored; the first is
            the default, and the score's key has the value.
        numbers_rows: Whether the class gives its rows an index, from 1, so that the table needs none.
    """

    is_asked: Callable[[Row], bool] | None = None
    frames: Literal["", "ends", "middles"] = ""
    built_with: tuple[tuple[str, object], ...] = ()
    variables: tuple[tuple[str, tuple[str, ...]], ...] = ()
    numbers_rows: bool = False

    def values_of_variables(self) -> dict[str, str]:
        """Return the values of the variables.

        Raises:
            EvaluatorError: one is not scored.
        """
        values = {name: os.environ.get(name, scored[0]) for name, scored in self.variables}
        for name, scored in self.variables:
            if values[name] not in scored:
                raise EvaluatorError(
                    f"{name} in the environment: expected {' or '.join(scored)}, found {values[name]!r}"
                )
        return values


@dataclass(frozen=True)
class Replies:
    """Which of a judge's replies can be read, and what becomes of the others.

    Args:
        pattern: It is found in each reply that can be read; empty: any reply can. If it has a group, that is all of the
            reply that VLMEvalKit gets.
        prompts: A pattern that is found in the prompts whose replies are to be so; to others any reply can be read.
        otherwise: What stands for a reply that can't be read, where VLMEvalKit stops with an error at one.
        tries: How often VLMEvalKit asks, no warmer, for a reply that can't be read, or for replies to one answer.
        unread: A column of a table that `evaluate` writes, and how its cell begins where a judge's reply can't be read.
    """

    pattern: str = ""
    prompts: str = ""
    otherwise: str = ""
    tries: int = 1
    unread: tuple[str, str] = ("log", "Fail to Judge")


@dataclass(frozen=True)
class Call:
    """How VLMEvalKit's `evaluate` is called: its arguments and rows, and what stands for functions that it calls.

    Args:
        settings: What else it is told, by name.
        takes_model: Whether it may be told the judge's name: one class passes that on twice, and fails.
        suffix: Of the file of predictions, which is kept in memory: some classes accept an Excel file alone.
        packages: What its metric imports only once answers are there.
        rows: How many rows it takes, no more and no fewer: copies stand for those that a part lacks.
        zeros: The columns of which missing cells are 0, which VLMEvalKit would take for numbers that are none.
        plain: The columns of which it expects Python's own values: a table's `True` is not Python's.
        by_index: Whether rows are looked up by their `index`, which in a part of the questions is not their number.
        pairs_rows: Whether the data set's rows, and not the answers' own, say what is right, paired as they stand.
        reads_itself: Whether it builds the data set once more, and takes from that what belongs to the answers.
        keeps_tables: Whether the tables that it writes and reads back stay in memory: a list would become a text. So
            do those that write themselves.
        mended: Functions of VLMEvalKit's, by full names, and what makes of their results such as it can go on with.
        limited: Functions of VLMEvalKit's, by full names, that compare formulas without a limit of time.
        completed: Classes of VLMEvalKit's, by full names, and what they look up and lack.
        is_exact: Whether `round` is left out, where its totals and so the points of a question have few decimals.
    """

    settings: tuple[tuple[str, object], ...] = ()
    takes_model: bool = True
    suffix: str = "tsv"
    packages: tuple[str, ...] = ()
    rows: int = 0
    zeros: str = ""
    plain: str = ""
    by_index: bool = False
    pairs_rows: bool = False
    reads_itself: bool = False
    keeps_tables: bool = False
    mended: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    limited: tuple[str, ...] = ()
    completed: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    is_exact: bool = False


@dataclass(frozen=True)
class Rule:
    """How a result of VLMEvalKit's becomes a score.

    Args:
        total: Where the total stands: a key or a column; `ROW/COLUMN`, the row being the one with that cell (`A&B`:
            with both cells); `A+B` is the plain mean of two; `*` of all columns, `*COLUMN` of the cells of one; empty:
            the mean of the points.
        scale: What makes a percentage of it.
        points: The column of a table that `evaluate` writes with each question's points; empty: it tells totals alone.
        full: The points of a right answer.
        points_from: Functions of VLMEvalKit's that take a list of rows, by their full names, where no table has points.
        is_mean: Whether the total is the mean of the points; then it is computed from them, unrounded.
        leaves_out: Whether VLMEvalKit leaves questions out of its total that it can't read: here they count as 0.
        stops: Whether VLMEvalKit stops with an error at an answer that it can't read: here that one is wrong.
        group: The columns of which equal cells make questions that count together, or the number of rows that do, or
            the character of an index before which it names them, or what gives the name of a row's group.
        is_whole: Whether such a group is one question, and has points as a whole.
        whole: From the rows of such a group and their points to the points of the question; without it the lowest.
        parts: Of a row, in which part it counts, and in which part of that: the total is the mean of the parts' means.
        weight: Of a row, how much it counts; without it all rows count alike.
        spread: The columns of which VLMEvalKit expects each value in any part, and the values, without which they are
            those of the table: a question is scored alone, once with each, and the total is the mean. Where a table has
            points all are scored at once, beside copies of the first question that have the values that they lack.
        judge: Whether an LLM judge is asked never, on demand, or always.
        caption: In words, what a score counts, where the total's name does not say it.
        columns: What its table must have beside the index; without some, VLMEvalKit counts all answers as wrong.
        questions: Which are asked, and how.
        replies: Which of a judge's can be read.
        call: How `evaluate` is called.
    """

    total: str
    scale: float = 1.0
    points: str = ""
    full: float = 1.0
    points_from: Mapping[str, PointsOf] = field(default_factory=dict)
    is_mean: bool = True
    leaves_out: bool = False
    stops: bool = False
    group: tuple[str, ...] | int | str | Callable[[Row], str] = ()
    is_whole: bool = False
    whole: Callable[[Sequence[Row], Sequence[float]], float] | None = None
    parts: Callable[[Row], tuple[str, ...]] | None = None
    weight: Callable[[Row], float] | None = None
    spread: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    judge: Judging = "never"
    caption: str = ""
    columns: str = ""
    questions: Questions = Questions()
    replies: Replies = Replies()
    call: Call = field(default_factory=Call)

    @property
    def description(self) -> str:
        """The rule in words."""
        words = self.caption or f"{self.total} of VLMEvalKit's result" + (" x 100" if self.scale == 100 else "")
        return words + (", by a judge" if self.judge == "always" else "")


def for_classes(classes: str, rule: Rule) -> dict[str, Rule]:
    """Return a rule by the names of classes."""
    return dict.fromkeys(classes.split(), rule)
