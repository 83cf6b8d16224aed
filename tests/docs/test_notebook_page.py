"""A notebook's page shows its cells and what they gave."""

from __future__ import annotations

import json
import runpy

from tests.docs.pages import ROOT

CELLS = [
    {"cell_type": "markdown", "source": ["# A soup\n", "in a notebook"]},
    {
        "cell_type": "code",
        "source": ["greedy.plot()"],
        "outputs": [
            {"data": {"image/svg+xml": ["<svg/>"], "text/plain": "a picture"}},
            {"data": {"text/html": '<table border="1" class="dataframe"></table>', "text/plain": "a table"}},
            {"data": {"text/plain": ["Soup(a + b)"]}},
            {"name": "stdout", "text": ["base 54.78\n"]},
        ],
    },
]


def test_cells_stand_in_their_order_with_pictures_tables_and_texts(tmp_path):
    (tmp_path / "n.ipynb").write_text(json.dumps({"cells": CELLS}))
    page = runpy.run_path(str(ROOT / "docs/hooks/notebook.py"))["page_of"](tmp_path / "n.ipynb")
    assert page.split("\n\n") == [
        "# A soup\nin a notebook",
        "```python\ngreedy.plot()\n```",
        '<p><img alt="greedy.plot()" src="data:image/svg+xml;base64,PHN2Zy8+"></p>',
        "<div><table></table></div>",
        "```text\nSoup(a + b)\n```",
        "```text\nbase 54.78\n```\n",
    ]
