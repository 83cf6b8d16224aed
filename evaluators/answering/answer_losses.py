"""Losses of many answers by one checkpoint, over workers: the same numbers, however many there are.

One answer at a time is computed, on the CPU by one thread: in a batch, padded or not, and on several threads, matrix
products are added up in another order, which changes last bits, and so which of two rows is the likelier one. Several
workers make up for it: one a GPU, or one a core. They are those of searches.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from evaluators.answering.engines.answer_loss import LooksAheadError
from evaluators.answering.engines.transformers import TransformersModel
from soup.errors import EvaluatorError, SoupError
from soup.evaluation.answer_loss import AnswerLoss, AnswerTask
from soup.evaluation.api import Prompt
from soup.evaluation.dealing import MissingFilesError, require_files
from soup.search.workers.local import LocalPool
from soup.search.workers.protocol import JobDone
from soup.search.workers.ray import RayPool

__all__ = ["answer_losses"]


def answer_losses(
    tasks: Iterable[AnswerTask],
    directory: Path,
    *,
    workers: int = 0,
    ray: str | None = None,
    trust_remote_code: bool = False,
) -> Iterator[AnswerLoss]:
    """Give the loss of each answer as soon as it is there; of one that can't be computed, why.

    Args:
        tasks: Taken as they are needed.
        directory: The checkpoint.
        workers: So many processes, one GPU each in turn; 0: this process.
        ray: The address of a Ray cluster whose actors compute (so many, or one a GPU), or `local`.
        trust_remote_code: Whether code that comes with the checkpoint may run.

    Raises:
        EvaluatorError: the checkpoint can't be loaded, reads answers before it is asked for them, workers died at an
            answer twice, or there is no cluster.
    """
    if not workers and not ray:
        model = _load(directory, trust_remote_code)
        for task in tasks:
            yield _loss(model, task)
        return
    start = partial(_LossWorker, directory.absolute(), trust_remote_code)
    if ray:
        yield from _over_workers(RayPool(start, workers, ray), tasks)
        return
    logs = Path(tempfile.mkdtemp(prefix="soup-losses-"))
    try:
        pool = LocalPool[_LossDone](workers, logs)
        try:
            pool.open(start)
            yield from _over_workers(pool, tasks)
        finally:
            pool.close()
    finally:
        if not isinstance(sys.exception(), EvaluatorError):  # which may name a log
            shutil.rmtree(logs, ignore_errors=True)


@dataclass(frozen=True)
class _LossJob:
    """A task for a worker; `pictures`: what it did not see, by their paths."""

    number: int
    task: AnswerTask
    pictures: Mapping[str, bytes] | None = None

    @property
    def key(self) -> int:
        """What tells it from all others."""
        return self.number

    @property
    def title(self) -> str:
        """Its name in errors."""
        return self.task.where

    def failed(self, error: SoupError) -> _LossDone:
        """Return the event of its failure."""
        return _LossDone(self.number, error)


@dataclass(frozen=True)
class _LossDone(JobDone):
    """A loss, or the error that stops it all."""

    number: int
    outcome: AnswerLoss | SoupError


def _over_workers(pool: LocalPool[_LossDone] | RayPool[_LossDone], tasks: Iterable[AnswerTask]) -> Iterator[AnswerLoss]:
    """Give each free worker a task; the next one is made while they work."""
    jobs_by_number: dict[int, _LossJob] = {}
    jobs = (_LossJob(number, task) for number, task in enumerate(tasks))
    try:
        upcoming = next(jobs, None)
        while upcoming or jobs_by_number:
            while upcoming and (free := pool.free):
                jobs_by_number[upcoming.number] = upcoming
                pool.give(free[0], upcoming)
                upcoming = next(jobs, None)
            for done in pool.wait():
                job = jobs_by_number.pop(done.number)
                if isinstance(done.outcome, MissingFilesError):
                    jobs_by_number[job.number] = replace(job, pictures=_read_files(done.outcome.paths))
                    pool.give(pool.free[0], jobs_by_number[job.number])
                elif isinstance(done.outcome, SoupError):
                    raise done.outcome
                else:
                    yield done.outcome
    finally:
        pool.close()


def _read_files(paths: Sequence[str]) -> dict[str, bytes]:
    return {path: Path(path).read_bytes() for path in paths if Path(path).is_file()}


class _LossWorker:
    """Computes losses where it works, with a model that is loaded for its first job.

    Args:
        directory: The checkpoint.
        trust_remote_code: Whether code that comes with it may run.
    """

    def __init__(self, directory: Path, trust_remote_code: bool) -> None:
        self._directory, self._trust_remote_code = directory, trust_remote_code
        self._model: TransformersModel | None = None

    def work(self, job: _LossJob, send: Callable[[_LossDone], None]) -> None:
        """Compute a loss. An error that stops it all is told, too."""
        try:
            outcome: AnswerLoss | SoupError = self._compute(job)
        except EvaluatorError as error:
            outcome = error
        send(_LossDone(job.number, outcome))

    def _compute(self, job: _LossJob) -> AnswerLoss:
        if job.pictures is None:
            require_files([part["value"] for part in job.task.prompt if part["type"] == "image"])
        if self._model is None:
            self._model = _load(self._directory, self._trust_remote_code)
        with tempfile.TemporaryDirectory(prefix="soup-pictures-") as folder:
            prompt = _with_pictures(job.task.prompt, job.pictures or {}, Path(folder))
            return _loss(self._model, replace(job.task, prompt=prompt))


def _with_pictures(prompt: Prompt, pictures: Mapping[str, bytes], folder: Path) -> Prompt:
    """Return a prompt whose pictures that were sent are files in a folder."""
    files = {path: folder / str(number) for number, path in enumerate(pictures)}
    for path, file in files.items():
        file.write_bytes(pictures[path])
    return [
        {**part, "value": str(files.get(part["value"], part["value"]))} if part["type"] == "image" else part
        for part in prompt
    ]


def _load(directory: Path, trust_remote_code: bool) -> TransformersModel:
    try:
        return TransformersModel(directory, trust_remote_code=trust_remote_code)
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
