"""The files beside the weights: which of them a soup takes, and from whom; which differ between ingredients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from soup.checkpoints.carried_files import (
    CODE,
    PROCESSOR,
    PROCESSOR_CONFIG,
    TEMPLATE,
    TOKENIZER,
    TOKENIZER_CONFIG,
    matches,
    read_side_file,
)
from soup.checkpoints.reader import Checkpoint
from soup.errors import CheckpointError
from soup.support.json_text import parse_json_object

__all__ = [
    "absent_code",
    "complete_side_files",
    "keeps_lead_template",
    "lent_kinds",
    "side_differences",
]

_CODE = "code for auto_map"
_KINDS = {"tokenizer": TOKENIZER, "processor": PROCESSOR, "chat template": TEMPLATE, _CODE: CODE}

_TOOL_KEYS = {"_name_or_path", "is_local", "local_files_only", "transformers_version"}


def complete_side_files(lead: Checkpoint, *others: Checkpoint, tokenizer: Checkpoint | None = None) -> dict[str, Path]:
    """Find what a soup takes along: all that the lead carries, and what it has none of (tokenizer, processor, ...).

    Args:
        lead: Whose layout and side files the soup takes.
        others: Where a kind of file that the lead has none of is taken from, whole: the first that has it.
        tokenizer: Whose tokenizer and chat template are taken in any case.

    Returns:
        Where each file lies, by its path in the checkpoint.
    """
    owners = _owners(lead, lent_kinds(lead, *others, tokenizer=tokenizer), others)
    return {name: owner.path / name for name, owner in sorted(owners.items())}


def _owners(lead: Checkpoint, lent: Mapping[str, Checkpoint], others: Sequence[Checkpoint]) -> dict[str, Checkpoint]:
    """Return whose each file of a soup is, by its path in the checkpoint.

    Modules that its configs name and that it lacks come from who lends a kind of files, or else from another, with all
    of that one's code that the soup has not: they may import each other.
    """
    kinds = {kind: source for kind, source in lent.items() if kind != _CODE}
    replaced = tuple(pattern for kind in kinds for pattern in _KINDS[kind])
    owners = {name: lead for name in lead.side_files.carried if not matches(name, replaced)}
    for kind, source in kinds.items():
        owners |= {name: source for name in source.side_files.carried if matches(name, _KINDS[kind])}
    for source in (*kinds.values(), *others):
        if (_named_code(owners) - owners.keys()) & {*source.side_files.carried}:
            code = (name for name in source.side_files.carried if matches(name, _KINDS[_CODE]))
            owners = dict.fromkeys(code, source) | owners
    return owners


def lent_kinds(lead: Checkpoint, *others: Checkpoint, tokenizer: Checkpoint | None = None) -> dict[str, Checkpoint]:
    """Find the kinds of side files (tokenizer, processor, template, code) that are not the lead's, and whose they are.

    See `complete_side_files`, whose arguments these are.
    """
    lent: dict[str, Checkpoint] = {}
    if tokenizer is not None and tokenizer is not lead:
        lent["tokenizer"] = tokenizer
        if _names_a_template(tokenizer, TOKENIZER_CONFIG) or any(
            matches(name, TEMPLATE) for name in tokenizer.side_files.carried
        ):
            lent["chat template"] = tokenizer
    for kind, patterns in _KINDS.items():
        if kind in lent or kind == _CODE:
            continue
        configs = (lent.get("tokenizer", lead), TOKENIZER_CONFIG), (lent.get("processor", lead), PROCESSOR_CONFIG)
        if kind == "chat template" and any(_names_a_template(owner, name) for owner, name in configs):
            continue
        owners = [part for part in (lead, *others) if any(matches(name, patterns) for name in part.side_files.carried)]
        if owners and owners[0] is not lead:
            lent[kind] = owners[0]
    code = [owner for name, owner in _owners(lead, lent, others).items() if matches(name, _KINDS[_CODE])]
    if lenders := [owner for owner in code if owner is not lead]:
        lent[_CODE] = lenders[0]
    return lent


def absent_code(lead: Checkpoint, *others: Checkpoint, tokenizer: Checkpoint | None = None) -> list[str]:
    """List the modules that `auto_map` in a soup's files names, and that are in none of the checkpoints.

    See `complete_side_files`, whose arguments these are.
    """
    owners = _owners(lead, lent_kinds(lead, *others, tokenizer=tokenizer), others)
    return sorted(_named_code(owners) - owners.keys())


def _named_code(owners: Mapping[str, Checkpoint]) -> set[str]:
    """Return the modules that `auto_map` names in any of a soup's configs."""
    configs = [(name, owner) for name, owner in owners.items() if name.endswith("config.json") and "/" not in name]
    return {module for name, owner in configs for module in _named_modules(owner, name)}


def _named_modules(checkpoint: Checkpoint, name: str) -> Iterator[str]:
    """Yield the files that a config's `auto_map` names: `modeling_chat.ChatModel`; not those of a Hub repository."""
    try:
        config = parse_json_object(read_side_file(checkpoint.path / name), name, CheckpointError)
    except CheckpointError:
        return
    auto_map = config.get("auto_map")
    for value in auto_map.values() if isinstance(auto_map, dict) else ():
        for reference in value if isinstance(value, list) else [value]:
            if isinstance(reference, str) and "--" not in reference and reference.count(".") == 1:
                yield f"{reference.partition('.')[0]}.py"


def keeps_lead_template(lead: Checkpoint, tokenizer: Checkpoint) -> bool:
    """Whether a soup would have the lead's chat template with another's tokenizer, which comes with another template.

    So it is where the lead's stands in its processor's config, which transformers looks into first.
    """
    kept = _named_template(lead, PROCESSOR_CONFIG)
    if kept is None or tokenizer is lead:
        return False
    lent = [_named_template(tokenizer, name) for name in (PROCESSOR_CONFIG, TOKENIZER_CONFIG, "chat_template.json")]
    if _has(tokenizer, "chat_template.jinja"):
        lent.append(read_side_file(tokenizer.path / "chat_template.jinja").decode("utf-8", "replace"))
    others = [text for text in lent if text is not None]
    return bool(others) and others[0] != kept


def _names_a_template(checkpoint: Checkpoint, name: str) -> bool:
    return _named_template(checkpoint, name) is not None


def _named_template(checkpoint: Checkpoint, name: str) -> object:
    """Return the chat template in a config of its tokenizer or processor, where older versions saved it, or None."""
    if not _has(checkpoint, name):
        return None
    try:
        return parse_json_object(read_side_file(checkpoint.path / name), name, CheckpointError).get("chat_template")
    except CheckpointError:
        return None


def side_differences(first: Checkpoint, other: Checkpoint) -> list[str]:
    """List the carried files that are not the same in both, one line each; JSON files with the keys that differ.

    What differs in `config.json` is `config_differences` to say, where both have one.
    """
    names = sorted({*first.side_files.carried, *other.side_files.carried})
    if _has(first, "config.json") and _has(other, "config.json"):
        names = [name for name in names if name != "config.json"]
    if other.stored is not other:  # an adapter, beside which most files have no reason to be
        names = [name for name in names if _has(first, name) and _has(other, name)]
    return [line for name in names if (line := _difference(first, other, name))]


def _difference(first: Checkpoint, other: Checkpoint, name: str) -> str | None:
    if not _has(first, name) or not _has(other, name):
        return f"{name} is only in {(first if _has(first, name) else other).path.name}"
    left, right = read_side_file(first.path / name), read_side_file(other.path / name)
    if left == right:
        return None
    keys = _different_keys(left, right) if name.endswith(".json") else None
    if keys == []:
        return None
    return f"{name} differs" + (f" in {', '.join(keys[:5])}" if keys else "")


def _different_keys(left: bytes, right: bytes) -> list[str] | None:
    """List the keys in which two JSON objects differ, but for those that tools write about themselves.

    Returns:
        None where one of the two is no JSON object.
    """
    try:
        ours, theirs = (parse_json_object(data, "", CheckpointError) for data in (left, right))
    except CheckpointError:
        return None
    return sorted(key for key in {*ours, *theirs} - _TOOL_KEYS if ours.get(key) != theirs.get(key))


def _has(checkpoint: Checkpoint, name: str) -> bool:
    return name in checkpoint.side_files.carried
