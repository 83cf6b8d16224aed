"""Change an input so that it stays nearly what its reader expects: JSON, YAML, a header with its length."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator

import yaml

__all__ = ["WORDS", "mutate", "mutate_bytes"]

Bytes = Callable[[bytes], bytes]

# What stands in place of a value, as it is written.
ODD = (
    *("null", "true", "-1", "0", "1", "-0", "1e999", "-1e999", "NaN", "Infinity", "1.5", "9223372036854775808"),
    *("9" * 299, "9" * 301, "9" * 5000, '""', '"a"', '"\\ud800"', '"\\u0000"', '"\\u001b[31m"', '"a\\nb|c"', '"/"'),
    *('"../.."', '"@KEY"', '"{place}"', f'"{"n" * 300}"', "[]", "{}", "[[]]", "[null]", '[""]', '[{"a": 1}]'),
    *('{"": {}}', '{"a": 1, "a": 2}', '{"a": 1, "b": "2"}', f"{'[' * 120}{']' * 120}", f"{'[' * 3000}", "[1, 2]"),
    *('{"bytes": 5}', '{"path": {"path": null}}', '"file://["', '"data:,"', '"<image>"', '"((((a{9999999999}"'),
)
# What only YAML reads: aliases, tags, a date, keys that are no text.
ODD_YAML = (
    "*a",
    "&a [1]",
    "!!bool x",
    "!!int x",
    "!!set {a}",
    "2020-99-99",
    "{{}: 3}",
    "{1: 2, a: 3}",
    "0b",
    "1:2",
    "~",
)
WORDS = (*ODD, *ODD_YAML, '"', ":", ",", "{", "}", "[", "]", "\\", "\n", "\0", "- ", "? ", "<<: ", "---\n", "\ufeff")


def mutate(name: str, data: bytes, most_bytes: int, dice: random.Random, bytewise: Bytes) -> bytes:
    """Change an input of a target.

    Args:
        name: The target.
        data: The input.
        most_bytes: How long the outcome may be.
        dice: What chooses.
        bytewise: Changes bytes, of which it knows nothing.
    """
    if name == "header":
        length = int.from_bytes(data[:8], "little")
        text, rest = _mutate_text(data[8 : 8 + length], dice, bytewise), data[8 + length :]
        length = len(text) if dice.random() < 0.9 else dice.randrange(2**64)
        return (length.to_bytes(8, "little") + text + rest)[:most_bytes]
    if name in ("journal", "answers", "rows") and dice.random() < 0.7:
        lines = data.split(b"\n")
        number = dice.randrange(len(lines))
        lines[number] = _mutate_text(lines[number], dice, bytewise)
        return b"\n".join(lines)[:most_bytes]
    return _mutate_text(data, dice, bytewise, name in ("recipe", "finetune", "study"))[:most_bytes]


def _mutate_text(data: bytes, dice: random.Random, bytewise: Bytes, is_yaml: bool = False) -> bytes:
    value = _parsed(data, is_yaml) if dice.random() < 0.6 else None
    if not isinstance(value, list | dict):
        return bytewise(data)
    raw: list[str] = []
    for _ in range(dice.choice((1, 1, 2, 3))):
        _mutate_value(value, dice, raw)
    try:
        text = _block_text(value) if is_yaml and dice.random() < 0.7 else json.dumps(value, ensure_ascii=False)
    except (ValueError, TypeError, RecursionError):
        return bytewise(data)
    for number, written in enumerate(raw):
        text = text.replace(f'"@{number}@"', written).replace(f"'@{number}@'", written)
    return text.encode("utf-8", "surrogatepass")


def _block_text(value: object) -> str:
    """Format as YAML of lines, which its Python scanner reads several times faster than JSON in one."""
    text: str = yaml.dump(value, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=False)
    return text


def _parsed(data: bytes, is_yaml: bool) -> object:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        if not is_yaml:
            return None
    try:
        return yaml.load(data, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except Exception:  # as it says: yaml's of any kind
        return None


def _mutate_value(whole: list | dict, dice: random.Random, raw: list[str]) -> None:
    """Replace, remove, add, rename, copy or wrap one of the values within."""
    holders = list(_holders(whole))
    holder = dice.choice(holders)
    keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
    odd = f"@{len(raw)}@"
    act = dice.randrange(6) if keys else 1
    key = dice.choice(keys) if keys else None
    if act == 0:
        del holder[key]
    elif act == 1:
        raw.append(dice.choice(ODD if dice.random() < 0.8 else ODD_YAML))
        if isinstance(holder, dict):
            holder[dice.choice(("a", "", "base", "data", "path", "1"))] = odd
        else:
            holder.append(odd)
    elif act == 2:
        other = dice.choice(holders)
        holder[key] = json.loads(json.dumps(other, default=str)) if len(holders) < 200 else None
    elif act == 3 and isinstance(holder, dict):
        value = holder.pop(key)
        raw.append(dice.choice(('""', "1", '"\\ud800"', '"on"', '"a\\nb"', '"<<"', "null", f'"{"n" * 300}"')))
        holder[odd] = value
    elif act == 4:
        holder[key] = [holder[key]] if dice.random() < 0.5 else {"a": holder[key]}
    else:
        raw.append(dice.choice(ODD if dice.random() < 0.8 else ODD_YAML))
        holder[key] = odd


def _holders(value: object) -> Iterator[list | dict]:
    if isinstance(value, dict | list):
        yield value
        for item in value.values() if isinstance(value, dict) else value:
            yield from _holders(item)


def mutate_bytes(data: bytes, dice: random.Random) -> bytes:
    """Change some bytes: what stands in for libFuzzer's own mutations where there is no atheris."""
    changed = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 4))):
        at = dice.randrange(len(changed) + 1)
        act = dice.randrange(4)
        if act == 0:
            changed[at:at] = dice.choice(WORDS).encode("utf-8", "surrogatepass")
        elif act == 1:
            del changed[at : at + dice.randrange(1, 9)]
        elif act == 2:
            changed[at:at] = changed[dice.randrange(len(changed) + 1) :][: dice.randrange(64)]
        elif at < len(changed):
            changed[at] = dice.randrange(256)
    return bytes(changed)
