"""The commands that look at pools and checkpoints, and make a recipe's soup."""

from __future__ import annotations

import sys
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
    output_dir_option,
    plot_option,
    pool_options,
)
from soup.merging.options import MergeOptions, WriteOptions

__all__ = ["merging_commands"]

SHOWN = ("model_type", "adapter", "quantised", "files", "side_files", "left_out", "digest")
MOST_ROWS = 40
"""So many rows a table of a checkpoint's parts has."""


@click.command("merge", cls=Command, example="soup merge out/recipe.yaml -o again/")
@cloup.argument("recipe", type=click.Path(dir_okay=False, path_type=Path), help="A YAML file: a recipe, or mergekit's.")
@compose_options(
    *carrier_options(MergeOptions, "allow_nonfinite", "threads"),
    GroupedOption.of(
        "Merge", "--trust-code", is_flag=True, help="Run the recipe's own method, if it brings one: FILE.py:CLASS."
    ),
    output_dir_option,
    *carrier_options(WriteOptions),
    json_option,
    dry_run_option,
)
def merge(values: Values) -> None:
    """Make the soup of a recipe, or of mergekit's YAML.

    The digests of its ingredients are verified.
    """
    from soup.cli.console import open_board, print_json, print_line, show_plan
    from soup.search.merge import merge, plan_recipe

    recipe, out = values["recipe"], values["out"]
    options = values.carrier(MergeOptions, trust_code=values["trust_code"])
    write = values.carrier(WriteOptions)
    if values["dry_run"]:
        show_plan(values, lambda: plan_recipe(recipe, out, options, write))
        return
    with open_board(values) as board:
        sealed = merge(recipe, out, merge=options, write=write, progress=board.progress)
    if values["as_json"]:
        print_json({"schema": 1, "out": values["out"], "recipe": sealed.as_json()})
    else:
        print_line(f"{values['out']}: {' + '.join(sealed.names)} ({sealed.digest})")


@click.command("check", cls=Command, example="soup check --pool ckpts/ --base base/")
@compose_options(
    *pool_options,
    *carrier_options(MergeOptions, "dtype", "drop", "tokenizer", "allow_nonfinite"),
    GroupedOption.of(
        "Output",
        "--run-dir",
        type=click.Path(file_okay=False),
        metavar="DIR",
        help="Keep the result in this run directory, too, for soup report --html.",
    ),
    plot_option,
    json_option,
)
def check(values: Values) -> None:
    """Check whether the models of a pool belong together.

    Every mismatch is listed, before a GPU hour is spent.
    """
    from soup.cli.console import open_board, print_distances, print_json, print_line
    from soup.evaluation.run_directory import RunDirectory
    from soup.report.pool_check import check
    from soup.support.pictures import refuse_picture

    if values["plot"]:
        refuse_picture(values["plot"])
    if values["run_dir"]:
        RunDirectory.choose(values["run_dir"], ())
    with open_board(values) as board:
        report = check(
            values.pool,
            values["base"],
            values["exclude"],
            merge=values.carrier(MergeOptions),
            progress=board.progress,
        )
    if values["run_dir"]:
        report.keep(values["run_dir"])
    if values["plot"] and (report.distances or report.ok):
        report.plot(values["plot"])
    if values["as_json"]:
        print_json(report.as_json())
    else:
        if report.distances:
            print_distances(report.distances)
        for problem in report.problems:
            print_line(f"problem: {problem}", keep="\n")
        print_line(report.summary)
    if not report.ok:
        sys.exit(1)


@click.command("inspect", cls=Command, example="soup inspect ckpts/a")
@cloup.argument("checkpoint", help="A directory or a Hub id.")
@compose_options(
    GroupedOption.of("Output", "--tensors", is_flag=True, help="List every tensor."),
    GroupedOption.of("Output", "--no-digest", is_flag=True, help="Read headers alone."),
    GroupedOption.of(
        "Output", "--against", metavar="DIR|HUB_ID", help="Show where it moved from this base, by component and depth."
    ),
    plot_option,
    json_option,
)
def inspect(values: Values) -> None:
    """Show a checkpoint's tensors, dtypes and digest.

    And where it moved from its base, if that is given.
    """
    from soup.cli.console import cell, open_board, print_json, print_line, print_moves, print_rows
    from soup.report.checkpoint_report import inspect_checkpoint
    from soup.report.moves import measure_moves
    from soup.support.pictures import refuse_picture
    from soup.support.text import format_bytes

    if values["plot"] and not values["against"]:
        raise click.UsageError("--plot draws where a checkpoint moved: pass --against BASE, too.")
    if values["plot"]:
        refuse_picture(values["plot"])
    with open_board(values) as board:
        report = inspect_checkpoint(values["checkpoint"], digest=not values["no_digest"], progress=board.progress)
        base = values["against"]
        moves = measure_moves(values["checkpoint"], base, progress=board.progress) if base else None
    if moves and values["plot"]:
        moves.plot(values["plot"])
    if values["as_json"]:
        print_json(report.as_json() | ({"moves": moves.as_json()} if moves else {}))
        return
    rows = [
        [part.name, f"{part.tensors:,}", f"{part.elements:,}", format_bytes(part.bytes), part.dtypes]
        for part in report.components
    ]
    print_rows(["component", "tensors", "parameters", "bytes", "dtypes"], rows, right=range(1, 4), most=MOST_ROWS)
    if moves:
        print_moves(moves, most=MOST_ROWS)
    if values["tensors"]:
        rows = [[tensor.name, tensor.dtype, str(tensor.shape), tensor.file] for tensor in report.tensors]
        print_rows(["tensor", "dtype", "shape", "file"], rows)
    for name in SHOWN:
        if value := getattr(report, name):
            print_line(f"{name.replace('_', ' ')}: {cell(value)}")


merging_commands = [merge, check, inspect]
