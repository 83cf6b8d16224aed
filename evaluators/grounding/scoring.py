"""What an answer is worth: boxes by their overlap, points by a matching, interfaces by one click.

boxes       Boxes of a phrase are matched with its true ones; a pair hits with an IoU of at least 0.5. Of a phrase: hits
            over the true or the predicted boxes, whichever are more; of a question: the mean over its phrases.
points      Points are matched with the true ones so that the sum of distances is least (in pixels); a pair hits inside
            the point's mask, or within the radius. Nothing there and nothing said is right: 1; nothing there and
            something said is 0. What lies outside of the image does not count. A question's points are F1.
interfaces  The first point, or the middle of the first box, lies inside the element's box, edges included.

Source: RefCOCO's rule; Molmo, arXiv 2409.17146, section 4 (pointing); SeeClick, arXiv 2401.10935 (ScreenSpot).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluators.grounding.question_files import Kind, Question
from finetune.coordinates.conventions import Convention, Reading
from finetune.coordinates.regions import Box, Grounding, Point

__all__ = ["Verdict", "judge", "parts_of"]

LEAST_OVERLAP = 0.5
FEW = 4
"""Of so many points and fewer there are few; the paper names the kinds and not their bounds."""

ROUNDING = 1e-9
"""What fractions may lose on the way, for a pixel: a point at just the radius hits, an overlap of just a half, too."""


@dataclass(frozen=True)
class Verdict:
    """What one answer is worth: points 0 to 1, whether it names any place, and for points precision and recall."""

    points: float
    is_parsed: bool
    precision: float = 0.0
    recall: float = 0.0


def judge(kind: Kind, question: Question, answer: str, convention: Convention) -> Verdict:
    """Score one answer.

    Args:
        kind: What the question asks for.
        question: What is right.
        answer: All that the model said; thoughts up to `</think>` are left out.
        convention: How it writes points and boxes.
    """
    reading = convention.read(answer.rpartition("</think>")[2], question.size)
    return _RULES[kind](question, reading)


def matching(costs: Sequence[Sequence[float]]) -> list[tuple[int, int]]:
    """Pair rows and columns, each once and as many as can be, so that the sum of costs is least."""
    from scipy.optimize import linear_sum_assignment

    if not costs or not costs[0]:
        return []
    rows, columns = linear_sum_assignment(costs)
    return list(zip(rows.tolist(), columns.tolist(), strict=True))


def _judge_interface(question: Question, reading: Reading) -> Verdict:
    ((_, (element,)),) = question.boxes
    hit = bool(reading.regions) and element.holds(reading.regions[0].center)
    return Verdict(float(hit), bool(reading.regions))


def _judge_boxes(question: Question, reading: Reading) -> Verdict:
    said = _by_phrase([phrase for phrase, _ in question.boxes], reading)
    shares = [_share(boxes, predicted) for (_, boxes), predicted in zip(question.boxes, said, strict=True)]
    return Verdict(statistics.fmean(shares), any(said))


def _by_phrase(phrases: Sequence[str], reading: Reading) -> list[list[Box]]:
    """Return the predicted boxes of each phrase: by the words that the answer marks, or else by their order."""
    groundings = [
        (piece.label.strip().casefold(), [region for region in piece.regions if isinstance(region, Box)])
        for piece in reading.pieces
        if isinstance(piece, Grounding)
    ]
    if len(phrases) == 1:
        return [[box for _, boxes in groundings for box in boxes]]
    if any(label for label, _ in groundings):
        wanted = [phrase.strip().casefold() for phrase in phrases]
        return [[box for label, boxes in groundings if label == phrase for box in boxes] for phrase in wanted]
    return [groundings[i][1] if i < len(groundings) else [] for i in range(len(phrases))]


def _share(boxes: Sequence[Box], predicted: Sequence[Box]) -> float:
    misses = [[float(box.overlap(other) < LEAST_OVERLAP - ROUNDING) for other in predicted] for box in boxes]
    hits = sum(not misses[i][j] for i, j in matching(misses))
    return hits / max(len(boxes), len(predicted))


def _judge_points(question: Question, reading: Reading) -> Verdict:
    said = [region.center for region in reading.regions]
    said = [point for point in said if 0 <= point.x <= 1 and 0 <= point.y <= 1]
    if not said or not question.points:
        right = float(not said and not question.points)
        return Verdict(right, bool(said) or not question.points, right, right)
    width, height = question.size

    def distance(point: Point, other: Point) -> float:
        return math.hypot((point.x - other.x) * width, (point.y - other.y) * height)

    distances = [[distance(point, other) for other in said] for point in question.points]
    hits = sum(_hits(question, i, said[j], distances[i][j]) for i, j in matching(distances))
    precision, recall = hits / len(said), hits / len(question.points)
    return Verdict(2 * hits / (len(said) + len(question.points)), True, precision, recall)


def _hits(question: Question, number: int, point: Point, distance: float) -> bool:
    if not question.masks:
        return distance <= question.radius + ROUNDING
    return _is_white(question.masks[number], point)


def _is_white(mask: Path, point: Point) -> bool:
    from finetune.media.images import open_picture

    picture = open_picture(mask).convert("L")
    x, y = (min(int(value * side), side - 1) for value, side in zip(point.values, picture.size, strict=True))
    value = picture.getpixel((x, y))
    return isinstance(value, int) and value > 127


_RULES: dict[str, Callable[[Question, Reading], Verdict]] = {
    "boxes": _judge_boxes,
    "points": _judge_points,
    "interfaces": _judge_interface,
}


def parts_of(kind: Kind, judged: Sequence[tuple[Question, Verdict]]) -> dict[str, dict[str, float]]:
    """Return each part's points by question: an interface's cells; F1, precision, recall, and F1 by frequency."""
    parts: dict[str, dict[str, float]] = {}
    if kind == "points":
        parts = {
            "f1": {question.index: verdict.points for question, verdict in judged},
            "precision": {question.index: verdict.precision for question, verdict in judged},
            "recall": {question.index: verdict.recall for question, verdict in judged},
        }
    for question, verdict in judged:
        name = question.cell if kind == "interfaces" else _frequency(question) if kind == "points" else ""
        parts.setdefault(name, {})[question.index] = verdict.points
    return {name: points for name, points in parts.items() if name}


def _frequency(question: Question) -> str:
    count = len(question.points)
    return "zero" if count == 0 else "one" if count == 1 else "few" if count <= FEW else "many"
