"""What is looked at before vLLM reads a checkpoint or a candidate, for it notices little of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from soup.checkpoints.reader import Checkpoint
from soup.errors import EvaluatorError
from soup.evaluation.module_slots import unfilled_parameters
from soup.hf.key_mapping import bare_module, plan_loading
from soup.support.text import bullet_list

__all__ = ["main_dtype", "refuse_incomplete", "refuse_other_layout"]


def main_dtype(checkpoint: Checkpoint) -> str:
    """Return the dtype of most of a checkpoint's weights: left to itself vLLM makes bfloat16 of float32."""
    sizes: Counter[str] = Counter()
    for spec in checkpoint.tensors.values():
        sizes[spec.dtype.name] += spec.bytes
    return max(sizes, key=lambda name: sizes[name])


def refuse_incomplete(checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint that lacks weights of its model: vLLM would run with whatever lies in their place.

    Raises:
        EvaluatorError: all that lack are listed.
    """
    module = bare_module(checkpoint.path)
    if module is None:
        return  # a class that transformers does not have: vLLM's own loading has the last word
    try:
        plan = plan_loading(module, checkpoint.tensors)
    except LookupError:
        return
    if plan.names and (missing := unfilled_parameters(module, checkpoint.tensors, plan)):
        raise EvaluatorError(f"{checkpoint.path}: it lacks weights of its model:\n{bullet_list(sorted(missing))}")


def refuse_other_layout(opened: Mapping[str, object], wanted: Mapping[str, object]) -> None:
    """Refuse a candidate whose tensors are not those that vLLM was opened with: it would not notice.

    Raises:
        EvaluatorError: all that differ are listed.
    """
    differing = [
        f"{name}: expected {opened.get(name, 'nothing')}, found {wanted.get(name, 'nothing')}"
        for name in sorted(opened.keys() | wanted.keys())
        if opened.get(name) != wanted.get(name)
    ]
    if differing:
        raise EvaluatorError(f"The candidate's tensors are not those of the engine:\n{bullet_list(differing)}")
