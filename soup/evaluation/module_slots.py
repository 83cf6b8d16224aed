"""Where a candidate's tensors go in a loaded module: all is found and checked before anything is touched."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from soup.checkpoints.dtypes import TensorSpec
from soup.errors import CheckpointError
from soup.hf.key_mapping import Conversion, LoadingPlan
from soup.support.text import bullet_list

if TYPE_CHECKING:
    import torch

__all__ = ["find_slots", "unfilled_parameters"]


def find_slots(
    module: torch.nn.Module,
    specs: Mapping[str, TensorSpec],
    names: Mapping[str, str],
    conversions: Iterable[Conversion],
    have_same_bytes: Callable[[str, str], bool],
) -> dict[str, torch.Tensor]:
    """Return the memory of a module's parameters and persistent buffers by name, if a candidate fills all of it.

    Tied weights are one memory under several names. It is enough that one of the names is filled; if several are, they
    must hold the same bytes, or the last one written would win.

    Args:
        module: The module.
        specs: The candidate's tensors by name.
        names: The name in memory by the name on disk, for what is only renamed.
        conversions: What the others become; each is tried without memory.
        have_same_bytes: Tells whether two of the candidate's tensors, by name, are known to hold the same bytes.

    Raises:
        CheckpointError: Names, shapes or dtypes do not match, or a conversion fails; all are listed.
    """
    slots = {**dict(module.named_parameters(remove_duplicate=False)), **_persistent_buffers(module)}
    wrong: list[str] = []
    filled: dict[int, str] = {}
    plain = ((name, names[name], spec.shape, spec.dtype.torch) for name, spec in specs.items() if name in names)
    for name, target, shape, dtype in (*plain, *_converted(conversions, specs, wrong)):
        slot = slots.get(target)
        why = _mismatch(slot, shape, dtype)
        if why is None and slot is not None and slot.numel():
            first = filled.setdefault(slot.data_ptr(), name)
            if first != name and not have_same_bytes(first, name):
                why = f"the module has one memory for it and for {first}, and they may differ"
        if why is not None:
            wrong.append(f"{name}: {why}")
    wrong += [
        f"{name}: in the module, not in the candidate"
        for name, slot in slots.items()
        if slot.numel() and slot.data_ptr() not in filled
    ]
    if wrong:
        raise CheckpointError(
            f"{type(module).__name__} and the candidate do not match name by name (a candidate's directory "
            f"can be loaded instead):\n{bullet_list(sorted(wrong))}"
        )
    return {name: slot.detach() for name, slot in slots.items()}


def unfilled_parameters(module: torch.nn.Module, specs: Mapping[str, TensorSpec], plan: LoadingPlan) -> list[str]:
    """Return the names in memory of a module's parameters that a checkpoint leaves as they are.

    Args:
        module: The module; it may be one without memory.
        specs: The checkpoint's tensors by name.
        plan: How they are loaded.

    Returns:
        Nothing where a conversion can't be tried: what it would give is not known.
    """
    wrong: list[str] = []
    parameters = dict(module.named_parameters(remove_duplicate=False))
    targets = {
        *(plan.names or {}).values(),
        *(
            target
            for _, target, shape, _ in _converted(plan.conversions, specs, wrong)
            if target in parameters and parameters[target].shape == shape  # else some of its sources lack
        ),
    }
    filled = {id(value) for name, value in parameters.items() if name in targets}  # of tied ones: under either name
    left = [name for name, value in parameters.items() if value.numel() and id(value) not in filled]
    return [] if wrong else left


def _converted(
    conversions: Iterable[Conversion], specs: Mapping[str, TensorSpec], wrong: list[str]
) -> Iterator[tuple[str, str, tuple[int, ...], torch.dtype]]:
    """Yield what to call each tensor that a conversion gives, its name in memory, shape and dtype; or say what fails.

    What it is called is the name of no tensor on disk, with whose bytes it might be compared.
    """
    import torch

    for conversion in conversions:
        sources = f"{conversion.sources[0]} and what is converted with it"
        if missing := [name for name in conversion.sources if name not in specs]:
            wrong.append(f"{sources}: the candidate lacks {', '.join(missing)}")
            continue
        inputs = [specs[name] for name in conversion.sources]
        try:
            results = conversion.convert(
                {spec.name: torch.empty(spec.shape, dtype=spec.dtype.torch, device="meta") for spec in inputs}
            )
        except Exception as cause:  # whatever transformers' code, or that of a plug-in, may raise
            wrong.append(f"{sources}: {type(cause).__name__}: {cause}")
            continue
        for target, values in results.items():
            yield f"{target} (converted)", target, tuple(values.shape), values.dtype


def _mismatch(slot: torch.Tensor | None, shape: tuple[int, ...], dtype: torch.dtype) -> str | None:
    """Say why a tensor can't be copied bit for bit into that memory of the module; None where it can."""
    if slot is None:
        return "in the candidate, not in the module"
    if tuple(slot.shape) != shape:
        return f"expected shape {list(slot.shape)}, found {list(shape)}"
    if slot.dtype != dtype:
        expected, found = (str(each).removeprefix("torch.") for each in (slot.dtype, dtype))
        return f"expected dtype {expected}, found {found}"
    if slot.is_meta or not slot.is_contiguous():
        return "the module has no plain memory for it"
    return None


def _persistent_buffers(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    kept = module.state_dict(keep_vars=True)
    return {name: buffer for name, buffer in module.named_buffers() if name in kept}
