"""The loaded engine as lm-eval wants a model: its `HFLM` around the very module that candidates are streamed into."""

from __future__ import annotations

import copy
import importlib
import logging
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

from evaluators.answering.batching import LARGEST_BATCH, BatchSize, Model, is_out_of_memory, release_memory
from soup.errors import EvaluatorError
from soup.support.options import option_name

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["HFLM", "isolated", "language_model"]

HFLM = Any
"""lm-eval's model around a module of transformers."""


def language_model(engine: Model, batch_size: BatchSize) -> HFLM:
    """Build lm-eval's `HFLM` of the engine's module and tokenizer.

    Args:
        engine: What answers.
        batch_size: How many questions are asked at a time; `auto` halves them where memory runs out.

    Raises:
        EvaluatorError: it has none, or a token's likelihood would depend on what comes after it.
    """
    module, tokenizer = getattr(engine, "module", None), getattr(engine, "tokenizer", None)
    if module is None or tokenizer is None:
        raise EvaluatorError(
            f"lm_eval: needs {option_name('model')} auto, or a model with the attributes module and tokenizer; found "
            f"{type(engine).__name__}."
        )
    _refuse_looking_ahead(module, tokenizer)
    with _without_tying(module):
        return _halving_class()(
            pretrained=module,
            tokenizer=copy.deepcopy(tokenizer),  # lm-eval sets its padding
            batch_size=LARGEST_BATCH if batch_size == "auto" else batch_size,
            halve=batch_size == "auto",
        )


@cache
def _halving_class() -> Any:
    base: Any = importlib.import_module("lm_eval.models.huggingface").HFLM

    class Halving(base):  # type: ignore[misc]  # lm-eval is Any to mypy
        """Goes on with half a batch where memory does not suffice for a whole one, and stays with that."""

        def __init__(self, *, halve: bool, **options: Any) -> None:
            super().__init__(**options)
            self._halve, self._fitting_size = halve, self.batch_size_per_gpu

        def _model_call(self, inps: Tensor, *others: Any, **named: Any) -> Tensor:
            call = super()._model_call
            if others or named:  # an encoder-decoder's
                return call(inps, *others, **named)  # type: ignore[no-any-return]  # as its class
            return _join_padded(self._parts(lambda part: call(inps[part]), len(inps)), 0)

        def _model_generate(self, context: Tensor, max_length: int, stop: list[str], **named: Any) -> Tensor:
            generate, mask = super()._model_generate, named.pop("attention_mask", None)

            def generate_part(part: slice) -> Tensor:
                masked = {} if mask is None else {"attention_mask": mask[part]}
                return generate(context[part], max_length, stop, **masked, **named)  # type: ignore[no-any-return]  # as its class

            return _join_padded(self._parts(generate_part, len(context)), self.tokenizer.pad_token_id)

        def _parts(self, work: Callable[[slice], Tensor], count: int) -> list[Tensor]:
            """Return the work's results over slices of so many rows, as large as memory allows."""
            done: list[Tensor] = []
            start = 0
            while start < count:
                stop = min(count, start + self._fitting_size)
                try:
                    done.append(work(slice(start, stop)))
                except Exception as error:
                    if not self._halve or stop - start == 1 or not is_out_of_memory(error):
                        raise
                else:
                    start = stop
                    continue
                release_memory()  # out here the exception, which holds the attempt's tensors, is gone
                self._fitting_size = (stop - start) // 2
            return done

    return Halving


def _join_padded(parts: list[Tensor], padding: int) -> Tensor:
    """Join tensors [batch, length, ...] whose lengths may differ, padded on the right to the longest."""
    import torch

    if len(parts) == 1:
        return parts[0]
    length = max(part.shape[1] for part in parts)
    padded = [
        torch.nn.functional.pad(part, (0, 0) * (part.dim() - 2) + (0, length - part.shape[1]), value=padding)
        for part in parts
    ]
    return torch.cat(padded)


def _refuse_looking_ahead(module: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a model that reads a prompt both ways, as PaliGemma does: it knows a continuation before it is asked."""
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
def _without_tying(module: PreTrainedModel) -> Iterator[None]:
    """Keep HFLM from tying weights by the configuration: where the files say otherwise that would be another model."""
    module.tie_weights = _do_nothing
    try:
        yield
    finally:
        del module.tie_weights


def _do_nothing(*_: object, **__: object) -> None:
    """Do nothing."""


BARS = ("lm_eval.api.task", "lm_eval.api.model", "lm_eval.models.huggingface")
FACTS = ("get_git_commit_hash", "add_env_info", "add_tokenizer_info")


@contextmanager
def isolated() -> Iterator[None]:
    """Keep lm-eval from the rest of the process: it seeds random numbers, draws bars, and lists what pip installed.

    None of what is kept from it changes a score; its list of packages takes a second, every time.
    """
    import numpy as np
    import torch

    def hidden_bar(*arguments: Any, **named: Any) -> Any:
        return importlib.import_module("tqdm").tqdm(*arguments, **{**named, "disable": True})

    logger = logging.getLogger("lm_eval")
    with ExitStack() as after:
        after.callback(random.setstate, random.getstate())
        after.callback(np.random.set_state, np.random.get_state())
        after.callback(torch.set_rng_state, torch.get_rng_state())
        after.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.ERROR)
        for name in BARS:
            after.enter_context(_replaced(importlib.import_module(name), "tqdm", hidden_bar))
        for name in FACTS:
            after.enter_context(_replaced(importlib.import_module("lm_eval.evaluator"), name, _do_nothing))
        yield


@contextmanager
def _replaced(module: ModuleType, name: str, value: object) -> Iterator[None]:
    """Replace a name of a module for a while; nothing where it has no such name, as another version of lm-eval may."""
    before = getattr(module, name, None)
    if before is None:
        yield
        return
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)
