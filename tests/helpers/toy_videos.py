"""Toy tables of VLMEvalKit's data sets of videos, in the columns of its own tables, and videos for them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from evaluators.vlmeval.light_import import vlmeval_module

Rows = list[dict[str, Any]]
LETTERS = "ABCD"
FAILURE = "Failed to obtain answer via API."


@dataclass(frozen=True)
class ToyVideos:
    """A toy data set of videos, and how the test reads VLMEvalKit's result for it as a percentage."""

    rows: Callable[[], Rows]
    total: Callable[[Any], float]
    right: Callable[[dict[str, Any]], str] = lambda row: str(row["answer"])
    files: Sequence[str] = ("video0", "video1", "video2")
    right_there: Sequence[str] = ()  # answers that VLMEvalKit alone takes for right ones, or leaves out


def gif(path, frames):
    """A video whose frame i has the red i, so that a frame tells which it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stills = [Image.new("RGB", (16, 8), (i, 9, 9)) for i in range(frames)]
    stills[0].save(path, save_all=True, append_images=stills[1:], duration=40)


def video_rows(count=24, **columns):
    return [
        {
            "index": index,
            "video": f"video{index % 3}",
            "video_path": f"./videos/video{index % 3}.mp4",
            "question": f"<{index}> What happens?",
            "answer": LETTERS[index % 4],
            **{name: value(index) for name, value in columns.items()},
        }
        for index in range(count)
    ]


def options(index):
    return [f"thing {index}", f"other {index}", "none", "all"]


def of_table(module, name):
    """Return a function that takes an index round a table of VLMEvalKit's."""
    return lambda index: (table := [*getattr(vlmeval_module(f"dataset.utils.{module}"), name)])[index % len(table)]


def counted(result):
    hits, count = (sum(each[k] for each in result.values()) for k in (0, 1))
    return 100 * hits / count


KINDS_OF_SPACE = [
    *("object_rel_direction_easy", "object_rel_direction_medium", "object_rel_direction_hard", "object_rel_distance"),
    *("route_planning", "obj_appearance_order", "object_abs_distance", "object_size_estimation", "object_counting"),
    "room_size_estimation",
]

TOY_VIDEOS: dict[str, ToyVideos] = {
    "MVBench_MP4": ToyVideos(
        lambda: video_rows(
            prefix=lambda i: "videos/",
            video=lambda i: f"video{i % 3}.mp4",
            candidates=lambda i: repr(options(i)),
            answer=lambda i: options(i)[i % 4],
            task_type=lambda i: ["Action Antonym", "Moving Count"][i % 2],
        ),
        lambda result: 100 * result["overall"][0] / result["overall"][1],
        right=lambda row: f"({LETTERS[row['index'] % 4]}) {row['answer']}",
        right_there=(FAILURE,),
    ),
    "WorldSense": ToyVideos(
        lambda: video_rows(
            candidates=lambda i: repr([f"{letter}. x{i}" for letter in LETTERS]),
            duration=of_table("worldsense", "DURATIONS"),
            domain=of_table("worldsense", "DOMAINS"),
            sub_category=of_table("worldsense", "SUB_CATEGORIES"),
            task_domain=of_table("worldsense", "TASK_DOMAINS"),
            task_type=of_table("worldsense", "TASK_CATEGORIES"),
            audio_class=lambda i: repr([of_table("worldsense", "AUDIO_CLASSES")(i)]),
        ),
        lambda result: 100 * float(result["overall"]["overall"]),
    ),
    "Video_Holmes": ToyVideos(
        lambda: video_rows(
            candidates=lambda i: repr([f"{letter}. x{i}" for letter in LETTERS]),
            question_type=lambda i: ["SR", "IMC"][i % 2],
        ),
        lambda result: 100 * result["total"]["acc"],
        right=lambda row: f"<think>So.</think> <answer>{row['answer']}</answer>",
    ),
    "Video-TT": ToyVideos(
        lambda: video_rows(
            36,
            question_prompt=lambda i: "\n".join(f"{letter}. x{i}" for letter in LETTERS),
            capability=of_table("videott", "DOMAINS"),
        ),
        lambda result: result["overall"]["score"],
    ),
    "VSI-Bench": ToyVideos(
        lambda: video_rows(
            40,
            question_type=lambda i: KINDS_OF_SPACE[i % 10 if i < 30 else i % 3],
            candidates=lambda i: repr([f"{letter}. x{i}" for letter in LETTERS]),
            answer=lambda i: str(i / 4) if (i % 10 if i < 30 else i % 3) in (6, 7, 8, 9) else LETTERS[i % 4],
        ),
        lambda result: result["overall"],
    ),
    **{
        name: ToyVideos(
            lambda: video_rows(
                video=lambda i: f"video{i % 3}.mp4",
                options=lambda i: repr([f"{letter}. x{i}" for letter in LETTERS]),
                candidates=lambda i: repr([f"x{i}", "y", "z", "none"]),
                question_type=lambda i: "vsr",
                task_type=lambda i: ["abs_dis", "abs_dir"][i % 2],
                category=lambda i: ["counting & existence", "movement prediction & navigation"][i % 2],
                time_start=lambda i: 0.5,
                time_end=lambda i: 2.0,
            ),
            lambda result, total=total: result[total],
        )
        for name, total in (
            ("VsiSuperRecall_10mins", "overall"),
            ("DSRBench", "overall"),
            ("STI-Bench", "overall"),
            ("SiteBenchVideo", "overall_accuracy"),
        )
    },
    "VsiSuperCount_10mins": ToyVideos(
        lambda: video_rows(
            video=lambda i: f"video{i % 3}.mp4",
            question_type=lambda i: ["10mins", "10mins_loop"][i % 5 == 0],
            answer=lambda i: str(1 + i / 4),
        ),
        lambda result: result["overall"],
    ),
    "MLVU_MCQ": ToyVideos(
        lambda: video_rows(
            answer=lambda i: options(i)[i % 4],
            candidates=lambda i: repr(options(i)),
            prefix=lambda i: "./videos",
            video=lambda i: f"video{i % 3}.mp4",
            task_type=lambda i: ["plotQA", "ego"][i % 2],
        ),
        counted,
        right=lambda row: f"({LETTERS[row['index'] % 4]}) {row['answer']}",
    ),
    "QBench_Video_MCQ": ToyVideos(
        lambda: video_rows(
            answer=lambda i: f"{LETTERS[i % 4]}. thing {i}",
            dimensions=lambda i: repr([["Technical", "Temporal"][i % 2], "x"]),
        ),
        counted,
    ),
    "LongVideoBench": ToyVideos(
        lambda: video_rows(
            34,
            video_path=lambda i: f"./videos/video{i % 3}.gif",
            candidates=lambda i: repr(options(i)),
            correct_choice=lambda i: i % 4,
            duration_group=of_table("longvideobench", "DURATIONS"),
            question_category=of_table("longvideobench", "TASK_CATEGORIES"),
            subtitle_path=lambda i: f"video{i % 3}_en.json",
            starting_timestamp_for_subtitles=lambda i: 0,
            duration=lambda i: 8.5,
        ),
        lambda result: 100 * float(result["overall"]["overall"]),
    ),
    "VideoMMMU": ToyVideos(
        lambda: [
            {
                "index": i,
                "id": f"dev_Art_{i}",
                "category": ["Perception", "Comprehension", "Adaptation"][i % 3],
                "question": row["question"],
                "options": json.dumps(options(i)),
                "answer": ["3.50", "rodent", "1,000"][i // 6 % 3] if i % 6 == 2 else row["answer"],
                "question_type": "open" if i % 6 == 2 else "multiple-choice",
                "video": f"videos/{row['video']}.gif",
                "image": f"images/picture{i % 2}.png" if i % 3 == 2 else "",
            }
            for i, row in enumerate(video_rows(36))
        ],
        lambda result: float(result["Overall"]["acc"]),
        right=lambda row: f"So. Answer: {row['answer']}",
        right_there=(" ", "\r\n", "NULL"),
    ),
    "V2P-Bench": ToyVideos(
        lambda: video_rows(
            video_path=lambda i: f"Toy/video{i % 3}.gif",
            video=lambda i: f"Toy/video{i % 3}.gif",
            frame_path=lambda i: f"Toy/picture{i % 2}.png",
            dimension=lambda i: [1, 2, 7, 14][i % 4],
            duration=lambda i: [100, 300, 5000][i % 3],
        ),
        lambda folder: 100 * float((folder / "m_score.txt").read_text().rpartition("Accuracy:")[2]),
        right=lambda row: f"The best answer is {row['answer']}",
        files=("Toy/video0", "Toy/video1", "Toy/video2"),
    ),
    "Video-MME-v2": ToyVideos(
        lambda: video_rows(
            48,
            video=lambda i: i // 4 % 3,
            video_path=lambda i: f"./video/{i // 4 % 3:03}.mp4",
            options=lambda i: "\n".join(f"{letter}. x{i}" for letter in "ABCDEFGH"),
            answer=lambda i: "ABCDEFGH"[i % 7],
            group_type=lambda i: ["relevance", "logic"][i // 4 % 2],
            group_structure=lambda i: ["[1, 2, 3, 4]", "[1, [2, 3], 4]", "[[1, 2], 3, 4]"][i // 8 % 3],
            level=lambda i: 1 + i // 4 % 3,
            second_head=lambda i: ["one", "two"][i // 4 % 2],
            third_head=lambda i: "three",
        ),
        lambda result: result["final_rating"]["total"],
        files=[f"{number:03}" for number in range(3)],
    ),
    "MVU-Eval": ToyVideos(
        lambda: [
            {
                "index": row["index"],
                "video_paths": ";".join(f"video{(row['index'] + k) % 3}.mp4" for k in range(1 + row["index"] % 3)),
                "question": row["question"],
                "options": json.dumps([f"{letter}. x{row['index']}" for letter in LETTERS]),
                "ground_truth": row["answer"],
                "task": ["Counting", "OR"][row["index"] % 2],
            }
            for row in video_rows()
        ],
        lambda result: 100 * float(result["Overall"]["Accuracy"]),
        right=lambda row: f"Answer: {row['ground_truth']}",
    ),
    "MovieChat1k": ToyVideos(
        lambda: video_rows(answer=lambda i: f"because {i}", mode=lambda i: ["global", "breakpoint"][i % 2]),
        lambda result: 100 * float(result["coarse_accuracy"]["overall"]),
    ),
    "QBench_Video_VQA": ToyVideos(
        lambda: video_rows(
            answer=lambda i: f"because {i}", dimensions=lambda i: repr([["Technical", "Temporal"][i % 2], "x"])
        ),
        lambda result: counted(result) / 2,
    ),
    "MLVU_OpenEnded": ToyVideos(
        lambda: video_rows(
            answer=lambda i: f"because {i}",
            prefix=lambda i: "./videos",
            video=lambda i: f"video{i % 3}.mp4",
            task_type=lambda i: ["sub_scene", "summary"][i % 2],
            scoring_points=lambda i: f"because {i}",
        ),
        lambda result: counted(result) / 10,
    ),
}


def grade_of_videos(prompt):
    """What a judge says of a summary, or of an answer's points, in the form that MLVU expects."""
    if "'pred' and 'score'" in prompt:
        return f"{{'pred': '{['yes', 'no'][len(prompt) % 2]}', 'score': {len(prompt) % 6}}}"
    if "quality evaluation" in prompt or prompt.rstrip().endswith("Score:'"):
        return f"Score: {len(prompt) % 3}"
    points = len(prompt) % 5 + 1
    names = ("accuracy", "relevance") if "Scoring Points" in prompt else ("completeness", "reliability")
    return f"Well. {{'score_{names[0]}': {points}, 'score_{names[1]}': 5, 'total_score': {points + 5}}}"
