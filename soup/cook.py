"""A strategy's whole run: open the pool, search over scores, merge what was chosen, tell.

Type the same call again after a kill: remembered scores answer at once, and the soup has the same bytes.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soup.blocks import Options
from soup.checkpoint import looks_like_checkpoint
from soup.crew import Crew, LocalCrew, brief_for
from soup.digest import ContentDigest, DigestCache, Progress
from soup.errors import EvaluatorError, OutputError, RecipeError, SoupError, listing
from soup.evaluation import ALL, Benchmark, Settings, Split, parse_benchmarks
from soup.hub import is_hub_id
from soup.journal import Journal
from soup.jury import Jury, make_jury
from soup.merge import earlier_soup, merge, plan_merge, refuse_inputs_as_output
from soup.objective import PLAIN, Objective
from soup.outcome import Soup, card_scores, remember_outcome
from soup.plan import merge_plan
from soup.plugins import STRATEGIES
from soup.pool import Ingredient, Pool
from soup.ray_crew import RayCrew
from soup.recipe import Recipe
from soup.speculate import SideBySide
from soup.trial import Scorer, Trial, clear_scratch, shares_of
from soup.writer import refuse_destination

__all__ = ["Listener", "cook", "evaluate", "plan_cook", "run_directory"]


@dataclass(frozen=True)
class Listener:
    """Whom to tell what happens: warnings, the start of an evaluation, each trial, and progress in bytes.

    `phase` names what the next bytes belong to, and how many they will be.
    """

    warn: Callable[[str], None] = lambda text: None
    starting: Callable[[Recipe, Benchmark], None] = lambda recipe, benchmark: None
    told: Callable[[Trial], None] = lambda trial: None
    phase: Callable[[str, int], None] = lambda name, total_bytes: None
    progress: Progress = lambda count: None


def run_directory(places: str | Path | Sequence[str | Path]) -> Path:
    """Where a run's work lives by default: beside the pool, `ckpts.soup/` for `ckpts/` and for checkpoints in it."""
    given = [places] if isinstance(places, str | Path) else list(places)
    first = Path(given[0])
    if is_hub_id(str(given[0])) and not first.exists():
        return Path("pool.soup")
    folder = first.absolute()
    folder = folder.parent if len(given) > 1 or looks_like_checkpoint(folder) else folder
    if Path.cwd().is_relative_to(folder):
        return Path("pool.soup")  # beside it would be outside of where the user works
    return folder.with_name(f"{folder.name}.soup")


def cook(
    strategy: str | Callable[..., Any],
    *,
    pool: str | Path | Sequence[str | Path],
    out: str | Path | None = None,
    eval: str | Sequence[str] = (),  # the word that users type
    base: str | Path | None = None,
    exclude: Sequence[str] = (),
    run: str | Path | None = None,
    split: float | None = None,
    objective: Objective = PLAIN,
    options: Mapping[str, Any] | None = None,
    method: str = "linear",
    params: Mapping[str, Any] | None = None,
    dtype: str | None = None,
    drop: Sequence[str] = (),
    overwrite: bool = False,
    max_shard_bytes: int | None = None,
    allow_nonfinite: bool = False,
    settings: Settings | None = None,
    workers: int = 0,
    ray: str | None = None,
    listener: Listener | None = None,
    threads: int | None = None,
) -> Soup:
    """Choose a soup from a pool by a strategy, and write it to `out` (default `soups/<strategy>/`).

    `strategy` is a name, `FILE.py:FUNCTION`, or a function `f(pool, score, **options)`. `eval` names benchmarks as on
    the command line; without it only strategies that ask for no score can run. With `split`, that share of each
    benchmark's questions chooses and the others report. `objective` weighs benchmarks and guards them against a drop.
    With `workers`, so many processes judge candidates side by side, one GPU each; with `ray` (an address, or `local`),
    actors of a cluster, by default one a GPU. The outcome is the same.

    Raises:
        SoupError: see the tree in `soup/errors.py`. What can be checked is checked before the first evaluation.
    """
    listener = listener or Listener()
    choose, name = _strategy(strategy)
    ask = dict(options or {})
    _refuse_options(choose, name, ask)
    out = Path(out) if out is not None else Path("soups") / name.replace(":", "_").replace("/", "_")
    fields = {
        "strategy": name,
        "objective": objective.as_json(),
        "method": method,
        "params": dict(params or {}),
        "dtype": dtype,
        "drop": tuple(drop),
    }
    benchmarks = parse_benchmarks([eval] if isinstance(eval, str) else eval, _split(split)) if eval else []
    with Pool.open(pool, base, exclude) as opened:
        opened.check(dtype, drop)
        warnings = _warn(opened, listener)
        _refuse_out(out, name, opened, pool, overwrite=overwrite)
        plan_merge(_unsealed(opened, list(opened), fields), opened)  # method, params, dtype: wrong ones are told now
        trials: tuple[Trial, ...] = ()
        if not benchmarks:
            picked = _choose(choose, name, opened, _no_score, ask)
            recipe = _unsealed(opened, picked, fields)
        else:
            home = Path(run) if run is not None else run_directory(pool)
            _refuse_run_as_output(home, out)
            jury = make_jury(benchmarks, settings or Settings())
            with (
                _scorer(opened, jury, home, fields, listener, allow_nonfinite, objective) as scorer,
                _side_by_side(scorer, settings or Settings(), workers, ray) as crew,
            ):

                def picks(score: Callable[..., Any]) -> Any:
                    return _choose(choose, name, opened, score, ask)

                picked = crew.choose(picks) if crew else picks(scorer)
                recipe = _guarded(scorer(picked)).recipe
                trials = _reported(scorer, recipe, split, crew)
        soup = _write(opened, recipe, out, trials, listener, overwrite, max_shard_bytes, allow_nonfinite, threads)
        warnings += soup.repeated
        for text in () if benchmarks else soup.repeated:  # with benchmarks it was told before the search
            listener.warn(text)
        result = Soup(name, out, _names(picked), soup, trials, tuple(warnings))
        if benchmarks:
            remember_outcome(home, result)
    return result


def evaluate(
    checkpoints: Sequence[str | Path],
    *,
    eval: str | Sequence[str],
    run: str | Path | None = None,
    split: float | None = None,
    allow_nonfinite: bool = False,
    settings: Settings | None = None,
    workers: int = 0,
    ray: str | None = None,
    listener: Listener | None = None,
) -> list[Trial]:
    """Score checkpoints one by one, each alone, into the journal. They need not belong together.

    Raises:
        SoupError: a checkpoint is damaged, a benchmark unknown or its data not here, or the harness failed.
    """
    listener = listener or Listener()
    benchmarks = parse_benchmarks([eval] if isinstance(eval, str) else eval, _split(split))
    home = Path(run) if run is not None else run_directory(checkpoints)
    with Pool.open([*checkpoints]) as opened:
        jury = make_jury(benchmarks, settings or Settings())
        with (
            _scorer(opened, jury, home, {}, listener, allow_nonfinite) as scorer,
            _side_by_side(scorer, settings or Settings(), workers, ray) as crew,
        ):
            if crew:
                crew.complete([scorer.recipe([part]) for part in opened], benchmarks[0].split)
            for ingredient in opened:
                scorer([ingredient])
            return list(_reported(scorer, None, split, crew))


def _strategy(strategy: str | Callable[..., Any]) -> tuple[Callable[..., Any], str]:
    if isinstance(strategy, str):
        return STRATEGIES.get(strategy), strategy
    return strategy, getattr(strategy, "__name__", "strategy")


def _split(split: float | None) -> Split:
    return ALL if split is None else Split("selection", split)


def _no_score(chosen: Any, /) -> Any:
    raise EvaluatorError("This strategy asks for scores: pass --eval, e.g. --eval mmbench,ocrbench.")


def _refuse_options(choose: Callable[..., Any], name: str, options: Mapping[str, Any]) -> None:
    """Say before the first evaluation that the strategy can't be called like this."""
    if not callable(choose):
        raise RecipeError(f"Strategy {name}: expected a function of a pool and a score, found {choose!r:.80}.")
    try:
        inspect.signature(choose).bind(None, None, **options)
    except TypeError as error:
        raise RecipeError(
            f"Strategy {name}: {error}. It is called as strategy(pool, score, **options), options being "
            f"{', '.join(options) or 'none'}; it takes {inspect.signature(choose)}."
        ) from error
    except ValueError:
        return  # a callable written in C has no signature to look at


def _choose(
    choose: Callable[..., Any], name: str, pool: Pool, score: Callable[..., Any], options: Mapping[str, Any]
) -> list[Any] | dict[Any, float]:
    """What the strategy returns: ingredients or their names, or a weight for each."""
    try:
        picked = choose(pool, score, **options)
        shares_of(pool, picked := dict(picked) if isinstance(picked, Mapping) else _listed(picked))
    except SoupError as error:
        if isinstance(error, RecipeError):
            raise RecipeError(f"Strategy {name}: {error}") from error
        raise
    except Exception as error:
        tail = "".join(traceback.format_exception(error)[-4:]).rstrip()
        raise RecipeError(f"Strategy {name} failed:\n{tail}") from error
    return picked


def _listed(picked: Any) -> list[Any]:
    if isinstance(picked, str) or not isinstance(picked, Iterable):
        raise RecipeError(
            f"expected to be given a list of ingredients or names, or a weight for each; found {picked!r}."
        )
    return list(picked)


def _guarded(trial: Trial) -> Trial:
    """The chosen soup, unless it breaks a guard: whatever the strategy, such a soup is not written."""
    if trial.broken:
        raise RecipeError(
            f"The chosen soup, {' + '.join(trial.names)}, breaks what --guard asks for, and was not written:\n"
            f"{listing(trial.broken)}\nAll scores are kept: another strategy or a wider guard starts from them."
        )
    return trial


def _names(picked: Iterable[Any]) -> tuple[str, ...]:
    return tuple(part.name if isinstance(part, Ingredient) else str(part) for part in picked)


def _unsealed(pool: Pool, chosen: Sequence[Any] | Mapping[Any, float], fields: Mapping[str, Any]) -> Recipe:
    base = pool.base.source() if pool.base else None
    return Recipe(ingredients=tuple(shares_of(pool, chosen)), base=base, **fields)


def _warn(pool: Pool, listener: Listener) -> list[str]:
    warnings = pool.warnings()
    if len(pool) == 1:
        warnings.append(f"a pool of one: the soup will be {pool.names[0]} itself")
    for text in warnings:
        listener.warn(text)
    return warnings


def _refuse_out(out: Path, name: str, pool: Pool, places: Any, *, overwrite: bool) -> None:
    """Say before the first evaluation what would stop the last step.

    An earlier soup of the same strategy and pool may be this very one: that shows when the recipe is known.
    """
    folder = Path(places) if isinstance(places, str | Path) else None
    if folder is not None and folder.is_dir() and out.resolve().parent == folder.resolve():
        raise OutputError(
            f"{out}: lies in the pool, where the next run would take it for an ingredient. Choose another -o/--out."
        )
    refuse_inputs_as_output(pool, out)
    earlier = earlier_soup(out)
    if earlier and not overwrite and earlier.strategy == name and {*earlier.names} <= {*pool.names}:
        return
    refuse_destination(out, overwrite=overwrite)


def _refuse_run_as_output(home: Path, out: Path) -> None:
    """A soup among the run's own files would be in its way, and one in its scratch would be removed with it."""
    run, soup = home.resolve(), out.resolve()
    if run.is_relative_to(soup) or any(soup.is_relative_to(run / own) for own in ("scratch", "soups")):
        raise OutputError(f"{out}: is where the run keeps its own files (--run {home}). Choose another -o/--out.")


@contextmanager
def _scorer(
    pool: Pool,
    jury: Jury,
    home: Path,
    fields: Mapping[str, Any],
    listener: Listener,
    allow_nonfinite: bool,
    objective: Objective = PLAIN,
) -> Iterator[Scorer]:
    with Journal(home / "journal.jsonl") as journal:
        scratch = home / "scratch"
        clear_scratch(scratch)
        digests = _digests(pool, DigestCache(home / "digests.json"), listener)
        scorer = Scorer(
            pool, jury, journal, scratch, digests, fields, objective, allow_nonfinite, listener.starting, listener.told
        )
        try:
            yield scorer
        except KeyboardInterrupt:
            clear_scratch(scratch)
            raise
        finally:
            with suppress(OSError):
                scratch.rmdir()  # what a failed evaluation left there stays


def _digests(pool: Pool, cache: DigestCache, listener: Listener) -> dict[str, ContentDigest]:
    unknown = [ingredient.checkpoint for ingredient in pool if not cache.knows(ingredient.checkpoint)]
    if unknown:
        listener.phase("reading the pool", sum(checkpoint.bytes for checkpoint in unknown))
    digests = {ingredient.name: cache.get(ingredient.checkpoint, listener.progress) for ingredient in pool}
    for text in Recipe.uniform([part.source(digests[part.name].content) for part in pool]).repeated:
        listener.warn(text)
    return digests


@contextmanager
def _side_by_side(scorer: Scorer, settings: Settings, workers: int, ray: str | None) -> Iterator[SideBySide | None]:
    """Workers for the time of a search; None where candidates are judged one by one, in this process."""
    if not workers and not ray:
        yield None
        return
    benchmarks = [benchmark for benchmark, _, _ in scorer.jury.seats]
    brief = brief_for(
        scorer.pool, benchmarks, settings, scorer.scratch, scorer.digests, allow_nonfinite=scorer.allow_nonfinite
    )
    crew: Crew = LocalCrew(brief, workers, scorer.scratch.parent / "logs") if not ray else RayCrew(brief, workers, ray)
    try:
        yield SideBySide(scorer, crew)
    finally:
        crew.close()
        for home in scorer.scratch.glob("*/checkpoint"):  # of soups that were still being judged in vain
            clear_scratch(home.parent)


def _reported(scorer: Scorer, recipe: Recipe | None, split: float | None, crew: SideBySide | None) -> tuple[Trial, ...]:
    """All trials; with a split, the single models and the chosen soup are judged on the report questions too."""
    if split is not None:
        report = Split("report", split)
        chosen = recipe.digest if recipe else None
        wanted = [t for t in scorer.trials.values() if len(t.names) == 1 or t.recipe.digest == chosen]
        if crew:
            crew.complete([trial.recipe for trial in wanted], report)
        for trial in wanted:
            scorer.report(trial, report)
    return tuple(scorer.trials.values())


def _write(
    pool: Pool,
    recipe: Recipe,
    out: Path,
    trials: Sequence[Trial],
    listener: Listener,
    overwrite: bool,
    max_shard_bytes: int | None,
    allow_nonfinite: bool,
    threads: int | None,
) -> Recipe:
    plan = plan_merge(recipe, pool, max_shard_bytes=max_shard_bytes)
    listener.phase("merging", plan.read_bytes)
    final = [trial for trial in trials if trial.recipe == recipe]
    return merge(
        recipe,
        out,
        overwrite=overwrite,
        max_shard_bytes=max_shard_bytes,
        allow_nonfinite=allow_nonfinite,
        scores=card_scores(final[0]) if final else None,
        options=Options(threads=threads, progress=listener.progress),
        pool=pool,
    )


def plan_cook(
    strategy: str,
    *,
    pool: str | Path | Sequence[str | Path],
    out: str | Path | None = None,
    eval: str | Sequence[str] = (),
    base: str | Path | None = None,
    exclude: Sequence[str] = (),
    run: str | Path | None = None,
    split: float | None = None,
    dtype: str | None = None,
    drop: Sequence[str] = (),
    overwrite: bool = False,
    max_shard_bytes: int | None = None,
    settings: Settings | None = None,
    **others: Any,
) -> dict[str, Any]:
    """What `cook` would do, after the same checks and before any work: the largest soup it could write.

    Raises:
        SoupError: as `cook`.
    """
    name = _strategy(strategy)[1]
    place = Path(out) if out is not None else Path("soups") / name.replace(":", "_").replace("/", "_")
    benchmarks = parse_benchmarks([eval] if isinstance(eval, str) else eval, _split(split)) if eval else []
    with Pool.open(pool, base, exclude) as opened:
        opened.check(dtype, drop)
        _refuse_out(place, name, opened, pool, overwrite=overwrite)
        recipe = _unsealed(opened, list(opened), {"strategy": name, "dtype": dtype, "drop": tuple(drop)})
        plan: dict[str, Any] = merge_plan(plan_merge(recipe, opened, max_shard_bytes=max_shard_bytes), place)
        if benchmarks:
            make_jury(benchmarks, settings or Settings())
            most = {"average": 1, "greedy": 2 * len(opened) - 1, "maximum": 2 * len(opened) - 1}
            plan["benchmarks"] = [benchmark.name for benchmark in benchmarks]
            plan["evaluations_at_most"] = most.get(name, "as many as the strategy asks for")
            plan["run"] = str(run if run is not None else run_directory(pool))
    return {"schema": 1, "strategy": name, **plan}
