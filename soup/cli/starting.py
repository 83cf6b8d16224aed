"""The commands of the first minute: a soup of tiny models, and what is here."""

from __future__ import annotations

import io
import shlex
import sys
from contextlib import redirect_stdout
from pathlib import Path

import click
import cloup

from soup.cli.options import Command, GroupedOption, Values, compose_options, dry_run_option, json_option

__all__ = ["WELCOME", "starting_commands"]

WELCOME = """\
soup {version}: from a folder of fine-tunes of a vision-language model to one better model of the same size,
by averaging the weights of those that help each other.

  soup demo      a scored soup of tiny models, in seconds: no network, no training
  soup doctor    what is here, and the line that installs each thing that is not
  soup greedy --pool ckpts/ --eval mmbench,ocrbench -o out/    a soup of your own fine-tunes

soup --help lists all commands."""
EVAL = ("--eval", "demo:colour,shape,place", "--split", "0.5")


@click.command("demo", cls=Command, example="soup demo")
@cloup.argument(
    "folder",
    default="soup-demo",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where everything goes. [default: soup-demo]",
)
@compose_options(dry_run_option, json_option)
def demo(values: Values) -> None:
    """Make a scored soup of tiny models.

    Real checkpoints of a tiny LLaVA, solved for in one step and not trained; pictures and questions drawn on the spot;
    and the commands that you would type, which are shown and run. Nothing but what soup itself needs has to be here.
    """
    from soup.cli.console import open_board, print_json, print_line
    from soup.demo.family import write_family
    from soup.report.page.document import directory_table

    folder, run_command = values["folder"], click.get_current_context().find_root().command.main
    *searches, report = commands = _demo_commands(folder)
    if values["dry_run"]:
        typed = [shlex.join(["soup", *words]) for words in commands]
        if values["as_json"]:
            print_json({"schema": 1, "folder": str(folder), "commands": typed})
        else:
            print_line(
                "\n".join([f"A base and five fine-tunes of it would go into {folder}/, and then:", *typed]), keep="\n"
            )
        return
    with open_board(values) as board:
        board.say(f"A base and five fine-tunes of it, in {folder}/ ...")
        write_family(folder / "base", folder / "ckpts")
    loudness = [f"--{name}" for name in ("quiet", "verbose") if values[name]]
    talk = io.StringIO() if values["quiet"] else sys.stderr
    for words in (*searches, report):
        print(f"\n$ {shlex.join(['soup', *words])}", file=talk, flush=True)
        with redirect_stdout(sys.stdout if words == report and not values["as_json"] else talk):
            run_command([*words, *loudness], standalone_mode=False)
    page = folder / "report.html"
    if values["as_json"]:
        table = directory_table(folder / "ckpts.soup")
        print_json({**table.as_json(), "out": str(folder / "greedy"), "page": str(page)})
        return
    print_line(f"\nThe page of this run: {page.absolute()}", keep="\n")
    print_line("Next: soup greedy --pool YOUR_FINE_TUNES/ --eval mmbench,ocrbench -o out/")


def _demo_commands(folder: Path) -> list[list[str]]:
    """Return what the demo runs, in words; the last one shows the answer."""
    base, run = str(folder / "base"), str(folder / "ckpts.soup")
    pool = ("--pool", str(folder / "ckpts"), "--base", base)
    return [
        ["check", *pool, "--run-dir", run],
        ["eval", base, *EVAL, "--run-dir", run],
        ["average", *pool, *EVAL, "-o", str(folder / "average")],
        ["greedy", *pool, *EVAL, "-o", str(folder / "greedy")],
        ["report", run, "--html", str(folder / "report.html")],
    ]


@click.command("doctor", cls=Command, example="soup doctor")
@compose_options(
    GroupedOption.of(
        "Output",
        "--run-dir",
        type=click.Path(path_type=Path),
        default=Path(),
        metavar="DIR",
        help="Where a run's work would live. [default: here]",
    ),
    json_option,
)
def doctor(values: Values) -> None:
    """Say what is here, and how to get what is not.

    Versions, devices, extras, benchmarks' data, disks, locks; below what is absent, the line that mends it.
    """
    from soup.cli.console import open_board, print_json, print_rows
    from soup.report.doctor import examine

    with open_board(values):
        findings = examine(values["run_dir"])
    if values["as_json"]:
        print_json({"schema": 1, "findings": [finding.as_json() for finding in findings]})
        return
    rows = []
    for finding in findings:
        rows.append([finding.subject, finding.state, finding.text])
        rows += [["", "", f"  {finding.mend}"]] if finding.mend else []
    print_rows(["looked at", "state", ""], rows)


starting_commands = [demo, doctor]
