"""A real run's points play strategies without a model, and a journal is a table of pandas."""

from __future__ import annotations

import pytest

import soup
from soup.errors import EvaluatorError
from soup.evaluation.journal import Journal
from soup.search.strategies.greedy import greedy
from soup.testing import ScoreTable
from tests.helpers.simulated_runs import SimulatedRun


@pytest.fixture
def simulated(tmp_path):
    return SimulatedRun(tmp_path / "ckpts.soup", questions=60)


def test_a_strategy_played_on_a_run_chooses_what_the_run_chose(simulated):
    made = simulated.search(base=False)
    table = ScoreTable.from_run(simulated.folder)
    assert table.pool == simulated.names
    assert [*greedy(table.pool, table)] == [*made.chosen]
    assert len(table.trials) == len(made.trials)


def test_points_of_questions_and_the_other_half_can_be_asked_for(simulated):
    simulated.search(base=False)
    table = ScoreTable.from_run(simulated.folder, part="report")
    trial = table(["tuned-1"])
    assert trial.scores == simulated.scores(["tuned-1"], simulated.parts[1])
    assert table(["tuned-0"]).difference(trial) is not None


def test_a_soup_that_the_run_did_not_score_is_an_error(simulated):
    first, second = simulated.search(base=False).chosen[:2]
    table = ScoreTable.from_run(simulated.folder)
    with pytest.raises(EvaluatorError, match="did not score it"):
        table({first: 0.9, second: 0.1})
    with pytest.raises(EvaluatorError, match="did not score it"):
        table(["tuned-0"], method="ties")


def test_a_journal_is_a_table_and_a_run_s_directory_is_only_read(simulated):
    simulated.search(base=False)
    with Journal(simulated.run.journal):  # a run that is under way
        table = soup.Journal(str(simulated.folder)).to_pandas()
    first = table.iloc[0]
    assert (first["ingredients"], first["benchmark"], first["part"]) == ("tuned-0", "pictures:b0", "selection")
    assert first["score"] == simulated.scores(["tuned-0"], simulated.parts[0])["pictures:b0"].value
    assert table["low"].isna().all()
    assert len(table) == len(Journal(simulated.folder).entries)
    assert "pictures:b1" in Journal(simulated.folder)._repr_html_()
    assert repr(Journal(simulated.folder)).endswith(f"journal.jsonl: {len(table)} scores>")


def test_an_empty_journal_is_an_empty_table(tmp_path):
    assert list(Journal(tmp_path / "none.jsonl", write=False).to_pandas().columns)[:2] == ["ingredients", "weights"]
