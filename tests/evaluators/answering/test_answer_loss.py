"""The loss of a given answer, against a forward pass for each of its tokens."""

from __future__ import annotations

import pytest
import torch

from evaluators.answering.engines.answer_loss import loss_of_answer
from evaluators.answering.engines.transformers import TransformersModel
from soup.errors import EvaluatorError
from tests.helpers.vlm_families import noise, save_family

pytestmark = [pytest.mark.usefixtures("one_thread")]
ANSWER = "B, a tree"


@pytest.fixture
def prompt(tmp_path):
    noise(tmp_path / "image.png", (40, 60), 3, "RGB")
    return [{"type": "image", "value": str(tmp_path / "image.png")}, {"type": "text", "value": "What is it?"}]


def step_by_step(engine, prompt, answer):
    """The mean of what each token costs, each after a pass over all that stands before it."""
    tokens = engine.tokenizer(answer, add_special_tokens=False)["input_ids"]
    losses = []
    for count, token in enumerate(tokens):
        with torch.inference_mode():
            inputs = dict(engine._prompter([prompt]))
            shown = torch.tensor([tokens[:count]], dtype=torch.long)
            for name in ("input_ids", "attention_mask", "mm_token_type_ids"):
                if name in inputs:
                    added = {"input_ids": shown, "attention_mask": torch.ones_like(shown)}
                    inputs[name] = torch.cat([inputs[name], added.get(name, torch.zeros_like(shown))], dim=1)
            logits = engine.module(**inputs).logits[0, -1]
        losses.append(-torch.log_softmax(logits.float(), dim=0)[token].item())
    assert len(losses) > 1
    return sum(losses) / len(losses)


@pytest.mark.parametrize("kind", ["llava", "qwen2_5_vl", "internvl", "gemma3", "idefics3"])
def test_the_loss_is_the_mean_over_the_answer_s_tokens(kind, tmp_path, prompt):
    engine = TransformersModel(save_family(kind, tmp_path / "m", 0))
    loss = engine.loss(prompt, ANSWER)
    assert loss == pytest.approx(step_by_step(engine, prompt, ANSWER), rel=1e-4)
    assert engine.loss(prompt, ANSWER) == loss
    assert engine.loss(prompt, "another") != loss


def test_a_model_that_reads_the_answer_first_is_refused(tmp_path, prompt):
    engine = TransformersModel(save_family("paligemma", tmp_path / "m", 0))
    with pytest.raises(EvaluatorError, match="reads the answer before it is asked for it"):
        engine.loss(prompt, ANSWER)


def test_an_empty_answer_has_no_loss(tmp_path, prompt):
    engine = TransformersModel(save_family("llava", tmp_path / "m", 0))
    with pytest.raises(EvaluatorError, match="without a token has no loss"):
        engine.loss(prompt, "")


def test_an_encoder_decoder_is_given_the_answer_as_its_own_words():
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    shape = {"vocab_size": 40, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
    module = T5ForConditionalGeneration(T5Config(**shape, decoder_start_token_id=0)).eval()
    inputs, answer = {"input_ids": torch.tensor([[5, 6, 7]])}, torch.tensor([[9, 8, 3]])
    losses = []
    for count in range(3):
        shown = torch.cat([torch.zeros(1, 1, dtype=torch.long), answer[:, :count]], dim=1)
        with torch.inference_mode():
            logits = module(**inputs, decoder_input_ids=shown).logits[0, -1]
        losses.append(-torch.log_softmax(logits, dim=0)[answer[0, count]].item())
    assert loss_of_answer(module, inputs, answer) == pytest.approx(sum(losses) / 3, rel=1e-5)
