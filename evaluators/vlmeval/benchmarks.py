"""Benchmarks with short names, OpenCompass's eight and five more: what each is in VLMEvalKit, what its file holds."""

from __future__ import annotations

from dataclasses import dataclass

from evaluators.vlmeval.library_index import DataSetClass
from evaluators.vlmeval.library_types import DataSet
from evaluators.vlmeval.light_import import vlmeval_module
from evaluators.vlmeval.rule import Rule
from evaluators.vlmeval.rules import RULES
from soup.evaluation.api import BenchmarkInfo

__all__ = ["BENCHMARKS", "CHOICE", "CHOICES", "OPEN", "YES_NO", "VLMEvalBenchmark"]


@dataclass(frozen=True)
class VLMEvalBenchmark:
    """One benchmark in VLMEvalKit: the class that knows its data set, and what its file must hold.

    Args:
        name: What `--eval` calls it.
        info: What is known of it before its data are here.
        module: The module below `vlmeval` that has the class.
        class_name: VLMEvalKit's class of the data set.
        columns: The columns that the file must have.
        metric: The key in `evaluators.vlmeval.metrics.METRICS` of how answers become a score.
        split_value: The value of the column `split` whose rows count; None where all do.
        literals: Columns whose cells VLMEvalKit evaluates as Python code.
        filled: Columns without which VLMEvalKit's metric fails.
        judge_tokens: How long VLMEvalKit lets a judge's reply become.
        frames: How many frames of a video are shown; 0 where images are.
        rule: How the result of VLMEvalKit's `evaluate` becomes a score, where `metric` is `evaluate`.
    """

    name: str
    info: BenchmarkInfo
    module: str
    class_name: str
    columns: tuple[str, ...]
    metric: str
    split_value: str | None = None
    literals: tuple[str, ...] = ()
    filled: tuple[str, ...] = ()
    judge_tokens: int = 2048
    rule: Rule | None = None
    frames: int = 0

    @property
    def data_set(self) -> str:
        """The data set's name in VLMEvalKit, which is also its file's."""
        return self.info.source

    @property
    def needs_judge(self) -> bool:
        """Whether there is no score without a judge."""
        return self.info.judge

    @property
    def is_circular(self) -> bool:
        """Whether each question is asked once per rotation of its options."""
        return self.metric == "circular"

    def address(self) -> str | None:
        """Return where VLMEvalKit downloads the data from; None where it does not say that."""
        return DataSetClass(self.class_name, self.module).address(self.data_set)

    def data_set_class(self) -> type[DataSet]:
        """Import VLMEvalKit's class of the data set."""
        data_set_class: type[DataSet] = getattr(vlmeval_module(self.module), self.class_name)
        return data_set_class


GROUP = "opencompass"
CHOICE, YES_NO, OPEN = "multiple choice", "yes or no", "open questions"
CHOICES = ("index", "question", "A", "B", "answer", "image")
VQA = ("index", "question", "answer", "image")
MATHVISTA = (*VQA, "question_type", "answer_type", "choices", "answer_option", "task", "skills")

BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        VLMEvalBenchmark(
            "mmbench",
            BenchmarkInfo(
                "perception and reasoning",
                "MMBench_DEV_EN",
                1164,
                "right in every rotation of the options",
                group=GROUP,
                kind=CHOICE,
            ),
            "dataset.image_mcq",
            "ImageMCQDataset",
            CHOICES,
            "circular",
        ),
        VLMEvalBenchmark(
            "mmstar",
            BenchmarkInfo("questions that need the image", "MMStar", 1500, "right option", group=GROUP, kind=CHOICE),
            "dataset.image_mcq",
            "ImageMCQDataset",
            CHOICES,
            "choices",
        ),
        VLMEvalBenchmark(
            "mmmu",
            BenchmarkInfo(
                "college-level subjects",
                "MMMU_DEV_VAL",
                900,
                "right option, validation questions",
                group=GROUP,
                kind=CHOICE,
            ),
            "dataset.image_mcq",
            "MMMUDataset",
            (*CHOICES, "split"),
            "choices",
            split_value="validation",
        ),
        VLMEvalBenchmark(
            "mathvista",
            BenchmarkInfo(
                "mathematics in images",
                "MathVista_MINI",
                1000,
                "right answer, as extracted",
                judge=True,
                group=GROUP,
                kind=OPEN,
            ),
            "dataset.image_vqa",
            "MathVista",
            MATHVISTA,
            "extracted",
            literals=("choices", "skills"),
            filled=("task",),
            judge_tokens=128,
        ),
        VLMEvalBenchmark(
            "hallusionbench",
            BenchmarkInfo(
                "illusions",
                "HallusionBench",
                951,
                "mean of right answers, figures and questions",
                group=GROUP,
                kind=YES_NO,
            ),
            "dataset.image_yorn",
            "ImageYORNDataset",
            (*VQA, "l2-category"),
            "yes_no",
        ),
        VLMEvalBenchmark(
            "ai2d",
            BenchmarkInfo("diagrams of school science", "AI2D_TEST", 3088, "right option", group=GROUP, kind=CHOICE),
            "dataset.image_mcq",
            "ImageMCQDataset",
            CHOICES,
            "choices",
        ),
        VLMEvalBenchmark(
            "ocrbench",
            BenchmarkInfo(
                "reading text in images", "OCRBench", 1000, "the text is in the answer", group=GROUP, kind=OPEN
            ),
            "dataset.image_vqa",
            "OCRBench",
            (*VQA, "category"),
            "contained",
            literals=("answer",),
        ),
        VLMEvalBenchmark(
            "mmvet",
            BenchmarkInfo("open questions", "MMVet", 218, "mean grade", judge=True, group=GROUP, kind=OPEN),
            "dataset.image_vqa",
            "MMVet",
            (*VQA, "category"),
            "graded",
            filled=("category",),
            judge_tokens=3,
        ),
        VLMEvalBenchmark(
            "scienceqa",
            BenchmarkInfo("school science", "ScienceQA_TEST", 2017, "right option", kind=CHOICE),
            "dataset.image_mcq",
            "ImageMCQDataset",
            CHOICES,
            "choices",
        ),
        VLMEvalBenchmark(
            "mme",
            BenchmarkInfo(
                "perception and reasoning, yes or no", "MME", 2374, "perception + reasoning, of 2,800", kind=YES_NO
            ),
            "dataset.image_yorn",
            "ImageYORNDataset",
            (*VQA, "category", "image_path"),
            "rated_yes_no",
        ),
        VLMEvalBenchmark(
            "llavabench",
            BenchmarkInfo(
                "open questions", "LLaVABench", 60, "grades relative to GPT-4's, at most 100", judge=True, kind=OPEN
            ),
            "dataset.image_vqa",
            "LLaVABench",
            (*VQA, "category", "caption", "gpt4_ans"),
            "evaluate",
            rule=RULES["LLaVABench"],
        ),
        VLMEvalBenchmark(
            "realworldqa",
            BenchmarkInfo("space in photographs", "RealWorldQA", 765, "right option", kind=CHOICE),
            "dataset.image_mcq",
            "ImageMCQDataset",
            CHOICES,
            "choices",
        ),
        VLMEvalBenchmark(
            "pope",
            BenchmarkInfo("objects that are not there", "POPE", 5127, "Overall: F1 of yes", kind=YES_NO),
            "dataset.image_yorn",
            "ImageYORNDataset",
            (*VQA, "category"),
            "rated_yes_no",
            filled=("category",),
        ),
    )
}
"""By name; OpenCompass's eight first, in the order of its table."""
