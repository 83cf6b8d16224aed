"""The line to an endpoint that speaks OpenAI's chat completions: it either brings a reply or raises.

Refusals and broken connections are tried again. The key comes from the environment, goes into one header, and is
nowhere else: not in a log, a journal, an answer or an error.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from ipaddress import ip_address
from typing import Any, TypeVar
from urllib.parse import SplitResult, urlsplit

from soup.errors import EvaluatorError
from soup.support.json_text import parse_json
from soup.support.retry_after import retry_after_seconds
from soup.support.text import pluralize, whole_characters

__all__ = ["ChatEndpoint", "map_at_once"]

ATTEMPTS = 6
FIRST_ATTEMPTS = 2  # as long as no connection was made: the address may be wrong
TIMEOUT_SECONDS = 120.0
FIRST_PAUSE_SECONDS = 1.0  # then twice as long each time: half a minute in all
LONGEST_PAUSE_SECONDS = 60.0  # whatever a server's Retry-After says
MOST_DOUBLINGS = 5
LOAD = (429, 503)  # what an endpoint says that has too much to do
PATH = "/chat/completions"
MOST_BYTES = 10_000_000  # of a reply: a server that never ends one would fill the memory
EXCERPT_CHARACTERS = 300  # of a server's own words, in an error
BREAKS = ("content_filter", "abort", "error")
"""Why an answer ended that is none, however much of it is there."""
CALLS = ("tool_calls", "function_call")
"""Why one ended that may have words beside them."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to whoever is named there."""

    def redirect_request(self, *_: object, **__: object) -> None:
        return None


class _RefusalError(Exception):
    """The endpoint gave no reply; another attempt may help or not, after so many seconds."""

    def __init__(
        self, reason: str, *, may_retry: bool = True, is_load: bool = False, pause_seconds: float | None = None
    ) -> None:
        super().__init__(reason)
        self.may_retry = may_retry
        self.is_load = is_load
        self.pause_seconds = pause_seconds


class ChatEndpoint:
    """An endpoint, asked over HTTP; refusals (429, 5xx) and broken connections are tried again.

    A refusal of load (429, 503) is no failed attempt while others get replies: it says that a queue moves slowly.

    Where no connection was ever made they are tried again once.

    Args:
        url: The endpoint, with `/chat/completions` or without.
        key_env: The environment variable that holds the key.
        option: How the user names the option of the URL, for errors.
        timeout_seconds: How long a reply is waited for (default: `TIMEOUT_SECONDS`).

    Raises:
        EvaluatorError: a URL that is none, or that holds a secret.
    """

    def __init__(self, url: str, key_env: str, option: str, timeout_seconds: float | None = None) -> None:
        self.key_env = key_env
        self._timeout_seconds = timeout_seconds or TIMEOUT_SECONDS
        parts = _url_parts(url.rstrip("/").removesuffix(PATH) + PATH)
        if parts is None:
            raise EvaluatorError(
                f"{option}: expected http://HOST/PATH or https://HOST/PATH, in ASCII and without blanks, found "
                "something else."
            )
        if parts.username or parts.password or parts.query:
            raise EvaluatorError(
                f"{option}: expected a plain URL, found one with a user, password or query. Put the key into the "
                f"environment variable {key_env} instead: it is sent in a header, and stands in no file."
            )
        self._url = parts.geturl()
        self._replies = 0
        self.host = parts.netloc
        self.address = f"{parts.netloc}{parts.path.removesuffix(PATH)}"
        self._was_reached = False
        # A context of our own: a full import of VLMEvalKit turns verification off for everybody who has none.
        verified = urllib.request.HTTPSHandler(context=ssl.create_default_context())
        # What the environment names for the way out leads to no server on this machine.
        proxies = urllib.request.ProxyHandler({} if _is_this_machine(str(parts.hostname)) else None)
        self._opener = urllib.request.build_opener(_NoRedirect, verified, proxies)

    def complete(self, body: Mapping[str, object], stopped: threading.Event | None = None) -> str:
        """Return the text of the reply to a chat completion's body.

        Args:
            body: What is posted, as JSON.
            stopped: Set by others to cut the pauses between attempts short.

        Raises:
            EvaluatorError: no reply came after all attempts; says why.
        """
        data = json.dumps(body).encode()
        stopped = stopped or threading.Event()
        attempts, failures, replies = 0, 0, self._replies
        while True:
            try:
                reply = self._reply(self._send(self._url, data))
            except _RefusalError as refused:
                attempts += 1
                failures = 1 if refused.is_load and replies != self._replies else failures + 1
                replies = self._replies
                pause = refused.pause_seconds or FIRST_PAUSE_SECONDS * 2 ** min(attempts - 1, MOST_DOUBLINGS)
                most = ATTEMPTS if self._was_reached else min(FIRST_ATTEMPTS, ATTEMPTS)
                last = failures >= most or not refused.may_retry
                if last or stopped.wait(min(pause, LONGEST_PAUSE_SECONDS)):
                    tries = f" ({attempts} attempts)" if attempts > 1 else ""
                    raise EvaluatorError(f"{refused}{tries}") from None
            else:
                self._replies += 1  # by several threads; that it changes is what counts
                return reply

    def is_up(self, *paths: str, timeout_seconds: float) -> bool:
        """Whether the server answers one of these paths beside the endpoint's, each within so many seconds."""
        root = self._url.removesuffix(PATH).removesuffix("/v1")
        for path in paths:
            with suppress(_RefusalError):
                self._send(root + path, timeout_seconds=timeout_seconds)
                return True
        return False

    def models(self) -> list[str]:
        """Return the names of what is served there; asked once, without another attempt.

        Raises:
            EvaluatorError: the endpoint does not say.
        """
        try:
            data = self._send(self._url.removesuffix(PATH) + "/models")
        except _RefusalError as refused:
            raise EvaluatorError(str(refused)) from None
        try:
            listed: Any = parse_json(data, "the reply", EvaluatorError)
            return [str(model["id"]) for model in listed["data"]]
        except (EvaluatorError, KeyError, TypeError):
            raise EvaluatorError(f"no list of models in the body of /models: {self._said(data)}") from None

    def _send(self, url: str, data: bytes | None = None, timeout_seconds: float | None = None) -> bytes:
        timeout_seconds = timeout_seconds or self._timeout_seconds
        request = urllib.request.Request(url, data, self._headers())
        until = time.monotonic() + timeout_seconds
        try:
            with self._opener.open(request, timeout=timeout_seconds) as response:
                self._was_reached = True
                return _body(response, until)
        except urllib.error.HTTPError as error:
            self._was_reached = True
            raise self._refusal(error) from None
        except TimeoutError:
            self._was_reached = True  # where a connection takes too long urllib raises a URLError
            raise _RefusalError(f"no reply within {pluralize(timeout_seconds, 'second')}") from None
        except (OSError, http.client.HTTPException) as error:
            self._was_reached |= not isinstance(error, urllib.error.URLError)
            cause = getattr(error, "reason", error)  # urllib's own words for it say nothing
            raise _RefusalError(f"{type(cause).__name__}: {self._clean(str(cause))}") from None

    def _reply(self, data: bytes) -> str:
        try:
            reply: Any = parse_json(data, "the reply", EvaluatorError, may_halve=True)
            return whole_characters(_text(_content(reply["choices"][0]))).strip()
        except (EvaluatorError, KeyError, IndexError, TypeError):
            raise _RefusalError(f"HTTP status 200, but no chat completion in the body: {self._said(data)}") from None

    def _refusal(self, error: urllib.error.HTTPError) -> _RefusalError:
        body = b""
        with error, suppress(OSError, http.client.HTTPException):  # the line may break in the middle of it
            body = error.read(1 << 16)
        text = self._clean(body.decode("utf-8", "replace")) or self._clean(str(error.reason))
        if location := error.headers.get("Location"):
            text = f"it redirects to {self._clean(location)}, where the key is not sent: name that address"
        return _RefusalError(
            f"HTTP status {error.code}: {text}{self._hint(error)}",
            may_retry=error.code == 429 or error.code >= 500,
            is_load=error.code in LOAD,
            pause_seconds=retry_after_seconds(error.headers.get("Retry-After")),
        )

    def _hint(self, error: urllib.error.HTTPError) -> str:
        """Say what of the request is mostly the cause of a refusal."""
        if error.code in (401, 403) and self.key_env:
            sent = "the key in {} was sent" if self._key() else "no key was sent: {} is empty"
            return f" ({sent.format(self.key_env)})"
        return f" ({error.url} was asked)" if error.code == 404 else ""

    def _headers(self) -> dict[str, str]:
        secret = self._key()
        if not secret.isascii() or not secret.isprintable():
            raise EvaluatorError(f"The key in the environment variable {self.key_env} can't stand in an HTTP header.")
        key = {"Authorization": f"Bearer {secret}"} if secret else {}  # a user's own server may need none
        return {"Content-Type": "application/json", "User-Agent": "soup", **key}

    def _key(self) -> str:
        return os.environ.get(self.key_env, "").strip()

    def _said(self, data: bytes) -> str:
        return self._clean(data.decode("utf-8", "replace")) or "nothing"

    def _clean(self, text: str) -> str:
        """Shorten a server's words, and take the key out, which some servers repeat."""
        secret = self._key()
        return " ".join((text.replace(secret, "***") if secret else text).split())[:EXCERPT_CHARACTERS]


def _url_parts(url: str) -> SplitResult | None:
    """Return the parts of a URL that can be asked; None for anything else."""
    try:
        parts = urlsplit(url)
        is_whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and not parts.fragment
    except ValueError:  # half an IPv6 address, a port that is no number
        return None
    is_plain = url.isascii() and url.isprintable() and " " not in url
    return parts if is_whole and is_plain else None


def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:  # a name
        return host == "localhost" or host.endswith(".localhost")


def _body(response: http.client.HTTPResponse, until: float) -> bytes:
    """Return a body, however it comes: a server may send a blank now and then to keep the line open.

    Raises:
        TimeoutError: it is not complete by then.
        _RefusalError: it is too long.
        HTTPException: the line broke before its end.
    """
    body = bytearray()
    while piece := response.read1(1 << 16):
        body += piece
        if time.monotonic() > until:
            raise TimeoutError
        if len(body) > MOST_BYTES:
            raise _RefusalError(f"a reply of more than {MOST_BYTES:,} bytes", may_retry=False)
    if response.length:
        raise http.client.IncompleteRead(bytes(body), response.length)
    return bytes(body)


def _content(choice: Any) -> Any:
    """Return what a model said; null is what some servers say for nothing, and others where a filter took it away.

    Raises:
        TypeError: the model did not come to an end by itself, nor by the number of tokens, and nothing or a part of an
            answer came of it.
        KeyError: there is no message, or nothing of its content in it.
    """
    message, reason = choice["message"], choice.get("finish_reason")
    content = message["content"]
    if reason in BREAKS or (not content and (reason in CALLS or message.get("tool_calls"))):
        raise TypeError
    if content is not None:
        return content
    if reason not in (None, "stop", "length"):
        raise TypeError
    return message.get("refusal") or ""  # where a model's own refusal stands


def _text(content: Any) -> str:
    """Return the text of a message's content: some servers give its parts.

    Raises:
        TypeError: it is neither.
        KeyError: a part has no text.
    """
    if isinstance(content, list):
        return "".join(_text(part["text"]) for part in content if part["type"] == "text")
    if not isinstance(content, str):
        raise TypeError
    return content


Item = TypeVar("Item")
Value = TypeVar("Value")


def map_at_once(
    function: Callable[[Item], Value], items: Sequence[Item], threads: int, stopped: threading.Event
) -> list[Value]:
    """Return the function's value for each item, in their order, by a few threads; the first error ends it.

    Args:
        function: Called in a thread.
        items: What it is called with, one by one.
        threads: How many calls are made at once.
        stopped: Set by an error or an interrupt: no further call is made then.
    """
    positions, turn = iter(range(len(items))), threading.Lock()
    values: dict[int, Value] = {}
    errors: list[BaseException] = []

    def work() -> None:
        while not stopped.is_set():
            with turn:
                position = next(positions, None)
            if position is None:
                return
            try:
                values[position] = function(items[position])
            except BaseException as error:
                errors.append(error)
                stopped.set()

    # Daemons: an interrupt need not wait for a reply that may take minutes.
    workers = [threading.Thread(target=work, daemon=True) for _ in range(min(threads, len(items)))]
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    except BaseException:
        stopped.set()
        raise
    if errors:
        raise errors[0]
    return [values[position] for position in range(len(items))]
