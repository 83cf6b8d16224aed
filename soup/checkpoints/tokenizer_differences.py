"""Whether two tokenizers give the same numbers to the same tokens, as far as their files tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from soup.checkpoints.carried_files import TOKENIZER, TOKENIZER_CONFIG, VOCABULARY, matches, read_side_file
from soup.checkpoints.reader import Checkpoint
from soup.errors import CheckpointError
from soup.support.json_text import parse_json, parse_json_object

__all__ = ["has_tokenizer", "tokenizer_differences"]


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
    both_carry = (name for name in first.side_files.carried if name in other.side_files.carried)
    vocabularies = [name for name in both_carry if matches(name, VOCABULARY)]
    return differences + [f"{name} differs" for name in vocabularies if _parsed(first, name) != _parsed(other, name)]


def _added_differences(first: Checkpoint, other: Checkpoint) -> Iterator[str]:
    """Yield in which added tokens tokenizer_config.json differs, where both list them and have no tokenizer.json."""
    left, right = _added_tokens(first), _added_tokens(other)
    if left and right and left != right:
        yield f"tokenizer_config.json: {_different_entries('added tokens', left, right)}"


def _added_tokens(checkpoint: Checkpoint) -> dict[str, object]:
    """Return the numbers of the added tokens that tokenizer_config.json lists; nothing where it lists none."""
    if TOKENIZER_CONFIG not in checkpoint.side_files.carried:
        return {}
    try:
        data = read_side_file(checkpoint.path / TOKENIZER_CONFIG)
        listed: Any = parse_json_object(data, TOKENIZER_CONFIG, CheckpointError).get("added_tokens_decoder")
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
    if "tokenizer.json" not in checkpoint.side_files.carried:
        return None
    try:
        whole: Any = parse_json(
            read_side_file(checkpoint.path / "tokenizer.json"), checkpoint.path / "tokenizer.json", CheckpointError
        )
        vocab = whole["model"].get("vocab", {})
        pairs = vocab.items() if isinstance(vocab, dict) else ((entry[0], number) for number, entry in enumerate(vocab))
        added = {token["content"]: token["id"] for token in whole.get("added_tokens") or []}
        return _Vocabulary(dict(pairs), added, _pairs_of(whole["model"].get("merges")))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return _Vocabulary({}, {}, merges=read_side_file(checkpoint.path / "tokenizer.json"))


def has_tokenizer(checkpoint: Checkpoint) -> bool:
    """Whether it has any file of a tokenizer."""
    return any(matches(name, TOKENIZER) for name in checkpoint.side_files.carried)


def _parsed(checkpoint: Checkpoint, name: str) -> object:
    """Read a vocabulary file, without its spaces and line ends."""
    data = read_side_file(checkpoint.path / name)
    if name.endswith(".json"):
        return parse_json(data, checkpoint.path / name, CheckpointError)
    return data.split() if name.endswith((".txt", ".bpe", ".codes", ".tiktoken")) else data


def _pairs_of(merges: object) -> object:
    """Give BPE merges as pairs: tokenizers 0.19 and before wrote `"a b"`, later ones write `["a", "b"]`."""
    if not isinstance(merges, list):
        return merges or []
    return [pair.split(" ") if isinstance(pair, str) else pair for pair in merges]
