"""How the result of VLMEvalKit's own `evaluate` becomes a score of 0 to 100: a rule for each kind of result.

A rule names where in the result the total stands, what makes a percentage of it, and the column of the tables written
on the way that has each question's points. Classes whose result has no such total are refused by name: `refusals`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = ["IN_MEMORY", "RULES", "Rule"]

Judging = Literal["never", "may", "always"]


@dataclass(frozen=True)
class Rule:
    """How a result of VLMEvalKit's becomes a score.

    Args:
        total: Where the total stands: a key or a column; `ROW/COLUMN`, the row being the one with that cell (`A&B`:
            with both cells); `A+B` is the plain mean of two; `*` of all columns; empty: the mean of the points.
        scale: What makes a percentage of it.
        points: The column of a table that `evaluate` writes with each question's points; empty: it tells totals alone.
        full: The points of a right answer.
        is_mean: Whether the total is the mean of the points; then it is computed from them, unrounded.
        judge: Whether an LLM judge is asked never, on demand, or always.
        group: The columns of which equal cells make questions that count together, or the number of rows that do, or
            the character of an index before which it names them.
        caption: In words, what a score counts, where the total's name does not say it.
        unread: A column of a table that `evaluate` writes, and how its cell begins where a judge's reply can't be read.
        suffix: Of the file of predictions, which is kept in memory: some classes accept an Excel file alone.
        takes_model: Whether `evaluate` may be told the judge's name: one class passes that on twice, and fails.
        packages: What its metric imports only once answers are there.
        settings: What else `evaluate` is told, by name.
        replies: A pattern that is found in each of a judge's replies that can be read; empty: any reply can.
        reads_itself: Whether it builds the data set once more, and takes from that what belongs to the answers.
        by_index: Whether rows are looked up by their `index`, which in a part of the questions is not their number.
    """

    total: str
    scale: float = 1.0
    points: str = ""
    full: float = 1.0
    is_mean: bool = True
    judge: Judging = "never"
    group: tuple[str, ...] | int | str = ()
    caption: str = ""
    unread: tuple[str, str] = ("", "")
    suffix: str = "tsv"
    takes_model: bool = True
    packages: tuple[str, ...] = ()
    settings: tuple[tuple[str, str], ...] = ()
    replies: str = ""
    reads_itself: bool = False
    by_index: bool = False

    @property
    def description(self) -> str:
        """The rule in words."""
        words = self.caption or f"{self.total} of VLMEvalKit's result" + (" x 100" if self.scale == 100 else "")
        return words + (", by a judge" if self.judge == "always" else "")


IN_MEMORY: Mapping[str, tuple[str, ...]] = {
    "choices": (
        "ImageMCQDataset",
        "MMMUDataset",
        "MUIRDataset",
        "MedXpertQA_MM_test",
        "LEGO",
        "MSEarthMCQ",
        "SCAM",
        "CVQA",
        "MicroBench",
        "OmniMedVQA",
        "GMAIMMBenchDataset",
        "CustomMCQDataset",
    ),
    "vqa": ("ImageVQADataset", "VizWiz", "PlotQA"),
    "rated_yes_no": ("ImageYORNDataset",),
    "contained": ("OCRBench",),
    "extracted": ("MathVista",),
    "graded": ("MMVet",),
}
"""Classes by the metric of `evaluators.vlmeval.metrics` that calls what lies below their `evaluate`."""


def _for(classes: str, rule: Rule) -> dict[str, Rule]:
    return dict.fromkeys(classes.split(), rule)


RULES: Mapping[str, Rule] = {
    # By matching alone.
    **_for("MMVP", Rule("Overall", 100, is_mean=False, points="hit", judge="may", group=2)),
    **_for("MMSci", Rule("Overall/Avg", 100, "hit", is_mean=False, judge="may")),
    **_for("CVBench", Rule("Overall", 100, "hit", is_mean=False, judge="may")),
    **_for("HRBenchDataset", Rule("Average&all/accuracy", 100, "hit", is_mean=False, judge="may")),
    **_for("VMCBenchDataset", Rule("Overall", 1, "hit")),
    **_for("_3DSRBench", Rule("vanilla/Overall", 100, "hit", judge="may")),
    **_for("MMERealWorld", Rule("Overall", 100, "score")),
    **_for("CRPE", Rule("total", 100, is_mean=False, group=4)),
    **_for("MMNIAH", Rule("total", 100)),
    **_for("MTVQADataset", Rule("Average", 1)),
    **_for("TableVQABench", Rule("*average_scores", 1, is_mean=False, caption="mean of the four parts' scores")),
    **_for("CountBenchQA", Rule("accuracy", 1)),
    **_for("ZEROBench", Rule("accuracy", 100)),
    **_for("TallyQA", Rule("TallyQA", 100)),
    **_for("VLMBlind", Rule("*", 100, is_mean=False, caption="mean of the tasks' shares of right answers")),
    # VLMEvalKit divides by the number of each category, so that a row by itself fails: there are no points.
    **_for("VisuLogic", Rule("Overall/acc", 1, is_mean=False)),
    **_for("PuzzleVQA VisualPuzzles", Rule("overall/acc", 1, is_mean=False)),
    **_for("XLRSBench", Rule("Overall micro", 100, judge="may")),
    **_for("OmniEarthMCQBench", Rule("Overall micro", 100)),
    **_for("VisFactor", Rule("ALL", 100, is_mean=False, group=("category_id", "eval_index"))),
    **_for("WildDocBenchmark", Rule("WildDoc&Overall/Score", 1, is_mean=False)),
    **_for("MMOral_OPG_CLOSED", Rule("Overall/acc", 1)),
    **_for("SIUOMCQDataset M3oralBenchDataset", Rule("Overall", 1, "correct")),
    **_for("MSSBenchDataset", Rule("total_acc", 1, "correct", is_mean=False, judge="may")),
    **_for("TDBench", Rule("Overall", 100, "hit", judge="may")),
    **_for("TDBenchGrounding", Rule("Average Centroid Containment", 100, "hit")),
    **_for("OlympiadBench", Rule("AVG", 1, "score")),
    **_for("MMMUProDataset", Rule("Overall", 100, "hit", judge="may")),
    **_for("Spatial457", Rule("score", 100)),
    **_for("OCRBench_v2", Rule("English Overall Score+Chinese Overall Score", 100, is_mean=False)),
    **_for("CCOCRDataset", Rule("total", 100, is_mean=False, packages=("lxml",))),
    **_for("RefCOCODataset", Rule("Average/Precision@1", 1, "hit", is_mean=False)),
    **_for("ERQADataset", Rule("Overall/Accuracy (%)", 1, "correct")),
    **_for(
        "MindCubeBench EmbSpatialBench ViewSpatialBench MMSIBench SpatialVizBench OmniSpatialBench ERQABench ERIQBench",
        Rule("overall", 1),
    ),
    **_for("DA2K", Rule("overall", 100, "score")),
    **_for("ChartQAPro", Rule("Overall/1", 100, caption="Overall x 100", packages=("anls",))),
    **_for("TopViewRS", Rule("Overall", 100, "hit", is_mean=False, judge="may")),
    **_for("TreeBench", Rule("Overall", 100, "score", suffix="xlsx")),
    **_for("RefSpatialDataset", Rule("Overall/Success Rate (%)", 1, "success")),
    **_for("VLMsAreBiased", Rule("overall_acc", 100)),
    **_for("VLRMBench", Rule("Overall_F1_weighted", 100, is_mean=False)),
    **_for("VLRMBench_MultiSolution", Rule("multi_solution_accuracy", 100, is_mean=False, group=2)),
    **_for("VTCBench", Rule("Overall", 100, packages=("rouge_score",))),
    **_for("ChartBench", Rule("all", is_mean=False, group="_")),
    **_for("NPMM", Rule("AR", is_mean=False, caption="ratio to the best known solution, wrong ones 0, at most 100")),
    **_for("GroundingME", Rule("ACC@0.5", 100, "acc_50", reads_itself=True)),
    **_for("SparBench", Rule("overall", 100, is_mean=False)),
    **_for("ImageCaptionDataset", Rule("ROUGE_L", 1, caption="ROUGE-L", packages=("pycocoevalcap",))),
    # Films.
    **_for("VideoMME VideoTT", Rule("", 100, "score", judge="may", caption="right answers")),
    **_for("Video_Holmes QBench_Video_MCQ", Rule("", 100, "score", caption="right answers", by_index=True)),
    **_for(
        "TempCompass_MCQ TempCompass_YorN WorldSense MLVU_MCQ",
        Rule("", 100, "score", judge="may", caption="right answers", by_index=True),
    ),
    **_for(
        "TempCompass_Captioning",
        Rule("", 100, "score", judge="always", caption="right answers about the caption", by_index=True),
    ),
    **_for(
        "MLVU_OpenEnded",
        Rule(
            "",
            100,
            "score",
            full=10,
            judge="always",
            caption="mean of grades of 2 to 10, of 10",
            replies="score_(accuracy|completeness)",
            by_index=True,
        ),
    ),
    **_for(
        "MMBenchVideo",
        Rule("coarse_all/Overall", 100 / 3, "score", full=3, judge="always", caption="mean of grades of 0 to 3"),
    ),
    # By a judge.
    **_for("MathVision LENS", Rule("Overall/acc", 1, judge="always")),
    **_for("LogicVista", Rule("Overall/acc", 1, "hit", judge="always")),
    **_for("OCR_Reasoning MMOral_OPG_OPEN", Rule("Overall/acc", 1, judge="always")),
    **_for("Physics_yale", Rule("Overall/acc", 1, "res", judge="always")),
    **_for(
        "CharXiv",
        Rule("Overall", 100, "score", judge="always", unread=("extract_answer", "Failed to parse"), takes_model=False),
    ),
    **_for("VLMBias", Rule("Overall", 100, "hit", judge="always", unread=("log", "Judge Failed"))),
    **_for("SFE", Rule("Overall", 1, "score", full=9, is_mean=False, judge="always")),
    **_for("CoreCognition", Rule("Overall", 1, "correct", judge="always")),
    **_for("MaCBench MMVMBench", Rule("Overall", 100, judge="always")),
    **_for("MathVerse", Rule("Overall/Overall", 1, "score", judge="always")),
    **_for("MMReason MMEReasoning", Rule("Overall", 1, "score", judge="always")),
    **_for("SeePhys", Rule("Overall/Accuracy (%)", 1, judge="always")),
    **_for("Dynamath", Rule("Average/Overall", 100, "correct", judge="always")),
    **_for(
        "ImageShortQADataset HLEDataset EMMADataset PathVQA_VAL PathVQA_TEST MMESCIDataset AyaVisionBench",
        Rule("Overall", 100, "hit", judge="always"),
    ),
    **_for("MOAT", Rule("overall_acc", 100, "verdict", judge="always")),
    **_for("Asclepius", Rule("Overall", 1, "eval_score", judge="always")),
    **_for("ChartMuseum", Rule("Overall", 1, judge="always")),
    **_for("MMSafetyBenchDataset", Rule("Overall/safety_rate", 100, judge="always")),
    **_for("SIUOGenDataset", Rule("overall_avg_combined", 1, "combined_pass", judge="always")),
    **_for("SciDocBench", Rule("Overall (answer)/Score", 1, "score", judge="always")),
    **_for("SGI_Bench_Experimental_Reasoning", Rule("MCC", 100, "mcc", judge="always")),
    **_for(
        "VGRPBench",
        Rule(
            "",
            100,
            "answer_correct",
            judge="always",
            caption="solved puzzles",
            packages=("json_repair",),
            replies="Perception|Initial State",
        ),
    ),
    **_for(
        "VLRewardBench",
        Rule("Overall Consistency", 100, "score", judge="always", replies="(?i)answer [12]", reads_itself=True),
    ),
    **_for(
        "PhyX",
        Rule("Overall Acc", 100, "res", judge="always", replies="[01]", settings=(("valid_type", "LLM"),)),
    ),
    **{
        f"MMRarebench{track}": Rule(
            f"{track.lower()}_judge_score", 100, "score", judge="always", replies=r"(?i)\b(yes|no|[0-9])\b"
        )
        for track in ("Diagnosis", "Treatment", "Crossmodal", "Examination")
    },
    **_for(
        "LLaVABench LLaVABench_KO",
        Rule(
            "overall/Relative Score (main)",
            points="score",
            full=10,
            is_mean=False,
            judge="always",
            caption="grades relative to GPT-4's, at most 100",
        ),
    ),
}
"""By VLMEvalKit's class, or by data set where a class reports that one in its own way."""
