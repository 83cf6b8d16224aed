"""`soup assemble`: a base model from pretrained parts and a fresh connector; streamed, the parts' bytes kept.

    general ViT, OCR ViT, language model  ->  plan_assembly (headers alone)  ->  assemble

Source: POINTS, arXiv 2409.04828, section 3.1; connectors begin as the language model's own layers did: normal, with its
`initializer_range`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerBase

from finetune.points.config import Layers, PatchesConfig, PointsConfig
from finetune.points.model import tensor_shapes
from finetune.points.pretrained_parts import PretrainedPart, open_encoder, open_language_model
from finetune.points.processing import IMAGE_TOKEN, PointsImageProcessor, PointsProcessor
from finetune.points.side_files import CLIPS, describe, generation_config, load_tokenizer, prepare_padding, saved_files
from finetune.points.slice_writer import (
    NewValues,
    Progress,
    TensorSlice,
    TensorTarget,
    mean_row,
    plan_targets,
    write_targets,
)
from finetune.points.token_layout import MARKS
from soup.checkpoints.dtypes import Dtype, TensorSpec, named_dtype
from soup.errors import FinetuneError
from soup.support.text import bullet_list

__all__ = ["Assembly", "AssemblyOptions", "assemble", "plan_assembly"]

SHARD_BYTES = 5 * 10**9
PLAIN_PIXELS = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
"""Between -1 and 1: for pixels that no encoder has been used to in any other way."""

_TOKENS = (IMAGE_TOKEN, "<|im_start|>", "<|im_end|>")
"""What the chat template is written with."""


@dataclass(frozen=True)
class AssemblyOptions:
    """How parts are put together.

    Args:
        connector: The kind of projector (default: POINTS' own for a model with encoders, Fuyu's for one without).
        shuffle: So many patches of a side become one token (default: as for `connector`).
        feature_layer: The layer of the encoders whose output is projected.
        tiling: How an image becomes tiles.
        marks: Whether tokens tell where rows of image tokens end.
        tile: The side of a tile, in pixels, of a model without encoders; an encoder has its own.
        patch: The side of a patch, in pixels, of a model without encoders; an encoder has its own.
        dtype: The model's (default: the language model's).
        seed: Of the weights that no part has.
    """

    connector: str | None = None
    shuffle: int | None = None
    feature_layer: Layers = -2
    tiling: str = "catty"
    marks: bool = False
    tile: int | None = None
    patch: int | None = None
    dtype: str | None = None
    seed: int = 0


@dataclass(frozen=True)
class Assembly:
    """A model about to be put together, from headers alone.

    Args:
        config: The model's.
        parts: The trained parts, by the names of their modules.
        processor: The model's.
        specs: The tensors that are written.
        dtype: Theirs.
        seed: Of the weights that no part has.
        added_tokens: What the tokenizer lacked.
        remarks: What a user should know although it stops nothing.
    """

    config: PointsConfig
    parts: dict[str, PretrainedPart]
    processor: PointsProcessor
    specs: tuple[TensorSpec, ...]
    dtype: Dtype
    seed: int
    added_tokens: tuple[str, ...]
    remarks: tuple[str, ...]

    @property
    def write_bytes(self) -> int:
        """The size of the tensors that are written."""
        return sum(spec.bytes for spec in self.specs)

    def as_json(self, out: Path, max_shard_bytes: int | None = None) -> dict[str, object]:
        """Give what `--json` prints."""
        files = plan_targets([TensorTarget(spec, ()) for spec in self.specs], max_shard_bytes or SHARD_BYTES)
        return {
            "schema": 1,
            "out": str(out),
            "parts": {name: _describe(part) for name, part in self.parts.items()},
            "connector": f"{self.config.connector}, {self.config.shuffle} x {self.config.shuffle}, seed {self.seed}",
            "tile": self.config.tile,
            "tokens_per_tile": self.config.tokens_per_tile,
            "dtype": self.dtype.name,
            "parameters": sum(spec.elements for spec in self.specs),
            "tensors": len(self.specs),
            "write_bytes": self.write_bytes,
            "files": [file.name for file in files],
            "added_tokens": list(self.added_tokens),
            "remarks": list(self.remarks),
        }


def _describe(part: PretrainedPart) -> str:
    return f"{part.kind.__name__} of {part.parameters:,} parameters from {part.checkpoint.path}"


def plan_assembly(
    llm: str, general_vit: str | None = None, ocr_vit: str | None = None, options: AssemblyOptions | None = None
) -> Assembly:
    """Decide everything about a model before a weight is read.

    Args:
        llm: the language model, a directory or Hub id.
        general_vit: the vision encoder; without one, patches go in as they are.
        ocr_vit: the second vision encoder.
        options: how they are put together.

    Raises:
        CheckpointError: a part can't be fetched, or is damaged.
        FinetuneError: a part that is something else, encoders that differ, a language model without a tokenizer, or
            options that don't fit; all that is wrong between the parts is listed.
    """
    options = options or AssemblyOptions()
    if ocr_vit and not general_vit:
        raise FinetuneError("--ocr-vit is the second encoder: give the only one as --general-vit.")
    encoders = {"general_vit": general_vit, "ocr_vit": ocr_vit}
    parts = {name: open_encoder(location) for name, location in encoders.items() if location}
    parts["llm"] = open_language_model(llm)
    tokenizer = load_tokenizer(parts["llm"].checkpoint.path)
    added = _add_missing_tokens(tokenizer, _TOKENS + (MARKS if options.marks else ()))
    config = _config(parts, tokenizer, options)
    pixels, remarks = _pixels(parts)
    try:
        mean, std = pixels["image_mean"], pixels["image_std"]
        images = PointsImageProcessor(tile=config.tile, tiling=options.tiling, image_mean=mean, image_std=std)
    except ValueError as error:
        raise FinetuneError(str(error)) from error
    processor = PointsProcessor(images, tokenizer, tokens_per_tile=config.tokens_per_tile, marks=options.marks)
    dtype = named_dtype(options.dtype) if options.dtype else parts["llm"].dtype
    cast = [name for name, part in parts.items() if part.dtype != dtype]
    remarks += [f"{name}: {parts[name].dtype.name} is rounded to {dtype.name}" for name in cast]
    specs = tuple(TensorSpec(name, dtype, shape) for name, shape in tensor_shapes(config).items())
    return Assembly(config, parts, processor, specs, dtype, options.seed, tuple(added), tuple(remarks))


def assemble(
    plan: Assembly, out: Path, *, max_shard_bytes: int | None = None, progress: Progress | None = None
) -> None:
    """Write the model, its processor and its tokenizer to `out`, as one checkpoint.

    Raises:
        OutputError, CheckpointError, FinetuneError: see `write_targets`.
    """
    targets = [TensorTarget(spec, tuple(_sources(plan, spec))) for spec in plan.specs]
    describe(plan.config, plan.specs)
    side_files = saved_files(plan.config, plan.processor, generation_config(plan.config))
    write_targets(out, targets, side_files, max_shard_bytes=max_shard_bytes or SHARD_BYTES, progress=progress)


def _add_missing_tokens(tokenizer: PreTrainedTokenizerBase, needed: Iterable[str]) -> list[str]:
    """Add tokens that are needed to a tokenizer, and give those that it lacked."""
    absent = [token for token in needed if token not in tokenizer.get_vocab()]
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in absent], special_tokens=True)
    prepare_padding(tokenizer)
    return absent


def _config(
    parts: dict[str, PretrainedPart], tokenizer: PreTrainedTokenizerBase, options: AssemblyOptions
) -> PointsConfig:
    """Return the configuration of the whole; the vocabulary grows where the tokenizer has more tokens than rows."""
    vocabulary = tokenizer.get_vocab()
    text = parts["llm"].config.to_dict()
    text["vocab_size"] = max(parts["llm"].config.vocab_size, 1 + max(vocabulary.values()))
    ends = {vocabulary["<|im_end|>"]: None, tokenizer.eos_token_id: None}  # in this order, each once
    eos = [end for end in ends if end is not None]
    no_encoder = "general_vit" not in parts
    general = _patches(options) if no_encoder else parts["general_vit"].config.to_dict()
    if not no_encoder and (options.tile or options.patch):
        raise FinetuneError("--tile and --patch shape a model without encoders; an encoder brings its own.")
    try:
        return PointsConfig(
            general_config=general,
            ocr_config=parts["ocr_vit"].config.to_dict() if "ocr_vit" in parts else None,
            text_config=text,
            connector=options.connector or ("linear" if no_encoder else "shuffle"),
            shuffle=options.shuffle or (1 if no_encoder else 2),
            vision_feature_layer=options.feature_layer,
            image_token_id=vocabulary[IMAGE_TOKEN],
            eos_token_id=eos if len(eos) > 1 else eos[0],
            pad_token_id=tokenizer.pad_token_id,
        )
    except Exception as error:  # transformers wraps a configuration's own errors
        raise FinetuneError(f"These parts don't go together:\n{bullet_list(_lines(error))}") from error


def _patches(options: AssemblyOptions) -> dict[str, object]:
    sides = {"image_size": options.tile or 336, "patch_size": options.patch or 28}
    return {"model_type": PatchesConfig.model_type, **sides}


def _lines(error: BaseException) -> list[str]:
    """Return the message of an error's first cause, line by line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).splitlines()


def _pixels(parts: dict[str, PretrainedPart]) -> tuple[dict[str, list[float]], list[str]]:
    """How pixels are normalised for the encoders, and remarks on it."""
    encoders = {name: part for name, part in parts.items() if name != "llm"}
    if not encoders:
        return PLAIN_PIXELS, []
    remarks = [
        f"{name}: no preprocessor_config.json in {part.checkpoint.path}: CLIP's mean and deviation are assumed"
        for name, part in encoders.items()
        if part.pixels is None
    ]
    pixels_of = {name: part.pixels or CLIPS for name, part in encoders.items()}
    if len({str(pixels) for pixels in pixels_of.values()}) > 1:
        rows = [f"{name}: {pixels}" for name, pixels in pixels_of.items()]
        raise FinetuneError(
            f"The encoders are given the same tiles, but need them normalised differently:\n{bullet_list(rows)}"
        )
    return pixels_of["general_vit"], remarks


def _sources(plan: Assembly, spec: TensorSpec) -> list[TensorSlice | NewValues]:
    """Where the elements of one tensor come from."""
    part, _, name = spec.name.partition(".")
    if part == "vision_projector":
        return [NewValues(_initial_values(plan, spec))]
    source, tensors = plan.parts[part].checkpoint, plan.parts[part].tensors
    whole = TensorSlice(source, tensors[name], 0, source.tensors[tensors[name]].elements)
    missing = spec.elements - whole.count
    if not missing:
        return [whole]
    row = mean_row(source, tensors[name])  # a new token begins as the mean of all others
    return [whole, NewValues(row.repeat(missing // row.numel()))]


def _initial_values(plan: Assembly, spec: TensorSpec) -> torch.Tensor:
    """First values of a tensor of the connector [elements]: its own random numbers, whatever else is drawn."""
    if spec.name.endswith(".bias"):
        return torch.zeros(spec.elements)
    layer = int(spec.name.split(".")[1])
    generator = torch.Generator().manual_seed(plan.seed * 1000 + layer)
    spread = getattr(plan.config.text_config, "initializer_range", 0.02)
    return torch.randn(spec.elements, generator=generator) * spread
