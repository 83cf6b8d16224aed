"""Options and answers as the file has them, where pandas reads something else and the right answer would be wrong.

Pandas takes the texts `None`, `NA`, `null` and their like for missing. An option of that text is not shown, and where
it is the right one no answer is right. VLMEvalKit also compares letters as they stand, so that none is ever `c`. Such
rows are put right; all others stay as VLMEvalKit reads them, wrong options that read `None` among them.
"""

from __future__ import annotations

import string
from pathlib import Path

from evaluators.vlmeval.benchmarks import VLMEvalBenchmark
from evaluators.vlmeval.library_types import Frame
from soup.support.text import pluralize

__all__ = [
    "lost_rows_fault",
    "lost_rows_remark",
    "mend_right_options",
    "mended_rows_remark",
    "rows_without_a_right_answer",
]

LETTERS = string.ascii_uppercase
METRICS_BY_LETTER = ("circular", "choices")
METRICS_BY_WORD = ("yes_no", "rated_yes_no")
SHOWN_ROWS = 10
SHOWN_CHARACTERS = 64


def mend_right_options(benchmark: VLMEvalBenchmark, frame: Frame, path: Path) -> tuple[Frame, tuple[str, ...]]:
    """Put right options and letters back as they are meant; return the frame, and the indices of the rows mended.

    Args:
        benchmark: Whose data set.
        frame: The table as VLMEvalKit reads it.
        path: Its file.
    """
    if benchmark.metric not in METRICS_BY_LETTER:
        return frame, ()
    letters = [str(answer).strip().upper() for answer in frame["answer"]]
    missing = {letter: frame[letter].isna().tolist() for letter in LETTERS if letter in frame}
    suspects = [
        position
        for position, (letter, answer) in enumerate(zip(letters, frame["answer"], strict=True))
        if letter in missing and (answer != letter or missing[letter][position])
    ]
    if not suspects:
        return frame, ()
    written = _as_written(path)
    frame = frame.astype({name: object for name in frame.columns if name == "answer" or name in LETTERS})
    mended = []
    for position in suspects:
        row, letter = frame.index[position], letters[position]
        option = written.iloc[position][letter]
        if not option.strip():
            continue  # an open question, whose answer is that letter itself
        if missing[letter][position]:
            frame.loc[row, letter] = option
        frame.loc[row, "answer"] = letter
        mended.append(str(frame.loc[row, "index"]))
    return frame, tuple(mended)


def mended_rows_remark(benchmark: VLMEvalBenchmark, rows: tuple[str, ...]) -> str:
    """Say which rows of a benchmark's file were put right; nothing where none was."""
    if not rows:
        return ""
    return (
        f"{benchmark.name}: the right option of {pluralize(len(rows), 'row')} reads None, NA, null or the like, or its "
        f"letter is small ({_shown(rows)}). VLMEvalKit's own numbers count every answer to these rows as wrong; here "
        "the option is shown, and counts."
    )


def rows_without_a_right_answer(benchmark: VLMEvalBenchmark, frame: Frame) -> tuple[str, ...]:
    """Return the indices of rows of which no answer is right: theirs names no option that is shown, or no yes or no.

    Args:
        benchmark: Whose data set.
        frame: The rows that count, with right options as they are meant.
    """
    if benchmark.metric in METRICS_BY_WORD:
        words = [str(answer) for answer in frame["answer"]]
        has_answer = [(word.title() if benchmark.data_set == "AMBER" else word) in ("Yes", "No") for word in words]
    elif benchmark.metric in METRICS_BY_LETTER:
        letters = [letter for letter in LETTERS if letter in frame]
        shown = frame[letters].notna().to_dict("records")
        pairs = zip(frame["answer"], shown, strict=True)
        has_answer = [not any(options.values()) or options.get(str(answer), False) for answer, options in pairs]
    else:
        return ()
    return tuple(str(row) for row, is_given in zip(frame["index"], has_answer, strict=True) if not is_given)


def lost_rows_fault(benchmark: VLMEvalBenchmark, frame: Frame) -> str:
    """Say that no row has a right answer, with what its first one has."""
    expected = "Yes or No" if benchmark.metric in METRICS_BY_WORD else "the letter of an option that is there"
    first = frame.iloc[0]
    found = repr(str(first["answer"])[:SHOWN_CHARACTERS])
    return f"no answer would be right: expected in column answer {expected}, found {found} (row {first['index']})"


def lost_rows_remark(benchmark: VLMEvalBenchmark, rows: tuple[str, ...]) -> str:
    """Say which rows of a benchmark's file have no right answer; nothing where each has one."""
    if not rows:
        return ""
    what = "is neither Yes nor No" if benchmark.metric in METRICS_BY_WORD else "names no option that is there"
    return (
        f"{benchmark.name}: what stands as the right answer of {pluralize(len(rows), 'row')} {what} "
        f"({_shown(rows)}): any answer to these rows is wrong, as in VLMEvalKit."
    )


def _shown(rows: tuple[str, ...]) -> str:
    return f"index {', '.join(rows[:SHOWN_ROWS])}{', ...' if len(rows) > SHOWN_ROWS else ''}"


def _as_written(path: Path) -> Frame:
    """Read the options as texts, whatever they say."""
    from pandas import read_csv

    return read_csv(path, sep="\t", dtype=str, keep_default_na=False, usecols=lambda name: name in LETTERS)
