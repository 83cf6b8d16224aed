"""What names and shapes of tensors tell of a checkpoint before a weight is read: adapters, empty weights, counters.

The marks are those of the tools that write them (PEFT, DeepSpeed), not of architectures.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from soup.checkpoints.dtypes import TensorSpec

__all__ = ["SHOWN", "abbreviate", "is_counter", "unmergeable"]

SHOWN = 8
"""How many tensors a line about many of them names."""

_PEFT_WRAPPER = re.compile(r"(?:^|\.)(?:base_layer|modules_to_save|original_module)\.")
_PEFT_FACTOR = re.compile(  # `adapter_layer_names` of PEFT's tuners, as prefixes where no module has such a name
    r"(?:^|\.)(?:(?:lora|adamss|boft|delora|fourierft|frod|glora|gralora|hada|hira|ia3|lily|lokr|peanut|poly_lora"
    r"|psoft|p?vera_lambda|randlora|shira|supertuning|tinylora|trainable_tokens|unilora|vblora|waveft)_\w+"
    r"|(?:beft_bias|c3a_kernel|deft_[PR]|hra_u|miss_block|oft_(?:embedding_)?R|poly_router|road_(?:theta|alpha)))"
    r"(?:\.|$)"
)

_COUNTER = re.compile(  # BatchNorm's, torch.optim.swa_utils', moving averages'
    r"(?:^|\.)(?:num_batches_tracked|n_averaged|num_(?:updates|steps|calls)|(?:global_)?steps?)$"
)


def unmergeable(tensors: Sequence[TensorSpec]) -> Iterator[str]:
    """Yield each reason why the mean of such tensors, one by one, is not the mean of the models."""
    parts = [spec.name for spec in tensors if _PEFT_WRAPPER.search(spec.name) or _PEFT_FACTOR.search(spec.name)]
    if parts:
        yield (
            f"{len(parts)} tensors are parts of a PEFT adapter that is not merged into its model: {abbreviate(parts)}. "
            "The mean of factors A and B, each for itself, is not the mean of their products. Merge the adapter first: "
            "PeftModel.from_pretrained(base, ADAPTER).merge_and_unload().save_pretrained(OUT), or after the training "
            "itself: model.merge_and_unload().save_pretrained(OUT)"
        )
    empty = [spec.name for spec in tensors if spec.dtype.kind == "float" and spec.shape == (0,)]
    if any(name.endswith("weight") for name in empty):  # a buffer may be empty by right
        yield (
            f"{len(empty)} of {len(tensors)} tensors are empty, of shape [0]: {abbreviate(empty)}. So DeepSpeed ZeRO-3 "
            "saves a model whose weights were not gathered. Rebuild them from the checkpoint's global_step folder: "
            "python zero_to_fp32.py CHECKPOINT OUT --safe_serialization, or save again with "
            "stage3_gather_16bit_weights_on_model_save: true"
        )


def is_counter(spec: TensorSpec) -> bool:
    """Whether a tensor is one whole number that counts what happened in training, and says nothing about the model."""
    return spec.dtype.kind == "integer" and spec.elements == 1 and bool(_COUNTER.search(spec.name))


def abbreviate(names: Sequence[str]) -> str:
    """List names, the first few of many."""
    return ", ".join(names[:SHOWN]) + (f", ... and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
