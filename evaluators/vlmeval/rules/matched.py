"""Rules for images of which VLMEvalKit compares answers with references, most of them by matching alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from evaluators.vlmeval.library_types import Row
from evaluators.vlmeval.light_import import vlmeval_module
from evaluators.vlmeval.rule import Call, Questions, Rule, for_classes
from evaluators.vlmeval.rules.spatial import HITS, KINDS, POINT_PARSER

__all__ = ["MATCHED"]


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


def _pairs(row: Row) -> str:
    """Return what two questions of a pair have in common; questions of other categories are no pairs."""
    index = str(row["index"])
    return index.rpartition("_")[0] if row["category"] in ("gc-mat", "gc-trk", "oc-cpr", "pc-cpr") else index


def _right_of_four(groups: Any, _: Any) -> list[bool]:
    """Return whether each of a group's four answers is right: yes to a question on its own picture, no on the other."""
    truths = {"q0_i0": 1, "q0_i1": 0, "q1_i0": 0, "q1_i1": 1}
    return [group[name] == truth for group in groups.values() for name, truth in truths.items()]


def _solved_in_steps(rows: Sequence[Row], points: Sequence[float]) -> float:
    """Return 1 for a problem of which all steps are right and the whole is, a half where the whole is not, or 0."""
    by_key = dict(zip((str(row["key"]) for row in rows), points, strict=True))
    steps = [point for key, point in by_key.items() if not key.endswith("multi")]
    whole = [point for key, point in by_key.items() if key.endswith("multi")]
    return min(steps, default=0.0) * (1 + min(whole, default=0.0)) / 2


def _answer_kinds(row: Row) -> tuple[str, ...]:
    """Return the kind of an answer, of which texts are two."""
    return ("yes or no" if row["answer_type"] == "str" and row["answer"] in ("yes", "no") else str(row["answer_type"]),)


OLYMPIADS = tuple(
    f"OE_{shown}_{subject}"
    for shown in ("MM", "TO")
    for subject in ("maths_en_COMP", "maths_zh_CEE", "maths_zh_COMP", "physics_en_COMP", "physics_zh_CEE")
)
"""OlympiadBench's kinds of questions, with pictures and without, by whose numbers VLMEvalKit divides."""

MATCHED: Mapping[str, Rule] = {
    "MMVP": Rule("Overall", 100, points="hit", judge="may", group=2, is_whole=True, columns="answer"),
    "MMSci": Rule("Overall/Avg", 100, "hit", is_mean=False, judge="may", columns="answer"),
    "CVBench": Rule("Overall", 100, "hit", is_mean=False, parts=_sources, judge="may", columns="question answer split"),
    "HRBenchDataset": Rule(
        "Average&all/accuracy", 100, "hit", is_mean=False, judge="may", columns="answer category cycle_category"
    ),
    "VMCBenchDataset": Rule("Overall", 1, "hit", columns="answer category"),
    "_3DSRBench": Rule(
        "vanilla/Overall",
        100,
        "hit",
        judge="may",
        group=lambda row: str(row["qid"])[:8],  # of a question, its rotations and those of the mirrored picture
        caption="right options, each rotation by itself",
        columns="answer qid",
    ),
    "MMERealWorld": Rule("Overall", 100, "score", columns="answer category l2-category"),
    "CRPE": Rule("total", 100, group=4, is_whole=True, columns="answer category"),
    "MMNIAH": Rule("total", 100),
    "MTVQADataset": Rule("Average", 1, columns="answer category"),
    "TableVQABench": Rule(
        "*average_scores",
        1,
        parts=lambda row: (row["split"],),
        points_from=dict.fromkeys(
            (f"dataset.utils.tablevqabench.evaluate_{name}" for name in ("fintabnet", "tabfact", "wtq")),
            lambda rows, _: [row["scores"]["accuracy"] or 0 for row in rows],
        ),
        caption="mean of the four parts' means",
        columns="answer split",
    ),
    "CountBenchQA": Rule("accuracy", 1, columns="answer"),
    "ZEROBench": Rule("accuracy", 100, columns="answers"),
    "TallyQA": Rule("TallyQA", 100, columns="answer"),
    "VLMBlind": Rule(
        "*",
        100,
        is_mean=False,
        parts=lambda row: (row["task"],),
        caption="mean of the tasks' shares of right answers",
        columns="task answers",
    ),
    "VLM2Bench": Rule(
        "*",
        group=_pairs,
        is_whole=True,
        parts=lambda row: (str(row["category"]),),
        caption="mean of the categories: pairs of which both are right, near counts, right options",
        columns="answer category",
    ),
    "Omni3DBench": Rule(
        "*",
        100,
        parts=_answer_kinds,
        caption="mean of four kinds: yes or no, words, counts, and mean relative accuracy of other numbers",
        columns="answer answer_type",
    ),
    # VLMEvalKit divides by the number of each category.
    "VisuLogic": Rule("Overall/acc", spread={"category": ()}, columns="answer category"),
    "PuzzleVQA": Rule("overall/acc", spread={"category": ()}, columns="answer category"),
    "VisualPuzzles": Rule(
        "overall/acc", spread={"category": (), "difficulty": ()}, columns="answer category difficulty"
    ),
    "XLRSBench": Rule("Overall micro", 100, judge="may"),
    "OmniEarthMCQBench": Rule("Overall micro", 100),
    "VisFactor": Rule(
        "ALL",
        100,
        is_mean=False,
        group=("category_id", "eval_index"),
        is_whole=True,
        parts=lambda row: (str(row["category_id"]),),
    ),
    "WildDocBenchmark": Rule(
        "WildDoc&Overall/Score",
        1,
        parts=_documents,
        points_from={"dataset.utils.vqa_eval.hit_calculate": lambda _, hits: hits},
        caption="mean of DocVQA, ChartQA and TableVQA, of that the mean of its four parts",
        columns="answer",
    ),
    "MMOral_OPG_CLOSED": Rule("Overall/acc", 1),
    **for_classes("SIUOMCQDataset M3oralBenchDataset", Rule("Overall", 1, "correct", columns="answer")),
    "MSSBenchDataset": Rule(
        "total_acc",
        points="correct",
        parts=lambda row: (str(row["answer"]),),
        judge="may",
        caption="mean of what is to be answered and what is to be refused",
        columns="answer",
    ),
    "AffordanceDataset": Rule(
        "*match",
        100,
        judge="may",
        call=Call(suffix="xlsx"),
        stops=True,
        caption="lists of the right options and no other",
        columns="question answer",
    ),
    # Of two questions on a pair of graphs each is right if both are.
    "MMHELIX": Rule(
        "",
        points="judge",
        call=Call(keeps_tables=True),
        stops=True,
        group=lambda row: str(row["question_text" if row["category"] == "graph_isomorphism" else "index"]),
        is_whole=True,
        parts=lambda row: (str(row["category"]),),
        caption="mean of the kinds of problems",
        columns="image_path answer category metric_info initial_state question_text",
    ),
    "TDBench": Rule("Overall", 100, "hit", judge="may", columns="answer"),
    "TDBenchGrounding": Rule("Average Centroid Containment", 100, "hit"),
    "OlympiadBench": Rule(
        "AVG",
        1,
        "score",
        call=Call(packages=("timeout_decorator", "sympy", "antlr4")),
        spread={"source": OLYMPIADS},
        columns="source answer_type final_answer error is_multiple_answer unit",
    ),
    "MMMUProDataset": Rule("Overall", 100, "hit", judge="may", columns="A B answer"),
    "Spatial457": Rule("score", 100),
    "OCRBench_v2": Rule(
        "English Overall Score+Chinese Overall Score",
        100,
        parts=_abilities,
        points_from={
            "dataset.utils.ocrbrnch_v2_eval.process_predictions": lambda rows, _: [row["score"] for row in rows]
        },
        leaves_out=True,
        call=Call(
            packages=("apted", "distance", "editdistance", "ipdb", "jieba", "Levenshtein", "lxml", "nltk", "zss")
        ),
        caption="mean of English and Chinese, of each the mean of its abilities",
        columns="answer category eval bbox content",
    ),
    "CCOCRDataset": Rule(
        "total",
        100,
        parts=_texts_to_read,
        call=Call(packages=("apted", "json_repair", "lxml", "nltk", "zss")),
        caption="mean of the kinds of tasks, of each the mean of its sets",
        columns="answer category l2-category split image_name",
    ),
    "RefCOCODataset": Rule(
        "Average/Precision@1",
        points="hit",
        parts=lambda row: (str(row["split"]),),
        caption="mean of the splits' Precision@1",
    ),
    "ERQADataset": Rule("Overall/Accuracy (%)", 1, "correct", columns="answer category"),
    **for_classes(
        "MindCubeBench EmbSpatialBench ViewSpatialBench MMSIBench SpatialVizBench OmniSpatialBench ERQABench ERIQBench",
        Rule("overall", points_from=HITS, columns="answer"),
    ),
    "SPBench": replace(KINDS, columns="answer question_type candidates"),
    **for_classes(
        "StareBench SiteBenchImage",
        Rule("overall_accuracy", points_from=HITS, caption="right answers", columns="answer"),
    ),
    "NaturalBenchDataset": Rule(
        "G_Acc",
        100,
        group=4,
        is_whole=True,
        call=Call(rows=7600),
        points_from={"dataset.utils.naturalbench.get_scores": _right_of_four},
        caption="groups of two questions on two pictures of which all four answers are right",
        columns="answer type",
    ),
    "WeMath": Rule(
        "Score (Strict)",
        group=lambda row: f"{row['key'].partition('_')[0]} {row['ID']}",
        is_whole=True,
        whole=_solved_in_steps,
        points_from={"dataset.utils.wemath.load_and_process_data": lambda _, rows: [*rows["joker"]]},
        judge="may",
        caption="Score (Strict): problems solved with all of their steps, half for the steps alone",
        columns="answer ID key",
    ),
    "M4Bench": Rule(
        "acc", points="score", caption="right options", columns="query response image1 image1_path image2 image2_path"
    ),
    "GSM8KVDataset": Rule(
        "Overall",
        100,
        "is_correct",
        caption="right answers",
        columns="answer modify_scene_related_question",
        questions=Questions(variables=(("GSM8K_V_MODE", ("visual_implicit", "visual_explicit")),)),
    ),
    "DA2K": Rule("overall", 100, "score"),
    "ChartQAPro": Rule("Overall/1", 100, caption="Overall x 100", call=Call(packages=("anls",)), columns="answer year"),
    "TopViewRS": Rule("Overall", 100, "hit", is_mean=False, judge="may", columns="answer"),
    **for_classes(
        "ScreenSpot ScreenSpotV2",
        Rule(
            "Overall_Accuracy",
            1,
            caption="clicks inside the element's box",
            columns="image_path question bbox data_type data_source",
        ),
    ),
    **for_classes(
        "ScreenSpot_Pro OSWorld_G VBGD",
        Rule(
            "Overall_Accuracy",
            1,
            caption="clicks inside the element's box",
            columns="image_path question bbox category ui_type application",
            questions=Questions(numbers_rows=True),
        ),
    ),
    "RoboSpatialBench": Rule(
        "accuracy", 1, "is_correct", call=Call(completed=POINT_PARSER), columns="question answer category"
    ),
    "RefSpatialBench": Rule(
        "overall", 100, "score", call=Call(completed=POINT_PARSER), columns="question category mask_path"
    ),
    "CMMMU": Rule(
        "总准确率",
        100,
        spread={"category": ("技术与工程", "科学", "健康与医学", "商业", "艺术与设计", "人文社会科学")},
        caption="right answers, each at most 100",
        columns="question answer category type option1 option2 option3 option4",
    ),
    "MedqbenchMCQDataset": Rule("overall_accuracy", 100, call=Call(suffix="xlsx"), columns="question A B answer"),
    "MedQDEGBenchDataset": Rule("Overall", 100, columns="question A B answer"),
    "TreeBench": Rule("Overall", 100, "score", call=Call(suffix="xlsx"), columns="answer category target_instances"),
    "RefSpatialDataset": Rule("Overall/Success Rate (%)", 1, "success", columns="mask"),
    "GOBenchDataset": Rule("Overall", leaves_out=True, columns="answer"),
    "VLMsAreBiased": Rule("overall_acc", 100, columns="ground_truth topic"),
    # Weighted F1 over the flags of all questions: it counts wrong yes and wrong no apart, and the points of a question
    # are one number, from which neither follows.
    "VLRMBench": Rule("Overall_F1_weighted", 100, is_mean=False, columns="question answer category"),
    "VLRMBench_MultiSolution": Rule(
        "multi_solution_accuracy", 100, group=2, is_whole=True, columns="question category"
    ),
    "VLRMBench_Foresight": Rule(
        "foresight_accuracy", 100, columns="question category task_gt", call=Call(plain="task_gt")
    ),
    "VTCBench": Rule("Overall", 100, call=Call(packages=("rouge_score",)), columns="answer"),
    "ChartBench": Rule("all", group="_", is_whole=True, columns="answer QA_type"),
    "NPMM": Rule(
        "AR",
        is_mean=False,
        parts=_graph_parts,
        call=Call(is_exact=True),
        caption="ratio to the best known solution, wrong ones 0, each at most 100",
        columns="data_source graph ground_truth",
    ),
    "GroundingME": Rule(
        "ACC@0.5", 100, "acc_50", call=Call(reads_itself=True), columns="answer width height subtask_l1"
    ),
    "SparBench": Rule("overall", 100, is_mean=False, parts=lambda row: (row["task"],), columns="answer task"),
    "ImageCaptionDataset": Rule(
        "ROUGE_L", 1, caption="ROUGE-L", call=Call(packages=("pycocoevalcap",)), columns="answer"
    ),
}
"""By VLMEvalKit's class, or by data set."""
