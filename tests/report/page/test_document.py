"""The numbers of a report: those of the journal and the results, and nothing private."""

from __future__ import annotations

import json
import math

import pytest

from soup.errors import JournalError
from soup.evaluation.bootstrap import paired_difference
from soup.evaluation.journal import Journal
from soup.evaluation.objective import PLAIN
from soup.report.page.chance import chance_gain, difference_error
from soup.report.page.document import directory_document, run_document, without_private_text
from tests.helpers.simulated_runs import SimulatedRun


@pytest.fixture
def simulated(tmp_path):
    return SimulatedRun(tmp_path / "ckpts.soup")


def test_the_headline_has_both_halves_of_base_best_single_average_and_chosen_soup(simulated):
    soup = simulated.search()
    document = run_document(simulated.folder)
    rows = {row["title"]: row for row in document["headline"]["rows"]}
    assert [*rows][:2] == ["base", "best single model"]
    assert "greedy" in rows
    for part, split in zip(("selection", "report"), simulated.parts, strict=True):
        scores = simulated.scores(soup.recipe.names, split)
        best = simulated.scores([rows["best single model"]["label"]], split)
        shown = rows["greedy"]["parts"][part]
        assert shown["overall"] == pytest.approx(PLAIN.overall(scores))
        assert shown["gain"] == paired_difference(scores, best, PLAIN).as_json()
        assert shown["interval"][0] < shown["overall"] < shown["interval"][1]
    gap = rows["greedy"]["parts"]["selection"]["overall"] - rows["greedy"]["parts"]["report"]["overall"]
    assert rows["greedy"]["gap"] == pytest.approx(gap)


def test_a_report_reads_the_journal_once(simulated, monkeypatch):
    simulated.search()
    opened, read = [], Journal.__init__
    monkeypatch.setattr(
        Journal, "__init__", lambda self, path, **kinds: opened.append(path) or read(self, path, **kinds)
    )
    run_document(simulated.folder)
    assert opened == [simulated.run.journal]


def test_the_best_single_model_is_the_one_of_the_half_that_chose(simulated):
    simulated.search()
    head = run_document(simulated.folder)["headline"]
    best = max(simulated.names, key=lambda name: PLAIN.overall(simulated.scores([name], simulated.parts[0])))
    assert next(row["label"] for row in head["rows"] if row["title"] == "best single model") == best


def test_chance_among_m_equal_soups_is_s_times_the_root_of_two_ln_m(simulated):
    soup = simulated.search()
    head = run_document(simulated.folder)["headline"]
    soups = [trial for trial in soup.trials if len(trial.names) > 1]
    [best] = [row["label"] for row in head["rows"] if row["title"] == "best single model"]
    single = simulated.scores([best], simulated.parts[0])
    errors = [difference_error(trial.scores, single, PLAIN) for trial in soups]
    assert (head["singles"], head["soups"]) == (4, len(soups)) == (4, 3)
    assert head["chance"] == pytest.approx(max(errors) * math.sqrt(2 * math.log(3)))
    assert chance_gain([0.5]) == 0  # one candidate was not chosen among others


def test_the_bound_on_chance_holds_for_candidates_that_are_no_better():
    import numpy as np

    random, m, n = np.random.default_rng(0), 20, 400
    wins = []
    for _ in range(200):
        changes = random.normal(0, 1, (m, n))
        errors = changes.std(axis=1) / math.sqrt(n)
        wins.append(changes.mean(axis=1).max() / chance_gain([*errors]))
    assert 0.5 < np.mean(wins) <= 1


def test_each_step_has_its_reason_and_its_changes_by_benchmark(simulated):
    soup = simulated.search()
    [search] = run_document(simulated.folder)["searches"]
    assert [trial["why"] for trial in search["trials"]] == [soup.why(trial) for trial in soup.trials]
    assert [*search["trials"][-1]["versus"]["benchmarks"]] == ["pictures:b0", "pictures:b1"]


def test_an_ingredient_s_contribution_is_the_soup_s_difference_from_the_mean_without_it(simulated):
    soup = simulated.search()
    *rest, last = soup.chosen
    with Journal(simulated.run.journal) as journal:
        simulated.remember(journal, rest, simulated.parts[0])
    rows = {row["ingredient"]: row["parts"] for row in run_document(simulated.folder)["contributions"]}
    whole = PLAIN.overall(simulated.scores(soup.chosen, simulated.parts[0]))
    without = PLAIN.overall(simulated.scores(rest, simulated.parts[0]))
    assert rows[last]["selection"]["difference"] == pytest.approx(whole - without)


def test_gained_and_lost_questions_are_those_whose_points_differ_with_both_answers(simulated):
    soup = simulated.search()
    document = run_document(simulated.folder)
    shown = [q for q in document["questions"] if q["benchmark"] == "pictures:b1" and q["part"] == "report"]
    [best] = [row["label"] for row in document["headline"]["rows"] if row["title"] == "best single model"]
    ours, theirs = (
        simulated.scores(names, simulated.parts[1])["pictures:b1"].questions for names in (soup.recipe.names, [best])
    )
    expected = {i: "gained" if ours[i] > theirs[i] else "lost" for i in ours if ours[i] != theirs[i]}
    assert {q["index"]: q["kind"] for q in shown} == expected
    assert shown[0]["answers"][0].startswith(soup.recipe.digest[7:19])
    assert shown[0]["images"][0].startswith("data:image/png;base64,")
    assert not any(q["images"] for q in run_document(simulated.folder, with_images=False)["questions"])


def test_points_by_category_are_the_means_over_its_questions(simulated):
    soup = simulated.search()
    rows = run_document(simulated.folder)["categories"]
    row = next(r for r in rows if (r["benchmark"], r["part"], r["category"]) == ("pictures:b0", "report", "reading"))
    points = simulated.scores(soup.recipe.names, simulated.parts[1])["pictures:b0"].questions
    in_category = [value for index, value in points.items() if int(index) % 3 == 0]
    assert (row["n"], row["scores"]["chosen"]) == (
        len(in_category),
        pytest.approx(100 * sum(in_category) / len(in_category)),
    )


def test_a_run_under_way_shows_what_there_is(simulated):
    simulated.search(ends=False, base=False)
    document = run_document(simulated.folder)
    assert document["under_way"]
    assert len(document["searches"][0]["trials"]) == 7
    assert document["questions"] == []


def test_no_folder_of_this_machine_and_no_key_gets_into_a_report(simulated):
    simulated.search()
    text = json.dumps(run_document(simulated.folder))
    assert "Jane Doe" not in text  # a space ends no path
    assert str(simulated.folder.parent) not in text
    private = "python:/home/me/judge.py:score --key sk-abcdefghijklmnopqrstuv, see https://a.org/b/c and ~/d/e.log"
    assert without_private_text({private: [private]}) == {
        (public := "python:judge.py:score --key ***, see https://a.org/b/c and e.log"): [public]
    }


def test_the_run_s_cost_is_the_journal_s(simulated):
    simulated.search()
    cost = run_document(simulated.folder)["cost"]
    with Journal(simulated.run.journal, write=False) as journal:
        entries = list(journal)
    assert cost["questions_asked"] == cost["questions_of_all"] == sum(entry.score.n for entry in entries)
    assert cost["evaluation_seconds"] == 2.5 * len(entries)


def test_a_study_s_report_has_means_over_seeds_and_differences_from_the_best_single(tmp_path):
    result = {"selection": None, "benchmarks": {"b": 50.0}, "ingredients": "a + b"}
    seeds = {
        str(seed): {"best single": {**result, "overall": 60.0 + seed}, "greedy": {**result, "overall": 61.0 + 2 * seed}}
        for seed in range(2)
    }
    (tmp_path / "study.json").write_text(json.dumps({"schema": 1, "questions": "report", "seeds": seeds}))
    rows = {row["way"]: row for row in directory_document(tmp_path)["ways"]}
    assert rows["greedy"]["mean"] == 62.0
    assert rows["greedy"]["sd"] == pytest.approx(math.sqrt(2))
    assert (rows["greedy"]["gain"], rows["greedy"]["better_seeds"]) == (1.5, 2)


def test_a_directory_without_a_journal_is_refused(tmp_path):
    with pytest.raises(JournalError, match="no journal"):
        directory_document(tmp_path)
