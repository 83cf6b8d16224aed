"""The reference answers of VLMEvalKit's data sets: what a model should have said to each prompt."""

from __future__ import annotations

import ast
from typing import NamedTuple

from evaluators.vlmeval.benchmarks import VLMEvalBenchmark
from evaluators.vlmeval.data_sets import question_ids
from evaluators.vlmeval.library_types import DataSet, Row
from soup.evaluation.api import Prompt

__all__ = ["Reference", "reference_answer", "reference_answers", "why_no_reference"]


class Reference(NamedTuple):
    """A prompt and its reference answer."""

    prompt: Prompt
    answer: str


def why_no_reference(benchmark: VLMEvalBenchmark) -> str | None:
    """Say why a benchmark has no answer that a model should give word by word; None where it has."""
    known = benchmark.rule is None and benchmark.metric != "graded"
    return None if known else "its answers have no one wording that is known here"


def reference_answers(benchmark: VLMEvalBenchmark, data_set: DataSet) -> list[Reference]:
    """Return each question once (of several rotations of its options the first in the file), with its answer.

    Of several answers that are as good the first is taken.
    """
    first: dict[str, Row] = {}
    for question, row in zip(question_ids(benchmark, data_set.data), data_set.data.to_dict("records"), strict=True):
        first.setdefault(question, row)
    return [Reference(data_set.build_prompt(row), reference_answer(benchmark, row["answer"])) for row in first.values()]


def reference_answer(benchmark: VLMEvalBenchmark, cell: object) -> str:
    """Return the answer in a cell; of several that are as good the first."""
    text = str(cell)
    if benchmark.metric not in ("contained", "vqa") or not text.startswith("["):
        return text
    return str(ast.literal_eval(text)[0])
