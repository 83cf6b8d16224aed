"""A language model that grades answers: any endpoint that speaks OpenAI's chat completions.

What is asked and how a reply is read are VLMEvalKit's own functions; this is the line to the judge, which either
brings a reply or raises. The key comes from the environment, goes into one header, and is nowhere else: not in a log,
a journal, an answer or an error.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from email.message import Message
from typing import Any
from urllib.parse import urlsplit

from soup.errors import EvaluatorError
from soup.evaluation.settings import EvalSettings
from soup.support.json_text import parse_json
from soup.support.options import option_name

__all__ = ["LLMJudge"]

ATTEMPTS = 6
TIMEOUT_SECONDS = 120.0
FIRST_PAUSE_SECONDS = 1.0  # then twice as long each time: half a minute in all
LONGEST_PAUSE_SECONDS = 60.0  # whatever a server's Retry-After says
PATH = "/chat/completions"
EXCERPT_CHARACTERS = 300  # of a server's own words, in an error


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to whoever is named there."""

    def redirect_request(self, *_: object, **__: object) -> None:
        return None


class _RefusalError(Exception):
    """The endpoint gave no reply; another attempt may help or not, after so many seconds."""

    def __init__(self, reason: str, *, may_retry: bool = True, pause_seconds: float | None = None) -> None:
        super().__init__(reason)
        self.may_retry = may_retry
        self.pause_seconds = pause_seconds


class LLMJudge:
    """One model at one endpoint, asked over HTTP; refusals of load (429, 5xx) and broken connections are tried again.

    Args:
        url: The endpoint, with `/chat/completions` or without.
        model: The model's name there.
        key_env: The environment variable that holds the key.

    Raises:
        EvaluatorError: a URL without a model, a model without a URL, or a URL that is none.
    """

    def __init__(self, url: str, model: str, key_env: str) -> None:
        self.model = model
        self.key_env = key_env
        self._url = url if urlsplit(url).path.endswith(PATH) else url.rstrip("/") + PATH
        parts = urlsplit(self._url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise EvaluatorError(
                f"{option_name('judge_url')}: expected http://HOST/PATH or https://HOST/PATH, found something else."
            )
        if parts.username or parts.password or parts.query:
            raise EvaluatorError(
                f"{option_name('judge_url')}: expected a plain URL, found one with a user, password or "
                "query. Put the key into the "
                f"environment variable {key_env} instead: it is sent in a header, and stands in no file."
            )
        self.address = f"{parts.netloc}{parts.path.removesuffix(PATH)}"
        # A context of our own: a full import of VLMEvalKit turns verification off for everybody who has none.
        verified = urllib.request.HTTPSHandler(context=ssl.create_default_context())
        self._opener = urllib.request.build_opener(_NoRedirect, verified)

    @classmethod
    def from_settings(cls, settings: EvalSettings) -> LLMJudge | None:
        """Build the judge that the settings name; None where they name none.

        Raises:
            EvaluatorError: they name half of one.
        """
        if not settings.judge_url and not settings.judge_model:
            return None
        if not settings.judge_url or not settings.judge_model:
            raise EvaluatorError(
                f"A judge needs both {option_name('judge_url')} and {option_name('judge_model')}; only one "
                "of them is given."
            )
        return cls(settings.judge_url, settings.judge_model, settings.judge_key_env)

    def identity(self) -> Mapping[str, object]:
        """Return what a grade depends on, as JSON values; the prompts are VLMEvalKit's, whose version is not in it."""
        return {"url": self.address, "model": self.model, "prompts": "VLMEvalKit's"}

    def ask(self, prompt: str, temperature: float, max_tokens: int, stopped: threading.Event | None = None) -> str:
        """Return the judge's reply to a prompt.

        Args:
            prompt: The text.
            temperature: For the endpoint.
            max_tokens: For the endpoint.
            stopped: Set by others to cut the pauses between attempts short.

        Raises:
            EvaluatorError: no reply came after all attempts; says why.
        """
        body = {"model": self.model, "messages": [{"role": "user", "content": prompt}]}
        data = json.dumps({**body, "temperature": temperature, "max_tokens": max_tokens}).encode()
        stopped = stopped or threading.Event()
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._post(data)
            except _RefusalError as refused:
                pause = refused.pause_seconds or FIRST_PAUSE_SECONDS * 2 ** (attempt - 1)
                last = attempt == ATTEMPTS or not refused.may_retry
                if last or stopped.wait(min(pause, LONGEST_PAUSE_SECONDS)):
                    tries = f" ({attempt} attempts)" if attempt > 1 else ""
                    raise EvaluatorError(f"{refused}{tries}") from None
        raise AssertionError("the last attempt returns or raises")

    def check_reachable(self, benchmark: str) -> None:
        """Make sure that the judge answers, before hours of work for a benchmark that needs it.

        Raises:
            EvaluatorError: it does not.
        """
        try:
            self.ask("Hello.", 0, 16)
        except EvaluatorError as reason:
            raise EvaluatorError(
                f"{benchmark}: the judge {self.model} at {self.address} does not answer: {reason}\nNothing was asked "
                f"of the model. Mend the judge ({option_name('judge_url')}, {option_name('judge_model')}, "
                f"its key in {self.key_env}), or leave "
                f"{benchmark} out of {option_name('eval')}."
            ) from None

    def _post(self, data: bytes) -> str:
        request = urllib.request.Request(self._url, data, self._headers(), method="POST")
        try:
            with self._opener.open(request, timeout=TIMEOUT_SECONDS) as response:
                return _reply(response.read())
        except urllib.error.HTTPError as error:
            raise self._refusal(error) from None
        except TimeoutError:
            raise _RefusalError(f"no reply within {TIMEOUT_SECONDS:g} seconds") from None
        except (OSError, http.client.HTTPException) as error:
            raise _RefusalError(f"{type(error).__name__}: {self._clean(str(error))}") from None

    def _refusal(self, error: urllib.error.HTTPError) -> _RefusalError:
        body = b""
        with error, suppress(OSError, http.client.HTTPException):  # the line may break in the middle of it
            body = error.read(1 << 16)
        text = self._clean(body.decode("utf-8", "replace"))
        may_retry = error.code == 429 or error.code >= 500
        return _RefusalError(
            f"HTTP status {error.code}: {text}", may_retry=may_retry, pause_seconds=_retry_after(error.headers)
        )

    def _headers(self) -> dict[str, str]:
        secret = self._key()
        if not secret.isascii() or not secret.isprintable():
            raise EvaluatorError(f"The key in the environment variable {self.key_env} can't stand in an HTTP header.")
        key = {"Authorization": f"Bearer {secret}"} if secret else {}  # a user's own server may need none
        return {"Content-Type": "application/json", "User-Agent": "soup", **key}

    def _key(self) -> str:
        return os.environ.get(self.key_env, "").strip()

    def _clean(self, text: str) -> str:
        """Shorten a server's words, and take the key out, which some servers repeat."""
        secret = self._key()
        return " ".join((text.replace(secret, "***") if secret else text).split())[:EXCERPT_CHARACTERS]


def _reply(data: bytes) -> str:
    try:
        reply: Any = parse_json(data, "the reply", EvaluatorError)
        content = reply["choices"][0]["message"]["content"]
    except (EvaluatorError, KeyError, IndexError, TypeError):
        raise _RefusalError("HTTP status 200, but no chat completion in the body") from None
    return content.strip() if isinstance(content, str) else ""  # null is what some servers say for nothing


def _retry_after(headers: Message) -> float | None:
    try:
        return max(0.0, float(headers.get("Retry-After", "")))
    except ValueError:
        return None  # absent, or a date
