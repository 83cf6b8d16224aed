"""Safetensors files, held against safetensors itself: what it refuses we refuse, what it reads we read alike."""

from __future__ import annotations

import gc
import json
import struct
import subprocess
import sys
import time
import weakref

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from soup.checkpoints.dtypes import DTYPES
from soup.checkpoints.header import MAX_HEADER_BYTES, read_header
from soup.errors import CheckpointError

quick = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def packed(header, data=b"", length=None):
    """A file's bytes; `header` is a dict, or the bytes to stand in its place."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def write(tmp_path, data):
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    return path


def refused_by_safetensors(path):
    try:
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - it has no __iter__
                file.get_tensor(name)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return True
    return False


FINE = packed({"a": entry()}, bytes(8))

DAMAGED = {
    "an empty file": b"",
    "fewer than 8 bytes": b"\x02\0\0\0",
    "a length and no header": struct.pack("<Q", 0),
    "a length and nothing else": struct.pack("<Q", 2),
    "a truncated header": FINE[:20],
    "a truncated tensor": FINE[:-1],
    "no tensor bytes at all": FINE[:-8],
    "bytes after the last tensor": FINE + b"\0",
    "a header longer than the file": packed({"a": entry()}, bytes(8), length=10_000),
    "a header of 100 MB and one byte": packed(b"{}", b" " * 64, length=MAX_HEADER_BYTES + 1),
    "a header of 2**63 bytes": packed(b"{}", length=2**63),
    "a header of 2**64 - 1 bytes": packed(b"{}", length=2**64 - 1),
    "no JSON": packed(b"hello, world"),
    "JSON that stops early": packed(b'{"a": {"dtype": "F32"'),
    "JSON and then something": packed(b"{} {}"),
    "no UTF-8": packed(b'{"\xff\xfe": {}}'),
    "a list": packed(b"[]"),
    "a text": packed(b'"a"'),
    "a number": packed(b"1"),
    "null": packed(b"null"),
    "Python's NaN": packed(b'{"a": {"dtype": "F32", "shape": [], "data_offsets": [0, 4], "x": NaN}}', bytes(4)),
    "minus zero": packed(b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [-0, 4]}}', bytes(4)),
    "deep nesting": packed(b'{"a":' * 2000 + b"1" + b"}" * 2000),
    "a byte order mark": packed(b"\xef\xbb\xbf" + json.dumps({"a": entry()}).encode(), bytes(8)),
    "a control character in a name": packed(
        b'{"a\n": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}}', bytes(4)
    ),
    "overlapping tensors": packed({"a": entry(), "b": entry(offsets=(4, 12))}, bytes(12)),
    "the same bytes twice": packed({"a": entry(), "b": entry()}, bytes(8)),
    "a gap": packed({"a": entry(), "b": entry(offsets=(12, 20))}, bytes(20)),
    "a gap at the start": packed({"a": entry(offsets=(4, 12))}, bytes(12)),
    "offsets out of the file": packed({"a": entry(offsets=(800, 808))}, bytes(8)),
    "offsets backwards": packed({"a": entry(offsets=(8, 0))}, bytes(8)),
    "offsets of the wrong size for the shape": packed({"a": entry(shape=(3,))}, bytes(8)),
    "offsets of the wrong size for the dtype": packed({"a": entry(dtype="BF16")}, bytes(8)),
    "a shape that overflows": packed({"a": entry(shape=(2**40, 2**40))}, bytes(8)),
    "a shape that overflows and is empty": packed({"a": entry(shape=(2**62, 2**62, 0), offsets=(0, 0))}),
    "a shape whose bytes wrap around": packed({"a": entry(shape=(2**62,), offsets=(0, 0))}),
    "three offsets": packed({"a": entry(offsets=(0, 8, 8))}, bytes(8)),
    "one offset": packed({"a": entry(offsets=(8,))}, bytes(8)),
    "no offsets": packed({"a": {"dtype": "F32", "shape": [2]}}, bytes(8)),
    "no dtype": packed({"a": {"shape": [2], "data_offsets": [0, 8]}}, bytes(8)),
    "no shape": packed({"a": {"dtype": "F32", "data_offsets": [0, 8]}}, bytes(8)),
    "a negative offset": packed({"a": entry(offsets=(-8, 0))}, bytes(8)),
    "a negative dimension": packed({"a": entry(shape=(-2,))}, bytes(8)),
    "two negative dimensions": packed({"a": entry(shape=(-1, -2))}, bytes(8)),
    "a fractional offset": packed({"a": entry(offsets=(0, 8.0))}, bytes(8)),
    "a fractional dimension": packed({"a": entry(shape=(2.0,))}, bytes(8)),
    "a bool for a dimension": packed({"a": entry("F64", (True,), (0, 8))}, bytes(8)),
    "a bool for an offset": packed({"a": entry("U8", (1,), (False, True))}, bytes(1)),
    "a text for a dimension": packed({"a": entry(shape=("2",))}, bytes(8)),
    "a text for the shape": packed({"a": {"dtype": "F32", "shape": "2", "data_offsets": [0, 8]}}, bytes(8)),
    "null for the shape": packed({"a": {"dtype": "F32", "shape": None, "data_offsets": [0, 8]}}, bytes(8)),
    "an unknown dtype": packed({"a": entry(dtype="F7")}, bytes(8)),
    "a dtype in torch's words": packed({"a": entry(dtype="float32")}, bytes(8)),
    "a list for a dtype": packed({"a": entry(dtype=["F32"])}, bytes(8)),
    "a number for a tensor": packed({"a": 1}, bytes(8)),
    "a dtype twice": packed(b'{"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}', bytes(8)),
    "half a surrogate pair": packed(b'{"\\ud800": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}}', bytes(4)),
    "half a surrogate pair in a value": packed({"__metadata__": {"a": "\ud800"}, "b": entry()}, bytes(8)),
    "metadata that are no texts": packed({"__metadata__": {"a": 1}, "b": entry()}, bytes(8)),
    "metadata that are nested": packed({"__metadata__": {"a": {"b": "c"}}, "b": entry()}, bytes(8)),
    "metadata that are a list": packed({"__metadata__": ["a"], "b": entry()}, bytes(8)),
}

STRICTER = {
    "a tensor's name twice": packed(
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
        bytes(8),
    ),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_damaged_as_safetensors_says(what, tmp_path):
    path = write(tmp_path, DAMAGED[what])
    assert refused_by_safetensors(path)
    with pytest.raises(CheckpointError) as refusal:
        read_header(path)
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize("what", STRICTER)
def test_damaged_although_safetensors_reads_it(what, tmp_path):
    with pytest.raises(CheckpointError, match="twice"):
        read_header(write(tmp_path, STRICTER[what]))


def test_a_file_that_is_not_there_or_a_directory_is_told(tmp_path):
    with pytest.raises(CheckpointError, match=r"absent\.safetensors: can't be read \(No such file"):
        read_header(tmp_path / "absent.safetensors")
    with pytest.raises(CheckpointError, match=r"can't be read \(Is a directory"):
        read_header(tmp_path)


def test_a_git_lfs_pointer_is_no_safetensors_file(tmp_path):
    text = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    with pytest.raises(CheckpointError, match="no safetensors file"):
        read_header(write(tmp_path, text))


def test_all_damaged_entries_come_in_one_error(tmp_path):
    header = {"a": entry("F7"), "b": entry(shape=(-1,)), "c": entry(), "d": entry(offsets=(20, 28))}
    with pytest.raises(CheckpointError) as refusal:
        read_header(write(tmp_path, packed(header, bytes(28))))
    assert "a: unknown dtype 'F7'" in str(refusal.value)
    assert "b: shape must be" in str(refusal.value)
    assert "d: leaves a gap before it: expected to begin at 8, found 20" in str(refusal.value)


@quick
@given(data=st.data())
def test_a_damaged_byte_is_refused_wherever_safetensors_refuses_it(data, tmp_path_factory):
    """Random damage to a good file: we never take what it does not, never crash, and never read it otherwise."""
    good = packed(
        {"__metadata__": {"format": "pt"}, "a.b": entry(), "c": entry("BF16", (3, 1), (8, 14))}, bytes(range(14))
    )
    bad = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        index = data.draw(st.integers(0, len(good) - 15))
        bad[index] = data.draw(st.integers(0, 255) | st.sampled_from(list(b'0123456789{}[],:"- .e')))
    path = tmp_path_factory.mktemp("damage") / "x.safetensors"
    path.write_bytes(bad)
    try:
        header = read_header(path)
    except CheckpointError:
        return
    assert not refused_by_safetensors(path)
    with safe_open(path, "pt") as file:
        assert set(file.keys()) == set(header.tensors)


@pytest.mark.parametrize("code", DTYPES)
def test_every_dtype_of_the_format_is_known_with_its_size(code, tmp_path):
    dtype = DTYPES[code]
    header = {"a": entry(code, (8,), (0, dtype.bits))}
    path = write(tmp_path, packed(header, bytes(dtype.bits)))
    with safe_open(path, "pt") as file:
        assert file.get_slice("a").get_dtype() == code
    spec = read_header(path).specs["a"]
    assert (spec.bytes, spec.shape, spec.dtype) == (dtype.bits, (8,), dtype)


def test_an_unknown_dtype_of_safetensors_would_show_here(tmp_path):
    """The oracle for the dtype table: every name that safetensors lists when it is given one that it doesn't know."""
    with pytest.raises(BaseException, match="unknown variant") as refusal:
        safe_open(write(tmp_path, packed({"a": entry("XX")}, bytes(8))), "pt")
    assert all(f"`{code}`" in str(refusal.value) for code in DTYPES)
    assert str(refusal.value).count("`") == 2 * (len(DTYPES) + 1)


def test_a_header_padded_with_spaces_and_of_any_order_is_fine(tmp_path):
    text = json.dumps({"b": entry(offsets=(8, 16)), "a": entry()}).encode() + b" " * 13
    header = read_header(write(tmp_path, packed(text, bytes(16))))
    assert list(header.tensors) == ["a", "b"]


def test_a_file_without_tensors_is_one(tmp_path):
    assert not read_header(write(tmp_path, packed(b"{}"))).tensors


def test_a_header_of_many_tensors_is_read(tmp_path):
    state = {f"layer.{i}.weight": torch.zeros(1) for i in range(20_000)}
    save_file(state, tmp_path / "x.safetensors")
    assert len(read_header(tmp_path / "x.safetensors").tensors) == 20_000


def test_a_header_with_names_that_stand_twice_is_refused_in_linear_time(tmp_path):
    entries = (
        f'"t{number % 30_000}":{{"dtype":"U8","shape":[1],"data_offsets":[{number},{number + 1}]}}'
        for number in range(60_000)
    )
    path = write(tmp_path, packed(("{" + ",".join(entries) + "}").encode(), bytes(60_000)))
    began = time.process_time()
    with pytest.raises(CheckpointError, match="names the same thing twice:\n  - t0\n") as caught:
        read_header(path)
    assert "and 29980 more" in str(caught.value)
    assert time.process_time() - began < 5


def test_a_tensor_may_be_called_as_the_keys_of_an_entry(tmp_path):
    names = ("dtype", "shape", "data_offsets")
    path = tmp_path / "model.safetensors"
    save_file({name: torch.full((2,), float(number)) for number, name in enumerate(names)}, path)
    assert sorted(read_header(path).tensors) == sorted(names)


@pytest.mark.slow
def test_a_header_of_80_mb_is_read_within_a_gigabyte_and_20_seconds(tmp_path):
    count = 1_170_000
    entries = (f'"t{n}":{{"dtype":"U8","shape":[1],"data_offsets":[{n},{n + 1}]}}' for n in range(count))
    path = write(tmp_path, packed(("{" + ",".join(entries) + "}").encode(), bytes(count)))
    script = (
        "import resource, sys, time\n"
        "from pathlib import Path\n"
        "from soup.checkpoints.header import read_header\n"
        "began = time.process_time()\n"
        f"assert len(read_header(Path({str(path)!r})).tensors) == {count}\n"
        "spent = time.process_time() - began\n"
        "if sys.platform == 'linux':\n"  # ru_maxrss keeps the peak of the process that started this one
        "    peak = next(int(line.split()[1]) * 1024 for line in open('/proc/self/status') if line[:6] == 'VmHWM:')\n"
        "else:\n"
        "    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(spent, peak)\n"
    )
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    seconds, peak = map(float, output.split())
    assert seconds < 20
    assert peak < 1e9


def test_the_same_header_is_held_once_while_it_is_in_use(tmp_path):
    tensors = {"long.name": torch.zeros(2), "another.name": torch.zeros(3)}
    for name, metadata in (("first", "pt"), ("again", "pt"), ("other", "np")):
        save_file(tensors, tmp_path / name, {"format": metadata})
    first, again, other = (read_header(tmp_path / name) for name in ("first", "again", "other"))
    assert first is again
    assert first is not other
    assert first.tensors == other.tensors
    assert next(iter(first.tensors)) is next(iter(other.tensors))  # each name is held once anyway
    held = weakref.ref(first)
    del first, again
    gc.collect()
    assert held() is None


def test_the_same_header_before_more_bytes_is_refused(tmp_path):
    path = write(tmp_path, FINE)
    header = read_header(path)
    path.write_bytes(FINE + b"\0")
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        read_header(path)
    assert header.file_bytes == len(FINE)
