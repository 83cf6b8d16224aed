"""`--judge-model DIR`: a language model's checkpoint grades answers, in an engine of its own.

It is loaded when the first answer is to be graded. What several threads ask at the same time is answered together.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluators.answering.batching import ask, release_memory
from evaluators.answering.engines.transformers import LanguageModel
from evaluators.answering.engines.transformers import identity as transformers_identity
from evaluators.answering.llm_judge import VLMEVALKIT
from evaluators.answering.prompts import TextPrompter
from evaluators.answering.side_files import side_files_digest
from soup.checkpoints.digest import digest_checkpoint
from soup.checkpoints.reader import Checkpoint
from soup.errors import CheckpointError, EvaluatorError
from soup.evaluation.api import OnBatch, Prompt
from soup.evaluation.engine import build_engine, engine_arguments, identity_of
from soup.evaluation.settings import EvalSettings
from soup.support.options import option_name

__all__ = ["LocalJudge"]

logger = logging.getLogger(__name__)

GATHER_SECONDS = 0.01
"""How long the first of several threads waits for what the others ask."""


@dataclass(frozen=True)
class _JudgeCheckpoint:
    """The judge's directory, as an engine wants a candidate."""

    path: Path
    digest: str
    logs: Path

    @property
    def names(self) -> tuple[str]:
        return (self.path.name,)

    @property
    def template(self) -> Path:
        return self.path

    def directory(self) -> Path:
        return self.path


class _LanguageModelEngine:
    """transformers' generate with a language model, in this process."""

    max_new_tokens = 2048

    def __init__(self, settings: EvalSettings) -> None:
        self._settings = settings
        self._model: LanguageModel | None = None

    def identity(self) -> Mapping[str, object]:
        facts = transformers_identity(self._settings)
        return {name: facts[name] for name in ("transformers", "decoding", "dtype", "device", "trust_remote_code")}

    def open(self, candidate: Any) -> None:
        trusted = self._settings.trust_remote_code
        self._model = LanguageModel(candidate.directory(), trust_remote_code=trusted)

    def answer(self, prompts: list[Prompt], on_batch: OnBatch) -> list[str]:
        assert self._model is not None
        self._model.max_new_tokens = self.max_new_tokens
        return ask(self._model, prompts, self._settings.batch_size, on_batch)

    def close(self) -> None:
        self._model = None
        release_memory()


def _build_engine(settings: EvalSettings) -> tuple[Any, dict[str, object]]:
    """Build the judge's engine, and return it with its identity; an error of either names the judge's options."""
    try:
        is_plain = settings.engine == "transformers"
        engine: Any = _LanguageModelEngine(settings) if is_plain else build_engine(settings, "judge_engine_args")
        return engine, identity_of(engine.identity, settings.engine)
    except EvaluatorError as reason:
        flag = option_name("judge_engine")
        arguments = option_name("judge_engine_args", "judge-engine-arg")
        raise EvaluatorError(
            f"{flag} {settings.engine}: {reason} For a judge say {flag} and {arguments}, or {option_name('judge_url')} "
            "where one is served."
        ) from reason


@dataclass(eq=False)
class _Question:
    prompt: Prompt
    max_tokens: int
    reply: str | None = None


class LocalJudge:
    """A checkpoint that grades; see `LLMJudge` for what the members promise.

    It decodes greedily: a second try at the same question gives the same reply.

    Args:
        settings: They name the checkpoint and its engine.
        release: Gives back what the candidates' engine holds, called where the judge does not fit beside it.
        prompts: Whose prompts it is asked with, for its identity.

    Raises:
        EvaluatorError: there is no such checkpoint, it can't be asked, or its engine is unknown.
    """

    def __init__(self, settings: EvalSettings, release: Callable[[], None], prompts: str = VLMEVALKIT) -> None:
        directory = Path(str(settings.judge_model))
        self._sees_pictures = settings.judge_engine != "transformers"
        check = TextPrompter if self._sees_pictures else LanguageModel.check
        try:
            check(directory, trust_remote_code=settings.trust_remote_code)
            with Checkpoint(directory) as checkpoint:
                weights = digest_checkpoint(checkpoint).content
        except (CheckpointError, EvaluatorError) as reason:
            raise EvaluatorError(f"{option_name('judge_model')}: {reason}") from reason
        engine_settings = EvalSettings(
            engine=settings.judge_engine,
            engine_args=settings.judge_engine_args,
            trust_remote_code=settings.trust_remote_code,
            batch_size=settings.batch_size,
        )
        engine_arguments(engine_settings, "judge_engine_args")
        self._engine, facts = _build_engine(engine_settings)
        if not hasattr(self._engine, "max_new_tokens"):
            raise EvaluatorError(
                f"{option_name('judge_engine')} {settings.judge_engine}: it has no max_new_tokens, by which a judge's "
                "replies are limited: an engine for a judge needs this attribute, and heeds it whenever it answers."
            )
        self.model, self.address, self.requests = directory.name, str(directory), settings.judge_requests
        self._facts = {
            "checkpoint": weights,
            "files": side_files_digest(directory),
            **facts,
        }
        self._directory, self._weights, self._release, self._prompts = directory, weights, release, prompts
        self.logs = Path("logs")
        self._is_open = False
        self.shares_memory = True  # with the candidates' engine; False once both did not fit
        self._waiting: list[_Question] = []
        self._adding, self._answering = threading.Lock(), threading.Lock()

    def identity(self) -> Mapping[str, object]:
        """Return what a grade depends on, as JSON values: the checkpoint's content, never its place."""
        return {**self._facts, "prompts": self._prompts}

    def ask(
        self,
        prompt: str,
        temperature: float,
        max_tokens: int,
        stopped: threading.Event | None = None,
        system: str = "",
        images: Sequence[str] = (),
    ) -> str:
        """Return the judge's reply to a prompt; prompts of other threads are answered in the same batch.

        Not every engine takes a system's message: what the judge is told to be stands before the prompt.

        Args:
            prompt: The text.
            temperature: Not used: it always answers greedily.
            max_tokens: How long the reply may become.
            stopped: Set when nobody waits for replies any more.
            system: What the judge is told to be.
            images: The paths of pictures that stand before the text.

        Raises:
            EvaluatorError: the judge can't be loaded, or failed.
        """
        if images and not self._sees_pictures:
            raise EvaluatorError(
                f"{option_name('judge_images')}: {self.model} is a language model of transformers, which sees no "
                f"pictures. Leave it out, or name a judge and a {option_name('judge_engine')} that see some."
            )
        shown = [{"type": "image", "value": image} for image in images]
        text = {"type": "text", "value": f"{system}\n\n{prompt}" if system else prompt}
        question = _Question([*shown, text], max_tokens)
        with self._adding:
            self._waiting.append(question)
        with self._answering:
            if question in self._waiting:  # or it was in another thread's batch, which failed if there is no reply
                time.sleep(GATHER_SECONDS)
                self._answer_waiting(stopped)
        if question.reply is None:
            raise EvaluatorError("the judge failed while it answered other questions, too")
        return question.reply

    def check_reachable(self, benchmark: str, otherwise: str | None = None) -> None:
        """Do nothing: all that can be known before the judge is loaded was looked at."""

    def make_room(self) -> None:
        """Close the judge before a candidate is put in, where both do not fit."""
        if self._is_open and not self.shares_memory:
            self._close()

    def _answer_waiting(self, stopped: threading.Event | None) -> None:
        """Reply to all that waits; where that fails, or has failed elsewhere, nothing waits any more."""
        with self._adding:
            batch, self._waiting = self._waiting, []
        if stopped is not None and stopped.is_set():
            return
        try:
            self._answer(batch)
        except BaseException as cause:
            with self._adding:
                self._waiting = []
            if isinstance(cause, Exception) and not isinstance(cause, EvaluatorError):  # an engine's library's own
                raise EvaluatorError(f"{type(cause).__name__}: {cause}") from cause
            raise

    def _answer(self, batch: list[_Question]) -> None:
        """Reply to questions; where that fails beside the candidates' engine, once more without it."""
        if not self._has_answered(batch):
            self._release()
            self.shares_memory = False
            self._has_answered(batch)  # or it raises

    def _has_answered(self, batch: list[_Question]) -> bool:
        """Reply to questions; False, with nothing held on to, where memory may not have sufficed for both engines."""
        try:
            self._reply(batch)
        except Exception as reason:  # engines say in many ways that it does not
            self._close()
            if not self.shares_memory:
                raise
            logger.warning("The judge failed, and is opened anew without the candidates' engine beside it. %s", reason)
            return False
        return True

    def _reply(self, batch: list[_Question]) -> None:
        if not self._is_open:
            self._engine.open(_JudgeCheckpoint(self._directory, self._weights, self.logs))
            self._is_open = True
        for length in sorted({question.max_tokens for question in batch}):
            part = [question for question in batch if question.max_tokens == length]
            self._engine.max_new_tokens = length
            prompts = [question.prompt for question in part]
            for question, reply in zip(part, self._engine.answer(prompts, lambda *_: None), strict=True):
                question.reply = reply

    def _close(self) -> None:
        self._engine.close()
        self._is_open = False
