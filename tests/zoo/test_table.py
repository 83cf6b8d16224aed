"""docs/zoo.md names the classes of the transformers that it was written with, and a fault shows in its row."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.helpers.merge_oracle import assert_mean
from tests.helpers.tiny_architectures import CLASSES
from tests.zoo import conftest
from tests.zoo.table import COLUMNS, Row, write_table

DOCUMENT = Path(__file__).parents[2] / "docs" / "zoo.md"
MERGE, *_, HOT_SWAP, _ = COLUMNS


def rows_of(text):
    """The cells of each row of the document's tables, by model type."""
    lines = [re.split(r" (?<!\\)\| ", line.strip("| ")) for line in text.splitlines() if line.startswith("| `")]
    return {name.strip("`"): cells for name, *cells in lines}


def test_the_document_has_a_row_for_each_class_of_its_transformers():
    text = DOCUMENT.read_text(encoding="utf-8")
    written_with = re.search(r"transformers ([\w.]+),", text)[1]
    if written_with != version("transformers"):
        pytest.skip(f"docs/zoo.md was written with transformers {written_with}: run make zoo")
    assert {name: cells[0] for name, cells in rows_of(text).items()} == dict(CLASSES)
    assert "FAILED" not in text


def report(test, outcome, layout="one file", when="call", longrepr=None, **facts):
    properties = {"architecture": "llava", "layout": layout, "test": test, **facts}
    flags = {"passed": outcome == "passed", "failed": outcome == "failed", "skipped": outcome == "skipped"}
    return SimpleNamespace(user_properties=[*properties.items()], when=when, longrepr=longrepr, **flags)


@pytest.fixture
def written(monkeypatch, tmp_path):
    """The table's rows out of reports of pytest."""

    def write(*reports):
        monkeypatch.setattr(conftest, "rows", rows := {"llava": Row()})
        for each in reports:
            conftest.pytest_runtest_logreport(each)
        write_table(tmp_path / "zoo.md", rows, {"llava": "LlavaModel"}, {"transformers": "1.0"})
        return (tmp_path / "zoo.md").read_text()

    return write


def test_a_fault_in_one_layout_shows_in_the_architecture_s_row(written):
    crash = SimpleNamespace(reprcrash=SimpleNamespace(message="AssertionError: norm.weight\nassert 2 <= 1"))
    text = written(
        report(MERGE, "passed", tensors=7),
        report(MERGE, "failed", layout="shards", longrepr=crash),
        report(HOT_SWAP, "passed", detail="streamed"),
        report(HOT_SWAP, "passed", layout="shards", detail="streamed"),
    )
    cells = ["LlavaModel", "7", "one file: ok; shards: **FAILED** AssertionError: norm.weight", "streamed"]
    assert rows_of(text) == {"llava": cells}
    assert "Made: 1 of 1 classes. Streamed: 1. Failed cells: 1." in text


def test_a_class_that_could_not_be_made_has_its_reason(written):
    text = written(report(MERGE, "skipped", when="setup", longrepr=("", 1, "Skipped: unmade: ImportError: no | timm")))
    assert rows_of(text) == {"llava": ["LlavaModel", r"ImportError: no \| timm"]}
    assert "Made: 0 of 1 classes." in text


def test_the_oracle_refuses_two_ulps_in_one_element_and_one_ulp_in_many():
    inputs = [{"x": torch.full((4000,), value, dtype=torch.bfloat16)} for value in (1.0, 2.0)]
    exact = torch.full((4000,), 1.5, dtype=torch.bfloat16)
    assert_mean({"x": exact}, inputs, ["x"])
    for changed, by in ((1, 2), (4000, 1)):
        values = exact.clone()
        values.view(torch.int16)[:changed] += by
        with pytest.raises(AssertionError):
            assert_mean({"x": values}, inputs, ["x"])
