"""Data sets of videos, by VLMEvalKit's names for so many frames of each; a data set's own name means a default."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from evaluators.vlmeval.benchmarks import CHOICE, OPEN, YES_NO, VLMEvalBenchmark
from evaluators.vlmeval.library_index import module_of, video_settings
from evaluators.vlmeval.rules import RULES
from soup.evaluation.api import BenchmarkInfo

__all__ = ["videos"]

KINDS = {
    "DSRBench": CHOICE,
    "LongVideoBench": CHOICE,
    "MLVU_MCQ": CHOICE,
    "MLVU_OpenEnded": OPEN,
    "MMBenchVideo": OPEN,
    "MVBench_MP4": CHOICE,
    "MVUEval": CHOICE,
    "MovieChat1k": OPEN,
    "QBench_Video_MCQ": CHOICE,
    "QBench_Video_VQA": OPEN,
    "STIBench": CHOICE,
    "SiteBenchVideo": CHOICE,
    "TempCompass_Captioning": "captions",
    "TempCompass_MCQ": CHOICE,
    "TempCompass_YorN": YES_NO,
    "V2PBench": CHOICE,
    "VideoMME": CHOICE,
    "VideoMMEv2": CHOICE,
    "VideoMMMU": OPEN,
    "VideoTT": CHOICE,
    "Video_Holmes": CHOICE,
    "VsiBench": OPEN,
    "VsiSuperCount": OPEN,
    "VsiSuperRecall": CHOICE,
    "WorldSense": CHOICE,
}
"""What the questions of a class are; all classes of videos that are scored."""
SPATIAL = (16, 32, 64, 128)
RECALLED = tuple(f"VsiSuperRecall_{minutes}mins" for minutes in (10, 30, 60, 120, 240))
COUNTED = tuple(f"VsiSuperCount_{minutes}mins" for minutes in (10, 30, 60, 120))
UNWRITTEN: Mapping[str, tuple[tuple[str, ...], tuple[int, ...]]] = {
    **{
        name: ((name,), (8, 64))
        for name in (
            *("TempCompass_MCQ", "TempCompass_YorN", "TempCompass_Captioning"),
            *("MLVU_MCQ", "MLVU_OpenEnded", "QBench_Video_MCQ", "QBench_Video_VQA", "MovieChat1k"),
        )
    },
    "VsiBench": (("VSI-Bench", "VSI-Bench-Debiased"), SPATIAL),
    "VsiSuperRecall": (RECALLED, SPATIAL),
    "VsiSuperCount": (COUNTED, SPATIAL),
    "DSRBench": (("DSRBench",), (30, 32, 64)),
    "STIBench": (("STI-Bench",), (30, 32, 64)),
}
"""By class, data sets and numbers of frames whose names VLMEvalKit has not, or makes up by code."""
DEFAULT_FRAMES = 8


@cache
def videos() -> dict[str, VLMEvalBenchmark]:
    """Return the data sets of videos that are scored, by name."""
    written = [
        (setting.name, setting.class_name, setting.data_set, setting.frames)
        for setting in video_settings()
        if setting.class_name in KINDS and setting.frames
    ]
    unwritten = [
        (f"{data_set}_{frames}frame", class_name, data_set, frames)
        for class_name, (data_sets, counts) in UNWRITTEN.items()
        for data_set in data_sets
        for frames in counts
    ]
    entries = {}
    for name, class_name, data_set, frames in (*written, *unwritten):
        for each, count in ((name, frames), (data_set, DEFAULT_FRAMES)):
            entries[each] = _entry(each, data_set, class_name, count)
    return entries


def _entry(name: str, data_set: str, class_name: str, frames: int) -> VLMEvalBenchmark:
    rule = RULES[class_name]
    info = BenchmarkInfo(
        f"videos, {frames} frames",
        data_set,
        None,
        rule.description,
        judge=rule.judge == "always",
        kind=KINDS[class_name],
    )
    columns = tuple(rule.columns.split())
    return VLMEvalBenchmark(
        name, info, module_of(class_name), class_name, columns, "evaluate", rule=rule, frames=frames
    )
