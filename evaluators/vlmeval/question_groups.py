"""Questions that count together, and totals that are means of parts' means: what a rule says of a table's rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from evaluators.vlmeval.library_types import IMAGE_COLUMNS, DataSet, Frame
from evaluators.vlmeval.rule import Rule

__all__ = ["grouped_ids", "mean_of_parts", "sum_of_parts", "with_companions"]

Leaf = tuple[tuple[str, ...], float, float]
"""Of a question: its part, and the part of that, and so on; how much it counts there; its points."""

PointsSum = Callable[[Sequence[float]], float]
"""From the points of rows to the total, 0 to 100."""


def grouped_ids(rule: Rule, frame: Frame) -> list[str]:
    """Return the question of each row: its group, then a slash and its index, where the group is not one question.

    Args:
        rule: A rule with a group.
        frame: All rows, in VLMEvalKit's order.
    """
    rows = [str(index) for index in frame["index"]]
    if isinstance(rule.group, str):
        labels = [row.partition(rule.group)[0] for row in rows]
    elif isinstance(rule.group, int):
        labels = [rows[position - position % rule.group] for position in range(len(rows))]
    elif callable(rule.group):
        labels = [rule.group(row) for row in frame.to_dict("records")]
    else:
        records = frame[list(rule.group)].to_dict("records")
        labels = ["|".join(str(row[name]) for name in rule.group) for row in records]
    labels = [label.replace("/", "|") for label in labels]
    return labels if rule.is_whole else [f"{label}/{row}" for label, row in zip(labels, rows, strict=True)]


def mean_of_parts(rule: Rule, frame: Frame, points: Sequence[float]) -> float:
    """Return the total, 0 to 100, that points come to: the mean of the means of parts, which may have parts themselves.

    Args:
        rule: Says in which part a row counts, and how much.
        frame: One row or more for each question.
        points: Of each row; a group that is one question counts once.
    """
    return sum_of_parts(rule, frame)(points)


def sum_of_parts(rule: Rule, frame: Frame) -> PointsSum:
    """Return what makes the total of the points of some rows, which are looked at once; see `mean_of_parts`."""
    questions = grouped_ids(rule, frame) if rule.is_whole else range(len(frame))
    places: dict[object, tuple[tuple[str, ...], float]] = {}
    if rule.parts is not None or rule.weight is not None:
        places = {
            question: (rule.parts(row) if rule.parts else (), rule.weight(row) if rule.weight else 1.0)
            for question, row in zip(questions, frame.to_dict("records"), strict=True)
        }

    def total(points: Sequence[float]) -> float:
        by_question = dict(zip(questions, points, strict=True))
        if not places:
            return 100 * math.fsum(by_question.values()) / len(by_question)
        return 100 * _mean([(*places[question], point) for question, point in by_question.items()])

    return total


def with_companions(data_set: DataSet, rule: Rule, frame: Frame) -> Frame:
    """Return the rows, and after them those without which VLMEvalKit stops with an error.

    That is a row of each part that they lack, where functions tell the points; or the other rows of a group.
    """
    whole = data_set.whole.drop(columns=[*IMAGE_COLUMNS], errors="ignore")
    asked, records, others = frame.to_dict("records"), whole.to_dict("records"), list[int]()
    if callable(rule.group):
        groups, rows = {rule.group(row) for row in asked}, {row["index"] for row in asked}
        others = [i for i, row in enumerate(records) if rule.group(row) in groups and row["index"] not in rows]
    elif rule.points_from and rule.parts is not None:
        parts = {rule.parts(row) for row in asked}
        others = [*{part: i for i, row in enumerate(records) if (part := rule.parts(row)) not in parts}.values()]
    if not others:
        return frame
    from pandas import concat

    return concat([frame, whole.iloc[others].assign(prediction="-")])


def _mean(leaves: Sequence[Leaf]) -> float:
    parts: dict[str, list[Leaf]] = {}
    for (part, *rest), weight, point in (leaf for leaf in leaves if leaf[0]):
        parts.setdefault(part, []).append((tuple(rest), weight, point))
    if parts:
        return math.fsum(map(_mean, parts.values())) / len(parts)
    return math.fsum(weight * point for _, weight, point in leaves) / (math.fsum(leaf[1] for leaf in leaves) or 1.0)
