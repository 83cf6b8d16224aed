"""What a soup over data sets is compared with, each on one seed's workbench.

Source: POINTS, arXiv 2409.04828: the soup over learning rates (Table 4), Individual Select (section 3.4); one model on
all data is the baseline that the paper leaves out.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from finetune.study.seed_run import SeedRun
from finetune.study.table import Result

__all__ = ["COMPARISONS", "all_data", "individual_select", "learning_rates"]


def learning_rates(bench: SeedRun) -> dict[str, Result]:
    """The greedy soup over fine-tunes on D alone that differ in their learning rate."""
    rates = {"lr": bench.study.learning_rates}
    pool = bench.train("learning_rates", added={}, include_base=True, sweep=rates, out=bench.near("learning_rates"))
    return {"greedy over learning rates": bench.cook("greedy", pool, "learning_rates")}


def individual_select(bench: SeedRun) -> dict[str, Result]:
    """Each data set in turn is added to the base set for good, if the model trained on both is better for it."""
    sets = bench.study.pool(bench.home, bench.seed)
    [best] = bench.judge(bench.train("alone", added={}, include_base=True, out=bench.near("alone")))
    kept: list[str] = []
    for name in sets["added"]:
        tried = [*kept, name]
        [trial] = bench.judge([_trained_on(bench, tried, sets)])
        if trial.overall > best.overall:
            kept, best = tried, trial
    return {"individual select": Result.of(best, " + ".join(kept) or "none of them")}


def _trained_on(bench: SeedRun, names: list[str], sets: dict[str, Any]) -> Path:
    """D and these data sets, in one model; with one of them it is in the pool already."""
    if len(names) == 1:
        return bench.place / "ckpts" / names[0]
    title = "-".join(names)
    added = [one for name in names for one in _listed(sets["added"][name])]
    [made] = bench.train(f"individual-{title}", added={title: added}, out=bench.near("individual"))
    return made


def all_data(bench: SeedRun) -> dict[str, Result]:
    """One model on D and all the added data sets: as long as one ingredient, and as long as all of them together."""
    sets = bench.study.pool(bench.home, bench.seed)
    length = "steps" if sets.get("steps") else "epochs"
    times = {"one ingredient's": 1, f"all {len(sets['added'])} ingredients'": len(sets["added"])}
    added = {"all": [one for given in sets["added"].values() for one in _listed(given)]}
    lengths = {length: [sets[length] * count for count in times.values()]}
    made = bench.train("all_data", added=added, sweep=lengths, out=bench.near("all_data"))
    named = zip(times, bench.judge(made), strict=True)
    return {f"all data, {words} {length}": Result.of(trial, "") for words, trial in named}


def _listed(given: Any) -> list[Any]:
    return given if isinstance(given, list) else [given]


COMPARISONS: dict[str, Callable[[SeedRun], dict[str, Result]]] = {
    "learning_rates": learning_rates,
    "individual_select": individual_select,
    "all_data": all_data,
}
