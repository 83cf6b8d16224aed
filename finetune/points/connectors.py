"""From the encoders' features to what the language model reads: one small class each, behind `Connector`.

    T   tiles                        G   patches along a tile's side
    C   width of an encoder          D   width of the language model
    M   what a connector reads of a tile: patches, or squares of them; K their width
    N   image tokens of a tile

A connector has two halves. `arrange` has no weights: what it gives of a frozen encoder can be cached. The call has
them all, under the numbers that the published model gives them (`vision_projector.0`, `vision_projector.2`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor, nn
from transformers import PreTrainedConfig

from finetune.points.config import PointsConfig

__all__ = ["Connector", "LinearConnector", "PoolConnector", "ShuffleConnector", "build_connector", "pixel_shuffle"]


def pixel_shuffle(x_TGGC: Tensor, factor: int) -> Tensor:
    """Join each square of factor x factor patches into one, row by row [T, G, G, C] -> [T, N, K].

    Source: arXiv 1609.05158, equation 4, read backwards.
    """
    T, G, _, C = x_TGGC.shape
    n = G // factor
    x = x_TGGC.reshape(T, n, factor, n, factor, C).transpose(2, 3)
    return x.reshape(T, n * n, factor * factor * C)


class Connector(nn.Sequential, ABC):
    """Turns an encoder's grid of patches into image tokens; `factor` x `factor` patches become one."""

    def __init__(self, *layers: nn.Module, factor: int):
        super().__init__(*layers)
        self.factor = factor

    @abstractmethod
    def arrange(self, x_TGGC: Tensor) -> Tensor:
        """Arrange features as the weights read them [T, G, G, C] -> [T, M, K]."""

    def forward(self, x_M: Tensor) -> Tensor:
        """Make image tokens [..., M, K] -> [..., N, D]."""
        return super().forward(x_M)


class ShuffleConnector(Connector):
    """POINTS: each square of patches becomes one wide feature, then an MLP.

    Source: POINTS, arXiv 2409.04828, section 3.1; the shuffle is InternVL's, arXiv 2404.16821, section 3.1.
    """

    def __init__(self, patch: int, width: int, factor: int):
        super().__init__(nn.Linear(patch * factor**2, width), nn.GELU(), nn.Linear(width, width), factor=factor)

    def arrange(self, x_TGGC: Tensor) -> Tensor:
        """Arrange patches as squares."""
        return pixel_shuffle(x_TGGC, self.factor)


class LinearConnector(Connector):
    """Fuyu: one linear layer, of each patch or square of patches.

    Source: Fuyu (Bavishi et al., 2023).
    """

    def __init__(self, patch: int, width: int, factor: int):
        super().__init__(nn.Linear(patch * factor**2, width), factor=factor)

    def arrange(self, x_TGGC: Tensor) -> Tensor:
        """Arrange patches as squares."""
        return pixel_shuffle(x_TGGC, self.factor)


class PoolConnector(Connector):
    """Molmo: an MLP of each patch, then the mean over each square of patches.

    Source: Molmo, arXiv 2409.17146, section 2 (whose released models pool by attention).
    """

    def __init__(self, patch: int, width: int, factor: int):
        super().__init__(nn.Linear(patch, width), nn.GELU(), nn.Linear(width, width), factor=factor)

    def arrange(self, x_TGGC: Tensor) -> Tensor:
        """Arrange every patch, those of a square one after another."""
        squares = pixel_shuffle(x_TGGC, self.factor)
        return squares.unflatten(-1, (self.factor**2, -1)).flatten(1, 2)

    def forward(self, x_M: Tensor) -> Tensor:
        """Make image tokens [..., M, K] -> [..., N, D]."""
        return super().forward(x_M).unflatten(-2, (-1, self.factor**2)).mean(-2)


_CLASSES: dict[str, Callable[[int, int, int], Connector]] = {
    "shuffle": ShuffleConnector,
    "pool": PoolConnector,
    "linear": LinearConnector,
}


def build_connector(config: PointsConfig) -> Connector:
    """Build the connector that a configuration names, fresh."""
    text: PreTrainedConfig = config.text_config  # a mapping no longer, once the whole is built
    return _CLASSES[config.connector](config.feature_grid.width, text.hidden_size, config.shuffle)
