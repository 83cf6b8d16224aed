"""The notebook runs from its first cell to its last, and what stands in it is what comes out."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import nbformat
import pytest

from soup.support.plugins import load_object

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"


def outputs(notebook):
    """The texts of each code cell's outputs, without figures: another processor may round an answer otherwise."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            shown = [output.get("data", {"text/plain": output.get("text")}) for output in cell.outputs]
            texts = [
                (sorted(data), re.sub(r"\d+\.\d+|(?<=about )[\d,]+(?= a second)", "#", data["text/plain"]))
                for data in shown
                if data["text/plain"]  # a board of a busy machine may have shown something, and ended empty
            ]
            yield cell.source.splitlines()[0], texts


def test_the_notebook_s_outputs_are_those_of_a_run():
    run_notebook = load_object(f"{EXAMPLES}/run_notebook.py:run_notebook", "function", ValueError)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries that talk to the kernel
        ran = run_notebook()
    stored = nbformat.read(EXAMPLES / "notebook.ipynb", as_version=4)
    assert list(outputs(ran)) == list(outputs(stored))
    pictures = [output for cell in stored.cells for output in cell.get("outputs", []) if "image/svg+xml" in str(output)]
    assert len(pictures) == 3
