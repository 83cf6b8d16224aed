"""The document of a report: all of its numbers as JSON, from which the page is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from soup.evaluation.run_directory import Kind, directory_kind
from soup.report.page.curves import curves_document, curves_table
from soup.report.page.headline import contributions, headline
from soup.report.page.questions import changed_questions
from soup.report.page.run_record import RunRecord
from soup.report.page.sections import by_category, cost, ingredient_scores, pool_check, provenance, steps, sweeps
from soup.report.page.study import STUDY, study_document, study_table
from soup.report.tables import ShownTable, run_table
from soup.support.text import public_text

__all__ = ["directory_document", "directory_table", "run_document", "without_private_text"]


def directory_document(directory: Path, *, with_images: bool = True) -> dict[str, object]:
    """Return the report of what a directory holds: a run, a study, or the jobs of a pool of fine-tunes.

    Raises:
        JournalError: it is none of these, or a file is damaged.
    """
    kind = directory_kind(directory)
    if kind == Kind.STUDY:
        return cleaned({**study_document(directory / STUDY), "title": directory.absolute().name})
    if kind == Kind.JOBS:
        return cleaned({**curves_document(directory), "title": directory.absolute().name})
    return run_document(directory, with_images=with_images)


def directory_table(directory: Path) -> ShownTable:
    """Return the table of what a directory holds; see `directory_document`."""
    kind = directory_kind(directory)
    if kind == Kind.STUDY:
        return study_table(study_document(directory / STUDY))
    if kind == Kind.JOBS:
        return curves_table(curves_document(directory))
    return run_table(directory)


def run_document(run: Path, *, with_images: bool = True) -> dict[str, object]:
    """Return all that is to be told about a run, without paths of this machine and without secrets.

    Args:
        run: The run directory.
        with_images: Whether the images of changed questions are taken along.

    Raises:
        JournalError: there is no journal, or a file is damaged.
    """
    record = RunRecord.read(run)
    questions, no_questions = changed_questions(record, with_images=with_images)
    kinds, no_kinds = by_category(record)
    document = {
        "schema": 1,
        "kind": "run",
        "title": record.directory.path.absolute().name,
        "under_way": record.is_under_way,
        "parts": list(record.parts),
        "headline": headline(record).as_json(),
        "searches": steps(record),
        "ingredients": ingredient_scores(record),
        "contributions": contributions(record),
        "categories": kinds,
        "pool": pool_check(record),
        "sweeps": sweeps(record),
        "cost": cost(record),
        "provenance": provenance(record),
        "remarks": [*dict.fromkeys([*record.left_out, *no_questions, *no_kinds])],
    }
    return {**cleaned(document), "questions": [question.as_json() for question in questions]}


def cleaned(document: Mapping[str, object]) -> dict[str, object]:
    """Return a document without private texts; see `without_private_text`."""
    clean = without_private_text(document)
    assert isinstance(clean, dict)
    return clean


def without_private_text(value: object) -> object:
    """Return a JSON value whose texts hold no secret, and of paths of this machine the last name alone."""
    if isinstance(value, str):
        return public_text(value)
    if isinstance(value, Mapping):
        return {without_private_text(key): without_private_text(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_private_text(item) for item in value]
    return value
