"""What VLMEvalKit said of rows and answers before: the candidates of a search answer most questions alike.

What it says of a row without a judge is a function of the row and the answer. So each data set keeps it, for as long as
it lives, and a candidate's score costs what is new in it.
"""

from __future__ import annotations

from typing import Any

from evaluators.vlmeval.library_types import DataSet

__all__ = ["known_results"]


def known_results(data_set: DataSet, kind: str) -> dict[Any, Any]:
    """Return what is known of one kind, by row and answer; parts of a data set share it with the whole.

    Args:
        data_set: VLMEvalKit's.
        kind: Of results that another function makes of the same.
    """
    if "known_results" not in vars(data_set):
        data_set.known_results = {}
    results: dict[Any, Any] = data_set.known_results.setdefault(kind, {})
    return results
