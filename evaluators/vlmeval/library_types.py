"""Names for objects of VLMEvalKit and pandas, which a type checker knows nothing of."""

from __future__ import annotations

from typing import Any

__all__ = ["DataSet", "Frame", "Row"]

DataSet = Any
"""VLMEvalKit's data set: its rows are the frame `data`, its prompts come from `build_prompt(row)`."""

Frame = Any
"""A table of pandas."""

Row = Any
"""A row of such a table, which VLMEvalKit takes as a dictionary or as pandas' own."""
