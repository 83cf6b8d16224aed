"""The contract of the arithmetic, against float64. What changes a byte here changes every user's soup."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import soup
from soup.checkpoints.dtypes import DTYPES as TABLE
from soup.checkpoints.dtypes import LEAF_ELEMENTS
from soup.errors import PoolError, RecipeError
from soup.merging.methods import Method, method
from soup.merging.options import MergeOptions
from soup.testing import tiny_checkpoint, tiny_pool, tiny_tensor
from tests.helpers.merge_oracle import (
    DTYPES,
    FRACTION_BITS,
    WORD,
    bits,
    config,
    mean,
    merged,
    read_back,
    recipe_of,
    rounded,
    same_bits,
    ulps,
    write_pool,
)

quick = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))

NARROW = ["bfloat16", "float16", "float32"]
INTEGERS = ["bool", "uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]


def normal(count, dtype, seed, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(count, generator=generator, dtype=torch.float64) * scale).to(dtype)


def any_bits(count, dtype, seed):
    """Finite values of every magnitude and sign, subnormals and zeros among them."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.empty(0, dtype=dtype).element_size()
    raw = torch.randint(0, 256, (count * size,), generator=generator).to(torch.uint8).view(dtype).clone()
    raw[~torch.isfinite(raw)] = 0.0
    return raw


# --- the mean -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2**17, pytest.param(2**21, marks=pytest.mark.slow)])
@pytest.mark.parametrize("weighted", [False, True], ids=["uniform", "weighted"])
@pytest.mark.parametrize("name", NARROW)
def test_a_million_means_of_2_to_9_models_are_rounded_right_and_an_ulp_off_at_most(name, weighted, size):
    dtype, wrong, worse = DTYPES[name], 0, 0
    for count in range(2, 10):
        inputs = [normal(size, dtype, seed=100 * count + i, scale=0.02) for i in range(count)]
        weights = [1.0 + 0.37 * i for i in range(count)] if weighted else None
        result = merged([{"w": values} for values in inputs], weights)["w"]
        exact = mean(inputs, weights)
        off = ulps(result, rounded(exact, dtype))
        wrong += (off > 0).sum().item()
        worse += (off > 1).sum().item()
        # Where the terms cancel, a result near 0 can't be better than the terms: what their sum lost is allowed.
        sums = torch.float64 if dtype == torch.float32 else torch.float32
        lost = sum(values.double().abs() for values in inputs) * 2.0 ** -FRACTION_BITS[sums]
        assert torch.all((off <= 1) | ((result.double() - exact).abs() <= lost))
    assert wrong <= 0.0005 * 8 * size
    assert worse <= (0.00001 * 8 * size if weighted else 0)


@quick
@given(
    name=st.sampled_from(list(DTYPES)),
    shape=st.lists(st.integers(0, 7), max_size=4).map(tuple),
    count=st.integers(1, 6),
    seed=st.integers(0, 2**20),
    weights=st.lists(st.floats(0.01, 100.0), min_size=6, max_size=6),
    uniform=st.booleans(),
)
def test_any_shape_and_weights_agree_with_float64(name, shape, count, seed, weights, uniform):
    dtype = DTYPES[name]
    weights = [1 / count] * count if uniform else weights[:count]
    inputs = [
        normal(max(1, torch.Size(shape).numel()), dtype, seed + i)[: torch.Size(shape).numel()] for i in range(count)
    ]
    inputs = [values.reshape(shape) for values in inputs]
    result = merged([{"w": values} for values in inputs], weights)["w"]
    exact = mean(inputs, weights)
    assert result.shape == torch.Size(shape)
    assert result.dtype == dtype
    largest = torch.stack([values.double().abs() for values in inputs]).amax(dim=0)
    step = (
        torch.finfo(dtype).eps * exact.abs() / 2
        + 2.0 ** -(FRACTION_BITS[torch.float32 if dtype.itemsize == 2 else torch.float64] - 3) * largest
    )
    assert torch.all(
        (result.double() - exact).abs() <= step + torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    )


@quick
@given(name=st.sampled_from(list(DTYPES)), count=st.integers(2, 5), seed=st.integers(0, 2**20), data=st.data())
def test_block_size_and_threads_change_no_byte(name, count, seed, data):
    size = data.draw(st.integers(1, 3000))
    states = [
        {"w": any_bits(size, DTYPES[name], seed + i) * 0.1, "odd": normal(7, DTYPES[name], seed + i)}
        for i in range(count)
    ]
    weights = data.draw(st.none() | st.lists(st.floats(0.1, 9.0), min_size=count, max_size=count))
    whole = merged(states, weights, options=MergeOptions(threads=1))
    for _ in range(3):
        options = MergeOptions(block_elements=data.draw(st.integers(1, size + 1)), threads=data.draw(st.integers(1, 5)))
        other = merged(states, weights, options=options)
        assert all(same_bits(whole[key], other[key]) for key in whole)


def test_a_tensor_of_several_leaves_is_the_same_for_any_cut():
    size = 2 * LEAF_ELEMENTS + 12_345
    states = [{"w": normal(size, torch.bfloat16, i)} for i in range(3)]
    outputs = [
        merged(states, options=MergeOptions(block_elements=step, threads=threads))
        for step, threads in [(None, 1), (None, 3), (99_991, 2)]
    ]
    assert same_bits(outputs[0]["w"], rounded(mean([state["w"] for state in states]), torch.bfloat16))
    assert all(same_bits(outputs[0]["w"], other["w"]) for other in outputs)


def test_float64_is_added_up_in_float64():
    inputs = [normal(10_000, torch.float64, i) for i in range(5)]
    expected = (inputs[0] + inputs[1] + inputs[2] + inputs[3] + inputs[4]) / 5
    assert same_bits(merged([{"w": values} for values in inputs])["w"], expected)


def test_float32_is_added_up_in_float64():
    inputs = [normal(10_000, torch.float32, i) for i in range(5)]
    assert same_bits(merged([{"w": values} for values in inputs])["w"], rounded(mean(inputs), torch.float32))


def test_a_sum_in_bfloat16_would_be_wrong_in_many_places():
    inputs = [normal(10_000, torch.bfloat16, i) for i in range(5)]
    naive = sum(inputs[1:], inputs[0]) / 5
    result = merged([{"w": values} for values in inputs])["w"]
    assert same_bits(result, rounded(mean(inputs), torch.bfloat16))
    assert (bits(naive) != bits(result)).float().mean() > 0.2


def test_simple_weights_tip_no_ties():
    generator = torch.Generator().manual_seed(3)
    inputs = [torch.randn(200_000, generator=generator).bfloat16() for _ in range(3)]
    for weights in ([1.0, 2.0, 0.5], [2 / 7, 4 / 7, 1 / 7], [0.3, 0.6, 0.15]):
        result = merged([{"w": values} for values in inputs], weights)["w"]
        wrong = ulps(result, rounded(mean(inputs, [2, 4, 1]), torch.bfloat16)) > 0
        assert wrong.float().mean() < 5e-4


def test_only_the_ratio_of_weights_counts():
    states = [{"w": normal(1000, torch.bfloat16, i)} for i in range(3)]
    assert same_bits(merged(states, [1.0, 2.0, 1.0])["w"], merged(states, [0.25, 0.5, 0.25])["w"])


def test_where_16_bit_terms_cancel_the_error_is_a_float32_rounding_of_the_largest_term():
    """The one way to be more than an ulp off: 2 + tiny - 2. Against the terms the error is nothing."""
    inputs = [torch.tensor([value], dtype=torch.bfloat16) for value in (2.0, 1.3 * 2**-20, -2.0)]
    result, exact = merged([{"w": values} for values in inputs])["w"], mean(inputs)
    assert ulps(result, rounded(exact, torch.bfloat16)).item() == 8
    assert (result.double() - exact).abs().item() <= 2.0 * 2**-24


def test_negative_weights_are_weights_and_a_zero_sum_is_refused():
    left, right = normal(1000, torch.float32, 1), normal(1000, torch.float32, 2)
    states = [{"w": left}, {"w": right}]
    exact = mean([left, right], [1.5, -0.5])
    assert same_bits(merged(states, [1.5, -0.5])["w"], rounded(exact, torch.float32))
    with pytest.raises(RecipeError, match="sum to 0"):
        merged(states, [1.0, -1.0])


def test_an_ingredient_of_weight_0_leaves_no_trace():
    left, right = normal(1000, torch.bfloat16, 1), normal(1000, torch.bfloat16, 2)
    assert same_bits(merged([{"w": left}, {"w": right}], [1.0, 0.0])["w"], left)


# --- the edges of the number line -----------------------------------------------------------------------------------


@quick
@given(
    name=st.sampled_from(list(DTYPES)),
    count=st.integers(1, 7),
    seed=st.integers(0, 2**20),
    weights=st.none() | st.lists(st.floats(0.01, 100.0), min_size=7, max_size=7),
)
def test_copies_of_a_model_give_that_model_bit_for_bit(name, count, seed, weights):
    values = any_bits(3000, DTYPES[name], seed)
    result = merged([{"w": values}] * count, weights and weights[:count])["w"]
    assert same_bits(result, values)


@pytest.mark.parametrize("name", DTYPES)
def test_copies_keep_zeros_subnormals_and_the_largest_numbers(name):
    finfo = torch.finfo(DTYPES[name])
    edges = [0.0, -0.0, finfo.smallest_normal, -finfo.smallest_normal, finfo.max, finfo.min, 1 / 3]
    values = torch.tensor(edges, dtype=DTYPES[name])
    subnormals = torch.arange(1, 100, dtype=WORD[values.element_size()]).view(DTYPES[name])
    values = torch.cat([values, subnormals, -subnormals])
    for count in (2, 3, 7):
        assert same_bits(merged([{"w": values}] * count)["w"], values)
        assert same_bits(merged([{"w": values}] * count, [1.0 + i for i in range(count)])["w"], values)


@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 3.0]], ids=["uniform", "weighted"])
@pytest.mark.parametrize("name", DTYPES)
def test_places_that_agree_keep_their_bits_between_places_that_do_not(name, weights):
    """Half of the elements are the same in all ingredients, the largest number and -0.0 among them."""
    dtype = DTYPES[name]
    shared = any_bits(5000, dtype, 7)
    shared[:3] = torch.tensor([torch.finfo(dtype).max, -0.0, torch.finfo(dtype).min], dtype=dtype)
    inputs = []
    for i in range(3):
        values = shared.clone()
        values[2500:] = normal(2500, dtype, i)
        inputs.append({"w": values})
    result = merged(inputs, weights)["w"]
    assert same_bits(result[:2500], shared[:2500])


@pytest.mark.parametrize("name", DTYPES)
def test_nan_payloads_of_copies_survive_when_nonfinite_values_are_allowed(name):
    values = normal(100, DTYPES[name], 3)
    word = bits(values).clone()
    word[5] |= bits(torch.tensor([torch.nan], dtype=DTYPES[name]))[0]
    word[6] = bits(torch.tensor([torch.inf], dtype=DTYPES[name]))[0] | 0b101  # a signalling NaN with a payload
    values = word.view(DTYPES[name])
    assert torch.isnan(values[5:7]).all()
    other = values.clone()
    other[50:] = normal(50, DTYPES[name], 4)
    assert same_bits(merged([{"w": values}, {"w": values}], options=MergeOptions(allow_nonfinite=True))["w"], values)
    assert same_bits(
        merged([{"w": values}, {"w": other}], options=MergeOptions(allow_nonfinite=True))["w"][:50], values[:50]
    )


@pytest.mark.parametrize(
    ("name", "large"), [("bfloat16", 3e38), ("float32", 3e38), ("float16", 65504.0), ("float16", 6e4)]
)
@pytest.mark.parametrize("weights", [None, [0.5, 0.25, 0.25]], ids=["uniform", "weighted"])
def test_a_sum_that_overflows_on_the_way_has_the_right_mean(name, large, weights):
    dtype = DTYPES[name]
    inputs = [
        torch.tensor([large, large, -large, 1.0], dtype=dtype),
        torch.tensor([large / 2, large, -large, 3.0], dtype=dtype),
    ]
    inputs.append(inputs[0].clone())
    exact = mean([values / 4 for values in inputs], weights) * 4
    assert ulps(merged([{"w": values} for values in inputs], weights)["w"], rounded(exact, dtype)).max() <= 1


def test_a_sum_too_large_for_float64_is_refused():
    with pytest.raises(PoolError, match="w: the result is too large for float64"):
        merged([{"w": torch.tensor([1e308], dtype=torch.float64)}, {"w": torch.tensor([1.5e308], dtype=torch.float64)}])


def test_a_mean_too_large_for_a_narrower_dtype_is_refused():
    states = [{"w": torch.tensor([1e30, 1.0])}, {"w": torch.tensor([3e30, 1.0])}]
    with pytest.raises(PoolError, match="too large for float16"):
        merged(states, dtype="float16")
    assert merged(states, dtype="bfloat16")["w"].isfinite().all()


@pytest.mark.parametrize("weights", [None, [0.75, 0.25]], ids=["uniform", "weighted"])
def test_a_mean_that_is_rounded_to_the_largest_of_a_narrower_dtype_is_no_overflow(weights):
    states = [{"w": torch.tensor([value, 1.0])} for value in (65512.0, 65516.0)]  # from 65520 on it is infinity
    assert merged(states, weights, dtype="float16")["w"].tolist() == [65504.0, 1.0]


def test_nonfinite_values_are_refused_and_every_tensor_and_ingredient_is_named():
    clean = {key: normal(10, torch.bfloat16, i) for i, key in enumerate(["one", "two", "three", "four"])}
    second = {**clean, "one": torch.full((10,), torch.nan, dtype=torch.bfloat16)}
    third = {**clean, "one": second["one"], "two": clean["two"].clone()}
    third["two"][3] = torch.inf
    with pytest.raises(PoolError) as refusal:
        merged([clean, second, third])
    assert "2 tensors" in str(refusal.value)
    assert "b, c: one: NaN or infinity" in str(refusal.value)
    assert "c: two: NaN or infinity" in str(refusal.value)
    assert "three" not in str(refusal.value)


def test_a_nan_that_all_ingredients_share_is_refused_too():
    values = torch.tensor([1.0, torch.nan])
    with pytest.raises(PoolError, match="a, b: w: NaN or infinity"):
        merged([{"w": values}, {"w": values}])


def test_nonfinite_values_pass_when_they_are_allowed():
    left, right = torch.tensor([1.0, torch.nan, torch.inf, 2.0]), torch.tensor([3.0, 1.0, 1.0, 4.0])
    result = merged([{"w": left}, {"w": right}], options=MergeOptions(allow_nonfinite=True))["w"]
    assert result.tolist()[0::3] == [2.0, 3.0]
    assert result[1].isnan()
    assert result[2] == torch.inf


# --- dtypes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", INTEGERS)
def test_integers_that_agree_are_copied(name):
    values = (torch.arange(60) % 2).to(getattr(torch, name)).reshape(3, 20)
    states = [{"count": values, "w": normal(9, torch.bfloat16, i)} for i in range(3)]
    assert same_bits(merged(states, [1.0, 2.0, 4.0])["count"], values)


@pytest.mark.parametrize("name", INTEGERS)
def test_integers_that_differ_are_refused_and_all_are_named(name):
    dtype = getattr(torch, name)
    same, other = torch.zeros(9).to(dtype), torch.tensor([0] * 8 + [1]).to(dtype)
    first = {"count": same, "place": same, "fine": same}
    with pytest.raises(PoolError) as refusal:
        merged([first, {**first, "count": other}, {**first, "count": other, "place": other}])
    assert f"b, c: count: {name} values can't be averaged, and differ from a's" in str(refusal.value)
    assert f"c: place: {name} values can't be averaged, and differ from a's" in str(refusal.value)
    assert "fine" not in str(refusal.value)


@pytest.mark.parametrize("code", [code for code, dtype in TABLE.items() if dtype.name.startswith("float8")])
def test_packed_numbers_are_refused_with_the_reason(code, tmp_path):
    values = torch.zeros(8, dtype=torch.uint8).view(TABLE[code].torch)
    try:
        write_pool(tmp_path, [{"w": values}] * 2)
    except KeyError:
        pytest.skip("this safetensors can't write it")
    with pytest.raises(PoolError, match=rf"a: quantised: 1 tensor of packed numbers, the first w: {TABLE[code].name}"):
        soup.merge(recipe_of(tmp_path), tmp_path / "out")


def test_complex_numbers_are_copied_where_they_agree_and_refused_where_not():
    values = torch.tensor([1 + 2j, 3j], dtype=torch.complex64)
    assert same_bits(merged([{"w": values}] * 2)["w"], values)
    with pytest.raises(PoolError, match="complex64 values can't be averaged"):
        merged([{"w": values}, {"w": values + 1}])


def test_mixed_dtypes_need_a_dtype():
    left, right = normal(500, torch.bfloat16, 1), normal(500, torch.float32, 2)
    with pytest.raises(
        PoolError, match=r"w: expected bfloat16\[500\] as in a, found float32\[500\]. `dtype` merges mixed"
    ):
        merged([{"w": left}, {"w": right}])
    for name, dtype in DTYPES.items():
        expected = rounded(mean([left, right]), dtype)
        assert same_bits(merged([{"w": left}, {"w": right}], dtype=name)["w"], expected)


@pytest.mark.parametrize("target", DTYPES)
@pytest.mark.parametrize("source", DTYPES)
def test_dtype_casts_once_from_the_sum(source, target):
    inputs = [normal(2000, DTYPES[source], i) for i in range(3)]
    result = merged([{"w": values, "n": torch.tensor([7])} for values in inputs], dtype=target)
    exact = mean(inputs)
    if DTYPES[source].itemsize == 2:  # added up in float32, whatever comes out
        exact = ((inputs[0].float() + inputs[1].float() + inputs[2].float()) / 3).double()
    assert ulps(result["w"], rounded(exact, DTYPES[target])).max() <= (1 if target == "bfloat16" else 0)
    assert (bits(result["w"]) == bits(rounded(exact, DTYPES[target]))).float().mean() > 0.999
    assert result["n"].dtype == torch.int64


def test_copies_in_a_wider_dtype_are_exact():
    values = any_bits(3000, torch.bfloat16, 5)
    assert same_bits(merged([{"w": values}] * 3, dtype="float32")["w"], values.float())


def test_an_unknown_dtype_is_refused_with_the_nearest_known(tmp_path):
    with pytest.raises(RecipeError, match="Did you mean 'bfloat16'"):
        merged([{"w": normal(5, torch.bfloat16, 1)}], dtype="bflota16")


def test_config_says_the_dtype_that_is_written(tmp_path):
    nested = {"text_config": {"dtype": "bfloat16", "hidden_size": 4, "inner": {"torch_dtype": "torch.bfloat16"}}}
    tiny_pool(tmp_path / "pool", 2, config={**nested, "vision_config": {"torch_dtype": "bfloat16"}})
    recipe = recipe_of(tmp_path / "pool", dtype="float32")
    soup.merge(recipe, tmp_path / "out")
    result = config(tmp_path / "out")
    assert result["dtype"] == "float32"
    assert result["text_config"] == {"dtype": "float32", "hidden_size": 4, "inner": {"torch_dtype": "float32"}}
    assert result["vision_config"] == {"torch_dtype": "float32"}


def test_config_keeps_its_bytes_where_the_dtype_stays(tmp_path):
    tiny_pool(tmp_path / "pool", 2)
    soup.merge(recipe_of(tmp_path / "pool"), tmp_path / "out")
    assert (tmp_path / "out/config.json").read_bytes() == (tmp_path / "pool/model-0/config.json").read_bytes()


def test_ingredients_that_hold_tensors_of_several_dtypes_keep_each(tmp_path):
    state = [
        {"a": normal(50, torch.bfloat16, i), "b": normal(50, torch.float32, i), "c": normal((50), torch.float16, i)}
        for i in range(2)
    ]
    result = merged(state)
    assert {name: value.dtype for name, value in result.items()} == {
        "a": torch.bfloat16,
        "b": torch.float32,
        "c": torch.float16,
    }


# --- which tensors --------------------------------------------------------------------------------------------------


def test_every_tensor_of_the_inputs_is_in_the_output(tmp_path):
    names = ["w", "模型.层.0", "a b", "ключ", "😀", "x.y/z", '"quoted"', "\\back", "", "ẅ"]
    states = [{name: tiny_tensor(name, (3, i % 4), seed=seed) for i, name in enumerate(names)} for seed in range(2)]
    assert merged(states).keys() == set(names)


def test_dropped_tensors_are_left_out_and_nothing_else():
    states = [
        {
            "lm.w": normal(5, torch.bfloat16, i),
            "vit.w": normal(5, torch.bfloat16, i),
            "vit.b": normal(5, torch.bfloat16, i),
        }
        for i in range(2)
    ]
    assert merged(states, drop=("vit.*",)).keys() == {"lm.w"}
    assert merged(states, drop=("*.b",)).keys() == {"lm.w", "vit.w"}
    with pytest.raises(RecipeError, match="leaves no tensor"):
        merged(states, drop=("*",))


def test_a_tensor_that_only_one_ingredient_has_can_be_dropped():
    first = {"w": normal(5, torch.bfloat16, 1)}
    second = {"w": normal(5, torch.bfloat16, 2), "extra": normal(5, torch.bfloat16, 2)}
    with pytest.raises(PoolError, match="b: 1 tensor that a has not: extra"):
        merged([first, second])
    assert merged([first, second], drop=("extra",)).keys() == {"w"}


def test_the_lead_s_layout_is_kept_and_other_layouts_are_read(tmp_path):
    for seed, shards in enumerate((2, 5, 1)):
        tiny_checkpoint(tmp_path / "pool" / f"m{seed}", seed=seed, shards=shards)
    soup.merge(recipe_of(tmp_path / "pool"), tmp_path / "out")
    weights = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors*"))
    assert weights == sorted(path.name for path in (tmp_path / "pool/m0").glob("*.safetensors*"))
    result, inputs = read_back(tmp_path / "out"), [read_back(tmp_path / f"pool/m{i}") for i in range(3)]
    assert result.keys() == inputs[0].keys()
    for name, values in result.items():
        assert same_bits(values, rounded(mean([each[name] for each in inputs]), torch.bfloat16))


# --- methods --------------------------------------------------------------------------------------------------------


@method("test-task-arithmetic")
@dataclass(frozen=True)
class TaskArithmetic(Method):
    """base + scale * sum(tau)."""

    needs_base: ClassVar[bool] = True
    scale: float = 0.5

    def __call__(self, block):
        total = block.base
        for values in block:
            total += self.scale * (values - block.base)
        return total


@method("test-median-by-row")
@dataclass(frozen=True)
class NormOfRows(Method):
    """The mean, each row scaled to the mean norm of the ingredients' rows: it needs the whole tensor."""

    granularity: ClassVar = "tensor"

    def __call__(self, block):
        total = sum(block[1:], block[0]) / len(block)
        if total.dim() < 2:
            return total
        norms = sum(values.norm(dim=-1, keepdim=True) for values in block) / len(block)
        return total / total.norm(dim=-1, keepdim=True) * norms


@method("test-no-number")
@dataclass(frozen=True)
class NoNumber(Method):
    """Divides nothing by nothing."""

    def __call__(self, block):
        return (block[0] - block[0]) / (block[0] - block[0])


@pytest.mark.parametrize("name", NARROW)
def test_nan_that_a_method_makes_of_finite_values_is_told_as_its_own(name):
    states = [{"w": torch.full((3,), value, dtype=DTYPES[name])} for value in (1.0, 2.0)]
    with pytest.raises(PoolError, match="w: NoNumber makes NaN of finite values"):
        merged(states, method="test-no-number")


@method("test-wrong-shape")
@dataclass(frozen=True)
class WrongShape(Method):
    """Not allowed."""

    def __call__(self, block):
        return block[0].sum()


def test_a_method_with_a_base_reads_it(tmp_path):
    states = [{"w": normal(3000, torch.bfloat16, i)} for i in range(3)]
    pool = write_pool(tmp_path / "pool", states[:2])
    base = write_pool(tmp_path / "base", states[2:]) / "a"
    recipe = recipe_of(pool, base=base, method="test-task-arithmetic", params={"scale": 0.25})
    sealed = soup.merge(recipe, tmp_path / "out")
    left, right, origin = (state["w"].float() for state in states)
    expected = (origin + 0.25 * (left - origin)) + 0.25 * (right - origin)
    assert same_bits(read_back(tmp_path / "out")["w"], expected.bfloat16())
    assert sealed.base.digest.startswith("xxh3:")


def test_a_method_that_needs_a_base_says_so(tmp_path):
    states = [{"w": normal(5, torch.bfloat16, 1)}] * 2
    with pytest.raises(RecipeError, match="needs the base"):
        merged(states, method="test-task-arithmetic")


def test_a_method_of_whole_tensors_gets_whole_tensors_whatever_the_block_size():
    states = [
        {"w": normal(6000, torch.bfloat16, i).reshape(60, 100), "b": normal(9, torch.bfloat16, i)} for i in range(3)
    ]
    result = merged(states, method="test-median-by-row", options=MergeOptions(block_elements=64, threads=3))
    norms = result["w"].float().norm(dim=1)
    expected = sum(state["w"].float().norm(dim=1) for state in states) / 3
    assert torch.allclose(norms, expected, rtol=0.01)
    assert same_bits(result["b"], rounded(mean([state["b"] for state in states]), torch.bfloat16))


def test_a_method_of_whole_tensors_spans_leaves_and_digests_alike(tmp_path):
    states = [{"w": normal(LEAF_ELEMENTS + 1000, torch.bfloat16, i).reshape(8, -1)} for i in range(2)]
    pool = write_pool(tmp_path / "pool", states)
    whole = soup.merge(recipe_of(pool, method="test-median-by-row"), tmp_path / "whole")
    linear = soup.merge(recipe_of(pool), tmp_path / "linear")
    assert [share.digest for share in whole.ingredients] == [share.digest for share in linear.ingredients]


def test_a_method_that_gives_the_wrong_shape_is_told(tmp_path):
    with pytest.raises(RecipeError, match=r"WrongShape on w: expected a tensor of shape and dtype \(\(5,\)"):
        merged([{"w": normal(5, torch.bfloat16, i)} for i in range(2)], method="test-wrong-shape")


def test_unknown_methods_and_params_are_refused():
    states = [{"w": normal(5, torch.bfloat16, i)} for i in range(2)]
    with pytest.raises(RecipeError, match="Did you mean 'linear'"):
        merged(states, method="linaer")
    with pytest.raises(RecipeError, match="does not take these params"):
        merged(states, params={"strength": 1})


# --- the same for ever ----------------------------------------------------------------------------------------------

GOLDEN = {
    ("bfloat16", False): (
        "sha256:5339cbf382f38f412ed9f84cd7f2604c6d83368727a3721dcb7c479db817db3f",
        "3f278ebc338e5b912372e8be104d455c5468a3861a48886d4eb98ff1867279ed",
    ),
    ("bfloat16", True): (
        "sha256:06c8e03236139e958ed34859e38b676da9b7a0244d8996d3016842700667f25d",
        "1624aaf2d4e696baf02b1fb0121fac21f06b8948fa29222807b7314f95fa5d76",
    ),
    ("float16", False): (
        "sha256:a4c62fa88764a434a8cdc4ce99066e250572d8fb7456b7693bd9e64e66cd56db",
        "31502eebdcf65f0b06fbc6f0cf2f095f5c2d7697c96b1cd41eef3523f453f72e",
    ),
    ("float16", True): (
        "sha256:6585b9d9614884fa601b6539e058934a8b59b36109d9af885dcd9d45246d203c",
        "95384383a335f5ddfecb31976e5d5d3c3389975ef67d68ca7a8fce700d88aba6",
    ),
    ("float32", False): (
        "sha256:631081a48acf09fa9d2fb31b364d196a34746a267dd09dbf52958039d2eb601e",
        "01d3808441745e11e87e8767233fcee1cd49278f62bfbd0fbd3b8f6de3b46653",
    ),
    ("float32", True): (
        "sha256:27c9269d279569ad91c4fe9b0d8751622b23172f8f3f60dcf47d8fc1ecd0a685",
        "7037ef7fd70cd961511d802ea526b7ece371db0f361e128a8f89700c32ee382a",
    ),
    ("float64", False): (
        "sha256:a753d223c94aebe9af9074275da2298c03868ab3ff973f006873fdd4c5c5d5e1",
        "c15914196a3358e911c3995d671aa39dac41463866bec71db93bbf824b3cd7f7",
    ),
    ("float64", True): (
        "sha256:09e392b4fbfde5ad73d9443ddd577a99eaa1573fa4cf721c8dfd7a7595db1bf9",
        "ba76c15ab409fc89ed1da45fd1b9219055cb2c97e63c3ffd97de09ec047e9e7f",
    ),
}


@pytest.mark.parametrize("weights", [None, [0.5, 0.3, 0.2]], ids=["uniform", "weighted"])
@pytest.mark.parametrize("name", DTYPES)
def test_golden_digests(name, weights, tmp_path):
    tiny_pool(tmp_path / "pool", 3, dtype=name)
    recipe = recipe_of(tmp_path / "pool", weights)
    sealed = soup.merge(recipe, tmp_path / "out")
    digests = (sealed.digest, hashlib.sha256((tmp_path / "out/model.safetensors").read_bytes()).hexdigest())
    assert digests == GOLDEN[name, weights is not None], (
        "The same recipe gives other bytes, or another name, than before. If you mean it: change the constant, and "
        "write in CHANGELOG.md under **Numerics** what changed and for whom."
    )
