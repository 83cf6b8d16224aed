"""Each method against its definition, in float64 by numpy and torch over whole models."""

from __future__ import annotations

import hashlib
import math
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import soup
from soup.checkpoints.digest import digest_checkpoint
from soup.checkpoints.reader import Checkpoint
from soup.errors import CheckpointError, RecipeError
from soup.merging import kernel_library, plan
from soup.merging.merge import open_pool
from soup.merging.methods.dare import keyed_uniform
from soup.merging.methods.karcher import sphere_mean
from soup.merging.methods.swudi import Swudi
from soup.merging.methods.task_arithmetic import TaskArithmetic
from soup.merging.options import MergeOptions
from soup.merging.plan import plan_merge
from soup.testing import tiny_checkpoint
from tests.helpers.merge_oracle import same_bits
from tests.helpers.method_pools import FROZEN, SHAPES, make_pool, merge, near, numbers

MATRICES = [name for name, shape in SHAPES.items() if len(shape) == 2 and min(shape) > 1 and "embed" not in name]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_pool(tmp_path_factory.mktemp("pool"))


@pytest.fixture(scope="module")
def tensors(folder):
    return numbers(folder)


def deltas(tensors, name):
    base, tuned = tensors
    return [each[name] - base[name] for each in tuned]


def with_delta(tensors, merged):
    return {name: value + merged(name) for name, value in tensors[0].items()}


def mean_delta(tensors, name):
    return sum(deltas(tensors, name)) / len(tensors[1])


# task arithmetic


@pytest.mark.parametrize("scale", [0.0, -1.0, 0.5, 1.0, 1.7])
def test_task_arithmetic_is_the_base_and_a_part_of_the_mean_delta(folder, tensors, scale):
    expected = with_delta(tensors, lambda name: scale * mean_delta(tensors, name))
    assert near(merge(folder, "task-arithmetic", f"ta {scale}", scale=scale), expected)


def test_task_arithmetic_without_normalising_adds_up_weighted_deltas(folder, tensors):
    weights = [0.3, 1.0, 2.0]
    expected = with_delta(
        tensors, lambda name: 0.3 * sum(w * d for w, d in zip(weights, deltas(tensors, name), strict=True))
    )
    found = merge(folder, "task-arithmetic", "ta sum", weights=weights, scale=0.3, normalize=False)
    assert near(found, expected)


def test_scale_1_is_linear_and_scale_0_the_base_in_every_bit(tmp_path):
    folder = make_pool(tmp_path, dtype=torch.bfloat16)
    base, linear = numbers(folder)[0], merge(folder, "linear", "linear")
    nothing, whole = merge(folder, "task-arithmetic", "zero", scale=0.0), merge(folder, "task-arithmetic", "one")
    assert all(torch.equal(nothing[name].double(), base[name]) for name in base)
    for name, value in whole.items():
        ulps = (value.view(torch.int16).int() - linear[name].view(torch.int16).int()).abs()
        assert not ulps.numel() or ulps.max() <= 1


# components and depth (LiNeS)


def test_factors_follow_component_and_depth(folder, tensors):
    found = merge(
        folder,
        "task-arithmetic",
        "lines",
        components={"vision": 0.5, "llm": [1.0, 0.0, 3.0], "embeddings": 0.0},
        alpha=0.6,
        beta=0.4,
    )

    def merged(name):
        parts = deltas(tensors, name)
        factors = [1.0] * 3
        if "embed" in name:
            factors = [0.0] * 3
        elif "vision" in name:
            factors = [0.5] * 3
        elif "language_model" in name:
            factors = [1.0, 0.0, 3.0]
        growth = 0.6
        if "blocks." in name:
            growth += 0.4 * int(name.split("blocks.")[1][0]) / 1
        if "layers." in name:
            growth += 0.4 * int(name.split("layers.")[1][0]) / 2
        return growth * sum(f * d for f, d in zip(factors, parts, strict=True)) / 3

    assert near(found, with_delta(tensors, merged))


def test_neutral_factors_change_no_byte_and_beta_0_is_a_scale(tmp_path):
    folder = make_pool(tmp_path, dtype=torch.bfloat16)
    for method in ("task-arithmetic", "ties", "dare", "consensus"):
        plain = merge(folder, method, f"{method} plain")
        neutral = merge(folder, method, f"{method} neutral", components={"llm": 1.0}, alpha=1.0, beta=0.0)
        assert all(same_bits(plain[name], neutral[name]) for name in plain)
    scaled = merge(folder, "task-arithmetic", "scaled", scale=0.5)
    by_alpha = merge(folder, "task-arithmetic", "alpha", alpha=0.5)
    assert all(same_bits(scaled[name], by_alpha[name]) for name in scaled)


def test_alpha_auto_is_the_ratio_of_l1_norms(folder, tensors):
    total = sum(float(sum(deltas(tensors, name)).abs().sum()) for name in SHAPES)
    weights = [0.5, 1.0, 2.0]
    merged = sum(
        float(sum(w * d for w, d in zip(weights, deltas(tensors, name), strict=True)).abs().sum()) for name in SHAPES
    )
    found = merge(folder, "task-arithmetic", "auto", weights=weights, alpha="auto", normalize=False)
    alpha = total / (3 * merged)
    expected = with_delta(
        tensors, lambda name: alpha * sum(w * d for w, d in zip(weights, deltas(tensors, name), strict=True))
    )
    assert near(found, expected)


def test_alpha_auto_adds_up_the_norms_of_many_tensors_in_float64():
    norms = torch.tensor([1.0, 1.0], dtype=torch.float64)
    first = torch.tensor([2.0**25, 2.0**24], dtype=torch.float64)  # a float32 of this size takes no 1 more
    first_pass = SimpleNamespace(weights=(1.0, 1.0), sums=lambda statistic: [("a", first), *[("b", norms)] * 8])
    assert TaskArithmetic(alpha="auto").auto_alpha(first_pass) == (2**25 + 8) / (2 * (2**24 + 8))


def test_component_weights_of_linear_are_normalised_and_growth_is_refused(folder, tensors):
    found = merge(folder, "linear", "components", components={"llm": [2.0, 1.0, 1.0]})
    base, tuned = tensors
    expected = {}
    for name in base:
        weights = [0.5, 0.25, 0.25] if "language_model.layers" in name or "language_model.norm" in name else [1 / 3] * 3
        expected[name] = sum(w * each[name] for w, each in zip(weights, tuned, strict=True))
    assert near(found, expected)
    with pytest.raises(RecipeError, match="beta"):
        merge(folder, "linear", "growth", beta=0.5)


# ties


def ties_oracle(tensors, density, weights, scope="model", merge_by="mean", scale=1.0):
    base, tuned = tensors
    names = [name for name in base if base[name].numel()]
    trimmed = [{} for _ in tuned]
    for index, each in enumerate(tuned):
        flat = {name: (each[name].float() - base[name].float()).numpy() for name in names}
        moved = [name for name in names if np.any(flat[name])]
        for group in [moved] if scope == "model" else [[name] for name in moved]:
            sizes = np.sort(np.concatenate([np.abs(flat[name]).reshape(-1) for name in group]))[::-1]
            threshold = sizes[math.ceil(density * len(sizes)) - 1]
            for name in group:
                trimmed[index][name] = np.where(np.abs(flat[name]) >= threshold, flat[name], 0)
    result = {}
    for name in base:
        parts = [part.get(name) for part in trimmed]
        if all(part is None for part in parts):
            result[name] = base[name]
            continue
        parts = np.stack([np.zeros(base[name].shape, np.float32) if p is None else p for p in parts]).astype(np.float64)
        w = np.array(weights).reshape(-1, *[1] * base[name].dim())
        sign = np.sign((w * parts).sum(0))
        agrees = (np.sign(parts) == sign) & (parts != 0)
        total = (w * parts * agrees).sum(0)
        share = (w * agrees).sum(0)
        merged = np.divide(total, share, out=np.zeros_like(total), where=share > 0) if merge_by == "mean" else total
        result[name] = base[name] + scale * torch.from_numpy(np.asarray(merged))
    return result


@pytest.mark.parametrize("density", [0.05, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("scope", ["model", "tensor"])
@pytest.mark.parametrize("merge_by", ["mean", "sum"])
def test_ties_is_trim_elect_and_merge_over_the_whole_vector(folder, tensors, density, scope, merge_by):
    weights = [1.0, 0.5, 2.0]
    found = merge(
        folder,
        "ties",
        f"ties {density} {scope} {merge_by}",
        weights=weights,
        density=density,
        scope=scope,
        merge=merge_by,
    )
    assert near(found, ties_oracle(tensors, density, weights, scope, merge_by))


def test_ties_of_one_ingredient_keeps_just_the_top_share(tmp_path):
    folder = make_pool(tmp_path, count=1)
    base, found = numbers(folder)[0], merge(folder, "ties", density=0.1)
    moved = sum(value.numel() for name, value in base.items() if name != FROZEN)
    kept = sum(int((found[name].double() != base[name]).sum()) for name in base)
    assert kept == math.ceil(0.1 * moved)


def test_equal_magnitudes_at_the_threshold_are_all_kept(tmp_path):
    folder = make_pool(tmp_path, count=1, spread=0.0)
    name = "model.language_model.norm.weight"
    tuned = {key: value.float() for key, value in numbers(folder)[0].items()}
    tuned[name] = torch.zeros(9)
    save_file({**tuned, name: torch.zeros(9)}, folder / "base/model.safetensors", {"format": "pt"})
    tuned[name] = torch.tensor([1.0, -1, 1, 1, 2, 0.5, 0.5, 0, 0])
    save_file(tuned, folder / "ckpts/m0/model.safetensors", {"format": "pt"})
    merged = merge(folder, "ties", density=0.2)[name]  # two of nine: the second largest is one of four equal ones
    assert merged.tolist() == [1.0, -1, 1, 1, 2, 0, 0, 0, 0]


@pytest.mark.parametrize("compiled", [True, False])
def test_an_element_on_which_both_signs_weigh_the_same_goes_as_its_tensor_goes(tmp_path, monkeypatch, compiled):
    if not compiled:
        monkeypatch.setattr(kernel_library, "load_library", lambda: None)
    pulls = {
        "up": [[1.0, 3, 3], [-1, 3, 3]],
        "down": [[1.0, -3, -3], [-1, -3, -3]],
        "even": [[1.0, 2, -2], [-1, 2, -2]],
    }
    tiny_checkpoint(tmp_path / "base", tensors={name: torch.zeros(3) for name in pulls})
    for number in range(2):
        tensors = {name: torch.tensor(rows[number], dtype=torch.float32) for name, rows in pulls.items()}
        tiny_checkpoint(tmp_path / f"ckpts/m{number}", tensors=tensors)
    found = merge(tmp_path, "ties", density=1.0)
    assert {name: found[name].tolist() for name in pulls} == {"up": [1, 3, 3], "down": [-1, -3, -3], "even": [0, 2, -2]}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("compiled", [True, False])
def test_rounding_elects_no_sign_for_changes_that_cancel(tmp_path, monkeypatch, compiled, dtype):
    if not compiled:
        monkeypatch.setattr(kernel_library, "load_library", lambda: None)
    count = 9  # weights of 1/9 are no floats, nor are their products with most whole numbers
    drawn = torch.randint(-40, 41, (count - 1, 300), generator=torch.Generator().manual_seed(3)).double()
    cancelling = torch.cat([drawn, -drawn.sum(0, keepdim=True)])
    cancelling = cancelling[:, cancelling[-1].abs() < 128]  # which bfloat16 holds
    pulled = torch.cat([cancelling, torch.ones(count, 1)], 1)
    tensors = {"even": cancelling, "up": pulled}
    tiny_checkpoint(
        tmp_path / "base", tensors={name: torch.zeros_like(rows[0]).to(dtype) for name, rows in tensors.items()}
    )
    for number in range(count):
        tuned = {name: rows[number].to(dtype) for name, rows in tensors.items()}
        tiny_checkpoint(tmp_path / f"ckpts/m{number}", tensors=tuned)
    up = pulled.clamp_min(0)
    means = merge(tmp_path, "ties", "mean", density=1.0)
    sums = merge(tmp_path, "ties", "sum", density=1.0, merge="sum", weights=[2.0] * count)
    for found, expected in ((means, up.sum(0) / (up > 0).sum(0).clamp_min(1)), (sums, 2 * up.sum(0))):
        assert not found["even"].any()
        torch.testing.assert_close(found["up"], expected.to(dtype), rtol=2**-23, atol=0)
    dropped_none = merge(tmp_path, "dare", "dare", p=0.0, elect=True)
    assert dropped_none["up"].tolist() == [0.0] * cancelling.shape[1] + [1.0]


def test_the_sign_of_a_tensor_is_that_of_its_changes_times_their_component_s_factors(tmp_path):
    tiny_checkpoint(tmp_path / "base", tensors={"one": torch.zeros(1), "three": torch.zeros(3)})
    for number, changes in enumerate(([2.0, 2, 3], [-1.0, -1, -1])):
        tensors = {"one": torch.tensor(changes[:1]), "three": torch.tensor(changes)}
        tiny_checkpoint(tmp_path / f"ckpts/m{number}", tensors=tensors)
    found = merge(tmp_path, "ties", density=1.0, components={"other": [1.0, 2.0]})
    assert (found["one"].tolist(), found["three"].tolist()) == ([0.0], [2.0, 2.0, 3.0])


# dare


def test_dare_without_dropping_is_task_arithmetic_in_every_bit(tmp_path):
    folder = make_pool(tmp_path, dtype=torch.bfloat16)
    plain, dare = merge(folder, "task-arithmetic", "plain", scale=0.8), merge(folder, "dare", "dare", p=0.0, scale=0.8)
    assert all(same_bits(plain[name], dare[name]) for name in plain)


def test_the_mean_over_many_seeds_is_the_delta_and_masks_are_independent(tmp_path):
    folder = make_pool(tmp_path, shapes={"model.layers.0.w": (40, 50)})
    tensors = numbers(folder)
    name, seeds = "model.layers.0.w", 40
    total = torch.zeros(40, 50, dtype=torch.float64)
    for seed in range(seeds):
        total += merge(folder, "dare", f"dare {seed}", p=0.5, seed=seed)[name].double() - tensors[0][name]
    expected = mean_delta(tensors, name)
    deviation = torch.stack(deltas(tensors, name)).pow(2).sum(0).sqrt() / 3 / math.sqrt(seeds)
    assert ((total / seeds - expected).abs() < 5 * deviation + 1e-6).double().mean() > 0.999


def test_random_numbers_are_uniform_by_key_and_do_not_depend_on_where_a_block_begins():
    whole = keyed_uniform("a", 0, 100_000)
    assert torch.equal(torch.cat([keyed_uniform("a", 0, 7), keyed_uniform("a", 7, 99_993)]), whole)
    share = (whole >= 2**23).double().mean()
    assert abs(share - 0.5) < 5 * 0.5 / math.sqrt(100_000)
    other = keyed_uniform("b", 0, 100_000)
    both = ((whole >= 2**23) & (other >= 2**23)).double().mean()
    assert abs(both - 0.25) < 5 * math.sqrt(0.1875 / 100_000)
    assert int(whole.min()) >= 0
    assert int(whole.max()) < 2**24
    seed = int.from_bytes(hashlib.sha256(b"a").digest()[:8], "little")
    assert keyed_uniform("a", 0, 500).tolist() == splitmix64(seed, 500)


def splitmix64(seed, count):
    """Another formulation of the generator: a word at a time, in whole numbers of any size."""
    values, state, mask = [], seed, 2**64 - 1
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        values.append((z ^ (z >> 31)) >> 40)
    return values


def test_a_mask_is_the_ingredient_s_in_every_subset_of_the_pool(tmp_path):
    folder = make_pool(tmp_path, count=2)
    options = MergeOptions(method="dare", method_args={"p": 0.5})
    alone = {}
    for name in ("m0", "m1"):
        made = folder / f"alone {name}"
        soup.cook("average", [folder / "ckpts" / name], base=folder / "base", out=made, merge=options)
        alone[name] = numbers_of(made)
    base, _ = numbers(folder)
    both = merge(folder, "dare", "both", p=0.5)
    expected = {name: base[name] + sum(alone[part][name] - base[name] for part in alone) / 2 for name in base}
    assert near(both, expected, rtol=1e-5, atol=1e-6)


def test_digests_that_a_mask_needs_first_are_taken_once_and_seal_the_recipe(tmp_path):
    folder = make_pool(tmp_path, count=2)
    merge(folder, "dare", p=0.5)
    sealed = soup.Recipe.read(folder / "out/recipe.yaml")
    for share in (*sealed.ingredients, sealed.base):
        with Checkpoint(share.path) as checkpoint:
            assert share.digest == digest_checkpoint(checkpoint).content
            size = checkpoint.bytes
    unsealed = sealed.model_copy(
        update={
            "ingredients": tuple(share.model_copy(update={"digest": None}) for share in sealed.ingredients),
            "base": sealed.base.model_copy(update={"digest": None}),
            "side_digest": None,
        }
    )
    for recipe, models_read, out in [(unsealed, 5, "first"), (sealed, 3, "again")]:
        read = []
        assert soup.merge(recipe, folder / out, progress=soup.Progress(on_bytes=read.append)) == sealed
        assert sum(read) == models_read * size
        with open_pool(recipe) as pool:
            assert plan_merge(recipe, pool, MergeOptions()).read_bytes == models_read * size
        assert (folder / out / "model.safetensors").read_bytes() == (folder / "out/model.safetensors").read_bytes()


def test_an_ingredient_that_changes_after_its_digest_was_taken_is_refused(tmp_path, monkeypatch):
    folder, digest = make_pool(tmp_path, count=2), plan.digest_checkpoint

    def change_after(checkpoint, on_bytes):
        found = digest(checkpoint, on_bytes)
        with (checkpoint.path / "model.safetensors").open("r+b") as file:
            file.seek(-4, 2)
            file.write(b"\x00\x00\x80\x3f")
        os.utime(checkpoint.path / "model.safetensors", (1, 1))  # clocks of file systems are coarse
        return found

    monkeypatch.setattr(plan, "digest_checkpoint", change_after)
    with pytest.raises(CheckpointError, match="changed"):
        merge(folder, "dare", p=0.5)


def numbers_of(path):
    return {name: value.double() for name, value in load_file(path / "model.safetensors").items()}


# consensus


@pytest.mark.parametrize(("threshold", "agree"), [(0.4, 2), (0.4, 1), (1.0, 3), (0.1, 3)])
def test_consensus_keeps_what_enough_ingredients_ask_for(folder, tensors, threshold, agree):
    def merged(name):
        parts = deltas(tensors, name)
        total = sum(parts)
        votes = sum((part.abs() > threshold * (total - part).abs()).int() for part in parts)
        return (votes >= agree) * total / 3

    found = merge(folder, "consensus", f"c {threshold} {agree}", threshold=threshold, agree=agree)
    wrong = sum(
        int((~torch.isclose(found[name].double(), value, rtol=2e-6, atol=1e-6)).sum())
        for name, value in with_delta(tensors, merged).items()
    )
    assert wrong <= 1, "a magnitude at the threshold may fall to either side in float32"


def test_consensus_of_none_is_the_sum_and_of_more_than_there_are_the_base(folder, tensors):
    found = merge(folder, "consensus", "all", agree=0, scale=1.0)
    assert near(found, with_delta(tensors, lambda name: sum(deltas(tensors, name))))
    found = merge(folder, "consensus", "none", agree=4)
    assert all(torch.equal(found[name].double(), tensors[0][name]) for name in found)


# model stock


def test_model_stock_goes_towards_the_mean_by_the_mean_cosine(folder, tensors):
    def merged(name):
        parts = [part.reshape(-1) for part in deltas(tensors, name)]
        cosines = [
            float(a @ b / (a.norm() * b.norm()))
            for i, a in enumerate(parts)
            for b in parts[i + 1 :]
            if a.norm() > 0 and b.norm() > 0
        ]
        c = min(max(np.mean(cosines), 0), 1) if cosines else 1
        return 3 * c / (1 + 2 * c) * mean_delta(tensors, name)

    assert near(merge(folder, "model-stock", "stock"), with_delta(tensors, merged), atol=1e-6)


def test_model_stock_of_equal_ingredients_is_that_one_and_of_orthogonal_ones_the_base_and_told(tmp_path):
    folder = make_pool(tmp_path, count=2, shapes={"model.layers.0.w": (2, 3)})
    base = torch.zeros(2, 3)
    save_file({"model.layers.0.w": base}, folder / "base/model.safetensors")
    one, two = base.clone(), base.clone()
    one[0, 0], two[1, 2] = 1.0, 1.0
    for name, value in (("m0", one), ("m1", two)):
        save_file({"model.layers.0.w": value}, folder / "ckpts" / name / "model.safetensors")
    options = MergeOptions(method="model-stock")
    heard = []
    soup.cook(
        "average",
        folder / "ckpts",
        base=folder / "base",
        out=folder / "stock",
        merge=options,
        progress=soup.Progress(on_warning=heard.append),
    )
    assert numbers_of(folder / "stock")["model.layers.0.w"].abs().max() == 0
    assert any("the median t is 0.00" in text for text in heard)
    save_file({"model.layers.0.w": one}, folder / "ckpts/m1/model.safetensors")
    assert merge(folder, "model-stock", "equal")["model.layers.0.w"][0, 0] == 1
    half = torch.tensor([[0.5, math.sqrt(0.75), 0], [0, 0, 0]])
    save_file({"model.layers.0.w": half}, folder / "ckpts/m1/model.safetensors")
    found = merge(folder, "model-stock", "half")["model.layers.0.w"]
    torch.testing.assert_close(found, 2 / 3 * (one + half) / 2)


# the sphere


@pytest.mark.parametrize("t", [0.0, 0.25, 0.5, 0.9])
def test_two_on_a_sphere_are_slerp(t):
    torch.manual_seed(1)
    a, b = torch.randn(2, 50, dtype=torch.float64)
    gram = [[float(x @ y) for y in (a, b)] for x in (a, b)]
    weights = [1 - t, t]
    i, j = sphere_mean(gram, weights, "test")
    u, v = a / a.norm(), b / b.norm()
    angle = torch.arccos(u @ v)
    slerp = (torch.sin((1 - t) * angle) * u + torch.sin(t * angle) * v) / torch.sin(angle)
    torch.testing.assert_close(i * a + j * b, slerp * ((1 - t) * a.norm() + t * b.norm()), rtol=1e-9, atol=1e-9)


def check_sphere_mean(vectors, weights):
    """The steps to all ingredients cancel there, and its length is the mean one."""
    weights = torch.tensor(weights, dtype=torch.float64) / sum(weights)
    coefficients = sphere_mean((vectors @ vectors.T).tolist(), weights.tolist(), "test")
    mean = torch.tensor(coefficients, dtype=torch.float64) @ vectors
    assert float(mean.norm()) == pytest.approx(float(weights @ vectors.norm(dim=1)), abs=1e-9)
    u, step = mean / mean.norm(), torch.zeros_like(mean)
    for w, vector in zip(weights, vectors, strict=True):
        unit = vector / vector.norm()
        angle = torch.arccos((unit @ u).clamp(-1, 1))
        step += w * angle / torch.sin(angle) * (unit - torch.cos(angle) * u)
    assert float(step.norm()) < 1e-9


def test_the_mean_of_several_is_where_the_steps_cancel():
    torch.manual_seed(2)
    check_sphere_mean(torch.randn(5, 30, dtype=torch.float64) + 1, [0.1, 0.4, 0.2, 0.2, 0.1])


@pytest.mark.parametrize("elements", [2, 3, 4, 8])
@pytest.mark.parametrize("count", [3, 8])
def test_vectors_that_are_far_apart_or_depend_on_each_other_have_a_mean_too(count, elements):
    torch.manual_seed(count + elements)
    for _ in range(40):
        vectors = torch.randn(count, elements, dtype=torch.float64)
        check_sphere_mean(vectors, (torch.rand(count) + 0.1).tolist())


def test_a_mean_that_no_step_reaches_is_an_error(monkeypatch):
    monkeypatch.setattr("soup.merging.methods.karcher.ROUNDS", 2)
    torch.manual_seed(1)
    vectors = torch.randn(5, 9, dtype=torch.float64)
    with pytest.raises(RecipeError, match=r"karcher: w: the ingredients point so far apart .* in 2 rounds"):
        sphere_mean((vectors @ vectors.T).tolist(), [1.0] * 5, "w")


def test_parallel_vectors_keep_their_direction_and_opposite_ones_are_refused(folder):
    assert sphere_mean([[1.0, 3.0], [3.0, 9.0]], [0.5, 0.5], "w") == pytest.approx([1.0, 1 / 3])
    with pytest.raises(RecipeError, match="w: the ingredients point in opposite directions"):
        sphere_mean([[1.0, -1.0], [-1.0, 1.0]], [0.5, 0.5], "w")
    assert sphere_mean([[0.0, 0.0], [0.0, 0.0]], [0.5, 0.5], "w") == [0.0, 0.0]


def test_karcher_streams_what_the_sphere_s_mean_is(folder, tensors):
    base, tuned = tensors
    expected = {}
    for name in base:
        vectors = torch.stack([each[name].reshape(-1) for each in tuned])
        if vectors.shape[1] < 2:
            expected[name] = sum(each[name] for each in tuned) / 3
            continue
        parts = sphere_mean((vectors @ vectors.T).tolist(), [1 / 3] * 3, name)
        expected[name] = sum(c * each[name] for c, each in zip(parts, tuned, strict=True))
    expected[FROZEN] = base[FROZEN]
    assert near(merge(folder, "karcher", "karcher"), expected, atol=1e-6)


def test_rows_of_a_single_number_get_its_mean(tmp_path):
    folder = make_pool(tmp_path, count=2, spread=3.0, shapes={"score.weight": (40, 1)})
    _, tuned = numbers(folder)
    expected = {"score.weight": (tuned[0]["score.weight"] + tuned[1]["score.weight"]) / 2}
    assert near(merge(folder, "karcher", "rows", unit="row"), expected)


# matrices


def test_iso_c_makes_singular_values_equal_and_keeps_the_nuclear_norm(folder, tensors):
    found = merge(folder, "iso-c", "iso")
    for name in MATRICES:
        if name == FROZEN:
            continue
        merged, mean = found[name].double() - tensors[0][name], mean_delta(tensors, name)
        values, before = torch.linalg.svdvals(merged), torch.linalg.svdvals(mean)
        torch.testing.assert_close(values, before.mean().expand_as(values), rtol=1e-4, atol=1e-5)
    other = [name for name in SHAPES if name not in MATRICES]
    for name in other:
        torch.testing.assert_close(
            found[name].double(), tensors[0][name] + mean_delta(tensors, name), rtol=1e-5, atol=1e-6
        )


def random_deltas(count, shape, seed=0):
    torch.manual_seed(seed)
    return [torch.randn(shape, dtype=torch.float64) for _ in range(count)]


def test_swudi_of_one_is_that_one_at_every_time_and_rank():
    (one,) = random_deltas(1, (6, 5))
    for time in (0.0, 1.0, 300.0):
        for rank in (0.3, 1.0, "participation"):
            torch.testing.assert_close(
                Swudi(time=time, rank=rank).merged([one], [1.0], one.shape[1]), one, rtol=1e-8, atol=1e-8
            )


def test_swudi_of_a_long_time_minimises_the_interference():
    parts = random_deltas(3, (8, 5))
    found = Swudi(time=1e6, rank=1.0).merged(parts, [1 / 3] * 3, parts[0].shape[1]).requires_grad_()
    loss = sum(((found - each) @ each.T).pow(2).sum() / each.pow(2).sum() for each in parts)
    (gradient,) = torch.autograd.grad(loss, found)
    assert gradient.norm() < 1e-5 * found.norm()


def test_swudi_of_a_finite_time_is_the_flow_by_small_steps():
    parts = random_deltas(3, (6, 5), seed=3)
    c = sum(each.T @ each / each.pow(2).sum() for each in parts)
    d = sum(each @ each.T @ each / each.pow(2).sum() for each in parts)
    m, step = sum(parts) / 3, 1e-4
    for _ in range(int(2 / step)):
        m = m - step * (m @ c - d)
    torch.testing.assert_close(
        Swudi(time=2.0, rank=1.0).merged(parts, [1 / 3] * 3, parts[0].shape[1]), m, rtol=1e-3, atol=1e-4
    )
    start = Swudi(time=0.0).merged(parts, [1 / 3] * 3, parts[0].shape[1])
    torch.testing.assert_close(start, sum(parts) / 3)


def test_knots_with_an_inner_mean_is_the_mean_and_ties_does_not_see_the_basis_s_signs(folder, tensors):
    found = merge(folder, "knots", "mean", inner="mean", scale=1.0, full=True)
    assert near(found, with_delta(tensors, lambda name: mean_delta(tensors, name)), rtol=1e-5, atol=1e-6)
    low = [left @ right for left, right in zip(random_deltas(3, (8, 2)), random_deltas(3, (2, 7), 1), strict=True)]
    from soup.merging.methods.knots import Knots

    merged = Knots(density=0.5).merged(low, [1 / 3] * 3, 7)
    turned = torch.diag(torch.tensor([1.0, -1, 1, -1, 1, -1, 1, -1], dtype=torch.float64))
    torch.testing.assert_close(
        Knots(density=0.5).merged([turned @ each for each in low], [1 / 3] * 3, 7), turned @ merged
    )
