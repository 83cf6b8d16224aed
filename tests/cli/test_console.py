"""What the command line tells of long work where there is no terminal: a line now and then."""

from __future__ import annotations

import json
import signal

import click
import pytest
from click.testing import CliRunner

import soup.cli.console
from soup.cli.app import cli, main
from soup.cli.console import Console, print_json, print_line, print_rows
from soup.evaluation.api import Benchmark
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
