"""Names, dtypes and tensors at random, for hypothesis."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from soup.checkpoints.dtypes import DTYPES

STORED = [dtype for dtype in DTYPES.values() if dtype.kind != "packed"]

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(lambda name: name != "__metadata__")


@st.composite
def tensors(draw, dtypes=tuple(STORED)):
    dtype = draw(st.sampled_from(dtypes))
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    count = torch.Size(shape).numel() * dtype.bits // 8
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**30)))
    raw = torch.randint(0, 2 if dtype.name == "bool" else 256, (count,), generator=generator, dtype=torch.uint8)
    return (raw.view(dtype.torch) if count else torch.empty(0, dtype=dtype.torch)).reshape(shape)
