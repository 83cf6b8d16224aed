"""A run directory as a greedy search leaves it, of any size, with neither models nor weights.

Its benchmarks are `pictures:NAME`. An ingredient has a skill for each, a soup the mean of its ingredients' and a little
more for each; a question is right where the skill, and the model's luck on it, exceed its difficulty.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from soup.evaluation.api import Benchmark, Harness, Score, ShownQuestion, Split
from soup.evaluation.journal import Journal, score_key
from soup.evaluation.run_directory import RunDirectory
from soup.evaluation.trial import Trial
from soup.merging.recipe import CheckpointSource, Recipe
from soup.search.result import Soup, save_result
from soup.support.plugins import EVALUATORS

IDENTITY = {"evaluator": "pictures", "version": 1, "data": "d" * 64, "answering": {"model": "auto", "device": "cpu"}}
HOSTILE = "</script><script>document.title='taken'</script>"


@EVALUATORS.register("pictures")
class Pictures(Harness):
    has_parts = False
    target_hint = "NAME"
    image_side = 24

    def __init__(self, settings): ...

    def identity(self, benchmark):
        return IDENTITY

    def categories(self, benchmark):
        return {str(index): "counting" if index % 3 else "reading" for index in range(5_000)}

    def show(self, benchmark, indices, models):
        return {index: self._shown(index, models) for index in indices}

    def _shown(self, index, models):
        answers = tuple(f"{model.kept.name} says {HOSTILE}" for model in models)
        return ShownQuestion(f"What is {index}?\n{HOSTILE}", (_picture(int(index), self.image_side),), answers, "seven")


@cache
def _picture(seed, side):
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@dataclass
class SimulatedRun:
    folder: Path
    ingredients: int = 4
    benchmarks: int = 2
    questions: int = 120
    split: float | None = 0.5
    seed: int = 0

    def __post_init__(self):
        self.random = np.random.default_rng(self.seed)
        self.names = [f"tuned-{index}" for index in range(self.ingredients)]
        self.skills = self.random.normal(0.6, 0.15, (self.ingredients + 1, self.benchmarks))
        self.difficulties = self.random.normal(0, 1, (self.benchmarks, self.questions))
        part = "all" if self.split is None else "selection"
        self.parts = [Split(part, self.split or 1.0), *([] if self.split is None else [Split("report", self.split)])]
        self.run = RunDirectory(self.folder)
        self.sources = {name: self._source(name) for name in [*self.names, "base"]}

    def _source(self, name):
        return CheckpointSource(name=name, path=f"/home/Jane Doe/ckpts/{name}", digest=f"xxh3:{name:>032}")

    def recipe(self, names):
        recipe = Recipe.uniform([self.sources[name] for name in names])
        return recipe.model_copy(update={"side_digest": "xxh3:" + "0" * 32, "strategy": "greedy"})

    def scores(self, names, split):
        rows = [self.ingredients if name == "base" else self.names.index(name) for name in names]
        skills = self.skills[rows].mean(axis=0) + 0.3 * np.sqrt(len(rows) - 1)
        luck = np.random.default_rng([self.seed, *rows]).normal(0, 0.5, self.difficulties.shape)
        right = skills[:, None] + luck > self.difficulties
        indices = [str(index) for index in range(self.questions) if split.holds(str(index))]
        points = [{index: float(row[int(index)]) for index in indices} for row in right]
        return {f"pictures:b{n}": Score(100 * float(np.mean([*p.values()])), len(p), p) for n, p in enumerate(points)}

    def remember(self, journal, names, split):
        recipe = self.recipe(names)
        for name, score in self.scores(names, split).items():
            benchmark = Benchmark(name, "pictures", name.partition(":")[2], split)
            key = score_key(recipe.digest, benchmark, IDENTITY)
            journal.remember(key, recipe, benchmark, IDENTITY, score, 2.5)
        return Trial(recipe, self.scores(names, split), part=split.part)

    def search(self, *, ends=True, base=True):
        """Score base and singles, then add each that does not make it worse; without an end no result is kept."""
        choosing, *reporting = self.parts
        with Journal(self.run.journal) as journal:
            if base:
                for split in self.parts:
                    self.remember(journal, ["base"], split)
            trials = [self.remember(journal, [name], choosing) for name in self.names]
            ranked = [t.names[0] for t in sorted(trials, key=lambda trial: -trial.overall)]
            chosen, best = ranked[:1], max(trial.overall for trial in trials)
            for name in ranked[1:]:
                trials.append(self.remember(journal, [*chosen, name], choosing))
                if trials[-1].overall >= best:
                    chosen, best = [*chosen, name], trials[-1].overall
            if not ends:
                return None
            whole = self.recipe(chosen)
            reported = []
            for trial in trials:
                wanted = reporting and (trial.is_single or trial.recipe.digest == whole.digest)
                more = self.remember(journal, trial.names, reporting[0]).scores if wanted else {}
                reported.append(replace(trial, report=more))
        soup = Soup("greedy", Path("/home/Jane Doe/out"), tuple(chosen), whole, tuple(reported))
        save_result(self.run, soup)
        return soup
