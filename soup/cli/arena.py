"""The command that has people, and LLM judges, say which answer is better."""

from __future__ import annotations

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
from soup.evaluation.config import EvalConfig
from soup.support.text import pluralize

if TYPE_CHECKING:
    from evaluators.arena.record import QuestionWithMedia
    from soup.report.tables import ShownTable

__all__ = ["arena_commands", "arena_report", "print_arena"]

LOOPBACK = "127.0.0.1"
ASKED_BY = ("model", "engine", "engine_args", "engine_url", "batch_size", "timeout_seconds", "trust_remote_code")
JUDGED_BY = ("url", "model", "engine", "engine_args", "requests", "key_env", "images")
MOST_IN_MATRIX = 12


@click.command("arena", cls=Command, example="soup arena ckpts/a ckpts/b --prompts prompts.jsonl --dry-run")
@cloup.argument("checkpoints", nargs=-1, help="Candidates: directories or Hub ids, or one folder of them.")
@compose_options(
    GroupedOption.of(
        "Evaluate",
        "--prompts",
        type=click.Path(exists=True, path_type=Path),
        metavar="FILE",
        help="The questions: rows of any training format, or {image, question}; answers in them are not read.",
    ),
    GroupedOption.of(
        "Evaluate", "--images", metavar="DIR", help="Where relative paths of images start. [default: FILE's]"
    ),
    GroupedOption.of(
        "Evaluate",
        "--frames",
        type=click.IntRange(1, 1000),
        default=8,
        show_default=True,
        metavar="N",
        help="Of a video so many frames are shown to candidates, evenly spread as VLMEvalKit does.",
    ),
    *carrier_options(EvalConfig, *ASKED_BY, *(f"judge_{name}" for name in JUDGED_BY), "workers", "ray"),
    GroupedOption.of("Output", "--report", is_flag=True, help="Ask, judge, print the ratings, and serve no page."),
    GroupedOption.of(
        "Output", "--baseline", metavar="NAME", help="The candidate that others are compared with. [default: the first]"
    ),
    GroupedOption.of(
        "Output",
        "--host",
        default=LOOPBACK,
        show_default=True,
        metavar="ADDRESS",
        help="Serve the page to others, too: this machine's address, or 0.0.0.0 for all it has.",
    ),
    GroupedOption.of(
        "Output", "--port", type=click.IntRange(0, 65535), default=8765, show_default=True, metavar="N", help="0: any."
    ),
    GroupedOption.of(
        "Output",
        "--run-dir",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="DIR",
        help="The arena. [default: FILE.arena]",
    ),
    json_option,
    dry_run_option,
)
def arena(values: Values) -> None:
    """Let people vote on pairs of answers.

    Candidates answer, a local page shows two answers without names, ratings come of the votes. Typed again, it goes on.
    """
    from soup.cli.console import open_board, print_json, print_line, print_plan

    prompts, run = values["prompts"], values["run_dir"]
    if prompts is None and run is None:
        raise click.UsageError("expected --prompts FILE, or --run-dir of an arena that there is")
    with needs_extra():
        from evaluators.arena.record import Arena
        from evaluators.arena.report import arena_document
        from evaluators.arena.server import refuse_unheard
        from evaluators.arena.task import ArenaTask, serving
    run = run or _beside(prompts)
    if not values["dry_run"] and not values["report"]:
        refuse_unheard(values["host"], values["port"])
    with open_board(values) as board:
        questions = _questions(prompts, values["images"], values["frames"]) if prompts else None
        config, least = values.carrier(EvalConfig), 1 if values["report"] else 2
        task = ArenaTask(run, questions, values["checkpoints"], config, values["baseline"], least)
        if values["dry_run"]:
            plan = task.plan()
        else:
            judged = f"votes of {values['judge_model']}"
            task.prepare(board.progress, lambda done, count: board.show_rows(judged, done, count))
            document = arena_document(Arena(run), values["baseline"]) if values["report"] else {}
    if values["dry_run"]:
        print_plan(plan, as_json=values["as_json"])
    elif values["report"]:
        (print_json if values["as_json"] else print_arena)(document)
    else:
        with serving(Arena(run), values["host"], values["port"]) as server:
            shown = {"schema": 1, "run": str(run), "link": server.link}
            print_json(shown) if values["as_json"] else print_line(server.link)
            try:
                server.serve_forever()
            finally:
                votes = pluralize(server.ballot.new_votes, "new vote")
                summary = f"{votes}; all are kept in {run}. The same command goes on."
                click.echo(summary, err=True)


def _beside(prompts: Path) -> Path:
    named = prompts if prompts.name not in ("", "..") else prompts.resolve()
    return named.with_name(f"{named.stem}.arena")


def arena_report(directory: Path) -> tuple[dict[str, object], ShownTable]:
    """Return what an arena's votes come to, as a document for the page, and as a table of ratings."""
    with needs_extra():
        from evaluators.arena.record import Arena
        from evaluators.arena.report import arena_document
    from soup.report.page.document import cleaned
    from soup.report.tables import ScoreRow, ShownTable

    document: dict[str, Any] = cleaned(arena_document(Arena(directory)))
    columns = ["rating", "difference", "difference_at_equal_length"]
    rows = []
    for voters in document["voters"]:
        for row in _by_rating(voters):
            numbers = tuple(row[column][end] for column in columns for end in ("value", "low", "high"))
            rows.append(ScoreRow(row["name"], (*numbers, float(row["votes"])), voters["voters"]))
    named = [f"{column.replace('_', ' ')}{end}" for column in columns for end in ("", " low", " high")]
    return document, ShownTable((*named, "votes"), tuple(rows))


def print_arena(document: Mapping[str, Any]) -> None:
    """Print ratings, agreement, the effect of length and the win matrix of each group of voters, on stdout."""
    from soup.cli.console import print_line, print_rows

    for voters in document["voters"]:
        print_line(
            f"{voters['voters']}: {pluralize(voters['votes'], 'vote')} ({pluralize(voters['ties'], 'tie')}), "
            f"{voters['skipped']} skipped; {pluralize(document['questions'], 'question')}, "
            f"{pluralize(document['pairs'], 'pair')}"
        )
        if voters["ratings"]:
            head = ["candidate", "rating", "95 %", f"beside {document['baseline']}", "95 %", "at equal length", "votes"]
            print_rows(head, list(map(_rating_row, _by_rating(voters))), right=range(1, 7))
            _print_rest(voters, [candidate["name"] for candidate in document["candidates"]])
        for remark in voters["remarks"]:
            print_line(remark)
    for judge in document["judges"]:
        print_line(
            f"{judge['name']}: the same in both orders {_percent(judge['same_in_both_orders'])}, prefers what stands "
            f"first {_percent(judge['prefers_the_first'])}, agrees with people "
            f"{_percent(judge['agrees_with_people'])} of {pluralize(judge['votes_of_people_beside'], 'vote')}"
        )
    for remark in document["remarks"]:
        print_line(remark)


def _by_rating(voters: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return sorted(voters["ratings"], key=lambda row: -row["rating"]["value"])


def _rating_row(row: Mapping[str, Any]) -> list[str]:
    rating, difference, level = row["rating"], row["difference"], row["difference_at_equal_length"]
    return [
        row["name"],
        f"{rating['value']:.0f}",
        f"{rating['low']:.0f} to {rating['high']:.0f}",
        f"{difference['value']:+z.0f}",
        f"{difference['low']:+z.0f} to {difference['high']:+z.0f}",
        f"{level['value']:+z.0f}",
        f"{row['votes']:,}",
    ]


def _print_rest(voters: Mapping[str, Any], names: Sequence[str]) -> None:
    from soup.cli.console import print_line, print_rows

    if (shared := voters["agreement"]) and shared["pairs_of_votes"]:
        alpha = "" if shared["alpha"] is None else f", Krippendorff's alpha {shared['alpha']:z.2f}"
        print_line(f"people agree on {_percent(shared['share'])} of {shared['pairs_of_votes']:,} pairs of votes{alpha}")
    effect, left = voters["length"]["effect"], voters["left_preferred"]
    side = "" if left is None else f"; the left side was preferred in {_percent(left)}"
    ends = f"[{effect['low']:+z.0f}, {effect['high']:+z.0f}]"
    print_line(f"an answer longer by a standard deviation: {effect['value']:+z.0f} {ends}{side}")
    if len(names) > MOST_IN_MATRIX:
        return
    shares = {(cell["first"], cell["second"]): cell["share"] for cell in voters["wins"]}
    shares |= {(second, first): share if share is None else 1 - share for (first, second), share in shares.items()}
    rows = [
        [name, *(_percent(shares.get((name, other))) if name != other else "" for other in names)] for name in names
    ]
    print_rows(["preferred to", *names], rows, right=range(1, len(names) + 1))


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"


def _questions(prompts: Path, images: str | None, frames: int) -> list[QuestionWithMedia]:
    with needs_extra():
        from evaluators.arena.record import Question
        from evaluators.vlmeval.videos import vlmeval_frame_indices
        from finetune.config import DataSet
        from finetune.data.asked_rows import asked_rows
        from finetune.data.source_rows import SourceRows
    data_set = DataSet.model_validate({"path": str(prompts), "images": images, "frames": frames})
    rows = asked_rows(SourceRows(data_set), vlmeval_frame_indices)
    return [(Question(row.index, row.parts), row.images, row.frames) for row in rows]


arena_commands = [arena]
