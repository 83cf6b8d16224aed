"""Tensors on disk and tensors in memory: transformers renames and converts when it loads a checkpoint.

LLaVA's files say `language_model.model.norm.weight`, its module `model.language_model.norm.weight`; a mixture of
experts has one file tensor per expert, and one tensor in memory for all. The rules are transformers' own, asked of the
loaded module: the renamings and conversions that `from_pretrained` collects for it, applied by the functions that
`from_pretrained` applies them with. Nothing here knows an architecture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch

__all__ = [
    "Conversion",
    "LoadingPlan",
    "bare_module",
    "layers_of_inputs_first",
    "names_on_disk",
    "names_on_hub",
    "output_name",
    "plan_loading",
    "stacked_sources",
    "tied_in_memory",
]


@dataclass(frozen=True)
class Conversion:
    """Tensors on disk that become other tensors in memory, together: one layer's experts, say.

    Args:
        sources: Their names on disk.
        convert: Takes the sources by name, and gives tensors by their names in memory. It may take entries out of the
            mapping, so that memory is free the sooner. Shapes and dtypes of what it gives follow from those of what it
            takes: it is tried on tensors without memory first (on the meta device), where it may raise anything.
    """

    sources: tuple[str, ...]
    convert: Callable[[dict[str, torch.Tensor]], Mapping[str, torch.Tensor]]


class LoadingPlan(NamedTuple):
    """How a checkpoint's tensors become a module's; what neither part names, the module has no use for.

    Args:
        names: The name in memory by the name on disk, for what is only renamed. None: names are taken as they are.
        conversions: The rest.
    """

    names: Mapping[str, str] | None
    conversions: tuple[Conversion, ...] = ()


def plan_loading(module: Any, on_disk: Iterable[str]) -> LoadingPlan:
    """Return how `from_pretrained` would load tensors of these names into a module of this kind.

    Args:
        module: A module that is loaded already.
        on_disk: The names in a checkpoint's files.

    Returns:
        The plan; without names for a module that is not transformers' (its names are taken as they are), or a version
        of transformers that keeps its rules elsewhere.

    Raises:
        LookupError: transformers puts two tensors of this checkpoint into one, or quantises them.
    """
    try:
        from transformers import PreTrainedModel
        from transformers import core_model_loading as loading
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import dot_natural_key, rename_source_key
    except ImportError:
        return LoadingPlan(None)
    if not isinstance(module, PreTrainedModel):
        return LoadingPlan(None)
    if getattr(module, "hf_quantizer", None) is not None:
        raise LookupError("transformers quantises it on loading")
    rules = get_model_conversion_mapping(module)
    renamings = [rule for rule in rules if isinstance(rule, loading.WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, loading.WeightConverter)]
    in_memory = module.state_dict()
    names: dict[str, str] = {}
    converted: dict[str, dict[str, str]] = {}  # by the first name in memory: the pattern by the name on disk
    for name in sorted(on_disk, key=dot_natural_key):  # the order in which experts are stacked
        target, pattern = rename_source_key(name, renamings, converters, module.base_model_prefix, in_memory)
        if target not in in_memory and name in in_memory:
            target, pattern = rename_source_key(name, [], [], module.base_model_prefix, in_memory)
        if target in in_memory and pattern is not None:
            converted.setdefault(target, {})[name] = pattern
        elif target in in_memory:
            names[name] = target
    _refuse_two_into_one([*names.items(), *((next(iter(patterns)), target) for target, patterns in converted.items())])
    by_pattern = {pattern: converter for converter in converters for pattern in converter.source_patterns}
    conversions = [
        Conversion(tuple(patterns), partial(_convert, module, by_pattern, patterns, target, in_memory[target].dtype))
        for target, patterns in converted.items()
    ]
    return LoadingPlan(names, tuple(conversions))


def bare_module(path: Path) -> Any | None:
    """Make the module of a checkpoint's class and config alone, without memory (on the meta device).

    Args:
        path: A checkpoint's directory.

    Returns:
        None for a class that transformers does not have, or can't make of this config.
    """
    try:
        import torch
        import transformers

        config = transformers.AutoConfig.from_pretrained(path, trust_remote_code=False)
        with torch.device("meta"):
            return getattr(transformers, (config.architectures or [""])[0])._from_config(config)
    except Exception:  # whatever a config of anybody's makes a class raise
        return None


def layers_of_inputs_first(path: Path) -> tuple[str, ...] | None:
    """List the linear layers whose weights are [in, out], by their names in memory: they are transformers' `Conv1D`.

    Args:
        path: A checkpoint's directory.

    Returns:
        None where there is no bare module.
    """
    module = bare_module(path)
    if module is None:
        return None
    return tuple(name for name, layer in module.named_modules() if type(layer).__name__ == "Conv1D")


def tied_in_memory(path: Path) -> dict[str, list[str]]:
    """Return, for each tensor that transformers ties to others in memory, the names of these.

    Args:
        path: A checkpoint's directory.

    Returns:
        Nothing where there is no bare module.
    """
    groups: dict[str, list[str]] = {}
    for name, source in (getattr(bare_module(path), "all_tied_weights_keys", None) or {}).items():
        groups.setdefault(source, [source]).append(name)
    return {name: [other for other in group if other != name] for group in groups.values() for name in group}


def names_on_disk(path: Path, on_disk: Iterable[str]) -> dict[str, str]:
    """Return the name on disk by the name in memory of what transformers only renames on loading.

    Args:
        path: A checkpoint's directory.
        on_disk: The names in its files.

    Returns:
        Nothing where there is no bare module.
    """
    return {in_memory: name for name, in_memory in _loaded_names(bare_module(path), on_disk).items()}


def names_on_hub(path: Path, on_disk: Iterable[str]) -> dict[str, str]:
    """Return what tensors are called in the layout that transformers converts from, where files call them otherwise.

    A model that was made by transformers 5 is saved under names that it has only there; other programs know those of
    the Hub. They are what transformers' own rules give in reverse, if the rules make the same tensors of them again.

    Args:
        path: A checkpoint's directory.
        on_disk: The names in its files.

    Returns:
        The name by the name in the files; nothing where there is no bare module.
    """
    module = bare_module(path)
    in_memory = _loaded_names(module, on_disk)
    if not in_memory:
        return {}
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    rules = [rule.reverse_transform() for rule in reversed(get_model_conversion_mapping(module, add_legacy=False))]
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    names = {
        name: rename_source_key(target, renamings, converters, reverse=True)[0] for name, target in in_memory.items()
    }
    back = _loaded_names(module, names.values())
    if any(back.get(names[name]) != target for name, target in in_memory.items()):
        return {}
    return {name: on_hub for name, on_hub in names.items() if name != on_hub}


def stacked_sources(module: Any, on_disk: Iterable[str]) -> dict[str, tuple[tuple[str, ...], ...]]:
    """Find of which tensors on disk transformers makes each parameter, where it does nothing but stack matrices.

    Args:
        module: A module that is loaded already, or a bare one.
        on_disk: The names in a checkpoint's files.

    Returns:
        By the parameter's name in memory, for each matrix of the stack (a layer's experts, say) the names of those that
        lie below each other in it. A parameter that one tensor on disk becomes, be it with its matrices the other way
        round, has that one alone.
    """
    try:
        plan = plan_loading(module, on_disk)
    except LookupError:
        return {}
    sources: dict[str, tuple[tuple[str, ...], ...]]
    sources = {in_memory: ((name,),) for name, in_memory in (plan.names or {}).items()}
    for conversion in plan.conversions:
        assert isinstance(conversion.convert, partial), "they are made above"
        _, converters, patterns, target, _ = conversion.convert.args
        if stack := _stack(converters[next(iter(patterns.values()))], patterns):
            sources[target] = stack
    return sources


def _stack(converter: Any, patterns: Mapping[str, str]) -> tuple[tuple[str, ...], ...]:
    """Return what one conversion stacks, see `stacked_sources`; nothing where it does something else."""
    operations = [
        (type(operation).__name__, *(getattr(operation, key, None) for key in ("dim", "dim0", "dim1")))
        for operation in converter.operations
    ]
    if operations == [("Transpose", None, 1, 2)] and len(patterns) == 1:
        return (tuple(patterns),)
    stacks = [("MergeModulelist", 0, None, None)]
    if operations not in (stacks, [*stacks, ("Concatenate", 1, None, None)]):
        return ()
    rows = [[name for name, source in patterns.items() if source == pattern] for pattern in converter.source_patterns]
    return tuple(zip(*rows, strict=True)) if len({*map(len, rows)}) == 1 else ()


def output_name(path: Path, on_disk: Iterable[str], embeddings: str) -> str:
    """Return the name on disk of an output layer that no file holds, as it is tied to the embeddings.

    Args:
        path: A checkpoint's directory.
        on_disk: The names in its files.
        embeddings: The name on disk of the embeddings.
    """
    beside = output_beside(embeddings)
    module = bare_module(path)
    loaded = _loaded_names(module, [*on_disk, beside])
    if not loaded or loaded.get(beside, "").endswith("lm_head.weight"):
        return beside
    assert module is not None, "it was asked"
    return next((name for name in module.state_dict() if name.endswith("lm_head.weight")), beside)


def output_beside(embeddings: str) -> str:
    """Return what an output layer is called beside embeddings of that name: it lies in the model around theirs."""
    before, model, _ = embeddings.rpartition("model.embed_tokens.")
    return f"{before if model and not before.endswith('_') else ''}lm_head.weight"


def _loaded_names(module: Any | None, on_disk: Iterable[str]) -> Mapping[str, str]:
    try:
        return {} if module is None else plan_loading(module, on_disk).names or {}
    except LookupError:
        return {}


def _convert(
    module: Any,
    converters: Mapping[str, Any],
    patterns: Mapping[str, str],
    target: str,
    dtype: torch.dtype,
    tensors: dict[str, torch.Tensor],
) -> dict[str, torch.Tensor]:
    """Convert tensors as `from_pretrained` does.

    Args:
        module: Whose tensors they become.
        converters: transformers' converters by their source patterns.
        patterns: The pattern that each name on disk was found by, in the order that transformers collects them.
        target: The name in memory of the first tensor that they become.
        dtype: Its dtype, which transformers would cast them to.
        tensors: The tensors by their names on disk; they are taken out.

    Raises:
        ValueError: They are of another dtype.
    """
    converter = deepcopy(converters[next(iter(patterns.values()))])  # what it collects is kept in it
    for name, pattern in patterns.items():
        tensor = tensors.pop(name)
        if tensor.dtype != dtype:
            raise ValueError(f"{name}: expected {dtype}, found {tensor.dtype}")
        converter.add_tensor(target, name, pattern, tensor)
    results = converter.convert(target, model=module, config=module.config)
    return {name: values[0] if isinstance(values, list) else values for name, values in results.items()}


def _refuse_two_into_one(pairs: Iterable[tuple[str, str]]) -> None:
    first: dict[str, str] = {}
    for name, target in pairs:
        if first.setdefault(target, name) != name:
            raise LookupError(f"{first[target]} and {name}: transformers loads both into {target}")
