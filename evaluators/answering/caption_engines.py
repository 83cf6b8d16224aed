"""Checkpoints and endpoints that write texts for data, outside of any search: a directory, or an address."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from evaluators.answering.batching import ask, release_memory
from evaluators.answering.engines.openai import OpenAI
from evaluators.answering.engines.transformers import LanguageModel, TransformersModel, identity
from evaluators.answering.side_files import side_files_digest
from soup.checkpoints.digest import digest_checkpoint
from soup.checkpoints.reader import Checkpoint
from soup.errors import EvaluatorError
from soup.evaluation.api import OnBatch, Prompt
from soup.evaluation.settings import EvalSettings

__all__ = ["TextWriter", "open_writer"]

MAX_NEW_TOKENS = 256  # a caption is shorter; one that never ends costs no more


class TextWriter(Protocol):
    """What writes texts for data."""

    @property
    def name(self) -> str:
        """What the rows call it."""

    def identity(self) -> Mapping[str, object]:
        """Return all that a text depends on beside the prompt, as JSON values."""

    def check(self) -> None:
        """Look for what would stop it, before the first prompt.

        Raises:
            EvaluatorError: it can't be asked.
        """

    def answer(self, prompts: list[Prompt], on_batch: OnBatch) -> list[str]:
        """Answer prompts, in their order.

        Args:
            prompts: Texts, or pictures and texts.
            on_batch: Called with some prompts and their answers, as they come.
        """

    def close(self) -> None:
        """Give back the memory that it holds; asked again, it loads again."""


class LocalWriter:
    """A checkpoint that writes, loaded when it is first asked; see `TextWriter`.

    Args:
        directory: The checkpoint.
        kind: What it is loaded as: a model that sees pictures, or one of text alone.
        settings: How it is asked.
    """

    def __init__(self, directory: Path, kind: type[TransformersModel], settings: EvalSettings) -> None:
        self.name = directory.name or str(directory)
        self._directory, self._kind, self._settings = directory, kind, settings
        self._model: TransformersModel | None = None

    def identity(self) -> Mapping[str, object]:
        """Return what a text depends on: the checkpoint's content, and the way it is asked."""
        with Checkpoint(self._directory) as checkpoint:
            weights = digest_checkpoint(checkpoint).content
        facts = {**identity(self._settings), "max_new_tokens": MAX_NEW_TOKENS}
        return {"checkpoint": weights, "files": side_files_digest(self._directory), **facts}

    def check(self) -> None:
        """Look for what would stop it, without its weights.

        Raises:
            EvaluatorError: no processor or tokenizer, no template, or another kind of model.
        """
        self._kind.check(self._directory, trust_remote_code=self._settings.trust_remote_code)

    def answer(self, prompts: list[Prompt], on_batch: OnBatch) -> list[str]:
        """Answer prompts in batches that fit."""
        if self._model is None:
            trusted = self._settings.trust_remote_code
            self._model = self._kind(self._directory, max_new_tokens=MAX_NEW_TOKENS, trust_remote_code=trusted)
        return ask(self._model, prompts, self._settings.batch_size, on_batch)

    def close(self) -> None:
        """Let go of the model."""
        self._model = None
        release_memory()


class EndpointWriter:
    """An endpoint that speaks OpenAI's chat completions, and writes; see `TextWriter`.

    Args:
        url: Its address.
        model: The model's name there; None: the one that is listed.

    Raises:
        EvaluatorError: no address of an endpoint.
    """

    def __init__(self, url: str, model: str | None) -> None:
        self._engine = OpenAI(EvalSettings(engine="openai", engine_url=url), model=model, max_new_tokens=MAX_NEW_TOKENS)

    @property
    def name(self) -> str:
        """The model's name there."""
        return str(self._engine.identity()["model"])

    def identity(self) -> Mapping[str, object]:
        """Return the address, the model and the decoding."""
        return self._engine.identity()

    def check(self) -> None:
        """Ask for the model's name."""
        self._engine.identity()

    def answer(self, prompts: list[Prompt], on_batch: OnBatch) -> list[str]:
        """Answer prompts by several requests at once."""
        return self._engine.answer(prompts, on_batch)

    def close(self) -> None:
        """Leave the endpoint to whoever started it."""


def open_writer(location: str, model: str | None, settings: EvalSettings, *, sees_pictures: bool) -> TextWriter:
    """Open what writes: the endpoint of an address, or the checkpoint of a directory.

    Args:
        location: `http://...`, or a directory.
        model: The model's name at the endpoint.
        settings: How a checkpoint is asked.
        sees_pictures: Whether it is to caption pictures, or to work on texts.

    Raises:
        SoupError: it can't be asked.
    """
    if location.startswith(("http://", "https://")):
        writer: TextWriter = EndpointWriter(location, model)
    elif model is not None:
        raise EvaluatorError(f"{location}: is a checkpoint, and has no models of other names ({model}).")
    elif not Path(location).is_dir():
        raise EvaluatorError(
            f"{location}: expected a checkpoint's directory, or the address of an endpoint (http://...)."
        )
    else:
        writer = LocalWriter(Path(location), TransformersModel if sees_pictures else LanguageModel, settings)
    writer.check()
    return writer
