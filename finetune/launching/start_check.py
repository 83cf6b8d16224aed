"""What a start's headers tell before any job opens it: is it a vision-language model, has it the named parts?

No torch is needed for it: a launcher waits for days. What only the model itself can tell, the jobs do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from finetune.config import TrainSettings
from finetune.jobs import Json
from soup.checkpoints.reader import Checkpoint
from soup.errors import FinetuneError, SoupError
from soup.support.json_text import read_json_object
from soup.support.text import did_you_mean

__all__ = ["faults_of_start", "read_model_config", "shapes_of", "unknown_parts"]


def shapes_of(start: Path) -> dict[str, tuple[int, ...]]:
    """Give the shapes of a checkpoint's tensors, from its headers alone; none of what is not here yet."""
    if not start.is_dir():
        return {}
    try:
        with Checkpoint(start) as checkpoint:
            return {name: tuple(spec.shape) for name, spec in checkpoint.tensors.items()}
    except SoupError:
        return {}


def read_model_config(start: Path) -> Json:
    """Read a checkpoint's `config.json`; empty where there is none, or where it holds no object."""
    try:
        return read_json_object(start / "config.json", FinetuneError)
    except FinetuneError:
        return {}


def faults_of_start(start: Path) -> Iterator[str]:
    """Give why a checkpoint here can't be trained, as far as its configuration tells."""
    if not (start / "config.json").is_file():
        yield "no config.json there; expected a checkpoint of transformers"
        return
    config = read_model_config(start)
    architectures = config.get("architectures")
    classes = architectures if isinstance(architectures, list) else []
    parts = [name for name in config if name.endswith("_config") and name != "quantization_config"]
    if classes and all(str(name).endswith("ForCausalLM") for name in classes) and not parts:
        yield (
            f"a language model ({', '.join(map(str, classes))}), no vision-language model; "
            "`soup assemble` makes one of it and vision encoders"
        )


def unknown_parts(start: Path, settings: TrainSettings) -> list[str]:
    """Give the settings that name parts which a POINTS model here does not have, or what POINTS models alone can.

    Parts of other families are not checked: their tensors' names in files are others than in memory.
    """
    config = read_model_config(start)
    if (family := config.get("model_type")) != "points":
        names = [name for name in ("cache_features", "tiling") if config and getattr(settings, name)]
        return [f"{name}: only for POINTS models, not for {family}." for name in names]
    shapes = shapes_of(start)
    if not shapes:
        return []
    return [*_unknown_names(shapes, settings), *_unmatched_target(shapes, settings)]


def _unknown_names(shapes: Mapping[str, Sequence[int]], settings: TrainSettings) -> Iterator[str]:
    dotted = [f".{name}." for name in shapes]
    top = {name.partition(".")[0] for name in shapes}
    saved = settings.lora.save if settings.lora else []
    keys = {
        "freeze": settings.freeze,
        "train": settings.train,
        "lr_overrides": settings.lr_overrides,
        "lora.save": saved,
    }
    for key, names in keys.items():
        for name in names:
            if not any(f".{name}." in tensor for tensor in dotted):
                yield f"{key}: no part is called {name}.{did_you_mean(name, top)}"


def _unmatched_target(shapes: Mapping[str, Sequence[int]], settings: TrainSettings) -> Iterator[str]:
    if settings.lora is None or settings.lora.target is None:
        return
    layers = [name.removesuffix(".weight") for name, shape in shapes.items() if len(shape) == 2]
    target = settings.lora.target
    if any(re.fullmatch(target, name) for name in layers):
        return
    within = next((name for name in layers if re.search(target, name)), None)
    hint = f"; it has to match the whole name: .*{target}.* takes in {within}" if within else ""
    example = f", such as {layers[-1]}" if layers and not within else ""
    yield f"lora.target {target!r} matches no linear layer{example}{hint}"
