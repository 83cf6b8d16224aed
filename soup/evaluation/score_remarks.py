"""What is strange about scores: nothing right at all, a share in place of points, the same score for every model.

Such scores stop nothing, for a test set may be that hard. But a choice by them rests on no evidence, and the cause is
mostly a broken template, a wrong processor or a wrong unit, which the first scores show.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from soup.evaluation.api import LIKELIHOOD, Score

__all__ = ["constant_scores", "score_remarks"]

Scores = Mapping[str, Score]
"""A model's scores by benchmark."""


def score_remarks(names: Sequence[str], scores: Scores, earlier: Sequence[Scores]) -> Iterator[tuple[str, str]]:
    """Yield what is strange about the scores of a model, each with what it is about; one of a kind is enough to tell.

    Args:
        names: The model's ingredients.
        scores: Its scores.
        earlier: Those of models before it.
    """
    model = " + ".join(names)
    for name, score in scores.items():
        if name.endswith(LIKELIHOOD):
            continue  # 100 exp(-loss) may well be near 0
        values = [score.value, *(row[name].value for row in earlier if name in row)]
        if score.value == 0:
            yield (
                f"{name} is 0",
                f"{name}: {model} scores 0.00, nothing is right. A broken chat template or a wrong processor "
                "gives this score to every model: look at what it says before you go on.",
            )
        elif score.questions is None and max(values) <= 1:
            yield (
                f"{name} is a share",
                f"{name}: {model} scores {score.value:g}, and scores are 0 to 100: it counts as {score.value:g} of "
                "100 points. If it is a share of 1, multiply it by 100.",
            )
        first = next((row[name] for row in earlier if name in row), score)
        if _asks_others(score, first):
            yield (
                f"{name} asks others",
                f"{name}: {model} was asked other questions than the model before it ({len(score.questions or ())} and "
                f"{len(first.questions or ())}): their scores are of two tests. Give the same questions for each.",
            )


def _asks_others(score: Score, first: Score) -> bool:
    """Whether both tell their questions, all of them, and these differ."""
    if not score.questions or not first.questions or score.estimate or first.estimate:
        return False
    return score.questions.keys() != first.questions.keys()


def constant_scores(scores: Mapping[str, Scores]) -> str | None:
    """Return a remark if all models have the same scores; None where they differ, or there is only one.

    Args:
        scores: Each model's, by the digest of its recipe.
    """
    rows = [{name: score.value for name, score in row.items()} for row in scores.values()]
    if len(rows) < 2 or any(row != rows[0] for row in rows):
        return None
    shown = ", ".join(f"{name} {value:.2f}" for name, value in rows[0].items())
    return f"All {len(rows)} models have the same scores so far ({shown}), which say nothing of which is better."
