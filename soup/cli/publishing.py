"""The command that publishes a soup."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import cloup

from soup.cli.options import Command, GroupedOption, Values, compose_options, dry_run_option, json_option
from soup.errors import SoupError

__all__ = ["publishing_commands"]


@click.command("push", cls=Command, example="soup push out/ ORG/NAME --private --dry-run")
@cloup.argument("out", type=click.Path(path_type=Path), help="The soup.")
@cloup.argument("repository", help="ORG/NAME; it is made where it is not there.")
@compose_options(
    GroupedOption.of("Output", "--private", is_flag=True, help="Refuse a public repository, and make a private one."),
    GroupedOption.of("Output", "--pr", is_flag=True, help="Propose it: a pull request to a repository that is there."),
    GroupedOption.of("Output", "--revision", metavar="BRANCH", help="Push to this branch, and make it where needed."),
    GroupedOption.of(
        "Output",
        "--run-dir",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="The run whose report goes along. [default: the one beside the pool]",
    ),
    GroupedOption.of("Output", "--no-report", is_flag=True, help="Leave the run's report out."),
    json_option,
    dry_run_option,
)
def push(values: Values) -> None:
    """Publish a soup on the Hub.

    Weights, recipe, report (without the questions) and model card; no folder of this machine is in them. What is there
    already is not sent again.
    """
    from soup.checkpoints.hub_downloads import without_client_bars
    from soup.checkpoints.hub_upload import Target
    from soup.cli.console import open_board, print_json, print_line, print_rows
    from soup.report.push import Push
    from soup.support.text import format_bytes

    target = Target(values["repository"], values["private"], values["revision"], values["pr"])
    plan = Push.prepare(values["out"], target, values["run_dir"], with_report=not values["no_report"])
    sizes = plan.publication.sizes
    with open_board(values) as board:
        for remark in plan.publication.remarks:
            board.warn(remark)
    if values["dry_run"]:
        if values["as_json"]:
            print_json(plan.as_json())
            return
        print_rows(["file", "bytes"], [[name, format_bytes(count)] for name, count in sizes.items()], right=[1])
        print_line(f"left out: {', '.join(plan.publication.left_out) or 'nothing'}")
        print_line(f"\n{plan.publication.card}", keep="\n")
        return
    has_bars = sys.stderr.isatty() and not values["quiet"]  # the Hub's client draws them below the board's lines
    with open_board(values) as board:
        try:
            with without_client_bars(hidden=not has_bars):
                pushed = plan.run(lambda name: board.say(f"{name}: {format_bytes(sizes[name])}"))
        except SoupError:
            if has_bars:
                board.say("")  # below a bar that was cut
            raise
        for name in pushed.upload.removed:
            board.say(f"removed from {target.repository}: {name}")
    if values["as_json"]:
        print_json(pushed.as_json())
    else:
        print_line(f"{target.repository}@{pushed.upload.commit}: {pushed.upload.url}")


publishing_commands = [push]
