"""Names on disk and names in memory: transformers renames tensors when it loads a checkpoint.

LLaVA's files say `language_model.model.norm.weight`, its module `model.language_model.norm.weight`. The rules are
transformers' own, asked of the loaded module: the list of renamings and conversions that `from_pretrained` collects
for it, applied by the function that `from_pretrained` applies them with. Nothing here knows an architecture.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["names_in_memory"]


def names_in_memory(module: Any, on_disk: Iterable[str]) -> Mapping[str, str] | None:
    """Map names on disk to names in memory, without the tensors that transformers has no use for.

    Args:
        module: A module that is loaded already.
        on_disk: The names in a checkpoint's files.

    Returns:
        The name in memory by the name on disk. None where there is no such mapping: a module that is not
        transformers' (its names are taken as they are), or a version of transformers that keeps its rules elsewhere.

    Raises:
        LookupError: transformers splits, joins or permutes tensors of this checkpoint, or puts two into one.
    """
    try:
        from transformers import PreTrainedModel
        from transformers import core_model_loading as loading
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import dot_natural_key, rename_source_key
    except ImportError:
        return None
    if not isinstance(module, PreTrainedModel):
        return None
    rules = get_model_conversion_mapping(module)
    renamings = [rule for rule in rules if isinstance(rule, loading.WeightRenaming)]
    conversions = [rule for rule in rules if isinstance(rule, loading.WeightConverter)]
    in_memory = module.state_dict()
    names: dict[str, str] = {}
    for name in sorted(on_disk, key=dot_natural_key):  # some renamings depend on what they have seen before
        target, pattern = rename_source_key(name, renamings, conversions, module.base_model_prefix, in_memory)
        if target not in in_memory and name in in_memory:
            target, pattern = rename_source_key(name, [], [], module.base_model_prefix, in_memory)
        if pattern is not None and target in in_memory:
            raise LookupError(f"{name}: transformers converts it on loading")
        if target in in_memory:
            names[name] = target
    return _unambiguous(names)


def _unambiguous(names: dict[str, str]) -> dict[str, str]:
    first: dict[str, str] = {}
    for name, target in names.items():
        if first.setdefault(target, name) != name:
            raise LookupError(f"{first[target]} and {name}: transformers loads both into {target}")
    return names
