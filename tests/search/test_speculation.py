"""Workers side by side change when a soup is judged, and never which soup is chosen."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soup.errors import EvaluatorError, RecipeError
from soup.evaluation.api import Score
from soup.search.strategies import average, greedy, maximum
from soup.search.workers.protocol import ScoreEvent, TaskDone
from soup.search.workers.speculation import SpeculativeRunner
from soup.support.plugins import STRATEGIES
from soup.testing.simulation import SimulatedPool
from soup.testing.table_scorer import TableScorer

NEWER = {"cma": {"evaluations": 20}, "exhaustive": {}, "forward-backward": {"steps": 3}, "mixture": {"samples": 20}}
NEWER |= {"prune": {}, "scale": {}, "soce": {}, "trajectory": {}}


def table_of(seed, levels):
    """A repeatable overall for every set of names, of so few levels that ties are common."""

    def scores(recipe):
        values = random.Random(f"{seed}/{recipe.digest}")
        return {name: Score(float(values.randrange(levels))) for name in ("reading", "counting", "seeing")}

    return scores


def searches(names):
    def leave_worst_out(score):
        ranked = sorted(names, key=lambda name: score([name]).overall, reverse=True)
        return ranked[:-1] or ranked

    def climb(score):
        """Drops an ingredient as long as that helps: it asks until it is satisfied."""
        best = list(names)
        while len(best) > 1:
            smaller = max(([n for n in best if n != name] for name in best), key=lambda part: score(part).overall)
            if score(smaller).overall <= score(best).overall:
                return best
            best = smaller
        return best

    return {
        "greedy ge": lambda score: greedy(names, score),
        "greedy gt": lambda score: greedy(names, score, accept="gt"),
        "maximum": lambda score: maximum(names, score),
        "maximum top 2": lambda score: maximum(names, score, top_k=min(2, len(names))),
        "average": lambda score: average(names, score),
        "leave worst out": leave_worst_out,
        "climb": climb,
        **{name: shipped(name, names) for name in NEWER},
    }


def shipped(name, names):
    """What a strategy chooses, or why it refuses the pool."""

    def search(score):
        try:
            choice = STRATEGIES.get(name)(names, score, **NEWER[name])
        except RecipeError as error:
            return str(error)
        return choice.chosen, choice.params

    return search


def chosen_and_judged(name, count, size, seed, levels):
    """What workers choose, tell and judge, and what one by one is chosen, told and judged."""
    names = [f"m{i}" for i in range(count)]
    alone = TableScorer(names, table_of(seed, levels))
    expected = searches(names)[name](alone)
    scorer = TableScorer(names, table_of(seed, levels))
    cost = random.Random(seed)
    crew = SimulatedPool(scorer, size, lambda names: cost.uniform(0.1, 3))
    chosen = SpeculativeRunner(scorer, crew).choose(searches(names)[name])
    ended = crew.evaluations - (crew.size - crew.idle)  # bets that were still running when the search was over
    return (chosen, scorer.trials, ended), (expected, alone.trials, len(scorer.known))


@given(size=st.integers(1, 9), seed=st.integers(0, 10**6))
def test_with_workers_no_guess_is_ever_told_as_the_best_so_far(size, seed):
    trials = {}
    for workers in (0, size):
        scorer = TableScorer([f"m{i}" for i in range(5)], table_of(seed, 50))
        scorer.on_best = trials.setdefault(workers, []).append
        search = searches(scorer.pool)["greedy ge"]
        crew = SimulatedPool(scorer, size, lambda names: random.Random(f"{names}").uniform(0.1, 3))
        _ = SpeculativeRunner(scorer, crew).choose(search) if workers else search(scorer)
    assert trials[size][-1] == trials[0][-1]
    assert all(trial in trials[0] for trial in trials[size])


@pytest.mark.parametrize("name", [name for name in searches(["a"]) if name not in NEWER])
@given(count=st.integers(1, 7), size=st.integers(1, 9), seed=st.integers(0, 10**6), levels=st.integers(2, 100))
def test_any_number_of_workers_chooses_what_one_by_one_chooses(name, count, size, seed, levels):
    by_workers, one_by_one = chosen_and_judged(name, count, size, seed, levels)
    assert by_workers == one_by_one, "the choice, the trials in their order, nothing judged twice"


@pytest.mark.parametrize("name", NEWER)
@settings(deadline=None, max_examples=20)
@given(count=st.integers(1, 6), size=st.integers(1, 9), seed=st.integers(0, 10**6), levels=st.integers(2, 100))
def test_the_same_holds_for_the_longer_searches(name, count, size, seed, levels):
    by_workers, one_by_one = chosen_and_judged(name, count, size, seed, levels)
    assert by_workers == one_by_one


@given(seed=st.integers(0, 10**6), k=st.integers(2, 9))
def test_one_worker_judges_just_what_one_by_one_would(seed, k):
    names = [f"m{i}" for i in range(k)]
    scorer = TableScorer(names, table_of(seed, 100))
    crew = SimulatedPool(scorer, 1)
    SpeculativeRunner(scorer, crew).choose(lambda score: greedy(names, score))
    assert crew.evaluations <= 2 * k - 1


def test_single_models_are_judged_side_by_side():
    names = [f"m{i}" for i in range(8)]
    scorer = TableScorer(names, table_of(0, 100))
    crew = SimulatedPool(scorer, 8)
    SpeculativeRunner(scorer, crew).choose(lambda score: maximum(names, score, top_k=3))
    assert crew.hours == 1.0


def test_greedy_bets_on_refusal_and_is_done_at_once_when_all_are_refused():
    names = [f"m{i}" for i in range(5)]
    scorer = TableScorer(names, lambda members: 60.0 - len(members))
    crew = SimulatedPool(scorer, 5)
    assert SpeculativeRunner(scorer, crew).choose(lambda score: greedy(names, score)) == ["m0"]
    assert crew.hours == 2.0, "five single models, then four pairs, each in one go"


class Failing(SimulatedPool):
    """Can't judge the sets named in `broken`."""

    broken: tuple[frozenset[str], ...] = ()

    def wait(self):
        events = super().wait()
        task = events[0].task
        return (
            [TaskDone(task, EvaluatorError(f"no {task.recipe.digest}"))]
            if set(task.recipe.names) in self.broken
            else events
        )


def test_a_failure_on_the_true_path_is_raised():
    names = ["a", "b", "c"]
    scorer = TableScorer(names, lambda members: 50.0 + len(members))
    crew = Failing(scorer, 4)
    crew.broken = ({"a", "b"},)
    with pytest.raises(EvaluatorError, match=r"no a\+b"):
        SpeculativeRunner(scorer, crew).choose(lambda score: greedy(names, score))


def test_a_failure_of_a_bet_that_was_lost_is_nobody_s_business():
    names = ["a", "b", "c"]
    scorer = TableScorer(names, lambda members: 50.0 + len(members))
    crew = Failing(scorer, 4)
    crew.broken = ({"a", "c"},)  # judged while a + b is, and moot once a + b is accepted
    assert SpeculativeRunner(scorer, crew).choose(lambda score: greedy(names, score)) == ["a", "b", "c"]
    assert "a+c" not in scorer.known


def test_a_strategy_s_own_error_is_raised_and_one_over_a_guess_is_not():
    names = ["a", "b"]

    def picky(score):
        total = sum(score([name]).overall for name in names)
        return names[: int(total)]  # int(-inf) raises, and means nothing

    scorer = TableScorer(names, lambda members: 1.0)
    assert SpeculativeRunner(scorer, SimulatedPool(scorer, 3)).choose(picky) == names

    def wrong(score):
        score(["a"])
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        SpeculativeRunner(scorer, SimulatedPool(scorer, 3)).choose(wrong)


def test_a_strategy_that_waits_for_an_improvement_is_not_waited_for():
    names = ["a", "b"]
    scorer = TableScorer(names, lambda members: 10.0)

    def stubborn(score):
        while score(["a"]).overall < 5:
            pass
        return ["a"]

    assert SpeculativeRunner(scorer, SimulatedPool(scorer, 2)).choose(stubborn) == ["a"]


def test_complete_judges_every_recipe_once():
    names = ["a", "b", "c"]
    scorer = TableScorer(names, lambda members: 1.0)
    crew = SimulatedPool(scorer, 2)
    recipes = [scorer.recipe([name]) for name in names]
    SpeculativeRunner(scorer, crew).complete(recipes, scorer.suite.split)
    assert crew.evaluations == 3
    assert crew.hours == 2.0
    assert ScoreEvent(None, 0, Score(1.0), 1.0).seconds == 1.0
