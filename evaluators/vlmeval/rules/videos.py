"""Rules for videos."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from evaluators.vlmeval.rule import Call, Questions, Replies, Rule, for_classes
from evaluators.vlmeval.rules.spatial import HITS, KINDS, NUMBERS

__all__ = ["VIDEOS"]


def _comparable(found: dict[str, Any]) -> dict[str, Any]:
    """Return what was found in an answer: nothing in an empty one, which would be left out of the total.

    Nor what does not equal itself, the number that `nan` is, at which VLMEvalKit would stop.
    """
    parsed = found["parsed_pred"]
    if parsed == "API Error":
        parsed = []
    elif isinstance(parsed, list):
        parsed = [value for value in parsed if value == value]
    return {**found, "parsed_pred": parsed}


VIDEOS: Mapping[str, Rule] = {
    "VsiBench": replace(KINDS, questions=Questions(frames="ends")),
    **for_classes(
        "VsiSuperRecall DSRBench",
        Rule(
            "overall",
            points_from=HITS,
            questions=Questions(frames="ends"),
            caption="right answers",
            columns="index answer options",
        ),
    ),
    "STIBench": Rule(
        "overall",
        points_from=HITS,
        questions=Questions(frames="ends"),
        caption="right answers",
        columns="index answer options task_type time_start time_end",
    ),
    "VsiSuperCount": Rule(
        "overall",
        parts=lambda row: (str(row["question_type"]),),
        points_from=NUMBERS,
        # Others are asked while a video runs.
        questions=Questions(frames="ends", is_asked=lambda row: "_streaming" not in str(row["question_type"])),
        caption="mean of the kinds of questions: mean relative accuracy of numbers",
        columns="index answer question_type",
    ),
    "SiteBenchVideo": Rule(
        "overall_accuracy",
        points_from=HITS,
        questions=Questions(frames="ends"),
        caption="right answers",
        columns="index answer candidates",
    ),
    "VideoMME": Rule("", 100, "score", judge="may", caption="right answers", columns="answer"),
    # It reads its table back, in which a list that it found in an answer is a text, of which no letter is right.
    "VideoMMMU": Rule(
        "",
        points_from={
            "dataset.videommmu.evaluate_mmmu": lambda rows, result: [result[0][row["id"]] == "Correct" for row in rows]
        },
        call=Call(mended={"dataset.videommmu.process_results": _comparable}, keeps_tables=True),
        caption="right answers",
        columns="id category answer options question_type",
    ),
    # The other way round than it says: told to use subtitles, it shows frames alone.
    "LongVideoBench": Rule(
        "",
        100,
        "score",
        judge="may",
        caption="right answers",
        call=Call(by_index=True),
        questions=Questions(built_with=(("use_subtitle", True),)),
        columns="video_path correct_choice candidates duration_group question_category",
    ),
    "V2PBench": Rule(
        "",
        100,
        "score",
        call=Call(suffix="xlsx", by_index=True),
        caption="right answers",
        columns="index video_path frame_path answer dimension duration",
    ),
    "VideoTT": Rule("", 100, "score", judge="may", caption="right answers", columns="answer capability"),
    "Video_Holmes": Rule(
        "", 100, "score", caption="right answers", call=Call(by_index=True), columns="answer question_type"
    ),
    "QBench_Video_MCQ": Rule(
        "", 100, "score", caption="right answers", call=Call(by_index=True), columns="answer dimensions"
    ),
    **for_classes(
        "TempCompass_MCQ TempCompass_YorN WorldSense MLVU_MCQ",
        Rule("", 100, "score", judge="may", caption="right answers", call=Call(by_index=True), columns="answer"),
    ),
    "TempCompass_Captioning": Rule(
        "",
        100,
        "score",
        judge="always",
        caption="right answers about the caption",
        call=Call(by_index=True),
        columns="answer",
    ),
    "MLVU_OpenEnded": Rule(
        "",
        100,
        "score",
        full=10,
        judge="always",
        caption="mean of grades of 2 to 10, of 10",
        replies=Replies("(?:score_accuracy|score_completeness)"),
        call=Call(by_index=True),
        columns="answer scoring_points",
    ),
    "MVBench_MP4": Rule(
        "",
        100,
        "score",
        judge="may",
        questions=Questions(frames="middles"),
        caption="right answers",
        call=Call(by_index=True),
        columns="answer candidates prefix task_type",
    ),
    "VideoMMEv2": Rule(
        "final_rating/total",
        group=4,
        is_whole=True,
        caption="four questions together: 100 if all are right, less by how many are",
        columns="answer options group_type group_structure level second_head third_head",
    ),
    "MVUEval": Rule(
        "Overall/Accuracy", 100, "correct", caption="right answers", columns="video_paths ground_truth options"
    ),
    "MovieChat1k": Rule(
        "coarse_accuracy/overall",
        100,
        judge="always",
        leaves_out=True,
        call=Call(takes_model=False, settings=(("model", "chatgpt-0125"),)),  # the one name that it takes
        caption="right answers",
        replies=Replies(r"(?s)\{.*pred.*(?i:yes|no).*score.*\d.*\}", otherwise="{'pred': 'no', 'score': 0}"),
        columns="answer mode",
    ),
    "QBench_Video_VQA": Rule(
        "",
        100,
        "score",
        full=2,
        judge="always",
        caption="mean of grades of 0 to 2, of 2",
        replies=Replies(r"^\W*(?:[Ss]core\W*)?([012])\b", otherwise="0"),
        columns="answer dimensions",
    ),
    "MMBenchVideo": Rule(
        "coarse_all/Overall",
        100 / 3,
        "score",
        full=3,
        judge="always",
        caption="mean of grades of 0 to 3",
        columns="answer dimensions",
    ),
}
"""By VLMEvalKit's class, or by data set."""
