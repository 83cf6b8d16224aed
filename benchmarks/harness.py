"""What the harness adds around generation, on a test set of MMBench's shape, with a model that answers at once.

1,164 questions in 4,365 rows (each rotation of a question's options is one), images of a photograph's size. The same
rows, answers and machine for both: our path from the file to the score, and VLMEvalKit's own (its prompts, which write
every image anew as PNG, and its `evaluate`). VLMEvalKit's prompts are timed on `--rows` of them and scaled to all.

Images lie in this folder, too: where very many files were deleted in the last minutes, as by tests in /tmp, ext4 takes
twenty times as long for a new one.

Then the calls that circular evaluation makes when it stops at a question's first wrong rotation.

    python benchmarks/harness.py                  a minute
    python benchmarks/harness.py --rows 4365      nothing scaled
"""

from __future__ import annotations

import base64
import contextlib
import io
import os
import random
import shutil
import statistics
import string
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import click

WORK = Path(__file__).parent / "work" / "harness"
DATA = "LMUData"
CIRCLE = 1_000_000
QUESTIONS = {4: 873, 3: 291}  # by number of options: 1,164 questions in 4,365 rows

MODEL = """
import json, time
from pathlib import Path

SPENT = {"seconds": 0.0, "calls": 0}
ANSWERS = {}

class Instant:
    def __init__(self, directory):
        pass

    def answer(self, prompts):
        began = time.perf_counter()
        answers = [ANSWERS[prompt[-1]["value"].partition("<")[2].partition(">")[0]] for prompt in prompts]
        SPENT["calls"] += len(prompts)
        SPENT["seconds"] += time.perf_counter() - began
        return answers
"""


@click.command()
@click.option("--rows", default=200, show_default=True, help="Rows on which VLMEvalKit's prompts are timed.")
@click.option("--repeats", default=3, show_default=True, help="Rounds of ours; the median counts.")
def main(rows: int, repeats: int) -> None:
    """Make the test set, time both, print a table."""
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    try:
        table = test_set()
        write(table, WORK / "MMBench_DEV_EN.tsv")
        os.environ[DATA] = tempfile.tempdir = str(WORK)
        click.echo(report(table, rows, repeats))
    finally:
        shutil.rmtree(WORK)


def report(table: list[dict[str, Any]], rows: int, repeats: int) -> str:
    """Both tables as Markdown. Seconds of the clock, and of the processor (others' work on it does not count)."""
    right = {str(row["index"]): row["answer"] for row in table}
    imported, opened, rounds, harness = ours(right, repeats)
    first, again, scoring, score = theirs(right, rows)
    assert {value for _, _, value in rounds} == {score} == {100.0}, "the two paths disagree"
    scale, added = len(table) / rows, [seconds for seconds, _, _ in rounds]
    middle = Seconds(*(statistics.median(seconds) for seconds in zip(*added[1:] or added, strict=True)))
    note = f", from {rows} rows" if rows < len(table) else ""
    lines = [
        f"{len(table):,} rows, {sum(QUESTIONS.values()):,} questions, {os.cpu_count()} cores, every answer right",
        "",
        f"| seconds besides generation: wall (CPU) | soup | VLMEvalKit{note} |",
        "| --- | --: | --: |",
        f"| once a run: import; read, digest and check the file | {imported + opened} | |",
        f"| first candidate: prompts, images, matching, score | {added[0]} | {first * scale + scoring} |",
        f"| each further candidate | {middle} | {again * scale + scoring} |",
        f"| first candidate, all of it | {imported + opened + added[0]} | {first * scale + scoring} |",
        "",
        "| right answers | score | calls made | calls in full | saved |",
        "| --- | --: | --: | --: | --: |",
    ]
    return "\n".join([*lines, *(savings(harness, table, share, kind) for share in (0.4, 0.6, 0.8) for kind in KINDS)])


class Seconds(NamedTuple):
    """Of the clock, and of the processor."""

    wall: float
    cpu: float

    @staticmethod
    def now() -> Seconds:
        """Since some moment in the past."""
        return Seconds(time.perf_counter(), time.process_time())

    def __sub__(self, other: Seconds) -> Seconds:
        return Seconds(self.wall - other.wall, self.cpu - other.cpu)

    def __add__(self, other: Seconds) -> Seconds:  # type: ignore[override]
        return Seconds(self.wall + other.wall, self.cpu + other.cpu)

    def __mul__(self, factor: float) -> Seconds:  # type: ignore[override]
        return Seconds(self.wall * factor, self.cpu * factor)

    def __str__(self) -> str:
        return f"{self.wall:.2f} ({self.cpu:.2f})"


def ours(answers: dict[str, str], repeats: int) -> tuple[Seconds, Seconds, list[tuple[Seconds, int, float]], Any]:
    """Seconds of import and opening; of each round seconds besides answering, calls and score; the harness."""
    began = Seconds.now()
    from evaluators.vlmeval.light_import import vlmeval_module

    vlmeval_module("dataset.image_mcq")
    imported = Seconds.now()
    from soup.evaluation.api import Benchmark

    harness = evaluator()
    harness.identity(Benchmark("mmbench", "vlmeval", "mmbench"))
    opened = Seconds.now()
    rounds = [time_candidate(harness, answers, f"round-{number}") for number in range(repeats + 1)]
    return imported - began, opened - imported, rounds, harness


def evaluator() -> Any:
    from evaluators.vlmeval.harness import VLMEval
    from soup.evaluation.settings import EvalSettings

    file = WORK / "instant.py"
    file.write_text(MODEL)
    return VLMEval(EvalSettings(model=f"{file}:Instant", batch_size=64))


def time_candidate(harness: Any, answers: dict[str, str], name: str) -> tuple[Seconds, int, float]:
    """Seconds besides answering, calls, score."""
    from soup.evaluation.api import Benchmark

    candidate = Candidate(WORK / name)
    model = model_of(harness, candidate)
    model.ANSWERS.clear()
    model.ANSWERS.update(answers)
    model.SPENT.update(seconds=0.0, calls=0)
    began = Seconds.now()
    score = harness.evaluate(candidate, Benchmark("mmbench", "vlmeval", "mmbench"))
    answering = Seconds(model.SPENT["seconds"], model.SPENT["seconds"])
    return Seconds.now() - began - answering, model.SPENT["calls"], score.value


def model_of(harness: Any, candidate: Any) -> Any:
    """Return the user's module, as soup loaded it."""
    harness._engine.hold(candidate)
    file = str(WORK / "instant.py")
    return next(module for module in sys.modules.values() if getattr(module, "__file__", None) == file)


class Candidate:
    """A checkpoint without weights: the model needs none."""

    def __init__(self, path: Path) -> None:
        path.mkdir()
        (path / "config.json").write_text("{}")
        self.template, self.digest = path, f"digest-of-{path.name}"
        self.scratch, self.kept = path / "scratch", path / "kept"

    def directory(self) -> Path:
        """Nothing is in it."""
        return self.template

    def answered(self, count: int, of: int) -> None:
        """Nobody waits."""

    def remark(self, text: str) -> None:
        """Nobody listens."""


def theirs(answers: dict[str, str], rows: int) -> tuple[Seconds, Seconds, Seconds, float]:
    """VLMEvalKit's seconds for the prompts of some rows, first and again, for scoring all, and its score."""
    from evaluators.vlmeval.light_import import vlmeval_module

    base = vlmeval_module("dataset.image_mcq").ImageMCQDataset
    os.environ["PRED_FORMAT"] = "tsv"
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore", ResourceWarning)
        known = base.DATASET_MD5.pop("MMBench_DEV_EN")
        data_set = base(dataset="MMBench_DEV_EN")
        base.DATASET_MD5["MMBench_DEV_EN"] = known
        chosen = random.Random(0).sample(range(len(data_set.data)), rows)
        passes = []
        for _ in range(2):
            began = Seconds.now()
            for position in chosen:
                data_set.build_prompt(data_set.data.iloc[position])
            passes.append(Seconds.now() - began)
        data = data_set.data.drop(columns="image")
        data["prediction"] = [answers[str(index)] for index in data["index"]]
        began = Seconds.now()
        vlmeval_module("smp").dump(data, str(WORK / "model_MMBench_DEV_EN.tsv"))
        result = data_set.evaluate(str(WORK / "model_MMBench_DEV_EN.tsv"), model="exact_matching")
        scoring = Seconds.now() - began
    return passes[0], passes[1], scoring, float(result["Overall"][0]) * 100


KINDS = {
    "each rotation by chance": lambda dice, share, questions: lambda question: dice.random() < share,
    "whole questions known or not": lambda dice, share, questions: (
        {question: dice.random() < share for question in questions}.__getitem__
    ),
}


def savings(harness: Any, table: list[dict[str, Any]], share: float, kind: str) -> str:
    """One row of the table of calls."""
    dice = random.Random(share)
    knows = KINDS[kind](dice, share, sorted({row["index"] % CIRCLE for row in table}))
    wrong = {"A": "B", "B": "C", "C": "A", "D": "A"}
    answers = {
        str(row["index"]): row["answer"] if knows(row["index"] % CIRCLE) else wrong[row["answer"]] for row in table
    }
    name = f"share-{share}-{[*KINDS].index(kind)}"
    _, calls, value = time_candidate(harness, answers, name)
    saved = 1 - calls / len(table)
    return f"| {share:.0%}, {kind} | {value:.1f} | {calls:,} | {len(table):,} | {saved:.0%} |"


def test_set() -> list[dict[str, Any]]:
    """Rows of MMBench's schema; only a question's first rotation holds the image."""
    rows = []
    counts = [options for options, count in QUESTIONS.items() for _ in range(count)]
    for question, options in enumerate(counts, start=1):
        words = [f"option {number} of question {question}" for number in range(options)]
        for turn in range(options):
            turned = words[turn:] + words[:turn]
            rows.append(
                {
                    "index": question + turn * CIRCLE,
                    "question": f"<{question + turn * CIRCLE}> Which of these is in the image?",
                    "hint": "The image was taken in the afternoon." if question % 3 == 0 else None,
                    **dict(zip("ABCD", [*turned, None], strict=False)),
                    "answer": string.ascii_uppercase[turned.index(words[0])],
                    "category": ["ocr", "image_emotion"][question % 2],
                    "image": photograph(question) if turn == 0 else str(question),
                    "source": "made up",
                    "l2-category": ["coarse_perception", "logic_reasoning"][question % 2],
                    "comment": None,
                    "split": "dev",
                }
            )
    return sorted(rows, key=lambda row: row["index"])


def photograph(seed: int) -> str:
    """Return a JPEG of 512 x 384 with the detail, and thus the bytes, of a photograph."""
    from PIL import Image

    dice = random.Random(seed)
    coarse = Image.frombytes("RGB", (64, 48), dice.randbytes(64 * 48 * 3))
    file = io.BytesIO()
    coarse.resize((512, 384), Image.Resampling.BICUBIC).save(file, "JPEG", quality=85)
    return base64.b64encode(file.getvalue()).decode()


def write(table: list[dict[str, Any]], path: Path) -> None:
    import pandas as pd

    pd.DataFrame(table).to_csv(path, sep="\t", index=False)


if __name__ == "__main__":
    main()
