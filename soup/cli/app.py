"""The command line: parse, call one function, print. stdout is the answer, stderr the talk."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from soup._version import __version__
from soup.cli.options import (
    Decorator,
    compose_options,
    dry_run_option,
    eval_option,
    json_option,
    judge_options,
    key_values,
    method_options,
    objective_options,
    out_option,
    out_options,
    pool_options,
    tensor_options,
)
from soup.cli.training import training_commands
from soup.errors import SoupError
from soup.support.text import pluralize

__all__ = ["cli", "main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="soup")
def cli() -> None:
    """Model soups of instruction-tuned vision-language models: merge, search, judge."""


def strategy_command(name: str, summary: str, *extra: Decorator) -> Decorator:
    """A command that cooks by one strategy: its own options, then those that all of them share."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        own: list[Decorator] = [pool_options, eval_option, *extra, out_option, out_options, tensor_options]
        shared = compose_options(*own, method_options, objective_options, judge_options, json_option, dry_run_option)
        return cli.command(name, help=summary)(shared(command))

    return decorate


@strategy_command("average", "The mean of all ingredients.")
def average(**given: Any) -> None:
    """Cook by the strategy `average`."""
    _cook("average", {}, **given)


@strategy_command(
    "maximum",
    "The mean of the best individuals.",
    click.option(
        "--top-p", type=click.IntRange(min=1), help="How many. [default: every number is tried, the best kept]"
    ),
)
def maximum(top_p: int | None, **given: Any) -> None:
    """Cook by the strategy `maximum`."""
    _cook("maximum", {"top_p": top_p}, **given)


@strategy_command(
    "greedy",
    "From the best individual on, add each ingredient that does not make the mean worse.",
    click.option(
        "--accept",
        default="ge",
        show_default=True,
        metavar="ge|gt|p>0.9",
        help="Admit what is as good, what is better, or what is better with that probability (paired bootstrap).",
    ),
)
def greedy(accept: str, **given: Any) -> None:
    """Cook by the strategy `greedy`."""
    _cook("greedy", {"accept": accept}, **given)


@strategy_command(
    "cook",
    "Any strategy: a built-in name, an installed plug-in, or FILE.py:FUNCTION.",
    click.option("--strategy", required=True, metavar="NAME|FILE.py:FUNCTION", help="The strategy."),
    click.option("--option", "pairs", multiple=True, metavar="KEY=VALUE", help="For the strategy. Repeatable."),
)
def cook(strategy: str, pairs: Sequence[str], **given: Any) -> None:
    """Cook by any strategy."""
    _cook(strategy, key_values(pairs), **given)


def _cook(strategy: str, options: dict[str, Any], **given: Any) -> None:
    from soup.cli.console import Console, print_table
    from soup.evaluation.objective import Objective
    from soup.report.tables import trials_table
    from soup.search.run import cook, plan_cook

    as_json, dry_run = given.pop("as_json"), given.pop("dry_run")
    settings = _settings(given)
    given["objective"] = Objective.parse(given.pop("weights"), given.pop("guard"))
    given["params"] = key_values(given["params"], "--param")
    given["eval"], given["max_shard_bytes"] = given.pop("evals"), given.pop("max_shard_size")
    given["pool"] = _places(given["pool"])
    if dry_run:
        with Console():
            plan = plan_cook(strategy, options=options, settings=settings, **given)
        _print_plan(plan, as_json)
        return
    with Console() as talk:
        soup = cook(strategy, options=options, settings=settings, listener=talk.listener, **given)
    document = soup.as_json()
    if as_json:
        _print_json(document)
        return
    if soup.trials:
        print_table(trials_table(document), "soup")
        if given["split"] is None:
            talk.say(
                "All questions chose this soup, so that its scores flatter it; --split 0.5 keeps half of them apart."
            )
    click.echo(f"{soup.out}: {soup}")


def _places(given: Sequence[str]) -> str | list[str]:
    return given[0] if len(given) == 1 else list(given)


def _settings(given: dict[str, Any]) -> Any:
    from soup.evaluation.api import EvalSettings

    return EvalSettings(
        model=given.pop("model"),
        batch_size=given.pop("batch_size"),
        timeout_seconds=given.pop("timeout"),
        trust_remote_code=given.pop("trust_remote_code"),
        judge_url=given.pop("judge_url"),
        judge_model=given.pop("judge_model"),
        judge_key_env=given.pop("judge_key_env"),
        judge_for=tuple(name.strip() for names in given.pop("judge_for") for name in names.split(",") if name.strip()),
    )


def _print_json(document: dict[str, Any]) -> None:
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def _print_plan(plan: dict[str, Any], as_json: bool) -> None:
    if as_json:
        _print_json(plan)
        return
    from soup.cli.console import print_rows
    from soup.support.text import format_bytes

    rows = []
    for key, value in plan.items():
        if key.endswith("_bytes"):
            rows.append([key.removesuffix("_bytes"), format_bytes(value)])
        elif key != "schema":
            rows.append([key, ", ".join(map(str, value)) if isinstance(value, list) else str(value)])
    print_rows(["plan", ""], rows)


@cli.command("merge")
@click.argument("recipe", type=click.Path(dir_okay=False, path_type=Path))
@click.option("-o", "--out", required=True, metavar="DIR", help="Where the soup goes.")
@out_options
@click.option("--allow-nonfinite", is_flag=True, help="Merge NaN and infinity instead of refusing them.")
@json_option
@dry_run_option
def merge(recipe: Path, out: str, as_json: bool, dry_run: bool, threads: int | None, **given: Any) -> None:
    """Make a recipe's soup, verifying the digests of its ingredients."""
    from soup.checkpoints.writer import refuse_destination
    from soup.cli.console import Console
    from soup.merging.block_loop import Options
    from soup.merging.merge import earlier_soup, merge, open_pool, plan_merge, refuse_inputs_as_output
    from soup.merging.plan import merge_plan
    from soup.merging.recipe import Recipe

    given["max_shard_bytes"] = given.pop("max_shard_size")
    wanted = Recipe.read(recipe)
    with open_pool(wanted) as pool:
        plan = plan_merge(wanted, pool, max_shard_bytes=given["max_shard_bytes"])
        if dry_run:
            refuse_inputs_as_output(pool, Path(out))
            if not earlier_soup(Path(out)):  # a soup may be this very one: that shows when the weights are read
                refuse_destination(Path(out), overwrite=given["overwrite"])
            _print_plan({"schema": 1, **merge_plan(plan, Path(out))}, as_json)
            return
        with Console() as talk:
            for text in pool.warnings(wanted.drop):
                talk.warn(text)
            talk.phase("merging", plan.read_bytes)
            made = merge(wanted, out, options=Options(threads=threads, progress=talk.progress), pool=pool, **given)
    if as_json:
        _print_json({"schema": 1, "out": out, "recipe": {"digest": made.digest, **made.model_dump(by_alias=True)}})
    else:
        click.echo(f"{out}: {' + '.join(made.names)} ({made.digest})")


@cli.command("eval")
@click.argument("checkpoints", nargs=-1, required=True)
@eval_option
@judge_options
@click.option("--allow-nonfinite", is_flag=True, help="Judge checkpoints that hold NaN or infinity.")
@json_option
def evaluate(checkpoints: Sequence[str], evals: Sequence[str], as_json: bool, **given: Any) -> None:
    """Score checkpoints, into the journal."""
    from soup.cli.console import Console, print_table
    from soup.report.tables import trials_table
    from soup.search.result import trial_json
    from soup.search.run import evaluate

    settings = _settings(given)
    with Console() as talk:
        trials = evaluate(checkpoints, eval=evals, settings=settings, listener=talk.listener, **given)
    document = {"schema": 1, "trials": [trial_json(trial) for trial in trials]}
    if as_json:
        _print_json(document)
    else:
        print_table(trials_table(document), "checkpoint")


@cli.command("check")
@pool_options
@tensor_options
@json_option
def check(pool: Sequence[str], base: str | None, exclude: Sequence[str], as_json: bool, **given: Any) -> None:
    """Do they belong together? Every mismatch, before a GPU hour is spent."""
    from soup.cli.console import Console
    from soup.report.inspection import check_pool

    with Console() as talk:
        found = check_pool(_places(pool), base, exclude, listener=talk.listener, **given)
    problems, names = found["problems"], found["ingredients"]
    if as_json:
        _print_json(found)
    else:
        for problem in problems:
            click.echo(f"problem: {problem}")
        verdict = "do not belong together" if problems else "belong together" if len(names) > 1 else "is all there is"
        counts = f"{pluralize(len(problems), 'problem')}, {pluralize(len(found['warnings']), 'warning')}"
        click.echo(f"{counts}: {', '.join(names)} {verdict}.")
    if problems:
        sys.exit(1)


@cli.command("inspect")
@click.argument("checkpoint")
@click.option("--tensors", is_flag=True, help="List every tensor.")
@click.option("--no-digest", is_flag=True, help="Read headers alone.")
@json_option
def inspect(checkpoint: str, tensors: bool, no_digest: bool, as_json: bool) -> None:
    """A checkpoint's tensors, dtypes, components, bytes and digest."""
    from soup.cli.console import Console, print_rows
    from soup.report.inspection import inspect_checkpoint
    from soup.support.text import format_bytes

    with Console() as talk:
        found = inspect_checkpoint(checkpoint, digest=not no_digest, listener=talk.listener)
    if as_json:
        _print_json(found)
        return
    rows = [
        [c["name"], f"{c['tensors']:,}", f"{c['elements']:,}", format_bytes(c["bytes"]), c["dtypes"]]
        for c in found["components"]
    ]
    print_rows(["component", "tensors", "parameters", "bytes", "dtypes"], rows, right=range(1, 4))
    if tensors:
        print_rows(
            ["tensor", "dtype", "shape", "file"],
            [[t["name"], t["dtype"], str(t["shape"]), t["file"]] for t in found["tensors"]],
        )
    for key in ("model_type", "quantised", "files", "side_files", "left_out", "digest"):
        if found.get(key):
            click.echo(
                f"{key.replace('_', ' ')}: {', '.join(found[key]) if isinstance(found[key], list) else found[key]}"
            )


@cli.command("report")
@click.argument("run", type=click.Path(file_okay=False, path_type=Path))
@json_option
def report(run: Path, as_json: bool) -> None:
    """Tables of a run: every single model, and every soup that came out of it."""
    from soup.cli.console import print_table
    from soup.report.tables import run_table

    table = run_table(run)
    if as_json:
        _print_json(table.as_json())
    else:
        for part, half in table.by_part().items():
            click.echo(f"{part} questions")
            print_table(half, "model")


@cli.command("list")
@click.argument("kind", type=click.Choice(["strategies", "methods", "evaluators", "benchmarks"]))
@click.option(
    "--fetch",
    multiple=True,
    metavar="NAMES",
    help="Download the data of these benchmarks, comma-separated. Repeatable.",
)
@json_option
def list_things(kind: str, fetch: Sequence[str], as_json: bool) -> None:
    """What there is: strategies, methods, evaluators, benchmarks and whether their data are here."""
    from soup.cli.console import Console, print_rows
    from soup.report.inspection import fetch_benchmarks, list_kind

    if fetch and kind != "benchmarks":
        raise click.UsageError("--fetch is for soup list benchmarks")
    with Console() as talk:
        for path in fetch_benchmarks(fetch, talk.listener) if fetch else ():
            talk.say(f"here: {path}")
        rows = list_kind(kind)
    if as_json:
        _print_json({"schema": 1, kind: rows})
        return
    hidden = ("path", "url", "why_not")
    shown = [{key: _cell(value) for key, value in row.items() if key not in hidden} for row in rows]
    print_rows(list(shown[0]), [[*row.values()] for row in shown])
    absent = [row for row in rows if row.get("path") and not Path(row["path"]).exists()]
    for row in rows:
        if row.get("why_not") and row not in absent:
            talk.say(row["why_not"])
    if absent:
        names = ",".join(row["name"] for row in absent)
        talk.say(f"Not here: soup list benchmarks --fetch {names} downloads into {Path(absent[0]['path']).parent}.")


def _cell(value: Any) -> str:
    words = {None: "", True: "yes", False: "no"}
    return words[value] if value is None or isinstance(value, bool) else str(value)


for command in training_commands:
    cli.add_command(command)


def main() -> None:
    """The console script: errors become text here, and nowhere else."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        cli.main(standalone_mode=False)
    except SoupError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    except click.UsageError as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:
        error.show()
        sys.exit(1)
    except (KeyboardInterrupt, click.Abort) as error:
        terminated = isinstance(error.__cause__ or error, _Terminated)  # click wraps what it meets
        click.echo("terminated" if terminated else "interrupted", err=True)
        sys.exit(143 if terminated else 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads on: no trace at exit
        sys.exit(1)
    except OSError as error:  # a disk, a permission: what no room above could say better
        click.echo(f"error: {error}", err=True)
        sys.exit(1)


class _Terminated(KeyboardInterrupt):
    """SIGTERM came. It unwinds like Ctrl-C, so that nothing half-written stays; a SystemExit is a harness's failure."""


def _terminated(number: int, frame: Any) -> None:
    raise _Terminated


if __name__ == "__main__":
    main()
