"""The loaded model as lm-eval wants it: its `HFLM` around the very module that candidates are streamed into."""

from __future__ import annotations

import copy
import importlib
import logging
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

from evaluators.answering.batching import LARGEST_BATCH, BatchSize, Engine, is_out_of_memory, release_memory
from soup.errors import EvaluatorError

__all__ = ["alone", "language_model"]


def language_model(answerer: Engine, batch_size: BatchSize) -> Any:
    """An `HFLM` of the answerer's module and tokenizer.

    Raises:
        EvaluatorError: it has none, or a token's likelihood would depend on what comes after it.
    """
    module, tokenizer = getattr(answerer, "module", None), getattr(answerer, "tokenizer", None)
    if module is None or tokenizer is None:
        raise EvaluatorError(
            f"lm_eval: needs --model auto, or a model with the attributes module and tokenizer; found "
            f"{type(answerer).__name__}."
        )
    _refuse_looking_ahead(module, tokenizer)
    with _as_tied_as_it_is(module):
        return _kind()(
            pretrained=module,
            tokenizer=copy.deepcopy(tokenizer),  # lm-eval sets its padding
            batch_size=LARGEST_BATCH if batch_size == "auto" else batch_size,
            halve=batch_size == "auto",
        )


@cache
def _kind() -> Any:
    base: Any = importlib.import_module("lm_eval.models.huggingface").HFLM

    class Halving(base):  # type: ignore[misc]
        """Goes on with half a batch where memory does not suffice for a whole one, and stays with that."""

        def __init__(self, *, halve: bool, **options: Any) -> None:
            super().__init__(**options)
            self._halve, self._room = halve, self.batch_size_per_gpu

        def _model_call(self, inps: Any, *others: Any, **named: Any) -> Any:
            call = super()._model_call
            if others or named:  # an encoder-decoder's
                return call(inps, *others, **named)
            return _joined(self._parts(lambda part: call(inps[part]), len(inps)), 0)

        def _model_generate(self, context: Any, max_length: int, stop: list[str], **named: Any) -> Any:
            generate, mask = super()._model_generate, named.pop("attention_mask", None)

            def some(part: slice) -> Any:
                masked = {} if mask is None else {"attention_mask": mask[part]}
                return generate(context[part], max_length, stop, **masked, **named)

            return _joined(self._parts(some, len(context)), self.tokenizer.pad_token_id)

        def _parts(self, work: Callable[[slice], Any], count: int) -> list[Any]:
            done: list[Any] = []
            start = 0
            while start < count:
                stop = min(count, start + self._room)
                try:
                    done.append(work(slice(start, stop)))
                except Exception as error:
                    if not self._halve or stop - start == 1 or not is_out_of_memory(error):
                        raise
                else:
                    start = stop
                    continue
                release_memory()  # out here the exception, which holds the attempt's tensors, is gone
                self._room = (stop - start) // 2
            return done

    return Halving


def _joined(parts: list[Any], padding: int) -> Any:
    """One tensor [batch, length, ...] of several whose lengths may differ."""
    import torch

    if len(parts) == 1:
        return parts[0]
    length = max(part.shape[1] for part in parts)
    flat = [
        torch.nn.functional.pad(part, (0, 0) * (part.dim() - 2) + (0, length - part.shape[1]), value=padding)
        for part in parts
    ]
    return torch.cat(flat)


def _refuse_looking_ahead(module: Any, tokenizer: Any) -> None:
    """A model that reads a prompt both ways, as PaliGemma does, knows a continuation before it is asked for it."""
    import torch

    words = tokenizer("one two three four", add_special_tokens=False)["input_ids"]
    other = [*words[:-1], words[0]]
    with torch.inference_mode():
        first, second = (
            module(input_ids=torch.tensor([tokens], device=module.device)).logits[0, 0].float()
            for tokens in (words, other)
        )
    if not torch.allclose(first, second, rtol=1e-2, atol=1e-2):
        raise EvaluatorError(
            f"lm_eval: {type(module).__name__} reads its whole prompt at once, what comes after a word included, so "
            "that likelihoods say nothing. Leave lm_eval: out for it."
        )


@contextmanager
def _as_tied_as_it_is(module: Any) -> Iterator[None]:
    """HFLM ties weights by the configuration; where the files say otherwise that would be another model."""
    module.tie_weights = _nothing
    try:
        yield
    finally:
        del module.tie_weights


def _nothing(*given: Any, **named: Any) -> None:
    """Does nothing."""


BARS = ("lm_eval.api.task", "lm_eval.api.model", "lm_eval.models.huggingface")
FACTS = ("get_git_commit_hash", "add_env_info", "add_tokenizer_info")


@contextmanager
def alone() -> Iterator[None]:
    """Keeps lm-eval from the rest of the process: it seeds random numbers, draws bars, and lists what pip installed.

    None of what is kept from it changes a score; its list of packages takes a second, every time.
    """
    import numpy as np
    import torch

    def bar(*given: Any, **named: Any) -> Any:
        return importlib.import_module("tqdm").tqdm(*given, **{**named, "disable": True})

    logger = logging.getLogger("lm_eval")
    with ExitStack() as after:
        after.callback(random.setstate, random.getstate())
        after.callback(np.random.set_state, np.random.get_state())
        after.callback(torch.set_rng_state, torch.get_rng_state())
        after.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.ERROR)
        for name in BARS:
            after.enter_context(_in_place_of(importlib.import_module(name), "tqdm", bar))
        for name in FACTS:
            after.enter_context(_in_place_of(importlib.import_module("lm_eval.evaluator"), name, _nothing))
        yield


@contextmanager
def _in_place_of(module: Any, name: str, other: Any) -> Iterator[None]:
    before = getattr(module, name, None)
    if before is None:  # another version of lm-eval: then it is heard
        yield
        return
    setattr(module, name, other)
    try:
        yield
    finally:
        setattr(module, name, before)
