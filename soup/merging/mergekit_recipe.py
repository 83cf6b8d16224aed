"""Read mergekit's configurations of the methods that both have: what they say, in our words, or what can't be said.

Source: mergekit's documentation of its YAML (README and docs/merge_methods.md) and its defaults. Where the results
differ, docs/methods.md says why.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from soup.errors import RecipeError
from soup.support.text import bullet_list, did_you_mean, is_possible_path

__all__ = ["from_mergekit", "is_mergekit"]

_TOP = {"merge_method", "base_model", "models", "parameters", "dtype", "out_dtype", "name"}
_PART = {"model", "parameters"}
_IGNORED = {"int8_mask"}  # how mergekit computes


def is_mergekit(fields: Mapping[str, Any]) -> bool:
    """Whether a YAML mapping is a configuration of mergekit."""
    return "merge_method" in fields


def from_mergekit(fields: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the fields of our recipe.

    Args:
        fields: The configuration.
        path: Its file, for errors.

    Raises:
        RecipeError: It says what a recipe of ours can't; all such things are listed.
    """
    name = str(fields["merge_method"])
    faults = [f"{key}: has no place in a recipe of soup's" for key in fields if key not in _TOP]
    if name not in _METHODS:
        faults.append(f"merge_method: {name}: no method that both have.{did_you_mean(name, _METHODS)}")
    models = fields.get("models")
    if not isinstance(models, list) or not models:
        faults.append("models: expected a list of models (slices are mergekit's alone)")
        models = []
    common = fields.get("parameters") or {}
    weight = common.get("weight") if isinstance(common, dict) else None
    parts = [_part(entry, number, weight, path.parent, faults) for number, entry in enumerate(models)]
    if faults or not isinstance(common, dict):
        raise _refusal(path, faults or ["parameters: expected a mapping"])
    base = fields.get("base_model")
    if base is not None and (not isinstance(base, str) or _adapted(base, path.parent)[1]):
        raise _refusal(path, [f"base_model: expected the path or the Hub id of a whole model, found {base!r:.80}"])
    settings = _Settings({**common}, parts, base, faults)
    method, params = _METHODS[name](settings)
    left = {*settings.left, *(key for part in settings.parts for key in part)} - {"model", "weight", "on", *_IGNORED}
    faults += [f"parameters: {key}: has no place in {method}" for key in sorted(left)]
    reads_base = method not in ("linear", "karcher")
    below = _base_below(settings.parts, base if reads_base else None, faults)
    if faults:
        raise _refusal(path, faults)
    ingredients = [
        {
            "name": f"m{number}-{Path(part['model']).name}",
            "path": part["model"],
            "weight": 1.0 if part["weight"] is None else part["weight"],
        }
        for number, part in enumerate(settings.parts)
    ]
    recipe: dict[str, Any] = {"method": method, "params": params, "ingredients": ingredients}
    if below is not None:
        recipe["base"] = {"name": "base", "path": below}
    dtype = fields.get("out_dtype") or fields.get("dtype")
    return {**recipe, "dtype": str(dtype)} if dtype else recipe


class _Settings:
    """A configuration's parameters, taken one by one; what nobody took is left over."""

    def __init__(self, left: dict[str, Any], parts: list[dict[str, Any]], base: str | None, faults: list[str]) -> None:
        self.left, self.parts, self.base, self.faults = left, parts, base, faults

    def take(self, name: str, default: Any, *, of_models: bool = False) -> Any:
        """Return a parameter that all models share; a gradient (a list) has no place.

        Args:
            name: The parameter's name.
            default: Its value where nobody gives one.
            of_models: Whether mergekit reads it of each model, too, and not only of the whole.
        """
        common = self.left.pop(name, default)
        values = [part.pop(name, common) for part in self.parts] or [common]
        value = values[0]
        if not of_models and any(other != common for other in values):
            self.faults.append(f"{name}: mergekit ignores a model's own: say it in the parameters of the whole")
            return default
        if isinstance(value, list | dict) or any(other != value for other in values):
            shown = f"{values!s:.200}"
            self.faults.append(f"{name}: expected one number for all models and layers, found {shown}")
            return default
        if isinstance(default, bool) != isinstance(value, bool) or not _is_number(value):
            kind = "true or false" if isinstance(default, bool) else "a number"
            self.faults.append(f"{name}: expected {kind}, found {value!r:.80}")
            return default
        return value

    def weigh(self) -> None:
        """Ask for the weight of each model, which mergekit gives no default."""
        self.faults += [
            f"{part['model']}: weight: missing, and mergekit has no default"
            for part in self.parts
            if part["weight"] is None
        ]

    def with_base(self) -> None:
        """Put the base among the models, as mergekit does: a method without deltas merges it like the others."""
        if self.base is not None and all(part["model"] != self.base for part in self.parts):
            self.parts = [*self.parts, {"model": self.base, "weight": self.left.get("weight")}]

    def without_base(self) -> None:
        """Leave the base out of the models: mergekit lists it among them, and merges it with a delta of 0."""
        self.parts = [part for part in self.parts if part["model"] != self.base]


def _base_below(parts: list[dict[str, Any]], base: str | None, faults: list[str]) -> str | None:
    """Return the base that a recipe names: what the method reads, and what adapters stand on, which must be one."""
    bases = {os.path.normpath(below): below for part in parts if (below := part.get("on"))}
    bases |= {} if base is None else {os.path.normpath(base): base}
    if len(bases) > 1:
        faults.append(
            f"models: adapters on {', '.join(bases.values())}: a recipe puts all on one base, that of its deltas. "
            "Merge those on another into a model first (soup average --pool ADAPTER --base MODEL -o OUT)"
        )
    return next(iter(bases.values()), None)


def _adapted(model: str, folder: Path) -> tuple[str, str | None]:
    """Return a model, and what it stands on if mergekit's `BASE+ADAPTER` is written; a path may hold a plus, too."""
    below, plus, adapter = model.partition("+")
    return (adapter, below) if plus and is_possible_path(model) and not (folder / model).exists() else (model, None)


def _part(entry: Any, number: int, common_weight: object, folder: Path, faults: list[str]) -> dict[str, Any]:
    if not isinstance(entry, dict) or not isinstance(entry.get("model"), str):
        faults.append(f"models.{number}: expected a mapping with `model`, a path or a Hub id")
        return {"model": "", "weight": 1.0}
    faults += [f"models.{number}.{key}: has no place beside model and parameters" for key in entry if key not in _PART]
    parameters = {} if entry.get("parameters") is None else entry["parameters"]
    if not isinstance(parameters, dict):
        faults.append(f"models.{number}.parameters: expected a mapping, found {parameters!r:.80}")
        parameters = {}
    weight = parameters.get("weight", common_weight)
    if weight is not None and (isinstance(weight, bool) or not _is_number(weight)):
        faults.append(f"models.{number}.parameters.weight: expected a number, found {weight!r:.200}")
    rest = {key: value for key, value in parameters.items() if key != "weight"}
    model, below = _adapted(entry["model"], folder)
    if below is not None and (not model or not below or "+" in model):
        faults.append(f"models.{number}.model: expected a model, or BASE+ADAPTER, found {entry['model']!r:.80}")
    return {**rest, "model": model, "on": below, "weight": float(weight) if _is_number(weight) else None}


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and abs(value) < 1e9  # NaN is not, either


def _linear(settings: _Settings) -> tuple[str, dict[str, Any]]:
    settings.with_base()
    settings.weigh()
    if settings.faults:
        return "linear", {}
    total = math.fsum(part["weight"] for part in settings.parts)
    if not settings.take("normalize", True) and not math.isclose(total, 1):
        settings.faults.append(f"normalize: false: the weights sum to {total:g}, and linear divides by that sum")
    return "linear", {}


def _task_arithmetic(settings: _Settings) -> tuple[str, dict[str, Any]]:
    settings.without_base()
    settings.weigh()
    return "task-arithmetic", {"normalize": settings.take("normalize", False), "scale": settings.take("lambda", 1.0)}


def _ties(settings: _Settings) -> tuple[str, dict[str, Any]]:
    settings.without_base()
    settings.weigh()
    merge = "mean" if settings.take("normalize", True) else "sum"
    density, scale = settings.take("density", 1.0, of_models=True), settings.take("lambda", 1.0)
    if settings.take("rescale", False):
        settings.faults.append("rescale: true: has no place in ties")
    return "ties", {"scope": "tensor", "merge": merge, "density": density, "scale": scale}


def _dare(elect: bool) -> Callable[[_Settings], tuple[str, dict[str, Any]]]:
    def dare(settings: _Settings) -> tuple[str, dict[str, Any]]:
        settings.without_base()
        settings.weigh()
        density, scale = settings.take("density", 1.0, of_models=True), settings.take("lambda", 1.0)
        switches = {"normalize": settings.take("normalize", False), "rescale": settings.take("rescale", True)}
        return "dare", {"p": round(1 - density, 12), "scale": scale, "elect": elect, **switches}

    return dare


def _slerp(settings: _Settings) -> tuple[str, dict[str, Any]]:
    t = settings.take("t", 0.5)
    others = [part for part in settings.parts if part["model"] != settings.base]
    if settings.base is None or len(others) != 1:
        settings.faults.append("slerp: expected base_model and one other model")
    settings.parts = [{"model": settings.base or "", "weight": 1 - t}, *({**part, "weight": t} for part in others)]
    return "karcher", {}


def _nuslerp(settings: _Settings) -> tuple[str, dict[str, Any]]:
    if settings.base is not None:
        settings.faults.append("base_model: nuslerp of deltas weighs them by their lengths, karcher does not")
    if len(settings.parts) != 2:
        settings.faults.append("nuslerp: expected two models")
    settings.weigh()
    flat = settings.take("nuslerp_flatten", True)
    if settings.take("nuslerp_row_wise", False) and not flat:
        settings.faults.append("nuslerp_row_wise: true: directions of columns have no place in karcher")
    return "karcher", {} if flat else {"unit": "row"}


def _karcher(settings: _Settings) -> tuple[str, dict[str, Any]]:
    settings.with_base()
    for name in ("max_iter", "tol"):  # when mergekit stops: ours goes on until nothing changes
        settings.take(name, 1)
    return "karcher", {}


def _model_stock(settings: _Settings) -> tuple[str, dict[str, Any]]:
    settings.without_base()
    if settings.take("filter_wise", False):
        settings.faults.append("filter_wise: true: has no place in model-stock")
    return "model-stock", {}


_METHODS: dict[str, Callable[[_Settings], tuple[str, dict[str, Any]]]] = {
    "linear": _linear,
    "task_arithmetic": _task_arithmetic,
    "ties": _ties,
    "dare_linear": _dare(elect=False),
    "dare_ties": _dare(elect=True),
    "slerp": _slerp,
    "nuslerp": _nuslerp,
    "model_stock": _model_stock,
    "karcher": _karcher,
}


def _refusal(path: Path, faults: list[str]) -> RecipeError:
    return RecipeError(f"{path}: mergekit's configuration can't be said as a recipe of soup's:\n{bullet_list(faults)}")
