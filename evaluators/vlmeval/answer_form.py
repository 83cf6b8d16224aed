"""How many answers are none by their form: no option is named, or neither yes nor no is said."""

from __future__ import annotations

from collections.abc import Callable
from string import ascii_uppercase

from evaluators.vlmeval.library_types import Frame, Row
from evaluators.vlmeval.light_import import vlmeval_module

__all__ = ["LOST", "unparsed_share"]

LOST = "Z"  # VLMEvalKit's letter for "none of the options": stands for rotations of a question that is lost already


def unparsed_share(metric: str, frame: Frame) -> float | None:
    """Return the share of answers in which VLMEvalKit's matching, without a judge, finds none.

    Args:
        metric: The benchmark's, by its name in `METRICS`.
        frame: The data set with its predictions.

    Returns:
        None for metrics that take any text, and where no question has options.
    """
    is_parsed = _PARSERS.get(metric)
    if is_parsed is None:
        return None
    columns = [name for name in frame if name in ascii_uppercase or name == "prediction"]  # what VLMEvalKit looks at
    rows = [row for row in frame[columns].to_dict("records") if row["prediction"] != LOST]
    parsed = [result for row in rows if (result := is_parsed(row)) is not None]
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
