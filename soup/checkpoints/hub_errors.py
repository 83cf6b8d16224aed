"""What the Hub's client raises, in one sentence: what failed, and what to do next."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from soup.errors import SoupError
from soup.support.retry_after import retry_after_seconds

__all__ = ["explain_hub_error", "hub_errors", "retried"]

T = TypeVar("T")

_WAITS_SECONDS = (1.0, 4.0)
"""The client itself is more patient in most of its calls."""

_LONGEST_WAIT_SECONDS = 300.0
"""Who is asked to wait longer is told, and not kept waiting."""

_PASSING = {409, 429, 500, 502, 503, 504}
"""Statuses that may be another one in a moment."""

_MOST_SIGNS = 400
_LOG_IN = "log in (hf auth login, or $HF_TOKEN) with a token that may"
_AGAIN = "what was transferred is kept: type the same command again"
_BY_KIND = {
    "GatedRepoError": f"the repository is gated: ask for access on its page of the Hub, then {_LOG_IN} read it",
    "RepositoryNotFoundError": "the Hub has no such repository, or hides it: check the name, or, if it is private, "
    f"{_LOG_IN} read it",
    "RevisionNotFoundError": "the repository has no such branch, tag or commit",
    "DisabledRepoError": "the Hub has disabled the repository",
    "OfflineModeIsEnabled": "$HF_HUB_OFFLINE keeps it from the Hub, and the cache has not all of it: unset it",
}
_BY_STATUS = {
    401: "the Hub refuses the token, or wants one (401): log in (hf auth login), or set $HF_TOKEN",
    403: f"the Hub forbids it (403): {_LOG_IN} do this",
    409: "somebody else changes the repository at this moment (409): type the same command again",
    412: "somebody else changed the repository meanwhile (412): type the same command again",
    413: "the Hub finds it too large (413)",
    429: f"the Hub has had too many requests (429): wait some minutes; {_AGAIN}",
}


@contextmanager
def hub_errors(subject: str, error: type[SoupError], remark: str = "") -> Iterator[None]:
    """Turn what the Hub's client raises into an error of ours.

    Args:
        subject: What it is about, such as a Hub id.
        error: The class of error to raise.
        remark: A sentence that follows the explanation.

    Raises:
        SoupError: Of the class `error`.
    """
    try:
        yield
    except SoupError:
        raise
    except Exception as cause:  # the client raises many kinds: network, permission, missing, offline, disk
        raise error(f"{subject}: {explain_hub_error(cause)}. {remark}".rstrip()) from cause


def retried(call: Callable[[], T], *, if_cut: bool = False) -> T:
    """Call a function of the Hub's client, and call it again where the Hub said that it can't answer at this moment.

    Args:
        call: The call, which may be made twice.
        if_cut: Whether it is made again where the connection was cut, too; the client does so itself in most calls.
    """
    for wait_seconds in _WAITS_SECONDS:
        try:
            return call()
        except Exception as error:  # the client raises many kinds
            causes = list(_chain(error))
            was_cut = if_cut and any(map(_is_of_network, causes)) and not any(map(_status_of, causes))
            asked_seconds = _asked_wait_seconds(causes, wait_seconds)
            passes = was_cut or {*map(_status_of, causes)} & _PASSING
            if not passes or asked_seconds > _LONGEST_WAIT_SECONDS:
                raise
            time.sleep(asked_seconds)
    return call()


def _asked_wait_seconds(causes: list[BaseException], default: float) -> float:
    headers = [cause.response.headers for cause in causes if hasattr(cause, "response")]
    seconds = retry_after_seconds(headers[0].get("Retry-After")) if headers else None
    return default if seconds is None else seconds


def explain_hub_error(error: BaseException) -> str:
    """Explain an error of the Hub's client, which may stand behind another one that says less."""
    if isinstance(error, ValueError) and _status_of(error) is None:  # the client's own, whatever it followed from
        return _line(error)
    chain = list(_chain(error))
    for cause in chain:
        if kind := next((kind.__name__ for kind in type(cause).__mro__ if kind.__name__ in _BY_KIND), None):
            return _BY_KIND[kind]
        if (status := _status_of(cause)) is not None:
            trouble = f"the Hub is in trouble ({status}): wait some minutes; {_AGAIN}"
            why = getattr(cause, "server_message", None) or cause
            return _BY_STATUS.get(status, trouble if status >= 500 else f"the Hub refused it ({status}): {_line(why)}")
        if isinstance(cause, OSError) and cause.errno == errno.ENOSPC:
            return "the disk of the Hub's cache is full: make room, or point $HF_HOME to another disk"
    if any(_is_of_network(cause) for cause in chain):
        return f"the Hub can't be reached ({_text(chain[-1])}); {_AGAIN}"
    return _text(error)


def _status_of(error: BaseException) -> int | None:
    """Return the HTTP status that an error of the Hub's client is about."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _chain(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _is_of_network(error: BaseException) -> bool:
    modules = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    if isinstance(error, ConnectionError | TimeoutError):  # of the client's part in Rust, too
        return True
    return bool(modules & {"httpx", "httpx2", "requests", "urllib3", "httpcore", "httpcore2"})


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {_line(error)}".removesuffix(": ")


def _line(message: object) -> str:
    """Return a message of the client or the Hub, which may have several lines, as one."""
    return " ".join(str(message).split())[:_MOST_SIGNS].rstrip(".: ")
