"""Downloads of the Hub's client: who hears of them, and what an interrupt does."""

from __future__ import annotations

import os
import signal
import time

import pytest

from soup.checkpoints.hub_downloads import listening_to_downloads, run_download

PIECES = 3_000


def test_an_interrupt_ends_a_download_at_its_next_piece():
    pieces = []

    def download(bar):
        shown = bar(total=PIECES, unit="B", disable=True)
        os.kill(os.getpid(), signal.SIGINT)
        for piece in range(PIECES):
            time.sleep(0.01)
            shown.update(1)
            pieces.append(piece)

    with pytest.raises(KeyboardInterrupt):
        run_download("a", download)
    assert len(pieces) < PIECES


def test_bytes_are_told_to_who_listens_and_nothing_is_drawn(capsys):
    calls = []

    def download(bar):
        with bar(desc="Fetching 2 files", total=2) as files, bar(unit="B", total=0) as shown:
            for _ in range(2):
                shown.total += 10
                shown.update(10)
                files.update(1)
        return "there"

    with listening_to_downloads(lambda *args: calls.append(args)):
        assert run_download("a@v1", download) == "there"
    assert calls == [("a@v1", 10, 10), ("a@v1", 20, 20)]
    assert capsys.readouterr().err == ""


def test_where_nobody_listens_the_client_draws_its_own_bars(capsys):
    def download(bar):
        with bar(unit="B", total=10, desc="the bar", disable=False) as shown:
            shown.update(10)

    run_download("a", download)
    assert "the bar: 100%" in capsys.readouterr().err


def test_what_a_download_raises_is_raised():
    def download(bar):
        raise OSError("no such thing")

    with pytest.raises(OSError, match="no such thing"):
        run_download("a", download)
