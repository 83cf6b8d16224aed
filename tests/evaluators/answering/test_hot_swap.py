"""Hot swap: what is judged is, bit for bit, what would be written, in every family and whatever its names in memory."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import soup
from evaluators.answering.hot_swap import HotSwap
from soup.checkpoints.digest import digest_checkpoint
from soup.checkpoints.reader import Checkpoint
from soup.errors import CheckpointError
from soup.evaluation.settings import EvalSettings
from soup.hf.key_mapping import LoadingPlan, plan_loading
from tests.helpers.hot_swaps import bare_swap, candidate_of, load, on_disk
from tests.helpers.merge_oracle import read_back, recipe_of, same_bits
from tests.helpers.tiny_architectures import ARCHITECTURES, tiny_model
from tests.helpers.vlm_families import save_family


def write_models(folder, kind, count=2, dtype=torch.bfloat16, seed=0):
    """`count` fine-tunes of one architecture, random throughout, so that no two tensors are alike."""
    for i in range(count):
        torch.manual_seed(seed + i)
        model = tiny_model(kind).to(dtype)
        for parameter in model.parameters():
            parameter.data.add_(0.05 * torch.randn_like(parameter))
        model.save_pretrained(folder / f"m{i}")
    return folder


def content(directory):
    with Checkpoint(directory) as checkpoint:
        return digest_checkpoint(checkpoint).content


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_streamed_module_holds_the_very_bytes_of_the_merged_files(kind, tmp_path):
    pool = write_models(tmp_path / "pool", kind)
    with candidate_of(pool, tmp_path / "home") as candidate:
        module = load(candidate.template)
        names, conversions = plan_loading(module, on_disk(candidate.template))
        assert names is not None
        candidate.load_into(module, names, conversions)
        merged = candidate.directory()
        held, written = module.state_dict(), read_back(merged)
        assert names.keys() == written.keys()
        assert all(same_bits(held[names[name]], values) for name, values in written.items())
        # The oracle: transformers itself reads the merged files, and writes the streamed module.
        fresh = load(merged)
        assert held.keys() == fresh.state_dict().keys()
        assert all(same_bits(held[name], values) for name, values in fresh.state_dict().items())
        module.save_pretrained(tmp_path / "again")
        assert content(tmp_path / "again") == content(merged)


def test_names_differ_in_most_families_and_agree_in_some(tmp_path):
    agree = {}
    for kind in ("llava", "idefics3"):
        path = write_models(tmp_path / kind, kind, 1) / "m0"
        names, _ = plan_loading(load(path), on_disk(path))
        agree[kind] = all(name == target for name, target in names.items())
    assert agree == {"llava": False, "idefics3": True}


def test_files_as_an_older_transformers_wrote_them_are_streamed_too(tmp_path):
    pool = write_models(tmp_path / "pool", "llava")
    for path in pool.iterdir():
        file = path / "model.safetensors"
        old = {name.replace("vision_tower.", "vision_tower.vision_model."): v for name, v in load_file(file).items()}
        assert any("vision_model" in name for name in old)
        save_file({**old, "rotary_emb.inv_freq": torch.ones(4)}, file, {"format": "pt"})  # no use for it any more
    with candidate_of(pool, tmp_path / "home") as candidate:
        module = load(candidate.template)
        names, _ = plan_loading(module, on_disk(candidate.template))
        assert "rotary_emb.inv_freq" not in names
        candidate.load_into(module, names)
        fresh = load(candidate.directory()).state_dict()
    assert all(same_bits(values, fresh[name]) for name, values in module.state_dict().items())


def test_a_search_keeps_one_module_for_all_its_candidates(tmp_path, monkeypatch):
    pool = write_models(tmp_path / "pool", "llava", 3)
    swap = bare_swap(monkeypatch)
    modules = set()
    for index, weights in enumerate([[1, 0, 0], [0.5, 0.5, 0], [1 / 3, 1 / 3, 1 / 3]]):
        with candidate_of(pool, tmp_path / f"{index}", weights=weights) as candidate:
            module = swap.model_for(candidate).module
            modules.add(id(module))
            assert not (tmp_path / f"{index}" / "checkpoint").exists()  # nothing was written for it
            fresh = load(candidate.directory()).state_dict()
            assert all(same_bits(values, fresh[name]) for name, values in module.state_dict().items())
    assert len(modules) == 1


def test_a_module_of_another_dtype_than_the_candidate_is_not_streamed_into(tmp_path):
    # A bfloat16 soup judged in float32 would be another model than the one that ships.
    pool = write_models(tmp_path / "pool", "llava", dtype=torch.float32)
    with candidate_of(pool, tmp_path / "home", dtype="bfloat16") as candidate:
        module = load(candidate.template)
        before = {name: values.clone() for name, values in module.state_dict().items()}
        with pytest.raises(CheckpointError, match="expected dtype float32, found bfloat16"):
            candidate.load_into(module, *plan_loading(module, on_disk(candidate.template)))
        assert all(same_bits(values, before[name]) for name, values in module.state_dict().items())


def test_a_search_that_casts_loads_each_candidate_in_the_dtype_that_ships(tmp_path, monkeypatch):
    pool = write_models(tmp_path / "pool", "llava", dtype=torch.float32)
    with candidate_of(pool, tmp_path / "home", dtype="bfloat16") as candidate:
        module = bare_swap(monkeypatch).model_for(candidate).module
        assert {values.dtype for values in module.parameters()} == {torch.bfloat16}


def test_a_place_that_the_candidate_leaves_unfilled_is_an_error(tmp_path):
    pool = write_models(tmp_path / "pool", "llava")
    with candidate_of(pool, tmp_path / "home") as candidate:
        module = load(candidate.template)
        names = dict(plan_loading(module, on_disk(candidate.template)).names)
        del names["language_model.model.norm.weight"]
        with pytest.raises(CheckpointError, match=r"language_model\.norm\.weight: in the module, not in the cand"):
            candidate.load_into(module, names)


class Toy(nn.Module):
    """Tied weights, a persistent buffer, one that is not, an integer, a number alone."""

    def __init__(self, tied=True):
        super().__init__()
        self.embed = nn.Embedding(6, 4)
        self.head = nn.Linear(4, 6, bias=False)
        if tied:
            self.head.weight = self.embed.weight
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("passing", torch.ones(3), persistent=False)


def toy_pool(folder, states):
    for index, state in enumerate(states):
        path = folder / f"m{index}"
        path.mkdir(parents=True)
        save_file(state, path / "model.safetensors", {"format": "pt"})
        (path / "config.json").write_text(json.dumps({"model_type": "toy"}))
    return folder


def toy_state(seed, tied):
    torch.manual_seed(seed)
    module = Toy(tied)
    module.norm.running_mean.normal_()
    return {name: values.clone() for name, values in module.state_dict().items()}


def test_persistent_buffers_are_filled_and_the_others_left_alone(tmp_path):
    states = [toy_state(seed, tied=True) for seed in (0, 1)]
    for state in states:
        del state["head.weight"]  # as transformers saves tied weights: once
    with candidate_of(toy_pool(tmp_path / "pool", states), tmp_path / "home") as candidate:
        module = Toy()
        module.passing.fill_(7)
        candidate.load_into(module)
        written = read_back(candidate.directory())
    assert all(same_bits(module.state_dict()[name], values) for name, values in written.items())
    assert "norm.running_mean" in written
    assert module.head.weight is module.embed.weight
    assert module.passing.tolist() == [7, 7, 7]


def test_tied_weights_stored_twice_are_streamed_only_where_they_are_alike_in_all(tmp_path):
    alike = [toy_state(seed, tied=True) for seed in (0, 1)]
    with candidate_of(toy_pool(tmp_path / "alike", alike), tmp_path / "home") as candidate:
        module = Toy()
        candidate.load_into(module)
        assert same_bits(module.head.weight, read_back(candidate.directory())["head.weight"])
    differ = [toy_state(0, tied=True), toy_state(1, tied=False)]
    with (
        candidate_of(toy_pool(tmp_path / "differ", differ), tmp_path / "home") as candidate,
        pytest.raises(CheckpointError, match="one memory for it and for"),
    ):
        candidate.load_into(Toy())


def test_a_tensor_without_plain_memory_is_not_streamed_into(tmp_path):
    states = [toy_state(seed, tied=False) for seed in (0, 1)]
    with candidate_of(toy_pool(tmp_path / "pool", states), tmp_path / "home") as candidate:
        with torch.device("meta"):
            away = Toy(tied=False)
        turned = Toy(tied=False)
        turned.head.weight.data = turned.head.weight.data.t().contiguous().t()
        for module in (away, turned):
            with pytest.raises(CheckpointError, match="no plain memory"):
                candidate.load_into(module)


def test_a_module_that_is_not_transformers_is_taken_by_its_own_names():
    assert plan_loading(Toy(), ["embed.weight"]) == LoadingPlan(None)


def test_a_transformers_that_keeps_its_rules_elsewhere_gives_no_mapping(monkeypatch):
    from transformers import conversion_mapping

    monkeypatch.delattr(conversion_mapping, "get_model_conversion_mapping")
    assert plan_loading(tiny_model("llava"), ["x"]) == LoadingPlan(None)


def test_what_all_ingredients_share_is_read_once_and_comes_out_the_same(tmp_path, monkeypatch):
    pool = write_models(tmp_path / "pool", "llava", 3)
    frozen = load_file(pool / "m0" / "model.safetensors")
    for path in pool.iterdir():
        tensors = load_file(path / "model.safetensors")
        tower = {name: values for name, values in frozen.items() if name.startswith("vision_tower")}
        save_file({**tensors, **tower}, path / "model.safetensors", {"format": "pt"})
    read = []
    place_of = Checkpoint.place_of

    def noted(self, name):
        read.append(name)
        return place_of(self, name)

    monkeypatch.setattr(Checkpoint, "place_of", noted)
    soup.merge(recipe_of(pool), tmp_path / "out")
    written = read_back(tmp_path / "out")
    with candidate_of(pool, tmp_path / "home") as candidate:
        module = load(candidate.template)
        names, _ = plan_loading(module, on_disk(candidate.template))
        read.clear()
        candidate.load_into(module, names)
        assert {read.count(name) for name in tower} == {1}
        assert {read.count(name) for name in written.keys() - tower} == {3}
        assert all(same_bits(module.state_dict()[names[name]], values) for name, values in written.items())
        assert all(same_bits(values, written[name]) for name, values in read_back(candidate.directory()).items())


def test_merging_the_recipe_writes_what_was_judged(tmp_path):
    pool = write_models(tmp_path / "pool", "gemma3", 3)
    with candidate_of(pool, tmp_path / "home") as candidate:
        module = load(candidate.template)
        candidate.load_into(module, *plan_loading(module, on_disk(candidate.template)))
    soup.merge(recipe_of(pool), tmp_path / "out")
    module.save_pretrained(tmp_path / "again")
    assert content(tmp_path / "again") == content(tmp_path / "out")


def test_a_whole_model_beside_a_left_behind_adapter_config_is_judged_as_the_whole_model(tmp_path):
    for seed, name in enumerate("ab"):
        folder = save_family("llava", tmp_path / "pool" / name, seed, torch.bfloat16)
        adapter = {"peft_type": "LORA", "base_model_name_or_path": "org/base", "r": 4, "target_modules": ["q_proj"]}
        (folder / "adapter_config.json").write_text(json.dumps(adapter))
    with candidate_of(tmp_path / "pool", tmp_path / "home") as candidate:
        held = HotSwap(EvalSettings()).model_for(candidate).module.state_dict()
        loaded = load(candidate.directory()).state_dict()
        assert held.keys() == loaded.keys()
        assert all(same_bits(held[name], loaded[name]) for name in held)
