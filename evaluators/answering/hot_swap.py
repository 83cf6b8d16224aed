"""How a checkpoint becomes something that answers, and how one loaded model serves a whole search."""

from __future__ import annotations

import hashlib
import logging
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from evaluators.answering.batching import Engine, Prompt, ask
from evaluators.answering.engines import vlmeval_wrapper as vlmeval_model
from soup.checkpoints.reader import Checkpoint
from soup.errors import CheckpointError, EvaluatorError, SoupError
from soup.evaluation.api import Candidate
from soup.evaluation.settings import EvalSettings
from soup.hf.key_mapping import names_in_memory
from soup.support.plugins import load_object

__all__ = ["Engine", "HotSwap", "Prompt", "ask", "shared_swap"]

logger = logging.getLogger(__name__)

SIDE_FILES = (".json", ".jinja", ".txt", ".model", ".py", ".tiktoken")


class HotSwap:
    """One answering model for a whole search; each candidate's weights are streamed into it.

    A candidate is put in once for all of its benchmarks. The model is built anew where its weights are not all that
    differs (another tokenizer, another configuration), where it offers no `module`, and where tensors in memory are
    not one by one those on disk, so that nothing can be streamed by name.
    """

    def __init__(self, settings: EvalSettings) -> None:
        self.settings = settings
        self._build = _builder(settings)
        self._answerer: Engine | None = None
        self._digest: str | None = None  # of the candidate whose weights the model holds
        self._frame: str | None = None  # of the files around the weights that the model was built with
        self._streams = True

    def identity(self) -> Mapping[str, Any]:
        """All of the answering that can change a score, as JSON values."""
        if self.settings.model == "auto":
            from evaluators.answering.engines.transformers import identity

            return {"model": "auto", **identity(self.settings)}
        if self.settings.model.startswith(vlmeval_model.PREFIX):
            return vlmeval_model.identity(self.settings.model)
        path, _, name = self.settings.model.rpartition(":")
        return {"model": f"{Path(path).name}:{name}", "digest": hashlib.sha256(Path(path).read_bytes()).hexdigest()}

    def answerer_for(self, candidate: Candidate) -> Engine:
        """The model with the candidate's weights in it.

        Raises:
            EvaluatorError: the model can't be built from the candidate.
        """
        if self._answerer is None or self._digest != candidate.digest:
            self._digest = None  # until all of it has arrived: a swap may fail halfway
            self._swap(candidate)
            self._digest = candidate.digest
        assert self._answerer is not None
        return self._answerer

    def _swap(self, candidate: Candidate) -> None:
        frame = _frame(candidate.template)
        if frame != self._frame:
            self._answerer, self._frame, self._streams = None, None, True
        if self._answerer is None and self._streams and self.settings.model == "auto":
            self._answerer = self._built(candidate.template)  # sure to have a module: nothing is written for it
        if self._answerer is not None and self._streams:
            self._streams = _stream(candidate, self._answerer)
        if self._answerer is None or not self._streams:
            self._answerer = None  # before the next one is built: two may not fit
            self._answerer = self._built(candidate.directory())
        self._frame = frame

    def _built(self, directory: Path) -> Engine:
        try:
            return self._build(directory)
        except SoupError:
            raise
        except Exception as cause:
            tail = "".join(traceback.format_exception(cause)[-4:])
            raise EvaluatorError(f"--model {self.settings.model} can't be built from {directory}:\n{tail}") from cause


_swaps: WeakValueDictionary[EvalSettings, HotSwap] = WeakValueDictionary()


def shared_swap(settings: EvalSettings) -> HotSwap:
    """The one HotSwap of all evaluators of a search: two loaded models might not fit. It lives as long as they do."""
    swap = _swaps.get(settings)
    if swap is None:
        swap = _swaps[settings] = HotSwap(settings)
    return swap


def _builder(settings: EvalSettings) -> Callable[[Path], Engine]:
    """What builds an answering model from a checkpoint directory.

    Raises:
        EvaluatorError: the user's file, or the class in it, is not there, or has no method `answer`.
    """
    if settings.model == "auto":
        from evaluators.answering.engines.transformers import TransformersEngine

        return lambda directory: TransformersEngine(directory, trust_remote_code=settings.trust_remote_code)
    if settings.model.startswith(vlmeval_model.PREFIX):
        wrapper = vlmeval_model.wrapper(settings.model)
        return lambda directory: vlmeval_model.WrappedModel(wrapper, directory)
    path, _, _ = settings.model.rpartition(":")
    if not path.endswith(".py"):
        raise EvaluatorError(f"--model {settings.model}: expected auto, vlmeval:CLASS or FILE.py:CLASS.")
    kind = load_object(settings.model, "model", EvaluatorError)
    if not callable(getattr(kind, "answer", None)):
        raise EvaluatorError(
            f"--model {settings.model}: expected a class with a method answer(messages), found {kind!r}."
        )
    return lambda directory: kind(str(directory))


def _stream(candidate: Candidate, answerer: Engine) -> bool:
    """Puts the weights into the model's module; False, with nothing touched, where that can't be done by name."""
    module = getattr(answerer, "module", None)
    if module is None:
        return False
    try:
        with Checkpoint(candidate.template) as template:
            names = names_in_memory(module, template.tensors)
        candidate.load_into(module, names)
    except (CheckpointError, LookupError) as why:
        logger.warning("Candidates are loaded from disk one by one: they can't be streamed into the model. %s", why)
        return False
    return True


def _frame(directory: Path) -> str:
    """A digest of the files around the weights: configuration, tokenizer, processor, template, code."""
    known = hashlib.sha256()
    for path in sorted(directory.iterdir()):
        if path.suffix in SIDE_FILES and not path.name.endswith(".index.json"):
            known.update(f"{path.name}\0{path.stat().st_size}\0".encode())
            known.update(path.read_bytes())
    return known.hexdigest()
