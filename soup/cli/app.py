"""The command line: parse, call one function, print. stdout is the answer, stderr the rest."""

from __future__ import annotations

import os
import signal
import stat
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType

import click
import cloup

from soup._version import __version__
from soup.cli.arena import arena_commands
from soup.cli.base_models import base_model_commands
from soup.cli.data import data_commands
from soup.cli.evaluating import evaluating_commands
from soup.cli.merging import merging_commands
from soup.cli.options import Command
from soup.cli.publishing import publishing_commands
from soup.cli.searching import search_commands
from soup.cli.selecting import selecting_commands
from soup.cli.starting import WELCOME, starting_commands
from soup.cli.training import training_commands
from soup.errors import SoupError
from soup.support.extras import missing_extra
from soup.support.options import speak_in_flags, speaks_in_flags
from soup.support.text import printable

__all__ = ["cli", "main"]

SECTIONS = {
    "Start": ["demo", "doctor"],
    "Look at what there is": ["check", "inspect", "list"],
    "Choose and merge": ["average", "maximum", "greedy", "cook", "merge"],
    "Evaluate and publish": ["eval", "sweep", "arena", "report", "push"],
    "Make a pool": ["data", "finetune", "select", "study", "assemble", "convert-points"],
}

STOPS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
"""Signals that end a command, and the word that says so."""
if hasattr(signal, "SIGHUP"):  # when a terminal is closed, or its line breaks; Windows has none
    STOPS[signal.SIGHUP] = "hung up"


@cloup.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Each command has its own --help, with an example.",
    invoke_without_command=True,
)
@click.version_option(__version__, prog_name="soup")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Model soups of instruction-tuned vision-language models: merge, search, evaluate."""
    before = speaks_in_flags()
    speak_in_flags()
    ctx.call_on_close(lambda: speak_in_flags(before))
    if ctx.invoked_subcommand is None:
        click.echo(WELCOME.format(version=__version__))


def _add_commands() -> None:
    commands = [*merging_commands, *search_commands, *evaluating_commands, *training_commands, *data_commands]
    commands += [*base_model_commands, *selecting_commands, *publishing_commands, *starting_commands, *arena_commands]
    by_name = {command.name: command for command in commands}
    for title, names in SECTIONS.items():
        section = cloup.Section(title, [by_name.pop(name) for name in names])
        cli.add_section(section)
    assert not by_name, f"commands without a section: {by_name}"


_add_commands()


def main() -> None:
    """Run the command line: errors become text here, and nowhere else."""
    try:
        _run(_Stop.install())
    except SoupError as error:
        click.echo(printable(f"error: {error}", keep="\n"), err=True)
        sys.exit(1)
    except click.UsageError as error:
        error.show()
        if error.ctx and isinstance(error.ctx.command, Command):
            if isinstance(error, click.NoSuchOption) and not error.possibilities:
                click.echo(_ways_of_arguments(error.option_name, error.ctx.command), err=True, nl=False)
            click.echo(f"Example: {error.ctx.command.example}", err=True)
        sys.exit(2)
    except click.ClickException as error:
        error.show()
        sys.exit(1)
    except (KeyboardInterrupt, click.Abort) as error:
        for number in STOPS:
            signal.signal(number, signal.SIG_IGN)  # all is cleaned up: nothing is left to be stopped
        stop = error.__cause__ or error  # click wraps what it meets
        number = stop.number if isinstance(stop, _StopError) else signal.SIGINT
        click.echo(STOPS[number], err=True)
        sys.exit(128 + number)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads on: no trace at exit
        sys.exit(1)
    except ImportError as error:
        if (reason := missing_extra(error)) is None:
            raise  # a library that is here and broken, or none that an extra brings: its trace says more
        click.echo(f"error: {reason}", err=True)
        sys.exit(1)
    except OSError as error:  # a disk, a permission: what no package above could explain better
        where = f"{error.filename}: " if error.filename else _lost_directory()
        click.echo(
            printable(f"error: {where}{error.strerror or error}. Mend it and type the same command again."), err=True
        )
        sys.exit(1)


def _run(stop: _Stop) -> None:
    try:
        cli.main(standalone_mode=False)
    except Exception as error:
        if stop.under_way is None or isinstance(error, click.Abort):
            raise
        raise _StopError(stop.under_way) from None  # of which the C code of a library made another error


def _ways_of_arguments(option: str, command: click.Command) -> str:
    """Say how arguments of a strategy or a method are passed, where the command passes some on."""
    known = {flag for parameter in command.params for flag in parameter.opts}
    ways = {"--strategy-arg": "strategy", "--method-arg": "method", "--engine-arg": "engine"}
    argument = option.lstrip("-").replace("-", "_")
    lines = [f"{flag} {argument}=VALUE (the {what}'s)" for flag, what in ways.items() if flag in known]
    return f"If it is an argument: {', '.join(lines)}.\n" if lines else ""


def _lost_directory() -> str:
    """Say that the current directory was removed, if it was."""
    try:
        Path.cwd()
    except FileNotFoundError:
        return "the current directory was removed: "
    return ""


class _StopError(KeyboardInterrupt):
    """A signal came. It unwinds like Ctrl-C, so that nothing half-written stays; a SystemExit is a harness's failure.

    A plain KeyboardInterrupt that passes through `exec` has Python end by the signal in the end.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = signal.Signals(number)


class _Stop:
    """Raises at the first signal of `STOPS`, and lets those pass that come while what the first began is under way.

    `timeout` sends two, an impatient user presses Ctrl-C again: neither may cut the clean-up short. After
    `CLEAN_UP_SECONDS` a signal counts again, for some library may have swallowed the first. The C code of `CLEARING`
    does, while they are imported: a signal is sent again until that is over.
    """

    CLEAN_UP_SECONDS = 10.0
    CLEARING = ("numpy", "torch")
    RETRY_SECONDS = 0.05

    def __init__(self) -> None:
        self._deaf_until = 0.0
        self._number: int | None = None

    @classmethod
    def install(cls) -> _Stop:
        """Take SIGTERM, and the others where they are not ignored, as under nohup."""
        stop = cls()
        for number in STOPS:
            if number == signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, stop)
        return stop

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if now < self._deaf_until:
            return
        if self._is_importing(frame):
            timer = threading.Timer(self.RETRY_SECONDS, os.kill, (os.getpid(), number))
            timer.daemon = True
            timer.start()
            return
        self._deaf_until = now + self.CLEAN_UP_SECONDS
        self._number = number
        _leave_lost_terminal()
        raise _StopError(number)

    @property
    def under_way(self) -> int | None:
        """The signal that came just now; None where none did."""
        return self._number if time.monotonic() < self._deaf_until else None

    def _is_importing(self, frame: FrameType | None) -> bool:
        """Whether a module of `CLEARING` is being imported."""
        while frame is not None:
            if frame.f_code.co_name == "<module>" and frame.f_globals["__name__"].partition(".")[0] in self.CLEARING:
                return True
            frame = frame.f_back
        return False


def _leave_lost_terminal() -> None:
    """Write no more to a terminal that is gone: each further line would be an error, and hide the signal."""
    for number in (1, 2):
        with suppress(OSError):  # it is closed
            if stat.S_ISCHR(os.fstat(number).st_mode) and not os.isatty(number):
                os.dup2(os.open(os.devnull, os.O_WRONLY), number)


if __name__ == "__main__":
    main()
