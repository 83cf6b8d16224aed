"""Options as dataclass fields: one definition gives Python's argument, the command line's option and its help.

    @dataclass(frozen=True)
    class WriteOptions:
        overwrite: bool = option(False, "Replace an earlier soup at --out.", "Output")

Errors call an option as the user typed it: `split` from Python, `--split` on the command line (`option_name`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from soup.errors import SoupError

__all__ = [
    "OptionInfo",
    "option",
    "option_name",
    "options_of",
    "refuse_wrong_type",
    "speak_in_flags",
    "speaks_in_flags",
]

T = TypeVar("T")

Group = Literal["Pool", "Search", "Merge", "Evaluate", "Output"]
Kind = Literal["text", "flag", "count", "number", "size", "batch size", "texts", "names", "pairs"]

METADATA_KEY = "option"
SHORT = {"out": "-o"}

_speaks_in_flags = False


@dataclass(frozen=True)
class OptionInfo:
    """What the command line says about a field.

    Args:
        help: One sentence.
        group: Under which heading of `--help` it stands.
        kind: How its text is read. `texts`, `names` (comma-separated, too) and `pairs` (KEY=VALUE) may be repeated.
        flag: Its name there, if it is not the field's.
        metavar: What stands for its value in the help.
        minimum: The least number that it may be.
        above_minimum: Whether that number itself is left out.
        bare: Its value where it stands without one; None: it needs one.
    """

    help: str
    group: Group
    kind: Kind = "text"
    flag: str | None = None
    metavar: str | None = None
    minimum: float | None = None
    above_minimum: bool = False
    bare: str | None = None


def option(default: T, help: str, group: Group, kind: Kind = "text", **details: Any) -> T:
    """Return a dataclass field that the command line offers as an option; `details` as in `OptionInfo`."""
    metadata = {METADATA_KEY: OptionInfo(help, group, kind, **details)}
    if isinstance(default, dict):
        # No part of the hash, which a dict has none of: carriers may be keys all the same.
        made: T = field(default_factory=lambda: dict(default), metadata=metadata, hash=False)  # type: ignore[assignment]  # T is dict
        return made
    return field(default=default, metadata=metadata)


def options_of(carrier: type[Any]) -> dict[str, tuple[Any, OptionInfo]]:
    """Return the fields of a dataclass that are options: name -> default and description."""
    options = {}
    for entry in dataclasses.fields(carrier):
        if METADATA_KEY in entry.metadata:
            factory = entry.default_factory
            default = entry.default if factory is dataclasses.MISSING else factory()
            options[entry.name] = default, entry.metadata[METADATA_KEY]
    return options


def speak_in_flags(yes: bool = True) -> None:
    """Have errors name options as the command line does, or as Python does again; all threads of the process."""
    global _speaks_in_flags
    _speaks_in_flags = yes


def speaks_in_flags() -> bool:
    """Whether this process is the command line."""
    return _speaks_in_flags


def option_name(name: str, flag: str | None = None) -> str:
    """Return an option as its user typed it: `max_shard_bytes` in Python, `--max-shard-size` on the command line.

    Args:
        name: The parameter's name in Python.
        flag: The option's name on the command line, if it is not the same.
    """
    if not _speaks_in_flags:
        return f"`{name}`"
    flag = flag or name.replace("_", "-")
    return f"{SHORT[flag]}/--{flag}" if flag in SHORT else f"--{flag}"


def refuse_wrong_type(
    values: Mapping[str, object], kinds: Mapping[str, type | tuple[type, ...]], error: type[SoupError]
) -> None:
    """Refuse arguments of another type than expected, all of them at once, in Python's words.

    Raises:
        SoupError: of the class `error`.
    """
    wrong = [
        f"{name}: expected {_type_names(kinds[name])}, found {value!r:.80} ({type(value).__name__})"
        for name, value in values.items()
        if not isinstance(value, kinds[name])
    ]
    if wrong:
        raise error("\n".join(wrong))


def _type_names(kinds: type | Iterable[type]) -> str:
    names = [kind.__name__ for kind in ([kinds] if isinstance(kinds, type) else kinds)]
    return " or ".join("None" if name == "NoneType" else name for name in names)
