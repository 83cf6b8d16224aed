"""What a start's headers tell before any job opens it: is it a vision-language model, has it the named parts?

No torch is needed for it: a launcher waits for days. What only the model itself can tell, the jobs do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from finetune.config import HOW_MUCH, TrainSettings
from finetune.jobs import Json
from soup.checkpoints.reader import Checkpoint
from soup.errors import FinetuneError, SoupError
from soup.support.json_text import read_json_object
from soup.support.text import did_you_mean, pluralize

__all__ = [
    "adapted_layers",
    "faults_of_settings",
    "faults_of_start",
    "read_model_config",
    "shapes_of",
    "trained_in_full",
]

LAYER = re.compile(r"^(.*?\.)(\d+)\.")
HEADS = ("embed", "lm_head", "wte", "vision", "visual", "vit", "projector", "connector", "merger")


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


def faults_of_settings(start: Path, settings: TrainSettings) -> list[str]:
    """Give the settings that a POINTS model here can't be trained by, and what POINTS models alone can.

    Those name parts that it does not have, or that are frozen and trained, or leave nothing of it to train. Parts of
    other families are not checked: their tensors' names in files are others than in memory.
    """
    config = read_model_config(start)
    if (family := config.get("model_type")) != "points":
        names = [name for name in ("cache_features", "tiling") if config and getattr(settings, name)]
        return [f"{name}: only for POINTS models, not for {family}." for name in names]
    shapes = shapes_of(start)
    if not shapes:
        return []
    unknown = [*_unknown_names(shapes, settings), *_unmatched_target(shapes, settings)]
    return unknown or [*_nothing_trained(shapes, settings)]


def _unknown_names(shapes: Mapping[str, Sequence[int]], settings: TrainSettings) -> Iterator[str]:
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
            if not any(_in_any(tensor, [name]) for tensor in shapes):
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


def _nothing_trained(shapes: Mapping[str, Sequence[int]], settings: TrainSettings) -> Iterator[str]:
    saved = settings.lora.save if settings.lora else []
    contradictory = [name for name in settings.freeze if name in (*settings.train, *saved)]
    for part, much in settings.train.items():
        layers = max(map(len, _rows_of_layers([name for name in shapes if _in_any(name, [part])]).values()), default=0)
        if (count := _count(much)) and count > layers:
            yield f"train.{part}: has {pluralize(layers, 'layer')}, fewer than {count}"
    yield from (f"{name}: both in freeze and in train or lora.save" for name in contradictory)
    trained = [*trained_in_full(shapes, settings), *adapted_layers(shapes, settings)]
    for name in settings.lr_overrides:
        if not any(_in_any(tensor, [name]) for tensor in trained):
            yield f"lr_overrides.{name}: nothing of it is trained"
    if not trained:
        yield "nothing is left to train: all parts are frozen"


def trained_in_full(shapes: Mapping[str, Sequence[int]], settings: TrainSettings) -> list[str]:
    """Give the tensors that learn themselves, by their names in the file, which are near to the model's."""
    kept, trained = list(settings.freeze), set[str]()
    for part, much in settings.train.items():
        trained |= _last_layers([name for name in shapes if _in_any(name, [part])], much)
        kept += [part] * (much != "all")
    if settings.lora:
        return [name for name in shapes if name in trained or _in_any(name, settings.lora.save)]
    return [name for name in shapes if name in trained or not _in_any(name, kept)]


def adapted_layers(shapes: Mapping[str, Sequence[int]], settings: TrainSettings) -> list[str]:
    """Give the weights that adapters are put beside; none without `lora`."""
    return [name for name, shape in shapes.items() if settings.lora and _adapted(name, shape, settings.lora.target)]


def _in_any(name: str, parts: Iterable[str]) -> bool:
    return any(f".{part}." in f".{name}." for part in parts)


def _last_layers(names: Sequence[str], much: str) -> set[str]:
    """Of a part's tensors those that `all`, `none` or `last 3` means."""
    if not much.startswith("last"):
        return set(names) if much == "all" else set()
    chosen = {row: sorted(numbers)[-_count(much) :] for row, numbers in _rows_of_layers(names).items()}
    return {name for name in names if (match := LAYER.match(name)) and int(match[2]) in chosen[match[1]]}


def _rows_of_layers(names: Iterable[str]) -> dict[str, set[int]]:
    """Give the numbers of layers by what stands before them."""
    rows: dict[str, set[int]] = {}
    for name in names:
        if match := LAYER.match(name):
            rows.setdefault(match[1], set()).add(int(match[2]))
    return rows


def _count(much: str) -> int:
    """Return N of `last N`; 0 for `all` and `none`."""
    return int(match[1]) if (match := HOW_MUCH.fullmatch(much)) and match[1] else 0


def _adapted(name: str, shape: Sequence[int], target: str | None) -> bool:
    if len(shape) != 2 or not name.endswith(".weight"):
        return False
    if target is not None:
        return re.fullmatch(target, name.removesuffix(".weight")) is not None
    return not any(word in name for word in HEADS)
