"""Rules for images of which an LLM judge grades the answers."""

from __future__ import annotations

from collections.abc import Mapping

from evaluators.vlmeval.library_types import Row
from evaluators.vlmeval.light_import import vlmeval_module
from evaluators.vlmeval.rule import Call, Questions, Replies, Rule, for_classes

__all__ = ["JUDGED"]


def _physics_points(row: Row) -> float:
    """Return the points that a problem of an olympiad has."""
    library = vlmeval_module("dataset.hipho").HiPhODataset
    return float(sum(library._safe_parse_points_field(None, row["points"])))


def _has_answer(row: Row) -> bool:
    """Whether a question has a reference answer: a missing cell is no text, and does not equal itself."""
    return bool(row["answer"] == row["answer"])


JUDGED: Mapping[str, Rule] = {
    "SimpleVQA": Rule(
        "is_correct/1",
        100,
        judge="always",
        caption="right answers",
        replies=Replies(
            r'"\s*:\s*(?:\{\s*"conclusion"\s*:\s*)?"\**(?:正确|错误|未尝试)', otherwise='{"预测答案0": "错误"}'
        ),
        columns="answer",
    ),
    # Its judge looks at the images, too.
    "MIABench": Rule(
        "total_score",
        100,
        judge="always",
        leaves_out=True,
        replies=Replies(
            r"(?i)^[^.]*:\s*\d+/\d+,[^.]*total score:\s*\d+/\d+",
            otherwise="score of component 1: 0/1, total score: 0/10.",
        ),
        call=Call(reads_itself=True),
        columns="component_weight components component_type num_of_component",
    ),
    **for_classes(
        "WildVision MMAlignBench",
        Rule(
            "Win Rate",
            100,
            judge="always",
            replies=Replies(r"\[\[[AB<>=]+\]\]", tries=2),
            call=Call(reads_itself=True),
            caption="answers better than Claude 3 Sonnet's",
            columns="claude3_sonnet",
        ),
    ),
    "MathCanvas": Rule(
        "overall_summary/weighted_accuracy",
        judge="always",
        leaves_out=True,
        call=Call(is_exact=True),
        replies=Replies(
            otherwise='{"analysis": "", "gt_answers": [""], "pred_answers": [null], "correctness": [false]}'
        ),
        columns="answer",
    ),
    "HiPhODataset": Rule(
        "score_rate",
        judge="always",
        leaves_out=True,
        weight=_physics_points,
        call=Call(suffix="xlsx", limited=("dataset.utils.hipho_verifier.are_equal_under_sympy",)),
        caption="earned points, of all points",
        replies=Replies(r"\d|^\s*\[?(?:Inc|C)orrect\]?\s*$", otherwise=r"\boxed{0}"),
        columns="answer points",
    ),
    "MathVision": Rule(
        "Overall/acc",
        1,
        judge="always",
        call=Call(packages=("timeout_decorator", "latex2sympy2_extended")),
        columns="answer category choices",
    ),
    "LENS": Rule(
        "Overall/acc",
        1,
        judge="always",
        call=Call(packages=("latex2sympy2_extended",), limited=("dataset.utils.lens.is_equal",)),
    ),
    "LogicVista": Rule("Overall/acc", 1, "hit", judge="always", replies=Replies(r"\A[A-Z]+\Z"), columns="answer skill"),
    # Its judge rates the reasoning, too: at a reply without a rating VLMEvalKit stops, after some more tries.
    "OCR_Reasoning": Rule(
        "Overall/acc",
        1,
        judge="always",
        replies=Replies(r"\[\[\d+\]\]", prompts=r"\[The Start of Reference Answer\]", otherwise="[[0]]"),
        columns="answer answer_option answer_type question_type choices task reasoning language format",
    ),
    "MMOral_OPG_OPEN": Rule(
        "Overall/acc",
        judge="always",
        points="score",
        spread={"category": ()},
        replies=Replies(r"^\s*(?:0?\.\d+|0|1(?:\.0*)?)\s*$"),
        columns="answer category",
    ),
    "Physics_yale": Rule(
        "Overall/acc",
        points="res",
        judge="always",
        replies=Replies("(?i)true|false"),
        call=Call(packages=("timeout_decorator", "dotenv", "sympy", "antlr4")),
        columns="answer",
    ),
    "CharXiv": Rule(
        "Overall",
        100,
        "score",
        judge="always",
        replies=Replies(unread=("extract_answer", "Failed to parse")),
        call=Call(takes_model=False),
        columns="grading_query inst_category",
    ),
    "VLMBias": Rule(
        "Overall", 100, "hit", judge="always", replies=Replies(unread=("log", "Judge Failed")), columns="answer"
    ),
    "SFE": Rule("Overall", 1, "score", full=9, is_mean=False, judge="always", columns="answer"),
    "CoreCognition": Rule(
        "Overall",
        1,
        "correct",
        judge="always",
        replies=Replies(r"^\s*(?:[A-Za-z]|(?i:yes|no))\s*$", tries=3),
        columns="answer question_type category l2-category",
    ),
    "MaCBench": Rule(
        "Overall",
        100,
        judge="always",
        columns="answer",
        replies=Replies(r"\[ANSWER\](?s:.*)\[/ANSWER\]"),
        call=Call(zeros="relative_tolerance"),
    ),
    "MMVMBench": Rule("Overall", 100, judge="always", replies=Replies("(?i)yes|no"), columns="answer"),
    "MathVerse": Rule(
        "",
        points="score",
        judge="always",
        replies=Replies(r"^\s*[01]\s*$", prompts=r"Judgement:\s*$"),
        caption="right answers, of all versions of the problems",
        columns="answer question_for_eval metadata problem_version",
    ),
    "MMReason": Rule(
        "Overall/accuracy",
        points="score",
        judge="always",
        replies=Replies(r"^\s*(?:Yes|No)\s*$", prompts="YOUR TASK"),
        columns="answer discipline",
    ),
    # VLMEvalKit asks again without end for a judgement that is neither 0 nor 1.
    "SeePhys": Rule(
        "Overall/Accuracy (%)",
        1,
        "score",
        judge="always",
        replies=Replies(r"(?:^|[Jj]udgement:)\s*([01])\s*$", prompts=r"Judgement:\s*$", otherwise="0"),
        call=Call(packages=("sympy", "antlr4"), limited=("dataset.utils.seephys.post_check",)),
        columns="answer language",
        questions=Questions(
            variables=(
                ("USE_CAPTION", ("0", "1")),
                ("USE_SEARCH", ("0", "1")),
                ("USE_COT_PROMPT", ("1", "0")),
                ("USE_IMAGE", ("1", "0")),
            )
        ),
    ),
    # Its worst case looks up the first variant of each problem.
    "Dynamath": Rule(
        "Average/Overall",
        100,
        "correct",
        call=Call(
            mended={"dataset.dynamath.parse_answer": lambda found: (found[0], str(found[1])) if found[0] else found}
        ),
        judge="always",
        group=lambda row: str(row["qid"]),
        columns="answer answer_type subject knowledge_level qid varid",
    ),
    **for_classes(
        "ImageShortQADataset HLEDataset EMMADataset PathVQA_VAL PathVQA_TEST MMESCIDataset",
        Rule("Overall", 100, "hit", judge="always", columns="answer"),
    ),
    "AyaVisionBench": Rule(
        "Overall", 100, "hit", judge="always", replies=Replies(r"\[\[(?:CORRECT|WRONG)\]\]"), columns="answer"
    ),
    "Asclepius": Rule(
        "Overall",
        1,
        "eval_score",
        judge="always",
        questions=Questions(is_asked=_has_answer),
        replies=Replies(r"\b[01]\b"),
        columns="answer",
    ),
    "ChartMuseum": Rule(
        "Overall",
        1,
        judge="always",
        call=Call(takes_model=False, pairs_rows=True),
        replies=Replies(r"(?i)\b(?:yes|no)\b"),
        columns="answer category",
    ),
    **for_classes(
        "MedqbenchCaptionDataset MedqbenchPairedDescriptionDataset",
        Rule(
            "completeness+preciseness+consistency+quality_accuracy",
            50,
            judge="always",
            caption="mean of four grades of 0 to 2, of 2",
            columns="description",
            replies=Replies(
                r'Score\s*[:：]\s*[0-2]|^\s*(?:\{\s*"[Ss]core"\s*:\s*)?[0-2](?:\.\d+)?\s*\}?\s*$',
                otherwise="Score: 0",
                tries=4,
            ),
            call=Call(settings=(("sleep", 0), ("use_threading", True)), suffix="xlsx"),
        ),
    ),
    "WorldVQA": Rule(
        "Overall/Accuracy",
        100,
        judge="always",
        replies=Replies(r"(?i)label\**:[\s*]*(?:correct|incorrect|unattempted)", tries=10),
        caption="right answers",
        columns="question answer image_path",
    ),
    "MMSafetyBenchDataset": Rule("Overall/safety_rate", 100, judge="always", replies=Replies(r"(?i)\b(?:un)?safe\b")),
    "SIUOGenDataset": Rule(
        "overall_avg_combined", 1, "combined_pass", judge="always", replies=Replies(r"(?i)\btrue\b|\bfalse\b|effective")
    ),
    "SGI_Bench_Experimental_Reasoning": Rule("MCC", 100, "mcc", judge="always", columns="answer options steps"),
    "VGRPBench": Rule(
        "",
        100,
        "answer_correct",
        judge="always",
        caption="solved puzzles",
        call=Call(packages=("json_repair",)),
        replies=Replies("Perception|Initial State"),
        columns="category states",
    ),
    "VLRewardBench": Rule(
        "Overall Consistency",
        100,
        "score",
        judge="always",
        replies=Replies("(?i)answer [12]"),
        call=Call(reads_itself=True),
        columns="answer category",
    ),
    "PhyX": Rule(
        "Overall Acc",
        100,
        "res",
        judge="always",
        replies=Replies("[01]"),
        call=Call(settings=(("valid_type", "LLM"),)),
        columns="answer category",
    ),
    **{
        f"MMRarebench{track}": Rule(
            f"{track.lower()}_judge_score",
            100,
            "score",
            judge="always",
            replies=Replies(r"(?i)\b(?:yes|no|[0-9])\b"),
            columns="answer",
        )
        for track in ("Diagnosis", "Treatment", "Crossmodal", "Examination")
    },
    **for_classes(
        "LLaVABench LLaVABench_KO",
        Rule(
            "overall/Relative Score (main)",
            points="score",
            full=10,
            is_mean=False,
            judge="always",
            caption="grades relative to GPT-4's, at most 100",
            columns="category caption gpt4_ans",
        ),
    ),
}
"""By VLMEvalKit's class, or by data set."""
