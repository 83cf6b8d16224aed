"""What a checkpoint says of the training run that it is a snapshot of: its step, the run, the learning rates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from soup.errors import CheckpointError
from soup.support.json_text import read_json

__all__ = ["TrainingRecord", "read_training_record"]


@dataclass(frozen=True)
class TrainingRecord:
    """A snapshot's place in its run.

    Args:
        step: The step after which it was saved; None where nothing tells.
        run: What names the run: the digest of settings, data and start in soup's own `finetune.json`.
        rates: The learning rates so far as (step, rate), of transformers' `trainer_state.json`.
    """

    step: int | None = None
    run: str | None = None
    rates: tuple[tuple[float, float], ...] = ()

    def is_of_run(self, later: TrainingRecord) -> bool:
        """Whether a later snapshot may be of the same run: nothing that both tell says otherwise."""
        if self.run is not None and later.run is not None and self.run != later.run:
            return False
        return not self.rates or not later.rates or later.rates[: len(self.rates)] == self.rates


def read_training_record(folder: Path) -> TrainingRecord:
    """Read what `finetune.json` and `trainer_state.json` say; a file that can't be read says nothing."""
    stamp, state = _read(folder / "finetune.json"), _read(folder / "trainer_state.json")
    steps = (state.get("global_step"), stamp.get("step"), stamp.get("steps"))
    run, history = stamp.get("digest"), state.get("log_history")
    return TrainingRecord(
        step=next((step for step in steps if isinstance(step, int) and not isinstance(step, bool)), None),
        run=run if isinstance(run, str) else None,
        rates=tuple(rate for entry in history if (rate := _rate(entry))) if isinstance(history, list) else (),
    )


def _read(path: Path) -> Mapping[str, object]:
    try:
        document = read_json(path, CheckpointError)
    except CheckpointError:
        return {}
    return document if isinstance(document, dict) else {}


def _rate(entry: object) -> tuple[float, float] | None:
    if not isinstance(entry, dict):
        return None
    step, rate = entry.get("step"), entry.get("learning_rate")
    return (step, rate) if isinstance(step, int | float) and isinstance(rate, int | float) else None
