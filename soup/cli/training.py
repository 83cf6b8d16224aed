"""The commands that train: fine-tunes, whole studies."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
import cloup

from soup.cli.options import (
    Command,
    GroupedOption,
    Values,
    compose_options,
    dry_run_option,
    json_option,
)
from soup.errors import FinetuneError
from soup.support.extras import install_line
from soup.support.text import pluralize

if TYPE_CHECKING:
    from finetune.launching.launch import LaunchProgress
    from finetune.study.seed_run import StudyProgress
    from finetune.study.table import StudyTable
    from soup.board.board import Board

__all__ = ["launch_progress", "needs_extra", "study_progress", "training_commands"]


@contextmanager
def needs_extra() -> Iterator[None]:
    """Around the imports of a command: tell which package is missing, and how to install it.

    Raises:
        FinetuneError: a package that training needs is not there.
    """
    try:
        yield
    except ImportError as error:
        raise FinetuneError(f"This command needs {error.name}: {install_line(error.name or '', 'finetune')}") from error


@click.command("finetune", cls=Command, example="soup finetune pool.yaml")
@cloup.argument("config", type=click.Path(dir_okay=False, path_type=Path), help="The pool's YAML file.")
@compose_options(
    GroupedOption.of(
        "Pool",
        "--executor",
        metavar="local|slurm|ray[:ADDRESS]",
        help="Where jobs run. [default: `executor` in the file, else local]",
    ),
    GroupedOption.of(
        "Output", "--check", is_flag=True, help="Look through all rows of all data sets, say what is wrong, and stop."
    ),
    GroupedOption.of(
        "Output", "--decode", is_flag=True, help="With --check: decode every picture in full, not its header alone."
    ),
    GroupedOption.of(
        "Output",
        "--bad-rows",
        metavar="FILE",
        type=click.Path(dir_okay=False, path_type=Path),
        help="With --check: write all bad rows there, one JSON object a line.",
    ),
    GroupedOption.of(
        "Output",
        "--show",
        metavar="N",
        type=click.IntRange(min=1),
        help="With --check: print N rows of each data set as the model sees them, what is learnt in brackets.",
    ),
    GroupedOption.of("Output", "--status", is_flag=True, help="Print how far the jobs are, and stop."),
    GroupedOption.of(
        "Output",
        "--plot",
        metavar="FILE",
        type=click.Path(dir_okay=False, path_type=Path),
        help="With --status: draw the curves of all jobs into a png, svg or pdf file.",
    ),
    GroupedOption.of(
        "Output",
        "--init",
        metavar="DATA",
        type=click.Path(file_okay=False, exists=True, path_type=Path),
        help="Write a commented CONFIG from a folder of data sets, and stop.",
    ),
    dry_run_option,
    json_option,
)
def finetune(values: Values) -> None:
    """Train one model per added data set.

    Over the devices that there are; typed again, it goes on.
    """
    if values["check"] + values["status"] + values["dry_run"] + bool(values["init"]) > 1:
        raise click.UsageError("--check, --status, --dry-run and --init exclude each other")
    if (values["decode"] or values["bad_rows"] or values["show"]) and not values["check"]:
        raise click.UsageError("--decode, --bad-rows and --show go with --check")
    if values["show"] and values["as_json"]:
        raise click.UsageError("--show prints rows for people: leave --json out")
    if values["plot"] and not values["status"]:
        raise click.UsageError("--plot goes with --status")
    if values["init"]:
        _init(values)
    elif values["check"]:
        _check(values)
    elif values["status"]:
        _status(values)
    elif values["dry_run"]:
        _plan(values)
    else:
        _launch(values)


def _init(values: Values) -> None:
    from soup.cli.console import open_board, print_json, print_line

    with needs_extra():
        from finetune.launching.first_pool import write_first_pool
    with open_board(values) as board:
        pool = write_first_pool(values["init"], values["config"])
        for why in () if values["as_json"] else pool.left_out.values():
            board.warn(f"left out: {why}")
    added = list(pool.config.added)
    if values["as_json"]:
        print_json({"schema": 1, "config": str(values["config"]), "added": added, "left_out": dict(pool.left_out)})
    else:
        print_line(f"{values['config']}: {pluralize(len(added), 'data set')} to add; edit `start`, then --check it")


def _launch(values: Values) -> None:
    from soup.cli.console import open_board, print_json, print_line

    with needs_extra():
        from finetune.launching.launch import finetune
    with open_board(values) as board:
        checkpoints = finetune(
            values["config"],
            executor=values["executor"],
            progress=board.show_step,
            listener=launch_progress(board),
        )
    if values["as_json"]:
        print_json({"schema": 1, "checkpoints": [str(path) for path in checkpoints]})
    else:
        print_line("\n".join(map(str, checkpoints)), keep="\n")


def launch_progress(board: Board) -> LaunchProgress:
    """Return what the launcher tells, on this board."""
    with needs_extra():
        from finetune.launching.jobs_section import JobsSection
        from finetune.launching.launch import LaunchProgress

    return LaunchProgress(board.say, board.warn, lambda rows: board.show("jobs", JobsSection(rows)))


def study_progress(board: Board) -> StudyProgress:
    """Return what a study tells, on this board."""
    with needs_extra():
        from finetune.study.section import StudySection
        from finetune.study.seed_run import StudyProgress

    section = StudySection()

    def begin(stage: str) -> None:
        section.stage = stage
        board.start_stage()
        board.show("study", section)

    def show(table: StudyTable) -> None:
        section.table = table

    return StudyProgress(board.say, board.show_step, launch_progress(board), board.progress, begin, show)


def _status(values: Values) -> None:
    from soup.cli.console import open_board, print_json, print_rows

    with needs_extra():
        from finetune.launching.curves import draw_curves
        from finetune.launching.status import HEAD, cells, status, status_json
    if values["plot"]:
        draw_curves(values["config"], values["plot"])
    with open_board(values) as board:
        rows = status(values["config"])
        for row in rows:
            if row.why and not values["as_json"]:
                board.say(f"{row.name}: {row.why}")
    if values["as_json"]:
        print_json(status_json(rows))
    else:
        print_rows(HEAD, [cells(row, Path.cwd()) for row in rows])


def _plan(values: Values) -> None:
    from soup.cli.console import open_board, print_json, print_line, print_rows

    with needs_extra():
        from finetune.launching.dry_run import HEAD, details, plan_dry_run, rows
    with open_board(values) as board:
        plan = plan_dry_run(values["config"], executor=values["executor"])
        for remark in () if values["as_json"] else plan["remarks"]:
            board.warn(remark)
    if values["as_json"]:
        print_json(plan)
        return
    print_rows(HEAD, rows(plan), right=range(2, 8))
    for line in details(plan):
        print_line(line)


def _check(values: Values) -> None:
    from soup.cli.console import open_board, print_json, print_line, print_rows

    with needs_extra():
        from finetune.launching.data_check import COLUMNS, check
        from finetune.launching.shown_rows import show_rows
    shown = show_rows(values["config"], values["show"]) if values["show"] else ()  # what it lacks is told at once
    with open_board(values) as board:
        report = check(values["config"], board.show_rows, decode=values["decode"], faults_to=values["bad_rows"])
    if values["as_json"]:
        print_json(report.as_json())
    else:
        print_rows(COLUMNS, report.lines(), right=range(2, len(COLUMNS)))
        lines = [*(f"problem: {text}" for text in report.errors), *(f"note: {text}" for text in report.notes)]
        for text in shown:
            print_line(text + "\n", keep="\n")
        counts = f"{pluralize(len(report.errors), 'problem')}, {pluralize(len(report.notes), 'note')}"
        print_line("\n".join([*lines, counts]), keep="\n")
    if not report.ok:
        sys.exit(1)


@click.command("study", cls=Command, example="soup study study.yaml --dry-run")
@cloup.argument("study", type=click.Path(dir_okay=False, path_type=Path), help="The study's YAML file.")
@compose_options(
    GroupedOption.of(
        "Evaluate", "--judge-url", metavar="URL", help="Where the study's judge answers, if not where its file says."
    ),
    json_option,
    dry_run_option,
)
def study(values: Values) -> None:
    """Run a whole study.

    Fine-tune, evaluate, cook, compare; for every seed, resumable at every step.
    """
    from soup.cli.console import open_board, print_json, print_plan, print_table

    with needs_extra():
        from finetune.study.run import plan_study, run_study
    if values["dry_run"]:
        with open_board(values):
            plan = plan_study(values["study"], judge_url=values["judge_url"])
        print_plan(plan, as_json=values["as_json"])
        return
    with open_board(values) as board:
        table = run_study(values["study"], voice=study_progress(board), judge_url=values["judge_url"])
    if values["as_json"]:
        print_json(table.as_json())
    else:
        print_table(table.table(), "overall")


training_commands = [finetune, study]
