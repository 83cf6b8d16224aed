"""What was answered or judged already, on disk: a run that stops midway asks only for the rest when it is typed again.

One file for each candidate and benchmark, one JSON object a line, appended as answers come. A text is found by what
it is the answer to (weights, how the model was made to answer, images by their content, words), never by a name.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from soup.errors import EvaluatorError
from soup.evaluation.api import OnBatch, Prompt
from soup.support.json_text import parse_json_object
from soup.support.text import whole_characters

__all__ = ["ResponseCache", "cached_answers", "prompt_keys", "response_key"]


def response_key(*facts: object) -> str:
    """Return the key of a text: a digest of all that it depends on (JSON values)."""
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
        """Return the text of that key, if it is here."""
        return self._texts.get(key)

    def add(self, texts: Mapping[str, str]) -> None:
        """Append texts by their keys. Not synced: they outlive the process, if not the machine.

        Half of a surrogate pair becomes `?`, see `whole_characters`: a line that holds one could not be read back.

        Raises:
            EvaluatorError: the disk is full or failed.
        """
        self._append({key: whole_characters(text) for key, text in texts.items()})

    def forget(self, keys: Iterable[str]) -> None:
        """Have the texts of some keys asked for again, in this run and in later ones.

        Raises:
            EvaluatorError: the disk is full or failed.
        """
        self._append(dict.fromkeys(keys))

    def _append(self, texts: Mapping[str, str | None]) -> None:
        lines = "".join(json.dumps({"key": key, "text": text}) + "\n" for key, text in texts.items())
        with self._lock:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("ab") as file:
                    file.write((b"\n" if self._torn else b"") + lines.encode())
            except OSError as cause:
                self._torn = True  # a full disk takes what it can
                raise EvaluatorError(f"{self.path}: can't be appended to ({cause.strerror or cause}).") from cause
            self._torn = False
            for key, text in texts.items():
                self._hold(key, text)

    def _replay(self, line: bytes) -> None:
        try:
            record = parse_json_object(line, self.path, EvaluatorError)
            key, text = record["key"], record["text"]
        except (EvaluatorError, KeyError):
            return
        if isinstance(key, str) and isinstance(text, str | None):
            self._hold(key, text)

    def _hold(self, key: str, text: str | None) -> None:
        if text is None:
            self._texts.pop(key, None)
        else:
            self._texts[key] = text


def cached_answers(
    cache: ResponseCache,
    engine_facts: Sequence[object],
    prompts: Iterable[Prompt],
    answer: Callable[[list[Prompt], OnBatch], list[str]],
    on_progress: Callable[[int, int], None] = lambda count, of: None,
) -> list[str]:
    """Answer all prompts, in their order, asking only for what the cache lacks.

    Args:
        cache: Where answers are looked up, and kept as they come.
        engine_facts: All that an answer depends on besides the prompt: the weights, and how they are made to answer.
        prompts: In any order.
        answer: Called with the prompts that the cache lacks, and with what must hear of each batch; gives all replies.
        on_progress: Called with how many of how many prompts are answered.
    """
    prompts = list(prompts)
    keys = prompt_keys(engine_facts, prompts)
    missing = [index for index, key in enumerate(keys) if cache.get(key) is None]
    answers = [cache.get(key) or "" for key in keys]

    key_of = {id(prompt): key for prompt, key in zip(prompts, keys, strict=True)}

    done = len(prompts) - len(missing)

    def keep(batch: list[Prompt], replies: list[str]) -> None:
        nonlocal done
        cache.add({key_of[id(prompt)]: reply for prompt, reply in zip(batch, replies, strict=True)})
        done += len(batch)
        on_progress(done, len(prompts))

    if missing:
        replies = answer([prompts[index] for index in missing], keep)
        for index, reply in zip(missing, replies, strict=True):
            answers[index] = whole_characters(reply)  # as it is kept
    return answers


def prompt_keys(engine_facts: Sequence[object], prompts: Iterable[Prompt]) -> list[str]:
    """Return the key of the answer to each prompt; see `cached_answers`."""
    prefix = response_key(*engine_facts)
    return [_prompt_key(prefix, prompt) for prompt in prompts]


def _prompt_key(prefix: str, prompt: Prompt) -> str:
    """Return a prompt's key, by its content: an image's file is named by its bytes' digest, wherever it lies."""
    return response_key(prefix, [_part_key(part) for part in prompt])


def _part_key(part: Mapping[str, str]) -> list[str]:
    if part["type"] != "image":
        return [part["type"], part["value"]]
    return ["frame" if "video" in part else "image", part["value"].rpartition(os.sep)[2]]
