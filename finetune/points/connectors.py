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
from torch.nn import functional as F
from transformers import PreTrainedConfig

from finetune.points.config import PointsConfig, as_layers

__all__ = [
    "AttentionPoolConnector",
    "Connector",
    "LinearConnector",
    "PoolConnector",
    "ShuffleConnector",
    "build_connector",
    "pixel_shuffle",
]


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

    Source: Molmo, arXiv 2409.17146, section 2; its released models pool by attention, see `AttentionPoolConnector`.
    """

    def __init__(self, patch: int, width: int, factor: int):
        super().__init__(nn.Linear(patch, width), nn.GELU(), nn.Linear(width, width), factor=factor)

    def arrange(self, x_TGGC: Tensor) -> Tensor:
        """Arrange every patch, those of a square one after another."""
        return _by_square(x_TGGC, self.factor)

    def forward(self, x_M: Tensor) -> Tensor:
        """Make image tokens [..., M, K] -> [..., N, D]."""
        return super().forward(x_M).unflatten(-2, (-1, self.factor**2)).mean(-2)


def _by_square(x_TGGC: Tensor, factor: int) -> Tensor:
    """Arrange patches so that those of a square follow each other [T, G, G, C] -> [T, M, C]."""
    return pixel_shuffle(x_TGGC, factor).unflatten(-1, (factor**2, -1)).flatten(1, 2)


class AttentionPoolConnector(Connector):
    """Molmo as released: the mean of each square of patches attends to them, then a gated MLP without biases.

    Layers 0 to 3 make queries, keys, values and the output of attention, 4 to 6 are the MLP's gate, its other half and
    its output. Features of several hidden states are brought to the width of one here.

    Args:
        patch: numbers of a patch, of all hidden states.
        width: of the language model.
        factor: patches along a square's side.
        encoder: width of the encoder; what attention computes in.
        heads: of attention: as many as the encoder's own (CLIP 16 of 64 numbers, SigLIP 16 of 72).
        inner: width of the MLP: the language model's own MLP's.

    Source: Molmo, arXiv 2409.17146, appendix "model details", and its public code, also as vLLM and transformers
    (Molmo2) have it. Molmo adds a learnt vector to patches that are padding; here they are black pixels, no more.
    """

    def __init__(self, patch: int, width: int, factor: int, encoder: int, heads: int, inner: int):
        inwards = (nn.Linear(patch, encoder) for _ in range(3))
        mlp = nn.Linear(encoder, inner, bias=False), nn.Linear(encoder, inner, bias=False)
        last = nn.Linear(inner, width, bias=False)
        super().__init__(*inwards, nn.Linear(encoder, encoder), *mlp, last, factor=factor)
        self.heads = heads

    def arrange(self, x_TGGC: Tensor) -> Tensor:
        """Arrange every patch, those of a square one after another."""
        return _by_square(x_TGGC, self.factor)

    def forward(self, x_M: Tensor) -> Tensor:
        """Make image tokens [..., M, K] -> [..., N, D]."""
        to_query, to_key, to_value, to_output, gate, up, down = self
        squares = x_M.unflatten(-2, (-1, self.factor**2))  # [..., N, patches of a square, K]
        query = self._split(to_query(squares.mean(-2, keepdim=True)))
        attended = F.scaled_dot_product_attention(query, self._split(to_key(squares)), self._split(to_value(squares)))
        x = to_output(attended.transpose(-3, -2).flatten(-2)).squeeze(-2)
        return down(F.silu(gate(x)) * up(x))

    def _split(self, x: Tensor) -> Tensor:
        """Give each head its numbers [..., patches, K] -> [..., heads, patches, K / heads]."""
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)


_CLASSES: dict[str, Callable[[int, int, int], Connector]] = {
    "shuffle": ShuffleConnector,
    "pool": PoolConnector,
    "linear": LinearConnector,
}


def build_connector(config: PointsConfig) -> Connector:
    """Build the connector that a configuration names, fresh."""
    text: PreTrainedConfig = config.text_config  # a mapping no longer, once the whole is built
    sizes = config.feature_grid.width, text.hidden_size, config.shuffle
    if config.connector != "attention-pool":
        return _CLASSES[config.connector](*sizes)
    encoder = config.feature_grid.width // len(as_layers(config.vision_feature_layer))
    heads = getattr(config.general_config, "num_attention_heads", 1)
    inner = getattr(text, "intermediate_size", 4 * text.hidden_size)  # GPT-2's has no name for it
    return AttentionPoolConnector(*sizes, encoder, heads, inner)
