"""Turn a notebook that holds its outputs into a page."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TABLE = re.compile(r"<table [^>]*>")


def page_of(notebook: Path) -> str:
    """Return the cells of a notebook, with their outputs, as Markdown."""
    parts: list[str] = []
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        parts += outputs_of(cell)
    return "\n\n".join(parts) + "\n"


def outputs_of(cell: dict[str, Any]) -> Iterator[str]:
    """Yield what a cell gave: pictures and tables as such, all else as text."""
    for output in cell.get("outputs", []):
        data = {kind: "".join(value) for kind, value in output.get("data", {}).items()}
        if picture := data.get("image/svg+xml"):
            encoded = base64.b64encode(picture.encode()).decode()
            words = html.escape("".join(cell["source"]).strip().splitlines()[-1], quote=True)
            yield f'<p><img alt="{words}" src="data:image/svg+xml;base64,{encoded}"></p>'
        elif table := data.get("text/html"):
            yield f"<div>{TABLE.sub('<table>', table)}</div>"  # then it looks and scrolls as those of other pages
        else:
            yield f"```text\n{(data.get('text/plain') or ''.join(output.get('text', ''))).rstrip()}\n```"
