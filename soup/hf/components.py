"""The components of a model by the names of its tensors: vision tower, projector, language model, whatever they say."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["component_of", "group_by_component"]

WRAPPERS = ("model", "base_model", "module")
"""First words that all of a model's tensors may share, so that the next word tells its components apart."""


def component_of(name: str) -> str:
    """Return the component that a tensor belongs to: the first word of its name that tells components apart.

    There is no table of architectures: `vision_tower.patch.weight` belongs to `vision_tower`, and
    `model.vision_tower.patch.weight` to `model.vision_tower`.
    """
    words = name.split(".")
    depth = 2 if words[0] in WRAPPERS and len(words) > 2 else 1
    return ".".join(words[:depth])


def group_by_component(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the names of tensors by component, both in the order in which they come."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(component_of(name), []).append(name)
    return groups
