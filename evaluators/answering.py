"""How a checkpoint becomes something that answers, and how one loaded model serves a whole search.

A message is VLMEvalKit's own list of parts: `{"type": "image", "value": path}` or `{"type": "text", "value": text}`.
"""

from __future__ import annotations

import hashlib
import logging
import traceback
from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

from evaluators.names import names_in_memory
from soup.checkpoint import Checkpoint
from soup.errors import CheckpointError, EvaluatorError, SoupError, listing
from soup.evaluation import Candidate, Settings
from soup.plugins import load_object

__all__ = ["Answerer", "HotSwap", "Message", "ask"]

Message = list[dict[str, str]]

logger = logging.getLogger(__name__)

SIDE_FILES = (".json", ".jinja", ".txt", ".model", ".py", ".tiktoken")


class Answerer(Protocol):
    """A model that answers. With an attribute `module` (a torch module) candidates are streamed into it."""

    def answer(self, messages: list[Message]) -> list[str]:
        """One answer per message, in their order; an answer must not depend on its neighbours."""


def ask(answerer: Answerer, messages: list[Message], batch_size: int) -> list[str]:
    """The answers to all messages, in their order, asked in batches of similar length, the longest first.

    So padding is little, and memory that does not suffice is noticed at once instead of after hours.

    Raises:
        EvaluatorError: the model raised, or did not give one text per message.
    """
    answers: list[str] = [""] * len(messages)
    for places in _batches(messages, batch_size):
        replies = _replies(answerer, [messages[place] for place in places])
        for place, reply in zip(places, replies, strict=True):
            answers[place] = reply
    return answers


def _batches(messages: list[Message], batch_size: int) -> Iterator[list[int]]:
    """Places of messages that go together. A batch never mixes messages with one image, several and none."""
    sizes = [_size(message) for message in messages]
    order = sorted(range(len(messages)), key=lambda place: (sizes[place], -place), reverse=True)
    for _, group in groupby(order, key=lambda place: sizes[place][0]):
        places = list(group)
        yield from (places[start : start + batch_size] for start in range(0, len(places), batch_size))


def _size(message: Message) -> tuple[int, int, int]:
    """The number of images, their pixels and the characters of a message."""
    images = [part["value"] for part in message if part["type"] == "image"]
    return len(images), sum(map(_pixels, images)), sum(len(part["value"]) for part in message if part["type"] == "text")


def _pixels(path: str) -> int:
    """The number of pixels, from the header alone; 0 for what Pillow does not know (the model's to judge)."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return int(image.width * image.height)
    except (UnidentifiedImageError, OSError):
        return 0


def _replies(answerer: Answerer, messages: list[Message]) -> list[str]:
    name = type(answerer).__name__
    try:
        replies = answerer.answer(messages)
    except SoupError:
        raise
    except Exception as cause:
        tail = "".join(traceback.format_exception(cause)[-4:])
        raise EvaluatorError(f"{name}.answer failed on a batch of {len(messages)} messages:\n{tail}") from cause
    if not isinstance(replies, list | tuple):
        raise EvaluatorError(f"{name}.answer: expected a list of str, found {type(replies).__name__}.")
    if len(replies) != len(messages):
        raise EvaluatorError(f"{name}.answer: expected {len(messages)} answers, found {len(replies)}.")
    strange = [f"answer {place}: {reply!r:.80}" for place, reply in enumerate(replies) if not isinstance(reply, str)]
    if strange:
        raise EvaluatorError(f"{name}.answer: expected a list of str, found:\n{listing(strange)}")
    return list(replies)


class HotSwap:
    """One answering model for a whole search; each candidate's weights are streamed into it.

    A candidate is put in once for all of its benchmarks. The model is built anew where its weights are not all that
    differs (another tokenizer, another configuration), where it offers no `module`, and where tensors in memory are
    not one by one those on disk, so that nothing can be streamed by name.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._build = _builder(settings)
        self._answerer: Answerer | None = None
        self._digest: str | None = None  # of the candidate whose weights the model holds
        self._frame: str | None = None  # of the files around the weights that the model was built with
        self._streams = True

    def identity(self) -> Mapping[str, Any]:
        """All of the answering that can change a score, as JSON values."""
        if self.settings.model == "auto":
            from evaluators.transformers_model import identity

            return {"model": "auto", **identity(self.settings)}
        path, _, name = self.settings.model.rpartition(":")
        return {"model": f"{Path(path).name}:{name}", "digest": hashlib.sha256(Path(path).read_bytes()).hexdigest()}

    def answerer_for(self, candidate: Candidate) -> Answerer:
        """The model with the candidate's weights in it.

        Raises:
            EvaluatorError: the model can't be built from the candidate.
        """
        if self._answerer is None or self._digest != candidate.digest:
            self._digest = None  # until all of it has arrived: a swap may fail halfway
            self._swap(candidate)
            self._digest = candidate.digest
        assert self._answerer is not None
        return self._answerer

    def _swap(self, candidate: Candidate) -> None:
        frame = _frame(candidate.template)
        if frame != self._frame:
            self._answerer, self._frame, self._streams = None, None, True
        if self._answerer is None and self._streams and self.settings.model == "auto":
            self._answerer = self._built(candidate.template)  # sure to have a module: nothing is written for it
        if self._answerer is not None and self._streams:
            self._streams = _stream(candidate, self._answerer)
        if self._answerer is None or not self._streams:
            self._answerer = None  # before the next one is built: two may not fit
            self._answerer = self._built(candidate.directory())
        self._frame = frame

    def _built(self, directory: Path) -> Answerer:
        try:
            return self._build(directory)
        except SoupError:
            raise
        except Exception as cause:
            tail = "".join(traceback.format_exception(cause)[-4:])
            raise EvaluatorError(f"--model {self.settings.model} can't be built from {directory}:\n{tail}") from cause


def _builder(settings: Settings) -> Callable[[Path], Answerer]:
    """What builds an answering model from a checkpoint directory.

    Raises:
        EvaluatorError: the user's file, or the class in it, is not there, or has no method `answer`.
    """
    if settings.model == "auto":
        from evaluators.transformers_model import TransformersAnswerer

        return lambda directory: TransformersAnswerer(directory, trust_remote_code=settings.trust_remote_code)
    path, _, _ = settings.model.rpartition(":")
    if not path.endswith(".py"):
        raise EvaluatorError(f"--model {settings.model}: expected auto or FILE.py:CLASS.")
    kind = load_object(settings.model, "model", EvaluatorError)
    if not callable(getattr(kind, "answer", None)):
        raise EvaluatorError(
            f"--model {settings.model}: expected a class with a method answer(messages), found {kind!r}."
        )
    return lambda directory: kind(str(directory))


def _stream(candidate: Candidate, answerer: Answerer) -> bool:
    """Puts the weights into the model's module; False, with nothing touched, where that can't be done by name."""
    module = getattr(answerer, "module", None)
    if module is None:
        return False
    try:
        with Checkpoint(candidate.template) as template:
            names = names_in_memory(module, template.tensors)
        candidate.load_into(module, names)
    except (CheckpointError, LookupError) as why:
        logger.warning("Candidates are loaded from disk one by one: they can't be streamed into the model. %s", why)
        return False
    return True


def _frame(directory: Path) -> str:
    """A digest of the files around the weights: configuration, tokenizer, processor, template, code."""
    known = hashlib.sha256()
    for path in sorted(directory.iterdir()):
        if path.suffix in SIDE_FILES and not path.name.endswith(".index.json"):
            known.update(f"{path.name}\0{path.stat().st_size}\0".encode())
            known.update(path.read_bytes())
    return known.hexdigest()
