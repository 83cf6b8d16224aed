"""The soup of adapters as one adapter: their factors side by side, or the nearest product of a smaller rank.

    sum_i w_i s_i B_i A_i  =  s [c_1 B_1, c_2 B_2, ...] [A_1; A_2; ...],   c_i = w_i s_i / s

Where all w_i s_i are the same number, as in the mean of adapters that were trained alike, every c is 1: the factors
keep their bits, and the number goes into the config. A smaller rank is the best there is for each module (Eckart,
Young), by the singular values of the small matrix between two QR decompositions.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from soup.checkpoints.adapted import AdaptedCheckpoint, is_adapted, output_layer
from soup.checkpoints.adapter import ADAPTER_WEIGHTS, PREFIX
from soup.checkpoints.adapter_deltas import Delta, Factor
from soup.checkpoints.adapter_targets import WRAPPERS, saved_module
from soup.checkpoints.digest import ContentDigest
from soup.checkpoints.dtypes import DTYPES, Dtype, TensorSpec
from soup.checkpoints.file_plan import FilePlan
from soup.checkpoints.hub import HubId
from soup.checkpoints.reader import Checkpoint
from soup.checkpoints.tied import EMBEDDINGS, OUTPUT, embeddings_of, is_tied
from soup.checkpoints.writer import view_bytes
from soup.errors import PoolError, RecipeError
from soup.hf.key_mapping import output_beside
from soup.merging.block_arithmetic import Blend
from soup.merging.low_rank import load_factor
from soup.merging.methods.linear import Linear
from soup.support.options import option_name
from soup.support.text import bullet_list

if TYPE_CHECKING:
    import torch

__all__ = ["AdapterPlan", "plan_adapter"]

Write = Callable[[str, int, memoryview], None]

NO_TARGET = "dummy-target-modules"
"""PEFT's own word for an adapter without products; it refuses an empty list."""


class _Module(NamedTuple):
    """What becomes of one module: the deltas with the numbers that they are multiplied by, and the new rank."""

    deltas: tuple[Delta, ...]
    numbers: tuple[float, ...]
    rank: int

    @property
    def factors(self) -> tuple[Factor, Factor]:
        """A and B of the first delta, whose names and shapes the new ones have."""
        left, right = self.deltas[0].left, self.deltas[0].right
        assert right is not None, "a bias was refused"
        return (left, right) if left.transposed else (right, left)

    @property
    def name(self) -> str:
        """Its name without PEFT's prefix."""
        return self.factors[0].name.removeprefix(PREFIX).rpartition(".lora_")[0]

    @property
    def is_alike(self) -> bool:
        """Whether one number multiplies all."""
        return len(set(self.numbers)) == 1


@dataclass(frozen=True)
class AdapterPlan:
    """One adapter about to be written.

    Args:
        blend: What is merged.
        modules: Its products.
        whole: The keys of what it stores whole, and the names of these tensors in the base.
        rank: The largest rank of a product; None: what holds the soup exactly.
        dtype: The dtype of its factors.
    """

    blend: Blend
    modules: tuple[_Module, ...]
    whole: Mapping[str, str]
    rank: int | None
    dtype: Dtype

    def refuse_other_copies(self, digests: Mapping[Checkpoint, ContentDigest]) -> None:
        """Refuse adapters whose copy of a tensor of the base, which PEFT saves beside its factors, is not the base's.

        Args:
            digests: Of adapters and base.

        Raises:
            PoolError: Such copies; all are listed.
        """
        others = [
            f"{label}: {change.stored_as}"
            for label, part in zip(self.blend.names, self.blend.inputs, strict=True)
            if is_adapted(part)
            for name, change in part.changes.items()
            if change.is_copy and name not in self.whole.values() and not _is_same(part, name, digests)
        ]
        if others:
            raise PoolError(
                f"{option_name('as_adapter')}: copies of the base's tensors that are not the base's, which an adapter "
                f"can't hold:\n{bullet_list(others)}\nWithout the option the soup is a whole model, which can."
            )

    @property
    def files(self) -> tuple[FilePlan, ...]:
        """The one file that is written."""
        specs = [spec for module in self.modules for spec in self._specs(module)]
        tensors = self.blend.inputs[0].tensors
        whole = [TensorSpec(key, tensors[name].dtype, tensors[name].shape) for key, name in self.whole.items()]
        ordered = sorted([*specs, *whole], key=lambda spec: (-spec.dtype.rank, spec.name.encode()))
        return (FilePlan(ADAPTER_WEIGHTS, tuple(ordered)),)

    def write_factors(self, write: Write) -> float:
        """Write all products; returns how far they are from the soup's: the norm of the difference, as a share.

        Raises:
            PoolError: A factor holds NaN or infinity, which is not allowed.
        """
        lost = kept = 0.0
        for module in self.modules:
            left, right, squares = _small(module) if self.rank else (*_side_by_side(module), None)
            if squares is not None:
                kept += squares[: module.rank].sum().item()
                lost += squares[module.rank :].sum().item()
            a, b = (left.T, right.T) if module.deltas[0].left.transposed else (right, left)
            if not (a.isfinite().all() and b.isfinite().all()) and not self.blend.allow_nonfinite:
                raise PoolError(
                    f"{module.name}: NaN or infinity in a factor. {option_name('allow_nonfinite')} writes it all the "
                    "same."
                )
            for spec, values in zip(self._specs(module), (a, b), strict=True):
                write(spec.name, 0, view_bytes(values.to(spec.dtype.torch).contiguous()))
        return math.sqrt(lost / (lost + kept)) if lost else 0.0

    def config(self, base: str) -> bytes:
        """Return `adapter_config.json`: the first adapter's, with the new ranks, scales and targets."""
        adapters = [part.adapter for part in self.blend.inputs if is_adapted(part)]
        ranks = {module.name: module.rank for module in self.modules}
        alphas = {module.name: self._alpha(module) for module in self.modules}
        rank, alpha = (Counter(values.values()).most_common(1)[0][0] if values else 8 for values in (ranks, alphas))
        saved = [name for adapter in adapters for name in _list(adapter.settings.get("modules_to_save"))]
        ends = [name for name in self.whole.values() if _is_end(name)]
        saved += [name.split(".")[-2] for name in ends if output_layer(self.blend.inputs[0])]
        biases = [adapter.settings.get("bias", "none") for adapter in adapters]
        keeps_tied = any(map(_keeps_tied, self.blend.inputs)) and not any(map(output_layer, self.blend.inputs))
        hub_id = HubId.parse(base)
        is_repository = hub_id is not None and hub_id.folder is None  # PEFT knows no folders of a base
        changes = {
            "base_model_name_or_path": hub_id.name if hub_id and is_repository else base,
            "revision": hub_id.revision if hub_id and is_repository else None,
            "inference_mode": True,
            "init_lora_weights": True,
            "r": rank,
            "lora_alpha": alpha,
            "rank_pattern": {f"^{name}": value for name, value in ranks.items() if value != rank},
            "alpha_pattern": {f"^{name}": value for name, value in alphas.items() if value != alpha},
            "use_rslora": False,
            "target_modules": sorted(ranks) or NO_TARGET,
            "exclude_modules": None,
            "layers_to_transform": None,
            "layers_pattern": None,
            "modules_to_save": _saved_apart([key.removeprefix(PREFIX) for key in self.whole], saved) or None,
            # Where embeddings and output layer are products, each that changes has its own: PEFT would add them twice.
            "ensure_weight_tying": keeps_tied and bool(ends),
            "bias": next((bias for bias in ("all", "lora_only") if bias in biases), "none"),
        }
        kept = {key: value for key, value in adapters[0].settings.items() if key != "velora_config"}  # of training
        return (json.dumps({**kept, **changes}, indent=2) + "\n").encode()

    def _alpha(self, module: _Module) -> float:
        """Return the alpha that gives a module its scale: the number itself where it is one."""
        scale = 1.0 if self.rank else max(map(abs, module.numbers))
        alpha = module.rank * (math.copysign(scale, module.numbers[0]) if module.is_alike and not self.rank else scale)
        return int(alpha) if alpha == int(alpha) else alpha

    def _specs(self, module: _Module) -> tuple[TensorSpec, TensorSpec]:
        """Return the specs of A and B."""
        a, b = (factor.adapter.tensors[factor.name].shape for factor in module.factors)
        names = [factor.name for factor in module.factors]
        shapes = [(module.rank, *a[1:]), (b[0], module.rank, *b[2:])]
        return TensorSpec(names[0], self.dtype, shapes[0]), TensorSpec(names[1], self.dtype, shapes[1])


def plan_adapter(blend: Blend, rank: int | None, drop: Sequence[str] = ()) -> AdapterPlan:
    """Plan the adapter that holds a soup.

    Args:
        blend: The soup.
        rank: The largest rank of a product; None: what holds the soup exactly.
        drop: Patterns of tensors to leave out, which an adapter can't.

    Raises:
        RecipeError: The soup is none of adapters alone, or no sum of products.
    """
    adapted = [checkpoint for checkpoint in blend.inputs if is_adapted(checkpoint)]
    wrong = [f"{option_name('drop')} leaves tensors out, which an adapter can't"] if drop else []
    if wrong := [*wrong, *_obstacles(blend)]:
        raise RecipeError(
            f"{option_name('as_adapter')}: this soup is no adapter:\n{bullet_list(wrong)}\nWithout "
            f"{option_name('as_adapter')} it is written as a whole model."
        )
    total = math.fsum(blend.weights)
    shares = [weight / total for weight in blend.weights]
    groups: dict[tuple[str, bool], list[tuple[Delta, float]]] = {}
    whole = _whole_ends(adapted)
    for checkpoint, share in zip(adapted, shares, strict=True):
        for name, change in checkpoint.changes.items():
            for delta in change.deltas:
                groups.setdefault((name, delta.left.transposed), []).append((delta, share * delta.scale))
            if change.stored_as is not None and not change.is_copy and name not in whole.values():
                whole.setdefault(change.stored_as, name)
    whole |= _tied_copies(adapted, whole)
    names = {*whole.values()}  # which have it all
    groups = {(name, side): parts for (name, side), parts in groups.items() if name not in names}
    modules = tuple({module.name: module for module in (_module(parts, rank) for parts in groups.values())}.values())
    whole = {_key(key, {module.name for module in modules}): name for key, name in whole.items()}
    return AdapterPlan(blend, modules, whole, rank, _dtype(modules, rank))


def _key(key: str, targets: Collection[str]) -> str:
    """Return the key of a tensor that is stored whole as PEFT looks for it: that of a target lies in its wrapper.

    Args:
        key: As it stands in an adapter, whose targets may be others: a bias of a layer that another one targets, say.
        targets: The modules that get products.
    """
    module, _, leaf = WRAPPERS.sub("", key).removeprefix(PREFIX).rpartition(".")
    return f"{PREFIX}{module}.{'base_layer.' * (module in targets)}{leaf}"


def _whole_ends(adapted: Sequence[AdaptedCheckpoint]) -> dict[str, str]:
    """Store embeddings and output layer as they are where a soup unties them, for a key of the one changes both.

    Returns:
        The names in the base, by the keys, of those that an adapter changes.
    """
    output = output_layer(adapted[0])
    if output is None:
        return {}
    embeddings = embeddings_of(adapted[0].tensors)
    keys = [key.removeprefix(PREFIX) for checkpoint in adapted for key in checkpoint.adapter.tensors]
    outputs = [plain for key in keys if (plain := WRAPPERS.sub("", key)).endswith(OUTPUT)]
    inputs = [
        f"{before}{EMBEDDINGS}" for key in keys for before, key_word, _ in [key.partition("embed_tokens.")] if key_word
    ]
    names = {output: outputs[0] if outputs else output_beside(inputs[0])}
    names |= {embeddings: inputs[0]} if embeddings and inputs else {}
    return {f"{PREFIX}{key}": name for name, key in names.items() if any(name in part.changes for part in adapted)}


def _tied_copies(adapted: Sequence[AdaptedCheckpoint], whole: Mapping[str, str]) -> dict[str, str]:
    """Store saved embeddings as the output layer, too, where PEFT keeps them tied: it looks for both.

    Returns:
        The name of the embeddings in the base, by the keys of the output layer.
    """
    ends = [name for name in whole.values() if name.endswith(EMBEDDINGS)]
    if not ends or output_layer(adapted[0]) or not is_tied(adapted[0].base):
        return {}
    keys = [key for part in adapted if _keeps_tied(part) for key in part.adapter.tensors if key.endswith(OUTPUT)]
    return {key: ends[0] for key in keys if key not in whole}


def _keeps_tied(part: Checkpoint) -> bool:
    """Whether PEFT changes embeddings and output layer of an adapter alike."""
    return is_adapted(part) and part.adapter.is_set("ensure_weight_tying")


def _obstacles(blend: Blend) -> Iterator[str]:
    """Yield why a soup is not the base with a sum of products."""
    if type(blend.method) is not Linear:
        yield f"the method {type(blend.method).__name__} is not linear"
    if blend.dtype is not None:
        yield f"{option_name('dtype')} is of no use to an adapter, which is added to a base of any dtype"
    for name, checkpoint in zip(blend.names, blend.inputs, strict=True):
        if not is_adapted(checkpoint):
            yield f"{name}: a whole model"
            continue
        deltas = [delta for change in checkpoint.changes.values() for delta in change.deltas]
        if any(delta.magnitude for delta in deltas):
            yield f"{name}: DoRA, whose lengths make it more than a product"
        if checkpoint.adapter.settings.get("target_parameters"):
            yield f"{name}: target_parameters, whose factors belong to parameters and not to modules"
        if any(delta.tokens for delta in deltas):
            yield f"{name}: rows of tokens, which take the place of the base's"
        elif any(delta.right is None for delta in deltas):
            yield f"{name}: lora_bias, biases of its factors"


def _module(parts: list[tuple[Delta, float]], rank: int | None) -> _Module:
    deltas, numbers = zip(*parts, strict=True)
    full = sum(delta.rank for delta in deltas)
    right = deltas[0].right
    least = min(full, deltas[0].left.shape[0], right.shape[1] if right else 1)
    return _Module(deltas, numbers, min(rank, least) if rank else full)


def _dtype(modules: tuple[_Module, ...], rank: int | None) -> Dtype:
    """Choose the factors' own dtype where they all have one and are not changed; else float32."""
    stored = {
        factor.adapter.tensors[factor.name].dtype
        for module in modules
        for delta in module.deltas
        for factor in (delta.left, delta.right)
        if factor
    }
    exact = rank is None and all(module.is_alike for module in modules)
    return stored.pop() if exact and len(stored) == 1 else DTYPES["F32"]


def _side_by_side(module: _Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the left factors side by side, each times its c, and the right ones below each other."""
    import torch

    scale = module.numbers[0] if module.is_alike else max(map(abs, module.numbers))
    factors = [(load_factor(delta.left), load_factor(delta.right)) for delta in module.deltas]
    # What is multiplied is the part that PEFT calls B: A, of an embedding say, keeps its bits.
    on_right = module.deltas[0].left.transposed
    numbers = [1.0 if module.is_alike else number / scale for number in module.numbers]
    lefts = [left if on_right or c == 1 else left.double() * c for (left, _), c in zip(factors, numbers, strict=True)]
    rights = [
        right if not on_right or c == 1 else right.double() * c for (_, right), c in zip(factors, numbers, strict=True)
    ]
    return torch.cat(lefts, 1), torch.cat(rights)


def _small(module: _Module) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the best factors of the module's rank, and the squares of all singular values.

    NaN and infinity have neither: such factors become NaN as a whole.
    """
    import torch

    pairs = list(zip(module.deltas, module.numbers, strict=True))
    left = torch.cat([load_factor(delta.left).double() * number for delta, number in pairs], 1)
    right = torch.cat([load_factor(delta.right).double() for delta in module.deltas])
    outer, inner = torch.linalg.qr(left), torch.linalg.qr(right.T)
    core = outer.R @ inner.R.T
    if not core.isfinite().all():
        return left[:, : module.rank] * math.nan, right[: module.rank] * math.nan, left.new_zeros(0)
    u, values, v = torch.linalg.svd(core, full_matrices=False)
    root = values[: module.rank].sqrt()
    return outer.Q @ u[:, : module.rank] * root, (v[: module.rank] * root[:, None]) @ inner.Q.T, values.square()


def _saved_apart(keys: Iterable[str], saved: Collection[str]) -> list[str]:
    """List what PEFT has to save as a whole: it can't load a wrapper within a wrapper.

    A module that lies in another is saved with it; where its name is also that of others, these have their full names.

    Args:
        keys: Of the tensors that are stored whole, without PEFT's prefix.
        saved: How names of modules end that one adapter or another saves.
    """
    tensors = [WRAPPERS.sub("", key) for key in keys]
    around = {module for tensor in tensors if (module := saved_module(tensor, saved))}
    words = [tensor.split(".") for tensor in tensors]
    within = {".".join(parts[:count]) for parts in words for count in range(1, len(parts))} - around
    ends = {name for name in saved if not any(module.endswith(name) for module in within)}
    ends = {name for name in ends if any(module.endswith(name) for module in around)}
    return sorted(ends | {module for module in around if not module.endswith(tuple(ends))})


def _is_same(part: AdaptedCheckpoint, name: str, digests: Mapping[Checkpoint, ContentDigest]) -> bool:
    """Whether an adapter's copy of a tensor has the base's bytes."""
    (source, key), (base, on_disk) = part.source_of(name), part.base.source_of(name)
    return digests[source].tensors[key] == digests[base].tensors[on_disk]


def _is_end(name: str) -> bool:
    return name.endswith((EMBEDDINGS, OUTPUT))


def _list(value: object) -> list[str]:
    return [value] if isinstance(value, str) else list(value) if isinstance(value, list | tuple) else []
