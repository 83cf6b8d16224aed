"""Questions for people to look at: text, images, and what models answered, found by the prompts of then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from evaluators.answering.response_cache import ResponseCache, prompt_keys
from evaluators.vlmeval.benchmarks import VLMEvalBenchmark
from evaluators.vlmeval.data_sets import question_ids
from evaluators.vlmeval.image_files import ImageFiles
from evaluators.vlmeval.library_types import DataSet, Row
from evaluators.vlmeval.reading_answers import final_answer
from evaluators.vlmeval.scoring import plain_part
from evaluators.vlmeval.stand_ins import replaced_names
from soup.evaluation.api import AskedModel, Prompt, ShownQuestion

__all__ = ["categories", "show_questions"]

CATEGORIES = ("l2-category", "l2_category", "category", "task", "subject")
"""Columns by which VLMEvalKit reports, the first that a table has."""
MOST_IMAGES = 2  # of a question that are shown: a video has eight


def categories(benchmark: VLMEvalBenchmark, data_set: DataSet) -> dict[str, str]:
    """Return the category of each question by its index; nothing where no column names one."""
    frame = data_set.data
    column = next((name for name in CATEGORIES if name in frame), None)
    if column is None:
        return {}
    return {index: str(name) for index, name in zip(question_ids(benchmark, frame), frame[column], strict=True)}


def show_questions(
    benchmark: VLMEvalBenchmark,
    data_set: DataSet,
    images: ImageFiles,
    indices: Sequence[str],
    models: Sequence[AskedModel],
) -> dict[str, ShownQuestion]:
    """Return questions by their indices.

    Of a question that is asked in rotations, the first is shown that models answered differently.

    Args:
        benchmark: Whose data set.
        data_set: VLMEvalKit's, with the rows that count.
        images: Where the images of its rows are kept.
        indices: The questions.
        models: Whose answers are looked up.
    """
    wanted = {*indices}
    pairs = zip(question_ids(benchmark, data_set.data), data_set.data.to_dict("records"), strict=True)
    rows = [(index, row) for index, row in pairs if index in wanted]
    with replaced_names({}):
        prompts = [[plain_part(part) for part in data_set.build_prompt(row)] for _, row in rows]
    answers = [*zip(*(_answers(benchmark, model, prompts) for model in models), strict=True)]
    first: dict[str, int] = {}
    for number, (index, _) in enumerate(rows):
        if index not in first or (_agree(answers[first[index]]) and not _agree(answers[number])):
            first[index] = number
    images.start_writing([prompts[number] for number in first.values()])()
    return {index: _shown(rows[number][1], prompts[number], answers[number]) for index, number in first.items()}


def _agree(answers: Sequence[str | None]) -> bool:
    return len({*answers}) == 1 or None in answers


def _answers(benchmark: VLMEvalBenchmark, model: AskedModel, prompts: Sequence[Prompt]) -> list[str | None]:
    cache = ResponseCache(model.kept / f"{benchmark.name}.jsonl")
    texts = map(cache.get, prompt_keys([model.digest, model.identity.get("answering")], prompts))
    return [None if text is None else final_answer(text) for text in texts]


def _shown(row: Row, prompt: Sequence[Mapping[str, str]], answers: Sequence[str | None]) -> ShownQuestion:
    text = "\n".join(part["value"] for part in prompt if part["type"] == "text")
    paths = [Path(part["value"]) for part in prompt if part["type"] == "image"][:MOST_IMAGES]
    reference = row.get("answer")
    return ShownQuestion(
        text,
        tuple(path.read_bytes() for path in paths),
        tuple(answers),
        reference if isinstance(reference, str) else "",
    )
