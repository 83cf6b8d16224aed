"""What names and shapes of tensors tell of a checkpoint before a weight is read: adapters, empty weights, counters.

The marks are those of the tools that write them (PEFT, DeepSpeed), not of architectures.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from soup.checkpoints.dtypes import TensorSpec
from soup.checkpoints.problem import Problem

__all__ = ["SHOWN", "abbreviate", "is_counter", "other_names", "plain_name", "unmergeable", "unwrapping", "wrapped"]

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


def unmergeable(tensors: Sequence[TensorSpec], ingredient: str = "") -> Iterator[Problem]:
    """Yield each reason why the mean of such tensors, one by one, is not the mean of the models."""
    parts = [spec.name for spec in tensors if _PEFT_WRAPPER.search(spec.name) or _PEFT_FACTOR.search(spec.name)]
    if parts:
        yield Problem(
            "adapter",
            f"{len(parts)} tensors are parts of a PEFT adapter that is not merged into its model: {abbreviate(parts)}. "
            "The mean of factors A and B, each for itself, is not the mean of their products",
            ingredient,
            parts,
            cure="Merge the adapter first: PeftModel.from_pretrained(base, ADAPTER).merge_and_unload()"
            ".save_pretrained(OUT), or after the training itself: model.merge_and_unload().save_pretrained(OUT)",
        )
    empty = [spec.name for spec in tensors if spec.dtype.kind == "float" and spec.shape == (0,)]
    if any(name.endswith("weight") for name in empty):  # a buffer may be empty by right
        yield Problem(
            "empty",
            f"{len(empty)} of {len(tensors)} tensors are empty, of shape [0]: {abbreviate(empty)}. So DeepSpeed ZeRO-3 "
            "saves a model whose weights were not gathered",
            ingredient,
            empty,
            cure="Rebuild them from the checkpoint's global_step folder: python zero_to_fp32.py CHECKPOINT OUT "
            "--safe_serialization, or save again with stage3_gather_16bit_weights_on_model_save: true",
        )


_WRAPPER = re.compile(r"^(?:module\.|base_model\.model\.|_orig_mod\.)+|(?<=\.)_orig_mod\.")
"""What DistributedDataParallel, PEFT and torch.compile (of a part, too) put before the names of what they wrap."""
_NAMELESS = {"_orig_mod", "module", "base_model", "model", "language_model"}
"""Words that versions of transformers, and wrappers, put into names or leave out of them."""


def wrapped(names: Collection[str]) -> list[str]:
    """List the names that hold a wrapper's prefix, which no loader knows; torch.compile's may stand in some alone."""
    marked = [name for name in names if _WRAPPER.search(name)]
    return marked if len(marked) == len(names) else [name for name in marked if "_orig_mod." in name]


def unwrapping(path: Path, names: Iterable[str]) -> str:
    """Say how the prefixes of wrappers are taken off a checkpoint's names."""
    prefixes = sorted({match.group() for name in names for match in _WRAPPER.finditer(name)})
    return (
        f'Take {", ".join(f"`{prefix}`" for prefix in prefixes)} off, in place: python -c "import glob, re; '
        "from safetensors.torch import load_file, save_file; "
        f"[save_file({{re.sub(r'{_WRAPPER.pattern}', '', k): v for k, v in load_file(f).items()}}, f, "
        f"{{'format': 'pt'}}) for f in glob.glob('{path}/*.safetensors')]\" "
        f"(and off the names in {path}/model.safetensors.index.json, where there is one), or save the model again "
        "that the wrapper holds"
    )


def other_names(ours: Mapping[str, TensorSpec], theirs: Mapping[str, TensorSpec]) -> dict[tuple[str, str], int] | None:
    """Find out whether two checkpoints hold the same tensors under other names.

    Returns:
        How many tensors have which prefix in the first and which in the second; None where they are other tensors.
    """
    left, right = ({plain_name(name): name for name in names} for names in (ours, theirs))
    if left.keys() != right.keys() or len(left) != len(ours) or len(right) != len(theirs):
        return None
    if any(ours[name].shape != theirs[right[plain]].shape for plain, name in left.items()):
        return None
    return Counter(pair for plain, name in left.items() if (pair := _prefixes(name, right[plain])) != ("", ""))


def plain_name(name: str, nameless: Collection[str] = ()) -> str:
    """Leave out the words that versions of transformers, and wrappers, put into a name, and those of `nameless`."""
    return ".".join(word for word in name.split(".") if word not in _NAMELESS and word not in nameless)


def _prefixes(left: str, right: str) -> tuple[str, str]:
    """Return what stands before the words in which two names end alike."""
    ours, theirs = left.split("."), right.split(".")
    while ours and theirs and ours[-1] == theirs[-1]:
        ours.pop()
        theirs.pop()
    return "".join(f"{word}." for word in ours), "".join(f"{word}." for word in theirs)


def is_counter(spec: TensorSpec) -> bool:
    """Whether a tensor is one whole number that counts what happened in training, and says nothing about the model."""
    return spec.dtype.kind == "integer" and spec.elements == 1 and bool(_COUNTER.search(spec.name))


def abbreviate(names: Sequence[str]) -> str:
    """List names, the first few of many."""
    return ", ".join(names[:SHOWN]) + (f", ... and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
