"""The commands that make models: each parses, calls one function of the wing `finetune`, prints."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from soup.cli.options import Size, dry_run_option, json_option
from soup.errors import FinetuneError

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
@click.option(
    "--on", metavar="local|slurm|ray[:ADDRESS]", help="Where jobs run. [default: `on` in the file, else local]"
)
@click.option("--check", is_flag=True, help="Look through all rows of all data sets, say what is wrong, and stop.")
@click.option("--decode", is_flag=True, help="With --check: decode every picture in full, not its header alone.")
@click.option(
    "--bad-rows",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="With --check: write all bad rows there, one JSON object a line.",
)
@click.option("--status", is_flag=True, help="Print how far the jobs are, and stop.")
@dry_run_option
@json_option
def finetune(
    config: Path,
    on: str | None,
    check: bool,
    decode: bool,
    bad_rows: Path | None,
    status: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """One fine-tune per added data set, over the devices that there are; typed again, it goes on."""
    if check + status + dry_run > 1:
        raise click.UsageError("--check, --status and --dry-run exclude each other")
    if (decode or bad_rows) and not check:
        raise click.UsageError("--decode and --bad-rows go with --check")
    if check:
        _check(config, decode, bad_rows, as_json)
    elif status:
        _status(config, as_json)
    elif dry_run:
        _rehearse(config, on, as_json)
    else:
        _launch(config, on, as_json)


def _launch(config: Path, on: str | None, as_json: bool) -> None:
    from soup.cli.console import Console

    wing = _wing("launching.launch")
    with Console() as talk:
        made = wing.finetune(config, on=on, progress=talk.trained, listener=_launch_listener(talk))
    if as_json:
        _print_json({"schema": 1, "checkpoints": [str(path) for path in made]})
    else:
        click.echo("\n".join(map(str, made)))


def _launch_listener(talk: Any) -> Any:
    """What the launcher tells, by this talk."""
    view = _wing("launching.status")

    def board(rows: Any) -> None:
        talk.board(view.HEAD[:-1], view.live_cells(rows, talk.board_lines))

    return _wing("launching.launch").Listener(talk.say, talk.warn, board)


def _status(config: Path, as_json: bool) -> None:
    from soup.cli.console import Console, print_rows

    view = _wing("launching.status")
    with Console() as talk:
        rows = view.status(config)
        for row in rows:
            if row.why and not as_json:
                talk.say(f"{row.name}: {row.why}")
    if as_json:
        _print_json(view.status_json(rows))
    else:
        print_rows(view.HEAD, [view.cells(row, Path.cwd()) for row in rows])


def _rehearse(config: Path, on: str | None, as_json: bool) -> None:
    from soup.cli.console import Console, print_rows

    wing = _wing("launching.dry_run")
    with Console() as talk:
        plan = wing.rehearse(config, on=on)
        for remark in () if as_json else plan["remarks"]:
            talk.warn(remark)
    if as_json:
        _print_json(plan)
        return
    print_rows(wing.HEAD, wing.rows(plan), right=range(2, 8))
    for line in wing.details(plan):
        click.echo(line)


def _check(config: Path, decode: bool, bad_rows: Path | None, as_json: bool) -> None:
    from soup.cli.console import Console, print_rows

    wing = _wing("launching.data_check")
    with Console() as talk:
        found = wing.check(config, talk.rows, decode=decode, faults_to=bad_rows)
    if as_json:
        _print_json(found.as_json())
    else:
        print_rows(wing.COLUMNS, found.lines(), right=range(2, len(wing.COLUMNS)))
        lines = [*(f"problem: {text}" for text in found.errors), *(f"note: {text}" for text in found.notes)]
        click.echo("\n".join([*lines, f"{len(found.errors)} problems, {len(found.notes)} notes"]))
    if not found.ok:
        sys.exit(1)


def _print_json(document: dict[str, Any]) -> None:
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


@click.command("run")
@click.argument("study", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--judge-url", metavar="URL", help="Where the study's judge answers, if not where its file says.")
@json_option
@dry_run_option
def run(study: Path, judge_url: str | None, as_json: bool, dry_run: bool) -> None:
    """A whole study: fine-tune, evaluate, cook, compare; for every seed, resumable at every step."""
    from soup.cli.console import Console, print_table

    wing = _wing("study.run")
    if dry_run:
        click.echo(json.dumps(wing.plan_study(study), indent=2, ensure_ascii=False))
        return
    with Console() as talk:
        voice = _wing("study.seed_run").Voice(talk.say, talk.trained, _launch_listener(talk), talk.listener)
        table = wing.run_study(study, voice=voice, judge_url=judge_url)
    if as_json:
        click.echo(json.dumps(table.as_json(), indent=2, ensure_ascii=False))
    else:
        print_table(table.table(), "overall")


out_option = click.option("-o", "--out", required=True, metavar="DIR", help="Where the checkpoint goes.")
shard_option = click.option("--max-shard-size", type=Size(), metavar="SIZE", help="The most bytes of a file (5GB).")


@click.command("convert-points")
@click.argument("source", metavar="DIR|HUB_ID")
@out_option
@click.option("--reverse", is_flag=True, help="From our form into the published one.")
@shard_option
@json_option
@dry_run_option
def convert_points(
    source: str, out: str, reverse: bool, max_shard_size: int | None, as_json: bool, dry_run: bool
) -> None:
    """A published POINTS v1 checkpoint into one that soup loads, or back."""
    wing = _wing("points.convert")
    _make(wing.plan_conversion(source, reverse=reverse), wing.convert_points, out, max_shard_size, as_json, dry_run)


@click.command("assemble")
@click.option("--llm", required=True, metavar="DIR|HUB_ID", help="The language model, with its tokenizer.")
@click.option("--general-vit", metavar="DIR|HUB_ID", help="The vision encoder; without one, patches go in as they are.")
@click.option("--ocr-vit", metavar="DIR|HUB_ID", help="The second vision encoder.")
@out_option
@click.option("--connector", type=click.Choice(["shuffle", "pool", "linear"]), help="POINTS', Molmo's or Fuyu's.")
@click.option("--shuffle", type=click.IntRange(min=1), help="Patches a side that become one token. [default: 2]")
@click.option("--feature-layer", type=int, default=-2, show_default=True, help="The encoders' hidden state to look at.")
@click.option("--tiling", default="catty", show_default=True, help="How images are cut: NAME[:KEY=VALUE,...].")
@click.option("--tile", type=click.IntRange(min=1), help="Without encoders: a tile's side in pixels. [default: 336]")
@click.option("--patch", type=click.IntRange(min=1), help="Without encoders: a patch's side in pixels. [default: 28]")
@click.option("--dtype", metavar="DTYPE", help="Write this dtype. [default: the language model's]")
@click.option("--seed", type=int, default=0, show_default=True, help="For the connector, which is fresh.")
@shard_option
@json_option
@dry_run_option
def assemble(
    llm: str,
    general_vit: str | None,
    ocr_vit: str | None,
    out: str,
    max_shard_size: int | None,
    as_json: bool,
    dry_run: bool,
    **wishes: Any,
) -> None:
    """A base model of the POINTS family from pretrained parts and a fresh connector."""
    wing = _wing("points.assemble")
    plan = wing.plan_assembly(llm, general_vit, ocr_vit, wing.Wishes(**wishes))
    _make(plan, wing.assemble, out, max_shard_size, as_json, dry_run)


def _make(plan: Any, work: Any, out: str, max_shard_bytes: int | None, as_json: bool, dry_run: bool) -> None:
    """Show a plan of the wing's, and do it unless that is all."""
    from soup.cli.console import Console, print_rows

    document = plan.as_json(Path(out), max_shard_bytes)
    if not dry_run:
        with Console() as talk:
            for text in document["remarks"]:
                talk.warn(text)
            talk.phase("writing", plan.write_bytes)
            work(plan, Path(out), max_shard_bytes=max_shard_bytes, progress=talk.progress)
    if as_json:
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    elif dry_run:
        print_rows(["plan", ""], [[key, _cell(value)] for key, value in document.items() if key != "schema"])
    else:
        click.echo(f"{out}: {document['tensors']} tensors")


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_cell(item)}" for key, item in value.items())
    return ", ".join(map(_cell, value)) if isinstance(value, list) else str(value)


training_commands = [assemble, convert_points, finetune, run]
