"""Losses of many answers by vLLM's prompt log probabilities: the prompt with the answer behind it, read in one pass.

Last bits depend on what a batch held, so that of two answers nearly as likely either may come first; losses agree with
those of transformers within 1e-3 (float32).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from evaluators.answering.engines.vllm import VLLM
from soup.evaluation.answer_loss import AnswerLoss, AnswerTask
from soup.evaluation.settings import EvalSettings

__all__ = ["vllm_facts", "vllm_losses"]

AT_ONCE = 256
"""Tasks that vLLM has at once; their pictures lie on disk until then."""


@dataclass(frozen=True)
class _Directory:
    """A checkpoint as the engine opens it."""

    path: Path
    logs: Path

    def directory(self) -> Path:
        return self.path


def vllm_losses(tasks: Iterable[AnswerTask], directory: Path, settings: EvalSettings) -> Iterator[AnswerLoss]:
    """Give the loss of each answer; of one that can't be computed, why.

    Args:
        tasks: Taken as they are needed.
        directory: The checkpoint.
        settings: With the engine's own arguments.

    Raises:
        EvaluatorError: vLLM is not installed, or can't be opened on the checkpoint.
    """
    engine, waiting = VLLM(settings, **settings.engine_args), iter(tasks)
    with tempfile.TemporaryDirectory(prefix="soup-vllm-") as logs:
        try:
            engine.open(_Directory(directory, Path(logs)))
            while some := list(islice(waiting, AT_ONCE)):
                yield from engine.losses(some)
        finally:
            engine.close()


def vllm_facts(settings: EvalSettings) -> dict[str, object]:
    """Give what losses depend on besides the checkpoint, as facts of an output.

    Raises:
        EvaluatorError: vLLM is not installed, or an argument of it is wrong.
    """
    return {"engine": dict(VLLM(settings, **settings.engine_args).identity())}
