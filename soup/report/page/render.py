"""A report's document as a page that needs nothing else: styles, script, charts and data in one file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from soup.errors import OutputError
from soup.report.page.charts import scale_of
from soup.support.atomic_files import write_atomic
from soup.support.options import option_name
from soup.support.text import format_bytes, format_duration, pluralize, printable, short_labels

__all__ = ["refuse_page", "render_page", "write_report"]

SUFFIXES = (".html", ".htm")
NUMBERS_START = b'{\n "schema": 1,\n "kind": "'
"""How the numbers of every page begin, and no other file of a run, study or arena."""


def write_report(document: Mapping[str, object], path: Path) -> Path:
    """Write the page, and its numbers beside it in a file of the same name that ends in `.json`; return that one.

    Args:
        document: What `run_document` or another of its kind gives.
        path: Where the page goes; an earlier page and its numbers are replaced.

    Raises:
        OutputError: see `refuse_page`.
    """
    refuse_page(path)
    numbers = path.with_suffix(".json")
    write_atomic(path, render_page(document))
    write_atomic(numbers, json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    return numbers


def refuse_page(path: Path) -> None:
    """Refuse before any work a name that is no page's, and one whose numbers would replace what no report wrote.

    Raises:
        OutputError: another suffix, or another file (`arena.json`, `pool.json`, `config.json`) beside it.
    """
    name, numbers = option_name("html"), path.with_suffix(".json")
    if path.suffix.lower() not in SUFFIXES:
        raise OutputError(f"{name} {path}: expected a file that ends in {', '.join(SUFFIXES)}.")
    if not numbers.is_file():
        return
    with numbers.open("rb") as file:
        if file.read(len(NUMBERS_START)) not in (b"", NUMBERS_START):
            raise OutputError(
                f"{name} {path}: its numbers would go into {numbers}, which no report wrote. Choose another name."
            )


def render_page(document: Mapping[str, object]) -> str:
    """Return the page as HTML."""
    environment = Environment(
        loader=PackageLoader("soup.report.page"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: printable(value, "\n\t") if type(value) is str else value,
    )
    environment.filters |= {
        "number": _number,
        "pluralize": pluralize,
        "signed": lambda value, digits=2: _number(value, digits, "+"),
        "bytes": format_bytes,
        "duration": format_duration,
        "script_json": _script_json,
        "short_labels": short_labels,
    }
    environment.globals |= {"scale_of": scale_of, "axis": _axis, "source": _source(environment)}
    return environment.get_template("report.html.jinja").render(document)


def _source(environment: Environment) -> object:
    """Return what puts a file of the templates onto the page as it is."""
    assert environment.loader is not None
    loader = environment.loader
    return lambda name: Markup(loader.get_source(environment, name)[0])  # files of this package


def _axis(curves: Mapping[str, Iterable[tuple[float, float]]], index: int) -> list[float]:
    """Return one coordinate of all points of curves."""
    return [point[index] for points in curves.values() for point in points]


def _number(value: float | None, digits: int = 2, sign: str = "") -> str:
    if value is None or not math.isfinite(value):
        return ""
    text = f"{value:{sign}.{digits}f}"
    return text.replace("-", "\N{MINUS SIGN}") if float(text) else text.lstrip("+-")


def _script_json(value: Iterable[object]) -> Markup:
    """Return JSON that no text in it can end the script element of."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))
