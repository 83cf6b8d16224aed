"""The engine `transformers`: one loaded model for a whole search, each candidate's weights are streamed into it."""

from __future__ import annotations

import hashlib
import logging
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

from evaluators.answering.batching import Model, ask, release_memory
from evaluators.answering.engines import vlmeval_wrapper
from evaluators.answering.side_files import side_files_digest
from soup.checkpoints.reader import Checkpoint
from soup.errors import CheckpointError, EvaluatorError, SoupError
from soup.evaluation.api import Candidate, OnBatch, Prompt
from soup.evaluation.settings import EvalSettings
from soup.hf.key_mapping import plan_loading
from soup.support.options import option_name
from soup.support.plugins import load_object

__all__ = ["HotSwap"]

logger = logging.getLogger(__name__)


class HotSwap:
    """transformers' generate, or what --model names, in this process: weights are streamed in, bit for bit.

    The model is built anew where its weights are not all that differs (another tokenizer, another configuration), where
    it offers no `module`, and where it is not sure that streaming gives the very bytes in memory that loading the
    written files would.

    Raises:
        EvaluatorError: what `settings.model` names is not there, or is no model.
    """

    imports = ("torch", "transformers.modeling_utils")
    """What takes long to import and will surely be needed: workers do so while they wait for their first questions."""

    def __init__(self, settings: EvalSettings) -> None:
        self.settings = settings
        self._factory = _model_factory(settings)
        self._model: Model | None = None
        self._digest: str | None = None  # of the candidate whose weights the model holds
        self._side_files_digest: str | None = None  # of the files around the weights that the model was built with
        self._can_stream = True
        self._checked: set[str] = set()  # digests of side files that make prompts

    def identity(self) -> Mapping[str, object]:
        """Return all of the model that can change a score, as JSON values."""
        if self.settings.model == "auto":
            from evaluators.answering.engines.transformers import identity

            return {"model": "auto", **identity(self.settings)}
        if self.settings.model.startswith(vlmeval_wrapper.PREFIX):
            return vlmeval_wrapper.identity(self.settings.model)
        path, _, name = self.settings.model.rpartition(":")
        return {"model": f"{Path(path).name}:{name}", "digest": hashlib.sha256(Path(path).read_bytes()).hexdigest()}

    @property
    def why_no_loss(self) -> str | None:
        """Why the engine can't tell the loss of an answer; None where it can."""
        return None if self.settings.model == "auto" else f"{self.settings.model} gives answers alone"

    def check(self, checkpoint: Path) -> None:
        """Make sure that the files around a checkpoint's weights make prompts, before any weights are loaded.

        Raises:
            EvaluatorError: there is no processor, no chat template, or one that fails or drops the question.
        """
        if self.settings.model != "auto" or (digest := side_files_digest(checkpoint)) in self._checked:
            return
        from evaluators.answering.engines.transformers import check_prompts

        try:
            check_prompts(checkpoint, self.settings.trust_remote_code)
        except SoupError:
            raise
        except Exception as cause:
            _refuse_code(checkpoint, cause)
            raise EvaluatorError(
                f"{checkpoint}: its processor can't be opened, so that nothing can be asked: "
                f"{type(cause).__name__}: {cause}"
            ) from cause
        self._checked.add(digest)

    def model_for(self, candidate: Candidate) -> Model:
        """Return the model with the candidate's weights in it.

        Raises:
            EvaluatorError: it can't be built from the candidate.
        """
        if self._model is None or self._digest != candidate.digest:
            self._digest = None  # until all of it has arrived: a swap may fail halfway
            self._swap(candidate)
            self._digest = candidate.digest
        assert self._model is not None
        return self._model

    def open(self, candidate: Candidate) -> None:
        """Build the model with the candidate's weights in it."""
        self.close()
        self.model_for(candidate)

    def swap(self, candidate: Candidate) -> None:
        """Stream the candidate's weights into the model."""
        self.model_for(candidate)

    def answer(self, prompts: list[Prompt], on_batch: OnBatch) -> list[str]:
        """Answer prompts in batches that fit."""
        assert self._model is not None
        return ask(self._model, prompts, self.settings.batch_size, on_batch)

    def close(self) -> None:
        """Let go of the model."""
        if self._model is not None:
            self._model, self._digest, self._side_files_digest, self._can_stream = None, None, None, True
            release_memory()

    def _swap(self, candidate: Candidate) -> None:
        if (loaded := getattr(candidate, "loaded", None)) is not None:
            from evaluators.answering.engines.transformers import TransformersModel

            self._model, self._side_files_digest = TransformersModel.around(*loaded), None  # the next is built anew
            return
        digest = side_files_digest(candidate.template)
        if digest != self._side_files_digest:
            self._model, self._side_files_digest, self._can_stream = None, None, True
        if self._model is None and self._can_stream and self.settings.model == "auto":
            self._model = self._build(candidate.template)  # it surely has a module: nothing is written for it
        if self._model is not None and self._can_stream:
            self._can_stream = _stream_weights(candidate, self._model)
        if self._model is None or not self._can_stream:
            self._model = None  # before the next is built: two may not fit
            self._model = self._build(candidate.directory())
        self._side_files_digest = digest

    def _build(self, directory: Path) -> Model:
        try:
            return self._factory(directory)
        except SoupError:
            raise
        except Exception as cause:
            _refuse_code(directory, cause)
            tail = "".join(traceback.format_exception(cause)[-4:])
            raise EvaluatorError(
                f"{option_name('model')} {self.settings.model} can't be built from {directory}:\n{tail}"
            ) from cause


def _refuse_code(checkpoint: Path, cause: Exception) -> None:
    """Say in our words where transformers refused to run a checkpoint's code."""
    if isinstance(cause, ValueError) and "trust_remote_code" in str(cause):
        raise EvaluatorError(
            f"{checkpoint}: it brings code of its own along (auto_map), and nothing can be asked without it. Read the "
            f"code, and if you trust it, say so by {option_name('trust_remote_code', 'trust-code')}."
        ) from cause


def _model_factory(settings: EvalSettings) -> Callable[[Path], Model]:
    """Return a function that builds a model from a checkpoint directory.

    Raises:
        EvaluatorError: the user's file, or the class in it, is not there, or has no method `answer`.
    """
    if settings.model == "auto":
        from evaluators.answering.engines.transformers import TransformersModel

        return lambda directory: TransformersModel(directory, trust_remote_code=settings.trust_remote_code)
    if settings.model.startswith(vlmeval_wrapper.PREFIX):
        wrapper = vlmeval_wrapper.wrapper_class(settings.model)
        return lambda directory: vlmeval_wrapper.WrapperEngine(wrapper, directory)
    path, _, _ = settings.model.rpartition(":")
    if not path.endswith(".py"):
        raise EvaluatorError(f"{option_name('model')} {settings.model}: expected auto, vlmeval:CLASS or FILE.py:CLASS.")
    model_class = load_object(settings.model, "model", EvaluatorError)
    if not callable(getattr(model_class, "answer", None)):
        raise EvaluatorError(
            f"{option_name('model')} {settings.model}: expected a class with a method answer(prompts), found "
            f"{model_class!r}."
        )
    return lambda directory: model_class(str(directory))


def _stream_weights(candidate: Candidate, model: Model) -> bool:
    """Put the weights into the model's module; False, with nothing touched, where that can't be done bit for bit."""
    module = getattr(model, "module", None)
    if module is None:
        return False
    try:
        with Checkpoint(candidate.template) as template:
            names, conversions = plan_loading(module, template.tensors)
        candidate.load_into(module, names, conversions)
    except (CheckpointError, LookupError) as cause:
        logger.warning("Candidates are loaded from disk one by one: they can't be streamed into the model. %s", cause)
        return False
    return True
