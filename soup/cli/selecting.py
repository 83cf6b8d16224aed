"""The command that chooses data sets by what they do for the base set."""

from __future__ import annotations

from pathlib import Path

import click
import cloup

from soup.cli.options import (
    Command,
    GroupedOption,
    Values,
    carrier_options,
    compose_options,
    dry_run_option,
    json_option,
)
from soup.cli.training import needs_extra, study_progress
from soup.evaluation.config import EvalConfig

__all__ = ["selecting_commands"]


@click.command("select", cls=Command, example="soup select pool.yaml --eval python:mine.py:score --dry-run")
@cloup.argument("pool", type=click.Path(dir_okay=False, path_type=Path), help="The pool's YAML file.")
@compose_options(
    GroupedOption.of(
        "Search",
        "--accept",
        default="gt",
        show_default=True,
        metavar="ge|gt|p>X",
        help="Keep a data set whose model is as good as that of the base set alone, better, or better with that "
        "probability.",
    ),
    *carrier_options(EvalConfig, without=("questions",)),
    json_option,
    dry_run_option,
)
def select(values: Values) -> None:
    """Keep the added data sets that help the base set.

    Each is tried alone: k + 1 trainings. What helps joins the base set of a new pool; the rest is left to be souped.
    """
    from soup.cli.console import open_board, print_json, print_line, print_plan, print_rows

    with needs_extra():
        from finetune.study.select import Selector
    with open_board(values) as board:
        selector = Selector(values["pool"], values.carrier(EvalConfig), values["accept"], study_progress(board))
        result = None if values["dry_run"] else selector.run()
    if result is None:
        print_plan(selector.plan(), as_json=values["as_json"])
    elif values["as_json"]:
        print_json(result.as_json())
    else:
        print_rows(["data set", "overall", "beside the base set alone", ""], result.lines(), right=[1])
        print_line(f"the base set alone: {result.base.overall:.2f}")
        alone = "; nothing is left to be souped: it trains one model"
        print_line(f"{result.pool}: the new pool{'' if result.rest else alone}")
        if result.study:
            print_line(f"soup study {result.study} makes the soups of the rest")


selecting_commands = [select]
