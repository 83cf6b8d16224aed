"""A search that asks soups what the single models dispute: what is asked, remembered, told, and what it comes to."""

from __future__ import annotations

import json
from collections import Counter
from itertools import combinations
from pathlib import Path
from statistics import fmean

import pytest

from soup.errors import EvaluatorError
from soup.evaluation import question_rule
from soup.evaluation.api import Split
from soup.evaluation.config import EvalConfig
from soup.evaluation.objective import Objective
from soup.evaluation.progress import Progress
from soup.report.page.document import run_document
from soup.report.page.render import render_page
from soup.report.tables import run_table, trials_table
from soup.search.evaluate import evaluate, plan_evaluate
from soup.testing import ScoreTable
from tests.helpers import flat_arguments as flat
from tests.helpers.case_parts import some_of
from tests.helpers.quiz import COUNT, asked, make_quiz_pool, questions
from tests.helpers.toy_pools import tree

HEADS = {"a": [3, 0, 1, 1], "b": [5, 2, 1, 1], "c": [8, 0, 1, 1], "d": [10, 2, 1, 1], "e": [4, 0, 1, 1]}
PLAIN = ["quiz:plain", "quiz:groups"]


@pytest.fixture(autouse=True)
def pool(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return make_quiz_pool("ckpts", HEADS)


def cook(
    strategy="greedy", eval=PLAIN, run="run", questions="disputed", out="out", pool="ckpts", hints=None, **options
):
    """The soup, and what was warned of."""
    texts = []
    progress = Progress(on_warning=texts.append, on_hint=[].append if hints is None else hints.append)
    made = flat.cook(
        strategy, pool=pool, eval=eval, run_dir=run, questions=questions, out=out, progress=progress, **options
    )
    return made, texts


def journal(run="run"):
    return [json.loads(line) for line in Path(run, "journal.jsonl").read_text().splitlines()]


def estimated(lines):
    return [line for line in lines if "estimate" in line]


SEARCHES = {
    "greedy": {},
    "greedy p": {"strategy_args": {"accept": "p>0.8"}},
    "prune": {},
    "maximum": {},
    "exhaustive": {},
    "forward-backward": {"strategy_args": {"steps": 3}},
    "cma": {"strategy_args": {"evaluations": 20}},
    "guarded prune": {"objective": Objective.parse([], ["quiz:plain>=-0.5"])},
    "weighted greedy": {"objective": Objective.parse(["quiz:plain=3"], [])},
    "split prune": {"split": 0.5},
}


@pytest.mark.parametrize("name", some_of(SEARCHES))
def test_it_chooses_what_a_search_that_asks_everything_chooses(name):
    strategy, options = name.split(" ")[-1] if name != "greedy p" else "greedy", SEARCHES[name]
    heads = {name: [head[0], head[1] / 100, *head[2:]] for name, head in HEADS.items()}
    heads |= {} if strategy == "exhaustive" else {"f": [17, 0, 1, 1]}
    pool = make_quiz_pool("own", heads)
    everything, _ = cook(strategy, run="run-all", questions="all", out="all", pool=pool, **options)
    asked_everything = sum(count for *_, count in asked())
    made, _ = cook(strategy, pool=pool, **options)
    assert made.recipe.digest == everything.recipe.digest
    assert tree("out")["model.safetensors"] == tree("all")["model.safetensors"]
    assert sum(count for *_, count in asked()) < 2 * asked_everything


def test_single_models_and_finalists_are_asked_everything_and_other_soups_the_disputed_questions_and_an_audit():
    made, texts = cook("exhaustive", split=0.5)
    counts = {}
    for target, part, head, count in asked():
        counts.setdefault((head, target, part), []).append(count)
    whole = {part: counts[3.0, "plain", part] for part in ("selection", "report")}
    assert sum(map(sum, whole.values())) == COUNT
    trials = {trial.names: trial for trial in made.trials}
    soups = sorted((t for t in trials.values() if not t.is_single), key=lambda trial: -trial.overall)
    assert [trial.is_estimated for trial in soups] == [False] + [True] * (len(soups) - 1), (
        "the runner-up is no estimate"
    )
    assert trials["d",].report, "the best single model stands on both halves"
    assert soups[0].report, "and so does the runner-up"
    head = sum(HEADS[name][0] for name in soups[1].names) / len(soups[1].names)
    for target in ("plain", "groups"):
        [count] = counts[round(head, 3), target, "selection"]
        assert 50 < count < whole["selection"][0] * 0.7
    assert texts == []


def test_an_estimate_is_marked_with_its_interval_and_a_score_is_not():
    made, _ = cook("exhaustive")
    rows = made.as_json()["trials"]
    for trial, row in zip(made.trials, rows, strict=True):
        assert row.get("estimated", False) == trial.is_estimated
        assert all(score.get("estimated", False) == trial.is_estimated for score in row["scores"].values())
        assert trial.is_estimated == ("~" in row["why"].partition(": ")[2].partition(" ")[0])
        if trial.is_estimated:
            assert row["versus_best"]["benchmarks"].keys() == {*PLAIN}
            low, high = row["interval"]
            assert low < trial.overall < high
    assert Counter(trial.is_estimated for trial in made.trials)[True] > 20
    trial = next(trial for trial in made.trials if trial.is_estimated)
    assert "~" in repr(trial)
    shown = trials_table(made.trials, made).rows[made.trials.index(trial)]
    assert [text[0] for text in shown.texts] == ["~"] * 3
    assert "estimated: " in shown.remark
    assert run_table(Path("run")).rows[-1].values[-1] == made.trials[0].objective.overall(chosen_scores(made))
    card = Path("out/README.md").read_text()
    assert f"estimated {Counter(t.is_estimated for t in made.trials)[True]} other soups" in card


def chosen_scores(made):
    return next(trial.scores for trial in made.trials if trial.recipe.digest == made.recipe.digest)


def test_an_estimate_has_its_mark_in_notes_verdicts_guards_and_pictures():
    made, _ = cook("prune", objective=Objective.parse([], ["quiz:plain>=-0.5"]))
    first = made.trials[0]
    assert first.is_estimated
    assert made.why(first) == f"accepted: the first, ~{first.overall:.2f}"
    assert first.as_scored_model().label == f"~ {first.label}"
    broken = [text for trial in made.trials if trial.is_estimated for text in trial.broken]
    assert broken
    assert all(text.startswith("quiz:plain>=-0.5: ~") for text in broken)
    [note] = made.notes
    assert all(line.partition(": ")[2].startswith("~") for line in note.splitlines()[1:])
    assert f'<p class="note">{note.splitlines()[0]}' in render_page(run_document(Path("run")))


def test_a_card_tells_of_no_estimates_where_there_were_none():
    cook("exhaustive", questions="all")
    assert "estimated" not in Path("out/README.md").read_text()


def test_estimates_never_answer_for_scores():
    cook("exhaustive")
    before = len(asked())
    made, _ = cook("exhaustive", questions="all", out="again")
    assert not any(trial.is_estimated for trial in made.trials)
    counts = [count for *_, count in asked()[before:]]
    assert set(counts) == {COUNT}
    assert len(counts) == 2 * (31 - 5 - 1), "all soups but the runner-up, on two benchmarks"


def test_scores_answer_for_estimates():
    cook("exhaustive", questions="all")
    before = len(asked())
    made, _ = cook("exhaustive", out="again")
    assert len(asked()) == before
    assert not any(trial.is_estimated for trial in made.trials)


def test_another_audit_and_another_pool_are_other_estimates():
    cook("exhaustive")
    first = len(estimated(journal()))
    cook("exhaustive", questions="disputed:audit=0.2", out="again")
    assert len(estimated(journal())) == 2 * first - 2, "the runner-up is a score by now"
    keys = [line["key"] for line in journal()]
    assert len(keys) == len({*keys})


def test_the_audit_stops_a_search_by_estimates_where_soups_fail_what_all_single_models_know():
    everything, _ = cook("exhaustive", eval=["quiz:rough"], questions="all", run="run-all", out="all")
    made, texts = cook("exhaustive", eval=["quiz:rough"])
    assert [text for text in texts if "audit of the estimates fails" in text]
    assert not any(trial.is_estimated for trial in made.trials)
    assert [trial.overall for trial in made.trials][:31] == [trial.overall for trial in everything.trials]
    assert len(estimated(journal())) < 26, "it did not go on to the end"


def test_a_benchmark_without_points_is_asked_everything_and_said_so():
    made, texts = cook("prune", eval=["quiz:plain", "quiz:mute"])
    assert [text.partition(":")[0] for text in texts if "every soup is asked all" in text] == ["quiz"]
    assert all(trial.scores["quiz:mute"].estimate is None for trial in made.trials)
    assert any(trial.scores["quiz:plain"].estimate for trial in made.trials)


def contradiction():
    """A soup of c and d that seems as good as d, and fails one question that both know."""
    return make_quiz_pool("close", {"a": [3, 0, 1, 1], "b": [2, 0, 1, 1], "c": [10.01, 0, 1, 2], "d": [10, 2, 1, 1]})


def test_a_choice_that_does_not_hold_is_told_and_the_search_goes_on_from_the_true_numbers():
    pool = contradiction()
    everything, _ = cook(eval=["quiz:slight"], pool=pool, questions="all", run="run-all", out="all")
    made, texts = cook(eval=["quiz:slight"], pool=pool)
    assert everything.chosen == made.chosen
    assert len(made.chosen) == 1
    assert len([text for text in texts if "was not chosen again" in text]) == 1
    estimate = max((line for line in estimated(journal())), key=lambda line: line["value"])
    true = [line for line in journal() if line["recipe"] == estimate["recipe"] and "estimate" not in line]
    assert true[0]["value"] == pytest.approx(estimate["value"] - 100 / COUNT)


def test_estimates_are_right_on_average_after_a_search_that_saw_what_soups_fail():
    options = {"eval": ["quiz:slight"], "questions": "disputed:audit=0.3"}
    everything, _ = cook("exhaustive", **options | {"questions": "all", "run": "run-all", "out": "all"})
    true = {trial.recipe.digest: trial.overall for trial in everything.trials}
    made, _ = cook("exhaustive", **options)
    trials = [trial for trial in made.trials if trial.is_estimated]
    values = {line["recipe"]: line["value"] for line in estimated(journal())}
    errors = [fmean(row[t.recipe.digest] - true[t.recipe.digest] for t in trials) for row in (overalls(made), values)]
    assert errors[1] > 0.04, "of 800 questions soups of most pairs fail one"
    assert abs(errors[0]) < errors[1] / 2
    assert made.recipe.digest == everything.recipe.digest


CORRECTED = {"eval": ["quiz:slight"], "questions": "disputed:audit=0.3"}


def three_after_all(pool, score):
    """Score every soup, and choose three whatever came out."""
    for count in range(1, len(pool) + 1):
        for soup in combinations(pool, count):
            score(soup)
    return pool[:3]


def test_the_page_its_document_and_a_run_s_table_have_the_corrected_estimates_of_the_search():
    made, _ = cook(three_after_all, **CORRECTED)
    uncorrected = {line["recipe"]: line["value"] for line in estimated(journal())}
    assert sum(trial.overall != uncorrected.get(trial.recipe.digest, trial.overall) for trial in made.trials) > 20
    [chosen] = [trial for trial in made.trials if trial.recipe.digest == made.recipe.digest]
    trials = {trial.names: trial for trial in made.trials}
    document = run_document(Path("run"))
    for row in document["contributions"]:
        without = trials[tuple(name for name in chosen.names if name != row["ingredient"])]
        change = row["parts"]["all"]
        assert change["difference"] == pytest.approx(chosen.overall - without.overall)
        assert change.get("estimated", False) == without.is_estimated
    assert any(row["parts"]["all"].get("estimated") for row in document["contributions"])
    [average] = [row for row in document["headline"]["rows"] if row["title"] == "average"]
    assert average["parts"]["all"]["overall"] == trials[tuple("abcde")].overall
    best = trials[max(((name,) for name in "abcde"), key=lambda names: trials[names].overall)]
    assert average["parts"]["all"]["gain"] == trials[tuple("abcde")].difference(best).as_json() | {"estimated": True}
    table = ScoreTable.from_run("run")
    assert [table(trial.names).overall for trial in made.trials] == [trial.overall for trial in made.trials]
    page = render_page(document).partition("What each ingredient of the soup contributes")[2].partition("</table>")[0]
    assert page.count(">~") == 3


def test_differences_between_an_estimate_and_a_score_are_those_of_corrected_estimates():
    made, _ = cook("exhaustive", **CORRECTED)
    scored = next(trial for trial in made.trials if not trial.is_estimated)
    for trial in (trial for trial in made.trials if trial.is_estimated):
        difference = trial.difference(scored)
        assert difference.mean == pytest.approx(trial.overall - scored.overall)
        assert difference.low < difference.mean < difference.high


def test_what_was_corrected_is_told_and_every_soup_is_told_again_with_its_corrected_estimate():
    hints, trials = [], []
    progress = Progress(on_hint=hints.append, on_trial=trials.append)
    made = flat.cook("exhaustive", pool="ckpts", run_dir="run", out="out", progress=progress, **CORRECTED)
    [hint] = [hint for hint in hints if "corrected" in hint]
    assert hint.startswith("All estimates are corrected by what their audits say together: quiz:slight -0.")
    last = {trial.recipe.digest: trial.overall for trial in trials}
    assert last == overalls(made)
    assert len(trials) < 31 + 26 + 3, "nothing is told again that is what it was"


def test_a_part_of_the_audits_that_does_not_suffice_is_doubled_up_to_whole_audits(monkeypatch):
    whole, _ = cook("exhaustive", questions="disputed:audit=0.05", run="run-1", out="whole")
    monkeypatch.setattr(question_rule, "ENOUGH", 1)
    made, texts = cook("exhaustive")
    assert overalls(made) == overalls(whole)
    sizes = Counter(line["estimate"]["asked"] for line in estimated(journal()) if line["benchmark"] == "quiz:plain")
    small, half, large = sorted(sizes)
    assert (half - small, large - half) == (25 - 13, 50 - 25)
    assert set(sizes.values()) == {26}
    assert texts == []


def overalls(made):
    return {trial.recipe.digest: trial.overall for trial in made.trials}


@pytest.mark.parametrize(("strategy", "questions"), [("greedy", "disputed"), ("prune", "disputed:audit=0.5")])
def test_a_search_that_stopped_anywhere_goes_the_same_way_when_it_is_typed_again(strategy, questions):
    options = {"eval": ["quiz:slight"], "pool": contradiction(), "split": 0.5, "questions": questions}
    made, texts = cook(strategy, **options)
    expected, calls = {line["key"]: line["value"] for line in journal()}, len(asked())
    for last in range(1, calls + 1):
        Path("asked.txt").unlink()
        Path("last").write_text(str(last))
        with pytest.raises(KeyboardInterrupt):
            cook(strategy, run=f"run-{last}", out="never", **options)
        Path("last").unlink()
        again, said = cook(strategy, run=f"run-{last}", out=f"out-{last}", **options)
        assert {line["key"]: line["value"] for line in journal(f"run-{last}")} == expected
        assert [trial.overall for trial in again.trials] == [trial.overall for trial in made.trials]
        assert (again.recipe.digest, said) == (made.recipe.digest, texts)


@pytest.mark.parametrize(("eval", "questions"), [(PLAIN, "disputed"), (["quiz:slight"], "disputed:audit=0.5")])
def test_two_workers_come_to_the_same_estimates_and_the_same_soup(eval, questions):
    options = {"eval": eval, "questions": questions, "split": 0.5}
    alone, _ = cook("prune", run="run-1", out="alone/soup", **options)
    both, _ = cook("prune", run="run-2", out="both/soup", workers=2, **options)
    assert tree("alone/soup") == tree("both/soup")
    assert [(t.names, t.overall, t.is_estimated) for t in alone.trials] == [
        (t.names, t.overall, t.is_estimated) for t in both.trials
    ]
    keys = {line["key"] for line in journal("run-1")}
    assert keys <= {line["key"] for line in journal("run-2")}, "the same questions were asked, and those of bets"


def hopeful(pool, score):
    """Nothing is as bad here as workers assume of what is still being scored: all that they bet on is in vain."""
    for pair in combinations(pool, 2):
        if score(pair).overall < 1:
            score([*pair, next(part for part in pool if part not in pair)])
    return pool[:3]


def test_what_two_workers_scored_in_vain_corrects_no_estimate():
    alone, _ = cook(hopeful, run="run-1", out="alone/soup", **CORRECTED)
    both, _ = cook(hopeful, run="run-2", out="both/soup", workers=2, **CORRECTED)
    asked_alone, asked_both = ({line["key"] for line in estimated(journal(run))} for run in ("run-1", "run-2"))
    assert asked_alone < asked_both, "no bet was made"
    assert any(trial.scores["quiz:slight"].estimate.added for trial in alone.trials if trial.is_estimated)
    assert [(t.names, t.overall, t.interval) for t in alone.trials] == [
        (t.names, t.overall, t.interval) for t in both.trials
    ]
    assert tree("alone/soup") == tree("both/soup")
    again, _ = cook(hopeful, run="run-2", out="again/soup", **CORRECTED)
    assert overalls(again) == overalls(alone), "one process goes the same way on what workers left"


def test_the_estimate_of_a_metric_that_is_no_mean_follows_its_own_rule():
    made, _ = cook("exhaustive", eval=["quiz:groups"])
    everything, _ = cook("exhaustive", eval=["quiz:groups"], questions="all", run="run-all", out="all")
    true = {trial.names: trial.overall for trial in everything.trials}
    for trial in made.trials:
        assert trial.overall == pytest.approx(true[trial.names]), "no soup differs where single models agree here"


def test_a_wrong_rule_is_refused_before_any_work():
    with pytest.raises(EvaluatorError, match="expected all, disputed"):
        cook(questions="half")


def test_a_long_search_is_told_of_it_in_one_line():
    def hints(strategy, **options):
        texts = []
        cook(strategy, out=f"out-{strategy}-{len(options)}", hints=texts, **options)
        return texts

    [hint] = hints("exhaustive", questions="all")
    assert hint.startswith('questions="disputed"')
    assert "\n" not in hint
    assert hints("greedy", questions="all") == [], "not more than twice as many evaluations as the pool has models"
    assert hints("exhaustive", run="run-2") == []


def test_where_all_soups_would_be_asked_everything_in_the_end_they_are_at_once():
    made, _ = cook("average", run="run-1", out="average")
    assert [(trial.names, trial.is_estimated) for trial in made.trials] == [(tuple("abcde"), False)]
    assert len(asked()) == 2


def test_the_pace_counts_questions_of_all_and_what_estimates_will_ask():
    paces = []
    flat.cook(
        "exhaustive", pool="ckpts", eval=PLAIN, out="out", questions="disputed", progress=Progress(on_pace=paces.append)
    )
    counts = [count for *_, count in asked()]
    by_model = [sum(counts[index : index + 2]) for index in range(0, len(counts), 2)]
    assert paces[0].questions_left is None
    fifth, tenth = (next(pace for pace in paces if pace.done == done) for done in (5, 10))
    assert fifth.questions == 5 * 2 * COUNT
    assert fifth.questions_left == pytest.approx(26 * 0.25 * 2 * COUNT + 2 * 2 * COUNT), "two finalists once more"
    assert tenth.questions == sum(by_model[:10])
    assert tenth.questions_left == pytest.approx(21 * sum(by_model[5:10]) / 5 + 2 * 2 * COUNT)
    assert tenth.seconds_left > 0
    assert tenth.questions_per_second > 0


def plan(**options):
    return flat.plan_cook("exhaustive", "ckpts", eval=PLAIN, out="out", run_dir="run", **options)


def test_a_dry_run_tells_questions_and_hours_once_the_journal_has_seen_them_so_answered():
    assert plan()["questions_about"] == 31 * 2 * COUNT
    assert plan(questions="disputed")["questions_about"] == (5 + 2 + 26 / 4) * 2 * COUNT
    parts = [Split("selection", 0.5), Split("report", 0.5)]
    sizes = [sum(part.holds(index) for name in ("plain", "groups") for index in questions(name)) for part in parts]
    assert plan(split=0.5)["questions_about"] == 31 * sizes[0] + 6 * sizes[1]
    assert "hours_about" not in plan()
    evaluate([Path("ckpts/a")], eval=EvalConfig(PLAIN), run_dir="run")
    lines = journal()
    Path("run/journal.jsonl").write_text("".join(json.dumps(line | {"seconds": 3600}) + "\n" for line in lines))
    assert plan()["hours_about"] == 62
    assert plan(workers=4)["hours_about"] == 15.5
    assert "hours_about" not in plan(split=0.5), "other questions were asked"
    Path("run/journal.jsonl").write_text("".join(json.dumps(line | {"seconds": 0.2}) + "\n" for line in lines))
    assert plan()["hours_about"] == 0.003, "31 times 0.4 seconds are more than none"
    Path("run/journal.jsonl").write_text("".join(json.dumps(line | {"seconds": 3600}) + "\n" for line in lines))
    checkpoints = ["ckpts/a", "ckpts/b", "ckpts/c"]
    assert plan_evaluate(checkpoints, EvalConfig(PLAIN), "run")["hours_about"] == 6
    both = plan_evaluate(checkpoints, EvalConfig(PLAIN, split=0.5), "run")
    assert (both["evaluations_at_most"], both["questions_about"]) == (6, 3 * 2 * COUNT)
