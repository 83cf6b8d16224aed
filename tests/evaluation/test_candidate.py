"""A soup before it is one: as a directory, or streamed into a loaded module."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch

import soup
from soup.checkpoints.digest import digest_checkpoint, side_digest
from soup.checkpoints.reader import Checkpoint
from soup.errors import CheckpointError, PoolError
from soup.evaluation.candidate import SoupCandidate
from soup.hf.key_mapping import Conversion
from soup.merging.methods import Method, method
from soup.merging.pool import Pool
from soup.testing import tiny_checkpoint, tiny_pool
from tests.helpers.merge_oracle import read_back, recipe_of, same_bits, write_pool


@contextmanager
def candidate_of(folder, home, weights=None, *, base=None, base_known=False, options=None, **fields):
    recipe = recipe_of(folder, weights, base=base, **fields)
    with Pool(folder, base) as pool:
        known = [digest_checkpoint(part.checkpoint) for part in pool]
        lead = (pool.base or pool[0]).checkpoint
        sealed = recipe.sealed([digest.content for digest in known], side_digest(lead))
        if base_known:
            known.append(digest_checkpoint(pool.base.checkpoint))
            sealed = sealed.model_copy(update={"base": pool.base.source(known[-1].content)})
        candidate = SoupCandidate(sealed, pool, home, known, **(options or {}))
        yield candidate
        candidate.remove()


def content(path):
    with Checkpoint(path) as checkpoint:
        return digest_checkpoint(checkpoint).content


class Tower(torch.nn.Module):
    """As many layers as asked for, one buffer that is stored and one that is not, and a head tied to the embedding."""

    def __init__(self, layers=3, width=16, dtype=torch.bfloat16, tied=True):
        super().__init__()
        self.embed = torch.nn.Embedding(20, width, dtype=dtype)
        self.layers = torch.nn.ModuleList(torch.nn.Linear(width, width, dtype=dtype) for _ in range(layers))
        self.head = torch.nn.Linear(width, 20, bias=False, dtype=dtype)
        if tied:
            self.head.weight = self.embed.weight
        self.register_buffer("steps", torch.tensor(7))
        self.register_buffer("scratch", torch.zeros(3), persistent=False)

    def stored(self):
        """What a checkpoint of it holds: each memory once."""
        return {name: value for name, value in self.state_dict().items() if name != "head.weight"}


@pytest.fixture
def towers(tmp_path):
    states = []
    for seed in range(3):
        torch.manual_seed(seed)
        states.append(Tower().stored())
    return write_pool(tmp_path / "pool", states)


# --- streamed ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [None, [0.5, 0.3, 0.2]], ids=["uniform", "weighted"])
def test_what_is_streamed_into_a_module_is_what_is_written(tmp_path, towers, weights):
    module = Tower()
    with candidate_of(towers, tmp_path / "home", weights) as candidate:
        candidate.load_into(module)
    soup.merge(recipe_of(towers, weights), tmp_path / "out")
    again = write_pool(tmp_path / "again", [module.stored()]) / "a"
    assert content(again) == content(tmp_path / "out")


def test_streaming_writes_in_place_and_leaves_nothing_on_disk(tmp_path, towers):
    module = Tower()
    places = {name: value.data_ptr() for name, value in module.state_dict().items()}
    module.scratch += 1
    with candidate_of(towers, tmp_path / "home") as candidate:
        candidate.load_into(module)
    assert {name: value.data_ptr() for name, value in module.state_dict().items()} == places
    assert module.scratch.tolist() == [1, 1, 1]
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert not (tmp_path / "home").exists()


def test_one_candidate_after_another_goes_into_the_same_module(tmp_path, towers):
    module, messages = Tower(), []
    for weights in ([1, 0, 0], [0, 1, 0], [1, 0, 0]):
        with candidate_of(towers, tmp_path / "home", weights) as candidate:
            candidate.load_into(module)
        messages.append({name: value.clone() for name, value in module.stored().items()})
    models = [read_back(path) for path in sorted(towers.iterdir())]
    for state, index in zip(messages, [0, 1, 0], strict=True):
        assert all(same_bits(value, models[index][name]) for name, value in state.items())


def test_a_tied_weight_that_is_stored_once_fills_both_names(tmp_path, towers):
    module = Tower()
    with candidate_of(towers, tmp_path / "home") as candidate:
        candidate.load_into(module)
    assert module.head.weight is module.embed.weight
    soup.merge(recipe_of(towers), tmp_path / "out")
    assert same_bits(module.head.weight.detach(), read_back(tmp_path / "out")["embed.weight"])


@pytest.mark.parametrize("differ", [False, True])
def test_a_tied_weight_that_is_stored_under_both_names_must_be_the_same_under_both_in_every_model(tmp_path, differ):
    states = []
    for seed in range(2):
        torch.manual_seed(seed)
        state = Tower().stored()
        states.append(state | {"head.weight": state["embed.weight"] + (differ and seed)})
    folder, module = write_pool(tmp_path / "pool", states), Tower()
    with candidate_of(folder, tmp_path / "home") as candidate:
        if not differ:
            candidate.load_into(module)
            assert same_bits(module.head.weight.detach(), read_back(candidate.directory())["embed.weight"])
            return
        with pytest.raises(CheckpointError, match=r"one memory for it and for \S+, and they may differ"):
            candidate.load_into(module)


def test_whether_tied_weights_are_the_same_is_not_guessed_where_no_digests_are_known(tmp_path):
    state = Tower().stored()
    folder = write_pool(tmp_path / "pool", [state | {"head.weight": state["embed.weight"].clone()}])
    recipe = recipe_of(folder)
    with Pool(folder) as pool:
        digest = digest_checkpoint(pool[0].checkpoint)
        sealed = recipe.sealed([digest.content], side_digest(pool[0].checkpoint))
        candidate = SoupCandidate(sealed, pool, tmp_path / "home")
        with pytest.raises(CheckpointError, match="they may differ"):
            candidate.load_into(Tower())


def test_an_untied_head_that_the_checkpoint_lacks_is_told(tmp_path, towers):
    with (
        candidate_of(towers, tmp_path / "home") as candidate,
        pytest.raises(CheckpointError, match=r"head\.weight: in the module, not in the candidate"),
    ):
        candidate.load_into(Tower(tied=False))


def test_all_names_and_shapes_that_differ_are_listed_and_nothing_is_touched(tmp_path, towers):
    module = Tower(width=8)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with candidate_of(towers, tmp_path / "home") as candidate, pytest.raises(CheckpointError) as refusal:
        candidate.load_into(module)
    assert all(same_bits(value, before[name]) for name, value in module.state_dict().items())
    assert "embed.weight: expected shape [20, 8], found [20, 16]" in str(refusal.value)
    assert "layers.0.bias: expected shape [8], found [16]" in str(refusal.value)
    module = Tower(layers=2)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with candidate_of(towers, tmp_path / "home") as candidate, pytest.raises(CheckpointError) as refusal:
        candidate.load_into(module)
    assert all(same_bits(value, before[name]) for name, value in module.state_dict().items())
    assert "layers.2.weight: in the candidate, not in the module" in str(refusal.value)
    assert "layers.2.bias: in the candidate, not in the module" in str(refusal.value)
    assert "embed.weight" not in str(refusal.value)


class Fused(torch.nn.Module):
    """Queries, keys and values of each layer in one tensor; on disk they are three."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ParameterList(torch.zeros(6, 4, dtype=torch.bfloat16) for _ in range(5))
        self.norm = torch.nn.Parameter(torch.zeros(4, dtype=torch.bfloat16))


def fused(layer, events):
    """The conversion of one layer; notes when values are converted."""
    sources = tuple(f"{layer}.{part}" for part in "qkv")

    def join(tensors):
        joined = torch.cat([tensors.pop(name) for name in sources])
        if not joined.is_meta:
            events.append(("converted", str(layer)))
        return {f"layers.{layer}": joined}

    return Conversion(sources, join)


def test_of_tensors_that_become_one_those_of_two_conversions_at_most_are_in_memory(tmp_path, monkeypatch):
    states, events = [], []
    for seed in range(3):
        torch.manual_seed(seed)
        state = {f"{layer}.{part}": torch.randn(2, 4).bfloat16() for layer in range(5) for part in "qkv"}
        states.append({**state, "norm": torch.randn(4).bfloat16(), "0.k": torch.ones(2, 4).bfloat16()})
    folder, module, place_of = write_pool(tmp_path / "pool", states), Fused(), Checkpoint.place_of

    def noted(self, name):
        events.append(("read", name[0]))
        return place_of(self, name)

    soup.merge(recipe_of(folder), tmp_path / "out")
    written = read_back(tmp_path / "out")
    monkeypatch.setattr(Checkpoint, "place_of", noted)
    threads = torch.get_num_threads()
    with candidate_of(folder, tmp_path / "home") as candidate:
        candidate.load_into(module, conversions=[fused(layer, events) for layer in range(5)])
    assert torch.get_num_threads() == threads
    assert same_bits(module.norm.detach(), written["norm"])
    for layer in range(5):
        expected = torch.cat([written[f"{layer}.{part}"] for part in "qkv"])
        assert same_bits(module.layers[layer].detach(), expected)
    read = [layer for event, layer in events if event == "read"]
    assert "".join(read) == "nnn" + 7 * "0" + 9 * "1" + 9 * "2" + 9 * "3" + 9 * "4"  # 0.k is the same in all: read once
    pending = set()
    for event, layer in events[3:]:
        pending = pending | {layer} if event == "read" else pending - {layer}
        assert len(pending) <= 2


def test_a_conversion_of_tensors_that_the_candidate_lacks_is_told(tmp_path, towers):
    with (
        candidate_of(towers, tmp_path / "home") as candidate,
        pytest.raises(
            CheckpointError, match=r"0\.q and what is converted with it: the candidate lacks 0\.q, 0\.k, 0\.v"
        ),
    ):
        candidate.load_into(Tower(), conversions=[fused(0, [])])


# --- as a directory ---------------------------------------------------------------------------------------------------


SIZES = {"a.lm": 40, "b.vision": 50, "c.head": 30}


def half_frozen(tmp_path, count=3):
    """Ingredients in three shards: the vision tower's is the same in all, the others differ."""
    torch.manual_seed(0)
    vision, folder = torch.randn(50), tmp_path / "pool"
    for seed in range(count):
        torch.manual_seed(1 + seed)
        state = {"a.lm": torch.randn(40), "b.vision": vision, "c.head": torch.randn(30)}
        tiny_checkpoint(folder / f"model-{seed}", tensors=state, shards=3)
    return folder


FROZEN = "model-00002-of-00003.safetensors"


def test_the_directory_is_found_from_any_other(tmp_path, monkeypatch):
    """An evaluator's command may begin with `cd`."""
    monkeypatch.chdir(tmp_path)
    with candidate_of(half_frozen(tmp_path), Path("home")) as candidate:
        assert candidate.directory() == tmp_path / "home" / "checkpoint"


def test_the_directory_is_the_soup_that_would_be_written(tmp_path):
    folder = half_frozen(tmp_path)
    soup.merge(recipe_of(folder), tmp_path / "out")
    with candidate_of(folder, tmp_path / "home") as candidate:
        made = candidate.directory()
        assert candidate.directory() == made
        assert content(made) == content(tmp_path / "out")
        assert Checkpoint(made).layout == Checkpoint(tmp_path / "out").layout
        assert not Checkpoint(made).warnings
        beside = {path.name for path in (tmp_path / "out").iterdir()}
        assert {path.name for path in made.iterdir()} == beside
        for name in ("config.json", "tokenizer.json"):
            assert (made / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
    assert not (tmp_path / "home").exists()


def test_what_an_evaluator_writes_into_its_checkpoint_is_in_no_ingredient(tmp_path):
    folder = half_frozen(tmp_path)
    for pool in (folder, half_frozen(tmp_path / "single", 1)):
        before = {path: path.read_bytes() for path in sorted(pool.rglob("*")) if path.is_file()}
        with candidate_of(pool, tmp_path / "home") as candidate:
            for file in candidate.directory().iterdir():
                file.write_bytes(b"damaged")
        assert {path: path.read_bytes() for path in sorted(pool.rglob("*")) if path.is_file()} == before


def test_a_single_model_is_written_as_it_is(tmp_path):
    folder = half_frozen(tmp_path, 1)
    with candidate_of(folder, tmp_path / "home") as candidate:
        assert content(candidate.directory()) == content(folder / "model-0")


def test_a_shard_that_all_share_is_cast_with_the_others(tmp_path):
    folder = half_frozen(tmp_path)
    soup.merge(recipe_of(folder, dtype="bfloat16"), tmp_path / "out")
    with candidate_of(folder, tmp_path / "home", dtype="bfloat16") as candidate:
        assert content(candidate.directory()) == content(tmp_path / "out")


def test_what_all_share_is_read_from_the_first_alone(tmp_path):
    """Its digests say that it is the same: the others' files may rot since, and nobody looks."""
    folder = half_frozen(tmp_path)
    soup.merge(recipe_of(folder), tmp_path / "out")
    module = torch.nn.ParameterDict({name[2:]: torch.zeros(size) for name, size in SIZES.items()})
    with candidate_of(folder, tmp_path / "home") as candidate:
        for name in ("model-1", "model-2"):
            file = folder / name / FROZEN
            data, stat = bytearray(file.read_bytes()), file.stat()
            data[-50 * 4 :] = bytes(50 * 4)
            file.write_bytes(data)
            os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # no program did it
        candidate.load_into(module, {name: name[2:] for name in SIZES})
    for name, values in read_back(tmp_path / "out").items():
        assert same_bits(module[name[2:]].detach(), values)


def test_a_cast_of_what_all_share_is_that_of_the_soup_whatever_the_weights(tmp_path):
    """Weights that cancel leave something of a sum of equal values: that is the soup's, in another dtype."""
    states = []
    for seed in range(2):
        torch.manual_seed(seed)
        states.append({"own": torch.randn(8).bfloat16(), "shared": torch.linspace(-1, 1, 999).bfloat16()})
    folder, weights = write_pool(tmp_path / "pool", states), [1e5 + 1, -1e5]
    soup.merge(recipe_of(folder, weights, dtype="float32"), tmp_path / "out")
    with candidate_of(folder, tmp_path / "home", weights, dtype="float32") as candidate:
        made = read_back(candidate.directory())["shared"]
    assert not same_bits(made, states[0]["shared"].float())
    assert same_bits(made, read_back(tmp_path / "out")["shared"])


@method("test-from-base")
@dataclass(frozen=True)
class FromBase(Method):
    """Twice as far from the base as the ingredients' mean."""

    needs_base: ClassVar[bool] = True

    def __call__(self, block):
        return block.base + 2 * (sum(block[1:], block[0]) / len(block) - block.base)


def base_of_ones(tmp_path, folder):
    """A base that has another vision tower than the ingredients, which agree on theirs."""
    state = {name: torch.ones(spec.shape) for name, spec in Checkpoint(folder / "model-0").tensors.items()}
    return tiny_checkpoint(tmp_path / "base", tensors=state, shards=3)


def test_a_shard_in_which_only_the_base_differs_is_merged(tmp_path):
    """The ingredients agree on the vision tower, the base has another one: the method's result is neither."""
    folder = half_frozen(tmp_path)
    base = base_of_ones(tmp_path, folder)
    soup.merge(recipe_of(folder, base=base, method="test-from-base"), tmp_path / "out")
    with candidate_of(folder, tmp_path / "home", base=base, method="test-from-base") as candidate:
        assert content(candidate.directory()) == content(tmp_path / "out")


@pytest.mark.parametrize("base_known", [False, True], ids=["digest unknown", "digest known"])
def test_a_tensor_in_which_only_the_base_differs_is_blended_with_it_wherever_it_goes(tmp_path, base_known):
    folder = half_frozen(tmp_path)
    base, frozen = base_of_ones(tmp_path, folder), read_back(folder / "model-0")["b.vision"]
    module = torch.nn.ParameterDict({name[2:]: torch.zeros(size) for name, size in SIZES.items()})
    keys = {"base": base, "base_known": base_known, "method": "test-from-base"}
    with candidate_of(folder, tmp_path / "home", **keys) as candidate:
        candidate.load_into(module, {name: name[2:] for name in SIZES})
        made = read_back(candidate.directory())
    for values in (module["vision"].detach(), made["b.vision"]):
        torch.testing.assert_close(values, 2 * frozen - 1)


def test_a_shard_of_a_base_that_takes_no_part_is_the_ingredients(tmp_path):
    """The layout is the base's, whose vision tower nobody asked for."""
    folder = half_frozen(tmp_path)
    base = base_of_ones(tmp_path, folder)
    soup.merge(recipe_of(folder, base=base), tmp_path / "out")
    with candidate_of(folder, tmp_path / "home", base=base) as candidate:
        made = candidate.directory()
        assert same_bits(read_back(made)["b.vision"], read_back(folder / "model-0")["b.vision"])
        assert content(made) == content(tmp_path / "out")


def test_a_tensor_is_the_same_everywhere_only_if_every_ingredient_s_digest_says_so(tmp_path):
    """A digest that is not known says nothing: the tensor is read from all."""
    folder = half_frozen(tmp_path, 2)
    recipe = recipe_of(folder)
    soup.merge(recipe, tmp_path / "out")
    with Pool(folder) as pool:
        known = [digest_checkpoint(part.checkpoint) for part in pool]
        sealed = recipe.sealed([digest.content for digest in known], side_digest(pool[0].checkpoint))
        candidate = SoupCandidate(sealed, pool, tmp_path / "home", known[:1])
        assert content(candidate.directory()) == content(tmp_path / "out")


@pytest.mark.parametrize("way", ["directory", "stream"])
def test_weights_that_were_trained_on_since_their_digest_was_taken_are_told_and_never_scored(tmp_path, towers, way):
    with candidate_of(towers, tmp_path / "home") as candidate:
        file = towers / "b" / "model.safetensors"
        data = bytearray(file.read_bytes())
        data[-1] ^= 1  # one more step: the same names and sizes
        file.write_bytes(data)
        os.utime(file, ns=(1, 1))  # clocks may be too coarse to tell
        with pytest.raises(CheckpointError, match="b: its weights changed while they were in use"):
            candidate.load_into(Tower()) if way == "stream" else candidate.directory()


def test_a_single_model_that_was_trained_on_is_told(tmp_path):
    single = write_pool(tmp_path / "pool", [Tower().stored()])
    with candidate_of(single, tmp_path / "home") as candidate:
        os.utime(single / "a" / "model.safetensors", ns=(1, 1))
        with pytest.raises(CheckpointError, match="a: its weights changed while they were in use"):
            candidate.directory()


def test_a_candidate_that_can_t_be_merged_is_told_and_leaves_nothing(tmp_path):
    folder = write_pool(tmp_path / "pool", [{"w": torch.tensor([1.0, torch.nan])}, {"w": torch.ones(2)}])
    with (
        candidate_of(folder, tmp_path / "home") as candidate,
        pytest.raises(PoolError, match="a: w: NaN or infinity"),
    ):
        candidate.directory()
    assert not (tmp_path / "home").exists()


# --- progress ---------------------------------------------------------------------------------------------------------


def test_how_many_prompts_are_answered_goes_to_whoever_was_named_when_it_was_made(tmp_path):
    folder, calls = tiny_pool(tmp_path / "pool", 2), []
    with candidate_of(
        folder, tmp_path / "home", options={"on_answers": lambda *counts: calls.append(counts)}
    ) as candidate:
        candidate.answered(3, 9)
        candidate.answered(1, 9, "grades")
    assert calls == [(3, 9, "answers"), (1, 9, "grades")]
    with candidate_of(folder, tmp_path / "home") as candidate:
        candidate.answered(3, 9)  # nobody was named


# --- scratch ----------------------------------------------------------------------------------------------------------


def test_scratch_is_fresh_for_each_evaluation_and_removed_after_success(tmp_path):
    with candidate_of(tiny_pool(tmp_path / "pool", 2), tmp_path / "home") as candidate:
        for _ in range(2):
            with candidate.evaluation("mmbench-all") as scratch:
                assert scratch == candidate.scratch
                assert list(scratch.iterdir()) == []
                (scratch / "answers.tsv").write_text("A")
            assert not scratch.exists()
    assert not (tmp_path / "home").exists()


def test_scratch_stays_after_a_failure_and_goes_with_ctrl_c(tmp_path):
    def fail(candidate, error):
        with candidate.evaluation("command:echo 'x' && rm -rf / ; ../../..") as scratch:
            (scratch / "error.log").write_text("why")
            raise error

    with candidate_of(tiny_pool(tmp_path / "pool", 2), tmp_path / "home") as candidate:
        with pytest.raises(KeyboardInterrupt):
            fail(candidate, KeyboardInterrupt)
        assert not candidate.scratch.exists()
        with pytest.raises(RuntimeError):
            fail(candidate, RuntimeError)
    assert candidate.scratch.parent == tmp_path / "home"
    assert (candidate.scratch / "error.log").read_text() == "why"
