"""Results as a notebook shows them: short reprs, tables of pandas, HTML that escapes names, pictures in memory."""

from __future__ import annotations

from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

import soup
from soup.demo.family import write_family
from soup.errors import OutputError
from soup.search.strategies.greedy import greedy
from soup.support.pictures import Picture
from soup.testing import ScoreTable

EVAL = "demo:colour,shape"
BENCHMARKS = ["demo:colour", "demo:shape"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Every kind of result, of one pool whose ingredient has a name that HTML would act on."""
    folder = tmp_path_factory.mktemp("results")
    pool, base, run = folder / "ckpts", folder / "base", folder / "ckpts.soup"
    write_family(base, pool)
    (pool / "places").rename(pool / "<b>&places")
    made = soup.cook("greedy", pool, base=base, eval=soup.EvalConfig(EVAL, split=0.5), out=folder / "out", run_dir=run)
    trials = soup.evaluate([base, pool / "<b>&places"], eval=soup.EvalConfig(EVAL, split=0.5), run_dir=run)
    line = soup.sweep(pool / "colours", pool / "<b>&places", eval=EVAL, steps=3, run_dir=run)
    report = soup.check(pool, base)
    return SimpleNamespace(soup=made, trials=trials, sweep=line, check=report, journal=soup.Journal(run), run=run)


def words(picture):
    """All texts of a picture, which has to be whole XML."""
    assert isinstance(picture, Picture)
    return {element.text for element in ElementTree.fromstring(picture._repr_svg_()).iter() if element.text}


def test_reprs_are_short(results):
    assert repr(results.check) == "<PoolReport of 5 ingredients: 0 problems, 0 warnings>"
    assert repr(results.sweep).startswith("<Sweep from colours to <b>&places: 3 points, barrier ")
    assert all(len(repr(result)) < 200 for result in (results.soup, results.sweep, results.check, results.trials))


@pytest.mark.parametrize("name", ["soup", "trials", "sweep", "check", "journal"])
def test_html_escapes_names_and_holds_the_table(results, name):
    page = getattr(results, name)._repr_html_()
    assert "&lt;b&gt;&amp;places" in page
    assert "<b>" not in page
    assert "<table" in page


def test_a_search_is_a_table_and_a_picture_of_its_steps(results):
    table = results.soup.to_pandas()
    assert list(table.columns) == ["ingredients", *BENCHMARKS, "overall", "report overall", "accepted"]
    assert list(table["accepted"]) == [results.soup.accepted(trial) for trial in results.soup.trials]
    shown = words(results.soup.plot())
    assert {*table["ingredients"]} <= shown
    assert {"overall, accepted", "overall, refused", "overall, report", *BENCHMARKS} <= shown


def test_scores_of_checkpoints_are_a_table_and_a_picture(results):
    table = results.trials.to_pandas()
    assert list(table["ingredients"]) == ["base", "<b>&places"]
    assert list(table["overall"]) == [trial.overall for trial in results.trials]
    assert "overall, accepted" not in words(results.trials.plot())


def test_a_line_is_a_table_with_a_row_for_each_point(results):
    table = results.sweep.to_pandas()
    assert list(table["t"]) == [0.0, 0.5, 1.0]
    assert list(table["demo:shape"]) == results.sweep.curves["demo:shape"]
    assert "t: from colours (0) to <b>&places (1)" in words(results.sweep.plot())


def test_a_pool_is_a_table_with_a_row_for_each_ingredient(results):
    table = results.check.to_pandas()
    assert list(table["ingredient"]) == list(results.check.ingredients)
    assert list(table["distance"]) == [row.norm for row in results.check.distances.ingredients]
    assert "cosine of deltas" in words(results.check.plot())


def test_a_journal_is_a_picture_of_all_that_was_scored(results):
    labels = set(results.journal.to_pandas()["ingredients"])
    assert len(labels) > 6
    assert labels <= words(results.journal.plot())


def test_a_picture_goes_into_a_file_where_one_is_named(results, tmp_path):
    assert results.soup.plot(tmp_path / "soup.png") is None
    assert (tmp_path / "soup.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(OutputError, match="expected a file that ends in"):
        results.soup.plot(tmp_path / "soup.txt")


def test_what_has_no_scores_says_so(results, tmp_path):
    made = soup.cook("average", results.run.with_name("ckpts"), out=tmp_path / "out")
    with pytest.raises(OutputError, match="average asked for no score"):
        made.plot()
    with soup.Journal(tmp_path / "empty.jsonl") as journal, pytest.raises(OutputError, match="holds no score"):
        journal.plot()


def test_strategies_are_played_on_the_run_without_the_base_that_was_scored_beside_it(results):
    assert ScoreTable.from_run(results.run).pool[-1] == "base"
    table = ScoreTable.from_run(results.run, exclude=["base"])
    assert tuple(greedy(table.pool, table)) == results.soup.chosen
