"""The front matter of a soup's model card, as the Hub reads it: what it was made from, licence, languages, scores.

Source: the Hub's documentation of model cards, and the specification of their metadata (`modelcard.md` of hub-docs).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from soup.checkpoints.card import CardFacts, Licence
from soup.checkpoints.hub import HubId, is_hub_id
from soup.merging.published_recipe import public_name
from soup.merging.recipe import Recipe

__all__ = ["Scores", "card_metadata", "licence_conflict", "licences_by_owner", "scores_metadata"]

Scores = Mapping[str, Mapping[str, float]]
"""A soup's scores by benchmark, and for each by the questions that were asked (`all`, `selection`, `report`)."""

_SEES = ("vision", "visual", "image_token")
"""Parts of the keys that the configs of models that see have."""
_OVERALL = "overall"


def card_metadata(
    recipe: Recipe, config: Mapping[str, object], cards: Mapping[str, CardFacts], *, is_adapter: bool
) -> dict[str, object]:
    """Return all of it but the scores.

    Args:
        recipe: The soup's.
        config: The soup's config.json.
        cards: What the cards of ingredients and base say, by name.
        is_adapter: Whether the soup is one LoRA adapter.
    """
    front: dict[str, object] = {"library_name": "peft" if is_adapter else "transformers"}
    if tag := _pipeline_tag(config, cards.values()):
        front["pipeline_tag"] = tag
    if not licence_conflict(cards) and (licence := next(iter(licences_by_owner(cards)), None)):
        keys = {"license": licence.identifier, "license_name": licence.name, "license_link": licence.link}
        front |= {key: value for key, value in keys.items() if value}
    if languages := _unique(language for card in cards.values() for language in card.languages):
        front["language"] = languages
    if models := _unique(_adapter_base(recipe) if is_adapter else _base_models(recipe, cards)):
        front |= {"base_model": models, "base_model_relation": "adapter" if is_adapter else "merge"}
    kind = config.get("model_type")
    return {**front, "tags": ["merge", "model-soup", *([str(kind)] if kind else [])]}


def scores_metadata(scores: Scores, name: str, tag: object, part: str) -> list[dict[str, object]]:
    """Return the model-index: the scores of one part of the questions.

    Args:
        scores: The soup's.
        name: What the model is called.
        tag: The model's pipeline tag, which is the task.
        part: The part.
    """
    metric = "score, 0 to 100, on the questions that only report" if part == "report" else "score, 0 to 100"
    results = [
        {
            "task": {"type": str(tag or "image-text-to-text")},
            "dataset": {"type": public_name(benchmark).partition(" (")[0], "name": public_name(benchmark)},
            "metrics": [{"type": "score", "value": round(row[part], 2), "name": metric}],
        }
        for benchmark, row in scores.items()
        if part in row and benchmark != _OVERALL
    ]
    return [{"name": name, "results": results}] if results else []


def licences_by_owner(cards: Mapping[str, CardFacts]) -> dict[Licence, list[str]]:
    """Return the licences that cards name, and whose they are."""
    owners: dict[Licence, list[str]] = {}
    for name, card in cards.items():
        if card.licence:
            owners.setdefault(card.licence, []).append(name)
    return owners


def licence_conflict(cards: Mapping[str, CardFacts]) -> str | None:
    """Say which licences differ; None where they do not."""
    owners = licences_by_owner(cards)
    if len({str(licence) for licence in owners}) < 2:
        return None
    return "; ".join(f"{licence}: {', '.join(names)}" for licence, names in owners.items())


def _base_models(recipe: Recipe, cards: Mapping[str, CardFacts]) -> Iterator[str]:
    """Yield the models on the Hub that a soup was made from: for what is not there, what its card names."""
    for source in (*recipe.ingredients, *filter(None, [recipe.base])):
        if hub_id := HubId.parse(source.path):
            yield hub_id.name
        else:
            yield from filter(is_hub_id, cards.get(source.name, CardFacts()).base_models)


def _adapter_base(recipe: Recipe) -> Sequence[str]:
    """Return the model that an adapter is put on, which alone is its base on the Hub."""
    hub_id = HubId.parse(recipe.base.path) if recipe.base else None
    return [hub_id.name] if hub_id else []


def _pipeline_tag(config: Mapping[str, object], cards: Iterable[CardFacts]) -> str | None:
    tags = {card.pipeline_tag for card in cards if card.pipeline_tag}
    if len(tags) == 1:
        return tags.pop()
    if any(part in key for key in config for part in _SEES):
        return "image-text-to-text"
    classes = config.get("architectures")
    is_causal = isinstance(classes, list) and any(str(name).endswith("ForCausalLM") for name in classes)
    return "text-generation" if is_causal else None


def _unique(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))
