"""lm-eval's requests, dealt out: its evaluation here over replies that come from elsewhere, and those replies there.

`simple_evaluate` asks its model in the middle, holding on to settings of the whole process. So it is not made to wait:
a model that lacks replies stops it, and when they are there it is run again, which takes no model's time.
"""

from __future__ import annotations

import importlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from evaluators.answering.response_cache import ResponseCache, response_key
from soup.errors import EvaluatorError
from soup.evaluation.api import Candidate, OnReplies
from soup.evaluation.dealing import Dealer
from soup.support.foreign_code import Interruption
from soup.support.options import option_name

__all__ = ["Request", "answer_requests", "evaluate_dealt"]

Request = tuple[str, tuple[Any, ...]]
"""The method of lm-eval's model that is asked, and the arguments of one of its instances."""

Reply = Any
"""What the method gives for it: a text, a number, or a pair of a number and whether it is the likeliest."""


Answered = tuple[list[Request], list[Reply]]
"""Requests of one kind, and the replies to them."""


class _MissingReplies(Interruption):
    """Stops an evaluation that lacks replies."""

    def __init__(self, requests: list[Request]) -> None:
        super().__init__()
        self.requests = requests


def evaluate_dealt(
    evaluate: Callable[[Any], Mapping[str, Any]],
    candidate: Candidate,
    dealer: Dealer,
    kept: ResponseCache,
    facts: Sequence[object],
) -> Mapping[str, Any]:
    """Return what lm-eval says of a candidate whose requests somebody else answers.

    Args:
        evaluate: Runs lm-eval with a model of its kind; the same requests come each time.
        candidate: Hears how many requests are answered.
        dealer: Has them answered.
        kept: Where replies are looked up, and kept as they come.
        facts: All that a reply depends on besides the request.
    """
    replies: dict[str, Answered] = {}
    while True:
        try:
            return evaluate(_replaying_class()(replies))
        except _MissingReplies as missing:
            requests = missing.requests
        replies[requests[0][0]] = requests, _replies(requests, candidate, dealer, kept, facts)


def _replies(
    requests: list[Request], candidate: Candidate, dealer: Dealer, kept: ResponseCache, facts: Sequence[object]
) -> list[Reply]:
    prefix, times = response_key(*facts), Counter[str]()
    keys = []
    for request in requests:  # a task may ask the same several times, to draw several answers
        key = response_key(prefix, *request)
        times[key] += 1
        keys.append(key if times[key] == 1 else response_key(key, times[key]))
    missing = [position for position, key in enumerate(keys) if kept.get(key) is None]
    done = len(requests) - len(missing)

    def keep(positions: Sequence[int], replies: Sequence[Reply]) -> None:
        nonlocal done
        kept.add({keys[missing[at]]: json.dumps(reply) for at, reply in zip(positions, replies, strict=True)})
        done += len(positions)
        candidate.answered(done, len(requests))

    if missing:
        dealer.deal([requests[position] for position in missing], keep, _size)
    return [_from_json(kept.get(key) or "") for key in keys]


def answer_requests(model: Any, requests: Sequence[Request], on_replies: OnReplies) -> None:
    """Answer requests of one kind by lm-eval's model."""
    instance = importlib.import_module("lm_eval.api.instance").Instance
    (kind,) = {kind for kind, _ in requests}
    instances = [instance(kind, {}, arguments, 0) for _, arguments in requests]
    on_replies(range(len(requests)), getattr(model, kind)(instances))


def _size(request: Request) -> int:
    return sum(len(part) for part in request[1] if isinstance(part, str))


def _from_json(text: str) -> Reply:
    reply = json.loads(text)
    return tuple(reply) if isinstance(reply, list) else reply


@cache
def _replaying_class() -> Any:
    base: Any = importlib.import_module("lm_eval.api.model").LM

    class Replaying(base):  # type: ignore[misc]  # lm-eval is Any to mypy
        """Knows replies by the kind of their requests, in lm-eval's order."""

        def __init__(self, answered: Mapping[str, Answered]) -> None:
            super().__init__()
            self._answered = answered

        def loglikelihood(self, requests: list[Any]) -> list[Reply]:
            return self._of("loglikelihood", requests)

        def loglikelihood_rolling(self, requests: list[Any]) -> list[Reply]:
            return self._of("loglikelihood_rolling", requests)

        def generate_until(self, requests: list[Any]) -> list[Reply]:
            return self._of("generate_until", requests)

        def _of(self, kind: str, requests: list[Any]) -> list[Reply]:
            pending: list[Request] = [(kind, request.args) for request in requests]
            if pending and kind not in self._answered:
                raise _MissingReplies(pending)
            known, replies = self._answered.get(kind, ([], []))
            if known != pending:
                raise EvaluatorError(
                    f"lm_eval: the task makes other requests each time, which can't be dealt out to workers; leave "
                    f"{option_name('workers')} out for it."
                )
            return replies

    return Replaying
