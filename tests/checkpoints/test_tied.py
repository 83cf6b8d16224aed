"""Whether a checkpoint's output layer is tied to its embeddings, as transformers decides it on loading."""

from __future__ import annotations

import copy

import pytest

from soup.checkpoints.adapted import output_layer, untied
from soup.checkpoints.reader import Checkpoint
from soup.checkpoints.tied import EMBEDDINGS, OUTPUT, UntiedCheckpoint, is_tied, is_tied_by_another_name, untie_config
from soup.testing import tiny_checkpoint

TRUE, FALSE = {"tie_word_embeddings": True}, {"tie_word_embeddings": False}


def opened(path, config, *, has_output=False, embeddings=(f"model.{EMBEDDINGS}",)):
    names = [*embeddings, "model.norm.weight", *([OUTPUT] if has_output else [])]
    return Checkpoint(tiny_checkpoint(path, tensors=dict.fromkeys(names, (8, 4)), config=config))


@pytest.mark.parametrize(
    ("config", "tied"),
    [
        ({}, True),
        (TRUE, True),
        (FALSE, False),
        ({**FALSE, "text_config": TRUE}, True),
        ({**FALSE, "text_config": {}}, True),
        ({**FALSE, "text_config": FALSE}, False),
        ({**FALSE, "vision_config": TRUE}, False),
        ({"text_config": FALSE}, True),
        ({**FALSE, "text_config": None}, False),
    ],
)
def test_an_output_layer_without_a_tensor_is_tied_unless_all_of_the_config_says_that_it_is_not(tmp_path, config, tied):
    with opened(tmp_path, config) as checkpoint:
        assert is_tied(checkpoint) == tied
        assert (output_layer(untied(checkpoint)) == OUTPUT) == tied


@pytest.mark.parametrize(
    ("config", "tied"),
    [({}, False), (TRUE, True), (FALSE, False), ({"text_config": TRUE}, True), ({**FALSE, "text_config": TRUE}, False)],
)
def test_an_output_layer_of_its_own_is_tied_where_the_config_says_so(tmp_path, config, tied):
    with opened(tmp_path, config, has_output=True) as checkpoint:
        assert is_tied(checkpoint) == tied


@pytest.mark.parametrize("embeddings", [(), (f"a.{EMBEDDINGS}", f"b.{EMBEDDINGS}")])
def test_nothing_is_tied_where_no_tensor_or_several_are_named_as_embeddings(tmp_path, embeddings):
    with opened(tmp_path, TRUE, embeddings=embeddings) as checkpoint:
        assert not is_tied(checkpoint)


def test_a_tied_checkpoint_that_is_seen_with_both_tensors_stays_tied(tmp_path):
    with opened(tmp_path, {}) as checkpoint:
        view = UntiedCheckpoint(checkpoint)
        assert is_tied(view)
        assert (view.output, [*view.tensors]) == (OUTPUT, [*checkpoint.tensors, OUTPUT])
        assert view.source_of(OUTPUT) == (checkpoint, f"model.{EMBEDDINGS}")
        assert view.layout[OUTPUT] == "model.safetensors"
        assert all(spec.name == name for name, spec in view.tensors.items())
        contents = {}
        for name in (OUTPUT, f"model.{EMBEDDINGS}"):
            contents[name] = bytearray(view.tensors[name].bytes)
            view.read_into(name, 0, memoryview(contents[name]))
        assert any(contents[OUTPUT])
        assert contents[OUTPUT] == contents[f"model.{EMBEDDINGS}"]
        assert view == UntiedCheckpoint(checkpoint)
        assert view != checkpoint
        assert view != UntiedCheckpoint(Checkpoint(checkpoint.path))


@pytest.mark.parametrize(
    ("names", "config", "tied"),
    [
        (["transformer.wte.weight"], {}, True),
        (["shared.weight", "mlp.shared.weight"], {}, True),
        (["transformer.wte.weight"], FALSE, False),
        (["transformer.wte.weight"], {"text_config": FALSE}, True),
        (["transformer.wte.weight", "lm_head.weight"], {}, False),
        (["qformer.word_embeddings.weight", "language_model.model.embed_tokens.weight"], {}, False),
        (["transformer.newte.weight"], {}, False),
    ],
)
def test_embeddings_of_another_name_are_tied_where_none_are_called_embed_tokens(tmp_path, names, config, tied):
    path = tiny_checkpoint(tmp_path / "model", tensors=dict.fromkeys(names, (4, 3)), config=config)
    assert is_tied_by_another_name(Checkpoint(path), names[0]) is tied


@pytest.mark.parametrize(
    ("config", "untied"),
    [
        ({"hidden_size": 8}, {"hidden_size": 8, **FALSE}),
        (TRUE, FALSE),
        (FALSE, FALSE),
        ({"text_config": {}}, {"text_config": FALSE, **FALSE}),
        ({**FALSE, "llm_config": {"vocab_size": 9}}, {**FALSE, "llm_config": {"vocab_size": 9, **FALSE}}),
        ({**FALSE, "thinker_config": TRUE}, {**FALSE, "thinker_config": FALSE}),
        ({**FALSE, "vision_config": {"depth": 3}, "text": "x"}, {**FALSE, "vision_config": {"depth": 3}, "text": "x"}),
    ],
)
def test_a_config_is_untied_where_it_speaks_of_a_language_model_and_nowhere_else(config, untied):
    config = copy.deepcopy(config)
    changed = config != untied
    assert untie_config(config) is changed
    assert config == untied
