"""Names for objects of VLMEvalKit and pandas, which a type checker knows nothing of, and for columns of images."""

from __future__ import annotations

from typing import Any

__all__ = ["IMAGE_COLUMNS", "DataSet", "Frame", "Row"]

DataSet = Any
"""VLMEvalKit's data set: its rows are the frame `data`, its prompts come from `build_prompt(row)`."""

Frame = Any
"""A table of pandas."""

Row = Any
"""A row of such a table, which VLMEvalKit takes as a dictionary or as pandas' own."""

IMAGE_COLUMNS = ("image", "image_2", "image1", "image2", "image_a", "image_b")
"""Columns of images as base64: the one of nearly all tables, and those of three whose prompts show two images."""
