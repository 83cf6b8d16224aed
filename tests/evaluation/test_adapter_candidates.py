"""Candidates of adapters whose base's digests are known: what no adapter changes is read once."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

import soup
from soup.checkpoints.digest import digest_checkpoint
from soup.errors import CheckpointError
from soup.evaluation.candidate import SoupCandidate
from soup.merging.pool import Pool
from soup.testing import tiny_checkpoint
from tests.helpers.merge_oracle import read_back, recipe_of, same_bits
from tests.helpers.tiny_adapters import linear_factors, write_adapter

TENSORS = {"down.weight": (6, 4), "norm.weight": (4,), "up.weight": (4, 6), "vision.weight": (8, 8)}


def make_pool(folder, count=3):
    base = tiny_checkpoint(folder / "base", tensors=TENSORS, shards=4)
    for seed in range(count):
        factors = linear_factors({"down.weight": (6, 4), "up.weight": (4, 6)}, seed=seed)
        write_adapter(folder / "pool" / f"a{seed}", factors, base)
    return base, folder / "pool"


@contextmanager
def candidate_of(pool, home):
    with Pool(pool) as opened:
        digests = [digest_checkpoint(part.checkpoint) for part in opened.all]
        recipe = recipe_of(pool).sealed([digest.content for digest in digests], "sha256:" + "0" * 64)
        candidate = SoupCandidate(recipe, opened, home, digests)
        yield candidate
        candidate.remove()


def test_a_candidate_of_adapters_is_the_soup(tmp_path):
    _, pool = make_pool(tmp_path)
    soup.merge(recipe_of(pool), tmp_path / "out")
    expected = read_back(tmp_path / "out")
    with candidate_of(pool, tmp_path / "home") as candidate:
        made = candidate.directory()
        assert all(same_bits(value, expected[name]) for name, value in read_back(made).items())


def test_one_adapter_alone_is_no_copy_of_its_base(tmp_path):
    _, pool = make_pool(tmp_path, 1)
    soup.merge(recipe_of(pool), tmp_path / "out")
    with candidate_of(pool, tmp_path / "home") as candidate:
        made, expected = read_back(candidate.directory()), read_back(tmp_path / "out")
    assert all(same_bits(value, expected[name]) for name, value in made.items())


def test_tied_memory_takes_no_tensor_that_an_adapter_changed_on_one_side(tmp_path):
    value = torch.ones(4, 4, dtype=torch.bfloat16)
    base = tiny_checkpoint(tmp_path / "base", tensors={"embed.weight": value, "head.weight": value})
    write_adapter(tmp_path / "pool" / "a", linear_factors({"head.weight": (4, 4)}), base)

    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = torch.nn.Embedding(4, 4), torch.nn.Linear(4, 4, bias=False)
            self.head.weight = self.embed.weight

    refusal = pytest.raises(CheckpointError, match="one memory for it and for")
    with candidate_of(tmp_path / "pool", tmp_path / "home") as candidate, refusal:
        candidate.load_into(Tied().bfloat16())
