"""What a filter kept and dropped: low perplexity favours short, stock answers, so lengths and repetitions are shown."""

from __future__ import annotations

import base64
import html
import io
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from finetune.data.filtering import FilteredRows, RowFilter
from finetune.data.row_images import load_image
from finetune.data.rows import Picture
from soup.errors import FinetuneError
from soup.support.text import printable

__all__ = ["as_json", "as_page"]

BINS = 30
SHOWN = 6  # rows of each gallery
THUMBNAIL_PIXELS = 160
STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse}td,th{padding:.2rem .8rem;text-align:right}td:first-child,th:first-child{text-align:left}
figure{display:inline-block;vertical-align:top;width:11rem;margin:.5rem;overflow-wrap:anywhere}figcaption{font-size:13px}
img{max-width:10rem}.kept{fill:#2a7f4f}.dropped{fill:#c26a2d}svg{max-width:100%}"""


def as_json(task: RowFilter, table: FilteredRows) -> dict[str, Any]:
    """Give the report for machines; perplexities of the edges of the histogram's bins, counts between them."""
    kept, dropped = table.order[: table.kept], table.order[table.kept :]
    losses = table.losses[table.order]
    edges = np.linspace(losses[0], losses[-1], BINS + 1) if losses[0] < losses[-1] else losses[[0, 0]] + [0, 1e-6]
    reasons = Counter(table.failures.values())
    return {
        "schema": 1,
        "out": str(task.out),
        "rows": len(task.rows),
        "scored": len(table.order),
        "failed": len(table.failures),
        "failures": dict(reasons.most_common(20)),
        "kept": {"rows": len(kept), **_summary(table, kept)},
        "dropped": {"rows": len(dropped), **_summary(table, dropped)},
        "histogram": {
            "edges": [_perplexity(float(edge)) for edge in edges],
            "kept": np.histogram(table.losses[kept], edges)[0].tolist(),
            "dropped": np.histogram(table.losses[dropped], edges)[0].tolist(),
        },
        "gallery": {title: [_entry(task, table, i) for i in rows] for title, rows in _galleries(table).items()},
    }


def _summary(table: FilteredRows, rows: np.ndarray) -> dict[str, object]:
    """Perplexities, lengths and repetitions of some rows."""
    if not len(rows):
        return {}
    lengths = np.percentile(table.tokens[rows], [5, 25, 50, 75, 95]).round(1).tolist()
    ends = [_perplexity(float(table.losses[rows[i]])) for i in (0, -1)]
    counts = np.unique(table.answers[rows], return_counts=True)[1]
    return {
        "perplexity": ends,
        "tokens": dict(zip(("p5", "p25", "median", "p75", "p95"), lengths, strict=True)),
        "repeated_answers": int(len(rows) - len(counts)),
        "most_repeated": int(counts.max()),
    }


def _perplexity(loss: float) -> float | None:
    return math.exp(loss) if loss < 700 else None


def _galleries(table: FilteredRows) -> dict[str, list[int]]:
    order, kept = table.order.tolist(), table.kept
    return {
        "likeliest": order[:SHOWN],
        "last kept": order[max(0, kept - SHOWN) : kept],
        "first dropped": order[kept : kept + SHOWN],
        "least likely": order[kept:][-SHOWN:],
    }


def _entry(task: RowFilter, table: FilteredRows, i: int) -> dict[str, object]:
    exchange = task.exchange(i)
    values = {"perplexity": _perplexity(float(table.losses[i])), "tokens": int(table.tokens[i])}
    return {"row": i, "where": task.rows.where(i), **values, "question": exchange.question, "answer": exchange.answer}


def as_page(task: RowFilter, report: dict[str, Any]) -> str:
    """Give the report as one HTML page that needs no other file."""
    failed = "".join(f"<li>{_text(reason)}: {count:,}</li>" for reason, count in report["failures"].items())
    galleries = "".join(
        f"<h2>{title.capitalize()}</h2>{''.join(_figure(task, entry) for entry in entries)}"
        for title, entries in report["gallery"].items()
    )
    return (
        f"<!doctype html><meta charset=utf-8><title>Filter by perplexity</title><style>{STYLE}</style>"
        f"<h1>Filter by perplexity</h1><p>{report['rows']:,} rows, {report['scored']:,} scored, "
        f"{report['kept']['rows']:,} kept, {report['failed']:,} without a score.</p>{_histogram(report['histogram'])}"
        f"{_table(report)}{f'<h2>Without a score</h2><ul>{failed}</ul>' if failed else ''}{galleries}\n"
    )


def _histogram(histogram: dict[str, list[Any]]) -> str:
    """Bars of kept rows, and of dropped ones upon them, over the logarithm of the perplexity."""
    totals = [kept + dropped for kept, dropped in zip(histogram["kept"], histogram["dropped"], strict=True)]
    width, unit, bars = 900 / len(totals), 200 / max(totals), []
    for k, kept in enumerate(histogram["kept"]):
        top = 210.0
        for name, count in (("kept", kept), ("dropped", histogram["dropped"][k])):
            top -= count * unit
            size = f'x="{k * width:.1f}" y="{top:.1f}" width="{width - 1:.1f}" height="{count * unit:.1f}"'
            bars.append(f'<rect class="{name}" {size}><title>{name}: {count:,}</title></rect>' if count else "")
    ends = [_number(histogram["edges"][i]) for i in (0, -1)]
    return (
        f'<svg viewBox="0 0 900 240" role="img" aria-label="perplexities">{"".join(bars)}<text x="0" y="232">{ends[0]}'
        f'</text><text x="900" y="232" text-anchor="end">{ends[1]}</text></svg><p>Rows by perplexity, on a logarithmic '
        'scale: <b style="color:#2a7f4f">kept</b>, <b style="color:#c26a2d">dropped</b>.</p>'
    )


def _table(report: dict[str, Any]) -> str:
    head = ["", "rows", "perplexity", "tokens, median", "5 % to 95 %", "repeated answers", "most often"]
    lines = [_cells("th", head)]
    for name in ("kept", "dropped"):
        part = report[name]
        if not part["rows"]:
            continue
        tokens, ends = part["tokens"], [_number(value) for value in part["perplexity"]]
        lengths = [f"{tokens['median']:g}", f"{tokens['p5']:g} to {tokens['p95']:g}"]
        repeated = [f"{part['repeated_answers']:,}", f"{part['most_repeated']:,}"]
        lines.append(_cells("td", [name, f"{part['rows']:,}", " to ".join(ends), *lengths, *repeated]))
    return f"<table>{''.join(lines)}</table>"


def _cells(tag: str, texts: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{text}</{tag}>' for text in texts)}</tr>"


def _figure(task: RowFilter, entry: dict[str, Any]) -> str:
    pictures = "".join(_thumbnail(picture) for picture in task.exchange(entry["row"]).pictures[:1])
    numbers = f"<b>{_number(entry['perplexity'])}</b>, {entry['tokens']} tokens"
    return f"<figure>{pictures}<figcaption>{numbers}<br>{_text(entry['answer'][:400])}</figcaption></figure>"


def _thumbnail(picture: Picture) -> str:
    try:
        image = load_image(picture)
    except (FinetuneError, OSError):
        return "<p>(the picture can't be read)</p>"
    assert isinstance(image, Image.Image), "rows with videos are not scored"
    image.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'


def _number(value: float | None) -> str:
    return "over 1e300" if value is None else f"{value:,.4g}"


def _text(text: str) -> str:
    return html.escape(printable(text))
