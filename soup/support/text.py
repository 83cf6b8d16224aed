"""Text for people: lists in error messages, plurals, the nearest known name, byte counts."""

from __future__ import annotations

import difflib
import itertools
import math
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

__all__ = [
    "bullet_list",
    "did_you_mean",
    "format_bytes",
    "format_duration",
    "format_rate",
    "has_secret",
    "is_possible_path",
    "markdown_code",
    "markdown_table",
    "markdown_text",
    "mask_secrets",
    "near_names",
    "pluralize",
    "printable",
    "public_text",
    "reason_of",
    "short_labels",
    "whole_characters",
    "without_secrets",
]


AND = " + "
"""Between the names of a soup's ingredients."""
MAX_PATH_BYTES = 3_000
MOST_NAMES = 200  # that an error lists
NEAREST_NAMES = 10  # that it lists where there are more


def bullet_list(items: Iterable[str], most: int = 20) -> str:
    """Format items as indented lines: the first `most` of them, and then how many were left out.

    The further lines of an item, which may be a list of its own, stand below its first.
    """
    lines = list(items)
    shown = ["  - " + line.replace("\n", "\n    ") for line in lines[:most]]
    if len(lines) > most:
        shown.append(f"  - ... and {len(lines) - most} more")
    return "\n".join(shown)


def reason_of(error: BaseException, source: object) -> str:
    """Return an error's words for a sentence that says where it was: without that source, and without a full stop."""
    text = f"no {error}" if isinstance(error, KeyError) else str(error)
    return text.removeprefix(f"{source}: ").removesuffix(".")


def short_labels(labels: Sequence[str], most: int) -> list[str]:
    """Return labels as a picture shows them, in at most so many characters, and different as long as they can be.

    If one is longer, what the names of all begin or end with is left out of each, by whole words; what is still too
    long is cut in the middle.

    Args:
        labels: Names, or names joined by ` + `.
        most: Characters.
    """
    shown = [printable(label) for label in labels]
    if all(len(label) <= most for label in shown):
        return shown
    names = list(dict.fromkeys(name for label in shown for name in label.split(AND)))
    short = dict(zip(names, _without_common_ends(names), strict=True))
    return [_cut_middle(AND.join(short[name] for name in label.split(AND)), most) for label in shown]


def _without_common_ends(names: Sequence[str]) -> list[str]:
    shortest = min(map(len, names))
    begin = _common_length([re.split(r"(?<=[\W_])", name) for name in names])
    end = _common_length([re.split(r"(?=[\W_])", name)[::-1] for name in names])
    begin, end = (length if 3 < length < shortest else 0 for length in (begin, end))
    end = end if begin + end < shortest else 0
    return [f"{'...' * bool(begin)}{name[begin : len(name) - end]}{'...' * bool(end)}" for name in names]


def _common_length(words: Sequence[Sequence[str]]) -> int:
    """Return how many characters the first words have that are the same in all."""
    common = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*words, strict=False))
    return sum(len(column[0]) for column in common)


def _cut_middle(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    tail = (most - 3) // 2
    return f"{text[: most - 3 - tail]}...{text[-tail:]}"


def pluralize(count: float, noun: str) -> str:
    """Format a count with its noun: `1 problem`, `2 replies`, `0.5 seconds`."""
    plural = f"{noun[:-1]}ies" if re.search("[^aeiou]y$", noun) else f"{noun}s"
    return f"{count if isinstance(count, int) else f'{count:g}'} {noun if count == 1 else plural}"


def near_names(word: str, known: Iterable[str], cutoff: float = 0.5, count: int = 1) -> list[str]:
    """Return the known names that are nearest to a word, the nearest first; nothing where none is near.

    Names of the same letters and digits come first, whatever stands between them and in whatever case.

    Args:
        word: What was typed.
        known: The names.
        cutoff: How near another one must be, 0 to 1.
        count: How many are returned at most.
    """
    names = sorted(known)
    same = [name for name in names if _letters(name) == _letters(word)]
    by_sight = sorted(same, key=lambda name: difflib.SequenceMatcher(None, word, name).ratio(), reverse=True)
    in_lower_case = {name.lower(): name for name in reversed(names)}
    near = difflib.get_close_matches(word.lower(), in_lower_case, count, cutoff)
    return list(dict.fromkeys([*by_sight, *(in_lower_case[name] for name in near)]))[:count]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Format the end of an error about an unknown name: ` Did you mean 'x'? Known: x, y, z.`

    The question is left out where no known name is near; of more names than a person reads, the nearest are listed.
    """
    names = sorted(known)
    near = near_names(word, names, count=1 if len(names) <= MOST_NAMES else NEAREST_NAMES)
    question = f" Did you mean '{near[0]}'?" if near else ""
    if len(names) <= MOST_NAMES:
        return f"{question} Known: {', '.join(names) or 'none'}."
    return f"{question} Known: {', '.join([*near[1:], f'{len(names) - len(near[1:]):,} more'])}."


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name)).lower()


def whole_characters(text: str) -> str:
    """Return a text with `?` for each half of a surrogate pair, which no file holds: models cut characters in two."""
    return text.encode("utf-8", "replace").decode()


def format_bytes(count: int) -> str:
    """Format a number of bytes in decimal units: `1.24 GB`."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.2f} {unit}"
        value /= 1000
    return f"{value:.2f} TB"


def format_duration(seconds: float) -> str:
    """Format a duration: `12 s`, `5 min`, `3 h 05 min`, `2 d 4 h`; never `1 min`, which could be 30 s or 89.

    `?` for one without end.
    """
    if not math.isfinite(seconds):
        return "?"
    whole_seconds = round(seconds)
    if whole_seconds < 90:
        return f"{whole_seconds} s"
    minutes = round(whole_seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    days, hours = divmod(round(minutes / 60), 24)
    return f"{days} d {hours} h"


def is_possible_path(text: str) -> bool:
    """Whether a file system may hold a path by this text: a name has at most 255 bytes, and none is NUL.

    A path has at most 4,096 bytes, of which a quarter is left to the folder that it is in.
    """
    try:
        if "\0" in text or len(os.fsencode(text)) > MAX_PATH_BYTES:
            return False
        return all(len(os.fsencode(part)) <= 255 for part in PurePath(text).parts)
    except UnicodeEncodeError:
        return False


_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str, keep: str = "") -> str:
    """Escape what a terminal or a page would act on: control characters, changes of direction, half surrogate pairs.

    Args:
        text: Any text, such as the name of a folder or a tensor.
        keep: Characters to leave as they are, such as a line's end.
    """
    return _UNPRINTABLE.sub(lambda match: match[0] if match[0] in keep else _escape(match[0]), text)


def markdown_text(text: str) -> str:
    """Escape a name for the text or a table of a Markdown page, which then shows it as it is."""
    return re.sub(r"([\\`|<\[\]*~&]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", printable(text))


def markdown_code(text: str) -> str:
    """Format a name as code on a Markdown page: between more backticks than it has in a row."""
    shown = printable(text)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    space = " " if shown.strip() and (shown[0] in " `" or shown[-1] in " `") else ""  # which Markdown takes off again
    return f"{fence}{space}{shown}{space}{fence}"


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Collection[int] = ()) -> str:
    """Format a table of a Markdown page.

    Args:
        head: The columns' titles.
        rows: The cells of each row, which may be Markdown: see `markdown_text`.
        numbers: The columns that stand to the right.
    """
    rule = ["--:" if column in numbers else "---" for column in range(len(head))]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in ([*map(markdown_text, head)], rule, *rows))


def _escape(character: str) -> str:
    return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character, f"\\u{ord(character):04x}")


_SECRETS = re.compile(
    r"""\b(?:sk|pk|rk)-[\w-]{16,}|\bhf_\w{16,}|\bgh[opsu]_\w{16,}|\bgithub_pat_\w{16,}|\bxox[a-z]-[\w-]{10,}"""
    r"""|\bAKIA[0-9A-Z]{16}\b|\bAIza[\w-]{30,}|\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*"""
    r"""|(?i:(?<=bearer )[^\s"'$]{8,}|(?<=://)[^\s/@"'$:]*:[^\s/@"'$]+(?=@))"""
)
_NAMED_SECRET = re.compile(
    r"""(?i)((?:api|access|auth|secret|private)[-_]?(?:key|token)|\btoken|_token|(?-i:[A-Z]_KEY(?==))|passw(?:or)?d|secret)"""
    r"""(["']?(?:\s*[=:]\s*|\s+)["']?)([^\s"'${}][^\s"'{}]{7,})"""
)


def has_secret(text: str) -> bool:
    """Whether a text holds what has the form of a key or a password, whatever it is called."""
    return _SECRETS.search(text) is not None


def without_secrets(text: str) -> str:
    """Replace by *** what looks like a key or a password in a command line; variables (`$KEY`) stay."""
    return _NAMED_SECRET.sub(r"\1\2***", _SECRETS.sub("***", text))


def mask_secrets(value: Any) -> Any:
    """Return JSON values with `without_secrets` of all texts in them, and of what a name tells to be a secret."""
    if isinstance(value, Mapping):
        named = {key: f"{key}={item}" for key, item in value.items() if isinstance(item, str)}
        return {
            key: without_secrets(named[key])[len(str(key)) + 1 :] if key in named else mask_secrets(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [mask_secrets(item) for item in value]
    return without_secrets(value) if isinstance(value, str) else value


_PATH = re.compile(r"(?<![\w/.~])(?:~|\.\.?)?/(?!/)(?:[^\s/:,'\"<>|]+/)*([^\s/:,'\"<>|]+)/?")


def public_text(text: str) -> str:
    """Return a text that holds no secret, and of paths of this machine the last name alone."""
    return _PATH.sub(r"\1", without_secrets(text))


def format_rate(a_second: float) -> str:
    """Return how many a second in three digits, or whole: `2.83`, `64.1`, `1,020`."""
    return f"{a_second:,.0f}" if a_second >= 100 else f"{a_second:.3g}"
