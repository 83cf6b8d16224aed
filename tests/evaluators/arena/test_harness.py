"""`--eval arena:RUN`: by a judge any candidate is scored, by people those whose answers were voted on."""

from __future__ import annotations

import json
import re

import pytest
from click.testing import CliRunner
from PIL import Image

from evaluators.arena.harness import Preference
from evaluators.arena.record import Arena, Member, Question, text_key
from evaluators.arena.votes import Vote, VoteLog
from soup.cli.app import cli
from soup.errors import EvaluatorError
from soup.evaluation.api import AskedModel, Benchmark, Split
from soup.evaluation.config import EvalConfig
from soup.evaluation.settings import EvalSettings
from soup.search.evaluate import evaluate
from soup.search.run import cook
from soup.testing import check_evaluator
from tests.helpers.arenas import write_candidates, write_prompts
from tests.helpers.scripted_models import SCRIPTED, JudgeServer, scripted
from tests.helpers.toy_pools import make_checkpoint

COUNT = 8
BASE = ["same", *(f"base {n}" for n in range(1, COUNT))]
GOOD = ["same", *(f"good {n}" for n in range(1, COUNT))]


def prefer_good(prompt, temperature):
    """It prefers good to mixed to base, and prefers itself to nothing."""
    first, second = (re.search(rf"\[Answer {n}\]\n(\w+)", prompt) for n in (1, 2))
    if first is None:
        return "hello"
    ranks = ["base", "mixed", "good"]
    a, b = ranks.index(first[1]), ranks.index(second[1])
    return "tie" if a == b else str(1 if a > b else 2)


@pytest.fixture
def arena(tmp_path):
    picture = tmp_path / "p.png"
    Image.new("RGB", (4, 4)).save(picture)
    name = f"{'ef' * 32}.png"
    parts = (("image", name), ("text", "Look."))
    images = {name: picture.read_bytes}
    questions = [(Question(f"q{n}", (*parts, ("text", f"<{n}>?"))), images, {}) for n in range(COUNT)]
    arena = Arena.make(tmp_path / "x.arena", questions)
    for member, texts in (("base", BASE), ("good", GOOD)):
        arena.add(Member(member, f"recipe of {member}", {}, {f"q{n}": text for n, text in enumerate(texts)}))
    return arena


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "model.py").write_text(SCRIPTED)
    return EvalSettings(model=f"{tmp_path / 'model.py'}:Scripted")


def judged(settings, server):
    return EvalSettings(model=settings.model, judge_url=server.url, judge_model="wise")


def benchmark(arena, more="", **given):
    return Benchmark("arena", "arena", f"{arena.path}{more}", **given)


def candidate(tmp_path, texts, name="m"):
    return scripted(tmp_path, dict(enumerate(texts)), name)


def voted(arena, *votes):
    """Votes of (voter, question, better text, worse text, choice)."""
    log = VoteLog(arena.votes_path)
    for voter, question, better, worse, choice in votes:
        log.add(Vote(voter, "person", question, text_key(better), text_key(worse), choice))


def test_a_judge_scores_any_candidate_against_the_baseline(tmp_path, arena, settings):
    mixed = ["same", "good 1", "good 2", "base 3", "base 4", "mixed 5", "mixed 6", "base 7"]
    with JudgeServer(prefer_good) as server:
        score = check_evaluator(
            Preference, benchmark(arena), candidate(tmp_path, mixed), settings=judged(settings, server)
        )
        assert score.questions == dict(
            zip((f"q{n}" for n in range(COUNT)), [0.5, 1, 1, 0.5, 0.5, 1, 1, 0.5], strict=True)
        )
        assert score.value == 75
        beside = Preference(judged(settings, server)).evaluate(
            candidate(tmp_path, mixed, "n"), benchmark(arena, "@good")
        )
        assert beside.value == 100 * (0.5 + 2 * 0.5) / 8  # five questions are lost
        before = len(server.prompts)
        assert (
            Preference(judged(settings, server)).evaluate(candidate(tmp_path, BASE, "b"), benchmark(arena)).value == 50
        )
        assert len(server.prompts) == before + 1  # identical answers are nothing to ask about


def test_a_judges_replies_are_kept_and_serve_other_candidates(tmp_path, arena, settings):
    with JudgeServer(prefer_good) as server:
        harness, same = Preference(judged(settings, server)), candidate(tmp_path, GOOD)
        first = harness.evaluate(same, benchmark(arena))
        asked = len(server.prompts)
        assert asked == 1 + 2 * 7
        assert Preference(judged(settings, server)).evaluate(same, benchmark(arena)) == first
        assert len(server.prompts) == asked + 1  # to reach it


def test_questions_are_shown_with_what_models_answered(tmp_path, arena, settings):
    with JudgeServer(prefer_good) as server:
        harness, mixed = Preference(judged(settings, server)), candidate(tmp_path, ["same", *["mixed"] * (COUNT - 1)])
        harness.evaluate(mixed, benchmark(arena))
    identity = harness.identity(benchmark(arena))
    models = [
        AskedModel(mixed.digest, mixed.kept, identity),
        AskedModel("recipe of good", tmp_path / "none", {**identity, "answering": {}}),  # the arena's own
        AskedModel("recipe of nobody", tmp_path / "none", identity),
    ]
    shown = Preference(settings).show(benchmark(arena), ["q3", "q1"], models)
    assert {index: each.answers for index, each in shown.items()} == {
        "q3": ("mixed", "good 3", None),
        "q1": ("mixed", "good 1", None),
    }
    assert shown["q3"].text == "Look.\n<3>?"
    assert shown["q3"].images == (arena.image(arena.questions["q3"].images[0]).read_bytes(),)
    with pytest.raises(EvaluatorError, match="is not the arena"):
        Preference(settings).show(benchmark(arena), ["q3"], [AskedModel("x", tmp_path, {"data": "other"})])


def test_people_score_those_whose_answers_they_voted_on(tmp_path, arena, settings):
    voted(
        arena,
        *(("ann", f"q{n}", GOOD[n], BASE[n], "left") for n in range(1, 6)),
        ("bob", "q1", GOOD[1], BASE[1], "tie"),
        ("bob", "q2", GOOD[2], BASE[2], "right"),
    )
    harness = Preference(settings)
    good = candidate(tmp_path, GOOD)
    score = harness.evaluate(good, benchmark(arena))
    # five wins, a tie and a loss in 7 votes on 7 questions that differ: one that is the same weighs 1
    assert score.value == pytest.approx(100 * (5 + 0.5 + 0.5) / 8)
    assert score.questions is None
    assert "by 7 votes" in good.remarks[0]
    assert harness.evaluate(candidate(tmp_path, BASE, "b"), benchmark(arena)).value == 50
    assert harness.evaluate(candidate(tmp_path, BASE, "c"), benchmark(arena, "@good")).value == pytest.approx(25)


def test_a_new_candidate_has_the_votes_on_the_answers_that_it_gives(tmp_path, arena, settings):
    voted(arena, *(("ann", f"q{n}", GOOD[n], BASE[n], "left" if n < 4 else "right") for n in range(1, COUNT)))
    mixed = [*GOOD[:4], *BASE[4:]]  # what was preferred
    harness = Preference(settings)
    best, good = (
        harness.evaluate(candidate(tmp_path, t, n), benchmark(arena)).value for t, n in ((mixed, "x"), (GOOD, "y"))
    )
    assert best > good
    assert best > 50


def test_a_candidate_that_nobody_voted_on_is_an_error_that_says_what_to_type(tmp_path, arena, settings):
    voted(arena, ("ann", "q1", GOOD[1], BASE[1], "left"))
    new = candidate(tmp_path, ["same", *(f"new {n}" for n in range(1, COUNT))])
    new.names = ("a", "b")
    with pytest.raises(EvaluatorError) as caught:
        Preference(settings).evaluate(new, benchmark(arena))
    message = str(caught.value)
    assert "nobody has voted on the answers of a+b, which differ from those of base on 7 of 8 questions" in message
    assert f"soup arena CHECKPOINT `run_dir` {arena.path}" in message
    assert "Or name a judge" in message


def test_the_identity_holds_questions_baseline_and_who_votes(tmp_path, arena, settings):
    identities = [Preference(settings).identity(benchmark(arena, more)) for more in ("", "@good")]
    voted(arena, ("ann", "q1", GOOD[1], BASE[1], "left"))
    harness = Preference(settings)
    identities.append(harness.identity(benchmark(arena)))
    voted(arena, ("ann", "q2", GOOD[2], BASE[2], "left"))
    assert harness.identity(benchmark(arena)) == identities[-1]  # a search does not see votes change
    identities.append(Preference(settings).identity(benchmark(arena)))
    identities += [
        Preference(EvalSettings(model=settings.model, judge_url="http://x/v1", judge_model=name, **more)).identity(
            benchmark(arena)
        )
        for name, more in (("one", {}), ("two", {}), ("two", {"judge_images": True}))
    ]
    assert len({json.dumps(identity, sort_keys=True) for identity in identities}) == len(identities)


@pytest.mark.parametrize("target", ["x.arena", "./x.arena", "x.arena/", "odd@x.arena"])
def test_a_target_is_a_folder_and_a_baseline_if_one_is_named(tmp_path, arena, settings, monkeypatch, target):
    monkeypatch.chdir(tmp_path)
    if not (tmp_path / target).exists():
        arena.path.rename(target)
    plain, good, base = (
        Preference(settings).identity(Benchmark("arena", "arena", f"{target}{more}")) for more in ("", "@good", "@base")
    )
    assert plain == base != good
    assert (
        Preference(settings).locate(Benchmark("arena", "arena", f"{target}@good")).path.resolve()
        == (tmp_path / target).resolve()
    )


def test_halves_of_the_questions_are_scored_apart(tmp_path, arena, settings):
    voted(arena, *(("ann", f"q{n}", GOOD[n], BASE[n], "left") for n in range(1, COUNT)))
    good = candidate(tmp_path, GOOD)
    halves = [benchmark(arena, split=Split(part, 0.5)) for part in ("selection", "report")]
    assert sum(Preference(settings).count(half) for half in halves) == COUNT
    assert all(Preference(settings).evaluate(good, half).value > 60 for half in halves)


def test_a_missing_arena_and_an_unknown_baseline_are_told_before_any_work(tmp_path, arena, settings):
    with pytest.raises(EvaluatorError, match=r"no arena. soup arena CHECKPOINT"):
        Preference(settings).identity(Benchmark("arena:none", "arena", "none"))
    with pytest.raises(EvaluatorError, match="no candidate 'best'"):
        Preference(settings).identity(benchmark(arena, "@best"))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_search_chooses_by_a_judges_preference(tmp_path, monkeypatch, workers):
    """The judge likes answers of larger numbers, and a soup's number is the mean of its ingredients'."""
    monkeypatch.chdir(tmp_path)
    write_prompts(tmp_path / "prompts.jsonl")
    write_candidates(tmp_path, names=("a", "b", "c"))
    make_checkpoint(tmp_path / "base", 9, head=[2, 0, 0, 0])

    def prefer_larger(prompt, temperature):
        numbers = [float(number) for number in re.findall(r"I say ([\d.]+)", str(prompt))]
        return "hello" if not numbers else "tie" if numbers[0] == numbers[1] else str(1 + (numbers[0] < numbers[1]))

    with JudgeServer(prefer_larger) as server:
        words = ["arena", "base", "--prompts", "prompts.jsonl", "--model", "speaker.py:Speaker", "--report"]
        assert CliRunner().invoke(cli, words, catch_exceptions=False).exit_code == 0
        config = EvalConfig(
            "arena:prompts.arena",
            model="speaker.py:Speaker",
            judge_url=server.url,
            judge_model="wise",
            workers=workers,
        )
        made = cook("greedy", "ckpts", eval=config, out="out")
        assert made.chosen == ("c", "b")
        scores = {trial.names: trial.overall for trial in made.trials}
        # two of six questions are answered alike by all; a says 1, c 3, b 2 as the base does
        assert scores["c",] == pytest.approx(100 * (4 + 1) / 6)
        assert scores["b",] == 50
        assert scores["a",] == pytest.approx(100 * 1 / 6)
        asked = len(server.prompts)
        again = cook("greedy", "ckpts", eval=config, out="out2")
        assert (again.chosen, len(server.prompts)) == (made.chosen, asked)


def test_candidates_of_the_arena_are_not_asked_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_prompts(tmp_path / "prompts.jsonl")
    write_candidates(tmp_path, names=("a", "b"))
    words = ["arena", "ckpts/a", "ckpts/b", "--prompts", "prompts.jsonl", "--model", "speaker.py:Speaker", "--report"]
    assert CliRunner().invoke(cli, words, catch_exceptions=False).exit_code == 0
    arena = Arena(tmp_path / "prompts.arena")
    answers = [arena.members[name].answers["q1"] for name in "ab"]
    voted(arena, ("ann", "q1", answers[1], answers[0], "left"))
    notes = (tmp_path / "speaker.notes").read_text()
    trials = evaluate(["ckpts/b"], eval=EvalConfig("arena:prompts.arena", model="speaker.py:Speaker"))
    assert trials[0].overall > 50
    assert (tmp_path / "speaker.notes").read_text() == notes
