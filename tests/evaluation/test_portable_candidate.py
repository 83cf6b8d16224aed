"""A candidate for another process: whole tensors under their names on disk, with the bytes that would be written."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest
from safetensors.torch import load_file, save_file

from soup.errors import CheckpointError
from soup.evaluation import soup_weights as module
from soup.evaluation.soup_weights import SoupWeights
from soup.merging.pool import Pool
from soup.testing import tiny_checkpoint, tiny_pool
from tests.helpers.hot_swaps import candidate_of
from tests.helpers.merge_oracle import read_back, same_bits
from tests.helpers.tiny_adapters import linear_factors, write_adapter

IN_ANOTHER_PROCESS = """
import pickle, sys
from safetensors.torch import save_file
candidate = pickle.loads(open(sys.argv[1], "rb").read())
with candidate.opened() as soup:
    save_file(dict(soup.tensors()), sys.argv[2])
"""


@pytest.mark.parametrize("fields", [{}, {"dtype": "float32"}, {"method": "ties", "base": "base"}])
def test_another_process_blends_the_bytes_that_would_be_written(fields, tmp_path):
    pool = tiny_pool(tmp_path / "pool", 3, shards=2)
    if fields.get("base"):
        fields = {**fields, "base": str(tiny_checkpoint(tmp_path / "base", seed=9))}
    with candidate_of(pool, tmp_path / "home", **fields) as candidate:
        portable = candidate.portable()
        (tmp_path / "pickled").write_bytes(pickle.dumps(portable))
        script = [sys.executable, "-c", IN_ANOTHER_PROCESS, str(tmp_path / "pickled"), str(tmp_path / "blended")]
        subprocess.run(script, check=True)
        blended, written = load_file(tmp_path / "blended"), read_back(candidate.directory())
    assert blended.keys() == written.keys() == portable.layout.keys()
    assert all(same_bits(blended[name], values) for name, values in written.items())
    assert all(portable.layout[name][1] == tuple(values.shape) for name, values in written.items())


def test_a_soup_of_adapters_goes_the_same_way(tmp_path):
    base = tiny_checkpoint(tmp_path / "base", tensors={"up.weight": (4, 6), "norm.weight": (4,)})
    for seed in range(2):
        write_adapter(tmp_path / "pool" / f"a{seed}", linear_factors({"up.weight": (4, 6)}, seed=seed), base)
    with candidate_of(tmp_path / "pool", tmp_path / "home") as candidate:
        with pickle.loads(pickle.dumps(candidate.portable())).opened() as again:
            blended = dict(again.tensors())
        written = read_back(candidate.directory())
    assert blended.keys() == written.keys()
    assert all(same_bits(blended[name], values) for name, values in written.items())


def test_tensors_come_whole_in_the_files_order_and_a_few_at_a_time(tmp_path, monkeypatch):
    pool = tiny_pool(tmp_path / "pool", 2)
    with candidate_of(pool, tmp_path / "home") as candidate:
        order = [name for name, _ in candidate.tensors()]
        at_once = []
        merge = SoupWeights._merge_into
        monkeypatch.setattr(
            SoupWeights, "_merge_into", lambda self, values: at_once.append(len(values)) or merge(self, values)
        )
        monkeypatch.setattr(module, "GROUP_BYTES", 1)
        assert [name for name, _ in candidate.tensors()] == order
    assert at_once == [1] * len(order)
    with Pool(pool) as opened:
        assert order == list(opened[0].checkpoint.tensors)


def test_an_ingredient_that_was_changed_meanwhile_is_refused(tmp_path):
    pool = tiny_pool(tmp_path / "pool", 2)
    with candidate_of(pool, tmp_path / "home") as candidate:
        tensors = candidate.tensors()
        next(tensors)
        file = pool / "model-0" / "model.safetensors"
        save_file({name: values + 1 for name, values in load_file(file).items()}, file, {"format": "pt"})
        with pytest.raises(CheckpointError, match="model-0"):
            list(tensors)
