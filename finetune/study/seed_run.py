"""One seed of a study: its folder, and the three things that are done in it: train, evaluate, cook."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from finetune.launching import launch
from finetune.study.config import StudyConfig, filled
from finetune.study.table import Result
from soup.evaluation.config import EvalConfig
from soup.evaluation.progress import Progress
from soup.evaluation.suite import build_suite
from soup.evaluation.trial import Trial
from soup.merging.options import WriteOptions
from soup.search.run import cook, evaluate
from soup.support.atomic_files import write_atomic

__all__ = ["SeedRun", "StudyProgress"]


@dataclass(frozen=True)
class StudyProgress:
    """How a study tells what it does; all of it may be silent."""

    say: Callable[[str], object] = lambda text: None
    progress: Any = None
    training: launch.LaunchProgress = field(default_factory=launch.LaunchProgress)
    judging: Progress = field(default_factory=Progress)


@dataclass(frozen=True)
class SeedRun:
    """One seed's folder, and the three things that are done in it: train, judge, cook."""

    study: StudyConfig
    home: Path
    seed: int
    voice: StudyProgress = field(default_factory=StudyProgress)

    @property
    def place(self) -> Path:
        """The seed's folder."""
        return self.study.place(self.home, self.seed)

    def train(self, name: str, **changed: Any) -> list[Path]:
        """The ingredients of the pool's configuration with these keys changed, kept as `<name>.yaml`."""
        keys = self.study.pool(self.home, self.seed, **changed)
        path = self.place / f"{name}.yaml"
        write_atomic(path, yaml.safe_dump(keys, sort_keys=False, allow_unicode=True))
        return launch.finetune(path, progress=self.voice.progress, listener=self.voice.training)

    def filled(self, text: str) -> str:
        """A text of the study's with {place} and {seed} filled in."""
        return filled(text, self.near("."), self.seed)

    @contextmanager
    def environment(self) -> Iterator[None]:
        """The study's variables, set for this seed. A folder that is named by {place} is given whole."""
        before = dict(os.environ)
        whole = {
            name: filled(text, str(self.place.absolute()), self.seed) for name, text in self.study.environment.items()
        }
        os.environ.update(whole)
        try:
            yield
        finally:
            for name in whole:
                os.environ.pop(name)
            os.environ.update(before)

    def near(self, name: str) -> str:
        """A folder of this seed's, as configurations name it."""
        return os.path.relpath(self.place / name, self.home)

    def check_eval(self) -> None:
        """Build the harnesses once, before anything is trained for them.

        Raises:
            EvaluatorError: a benchmark that is unknown, or whose harness or data are not here; all are listed.
        """
        config = self._eval_config()
        build_suite(config.parse(), config.settings)

    def judge(self, checkpoints: Sequence[Path]) -> list[Trial]:
        """The scores of checkpoints, each alone."""
        return evaluate(
            [str(path) for path in checkpoints],
            eval=self._eval_config(),
            run_dir=self.place / "scores",
            progress=self.voice.judging,
        )

    def cook(self, strategy: str, pool: Sequence[Path], title: str = "") -> Result:
        """The result of the soup that a strategy makes of a pool; other pools than the main one have a title."""
        run, name = (f"{title}.scores", title) if title else ("scores", strategy)
        made = cook(
            strategy,
            [str(path) for path in pool],
            out=self.place / "soups" / name,
            eval=self._eval_config(),
            run_dir=self.place / run,
            write=WriteOptions(overwrite=True),
            progress=self.voice.judging,
        )
        names = " + ".join(made.chosen)
        self.voice.say(f"{strategy}: {names}")
        return Result.of(next(trial for trial in made.trials if trial.recipe.digest == made.recipe.digest), names)

    def _eval_config(self) -> EvalConfig:
        judge, study = self.study.judge, self.study
        return EvalConfig(
            study.eval,
            split=study.split,
            workers=study.workers,
            model=study.model,
            batch_size=study.batch_size,
            judge_url=judge.url if judge else None,
            judge_model=judge.model if judge else None,
            judge_key_env=judge.key_env if judge else "OPENAI_API_KEY",
        )
