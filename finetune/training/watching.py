"""What would stop an evaluation on the way (`evaluate_every`), before a job begins: no torch is needed to know it."""

from __future__ import annotations

from finetune.config import TrainSettings
from soup.errors import FinetuneError
from soup.evaluation.config import EvalConfig
from soup.evaluation.suite import build_suite

__all__ = ["check_evaluation"]


def check_evaluation(settings: TrainSettings, processes: int) -> None:
    """Look for what would stop an evaluation of the model on the way.

    Args:
        settings: the job's.
        processes: how many train it.

    Raises:
        FinetuneError: several processes train.
        EvaluatorError: a benchmark is unknown, or its data are not here.
    """
    if not settings.evaluate_every:
        return
    if processes > 1:
        raise FinetuneError(
            "evaluate_every: the model is judged by the process that trains it, and of several the others would wait "
            "too long. Train on one GPU, or judge what `keep_every` writes by soup eval."
        )
    config = EvalConfig(settings.evaluate)
    build_suite(config.parse(), config.settings)
