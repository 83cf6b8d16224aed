"""Individual Select: which added data sets make the base set better, each tried alone; what is left is a pool to soup.

    pool.yaml                      D, and d_1 ... d_k under `added`
    ckpts/<name>                   trained on D + d_i, as `soup finetune pool.yaml` would have it
    ckpts.select/base              trained on D alone
    ckpts.select/scores/           the run: one journal for all k + 1 evaluations
    pool.selected.yaml             D and the kept sets as `data`, the rest as `added`; without a rest, one model of D
    pool.selected.study.yaml       a study of that pool

Each gain is compared with D alone, so that interactions of the kept sets are not seen, and a gain within the noise is
kept like any other, unless the rule asks for more (`p>0.9`).

Source: Individual Select, arXiv 2405.11850; POINTS, arXiv 2409.04828, section 3.1, whose soups are of what it left.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from finetune.config import POOL_KEYS, FinetuneConfig, Stage
from finetune.config_file import parse_config
from finetune.launching import launch
from finetune.launching.job_plans import plan_launch
from finetune.study.config import StudyConfig, way_back
from finetune.study.seed_run import StudyProgress
from finetune.yaml_file import read_mapping
from soup.errors import EvaluatorError, FinetuneError
from soup.evaluation.config import EvalConfig
from soup.evaluation.engine import argument_flag
from soup.evaluation.suite import build_suite
from soup.evaluation.trial import Trial
from soup.search.evaluate import evaluate
from soup.search.result import trial_as_json
from soup.search.strategies.acceptance import Rule, describe_difference
from soup.support.atomic_files import write_atomic
from soup.support.options import option_name, options_of
from soup.support.text import without_secrets

__all__ = ["Selection", "Selector"]


@dataclass(frozen=True)
class Selection:
    """What was chosen: trials by name, that of D alone, and the files that came of it."""

    base: Trial
    trials: Mapping[str, Trial]
    kept: tuple[str, ...]
    pool: Path
    study: Path | None

    @property
    def rest(self) -> tuple[str, ...]:
        """The data sets that were not kept."""
        return tuple(name for name in self.trials if name not in self.kept)

    def lines(self) -> list[list[str]]:
        """Give a line for each data set: its overall, how much more that is than D's alone, whether it was kept."""
        return [
            [name, f"{trial.overall:.2f}", describe_difference(trial, self.base), "kept" * (name in self.kept)]
            for name, trial in self.trials.items()
        ]

    def as_json(self) -> dict[str, object]:
        """Give the selection for machines."""
        rows = [
            {"name": name, **trial_as_json(trial), "versus_base": self._change(trial), "kept": name in self.kept}
            for name, trial in self.trials.items()
        ]
        files = {"pool": str(self.pool), "study": str(self.study) if self.study else None}
        return {"schema": 1, "base": self.base.overall, "trials": rows, "rest": list(self.rest), **files}

    def _change(self, trial: Trial) -> dict[str, float]:
        """Return how much higher an overall is than that of D alone, with its interval where there is one."""
        change = trial.difference(self.base)
        return change.as_json() if change else {"difference": trial.overall - self.base.overall}


class Selector:
    """Individual Select over the added sets of a pool's file.

    Args:
        path: The pool's file.
        config: The benchmarks, and how they are asked.
        accept: The rule by which a set is kept: `gt`, `ge`, or `p>0.9`.
        voice: What is called as it goes on.

    Raises:
        SoupError: a wrong file, rule, or benchmark, before anything is trained.
    """

    def __init__(self, path: Path, config: EvalConfig, accept: str = "gt", voice: StudyProgress | None = None) -> None:
        self.path, self.config, self.rule = path, config, Rule.parse(accept)
        self.voice = voice or StudyProgress()
        self.keys = read_mapping(path, POOL_KEYS)
        self.pool: FinetuneConfig = parse_config(self.keys, path)
        self.home = path.parent / self.pool.root
        if not self.pool.added:
            raise FinetuneError(f"{path}: expected data sets to choose from under `added`.")
        if self.pool.sweep:
            raise FinetuneError(f"{path}: leave `sweep` out: each data set is tried once.")
        self.benchmarks = config.parse()
        if not self.benchmarks:
            raise EvaluatorError(f"Nothing to choose by: pass {option_name('eval')}.")
        build_suite(self.benchmarks, config.settings)  # what is missing is told before anything is trained

    @property
    def folder(self) -> Path:
        """Where D alone, the scores and the configuration of both go."""
        return self.home / f"{self.pool.out}.select"

    def plan(self) -> dict[str, object]:
        """Count what would be trained and evaluated; nothing is started or written.

        Raises:
            SoupError: what would keep the trainings from starting.
        """
        plan_launch(self.path, writing=False)
        names = [*self.pool.added, "base"]
        return {
            "schema": 1,
            "trainings": names,
            "evaluations": len(names),
            "benchmarks": [benchmark.name for benchmark in self.benchmarks],
            "accept": self.rule.text,
            "out": str(self._pool_file),
        }

    def run(self) -> Selection:
        """Train and evaluate what is not there yet, and write the files.

        Raises:
            SoupError: a job failed, or a harness.
        """
        self.voice.stage("training on each data set")
        launch.finetune(self.path, progress=self.voice.progress, listener=self.voice.training)
        checkpoints = [self._base(), *(self.home / self.pool.out / name for name in self.pool.added)]
        run = self.folder / "scores"
        locations = [str(path) for path in checkpoints]
        self.voice.stage("evaluating")
        base, *others = evaluate(locations, eval=self.config, run_dir=run, progress=self.voice.judging)
        trials = dict(zip(self.pool.added, others, strict=True))
        kept = tuple(name for name, trial in trials.items() if self.rule.admits(trial, base))
        keys = self._selected(kept)
        self._write(self._pool_file, keys)
        study = self._write_study(keys) if keys["added"] else None
        return Selection(base, trials, kept, self._pool_file, study)

    @property
    def _pool_file(self) -> Path:
        return self.path.with_name(f"{self.path.stem}.selected.yaml")

    def _base(self) -> Path:
        """Train on D alone, unless the pool's file does; give the checkpoint."""
        if self.pool.include_base:
            return self.home / self.pool.out / "base"
        out = os.path.relpath(self.folder, self.home)
        changed = {"added": {}, "include_base": True, "out": out, "root": way_back(self.folder, self.home)}
        keys = {**self.keys, **changed}
        file = self.folder / "base.yaml"
        write_atomic(file, _yaml(keys))
        self.voice.stage("training on the base set alone")
        launch.finetune(file, progress=self.voice.progress, listener=self.voice.training)
        return self.folder / "base"

    def _selected(self, kept: tuple[str, ...]) -> dict[str, object]:
        """Give the keys of the new pool: D with the kept sets, and the rest; where all are kept, D alone is trained."""
        added = self.keys["added"]
        assert isinstance(added, Mapping), "checked as the configuration was read"
        data = [*_listed(self.keys["data"]), *(data_set for name in kept for data_set in _listed(added[name]))]
        keys = {key: value for key, value in self.keys.items() if key != "include_base"}
        rest = {name: sets for name, sets in added.items() if name not in kept}
        alone = {} if rest else {"include_base": True}
        return {**keys, "data": data, "added": rest, **alone, "out": f"{self.pool.out}-selected"}

    def _write_study(self, keys: Mapping[str, object]) -> Path:
        """Write a study of the new pool, where its paths start; what the start is trained on is not trained again."""
        finetune = {key: value for key, value in keys.items() if key not in ("root", "out", "seed")}
        if isinstance(self.pool.start, Stage):
            finetune["start"] = self.pool.start.out
        config, names = self.config, self.config.benchmarks
        assert not callable(names), "a file can't name a function in memory"
        study: dict[str, object] = {
            "root": f"{keys['out']}.study",
            "seeds": [self.pool.seed],
            "finetune": finetune,
            "eval": [name for name in ([names] if isinstance(names, str) else names) if isinstance(name, str)],
            "model": config.model,
            "batch_size": config.batch_size,
            "workers": config.workers,
        }
        study |= {
            name: value
            for name, (default, _) in options_of(EvalConfig).items()
            if name in StudyConfig.model_fields and (value := getattr(config, name)) != default
        }
        if secret := self._secret_arguments():
            study["engine_args"] = {name: value for name, value in config.engine_args.items() if name not in secret}
        if config.judge_url and config.judge_model:
            judge = {"url": config.judge_url, "model": config.judge_model, "key_env": config.judge_key_env}
            study["judge"] = judge
        path = self.home / f"{self.path.stem}.selected.study.yaml"
        self._write(path, study)
        if names := self._not_in_study():
            self.voice.say(f"{path}: a study has no key for {', '.join(names)}: it scores without")
        return path

    def _not_in_study(self) -> list[str]:
        """Name the options by which this selection scored, and a study of the new pool will not."""
        judge = {"judge_url", "judge_model", "judge_key_env"} if self.config.judge_url else set[str]()
        said = {*StudyConfig.model_fields, *judge, "benchmarks"}
        unsaid = [
            option_name(name, info.flag)
            for name, (default, info) in options_of(EvalConfig).items()
            if name not in said and getattr(self.config, name) != default
        ]
        flag = argument_flag("engine_args")
        return unsaid + [f"{flag} {name}, which holds a key" for name in self._secret_arguments()]

    def _secret_arguments(self) -> list[str]:
        """Name the engine's arguments that no file may hold."""
        texts = {name: f"{name}={value}" for name, value in self.config.engine_args.items()}
        return [name for name, text in texts.items() if without_secrets(text) != text]

    def _write(self, path: Path, keys: Mapping[str, object]) -> None:
        """Write a file for the user, who may have edited what an earlier run wrote: that is kept beside it."""
        text = _yaml(keys)
        if path.is_file() and path.read_bytes() != text.encode():
            older = path.with_name(f"{path.name}.older")
            path.replace(older)
            self.voice.say(f"{path}: was another; that is {older} now")
        write_atomic(path, text)


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _yaml(keys: Mapping[str, object]) -> str:
    return yaml.safe_dump(dict(keys), sort_keys=False, allow_unicode=True)
