"""What the line between two models came to: its points, its scores as curves, and the barriers in between.

Source: barriers on the line between two models: Frankle et al., arXiv 1912.05671, section 2.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from soup.evaluation.objective import DECIMALS
from soup.evaluation.trial import Trial
from soup.search.result import trial_as_json
from soup.support.pictures import Picture, draw

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["Barrier", "Sweep", "SweepPoint"]


@dataclass(frozen=True)
class SweepPoint:
    """A model on the line, `t` of the way from A to B.

    Args:
        t: Where it is.
        trial: Its scores.
        losses: By benchmark, the mean over questions of the reference answer's loss per token, in nats.
    """

    t: float
    trial: Trial
    losses: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Barrier:
    """The largest dip of a score below the straight line between both ends, and where it is; 0 where there is none.

    Of a loss it is the largest rise above that line.
    """

    height: float
    t: float


@dataclass(frozen=True, repr=False)
class Sweep:
    """The scores along a line.

    Args:
        names: Of A and B.
        points: In the order of `t`.
        no_loss: Why there is no loss, by benchmark.
    """

    names: tuple[str, str]
    points: tuple[SweepPoint, ...]
    no_loss: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        a, b = self.names
        return f"<Sweep from {a} to {b}: {len(self.points)} points, {self._barrier_of('overall')}>"

    def _barrier_of(self, name: str) -> str:
        barrier = self.barriers[name]
        return f"barrier {barrier.height:.2f}" + (f" at t = {barrier.t:.3f}" if barrier.height else "")

    def to_pandas(self) -> DataFrame:
        """Return a row for each point: t, the scores, the overall, and the losses where there are any."""
        import pandas

        losses = {f"{name} loss": values for name, values in self.loss_curves.items()}
        return pandas.DataFrame({"t": [point.t for point in self.points], **self.curves, **losses})

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        a, b = map(html.escape, self.names)
        barriers = "".join(f"<li>{html.escape(name)}: {self._barrier_of(name)}</li>" for name in self.barriers)
        table = self.to_pandas().to_html(index=False, float_format="%.3f")
        return f"<p>from {a} (0) to {b} (1)</p><ul>{barriers}</ul>{table}"

    @property
    def curves(self) -> dict[str, list[float]]:
        """The score at each point, of each benchmark and of the overall."""
        names = self.points[0].trial.scores
        curves = {name: [point.trial.scores[name].value for point in self.points] for name in names}
        return curves | {"overall": [point.trial.overall for point in self.points]}

    @property
    def loss_curves(self) -> dict[str, list[float]]:
        """The loss at each point, of each benchmark that has one."""
        return {name: [point.losses[name] for point in self.points] for name in self.points[0].losses}

    @property
    def loss_barriers(self) -> dict[str, Barrier]:
        """The barrier of each loss, over the points between A and B."""
        ts = [point.t for point in self.points]
        return {name: _barrier(ts, [-loss for loss in losses]) for name, losses in self.loss_curves.items()}

    @property
    def barriers(self) -> dict[str, Barrier]:
        """The barrier of each curve, over the points between A and B."""
        ts = [point.t for point in self.points]
        return {name: _barrier(ts, values) for name, values in self.curves.items()}

    def as_json(self) -> dict[str, object]:
        """Return the document that `soup sweep --json` prints."""
        return {
            "schema": 1,
            "from": self.names[0],
            "to": self.names[1],
            "trials": [
                {"t": point.t, **trial_as_json(point.trial), "losses": dict(point.losses)} for point in self.points
            ],
            "barriers": {name: asdict(barrier) for name, barrier in self.barriers.items()},
            "loss_barriers": {name: asdict(barrier) for name, barrier in self.loss_barriers.items()},
            "no_loss": dict(self.no_loss),
        }

    def plot(self, path: str | Path | None = None) -> Picture | None:
        """Draw scores and losses along the line, and straight lines between both ends.

        Args:
            path: A png, svg or pdf file; an earlier one is replaced. Without one, a picture for a notebook is returned.

        Raises:
            OutputError: another suffix, or no matplotlib.
        """
        from soup.report.sweep_picture import draw_sweep

        ts = [point.t for point in self.points]
        scores = {name: values for name, values in self.curves.items() if name != "overall" or len(self.curves) > 2}
        losses = {"loss": self.loss_curves} if self.loss_curves else {}
        return draw(lambda target: draw_sweep(self.names, ts, {"score": scores, **losses}, target), path)


def _barrier(ts: Sequence[float], values: Sequence[float]) -> Barrier:
    first, last = values[ts.index(0)], values[ts.index(1)]
    # What rounding leaves of a straight line is no dip: overalls have nine decimals.
    digits = DECIMALS - 1
    dips = {
        t: round((1 - t) * first + t * last - value, digits) for t, value in zip(ts, values, strict=True) if 0 <= t <= 1
    }
    worst = max(dips, key=lambda t: dips[t])
    return Barrier(dips[worst], worst) if dips[worst] > 0 else Barrier(0.0, 0.0)
