"""What `soup finetune --check` says: every row of every data set of a configuration, before the first GPU hour."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from finetune.config import Stage
from finetune.data.check import COLUMNS, DataReport, Use, check_data
from finetune.jobs import START, at_root, read_plan
from soup.errors import SoupError

__all__ = ["COLUMNS", "check"]


def check(
    config_path: Path | str,
    progress: Callable[[str, int, int], object] | None = None,
    *,
    decode: bool = False,
    faults_to: Path | None = None,
) -> DataReport:
    """Look at all rows that a configuration trains on; where its start is here, rows are counted in its tokens.

    `progress(path, rows done, rows)` is called now and then. With `decode` every picture is decoded in full;
    `faults_to` takes all bad rows.

    Raises:
        FinetuneError: a wrong configuration, or `faults_to` can't be written. What is wrong with the data is in the
            report.
    """
    config, root, jobs = read_plan(config_path)
    base = at_root(config.data, root)
    added = {name: at_root(sets, root) for name, sets in config.added.items()}
    if isinstance(config.start, Stage) and (own := at_root(config.start.data, root)) != base:
        added[START] = own
    uses = [Use(job.name, job.data, job.settings) for job in jobs]
    wishes: dict[str, Any] = {"uses": uses, "decode": decode, "faults_to": faults_to}
    return check_data(base, added, config.settings(), _processor(Path(jobs[-1].start)), progress, **wishes)


def _processor(start: Path) -> Any:
    """What turns rows into tokens, if the start is here; else lengths stay unknown."""
    if not start.is_dir():
        return None
    from transformers import AutoProcessor

    import finetune.points  # noqa: F401 (makes the Auto classes know the family)

    try:
        return AutoProcessor.from_pretrained(start)
    except (OSError, ValueError, KeyError, ImportError, SoupError):
        return None  # the jobs say what is wrong with it; the data can be looked at without
