"""The picture of all jobs' curves, from what they logged."""

from __future__ import annotations

import json

import pytest
import yaml
from click.testing import CliRunner

from finetune.launching.curves import draw_curves, read_curve
from soup.cli.app import cli
from soup.errors import FinetuneError

LINES = [
    {"step": 1, "loss": 3.0, "learning_rate": 1e-4},
    {"step": 2, "loss": 2.0, "learning_rate": 1e-4},
    {"step": 2, "validation/loss": 2.5, "validation/loss/maths": 2.7},
]


@pytest.fixture
def pool(tmp_path):
    for name in ("d", "a", "b"):
        (tmp_path / f"{name}.jsonl").write_text('{"conversations": []}\n')
    added = {"a": "a.jsonl", "b": "b.jsonl"}
    keys = {"start": "tiny", "data": "d.jsonl", "added": added, "out": "out", "lr": 1e-4, "steps": 2}
    (tmp_path / "pool.yaml").write_text(yaml.safe_dump(keys))
    return tmp_path / "pool.yaml"


def log(pool, name, lines, end=""):
    folder = pool.parent / "out.finetune" / name
    folder.mkdir(parents=True)
    (folder / "loss.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + end)
    return folder


def test_a_curve_is_what_was_logged_under_its_name(pool):
    odd = ["3", '{"loss": 1.0}', '{"step": 3, "loss": null}', '{"step": "x", "loss": 1.0}', '{"step": 3, "lo']
    folder = log(pool, "a", LINES, end="\n".join(odd))
    assert read_curve(folder, "loss") == {"": ([1, 2], [3.0, 2.0])}
    assert read_curve(folder, "validation/loss/") == {"maths": ([2], [2.7])}
    assert read_curve(folder, "mixture/") == {}


def test_the_picture_has_a_panel_for_each_kind_and_a_line_for_each_job(pool):
    pytest.importorskip("matplotlib")
    log(pool, "a", LINES)
    log(pool, "b", LINES[:2])
    picture = pool.parent / "curves.svg"
    result = CliRunner().invoke(cli, ["finetune", str(pool), "--status", "--plot", str(picture)])
    assert result.exit_code == 0, result.output
    text = picture.read_text()
    for words in ("loss on held-out rows", "<!-- a -->", "<!-- b -->", "<!-- step -->"):
        assert words in text
    assert "share of a category" not in text
    assert text.count("<!-- a -->") == 2
    assert text.count("<!-- b -->") == 1


def test_where_nothing_was_logged_there_is_nothing_to_draw(pool):
    with pytest.raises(FinetuneError, match="no job has logged a step yet"):
        draw_curves(pool, pool.parent / "curves.png")


def test_a_picture_goes_with_the_status():
    result = CliRunner().invoke(cli, ["finetune", "pool.yaml", "--plot", "a.png"])
    assert result.exit_code == 2
    assert "--plot goes with --status" in result.output
