"""What `soup finetune --check` says: every row of every data set of a configuration, before the first GPU hour."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from finetune.config import FinetuneConfig, Stage, read_config
from finetune.data.check import COLUMNS, DataReport, check_data
from finetune.jobs import START, at_root, plan
from soup.errors import SoupError

__all__ = ["COLUMNS", "check"]


def check(config_path: Path | str, progress: Callable[[str, int, int], object] | None = None) -> DataReport:
    """Look at all rows that a configuration trains on; where its start is here, rows are counted in its tokens.

    `progress(path, rows done, rows)` is called now and then.

    Raises:
        FinetuneError: a wrong configuration. What is wrong with the data is in the report.
    """
    path = Path(config_path)
    config = read_config(path)
    root = (path.parent / config.root).absolute()
    base = at_root(config.data, root)
    added = {name: at_root(sets, root) for name, sets in config.added.items()}
    if isinstance(config.start, Stage) and (own := at_root(config.start.data, root)) != base:
        added[START] = own
    return check_data(base, added, config.settings(), _processor(config, root), progress)


def _processor(config: FinetuneConfig, root: Path) -> Any:
    """What turns rows into tokens, if the start is here; else lengths stay unknown."""
    start = Path(plan(config, root)[-1].start)
    if not start.is_dir():
        return None
    from transformers import AutoProcessor

    import finetune.points  # noqa: F401 (makes the Auto classes know the family)

    try:
        return AutoProcessor.from_pretrained(start)
    except (OSError, ValueError, KeyError, ImportError, SoupError):
        return None  # the jobs say what is wrong with it; the data can be looked at without
