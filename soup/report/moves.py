"""Where a model moved from its base: how far, by component and by depth."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from soup.checkpoints.problem import Problem
from soup.errors import PoolError
from soup.evaluation.progress import Progress
from soup.hf.places import COMPONENTS, Place, places_of
from soup.merging.options import MergeOptions
from soup.merging.pool import Pool
from soup.report.delta_pass import Deltas, read_deltas
from soup.report.pool_distances import share_of
from soup.support.pictures import SOFT, Picture, Target, draw, draw_figure
from soup.support.text import bullet_list, pluralize, printable

__all__ = ["Move", "Moves", "measure_moves"]


@dataclass(frozen=True)
class Move:
    """How far a part of a model is from its base.

    Args:
        component: `all`, or the component.
        block: The index of a block of it; None: all of it, or what is outside of blocks.
        blocks: How many blocks its stack has; 0: the row is of the whole component.
        norm: The length of the delta as a share of the base's, here; None where the base is 0 and it is not.
        tensors: How many floating tensors it has.
        tensors_moved: In how many of them an element differs.
        moved: The share of elements that differ.
    """

    component: str
    block: int | None
    blocks: int
    norm: float | None
    tensors: int
    tensors_moved: int
    moved: float


@dataclass(frozen=True)
class Moves:
    """Where a model moved.

    Args:
        checkpoint: Its name.
        base: Where the base lies.
        components: A row for all of it, then one for each component.
        blocks: A row for each block, by component and depth.
    """

    checkpoint: str
    base: str
    components: tuple[Move, ...]
    blocks: tuple[Move, ...]

    def as_json(self) -> dict[str, object]:
        """Return it as JSON values."""
        return asdict(self)

    def plot(self, path: str | Path | None = None) -> Picture | None:
        """Draw how far each block is from the base's, by component and depth.

        Args:
            path: A png, svg or pdf file; an earlier one is replaced. Without one, a picture for a notebook is returned.

        Raises:
            OutputError: another suffix, or no matplotlib.
        """
        return draw(self._draw, path)

    def _draw(self, target: Target) -> None:
        stacks = dict.fromkeys((row.component, row.blocks) for row in self.blocks)
        with draw_figure(target, 10, 4) as figure:
            whole, depth = figure.subplots(1, 2, sharey=True, width_ratios=[1, 2])
            colours = {
                row.component: f"C{number - 1}" if number else SOFT for number, row in enumerate(self.components)
            }
            whole.bar([*colours], [row.norm or 0.0 for row in self.components], color=[*colours.values()], width=0.7)
            whole.tick_params("x", rotation=45)
            whole.grid(visible=False, axis="x")
            whole.set_ylabel("|delta| / |base|")
            whole.set_title(f"where {printable(self.checkpoint)} moved")
            for component, blocks in stacks:
                rows = [row for row in self.blocks if (row.component, row.blocks) == (component, blocks)]
                label = f"{component}, {pluralize(blocks, 'block')}"
                depth.plot(
                    [row.block for row in rows],
                    [math.nan if row.norm is None else row.norm for row in rows],
                    color=colours.get(component),
                    marker="o",
                    markersize=3,
                    clip_on=False,  # a dot at 0 is whole
                    label=label,
                )
            depth.xaxis.get_major_locator().set_params(integer=True)
            depth.set_xlabel("block, from 0")
            if stacks:
                depth.set_xlim(-0.5, max(blocks for _, blocks in stacks) - 0.5)
                depth.legend()


def measure_moves(checkpoint: str | Path, base: str | Path, *, progress: Progress | None = None) -> Moves:
    """Measure where a checkpoint moved from its base; both are read once, block by block.

    Args:
        checkpoint: A directory or a Hub id; of an adapter, its sum with the base is measured.
        base: The same of the model that it was tuned from.
        progress: Who hears warnings and bytes.

    Raises:
        SoupError: one can't be opened, or their tensors do not match; all mismatches are listed.
    """
    progress = progress or Progress()
    with Pool([checkpoint], base) as pool:
        for problem in _refuse_other_tensors(pool):
            progress.on_warning(str(problem))
        assert pool.base is not None
        deltas = read_deltas(pool, MergeOptions(), progress)
        for name in sorted(deltas.scan.rejections):
            progress.on_warning(str(deltas.scan.rejections[name]))
        return _moves(pool.names[0], pool.base.location, deltas)


def _refuse_other_tensors(pool: Pool) -> list[Problem]:
    """Refuse a base of other tensors; returns what would only stop a soup: another config or tokenizer."""
    problems = [replace(problem, cure="") for problem in pool.problems()]
    harmless = [problem for problem in problems if problem.kind in ("config", "tokenizer")]
    if wrong := [str(problem) for problem in problems if problem not in harmless]:
        raise PoolError(f"{pool.names[0]} can't be held against its base:\n{bullet_list(wrong, most=100)}")
    return harmless


def _moves(name: str, base: str, deltas: Deltas) -> Moves:
    sums = _sums(deltas)
    places = places_of(sums)
    groups: dict[Place, list[_Sum]] = {}
    for tensor, place in places.items():
        groups.setdefault(place, []).append(sums[tensor])
    kinds = [kind for kind in COMPONENTS if any(place.component == kind for place in groups)]
    components = [_move("all", None, 0, sums.values())]
    components += [
        _move(k, None, 0, (s for place in groups if place.component == k for s in groups[place])) for k in kinds
    ]
    order = sorted(groups, key=lambda place: (kinds.index(place.component), place.blocks, place.block))
    blocks = [_move(p.component, p.block, p.blocks, groups[p]) for p in order if p.blocks]
    return Moves(name, base, tuple(components), tuple(blocks))


@dataclass
class _Sum:
    """Of one tensor: the squared norms of base and delta, and how many elements there are and moved."""

    base: float = 0.0
    delta: float = 0.0
    elements: int = 0
    moved: int = 0


def _sums(deltas: Deltas) -> Mapping[str, _Sum]:
    sums = {spec.name: _Sum(elements=spec.elements) for spec in deltas.specs}
    for name, tensor in deltas.sums.items():
        sums[name] = _Sum(tensor.center, tensor.products[0], sums[name].elements, tensor.moved[0])
    return sums


def _move(component: str, block: int | None, blocks: int, sums: Iterable[_Sum]) -> Move:
    rows = list(sums)
    base, delta = (math.fsum(row.base for row in rows), math.fsum(row.delta for row in rows))
    elements = sum(row.elements for row in rows)
    return Move(
        component,
        block,
        blocks,
        share_of(delta, base),
        len(rows),
        sum(row.moved > 0 for row in rows),
        sum(row.moved for row in rows) / max(elements, 1),
    )
