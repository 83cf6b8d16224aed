"""A notebook's cell shows the board as an output that changes; its last state stays."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.text import Text

from soup.board.displays import NotebookDisplay
from tests.helpers.toy_pools import make_judge, make_pool

ROOT = Path(__file__).parents[2]


def test_a_search_in_a_notebook_shows_one_board_and_its_last_state(tmp_path, monkeypatch):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    make_pool(tmp_path / "ckpts")
    make_judge(tmp_path / "judge")
    code = "import soup\nmade = soup.cook('greedy', 'ckpts', eval='python:judge/judge.py:score', out='out')"
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    client = nbclient.NotebookClient(book, timeout=120, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    [board] = [output for output in book.cells[0].outputs if output["output_type"] == "display_data"]
    text = board["data"]["text/plain"].splitlines()
    assert text[0] == "greedy: 7 of at most 7 evaluations"
    assert text[-1].startswith("best so far: b + c 99.94, ")
    assert "<pre" in board["data"]["text/html"]
    assert [each for each in book.cells[0].outputs if each is not board] == []


def test_a_board_that_has_nothing_to_show_adds_no_output_to_the_cell(monkeypatch):
    display = pytest.importorskip("IPython.display")
    shown, updates = [], []

    class Handle:
        def update(self, drawn):
            updates.append(drawn)

    monkeypatch.setattr(display, "display", lambda drawn, display_id: shown.append(drawn) or Handle())
    monkeypatch.setattr("soup.board.displays.NOTEBOOK_SECONDS", 60.0)
    lines = []
    board = NotebookDisplay(lambda width, height: lines)
    board.start()
    board.stop()
    assert (shown, updates) == ([], [])
    lines.append(Text("1 of 2"))
    board.stop()
    board.stop()
    assert (len(shown), len(updates)) == (1, 1)
