"""`soup convert-points`: a published v1 checkpoint into one of ours, or back; streamed, bytes kept.

Tensors are renamed, and fused ones taken apart (`published.py`); configuration, tokenizer and processor are those that
the Auto classes expect. There and back again gives the published tensors bit for bit, in the published files.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from transformers import PreTrainedTokenizerBase

from finetune.points.config import PointsConfig
from finetune.points.model import tensor_shapes
from finetune.points.processing import IMAGE_TOKEN, PointsImageProcessor, PointsProcessor
from finetune.points.published import PublishedRows, published_names
from finetune.points.published_config import from_published_config, refuse_unpublished, to_published_config
from finetune.points.side_files import (
    CLIPS,
    describe,
    generation_config,
    load_tokenizer,
    normalisation,
    prepare_padding,
    refuse_endless_layers,
    saved_files,
    wrap_config_errors,
)
from finetune.points.slice_writer import Progress, TensorSlice, TensorTarget, open_source, plan_targets, write_targets
from soup.checkpoints.dtypes import TensorSpec
from soup.checkpoints.reader import Checkpoint
from soup.errors import FinetuneError
from soup.support.text import bullet_list

__all__ = ["Conversion", "convert_points", "plan_conversion"]

_NOT_WEIGHTS = (".position_ids", ".inv_freq")
"""Buffers that older releases of transformers stored; their values follow from the configuration."""


@dataclass(frozen=True)
class Conversion:
    """A conversion about to happen: what is written, and what is left out (buffers that are no weights)."""

    source: Checkpoint
    targets: tuple[TensorTarget, ...]
    side_files: dict[str, bytes]
    left_out: tuple[str, ...]

    @property
    def write_bytes(self) -> int:
        """The size of the tensors that are written."""
        return sum(target.spec.bytes for target in self.targets)

    def as_json(self, out: Path, max_shard_bytes: int | None = None) -> dict[str, object]:
        """Give what `--json` prints."""
        return {
            "schema": 1,
            "source": str(self.source.path),
            "out": str(out),
            "tensors": len(self.targets),
            "write_bytes": self.write_bytes,
            "files": [plan.name for plan in plan_targets(self.targets, max_shard_bytes)],
            "side_files": sorted(self.side_files),
            "remarks": [f"left out, as no weight: {name}" for name in self.left_out],
        }


def convert_points(
    plan: Conversion, out: Path, *, max_shard_bytes: int | None = None, progress: Progress | None = None
) -> None:
    """Do what `plan_conversion` planned.

    Raises:
        OutputError, CheckpointError: see `write_targets`.
    """
    write_targets(out, plan.targets, plan.side_files, max_shard_bytes=max_shard_bytes, progress=progress)


def plan_conversion(location: str, *, reverse: bool = False) -> Conversion:
    """Decide everything about a conversion before a weight is read.

    Args:
        location: a directory or Hub id.
        reverse: from our form into the published one.

    Raises:
        CheckpointError: no checkpoint there, or damaged.
        FinetuneError: not POINTS v1 (or, in reverse, not of our family, or more than v1 has), a tokenizer without
            the image token, or tensors that are missing, too many or of another shape; all are listed.
    """
    source = open_source(location)
    if source.quantised:
        raise FinetuneError(f"{source.path}: quantised weights can't be converted: {source.quantised}.")
    refuse_endless_layers(source)
    return _unpublish(source) if not reverse else _publish(source)


def _unpublish(source: Checkpoint) -> Conversion:
    """Return the plan from the published form into ours."""
    refuse_unpublished(source.config, f"{source.path / 'config.json'}")
    with TemporaryDirectory() as folder:  # without the configuration, whose type transformers does not know
        for name in _carried(source):
            if not name.endswith(".py") and "/" not in name:
                Path(folder, name).symlink_to((source.path / name).resolve())
        tokenizer = load_tokenizer(Path(folder), source.path)
    prepare_padding(tokenizer)
    image, end = (_token(tokenizer, token, source.path) for token in (IMAGE_TOKEN, "<|im_end|>"))
    tokens = {"eos_token_id": end, "pad_token_id": tokenizer.pad_token_id}
    with wrap_config_errors(source.path):
        tied = "llm.embed_out.weight" not in source.tensors
        config = from_published_config(source.config, image, tied=tied, **tokens)
        shapes = tensor_shapes(config)
        parts = published_names(list(shapes), config)
    left_out = _check_tensors(source, parts, shapes)
    targets = []
    for name, part in parts.items():
        spec = source.tensors[part.name]
        rows, columns = spec.shape[0], math.prod(spec.shape[1:])
        runs = tuple(TensorSlice(source, part.name, start, count) for start, count in part.runs(rows, columns))
        targets.append(TensorTarget(TensorSpec(name, spec.dtype, shapes[name]), runs, source.layout[part.name]))
    describe(config, [target.spec for target in targets])
    images = PointsImageProcessor(tile=config.tile, **(normalisation(source.path) or CLIPS))
    processor = PointsProcessor(images, tokenizer, tokens_per_tile=config.tokens_per_tile)
    side_files = saved_files(config, processor, generation_config(config))
    return Conversion(source, tuple(targets), side_files, left_out)


def _check_tensors(
    source: Checkpoint, parts: dict[str, PublishedRows], shapes: dict[str, tuple[int, ...]]
) -> tuple[str, ...]:
    """Refuse a file whose tensors are not those of the configuration; gives the buffers in it that are no weights."""
    expected: dict[str, tuple[int, ...]] = {}
    for name, part in parts.items():  # a fused tensor has the rows of all that it holds
        rows, *columns = shapes[name]
        expected[part.name] = (expected.get(part.name, (0,))[0] + rows, *columns)
    _refuse_differences(source, expected)
    return tuple(name for name in source.tensors if name not in expected)


def _refuse_differences(source: Checkpoint, expected: dict[str, tuple[int, ...]]) -> None:
    tensors = source.tensors
    wrong = [f"{name}: missing" for name in expected if name not in tensors]
    wrong += [f"{name}: unexpected" for name in tensors if name not in expected and not name.endswith(_NOT_WEIGHTS)]
    wrong += [
        f"{name}: expected {list(shape)}, found {list(tensors[name].shape)}"
        for name, shape in expected.items()
        if name in tensors and tensors[name].shape != shape
    ]
    if wrong:
        raise FinetuneError(
            f"{source.path}: the tensors are not those that its config.json describes ({len(wrong)} differences):\n"
            f"{bullet_list(wrong)}"
        )


def _publish(source: Checkpoint) -> Conversion:
    """Return the plan from our form into the published one."""
    if source.config.get("model_type") != PointsConfig.model_type:
        raise FinetuneError(
            f"{source.path}: expected config.json to have model_type points, found "
            f"{source.config.get('model_type')!r}. --reverse takes a checkpoint of this family."
        )
    with wrap_config_errors(source.path):
        config = PointsConfig.from_dict(source.config)
        published = to_published_config(config)
        shapes = tensor_shapes(config)
    _refuse_differences(source, shapes)
    joined: dict[str, dict[int, str]] = {}
    for name, part in (parts := published_names(list(shapes), config)).items():
        joined.setdefault(part.name, {})[part.block] = name
    targets = [
        _join_tensors(source, name, [owners[block] for block in sorted(owners)], parts[owners[0]].groups)
        for name, owners in joined.items()
    ]
    dtypes = {target.spec.dtype.name for target in targets}
    if len(dtypes) == 1:
        published["torch_dtype"] = dtypes.pop()
    side_files = _carried(source) | {
        "config.json": _json(published),
        "preprocessor_config.json": _json(_preprocessor(config.tile, normalisation(source.path) or CLIPS)),
    }
    left_out = tuple(name for name in source.tensors if name not in shapes)
    return Conversion(source, tuple(targets), side_files, left_out)


def _join_tensors(source: Checkpoint, name: str, owners: Sequence[str], groups: int) -> TensorTarget:
    """Build a published tensor from ours: a block of each by turns, as often as there are groups."""
    specs = [source.tensors[owner] for owner in owners]
    if len({spec.dtype for spec in specs}) > 1:
        dtypes = ", ".join(f"{spec.name} {spec.dtype.name}" for spec in specs)
        raise FinetuneError(f"{source.path}: {name} joins tensors of one dtype, found {dtypes}.")
    shape = (sum(spec.shape[0] for spec in specs), *specs[0].shape[1:])
    blocks = [spec.elements // groups for spec in specs]
    runs = tuple(
        TensorSlice(source, owner, group * block, block)
        for group in range(groups)
        for owner, block in zip(owners, blocks, strict=True)
    )
    return TensorTarget(TensorSpec(name, specs[0].dtype, shape), runs, source.layout[owners[0]])


def _carried(source: Checkpoint) -> dict[str, bytes]:
    ours = ("config.json", "processor_config.json", "preprocessor_config.json", "generation_config.json")
    return {name: (source.path / name).read_bytes() for name in source.side_files.carried if name not in ours}


def _preprocessor(tile: int, normalisation: dict[str, list[float]]) -> dict[str, object]:
    """Return the settings of the published code's image processor, CLIP's, for a tile."""
    return {
        "image_processor_type": "CLIPImageProcessor",
        "crop_size": {"height": tile, "width": tile},
        "size": {"shortest_edge": tile},
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "resample": 3,
        "rescale_factor": 1 / 255,
        **normalisation,
    }


def _json(data: Mapping[str, object]) -> bytes:
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode()


def _token(tokenizer: PreTrainedTokenizerBase, token: str, folder: Path) -> int:
    number = tokenizer.get_vocab().get(token)
    if number is None:
        raise FinetuneError(f"{folder}: the tokenizer has no token {token}, which POINTS v1 needs.")
    return number
