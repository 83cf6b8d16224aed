"""An evaluator that tells several scores at once: each counts as a benchmark, in the search and in the report alike."""

from __future__ import annotations

import numpy as np
import pytest

from soup.errors import EvaluatorError
from soup.report.tables import run_table
from tests.helpers import flat_arguments as flat
from tests.helpers.toy_pools import make_pool

JUDGE = """
from pathlib import Path

CALLS = Path(__file__).with_name("calls")


def two(checkpoint):
    return {"reading": 40, "counting": 60}


def one(checkpoint):
    return 80


def fickle(checkpoint):
    calls = CALLS.read_text() if CALLS.exists() else ""
    CALLS.write_text(calls + "x")
    return {"reading": 40, "drawing" if calls else "counting": 60}
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_pool(tmp_path / "ckpts", {"a": [1, 2, 3, 4], "b": [2, 3, 4, 5]})
    (tmp_path / "judge.py").write_text(JUDGE)
    return tmp_path


def cook(strategy="average", *functions, **options):
    return flat.cook(strategy, pool="ckpts", eval=[f"python:judge.py:{name}" for name in functions], **options)


def test_a_report_shows_each_part_and_the_overall_that_chose(here):
    (trial,) = cook("average", "two", "one", out="out").trials
    table = run_table(here / "ckpts.soup")
    assert table.columns == ("reading", "counting", "python:judge.py:one", "overall")
    (row,) = table.rows
    assert row.values == (40, 60, 80, trial.overall)
    assert trial.overall == pytest.approx(60)


def test_soups_judged_on_other_names_are_never_held_against_each_other(here):
    for _ in range(2):  # the second time they are remembered
        with pytest.raises(EvaluatorError, match="b: its scores can't be held against the others'") as caught:
            cook("greedy", "fickle", out="out")
        assert "expected reading, counting, found reading, drawing" in str(caught.value)
    assert not (here / "out").exists()


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64, float])
def test_weights_may_be_numpys(here, kind):
    made = flat.cook(lambda pool, score: {"a": kind(1), "b": kind(3)}, pool="ckpts", out="out")
    assert [share.weight for share in made.recipe.ingredients] == [1.0, 3.0]
    assert all(type(share.weight) is float for share in made.recipe.ingredients)
