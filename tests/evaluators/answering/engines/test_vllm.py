"""The engine vllm, as far as it goes without vLLM; the real thing is in tests/vllm."""

from __future__ import annotations

import importlib.util

import pytest

from evaluators.answering.engines.vllm import VLLM, _main_dtype, _refuse_other_layout
from soup.checkpoints.reader import Checkpoint
from soup.errors import EvaluatorError
from soup.evaluation.settings import EvalSettings
from soup.testing import tiny_checkpoint


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is here")
def test_without_vllm_the_error_is_one_sentence_with_the_pip_line():
    with pytest.raises(EvaluatorError, match=r'vllm needs vLLM, .*pip install "vlm-soup\[vllm\]", in an environment'):
        VLLM(EvalSettings()).identity()


def test_arguments_that_can_not_be_are_told():
    with pytest.raises(EvaluatorError, match=r"check_swap: expected first, always, never; found 'sometimes'"):
        VLLM(EvalSettings(), check_swap="sometimes")
    with pytest.raises(EvaluatorError, match="options: expected names and values"):
        VLLM(EvalSettings(), options="max_model_len")


def test_a_candidate_with_other_tensors_is_refused_with_all_that_differs():
    opened = {"a": ("bfloat16", (2, 3)), "b": ("bfloat16", (4,)), "c": ("bfloat16", (1,))}
    _refuse_other_layout(opened, dict(opened))
    with pytest.raises(EvaluatorError) as told:
        _refuse_other_layout(opened, {"a": ("bfloat16", (2, 3)), "b": ("float32", (4,)), "d": ("bfloat16", (1,))})
    assert str(told.value).count("\n") == 3
    assert "c: expected ('bfloat16', (1,)), found nothing" in str(told.value)


def test_the_dtype_is_that_of_most_of_the_weights(tmp_path):
    for dtype in ("float32", "bfloat16"):
        with Checkpoint(tiny_checkpoint(tmp_path / dtype, dtype=dtype)) as checkpoint:
            assert _main_dtype(checkpoint) == dtype
