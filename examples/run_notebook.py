"""Run examples/notebook.ipynb and write what came out into it: python examples/run_notebook.py."""

from __future__ import annotations

import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).with_name("notebook.ipynb")


def run_notebook(path: Path = NOTEBOOK) -> nbformat.NotebookNode:
    """Return the notebook with the outputs of a run in an empty folder; without times, so that equal runs are equal."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(notebook, timeout=300, record_timing=False, resources={"metadata": {"path": folder}})
        client.execute()
    notebook.metadata.pop("language_info", None)  # the version of Python that ran it
    return notebook


if __name__ == "__main__":
    nbformat.write(run_notebook(), NOTEBOOK)
