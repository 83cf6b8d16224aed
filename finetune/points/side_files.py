"""What stands beside the weights of a checkpoint: what is read of a pretrained one, what is written to ours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from finetune.points.config import PointsConfig
from soup.checkpoints.dtypes import TensorSpec
from soup.checkpoints.reader import Checkpoint
from soup.errors import FinetuneError, SoupError
from soup.support.json_text import read_json_object

__all__ = [
    "CLIPS",
    "describe",
    "generation_config",
    "load_tokenizer",
    "normalisation",
    "prepare_padding",
    "refuse_endless_layers",
    "saved_files",
    "wrap_config_errors",
]

CLIPS = {"image_mean": list(OPENAI_CLIP_MEAN), "image_std": list(OPENAI_CLIP_STD)}
"""How CLIP's processors normalise pixels."""


_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")


def refuse_endless_layers(checkpoint: Checkpoint) -> None:
    """Refuse a `config.json` of more layers than there are tensors: to build its module could take for ever.

    Raises:
        FinetuneError: it names such a number, for itself or for one of its parts.
    """
    for config in (checkpoint.config, *(part for part in checkpoint.config.values() if isinstance(part, dict))):
        for key in ("num_hidden_layers", "num_layers"):
            if isinstance(count := config.get(key), int) and count > len(checkpoint.tensors):
                raise FinetuneError(
                    f"{checkpoint.path}: config.json has {key} {count:,}, and the files hold "
                    f"{len(checkpoint.tensors):,} tensors. One of the two is damaged: copy or download both again."
                )


@contextmanager
def wrap_config_errors(location: Path | str) -> Iterator[None]:
    """Around what transformers makes of a checkpoint's `config.json`.

    Raises:
        FinetuneError: whatever it raised: its configurations check their values by errors of many kinds, or not at all.
    """
    try:
        yield
    except SoupError:
        raise
    except Exception as error:
        raise FinetuneError(f"{location}: its config.json can't be read by transformers.\n{error}") from error


def saved_files(*parts: Any) -> dict[str, bytes]:
    """Give what `save_pretrained` of configurations, tokenizers and processors writes, by file name."""
    with TemporaryDirectory() as folder:
        for part in parts:
            part.save_pretrained(folder)
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir()) if path.is_file()}


def normalisation(folder: Path) -> dict[str, list[float]] | None:
    """Give mean and standard deviation of the pixels, as a checkpoint's processor has them, or None."""
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (folder / name).is_file():
            document = read_json_object(folder / name, FinetuneError)
            settings = document.get("image_processor", document)
            if isinstance(settings, dict) and "image_mean" in settings and "image_std" in settings:
                return {"image_mean": list(settings["image_mean"]), "image_std": list(settings["image_std"])}
    return None


def load_tokenizer(folder: Path, known_as: Path | None = None) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a checkpoint.

    Args:
        folder: the checkpoint.
        known_as: its path in errors.

    Raises:
        FinetuneError: there is none.
    """
    if not any((folder / name).exists() for name in _VOCABULARIES):  # transformers would make one up
        raise FinetuneError(
            f"{known_as or folder}: no tokenizer here: expected one of {', '.join(_VOCABULARIES)}. Copy it beside the "
            "weights, or save it there with tokenizer.save_pretrained."
        )
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # tokenizers raise of their own kind, too
        raise FinetuneError(f"{known_as or folder}: no tokenizer can be loaded from here.\n{error}") from error
    tokenizer.init_kwargs.pop("auto_map", None)  # names code that does not come along
    return tokenizer


def prepare_padding(tokenizer: PreTrainedTokenizerBase) -> None:
    """Have a tokenizer pad batches as generating needs them: on the left, with a token of its own if it has one."""
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or "<|im_end|>"
    tokenizer.padding_side = tokenizer.init_kwargs["padding_side"] = "left"  # of the two, the second is what is saved


def describe(config: PointsConfig, tensors: Sequence[TensorSpec]) -> None:
    """Put what is written into a configuration: the class, and the dtype that the tensors have in common."""
    config.architectures = ["PointsForConditionalGeneration"]
    dtypes = {spec.dtype for spec in tensors if spec.dtype.kind == "float"}
    dtype: torch.dtype | None = dtypes.pop().torch if len(dtypes) == 1 else None
    for part in (config, *config.vision_configs.values(), config.text_config):
        part.dtype = dtype


def generation_config(config: PointsConfig) -> GenerationConfig:
    """Make the settings of generation: where an answer ends, and which token it never holds."""
    return GenerationConfig(
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
        suppress_tokens=[config.image_token_id],
    )
