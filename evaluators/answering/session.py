"""The engine of a search: opened once, candidates swapped in, closed and opened again where a swap can't be."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from weakref import WeakValueDictionary

from evaluators.answering.batching import Model
from evaluators.answering.hot_swap import HotSwap
from evaluators.answering.side_files import side_files_digest
from soup.errors import EvaluatorError
from soup.evaluation.api import Candidate, OnBatch, OnReplies, Prompt
from soup.evaluation.dealing import require_files
from soup.evaluation.engine import build_engine, identity_of
from soup.evaluation.settings import EvalSettings
from soup.support.options import option_name

__all__ = ["EngineSession", "shared_session"]

logger = logging.getLogger(__name__)


class EngineSession:
    """One engine, and which candidate is in it.

    A candidate is put in once for all of its benchmarks. Whatever stops a swap, an interrupt included, leaves nothing
    that could be taken for a candidate.

    Raises:
        EvaluatorError: the engine is unknown, or takes no such arguments.
    """

    def __init__(self, settings: EvalSettings) -> None:
        self.engine = build_engine(settings)
        self._settings = settings
        self._digest: str | None = None  # of the candidate that is in it
        self._side_files_digest: str | None = None  # of the files around the weights that it was opened with

    def identity(self) -> Mapping[str, object]:
        """Return all of the engine that can change an answer, as JSON values.

        Raises:
            EvaluatorError: see `soup.evaluation.api.Engine.identity`; or a model of the user's for an engine that
                loads checkpoints by itself.
        """
        if self._settings.model != "auto" and not isinstance(self.engine, HotSwap):
            raise EvaluatorError(
                f"{option_name('model')} {self._settings.model}: the engine {self._settings.engine} loads checkpoints "
                f"by itself; leave one of {option_name('model')} and {option_name('engine')} out."
            )
        return identity_of(self.engine.identity, self._settings.engine)

    def check(self, checkpoint: Path) -> None:
        """Have the engine look at the files around a checkpoint's weights.

        Raises:
            EvaluatorError: candidates with such files can't be asked.
        """
        self.engine.check(checkpoint)

    def answer(self, candidate: Candidate, prompts: list[Prompt], on_batch: OnBatch) -> list[str]:
        """Answer prompts with the candidate's weights.

        Raises:
            EvaluatorError: the engine can't be opened on the candidate, or an answer did not come.
        """
        self.hold(candidate)
        return self.engine.answer(prompts, on_batch)

    def answer_dealt(self, candidate: Candidate, prompts: Sequence[Prompt], on_replies: OnReplies) -> None:
        """Answer prompts that another process dealt out, perhaps one of another machine.

        Args:
            candidate: Whose weights answer.
            prompts: Some of what that process has to ask.
            on_replies: See `soup.evaluation.api.Harness.answer`.

        Raises:
            MissingFilesError: their pictures lie on that machine alone.
            EvaluatorError: see `answer`.
        """
        require_files([part["value"] for prompt in prompts for part in prompt if part["type"] == "image"])
        positions = {id(prompt): position for position, prompt in enumerate(prompts)}

        def hear(batch: list[Prompt], replies: list[str]) -> None:
            on_replies([positions[id(prompt)] for prompt in batch], replies)

        self.answer(candidate, [*prompts], hear)

    @property
    def why_no_loss(self) -> str | None:
        """Why the engine can't tell the loss of an answer; None where it can."""
        engine = self.engine
        return engine.why_no_loss if isinstance(engine, HotSwap) else f"{self._settings.engine} gives answers alone"

    def require_model(self, harness: str) -> HotSwap:
        """Return the engine as one whose loaded model can be had, for a harness that needs more than answers.

        Raises:
            EvaluatorError: it keeps its model to itself.
        """
        if not isinstance(self.engine, HotSwap):
            raise EvaluatorError(
                f"{harness}: needs likelihoods of texts, and the engine {self._settings.engine} gives only "
                f"answers. Leave {option_name('engine')} out for it."
            )
        return self.engine

    def model_for(self, candidate: Candidate, harness: str) -> Model:
        """Return the loaded model with the candidate's weights in it.

        Raises:
            EvaluatorError: see `require_model`; or the engine can't be opened on the candidate.
        """
        engine = self.require_model(harness)
        self.hold(candidate)
        return engine.model_for(candidate)

    def close(self) -> None:
        """Close the engine; the next candidate opens it again."""
        self._digest = self._side_files_digest = None
        self.engine.close()

    def hold(self, candidate: Candidate) -> None:
        """Put the candidate's weights into the engine, unless they are in it.

        Raises:
            EvaluatorError: the engine can't be opened on the candidate.
        """
        if self._digest == candidate.digest:
            return
        side_files = side_files_digest(candidate.template)
        was_open, self._digest = self._side_files_digest == side_files, None  # until all of it has arrived
        try:
            if not (was_open and self._swap(candidate)):
                self.close()
                self.engine.open(candidate)
        except BaseException:
            self.close()
            raise
        self._digest, self._side_files_digest = candidate.digest, side_files

    def _swap(self, candidate: Candidate) -> bool:
        try:
            self.engine.swap(candidate)
        except Exception as reason:
            logger.warning(
                "A candidate could not be swapped into the engine %s, which is opened anew. %s",
                self._settings.engine,
                reason,
            )
            return False
        return True


_sessions: WeakValueDictionary[EvalSettings, EngineSession] = WeakValueDictionary()


def shared_session(settings: EvalSettings) -> EngineSession:
    """Return the session that all harnesses of a search share, for as long as they live: two might not fit."""
    session = _sessions.get(settings)
    if session is None:
        session = _sessions[settings] = EngineSession(settings)
    return session
