"""`--judge-url URL --judge-model NAME`: an LLM judge at any endpoint that speaks OpenAI's chat completions."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from evaluators.answering.endpoint import ChatEndpoint
from evaluators.answering.engines.requests import chat_part
from evaluators.answering.llm_judge import VLMEVALKIT, leave_out
from soup.errors import EvaluatorError
from soup.evaluation.settings import EvalSettings
from soup.support.options import option_name

__all__ = ["EndpointJudge"]


class EndpointJudge:
    """One model at one endpoint; see `LLMJudge` for what the members promise.

    Args:
        url: The endpoint, with `/chat/completions` or without.
        model: The model's name there.
        key_env: The environment variable that holds the key.
        requests: How many are under way at once.
        prompts: Whose prompts it is asked with, for its identity.

    Raises:
        EvaluatorError: a URL without a model, a model without a URL, or a URL that is none.
    """

    def __init__(self, url: str, model: str, key_env: str, requests: int = 8, prompts: str = VLMEVALKIT) -> None:
        self.model = model
        self.requests = requests
        self.prompts = prompts
        self.key_env = key_env
        self._endpoint = ChatEndpoint(url, key_env, option_name("judge_url"))
        self.address = self._endpoint.address
        self.logs = Path("logs")

    @classmethod
    def from_settings(cls, settings: EvalSettings, prompts: str = VLMEVALKIT) -> EndpointJudge | None:
        """Build the judge that the settings name; None where they name none.

        Raises:
            EvaluatorError: they name half of one.
        """
        if not settings.judge_url and not settings.judge_model:
            return None
        if not settings.judge_url or not settings.judge_model:
            lone = f" {settings.judge_model} is none" if settings.judge_model else ""
            raise EvaluatorError(
                f"A judge needs both {option_name('judge_url')} and {option_name('judge_model')}; only one "
                f"of them is given. ({option_name('judge_model')} alone may be the directory of a checkpoint, with its "
                f"config.json{lone and ':'}{lone}.)"
            )
        return cls(settings.judge_url, settings.judge_model, settings.judge_key_env, settings.judge_requests, prompts)

    def identity(self) -> Mapping[str, object]:
        """Return what a grade depends on, as JSON values; of VLMEvalKit's prompts the version is not in it."""
        return {"url": self.address, "model": self.model, "prompts": self.prompts}

    def ask(
        self,
        prompt: str,
        temperature: float,
        max_tokens: int,
        stopped: threading.Event | None = None,
        system: str = "",
        images: Sequence[str] = (),
    ) -> str:
        """Return the judge's reply to a prompt.

        Args:
            prompt: The text.
            temperature: Of sampling; 0: greedy.
            max_tokens: How long the reply may become.
            stopped: Set when nobody waits for replies any more.
            system: What the judge is told to be.
            images: The paths of pictures that stand before the text.

        Raises:
            EvaluatorError: no reply came after all attempts; says why.
        """
        before = [{"role": "system", "content": system}] if system else []
        shown = [chat_part("image", image) for image in images]
        content = [*shown, chat_part("text", prompt)] if shown else prompt
        body = {"model": self.model, "messages": [*before, {"role": "user", "content": content}]}
        return self._endpoint.complete({**body, "temperature": temperature, "max_tokens": max_tokens}, stopped)

    def make_room(self) -> None:
        """Do nothing: an endpoint takes no memory here."""

    def check_reachable(self, benchmark: str, otherwise: str | None = None) -> None:
        """Make sure that the judge answers, before hours of work for a benchmark that needs it.

        Args:
            benchmark: Its name, for the error.
            otherwise: What may be done without a judge; by default the benchmark is left out.

        Raises:
            EvaluatorError: it does not.
        """
        try:
            self.ask("Hello.", 0, 16)
        except EvaluatorError as reason:
            raise EvaluatorError(
                f"{benchmark}: the judge {self.model} at {self.address} does not answer: {reason}\nNothing was asked "
                f"of the model. Mend the judge ({option_name('judge_url')}, {option_name('judge_model')}, "
                f"its key in {self.key_env}), or {otherwise or leave_out(benchmark)}."
            ) from None
