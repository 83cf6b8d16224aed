"""The commands that make models: each parses, calls one function of the wing `finetune`, prints."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from soup.errors import FinetuneError
from soup.options import json_option

__all__ = ["training_commands"]


def _wing(name: str) -> Any:
    """A room of the wing, by name: it imports soup, never the reverse.

    Raises:
        FinetuneError: a package that training needs is not there.
    """
    try:
        return import_module(f"finetune.{name}")
    except ImportError as error:
        raise FinetuneError(f"Training needs {error.name}: pip install 'vlm-soup[finetune]'") from error


@click.command("finetune")
@click.argument("config", type=click.Path(dir_okay=False, path_type=Path))
@json_option
def finetune(config: Path, as_json: bool) -> None:
    """One fine-tune per added data set."""
    from soup.console import Talk

    trainer = _wing("launch")
    with Talk() as talk:
        made = trainer.finetune(config, progress=talk.step)
    if as_json:
        click.echo(json.dumps({"schema": 1, "checkpoints": [str(path) for path in made]}, indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(map(str, made)))


training_commands = [finetune]
