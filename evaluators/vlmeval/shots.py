"""Examples before each question of a data set: other questions of the same file, with their reference answers.

The file's questions stand in the order of a hash of their identity, as in a ring. The examples of a question are the
next ones behind it that have an answer, and neither its group (yes-no pairs, rotations of options) nor its pictures:
the same for every model, split, worker and run, and each question is an example about equally often.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import NamedTuple

from evaluators.vlmeval.benchmarks import VLMEvalBenchmark
from evaluators.vlmeval.data_sets import question_ids
from evaluators.vlmeval.library_types import DataSet, Row
from evaluators.vlmeval.reference_answers import reference_answer, why_no_reference
from soup.errors import EvaluatorError
from soup.evaluation.api import Prompt
from soup.evaluation.examples import answered
from soup.support.options import option_name

__all__ = ["RULE", "add_examples"]

RULE = "the next questions of the file in the order of a hash, of other groups and pictures"


def add_examples(benchmark: VLMEvalBenchmark, data_set: DataSet, shots: int) -> None:
    """Let a data set's prompts begin with so many answered questions.

    Args:
        benchmark: Whose data set.
        data_set: With all rows that count, of any split.
        shots: How many.

    Raises:
        EvaluatorError: its answers have no wording, or a question finds fewer examples.
    """
    name = option_name("shots")
    if reason := why_no_reference(benchmark):
        raise EvaluatorError(f"{benchmark.name}: {name}: no examples can be given, as {reason}.")
    rows = data_set.data.to_dict("records")
    questions = dict(zip([str(row["index"]) for row in rows], question_ids(benchmark, data_set.data), strict=True))
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(questions[str(row["index"])], row)
    ring = _ring(first)
    examples = {}
    for position, question in enumerate(ring):
        examples[question.name] = behind = [*islice(_behind(ring, position), shots)]
        if len(behind) < shots:
            raise EvaluatorError(
                f"{benchmark.name}: {name} {shots}: question {question.name} finds {len(behind)} others with an "
                "answer, of another group and with other pictures: ask for fewer examples."
            )
    plain: Callable[[Row], Prompt] = data_set.build_prompt

    def build_prompt(row: Row) -> Prompt:
        prompt: Prompt = []
        for question in examples[questions[str(row["index"])]]:
            answer = answered(reference_answer(benchmark, first[question]["answer"]))
            prompt += [*plain(first[question]), {"type": "text", "value": answer}]
        return [*prompt, *plain(row)]

    data_set.build_prompt = build_prompt


class _Question(NamedTuple):
    """A question in the ring: the first of its rows has its answer."""

    name: str
    pictures: frozenset[str]
    is_answered: bool

    @property
    def group(self) -> str:
        return self.name.partition("/")[0]


def _ring(first: Mapping[str, Row]) -> list[_Question]:
    names = sorted(first, key=lambda name: hashlib.sha256(name.encode()).digest())
    return [_Question(name, _pictures(first[name]), _has_answer(first[name])) for name in names]


def _behind(ring: Sequence[_Question], position: int) -> Iterator[str]:
    """Yield the questions behind one that may be its examples."""
    target = ring[position]
    for question in chain(ring[position + 1 :], ring[:position]):
        if question.is_answered and question.group != target.group and not question.pictures & target.pictures:
            yield question.name


def _pictures(row: Row) -> frozenset[str]:
    cell = row["image"] if "image" in row else row["image_path"]
    return frozenset(map(str, cell)) if isinstance(cell, list) else frozenset([str(cell)])


def _has_answer(row: Row) -> bool:
    answer = row["answer"]
    return answer == answer and bool(str(answer).strip())  # a missing cell is NaN
