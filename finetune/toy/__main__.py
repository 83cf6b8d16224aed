"""`python -m finetune.toy OUT --seed 0`: toy data sets and toy benchmarks, made once."""

from __future__ import annotations

from pathlib import Path

import click

from finetune.toy.write import make_toy


@click.command()
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--seed", default=0, show_default=True, help="Another seed draws other scenes.")
def main(out: Path, seed: int) -> None:
    """Render toy instruction data and toy benchmark files into OUT."""
    try:
        make_toy(out, seed, progress=lambda part: click.echo(f"  rendering {part}", err=True))
    except FileExistsError as error:
        raise click.ClickException(str(error)) from error
    click.echo(str(out))


if __name__ == "__main__":
    main()
