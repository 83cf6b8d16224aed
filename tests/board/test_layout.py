"""Tables that fit: no line is wider than it may be, and what is hidden is known."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len

from soup.board.layout import Row, cut, fit_rows, fit_table, short_names

NAMES = st.text(max_size=40)


@given(NAMES, st.integers(0, 60))
def test_a_cut_text_is_one_line_that_has_room_and_one_with_room_is_whole(text, width):
    shown = cut(text, width)
    assert cell_len(shown) <= width
    assert "\n" not in shown
    if text.isascii() and text.isprintable() and len(text) <= width:
        assert shown == text


def test_both_ends_of_a_cut_name_are_shown():
    assert cut("ingredient-number-01 + ingredient-number-17", 20) == "ingredien...umber-17"


@example(head=["", "", "", "", "", "000000", "000000000"], rows=[("", "0.00")], width=40)
@given(
    st.lists(NAMES, min_size=2, max_size=9),
    st.lists(st.tuples(st.text(max_size=90), st.floats(0, 100).map("{:.2f}".format)), min_size=1, max_size=5),
    st.integers(40, 120),
)
def test_no_line_of_a_table_is_wider_than_it_may_be(head, rows, width):
    rows = [Row([label, *[value] * (len(head) - 1)]) for label, value in rows]
    lines, hidden = fit_table(head, rows, width, kept=1 if cell_len(head[-1]) < 9 else 0)
    assert len(lines) == 1 + len(rows)
    assert all(line.cell_len <= width for line in lines)
    if not hidden:
        assert all(line.plain.count(row.texts[1]) >= len(head) - 1 for line, row in zip(lines[1:], rows, strict=True))


def test_columns_that_have_no_room_are_named_and_the_kept_ones_stay():
    head = ["model", *(f"benchmark {i}" for i in range(12)), "overall"]
    rows = [Row(["a + b", *["61.20"] * 13])]
    lines, hidden = fit_table(head, rows, 80, kept=1)
    assert hidden == [f"benchmark {i}" for i in range(8, 12)]
    assert lines[0].plain.endswith("overall")
    assert fit_table(head, rows, 300, kept=1)[1] == []


def test_room_that_is_left_goes_to_heads_that_are_cut():
    rows = [Row(["a", "1", "2"])]
    assert fit_table(["model", "hallusionbench", "mmbench"], rows, 80)[0][0].plain == "model  hallusionbench  mmbench"
    assert fit_table(["model", "hallusionbench", "mmbench"], rows, 24)[0][0].plain == "model  hal...ch  mmbench"


@pytest.mark.parametrize(("most", "shown"), [(5, [0, 1, 2, 3, 4]), (3, [0, 2, 4]), (1, [2]), (0, [2])])
def test_rows_that_matter_most_are_shown_in_their_order(most, shown):
    assert fit_rows([Row([], importance) for importance in (5, 1, 9, 2, 7)], most) == shown


def test_names_are_short_where_that_tells_them_apart():
    assert short_names(["python:judge.py:a", "python:judge.py:b", "mmbench"]) == ["a", "b", "mmbench"]
    assert short_names(["command:curl http://x:80/a"]) == ["command:curl http://x:80/a"]
    assert short_names(["python:x.py:a", "python:y.py:a"]) == ["python:x.py:a", "python:y.py:a"]
