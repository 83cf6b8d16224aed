"""`soup.cook` and `soup.merge` with flat keywords: each goes into the option dataclass that has a field of its name."""

from __future__ import annotations

import dataclasses

import soup
from soup.evaluation.config import EvalConfig
from soup.merging.options import MergeOptions, WriteOptions
from soup.search.preparation import CookArguments
from soup.search.run import plan_cook as plan_arguments

NAMED = {"eval": EvalConfig, "merge": MergeOptions, "write": WriteOptions}


def carried(kind, flat):
    """Takes the fields of a dataclass out of the keywords; the dataclass of them, or None where there are none."""
    fields = {field.name for field in dataclasses.fields(kind)} & flat.keys()
    return kind(**{name: flat.pop(name) for name in fields}) if fields else None


def sorted_arguments(eval=(), **flat):
    if "settings" in flat:
        settings = flat.pop("settings")
        flat |= {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    flat |= {"benchmarks": eval} if eval else {}
    carriers = {name: carried(kind, flat) for name, kind in NAMED.items()}
    return flat | {name: carrier for name, carrier in carriers.items() if carrier is not None}


def cook(strategy, pool, **flat):
    return soup.cook(strategy, pool, **sorted_arguments(**flat))


def plan_cook(strategy, pool, **flat):
    return plan_arguments(CookArguments(strategy, pool, **sorted_arguments(**flat)))


def merge(recipe, out, *, on_bytes=lambda count: None, **flat):
    options, write = carried(MergeOptions, flat), carried(WriteOptions, flat)
    assert not flat, flat
    return soup.merge(recipe, out, merge=options, write=write, progress=soup.Progress(on_bytes=on_bytes))
