"""The commands that choose a soup by a strategy and write it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from soup.cli.options import (
    Command,
    GroupedOption,
    Values,
    carrier_options,
    compose_options,
    dry_run_option,
    json_option,
    key_values,
    out_option,
    pool_options,
    run_dir_option,
)
from soup.evaluation.config import EvalConfig
from soup.evaluation.objective import Objective
from soup.merging.options import MergeOptions, WriteOptions

__all__ = ["search_commands"]

FLATTERED = "All questions chose this soup, so that its scores flatter it; --split 0.5 keeps half of them apart."


def _command(
    name: str, summary: str, example: str, *search_options: GroupedOption
) -> Callable[[Callable[..., None]], Command]:
    """Return a command that cooks by one strategy: its own options, then those that all of them share."""
    options = [
        *pool_options,
        *search_options,
        *carrier_options(MergeOptions),
        *carrier_options(EvalConfig),
        *carrier_options(Objective),
        out_option,
        run_dir_option,
        *carrier_options(WriteOptions),
        json_option,
        dry_run_option,
    ]

    def decorate(function: Callable[..., None]) -> Command:
        made: Command = click.command(name, cls=Command, help=summary, example=example)(
            compose_options(*options)(function)
        )
        return made

    return decorate


@_command("average", "The mean of all ingredients.", "soup average --pool ckpts/ -o out/")
def average(values: Values) -> None:
    """Cook by the strategy `average`."""
    _cook("average", {}, values)


@_command(
    "maximum",
    "The mean of the best individuals.",
    "soup maximum --pool ckpts/ --eval python:mine.py:score --top-k 2 -o out/",
    GroupedOption.of(
        "Search",
        "--top-k",
        type=click.IntRange(min=1),
        metavar="K",
        help="How many. [default: every number is tried, the best kept]",
    ),
)
def maximum(values: Values) -> None:
    """Cook by the strategy `maximum`."""
    _cook("maximum", {"top_k": values["top_k"]}, values)


@_command(
    "greedy",
    "Add each ingredient that does not make it worse.\n\n"
    "From the best individual on, ingredients are admitted with which the mean is at least as good.",
    "soup greedy --pool ckpts/ --eval python:mine.py:score -o out/",
    GroupedOption.of(
        "Search",
        "--accept",
        default="ge",
        show_default=True,
        metavar="ge|gt|p>X",
        help="Admit what is as good, what is better, or what is better with that probability (paired bootstrap).",
    ),
)
def greedy(values: Values) -> None:
    """Cook by the strategy `greedy`."""
    _cook("greedy", {"accept": values["accept"]}, values)


@_command(
    "cook",
    "Cook by any strategy, built in or yours.\n\nA built-in name, an installed plug-in, or FILE.py:FUNCTION.",
    "soup cook --strategy my.py:pick --pool ckpts/ --eval python:mine.py:score",
    GroupedOption.of("Search", "--strategy", required=True, metavar="NAME|FILE.py:FUNCTION", help="The strategy."),
    GroupedOption.of(
        "Search",
        "--strategy-arg",
        "strategy_args",
        multiple=True,
        metavar="KEY=VALUE",
        help="An argument of the strategy. Repeatable.",
    ),
)
def cook(values: Values) -> None:
    """Cook by any strategy."""
    _cook(values["strategy"], key_values(values["strategy_args"], "--strategy-arg"), values)


def _cook(strategy: str, strategy_args: dict[str, Any], values: Values) -> None:
    from soup.cli.console import open_board, print_json, print_line, print_table, show_plan
    from soup.report.tables import trials_table
    from soup.search.preparation import CookArguments
    from soup.search.run import plan_cook, run_cook

    arguments = CookArguments(
        strategy=strategy,
        pool=values.pool,
        out=values["out"],
        eval=values.carrier(EvalConfig, objective=values.carrier(Objective)),
        base=values["base"],
        exclude=values["exclude"],
        run_dir=values["run_dir"],
        strategy_args=strategy_args,
        merge=values.carrier(MergeOptions),
        write=values.carrier(WriteOptions),
    )
    if values["dry_run"]:
        show_plan(values, lambda: plan_cook(arguments))
        return
    with open_board(values) as board:
        soup = run_cook(arguments, board.progress)
    if values["as_json"]:
        print_json(soup.as_json())
        return
    if soup.trials:
        print_table(trials_table(soup.trials, soup), "soup")
        if values["split"] is None:
            board.say(FLATTERED)
    for note in soup.notes:
        print_line(note, keep="\n")
    print_line(f"{soup.out}: {soup}")


search_commands = [average, maximum, greedy, cook]
