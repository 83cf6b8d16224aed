"""The command line: parse, call one function, print. stdout is the answer, stderr the rest."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

import click
import cloup

from soup._version import __version__
from soup.cli.evaluating import evaluating_commands
from soup.cli.merging import merging_commands
from soup.cli.searching import search_commands
from soup.cli.training import training_commands
from soup.errors import SoupError
from soup.support.options import speak_in_flags, speaks_in_flags

__all__ = ["cli", "main"]

SECTIONS = {
    "Look at what there is": ["check", "inspect", "list"],
    "Choose and merge": ["average", "maximum", "greedy", "cook", "merge"],
    "Evaluate": ["eval", "report"],
    "Make a pool": ["finetune", "study", "assemble", "convert-points"],
}


@cloup.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Each command has its own --help, with an example.",
)
@click.version_option(__version__, prog_name="soup")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Model soups of instruction-tuned vision-language models: merge, search, evaluate."""
    before = speaks_in_flags()
    speak_in_flags()
    ctx.call_on_close(lambda: speak_in_flags(before))


def _add_commands() -> None:
    commands = [*merging_commands, *search_commands, *evaluating_commands, *training_commands]
    by_name = {command.name: command for command in commands}
    for title, names in SECTIONS.items():
        section = cloup.Section(title, [by_name.pop(name) for name in names])
        cli.add_section(section)
    assert not by_name, f"commands without a section: {by_name}"


_add_commands()


def main() -> None:
    """Run the command line: errors become text here, and nowhere else."""
    signal.signal(signal.SIGTERM, _raise_terminated)
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
        terminated = isinstance(error.__cause__ or error, _TerminatedError)  # click wraps what it meets
        click.echo("terminated" if terminated else "interrupted", err=True)
        sys.exit(143 if terminated else 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads on: no trace at exit
        sys.exit(1)
    except OSError as error:  # a disk, a permission: what no package above could explain better
        click.echo(f"error: {error}", err=True)
        sys.exit(1)


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM came. It unwinds like Ctrl-C, so that nothing half-written stays; a SystemExit is a harness's failure."""


def _raise_terminated(number: int, frame: FrameType | None) -> None:
    raise _TerminatedError


if __name__ == "__main__":
    main()
