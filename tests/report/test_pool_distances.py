"""The look before the merge: norms, cosines, frozen components and verdicts, held against numpy over whole models."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from soup.cli.app import cli
from soup.evaluation.progress import Progress
from soup.merging.options import MergeOptions
from soup.report.pool_check import check
from soup.testing import tiny_checkpoint
from tests.helpers.method_pools import FROZEN, SHAPES, make_pool, numbers

VISION = [name for name in SHAPES if "vision" in name]


def vectors(tensors, names, reference):
    return np.stack([np.concatenate([(each[n] - reference[n]).numpy().reshape(-1) for n in names]) for each in tensors])


@pytest.mark.parametrize("has_base", [True, False])
def test_norms_cosines_and_distances_are_those_of_the_whole_vectors(tmp_path, has_base):
    folder = make_pool(tmp_path, count=4, spread=0.05)
    base, tuned = numbers(folder)
    reference = base if has_base else {name: sum(each[name] for each in tuned) / 4 for name in base}
    measured = check(folder / "ckpts", folder / "base" if has_base else None).distances
    assert measured.reference == ("base" if has_base else "mean")
    for component, names in (("all", list(SHAPES)), ("vision", VISION)):
        deltas = vectors(tuned, names, reference)
        norm = np.linalg.norm(np.concatenate([reference[name].numpy().reshape(-1) for name in names]))
        lengths = np.linalg.norm(deltas, axis=1)
        np.testing.assert_allclose(
            measured.cosines[component], deltas @ deltas.T / np.outer(lengths, lengths), atol=1e-6
        )
        shares = [row.norm if component == "all" else row.by_component[component] for row in measured.ingredients]
        np.testing.assert_allclose(shares, lengths / norm, rtol=1e-5)
    deltas = vectors(tuned, list(SHAPES), reference)
    between = np.linalg.norm(deltas[:, None] - deltas[None], axis=2)
    norm = np.linalg.norm(np.concatenate([reference[name].numpy().reshape(-1) for name in SHAPES]))
    np.testing.assert_allclose(measured.distances, between / norm, atol=1e-6)
    elements = sum(base[name].numel() for name in base)
    assert [row.moved for row in measured.ingredients] == pytest.approx([1 - base[FROZEN].numel() / elements] * 4)
    assert {row.verdict for row in measured.ingredients} == {"fits"}


def test_a_component_that_nobody_trained_is_frozen(tmp_path):
    folder = make_pool(tmp_path, count=2)
    base = load_file(folder / "base/model.safetensors")
    for path in (folder / "ckpts").iterdir():
        tensors = load_file(path / "model.safetensors")
        save_file({n: base[n] if "vision" in n else v for n, v in tensors.items()}, path / "model.safetensors")
    measured = check(folder / "ckpts", folder / "base").distances
    assert measured.frozen == ("vision",)
    assert [row.by_component["vision"] for row in measured.ingredients] == [0, 0]


@pytest.mark.parametrize("zeros", ["everywhere", "in the vision tower"])
def test_no_distance_is_a_share_of_a_base_of_zeros(tmp_path, zeros):
    folder = make_pool(tmp_path, count=2)
    file = folder / "base/model.safetensors"
    names = list(SHAPES) if zeros == "everywhere" else VISION
    save_file({n: v * 0 if n in names else v for n, v in load_file(file).items()}, file, {"format": "pt"})
    words = ["check", "--pool", str(folder / "ckpts"), "--base", str(folder / "base")]
    document = json.loads(CliRunner().invoke(cli, [*words, "--json"]).stdout)["distances"]
    lines = CliRunner().invoke(cli, words).stdout.splitlines()
    moves = json.loads(
        CliRunner().invoke(cli, ["inspect", str(folder / "ckpts/m0"), "--against", words[4], "--json"]).stdout
    )["moves"]["components"]
    for row, line in zip(document["ingredients"], lines[1:], strict=False):
        assert row["by_component"]["vision"] is None
        assert " - " in line
        assert (row["norm"] is None) == (zeros == "everywhere")
    assert next(row["norm"] for row in moves if row["component"] == "vision") is None
    if zeros == "everywhere":
        assert {row["verdict"].split(":")[0] for row in document["ingredients"]} == {
            "not from this base, every element of which is 0"
        }
        assert document["distances"] is None
        plotted = CliRunner().invoke(cli, [*words, "--plot", str(tmp_path / "pool.svg")])
        assert plotted.exit_code == 1
        assert "every element of the base is 0" in str(plotted.exception)


def pool_with(tmp_path, name, tensors):
    folder = make_pool(tmp_path, count=4, spread=0.02)
    tiny_checkpoint(folder / "ckpts" / name, tensors={key: value.float() for key, value in tensors(folder).items()})
    return folder


ODD = {
    "untrained": (lambda folder: numbers(folder)[0], "untrained: it is the base"),
    "twin": (lambda folder: numbers(folder)[1][1], "a duplicate of m1"),
    "stranger": (
        lambda folder: {name: torch.randn(shape) for name, shape in SHAPES.items()},
        "not from this base: |delta| is 1.",
    ),
    "wild": (
        lambda folder: {n: v + 8 * (numbers(folder)[1][0][n] - v) for n, v in numbers(folder)[0].items()},
        "far from the others: |delta| is 7.9 times their median, more than 3",
    ),
}


@pytest.mark.parametrize("kind", ODD)
def test_what_does_not_fit_is_told_with_the_threshold(tmp_path, kind):
    make, verdict = ODD[kind]
    folder = pool_with(tmp_path, f"z-{kind}", make)
    measured = check(folder / "ckpts", folder / "base").distances
    assert measured.misfits == (f"z-{kind}",)
    verdicts = {row.name: row.verdict for row in measured.ingredients}
    assert verdicts.pop(f"z-{kind}").startswith(verdict)
    assert set(verdicts.values()) == {"fits"}


def test_a_stranger_is_told_without_a_base_too(tmp_path):
    folder = pool_with(tmp_path, "z", ODD["stranger"][0])
    verdicts = {row.name: row.verdict for row in check(folder / "ckpts").distances.ingredients}
    assert verdicts["z"].startswith("not from this mean")


def test_of_a_model_alone_without_a_base_nothing_is_said_to_be_frozen(tmp_path):
    folder = make_pool(tmp_path, count=1)
    found = check(folder / "ckpts").distances
    assert found.frozen == ()
    assert found.ingredients[0].verdict == "alone: `base` says what to hold it against"
    assert found.misfits == ()
    with_base = check(folder / "ckpts", folder / "base").distances
    assert with_base.ingredients[0].verdict == "fits"


def test_what_did_not_move_is_nearest_to_nobody_and_nobody_to_it(tmp_path):
    folder = make_pool(tmp_path, count=1)
    base, (first,) = numbers(folder)
    against = {name: base[name] - (first[name] - base[name]) for name in base}
    for name, tensors in (("m1", against), ("m2", base)):
        tiny_checkpoint(folder / "again" / name, tensors={key: value.float() for key, value in tensors.items()})
    shutil.copytree(folder / "ckpts/m0", folder / "again/m0")
    rows = {row.name: row.nearest for row in check(folder / "again", folder / "base").distances.ingredients}
    assert rows["m2"] is None
    assert rows["m0"][0] == "m1"
    assert rows["m0"][1] == pytest.approx(-1)


@pytest.mark.parametrize("drop", [(), ("*layers*",)])
def test_as_many_bytes_are_read_as_were_announced(tmp_path, drop):
    folder = make_pool(tmp_path, shapes=SHAPES | {"model.long": (3 * 2**19 + 5,)})
    for path in (folder / "base", *(folder / "ckpts").iterdir()):
        file = path / "model.safetensors"
        save_file(load_file(file) | {"model.position_ids": torch.arange(9)}, file)
    announced, done = [], []
    progress = Progress(on_phase=lambda name, total: announced.append(total), on_bytes=done.append)
    check(folder / "ckpts", folder / "base", merge=MergeOptions(drop=drop), progress=progress)
    assert announced == [sum(done)]
    assert sum(done) > 0


def test_the_command_prints_a_row_for_each_and_json_has_all(tmp_path):
    folder = pool_with(tmp_path, "z", ODD["twin"][0])
    words = ["check", "--pool", str(folder / "ckpts"), "--base", str(folder / "base")]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].split()[:4] == ["ingredient", "|delta|", "/", "|base|"]
    assert lines[5].startswith("z ")
    assert lines[5].endswith("a duplicate of m1")
    document = json.loads(CliRunner().invoke(cli, [*words, "--json"]).stdout)
    assert document["distances"]["ingredients"][4]["verdict"] == "a duplicate of m1"
    assert document["distances"]["cosines"]["all"][1][4] == pytest.approx(1)


@pytest.mark.parametrize("stored", ["float32", "mixed"])
def test_with_another_dtype_distances_are_those_of_what_is_stored(tmp_path, stored):
    folder = make_pool(tmp_path, count=3)
    if stored == "mixed":
        file = folder / "ckpts/m1/model.safetensors"
        save_file({name: values.bfloat16() for name, values in load_file(file).items()}, file, {"format": "pt"})
    report = check(folder / "ckpts", folder / "base", merge=MergeOptions(dtype="bfloat16"))
    assert report.ok
    names = list(SHAPES)
    base = load_file(folder / "base/model.safetensors")
    tuned = [load_file(folder / f"ckpts/m{i}/model.safetensors") for i in range(3)]
    vector = np.concatenate([base[name].double().numpy().reshape(-1) for name in names])
    lengths = [
        np.linalg.norm(np.concatenate([model[name].double().numpy().reshape(-1) for name in names]) - vector)
        for model in tuned
    ]
    shares = [row.norm for row in report.distances.ingredients]
    np.testing.assert_allclose(shares, np.array(lengths) / np.linalg.norm(vector), rtol=1e-5)


def test_with_another_dtype_what_is_too_large_for_it_is_told_of_each(tmp_path):
    folder = make_pool(tmp_path, count=3)
    for index in (1, 2):
        file = folder / f"ckpts/m{index}/model.safetensors"
        tensors = load_file(file)
        tensors[FROZEN][:] = 1e6
        save_file(tensors, file, {"format": "pt"})
    report = check(folder / "ckpts", folder / "base", merge=MergeOptions(dtype="float16"))
    assert [problem.ingredient for problem in report.problems] == ["m1", "m2"]
    assert report.distances is not None


def test_a_pool_whose_tensors_do_not_match_has_no_distances(tmp_path):
    folder = make_pool(tmp_path)
    shutil.rmtree(folder / "ckpts/m1")
    tiny_checkpoint(folder / "ckpts/m1", tensors={"w": torch.zeros(3)})
    report = check(folder / "ckpts")
    assert report.distances is None
    assert not report.ok


def test_nan_that_is_allowed_spoils_no_other_tensor_s_distances(tmp_path):
    folder = make_pool(tmp_path)
    path = folder / "ckpts/m0/model.safetensors"
    tensors = load_file(path)
    tensors["model.one"] = torch.tensor([float("nan")])
    save_file(tensors, path)
    report = check(folder / "ckpts", folder / "base", merge=MergeOptions(allow_nonfinite=True))
    assert report.ok
    assert all(0 < row.norm < 1 for row in report.distances.ingredients)
    assert not check(folder / "ckpts", folder / "base").ok
