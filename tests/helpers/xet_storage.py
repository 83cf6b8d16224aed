"""What the Hub's storage by chunks (Xet) does with what hf_xet uploads: files from shards and xorbs, and back.

Source: the Xet protocol's specification (huggingface.co/docs/xet: xorb, shard, upload and download).
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field

import pyarrow

HEADER, ENTRY = struct.Struct("<32sIIQ"), struct.Struct("<32sIIII")
SHARD_HEADER_BYTES, ENTRY_BYTES = 48, 48
END = b"\xff" * 32
WITH_VERIFICATION, WITH_METADATA = 1 << 31, 1 << 30


@dataclass
class XetStorage:
    """Xorbs by their hash, and files: the terms of each by its hash (xorb, first chunk, last chunk + 1, bytes)."""

    xorbs: dict = field(default_factory=dict)
    files: dict = field(default_factory=dict)
    hashes: dict = field(default_factory=dict)

    def add_shard(self, data):
        """Take the files of a shard; returns their content by sha256."""
        made, offset = {}, SHARD_HEADER_BYTES
        while data[offset : offset + 32] != END:
            name, flags, count, _ = HEADER.unpack_from(data, offset)
            entries = [ENTRY.unpack_from(data, offset + ENTRY_BYTES * (i + 1)) for i in range(count)]
            offset += ENTRY_BYTES * (1 + count * (2 if flags & WITH_VERIFICATION else 1))
            self.files[hex_of(name)] = [(hex_of(xorb), first, last, size) for xorb, _, size, first, last in entries]
            content = self.content(hex_of(name))
            if flags & WITH_METADATA:
                assert hex_of(data[offset : offset + 32]) == hashlib.sha256(content).hexdigest()
                offset += ENTRY_BYTES
            made[hashlib.sha256(content).hexdigest()] = content
            self.hashes[hashlib.sha256(content).hexdigest()] = hex_of(name)
        return made

    def content(self, name):
        """The content of a file."""
        return b"".join(
            data for xorb, first, last, _ in self.files[name] for data, *_ in chunks(self.xorbs[xorb])[first:last]
        )

    def reconstruction(self, name, url):
        """How a client puts a file together."""
        terms, fetch = [], {}
        for xorb, first, last, size in self.files[name]:
            span = {"start": first, "end": last}
            parts = chunks(self.xorbs[xorb])[first:last]
            terms.append({"hash": xorb, "unpacked_length": size, "range": span})
            where = {"start": parts[0][1], "end": parts[-1][2] - 1}
            fetch.setdefault(xorb, []).append({"range": span, "url": f"{url}/xorbs/{xorb}", "url_range": where})
        return {"offset_into_first_range": 0, "terms": terms, "fetch_info": fetch}


def hex_of(raw):
    """A hash as text: four little-endian numbers, each written as one."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", raw))


def chunks(xorb):
    """The chunks of a xorb: content, and where each begins and ends in it."""
    offset, parts = 0, []
    while offset < len(xorb) and xorb[offset] == 0:
        packed, scheme, size = _uint24(xorb, offset + 1), xorb[offset + 4], _uint24(xorb, offset + 5)
        data = xorb[offset + 8 : offset + 8 + packed]
        parts.append((_unpack(data, scheme, size), offset, offset + 8 + packed))
        offset += 8 + packed
    return parts


def _uint24(data, offset):
    return int.from_bytes(data[offset : offset + 3], "little")


def _unpack(data, scheme, size):
    if scheme == 0:
        return data
    grouped = pyarrow.Codec("lz4").decompress(data, decompressed_size=size).to_pybytes()
    if scheme == 1:
        return grouped
    plain, start = bytearray(size), 0
    for offset in range(4):  # the bytes of each place in a number stand together
        count = len(range(offset, size, 4))
        plain[offset::4] = grouped[start : start + count]
        start += count
    return bytes(plain)
