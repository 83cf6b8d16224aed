"""What methods on deltas have in common: the base, a scale, and factors by component and depth.

A delta is tau_i = theta_i - theta_0, taken in the accumulating dtype. The result is theta_0 + scale * g * merged, where
merged is the method's own. The effective weight of ingredient i in a tensor is w_i * c_i(component) * g(depth).

Source of g, the factor that grows with depth: LiNeS, Wang et al., arXiv 2410.17146, section 4:
g = alpha + beta * l / (L - 1) for block l of L of its own stack, and alpha outside of blocks.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from soup.errors import RecipeError
from soup.hf.places import Place
from soup.merging.methods.base import Block, FirstPass, MergedTensor, Method
from soup.merging.methods.components import Factors, check_components, component_factors, idle_components

if TYPE_CHECKING:
    import torch

__all__ = ["DeltaMethod", "check_range", "delta"]


@dataclass(frozen=True)
class DeltaMethod(Method):
    """theta_0 + scale * g(depth) * merged(deltas); subclasses say how deltas are merged.

    Args:
        scale: How much of the merged delta is added.
        components: Factors of the weights by component (vision, projector, llm, embeddings, other): a number, or one
            for each ingredient.
        alpha: g of the first block, and outside of blocks; `auto`: the sum of the deltas' L1 norms over k times that
            of the merged delta, from a pass over all inputs.
        beta: How much g grows from the first block of a stack to the last.
    """

    needs_base = True

    scale: float = 1.0
    components: Factors = field(default_factory=dict)
    alpha: float | Literal["auto"] = 1.0
    beta: float = 0.0

    def __call__(self, block: Block) -> torch.Tensor:
        """Add the merged deltas to the base; see `Method`."""
        merged = self.merged(block, self.effective_weights(block))
        return block.base.add_(merged.mul_(self.grown_scale(block)))

    @abstractmethod
    def merged(self, block: Block, weights: Sequence[float]) -> torch.Tensor:
        """Merge the block's deltas into one, new memory in the shape of its entries.

        Args:
            block: The block.
            weights: The ingredients' weights times the component's factors.
        """

    @property
    def uses_places(self) -> bool:
        """Whether factors depend on where a tensor stands; see `Method.uses_places`."""
        return bool(self.components) or self.beta != 0

    @property
    def first_passes(self) -> int:
        """One for `alpha: auto`; see `Method.first_passes`."""
        return int(self.alpha == "auto")

    def prepare(self, first_pass: FirstPass) -> object:
        """Find `alpha: auto`; subclasses with constants of their own are wrapped by theirs."""
        return self.auto_alpha(first_pass) if self.alpha == "auto" else None

    def auto_alpha(self, first_pass: FirstPass) -> float:
        """Return ||sum_i tau_i||_1 / (k ||merged||_1) over the whole model (LiNeS, section 4.1)."""
        import torch

        def norms(block: Block) -> torch.Tensor:
            total = delta(block, 0)
            for index in range(1, len(block)):
                total += delta(block, index)
            merged = self.merged(block, self.effective_weights(block))
            return torch.stack([total.abs().sum(dtype=torch.float64), merged.abs().sum(dtype=torch.float64)])

        sums = torch.zeros(2, dtype=torch.float64)
        for _, value in first_pass.sums(norms):
            sums += value
        ratio = float(sums[0] / (len(first_pass.weights) * sums[1]))
        return ratio if math.isfinite(ratio) else 1.0  # nothing changed, or something is infinite, which is told later

    def effective_weights(self, tensor: MergedTensor) -> list[float]:
        """Return the ingredients' weights times the factors of the tensor's component."""
        return component_factors(self.components, tensor)

    def grown_scale(self, tensor: MergedTensor) -> float:
        """Return the scale times g of the tensor's depth: what the merged delta is multiplied by."""
        alpha = self.alpha_of(tensor) if self.alpha == "auto" else float(self.alpha)
        return self.scale * growth(alpha, self.beta, tensor.place)

    def alpha_of(self, tensor: MergedTensor) -> float:
        """Return the alpha that `prepare` found."""
        assert isinstance(tensor.constants, float)
        return tensor.constants

    def idle_parameters(self, places: Collection[Place]) -> list[str]:
        """Tell components that the model does not have, and growth without blocks; see `Method.idle_parameters`."""
        texts = idle_components(self.components, places)
        if self.beta and all(place.blocks < 2 for place in places):
            texts.append("beta: changes nothing: by their names no tensors stand in a stack of several blocks")
        return texts

    def check(self, weights: Sequence[float]) -> None:
        """Refuse parameters out of range; see `Method.check`."""
        check_components(self.components, weights)
        if self.alpha != "auto":
            check_range("alpha", float(self.alpha), -2, 2)
        check_range("beta", self.beta, 0, 1.5)


def delta(block: Block, index: int, out: torch.Tensor | None = None) -> torch.Tensor:
    """Return ingredient `index`'s delta to the base, a copy in the accumulating dtype, in `out` if there is one."""
    assert block.raw_base is not None
    return block.copy(index, out).sub_(block.raw_base)


def growth(alpha: float, beta: float, place: Place | None) -> float:
    """Return LiNeS' g of a tensor: `alpha` outside of blocks and in a stack of one block."""
    if place is None or place.blocks < 2:
        return alpha
    return alpha + beta * place.block / (place.blocks - 1)


def check_range(name: str, value: float, low: float, high: float, *, open_low: bool = False) -> None:
    """Refuse a parameter out of its range.

    Raises:
        RecipeError: With the range, and what was found.
    """
    if not (low < value if open_low else low <= value) or not value <= high:
        least = f"above {low:g} and up" if open_low else f"from {low:g}"
        raise RecipeError(f"{name}: expected a number {least} to {high:g}, found {value:g}.")
