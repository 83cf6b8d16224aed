"""Scores of soups from a function."""

from __future__ import annotations

import random
from dataclasses import dataclass

from soup.evaluation.api import Score


@dataclass
class Told:
    overall: float


class Table:
    """A score of a soup's weights (of sum 1, by name) and parameters; `asked` are the distinct soups, in order."""

    def __init__(self, function):
        self.function, self.asked = function, []

    def __call__(self, chosen, /, method=None, params=None):
        weights = dict(chosen) if isinstance(chosen, dict) else dict.fromkeys(chosen, 1 / len(chosen))
        soup = (tuple(sorted(weights.items())), method, tuple((params or {}).items()))
        if soup not in self.asked:
            self.asked.append(soup)
        return Told(self.function(weights, **(params or {})))


class Unknown:
    """A score while workers are still judging everything."""

    def __init__(self):
        self.asked = []

    def __call__(self, chosen, /, method=None, params=None):
        if (chosen, params) not in self.asked:
            self.asked.append((chosen, params))
        return Assumed()


class Assumed(Told):
    def __init__(self):
        super().__init__(float("-inf"))

    allowed = False

    def better_than(self, other):
        return 0.0


def question_scores(quality, seed=0, questions=80, benchmarks=("reading", "counting", "seeing"), by_soup=False):
    """Scores with points for a `TableScorer`: a question is right where the soup's quality is above its difficulty.

    With `by_soup` every soup draws difficulties of its own: differences are noise.
    """

    def scores(recipe):
        by_name = {}
        for name in benchmarks:
            dice = random.Random(f"{seed}/{name}/{recipe.digest if by_soup else ''}")
            level = quality(recipe, name)
            points = {str(index): float(dice.random() < level) for index in range(questions)}
            by_name[name] = Score(100 * sum(points.values()) / questions, questions, points)
        return by_name

    return scores
