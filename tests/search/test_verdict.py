"""What a trial's verdict says, number by number."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from soup.evaluation.api import Score
from soup.evaluation.estimates import Estimate
from soup.evaluation.trial import Trial
from soup.merging.recipe import CheckpointSource, Recipe
from soup.search.verdict import describe_verdict

NUMBER = r"[+-]\d+\.\d"


def trial(names, **right):
    """A trial of benchmarks with 100 questions each, of which so many are right; without their points if a number."""
    recipe = Recipe.uniform(CheckpointSource(name=name, path=f"team/{name}") for name in names)
    scores = {
        name: Score(
            float(count), 100, {str(i): float(i < count) for i in range(100)} if isinstance(count, int) else None
        )
        for name, count in right.items()
    }
    return Trial(recipe, scores)


def changes_of(verdict):
    """The benchmarks that a verdict names: change, low and high of each."""
    found = re.findall(rf"(\w+) ({NUMBER}) \[({NUMBER}), ({NUMBER})\]", verdict)
    return {name: tuple(map(float, numbers)) for name, *numbers in found}


def test_a_refusal_names_the_benchmarks_that_lost_most_with_their_intervals_and_none_that_won():
    rival = trial("a", v=50, w=50, x=50, y=50, z=50)
    verdict = describe_verdict(trial("ab", v=52, w=48, x=40, y=49, z=45), rival, accepted=False)
    assert verdict.startswith("refused: 46.80 < 50.00 (")
    changes = changes_of(verdict)
    assert [(name, change) for name, (change, *_) in changes.items()] == [("x", -10), ("z", -5), ("w", -2)]
    assert all(low < change < high <= 1 for change, low, high in changes.values())


def test_what_is_better_and_was_not_taken_says_how_probably():
    verdict = describe_verdict(trial("b", x=60), trial("a", x=50), accepted=False)
    assert verdict.startswith("single: 60.00 > 50.00, better with a probability of 1.00 (x +10.0 [")
    assert (
        describe_verdict(trial("ab", x=60.0), trial("a", x=50.0), accepted=False)
        == "passed over: 60.00 > 50.00 (x +10.0)"
    )
    assert describe_verdict(trial("ab", x=60), trial("a", x=50), accepted=True).startswith(
        "accepted: 60.00 > 50.00 (x +"
    )


@pytest.mark.parametrize(
    ("left", "right", "text"),
    [
        (50.001, 50.002, "50.001 < 50.002 (x -0.001)"),
        (50.0, 50.0, "50.00 = 50.00"),
        (50.0, 50.5, "50.00 < 50.50 (x -0.5)"),
    ],
)
def test_overalls_have_as_many_digits_as_tell_them_apart(left, right, text):
    assert describe_verdict(trial("ab", x=left), trial("a", x=right), accepted=False) == f"refused: {text}"


def test_each_of_two_estimates_has_its_mark():
    known = trial("ab", x=40.0)
    guess = replace(known, scores={"x": Score(50.0, 100, estimate=Estimate(10, 0.0, 0.1, 0.1))})
    assert describe_verdict(known, guess, accepted=False).startswith("refused: 40.00 < ~50.00")
    assert describe_verdict(guess, known, accepted=True).startswith("accepted: ~50.00 > 40.00")


def test_a_guard_that_is_broken_is_the_reason_of_a_refusal_alone():
    broken = replace(trial("ab", x=60), broken=("x>=0: 60.00, and the best single model has 61.00",))
    assert describe_verdict(broken, trial("a", x=50), accepted=False) == f"refused: breaks {broken.broken[0]}"
    assert describe_verdict(broken, trial("a", x=50), accepted=True).startswith("accepted: 60.00 > 50.00")
