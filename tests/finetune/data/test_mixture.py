"""How often, and when, each row is seen."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.config import DataSet, Mixture
from finetune.data.mixture import GROUPS, Order, manifest, strata_of
from soup.errors import FinetuneError

WEIGHTS = st.sampled_from([0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.7])


@st.composite
def mixtures(draw, with_groups=False):
    """Data sets of 1 to 30 rows, with weights, categories and groups."""
    sizes = draw(st.lists(st.integers(1, 30), min_size=1, max_size=5))
    names = draw(st.lists(st.sampled_from(["general", "math", "code"]), min_size=len(sizes), max_size=len(sizes)))
    weights = draw(st.lists(WEIGHTS, min_size=len(sizes), max_size=len(sizes)))
    sets = [DataSet(path=f"{i}", weight=w, category=c) for i, (w, c) in enumerate(zip(weights, names, strict=True))]
    begins = np.cumsum([0, *sizes])
    rows = [np.arange(begins[i], begins[i + 1]) for i in range(len(sizes))]
    kinds = [np.array(draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))) for n in sizes]
    ratios = {name: draw(st.sampled_from([0.1, 0.5, 2.0])) for name in sorted(set(names) - {"general"})}
    mixture = Mixture(
        categories=ratios if "general" in names and draw(st.booleans()) else {},
        groups=draw(shares(kinds)) if with_groups else {},
    )
    return sets, rows, kinds, mixture


@st.composite
def shares(draw, kinds):
    there = sorted({GROUPS[kind] for own in kinds for kind in own})
    parts = [draw(st.integers(1, 9)) for _ in there]
    return {name: part / sum(parts) for name, part in zip(there, parts, strict=True)}


def made(case, seed=0):
    sets, rows, kinds, mixture = case
    strata = strata_of(sets, rows, kinds, mixture)
    return strata, Order(strata, seed)


@settings(deadline=None, max_examples=60)
@given(case=mixtures() | mixtures(with_groups=True), epochs=st.integers(1, 4), seed=st.integers(0, 2**40))
def test_every_epoch_sees_each_stratum_as_often_as_its_rate_says_to_within_one_sample(case, epochs, seed):
    strata, order = made(case, seed)
    seen_of = [[np.isin(order.of_epoch(e), own.rows).sum() for e in range(epochs)] for own in strata]
    for own, seen in zip(strata, seen_of, strict=True):
        assert all(abs(Fraction(int(n)) - own.visits) < 1 for n in seen)
        assert abs(Fraction(int(sum(seen))) - epochs * own.visits) < 1


@settings(deadline=None, max_examples=60)
@given(case=mixtures(), seed=st.integers(0, 99))
def test_rows_of_a_stratum_are_seen_equally_often_to_within_one(case, seed):
    strata, order = made(case, seed)
    counts = Counter(order[i] for i in range(order.begin(3)))
    for own in strata:
        seen = [counts[int(row)] for row in own.rows]
        assert max(seen) - min(seen) <= 1


@settings(deadline=None, max_examples=60)
@given(case=mixtures(), seed=st.integers(0, 99), start=st.integers(0, 200))
def test_a_run_that_starts_in_the_middle_goes_on_with_the_same_rows(case, seed, start):
    _, order = made(case, seed)
    whole = [order[i] for i in range(start + 50)]
    _, again = made(case, seed)
    assert [again[i] for i in range(start, start + 50)] == whole[start:]


@settings(deadline=None, max_examples=60)
@given(case=mixtures(with_groups=True))
def test_epochs_follow_one_another_without_gap(case):
    _, order = made(case)
    rows = [int(row) for e in range(3) for row in order.of_epoch(e)]
    assert len(rows) == order.begin(3)
    assert [order[i] for i in range(len(rows))] == rows


@settings(deadline=None, max_examples=60)
@given(case=mixtures(with_groups=True), seed=st.integers(0, 9))
def test_every_stretch_of_an_epoch_holds_each_stratum_in_its_share(case, seed):
    strata, order = made(case, seed)
    rows = order.of_epoch(0)
    for own in strata:
        inside = np.cumsum(np.isin(rows, own.rows))
        share = inside[-1] / len(rows) if len(rows) else 0
        # A stratum's own visits are at most one off their even spread; all strata together shift the time.
        bound = 1 + share * len(strata)
        assert all(abs(n - share * (i + 1)) <= bound + 1e-9 for i, n in enumerate(inside))


def plain(*sizes, weights=None, categories=None):
    sets = [
        DataSet(path=f"{i}", weight=(weights or [1] * len(sizes))[i], category=(categories or ["general"] * 9)[i])
        for i in range(len(sizes))
    ]
    begins = np.cumsum([0, *sizes])
    return sets, [np.arange(begins[i], begins[i + 1]) for i in range(len(sizes))]


def kinds_of(rows, *kinds):
    return [np.full(len(own), kind) for own, kind in zip(rows, kinds, strict=True)]


def test_the_weight_one_half_is_another_half_in_the_next_epoch_and_not_the_first_rows():
    sets, rows = plain(100, weights=[0.5])
    order = Order(strata_of(sets, rows, kinds_of(rows, 1), Mixture()), seed=3)
    first, second = (set(order.of_epoch(e).tolist()) for e in range(2))
    assert len(first) == len(second) == 50
    assert not first & second
    assert 10 < sum(row < 50 for row in first) < 40


def test_the_weight_two_is_each_row_twice():
    sets, rows = plain(5, 7, weights=[2, 1])
    order = Order(strata_of(sets, rows, kinds_of(rows, 0, 0), Mixture()), seed=0)
    assert Counter(order.of_epoch(4).tolist()) == {**dict.fromkeys(range(5), 2), **dict.fromkeys(range(5, 12), 1)}


def test_another_seed_and_another_epoch_are_another_order():
    sets, rows = plain(50)
    strata = strata_of(sets, rows, kinds_of(rows, 0), Mixture())
    orders = [Order(strata, seed).of_epoch(e).tolist() for seed, e in [(0, 0), (0, 1), (1, 0)]]
    assert len({tuple(order) for order in orders}) == 3
    assert all(sorted(order) == list(range(50)) for order in orders)


def test_the_order_is_the_same_for_ever():
    sets, rows = plain(6, 4, weights=[1, 0.5])
    order = Order(strata_of(sets, rows, kinds_of(rows, 0, 0), Mixture()), seed=7)
    assert [order[i] for i in range(12)] == GOLDEN


GOLDEN = [9, 5, 2, 3, 1, 4, 7, 0, 6, 1, 5, 2]


def test_categories_are_ratios_to_general():
    sets, rows = plain(100, 300, 10, categories=["general", "math", "other"])
    strata = strata_of(sets, rows, kinds_of(rows, 1, 1, 1), Mixture(categories={"math": 0.5}))
    manifest_ = manifest(sets, strata)
    assert {name: of["epoch"] for name, of in manifest_["categories"].items()} == {
        "general": 100,
        "math": 50,
        "other": 10,
    }
    assert manifest_["epoch"] == 160
    assert [of["rows"] for of in manifest_["data_sets"]] == [100, 300, 10]


def test_mm15s_mixture_comes_out_as_its_paper_has_it():
    names = ["general", "science", "math", "code", "several", "text"]
    sets, rows = plain(1000, 400, 900, 80, 50, 3000, categories=names)
    shares = {"single_image": 0.8, "several_images": 0.1, "text_only": 0.1}
    mixture = Mixture(categories={"science": 0.1, "math": 0.5, "code": 0.2}, groups=shares)
    strata = strata_of(sets, rows, kinds_of(rows, 1, 1, 1, 1, 2, 0), mixture)
    manifest_ = manifest(sets, strata)
    per = {name: of["epoch"] for name, of in manifest_["categories"].items()}
    assert [round(per[name] / per["general"], 2) for name in names[1:4]] == [0.1, 0.5, 0.2]
    assert {name: round(of["epoch"] / manifest_["epoch"], 3) for name, of in manifest_["groups"].items()} == shares
    order = Order(strata, 0)
    single = sum(order[i] < 2380 for i in range(640, 640 + 128)) / 128
    assert abs(single - 0.8) < 0.06


def test_strata_of_less_than_a_row_an_epoch_come_in_different_epochs_and_by_the_seed():
    sets, rows = plain(*[1] * 40, weights=[0.5] * 40, categories=["general"] * 40)
    strata = strata_of(sets, rows, kinds_of(rows, *[1] * 40), Mixture())
    first, other = (set(Order(strata, seed).of_epoch(0).tolist()) for seed in (1, 2))
    assert 10 < len(first) < 30
    assert first != other
    assert first | set(Order(strata, 1).of_epoch(1).tolist()) == set(range(40))


def test_shares_of_groups_that_sum_to_1_but_for_rounding_leave_an_epoch_as_long_as_it_was():
    sets, rows = plain(10, 10, 10)
    groups = {"text_only": 0.3333333, "single_image": 0.3333333, "several_images": 0.3333333}
    assert made((sets, rows, kinds_of(rows, 0, 1, 2), Mixture(groups=groups)))[1].epoch_rows == 30


def test_a_group_may_have_the_share_0_and_no_rows_but_no_share_of_rows_that_are_left_out():
    sets, rows = plain(4, 4, categories=["general", "math"])
    kinds = kinds_of(rows, 1, 0)
    strata, _ = made((sets, rows, kinds, Mixture(groups={"single_image": 1, "text_only": 0, "several_images": 0})))
    assert [stratum.data_set for stratum in strata] == [0]
    halves = Mixture(categories={"math": 0}, groups={"single_image": 0.5, "text_only": 0.5})
    with pytest.raises(FinetuneError, match=r"groups\.text_only: no rows are left of it"):
        strata_of(sets, rows, kinds, halves)


def test_no_more_than_two_epochs_are_kept():
    order = made((*plain(5), [np.ones(5, int)], Mixture()))[1]
    assert [order[position] for position in range(30)]
    assert [first for first, _ in order.kept] == [25, 20]


def test_groups_that_are_not_named_are_left_out():
    sets, rows = plain(10, 10)
    strata = strata_of(sets, rows, kinds_of(rows, 0, 1), Mixture(groups={"single_image": 1}))
    assert [own.data_set for own in strata] == [1]
    assert manifest(sets, strata)["epoch"] == 20


@pytest.mark.parametrize(
    ("mixture", "said"),
    [
        (
            {"categories": {"maths": 0.5}},
            "categories.maths: no data set with rows has this category. Did you mean 'math'?",
        ),
        ({"categories": {"general": 0.5}}, "its ratio to itself is 1, found 0.5"),
        ({"groups": {"several_images": 1}}, "groups.several_images: no rows"),
    ],
)
def test_weights_for_what_is_not_there_are_refused(mixture, said):
    sets, rows = plain(4, 4, categories=["general", "math"])
    with pytest.raises(FinetuneError) as error:
        strata_of(sets, rows, kinds_of(rows, 0, 1), Mixture(**mixture))
    assert said in str(error.value)


def test_a_ratio_to_a_general_that_is_not_there_and_no_rows_at_all_are_refused():
    sets, rows = plain(4, categories=["math"])
    with pytest.raises(FinetuneError, match="ratios to general"):
        strata_of(sets, rows, kinds_of(rows, 0), Mixture(categories={"math": 0.5}))
    with pytest.raises(FinetuneError, match="no rows at all"):
        strata_of(sets, [np.zeros(0, int)], [np.zeros(0, int)], Mixture())


def test_positions_before_the_first_are_refused():
    sets, rows = plain(4)
    with pytest.raises(IndexError):
        Order(strata_of(sets, rows, kinds_of(rows, 0), Mixture()), 0)[-1]
