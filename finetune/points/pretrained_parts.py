"""Pretrained parts of a model to be: their checkpoints and configurations, and the module's names of their tensors.

A vision encoder may lie within a larger checkpoint (CLIP with its text side, a classifier): its tensors are those whose
names end as the module's own do, behind one prefix. No table of checkpoints is needed for that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from finetune.points.encoders import encoder_class
from finetune.points.model import language_model_class
from finetune.points.side_files import normalisation, refuse_endless_layers, wrap_config_errors
from finetune.points.slice_writer import open_source
from soup.checkpoints.dtypes import Dtype
from soup.checkpoints.reader import Checkpoint
from soup.errors import FinetuneError
from soup.hf.key_mapping import plan_loading
from soup.support.text import bullet_list

__all__ = ["PretrainedPart", "open_encoder", "open_language_model"]


@dataclass(frozen=True)
class PretrainedPart:
    """A part that is trained already. `tensors` maps the module's names to the checkpoint's."""

    checkpoint: Checkpoint
    config: PreTrainedConfig
    kind: type[PreTrainedModel]
    tensors: Mapping[str, str]

    @property
    def dtype(self) -> Dtype:
        """The dtype of most of its numbers."""
        counts: dict[Dtype, int] = {}
        for name in self.tensors.values():
            spec = self.checkpoint.tensors[name]
            counts[spec.dtype] = counts.get(spec.dtype, 0) + spec.elements
        return max(counts, key=lambda dtype: counts[dtype])

    @property
    def parameters(self) -> int:
        """How many numbers it has."""
        return sum(self.checkpoint.tensors[name].elements for name in self.tensors.values())

    @property
    def pixels(self) -> dict[str, list[float]] | None:
        """How its pixels are normalised; None where that is not known."""
        return normalisation(self.checkpoint.path)


def open_encoder(location: str) -> PretrainedPart:
    """Open a vision encoder by its directory or Hub id, alone or within a larger checkpoint.

    Raises:
        CheckpointError: no checkpoint there, or damaged.
        FinetuneError: not a vision model, or tensors that are missing or of another shape; all are listed.
    """
    checkpoint, config = _open_part(location)
    config = getattr(config, "vision_config", None) or config
    try:
        kind = encoder_class(config)
    except ValueError as error:
        raise FinetuneError(f"{location}: {error} Give a vision model, or a model with one (CLIP).") from error
    return PretrainedPart(checkpoint, config, kind, _find(checkpoint, config, kind))


def open_language_model(location: str) -> PretrainedPart:
    """Open a causal language model by its directory or Hub id.

    Raises:
        CheckpointError: no checkpoint there, or damaged.
        FinetuneError: not a causal language model, or tensors that are missing or of another shape; all are listed.
    """
    checkpoint, config = _open_part(location)
    if hasattr(config, "vision_config"):
        raise FinetuneError(f"{location}: {config.model_type} sees images already. Give the language model alone.")
    try:
        kind = language_model_class(config)
    except ValueError as error:
        raise FinetuneError(f"{location}: {error}") from error
    return PretrainedPart(checkpoint, config, kind, _find(checkpoint, config, kind))


def _open_part(location: str) -> tuple[Checkpoint, PreTrainedConfig]:
    checkpoint = open_source(location)
    if checkpoint.quantised:
        raise FinetuneError(f"{location}: quantised weights can't be assembled: {checkpoint.quantised}.")
    refuse_endless_layers(checkpoint)
    with wrap_config_errors(location):
        config = AutoConfig.from_pretrained(checkpoint.path, trust_remote_code=False)
    vars(config).pop("auto_map", None)  # names code that does not come along
    return checkpoint, config


def _find(checkpoint: Checkpoint, config: PreTrainedConfig, kind: type[PreTrainedModel]) -> dict[str, str]:
    """Return the checkpoint's name of every tensor of the module: behind the prefix that most of them have."""
    with wrap_config_errors(checkpoint.path), torch.device("meta"):
        module = kind(config)
    tied = module.all_tied_weights_keys
    shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items() if name not in tied}
    prefixes = {tensor.removesuffix(name) for name in list(shapes)[:3] for tensor in checkpoint.tensors}
    prefixes = {"", *(prefix for prefix in prefixes if prefix.endswith(".") and prefix not in checkpoint.tensors)}
    attempts = [_behind(prefix, checkpoint, module) for prefix in sorted(prefixes, key=len)]
    names, remark = max(attempts, key=lambda attempt: sum(name in attempt[0] for name in shapes))
    wrong = [remark] if remark else []
    wrong += [f"{name}: missing" for name in shapes if name not in names]
    wrong += [
        f"{names[name]}: expected {list(shape)}, found {list(checkpoint.tensors[names[name]].shape)}"
        for name, shape in shapes.items()
        if name in names and checkpoint.tensors[names[name]].shape != shape
    ]
    if wrong:
        raise FinetuneError(
            f"{checkpoint.path}: the tensors are not those of a {kind.__name__} ({len(wrong)} differences). "
            f"{_SAVE_ANEW}:\n{bullet_list(wrong)}"
        )
    return {name: names[name] for name in shapes}


_SAVE_ANEW = "Load it with transformers and save it with save_pretrained(..., save_original_format=False)"


def _behind(prefix: str, checkpoint: Checkpoint, module: PreTrainedModel) -> tuple[dict[str, str], str]:
    """Names in the module and in the checkpoint of what lies behind a prefix, after transformers' own renamings.

    Where these are more than renamings, no names but why.
    """
    tensors = {name.removeprefix(prefix): name for name in checkpoint.tensors if name.startswith(prefix)}
    try:
        renamed, conversions = plan_loading(module, tensors)
    except LookupError as error:
        return {}, str(error)
    if conversions:
        return {}, f"{conversions[0].sources[0]}: transformers converts it on loading"
    pairs = renamed.items() if renamed is not None else zip(tensors, tensors, strict=True)
    return {ours: tensors[theirs] for theirs, ours in pairs}, ""
