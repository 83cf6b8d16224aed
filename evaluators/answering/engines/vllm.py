"""`--engine vllm`: vLLM in a process of its own; candidates are blended into the running model by its workers.

The first swap of a run is not believed: its log probabilities are compared with those of an engine that was opened on
the written candidate.
"""

from __future__ import annotations

import atexit
import importlib.metadata
import importlib.util
import logging
import math
import os
import pickle
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from pydantic import PositiveInt

from evaluators.answering.engines.vllm_layout import main_dtype, refuse_incomplete, refuse_other_layout
from soup.checkpoints.reader import Checkpoint
from soup.errors import EvaluatorError
from soup.evaluation.answer_loss import AnswerLoss, AnswerTask
from soup.evaluation.api import Candidate, OnBatch, Prompt
from soup.evaluation.settings import EvalSettings
from soup.support.child_process import ChildProcess
from soup.support.devices import torch_device
from soup.support.extras import install_line
from soup.support.log_ends import log_tail
from soup.support.options import option_name

__all__ = ["VLLM"]

START = (
    "import sys; sys.path[:] = sys.argv[2:]; from evaluators.answering.engines.vllm_process import main; "
    "main() if __name__ == '__main__' else None"
)
CHECKS = ("first", "always", "never")
PROBES = 8
PROBE_TOKENS = 16
MAX_DIFFERENCE = 0.1
"""Of a probe's log probability: seen are 0.0001 after a swap that is right, 28 after one that is not."""

NEUTRAL = ("gpu_memory_utilization", "kv_cache_memory_bytes")
"""Options of vLLM that say where it runs, and change no answer."""

logger = logging.getLogger(__name__)


class Directory(Protocol):
    """A checkpoint that no search made."""

    @property
    def logs(self) -> Path:
        """Where the engine's log goes."""

    def directory(self) -> Path:
        """Give its directory."""


class VLLM:
    """vLLM, with candidates blended into its running model; a process of its own for each GPU or group of GPUs.

    Args:
        settings: The settings.
        tensor_parallel_size: Over how many GPUs the model is spread.
        check_swap: Whether swaps are held against an engine that is opened on the same candidate: `first` of a run,
            `always`, `never`.
        max_new_tokens: How long an answer may become.
        options: Further arguments of `vllm.LLM`, such as max_model_len and gpu_memory_utilization.

    Raises:
        EvaluatorError: an argument is wrong.
    """

    def __init__(
        self,
        settings: EvalSettings,
        *,
        tensor_parallel_size: PositiveInt = 1,
        check_swap: str = "first",
        max_new_tokens: PositiveInt = 2048,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        flag = option_name("engine_args", "engine-arg")
        if check_swap not in CHECKS:
            raise EvaluatorError(f"{flag} check_swap: expected {', '.join(CHECKS)}; found {check_swap!r}.")
        if not isinstance(options or {}, Mapping):
            raise EvaluatorError(f"{flag} options: expected names and values, as {{max_model_len: 4096}}.")
        self._options = {
            "tensor_parallel_size": tensor_parallel_size,
            "trust_remote_code": settings.trust_remote_code,
            **(options or {}),
        }
        self._check_swap, self.max_new_tokens, self._device = check_swap, max_new_tokens, settings.device
        self._process: ChildProcess | None = None
        self._connection: Connection | None = None
        self._layout: Mapping[str, object] = {}  # of the checkpoint that it was opened on
        self._unchecked: Candidate | None = None  # swapped in, and not held against anything yet
        self._is_trusted = check_swap == "never"
        self._is_distrusted = False

    def identity(self) -> Mapping[str, object]:
        """Return vLLM's version, its options and the decoding; a GPU's sums depend on what it is asked at once."""
        return {
            "engine": "vllm",
            "vllm": _version(),
            "decoding": "greedy",
            "dtype": "the checkpoint's",
            "max_new_tokens": self.max_new_tokens,
            "device": self._device or torch_device(),
            "batch_invariant": os.environ.get("VLLM_BATCH_INVARIANT") == "1",
            "options": {name: value for name, value in sorted(self._options.items()) if name not in NEUTRAL},
        }

    def check(self, checkpoint: Path) -> None:
        """Make a prompt with the checkpoint's processor and chat template, which vLLM uses too."""
        from evaluators.answering.engines.transformers import check_prompts

        check_prompts(checkpoint, bool(self._options["trust_remote_code"]))

    def open(self, candidate: Candidate | Directory) -> None:
        """Start vLLM on the candidate's directory."""
        directory = candidate.directory()
        with Checkpoint(directory) as checkpoint:
            layout = {name: (spec.dtype.name, spec.shape) for name, spec in checkpoint.tensors.items()}
            dtype = main_dtype(checkpoint)
            refuse_incomplete(checkpoint)
        try:
            self._start(candidate.logs / f"vllm-{os.getpid()}.log")
            self._call("open", str(directory), {"dtype": dtype, **self._options})
        except BaseException:
            self.close()
            raise
        self._layout = layout

    def swap(self, candidate: Candidate) -> None:
        """Have vLLM's workers blend the candidate into the model, and forget what they computed before."""
        self._unchecked = None
        if self._is_distrusted:
            raise EvaluatorError("An earlier swap gave other log probabilities than a fresh engine.")
        portable = getattr(candidate, "portable", None)
        if portable is None:
            raise EvaluatorError("The candidate can't be blended by another process.")
        soup = portable()
        refuse_other_layout(self._layout, soup.layout)
        self._call("swap", pickle.dumps(soup), len(soup.layout))
        if not self._is_trusted:
            self._unchecked = candidate

    def answer(self, prompts: list[Prompt], on_batch: OnBatch) -> list[str]:
        """Hand all prompts over at once; answers come back as they are done."""
        if self._unchecked is not None and prompts:
            self._compare_with_fresh(self._unchecked, prompts[:PROBES])
        answers = [""] * len(prompts)

        def keep(replies: list[tuple[int, str, float | None]]) -> None:
            for index, text, _ in replies:
                answers[index] = text
            on_batch([prompts[index] for index, _, _ in replies], [text for _, text, _ in replies])

        self._call("answer", prompts, self.max_new_tokens, False, on_answers=keep)
        return answers

    def losses(self, tasks: Sequence[AnswerTask]) -> list[AnswerLoss]:
        """Return how likely the model that it is opened on finds answers, or why it can't tell."""
        outcomes: list[AnswerLoss] = []

        def keep(replies: list[tuple[int, str, float | None]]) -> None:
            for number, text, loss in replies:
                index = tasks[number].index
                failed = loss is None or not math.isfinite(loss)
                why = text if loss is None else f"the loss is {loss}"
                outcomes.append(AnswerLoss(index, failure=why) if failed else AnswerLoss(index, loss or 0.0, int(text)))

        self._call("losses", [(task.prompt, task.answer) for task in tasks], on_answers=keep)
        return outcomes

    def close(self) -> None:
        """End the process, and all that it started."""
        if self._process is not None:
            self._process.stop()
            atexit.unregister(self.close)
        if self._connection is not None:
            self._connection.close()
        self._process = self._connection = self._unchecked = None

    def _compare_with_fresh(self, candidate: Candidate, probes: list[Prompt]) -> None:
        """Hold the swapped engine against a fresh one on the same candidate, which stays."""
        swapped = self._probe(probes)
        self.close()
        self.open(candidate)
        fresh = self._probe(probes)
        difference = max(abs(left - right) for left, right in zip(swapped, fresh, strict=True))
        if difference <= MAX_DIFFERENCE:
            self._is_trusted = self._check_swap == "first"
            return
        self._is_distrusted = True
        logger.warning(
            "Weights that are swapped into vLLM give other log probabilities (by up to %.3g) than a fresh engine: each "
            "candidate is written, and vLLM opened on it.",
            difference,
        )

    def _probe(self, prompts: list[Prompt]) -> list[float]:
        """Return the log probability of the beginning of each answer."""
        values = [math.nan] * len(prompts)

        def keep(replies: list[tuple[int, str, float | None]]) -> None:
            for index, _, value in replies:
                values[index] = math.nan if value is None else value

        self._call("answer", prompts, PROBE_TOKENS, True, on_answers=keep)
        return [math.inf if math.isnan(value) else value for value in values]

    def _start(self, log: Path) -> None:
        _version()
        ours, theirs = Pipe()
        words = [sys.executable, "-P", "-c", START, str(theirs.fileno()), *map(os.path.abspath, sys.path)]
        self._connection = ours
        self._process = ChildProcess(words, log, pass_fds=[theirs.fileno()])
        theirs.close()
        atexit.register(self.close)

    def _call(self, word: str, *arguments: object, on_answers: Any = None) -> None:
        """Send a message, and wait until it is done.

        Raises:
            EvaluatorError: it failed, or the process ended; with the end of its log.
        """
        if self._process is None or self._connection is None:
            raise EvaluatorError("vLLM is not open.")
        log = self._process.log
        try:
            self._connection.send((word, arguments))
            while True:
                kind, value = self._connection.recv()
                if kind != "answers":
                    break
                on_answers(value)
        except (EOFError, OSError):
            raise EvaluatorError(f"vLLM's process ended while it was to {word}.{log_tail(log)}") from None
        if kind == "failed":
            raise EvaluatorError(f"vLLM failed to {word}: {value}{log_tail(log)}")


def _version() -> str:
    """Return vLLM's version, whichever distribution brings it.

    Raises:
        EvaluatorError: it is not installed.
    """
    if importlib.util.find_spec("vllm") is None:
        line = f"{install_line('vllm')}, in an environment of its own"
        raise EvaluatorError(f"{option_name('engine')} vllm needs vLLM, not importable here: {line}.")
    for distribution in importlib.metadata.packages_distributions().get("vllm", ["vllm"]):
        return importlib.metadata.version(distribution)
    raise AssertionError("the list is not empty")
