"""What a checkpoint's model card (README.md) says in its front matter: licence, languages, what it was made from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from soup.errors import CheckpointError
from soup.support.yaml_text import parse_yaml

__all__ = ["CARD", "CardFacts", "Licence", "read_card"]

CARD = "README.md"

_FRONT = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", re.DOTALL | re.MULTILINE)
_MOST_BYTES = 2**22


@dataclass(frozen=True)
class Licence:
    """A licence: its identifier on the Hub, and name and link where that is `other`."""

    identifier: str
    name: str | None = None
    link: str | None = None

    def __str__(self) -> str:
        return self.name if self.identifier == "other" and self.name else self.identifier


@dataclass(frozen=True)
class CardFacts:
    """What a card says; nothing where there is none, or one that can't be read."""

    licence: Licence | None = None
    languages: tuple[str, ...] = ()
    base_models: tuple[str, ...] = ()
    pipeline_tag: str | None = None


def read_card(folder: Path) -> CardFacts:
    """Read the card of a checkpoint."""
    front = _front_matter(folder / CARD)
    identifier, name, link = (_text(front.get(key)) for key in ("license", "license_name", "license_link"))
    return CardFacts(
        licence=Licence(identifier, name, link) if identifier else None,
        languages=_texts(front.get("language")),
        base_models=_texts(front.get("base_model")),
        pipeline_tag=_text(front.get("pipeline_tag")),
    )


def _front_matter(path: Path) -> Mapping[str, object]:
    try:
        if not path.is_file() or path.stat().st_size > _MOST_BYTES:
            return {}
        match = _FRONT.match(path.read_text(encoding="utf-8"))
        front = parse_yaml(match[1], path, CheckpointError) if match else {}
    except (OSError, ValueError, CheckpointError):
        return {}
    return front if isinstance(front, dict) else {}


def _texts(value: object) -> tuple[str, ...]:
    return tuple(text for item in (value if isinstance(value, list) else [value]) if (text := _text(item)))


def _text(value: object) -> str | None:
    if value is False:
        return "no"  # Norwegian, which YAML takes for an answer
    return value.strip() or None if isinstance(value, str) else None
