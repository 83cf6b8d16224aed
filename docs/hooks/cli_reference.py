"""Write docs/cli.md from what every command prints as its --help. `make docs` runs it; a test compares."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from soup.cli.app import SECTIONS, cli

PAGE = Path(__file__).parents[1] / "cli.md"
WIDTH = 100
HEAD = """# Command line

What every command prints as its `--help`, written from the program by `make docs`. [Using soup](use.md) explains what
the options mean.
"""


def reference() -> str:
    """Return the page."""
    program = cli.make_context("soup", [], resilient_parsing=True)
    parts = [HEAD, block("soup", cli)]
    for title, names in SECTIONS.items():
        parts.append(f"## {title}\n")
        for name in names:
            for path, command in commands(name, cli.commands[name]):
                parts += [f"### soup {path}\n", block(path, command, program)]
    return "\n".join(parts)


def commands(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    """Yield a command, and those below it."""
    yield path, command
    if isinstance(command, click.Group):
        for name in sorted(command.commands):
            yield from commands(f"{path} {name}", command.commands[name])


def block(path: str, command: click.Command, parent: click.Context | None = None) -> str:
    """Return a command's help in a block of code."""
    context = command.make_context(path, [], parent, resilient_parsing=True)
    context.terminal_width = WIDTH
    text = command.get_help(context)
    return "```text\n" + "\n".join(line.rstrip() for line in text.splitlines()) + "\n```\n"


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
