"""The pictures of README.md, drawn from results/*.json into img/: what was never recorded is left out.

python benchmarks/draw.py
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt
from results import read

HERE = Path(__file__).parent
IMAGES = HERE / "img"
BEGIN, END = "<!-- what make bench draws -->\n", "<!-- end -->"
BLUE, BROWN, GREY = "#0b5cad", "#a3480b", "#6b7280"
# The same picture gives the same file; texts stay texts.
STYLE = {"svg.hashsalt": "soup", "svg.fonttype": "none", "axes.spines.top": False, "axes.spines.right": False}
STYLE |= {"font.size": 9, "axes.grid": True, "grid.alpha": 0.3, "legend.frameon": False}

Rows = Sequence[dict[str, Any]]


def draw_merge(rows: Rows, axes: Any) -> None:
    """Draw the time of a merge as a multiple of the floor, over sizes."""
    _lines(axes, _sizes(rows), [("soup_of_floor", "soup", BLUE), ("mergekit_of_floor", "mergekit 0.1.5", BROWN)])
    axes.axhline(1, color=GREY, linestyle="--", label="floor: read all once, write once")
    axes.set(yscale="log", xlabel="size of one of four models, GB", ylabel="time, of the floor")
    axes.set_title("Merging, against the floor of the machine")


def draw_memory(rows: Rows, axes: Any) -> None:
    """Draw the peak memory of a merge, over sizes."""
    _lines(axes, _sizes(rows), [("soup_mb", "soup", BLUE), ("mergekit_mb", "mergekit 0.1.5", BROWN)])
    axes.set(yscale="log", xlabel="size of one of four models, GB", ylabel="peak memory, MB")
    axes.set_title("Memory of a merge")


def draw_scaling(rows: Rows, axes: Any) -> None:
    """Draw the speed-up of a greedy search, over workers."""
    for k, color in ((7, BLUE), (16, BROWN)):
        _lines(axes, [row for row in rows if row["k"] == k], [("speed_up", f"{k} ingredients", color)], x="workers")
    most = max(row["workers"] for row in rows)
    axes.plot([1, most], [1, most], color=GREY, linestyle="--", label="as many times as workers")
    axes.set(xlabel="workers", ylabel="times as fast", title="A greedy search over workers (simulated time)")


def draw_disputed(rows: Rows, axes: Any) -> None:
    """Draw the share of questions that searches ask, by how much soups forget."""
    searches = list(dict.fromkeys(row["search"] for row in rows))
    shares = sorted({row["forgotten"] for row in rows})
    width = 0.8 / len(shares)
    for number, share in enumerate(shares):
        heights = [next((r["asked"] for r in rows if (r["search"], r["forgotten"]) == (s, share)), 0) for s in searches]
        positions = [index + (number - (len(shares) - 1) / 2) * width for index in range(len(searches))]
        shade = mpl.colormaps["Blues"](0.35 + 0.6 * number / max(1, len(shares) - 1))
        axes.bar(
            positions, [100 * height for height in heights], width, color=shade, label=f"{100 * share:g} % forgotten"
        )
    axes.axhline(100, color=GREY, linestyle="--", label="asking everything")
    axes.set_xticks(range(len(searches)), searches, rotation=20, ha="right", fontsize=8)
    axes.set(ylabel="questions asked, %", title="--questions disputed (simulated pools of 7)")
    axes.grid(axis="x", visible=False)


def draw_engines(rows: Rows, axes: Any) -> None:
    """Draw the questions a second of each engine."""
    axes.barh([row["engine"] for row in rows], [row["rate"] for row in rows], color=BLUE, height=0.5)
    axes.invert_yaxis()
    axes.set(xlabel="questions a second", title="Engines: one batch of equally long answers")
    axes.grid(axis="y", visible=False)


# By the name of the picture: the benchmark whose rows it shows, what draws it, what it says in words.
PICTURES: dict[str, tuple[str, Callable[[Rows, Any], None], str]] = {
    "merge": (
        "merge",
        draw_merge,
        "The time of a merge over sizes of models, as a multiple of reading and writing alone",
    ),
    "memory": ("merge", draw_memory, "The peak memory of a merge over sizes of models"),
    "scaling": ("speculation", draw_scaling, "How much faster a greedy search is with more workers"),
    "disputed": ("disputed", draw_disputed, "The share of questions that searches ask with --questions disputed"),
    "engines": ("engines", draw_engines, "Questions a second of each engine"),
}


def main() -> None:
    """Draw every picture whose benchmark was recorded, and show it in README.md with where it was measured."""
    IMAGES.mkdir(exist_ok=True)
    shown = ""
    for name, (benchmark, draw, words) in PICTURES.items():
        rows = read(benchmark)
        if not rows:
            print(f"{name}: results/{benchmark}.json is not there")
            continue
        draw_picture(rows, draw, IMAGES / f"{name}.svg")
        machines = "; ".join(sorted({str(row["machine"]) for row in rows}))
        shown += f"\n![{words}](img/{name}.svg)\n\n{words} ({machines}): `results/{benchmark}.json`.\n"
    page = HERE / "README.md"
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    page.write_text(f"{before}{BEGIN}{shown}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


def draw_picture(rows: Rows, draw: Callable[[Rows, Any], None], path: Path) -> None:
    """Draw rows into a file."""
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
        draw(rows, axes)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)
    print(path)


def _sizes(rows: Rows) -> Rows:
    """Return the rows of plain merges: warm, of four models, without one huge tensor; the smallest first."""
    plain = [row for row in rows if row["models"] == 4 and not row["cold"] and not row["tensor_gigabytes"]]
    return sorted(plain, key=lambda row: row["gigabytes"])


def _lines(axes: Any, rows: Rows, columns: Sequence[tuple[str, str, str]], x: str = "gigabytes") -> None:
    for column, label, color in columns:
        points = [(row[x], row[column]) for row in rows if row.get(column) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", color=color, label=label)


if __name__ == "__main__":
    main()
