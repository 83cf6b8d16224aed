"""Questions that count together, and totals that are means of parts' means: what a rule says of a table's rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

from evaluators.vlmeval.library_types import Frame
from evaluators.vlmeval.rule import Rule

__all__ = ["grouped_ids", "mean_of_parts"]

Path = tuple[str, ...]


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
    else:
        records = frame[list(rule.group)].to_dict("records")
        labels = ["|".join(str(row[name]) for name in rule.group) for row in records]
    labels = [label.replace("/", "|") for label in labels]
    return labels if rule.is_whole else [f"{label}/{row}" for label, row in zip(labels, rows, strict=True)]


def mean_of_parts(rule: Rule, frame: Frame, points: Sequence[float]) -> float:
    """Return the total, 0 to 100, that points come to: the mean of the means of parts, which may have parts themselves.

    Args:
        rule: Says in which part a row counts.
        frame: One row or more for each question.
        points: Of each row; a group that is one question counts once.
    """
    questions = grouped_ids(rule, frame) if rule.is_whole else range(len(frame))
    by_question = dict(zip(questions, points, strict=True))
    if rule.parts is None:
        return 100 * math.fsum(by_question.values()) / len(by_question)
    paths = dict(zip(questions, map(rule.parts, frame.to_dict("records")), strict=True))
    return 100 * _mean([(paths[question], point) for question, point in by_question.items()])


def _mean(leaves: Sequence[tuple[Path, float]]) -> float:
    parts: dict[str, list[tuple[Path, float]]] = {}
    for path, point in leaves:
        if path:
            parts.setdefault(path[0], []).append((path[1:], point))
    means = [_mean(part) for part in parts.values()] or [point for _, point in leaves]
    return math.fsum(means) / len(means)
