"""What the command line prints, and what of it a terminal would act on."""

from __future__ import annotations

import json
import re
import signal

import pytest

from soup.board.board import Board
from soup.cli.app import main
from soup.cli.console import print_json, print_line, print_plan, print_rows
from soup.evaluation.api import Benchmark
from soup.merging.recipe import CheckpointSource, Recipe

HOSTILE = "a\x1b[31mred\n| [b]x[/b] \u202e"


def test_names_reach_the_terminal_escaped(capsys):
    board = Board(verbose=True)
    recipe = Recipe.uniform([CheckpointSource(name=HOSTILE, path="a")])
    board.progress.on_start(recipe, Benchmark("mmbench", "vlmeval", "x"))
    board.warn(HOSTILE)
    board.say(HOSTILE)
    board.say(board.line())
    board.say("\n".join(line.plain for line in board.lines(80, 24)))
    print_rows([HOSTILE], [[HOSTILE]])
    print_line(HOSTILE)
    print_json({"name": "\x9b31m" + HOSTILE})
    out, err = capsys.readouterr()
    assert not [character for character in out + err if character in "\x1b\x9b\u202e"]
    assert err.startswith(r"evaluating a\u001b[31mred\n| [b]x[/b] \u202e on mmbench ...")
    lines = out.splitlines()
    assert [line.strip() for line in lines[:3]] == [r"a\u001b[31mred\n| [b]x[/b] \u202e"] * 3
    assert json.loads("\n".join(lines[3:]))["name"] == "\x9b31m" + HOSTILE


@pytest.mark.parametrize("columns", ["40", "20"])
def test_numbers_stay_whole_in_a_narrow_terminal(monkeypatch, capsys, columns):
    monkeypatch.setenv("FORCE_COLOR", "1")  # which makes it a terminal
    monkeypatch.setenv("COLUMNS", columns)
    head = ["model", "demo:colour", "demo:shape", "demo:place", "overall", ""]
    numbers = ["20.43", "30.43", "125.22", "25.36"]
    print_rows(head, [["wrong-labels", *numbers, "refused: 77.10 < 78.55, by the questions"]], right=range(1, 5))
    assert [line.split()[1:5] for line in capsys.readouterr().out.splitlines() if "20.43" in line] == [numbers]


def test_a_table_that_fits_into_a_terminal_is_not_wider_and_nothing_is_cut_off(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    head = ["ingredient", "|delta| / |base|", "vision", "projector", "llm", "embeddings", "moved", "nearest", "cosine"]
    cells = ["wrong-labels", "0.0610", "0.0000", "0.1465", "0.0000", "0.0000", "1.3%", "colours", "0.722", "fits"]
    print_rows([*head, ""], [cells], right=[*range(1, 7), 8])
    lines = re.sub("\x1b[^m]*m", "", capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[-2].split()[1:] == cells[1:]


def test_names_stay_whole_in_a_file(capsys):
    name = "qwen2_5-vl-7b-instruct-lora-r64-lr2e-5-mathv360k-epoch3-seed00"
    head = ["model", *"abcdefghijklmnopqrstuvwxyz", ""]
    print_rows(head, [[name, *["100.00"] * 26, f"refused: {name}"]], right=range(1, 27))
    assert [line.count(name) for line in capsys.readouterr().out.splitlines()][1:] == [1, 1]


@pytest.mark.parametrize("kind", ["strategies", "evaluators", "engines"])
def test_a_listing_without_broken_plug_ins_has_no_column_for_them(capsys, monkeypatch, kind):
    monkeypatch.setattr("sys.argv", ["soup", "list", kind])
    main()
    assert "broken" not in capsys.readouterr().out.splitlines()[0]


def test_a_plan_s_table_is_in_words_and_its_keys_are_json_s(capsys):
    plan = {
        "schema": 1,
        "read_bytes": 4_800_720,
        "decomposition_seconds": 130.0,
        "questions_about": 12_000,
        "hours_about": 15.5,
        "evaluations_at_most": 13,
        "evaluations_per_seed_at_most": {"greedy": 13},
        "scored_before": 3,
        "warnings": ["none"],
    }
    print_plan(plan, as_json=True)
    assert json.loads(capsys.readouterr().out) == plan
    print_plan(plan, as_json=False)
    assert [re.split(r"\s{2,}", line.strip()) for line in capsys.readouterr().out.splitlines()[1:]] == [
        ["read", "4.80 MB"],
        ["decomposition", "about 2 min"],
        ["questions", "about 12,000"],
        ["hours", "about 15.5"],
        ["evaluations at most", "13"],
        ["evaluations per seed at most", "greedy 13"],
        ["scored before", "3"],
    ]


def test_an_error_reaches_the_terminal_escaped(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["soup", "inspect", str(tmp_path / "a\x1b[31m")])
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit):
            main()
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert r"a\u001b[31m: no such" in capsys.readouterr().err
