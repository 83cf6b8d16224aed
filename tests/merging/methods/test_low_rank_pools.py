"""Methods on matrices over pools of adapters: what whole deltas give, without ever decomposing a whole matrix."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from soup.errors import PoolError
from soup.merging.method_building import make_method
from soup.merging.methods.base import LowRank
from soup.merging.options import MergeOptions
from soup.testing import tiny_checkpoint
from tests.helpers.merge_oracle import same_bits
from tests.helpers.method_pools import merge, near
from tests.helpers.tiny_adapters import exact, linear_factors, write_adapter

SHAPES = {"layers.0.up.weight": (60, 44), "layers.0.down.weight": (44, 60)}
OTHERS = {"layers.0.norm.weight": (44,), "layers.0.gate.weight": (30, 44)}
CASES = {
    "knots": {"scale": 1.0},
    "knots trimmed": {"density": 0.4, "scale": 0.7},
    "knots mean": {"inner": "mean", "scale": 1.0},
    "swudi": {},
    "swudi of a short time": {"time": 3.0, "rank": 0.1, "start": "sum"},
    "swudi participation": {"rank": "participation", "scale": 0.8},
    "iso-c": {},
}
WEIGHTS = [0.2, 0.5, 0.3]


def make_pool(folder, dtype="float64", **config):
    base = tiny_checkpoint(folder / "base", seed=9, dtype=dtype, tensors={**SHAPES, **OTHERS})
    for i, rank in enumerate((3, 2, 4)):
        targets = dict(list(SHAPES.items())[: 2 if i else 1])  # one adapter leaves the second matrix alone
        write_adapter(folder / "ckpts" / f"m{i}", linear_factors(targets, rank, seed=i), base, **config)
    return folder


def oracle(folder, method):
    """The base and the method's merge of whole deltas, in float64."""
    base = {name: value.double() for name, value in load_file(folder / "base" / "model.safetensors").items()}
    tuned = [exact(base, path) for path in sorted((folder / "ckpts").iterdir())]
    expected = dict(base)
    for name in SHAPES:
        deltas = [(each[name] - base[name], w) for each, w in zip(tuned, WEIGHTS, strict=True)]
        used = [(delta, weight) for delta, weight in deltas if delta.any()]
        merged = method.merged([d for d, _ in used], [w for _, w in used], base[name].shape[1])
        expected[name] = base[name] + method.scale * merged
    return expected


@pytest.mark.parametrize("case", CASES)
def test_an_adapter_with_nan_is_named_with_the_tensor(tmp_path, case):
    folder = make_pool(tmp_path)
    file = folder / "ckpts" / "m1" / "adapter_model.safetensors"
    factors = load_file(file)
    next(value for name, value in factors.items() if "up.lora_B" in name)[3, 1] = torch.nan
    save_file(factors, file)
    with pytest.raises(PoolError, match=r"- m1: layers\.0\.up\.weight: NaN or infinity"):
        merge(folder, case.split(" ")[0], weights=WEIGHTS, **CASES[case])


@pytest.mark.parametrize("max_side", [8192, 20])
@pytest.mark.parametrize("case", CASES)
def test_factors_give_what_whole_deltas_give(tmp_path, case, max_side):
    folder, name = make_pool(tmp_path), case.split(" ")[0]
    params = {**CASES[case], "max_side": max_side}
    expected = oracle(folder, make_method(name, {**params, **({"full": True} if name == "knots" else {})}))
    assert near(merge(folder, name, weights=WEIGHTS, **params), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", ["knots", "swudi", "iso-c"])
def test_no_decomposition_is_wider_than_the_sum_of_the_ranks(tmp_path, monkeypatch, name):
    folder, sides = make_pool(tmp_path), []
    for function in ("eigh", "svd", "qr"):
        original = getattr(torch.linalg, function)
        monkeypatch.setattr(
            torch.linalg,
            function,
            lambda a, *rest, original=original, **options: sides.append(min(a.shape)) or original(a, *rest, **options),
        )
    merge(folder, name)
    assert sides
    assert max(sides) <= 3 + 2 + 4


@pytest.mark.parametrize("name", ["knots", "swudi", "iso-c"])
def test_blocks_and_threads_change_no_byte_and_no_whole_matrix_is_made(tmp_path, name):
    folder = make_pool(tmp_path, dtype="bfloat16")
    first = merge(folder, name, "first")
    again = merge(folder, name, "again", options=MergeOptions(block_elements=7, threads=3))
    assert all(same_bits(first[key], again[key]) for key in first)


@pytest.mark.parametrize("name", ["knots", "swudi", "iso-c"])
def test_factors_that_add_nothing_give_the_base(tmp_path, name):
    folder = make_pool(tmp_path)
    for path in (folder / "ckpts").iterdir():
        config = json.loads((path / "adapter_config.json").read_text())
        (path / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 0}))
    assert near(merge(folder, name), load_file(folder / "base" / "model.safetensors"), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["swudi", "iso-c"])
def test_ranks_that_sum_to_more_than_a_side_are_taken_too(name):
    torch.manual_seed(0)
    deltas = [LowRank(torch.randn(9, 5).double(), torch.randn(5, 7).double()) for _ in range(3)]
    method = make_method(name, {})
    left, right = method.merge_low_rank(deltas, [1.0, 1.0, 1.0])
    whole = method.merged([a @ b for a, b in deltas], [1 / 3] * 3, 7)
    torch.testing.assert_close(left @ right, whole, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", ["knots", "swudi", "iso-c"])
def test_an_adapter_that_is_not_finite_is_named(tmp_path, name):
    folder = make_pool(tmp_path)
    factors = linear_factors(SHAPES, 2, seed=1)
    factors["layers.0.up.lora_A.weight"][1, 3] = torch.inf
    write_adapter(folder / "ckpts" / "m1", factors, folder / "base")
    with pytest.raises(PoolError, match=r"\n  - m1: layers\.0\.up\.weight: NaN or infinity\. `allow_nonfinite`"):
        merge(folder, name)
