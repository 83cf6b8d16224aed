"""How logs end, as errors show them."""

from __future__ import annotations

from soup.support.log_ends import LINES, last_lines, log_tail


def test_the_last_lines_of_a_log_are_shown_without_reading_it_all(tmp_path):
    log = tmp_path / "log.txt"
    log.write_bytes(b"".join(b"line %d\n" % number for number in range(100_000)) + b"\xff end\n\n")
    assert last_lines(log, 2) == ["line 99999", "\ufffd end"]
    assert len(last_lines(log)) == LINES
    assert log_tail(log).splitlines()[:1] == [f" Log: {log}, which ends:"]
    assert log_tail(log).endswith("\nline 99999\n\ufffd end")


def test_a_log_that_is_not_there_or_empty_ends_in_nothing(tmp_path):
    assert last_lines(tmp_path / "none.txt") == []
    (tmp_path / "empty.txt").touch()
    assert last_lines(tmp_path / "empty.txt") == []
    assert log_tail(tmp_path / "none.txt") == f" Log: {tmp_path / 'none.txt'}, which ends:\n"


def test_of_one_long_line_the_end_is_shown(tmp_path):
    (tmp_path / "log.txt").write_text("a" * 100_000 + "b")
    [line] = last_lines(tmp_path / "log.txt")
    assert line.endswith("ab")
    assert len(line) < 4000
