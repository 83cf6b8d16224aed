"""The digest of tensors that are longer than a leaf, written out by hand."""

from __future__ import annotations

import pytest
import torch
import xxhash

import soup
from soup.checkpoints.digest import LeafDigests, digest_checkpoint
from soup.checkpoints.dtypes import LEAF_ELEMENTS
from soup.checkpoints.reader import Checkpoint
from soup.errors import OutputError
from soup.evaluation.progress import Progress
from soup.testing import tiny_checkpoint
from tests.helpers.merge_oracle import bits, recipe_of, write_pool

LENGTHS = [LEAF_ELEMENTS - 1, LEAF_ELEMENTS, LEAF_ELEMENTS + 1, 2 * LEAF_ELEMENTS + 5]


def values_of(length, seed=0):
    return torch.randint(0, 251, (length,), generator=torch.Generator().manual_seed(seed)).to(torch.bfloat16)


def digest_of(values):
    """A tensor's digest: that of its leaves' digests in their order."""
    data = bits(values).numpy().tobytes()
    step = LEAF_ELEMENTS * values.element_size()
    parts = [data[start : start + step] for start in range(0, len(data), step)]
    return xxhash.xxh3_128_hexdigest(b"".join(xxhash.xxh3_128_digest(part) for part in parts))


@pytest.mark.parametrize("length", LENGTHS)
def test_a_long_tensor_s_digest_is_that_of_its_leaves_digests_in_order(tmp_path, length):
    values = values_of(length)
    checkpoint = Checkpoint(tiny_checkpoint(tmp_path / "model", tensors={"w": values}))
    assert digest_checkpoint(checkpoint).tensors["w"] == digest_of(values)


def test_leaves_may_come_in_any_order(tmp_path):
    values = values_of(LENGTHS[-1])
    checkpoint = Checkpoint(tiny_checkpoint(tmp_path / "model", tensors={"w": values}))
    digests = LeafDigests(checkpoint.tensors)
    for start in (LEAF_ELEMENTS, 2 * LEAF_ELEMENTS, 0):
        part = bits(values)[start : start + LEAF_ELEMENTS].numpy().tobytes()
        digests.put("w", start, xxhash.xxh3_128_digest(part))
    assert digests.close() == digest_checkpoint(checkpoint)


def test_a_merge_s_own_pass_names_what_it_read_as_the_digest_does(tmp_path):
    """Digests that were known before are verified by it, and those that were not are filled in."""
    pool = write_pool(tmp_path / "pool", [{"w": values_of(LENGTHS[-1], seed)} for seed in range(2)])
    sealed = soup.merge(recipe_of(pool), tmp_path / "out")
    assert [share.digest for share in sealed.ingredients] == [
        digest_checkpoint(Checkpoint(pool / name)).content for name in "ab"
    ]


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_the_recipe_holds_the_digest_of_what_was_written(tmp_path, dtype):
    """Of several leaves a tensor, in another dtype than the ingredients', a tensor dropped, and files cut otherwise."""
    states = [
        {"w": values_of(LENGTHS[-1], seed), "head": values_of(9, seed), "none": torch.empty(0)} for seed in (1, 2)
    ]
    recipe = recipe_of(write_pool(tmp_path / "pool", states, shards=2), dtype=dtype, drop=("head",))
    sealed = soup.merge(recipe, tmp_path / "out")
    assert sealed.result_digest == digest_checkpoint(Checkpoint(tmp_path / "out")).content
    assert sealed == soup.merge(recipe, tmp_path / "out"), "it stands there already"
    assert sealed.digest == sealed.model_copy(update={"result_digest": None}).digest


def test_weights_that_are_not_those_of_the_recipe_are_told(tmp_path):
    recipe = recipe_of(write_pool(tmp_path / "pool", [{"w": values_of(5, seed)} for seed in range(2)]))
    sealed = soup.merge(recipe, tmp_path / "out")
    warnings = []
    progress = Progress(on_warning=warnings.append)
    soup.merge(tmp_path / "out" / "recipe.yaml", tmp_path / "again", progress=progress)
    assert warnings == []
    other = sealed.model_copy(update={"result_digest": "xxh3:of another version"})
    assert soup.merge(other, tmp_path / "other", progress=progress) == sealed
    assert [
        text for text in warnings if f"expected xxh3:of another version, found {sealed.result_digest}" in text
    ] == warnings
    assert len(warnings) == 1


def test_a_soup_that_another_version_rounded_is_told_from_one_that_was_damaged(tmp_path):
    recipe = recipe_of(write_pool(tmp_path / "pool", [{"w": values_of(5, seed)} for seed in range(2)]))
    sealed = soup.merge(recipe, tmp_path / "out")
    weights, text = tmp_path / "out" / "model.safetensors", (tmp_path / "out" / "recipe.yaml").read_text()
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    with pytest.raises(OutputError, match="it was edited, or a disk failed"):
        soup.merge(recipe, tmp_path / "out")
    (tmp_path / "out" / "recipe.yaml").write_text(text.replace(sealed.result_digest, "xxh3:other"))
    with pytest.raises(OutputError, match="as another version of soup or of a library rounded it"):
        soup.merge(recipe, tmp_path / "out")


@pytest.mark.parametrize("names", [["a.b", "a", "a-b", "b"], ["a\0z", "a\0A", "a", "a\0"]], ids=["plain", "with nulls"])
def test_the_content_digest_is_that_of_one_line_a_tensor_sorted(tmp_path, names):
    tensors = {name: values_of(3, seed) for seed, name in enumerate(names)}
    checkpoint = Checkpoint(tiny_checkpoint(tmp_path / "model", tensors=tensors))
    lines = sorted(f"{name}\0BF16\0[3]\0{digest_of(values)}\n" for name, values in tensors.items())
    expected = xxhash.xxh3_128_hexdigest("".join(lines).encode())
    assert digest_checkpoint(checkpoint).content == f"xxh3:{expected}"
