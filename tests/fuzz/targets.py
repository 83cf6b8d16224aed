"""What is fuzzed: for each kind of file or text that soup reads, a function that hands it to soup's own readers.

A target returns, or raises a `SoupError`: that is bad input, told. Whatever else comes out is a fault of soup's. Each
gets the bytes and a folder of its own, which it fills at the first call and writes the bytes into at every one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

from PIL import Image

from evaluators.answering.endpoint import ChatEndpoint, _RefusalError
from evaluators.answering.response_cache import ResponseCache
from evaluators.arena.record import Arena
from evaluators.arena.report import arena_document
from evaluators.command import _score
from evaluators.vlmeval.reading_answers import AnswerRemarks, final_answer
from finetune.config import DataSet, TrainSettings
from finetune.data.check import check_data
from finetune.jobs import STAMP, Job, read_plan
from finetune.launching.digests import Digests
from finetune.launching.executors.liveness import is_alive
from finetune.launching.executors.processes import LAUNCHER, read_launcher
from finetune.launching.executors.protocol import PLACEMENT
from finetune.launching.job_plans import plan_launch
from finetune.launching.outcomes import rows_left_out
from finetune.launching.start_check import faults_of_settings, faults_of_start
from finetune.launching.status import cells, job_row, status_json
from finetune.media.images import frame_count, frames_of, open_picture, size_of
from finetune.points.named_tilings import named_tiling
from finetune.study.config import read_study
from soup.checkpoints.config_differences import config_differences
from soup.checkpoints.digest import DigestCache, _key, _stamps
from soup.checkpoints.header import read_header
from soup.checkpoints.origin import different_starts
from soup.checkpoints.reader import Checkpoint
from soup.checkpoints.side_files import lent_kinds, side_differences
from soup.checkpoints.tokenizer_differences import tokenizer_differences
from soup.checkpoints.weight_files import INDEX, WEIGHTS
from soup.checkpoints.written_config import config_for
from soup.errors import SoupError
from soup.evaluation.benchmark_names import parse_benchmarks
from soup.evaluation.journal import Journal
from soup.evaluation.objective import Objective
from soup.merging.model_card import model_card
from soup.merging.recipe import Recipe, describe_objective
from soup.report.checkpoint_report import _report
from soup.report.tables import run_table
from soup.support.text import without_secrets
from soup.testing.tiny_checkpoints import tiny_checkpoint

__all__ = ["TARGETS", "run"]

Target = Callable[[bytes, Path], object]
TARGETS: dict[str, Target] = {}

MAX_PIXELS = 250_000  # of a picture here, so that a large one takes no second


def _target(function: Target) -> Target:
    TARGETS[function.__name__] = function
    return function


def run(name: str, data: bytes, folder: Path) -> bool:
    """Hand bytes to a target; returns whether they were taken, and not refused.

    Raises:
        Exception: Anything but a `SoupError`: a fault of soup's.
    """
    try:
        TARGETS[name](data, folder)
    except SoupError as error:
        str(error)
        return False
    return True


@_target
def header(data: bytes, folder: Path) -> None:
    """A safetensors file, whole."""
    path = _written(folder / WEIGHTS, data)
    read_header(path)


@_target
def index(data: bytes, folder: Path) -> None:
    """The index of a checkpoint of two shards."""
    _written(_checkpoint(folder, shards=2) / INDEX, data)
    Checkpoint(folder / "model").close()


@_target
def config(data: bytes, folder: Path) -> None:
    """A `config.json`: as the config of a model, beside another, of a start, and as what says where it came from."""
    path, other = _checkpoint(folder), _opened(folder / "plain")
    _written(path / "config.json", data)
    list(faults_of_start(path)), faults_of_settings(path, _SETTINGS)
    with Checkpoint(path) as checkpoint:
        different_starts({"a": checkpoint, "b": other})
        config_for(data, list(checkpoint.tensors.values()))
        config_differences(checkpoint.config, other.config)
        json.dumps(_report(checkpoint, None).as_json())


@_target
def origin(data: bytes, folder: Path) -> None:
    """What training leaves beside the weights of where they came from: JSON of soup, PEFT and ms-swift; a card."""
    path, other = _opened(folder / "model").path, _opened(folder / "plain")
    _written(other.path / "finetune.json", b'{"start": "a/b"}')
    for name in ("finetune.json", "adapter_config.json", "args.json", "README.md"):
        _written(path / name, data)
        different_starts({"a": _opened(path), "b": other})
        (path / name).unlink()


@_target
def tokenizer(data: bytes, folder: Path) -> None:
    """Every file of a tokenizer, all with these bytes, held against a plain one's."""
    names = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")
    if not (folder / "plain").exists():
        for path in (_checkpoint(folder), _checkpoint(folder, "plain")):
            for name in names[1:]:
                _written(path / name, b'{"a": 0, "chat_template": "{{ messages }}"}')
    checkpoint, other = _opened(folder / "model"), _opened(folder / "plain")
    for name in names:
        _written(checkpoint.path / name, data)
    for pair in ((checkpoint, other), (other, checkpoint)):
        lent_kinds(*pair, tokenizer=None)
        side_differences(*pair)
        _refused_or(tokenizer_differences, *pair)


@_target
def recipe(data: bytes, folder: Path) -> None:
    """A recipe, which comes back from its own text as it was."""
    made = Recipe.read(_written(folder / "recipe.yaml", data))
    _refused_or(made.refuse_untrusted_code, trusted=False)
    assert isinstance(describe_objective(made.objective), str)
    sealed = made.sealed(["xxh3:0"] * (len(made.ingredients) + (made.base is not None)), "sha256:0")
    assert sealed.digest
    model_card(sealed, {"toy": {"all": 1.0}}, {})
    again = Recipe.read(_written(folder / "again.yaml", made.text(folder).encode()))
    assert repr(again) == repr(made), f"{made!r} came back as {again!r}"


@_target
def journal(data: bytes, folder: Path) -> None:
    """A journal, replayed, summed up in a table, and written on."""
    path = _written(folder / "journal.jsonl", data)
    with Journal(path, write=False) as scores:
        keys = [entry.key for entry in scores]
    run_table(folder)
    with Journal(path) as scores:
        assert all(scores.find(key) for key in keys)


@_target
def arena(data: bytes, folder: Path) -> None:
    """An arena's questions, a candidate's answers, or votes: each is read, and told what it comes to."""
    question = json.dumps({"schema": 1, "seed": "s", "questions": [{"index": "q", "parts": [["text", "What?"]]}]})
    answers = {"schema": 1, "recipe": "r", "answering": {}, "answers": {"q": "yes"}}
    (folder / "candidates").mkdir(exist_ok=True)
    _written(folder / "candidates" / "001-a.json", json.dumps(answers | {"name": "a"}).encode())
    taken = False
    for name in ("votes.jsonl", "candidates/002-b.json", "arena.json"):
        _written(folder / "arena.json", question.encode())
        path = _written(folder / name, data)
        try:
            arena_document(Arena(folder), draws=3)
            taken = True
        except SoupError as error:
            refused = error
        finally:
            path.unlink()
    if not taken:
        raise refused


@_target
def result(data: bytes, folder: Path) -> None:
    """What a strategy came to, beside a journal."""
    _written(folder / "journal.jsonl", _JOURNAL_LINE)
    (folder / "soups").mkdir(exist_ok=True)
    _written(folder / "soups" / "greedy.json", data)
    run_table(folder)


@_target
def digests(data: bytes, folder: Path) -> None:
    """A cache of digests; `@KEY` and `@STAMPS` in it become those of the checkpoint, so that an entry can hold."""
    checkpoint = _opened(folder / "model")
    data = data.replace(b"@KEY", _key(checkpoint).encode())
    data = data.replace(b'"@STAMPS"', json.dumps(_stamps(checkpoint)).encode())
    cache = DigestCache(_written(folder / "digests.json", data))
    if cache.knows(checkpoint):
        digest = cache.get(checkpoint)
        assert set(digest.tensors) == set(checkpoint.tensors)
        assert all(isinstance(text, str) for text in (digest.content, *digest.tensors.values()))


@_target
def finetune(data: bytes, folder: Path) -> None:
    """A pool's file, with all jobs that it plans."""
    path = _written(folder / "pool.yaml", data)
    _, _, jobs = read_plan(path)
    for job in jobs:
        json.dumps(job.as_json("sha256:0"))


@_target
def study(data: bytes, folder: Path) -> None:
    """A study's file; `pool.yaml` beside it is a pool's."""
    if not (folder / "pool.yaml").exists():
        _written(folder / "pool.yaml", b"{start: tiny, data: a, added: {b: c}, lr: 1, steps: 1}")
    read_study(_written(folder / "study.yaml", data))


@_target
def job(data: bytes, folder: Path) -> None:
    """Each file in which a job and its launcher say how things stand; `@HOST` in it becomes this machine."""
    data = data.replace(b"@HOST", os.uname().nodename.encode())
    pool, work = folder / "pool.yaml", folder / "ckpts.finetune"
    if not pool.exists():
        _written(pool, b"{start: tiny, data: rows.json, added: {n: rows.json}, lr: 1, steps: 9}")
        _written(folder / "rows.json", b"[]")
        for path in (work / "n", folder / "ckpts" / "n"):
            path.mkdir(parents=True)
    for path in (work / LAUNCHER, work / "n" / PLACEMENT, folder / "ckpts" / "n" / STAMP):
        _written(path, data)
    for name in ("job.json", "state.json"):
        _written(work / "n" / name, data)
    _refused_or(plan_launch, pool, writing=False)
    read_launcher(work)
    jobs = _jobs(pool)
    rows = [job_row(job, lambda folder: is_alive(folder, {})) for job in jobs]
    [cells(row) for row in rows], rows_left_out(jobs), json.dumps(status_json(rows))
    Job.read(work / "n")


@_target
def rows(data: bytes, folder: Path) -> None:
    """A file of rows and all of their pictures: a list, or one row a line."""
    if not (folder / "clip").exists():
        (folder / "clip").mkdir()
        Image.new("RGB", (4, 3)).save(folder / "7.png")
        Image.new("RGB", (4, 3)).save(folder / "clip" / "1.png")
    data_set = DataSet(path=str(_written(folder / "rows.json", data)), images=str(folder))
    report = check_data([data_set], {}, TrainSettings(lr=1.0, steps=1), decode=True)
    json.dumps(report.as_json())
    Digests().content(data_set)


@_target
def picture(data: bytes, folder: Path) -> None:
    """A picture or a video: its size, its pixels, its frames."""
    path = _written(folder / "picture", data)
    for read in (size_of, open_picture):
        for source in (path, {"bytes": data, "path": "a.png"}):
            _refused_or(read, source, max_pixels=MAX_PIXELS)
    _refused_or(frame_count, path, 3, max_pixels=MAX_PIXELS)
    _refused_or(frames_of, path, 3, max_pixels=MAX_PIXELS)


@_target
def picture_text(data: bytes, folder: Path) -> None:
    """A text that stands for a picture: a path, base64, a data URI, bytes as Python prints them."""
    size_of(_text(data), max_pixels=MAX_PIXELS)


@_target
def answers(data: bytes, folder: Path) -> None:
    """A model's answers, and the file that keeps them."""
    texts = _text(data).split("\n")
    AnswerRemarks("toy", len(texts)).hear(texts)
    assert all(isinstance(final_answer(text), str) for text in texts)
    cache = ResponseCache(_written(folder / "answers.jsonl", data))
    cache.add({"key": "text"})
    assert len(ResponseCache(cache.path)) == len(cache)


@_target
def score(data: bytes, folder: Path) -> None:
    """What a user's command writes: the last line is a score."""
    log = folder / "command.log"
    if not log.exists():
        _written(log, b"")
    result = _score(data, log, "toy")
    assert 0 <= result.value <= 100
    json.dumps([result.value, dict(result.parts), result.questions])


ENDPOINT = ChatEndpoint("http://127.0.0.1", "NO_KEY", "--judge-url")


@_target
def reply(data: bytes, folder: Path) -> None:
    """What an LLM judge's endpoint sends."""
    try:
        assert isinstance(ENDPOINT._reply(data), str)
    except _RefusalError:
        return


@_target
def words(data: bytes, folder: Path) -> None:
    """What stands on a command line: benchmarks, weights and guards, a tiling."""
    text = _text(data)
    without_secrets(text)
    for read in (parse_benchmarks, lambda texts: Objective.parse(texts, ()), lambda texts: Objective.parse((), texts)):
        _refused_or(read, [text])
    _refused_or(named_tiling, text)


_SHAPES = {"lm.proj.weight": (2, 2), "lm.norm": (3,)}
_SETTINGS = TrainSettings(lr=1.0, steps=1, freeze=["vision_tower"], lora={"target": ".*proj"})
_JOURNAL_LINE = b"""{"schema": 1, "key": "k", "recipe": "sha256:0", "ingredients": ["a"], "weights": [1.0], \
"benchmark": "toy", "harness": "python", "identity": {}, "split": "all", "fraction": 1.0, "value": 61.8, "n": null, \
"parts": {}, "questions": null, "seconds": 0.1, "time": "2025-01-01T00:00:00+00:00"}\n"""


def _checkpoint(folder: Path, name: str = "model", shards: int = 1) -> Path:
    path = folder / name
    return path if path.exists() else tiny_checkpoint(path, shards=shards, tensors=_SHAPES)


_jobs = cache(lambda pool: read_plan(pool)[2])


@cache
def _opened(path: Path) -> Checkpoint:
    """Open a checkpoint once: of its files beside the weights the content changes, and not which there are."""
    checkpoint = Checkpoint(_checkpoint(path.parent, path.name))
    assert checkpoint.side_files
    return checkpoint


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _refused_or(read: Callable[..., object], *arguments: object, **settings: object) -> None:
    """Call one of several readers: each may refuse by itself."""
    try:
        read(*arguments, **settings)
    except SoupError as error:
        str(error)
