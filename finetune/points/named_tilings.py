"""Tilings by name, and the settings that a checkpoint's processor saves of one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from finetune.points.anyres import AnyRes
from finetune.points.catty import Catty
from finetune.points.multicrop import MultiCrop
from finetune.points.tiling import Single, Tiling
from finetune.points.video import UniformFrames
from soup.errors import FinetuneError
from soup.support.json_text import parse_json
from soup.support.text import bullet_list, did_you_mean

__all__ = ["TILINGS", "named_tiling", "settings_of"]

TILINGS: dict[str, type[Tiling]] = {kind.name: kind for kind in (AnyRes, Catty, MultiCrop, Single, UniformFrames)}


def named_tiling(setting: str | Mapping[str, object] | Tiling) -> Tiling:
    """Make the tiling that a setting names.

    Args:
        setting: a name; a mapping of `name` and parameters, {"name": "anyres", "max_tiles": 12}; both in one text, as
            on a command line, "anyres:max_tiles=12,rule=internvl"; or a tiling, which is given back.

    Raises:
        FinetuneError: no such tiling, or no such parameters, or values that the tiling can't take.
    """
    if isinstance(setting, Tiling):
        return setting
    parameters = _parse(setting) if isinstance(setting, str) else dict(setting)
    name = parameters.pop("name", None)
    if name not in TILINGS:
        raise FinetuneError(f"tiling: there is none named {name!r}.{did_you_mean(str(name), TILINGS)}")
    tiling = TILINGS[str(name)]
    known = [field.name for field in dataclasses.fields(tiling)]
    faults = [f"{key!r}.{did_you_mean(str(key), known)}" for key in parameters if key not in known]
    if faults:
        raise FinetuneError(f"tiling {name}: unknown parameters:\n{bullet_list(faults)}")
    try:
        return tiling(**parameters)
    except TypeError as error:  # a value of another kind, such as a list for a number
        raise FinetuneError(f"tiling {name}: a value of the wrong kind ({error}).") from error


def _parse(text: str) -> dict[str, object]:
    """Return the name and parameters in a text; what is JSON (12, true) is read as such, the rest are words."""
    name, colon, rest = text.partition(":")
    parameters: dict[str, object] = {"name": name.strip()}
    for pair in rest.split(",") if colon else ():
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not equals or not key or key in parameters:
            raise FinetuneError(f"tiling {text!r}: expected NAME:PARAMETER=VALUE,..., each once, found {pair!r}.")
        try:
            parameters[key] = parse_json(value, f"tiling {text!r:.80}", FinetuneError)
        except FinetuneError:
            parameters[key] = value
    return parameters


def settings_of(tiling: Tiling) -> dict[str, object]:
    """Give what `named_tiling` makes the same tiling of, in words that JSON has."""
    parameters = {
        field.name: getattr(tiling, field.name)
        for field in dataclasses.fields(tiling)
        if not field.metadata or getattr(tiling, field.name) != field.default
    }
    return {"name": tiling.name, **parameters}
