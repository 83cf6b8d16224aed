"""The picture of a pool: a map that keeps distances, near ones side by side, and a file in each format."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from soup.cli.app import cli
from soup.errors import OutputError
from soup.report.pool_check import check
from soup.report.pool_maps import cluster_order, map_to_plane
from soup.report.pool_picture import _draw_matrix
from soup.report.sweep_picture import draw_sweep
from soup.support.pictures import Picture, dot_style, line_style
from soup.testing import tiny_checkpoint
from tests.helpers.method_pools import make_pool, numbers

matplotlib = pytest.importorskip("matplotlib")

STARTS = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}


def between(points):
    return np.linalg.norm(points[:, None] - points[None], axis=2)


def test_points_of_a_plane_keep_their_distances_and_the_plane_holds_all():
    points = np.random.default_rng(0).normal(size=(7, 2))
    picture = map_to_plane(between(points).tolist())
    np.testing.assert_allclose(between(np.array(picture.points)), between(points), atol=1e-9)
    assert picture.points[0] == (0, 0)
    assert picture.share == pytest.approx(1)


def test_the_share_is_that_of_the_two_longest_axes():
    corners = np.diag([3.0, 2.0, 1.0])
    points = np.concatenate([corners, -corners])
    assert map_to_plane(between(points).tolist()).share == pytest.approx((9 + 4) / (9 + 4 + 1))


def test_near_ones_stand_side_by_side():
    points = np.array([[0.0], [10.0], [0.1], [10.1], [0.2]])
    order = cluster_order(between(points).tolist())
    assert {frozenset(order[:3]), frozenset(order[:2])} & {frozenset({0, 2, 4}), frozenset({1, 3})}


def equal_pool(tmp_path):
    folder = make_pool(tmp_path, count=1)
    for name in ("x", "y"):
        same = numbers(folder)[1][0]
        tiny_checkpoint(folder / "ckpts" / name, tensors={key: value.float() for key, value in same.items()})
    return folder


POOLS = {
    "one": lambda path: make_pool(path, count=1),
    "two": lambda path: make_pool(path, count=2),
    "equal": equal_pool,
    "twenty": lambda path: make_pool(path, count=20),
}


@pytest.mark.parametrize("has_base", [True, False])
@pytest.mark.parametrize("kind", POOLS)
def test_any_pool_is_drawn(tmp_path, kind, has_base):
    folder = POOLS[kind](tmp_path)
    check(folder / "ckpts", folder / "base" if has_base else None).plot(tmp_path / "pool.svg")
    text = (tmp_path / "pool.svg").read_text()
    assert len(re.findall("<!-- m0 -->", text)) >= 4  # both axes of two heat maps
    assert f"around the {'base' if has_base else 'mean'}" in text


def test_more_than_eight_curves_are_told_apart():
    for style in (dot_style, line_style):
        assert len({tuple(style(number).values()) for number in range(32)}) == 32


def test_long_names_are_told_apart_in_the_picture(tmp_path):
    folder = make_pool(tmp_path, count=2)
    for number, checkpoint in enumerate(sorted((folder / "ckpts").iterdir())):
        checkpoint.rename(checkpoint.with_name(f"qwen2_5-vl-7b-instruct-lora-seed{number}"))
    picture = check(folder / "ckpts", folder / "base").plot()
    assert all(label in picture.svg for label in ("...seed0", "...seed1"))


@pytest.mark.parametrize("suffix", STARTS)
def test_a_file_has_the_format_of_its_suffix_and_the_same_bytes_again(tmp_path, suffix):
    folder = make_pool(tmp_path)
    files = [tmp_path / f"{name}.{suffix}" for name in "ab"]
    for file in files:
        words = ["check", "--pool", str(folder / "ckpts"), "--plot", str(file)]
        done = CliRunner().invoke(cli, words)
        assert done.exit_code == 0, done.output
    first, again = (file.read_bytes() for file in files)
    assert first.startswith(STARTS[suffix])
    assert first == again


def test_names_are_no_formulas_and_may_be_of_any_script(tmp_path):
    folder = make_pool(tmp_path, count=2)
    (folder / "ckpts/m0").rename(folder / "ckpts/$^$")
    (folder / "ckpts/m1").rename(folder / "ckpts/图表")
    check(folder / "ckpts").plot(tmp_path / "pool.png")
    assert (tmp_path / "pool.png").stat().st_size > 10_000


@pytest.mark.parametrize("name", ["pool.jpg", "pool", "ckpts.png"])
def test_what_is_no_picture_s_file_is_refused_before_weights_are_read(tmp_path, name):
    folder = make_pool(tmp_path)
    (tmp_path / "ckpts.png").mkdir()
    (folder / "ckpts/m0/model.safetensors").write_bytes(b"damaged")
    done = CliRunner().invoke(cli, ["check", "--pool", str(folder / "ckpts"), "--plot", str(tmp_path / name)])
    assert isinstance(done.exception, OutputError)
    assert str(done.exception).startswith("--plot ")


NUMBERS = [
    ([[1.0, 0.596], [-0.0001, -0.4]], 1.0, {"1.00", "0.60", "0.00", "-0.40"}),
    ([[0.0, 0.0381], [0.0381, 0.03]], 0.0381, {"0.000", "0.038", "0.030"}),
    ([[0.0, 12.4], [12.4, 3.0]], 12.4, {"0", "12", "3"}),
    ([[0.0, 3.21e-7], [3.21e-7, 1e-7]], 3.21e-7, {"0", "3.2e-07", "1e-07"}),
]


@pytest.mark.parametrize(("values", "largest", "shown"), NUMBERS)
def test_the_numbers_of_a_map_have_the_same_places(values, largest, shown):
    axes = importlib.import_module("matplotlib.figure").Figure().subplots()
    _draw_matrix(axes, values, ["a", "b"], [0, 1], "viridis_r", (0.0, largest))
    assert {text.get_text() for text in axes.texts} == shown


def test_a_benchmark_has_one_colour_in_all_panels_of_a_sweep():
    curves = {"score": {"overall": [1.0, 2.0], "a": [1.0, 3.0], "b": [1.0, 1.0]}, "loss": {"b": [2.0, 1.0]}}
    picture = Picture()
    draw_sweep(("x", "y"), [0, 1], curves, picture)
    legends = re.findall('<g id="legend_.*?</g>\n  </g>', picture.svg, re.DOTALL)
    assert len(legends) == 2
    colours = [re.findall(r"stroke: (#\w+).*?>(overall|a|b)</text>", legend, re.DOTALL) for legend in legends]
    score, loss = ({name: colour for colour, name in found} for found in colours)
    assert len(set(score.values())) == 3
    assert loss == {"b": score["b"]}


def test_a_pool_without_distances_is_not_drawn(tmp_path):
    folder = make_pool(tmp_path)
    tiny_checkpoint(folder / "ckpts/other", tensors={"w": torch.zeros(3)})
    with pytest.raises(OutputError, match="tensors or dtypes do not match"):
        check(folder / "ckpts").plot(tmp_path / "pool.png")
    done = CliRunner().invoke(cli, ["check", "--pool", str(folder / "ckpts"), "--plot", str(tmp_path / "pool.png")])
    assert done.exit_code == 1
    assert not (tmp_path / "pool.png").exists()


def test_no_state_of_pyplot_stays_behind(tmp_path):
    folder = make_pool(tmp_path)
    code = (
        "import sys, matplotlib; before = dict(matplotlib.rcParams.copy())\n"
        "from soup.report.pool_check import check\n"
        f"check({str(folder / 'ckpts')!r}).plot({str(tmp_path / 'pool.png')!r})\n"
        "assert 'matplotlib.pyplot' not in sys.modules and dict(matplotlib.rcParams.copy()) == before\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
