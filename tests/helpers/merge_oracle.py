"""What the tests of merging share: a pool out of tensors, its soup back as tensors, and exact rounding as an oracle."""

from __future__ import annotations

import json
import math
import tempfile
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file

import soup
from soup.checkpoints.digest import digest_checkpoint
from soup.evaluation.candidate import SoupCandidate
from soup.merging.pool import Pool
from soup.merging.recipe import Recipe, Share
from soup.testing import tiny_checkpoint

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32, "float64": torch.float64}
WORD = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
FRACTION_BITS = {torch.bfloat16: 8, torch.float16: 11, torch.float32: 24, torch.float64: 53}
LEAST_EXPONENT = {torch.bfloat16: -133, torch.float16: -24, torch.float32: -149, torch.float64: -1074}


def bits(tensor):
    """A tensor as whole numbers, so that NaN equals itself and -0.0 differs from 0.0."""
    return tensor.reshape(-1).contiguous().view(WORD[tensor.element_size()])


def same_bits(left, right):
    return left.dtype == right.dtype and left.shape == right.shape and torch.equal(bits(left), bits(right))


def write_pool(folder, states, **each):
    """One tiny checkpoint for each state (a dict of tensors), named a, b, c, ..."""
    for letter, state in zip("abcdefghijklmnop", states, strict=False):
        tiny_checkpoint(Path(folder) / letter, tensors=state, **each)
    return Path(folder)


def recipe_of(pool, weights=None, **fields):
    """The unsealed recipe of all that lie in a folder; weights are the uniform mean's unless given."""
    base = fields.pop("base", None)
    with Pool(pool, base) as opened:
        parts = list(opened)
        weights = weights or [1 / len(parts)] * len(parts)
        shares = tuple(Share(name=p.name, path=p.location, weight=w) for p, w in zip(parts, weights, strict=True))
        return Recipe(ingredients=shares, base=opened.base.source() if opened.base else None, **fields)


def read_back(directory):
    """Every tensor of a checkpoint, read by safetensors itself."""
    return {
        name: value
        for file in sorted(Path(directory).rglob("*.safetensors"))
        for name, value in load_file(file).items()
    }


def merged(states, weights=None, *, options=None, **fields):
    """The soup of `states` as a dict of tensors."""
    with tempfile.TemporaryDirectory() as folder:
        pool = write_pool(Path(folder) / "pool", states)
        out = Path(folder) / "out"
        soup.merge(recipe_of(pool, weights, **fields), out, merge=options)
        return read_back(out)


def rounded(exact, dtype):
    """float64 values rounded once to `dtype`, to nearest even (torch's cast goes through float32: it rounds twice)."""
    if dtype == torch.float64:
        return exact
    _, exponent = torch.frexp(exact)
    step = torch.clamp(exponent - FRACTION_BITS[dtype], min=LEAST_EXPONENT[dtype])
    scaled = torch.round(torch.ldexp(exact, -step.double()))  # torch.round goes to even
    return torch.ldexp(scaled, step.double()).to(dtype)


def ulps(left, right):
    """How many representable values lie between, element by element."""

    def rank(tensor):
        word = bits(tensor).to(torch.int64)
        least = -(2 ** (8 * tensor.element_size() - 1))
        return torch.where(word < 0, least - word, word)

    return (rank(left) - rank(right)).abs()


def mean(tensors, weights=None):
    """The weighted mean in float64."""
    weights = weights or [1.0] * len(tensors)
    total = sum(tensor.double() * weight for tensor, weight in zip(tensors, weights, strict=True))
    return total / math.fsum(weights)


def assert_mean(values, tensors, names):
    """Within the contract of numerics: bfloat16 tensors are the float64 mean, rounded once, up to one ulp in a few."""
    wrong, elements = 0, 0
    for name in names:
        exact = rounded(mean([each[name] for each in tensors]), torch.bfloat16)
        assert values[name].shape == exact.shape, name
        assert ulps(values[name], exact).max() <= 1, name
        wrong += (bits(values[name]) != bits(exact)).sum().item()
        elements += exact.numel()
    assert wrong <= 0.0005 * elements


def config(directory):
    return json.loads((Path(directory) / "config.json").read_text())


@contextmanager
def mean_of(pool, home):
    """Give the candidate of a pool's plain mean; what it wrote below `home` is removed afterwards."""
    with Pool(pool) as opened:
        digests = [digest_checkpoint(ingredient.checkpoint) for ingredient in opened]
        recipe = recipe_of(pool).sealed([digest.content for digest in digests], "sha256:" + "0" * 64)
        candidate = SoupCandidate(recipe, opened, home, digests)
        yield candidate
        candidate.remove()
