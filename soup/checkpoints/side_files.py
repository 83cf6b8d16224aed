"""The files beside the weights: which differ between ingredients, whether tokenizers agree, the config of a soup."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soup.checkpoints.carried_files import (
    CODE,
    MAX_SIDE_FILE_BYTES,
    PROCESSOR,
    TEMPLATE,
    TOKENIZER,
    VOCABULARY,
    matches,
)
from soup.checkpoints.dtypes import TensorSpec
from soup.checkpoints.reader import Checkpoint, quantisations_in
from soup.checkpoints.tied import untie_config
from soup.errors import CheckpointError
from soup.support.json_text import parse_json, parse_json_object, read_text

__all__ = [
    "absent_code",
    "complete_side_files",
    "config_for",
    "has_tokenizer",
    "keeps_own_template",
    "lent_kinds",
    "side_differences",
    "tokenizer_differences",
]

_CODE = "code for auto_map"
_KINDS = {"tokenizer": TOKENIZER, "processor": PROCESSOR, "chat template": TEMPLATE, _CODE: CODE}

_TOKENIZER_CONFIG, _PROCESSOR_CONFIG = "tokenizer_config.json", "processor_config.json"

_TOOL_KEYS = {"_name_or_path", "is_local", "local_files_only", "transformers_version"}


@dataclass(frozen=True)
class _Vocabulary:
    """The token numbers and merges of a tokenizer.json."""

    vocab: dict[str, object]
    added_tokens: dict[str, object]
    merges: object


def tokenizer_differences(first: Checkpoint, other: Checkpoint) -> list[str]:
    """List in what two tokenizers disagree about token numbers; empty where every token is the same in both."""
    differences = []
    left, right = _vocabulary(first), _vocabulary(other)
    if left is not None and right is not None:
        differences += list(_vocabulary_differences(left, right))
    elif (left is None) != (right is None) and has_tokenizer(first) and has_tokenizer(other):
        differences.append(f"tokenizer.json is only in {(first if left is not None else other).path}")
    elif left is right is None:
        differences += _added_differences(first, other)
    for name in first.side_files.carried:
        if matches(name, VOCABULARY) and _has(other, name) and _parsed(first, name) != _parsed(other, name):
            differences.append(f"{name} differs")
    return differences


def _added_differences(first: Checkpoint, other: Checkpoint) -> Iterator[str]:
    """Yield in which added tokens tokenizer_config.json differs, where both list them and have no tokenizer.json."""
    left, right = _added_tokens(first), _added_tokens(other)
    if left and right and left != right:
        yield f"tokenizer_config.json: {_different_entries('added tokens', left, right)}"


def _added_tokens(checkpoint: Checkpoint) -> dict[str, object]:
    """Return the numbers of the added tokens that tokenizer_config.json lists; nothing where it lists none."""
    if not _has(checkpoint, _TOKENIZER_CONFIG):
        return {}
    try:
        data = _content(checkpoint, _TOKENIZER_CONFIG)
        listed: Any = parse_json_object(data, _TOKENIZER_CONFIG, CheckpointError).get("added_tokens_decoder")
        return {str(token["content"]): number for number, token in (listed or {}).items()}
    except (CheckpointError, KeyError, TypeError, AttributeError):
        return {}


def _vocabulary_differences(left: _Vocabulary, right: _Vocabulary) -> Iterator[str]:
    tokens = (("vocab", left.vocab, right.vocab), ("added tokens", left.added_tokens, right.added_tokens))
    for part, ours, theirs in tokens:
        if ours != theirs:
            yield f"tokenizer.json: {_different_entries(part, ours, theirs)}"
    if left.merges != right.merges:
        yield "tokenizer.json: merges differ"


def _different_entries(part: str, ours: Mapping[str, object], theirs: Mapping[str, object]) -> str:
    """Say how many tokens have another number, and which: the first of them."""
    changed = sorted((token for token in {*ours, *theirs} if ours.get(token) != theirs.get(token)), key=str)
    shown = ", ".join(f"{token!r}: {ours.get(token)} and {theirs.get(token)}" for token in changed[:3])
    return f"{len(changed)} {part} entries differ ({shown}{', ...' if len(changed) > 3 else ''})"


def _vocabulary(checkpoint: Checkpoint) -> _Vocabulary | None:
    """Read what tokenizer.json says about token numbers (not its padding and truncation); None where there is none."""
    if not _has(checkpoint, "tokenizer.json"):
        return None
    try:
        whole: Any = parse_json(
            _content(checkpoint, "tokenizer.json"), checkpoint.path / "tokenizer.json", CheckpointError
        )
        vocab = whole["model"].get("vocab", {})
        pairs = vocab.items() if isinstance(vocab, dict) else ((entry[0], number) for number, entry in enumerate(vocab))
        added = {token["content"]: token["id"] for token in whole.get("added_tokens") or []}
        return _Vocabulary(dict(pairs), added, _pairs_of(whole["model"].get("merges")))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return _Vocabulary({}, {}, merges=_content(checkpoint, "tokenizer.json"))


def has_tokenizer(checkpoint: Checkpoint) -> bool:
    """Whether it has any file of a tokenizer."""
    return any(matches(name, TOKENIZER) for name in checkpoint.side_files.carried)


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
        if _names_a_template(tokenizer, _TOKENIZER_CONFIG) or any(
            matches(name, TEMPLATE) for name in tokenizer.side_files.carried
        ):
            lent["chat template"] = tokenizer
    for kind, patterns in _KINDS.items():
        if kind in lent or kind == _CODE:
            continue
        configs = (lent.get("tokenizer", lead), _TOKENIZER_CONFIG), (lent.get("processor", lead), _PROCESSOR_CONFIG)
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
        config = parse_json_object(_content(checkpoint, name), name, CheckpointError)
    except CheckpointError:
        return
    auto_map = config.get("auto_map")
    for value in auto_map.values() if isinstance(auto_map, dict) else ():
        for reference in value if isinstance(value, list) else [value]:
            if isinstance(reference, str) and "--" not in reference and reference.count(".") == 1:
                yield f"{reference.partition('.')[0]}.py"


def keeps_own_template(lead: Checkpoint, tokenizer: Checkpoint) -> bool:
    """Whether a soup would have the lead's chat template with another's tokenizer, which comes with another template.

    So it is where the lead's stands in its processor's config, which transformers looks into first.
    """
    kept = _named_template(lead, _PROCESSOR_CONFIG)
    if kept is None or tokenizer is lead:
        return False
    lent = [_named_template(tokenizer, name) for name in (_PROCESSOR_CONFIG, _TOKENIZER_CONFIG, "chat_template.json")]
    if _has(tokenizer, "chat_template.jinja"):
        lent.append(_content(tokenizer, "chat_template.jinja").decode("utf-8", "replace"))
    others = [text for text in lent if text is not None]
    return bool(others) and others[0] != kept


def _names_a_template(checkpoint: Checkpoint, name: str) -> bool:
    return _named_template(checkpoint, name) is not None


def _named_template(checkpoint: Checkpoint, name: str) -> object:
    """Return the chat template in a config of its tokenizer or processor, where older versions saved it, or None."""
    if not _has(checkpoint, name):
        return None
    try:
        return parse_json_object(_content(checkpoint, name), name, CheckpointError).get("chat_template")
    except CheckpointError:
        return None


def _pairs_of(merges: object) -> object:
    """Give BPE merges as pairs: tokenizers 0.19 and before wrote `"a b"`, later ones write `["a", "b"]`."""
    if not isinstance(merges, list):
        return merges or []
    return [pair.split(" ") if isinstance(pair, str) else pair for pair in merges]


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
    left, right = _content(first, name), _content(other, name)
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


def _parsed(checkpoint: Checkpoint, name: str) -> object:
    """Read a vocabulary file, without its spaces and line ends."""
    data = _content(checkpoint, name)
    if name.endswith(".json"):
        return parse_json(data, checkpoint.path / name, CheckpointError)
    return data.split() if name.endswith((".txt", ".bpe", ".codes", ".tiktoken")) else data


def _content(checkpoint: Checkpoint, name: str) -> bytes:
    return read_text(checkpoint.path / name, CheckpointError, MAX_SIDE_FILE_BYTES)


def config_for(data: bytes, tensors: Sequence[TensorSpec], *, untied: bool = False) -> bytes:
    """Set the dtype in `config.json` to what is written, and leave out a quantisation: what is merged has none.

    Args:
        data: The content of the file.
        tensors: The tensors of the checkpoint that it is for.
        untied: Whether the output layer is not tied to the embeddings, whatever the file says.

    Returns:
        The content with every `dtype` (or older `torch_dtype`) set, where all floating tensors have the same; a file
        that says so already keeps its bytes.
    """
    names = {spec.dtype.name for spec in tensors if spec.dtype.kind == "float" and not spec.is_frequencies}
    try:
        config = parse_json_object(data, "config.json", CheckpointError)
    except CheckpointError:
        return data
    changed = [_remove_quantisation(config), len(names) == 1 and _set_dtype(config, names.pop())]
    changed.append(untied and untie_config(config))
    if not any(changed):
        return data
    return (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()


def _set_dtype(config: dict[str, object], name: str) -> bool:
    """Set every dtype in a config and in the configs within it; returns whether something changed."""
    changed = False
    for key, value in config.items():
        if key in ("dtype", "torch_dtype") and isinstance(value, str) and value.removeprefix("torch.") != name:
            config[key], changed = name, True
        elif isinstance(value, dict):
            changed = _set_dtype(value, name) or changed
    return changed


def _remove_quantisation(config: dict[str, object]) -> bool:
    """Remove the quantisation from a config and from the configs within it; returns whether there was one."""
    quantisations = list(quantisations_in(config))
    for part, key in quantisations:
        del part[key]
    return bool(quantisations)
