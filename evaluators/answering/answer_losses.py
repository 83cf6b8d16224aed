"""Losses of many answers by one checkpoint, over processes: the same numbers, however many there are.

One answer at a time is computed, on the CPU by one thread: in a batch, padded or not, and on several threads, matrix
products are added up in another order, which changes last bits, and so which of two rows is the likelier one. Several
processes make up for it: one a GPU, or one a core.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from evaluators.answering.engines.answer_loss import LooksAheadError
from evaluators.answering.engines.transformers import TransformersModel
from soup.errors import EvaluatorError
from soup.evaluation.answer_loss import AnswerLoss, AnswerTask

__all__ = ["answer_losses"]

WAITING = 4
"""Tasks of each process that wait, so that none is idle and few pictures lie about."""


def answer_losses(
    tasks: Iterable[AnswerTask], directory: Path, *, workers: int = 0, trust_remote_code: bool = False
) -> Iterator[AnswerLoss]:
    """Give the loss of each answer as soon as it is there; of one that can't be computed, why.

    Args:
        tasks: Taken as they are needed.
        directory: The checkpoint.
        workers: So many processes, one GPU each in turn; 0: this process.
        trust_remote_code: Whether code that comes with the checkpoint may run.

    Raises:
        EvaluatorError: the checkpoint can't be loaded, reads answers before it is asked for them, or a process died.
    """
    if not workers:
        model = _load(directory, trust_remote_code, None)
        for task in tasks:
            yield _loss(model, task)
        return
    context = multiprocessing.get_context("spawn")
    numbers = context.Queue()
    for number in range(workers):
        numbers.put(number)
    pool = ProcessPoolExecutor(workers, context, _start, (directory, trust_remote_code, numbers))
    try:
        yield from _over_processes(pool, tasks, workers)
    except BrokenProcessPool as cause:
        raise EvaluatorError(
            "A process that computed losses died; was memory short? Type the command again."
        ) from cause
    finally:
        pool.shutdown(cancel_futures=True)


def _over_processes(pool: ProcessPoolExecutor, tasks: Iterable[AnswerTask], workers: int) -> Iterator[AnswerLoss]:
    running: set[Future[AnswerLoss]] = set()
    for task in tasks:
        running.add(pool.submit(_work, task))
        if len(running) >= WAITING * workers:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    while running:
        done, running = wait(running, return_when=FIRST_COMPLETED)
        yield from (future.result() for future in done)


_model: TransformersModel | EvaluatorError


def _start(directory: Path, trust_remote_code: bool, numbers: multiprocessing.Queue[int]) -> None:
    """Load the model in a process of its own; an error is told with the first task."""
    import torch

    global _model
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent ends us in order
    number = numbers.get()
    device = f"cuda:{number % torch.cuda.device_count()}" if torch.cuda.is_available() else None
    try:
        _model = _load(directory, trust_remote_code, device)
    except EvaluatorError as error:
        _model = error


def _work(task: AnswerTask) -> AnswerLoss:
    if isinstance(_model, EvaluatorError):
        raise _model
    return _loss(_model, task)


def _load(directory: Path, trust_remote_code: bool, device: str | None) -> TransformersModel:
    try:
        return TransformersModel(directory, trust_remote_code=trust_remote_code, device=device)
    except EvaluatorError:
        raise
    except Exception as cause:  # transformers' errors have no common base
        raise EvaluatorError(f"{directory}: can't be loaded as a model: {type(cause).__name__}: {cause}") from cause


def _loss(model: TransformersModel, task: AnswerTask) -> AnswerLoss:
    import torch

    threads = torch.get_num_threads()
    if model.module.device.type == "cpu":
        torch.set_num_threads(1)
    try:
        loss, tokens = model.loss_and_tokens(task.prompt, task.answer)
    except LooksAheadError:
        raise
    except Exception as error:  # of this row: a picture, a length, memory
        return AnswerLoss(task.index, failure=f"{type(error).__name__}: {error}".removeprefix("EvaluatorError: "))
    finally:
        torch.set_num_threads(threads)
    if loss != loss or loss in (float("inf"), float("-inf")):
        return AnswerLoss(task.index, failure=f"the loss is {loss}")
    return AnswerLoss(task.index, loss, tokens)
