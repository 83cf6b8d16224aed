"""The commands that score checkpoints, show scores, and list what can be named."""

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
    plot_option,
    run_dir_option,
)
from soup.evaluation.config import EvalConfig
from soup.evaluation.objective import Objective
from soup.merging.options import MergeOptions

__all__ = ["evaluating_commands"]

HIDDEN = ("path", "url", "can_fetch", "why_not")
"""Keys of a listing that its table leaves out."""


@click.command("eval", cls=Command, example="soup eval base/ ckpts/a --eval python:mine.py:score")
@cloup.argument("checkpoints", nargs=-1, required=True, help="Directories or Hub ids.")
@compose_options(
    *carrier_options(MergeOptions, "allow_nonfinite"),
    *carrier_options(EvalConfig, without=("questions",)),
    *carrier_options(Objective, "weights"),
    run_dir_option,
    json_option,
    dry_run_option,
)
def evaluate(values: Values) -> None:
    """Score checkpoints, into the journal."""
    from soup.cli.console import open_board, print_json, print_table, show_plan
    from soup.report.tables import trials_table
    from soup.search.evaluate import evaluate, plan_evaluate
    from soup.search.result import trial_as_json

    config = values.carrier(EvalConfig, objective=Objective.parse(values["weights"], ()))
    if values["dry_run"]:
        show_plan(values, lambda: plan_evaluate(values["checkpoints"], config, values["run_dir"]))
        return
    with open_board(values) as board:
        trials = evaluate(
            values["checkpoints"],
            eval=config,
            run_dir=values["run_dir"],
            merge=values.carrier(MergeOptions),
            progress=board.progress,
        )
    if values["as_json"]:
        print_json({"schema": 1, "trials": [trial_as_json(trial) for trial in trials]})
    else:
        print_table(trials_table(trials), "checkpoint")


@click.command(
    "sweep", cls=Command, example="soup sweep ckpts/a ckpts/b --eval python:mine.py:score --extrapolate 0.25"
)
@cloup.argument("a", help="A directory or Hub id: t = 0.")
@cloup.argument("b", help="The same: t = 1.")
@compose_options(
    GroupedOption.of(
        "Search",
        "--steps",
        type=click.IntRange(min=2),
        default=11,
        show_default=True,
        metavar="N",
        help="Points from A to B, both included.",
    ),
    GroupedOption.of(
        "Search",
        "--extrapolate",
        type=click.FloatRange(min=0),
        default=0.0,
        metavar="F",
        help="Go on beyond both ends by this share of the way.",
    ),
    GroupedOption.of(
        "Evaluate", "--no-loss", is_flag=True, help="Leave the loss of the reference answers out: scores alone."
    ),
    *carrier_options(MergeOptions, "tokenizer", "allow_nonfinite"),
    *carrier_options(EvalConfig, without=("questions",)),
    *carrier_options(Objective, "weights"),
    run_dir_option,
    plot_option,
    json_option,
    dry_run_option,
)
def sweep(values: Values) -> None:
    """Score the line from one model to another.

    (1 - t) A + t B, and the barrier between both: the largest dip below the straight line of their scores.
    """
    from soup.cli.console import open_board, print_json, print_sweep, show_plan
    from soup.report.sweep import SweepArguments, plan_sweep, run_sweep
    from soup.support.pictures import refuse_picture

    if values["plot"]:
        refuse_picture(values["plot"])
    config = values.carrier(EvalConfig, objective=Objective.parse(values["weights"], ()))
    arguments = SweepArguments(
        values["a"],
        values["b"],
        config,
        values["steps"],
        values["extrapolate"],
        values["run_dir"],
        values.carrier(MergeOptions),
        not values["no_loss"],
    )
    if values["dry_run"]:
        show_plan(values, lambda: plan_sweep(arguments))
        return
    with open_board(values) as board:
        result = run_sweep(arguments, board.progress)
    if values["plot"]:
        result.plot(values["plot"])
    if values["as_json"]:
        print_json(result.as_json())
    else:
        print_sweep(result)


@click.command("report", cls=Command, example="soup report ckpts.soup/ --html report.html")
@cloup.argument(
    "run", type=click.Path(file_okay=False, path_type=Path), help="The directory of a run, study, pool or arena."
)
@compose_options(
    GroupedOption.of(
        "Output",
        "--html",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Write a page that needs nothing else, and its numbers beside it (.json).",
    ),
    GroupedOption.of("Output", "--no-images", is_flag=True, help="Leave the images of questions out of the page."),
    GroupedOption.of("Output", "--csv", is_flag=True, help="Print the table as CSV."),
    GroupedOption.of("Output", "--markdown", is_flag=True, help="Print the table as Markdown."),
    json_option,
)
def report(values: Values) -> None:
    """Show a run's scores.

    Every single model, and every soup that came out of it. With --html a page of all that is known about them.
    """
    from soup.cli.arena import arena_report, print_arena
    from soup.cli.console import open_board, print_json, print_table
    from soup.evaluation.run_directory import Kind, directory_kind
    from soup.report.page.document import directory_document, directory_table
    from soup.report.page.render import refuse_page, write_report
    from soup.report.table_texts import as_csv, as_markdown

    if sum(values[form] for form in ("csv", "markdown", "as_json")) > 1:
        raise click.UsageError("--csv, --markdown and --json exclude each other")
    if values["html"]:
        refuse_page(values["html"])
    of_arena = arena_report(values["run"]) if directory_kind(values["run"]) == Kind.ARENA else None
    if values["html"]:
        document = of_arena[0] if of_arena else directory_document(values["run"], with_images=not values["no_images"])
        numbers = write_report(document, values["html"])
        with open_board(values) as board:
            board.say(f"{values['html']}, and its numbers in {numbers.name}")
    table = of_arena[1] if of_arena else directory_table(values["run"])
    if values["as_json"]:
        print_json(table.as_json())
    elif values["csv"] or values["markdown"]:
        click.echo((as_csv if values["csv"] else as_markdown)(table), nl=False)
    elif of_arena:
        print_arena(of_arena[0])
    else:
        for part, half in table.by_part().items():
            click.echo(f"{part} questions")
            print_table(half, "model")


@click.command("list", cls=Command, example="soup list methods")
@cloup.argument(
    "kind", type=click.Choice(["strategies", "methods", "evaluators", "engines", "benchmarks"]), help="What to list."
)
@compose_options(
    GroupedOption.of(
        "Evaluate",
        "--fetch",
        multiple=True,
        metavar="NAMES",
        help="Download the data of these benchmarks, comma-separated. Repeatable.",
    ),
    GroupedOption.of(
        "Evaluate",
        "--all",
        "is_all",
        is_flag=True,
        help="Benchmarks: also what harnesses know and do not list, VLMEvalKit's data sets by their own names.",
    ),
    json_option,
)
def list_things(values: Values) -> None:
    """List strategies, methods, evaluators, engines, benchmarks.

    Of benchmarks it tells whether their data are here.
    """
    from soup.cli.console import cell, open_board, print_json, print_line, print_rows
    from soup.evaluation.benchmark_data import fetch_benchmarks
    from soup.report.listing import list_kind, refused_by_reason

    if values["fetch"] and values["kind"] != "benchmarks":
        raise click.UsageError("--fetch is for soup list benchmarks")
    if values["is_all"] and values["kind"] != "benchmarks":
        raise click.UsageError("--all is for soup list benchmarks")
    with open_board(values) as board:
        for path in fetch_benchmarks(values["fetch"], board.progress) if values["fetch"] else ():
            board.say(f"here: {path}")
        rows = list_kind(values["kind"], is_all=values["is_all"])
    if values["as_json"]:
        print_json({"schema": 1, values["kind"]: rows})
        return
    refused = refused_by_reason(rows) if values["is_all"] else {}
    possible = [row for row in rows if row.get("why_not") not in refused]
    hidden = HIDDEN if any(row.get("broken") for row in rows) else (*HIDDEN, "broken")
    shown = [{key: cell(value) for key, value in row.items() if key not in hidden} for row in possible]
    if values["is_all"]:  # a name's copy in each row widens the table for nothing
        shown = [{**row, "source": row["source"].removeprefix(row["name"])} for row in shown]
    print_rows(list(shown[0]), [[*row.values()] for row in shown])
    absent = [row for row in rows if row.get("can_fetch") and row["path"] and not Path(str(row["path"])).exists()]
    if values["is_all"]:
        lines = [f"- {', '.join(names)}: {why}" for why, names in refused.items()]
        print_line("\n".join(["\nCan't be evaluated here:", *lines]), keep="\n")
        board.say(f"{len(absent)} are not here: soup list benchmarks --fetch NAME downloads one.")
        return
    for why in dict.fromkeys(str(row["why_not"]) for row in rows if row.get("why_not") and row not in absent):
        board.say(why)
    if absent:
        names = ",".join(str(row["name"]) for row in absent)
        folder = Path(str(absent[0]["path"])).parent
        board.say(f"Not here: soup list benchmarks --fetch {names} downloads into {folder}.")


evaluating_commands = [evaluate, sweep, report, list_things]
