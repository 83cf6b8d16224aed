"""What was answered or judged already, on disk: a run that stops midway asks only for the rest when it is typed again.

One file for each candidate and benchmark, one JSON object a line, appended as answers come. A text is found by what
it is the answer to (weights, how the model was made to answer, images by their content, words), never by a name.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluators.answering.batching import Prompt
from soup.errors import EvaluatorError

__all__ = ["ResponseCache", "cached_answers", "key"]


def key(*facts: Any) -> str:
    """The key of a text: a digest of all that it depends on (JSON values)."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


class ResponseCache:
    """Texts by key, in an append-only file of one writer. Threads may share it.

    A line that is no whole record (a kill tore it) is a text that is asked for again, and costs nothing else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._texts: dict[str, str] = {}
        self._lock = threading.Lock()
        data = path.read_bytes() if path.is_file() else b""
        self._torn = bool(data) and not data.endswith(b"\n")
        for line in data.splitlines():
            self._replay(line)

    def __len__(self) -> int:
        return len(self._texts)

    def get(self, key: str) -> str | None:
        """The text of that key."""
        return self._texts.get(key)

    def add(self, texts: Mapping[str, str]) -> None:
        """Append texts by their keys. Not synced: they outlive the process, if not the machine.

        Raises:
            EvaluatorError: the disk is full or failed.
        """
        lines = "".join(json.dumps({"key": key, "text": text}) + "\n" for key, text in texts.items())
        with self._lock:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("ab") as file:
                    file.write((b"\n" if self._torn else b"") + lines.encode())
            except OSError as cause:
                raise EvaluatorError(f"{self.path}: can't be appended to ({cause.strerror or cause}).") from cause
            self._torn = False
            self._texts.update(texts)

    def _replay(self, line: bytes) -> None:
        try:
            record = json.loads(line)
            known, text = record["key"], record["text"]
        except (ValueError, KeyError, TypeError):
            return
        if isinstance(known, str) and isinstance(text, str):
            self._texts[known] = text


def cached_answers(
    remembered: ResponseCache,
    who: Sequence[Any],
    messages: Iterable[Prompt],
    ask: Callable[[list[Prompt], Callable[[list[Prompt], list[str]], None]], list[str]],
    answered: Callable[[int, int], None] = lambda count, of: None,
) -> list[str]:
    """The answers to all messages, in their order: remembered ones, and those that `ask` is asked for.

    `who` tells all that an answer depends on besides the message: the weights, and how they are made to answer. `ask`
    gets the open messages, and whom to tell of each batch that is answered. `answered` hears how many of all are.
    """
    prefix = key(*who)
    messages = list(messages)
    keys = [_message_key(prefix, message) for message in messages]
    open_places = [place for place, known in enumerate(keys) if remembered.get(known) is None]
    found = [remembered.get(known) or "" for known in keys]

    by_message = {id(message): known for message, known in zip(messages, keys, strict=True)}

    done = len(messages) - len(open_places)

    def told(batch: list[Prompt], replies: list[str]) -> None:
        nonlocal done
        remembered.add({by_message[id(each)]: reply for each, reply in zip(batch, replies, strict=True)})
        done += len(batch)
        answered(done, len(messages))

    if open_places:
        replies = ask([messages[place] for place in open_places], told)
        for place, reply in zip(open_places, replies, strict=True):
            found[place] = reply
    return found


def _message_key(prefix: str, message: Prompt) -> str:
    """By content: a file of an image is named by the digest of its bytes, whatever directory it lies in."""
    parts = [[part["type"], Path(part["value"]).name if part["type"] == "image" else part["value"]] for part in message]
    return key(prefix, parts)
