"""No table of architectures: transformers makes every kind of VLM, soup merges it, transformers loads the soup."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForImageTextToText

import soup
from soup.checkpoints.digest import digest_checkpoint
from soup.checkpoints.reader import Checkpoint
from soup.checkpoints.weight_files import INDEX
from soup.errors import CheckpointError
from soup.testing import tiny_candidate
from tests.helpers.merge_oracle import assert_mean, config, read_back, recipe_of, same_bits
from tests.helpers.tiny_architectures import ARCHITECTURES, fine_tunes, tiny_model, write_pool_of

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES_AGREE = {"blip-2", "idefics3", "qwen3_vl", "smolvlm"}
"""Where the names on disk are those in memory, so that a candidate can be streamed into a loaded model."""

SHARDS = {"one file": (1, 1, 1), "shards": (3, 6, 1)}


@pytest.fixture(scope="module", params=ARCHITECTURES)
def models(request):
    return request.param, list(fine_tunes(request.param))


@pytest.fixture(scope="module", params=SHARDS)
def pool(request, models, tmp_path_factory):
    """Three ingredients; the sharded ones are cut in different ways, and the third is one file."""
    folder = write_pool_of(models[1], tmp_path_factory.mktemp(models[0]), SHARDS[request.param])
    if request.param == "shards":
        counts = [len(Checkpoint(path).shards) for path in sorted(folder.iterdir())]
        assert counts[1] > counts[0] > counts[2] == 1
    return folder


@pytest.fixture(scope="module")
def out(pool, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "soup"
    soup.merge(recipe_of(pool), out)
    return out


def test_no_tensor_is_lost_and_each_is_the_mean_in_float64(pool, out):
    result, inputs = read_back(out), [read_back(path) for path in sorted(pool.iterdir())]
    assert result.keys() == inputs[0].keys()
    assert {values.dtype for values in result.values()} == {torch.bfloat16}
    assert_mean(result, inputs, result)


def test_the_layout_is_the_first_ingredient_s(pool, out):
    first, made = Checkpoint(pool / "model-0"), Checkpoint(out)
    assert made.layout == first.layout
    assert (out / INDEX).exists() == (pool / "model-0" / INDEX).exists()
    assert config(out) == config(pool / "model-0")
    assert (out / "generation_config.json").exists() == (pool / "model-0/generation_config.json").exists()


def test_transformers_loads_it_with_no_key_missing_unexpected_or_mismatched(pool, out, models):
    model, loading_info = AutoModelForImageTextToText.from_pretrained(out, output_loading_info=True)
    assert not loading_info["missing_keys"]
    assert not loading_info["unexpected_keys"]
    assert not loading_info["mismatched_keys"]
    assert type(model) is type(models[1][0])
    state = model.state_dict()
    assert_mean(
        state,
        [source.state_dict() for source in models[1]],
        [name for name, values in state.items() if values.dtype == torch.bfloat16],
    )


def test_tied_weights_stay_tied_and_are_stored_once(out, models):
    def is_tied(model):
        return model.get_output_embeddings().weight is model.get_input_embeddings().weight

    tied = is_tied(models[1][0])
    assert is_tied(AutoModelForImageTextToText.from_pretrained(out)) == tied
    assert sum(name.endswith("lm_head.weight") for name in read_back(out)) == (0 if tied else 1)


def test_tied_and_untied_weights_are_both_among_the_models():
    models = [tiny_model(name) for name in ("llava", "gemma3")]
    tied = [model.get_output_embeddings().weight is model.get_input_embeddings().weight for model in models]
    assert tied == [False, True]


def test_a_candidate_streams_into_a_loaded_model_or_says_which_names_differ(out, models, tmp_path):
    torch.manual_seed(99)
    name, module = models[0], tiny_model(models[0]).to(torch.bfloat16)
    before = {key: values.clone() for key, values in module.state_dict().items()}
    with tiny_candidate(out, tmp_path) as candidate:
        if name in NAMES_AGREE:
            candidate.load_into(module)
            module.save_pretrained(tmp_path / "again")
            assert content(tmp_path / "again") == content(out)
            return
        with pytest.raises(CheckpointError) as told:
            candidate.load_into(module)
    assert all(same_bits(values, before[key]) for key, values in module.state_dict().items())
    assert type(module).__name__ in str(told.value)
    assert "in the candidate, not in the module" in str(told.value)


def content(directory):
    with Checkpoint(directory) as checkpoint:
        return digest_checkpoint(checkpoint).content
