"""A whole study: for each seed the pool, its scores, the soups, and what they are compared with; then the table.

    work/seed-0/prepare.log       what the commands of `prepare` said
    work/seed-0/finetune.yaml     what `soup finetune` was given, and ckpts/, base/, ckpts.finetune/ from it
    work/seed-0/scores/           the run: one journal for all evaluations
    work/seed-0/soups/<strategy>/ the soups
    work/seed-0/pools/<name>/     another pool of the study's, and <name>.scores/, its run
    work/seed-0/<comparison>/     what that comparison trained and cooked
    work/study.json, study.md     the table

Every step asks whether its work is done already: typed again after a stop, the command goes on there.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from finetune.study.comparisons import COMPARISONS
from finetune.study.config import StudyConfig, read_study
from finetune.study.seed_run import SeedRun, StudyProgress
from finetune.study.table import StudyResult, StudyTable
from soup.errors import FinetuneError, SoupError
from soup.search.bound_strategy import BoundStrategy
from soup.support.atomic_files import write_atomic
from soup.support.child_process import ChildProcess
from soup.support.json_text import read_json
from soup.support.log_ends import log_tail
from soup.support.text import bullet_list, without_secrets

__all__ = ["plan_study", "run_study"]

UNKNOWN = "as many as the steps keep"


def run_study(path: Path | str, *, voice: StudyProgress | None = None, judge_url: str | None = None) -> StudyTable:
    """Do what a study's file asks for and is not there yet, and write its table beside the seeds' folders.

    Args:
        path: the study's file.
        voice: what is called as it goes on.
        judge_url: where the LLM judge answers, in place of the file's.

    Raises:
        SoupError: a wrong file, data that can't be made, a job that failed, a harness that failed.
    """
    path, voice = Path(path), voice or StudyProgress()
    study = _with_judge(read_study(path), judge_url)
    _check_strategies(study, path)
    table = StudyTable(study.split is not None)
    for seed in study.seeds:
        seed_run = SeedRun(study, path.parent, seed, voice)
        voice.say(f"seed {seed}: {seed_run.folder}")
        prepare(seed_run)
        with seed_run.environment():
            seed_run.check_eval()
            results: dict[str, StudyResult] = {}
            for more in _results(seed_run):
                results = {**results, **more}
                voice.table(table.with_seed(seed, results))
        table = table.with_seed(seed, results)
        _keep(table, path.parent / study.root)
    return table


def _results(seed_run: SeedRun) -> Iterator[Mapping[str, StudyResult]]:
    """Yield the results of a seed by their titles, as they come."""
    yield from pool_and_soups(seed_run)
    for name in seed_run.study.compare:
        yield COMPARISONS[name](seed_run)


def pool_and_soups(seed_run: SeedRun) -> Iterator[Mapping[str, StudyResult]]:
    """Evaluate the start, D alone and the pool, and cook a soup with each strategy; yield the results as they come."""
    pool = seed_run.train("finetune")
    [alone] = seed_run.train_beside("alone", {"added": {}, "include_base": True, "out": seed_run.near("alone")})
    if seed_run.start:
        yield {"start": StudyResult.of(seed_run.judge([seed_run.start])[0])}
    yield {"the base set alone": StudyResult.of(seed_run.judge([alone])[0])}
    yield from _singles_and_soups(seed_run, pool)
    for name, changed in seed_run.study.pools.items():
        more = seed_run.train(f"pools-{name}", {**changed, "out": seed_run.near(f"pools/{name}")})
        yield from _singles_and_soups(seed_run, more, f"{name}: ", f"pools/{name}.scores")


def _singles_and_soups(
    seed_run: SeedRun, pool: Sequence[Path], before: str = "", run: str = "scores"
) -> Iterator[Mapping[str, StudyResult]]:
    singles = [StudyResult.of(trial) for trial in seed_run.judge(pool, run)]
    yield {f"{before}mean of the singles": StudyResult.mean(singles)}
    yield {f"{before}best single": max(singles, key=lambda result: result.chose)}
    for strategy in seed_run.study.strategies:
        title = f"{before}{strategy}"
        yield {title: seed_run.cook(strategy, pool, title, run)}


def prepare(seed_run: SeedRun) -> None:
    """Run the study's commands for a seed, unless they ran to their end before.

    Raises:
        FinetuneError: a command failed, or can't be started; with the end of its output, which is in `prepare.log`.
    """
    seed_run.folder.mkdir(parents=True, exist_ok=True)
    commands = [[seed_run.filled(word) for word in shlex.split(line)] for line in seed_run.study.prepare]
    done = seed_run.folder / "prepared.json"
    with suppress(FinetuneError):
        if done.is_file() and read_json(done, FinetuneError) == commands:
            return
    log = seed_run.folder / "prepare.log"
    for words in commands:
        line = without_secrets(shlex.join(words))
        seed_run.voice.say(f"$ {line} (log: {log})")
        process = ChildProcess(words, log, folder=seed_run.home)
        try:
            code = process.wait()
        finally:
            process.stop()
        if code:
            raise FinetuneError(f"{line}: failed with exit code {code}.{log_tail(log)}")
    write_atomic(done, json.dumps(commands))


def plan_study(path: Path | str, *, judge_url: str | None = None) -> dict[str, object]:
    """Count what `run_study` would train and evaluate; nothing is started or written.

    Args:
        path: the study's file.
        judge_url: where the LLM judge answers, in place of the file's.

    Raises:
        FinetuneError: a wrong file.
        EvaluatorError: a benchmark is unknown, or its data are not here, unless `prepare` may bring them.
    """
    path = Path(path)
    study = _with_judge(read_study(path), judge_url)
    _check_strategies(study, path)
    if not study.prepare:
        seed_run = SeedRun(study, path.parent, study.seeds[0], StudyProgress())
        with seed_run.environment():
            seed_run.check_eval()
    k, rates = len(study.ingredients), len(study.learning_rates)
    trained = {"start": int(isinstance(study.finetune["start"], Mapping)), "pool": k, "the base set alone": 1}
    size = study.pool_size(path.parent)
    evaluated: dict[str, object] = {**_most_evaluations(study, size), "singles": UNKNOWN if size is None else size + 2}
    for pool, changed in study.pools.items():
        trained[pool] = k
        most = _most_evaluations(study, study.pool_size(path.parent, changed))
        evaluated |= {f"{pool}: {name}": count for name, count in most.items()}
    if "learning_rates" in study.compare:
        trained["learning_rates"], evaluated["learning_rates"] = rates, 2 * rates - 1
    if "individual_select" in study.compare:
        trained["individual_select (at most)"] = evaluated["individual_select (at most)"] = k - 1
    if "all_data" in study.compare:
        trained["all_data"] = evaluated["all_data"] = 2
    return {
        "schema": 1,
        "seeds": study.seeds,
        "ingredients": study.ingredients,
        "trainings_per_seed": trained,
        "evaluations_per_seed_at_most": evaluated,
        "benchmarks": study.eval,
        "out": str(path.parent / study.root),
    }


def _with_judge(study: StudyConfig, url: str | None) -> StudyConfig:
    if url is None:
        return study
    if study.judge is None:
        raise FinetuneError("--judge-url: the study names no judge; its file's `judge` says which model answers there.")
    return study.model_copy(update={"judge": study.judge.model_copy(update={"url": url})})


def _most_evaluations(study: StudyConfig, size: int | None) -> dict[str, object]:
    """Return how many models of a pool of that size are scored, and how many each strategy scores at most."""
    if size is None:
        return dict.fromkeys(["singles", *study.strategies], UNKNOWN)
    budgets = {name: BoundStrategy.bind(name, None).budget(size) for name in study.strategies}
    most = {name: b.singles + b.soups if b else "as many as it asks for" for name, b in budgets.items()}
    return {"singles": size, **most}


def _check_strategies(study: StudyConfig, path: Path) -> None:
    """Raise FinetuneError for strategies that are unknown or refuse such a pool, before hours of training."""
    sizes = [study.pool_size(path.parent, changed) for changed in ({}, *study.pools.values())]
    wrong: dict[str, None] = {}
    for name in study.strategies:
        try:
            strategy = BoundStrategy.bind(name, None)
            for size in sizes:
                if size is not None:
                    strategy.budget(size)
        except SoupError as error:
            wrong[f"strategies: {error}"] = None
    if wrong:
        raise FinetuneError(f"{path}: {len(wrong)} wrong.\n{bullet_list(wrong)}")


def _keep(table: StudyTable, root: Path) -> None:
    write_atomic(root / "study.json", json.dumps(table.as_json(), indent=2) + "\n")
    write_atomic(root / "study.md", table.as_markdown())
