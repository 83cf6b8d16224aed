"""How many answers are none by their form: no option is named, or neither yes nor no is said."""

from __future__ import annotations

from collections.abc import Callable
from string import ascii_uppercase
from typing import Any

from evaluators.vlmeval.library_types import Frame, Row
from evaluators.vlmeval.light_import import vlmeval_module

__all__ = ["LOST", "unparsed_share"]

LOST = "Z"  # VLMEvalKit's letter for "none of the options": stands for rotations of a question that is lost already


def unparsed_share(metric: str, frame: Frame, known: dict[tuple[Any, str], bool | None]) -> float | None:
    """Return the share of answers in which VLMEvalKit's matching, without a judge, finds none.

    Args:
        metric: The benchmark's, by its name in `METRICS`.
        frame: The data set with its predictions.
        known: What was found before, by the row's label and the answer; what is new is added.

    Returns:
        None for metrics that take any text, and where no question has options.
    """
    is_parsed = _PARSERS.get(metric)
    if is_parsed is None:
        return None
    columns = [name for name in frame if name in ascii_uppercase or name == "prediction"]  # what VLMEvalKit looks at
    answers = [pair for pair in zip(frame.index, frame["prediction"], strict=True) if pair[1] != LOST]
    new = [answer for answer in answers if answer not in known]
    rows = frame.loc[[label for label, _ in new], columns].to_dict("records")
    known |= {answer: is_parsed(row) for answer, row in zip(new, rows, strict=True)}
    parsed = [result for answer in answers if (result := known[answer]) is not None]
    return parsed.count(False) / len(parsed) if parsed else None


def _names_option(row: Row) -> bool | None:
    """Whether an option's letter or words are in the answer; None for a question without options."""
    library = vlmeval_module("dataset.utils.multiple_choice")
    choices = library.build_choices(row)
    return bool(library.can_infer(row["prediction"], choices)) if len(choices) > 1 else None


def _says_yes_or_no(row: Row) -> bool:
    return bool(vlmeval_module("dataset.utils.yorn").YOrN_Extraction(row["prediction"]) != "Unknown")


_PARSERS: dict[str, Callable[[Row], bool | None]] = {
    "circular": _names_option,
    "choices": _names_option,
    "yes_no": _says_yes_or_no,
    "rated_yes_no": _says_yes_or_no,
}
