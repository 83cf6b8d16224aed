"""An engine: what answers prompts with a candidate's weights. The words between harnesses and engines.

An engine knows no benchmark and no score. It holds one candidate at a time, and is built once for a whole search.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

from soup.evaluation.api.candidate import Candidate

__all__ = ["Engine", "OnBatch", "Prompt"]

Prompt = list[dict[str, str]]
"""Parts in their order: `{"type": "image", "value": path}` or `{"type": "text", "value": text}`.

The frames of a video are images with its name, too: `{"type": "image", "value": path, "video": "walk.mp4"}`.
"""

OnBatch = Callable[[list[Prompt], list[str]], None]
"""Hears of some prompts and the replies to them, as soon as they are there."""


@runtime_checkable
class Engine(Protocol):
    """What answers prompts, with one candidate's weights in it at a time.

    It is called in this order: `identity` and `check` at any time; `open`; then `swap`, `answer` and again; `close`,
    after which it may be opened again. A candidate whose files around the weights differ (another tokenizer, another
    configuration) is never swapped in: the engine is closed, and opened on it.

    The registered class or function is called with `EvalSettings` and, by name, with the engine's own arguments
    (`--engine-arg`): its keyword-only parameters.

    An engine that a judge may answer with (`--judge-engine`) has one attribute more, `max_new_tokens`, how long an
    answer may become: it is set before `answer` is called, as benchmarks let grades become longer or shorter.
    """

    def identity(self) -> Mapping[str, object]:
        """Return all that can change an answer besides the candidate and the prompt, as JSON values.

        It is a part of the keys of scores and of remembered answers, so that those of two engines are never mixed: name
        the engine and its version, and the host of an endpoint that it asks (`EvalSettings.engine_url`). It is asked
        for before anything is opened, and is the place to say what is missing.

        Raises:
            EvaluatorError: a library is not installed, or an argument is missing or wrong.
        """

    def check(self, checkpoint: Path) -> None:
        """Look for what would stop this engine, from the files around a checkpoint's weights alone.

        Args:
            checkpoint: A directory whose config, tokenizer and processor files candidates will have.

        Raises:
            EvaluatorError: candidates with such files can't be asked.
        """

    def open(self, candidate: Candidate) -> None:
        """Start with a candidate's weights; nothing is open.

        Args:
            candidate: Whose `directory` is loaded, or whose weights are streamed in by `load_into`.

        Raises:
            EvaluatorError: it did not start; nothing is left open.
        """

    def swap(self, candidate: Candidate) -> None:
        """Put another candidate's weights in place of those that are held; every answer after it is the candidate's.

        Args:
            candidate: Its names, shapes and dtypes are those of what is held.

        Raises:
            Exception: any. What is held then is nobody's: the engine is closed, and opened on the candidate.
        """

    def answer(self, prompts: list[Prompt], on_batch: OnBatch) -> list[str]:
        """Give one answer per prompt, in their order; an answer must not depend on its neighbours.

        Args:
            prompts: All that there are, in any order: how many are asked at a time is the engine's business.
            on_batch: Called once for every prompt, with some of them at a time, as answers come. It may be called from
                one thread only at a time.

        Raises:
            EvaluatorError: an answer did not come. Never an empty text in its place.
        """

    def close(self) -> None:
        """Give back all that is held: memory, processes, files. Nothing happens where nothing is open."""
