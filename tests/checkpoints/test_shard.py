"""Tensors read in blocks: what is read is what safetensors reads, from several threads, and files that change."""

from __future__ import annotations

import os
import threading

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save, save_file

from soup.checkpoints.header import read_header
from soup.checkpoints.shard import Shard
from soup.errors import CheckpointError
from tests.helpers.random_tensors import NAMES, tensors

quick = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@quick
@given(
    state=st.dictionaries(NAMES, tensors(), min_size=1, max_size=6),
    metadata=st.none() | st.dictionaries(NAMES, NAMES, min_size=1, max_size=3),
)
def test_a_saved_file_is_read_as_safetensors_reads_it(state, metadata, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "x.safetensors"
    path.write_bytes(save(state, metadata))
    with safe_open(path, "pt") as file:
        assert dict(read_header(path).metadata) == (file.metadata() or {})
        in_order = list(file.offset_keys())
    shard = Shard(path)
    filled = [spec.name for spec in shard if spec.elements]
    assert filled == [name for name in in_order if name in filled]  # empty tensors lie nowhere
    assert {spec.name for spec in shard} == set(in_order)
    for spec in shard:
        value = state[spec.name]
        assert (spec.shape, spec.dtype.torch, spec.elements) == (tuple(value.shape), value.dtype, value.numel())
        buffer = bytearray(spec.bytes)
        shard.read_into(spec.name, 0, memoryview(buffer))
        assert bytes(buffer) == bytes(value.reshape(-1).view(torch.uint8).tolist() if value.numel() else b"")
    shard.close()


def test_parts_of_a_tensor_are_read_from_several_threads(tmp_path):
    values = torch.arange(100_000, dtype=torch.int32)
    save_file({"a": values, "b": values + 1}, tmp_path / "x.safetensors")
    shard, wrong = Shard(tmp_path / "x.safetensors"), []

    def read(name, plus):
        for start in range(0, 100_000, 777):
            count = min(777, 100_000 - start)
            buffer = bytearray(4 * count)
            shard.read_into(name, 4 * start, memoryview(buffer))
            if not torch.equal(torch.frombuffer(buffer, dtype=torch.int32), values[start : start + count] + plus):
                wrong.append((name, start))

    threads = [threading.Thread(target=read, args=job) for job in [("a", 0), ("b", 1)] * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_closed_shard_opens_itself_again(tmp_path):
    save_file({"a": torch.arange(4)}, tmp_path / "x.safetensors")
    shard = Shard(tmp_path / "x.safetensors")
    for _ in range(2):
        buffer = bytearray(8)
        shard.read_into("a", 16, memoryview(buffer))
        assert buffer == (2).to_bytes(8, "little")
        shard.close()


def test_a_file_that_shrinks_after_it_was_opened_is_told(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.arange(1000)}, path)
    shard = Shard(path)
    os.truncate(path, path.stat().st_size - 8)
    with pytest.raises(CheckpointError, match="a ends 8 bytes early"):
        shard.read_into("a", 0, memoryview(bytearray(8000)))
    shard.close()
    path.unlink()
    with pytest.raises(CheckpointError, match=r"reading a failed \(No such file"):
        shard.read_into("a", 0, memoryview(bytearray(8000)))
