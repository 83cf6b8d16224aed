"""What the command line tells of long work where there is no terminal: a line now and then."""

from __future__ import annotations

import json
import signal
import threading

import click
import pytest
from click.testing import CliRunner

import soup.cli.console
from soup.cli.app import cli, main
from soup.cli.console import Console, print_json, print_line, print_rows
from soup.evaluation.api import Benchmark
from soup.evaluation.pace import Pace
from soup.merging.recipe import CheckpointSource, Recipe
from tests.helpers.toy_pools import make_checkpoint
from tests.helpers.toy_test_sets import ocrbench_rows, write_tsv

MODEL = """
class Yes:
    def __init__(self, directory):
        pass

    def answer(self, prompts):
        return ["yes"] * len(prompts)
"""

WAITED = [0.0, 30.0, 59.0, 61.0, 90.0, 121.0, 200.0]


@pytest.fixture
def clock(monkeypatch):
    """The seconds that have passed, to be set."""
    seconds = [0.0]
    monkeypatch.setattr(soup.cli.console.time, "monotonic", lambda: seconds[0])
    return seconds


def test_without_a_terminal_an_evaluation_tells_how_far_it_is_once_a_minute(clock, capsys):
    talk = Console()
    talk.show_start(Recipe.uniform([CheckpointSource(name="a", path="a")]), Benchmark("mmbench", "vlmeval", "mmbench"))
    for place, seconds in enumerate(WAITED):
        clock[0] = seconds
        talk.show_answers(1000 * (place + 1), 9000)
    told = click.unstyle(capsys.readouterr().err).splitlines()
    assert told == [
        "evaluating a on mmbench ...",
        "  4,000 of 9,000 answers",
        "  7,000 of 9,000 answers",
    ]


def test_a_search_says_how_many_answers_a_benchmark_has(tmp_path, monkeypatch):
    monkeypatch.setattr("soup.cli.console.PLAIN_SECONDS", -1.0)
    monkeypatch.setenv("LMUData", str(tmp_path / "LMUData"))
    write_tsv(tmp_path / "LMUData/OCRBench.tsv", ocrbench_rows(10))
    (tmp_path / "model.py").write_text(MODEL)
    make_checkpoint(tmp_path / "ckpts/a", [0, 0, 0, 0])
    model = f"{tmp_path / 'model.py'}:Yes"
    words = ["eval", str(tmp_path / "ckpts/a"), "--eval", "ocrbench", "--model", model, "--batch-size", "4"]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.stderr
    assert [line.strip() for line in done.stderr.splitlines() if "answers" in line] == [
        "4 of 10 answers",
        "8 of 10 answers",
        "10 of 10 answers",
    ]


HOSTILE = "a\x1b[31mred\n| [b]x[/b] \u202e"


def test_names_reach_the_terminal_escaped(capsys):
    talk = Console()
    talk.show_start(Recipe.uniform([CheckpointSource(name=HOSTILE, path="a")]), Benchmark("mmbench", "vlmeval", "x"))
    talk.warn(HOSTILE)
    talk.say(HOSTILE)
    print_rows([HOSTILE], [[HOSTILE]])
    print_line(HOSTILE)
    print_json({"name": "\x9b31m" + HOSTILE})
    out, err = capsys.readouterr()
    assert not [character for character in out + err if character in "\x1b\x9b\u202e"]
    assert err.startswith(r"evaluating a\u001b[31mred\n| [b]x[/b] \u202e on mmbench ...")
    lines = out.splitlines()
    assert [line.strip() for line in lines[:3]] == [r"a\u001b[31mred\n| [b]x[/b] \u202e"] * 3
    assert json.loads("\n".join(lines[3:]))["name"] == "\x9b31m" + HOSTILE


def test_an_error_reaches_the_terminal_escaped(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["soup", "inspect", str(tmp_path / "a\x1b[31m")])
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit):
            main()
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert r"a\u001b[31m: no such" in capsys.readouterr().err


def recipe(*names):
    return Recipe.uniform([CheckpointSource(name=name, path=name) for name in names])


MMBENCH = Benchmark("mmbench", "vlmeval", "mmbench")


def spoken(capsys):
    return click.unstyle(capsys.readouterr().err).splitlines()


def test_an_evaluation_is_told_with_how_many_are_done_of_all_and_the_time_that_is_left(clock, capsys):
    talk = Console()
    talk.show_pace(Pace(3, 13, 5400.0))
    talk.show_start(recipe("a", "b"), MMBENCH)
    talk.show_pace(Pace(4))
    talk.show_start(recipe("c"), MMBENCH)
    assert spoken(capsys) == [
        "[3/13, 90 min left] evaluating a + b on mmbench ...",
        "[4 done] evaluating c on mmbench ...",
    ]


def test_questions_of_all_and_their_rate_are_told_where_they_are_known(clock, capsys):
    pace = Pace(3, 13, 5400.0, questions=2700, questions_left=6700.4, questions_per_second=1.2345)
    assert str(pace) == "3/13, 2,700 of 9,400 questions, 1.23 a second, 90 min left"


def test_an_evaluation_tells_the_time_that_it_takes_by_answers_that_came_since_it_began(clock, capsys):
    talk = Console()
    talk.show_start(recipe("a"), MMBENCH)
    talk.show_worker_answers(recipe("a"), MMBENCH, 1000, 2000)  # remembered
    clock[0] = 100.0
    talk.show_worker_answers(recipe("a"), MMBENCH, 1100, 2000)
    clock[0] = 170.0
    talk._beat()
    assert spoken(capsys)[-1].startswith("  evaluating a on mmbench: 1,100 of 2,000 answers, 15 min left")


@pytest.mark.parametrize(
    ("seconds", "shown"), [(7.4, "7 s"), (60, "1 min"), (7000, "117 min"), (7200, "2 h 00 min"), (30000, "8 h 20 min")]
)
def test_the_time_that_is_left_is_told_as_people_say_it(seconds, shown):
    assert str(Pace(0, 2, seconds)) == f"0/2, {shown} left"


def test_all_workers_evaluations_are_told_of_once_a_minute_each_until_they_end(clock, capsys):
    talk = Console()
    for name in "ab":
        talk.show_start(recipe(name), MMBENCH)
    clock[0] = 61.0
    talk.show_worker_answers(recipe("a"), MMBENCH, 500, 9000)
    talk.show_worker_answers(recipe("a"), MMBENCH, 600, 9000)
    talk.show_worker_answers(recipe("b"), MMBENCH, 70, 9000)
    clock[0] = 130.0
    talk.show_end(recipe("b"), MMBENCH)
    talk._beat()
    talk._beat()
    assert spoken(capsys)[2:] == [
        "  evaluating a on mmbench: 500 of 9,000 answers",
        "  evaluating b on mmbench: 70 of 9,000 answers",
        "  evaluating a on mmbench: 600 of 9,000 answers, 2 min so far",
    ]


def test_a_harness_that_tells_nothing_is_heard_of_all_the_same(monkeypatch, capsys):
    monkeypatch.setattr("soup.cli.console.PLAIN_SECONDS", 0.05)
    monkeypatch.setattr("soup.cli.evaluations.SHORTEST_SECONDS", 0.05)
    with Console() as talk:
        talk.show_start(recipe("a"), MMBENCH)
        threading.Event().wait(0.5)
    assert "  evaluating a on mmbench, 0 min so far" in spoken(capsys)


def test_a_terminal_shows_a_clock_for_each_running_evaluation(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    talk = Console()
    for name in "ab":
        talk.show_start(recipe(name), MMBENCH)
    talk.show_worker_answers(recipe("a"), MMBENCH, 5, 9)
    shown = [task.description for task in talk._clock.tasks]
    assert shown == ["evaluating a on mmbench: 5 of 9 answers", "evaluating b on mmbench"]
    talk.show_end(recipe("a"), MMBENCH)
    assert [task.description for task in talk._clock.tasks] == ["evaluating b on mmbench"]
