"""The engine vllm, as far as it goes without vLLM; the real thing is in tests/vllm."""

from __future__ import annotations

import importlib.util
import sys
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from evaluators.answering.engines import vllm_process
from evaluators.answering.engines.vllm import VLLM
from evaluators.answering.engines.vllm_layout import main_dtype, refuse_incomplete, refuse_other_layout
from soup.checkpoints.reader import Checkpoint
from soup.errors import EvaluatorError
from soup.evaluation.settings import EvalSettings
from soup.testing import tiny_checkpoint
from tests.helpers.converted_families import CONVERTED, tiny_converted
from tests.helpers.vlm_families import save_family


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is here")
def test_without_vllm_the_error_is_one_sentence_with_the_pip_line():
    with pytest.raises(EvaluatorError, match=r'vllm needs vLLM, .*pip install "vlm-soup\[vllm\]", in an environment'):
        VLLM(EvalSettings()).identity()


def test_arguments_that_can_not_be_are_told():
    with pytest.raises(EvaluatorError, match=r"check_swap: expected first, always, never; found 'sometimes'"):
        VLLM(EvalSettings(), check_swap="sometimes")
    with pytest.raises(EvaluatorError, match="options: expected names and values"):
        VLLM(EvalSettings(), options="max_model_len")


class Limited:
    """vLLM's LLM, as far as it is needed to refuse long prompts; answers of others come at once."""

    def __init__(self, answers=lambda text: text):
        self.answers, self.waiting, self.count, self.llm_engine = answers, [], 0, self

    def get_default_sampling_params(self):
        return SimpleNamespace(repetition_penalty=1.0)

    def enqueue_chat(self, messages, sampling, use_tqdm):
        texts = [message[0]["content"][0]["text"] for message in messages]
        if any(len(text) > 200 for text in texts):
            raise ValueError("The decoder prompt is longer than the maximum model length")
        names = [str(self.count + position) for position in range(len(texts))]
        self.count += len(texts)
        self.waiting += [pair for pair in zip(names, map(self.answers, texts), strict=True) if pair[1] is not None]
        return names

    def has_unfinished_requests(self):
        return bool(self.waiting)

    def get_num_unfinished_requests(self):
        return len(self.waiting)

    def step(self):
        (name, text), *self.waiting = self.waiting
        best = SimpleNamespace(text=text, cumulative_logprob=None)
        return [SimpleNamespace(request_id=name, finished=True, outputs=[best])]


@pytest.fixture
def ask_limited(monkeypatch):
    """Asks vLLM's process for answers to texts, and returns what it sends."""
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(SamplingParams=lambda **_: None))

    def ask(llm, texts):
        sent = []
        server = vllm_process._Server(sent.append)
        server._llm = llm
        server.answer([[{"type": "text", "value": text}] for text in texts], 8, log_probabilities=False)
        return sent

    return ask


def test_a_prompt_that_vllm_does_not_take_is_told_among_all(ask_limited):
    texts = [f"What is {number}?" for number in range(100)]
    sent = ask_limited(Limited(), texts)
    assert {index: text for _, replies in sent for index, text, _ in replies} == dict(enumerate(texts))
    words = r"^ValueError: The decoder prompt is longer than the maximum model length; asked was 'What is 70\? \? "
    with pytest.raises(EvaluatorError, match=words):
        ask_limited(Limited(), [*texts[:70], "What is 70? " + "? " * 100, *texts[71:]])


def test_prompts_that_vllm_loses_are_told_by_the_first_of_them(ask_limited):
    words = r"^vLLM gave no answer to 2 prompts, the first 'What is 8\?'$"
    with pytest.raises(EvaluatorError, match=words):
        ask_limited(Limited(lambda text: None if "8" in text else text), [f"What is {number}?" for number in range(20)])


def test_a_candidate_with_other_tensors_is_refused_with_all_that_differs():
    opened = {"a": ("bfloat16", (2, 3)), "b": ("bfloat16", (4,)), "c": ("bfloat16", (1,))}
    refuse_other_layout(opened, dict(opened))
    with pytest.raises(EvaluatorError) as refusal:
        refuse_other_layout(opened, {"a": ("bfloat16", (2, 3)), "b": ("float32", (4,)), "d": ("bfloat16", (1,))})
    assert str(refusal.value).count("\n") == 3
    assert "c: expected ('bfloat16', (1,)), found nothing" in str(refusal.value)


def test_the_dtype_is_that_of_most_of_the_weights(tmp_path):
    for dtype in ("float32", "bfloat16"):
        with Checkpoint(tiny_checkpoint(tmp_path / dtype, dtype=dtype)) as checkpoint:
            assert main_dtype(checkpoint) == dtype


@pytest.mark.parametrize("kind", ["gemma3", "internvl", "llava", "qwen2_vl", "qwen3_vl"])
def test_a_checkpoint_that_lacks_weights_of_its_model_is_refused_by_their_names(kind, tmp_path):
    folder = save_family(kind, tmp_path / "m", 0) and tmp_path / "m"
    with Checkpoint(folder) as checkpoint:
        refuse_incomplete(checkpoint)
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if name.endswith("layers.1.mlp.down_proj.weight"))
    del tensors[name]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with (
        Checkpoint(folder) as checkpoint,
        pytest.raises(EvaluatorError, match=r"lacks weights.*\n.*layers\.1\.mlp\.down_proj\.weight$"),
    ):
        refuse_incomplete(checkpoint)


@pytest.mark.parametrize("family", CONVERTED)
def test_what_is_converted_on_loading_is_not_missed(family, tmp_path):
    torch.manual_seed(0)
    tiny_converted(family).save_pretrained(tmp_path)
    with Checkpoint(tmp_path) as checkpoint:
        refuse_incomplete(checkpoint)


def test_an_expert_that_lacks_is_told(tmp_path):
    torch.manual_seed(0)
    tiny_converted("qwen3_5_moe").save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.language_model.layers.0.mlp.experts.1.down_proj.weight"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with (
        Checkpoint(tmp_path) as checkpoint,
        pytest.raises(EvaluatorError, match=r"layers\.0\.mlp\.experts\.down_proj$"),
    ):
        refuse_incomplete(checkpoint)
