"""The commands that choose and rewrite rows before anything is trained on them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
)
from soup.cli.training import needs_extra
from soup.errors import FinetuneError
from soup.evaluation.config import EvalConfig
from soup.evaluation.settings import EvalSettings
from soup.support.options import option_name

if TYPE_CHECKING:
    from finetune.data.capfusion import CaptionWriter
    from finetune.data.source_rows import SourceRows
    from soup.board.board import Board
    from soup.evaluation.answer_loss import AnswerLosses

__all__ = ["data_commands"]

FILE = click.Path(dir_okay=False, path_type=Path)
FORMATS = ("llava", "sharegpt", "openai", "alpaca", "swift", "flat")  # of `finetune.config.DataSet`
rows_options = [
    GroupedOption.of("Pool", "--images", metavar="DIR", help="Where relative paths of images start. [default: IN's]"),
    GroupedOption.of(
        "Pool",
        "--format",
        type=click.Choice(FORMATS),
        help="The rows' format. [default: what each looks like]",
    ),
    GroupedOption.of(
        "Pool",
        "--column",
        "columns",
        multiple=True,
        metavar="OURS=THEIRS",
        help="What a column is called in IN, such as question=Q, answer=A, image=picture. Repeatable.",
    ),
    GroupedOption.of("Pool", "--name", metavar="NAME", help="The configuration of a Hub data set."),
    GroupedOption.of("Pool", "--split", default="train", show_default=True, metavar="NAME", help="Of a Hub data set."),
]
rows_out_option = GroupedOption.of(
    "Output", "-o", "--out", required=True, type=FILE, metavar="FILE.jsonl", help="The rows, as JSON lines."
)
trust_option = GroupedOption.of(
    "Evaluate", "--trust-code", "trust_remote_code", is_flag=True, help="Run code that comes with a checkpoint."
)


@cloup.group("data")
def data() -> None:
    """Choose and rewrite rows, before anything is trained on them."""


@data.command("filter", cls=Command, example="soup data filter captions.jsonl -o kept.jsonl --model vlm/ --keep 0.2")
@cloup.argument("source", metavar="IN", help="A data set: a file, a directory, a Hub id.")
@compose_options(
    *rows_options,
    GroupedOption.of("Search", "--keep", type=float, metavar="F", help="Keep this share, rounded up. [default: 0.2]"),
    GroupedOption.of("Search", "--keep-below", type=float, metavar="PPL", help="Keep what has a lower perplexity."),
    GroupedOption.of("Evaluate", "--model", required=True, metavar="DIR|HUB_ID", help="The model that scores."),
    GroupedOption.of(
        "Evaluate", "--request", type=FILE, metavar="FILE", help="A text to ask in place of each row's own question."
    ),
    *carrier_options(EvalConfig, "engine", "engine_args", "workers", "ray"),
    trust_option,
    rows_out_option,
    dry_run_option,
    json_option,
)
def filter_rows(values: Values) -> None:
    """Keep the rows whose answers a model finds likeliest.

    By perplexity. All scores stand beside the output, with a report; typed again after a stop, it goes on.
    """
    from soup.cli.console import open_board, print_json, print_line, print_plan

    if values["keep"] is not None and values["keep_below"] is not None:
        raise click.UsageError("--keep and --keep-below exclude each other")
    settings = values.carrier(EvalSettings)
    if settings.engine not in ("transformers", "vllm"):
        raise click.UsageError(f"--engine {settings.engine}: gives no losses; expected transformers or vllm")
    if settings.engine == "vllm" and (values["workers"] or values["ray"]):
        raise click.UsageError("--workers and --ray are for --engine transformers; vllm takes all rows at once")
    with needs_extra():
        from evaluators.answering.vllm_losses import vllm_facts
        from finetune.data import filter_report
        from finetune.data.filtering import KeepRule, RowFilter, scores_path
        from finetune.data.row_output import check_out
    out = values["out"]
    rule = KeepRule(0.2 if values["keep"] is None else values["keep"], values["keep_below"])
    check_out(out, scores_path(out))
    with open_board(values) as board:
        request = _text_of(values["request"]) if values["request"] else None
        rows = _open_rows(values, board, scores_path(out))
        directory, facts = _model(values)
        facts |= vllm_facts(settings) if settings.engine == "vllm" else {}
        task = RowFilter(rows, out, request, facts)
        known = sum("loss" in row for row in task.journal().rows.values())
        plan = {
            "schema": 1,
            "rows": len(rows),
            "scored_before": known,
            "out": str(out),
            "scores": str(scores_path(out)),
        }
        if not values["dry_run"]:
            losses = _losses(values, settings, directory)
            table = task.run(losses, rule, lambda done, count: board.show_rows(values["source"], done, count))
            report = filter_report.as_json(task, table)
            _write_report(out, report, filter_report.as_page(task, report))
    if values["dry_run"]:
        print_plan(plan, as_json=values["as_json"])
    elif values["as_json"]:
        print_json(report)
    else:
        failed = f", {report['failed']:,} without a score" if report["failed"] else ""
        kept, scored = report["kept"]["rows"], report["scored"]
        print_line(f"{out}: {kept:,} rows of {scored:,} scored{failed}; see {out.with_suffix('.report.html')}")


def _losses(values: Values, settings: EvalSettings, directory: Path) -> AnswerLosses:
    """Return what computes the losses of answers: the engine that was asked for, over a model's directory."""
    with needs_extra():
        from evaluators.answering.answer_losses import answer_losses
        from evaluators.answering.vllm_losses import vllm_losses
    if settings.engine == "vllm":
        return lambda tasks: vllm_losses(tasks, directory, settings)
    options = {name: values[name] for name in ("workers", "ray", "trust_remote_code")}
    return lambda tasks: answer_losses(tasks, directory, **options)


@data.command(
    "capfuse", cls=Command, example="soup data capfuse captions.jsonl -o fused.jsonl --captioner vlm/ --fuser llm/"
)
@cloup.argument("source", metavar="IN", help="A data set of pictures and captions.")
@compose_options(
    *rows_options,
    GroupedOption.of(
        "Evaluate",
        "--captioner",
        metavar="DIR|URL",
        help="Captions each picture: a checkpoint, or an endpoint.",
    ),
    GroupedOption.of("Evaluate", "--captioner-model", metavar="NAME", help="The captioner's name at its endpoint."),
    GroupedOption.of(
        "Evaluate", "--fuser", metavar="DIR|URL", help="Fuses it with the raw caption: a language model, an endpoint."
    ),
    GroupedOption.of("Evaluate", "--fuser-model", metavar="NAME", help="The fuser's name at its endpoint."),
    GroupedOption.of("Evaluate", "--caption-prompt", type=FILE, metavar="FILE", help="What the captioner is asked."),
    GroupedOption.of(
        "Evaluate",
        "--fuse-prompt",
        type=FILE,
        metavar="FILE",
        help="What the fuser is asked, with {raw}, {synthetic}.",
    ),
    *carrier_options(EvalSettings, "batch_size"),
    trust_option,
    rows_out_option,
    dry_run_option,
    json_option,
)
def capfuse(values: Values) -> None:
    """Write new captions, fused from two sources.

    One that a model writes of the picture, and the raw one. Either step alone, too; typed again, it goes on.
    """
    from soup.cli.console import cell, open_board, print_json, print_line, print_plan

    if not values["captioner"] and not values["fuser"]:
        raise click.UsageError("nothing to do: expected --captioner, --fuser, or both")
    with needs_extra():
        from finetune.data.capfusion import CapFusion, captions_path, read_prompt
        from finetune.data.row_output import check_out
    out = values["out"]
    check_out(out, captions_path(out))
    with open_board(values) as board:
        rows = _open_rows(values, board, captions_path(out))
        prompts = [read_prompt(step, values[f"{step}_prompt"]) for step in ("caption", "fuse")]
        captioner, fuser = _writer(values, "captioner"), _writer(values, "fuser")
        task = CapFusion(rows, out, captioner, fuser, *prompts)
        known = len(task.journal().rows)
        plan = {"schema": 1, "rows": len(rows), "written_before": known, "out": str(out)}
        if not values["dry_run"]:
            report = task.run(lambda step, done, count: board.show_rows(f"{values['source']}, {step}", done, count))
            _write_json(out.with_suffix(".report.json"), report)
    if values["dry_run"]:
        print_plan(plan, as_json=values["as_json"])
    elif values["as_json"]:
        print_json(report)
    else:
        failed = f", {report['failed']:,} failed" if report["failed"] else ""
        print_line(f"{out}: {report['written']:,} rows{failed}; marks: {cell(report['marks']) or 'none'}")


def _writer(values: Values, role: str) -> CaptionWriter | None:
    """Open what writes captions; None where that step is left out."""
    if not (location := values[role]):
        return None
    with needs_extra():
        from evaluators.answering.caption_engines import open_writer
        from finetune.data.capfusion import CaptionWriter
    settings = EvalSettings(batch_size=values["batch_size"], trust_remote_code=values["trust_remote_code"])
    writer = open_writer(location, values[f"{role}_model"], settings, sees_pictures=role == "captioner")
    return CaptionWriter(writer.name, writer.answer, writer.identity(), writer.close)


def _open_rows(values: Values, board: Board, journal: Path) -> SourceRows:
    from finetune.config_file import parse_data_set
    from finetune.data.source_rows import SourceRows
    from finetune.launching.digests import unread_files

    source, out = values["source"], values["out"]
    if Path(source).exists() and Path(source).resolve() == out.resolve():
        raise FinetuneError(f"{out}: is the input, too; name another {option_name('out')}.")
    folder = Path(source).resolve()
    if out.resolve().is_relative_to(folder) and not (folder / "data.json").is_file():  # which alone would be read
        raise FinetuneError(f"{out}: lies in the input {source}, and would be read as part of it; name another place.")
    options = {name: values[name] for name in ("images", "format", "name", "split")}
    data_set = parse_data_set({"path": source, **options, "columns": _columns(values["columns"])})
    rows = SourceRows(data_set)
    for remark in unread_files(data_set, made=(out, journal, out.with_suffix(".report.json"))):
        board.warn(remark)
    if not len(rows):
        raise FinetuneError(f"{source}: no row in it.")
    return rows


def _columns(pairs: Sequence[str]) -> dict[str, str] | None:
    """Read what columns are called; names of theirs are taken as they were typed."""
    for pair in pairs:
        if not all(pair.partition("=")):
            raise click.BadParameter(f"{pair!r}: expected OURS=THEIRS", param_hint="--column")
    return dict(pair.split("=", 1) for pair in pairs) or None


def _model(values: Values) -> tuple[Path, dict[str, object]]:
    """Give a model's directory, and all that its numbers depend on; prompts are tried before anything is loaded."""
    from evaluators.answering.engines.transformers import check_prompts, identity
    from evaluators.answering.side_files import side_files_digest
    from soup.checkpoints.digest import digest_checkpoint
    from soup.checkpoints.hub import fetch_checkpoint, is_hub_id
    from soup.checkpoints.reader import Checkpoint
    from soup.search.workers.ray import actor_device

    location, trust_remote_code, ray = values["model"], values["trust_remote_code"], values["ray"]
    directory = fetch_checkpoint(location)[0] if is_hub_id(location) and not Path(location).exists() else Path(location)
    with Checkpoint(directory) as checkpoint:
        weights = digest_checkpoint(checkpoint).content
    check_prompts(directory, trust_remote_code)
    device = actor_device(ray) if ray else None  # by the word of an actor: this machine may have another one
    facts = identity(EvalSettings(trust_remote_code=trust_remote_code, device=device))
    names = ("transformers", "dtype", "device", "images")
    parts = {"model": weights, "files": side_files_digest(directory)}
    return directory, parts | {name: facts[name] for name in names}


def _text_of(path: Path) -> str:
    from soup.support.json_text import MAX_TEXT_BYTES, read_text

    try:
        text = read_text(path, FinetuneError, MAX_TEXT_BYTES).decode("utf-8").strip()
    except ValueError as error:
        raise FinetuneError(f"{path}: can't be read as text ({error}).") from error
    if not text:
        raise FinetuneError(f"{path}: empty; expected a request.")
    return text


def _write_report(out: Path, report: dict[str, Any], page: str) -> None:
    from soup.support.atomic_files import write_atomic

    _write_json(out.with_suffix(".report.json"), report)
    write_atomic(out.with_suffix(".report.html"), page)


def _write_json(path: Path, report: Mapping[str, object]) -> None:
    from soup.support.atomic_files import write_atomic

    write_atomic(path, json.dumps(report, indent=2, ensure_ascii=False) + "\n")


data_commands = [data]
