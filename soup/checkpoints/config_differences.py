"""What differs between two `config.json`, by key path: values that change the arithmetic of a model, and others.

There is no table of architectures. A key is told by its words: `rope_theta`, `rms_norm_eps`, `image_size`,
`num_attention_heads`. Two models with the same shapes of weights may compute different things by them, and a soup can
have but one value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

__all__ = ["config_differences"]

_SILENT = {  # what tools say about themselves, and what is held against each other elsewhere
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_commit_hash",
    "_name_or_path",
    "architectures",
    "attn_implementation",
    "compression_config",
    "dtype",
    "is_local",
    "local_files_only",
    "quantization",
    "quantization_config",
    "torch_dtype",
    "transformers_version",
    "unsloth_version",
}
_ARITHMETIC = re.compile(  # words of a key, between underscores
    r"(?:^|_)(?:rope|mrope|rotary|theta|eps|epsilon|norm|act|activation|function|scale|scaled|scaling|scalar|multiplier"
    r"|factor|softcap|softcapping|cap|size|sizes|heads|dim|dims|layer|layers|blocks|depth|depths|window|ratio|experts"
    r"|topk|groups?|patch|pixel|stride|kernel|dilation|bias|indexes|indices|interval|strategy|pinpoints|crop|tie"
    r"|causal|bidirectional|pool|pooling|grid|tiles?|tokens_per_\w+|thumbnail|alibi|position_embedding_type|model_type"
    r"|(?:image|video|vision|audio|media)(?:_\w+)?_token\w*)(?:_|$)"
)
_TRAINING = re.compile(
    r"dropout|drop_path|drop_rate|initializer|(?:^|_)(?:lr|loss|init|pad_token_id|lora)(?:_|$)"
    r"|^(?:freeze|unfreeze|train|tune|(?:max|min)_dynamic)_"
)
_ROPE = re.compile(r"(?:^|\.)(?:rope_scaling|rope_parameters)\.(?:(?P<kind>rope_type|type)$)?")


class ConfigDifference(NamedTuple):
    """A key whose values differ; None for a value that is not there. `arithmetic`: no mean has both."""

    path: str
    left: str | None
    right: str | None
    arithmetic: bool


def config_differences(left: Mapping[str, object], right: Mapping[str, object]) -> list[ConfigDifference]:
    """List the keys in which two configs differ, by path; a key that only one has is never called arithmetic.

    A version of transformers leaves out what another writes, and its default may be the same value.
    """
    ours, theirs = ({_same_key(path): (path, value) for path, value in _leaves(config, "")} for config in (left, right))
    differences = []
    for key in sorted({*ours, *theirs}):
        path = (ours.get(key) or theirs[key])[0]
        texts = [json.dumps(side[key][1], ensure_ascii=False) if key in side else None for side in (ours, theirs)]
        if key in ours and key in theirs:
            if ours[key][1] != theirs[key][1]:
                differences.append(ConfigDifference(path, texts[0], texts[1], _is_arithmetic(path)))
        else:
            differences.append(ConfigDifference(path, texts[0], texts[1], arithmetic=False))
    return differences


def _leaves(config: Mapping[str, object], prefix: str) -> Iterator[tuple[str, object]]:
    """Yield the path and value of each key, in the configs within a config too."""
    for key, value in config.items():
        if key in _SILENT:
            continue
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _same_key(path: str) -> str:
    """Give one name to what is `rope_theta` beside `rope_scaling` before transformers 5, in `rope_parameters` since."""
    return _ROPE.sub(lambda match: "." + ("rope_type" if match["kind"] else ""), f".{path}").lstrip(".")


def _is_arithmetic(path: str) -> bool:
    words = path.split(".")
    return not _TRAINING.search(words[-1]) and any(_ARITHMETIC.search(word) for word in words)
