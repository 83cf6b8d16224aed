"""What a search by estimates does when true numbers contradict it, with scores that are made up."""

from __future__ import annotations

from types import SimpleNamespace

from soup.search.confirmation import choose_confirmed, saves_questions
from soup.search.strategies import Budget, Choice

SINGLES = ["worse", "better"]


class Scores:
    """A scorer whose soups `s0`, `s1`, .. are each estimated a little better than the next, and all too high."""

    def __init__(self, too_high, best_single, forbidden):
        self.too_high, self.everything, self.asks_all = too_high, [], False
        self.best_single, self.forbidden = best_single, forbidden
        self.remarks, self.trials, self.answered = [], {}, []
        self.pool, self.singles = SINGLES, [SimpleNamespace(digest=name) for name in SINGLES]

    @property
    def question_plan(self):
        return None if self.asks_all else self

    def ask_everything(self, digests=None):
        self.everything += digests or ()
        self.asks_all = self.asks_all or digests is None

    def __call__(self, chosen, method=None, params=None):
        trial = self.trial(self.recipe(chosen))
        self.answered.append(trial.label)
        return self.trials.setdefault(trial.label, trial)

    def recipe(self, chosen, method=None, params=None):
        return SimpleNamespace(digest="+".join(chosen))

    def trial(self, recipe):
        name = recipe.digest
        is_estimated = name not in (*SINGLES, *self.everything) and not self.asks_all
        if name in SINGLES:
            overall = self.best_single - (name == "worse")
        else:
            overall = 60 - int(name[1:]) / 100 - self.too_high.get(name, self.too_high["all"]) * (not is_estimated)
        allowed = name not in self.forbidden
        return SimpleNamespace(
            recipe=recipe, label=name, overall=overall, allowed=allowed, is_estimated=is_estimated, estimate=None
        )

    def restart(self):
        self.trials.clear()

    def remark(self, text):
        self.remarks.append(text)


def best_of_ten(score):
    return Choice([max((f"s{number}" for number in range(10)), key=lambda name: score([name]).overall)])


def search(too_high, best_single=1.0, forbidden=(), **too_high_of):
    scores, completed = Scores({"all": too_high, **too_high_of}, best_single, forbidden), []
    choice = choose_confirmed(
        scores, lambda strategy: strategy(scores), best_of_ten, lambda recipes: completed.extend(recipes)
    )
    return choice.chosen, scores, [recipe.digest for recipe in completed]


def test_after_three_choices_that_do_not_hold_everything_is_asked():
    chosen, scores, completed = search(too_high=0.15)
    assert chosen == ["s0"], "of true numbers the best is the first again"
    assert scores.everything == ["s0", "s1", "s2", "s3", "s4", "s5"], "the choice and the runner-up of three searches"
    assert completed == [*scores.everything, "s0"]
    *went_on, everything = scores.remarks
    assert [text.split()[-1] for text in went_on] == ["s2.", "s4.", "s6."]
    assert everything.startswith("3 choices by estimates did not hold. Every soup")


def test_an_estimate_that_is_far_off_has_every_soup_asked_everything_at_once():
    chosen, scores, completed = search(too_high=0.25)
    assert (chosen, completed) == (["s0"], ["s0", "s1", "s0"])
    assert scores.remarks[0].startswith("Asked everything, an overall was 0.25 points from its estimate.")


def test_the_estimate_that_is_farthest_off_counts():
    _, scores, _ = search(too_high=0.0, s1=0.25)
    assert scores.asks_all


def test_the_runner_up_keeps_the_guards_and_may_be_a_single_model_whose_score_is_known():
    assert search(too_high=0.0, forbidden=["s1"])[1].everything == ["s0", "s2"]
    assert search(too_high=0.0, best_single=59.995)[1].everything == ["s0"]


def test_a_search_that_asks_its_choice_and_its_runner_up_everything_saves_nothing_where_those_are_all():
    assert saves_questions(None, 5)
    assert saves_questions(Budget(singles=5, soups=30), 5)
    assert not saves_questions(Budget(singles=5, soups=2), 5)
    assert not saves_questions(Budget(singles=0, soups=6), 5), "single models would be asked for its sake"


def test_a_choice_that_holds_is_the_end_and_the_best_single_model_is_shown_beside_it():
    chosen, scores, completed = search(too_high=0.0)
    assert (chosen, completed, scores.remarks) == (["s0"], ["s0", "s1"], [])
    assert scores.answered[-1] == "better"
