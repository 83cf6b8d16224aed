"""Strategies are functions of a pool's names and a score: held against plain loops over random tables of scores."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

import soup
import soup.errors
from soup.errors import EvaluatorError, RecipeError
from soup.report.listing import list_kind
from soup.search.strategies import average, greedy, maximum, strategy
from soup.support.plugins import METHODS, STRATEGIES
from tests.helpers import flat_arguments as flat
from tests.helpers.toy_pools import calls, make_judge, make_pool


@dataclass
class Told:
    overall: float


class Table:
    """A score for every subset of the pool, as the draw has it; `asked` are the distinct subsets, in order."""

    def __init__(self, draw_one):
        self.draw_one, self.scores, self.asked = draw_one, {}, []

    def __call__(self, ingredients, /):
        subset = frozenset(ingredients)
        assert len(subset) == len(list(ingredients)) > 0
        if subset not in self.scores:
            self.asked.append(subset)
            self.scores[subset] = self.draw_one()
        return Told(self.scores[subset])


names = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=8, unique=True)
# Few values, so that ties are many.
few = st.sampled_from([40.0, 50.0, 50.5, 60.0])


def points_greedy(pool, score, better):
    """The table "Greedy Soup" of POINTS, line by line."""
    models = sorted(pool, key=lambda model: score([model]).overall, reverse=True)
    soup_so_far = []
    for model in models:
        if not soup_so_far or better(score([*soup_so_far, model]).overall, score(soup_so_far).overall):
            soup_so_far.append(model)
    return soup_so_far


@given(st.data(), names, st.sampled_from(["ge", "gt"]))
def test_greedy_is_the_loop_of_the_paper(data, pool, accept):
    table = Table(lambda: data.draw(few))
    chosen = greedy(pool, table, accept=accept)
    better = {"ge": lambda new, old: new >= old, "gt": lambda new, old: new > old}[accept]
    assert chosen == points_greedy(pool, table, better)


@given(st.data(), names, st.sampled_from(["ge", "gt"]))
def test_greedy_asks_for_at_most_two_k_less_one_scores_and_none_twice(data, pool, accept):
    table = Table(lambda: data.draw(few))
    chosen = greedy(pool, table, accept=accept)
    assert len(table.asked) <= 2 * len(pool) - 1
    again = len(table.asked)
    assert greedy(pool, table, accept=accept) == chosen
    assert len(table.asked) == again


@given(st.data(), names)
def test_greedy_starts_with_the_best_and_never_ends_below_it(data, pool):
    table = Table(lambda: data.draw(few))
    chosen = greedy(pool, table)
    best = max(table([name]).overall for name in pool)
    assert chosen[0] == next(name for name in pool if table([name]).overall == best)
    assert table(chosen).overall >= best


@given(names)
def test_on_ties_ge_takes_all_in_the_pools_order_and_gt_the_first_alone(pool):
    table = Table(lambda: 50.0)
    assert greedy(pool, table, accept="ge") == pool
    assert greedy(pool, table, accept="gt") == pool[:1]


@given(st.data(), names)
def test_greedy_tries_in_descending_order_with_ties_in_the_pools(data, pool):
    table = Table(lambda: data.draw(few))
    greedy(pool, table)
    tried = [next(iter(subset - before)) for before, subset in steps(table.asked[len(pool) :], pool, table)]
    ranked = sorted(pool, key=lambda name: (-table([name]).overall, pool.index(name)))
    assert tried == ranked[1:]


def steps(subsets, pool, table):
    chosen = frozenset([max(pool, key=lambda name: table([name]).overall)])
    for subset in subsets:
        yield chosen, subset
        chosen = subset if table(subset).overall >= table(chosen).overall else chosen


@given(st.data(), names)
def test_maximum_tries_every_p_and_keeps_the_best_and_smallest(data, pool):
    table = Table(lambda: data.draw(few))
    chosen = maximum(pool, table)
    ranked = sorted(pool, key=lambda name: -table([name]).overall)
    tops = [ranked[:p] for p in range(1, len(pool) + 1)]
    assert chosen == min(tops, key=lambda top: (-table(top).overall, len(top)))
    assert {*table.asked} == {frozenset([name]) for name in pool} | {frozenset(top) for top in tops}
    assert len(table.asked) <= 2 * len(pool) - 1


@given(st.data(), names)
def test_maximum_of_a_given_p_is_the_top_p_and_asks_for_the_single_scores_alone(data, pool):
    p = data.draw(st.integers(1, len(pool)))
    table = Table(lambda: data.draw(few))
    assert maximum(pool, table, top_k=p) == sorted(pool, key=lambda name: -table([name]).overall)[:p]
    assert all(len(subset) == 1 for subset in table.asked)


@pytest.mark.parametrize("p", [0, -1, 4])
def test_maximum_refuses_a_p_beyond_the_pool(p):
    with pytest.raises(RecipeError, match=f"from 1 to 3, the size of the pool; found {p}"):
        maximum(["a", "b", "c"], Table(lambda: 50.0), top_k=p)


@given(names)
def test_average_takes_all_and_asks_for_nothing(pool):
    assert average(pool, None) == pool


def test_an_unknown_rule_of_acceptance_is_told_with_the_nearest():
    with pytest.raises(RecipeError, match=r"'get'.* ge\b"):
        greedy(["a"], Table(lambda: 50.0), accept="get")


# By name, from a file, from a package


@pytest.fixture
def pool(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return make_pool(tmp_path / "ckpts")


@pytest.fixture
def judge(tmp_path):
    return make_judge(tmp_path / "judge")


MINE = """
from soup.errors import PoolError

number = 3

def two_names(pool, score):
    return ["c", "a"]

def two_ingredients(pool, score):
    return pool[1:3]

def some(pool, score):
    return (ingredient for ingredient in pool if ingredient.name in "bd")

def weights_by_name(pool, score):
    return {"a": 3, "b": 1.0}

def weights_by_ingredient(pool, score):
    return {pool[0]: 0.25, pool["d"]: 0.75}

def leave_worst_out(pool, score, *, count=1):
    ranked = sorted(pool, key=lambda i: score([i]).overall, reverse=True)
    return ranked[:-count]

class Callable:
    def __call__(self, pool, score):
        return [pool[0]]

instance = Callable()

def nothing(pool, score):
    pass

def nobody(pool, score):
    return []

def one_text(pool, score):
    return "a"

def one_ingredient(pool, score):
    return pool[0]

def a_number(pool, score):
    return 3

def stranger(pool, score):
    return ["a", "bb"]

def numbers(pool, score):
    return [0, 1]

def twice(pool, score):
    return ["a", pool[0]]

def not_a_weight(pool, score):
    return {"a": float("nan"), "b": 1}

def a_text_as_weight(pool, score):
    return {"a": "much"}

def no_weight(pool, score):
    return {"a": 0, "b": 0}

def raises(pool, score):
    return 1 / 0

def refuses(pool, score):
    raise PoolError("I don't like this pool")

def scores_a_text(pool, score):
    return [score("ab")]

def scores_an_ingredient(pool, score):
    return [score(pool[0])]

def scores_nothing(pool, score):
    return [score([])]

def takes_nothing():
    return []
"""


@pytest.fixture
def mine(pool):
    (pool.parent / "my.py").write_text(MINE)


@pytest.mark.parametrize(
    ("name", "chosen", "weights"),
    [
        ("two_names", ("c", "a"), {"a": 0.5, "c": 0.5}),
        ("two_ingredients", ("b", "c"), {"b": 0.5, "c": 0.5}),
        ("some", ("b", "d"), {"b": 0.5, "d": 0.5}),
        ("weights_by_name", ("a", "b"), {"a": 3.0, "b": 1.0}),
        ("weights_by_ingredient", ("a", "d"), {"a": 0.25, "d": 0.75}),
        ("instance", ("a",), {"a": 1.0}),
    ],
)
@pytest.mark.parametrize("judged", [False, True])
def test_a_strategy_in_a_file_returns_names_or_ingredients_or_weights(pool, mine, judge, name, chosen, weights, judged):
    names = f"python:{judge}:two" if judged else ()
    made = flat.cook(f"my.py:{name}", pool=pool, eval=names, out="out")
    assert made.chosen == chosen
    assert {share.name: share.weight for share in made.recipe.ingredients} == weights
    assert made.recipe.strategy == f"my.py:{name}"


def test_a_strategy_in_a_file_has_options_and_a_score(pool, mine, judge):
    made = flat.cook(
        "my.py:leave_worst_out", pool=pool, eval=f"python:{judge}:score", strategy_args={"count": 2}, out="out"
    )
    assert made.chosen == ("b", "c")
    assert len(calls(judge)) == 5


WRONG = {
    "nothing": "expected to be given a list of ingredients or names, or a weight for each; found None",
    "one_text": "found 'a'",
    "one_ingredient": "found <a>",
    "a_number": "found 3",
    "nobody": "at least one ingredient",
    "stranger": "The pool has no ingredient 'bb'.",
    "numbers": "The pool has no ingredient '0'.",
    "twice": "each once; chosen were ['a', 'a']",
    "not_a_weight": "Weights must be finite numbers, and not all 0; found a: nan",
    "a_text_as_weight": "found a: 'much'",
    "no_weight": "not all 0; found {'a': 0, 'b': 0}",
    "raises": "ZeroDivisionError: division by zero",
    "takes_nothing": "too many positional arguments",
    "number": "expected a function of a pool and a score, found 3",
}


@pytest.mark.parametrize("judged", [False, True])
@pytest.mark.parametrize("name", WRONG)
def test_a_strategy_that_goes_wrong_is_one_clear_error(pool, mine, judge, name, judged):
    names = f"python:{judge}:score" if judged else ()
    with pytest.raises(RecipeError) as caught:
        flat.cook(f"my.py:{name}", pool=pool, eval=names, out="out")
    assert WRONG[name] in str(caught.value)
    assert f"trategy my.py:{name}" in str(caught.value)
    assert not (pool.parent / "out").exists()


@pytest.mark.parametrize("name", ["scores_a_text", "scores_an_ingredient", "scores_nothing"])
def test_a_score_of_what_is_no_list_of_ingredients_is_a_clear_error(pool, mine, judge, name):
    with pytest.raises(RecipeError, match=f"Strategy my.py:{name}: (Expected a list of|A soup needs at least one)"):
        flat.cook(f"my.py:{name}", pool=pool, eval=f"python:{judge}:score", out="out")
    assert calls(judge) == []


def test_a_soup_error_of_a_strategy_is_its_own(pool, mine):
    with pytest.raises(soup.errors.PoolError, match=r"^I don't like this pool$"):
        flat.cook("my.py:refuses", pool=pool, out="out")


def test_an_option_that_a_strategy_does_not_take_is_told_before_the_first_evaluation(pool, judge):
    with pytest.raises(RecipeError, match=r"unexpected keyword argument 'acept'.*it takes .*accept"):
        flat.cook("greedy", pool=pool, eval=f"python:{judge}:score", strategy_args={"acept": "gt"})
    assert calls(judge) == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gredy", "Unknown strategy 'gredy'. Did you mean 'greedy'?"),
        ("maximun", "Did you mean 'maximum'?"),
        ("zzz", "Unknown strategy 'zzz'. Known: average, cma"),
        ("my.py:two_name", "my.py has no 'two_name'. Did you mean 'two_names'?"),
        ("mine.py:x", "no such file"),
        ("my.py", "expected FILE.py:NAME"),
        ("no.such.module:x", "No module named 'no'"),
        (":x", "expected FILE.py:NAME"),
        ("broken.py:x", "SyntaxError"),
        ("leaves.py:x", "SystemExit: 3"),
    ],
)
def test_an_unknown_strategy_is_told_with_the_nearest(pool, mine, name, said):
    (pool.parent / "broken.py").write_text("def x(:")
    (pool.parent / "leaves.py").write_text("raise SystemExit(3)")
    with pytest.raises(RecipeError) as caught:
        flat.cook(name, pool=pool)
    assert said in str(caught.value)


def test_whatever_a_strategy_raises_is_its_failure_and_no_trace(pool):
    def leave(pool, score):
        raise GeneratorExit("odd")

    with pytest.raises(RecipeError, match=r"(?s)Strategy leave failed:.*GeneratorExit: odd"):
        flat.cook(leave, pool=pool, out="out")


def test_a_function_is_a_strategy_by_itself_and_by_a_name_of_its_own(pool, monkeypatch):
    monkeypatch.setattr(STRATEGIES, "registered", {})

    @strategy("first-two")
    def first_two(pool, score):
        return pool[:2]

    assert flat.cook("first-two", pool=pool, out="one").chosen == ("a", "b")
    made = flat.cook(first_two, pool=pool, out="two")
    assert (made.chosen, made.strategy) == (("a", "b"), "first_two")
    assert {"name": "first-two", "source": "this process"}.items() <= row("strategies", "first-two").items()


def row(kind, name):
    return next(row for row in list_kind(kind) if row["name"] == name)


@pytest.fixture
def plugged(tmp_path, monkeypatch):
    """Two installed packages: one that offers a strategy and a judge, one that is broken."""
    site = tmp_path / "site"
    entries = {
        "good": {
            "soup.strategies": ["last = good_soup:last", "greedy = good_soup:last"],
            "soup.methods": ["halves = good_soup:Halves"],
            "soup.evaluators": ["seven = good_soup:Seven"],
        },
        "bad": {"soup.strategies": ["lost = bad_soup:lost", "gone = no_such_soup:gone", "vague = good_soup:vague"]},
    }
    for name, groups in entries.items():
        info = site / f"{name}_soup-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-soup\nVersion: 1.0\n")
        lines = [line for group, targets in groups.items() for line in [f"[{group}]", *targets]]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    (site / "good_soup.py").write_text(
        "from soup.evaluation import Score\n"
        "def last(pool, score):\n    'The last one alone.'\n    return pool[-1:]\n"
        "class Halves: 'Half of everything.'\n"
        "class Seven:\n"
        "    'Seven for everybody.'\n"
        "    def __init__(self, settings): pass\n"
        "    def identity(self, benchmark): return {'evaluator': 'seven', 'benchmark': benchmark.target}\n"
        "    def evaluate(self, candidate, benchmark): return Score(7) if benchmark.target == 'fair' else 7\n"
    )
    (site / "bad_soup.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.syspath_prepend(site)
    yield
    for name in ("good_soup", "bad_soup"):
        sys.modules.pop(name, None)


def test_plug_ins_are_listed_and_a_broken_one_says_why_and_breaks_no_other(plugged):
    assert row("strategies", "last") == {
        "name": "last", "source": "good_soup:last", "summary": "The last one alone.", "parameters": "", "broken": None,
    }  # fmt: skip
    assert "No module named 'a_package_that_is_not_there'" in row("strategies", "lost")["broken"]
    assert "No module named 'no_such_soup'" in row("strategies", "gone")["broken"]
    assert "has no 'vague'" in row("strategies", "vague")["broken"]
    assert all(row("strategies", name)["broken"] is None for name in ("average", "greedy", "maximum"))
    assert row("methods", "halves")["summary"] == "Half of everything."
    assert row("evaluators", "seven")["summary"] == "Seven for everybody."
    assert {"halves", "linear"} <= {*METHODS.names()}  # and what other tests registered in this process


def test_strategies_and_methods_are_listed_with_their_options():
    assert row("strategies", "prune")["parameters"] == "accept=gt, order=full"
    assert row("strategies", "maximum")["parameters"] == "top_k=None"
    assert row("methods", "ties")["parameters"].startswith("scale=1.0, components={}, ")
    assert "parameters" not in row("evaluators", "python")


def test_a_plug_in_strategy_cooks_and_a_broken_one_is_an_error(pool, plugged):
    assert flat.cook("last", pool=pool, out="out").chosen == ("d",)
    with pytest.raises(RecipeError, match="a_package_that_is_not_there"):
        flat.cook("lost", pool=pool)
    with pytest.raises(RecipeError, match="Did you mean 'last'"):
        flat.cook("lastt", pool=pool)


def test_what_ships_cannot_be_replaced_by_a_plug_in(pool, plugged, judge):
    assert row("strategies", "greedy")["source"] == "soup"
    assert flat.cook("greedy", pool=pool, eval=f"python:{judge}:score", out="out").chosen == ("b", "c")


def test_a_plug_in_harness_judges_and_one_that_gives_no_score_is_an_error(pool, plugged):
    made = flat.cook("greedy", pool=pool, eval="seven:fair", out="out")
    assert {trial.overall for trial in made.trials} == {7.0}
    assert made.chosen == ("a", "b", "c", "d")
    with pytest.raises(EvaluatorError, match=r"a on seven:unfair: expected a soup.evaluation.Score, found 7"):
        flat.cook("greedy", pool=pool, eval="seven:unfair", out="out2")


def test_an_unknown_method_is_told_with_the_nearest(pool):
    with pytest.raises(RecipeError, match=r"Unknown method 'liner'\. Did you mean 'linear'\? Known: consensus"):
        flat.cook("average", pool=pool, method="liner")
