"""Losses by vLLM's prompt log probabilities, against transformers' own, and why some can't be had."""

from __future__ import annotations

import pytest

from evaluators.answering.answer_losses import answer_losses
from evaluators.answering.vllm_losses import vllm_losses
from soup.evaluation.answer_loss import AnswerTask
from soup.evaluation.settings import EvalSettings
from tests.vllm.conftest import OPTIONS
from tests.vllm.families import save_served


@pytest.mark.parametrize("kind", ["qwen2_vl", "llava"])
def test_losses_are_those_of_transformers_and_what_has_none_says_why(kind, prompts, tmp_path):
    save_served(kind, tmp_path / "model", seed=3)
    answers = ["A dog on a red chair.", "no", "Seven words are in this very sentence."]
    tasks = [AnswerTask(5 * i, prompt, answers[i % 3]) for i, prompt in enumerate(prompts)]
    gone = [{"type": "image", "value": str(tmp_path / "gone.png")}, {"type": "text", "value": "Why?"}]
    tasks += [AnswerTask(100, prompts[0], ""), AnswerTask(101, gone, "so")]
    settings = EvalSettings(engine="vllm", engine_args={"options": OPTIONS})
    ours = {outcome.index: outcome for outcome in vllm_losses(tasks, tmp_path / "model", settings)}
    theirs = {outcome.index: outcome for outcome in answer_losses(tasks, tmp_path / "model")}
    assert ours.keys() == theirs.keys() == {task.index for task in tasks}
    for index, expected in theirs.items():
        assert ours[index].tokens == expected.tokens
        assert ours[index].loss == pytest.approx(expected.loss, abs=1e-3)
        assert (ours[index].failure is None) == (expected.failure is None) == (index < 100)
    assert "without a token" in ours[100].failure
    assert "gone.png" in ours[101].failure
    assert len({round(outcome.loss, 3) for outcome in ours.values() if outcome.failure is None}) > 3
