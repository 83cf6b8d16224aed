"""Where a model moved from its base, held against numpy over whole tensors."""

from __future__ import annotations

import json

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from soup.cli.app import cli
from soup.errors import PoolError
from soup.evaluation.progress import Progress
from soup.report.moves import measure_moves
from soup.testing import tiny_checkpoint
from tests.helpers.method_pools import FROZEN, SHAPES, make_pool, numbers
from tests.helpers.tiny_adapters import exact, linear_factors, write_adapter

LLM = [name for name in SHAPES if "language_model" in name and "embed" not in name]


def share(base, tuned, names):
    delta = sum(float((tuned[name] - base[name]).square().sum()) for name in names)
    return (delta / sum(float(base[name].square().sum()) for name in names)) ** 0.5


def test_each_component_and_block_has_the_length_of_its_own_delta(tmp_path):
    folder = make_pool(tmp_path, count=1)
    base, (tuned,) = numbers(folder)
    moves = measure_moves(folder / "ckpts/m0", folder / "base")
    rows = {row.component: row for row in moves.components}
    assert rows["all"].norm == pytest.approx(share(base, tuned, SHAPES), rel=1e-5)
    assert rows["llm"].norm == pytest.approx(share(base, tuned, LLM), rel=1e-5)
    blocks = {(row.component, row.block): row for row in moves.blocks}
    assert set(blocks) == {("vision", 0), ("vision", 1), ("llm", 0), ("llm", 1), ("llm", 2)}
    expected = share(base, tuned, ["model.language_model.layers.1.mlp.weight"])
    assert blocks["llm", 1].norm == pytest.approx(expected, rel=1e-5)
    assert {row.blocks for row in moves.blocks if row.component == "llm"} == {3}


def test_what_nobody_trained_has_not_moved(tmp_path):
    folder = make_pool(tmp_path, count=1)
    moves = measure_moves(folder / "ckpts/m0", folder / "base")
    frozen = moves.blocks[0]
    assert (frozen.component, frozen.block, frozen.norm, frozen.tensors_moved, frozen.moved) == ("vision", 0, 0, 0, 0)
    everything = moves.components[0]
    elements = sum(torch.Size(shape).numel() for shape in SHAPES.values())
    assert (everything.tensors, everything.tensors_moved) == (len(SHAPES), len(SHAPES) - 2)  # one of them is empty
    assert everything.moved == pytest.approx(1 - torch.Size(SHAPES[FROZEN]).numel() / elements)


def test_an_adapter_moved_where_it_adds_to_its_base(tmp_path):
    folder = make_pool(tmp_path, count=1)
    shapes = {name: shape for name, shape in SHAPES.items() if "mlp" in name}
    adapter = write_adapter(tmp_path / "adapter", linear_factors(shapes))
    base = load_file(folder / "base/model.safetensors")
    tuned = exact(base, adapter)
    moves = measure_moves(adapter, folder / "base")
    moved = {(row.component, row.block): row.norm for row in moves.blocks if row.tensors_moved}
    assert moved == {
        ("llm", block): pytest.approx(share(base, tuned, [f"model.language_model.layers.{block}.mlp.weight"]), rel=1e-5)
        for block in range(3)
    }


def test_nan_is_told_and_spoils_no_other_tensor(tmp_path):
    folder, warnings = make_pool(tmp_path, count=1), []
    path = folder / "ckpts/m0/model.safetensors"
    save_file(load_file(path) | {"model.one": torch.tensor([float("nan")])}, path)
    moves = measure_moves(folder / "ckpts/m0", folder / "base", progress=Progress(on_warning=warnings.append))
    assert 0 < moves.components[0].norm < 1
    assert len(warnings) == 1
    assert "model.one" in warnings[0]


def test_models_whose_tensors_do_not_match_are_refused(tmp_path):
    folder = make_pool(tmp_path, count=1)
    other = tiny_checkpoint(tmp_path / "other", tensors={"w": torch.zeros(3)})
    with pytest.raises(PoolError, match="other can't be held against its base") as refused:
        measure_moves(other, folder / "base")
    assert "`drop`" not in str(refused.value)  # no option of this look


def test_another_config_is_told_and_the_tensors_are_measured_all_the_same(tmp_path):
    folder, warnings = make_pool(tmp_path, count=1), []
    for path, theta in ((folder / "ckpts/m0/config.json", 5.0), (folder / "base/config.json", 6.0)):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"rope_theta": theta}))
    moves = measure_moves(folder / "ckpts/m0", folder / "base", progress=Progress(on_warning=warnings.append))
    assert moves.components[0].norm > 0
    assert any("rope_theta" in warning for warning in warnings)


def test_the_command_prints_tables_and_json_has_the_same_numbers(tmp_path):
    pytest.importorskip("matplotlib")
    folder = make_pool(tmp_path, count=1)
    words = ["inspect", str(folder / "ckpts/m0"), "--against", str(folder / "base")]
    text = CliRunner().invoke(cli, [*words, "--plot", str(tmp_path / "moves.svg")]).stdout
    document = json.loads(CliRunner().invoke(cli, [*words, "--json"]).stdout)["moves"]
    for row in document["blocks"]:
        line = next(line for line in text.splitlines() if line.startswith(f"{row['component']} {row['block']} of"))
        assert f" {row['norm']:.4f} " in line
        assert f"{row['tensors_moved']} of {row['tensors']}" in line
    assert document["components"][0]["component"] == "all"
    assert "where m0 moved" in (tmp_path / "moves.svg").read_text()


def test_tables_of_a_checkpoint_s_parts_are_bounded(tmp_path):
    tensors = {f"part{number:03}.layers.{number}.weight": torch.ones(2) for number in range(60)}
    for name in ("base", "tuned"):
        tiny_checkpoint(tmp_path / name, tensors={key: value * len(name) for key, value in tensors.items()})
    words = ["inspect", str(tmp_path / "tuned"), "--against", str(tmp_path / "base")]
    lines = CliRunner().invoke(cli, words).stdout.splitlines()
    assert lines.count("... and 20 more (--json has all)") == 2
    assert sum(line.startswith("part") for line in lines) == 40


def test_a_plot_without_a_base_is_refused(tmp_path):
    folder = make_pool(tmp_path, count=1)
    done = CliRunner().invoke(cli, ["inspect", str(folder / "base"), "--plot", "moves.png"])
    assert done.exit_code == 2
    assert "--against" in done.output
