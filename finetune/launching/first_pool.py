"""A first pool file, written from a folder of data: what is there, each key explained, to be edited and run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from finetune.config import POOL_KEYS, ROW_SUFFIXES, DataSet, FinetuneConfig
from finetune.config_file import parse_config
from finetune.data.files import open_file
from finetune.jobs import START
from finetune.yaml_file import read_mapping
from soup.errors import FinetuneError
from soup.support.atomic_files import write_atomic
from soup.support.text import bullet_list

__all__ = ["FirstPool", "write_first_pool"]

LONGEST_NAME = 60
BASE = "base"  # the name that is taken for the base set's, where there is one
TEXT = """\
# A pool: one fine-tune for each added data set, to be made into a soup.
#   soup finetune {file} --check      look at every row, before the first GPU hour
#   soup finetune {file} --dry-run    jobs, GPUs, estimates of memory and time
#   soup finetune {file}              train; typed again after a stop, it goes on

start: tiny                # EDIT: the checkpoint that every job starts from: a directory, or a Hub id; tiny is a toy
data: {base}
                           # the base set D, which every ingredient is tuned on
added:                     # one ingredient each: D + d_i
{added}
include_base: true         # D alone is an ingredient, too
out: {out}                 # where ingredients go; logs and states beside it, in {out}.finetune/

lr: 2.0e-5
epochs: 1                  # or steps: 500
global_batch_size: 32      # rows a step, over all devices
# micro_batch: 1           # rows a device takes at once: lower it where a GPU's memory is too small
# freeze: [general_vit, ocr_vit]    # parts that stay as they are; LLaVA's is vision_tower
# lora: {{rank: 16}}         # adapters instead of full weights
# max_length: 4096         # tokens of a row
# on_bad_row: skip         # leave bad rows out, and tell them; by default they stop a job before its first step
# checkpoint_every: 500    # steps between two checkpoints to resume from
# validation: 0.02         # hold a share of the rows out, and take the loss on it ...
# validate_every: 100      #   ... every so many steps
# gpus_per_job: 1
# sweep: {{lr: [1.0e-5, 2.0e-5]}}   # all ingredients once for each: the soup over learning rates
"""


@dataclass(frozen=True)
class FirstPool:
    """What was written: the pool, and why other things in the folder are no data sets, by their names."""

    config: FinetuneConfig
    left_out: Mapping[str, str]


def write_first_pool(folder: Path, path: Path) -> FirstPool:
    """Write a commented pool file from a folder of data sets.

    Each file of rows and each directory that is a data set is one; the one called base is the base set, else the one
    with most rows.

    Args:
        folder: where the data sets lie.
        path: the file, which must not be there yet; paths in it start at its own directory.

    Raises:
        FinetuneError: fewer than two data sets there, or the file is there already.
    """
    if path.exists():
        raise FinetuneError(f"{path}: stands there already. Remove it, or name another file.")
    sizes, left_out = _sizes(folder)
    if len(sizes) < 2:
        names = f"found {', '.join(item.name for item in sizes) or 'none'}"
        left = f"; no data sets are:\n{bullet_list([*left_out.values()])}" if left_out else "."
        raise FinetuneError(f"{folder}: expected a base set and at least one to add, {names}{left}")
    base = next((item for item in sizes if item.stem == BASE), max(sizes, key=lambda item: sizes[item]))
    root = path.parent.resolve()
    names_of = _names(item for item in sizes if item is not base)
    lines = [
        f"  {json.dumps(name)}: {json.dumps(_relative(item, root))}  # {sizes[item]:,} rows"
        for item, name in names_of.items()
    ]
    shown = f"{json.dumps(_relative(base, root))}  # {sizes[base]:,} rows"
    text = TEXT.format(file=path.name, base=shown, added="\n".join(lines), out="ckpts")
    write_atomic(path, text)
    try:
        return FirstPool(parse_config(read_mapping(path, POOL_KEYS), path), left_out)
    except FinetuneError:
        path.unlink()
        raise


def _names(items: Iterable[Path]) -> dict[Path, str]:
    """Give each data set the name of an ingredient, which becomes a folder's: that of its file, as far as it may be."""
    names: dict[Path, str] = {}
    for item in items:
        name = re.sub(r"[^\w.-]+", "_", item.stem).lstrip(".-")[:LONGEST_NAME] or "set"
        used_names = {START, BASE, *names.values()}
        names[item] = (
            name
            if name not in used_names
            else next(other for number in count(2) if (other := f"{name}-{number}") not in used_names)
        )
    return names


def _sizes(folder: Path) -> tuple[dict[Path, int], dict[str, str]]:
    """Return the rows of each data set in a folder, and why the rest is none, by its name."""
    sizes, others = {}, {}
    if not folder.is_dir():
        raise FinetuneError(f"{folder}: expected a folder of data sets, but there is none.")
    for item in sorted(folder.iterdir()):
        if item.name.startswith(".") or (item.is_file() and item.suffix not in ROW_SUFFIXES):
            continue
        try:
            sizes[item] = len(open_file(DataSet.model_validate({"path": str(item)})))
        except FinetuneError as error:
            others[item.name] = str(error)
    return sizes, others


def _relative(item: Path, root: Path) -> str:
    whole = item.resolve()
    return str(whole.relative_to(root)) if whole.is_relative_to(root) else str(whole)
