"""A whole study: for each seed the pool, its scores, the soups, and what they are compared with; then the table.

    work/seed-0/finetune.yaml     what `soup finetune` was given, and ckpts/, base/, ckpts.finetune/ from it
    work/seed-0/scores/           the run: one journal for all that is judged
    work/seed-0/soups/<strategy>/ the soups
    work/seed-0/<comparison>/     what that comparison trained and cooked
    work/study.json, study.md     the table

Every step asks whether its work is done already: typed again after a stop, the command goes on there.
"""

import json
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetune.study.comparisons import COMPARISONS
from finetune.study.config import StudyConfig, read_study
from finetune.study.seed_run import SeedRun, StudyProgress
from finetune.study.table import Result, StudyTable
from soup.errors import FinetuneError, SoupError
from soup.search.bound_strategy import BoundStrategy
from soup.support.atomic_files import write_atomic
from soup.support.text import bullet_list

__all__ = ["plan_study", "run_study"]


def run_study(path: Path | str, *, voice: StudyProgress | None = None, judge_url: str | None = None) -> StudyTable:
    """Do what a study's file asks for and is not there yet; gives its table, and writes it beside the seeds' folders.

    Raises:
        SoupError: a wrong file, data that can't be made, a job that failed, a harness that failed.
    """
    path, voice = Path(path), voice or StudyProgress()
    study = _with_judge(read_study(path), judge_url)
    _check_strategies(study, path)
    table = StudyTable(study.split is not None)
    for seed in study.seeds:
        bench = SeedRun(study, path.parent, seed, voice)
        voice.say(f"seed {seed}: {bench.place}")
        prepare(bench)
        with bench.environment():
            bench.check_eval()
            results = pool_and_soups(bench)
            for name in study.compare:
                results |= COMPARISONS[name](bench)
        table = table.with_seed(seed, results)
        _keep(table, path.parent / study.root)
    return table


def pool_and_soups(bench: SeedRun) -> dict[str, Result]:
    """The start, D alone, the pool, and a soup for each strategy."""
    pool = bench.train("finetune")
    [alone] = bench.train("alone", added={}, include_base=True, out=bench.near("alone"))
    start = _start(bench)
    results = {"start": Result.of(bench.judge([start])[0])} if start else {}
    results["the base set alone"] = Result.of(bench.judge([alone])[0])
    singles = [Result.of(trial) for trial in bench.judge(pool)]
    results["mean of the singles"] = Result.mean(singles)
    results["best single"] = max(singles, key=lambda result: result.chose)
    for strategy in bench.study.strategies:
        results[strategy] = bench.cook(strategy, pool)
    return results


def _start(bench: SeedRun) -> Path | None:
    """The checkpoint that all ingredients start from, where it is a directory."""
    start = bench.study.pool(bench.home, bench.seed)["start"]
    place = bench.home / (start["out"] if isinstance(start, Mapping) else start)
    return place if place.is_dir() else None


def prepare(bench: SeedRun) -> None:
    """Run the study's commands for a seed, unless they ran to their end before.

    Raises:
        FinetuneError: a command failed; with the end of what it said.
    """
    bench.place.mkdir(parents=True, exist_ok=True)
    commands = [[bench.filled(word) for word in shlex.split(line)] for line in bench.study.prepare]
    done = bench.place / "prepared.json"
    if done.is_file() and json.loads(done.read_text(encoding="utf-8")) == commands:
        return
    for words in commands:
        bench.voice.say(f"$ {shlex.join(words)}")
        made = subprocess.run(words, cwd=bench.home, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if made.returncode:
            tail = "\n".join(made.stdout.splitlines()[-15:])
            raise FinetuneError(f"{shlex.join(words)}: failed with exit code {made.returncode}.\n{tail}")
    write_atomic(done, json.dumps(commands))


def plan_study(path: Path | str) -> dict[str, Any]:
    """What `run_study` would train and judge, counted; nothing is started or written.

    Raises:
        FinetuneError: a wrong file.
    """
    study = read_study(Path(path))
    _check_strategies(study, path)
    ingredients = list(study.finetune["added"])
    k, rates = len(ingredients), len(study.learning_rates)
    trained = {"start": int(isinstance(study.finetune["start"], Mapping)), "pool": k, "the base set alone": 1}
    judged = {"singles": k + 2, **{name: {"average": 1}.get(name, 2 * k - 1) for name in study.strategies}}
    if "learning_rates" in study.compare:
        trained["learning_rates"], judged["learning_rates"] = rates, 2 * rates - 1
    if "individual_select" in study.compare:
        trained["individual_select (at most)"] = judged["individual_select (at most)"] = k - 1
    if "all_data" in study.compare:
        trained["all_data"] = judged["all_data"] = 2
    return {
        "schema": 1,
        "seeds": study.seeds,
        "ingredients": ingredients,
        "trainings_per_seed": trained,
        "evaluations_per_seed_at_most": judged,
        "benchmarks": study.eval,
        "out": str(Path(path).parent / study.root),
    }


def _with_judge(study: StudyConfig, url: str | None) -> StudyConfig:
    if url is None:
        return study
    if study.judge is None:
        raise FinetuneError("--judge-url: the study names no judge; its file's `judge` says which model answers there.")
    return study.model_copy(update={"judge": study.judge.model_copy(update={"url": url})})


def _check_strategies(study: StudyConfig, path: Path | str) -> None:
    """Raises FinetuneError for strategies that there are not: hours later, when the pool is trained, is late."""
    wrong = []
    for name in study.strategies:
        try:
            BoundStrategy.bind(name, None)
        except SoupError as error:
            wrong.append(f"strategies: {error}")
    if wrong:
        raise FinetuneError(f"{path}: {len(wrong)} wrong.\n{bullet_list(wrong)}")


def _keep(table: StudyTable, root: Path) -> None:
    write_atomic(root / "study.json", json.dumps(table.as_json(), indent=2) + "\n")
    write_atomic(root / "study.md", table.as_markdown())
