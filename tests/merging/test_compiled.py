"""The compiled arithmetic gives the bytes that torch's operations give, and leaves to them whatever is not plain."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import soup
from soup.checkpoints.dtypes import DTYPES, TensorSpec
from soup.errors import PoolError
from soup.merging import kernel_library
from soup.merging.block_arithmetic import Blend
from soup.merging.compiled import Arithmetic, add_counts, merge_block, same_bytes
from soup.merging.kernel_library import has_kernels
from soup.merging.methods.base import Block
from soup.merging.methods.consensus import Consensus
from soup.merging.methods.dare import Dare
from soup.merging.methods.dot_products import dot_products
from soup.merging.methods.karcher import Karcher
from soup.merging.methods.linear import Linear
from soup.merging.methods.model_stock import ModelStock
from soup.merging.methods.task_arithmetic import TaskArithmetic
from soup.merging.methods.thresholds import bits_of_deltas, scattered
from soup.merging.methods.ties import Ties, _Constants
from soup.merging.scratch import Scratch
from tests.helpers.merge_oracle import merged, read_back, recipe_of, write_pool

pytestmark = pytest.mark.skipif(not has_kernels(), reason="installed where there was no C compiler")

NAME = "model.layers.3.weight"
CODES = {
    "BF16": (torch.bfloat16, torch.int16),
    "F16": (torch.float16, torch.int16),
    "F32": (torch.float32, torch.int32),
    "F64": (torch.float64, torch.int64),
}


def ties(count, **params):
    thresholds = [0.25 * (index + 1) for index in range(count)]
    return Ties(**params), _Constants({"": thresholds}, {NAME: -1.0}, 1.0)


METHODS = {
    "mean": lambda count: (Linear(), None),
    "weighted mean": lambda count: (Linear(), None),
    "task-arithmetic": lambda count: (TaskArithmetic(scale=0.7), None),
    "task-arithmetic of sums": lambda count: (TaskArithmetic(scale=0.3, normalize=False), None),
    "model-stock": lambda count: (ModelStock(), {NAME: 0.37}),
    "karcher": lambda count: (Karcher(), {NAME: [0.1 * (i + 1) for i in range(count)]}),
    "karcher around the base": lambda count: (Karcher(around="base"), {NAME: [0.3 / (i + 1) for i in range(count)]}),
    "dare": lambda count: (Dare(p=0.6, scale=0.9), None),
    "dare of nothing": lambda count: (Dare(p=0.0), None),
    "dare with signs": lambda count: (Dare(p=0.4, elect=True), None),
    "dare with signs, of sums": lambda count: (Dare(p=0.4, elect=True, normalize=False), None),
    "dare as it is": lambda count: (Dare(p=0.4, rescale=False, normalize=False), None),
    "consensus": lambda count: (Consensus(), None),
    "consensus of one": lambda count: (Consensus(agree=1, threshold=0.9, scale=0.4), None),
    "ties": ties,
    "ties of sums": lambda count: ties(count, merge="sum", scale=0.3),
}


def values_of(code, count, elements, seed):
    """Numbers of every size and sign, few values often, and elements on which all inputs agree."""
    dtype, word = CODES[code]
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.randint(0, 4, (elements,), generator=generator)
    common = torch.randint(-3, 4, (elements,), generator=generator).to(dtype)
    inputs = []
    for _ in range(count):
        top = torch.iinfo(word).max
        bits = torch.randint(-top - 1, top, (elements,), generator=generator, dtype=torch.int64).to(word)
        largest = {"BF16": 0x0400, "F16": 0x4000, "F32": 0x04000000, "F64": 0x4000 << 48}[code]  # no sum is infinite
        wild = (bits & ~largest).view(dtype)
        near = torch.randn(elements, generator=generator).to(dtype)
        few = torch.randint(-2, 3, (elements,), generator=generator).to(dtype)
        inputs.append(
            torch.where(kinds == 0, wild, torch.where(kinds == 1, near, torch.where(kinds == 2, few, common)))
        )
    return inputs


def blend_of(method, constants, weights, code):
    names = tuple(f"m{i}" for i in range(len(weights))) + (("base",) if method.needs_base else ())
    digests = tuple(f"digest {i}" for i in range(len(weights)))
    return Blend(method, (), names, tuple(weights), digests=digests, constants=constants)


def by_kernel(blend, code, inputs, first=0):
    spec = TensorSpec(NAME, DTYPES[code], (first + len(inputs[0]),))
    views = [memoryview(bytearray(values.view(torch.uint8).numpy().tobytes())) for values in inputs]
    out = memoryview(bytearray(len(views[0])))
    done = merge_block(blend.arithmetic([spec] * len(inputs)), DTYPES[code], views, first, out)
    return done, torch.frombuffer(out, dtype=CODES[code][0])


def in_torch(blend, code, inputs, first=0):
    spec = TensorSpec(NAME, DTYPES[code], (first + len(inputs[0]),))
    return blend([spec] * len(inputs), inputs, first)


def same_bits(left, right):
    return torch.equal(left.view(torch.uint8), right.view(torch.uint8))


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("name", METHODS)
@settings(max_examples=25, deadline=None)
@given(count=st.integers(2, 9), elements=st.integers(1, 5000), seed=st.integers(0, 2**31), first=st.integers(0, 2**40))
def test_every_method_has_torch_s_bits_for_numbers_of_every_size(name, code, count, elements, seed, first):
    method, constants = METHODS[name](count)
    weights = [1.0] * count if "weighted" not in name else [0.5 + i / 3 for i in range(count)]
    inputs = values_of(code, count + method.needs_base, elements, seed)
    blend = blend_of(method, constants, weights, code)
    done, result = by_kernel(blend, code, inputs, first)
    expected = in_torch(blend, code, inputs, first)
    assert done == ("equal" if all(same_bits(each, inputs[0]) for each in inputs) else "merged")
    assert expected.rejection is None
    assert done == "equal" or same_bits(result, expected.values)


@pytest.mark.parametrize("code", ["BF16", "F16"])
def test_every_finite_number_of_16_bits_is_read_and_rounded_as_by_torch(code):
    dtype = CODES[code][0]
    every = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype)
    finite = every[torch.isfinite(every)]
    inputs = [finite, finite.flip(0)]
    for weights in ([1.0, 0.0], [0.999, 0.001], [3.0, -1.0], [1e-3, 1.0]):
        blend = blend_of(Linear(), None, weights, code)
        done, result = by_kernel(blend, code, inputs)
        expected = in_torch(blend, code, inputs)
        assert (done == "left") == (expected.rejection is not None), weights
        assert done == "left" or same_bits(result, expected.values), weights


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", [0, 2047, 2048, 4099])
def test_what_is_not_finite_is_left_to_torch_wherever_it_stands(name, code, bad, place):
    method, constants = METHODS[name](3)
    inputs = [torch.full((4100,), 0.5 + index).to(CODES[code][0]) for index in range(3 + method.needs_base)]
    for index in range(len(inputs)):
        spoilt = [values.clone() for values in inputs]
        spoilt[index][place] = bad
        assert by_kernel(blend_of(method, constants, [1.0] * 3, code), code, spoilt)[0] == "left"


@pytest.mark.parametrize("code", CODES)
def test_a_result_that_rounds_to_infinity_is_left_to_torch_and_the_largest_number_is_not(code):
    dtype = CODES[code][0]
    largest = torch.finfo(dtype).max
    inputs = [torch.tensor([largest, 1.0], dtype=dtype), torch.tensor([largest, 2.0], dtype=dtype)]
    blend = blend_of(Linear(), None, [1.0, 1.0], code)
    done, result = by_kernel(blend, code, inputs)
    if code in ("BF16", "F64"):  # the sum is infinite where it is added up, the mean is not
        assert done == "left"
    else:
        assert done == "merged"
        assert result.tolist() == [largest, 1.5]
    far = blend_of(TaskArithmetic(scale=2.0, normalize=False), None, [1.0, 1.0], code)
    assert by_kernel(far, code, [*inputs, torch.zeros(2, dtype=dtype)])[0] == "left"


def test_equal_blocks_are_told_from_those_that_differ_in_their_last_byte():
    views = [memoryview(bytearray(1000)) for _ in range(3)]
    arithmetic = Arithmetic("mean", (1.0,) * 3)
    assert same_bytes(views)
    assert merge_block(arithmetic, DTYPES["BF16"], views, 0, memoryview(bytearray(1000))) == "equal"
    views[2][999] = 1
    assert not same_bytes(views)
    assert merge_block(arithmetic, DTYPES["BF16"], views, 0, memoryview(bytearray(1000))) == "merged"


def test_a_subclass_that_merges_in_another_way_is_asked_itself():
    @dataclasses.dataclass(frozen=True)
    class First(Linear):
        def __call__(self, block):
            return block[0]

    assert blend_of(First(), None, [1.0, 1.0], "BF16").arithmetic([TensorSpec(NAME, DTYPES["BF16"], (2,))] * 2) is None


@pytest.fixture
def without_kernels(monkeypatch):
    monkeypatch.setattr(kernel_library, "load_library", lambda: None)


def test_the_library_of_an_earlier_version_is_not_used(monkeypatch):
    monkeypatch.setattr(kernel_library.ctypes, "CDLL", lambda path: object())  # without the functions of today
    assert kernel_library.load_library.__wrapped__() is None


def test_a_library_that_was_made_of_other_sources_is_not_used(tmp_path, monkeypatch):
    home = Path(kernel_library.__file__).parent
    for file in [*home.glob("_kernels*.so"), *home.glob("kernels/*.[ch]")]:
        copy = tmp_path / file.relative_to(home)
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(file.read_bytes())
    monkeypatch.setattr(kernel_library, "__file__", str(tmp_path / "kernel_library.py"))
    assert kernel_library.load_library.__wrapped__() is not None
    with (tmp_path / "kernels" / "deltas.h").open("a") as header:
        header.write("/* of the next version */")
    assert kernel_library.load_library.__wrapped__() is None


@pytest.mark.parametrize("count", [2, 3, 4, 7])
@pytest.mark.parametrize("code", CODES)
def test_a_merge_writes_the_same_bytes_with_and_without_it(count, code, tmp_path, request):
    values = values_of(code, count, 2**19 + 77, seed=count)
    pool = write_pool(tmp_path / "pool", [{"w": each, "one": torch.ones(3), "n": torch.tensor(7)} for each in values])
    soup.merge(recipe_of(pool), tmp_path / "compiled")
    request.getfixturevalue("without_kernels")
    soup.merge(recipe_of(pool), tmp_path / "torch")
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("torch", "compiled")]
    assert files[0] == files[1]


def test_what_overflows_on_the_way_is_merged_all_the_same():
    inputs = [{"w": torch.tensor([3e38, 1.0, -3e38], dtype=torch.bfloat16)} for _ in range(2)]
    inputs[1]["w"][1] = 2.0
    assert same_bits(merged(inputs)["w"], torch.tensor([3e38, 1.5, -3e38], dtype=torch.bfloat16))


def test_nan_is_still_an_error_that_names_tensor_and_ingredient():
    inputs = [
        {"w": torch.tensor([1.0, 2.0], dtype=torch.bfloat16)},
        {"w": torch.tensor([1.0, float("nan")]).bfloat16()},
    ]
    with pytest.raises(PoolError, match="w: NaN or infinity"):
        merged(inputs)


COMPILED = {
    "linear": {},
    "linear by component": {"components": {"llm": [1.0, 2.0], "vision": [2.0, 1.0]}},
    "task-arithmetic": {},
    "task-arithmetic by component and depth": {"components": {"llm": 0.5}, "alpha": 0.8, "beta": 0.3},
    "dare": {"p": 0.3},
    "consensus": {},
}


@pytest.mark.parametrize("case", COMPILED)
def test_a_merge_that_needs_nothing_else_never_imports_torch(case, tmp_path):
    names = [f"model.{part}.layers.{i}.mlp.weight" for part in ("vision_tower", "language_model") for i in range(3)]
    pool = write_pool(tmp_path / "pool", [{**dict.fromkeys(names, torch.full((9,), float(i)))} for i in range(3)])
    code = (
        "import json, sys, soup; from pathlib import Path; from soup.merging.recipe import CheckpointSource, Recipe\n"
        "sources = [CheckpointSource(name=path.name, path=str(path)) for path in sorted(Path(sys.argv[1]).iterdir())]\n"
        "method = {'base': sources[0], 'method': sys.argv[3], 'params': json.loads(sys.argv[4])}\n"
        "soup.merge(Recipe.uniform(sources[1:]).model_copy(update=method), sys.argv[2])\n"
        "print([name for name in ('torch', 'numpy', 'transformers') if name in sys.modules])"
    )
    what = [case.split()[0], json.dumps(COMPILED[case])]
    command = [sys.executable, "-c", code, str(pool), str(tmp_path / "out"), *what]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    if not COMPILED[case]:
        assert read_back(tmp_path / "out")[names[0]].tolist() == [1.5] * 9


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("around", ["zero", "base", "mean"])
@settings(max_examples=20, deadline=None)
@given(
    count=st.integers(1, 6), elements=st.integers(1, 5000), seed=st.integers(0, 2**31), with_center=st.booleans()
)  # fmt: skip
def test_dot_products_have_the_same_bits_in_torch(code, around, count, elements, seed, with_center):
    *inputs, base = values_of(code, count + 1, elements, seed)
    with_center &= around != "zero"
    accumulate = torch.float64 if code in ("F32", "F64") else torch.float32
    block = Block(NAME, (1.0,) * count, tuple(inputs), accumulate, base if around == "base" else None)
    ours = dot_products(block, around, with_center=with_center)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel_library, "load_library", lambda: None)
        theirs = dot_products(block, around, with_center=with_center)
    assert ours.moved == theirs.moved
    assert same_bits(ours.products, theirs.products)


def test_dot_products_are_those_of_the_differences():
    generator = torch.Generator().manual_seed(1)
    base, *inputs = torch.randn(4, 70_000, generator=generator, dtype=torch.float32)
    products, moved = dot_products(
        Block(NAME, (1.0,) * 3, tuple(inputs), torch.float64, base), "base", with_center=True
    )
    rows = torch.stack([base.double(), *(values.double() - base.double() for values in inputs)])
    assert torch.allclose(products, rows @ rows.T, rtol=1e-12)
    assert moved == [70_000] * 4


@pytest.mark.parametrize("code", CODES)
@settings(max_examples=20, deadline=None)
@given(
    elements=st.integers(1, 5000), seed=st.integers(0, 2**31),
    places=st.tuples(st.integers(0, 5000), st.integers(0, 5000)),
)  # fmt: skip
def test_the_bits_of_magnitudes_are_those_that_torch_finds(code, elements, seed, places):
    *tuned, base = values_of(code, 3, elements, seed)
    accumulate = torch.float64 if code in ("F32", "F64") else torch.float32
    block = Block(NAME, (1.0,) * 2, tuple(tuned), accumulate, base)
    bits = (tuned[0].to(accumulate) - base.to(accumulate)).abs().float().view(torch.int32)
    low, last = sorted(max(1, int(bits[place % elements])) for place in places)  # both ends occur
    intervals = [(low, last), (1, 2**31 - 1)]
    compiled = bits_of_deltas(block, intervals, Scratch())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel_library, "load_library", lambda: None)
        by_torch = bits_of_deltas(block, intervals, Scratch())
    for ours, theirs in zip(compiled, by_torch, strict=True):
        assert (ours.moved, ours.over, ours.total) == (theirs.moved, theirs.over, theirs.total)
        assert torch.equal(ours.inside.sort().values, theirs.inside.sort().values)


def test_numbers_are_counted_by_their_upper_bits():
    generator = torch.Generator().manual_seed(1)
    numbers = [torch.randint(0, 2**20, (size,), dtype=torch.int32, generator=generator) for size in (5000, 0, 7)]
    for shift in (0, 4):
        counts = torch.ones(3, 2 ** (20 - shift), dtype=torch.int64)
        assert add_counts(numbers, shift, counts)
        ordered = counts[:, scattered(torch.arange(counts.shape[1]))]
        for row, expected in zip(ordered, numbers, strict=True):
            assert torch.equal(row, 1 + torch.bincount(expected >> shift, minlength=len(row)))
