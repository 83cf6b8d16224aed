"""Lists, plurals, nearest names and byte counts in messages."""

from __future__ import annotations

import html
import math
import re

import pytest
from markdown_it import MarkdownIt

from soup.support.text import (
    bullet_list,
    did_you_mean,
    format_bytes,
    format_duration,
    format_rate,
    markdown_code,
    markdown_text,
    mask_secrets,
    near_names,
    pluralize,
    printable,
    short_labels,
    without_secrets,
)


def test_secrets_are_masked_in_json_values_by_their_form_and_by_their_names():
    key = "plantedsecret0123456789"
    values = {
        "api_key": key,
        "rows": [{"command": f"x --token {key}"}, 1, None, True],
        "tokenizer": "llama-2-tokenizer",
    }
    masked = {"api_key": "***", "rows": [{"command": "x --token ***"}, 1, None, True], "tokenizer": "llama-2-tokenizer"}
    assert mask_secrets(values) == masked


NAMES = [f"qwen2_5-vl-7b-instruct-lora-r64-{name}-epoch3" for name in ("docs", "mathv360k", "mathv360k-2")]


def test_labels_that_fit_are_whole():
    assert short_labels(["a-long-name-1", "a-long-name-2"], 13) == ["a-long-name-1", "a-long-name-2"]


def test_long_labels_leave_out_what_all_names_begin_and_end_with():
    assert short_labels(NAMES, 24) == ["...docs...", "...mathv360k...", "...mathv360k-2..."]
    assert short_labels([NAMES[0], f"{NAMES[0]} + {NAMES[1]}"], 40) == ["...docs...", "...docs... + ...mathv360k..."]
    assert short_labels(["model-a-b-b-c", "model-a-b-c"], 10) == ["...b-c", "...c"]


def test_labels_that_are_still_too_long_keep_both_ends():
    assert short_labels([f"{'a' * 30}-1", "b"], 11) == ["aaaa...aa-1", "b"]
    assert short_labels(["a" * 30], 11) == ["aaaa...aaaa"]
    assert [len(label) for label in short_labels([f"{i}-{'b' * 40}-{i}" for i in range(9)], 24)] == [24] * 9


def test_every_item_is_an_indented_line():
    assert bullet_list(["first", "second"]) == "  - first\n  - second"
    assert bullet_list([]) == ""
    assert bullet_list(["a:\n  - b\n  - c", "d"]) == "  - a:\n      - b\n      - c\n  - d"


def test_a_long_list_is_cut_and_says_how_many_were_left_out():
    assert bullet_list(iter("abcde"), most=3) == "  - a\n  - b\n  - c\n  - ... and 2 more"
    assert bullet_list("abc", most=3) == "  - a\n  - b\n  - c"


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 problems"), (1, "1 problem"), (1.0, "1 problem"), (0.5, "0.5 problems")]
)
def test_a_noun_is_plural_but_for_one(count, text):
    assert pluralize(count, "problem") == text


def test_a_noun_has_its_own_plural():
    assert [pluralize(2, noun) for noun in ("reply", "day", "key", "query")] == [
        "2 replies",
        "2 days",
        "2 keys",
        "2 queries",
    ]
    assert pluralize(1, "reply") == "1 reply"


def test_an_unknown_name_is_told_with_the_nearest_and_all_known_ones_sorted():
    assert did_you_mean("gredy", ["maximum", "greedy"]) == " Did you mean 'greedy'? Known: greedy, maximum."


@pytest.mark.parametrize("word", ["chart_qa_val", "ChartQA-VAL", "chartqaval", "CHART.QA VAL"])
def test_a_name_of_the_same_letters_is_the_nearest_whatever_stands_between_them(word):
    assert near_names(word, ["ChartQA_TEST", "ChartQA_VAL", "chartqb_val"]) == ["ChartQA_VAL"]


def test_of_names_that_differ_in_case_or_hyphens_alone_the_one_as_typed_is_the_nearest():
    twins = ["Ref-Bench_DEV", "Ref_Bench_dev", "Ref_Bench_DEV"]
    assert near_names("Ref-Bench-DEV", twins) == ["Ref-Bench_DEV"]
    assert near_names("ref_bench_dev", twins) == ["Ref_Bench_dev"]


def test_of_thousands_of_names_an_error_lists_the_nearest():
    message = did_you_mean("task-77", [f"task_{number}" for number in range(5000)])
    assert message.startswith(" Did you mean 'task_77'? Known: task_")
    assert message.endswith(", 4,991 more.")
    assert len(message) < 200


def test_no_name_is_suggested_where_none_is_near():
    assert did_you_mean("xyz", ["greedy"]) == " Known: greedy."
    assert did_you_mean("xyz", []) == " Known: none."


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (999_999, "1000.00 kB"),
        (1_240_000_000, "1.24 GB"),
        (5 * 10**12, "5.00 TB"),
        (5 * 10**15, "5000.00 TB"),
    ],
)
def test_bytes_are_told_in_decimal_units(count, text):
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("--api-key sk-abcdefghijklmnop1234", "--api-key ***"),
        ("OPENAI_API_KEY=sk-proj-abcdefghij0123 x", "OPENAI_API_KEY=*** x"),
        ("JUDGE_KEY=abcdef123 x", "JUDGE_KEY=*** x"),
        ("--token abcdef123456", "--token ***"),
        ("'Authorization: Bearer abcdefgh123'", "'Authorization: Bearer ***'"),
        ("https://me:pass@host/x", "https://***@host/x"),
        ("hf_abcdefghijklmnopqr", "***"),
    ],
)
def test_what_looks_like_a_secret_is_replaced(text, shown):
    assert without_secrets(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "--token $TOKEN",
        "KEY=${KEY}",
        "--tokenizer qwen/tokenizer",
        "--max-new-tokens 10000000",
        "--sort_key overall_score",
        "--token {checkpoint}",
        "python sk-learn.py",
        "python:judge.py:score",
        "https://host/a@b",
    ],
)
def test_what_is_no_secret_stays(text):
    assert without_secrets(text) == text


def test_a_password_without_a_user_is_replaced_too():
    assert without_secrets("redis://:password@host") == "redis://***@host"
    assert without_secrets("https://user:pass:word@host") == "https://***@host"


def test_a_long_line_is_searched_for_secrets_in_one_go():
    line = "://" + "a:" * 200_000  # each colon could end a user's name: the square of these would be hours
    assert without_secrets(line) == line


def test_what_a_terminal_would_act_on_is_escaped():
    name = "a\x1b[31m\n\r\u202e|\x9b\ud800 \u00e9\U0001f600"
    assert printable(name) == r"a\u001b[31m\n\r\u202e|\u009b\ud800 " + "\u00e9\U0001f600"
    assert printable("a\n\x1b", keep="\n") == "a\n" + r"\u001b"


def test_a_rate_has_three_digits_and_no_power_of_ten():
    assert [format_rate(rate) for rate in (2.8349, 64.12, 0.051, 640.4, 1020.6)] == [
        "2.83",
        "64.1",
        "0.051",
        "640",
        "1,021",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (32, "32 s"),
        (89.4, "89 s"),
        (89.6, "2 min"),
        (150, "2 min"),
        (7140, "119 min"),
        (7198, "2 h 00 min"),
        (11100, "3 h 05 min"),
        (172_200, "47 h 50 min"),
        (200_000, "2 d 8 h"),
        (math.inf, "?"),
    ],
)
def test_a_duration_has_two_of_days_hours_minutes_or_seconds_below_a_minute_and_a_half(seconds, text):
    assert format_duration(seconds) == text


ODD_NAMES = [
    *(
        "a`b",
        "`a",
        "a``b`",
        "`",
        "```",
        " a ",
        "*a*",
        r"a\*b*c*",
        "_a_",
        "a_b_c",
        "__init__",
        "~~a~~",
        "&amp;",
        "&#64;x",
    ),
    *("<b>", "[x](y)", "a|b", "a\\|b", "\\", "ckpt-1.5_x"),
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_markdown_page_shows_an_odd_name_as_it_is(name):
    page = MarkdownIt("commonmark").enable(["table", "strikethrough"])

    def shown(text, tag):
        (inner,) = re.findall(f"<{tag}>(.*)</{tag}>", page.render(text), re.DOTALL)
        assert "<" not in inner
        return html.unescape(inner)

    assert shown(f"| head |\n| --- |\n| {markdown_text(name)} |\n", "td") == name.strip()
    assert shown(f"It expects {markdown_code(name)} beside it.", "code") == name
