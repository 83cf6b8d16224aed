"""How the result of VLMEvalKit's own `evaluate` becomes a score of 0 to 100: a rule for each kind of result.

A rule names where in the result the total stands, what makes a percentage of it, and the column of the tables written
on the way that has each question's points. Classes whose result has no such total are refused by name: `refusals`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evaluators.vlmeval.library_types import Row
from evaluators.vlmeval.light_import import vlmeval_module
from evaluators.vlmeval.rule import Rule

__all__ = ["IN_MEMORY", "RULES"]

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


def _graph_parts(row: Row) -> tuple[str, ...]:
    """Return the kind of a problem, and the problem: their means count alike."""
    problem = str(row["data_source"]).split("/")[1]
    kinds: Mapping[str, Sequence[str]] = vlmeval_module("dataset.NPMM").NPMM.GROUP_LIST
    return next((kind for kind, problems in kinds.items() if problem in problems), ""), problem


def _sources(row: Row) -> tuple[str, ...]:
    """Return the source of a question about flat pictures: their means count alike."""
    return (str(row.get("source")),) if row["split"] == "2D" else ()


def _documents(row: Row) -> tuple[str, ...]:
    """Return where a question about a photographed document comes from: DocVQA, ChartQA, or a part of TableVQA."""
    source, part = str(row["index"]).split("-")[:2]
    return (source, part) if source == "TableVQA" else (source,)


def _abilities(row: Row) -> tuple[str, ...]:
    """Return the language of a question, and the ability that it tests, which VLMEvalKit says where it sums them up."""
    library = vlmeval_module("dataset.utils.ocrbrnch_v2_eval")
    languages = library.ocrbench_v2_aggregate_accuracy([{"type": row["category"], "score": 0}])
    return next((str(number), *abilities) for number, abilities in enumerate(languages) if abilities)


def _texts_to_read(row: Row) -> tuple[str, ...]:
    """Return the kind of a task, and its set."""
    return str(row["category"]), f"{row['l2-category']}_{row['split']}"


def _physics_points(row: Row) -> float:
    """Return the points that a problem of an olympiad has."""
    library = vlmeval_module("dataset.hipho").HiPhODataset
    return float(sum(library._safe_parse_points_field(None, row["points"])))


RULES: Mapping[str, Rule] = {
    # By matching alone.
    **_for("MMVP", Rule("Overall", 100, points="hit", judge="may", group=2, is_whole=True, columns="answer")),
    **_for("MMSci", Rule("Overall/Avg", 100, "hit", is_mean=False, judge="may", columns="answer")),
    **_for(
        "CVBench",
        Rule("Overall", 100, "hit", is_mean=False, parts=_sources, judge="may", columns="question answer split"),
    ),
    **_for(
        "HRBenchDataset",
        Rule("Average&all/accuracy", 100, "hit", is_mean=False, judge="may", columns="answer category cycle_category"),
    ),
    **_for("VMCBenchDataset", Rule("Overall", 1, "hit", columns="answer category")),
    **_for("_3DSRBench", Rule("vanilla/Overall", 100, "hit", judge="may", columns="answer")),
    **_for("MMERealWorld", Rule("Overall", 100, "score", columns="answer category l2-category")),
    **_for("CRPE", Rule("total", 100, group=4, is_whole=True, columns="answer category")),
    **_for("MMNIAH", Rule("total", 100)),
    **_for("MTVQADataset", Rule("Average", 1, columns="answer category")),
    **_for(
        "TableVQABench",
        Rule(
            "*average_scores",
            1,
            parts=lambda row: (row["split"],),
            told_by=dict.fromkeys(
                (f"dataset.utils.tablevqabench.evaluate_{name}" for name in ("fintabnet", "tabfact", "wtq")),
                lambda rows, _: [row["scores"]["accuracy"] or 0 for row in rows],
            ),
            caption="mean of the four parts' means",
            columns="answer split",
        ),
    ),
    **_for("CountBenchQA", Rule("accuracy", 1, columns="answer")),
    **_for("ZEROBench", Rule("accuracy", 100, columns="answers")),
    **_for("TallyQA", Rule("TallyQA", 100, columns="answer")),
    **_for(
        "VLMBlind",
        Rule(
            "*",
            100,
            is_mean=False,
            parts=lambda row: (row["task"],),
            caption="mean of the tasks' shares of right answers",
            columns="task answers",
        ),
    ),
    # VLMEvalKit divides by the number of each category.
    **_for("VisuLogic", Rule("Overall/acc", spread="category", columns="answer category")),
    **_for("PuzzleVQA", Rule("overall/acc", spread="category", columns="answer category")),
    **_for("VisualPuzzles", Rule("overall/acc", spread="category difficulty", columns="answer category difficulty")),
    **_for("XLRSBench", Rule("Overall micro", 100, judge="may")),
    **_for("OmniEarthMCQBench", Rule("Overall micro", 100)),
    **_for(
        "VisFactor",
        Rule(
            "ALL",
            100,
            is_mean=False,
            group=("category_id", "eval_index"),
            is_whole=True,
            parts=lambda row: (str(row["category_id"]),),
        ),
    ),
    **_for(
        "WildDocBenchmark",
        Rule(
            "WildDoc&Overall/Score",
            1,
            parts=_documents,
            told_by={"dataset.utils.vqa_eval.hit_calculate": lambda _, hits: hits},
            caption="mean of DocVQA, ChartQA and TableVQA, of that the mean of its four parts",
            columns="answer",
        ),
    ),
    **_for("MMOral_OPG_CLOSED", Rule("Overall/acc", 1)),
    **_for("SIUOMCQDataset M3oralBenchDataset", Rule("Overall", 1, "correct", columns="answer")),
    **_for("MSSBenchDataset", Rule("total_acc", 1, "correct", is_mean=False, judge="may")),
    **_for("TDBench", Rule("Overall", 100, "hit", judge="may", columns="answer")),
    **_for("TDBenchGrounding", Rule("Average Centroid Containment", 100, "hit")),
    **_for("OlympiadBench", Rule("AVG", 1, "score")),
    **_for("MMMUProDataset", Rule("Overall", 100, "hit", judge="may", columns="A B answer")),
    **_for("Spatial457", Rule("score", 100)),
    **_for(
        "OCRBench_v2",
        Rule(
            "English Overall Score+Chinese Overall Score",
            100,
            parts=_abilities,
            told_by={
                "dataset.utils.ocrbrnch_v2_eval.process_predictions": lambda rows, _: [row["score"] for row in rows]
            },
            leaves_out=True,
            packages=("apted", "distance", "editdistance", "ipdb", "jieba", "Levenshtein", "lxml", "nltk", "zss"),
            caption="mean of English and Chinese, of each the mean of its abilities",
            columns="answer category eval bbox content",
        ),
    ),
    **_for(
        "CCOCRDataset",
        Rule(
            "total",
            100,
            parts=_texts_to_read,
            packages=("apted", "lxml", "nltk"),
            caption="mean of the kinds of tasks, of each the mean of its sets",
            columns="answer category l2-category split image_name",
        ),
    ),
    **_for("RefCOCODataset", Rule("Average/Precision@1", 1, "hit", is_mean=False)),
    **_for("ERQADataset", Rule("Overall/Accuracy (%)", 1, "correct", columns="answer category")),
    **_for(
        "MindCubeBench EmbSpatialBench ViewSpatialBench MMSIBench SpatialVizBench OmniSpatialBench ERQABench ERIQBench",
        Rule("overall", 1, columns="answer"),
    ),
    **_for("DA2K", Rule("overall", 100, "score")),
    **_for("ChartQAPro", Rule("Overall/1", 100, caption="Overall x 100", packages=("anls",), columns="answer year")),
    **_for("TopViewRS", Rule("Overall", 100, "hit", is_mean=False, judge="may", columns="answer")),
    **_for("TreeBench", Rule("Overall", 100, "score", suffix="xlsx", columns="answer category target_instances")),
    **_for("RefSpatialDataset", Rule("Overall/Success Rate (%)", 1, "success", columns="mask")),
    **_for("GOBenchDataset", Rule("Overall", leaves_out=True, columns="answer")),
    **_for("VLMsAreBiased", Rule("overall_acc", 100, columns="ground_truth topic")),
    # Weighted F1 over the flags of all questions: it counts wrong yes and wrong no apart, and the points of a question
    # are one number, from which neither follows.
    **_for("VLRMBench", Rule("Overall_F1_weighted", 100, is_mean=False, columns="question answer category")),
    **_for(
        "VLRMBench_MultiSolution",
        Rule("multi_solution_accuracy", 100, group=2, is_whole=True, columns="question category"),
    ),
    **_for("VTCBench", Rule("Overall", 100, packages=("rouge_score",), columns="answer")),
    **_for("ChartBench", Rule("all", group="_", is_whole=True, columns="answer QA_type")),
    **_for(
        "NPMM",
        Rule(
            "AR",
            is_mean=False,
            parts=_graph_parts,
            is_exact=True,
            caption="ratio to the best known solution, wrong ones 0, each at most 100",
            columns="data_source graph ground_truth",
        ),
    ),
    **_for("GroundingME", Rule("ACC@0.5", 100, "acc_50", reads_itself=True, columns="answer width height subtask_l1")),
    **_for("SparBench", Rule("overall", 100, is_mean=False, parts=lambda row: (row["task"],), columns="answer task")),
    **_for("ImageCaptionDataset", Rule("ROUGE_L", 1, caption="ROUGE-L", packages=("pycocoevalcap",), columns="answer")),
    # Films.
    **_for("VideoMME", Rule("", 100, "score", judge="may", caption="right answers", columns="answer")),
    **_for("VideoTT", Rule("", 100, "score", judge="may", caption="right answers", columns="answer capability")),
    **_for(
        "Video_Holmes", Rule("", 100, "score", caption="right answers", by_index=True, columns="answer question_type")
    ),
    **_for(
        "QBench_Video_MCQ", Rule("", 100, "score", caption="right answers", by_index=True, columns="answer dimensions")
    ),
    **_for(
        "TempCompass_MCQ TempCompass_YorN WorldSense MLVU_MCQ",
        Rule("", 100, "score", judge="may", caption="right answers", by_index=True, columns="answer"),
    ),
    **_for(
        "TempCompass_Captioning",
        Rule(
            "", 100, "score", judge="always", caption="right answers about the caption", by_index=True, columns="answer"
        ),
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
            replies="(?:score_accuracy|score_completeness)",
            by_index=True,
            columns="answer scoring_points",
        ),
    ),
    **_for(
        "VideoMMEv2",
        Rule(
            "final_rating/total",
            group=4,
            is_whole=True,
            caption="four questions together: 100 if all are right, less by how many are",
            columns="answer options group_type group_structure level second_head third_head",
        ),
    ),
    **_for(
        "MVUEval",
        Rule("Overall/Accuracy", 100, "correct", caption="right answers", columns="video_paths ground_truth options"),
    ),
    **_for(
        "MovieChat1k",
        Rule(
            "coarse_accuracy/overall",
            100,
            judge="always",
            leaves_out=True,
            takes_model=False,
            settings=(("model", "chatgpt-0125"),),  # the one name that it takes
            caption="right answers",
            replies=r"(?s)\{.*pred.*(?i:yes|no).*score.*\d.*\}",
            otherwise="{'pred': 'no', 'score': 0}",
            columns="answer mode",
        ),
    ),
    **_for(
        "QBench_Video_VQA",
        Rule(
            "",
            100,
            "score",
            full=2,
            judge="always",
            caption="mean of grades of 0 to 2, of 2",
            replies=r"^\W*(?:[Ss]core\W*)?([012])\b",
            otherwise="0",
            columns="answer dimensions",
        ),
    ),
    **_for(
        "MMBenchVideo",
        Rule(
            "coarse_all/Overall",
            100 / 3,
            "score",
            full=3,
            judge="always",
            caption="mean of grades of 0 to 3",
            columns="answer dimensions",
        ),
    ),
    # By a judge.
    **_for(
        "SimpleVQA",
        Rule(
            "is_correct/1",
            100,
            judge="always",
            caption="right answers",
            replies=r'"\s*:\s*(?:\{\s*"conclusion"\s*:\s*)?"\**(?:正确|错误|未尝试)',
            otherwise='{"预测答案0": "错误"}',
            columns="answer",
        ),
    ),
    # Its judge looks at the images, too.
    **_for(
        "MIABench",
        Rule(
            "total_score",
            100,
            judge="always",
            leaves_out=True,
            replies=r"(?i)^[^.]*:\s*\d+/\d+,[^.]*total score:\s*\d+/\d+",
            otherwise="score of component 1: 0/1, total score: 0/10.",
            reads_itself=True,
            columns="component_weight components component_type num_of_component",
        ),
    ),
    **_for(
        "WildVision MMAlignBench",
        Rule(
            "Win Rate",
            100,
            judge="always",
            replies=r"\[\[[AB<>=]+\]\]",
            tries=2,
            reads_itself=True,
            caption="answers better than Claude 3 Sonnet's",
            columns="claude3_sonnet",
        ),
    ),
    **_for(
        "MathCanvas",
        Rule(
            "overall_summary/weighted_accuracy",
            judge="always",
            leaves_out=True,
            is_exact=True,
            otherwise='{"analysis": "", "gt_answers": [""], "pred_answers": [null], "correctness": [false]}',
            columns="answer",
        ),
    ),
    **_for(
        "HiPhODataset",
        Rule(
            "score_rate",
            judge="always",
            leaves_out=True,
            weight=_physics_points,
            suffix="xlsx",
            caption="earned points, of all points",
            replies=r"\d|^\s*\[?(?:Inc|C)orrect\]?\s*$",
            otherwise=r"\boxed{0}",
            columns="answer points",
        ),
    ),
    **_for("MathVision LENS", Rule("Overall/acc", 1, judge="always")),
    **_for("LogicVista", Rule("Overall/acc", 1, "hit", judge="always", columns="answer skill")),
    **_for("OCR_Reasoning MMOral_OPG_OPEN", Rule("Overall/acc", 1, judge="always")),
    **_for("Physics_yale", Rule("Overall/acc", 1, "res", judge="always")),
    **_for(
        "CharXiv",
        Rule(
            "Overall",
            100,
            "score",
            judge="always",
            unread=("extract_answer", "Failed to parse"),
            takes_model=False,
            columns="grading_query inst_category",
        ),
    ),
    **_for("VLMBias", Rule("Overall", 100, "hit", judge="always", unread=("log", "Judge Failed"), columns="answer")),
    **_for("SFE", Rule("Overall", 1, "score", full=9, is_mean=False, judge="always", columns="answer")),
    **_for(
        "CoreCognition",
        Rule(
            "Overall",
            1,
            "correct",
            judge="always",
            replies=r"^\s*(?:[A-Za-z]|(?i:yes|no))\s*$",
            tries=3,
            columns="answer question_type category l2-category",
        ),
    ),
    **_for(
        "MaCBench",
        Rule(
            "Overall",
            100,
            judge="always",
            columns="answer",
            replies=r"\[ANSWER\](?s:.*)\[/ANSWER\]",
            zeros="relative_tolerance",
        ),
    ),
    **_for("MMVMBench", Rule("Overall", 100, judge="always", replies="(?i)yes|no", columns="answer")),
    **_for("MathVerse", Rule("Overall/Overall", 1, "score", judge="always")),
    **_for("MMReason MMEReasoning", Rule("Overall", 1, "score", judge="always")),
    **_for("SeePhys", Rule("Overall/Accuracy (%)", 1, judge="always")),
    **_for("Dynamath", Rule("Average/Overall", 100, "correct", judge="always")),
    **_for(
        "ImageShortQADataset HLEDataset EMMADataset PathVQA_VAL PathVQA_TEST MMESCIDataset AyaVisionBench",
        Rule("Overall", 100, "hit", judge="always", columns="answer"),
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
            columns="category states",
        ),
    ),
    **_for(
        "VLRewardBench",
        Rule(
            "Overall Consistency",
            100,
            "score",
            judge="always",
            replies="(?i)answer [12]",
            reads_itself=True,
            columns="answer category",
        ),
    ),
    **_for(
        "PhyX",
        Rule(
            "Overall Acc",
            100,
            "res",
            judge="always",
            replies="[01]",
            settings=(("valid_type", "LLM"),),
            columns="answer category",
        ),
    ),
    **{
        f"MMRarebench{track}": Rule(
            f"{track.lower()}_judge_score",
            100,
            "score",
            judge="always",
            replies=r"(?i)\b(?:yes|no|[0-9])\b",
            columns="answer",
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
            columns="category caption gpt4_ans",
        ),
    ),
}
"""By VLMEvalKit's class, or by data set where a class reports that one in its own way."""
