"""The pictures of benchmarks/README.md are drawn from what benchmarks recorded, and shown where something was."""

from __future__ import annotations

import json
import re
import sys

import pytest

from tests.docs.pages import ROOT

PAGE = "# Benchmarks\n\n<!-- what make bench draws -->\n![old](img/old.svg)\n<!-- end -->\n\n## Merging\n"
MERGE = {"models": 4, "tensor_gigabytes": 0.0, "cold": False, "soup_mb": 48.0, "floor_seconds": 1.0}


@pytest.fixture
def draw(tmp_path, monkeypatch):
    """draw.py over results and a page of its own."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    for name in ("draw", "results"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import draw
    import results

    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(draw, "HERE", tmp_path)
    monkeypatch.setattr(draw, "IMAGES", tmp_path / "img")
    (tmp_path / "README.md").write_text(PAGE)
    yield draw
    for name in ("draw", "results"):
        sys.modules.pop(name, None)


def test_a_row_takes_the_place_of_the_one_with_its_key(draw, tmp_path):
    from results import read, record

    record("merge", [{"gigabytes": 1, "soup_of_floor": 3.0}, {"gigabytes": 2, "soup_of_floor": 1.1}], ["gigabytes"])
    record("merge", [{"gigabytes": 1, "soup_of_floor": 1.0}], ["gigabytes"])
    assert [(row["gigabytes"], row["soup_of_floor"]) for row in read("merge")] == [(1, 1.0), (2, 1.1)]
    assert all("cores" in row["machine"] for row in json.loads((tmp_path / "results/merge.json").read_text()))


def test_what_was_recorded_is_drawn_and_shown_and_the_rest_is_not(draw, tmp_path):
    from results import record

    sizes = [{**MERGE, "gigabytes": size, "soup_of_floor": 1.0 + size / 10} for size in (2.5, 0.3)]
    record("merge", sizes, ["gigabytes"])
    record("disputed", [{"search": "greedy", "forgotten": 0.001, "asked": 0.74}], ["search"])
    draw.main()
    page = (tmp_path / "README.md").read_text()
    assert re.findall(r"\((img/.+)\)", page) == ["img/merge.svg", "img/memory.svg", "img/disputed.svg"]
    assert page.startswith("# Benchmarks\n")
    assert page.endswith("<!-- end -->\n\n## Merging\n")
    assert sorted(path.name for path in (tmp_path / "img").iterdir()) == ["disputed.svg", "memory.svg", "merge.svg"]
    assert "0.1 % forgotten" in (tmp_path / "img/disputed.svg").read_text()
    drawn = (tmp_path / "img/merge.svg").read_bytes()
    draw.main()
    assert (tmp_path / "img/merge.svg").read_bytes() == drawn
