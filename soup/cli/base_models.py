"""The commands that make base models: assembly from pretrained parts, conversions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import cloup

from soup.cli.options import (
    Command,
    GroupedOption,
    Values,
    carrier_options,
    compose_options,
    dry_run_option,
    json_option,
    output_dir_option,
)
from soup.cli.training import needs_extra
from soup.merging.options import WriteOptions

__all__ = ["base_model_commands"]


@click.command("convert-points", cls=Command, example="soup convert-points published/ -o points/")
@cloup.argument("source", metavar="DIR|HUB_ID", help="The checkpoint.")
@compose_options(
    output_dir_option,
    GroupedOption.of("Output", "--reverse", is_flag=True, help="From our form into the published one."),
    *carrier_options(WriteOptions, "max_shard_bytes"),
    json_option,
    dry_run_option,
)
def convert_points(values: Values) -> None:
    """Convert published POINTS v1 weights, or back.

    Into a checkpoint that soup loads, bit for bit.
    """
    with needs_extra():
        from finetune.points.convert import convert_points, plan_conversion
    _make(plan_conversion(values["source"], reverse=values["reverse"]), convert_points, values)


def _parse_layers(context: click.Context, parameter: click.Parameter, text: str) -> int | list[int]:
    try:
        layers = [int(number) for number in text.split(",")]
    except ValueError as error:
        raise click.BadParameter(f"expected a whole number, or several with commas, found {text!r}.") from error
    return layers[0] if len(layers) == 1 else layers


@click.command("assemble", cls=Command, example="soup assemble --llm lm/ --general-vit vit/ -o base/")
@compose_options(
    GroupedOption.of(
        "Pool", "--llm", required=True, metavar="DIR|HUB_ID", help="The language model, with its tokenizer."
    ),
    GroupedOption.of(
        "Pool",
        "--general-vit",
        metavar="DIR|HUB_ID",
        help="The vision encoder; without one, patches go in as they are.",
    ),
    GroupedOption.of("Pool", "--ocr-vit", metavar="DIR|HUB_ID", help="The second vision encoder."),
    GroupedOption.of(
        "Merge",
        "--connector",
        type=click.Choice(["shuffle", "pool", "attention-pool", "linear"]),
        help="POINTS', Molmo's or Fuyu's.",
    ),
    GroupedOption.of(
        "Merge",
        "--shuffle",
        type=click.IntRange(min=1),
        metavar="N",
        help="Patches a side that become one token. [default: 2]",
    ),
    GroupedOption.of(
        "Merge",
        "--feature-layer",
        callback=_parse_layers,
        default="-2",
        show_default=True,
        metavar="N[,N]",
        help="The encoders' hidden state to look at; several are joined, as Molmo's -3,-10.",
    ),
    GroupedOption.of(
        "Merge",
        "--tiling",
        default="catty",
        show_default=True,
        metavar="NAME[:KEY=VALUE,...]",
        help="How images are cut.",
    ),
    GroupedOption.of(
        "Merge", "--marks", is_flag=True, help="Mark the end of each row of an image by a token, as Molmo does."
    ),
    GroupedOption.of(
        "Merge",
        "--tile",
        type=click.IntRange(min=1),
        metavar="PIXELS",
        help="Without encoders: a tile's side. [default: 336]",
    ),
    GroupedOption.of(
        "Merge",
        "--patch",
        type=click.IntRange(min=1),
        metavar="PIXELS",
        help="Without encoders: a patch's side. [default: 28]",
    ),
    GroupedOption.of("Merge", "--dtype", metavar="DTYPE", help="Write this dtype. [default: the language model's]"),
    GroupedOption.of(
        "Merge",
        "--seed",
        type=int,
        default=0,
        show_default=True,
        metavar="N",
        help="For the connector, which is fresh.",
    ),
    output_dir_option,
    *carrier_options(WriteOptions, "max_shard_bytes"),
    json_option,
    dry_run_option,
)
def assemble(values: Values) -> None:
    """Make a base model from pretrained parts.

    Of the POINTS family, with a fresh connector.
    """
    with needs_extra():
        from finetune.points.assemble import AssemblyOptions, assemble, plan_assembly
    names = ("connector", "shuffle", "feature_layer", "tiling", "marks", "tile", "patch", "dtype", "seed")
    options = AssemblyOptions(**{name: values[name] for name in names})
    plan = plan_assembly(values["llm"], values["general_vit"], values["ocr_vit"], options)
    _make(plan, assemble, values)


def _make(plan: Any, work: Any, values: Values) -> None:
    """Show the plan of a checkpoint, and make it unless that is all."""
    from soup.cli.console import open_board, print_json, print_line, print_plan

    out, max_shard_bytes = Path(values["out"]), values["max_shard_bytes"]
    document = plan.as_json(out, max_shard_bytes)
    if not values["dry_run"]:
        with open_board(values) as board:
            for text in document["remarks"]:
                board.warn(text)
            board.start_phase("writing", plan.write_bytes)
            work(plan, out, max_shard_bytes=max_shard_bytes, progress=board.advance)
    if values["as_json"]:
        print_json(document)
    elif values["dry_run"]:
        print_plan(document, as_json=False)
    else:
        print_line(f"{out}: {document['tensors']} tensors")


base_model_commands = [assemble, convert_points]
