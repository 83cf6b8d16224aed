"""The parts of a model by name: which stay as they are, which are trained in part, how fast each of them learns.

A part is called by its place in the module tree (`general_vit`, `model.vision_tower`), or by the end of it where no
other part that is as high up has that end (`vision_tower`).
"""

from collections.abc import Iterable
from typing import Any

from torch import nn

from finetune.config import HOW_MUCH, TrainSettings
from soup.errors import FinetuneError
from soup.support.text import bullet_list, did_you_mean

__all__ = [
    "UnknownPartError",
    "choose_trained",
    "find_part",
    "last_layers",
    "learning_rates",
    "parameter_groups",
    "part_names",
    "within",
]

ADAPTER = ".lora_"  # in the names of what peft puts beside a layer


class UnknownPartError(FinetuneError):
    """No part has that name; the text goes on with those that there are."""


def part_names(model: nn.Module) -> list[str]:
    """What a user may call the large parts of a model by: those at the top, and those within a `model` at the top."""
    names = []
    for name, child in model.named_children():
        inner = [f"{name}.{own}" for own, part in child.named_children() if _has_parameters(part)]
        names += inner if name == "model" and inner else [name] * _has_parameters(child)
    return [name.removeprefix("model.") for name in names]


def find_part(model: nn.Module, name: str) -> str:
    """The whole place of the module or parameter that is called so.

    Raises:
        UnknownPartError: there is none, or several that are equally high up.
    """
    places = [place for place, _ in _places(model)]
    if name in places:
        return name
    ends = [place for place in places if place.endswith(f".{name}")]
    highest = min((place.count(".") for place in ends), default=0)
    found = [place for place in ends if place.count(".") == highest]
    if len(found) == 1:
        return found[0]
    if found:
        raise UnknownPartError(f"{name} may be any of {', '.join(found)}: say which.")
    raise UnknownPartError(f"no part is called {name}.{did_you_mean(name, part_names(model))}")


def within(name: str, place: str) -> bool:
    """Whether a parameter or module belongs to the part at a place."""
    return name == place or name.startswith(f"{place}.")


def choose_trained(model: nn.Module, settings: TrainSettings) -> None:
    """Lets the parameters be trained that the settings name, and no other.

    Without adapters all are trained but what `freeze` and `train` take out; with adapters, none but what `train` and
    `lora.save` name. A tied parameter has several names: it is trained only if all of them may be.

    Raises:
        FinetuneError: names that no part has, amounts that are none, parts frozen and trained; all of them are listed.
    """
    problems: list[str] = []
    frozen = _found(model, "freeze", settings.freeze, problems)
    partly = _found(model, "train", settings.train, problems)
    saved = _found(model, "lora.save", settings.lora.save if settings.lora else (), problems)
    problems += [f"{name}: both in freeze and in train or lora.save" for name in frozen if {*partly, *saved} & {name}]
    kept, trained = list(frozen.values()), list(saved.values())
    for name, place in partly.items():
        chosen = _amount(model, place, settings.train[name], f"train.{name}", problems)
        trained += chosen
        kept += [place] if chosen != [place] else []
    if problems:
        raise FinetuneError(f"parts of the model, {len(problems)} wrong:\n{bullet_list(problems)}")
    free: dict[int, bool] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        named = ADAPTER in name or any(within(name, place) for place in trained)
        mine = named or not (settings.lora or any(within(name, place) for place in kept))
        free[id(parameter)] = free.get(id(parameter), True) and mine
        parameter.requires_grad_(free[id(parameter)])


def last_layers(model: nn.Module, place: str, count: int) -> list[str]:
    """The places of a part's last layers, the longest row of modules in it being its layers.

    A vision encoder that is asked for an earlier layer's output never learns in the ones behind: they don't count.

    Raises:
        FinetuneError: the part has no layers, or fewer.
    """
    part = model.get_submodule(place)
    rows = [(f"{place}.{name}" if name else place, row) for name, row in part.named_modules() if _is_row(row)]
    if not rows:
        raise FinetuneError(f"{place} has no layers to train the last {count} of")
    name, row = max(rows, key=lambda one: len(one[1]))
    used = len(row) - _unused_layers(model, part)
    if count > used:
        raise FinetuneError(f"{place} has {used} layers that are used, fewer than {count}")
    return [f"{name}.{i}" for i in range(used - count, used)]


def learning_rates(model: nn.Module, settings: TrainSettings) -> dict[str, float]:
    """The learning rate of each parameter that is trained: of the innermost part that has one of its own.

    Raises:
        FinetuneError: rates for parts that don't exist or are not trained, or nothing to train; all are listed.
    """
    problems: list[str] = []
    places = _found(model, "lr_overrides", settings.lr_overrides, problems)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    idle = [name for name, place in places.items() if not any(within(one, place) for one in trained)]
    problems += [f"lr_overrides.{name}: nothing of it is trained" for name in idle]
    problems += ["nothing is left to train: all parts are frozen"] * (not trained)
    if problems:
        raise FinetuneError(f"what is trained, {len(problems)} wrong:\n{bullet_list(problems)}")
    inner_first = sorted(places.items(), key=lambda one: -len(one[1]))
    rates = {}
    for name in trained:
        own = (settings.lr_overrides[part] for part, place in inner_first if within(name, place))
        rates[name] = next(own, settings.lr)
    return rates


def parameter_groups(model: nn.Module, settings: TrainSettings, decayed: Iterable[str]) -> list[dict[str, Any]]:
    """What the optimizer is given: one group for each learning rate, with and without weight decay.

    `decayed` are the parameters with weight decay. The first group has the rate of `lr`, where anything has.
    """
    rates, decays = learning_rates(model, settings), set(decayed)
    own = dict(model.named_parameters())
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, rate in rates.items():
        decay = settings.weight_decay if name in decays else 0.0
        groups.setdefault((rate, decay), []).append(own[name])
    ordered = sorted(groups.items(), key=lambda one: (one[0][0] != settings.lr, one[0]))
    return [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in ordered]


def _places(model: nn.Module) -> Iterable[tuple[str, object]]:
    yield from ((name, part) for name, part in model.named_modules() if name)
    yield from model.named_parameters(remove_duplicate=False)


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _found(model: nn.Module, key: str, names: Iterable[str], problems: list[str]) -> dict[str, str]:
    """The place of each name; those without one are added to the problems."""
    places = {}
    for name in names:
        try:
            places[name] = find_part(model, name)
        except UnknownPartError as unknown:
            problems.append(f"{key}: {unknown}")
    return places


def _amount(model: nn.Module, place: str, much: str, key: str, problems: list[str]) -> list[str]:
    """The places of what is trained of a part: all of it, its last layers, or nothing."""
    match = HOW_MUCH.fullmatch(much)
    if match is None or match[1] is None:
        return [place] if much == "all" else []
    try:
        return last_layers(model, place, int(match[1]))
    except (AttributeError, FinetuneError) as error:
        problems.append(f"{key}: {error}")
        return []


def _is_row(module: nn.Module) -> bool:
    return isinstance(module, nn.ModuleList) and len(module) > 0


def _unused_layers(model: nn.Module, part: nn.Module) -> int:
    """How many of a vision encoder's last layers the model never asks; 0 for the language model."""
    layer = getattr(getattr(model, "config", None), "vision_feature_layer", -1)
    ask = getattr(model, "get_input_embeddings", None)
    words = ask() if ask else None
    if not isinstance(layer, int) or layer >= 0 or any(module is words for module in part.modules()):
        return 0
    return -layer - 1
