"""A module in memory as it would be saved and loaded again: PEFT's layers merged, and what no file holds made anew."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from soup.errors import CheckpointError

if TYPE_CHECKING:
    import torch

__all__ = ["buffers_made_anew", "inner_model", "without_adapters"]


def inner_model(module: Any) -> Any:
    """Give the model of transformers within PEFT's wrapper; any other module itself."""
    return module.get_base_model() if hasattr(module, "get_base_model") else module


@contextmanager
def without_adapters(module: Any) -> Iterator[Any]:
    """Give a model of transformers whose layers are plain for a while: PEFT's active adapters are merged into them.

    Layers that an adapter changes are merged copies, in main memory; all others are the module's own.

    Args:
        module: A model of transformers, which PEFT may have wrapped or changed.

    Raises:
        CheckpointError: Its adapter is no change of weights.
    """
    if getattr(getattr(module, "active_peft_config", None), "is_prompt_learning", False):
        raise CheckpointError(
            f"{type(module).__name__}: its adapter is learnt prompts, which no checkpoint holds beside its weights. "
            "Score it on benchmarks that ask the model where it is."
        )
    model = inner_model(module)
    layers: list[tuple[Any, str, Any]] = []
    copies: dict[int, Any] = {}
    flag = vars(model).pop("_hf_peft_config_loaded", None)  # with which transformers saves adapters alone
    try:
        for parent, name, layer in _adapted_layers(model):
            layers.append((parent, name, layer))
            setattr(parent, name, _plain(layer, copies))
        yield model
    finally:
        for parent, name, layer in layers:
            setattr(parent, name, layer)
        if flag is not None:
            model._hf_peft_config_loaded = flag


def _adapted_layers(model: torch.nn.Module) -> list[tuple[torch.nn.Module, str, Any]]:
    """Return PEFT's layers with the parts that hold them, and their names there; of nested ones the outermost."""
    if "peft" not in sys.modules:  # then nothing here is its own
        return []
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    found: dict[str, Any] = {}
    for name, part in model.named_modules():
        within = any(name.startswith(f"{outer}.") for outer in found)
        if isinstance(part, BaseTunerLayer | AuxiliaryTrainingWrapper) and not within:
            found[name] = part
    split_names = {name: name.rpartition(".") for name in found}
    return [(model.get_submodule(split_names[name][0]), split_names[name][2], layer) for name, layer in found.items()]


def _plain(layer: Any, copies: dict[int, Any]) -> Any:
    """Return what a layer of PEFT does at present, as a layer of torch; what layers share, their copies share, too."""
    if layer.disable_adapters:
        return layer.get_base_layer() if hasattr(layer, "get_base_layer") else layer.original_module
    if getattr(layer, "merged", False):
        return layer.get_base_layer()
    copied = copy.deepcopy(layer, copies)
    if hasattr(copied, "unload_and_optionally_merge_module"):
        return copied.unload_and_optionally_merge_module(merge=True, safe_merge=False, adapter_names=None).cpu()
    copied.merge()
    return copied.get_base_layer().cpu()


def buffers_made_anew(module: Any) -> list[tuple[torch.nn.Module, str, torch.Tensor]]:
    """Make the buffers that no file holds as loading would, where a conversion of the whole module rounded them.

    `module.half()` rounds the frequencies of rotary embeddings, too, which a loaded model has in float32.

    Args:
        module: A model of transformers.

    Returns:
        The parts of the module, the buffers' names there, and what they would be.
    """
    import torch

    rounded = [
        (name, buffer)
        for name, buffer in _buffers_in_no_file(module)
        if buffer.dtype in (torch.float16, torch.bfloat16)
    ]
    if not rounded:
        return []
    with torch.device("meta"):
        twin = type(module)._from_config(copy.deepcopy(module.config), dtype=module.dtype)
    changed = [
        (name, buffer.to("cpu", dtype))
        for name, buffer in rounded
        if (dtype := twin.get_buffer(name).dtype) != buffer.dtype
    ]
    for name, values in changed:
        part_name, _, last = name.rpartition(".")
        twin.get_submodule(part_name)._buffers[last] = values
    for part_name in {name.rpartition(".")[0] for name, _ in changed}:
        _owner(twin, part_name)._init_weights(twin.get_submodule(part_name))  # as transformers does on loading
    return [
        (module.get_submodule(part_name), last, twin.get_buffer(name).to(module.device))
        for name, _ in changed
        for part_name, _, last in [name.rpartition(".")]
    ]


def _buffers_in_no_file(module: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    split_names = {name: name.rpartition(".") for name, _ in module.named_buffers()}
    return [
        (name, buffer)
        for name, buffer in module.named_buffers()
        if split_names[name][2] in module.get_submodule(split_names[name][0])._non_persistent_buffers_set
    ]


def _owner(module: torch.nn.Module, part_name: str) -> Any:
    """Return the innermost model of transformers at or around a part."""
    words = part_name.split(".") if part_name else []
    around = [module.get_submodule(".".join(words[:count])) for count in range(len(words) + 1)]
    return [part for part in around if hasattr(part, "_init_weights")][-1]
