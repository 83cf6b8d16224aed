"""What `soup finetune --check` reports: every row of every data set, and the settings tried on the start's outline."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from finetune.config import Stage
from finetune.data.check import COLUMNS, DataReport, JobData, check_data
from finetune.data.tokens import training_processor
from finetune.jobs import START, Job, at_root, read_plan
from finetune.launching.digests import unread_files
from finetune.launching.job_plans import absent_needs
from soup.errors import FinetuneError, SoupError

__all__ = ["COLUMNS", "check", "open_start_processor"]

VALIDATION = "(validation)"  # who trains on it, in the report: nobody


def check(
    config_path: Path | str,
    progress: Callable[[str, int, int], object] | None = None,
    *,
    decode: bool = False,
    faults_to: Path | None = None,
) -> DataReport:
    """Look at all rows that a configuration trains on; where its start is here, they are counted in its tokens.

    The settings are tried on the start, too: parts, adapters, what its family can't do, packages to log with.

    Args:
        config_path: the YAML file.
        progress: called with a data set's path, rows done and rows in all, now and then.
        decode: decode every picture in full.
        faults_to: the file for all bad rows.

    Raises:
        FinetuneError: a wrong configuration, or `faults_to` can't be written. What is wrong with the data is in the
            report.
    """
    config, root, jobs = read_plan(config_path)
    base = at_root(config.data, root)
    added = {name: at_root(sets, root) for name, sets in config.added.items()}
    if isinstance(config.start, Stage) and (start_data := at_root(config.start.data, root)) != base:
        added[START] = start_data
    # Data sets of one description are one: those that all jobs look at are listed once.
    looked_at = tuple({repr(each): each for job in jobs for each in job.settings.validation_sets}.values())
    added |= {VALIDATION: looked_at} if looked_at else {}
    start = _start(jobs)
    processor, settings = _processor(start), config.settings()
    with contextlib.suppress(FinetuneError):  # what is wrong with it is among the settings' faults
        processor = training_processor(processor, settings.tiling)
    report = check_data(
        base,
        added,
        settings,
        processor,
        progress,
        jobs=[JobData(job.name, job.data, job.settings) for job in jobs],
        decode=decode,
        faults_to=faults_to,
    )
    unread = [text for data_set in (*base, *chain(*added.values())) for text in unread_files(data_set)]
    return replace(
        report,
        notes=(*dict.fromkeys(unread), *report.notes),
        errors=(*absent_needs(jobs, config.gpus_per_job), *_settings_faults(start, processor, jobs), *report.errors),
    )


def open_start_processor(jobs: Sequence[Job]) -> Any:
    """Give what turns the jobs' rows into tokens, or None while it is not here.

    Raises:
        FinetuneError: a tiling that does not go with it.
    """
    return training_processor(_processor(_start(jobs)), jobs[-1].settings.tiling)


def _start(jobs: Sequence[Job]) -> Path:
    """Return where the start is, or, while it is not trained yet, what it will be trained from."""
    start = Path(jobs[-1].start)
    return start if start.is_dir() else Path(jobs[0].start)


def _settings_faults(start: Path, processor: Any, jobs: Sequence[Job]) -> list[str]:
    """Return what is wrong with the settings, if the start is here."""
    if not (start / "config.json").is_file():
        return []
    from finetune.training.trial_run import faults_on_outline

    return faults_on_outline(start, processor, [job.settings for job in jobs])


def _processor(start: Path) -> Any:
    """Return what turns rows into tokens, if the start is here; else lengths stay unknown."""
    if not start.is_dir():
        return None
    import finetune.points  # noqa: F401 (makes the Auto classes know the family)
    from soup.hf.processors import open_processor

    try:
        processor = open_processor(start)
    except (OSError, ValueError, KeyError, ImportError, SoupError):
        return None  # the jobs report what is wrong with it; the data can be looked at without
    whole = all(hasattr(processor, part) for part in ("tokenizer", "image_processor", "image_token"))
    return processor if whole else None
