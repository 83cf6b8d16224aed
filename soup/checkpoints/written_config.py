"""The `config.json` of a checkpoint that is written: what it says of dtype, quantisation and tied embeddings."""

from __future__ import annotations

import json
from collections.abc import Sequence

from soup.checkpoints.dtypes import TensorSpec
from soup.checkpoints.reader import quantisations_in
from soup.checkpoints.tied import untie_config
from soup.errors import CheckpointError
from soup.support.json_text import parse_json_object

__all__ = ["config_for"]


def config_for(data: bytes, tensors: Sequence[TensorSpec], *, untied: bool = False) -> bytes:
    """Set the dtype in `config.json` to what is written, and leave out a quantisation: what is merged has none.

    Args:
        data: The content of the file.
        tensors: The tensors of the checkpoint that it is for.
        untied: Whether the output layer is not tied to the embeddings, whatever the file says.

    Returns:
        The content with every `dtype` (or older `torch_dtype`) set, where all floating tensors have the same; a file
        that says so already keeps its bytes.
    """
    names = {spec.dtype.name for spec in tensors if spec.dtype.kind == "float" and not spec.is_frequencies}
    try:
        config = parse_json_object(data, "config.json", CheckpointError)
    except CheckpointError:
        return data
    changed = [_remove_quantisation(config), len(names) == 1 and _set_dtype(config, names.pop())]
    changed.append(untied and untie_config(config))
    if not any(changed):
        return data
    return (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()


def _set_dtype(config: dict[str, object], name: str) -> bool:
    """Set every dtype in a config and in the configs within it; returns whether something changed."""
    changed = False
    for key, value in config.items():
        if key in ("dtype", "torch_dtype") and isinstance(value, str) and value.removeprefix("torch.") != name:
            config[key], changed = name, True
        elif isinstance(value, dict):
            changed = _set_dtype(value, name) or changed
    return changed


def _remove_quantisation(config: dict[str, object]) -> bool:
    """Remove the quantisation from a config and from the configs within it; returns whether there was one."""
    quantisations = list(quantisations_in(config))
    for part, key in quantisations:
        del part[key]
    return bool(quantisations)
