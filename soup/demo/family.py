"""The base and its fine-tunes, each on an added data set of its own: what POINTS does, in closed form.

A fine-tune is the projector nearest to the base's that answers its pictures best: ridge regression, solved in one step.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from soup.demo.model import HIDDEN, LEARNT, frozen_tensors, projected, save_model
from soup.demo.pictures import ANSWERS, draw_pictures

if TYPE_CHECKING:
    import torch

__all__ = ["FINE_TUNES", "FineTune", "write_base", "write_family"]

BASE_PICTURES, ADDED_PICTURES = 100, 900
BASE_STIFFNESS, STIFFNESS = 1.0, 10.0
WRONG_SHARE = 0.9


@dataclass(frozen=True)
class FineTune:
    """A model of the family.

    Args:
        name: Its directory's.
        subjects: What its added pictures ask for.
        is_wrong: Whether most labels of its added pictures are another picture's.
    """

    name: str
    subjects: tuple[str, ...]
    is_wrong: bool = False


FINE_TUNES = (
    FineTune("colours", ("colour",)),
    FineTune("mixture", tuple(ANSWERS)),
    FineTune("places", ("place",)),
    FineTune("shapes", ("shape",)),
    FineTune("wrong-labels", tuple(ANSWERS), is_wrong=True),
)


def write_base(base: Path) -> None:
    """Write the base, unless it is there."""
    if not base.exists():
        base.parent.mkdir(parents=True, exist_ok=True)
        frozen = frozen_tensors()
        save_model(base, {**frozen, LEARNT: _base(frozen)[0].bfloat16()})


def write_family(base: Path, pool: Path) -> None:
    """Write the base and the fine-tunes; those that are there stay.

    Args:
        base: The base's directory.
        pool: The directory of the fine-tunes.
    """
    import torch

    write_base(base)
    pool.mkdir(parents=True, exist_ok=True)
    frozen = frozen_tensors()
    start, features, targets = _base(frozen)
    for number, job in enumerate(FINE_TUNES):
        if not (pool / job.name).exists():
            more_features, more_targets = _data_set(job, frozen, ADDED_PICTURES, seed=100 * (number + 1))
            examples = torch.cat([features, more_features]), torch.cat([targets, more_targets])
            save_model(pool / job.name, {**frozen, LEARNT: _solve(start, *examples, STIFFNESS).bfloat16()})


def _base(frozen: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the base's matrix, and what it was solved for: features and targets of pictures of each kind."""
    import torch

    features, targets = _data_set(FineTune("base", tuple(ANSWERS)), frozen, BASE_PICTURES * len(ANSWERS), seed=1)
    return (
        _solve(torch.zeros(HIDDEN, HIDDEN, dtype=torch.float64), features, targets, BASE_STIFFNESS),
        features,
        targets,
    )


def _solve(start: torch.Tensor, features: torch.Tensor, targets: torch.Tensor, stiffness: float) -> torch.Tensor:
    """Return the W that is least in `|features W^T - targets|^2 + stiffness |W - start|^2`."""
    import torch

    curvature = features.T @ features + stiffness * torch.eye(HIDDEN, dtype=torch.float64)
    change: torch.Tensor = torch.linalg.solve(curvature, features.T @ (targets - features @ start.T))
    return start + change.T


def _data_set(
    job: FineTune, frozen: dict[str, torch.Tensor], count: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw pictures and return what the projector sees of them, and the answers that it should give, in float64."""
    import torch

    features, targets = [], []
    for number, subject in enumerate(job.subjects):
        pictures = draw_pictures(count // len(job.subjects), seed + number)
        labels = pictures.right[subject]
        if job.is_wrong:
            labels = labels.clone()
            wrong = int(WRONG_SHARE * len(labels))
            labels[:wrong] = (labels[:wrong] + 1) % 4
        features.append(projected(frozen, pictures.pixels).double())
        targets.append(_wanted(subject, labels))
    return torch.cat(features), torch.cat(targets)


def _wanted(subject: str, labels: torch.Tensor) -> torch.Tensor:
    """Return what the hidden state should be, `[pictures, HIDDEN]`: high for the right answer, low for the others."""
    import torch

    first = 4 * [*ANSWERS].index(subject)
    states = torch.zeros(len(labels), HIDDEN, dtype=torch.float64)
    states[:, first : first + 4] = torch.nn.functional.one_hot(labels, 4) - 1 / 4
    return states
