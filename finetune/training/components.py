"""The parts of a model by name: which stay as they are, which are trained in part, how fast each of them learns.

A part is called by its path in the module tree (`general_vit`, `model.vision_tower`), or by the end of it where no
other part that is as high up has that end (`vision_tower`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypedDict

from torch import nn

from finetune.config import HOW_MUCH, TrainSettings
from soup.errors import FinetuneError
from soup.support.text import bullet_list, did_you_mean

__all__ = [
    "ParameterGroup",
    "UnknownPartError",
    "choose_trained",
    "find_part",
    "find_projector",
    "last_layers",
    "learning_rates",
    "parameter_groups",
    "part_names",
    "within",
]

PROJECTOR = "vision_projector"  # POINTS' name for what lies between the encoders and the language model
# What other families call it, as the last word of a path or a part of that.
PROJECTORS = re.compile(r"projector|projection|merger|connector|aligner|abstractor|resampler|perceiver|embed_vision")
ADAPTER = ".lora_"  # in the names of what peft puts beside a layer


class UnknownPartError(FinetuneError):
    """No part has that name; the text goes on with those that there are."""


def part_names(model: nn.Module) -> list[str]:
    """Give the names of the large parts of a model: those at the top, and those within a `model` at the top."""
    names = []
    for name, child in model.named_children():
        inner = [f"{name}.{inner_name}" for inner_name, part in child.named_children() if _has_parameters(part)]
        names += inner if name == "model" and inner else [name] * _has_parameters(child)
    return [name.removeprefix("model.") for name in names]


def find_part(model: nn.Module, name: str) -> str:
    """Give the whole path of the module or parameter that is called so.

    Raises:
        UnknownPartError: there is none, or several that are equally high up.
    """
    paths = [path for path, _ in _paths(model)]
    if name in paths:
        return name
    ends = [path for path in paths if path.endswith(f".{name}")]
    highest = min((path.count(".") for path in ends), default=0)
    matches = [path for path in ends if path.count(".") == highest]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise UnknownPartError(f"{name} may be any of {', '.join(matches)}: say which.")
    raise UnknownPartError(f"no part is called {name}.{did_you_mean(name, part_names(model))}")


def find_projector(model: nn.Module) -> list[str]:
    """Give the paths of what lies between a model's vision encoder and its language model, whatever its family.

    Those are the highest modules whose names say so, beside the language model; several where the encoder hands on
    several of its layers (Qwen3-VL). None where no name does.
    """
    language = _language_model(model)
    names = [name for name, part in model.named_modules() if name and _has_parameters(part)]
    beside = [name for name in names if not within(name, language) and "audio" not in name]
    named = [name for name in beside if PROJECTORS.search(name.rpartition(".")[2])]
    top = min((name.count(".") for name in named), default=0)
    return [name for name in named if name.count(".") == top]


def _language_model(model: nn.Module) -> str:
    """Return the path of what holds the word embeddings, `model.language_model` or what it is called."""
    get_embeddings = getattr(model, "get_input_embeddings", None)
    embeddings = get_embeddings() if get_embeddings else None
    path = next((name for name, module in model.named_modules() if module is embeddings), "")
    words = path.split(".")
    return ".".join(words[: 2 if words[0] == "model" and len(words) > 2 else 1])


def within(name: str, path: str) -> bool:
    """Whether a parameter or module belongs to the part at a path."""
    return name == path or name.startswith(f"{path}.")


def choose_trained(model: nn.Module, settings: TrainSettings) -> None:
    """Have the parameters trained that the settings name, and no other.

    Without adapters all are trained but what `freeze` and `train` take out; with adapters, none but what `train` and
    `lora.save` name. A tied parameter has several names: it is trained only if all of them may be.

    Raises:
        FinetuneError: names that no part has, amounts that are none, parts frozen and trained; all of them are listed.
    """
    problems: list[str] = []
    frozen = _find_parts(model, "freeze", settings.freeze, problems)
    partly = _find_parts(model, "train", settings.train, problems)
    saved = _saved_parts(model, settings, problems)
    problems += [f"{name}: both in freeze and in train or lora.save" for name in frozen if {*partly, *saved} & {name}]
    kept, trained = list(frozen.values()), list(saved.values())
    for name, path in partly.items():
        chosen = _amount(model, path, settings.train[name], f"train.{name}", problems)
        trained += chosen
        kept += [path] if chosen != [path] else []
    if problems:
        raise FinetuneError(f"parts of the model, {len(problems)} wrong:\n{bullet_list(problems)}")
    free: dict[int, bool] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        named = ADAPTER in name or any(within(name, path) for path in trained)
        learns = named or not (settings.lora or any(within(name, path) for path in kept))
        free[id(parameter)] = free.get(id(parameter), True) and learns
        parameter.requires_grad_(free[id(parameter)])


def last_layers(model: nn.Module, path: str, count: int) -> list[str]:
    """Give the paths of a part's last layers, the longest row of modules in it being its layers.

    Where the model reads an earlier layer of a vision encoder, the layers behind it never learn: they don't count.

    Raises:
        FinetuneError: the part has no layers, or fewer.
    """
    part = model.get_submodule(path)
    rows = [(f"{path}.{name}" if name else path, row) for name, row in part.named_modules() if _is_row(row)]
    if not rows:
        raise FinetuneError(f"{path} has no layers to train the last {count} of")
    name, row = max(rows, key=lambda named_row: len(named_row[1]))
    used = len(row) - _unused_layers(model, part)
    if count > used:
        raise FinetuneError(f"{path} has {used} layers that are used, fewer than {count}")
    return [f"{name}.{i}" for i in range(used - count, used)]


def learning_rates(model: nn.Module, settings: TrainSettings) -> dict[str, float]:
    """Give the learning rate of each parameter that is trained: of the innermost part that has one.

    Raises:
        FinetuneError: rates for parts that don't exist or are not trained, or nothing to train; all are listed.
    """
    problems: list[str] = []
    paths = _find_parts(model, "lr_overrides", settings.lr_overrides, problems)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    idle = [name for name, path in paths.items() if not any(within(parameter, path) for parameter in trained)]
    problems += [f"lr_overrides.{name}: nothing of it is trained" for name in idle]
    problems += ["nothing is left to train: all parts are frozen"] * (not trained)
    if problems:
        raise FinetuneError(f"what is trained, {len(problems)} wrong:\n{bullet_list(problems)}")
    inner_first = sorted(paths.items(), key=lambda part: -len(part[1]))
    rates = {}
    for name in trained:
        overrides = (settings.lr_overrides[part] for part, path in inner_first if within(name, path))
        rates[name] = next(overrides, settings.lr)
    return rates


class ParameterGroup(TypedDict):
    """Parameters with one learning rate and one weight decay, as torch's optimizers take them."""

    params: list[nn.Parameter]
    lr: float
    weight_decay: float


def parameter_groups(model: nn.Module, settings: TrainSettings, decayed: Iterable[str]) -> list[ParameterGroup]:
    """Give the optimizer's groups: one for each learning rate, with and without weight decay.

    The first group has the rate of `lr`, where anything has.

    Args:
        model: some of whose parameters are frozen.
        settings: the rates and the weight decay.
        decayed: the names of the parameters with weight decay.
    """
    rates, decays = learning_rates(model, settings), set(decayed)
    parameters = dict(model.named_parameters())
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, rate in rates.items():
        decay = settings.weight_decay if name in decays else 0.0
        groups.setdefault((rate, decay), []).append(parameters[name])
    ordered = sorted(groups.items(), key=lambda group: (group[0][0] != settings.lr, group[0]))
    return [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in ordered]


def _paths(model: nn.Module) -> Iterable[tuple[str, object]]:
    yield from ((name, part) for name, part in model.named_modules() if name)
    yield from model.named_parameters(remove_duplicate=False)


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _find_parts(model: nn.Module, key: str, names: Iterable[str], problems: list[str]) -> dict[str, str]:
    """Return the path of each name; those without one are added to the problems."""
    paths = {}
    for name in names:
        try:
            paths[name] = find_part(model, name)
        except UnknownPartError as unknown:
            problems.append(f"{key}: {unknown}")
    return paths


def _saved_parts(model: nn.Module, settings: TrainSettings, problems: list[str]) -> dict[str, str]:
    """Return the paths of what is trained in full beside adapters; `vision_projector` is that of any family."""
    names = settings.lora.save if settings.lora else []
    if PROJECTOR in names and not any(path.rpartition(".")[2] == PROJECTOR for path, _ in _paths(model)):
        names = [part for name in names for part in (find_projector(model) if name == PROJECTOR else [name])] or names
    return _find_parts(model, "lora.save", names, problems)


def _amount(model: nn.Module, path: str, much: str, key: str, problems: list[str]) -> list[str]:
    """Return the paths of what is trained of a part: all of it, its last layers, or nothing."""
    match = HOW_MUCH.fullmatch(much)
    if match is None or match[1] is None:
        return [path] if much == "all" else []
    try:
        return last_layers(model, path, int(match[1]))
    except (AttributeError, FinetuneError) as error:
        problems.append(f"{key}: {error}")
        return []


def _is_row(module: nn.Module) -> bool:
    return isinstance(module, nn.ModuleList) and len(module) > 0


def _unused_layers(model: nn.Module, part: nn.Module) -> int:
    """How many of a vision encoder's last layers the model never runs; 0 for the language model."""
    layer = getattr(getattr(model, "config", None), "vision_feature_layer", -1)
    if isinstance(layer, list | tuple) and layer and all(isinstance(number, int) and number < 0 for number in layer):
        layer = max(layer)
    get_embeddings = getattr(model, "get_input_embeddings", None)
    embeddings = get_embeddings() if get_embeddings else None
    if not isinstance(layer, int) or layer >= 0 or any(module is embeddings for module in part.modules()):
        return 0
    return -layer - 1
