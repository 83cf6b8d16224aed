"""What a soup over data sets is compared with, each on one seed.

Source: POINTS, arXiv 2409.04828: the soup over learning rates (Table 4), Individual Select (section 3.4); one model on
all data is the baseline that the paper leaves out.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from finetune.study.seed_run import SeedRun
from finetune.study.table import StudyResult

__all__ = ["COMPARISONS", "all_data", "individual_select", "learning_rates"]


def learning_rates(seed_run: SeedRun) -> dict[str, StudyResult]:
    """Cook the greedy soup over fine-tunes on D alone that differ in their learning rate."""
    sweep = {"lr": seed_run.study.learning_rates}
    changed = {"added": {}, "include_base": True, "sweep": sweep, "out": seed_run.near("learning_rates")}
    pool = seed_run.train_beside("learning_rates", changed)
    return {"greedy over learning rates": seed_run.cook("greedy", pool, "learning_rates", "learning_rates.scores")}


def individual_select(seed_run: SeedRun) -> dict[str, StudyResult]:
    """Add each data set in turn to the base set for good, if the model trained on both is better for it."""
    alone = seed_run.train_beside("alone", {"added": {}, "include_base": True, "out": seed_run.near("alone")})
    [best] = seed_run.judge(alone)
    kept: list[str] = []
    for name in seed_run.added:
        tried = [*kept, name]
        [trial] = seed_run.judge([_trained_on(seed_run, tried)])
        if trial.overall > best.overall:
            kept, best = tried, trial
    return {"individual select": StudyResult.of(best, " + ".join(kept) or "none of them")}


def _trained_on(seed_run: SeedRun, names: list[str]) -> Path:
    """D and these data sets, in one model; with one of them it is in the pool already."""
    if len(names) == 1:
        return seed_run.folder / "ckpts" / names[0]
    title = "-".join(names)
    added = [data_set for name in names for data_set in seed_run.added[name]]
    changed = {"added": {title: added}, "out": seed_run.near("individual")}
    [checkpoint] = seed_run.train_beside(f"individual-{title}", changed)
    return checkpoint


def all_data(seed_run: SeedRun) -> dict[str, StudyResult]:
    """Train one model on D and all the added data sets: as long as one ingredient, and as long as all together."""
    added, keys = seed_run.added, seed_run.keys
    length = "steps" if keys.get("steps") else "epochs"
    one_ingredient = keys[length]
    assert isinstance(one_ingredient, int | float), "a configuration without a length is refused"
    times = {"one ingredient's": 1, f"all {len(added)} ingredients'": len(added)}
    changed = {
        "added": {"all": [data_set for sets in added.values() for data_set in sets]},
        "sweep": {length: [one_ingredient * count for count in times.values()]},
        "out": seed_run.near("all_data"),
    }
    trials = seed_run.judge(seed_run.train_beside("all_data", changed))
    named = zip(times, trials, strict=True)
    return {f"all data, {words} {length}": StudyResult.of(trial, "") for words, trial in named}


COMPARISONS: dict[str, Callable[[SeedRun], dict[str, StudyResult]]] = {
    "learning_rates": learning_rates,
    "individual_select": individual_select,
    "all_data": all_data,
}
