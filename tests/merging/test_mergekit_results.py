"""The same YAML merged by mergekit and by soup: docs/methods.md tells each difference that is seen here."""

from __future__ import annotations

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

import soup
from tests.helpers.mergekit import find_mergekit, running

MERGEKIT = find_mergekit()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not MERGEKIT, reason="mergekit's environment is made by `make zoo MERGEKIT=1`"),
]
CONFIG = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 101,
}
EQUAL, NEAR, CLOSE = 1e-6, 1e-4, 1e-2
"""Distances of tensors as shares of their norms: by roundings; by an end of 10 rounds; by lengths that differ."""


def models(*weights, **parameters):
    return [{"model": f"m{i}", "parameters": {"weight": weight, **parameters}} for i, weight in enumerate(weights)]


def unweighted(count):
    return [{"model": f"m{i}"} for i in range(count)]


def on_base(method, parts, **parameters):
    return {"merge_method": method, "base_model": "base", "models": parts, "parameters": parameters}


CASES = {
    "linear": ({"merge_method": "linear", "models": models(1, 2, 0.5)}, EQUAL),
    "task_arithmetic": (on_base("task_arithmetic", models(0.3, 0.5, 0.4), **{"lambda": 0.9}), EQUAL),
    "task_arithmetic normalized": (on_base("task_arithmetic", models(0.3, 0.5, 0.4), normalize=True), EQUAL),
    "ties": (on_base("ties", models(1, 0.5, 1, density=0.5)), EQUAL),
    "ties of all": (on_base("ties", models(1, 0.5, 1)), EQUAL),
    "ties summed": (on_base("ties", models(0.3, 0.3, 0.3, density=0.25), normalize=False), EQUAL),
    "dare_linear": (on_base("dare_linear", models(0.3, 0.5, 0.4)), EQUAL),
    "dare_ties": (on_base("dare_ties", models(0.3, 0.5, 0.4)), EQUAL),
    "dare_ties normalized": (on_base("dare_ties", models(0.3, 0.5, 0.4), normalize=True), EQUAL),
    "model_stock": (on_base("model_stock", unweighted(3)), EQUAL),
    "karcher": ({"merge_method": "karcher", "models": unweighted(3)}, NEAR),
    "slerp": ({"merge_method": "slerp", "base_model": "m0", "models": unweighted(2), "parameters": {"t": 0.3}}, CLOSE),
    "nuslerp": ({"merge_method": "nuslerp", "models": models(1, 3)}, CLOSE),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny Llama and three fine-tunes of it, whose deltas share a half."""
    folder = tmp_path_factory.mktemp("llamas")
    torch.manual_seed(0)
    base = LlamaForCausalLM(LlamaConfig(**CONFIG))
    base.save_pretrained(folder / "base")
    start = {name: value.clone() for name, value in base.named_parameters()}
    shared = {name: torch.randn(value.shape) for name, value in start.items()}
    for number in range(3):
        with torch.no_grad():
            for name, value in base.named_parameters():
                spread = 0.1 * max(float(start[name].std()), 0.1)
                value.copy_(start[name] + spread * (shared[name] + torch.randn(value.shape)))
        base.save_pretrained(folder / f"m{number}")
    return folder


@pytest.fixture(scope="module")
def mergekit():
    with running(MERGEKIT) as merge:
        yield merge


def tensors(path):
    return {name: value for file in path.glob("*.safetensors") for name, value in load_file(file).items()}


def at(folder, fields):
    """The configuration with full paths: mergekit's are relative to where it runs."""
    parts = [{**part, "model": str(folder / part["model"])} for part in fields["models"]]
    base = {"base_model": str(folder / fields["base_model"])} if "base_model" in fields else {}
    return {**fields, **base, "models": parts, "dtype": "float32"}


def merge_by_both(mergekit, folder, fields):
    (folder / "merge.yaml").write_text(yaml.safe_dump(at(folder, fields)))
    out = folder / f"out-{len(list(folder.iterdir()))}"
    error = mergekit("--no-copy-tokenizer", "--quiet", folder / "merge.yaml", out / "mergekit")
    assert not error
    soup.merge(folder / "merge.yaml", out / "soup")
    return tensors(out / "mergekit"), tensors(out / "soup")


@pytest.mark.parametrize("case", CASES)
def test_soup_makes_what_mergekit_makes_of_the_same_configuration(mergekit, folder, case):
    fields, most = CASES[case]
    theirs, ours = merge_by_both(mergekit, folder, fields)
    assert theirs.keys() == ours.keys()
    for name, value in theirs.items():
        assert float((value.double() - ours[name].double()).norm() / value.double().norm()) < most, name


def test_random_masks_differ_and_their_mean_does_not(mergekit, folder):
    fields = on_base("dare_linear", models(0.3, 0.5, 0.4, density=0.5))
    theirs, ours = merge_by_both(mergekit, folder, fields)
    start = tensors(folder / "base")
    name = "model.embed_tokens.weight"
    deltas = [(values[name] - start[name]).double() for values in (theirs, ours)]
    assert not torch.allclose(*deltas, rtol=1e-3)
    whole = 0.3 * (tensors(folder / "m0")[name] - start[name]) + 0.5 * (tensors(folder / "m1")[name] - start[name])
    whole = (whole + 0.4 * (tensors(folder / "m2")[name] - start[name])).double()
    for delta in deltas:  # the projection on what no mask drops from: 1, within 5 standard deviations of 3,232 elements
        assert float((delta * whole).sum() / whole.square().sum()) == pytest.approx(1, abs=0.09)
