"""The options that commands share, and the words that they take: sizes, batch sizes, KEY=VALUE."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import click

__all__ = [
    "BatchSize",
    "Decorator",
    "Size",
    "compose_options",
    "dry_run_option",
    "eval_option",
    "json_option",
    "judge_options",
    "key_values",
    "method_options",
    "objective_options",
    "out_option",
    "out_options",
    "pool_options",
    "tensor_options",
]

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class Size(click.ParamType[int]):
    """A number of bytes: `5GB`, `500MB`, `2GiB`, `4096`."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number of bytes, from its text."""
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
        """The number, or the word."""
        return "auto" if value == "auto" else click.IntRange(min=1).convert(value, param, ctx)


def compose_options(*options: Decorator) -> Decorator:
    """Several options as one decorator, in the order given."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


pool_options = compose_options(
    click.option(
        "--pool",
        multiple=True,
        required=True,
        metavar="DIR|HUB_ID",
        help="A directory whose subdirectories are the ingredients; or repeated, each a checkpoint's directory or Hub "
        "id (organisation/name@revision).",
    ),
    click.option("--base", metavar="DIR|HUB_ID", help="The model that the ingredients were tuned from."),
    click.option("--exclude", multiple=True, metavar="NAME", help="Leave this ingredient of the pool out. Repeatable."),
)
tensor_options = compose_options(
    click.option("--dtype", metavar="DTYPE", help="Write this dtype (bfloat16, float16, float32, float64)."),
    click.option("--drop", multiple=True, metavar="PATTERN", help="Leave tensors out by name (* and ?). Repeatable."),
    click.option("--allow-nonfinite", is_flag=True, help="Merge NaN and infinity instead of refusing them."),
)
out_options = compose_options(
    click.option("--overwrite", is_flag=True, help="Replace an earlier soup at --out."),
    click.option(
        "--max-shard-size", type=Size(), metavar="SIZE", help="Lay the files out anew, at most so large (5GB)."
    ),
    click.option("--threads", type=click.IntRange(min=1), help="Threads that merge. [default: one a core, 2 to 8]"),
)
judge_options = compose_options(
    click.option(
        "--split", type=float, metavar="F", help="This share of the questions chooses, the rest only reports."
    ),
    click.option(
        "--run", metavar="DIR", help="Where journal, scratch and logs live. [default: beside the pool, DIR.soup]"
    ),
    click.option(
        "--model", default="auto", show_default=True, metavar="auto|vlmeval:CLASS|FILE.py:CLASS", help="What answers."
    ),
    click.option(
        "--batch-size", type=BatchSize(), default="auto", show_default=True, help="Questions at a time; auto finds it."
    ),
    click.option(
        "--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="Bound one evaluation."
    ),
    click.option(
        "--workers", type=click.IntRange(min=0), default=0, help="Processes that judge side by side, a GPU each."
    ),
    click.option(
        "--ray", metavar="ADDRESS|local", help="Judge on a Ray cluster, one actor a GPU (or --workers of them)."
    ),
    click.option("--trust-remote-code", is_flag=True, help="Run code that comes with a checkpoint."),
    click.option("--judge-url", metavar="URL", help="An endpoint that speaks OpenAI's chat completions, for grading."),
    click.option("--judge-model", metavar="NAME", help="The model there."),
    click.option(
        "--judge-key-env",
        default="OPENAI_API_KEY",
        show_default=True,
        metavar="VARIABLE",
        help="The environment variable that holds the endpoint's key.",
    ),
    click.option(
        "--judge-for",
        multiple=True,
        metavar="NAMES",
        help="Ask the judge for these benchmarks too, where matching finds no answer. Repeatable.",
    ),
)
EVAL_HELP = (
    "Benchmarks, comma-separated: opencompass or some of its eight (mmbench, mmstar, mmmu, mathvista, hallusionbench, "
    "ai2d, ocrbench, mmvet), lm_eval:TASK[@DIR], python:FILE.py:FUNCTION, command:TEMPLATE. Repeatable."
)
method_options = compose_options(
    click.option("--method", default="linear", show_default=True, metavar="NAME|FILE.py:CLASS", help="The arithmetic."),
    click.option("--param", "params", multiple=True, metavar="KEY=VALUE", help="For the method. Repeatable."),
)
objective_options = compose_options(
    click.option(
        "--weights", multiple=True, metavar="NAME=W", help="Weigh benchmarks in the overall: mmbench=2,ocrbench=1."
    ),
    click.option(
        "--guard", multiple=True, metavar="NAME>=M", help="ocrbench>=-1.0: at most 1.0 below the best single model."
    ),
)
eval_option = click.option("--eval", "evals", multiple=True, metavar="NAMES", help=EVAL_HELP)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
out_option = click.option("-o", "--out", metavar="DIR", help="Where the soup goes. [default: soups/STRATEGY]")


def key_values(pairs: Sequence[str], name: str = "--option") -> dict[str, Any]:
    """`KEY=VALUE` words, the values read as YAML.

    Raises:
        click.BadParameter: a word without `=`.
    """
    import yaml

    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise click.BadParameter(f"{pair!r}: expected KEY=VALUE", param_hint=name)
        found[key] = yaml.safe_load(value)
    return found
