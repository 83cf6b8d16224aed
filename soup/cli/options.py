"""From the fields of option dataclasses to options of the command line, in groups; and the values that come back."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

import click
import cloup

from soup.errors import RecipeError
from soup.evaluation.objective import Objective
from soup.support.options import Group, OptionInfo, options_of

__all__ = [
    "BatchSize",
    "Command",
    "GroupedOption",
    "Size",
    "Values",
    "base_option",
    "carrier_options",
    "compose_options",
    "dry_run_option",
    "json_option",
    "key_values",
    "out_option",
    "output_dir_option",
    "plot_option",
    "pool_options",
    "run_dir_option",
]

T = TypeVar("T")
Decorator = Callable[[Callable[..., None]], Callable[..., None]]

GROUPS: tuple[Group, ...] = get_args(Group)

MORE_HELP = {
    "--eval": " Ships: opencompass or some of its eight (mmbench, mmstar, mmmu, mathvista, hallusionbench, ai2d, "
    "ocrbench, mmvet), lm_eval:TASK[@DIR], grounding:FILE[@CONVENTION], arena:RUN[@BASELINE], python:FILE.py:FUNCTION, "
    "command:TEMPLATE.",
    "--model": " vlmeval:CLASS is VLMEvalKit's wrapper.",
}
"""What the command line adds to an option's help: the core names no harness."""


class Size(click.ParamType[int]):
    """A number of bytes: `5GB`, `500MB`, `2GiB`, `4096`."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number of bytes, from its text."""
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(I?)B?", value.strip().upper())
        step = 1024 if match and match[3] else 1000
        size = int(float(match[1]) * step ** " KMGT".index(match[2] or " ")) if match else 0
        return size or self.fail(f"{value!r} is no size; expected e.g. 5GB or 500MB", param, ctx)


class BatchSize(click.ParamType[int | str]):
    """A number from 1, or `auto`."""

    name = "auto|N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Return the number, or the word."""
        return "auto" if value == "auto" else click.IntRange(min=1).convert(value, param, ctx)


@dataclass(frozen=True)
class Values:
    """What was typed, by parameter: options of dataclasses come back as the dataclass."""

    typed: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.typed[name]

    def carrier(self, kind: type[T], **others: object) -> T:
        """Return the option dataclass, from what was typed for its fields.

        Args:
            kind: The dataclass; fields that the command does not offer keep their defaults.
            others: Fields that are no options.

        Raises:
            SoupError: values that the dataclass refuses.
        """
        values = {
            name: _value(self.typed[name], info) for name, (_, info) in options_of(kind).items() if name in self.typed
        }
        if kind is Objective:
            return cast("T", Objective.parse(values["weights"], values["guards"]))
        return kind(**values, **others)

    @property
    def pool(self) -> str | list[str]:
        """The pool: one directory, or checkpoints one by one."""
        locations = list(self.typed["pool"])
        return locations[0] if len(locations) == 1 else locations


class Command(cloup.Command):
    """A command with options in groups and an example, whose function gets its `Values`.

    `--pool a b c` is `--pool a --pool b --pool c`, so that a shell's `ckpts/*` can follow it.
    """

    def __init__(self, *args: Any, example: str, **settings: Any) -> None:
        super().__init__(*args, epilog=f"\b\nExample:\n  {example}", **settings)
        self.example = example

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take what follows `--pool` as more of the pool."""
        try:
            return super().parse_args(ctx, list(_repeated("--pool", args)))
        except click.NoSuchOption as error:
            options = [name for param in self.params for name in param.opts]
            close = [name for name in options if _is_close(error.option_name, name)]
            raise click.NoSuchOption(error.option_name, error.message, close, ctx) from error

    def invoke(self, ctx: click.Context) -> None:
        """Call the command's function with what was typed."""
        assert self.callback is not None
        if ctx.params["quiet"] and ctx.params["verbose"]:
            raise click.UsageError("--quiet and --verbose exclude each other")
        ctx.invoke(self.callback, Values(ctx.params))


def _is_close(typed: str, name: str) -> bool:
    """Whether an option may be meant by what was typed; its dashes, which all have, make `--pool` no `--model`."""
    return bool(get_close_matches(typed.strip("-"), [name.strip("-")]))


def _repeated(option: str, words: Sequence[str]) -> Iterable[str]:
    """Return the words with the option repeated before each word that follows its value."""
    follows = False
    for number, word in enumerate(words):
        is_first = number > 0 and words[number - 1] == option
        if word == "--":
            yield from words[number:]
            return
        if word.startswith("-") and len(word) > 1:
            follows = word.partition("=")[0] == option
        elif follows and not is_first:
            yield option
        yield word


@dataclass(frozen=True)
class GroupedOption:
    """An option, and the heading of `--help` under which it stands."""

    group: Group
    option: Decorator

    @classmethod
    def of(cls, group: Group, *names: str, **details: Any) -> GroupedOption:
        """Return an option by click's own words."""
        return cls(group, cloup.option(*names, **details))


loudness_options = [
    GroupedOption.of("Output", "--quiet", is_flag=True, help="On stderr, print warnings and errors alone."),
    GroupedOption.of(
        "Output", "--verbose", is_flag=True, help="Print each evaluation and its scores as they come, above the board."
    ),
]
"""What all commands have: how much they tell on the way."""


def compose_options(*options: GroupedOption) -> Decorator:
    """One decorator of several options, and of those that all commands have: group by group, in order within each."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        for group in reversed(GROUPS):
            if members := [entry.option for entry in (*options, *loudness_options) if entry.group == group]:
                function = cloup.option_group(group, *members)(function)
        return function

    return decorate


def carrier_options(carrier: type[Any], *names: str, without: Sequence[str] = ()) -> list[GroupedOption]:
    """Return the options of a dataclass.

    Args:
        carrier: The dataclass.
        names: The fields to offer; by default all that are options.
        without: Those of them that the command would ignore.
    """
    known = options_of(carrier)
    declared_first = sorted(known, key=lambda name: name not in carrier.__annotations__)  # before those of a parent
    return [_option(name, *known[name]) for name in (names or declared_first) if name not in without]


def _option(name: str, default: object, info: OptionInfo) -> GroupedOption:
    flag = f"--{info.flag or name.replace('_', '-')}"
    details: dict[str, Any] = {"help": info.help + MORE_HELP.get(flag, ""), "metavar": info.metavar}
    if info.kind == "flag":
        return GroupedOption.of(info.group, flag, name, is_flag=True, help=info.help)
    if info.kind in ("texts", "names", "pairs"):
        return GroupedOption.of(info.group, flag, name, multiple=True, **details)
    if info.bare is not None:
        details |= {"is_flag": False, "flag_value": info.bare}
    if default is not None:
        details |= {"show_default": True}
    return GroupedOption.of(info.group, flag, name, type=_type(info), default=default, **details)


def _type(info: OptionInfo) -> Any:
    least = info.minimum
    return {
        "count": click.IntRange(min=None if least is None else int(least)),
        "number": float if least is None else click.FloatRange(min=least, min_open=info.above_minimum),
        "size": Size(),
        "batch size": BatchSize(),
    }.get(info.kind, str)


def _value(typed: Any, info: OptionInfo) -> Any:
    if info.kind == "pairs":
        return key_values(typed, f"--{info.flag}")
    if info.kind == "names":
        return tuple(name.strip() for text in typed for name in text.split(",") if name.strip())
    return typed


def key_values(pairs: Sequence[str], flag: str) -> dict[str, Any]:
    """`KEY=VALUE` words, the values read as YAML.

    Raises:
        click.BadParameter: a word without `=`.
    """
    from soup.support.yaml_text import parse_yaml

    values = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise click.BadParameter(f"{pair!r}: expected KEY=VALUE", param_hint=flag)
        values[key] = parse_yaml(value, f"{flag} {key}", RecipeError)
    return values


base_option = GroupedOption.of(
    "Pool", "--base", metavar="DIR|HUB_ID", help="The model that the ingredients were tuned from."
)
pool_options = [
    GroupedOption.of(
        "Pool",
        "--pool",
        multiple=True,
        required=True,
        metavar="DIR|HUB_ID...",
        help="A directory whose subdirectories are the ingredients; or several, each a checkpoint's directory or Hub "
        "id (organisation/name@revision).",
    ),
    base_option,
    GroupedOption.of(
        "Pool",
        "--exclude",
        multiple=True,
        metavar="NAME",
        help="Leave this ingredient of the pool out, or several ('run-*'). Repeatable.",
    ),
]
out_option = GroupedOption.of(
    "Output", "-o", "--out", metavar="DIR", help="Where the soup goes. [default: soups/STRATEGY]"
)
output_dir_option = GroupedOption.of(
    "Output", "-o", "--out", required=True, metavar="DIR", help="Where the checkpoint goes."
)
run_dir_option = GroupedOption.of(
    "Output",
    "--run-dir",
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="Where journal, scratch and logs live. "
    "[default: DIR.soup beside the folder of the checkpoints, else pool.soup]",
)
plot_option = GroupedOption.of(
    "Output",
    "--plot",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Draw it into this png, svg or pdf file.",
)
json_option = GroupedOption.of("Output", "--json", "as_json", is_flag=True, help="Print one JSON document.")
dry_run_option = GroupedOption.of("Output", "--dry-run", is_flag=True, help="Print the plan and stop.")
