"""The command lines of the toy family: what renders files once, and what serves a rule."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from finetune.toy.rule_server import RuleServer, serve

__all__ = ["rendering_command", "serving_command"]


def rendering_command(render: Callable[..., object], about: str) -> click.Command:
    """Make the command `OUT --seed N` of what makes files; `about` is its help."""

    @click.command(help=about)
    @click.argument("out", type=click.Path(path_type=Path, file_okay=False))
    @click.option("--seed", default=0, show_default=True, help="Another seed draws other scenes.")
    def main(out: Path, seed: int) -> None:
        try:
            render(out, seed, progress=lambda part: click.echo(f"  rendering {part}", err=True))
        except FileExistsError as error:
            raise click.ClickException(str(error)) from error
        click.echo(str(out))

    return main


def serving_command(server: Callable[[int], RuleServer], about: str) -> click.Command:
    """Make the command `--port-file FILE` of what serves at a port; `about` is its help."""

    @click.command(help=about)
    @click.option("--port-file", type=click.Path(path_type=Path, dir_okay=False), help="Where the port is remembered.")
    def main(port_file: Path | None) -> None:
        serve(server, port_file)

    return main
