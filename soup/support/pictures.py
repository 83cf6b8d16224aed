"""Pictures as files (png, svg, pdf) or for a notebook, by matplotlib without pyplot, so that no state stays behind."""

from __future__ import annotations

import importlib
import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soup.errors import OutputError
from soup.support.atomic_files import write_atomic
from soup.support.extras import install_line
from soup.support.options import option_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "RULE",
    "SOFT",
    "TEXT",
    "Picture",
    "Target",
    "dot_style",
    "draw",
    "draw_figure",
    "line_style",
    "refuse_picture",
]

DATES: dict[str, dict[str, None]] = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
"""The formats, and what is left out of them so that equal pictures are equal files."""
COLOURS = ("#0a5fb4", "#a2510a", "#116329", "#8250df", "#a40e26", "#0b6e6e", "#7a5b00", "#555d66")
"""Those of the report's page."""
MARKERS, DASHES = "os^Dv", ("-", "--", ":", "-.")
TEXT, SOFT, RULE = "#1b1f24", "#555d66", "#d5d9de"
STYLE = {
    "text.parse_math": False,  # a name with a $ is no formula
    "svg.hashsalt": "soup",
    "font.size": 9.0,
    "text.color": TEXT,
    "axes.labelcolor": TEXT,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.prop_cycle": f"cycler('color', {list(COLOURS)})",
    "axes.edgecolor": SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": TEXT,
    "ytick.labelcolor": TEXT,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
}


class Picture:
    """A picture in memory, which a notebook shows."""

    svg: str = ""

    def __repr__(self) -> str:
        return "<Picture>"

    def _repr_svg_(self) -> str:
        return self.svg


Target = str | Path | Picture
"""Where a picture goes: a file, or memory."""


def draw(drawing: Callable[[Target], None], path: str | Path | None) -> Picture | None:
    """Draw into a file, or without one into a picture that is returned.

    Args:
        drawing: What draws, given where to.
        path: The file.
    """
    if path is not None:
        drawing(path)
        return None
    picture = Picture()
    drawing(picture)
    return picture


def dot_style(number: int) -> dict[str, str]:
    """Return the colour and marker of the dots of a benchmark or model; beyond the colours markers tell them apart."""
    turn, color = divmod(number, len(COLOURS))
    return {"color": COLOURS[color], "marker": MARKERS[turn % len(MARKERS)]}


def line_style(number: int) -> dict[str, str]:
    """Return the colour and dashes of a line; beyond the colours dashes tell them apart."""
    turn, color = divmod(number, len(COLOURS))
    return {"color": COLOURS[color], "linestyle": DASHES[turn % len(DASHES)]}


def refuse_picture(path: Path) -> None:
    """Refuse before any work what would stop a picture at its end.

    Raises:
        OutputError: another suffix, a folder, or no matplotlib.
    """
    name = option_name("plot")
    if path.suffix.lower() not in DATES:
        raise OutputError(f"{name} {path}: expected a file that ends in {', '.join(DATES)}.")
    if path.is_dir():
        raise OutputError(f"{name} {path}: a folder lies there. Choose another name.")
    _refuse_without_matplotlib()


def _refuse_without_matplotlib() -> None:
    try:
        importlib.import_module("matplotlib")
    except ImportError as cause:
        raise OutputError(
            f"{option_name('plot')} needs matplotlib, not importable here ({cause}): {install_line('matplotlib')}."
        ) from cause


@contextmanager
def draw_figure(target: Target, width: float, height: float) -> Iterator[Figure]:
    """Give an empty figure to draw on, and write it to its target afterwards, whole or not at all.

    Args:
        target: Where it goes; an earlier file is replaced.
        width: In inches.
        height: In inches.

    Raises:
        OutputError: see `refuse_picture`.
    """
    if isinstance(target, Picture):
        _refuse_without_matplotlib()
    else:
        refuse_picture(Path(target))
    import matplotlib as mpl
    from matplotlib.figure import Figure

    in_memory = isinstance(target, Picture)
    with mpl.rc_context(STYLE | ({"svg.fonttype": "none"} if in_memory else {})), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # of a name in a script that the font lacks: a box stands for it
        figure: Any = Figure(figsize=(width, height), layout="constrained")
        yield figure
        suffix, image = ".svg" if isinstance(target, Picture) else Path(target).suffix.lower(), io.BytesIO()
        figure.savefig(image, format=suffix[1:], dpi=150, bbox_inches="tight", metadata=DATES[suffix])
    if isinstance(target, Picture):
        target.svg = image.getvalue().decode()
    else:
        write_atomic(Path(target), image.getvalue())
