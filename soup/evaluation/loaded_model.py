"""A model that is loaded already, evaluated where it is: no second one in memory, and no file of its weights.

It is left as it was found: its mode, its way of generating, and the random numbers to come.
"""

from __future__ import annotations

import copy
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from soup.errors import CheckpointError, EvaluatorError
from soup.evaluation.api import Score
from soup.evaluation.benchmark_names import parse_benchmarks
from soup.evaluation.config import EvalConfig
from soup.evaluation.harnesses import check
from soup.evaluation.progress import Progress
from soup.evaluation.suite import bounded, build_suite
from soup.hf.key_mapping import Conversion
from soup.hf.saved_form import buffers_made_anew, inner_model, without_adapters

__all__ = ["LoadedCandidate", "evaluate_loaded"]


class LoadedCandidate:
    """A model in memory, for an evaluator. See `soup.evaluation.Candidate` for what the members promise.

    `loaded` is what an engine asks: the torch module and its processor. Files are written only for whoever wants them.
    Nothing is remembered of it: its weights may be others the next time, so that its digest is of this time alone.

    Args:
        module: A model of transformers.
        processor: Its processor.
        home: A directory for its files.
        progress: Who hears of answers and remarks.
    """

    def __init__(self, module: Any, processor: Any, home: Path, progress: Progress) -> None:
        self.loaded = (module, processor)
        self.digest = f"in memory {uuid.uuid4().hex}"
        self.names = ("model",)
        self.template, self.scratch, self.kept = home / "template", home / "scratch", home / "kept"
        self.logs = home / "logs"
        self._home, self._progress, self._generation = home, progress, module.generation_config
        self.scratch.mkdir(parents=True)
        module.config.save_pretrained(self.template)
        processor.save_pretrained(self.template)

    def directory(self) -> Path:
        """Give the model as a complete checkpoint directory; the first call writes it."""
        path, (module, processor) = self._home / "checkpoint", self.loaded
        if not path.exists():
            with without_adapters(module) as model:
                judging, model.generation_config = model.generation_config, self._generation
                try:
                    model.save_pretrained(path)
                finally:
                    model.generation_config = judging
            processor.save_pretrained(path)
        return path

    def load_into(
        self, module: Any, names: Mapping[str, str] | None = None, conversions: Sequence[Conversion] = ()
    ) -> None:
        """Refuse: it is asked where it is."""
        raise CheckpointError("A model in memory is not streamed into another.")

    def answered(self, count: int, of: int, what: str = "answers") -> None:
        """Nobody waits for so few."""

    def remark(self, text: str) -> None:
        """Pass on what is strange about the answers."""
        self._progress.on_warning(text)


def evaluate_loaded(module: Any, processor: Any, config: EvalConfig, progress: Progress) -> dict[str, Score]:
    """Score a model in memory, and give its score on each benchmark.

    Args:
        module: A model of transformers.
        processor: Its processor.
        config: Benchmarks and settings; of a split the questions that choose.
        progress: Who hears of what is strange.

    Raises:
        EvaluatorError: a benchmark unknown or its data not here, an engine that loads models by itself, or the harness
            failed.
    """
    if config.model != "auto" or config.engine != "transformers":
        raise EvaluatorError("A model in memory answers by itself: leave `model` and `engine` of the settings out.")
    if config.workers or config.ray:
        raise EvaluatorError("A model in memory is evaluated where it is: leave `workers` and `ray` out.")
    if not hasattr(module, "generate") or not hasattr(processor, "save_pretrained"):
        unwrap = " Pass what it wraps, accelerator.unwrap_model(model), in one process."
        raise EvaluatorError(
            f"model, processor: expected a model of transformers and its processor, found {type(module).__name__} and "
            f"{type(processor).__name__}.{unwrap if hasattr(getattr(module, 'module', None), 'generate') else ''}"
        )
    suite = build_suite(config.parse() or parse_benchmarks([""]), config.settings)  # none at all is an error here
    scores: dict[str, Score] = {}
    with tempfile.TemporaryDirectory(prefix="soup-loaded-") as home, _as_it_was(module):
        candidate = LoadedCandidate(module, copy.deepcopy(processor), Path(home), progress)
        for entry in suite.entries:
            try:
                check(entry.evaluator, entry.benchmark, candidate.template)
            except EvaluatorError as error:
                if hasattr(processor, "tokenizer"):
                    raise
                raise EvaluatorError(
                    f"processor: {entry.benchmark.name} asks with the whole one, as AutoProcessor gives it; found "
                    f"{type(processor).__name__}."
                ) from error
        for entry in suite.entries:
            with bounded(config.timeout_seconds):
                scores[entry.benchmark.name] = entry.evaluator.evaluate(candidate, entry.benchmark)
    return scores


@contextmanager
def _as_it_was(module: Any) -> Iterator[None]:
    """Put a module into evaluation mode for a while, and its mode, ways and random numbers back afterwards.

    A trainer's wrapper around `forward`, which computes in another precision, is taken off, too, and buffers that a
    conversion of the module has rounded, though no file holds them, are those of a loaded model.
    """
    import torch

    modes = [(part, part.training) for part in module.modules()]
    generations = [(part, vars(part).get("generation_config")) for part in (module, inner_model(module))]
    wrapper = vars(module).pop("forward", None)
    devices = [module.device.index or 0] if module.device.type == "cuda" else []
    rounded: list[tuple[Any, str, Any]] = []
    try:
        with torch.random.fork_rng(devices):
            module.eval()
            for part, name, values in buffers_made_anew(inner_model(module)):
                rounded.append((part, name, part.get_buffer(name)))
                part.register_buffer(name, values, persistent=False)
            yield
    finally:
        for part, name, values in rounded:
            part.register_buffer(name, values, persistent=False)
        for part, generation in generations:
            if generation is None:  # a wrapper has none of its own
                vars(part).pop("generation_config", None)
            else:
                part.generation_config = generation
        if wrapper is not None:
            module.forward = wrapper
        for part, mode in modes:
            part.training = mode
