"""What a board shows of what runs tell: with a clock and no terminal."""

from __future__ import annotations

import threading

import click
import pytest
from click.testing import CliRunner

import soup.board.board
from soup.board.board import Board
from soup.board.layout import plain
from soup.checkpoints.hub_downloads import run_download
from soup.cli.app import cli
from soup.evaluation.api import Benchmark, Score, Split
from soup.evaluation.estimates import Estimate
from soup.evaluation.pace import Pace
from soup.evaluation.progress import SearchStart, WorkerState
from soup.evaluation.trial import Trial
from soup.merging.recipe import CheckpointSource, Recipe
from tests.helpers.toy_pools import make_checkpoint
from tests.helpers.toy_test_sets import ocrbench_rows, write_tsv

MMBENCH, OCRBENCH = (Benchmark(name, "vlmeval", name) for name in ("mmbench", "ocrbench"))
BOTH = ("mmbench", "ocrbench")
ESTIMATED = Score(61.0, 20, estimate=Estimate(20, 0.0, 0.04, 0.0))


@pytest.fixture
def clock(monkeypatch):
    """The seconds that have passed, to be set."""
    seconds = [0.0]
    monkeypatch.setattr(soup.board.board.time, "monotonic", lambda: seconds[0])
    return seconds


def recipe(*names):
    sources = [CheckpointSource(name=name, path=name) for name in names]
    return Recipe.uniform(sources).sealed([f"digest of {name}" for name in names], "side")


def trial(*names, scores, **facts):
    return Trial(recipe(*names), {name: Score(value, 100) for name, value in scores.items()}, **facts)


def lines(board, width=80, height=24):
    shown = board.lines(width, height)
    assert len(shown) <= height
    assert all(line.cell_len <= width for line in shown)
    return [line.plain for line in shown]


def spoken(capsys):
    return click.unstyle(capsys.readouterr().err).splitlines()


# The search


def test_a_search_of_one_evaluation_says_so():
    board = Board(quiet=True)
    board.progress.on_search(SearchStart("eval", BOTH, ("a",), 1))
    assert lines(board)[0] == "eval: 0 of at most 1 evaluation"


def test_scores_fill_in_and_the_best_so_far_is_marked(clock):
    board = Board(quiet=True)
    tell = board.progress
    tell.on_search(SearchStart("greedy", BOTH, ("a", "b"), 3))
    assert lines(board) == [
        "greedy: 0 of at most 3 evaluations",
        "  model  mmbench  ocrbench  overall",
        "  a",
        "  b",
    ]
    tell.on_start(recipe("a"), MMBENCH)
    tell.on_answers(recipe("a"), MMBENCH, 25, 100, "answers")
    assert lines(board)[1:] == [
        "25 questions",
        "  model  mmbench  ocrbench  overall",
        "  a         25 %",
        "  b",
        "a on mmbench: 25 of 100 answers",
    ]
    tell.on_score(recipe("a"), MMBENCH, Score(61.5, 100), 3.0)
    tell.on_end(recipe("a"), MMBENCH)
    tell.on_start(recipe("a"), OCRBENCH)
    assert lines(board)[1:] == [
        "100 questions",
        "  model  mmbench  ocrbench  overall",
        "  a        61.50       ...",
        "  b",
        "a on ocrbench",
    ]
    tell.on_end(recipe("a"), OCRBENCH)
    tell.on_trial(trial("a", scores={"mmbench": 61.5, "ocrbench": 40.0}))
    tell.on_trial(trial("b", scores={"mmbench": 60.0, "ocrbench": 40.0}))
    tell.on_trial(trial("a", "b", scores={"mmbench": 62.0, "ocrbench": 42.0}))
    assert lines(board)[2:] == [
        "  model  mmbench  ocrbench  overall",
        "  a        61.50     40.00    50.75",
        "  b        60.00     40.00    50.00",
        "* a + b    62.00     42.00    52.00",
        "best so far: a + b 52.00, +1.25 beside a",
    ]


def test_an_estimate_is_marked_everywhere(clock):
    board = Board(quiet=True)
    board.progress.on_search(SearchStart("greedy", ("mmbench",), (), 3))
    board.progress.on_score(recipe("a", "b"), MMBENCH, ESTIMATED, 1.0)
    assert lines(board)[1:] == ["20 questions", "  model  mmbench  overall", "  a + b   ~61.00"]
    board.progress.on_trial(Trial(recipe("a", "b"), {"mmbench": ESTIMATED}))
    assert lines(board)[3:] == ["* a + b   ~61.00   ~61.00", "best so far: a + b ~61.00 in 60.61 to 61.39"]


def test_a_soup_that_breaks_a_guard_is_never_the_best(clock):
    board = Board(quiet=True)
    board.progress.on_search(SearchStart("greedy", ("mmbench",), (), 3))
    board.progress.on_trial(trial("a", scores={"mmbench": 50.0}))
    board.progress.on_trial(trial("a", "b", scores={"mmbench": 90.0}, broken=("mmbench fell",)))
    assert lines(board)[-1] == "best so far: a 50.00"


def test_the_soup_that_the_strategy_itself_would_end_with_is_the_best_so_far(clock):
    board = Board(quiet=True)
    board.progress.on_search(SearchStart("greedy", ("mmbench",), (), 3))
    single, higher = trial("a", scores={"mmbench": 50.0}), trial("a", "b", scores={"mmbench": 50.5})
    for each in (single, higher):
        board.progress.on_trial(each)
    board.progress.on_best(single)  # by a rule such as p>0.9
    assert lines(board)[3:] == ["* a        50.00    50.00", "  a + b    50.50    50.50", "best so far: a 50.00"]
    board.progress.on_best(higher)
    assert lines(board)[-1] == "best so far: a + b 50.50, +0.50 beside a"


def test_questions_their_rate_and_the_time_left_are_told_as_estimates_and_the_time_runs(clock):
    board = Board(quiet=True)
    board.progress.on_search(SearchStart("greedy", ("mmbench",), (), 13))
    for name in "abc":
        board.progress.on_trial(trial(name, scores={"mmbench": 50.0}))
    board.progress.on_pace(Pace(3, 13, 5400.0, questions=300, questions_left=1000.4, questions_per_second=1.2345))
    board.progress.on_start(recipe("d"), MMBENCH)
    board.progress.on_answers(recipe("d"), MMBENCH, 200, 400, "answers")  # four prompts a question
    head = "of about 1,300 questions, about 1.23 a second"
    assert lines(board)[:2] == ["greedy: 3 of at most 13 evaluations, about 90 min left", f"350 {head}"]
    clock[0] = 600.0
    assert lines(board)[0] == "greedy: 3 of at most 13 evaluations, about 80 min left"
    clock[0] = 6000.0
    assert lines(board)[0] == "greedy: 3 of at most 13 evaluations, about 0 s left"
    with board:
        pass
    assert lines(board)[0] == "greedy: 3 of at most 13 evaluations", "it is over: there were fewer"


def test_an_evaluation_tells_the_time_that_it_takes_by_answers_that_came_since_it_began(clock):
    board = Board(quiet=True)
    board.progress.on_start(recipe("a"), MMBENCH)
    board.progress.on_answers(recipe("a"), MMBENCH, 1000, 2000, "answers")  # remembered
    clock[0] = 100.0
    board.progress.on_answers(recipe("a"), MMBENCH, 1100, 2000, "answers")
    assert lines(board)[-1] == "a on mmbench: 1,100 of 2,000 answers, about 15 min left, 2 min so far"


def test_grades_are_counted_behind_the_answers_at_a_rate_of_their_own(clock):
    board = Board(quiet=True)
    board.progress.on_start(recipe("a"), MMBENCH)
    board.progress.on_answers(recipe("a"), MMBENCH, 1000, 2000, "answers")
    clock[0] = 100.0
    board.progress.on_answers(recipe("a"), MMBENCH, 2000, 2000, "answers")
    board.progress.on_answers(recipe("a"), MMBENCH, 1, 501, "grades")
    assert lines(board)[-1] == "a on mmbench: 1 of 501 grades, 2 min so far"
    clock[0] = 200.0
    board.progress.on_answers(recipe("a"), MMBENCH, 101, 501, "grades")
    assert lines(board)[-1] == "a on mmbench: 101 of 501 grades, about 7 min left, 3 min so far"


def test_an_evaluation_whose_harness_does_not_count_takes_what_others_took(clock):
    board = Board(quiet=True)
    board.progress.on_score(recipe("a"), MMBENCH, Score(50.0), 100.0)
    board.progress.on_score(recipe("b"), MMBENCH, Score(50.0), 140.0)
    board.progress.on_start(recipe("c"), MMBENCH)
    assert lines(board)[-1] == "c on mmbench: about 2 min left"
    clock[0] = 90.0
    assert lines(board)[-1] == "c on mmbench: about 30 s left, 2 min so far"
    clock[0] = 130.0
    assert lines(board)[-1] == "c on mmbench: 2 min so far"


def test_questions_that_only_report_fill_a_column_of_their_own(clock):
    board, report = Board(quiet=True), Benchmark("mmbench", "vlmeval", "mmbench", split=Split("report", 0.5))
    board.progress.on_search(SearchStart("greedy", ("mmbench",), (), 3))
    board.progress.on_trial(trial("a", scores={"mmbench": 50.0}, part="selection"))
    board.progress.on_start(recipe("a"), report)
    board.progress.on_score(recipe("a"), report, Score(40.0, 100), 1.0)
    assert lines(board)[3] == "* a        50.00    50.00"
    board.progress.on_trial(
        trial("a", scores={"mmbench": 50.0}, report={"mmbench": Score(40.0, 100)}, part="selection")
    )
    assert lines(board)[2:4] == ["  model  mmbench  overall  report", "* a        50.00    50.00   40.00"]
    assert lines(board)[:2] == ["greedy: 2 of at most 3 evaluations", "200 questions"]


def test_a_benchmark_s_parts_take_its_place(clock):
    board, both = Board(quiet=True), Benchmark("python:j.py:two", "python", "j.py:two")
    board.progress.on_search(SearchStart("greedy", ("python:j.py:two", "mmbench"), ("a",), 3))
    board.progress.on_score(recipe("a"), both, Score(50.0, parts={"reading": 40.0, "counting": 60.0}), 1.0)
    assert lines(board)[1:] == [
        "  model  reading  counting  mmbench  overall",
        "  a        40.00     60.00",
    ]


def test_each_worker_tells_what_it_is_at_its_rate_and_the_time_left(clock):
    board = Board(quiet=True)
    tell = board.progress.on_worker
    tell(0, WorkerState(recipe("a"), MMBENCH, 64))
    tell(1, WorkerState(recipe("a"), OCRBENCH))
    board.progress.on_start(recipe("a"), MMBENCH)
    clock[0] = 10.0
    tell(0, WorkerState(recipe("a"), MMBENCH, 64, 20))
    assert lines(board)[-2:] == [
        "worker 0 a on mmbench: 20 of 64 questions, about 2 a second, about 22 s left",
        "worker 1 a on ocrbench: 10 s so far",
    ]
    clock[0] = 32.0
    tell(0, WorkerState(recipe("a"), MMBENCH, 64, 64))
    tell(0, None)
    board.progress.on_score(recipe("a"), OCRBENCH, Score(50.0), 40.0)
    assert lines(board)[-1] == "worker 1 a on ocrbench: 32 s so far, about 8 s left"
    tell(1, WorkerState(recipe("b"), MMBENCH, 10))
    assert lines(board)[-2:] == ["worker 0 waits", "worker 1 b on mmbench: 0 of 10 questions"]
    tell(0, WorkerState(recipe("b"), MMBENCH, 10))
    assert lines(board)[-2] == "worker 0 b on mmbench: 0 of 10 questions, about 2 a second, about 5 s left"


def test_what_is_hidden_is_told_and_the_best_and_what_runs_are_not(clock):
    board, names = Board(quiet=True), [f"ingredient-{i:02d}" for i in range(40)]
    benchmarks = tuple(f"benchmark-{i}" for i in range(12))
    board.progress.on_search(SearchStart("greedy", benchmarks, tuple(names), 79))
    board.progress.on_trial(trial(names[7], scores=dict.fromkeys(benchmarks, 70.0)))
    for name in names[20:38]:
        board.progress.on_trial(trial(name, scores=dict.fromkeys(benchmarks, 50.0)))
    board.progress.on_start(recipe(names[3]), Benchmark("benchmark-1", "vlmeval", "x"))
    for number in range(16):
        board.progress.on_worker(number, WorkerState(recipe(names[3]), MMBENCH, 10) if number < 9 else None)
    shown = lines(board)
    assert len(shown) == 24
    assert [line for line in shown if line.startswith("...")] == [
        "... 29 more models, 9 of them scored; 5 more benchmarks",
        "... 9 more workers; 9 of 16 are at work",
    ]
    assert any(line.startswith("* ingredient-07") for line in shown)
    assert any(line.startswith("  ingredient-03") for line in shown)
    assert not any("ingredient-00" in line for line in shown)
    for width, height in ((40, 12), (20, 5), (80, 1), (200, 100)):
        lines(board, width, height)
    assert not any("more" in line for line in lines(board, 200, 100))


class Fixed:
    """A section of so many lines, of which as many as have room are shown."""

    def __init__(self, name, count):
        self.texts = [f"{name} {number}" for number in range(count)]

    def lines(self, width, height):
        return [plain(text, width) for text in self.texts[:height]]

    def line(self):
        return self.texts[0]


def test_sections_stand_in_their_order_and_share_the_room(clock):
    board = Board(quiet=True)
    board.show("study", Fixed("study", 10))
    board.show("jobs", Fixed("jobs", 3))
    board.show("study", Fixed("study", 10))
    assert lines(board, 80, 20) == [*Fixed("study", 10).texts, *Fixed("jobs", 3).texts]
    assert lines(board, 80, 8) == [*Fixed("study", 5).texts, *Fixed("jobs", 3).texts]
    assert lines(board, 80, 4) == [*Fixed("study", 2).texts, *Fixed("jobs", 2).texts]
    board.start_phase("merging", 2_000_000)
    assert lines(board, 80, 4)[-1].startswith("merging ")
    assert board.line() == "study 0; jobs 0; merging: 0 B of 2.00 MB"
    board.start_stage()
    assert lines(board, 80, 20) == Fixed("study", 10).texts, "what an earlier stage came to is gone"


# Lines


def test_without_a_terminal_a_search_tells_its_trials_and_a_line_a_minute(clock, monkeypatch, capsys):
    monkeypatch.setattr("soup.board.displays.LINE_SECONDS", 0.05)
    with Board() as board:
        tell = board.progress
        tell.on_search(SearchStart("greedy", BOTH, ("a", "b"), 3))
        tell.on_trial(trial("a", scores={"mmbench": 50.0, "ocrbench": 40.0}, seconds=3.0))
        tell.on_pace(Pace(1, 3, 240.0))
        for name in "bcde":
            tell.on_start(recipe(name), MMBENCH)
        tell.on_answers(recipe("b"), MMBENCH, 5, 9, "answers")
        threading.Event().wait(0.5)
    talk = spoken(capsys)
    assert talk[:2] == ["greedy: at most 3 evaluations", "  a: overall 45.00 (mmbench 50.00, ocrbench 40.00; 3.0 s)"]
    running = "b on mmbench: 5 of 9 answers; c on mmbench; and 2 more evaluations"
    assert set(talk[2:]) == {
        f"greedy: 1 of at most 3 evaluations, about 4 min left; 255 questions; {running}; best so far a: 45.00"
    }


def test_nothing_is_told_while_nothing_is_under_way():
    board = Board()
    assert board.line() == ""
    board.start_phase("merging", 2_000_000)
    board.advance(500_000)
    assert board.line() == "merging: 500.00 kB of 2.00 MB"
    board.advance(1_500_000)
    assert board.line() == ""


def test_verbose_tells_each_evaluation_and_its_score(capsys):
    board = Board(verbose=True)
    board.progress.on_start(recipe("a", "b"), MMBENCH)
    board.progress.on_score(recipe("a", "b"), MMBENCH, ESTIMATED, 2.0)
    assert spoken(capsys) == ["evaluating a + b on mmbench ...", "  a + b on mmbench: ~61.00 (2.0 s)"]


def test_quiet_tells_warnings_alone(capsys):
    with Board(quiet=True) as board:
        board.progress.on_search(SearchStart("greedy", BOTH, ("a",), 3))
        board.progress.on_trial(trial("a", scores={"mmbench": 50.0}))
        board.say("a line")
        board.show_step("a", 5, 5, 0.1)
        board.warn("[b]odd[/b]")
    assert spoken(capsys) == ["warning: [b]odd[/b]"]


def test_a_score_that_was_estimated_is_told_with_its_interval(capsys):
    Board().progress.on_trial(Trial(recipe("a"), {"mmbench": ESTIMATED}, seconds=1.0))
    assert spoken(capsys) == ["  a: overall ~61.00, estimated in 60.61 to 61.39 (mmbench ~61.00; 1.0 s)"]


MODEL = """
class Yes:
    def __init__(self, directory):
        pass

    def answer(self, prompts):
        return ["yes"] * len(prompts)
"""


def test_a_harness_that_counts_tells_how_many_answers_a_benchmark_has(tmp_path, monkeypatch):
    shares = []
    monkeypatch.setattr(Board, "_answer", lambda self, recipe, benchmark, *counts: shares.append(counts))
    monkeypatch.setenv("LMUData", str(tmp_path / "LMUData"))
    write_tsv(tmp_path / "LMUData/OCRBench.tsv", ocrbench_rows(10))
    (tmp_path / "model.py").write_text(MODEL)
    make_checkpoint(tmp_path / "ckpts/a", [0, 0, 0, 0])
    model = f"{tmp_path / 'model.py'}:Yes"
    words = ["eval", str(tmp_path / "ckpts/a"), "--eval", "ocrbench", "--model", model, "--batch-size", "4"]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.stderr
    assert shares == [(count, 10, "answers") for count in (4, 8, 10)]


def test_names_with_braces_and_brackets_are_names(clock):
    board = Board(quiet=True)
    board.progress.on_search(SearchStart("greedy", ("mmbench",), (), 3))
    board.progress.on_trial(trial("{a}", scores={"mmbench": 50.0}))
    board.progress.on_trial(trial("{a}", "[b]{}", scores={"mmbench": 51.0}))
    assert lines(board)[-1] == "best so far: {a} + [b]{} 51.00, +1.00 beside {a}"


def test_what_the_hub_s_client_downloads_is_shown_and_its_own_bars_are_not(capsys):
    def download(bars):
        bar, lines_told = bars(total=3_000_000, unit="B"), []
        bar.update(1_000_000)
        lines_told.append(board.line())
        bar.total = 6_000_000  # the client opens one more file
        bar.update(500_000)
        return [*lines_told, board.line()]

    with Board() as board:
        lines_told = run_download("org/name", download)
    assert lines_told == ["org/name: 1.00 MB of 3.00 MB", "org/name: 1.50 MB of 6.00 MB"]
    assert capsys.readouterr().err == ""
