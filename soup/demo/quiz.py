"""The evaluator `demo:colour,shape,place`: pictures that no model was made from, four answers to each.

The answer is the likeliest of the four words. The weights are read from the candidate's files, and nothing but torch is
needed; a model of transformers that is loaded from the same files gives the same logits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

from soup.demo.model import FIRST_ANSWER, answer_logits
from soup.demo.pictures import ANSWERS, Pictures, draw_pictures, png_file
from soup.errors import EvaluatorError
from soup.evaluation.api import AskedModel, Benchmark, Candidate, Harness, Score, ShownQuestion
from soup.support.json_text import read_json_object
from soup.support.text import did_you_mean

if TYPE_CHECKING:
    import torch

    from soup.evaluation.settings import EvalSettings

__all__ = ["Quiz"]

QUESTIONS = 400
SEED = 20_000  # far from those of the data sets


class Quiz(Harness):
    """Asks a model of `soup demo` for the colour, the shape or the place of figures."""

    has_parts = False
    target_hint = "|".join(ANSWERS)
    target_syntax = "list"

    def __init__(self, settings: EvalSettings) -> None:
        self.settings = settings

    def identity(self, benchmark: Benchmark) -> Mapping[str, object]:
        """Return the version of the questions: they are drawn by this package.

        Raises:
            EvaluatorError: nothing such is asked.
        """
        if benchmark.target not in ANSWERS:
            raise EvaluatorError(f"{benchmark.name}: no such question.{did_you_mean(benchmark.target, ANSWERS)}")
        return {"evaluator": "demo", "version": 1}

    def count(self, benchmark: Benchmark) -> int:
        """Count the questions that are asked."""
        return len(_asked(benchmark))

    def evaluate(self, candidate: Candidate, benchmark: Benchmark) -> Score:
        """Return the share of right answers, and keep the answers for those who want to see them.

        Raises:
            EvaluatorError: the candidate is no model of `soup demo`.
        """
        from safetensors.torch import load_file

        numbers, (pixels, right) = _asked(benchmark), _pictures()
        try:
            logits = answer_logits(load_file(candidate.directory() / "model.safetensors"), pixels[numbers])
        except (KeyError, RuntimeError, FileNotFoundError) as cause:
            raise EvaluatorError(f"{benchmark.name}: asks models of soup demo alone ({cause}).") from cause
        words = ANSWERS[benchmark.target]
        first = FIRST_ANSWER + 4 * [*ANSWERS].index(benchmark.target)
        answers = logits[:, first : first + 4].argmax(dim=1)
        points = (answers == right[benchmark.target][numbers]).double().tolist()
        candidate.kept.mkdir(parents=True, exist_ok=True)
        said = {str(index): words[answer] for index, answer in zip(numbers, answers.tolist(), strict=True)}
        (candidate.kept / _file_name(benchmark)).write_text(json.dumps(said), encoding="utf-8")
        indices = map(str, numbers)
        return Score(100 * sum(points) / len(points), len(points), dict(zip(indices, points, strict=True)))

    def show(
        self, benchmark: Benchmark, indices: Sequence[str], models: Sequence[AskedModel]
    ) -> Mapping[str, ShownQuestion]:
        """Return pictures with what is asked of them, what models answered, and the right word."""
        pixels, right = _pictures()
        labels, words = right[benchmark.target], ANSWERS[benchmark.target]
        said = [_kept_answers(model, benchmark) for model in models]
        return {
            index: ShownQuestion(
                f"what {benchmark.target} ?",
                (_picture(pixels, int(index)),),
                tuple(answers.get(index) for answers in said),
                words[int(labels[int(index)])],
            )
            for index in indices
        }


@cache
def _pictures() -> Pictures:
    return draw_pictures(QUESTIONS, SEED)


def _asked(benchmark: Benchmark) -> list[int]:
    return [index for index in range(QUESTIONS) if benchmark.holds(str(index))]


def _file_name(benchmark: Benchmark) -> str:
    return f"demo-{benchmark.target}-{benchmark.split.part}.json"


def _kept_answers(model: AskedModel, benchmark: Benchmark) -> Mapping[str, str]:
    path = model.kept / _file_name(benchmark)
    if not path.is_file():
        return {}
    return {index: str(word) for index, word in read_json_object(path, EvaluatorError).items()}


def _picture(pixels: torch.Tensor, index: int) -> bytes:
    enlarged = pixels[index].repeat_interleave(8, 1).repeat_interleave(8, 2)
    return png_file(enlarged)
