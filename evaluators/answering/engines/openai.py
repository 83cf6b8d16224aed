"""`--engine openai --engine-url URL`: an endpoint that serves the model already, for one checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import PositiveFloat, PositiveInt

from evaluators.answering.endpoint import ChatEndpoint
from evaluators.answering.engines.requests import ask_endpoint
from soup.errors import EvaluatorError
from soup.evaluation.api import Candidate, OnBatch, Prompt
from soup.evaluation.settings import EvalSettings
from soup.support.options import option_name

__all__ = ["OpenAI"]


class OpenAI:
    """An endpoint that serves one checkpoint already, asked as OpenAI's chat completions; it makes no soups.

    Nobody can see from outside which weights it serves: a score is the checkpoint's if the user says so.

    Args:
        settings: Its `engine_url`, and where the key is.
        model: The model's name there; by default the one that is listed there.
        requests: How many are under way at once.
        max_new_tokens: How long an answer may become.
        key_env: The environment variable that holds the key.
        timeout_seconds: How long an answer is waited for.

    Raises:
        EvaluatorError: no URL, or one that is none.
    """

    def __init__(
        self,
        settings: EvalSettings,
        *,
        model: str | None = None,
        requests: PositiveInt = 32,
        max_new_tokens: PositiveInt = 2048,
        key_env: str = "OPENAI_API_KEY",
        timeout_seconds: PositiveFloat = 600,
    ) -> None:
        if not settings.engine_url:
            raise EvaluatorError(f"{option_name('engine')} openai: needs {option_name('engine_url')}.")
        self._endpoint = ChatEndpoint(settings.engine_url, key_env, option_name("engine_url"), timeout_seconds)
        self._model, self._requests, self.max_new_tokens = model, requests, max_new_tokens
        self._digest: str | None = None  # of the one candidate that it answers for
        self._checked: set[Path] = set()

    def identity(self) -> Mapping[str, object]:
        """Return the address, the model's name there and the decoding."""
        return {
            "engine": "openai",
            "url": self._endpoint.address,
            "model": self._served_model(),
            "decoding": "greedy",
            "max_new_tokens": self.max_new_tokens,
        }

    def check(self, checkpoint: Path) -> None:
        """Refuse a run over several checkpoints, as far as it shows before the first question."""
        self._checked.add(checkpoint.absolute())
        if len(self._checked) > 1:
            raise EvaluatorError(_single_model_only("this run has several checkpoints"))

    def open(self, candidate: Candidate) -> None:
        """Take the one candidate that the endpoint serves."""
        if len(candidate.names) > 1:
            raise EvaluatorError(_single_model_only(f"{'+'.join(candidate.names)} is a soup"))
        if self._digest not in (None, candidate.digest):
            raise EvaluatorError(_single_model_only(f"{candidate.names[0]} is another checkpoint than the one before"))
        self._digest = candidate.digest

    def swap(self, candidate: Candidate) -> None:
        """Refuse another candidate."""
        self.open(candidate)

    def answer(self, prompts: list[Prompt], on_batch: OnBatch) -> list[str]:
        """Answer prompts by several requests at once."""
        return ask_endpoint(
            self._endpoint,
            self._served_model(),
            prompts,
            on_batch,
            requests=self._requests,
            max_new_tokens=self.max_new_tokens,
        )

    def close(self) -> None:
        """Leave the endpoint to whoever started it."""

    def _served_model(self) -> str:
        if self._model is None:
            try:
                names = self._endpoint.models()
            except EvaluatorError as reason:
                raise EvaluatorError(
                    f"The endpoint {self._endpoint.address} does not answer: {reason}. If it only does not say what it "
                    f"serves, name that: {option_name('engine_args', 'engine-arg')} model=NAME."
                ) from None
            if len(names) != 1:
                raise EvaluatorError(
                    f"The endpoint {self._endpoint.address} serves {', '.join(names) or 'nothing'}: say which by "
                    f"{option_name('engine_args', 'engine-arg')} model=NAME."
                )
            self._model = names[0]
        return self._model


def _single_model_only(reason: str) -> str:
    return (
        f"{option_name('engine')} openai: an endpoint serves one model, and {reason}; for soups take "
        f"{option_name('engine')} serve, vllm or transformers."
    )
