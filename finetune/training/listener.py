"""What hears of a training while it runs: steps, losses on what is held out, shares of categories, scores."""

from __future__ import annotations

__all__ = ["Listener"]


class Listener:
    """Hears, and does nothing; whoever wants to know of a kind of news defines its method."""

    def step(self, step: int, steps: int, loss: float, pace: float) -> None:
        """Hear of a step that is done.

        Args:
            step: its number, from 1.
            steps: how many there are.
            loss: its loss.
            pace: seconds a step, of late.
        """

    def scores(self, step: int, scores: dict[str, float]) -> None:
        """Hear what the model scored by benchmark after so many steps."""

    def losses(self, step: int, loss: float, best: int) -> None:
        """Hear of the loss on what is held out after so many steps, and the step of the lowest one so far."""

    def shares(self, step: int, shares: dict[str, float]) -> None:
        """Hear of the categories' shares of the batches that the losses after so many steps made."""
