"""What soups are asked where single models agree, by VLMEvalKit's own sums: the metric, rotations, groups, splits."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from evaluators.vlmeval.benchmarks import BENCHMARKS
from evaluators.vlmeval.data_sets import question_ids
from evaluators.vlmeval.harness import VLMEval
from soup.evaluation.api import Benchmark, Split
from soup.evaluation.question_rule import AuditSize
from soup.evaluation.questions import Dispute
from soup.evaluation.settings import EvalSettings
from tests.helpers.scripted_models import SCRIPTED, plain_vlmeval, scripted
from tests.helpers.toy_test_sets import (
    ai2d_rows,
    hallusionbench_rows,
    mmbench_rows,
    mmmu_rows,
    mmstar_rows,
    ocrbench_rows,
    random_predictions,
    right,
    write_tsv,
)

ROWS = {
    "mmbench": mmbench_rows(120),
    "mmstar": mmstar_rows(150),
    "mmmu": mmmu_rows(150),
    "hallusionbench": hallusionbench_rows(60),
    "ai2d": ai2d_rows(150),
    "ocrbench": ocrbench_rows(150),
}
HALVES = [Split(), Split("selection", 0.5), Split("report", 0.5)]


@pytest.fixture
def harness(tmp_path, monkeypatch):
    monkeypatch.setenv("LMUData", str(tmp_path / "LMUData"))
    for name, rows in ROWS.items():
        write_tsv(tmp_path / "LMUData" / f"{BENCHMARKS[name].data_set}.tsv", rows)
    (tmp_path / "model.py").write_text(SCRIPTED)
    return VLMEval(EvalSettings(model=f"{tmp_path / 'model.py'}:Scripted"))


def mixed(seed, name, share):
    """Right answers to all rows but for a share of them, whose answers are drawn from odd ones."""
    rows, dice = ROWS[name], random.Random(f"{seed}/{name}")
    odd = random_predictions(seed, rows)
    return {index: odd[index] if dice.random() < share else answer for index, answer in right(rows).items()}


def questions_by_row(harness, benchmark):
    """The question of each row that counts, by the row's index."""
    entry = BENCHMARKS[benchmark.target]
    frame = harness._data_set(entry, benchmark).data
    return dict(zip(map(str, frame["index"]), question_ids(entry, frame), strict=True))


@pytest.mark.parametrize("name", ROWS)
def test_points_come_to_the_score_that_vlmevalkit_gives(name, harness, tmp_path):
    for seed, split in enumerate(HALVES):
        benchmark = Benchmark(name, "vlmeval", name, split)
        score = harness.evaluate(scripted(tmp_path, mixed(seed, name, 0.4), name=f"m{seed}"), benchmark)
        assert harness.total(benchmark, score.questions) == pytest.approx(score.value, abs=1e-9)


@pytest.mark.parametrize("name", ROWS)
def test_an_estimate_is_vlmevalkit_s_score_of_the_soup_s_answers_and_a_single_model_s_where_all_agree(
    name, harness, tmp_path, monkeypatch
):
    benchmark = Benchmark(name, "vlmeval", name)
    single_answers = {f"s{seed}": mixed(seed, name, 0.15) for seed in range(3)}
    singles = {
        digest: harness.evaluate(scripted(tmp_path, answers, name=digest), benchmark)
        for digest, answers in single_answers.items()
    }
    dispute = Dispute.among(singles, lambda points: harness.total(benchmark, points))
    questions = dispute.questions_of("sha256:0", AuditSize(0.05))
    answers, narrowed = mixed(9, name, 0.15), replace(benchmark, only=questions.asked)
    asked = harness.evaluate(scripted(tmp_path, answers, name="soup"), narrowed)
    assert asked.questions.keys() == questions.asked
    estimate = questions.estimate(asked, lambda points: harness.total(benchmark, points))
    question_of = questions_by_row(harness, benchmark)
    table = {
        index: answer if question_of.get(str(index)) in questions.asked else single_answers["s0"][index]
        for index, answer in answers.items()
    }
    true = plain_vlmeval(BENCHMARKS[name], table, tmp_path / "plain", monkeypatch)
    assert estimate.value == pytest.approx(true, abs=1e-9)
    assert 50 <= len(questions.asked) < len(singles["s0"].questions)


def test_all_rotations_of_an_asked_question_are_asked_and_none_of_another(harness, tmp_path):
    benchmark = Benchmark("mmbench", "vlmeval", "mmbench", only=frozenset({"1", "2", "3", "4"}))
    score = harness.evaluate(scripted(tmp_path, right(ROWS["mmbench"])), benchmark)
    assert score.questions == {"1": 1, "2": 1, "3": 1, "4": 1}
    notes = Path(harness.settings.model.rpartition(":")[0]).with_suffix(".notes").read_text().split("\n")
    asked = sum(int(note.removeprefix("asked ")) for note in notes if note.startswith("asked"))
    assert asked == sum(row["index"] % 1_000_000 in (1, 2, 3, 4) for row in ROWS["mmbench"])


def test_what_was_answered_for_an_estimate_is_not_asked_again_for_the_score(harness, tmp_path):
    benchmark, soup = Benchmark("ocrbench", "vlmeval", "ocrbench"), scripted(tmp_path, right(ROWS["ocrbench"]))
    harness.evaluate(soup, replace(benchmark, only=frozenset(str(index) for index in range(40))))
    assert harness.evaluate(soup, benchmark).value == 100
    notes = Path(harness.settings.model.rpartition(":")[0]).with_suffix(".notes").read_text().split("\n")
    assert sum(int(note.removeprefix("asked ")) for note in notes if note.startswith("asked")) == 150
