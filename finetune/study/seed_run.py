"""One seed of a study: its folder, and the three things that are done in it: train, evaluate, cook."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from finetune.launching import launch
from finetune.study.config import StudyConfig, filled
from finetune.study.table import StudyResult, StudyTable
from soup.evaluation.config import EvalConfig
from soup.evaluation.progress import Progress
from soup.evaluation.suite import build_suite
from soup.evaluation.trial import Trial
from soup.merging.options import WriteOptions
from soup.search.evaluate import evaluate
from soup.search.run import cook
from soup.support.atomic_files import write_atomic

__all__ = ["SeedRun", "StudyProgress"]


@dataclass(frozen=True)
class StudyProgress:
    """What a study calls as it goes on; by default nothing.

    Args:
        say: With a line for people.
        progress: With each training job's steps.
        training: What the launcher calls.
        judging: What evaluations and searches call.
        stage: With what begins now, in words.
        table: With what is known so far, as each result comes.
    """

    say: Callable[[str], object] = lambda text: None
    progress: launch.OnStep | None = None
    training: launch.LaunchProgress = field(default_factory=launch.LaunchProgress)
    judging: Progress = field(default_factory=Progress)
    stage: Callable[[str], object] = lambda text: None
    table: Callable[[StudyTable], object] = lambda table: None


@dataclass(frozen=True)
class SeedRun:
    """One seed's folder, and the three things that are done in it: train, judge, cook."""

    study: StudyConfig
    home: Path
    seed: int
    voice: StudyProgress = field(default_factory=StudyProgress)

    @property
    def folder(self) -> Path:
        """The seed's folder."""
        return self.study.seed_folder(self.home, self.seed)

    @property
    def keys(self) -> dict[str, object]:
        """The keys of the seed's `soup finetune` configuration."""
        return self.study.pool(self.home, self.seed)

    @property
    def added(self) -> dict[str, list[object]]:
        """The added data sets, as lists, by the names of their ingredients."""
        added = self.keys.get("added")
        assert isinstance(added, dict), "a study without added data sets is refused"
        return {name: sets if isinstance(sets, list) else [sets] for name, sets in added.items()}

    @property
    def start(self) -> Path | None:
        """The checkpoint that all ingredients start from, where it is a directory."""
        start = self.keys["start"]
        folder = self.home / str(start["out"] if isinstance(start, Mapping) else start)
        return folder if folder.is_dir() else None

    def train(self, name: str, changed: Mapping[str, object] | None = None) -> list[Path]:
        """Train the ingredients of a pool, and give their directories, those of earlier steps (`keep_every`) too.

        Args:
            name: of the YAML file that the configuration is kept in.
            changed: keys that are others.
        """
        self._begin(f"training {name}")
        keys = self.study.pool(self.home, self.seed, changed)
        path = self.folder / f"{name}.yaml"
        write_atomic(path, yaml.safe_dump(keys, sort_keys=False, allow_unicode=True))
        return launch.finetune(path, progress=self.voice.progress, listener=self.voice.training)

    def train_beside(self, name: str, changed: Mapping[str, object]) -> list[Path]:
        """Train what the pool is compared with, and give one directory for each model: its last, no earlier step's.

        Args:
            name: as `train` has it.
            changed: keys that are others.
        """
        return self.train(name, {**changed, "keep_every": None})

    def filled(self, text: str) -> str:
        """Give a text of the study's with {place} and {seed} filled in."""
        return str(filled(text, self.near("."), self.seed))

    @contextmanager
    def environment(self) -> Iterator[None]:
        """Set the study's variables for this seed; {place} becomes the whole path of its folder."""
        before = dict(os.environ)
        folder = str(self.folder.absolute())
        variables = {name: str(filled(text, folder, self.seed)) for name, text in self.study.environment.items()}
        os.environ.update(variables)
        try:
            yield
        finally:
            for name in variables:
                os.environ.pop(name)
            os.environ.update(before)

    def near(self, name: str) -> str:
        """Give a folder of this seed's, as configurations name it."""
        return os.path.relpath(self.folder / name, self.home)

    def check_eval(self) -> None:
        """Build the harnesses once, before anything is trained for them.

        Raises:
            EvaluatorError: a benchmark that is unknown, or whose harness or data are not here; all are listed.
        """
        config = self._eval_config()
        build_suite(config.parse(), config.settings)

    def judge(self, checkpoints: Sequence[Path], run: str = "scores") -> list[Trial]:
        """Evaluate checkpoints, each alone, into the journal of a run."""
        self._begin("evaluating")
        return evaluate(
            [str(path) for path in checkpoints],
            eval=self._eval_config(),
            run_dir=self.folder / run,
            progress=self.voice.judging,
        )

    def cook(self, strategy: str, pool: Sequence[Path], title: str = "", run: str = "scores") -> StudyResult:
        """Cook a soup, and give its result.

        Args:
            strategy: by name.
            pool: the checkpoints.
            title: of its row and its folder; by default the strategy's name.
            run: the folder of its journal.
        """
        title = title or strategy
        self._begin(f"cooking {title}")
        made = cook(
            strategy,
            [str(path) for path in pool],
            out=self.folder / "soups" / title.replace(": ", "-"),
            eval=self._eval_config(),
            base=self.start,
            run_dir=self.folder / run,
            write=WriteOptions(overwrite=True),
            progress=self.voice.judging,
        )
        names = made.recipe.describe(made.chosen)
        self.voice.say(f"{title}: {names}")
        return StudyResult.of(next(trial for trial in made.trials if trial.recipe.digest == made.recipe.digest), names)

    def _begin(self, what: str) -> None:
        seeds = self.study.seeds
        self.voice.stage(f"seed {self.seed} ({seeds.index(self.seed) + 1} of {len(seeds)}): {what}")

    def _eval_config(self) -> EvalConfig:
        judge, study = self.study.judge, self.study
        return EvalConfig(
            study.eval,
            split=study.split,
            workers=study.workers,
            model=study.model,
            engine=study.engine,
            engine_args=study.engine_args,
            batch_size=study.batch_size,
            shots=study.shots,
            judge_url=judge.url if judge else None,
            judge_model=judge.model if judge else None,
            judge_key_env=judge.key_env if judge else "OPENAI_API_KEY",
        )
