"""The weighted mean on the sphere; with two ingredients it is SLERP.

Source: Karcher, Riemannian center of mass, Comm. Pure Appl. Math. 30, 1977; SLERP: Shoemake, SIGGRAPH 1985, section 3.
For fine-tunes at a relative distance e from their base it differs from the plain mean by about (1 - 1/k) e^2 / 2, a
change of length alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from soup.errors import RecipeError
from soup.merging.compiled import Arithmetic, Form
from soup.merging.methods.base import Block, FirstPass, MergedTensor, Method, Work
from soup.merging.methods.deltas import delta
from soup.merging.methods.dot_products import dot_products

if TYPE_CHECKING:
    import torch

__all__ = ["Karcher", "sphere_mean"]

ROUNDS, SMALL = 2000, 1e-10
DEPENDENT = 1e-14  # of a unit vector's square, what is left beside earlier ones; rounding leaves as much


@dataclass(frozen=True)
class Karcher(Method):
    """The mean direction of the tensors as vectors, times the mean of their lengths.

    All steps stay in the span of the ingredients: one pass takes their dot products, the iteration runs on one
    coefficient for each, and the second pass writes the combination. Tensors that are 0 have no direction and count
    by their length alone.

    Args:
        around: Whether directions are those of the weights themselves, or of the deltas to the base.
        unit: Whether a tensor is one vector, or each row of a matrix is.
    """

    around: Literal["origin", "base"] = "origin"
    unit: Literal["tensor", "row"] = "tensor"

    @property
    def needs_base(self) -> bool:  # type: ignore[override]  # a class variable in methods that always or never do
        """Whether deltas are taken."""
        return self.around == "base"

    @property
    def first_passes(self) -> int:
        """One; see `Method.first_passes`."""
        return 1

    def granularity_of(self, name: str, shape: tuple[int, ...]) -> Literal["element", "tensor"]:
        """Rows are merged within whole matrices; see `Method.granularity_of`."""
        return "tensor" if self.unit == "row" and len(shape) == 2 and shape[1] > 1 else "element"

    def work(self, shape: tuple[int, ...], count: int, rank: int | None = None) -> Work:
        """Count the vectors of all rows, also in float64, and their products; see `Method.work`."""
        return Work(3 * 8 * count * math.prod(shape))

    def prepare(self, first_pass: FirstPass) -> Mapping[str, list[float] | None]:
        """Return the coefficients of each tensor; None for a matrix whose rows are merged one by one."""

        def products(block: Block) -> torch.Tensor:
            return dot_products(block, "base" if self.around == "base" else "zero").products

        coefficients: dict[str, list[float] | None] = {}
        rows = {name for name, shape in first_pass.shapes.items() if self.granularity_of(name, shape) == "tensor"}
        for name, value in first_pass.sums(products):
            if self._is_numbers(first_pass.shapes[name]):
                coefficients[name] = [weight / math.fsum(first_pass.weights) for weight in first_pass.weights]
            else:
                coefficients[name] = None if name in rows else sphere_mean(value.tolist(), first_pass.weights, name)
        return coefficients

    def __call__(self, block: Block) -> torch.Tensor:
        """Combine the ingredients by the tensor's coefficients; see `Method`."""
        coefficients = block.constants[block.tensor_name]
        merged = self._by_rows(block) if coefficients is None else self._combined(block, coefficients)
        return block.base.add_(merged) if self.around == "base" else merged

    def arithmetic(self, tensor: MergedTensor) -> Arithmetic | None:
        """Say the same for a compiled pass; see `Method.arithmetic`."""
        coefficients = tensor.constants[tensor.tensor_name]
        form: Form = "deltas" if self.around == "base" else "sum"
        return None if coefficients is None else Arithmetic(form, coefficients)

    def check(self, weights: Sequence[float]) -> None:
        """Refuse weights that are not above 0; see `Method.check`."""
        if not all(weight >= 0 for weight in weights) or math.fsum(weights) < 1e-9:
            raise RecipeError(f"karcher: expected weights from 0, not all 0, found {list(weights)}.")

    def _is_numbers(self, shape: tuple[int, ...]) -> bool:
        """Whether each vector would be one number, which has a sign, but no direction."""
        return math.prod(shape) == 1 or (self.unit == "row" and shape[1:] == (1,))

    def _vector(self, block: Block, index: int) -> torch.Tensor:
        return delta(block, index) if self.around == "base" else block.copy(index)

    def _combined(self, block: Block, coefficients: Sequence[float]) -> torch.Tensor:
        total = self._vector(block, 0).mul_(coefficients[0])
        for index in range(1, len(block)):
            total += self._vector(block, index).mul_(coefficients[index])
        return total

    def _by_rows(self, block: Block) -> torch.Tensor:
        import torch

        vectors = torch.stack([self._vector(block, index) for index in range(len(block))])  # [k, rows, columns]
        wide = vectors.double()
        grams = torch.einsum("irc,jrc->rij", wide, wide).tolist()
        weights, name = list(block.weights), block.tensor_name
        rows = [sphere_mean(gram, weights, f"{name}, row {row}") for row, gram in enumerate(grams)]
        coefficients = torch.tensor(rows, dtype=vectors.dtype)
        return torch.einsum("ri,irc->rc", coefficients, vectors)


def sphere_mean(gram: Sequence[Sequence[float]], weights: Sequence[float], what: str) -> list[float]:
    """Return the coefficients of the mean on the sphere, times the mean length, by the vectors' dot products.

    They are NaN where a vector holds NaN or infinity, so that the mean shows it.

    Args:
        gram: The dot products of k vectors, [k, k].
        weights: Their weights, from 0.
        what: Names the vectors in errors.

    Raises:
        RecipeError: The vectors' mean has no direction: two are opposite.
    """
    import torch

    total = math.fsum(weights)
    w = torch.tensor([weight / total for weight in weights], dtype=torch.float64)
    dots = torch.tensor(gram, dtype=torch.float64)
    if not bool(dots.isfinite().all()):
        return [math.nan] * len(w)
    lengths = dots.diagonal().clamp_min(0).sqrt()
    length = float((w * lengths).sum())
    lives = (lengths > 0) & (w > 0)
    if not bool(lives.any()):
        return (w * 0).tolist()
    units = torch.where(lives, 1 / lengths, torch.zeros_like(lengths))
    points, wide = _coordinates(dots * units[:, None] * units[None, :])  # of the unit vectors
    w = torch.where(lives, w, torch.zeros_like(w))
    w = w / w.sum()
    u = _normed(w @ points, what)
    for _ in range(ROUNDS):
        angles = torch.where(lives, _angles(u, points), torch.zeros_like(w))
        factors = torch.where(angles > 1e-9, w * angles / torch.sin(angles), w)
        step = factors @ points - (factors * torch.cos(angles)).sum() * u
        size = float(step.square().sum().sqrt())
        if size < SMALL:
            return [float(value) for value in _combination(u, w, points, wide) * units * length]
        u = _normed(math.cos(size) * u + (math.sin(size) / size) * step, what)
    raise RecipeError(
        f"karcher: {what}: the ingredients point so far apart that their mean on the sphere was not found in {ROUNDS} "
        "rounds. The method linear has a mean of them."
    )


def _coordinates(cosines: torch.Tensor) -> tuple[torch.Tensor, list[int]]:
    """Return vectors whose dot products these are, [k, k], and which of them add a direction each, the widest first.

    Steps on the vectors' coefficients instead would let rounding grow without bound where vectors depend on each other.
    """
    import torch

    points, left, wide = torch.zeros_like(cosines), cosines.diagonal().clone(), list[int]()
    for column in range(len(points)):
        index = int(left.argmax())
        if float(left[index]) <= DEPENDENT:
            break
        points[:, column] = (cosines[index] - points @ points[index]) / left[index].sqrt()
        points[wide, column] = 0.0
        left -= points[:, column].square()
        wide.append(index)
        left[wide] = 0.0
    return points, wide


def _combination(u: torch.Tensor, w: torch.Tensor, points: torch.Tensor, wide: Sequence[int]) -> torch.Tensor:
    """Return the coefficients of u: those of the plain mean, and what is left by the vectors that add a direction."""
    coefficients = w / (w @ points).square().sum().sqrt()
    rest = u - coefficients @ points
    for column in reversed(range(len(wide))):
        share = rest[column] / points[wide[column], column]
        coefficients[wide[column]] += share
        rest -= share * points[wide[column]]
    return coefficients


def _angles(u: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Return the angles of unit vectors to u, by 2 asin(|u_i - u| / 2), which is exact for small ones."""
    import torch

    return 2 * torch.asin(((points - u).square().sum(dim=1).sqrt() / 2).clamp_max(1))


def _normed(u: torch.Tensor, what: str) -> torch.Tensor:
    size = float(u.square().sum().sqrt())
    if size < 1e-6:
        raise RecipeError(f"karcher: {what}: the ingredients point in opposite directions, and no mean lies between.")
    return u / size
