"""OpenCompass's eight benchmarks: what each is called in VLMEvalKit, and what its file must hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from evaluators.vlmeval import light_import as light
from soup.evaluation.api import OPENCOMPASS

__all__ = ["SOURCES", "Source"]


@dataclass(frozen=True)
class Source:
    """One benchmark in VLMEvalKit: the class that knows its data set, and what its file must hold.

    `metric` names how answers become a score (`evaluators.vlmeval.metrics`). `part` is the value of the column `split`
    whose rows count. `literals` are columns whose cells VLMEvalKit evaluates as Python code, `filled` those without
    which its metric fails. `judge_tokens` is how long VLMEvalKit lets a judge's reply become.
    """

    name: str
    module: str
    kind: str
    columns: tuple[str, ...]
    metric: str
    part: str | None = None
    literals: tuple[str, ...] = ()
    filled: tuple[str, ...] = ()
    judge_tokens: int = 2048

    @property
    def dataset(self) -> str:
        """The data set's name in VLMEvalKit, which is also its file's."""
        return OPENCOMPASS[self.name].source

    @property
    def needs_judge(self) -> bool:
        """Whether there is no score without a judge."""
        return OPENCOMPASS[self.name].judge

    @property
    def circular(self) -> bool:
        """Whether each question is asked once per rotation of its options."""
        return self.metric == "circular"

    def base(self) -> Any:
        """VLMEvalKit's class."""
        return getattr(light.module(self.module), self.kind)


CHOICES = ("index", "question", "A", "B", "answer", "image")
VQA = ("index", "question", "answer", "image")
MATHVISTA = (*VQA, "question_type", "answer_type", "choices", "answer_option", "task", "skills")

SOURCES = {
    source.name: source
    for source in (
        Source("mmbench", "dataset.image_mcq", "ImageMCQDataset", CHOICES, "circular"),
        Source("mmstar", "dataset.image_mcq", "ImageMCQDataset", CHOICES, "choices"),
        Source("mmmu", "dataset.image_mcq", "MMMUDataset", (*CHOICES, "split"), "choices", part="validation"),
        Source(
            "mathvista",
            "dataset.image_vqa",
            "MathVista",
            MATHVISTA,
            "extracted",
            literals=("choices", "skills"),
            filled=("task",),
            judge_tokens=128,
        ),
        Source("hallusionbench", "dataset.image_yorn", "ImageYORNDataset", (*VQA, "l2-category"), "yes_no"),
        Source("ai2d", "dataset.image_mcq", "ImageMCQDataset", CHOICES, "choices"),
        Source("ocrbench", "dataset.image_vqa", "OCRBench", (*VQA, "category"), "contained", literals=("answer",)),
        Source(
            "mmvet", "dataset.image_vqa", "MMVet", (*VQA, "category"), "graded", filled=("category",), judge_tokens=3
        ),
    )
}
