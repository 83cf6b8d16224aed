"""VLMEvalKit's data sets of videos: frames of a folder's videos, its own prompts and its own score."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import warnings
from dataclasses import replace

import pandas
import pytest
import torch
from PIL import Image

from evaluators.answering.prompts import Prompter
from evaluators.vlmeval.catalog import known_benchmark
from evaluators.vlmeval.data_sets import data_file, open_data_set
from evaluators.vlmeval.harness import VLMEval
from evaluators.vlmeval.image_files import ImageFiles
from evaluators.vlmeval.light_import import vlmeval_module
from evaluators.vlmeval.scoring import plain_part
from evaluators.vlmeval.videos import VideoFolder, vlmeval_frame_indices
from finetune.points.tiny import tiny_processor
from finetune.points.video import Video
from soup.errors import EvaluatorError
from soup.evaluation.api import Benchmark, Split
from soup.evaluation.settings import EvalSettings
from tests.evaluators.vlmeval.test_data_sets import StandIn, without_excel
from tests.helpers.scripted_models import JudgeServer, scripted
from tests.helpers.toy_test_sets import BITS, write_tsv
from tests.helpers.toy_videos import FAILURE, TOY_VIDEOS, gif, grade_of_videos

# It answers what answers.json says of the question's marker, and writes down the red of each frame that it is shown.
WATCHER = """
import json, re
from pathlib import Path
from PIL import Image

class Watcher:
    def __init__(self, directory):
        self.answers = json.loads((Path(directory) / "answers.json").read_text())
        self.seen = Path(__file__).with_suffix(".seen")

    def answer(self, prompts):
        texts = ["".join(part["value"] for part in prompt if part["type"] == "text") for prompt in prompts]
        shown = [[part["value"] for part in prompt if part["type"] == "image"] for prompt in prompts]
        reds = [[Image.open(path).getpixel((0, 0))[0] for path in paths] for paths in shown]
        with self.seen.open("a") as file:
            file.writelines(json.dumps(each) + "\\n" for each in reds)
        return [self.answers[re.search("<([0-9]+)>", text).group(1)] for text in texts]
"""


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.setenv("LMUData", str(tmp_path / "LMUData"))
    file = tmp_path / "model.py"
    file.write_text(WATCHER)
    return EvalSettings(model=f"{file}:Watcher", batch_size=3)


def mp4(path, frames):
    import av
    import numpy as np

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for i in range(frames):
            picture = np.full((32, 32, 3), (i * 8, 9, 9), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def temp_compass(tmp_path):
    """Multiple choice about videos, in the columns that VLMEvalKit's own table has."""
    rows = [
        {
            "task_type": ["multi-choice", "caption_matching"][index % 2],
            "prefix": "./videos",
            "suffix": ".mp4",
            "video": f"video{index % 3}",
            "question": f"<{index}> What happens?",
            "answer": f"{'AB'[index % 2]}. thing {index}" if index % 2 == 0 else f"Caption B: thing {index}",
            "dim": ["action", "speed"][index // 2 % 2],
            "candidates": repr(["A. thing", "B. other"] if index % 2 == 0 else ["Caption A: this", "Caption B: that"]),
            "index": index,
        }
        for index in range(12)
    ]
    folder = tmp_path / "LMUData" / "TempCompass_MCQ"
    for number in range(3):
        gif(folder / "videos" / f"video{number}.gif", 20 + number)
    write_tsv(folder / "TempCompass_MCQ.tsv", rows)
    return rows


def mmbench_video(tmp_path):
    """Open questions about videos."""
    rows = [
        {
            "index": index,
            "video": f"clip{index % 2}",
            "video_path": f"./video/clip{index % 2}.mp4",
            "question": f"<{index}> Why?",
            "answer": f"because {index}",
            "dimensions": repr([ASPECTS[index % len(ASPECTS)]]),
        }
        for index in range(26)
    ]
    folder = tmp_path / "LMUData" / "MMBench-Video"
    for number in range(2):
        mp4(folder / "video" / f"clip{number}.mp4", 24)
    write_tsv(folder / "MMBench-Video.tsv", rows)
    return rows


ASPECTS = [
    "Video Topic",
    "OCR",
    "Spatial Relationship",
    "Hallucination",
    "Mathematical Calculation",
    "Function Reasoning",
]
ASPECTS += [
    "Natural Relation",
    "Common Sense Reasoning",
    "Future Prediction",
    "Counting",
    "Human Interaction",
    "Video Style",
]


def evaluate_plainly(name, rows, answers, directory, monkeypatch, *, keeps_tables=True, **judge):
    """VLMEvalKit's own `evaluate` on a file of predictions; its classes need no data set for it."""
    entry = known_benchmark(Benchmark(name, "vlmeval", name))
    with monkeypatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setenv("PRED_FORMAT", "tsv")
        module = vlmeval_module(entry.module)
        patch.setattr(module, "build_judge", StandInOfGrades, raising=False)
        if entry.rule.call.keeps_tables and keeps_tables:
            place = module.get_intermediate_file_path
            pickled = {"_score": "pkl"}  # VLMEvalKit's own table would have texts in place of lists
            patch.setattr(
                module,
                "get_intermediate_file_path",
                lambda file, suffix, kind=None: place(file, suffix, kind or pickled.get(suffix)),
            )
        predictions = [answers[str(row["index"])] for row in rows]
        directory.mkdir()
        without_excel(patch)
        file = write_tsv(
            directory / f"m.{entry.rule.call.suffix}",
            [{**row, "prediction": p} for row, p in zip(rows, predictions, strict=True)],
        )
        data_set = object.__new__(entry.data_set_class())  # without its way to the videos
        data_set.data, data_set.duration, data_set.dataset_name = pandas.DataFrame(rows), "", name
        result = data_set.evaluate(str(file), **judge)
    return directory if result is None else result  # which stands in a file then


def grade(prompt, temperature=0):
    return str(sum(map(ord, prompt.rpartition("Candidate answer: ")[2])) % 4)


class StandInOfGrades(StandIn):
    def generate(self, prompt, temperature=0):
        return grade(prompt)


def test_multiple_choice_about_videos_is_scored_as_vlmeval_does(settings, tmp_path, monkeypatch):
    rows = temp_compass(tmp_path)
    given = [
        "A",
        "Caption B: thing 1",
        "nothing",
        "Caption A",
        "B",
        "Caption B: x",
        "A. thing 6",
        "...",
        "C",
        "Option 1",
        "A",
        "b",
    ]
    answers = {str(row["index"]): text for row, text in zip(rows, given, strict=True)}
    score = VLMEval(settings).evaluate(scripted(tmp_path, answers), of("TempCompass_MCQ"))
    theirs = evaluate_plainly("TempCompass_MCQ", rows, answers, tmp_path / "o", monkeypatch)
    hits, count = (sum(each[k] for each in theirs.values()) for k in (0, 1))
    assert count == score.n == 12
    assert 0 < score.value < 100
    assert score.value == pytest.approx(100 * hits / count)


def put_pictures(folder, rows):
    names = [row["image"] for row in rows if row.get("image")]
    names += [f"frames/{row['frame_path']}" for row in rows if row.get("frame_path")]
    for number, name in enumerate(dict.fromkeys(names)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 8), (100 + number, 9, 9)).save(folder / name)


def put_videos(tmp_path, name):
    toy = TOY_VIDEOS[name]
    rows = toy.rows()
    for number, video in enumerate(toy.files):
        gif(tmp_path / "LMUData" / name / "videos" / f"{video}.gif", 20 + number)
    put_pictures(tmp_path / "LMUData" / name, rows)
    write_tsv(tmp_path / "LMUData" / name / f"{name}.tsv", rows)
    return rows


@pytest.mark.parametrize("kind", [pytest.param("all right", marks=pytest.mark.slow), "half right"])
@pytest.mark.parametrize("name", TOY_VIDEOS)
def test_videos_are_scored_as_vlmevals_own_evaluate_does(name, kind, settings, tmp_path, monkeypatch):
    toy, chance = TOY_VIDEOS[name], random.Random(name)
    rows = put_videos(tmp_path, name)
    given = [toy.right(row) for row in rows]
    if kind == "half right":
        bits = [bit for bit in BITS if bit not in toy.right_there]
        given = [text if chance.random() < 0.5 else chance.choice([*bits, chance.choice(given)]) for text in given]
    answers = {str(row["index"]): text for row, text in zip(rows, given, strict=True)}
    with JudgeServer(lambda prompt, temperature: grade_of_videos(prompt)) as server:
        judged = replace(settings, judge_url=server.url, judge_model="a-judge")
        score = VLMEval(judged).evaluate(scripted(tmp_path, answers), of(name))
    judge = "a-judge" if known_benchmark(of(name)).needs_judge else "exact_matching"
    judge = "chatgpt-0125" if name == "MovieChat1k" else judge  # the one name that it takes
    monkeypatch.setattr(StandInOfGrades, "generate", lambda self, prompt, **_: grade_of_videos(prompt))
    theirs = toy.total(evaluate_plainly(name, rows, answers, tmp_path / "o", monkeypatch, model=judge))
    assert score.value == pytest.approx(theirs, abs=0.51 if name == "MovieChat1k" else 0.051)  # they round
    assert score.n == len(rows) // (4 if name == "Video-MME-v2" else 1)  # of which four are one question
    assert score.value == pytest.approx(VLMEval(judged).total(of(name), score.questions))
    if kind == "all right" and not known_benchmark(of(name)).needs_judge:
        assert score.value == 100


def test_the_halves_of_a_split_of_videos_are_the_whole(settings, tmp_path):
    rows = temp_compass(tmp_path)
    answers = {str(row["index"]): "A" if row["index"] % 4 else "Caption B: x" for row in rows}
    candidate = scripted(tmp_path, answers)
    whole = VLMEval(settings).evaluate(candidate, of("TempCompass_MCQ"))
    halves = [replace(of("TempCompass_MCQ"), split=Split(part, 0.5)) for part in ("selection", "report")]
    scores = [VLMEval(settings).evaluate(candidate, half) for half in halves]
    assert all(0 < score.n < 12 for score in scores)
    assert scores[0].questions | scores[1].questions == whole.questions


def test_open_questions_about_videos_are_graded_as_vlmeval_does(settings, tmp_path, monkeypatch):
    rows = mmbench_video(tmp_path)
    answers = {str(row["index"]): f"it is {row['index'] ** 2}" for row in rows}
    with JudgeServer(grade) as server:
        judged = replace(settings, judge_url=server.url, judge_model="a-judge")
        score = VLMEval(judged).evaluate(scripted(tmp_path, answers), of("MMBench_Video_8frame_nopack"))
        system = server.bodies[-1]["messages"][0]
    theirs = evaluate_plainly("MMBench-Video", rows, answers, tmp_path / "o", monkeypatch, model="a-judge")
    assert score.value == pytest.approx(
        100 / 3 * float(theirs["coarse_all"]["Overall"]), abs=0.2
    )  # theirs has two decimals
    assert score.questions["3"] == pytest.approx(int(grade(f"Candidate answer: {answers['3']}\nYour response: ")) / 3)
    assert (system["role"], "assistant" in system["content"].lower()) == ("system", True)


def of(name):
    return Benchmark(name, "vlmeval", name)


def test_the_frames_are_those_that_vlmeval_shows(settings, tmp_path):
    rows = temp_compass(tmp_path)
    answers = {str(row["index"]): "A" for row in rows}
    VLMEval(settings).evaluate(scripted(tmp_path, answers), of("TempCompass_MCQ_8frame"))
    seen = {tuple(json.loads(line)) for line in (tmp_path / "model.seen").read_text().splitlines()}
    # By VLMEvalKit's rule: frame int(i * F / 9) of F, i = 1 ... 8.
    assert seen == {tuple(int(i * (total / 9)) for i in range(1, 9)) for total in (20, 21, 22)}


@pytest.mark.parametrize(
    "name", ["VSI-Bench_16frame", "VsiSuperCount_10mins_16frame", "DSRBench_30frame", "STI-Bench_30frame"]
)
def test_some_classes_show_a_video_from_its_first_frame_to_its_last(name, settings, tmp_path):
    data_set, count = known_benchmark(of(name)).data_set, known_benchmark(of(name)).frames
    rows = put_videos(tmp_path, data_set)
    VLMEval(settings).evaluate(scripted(tmp_path, {str(row["index"]): "A" for row in rows}), of(name))
    seen = {tuple(json.loads(line)) for line in (tmp_path / "model.seen").read_text().splitlines()}
    # By VLMEvalKit's rule: numpy.linspace(0, F - 1, N, dtype=int).
    assert seen == {tuple(int(i * (total - 1) / (count - 1)) for i in range(count)) for total in (20, 21, 22)}


def test_an_empty_answer_of_videommmu_is_wrong_and_counts_and_open_ones_count_in_halves_of_a_split_too(
    settings, tmp_path
):
    rows = put_videos(tmp_path, "VideoMMMU")
    right = {str(row["index"]): TOY_VIDEOS["VideoMMMU"].right(row) for row in rows}
    empty = dict(zip(right, ("", " ", "NULL", "None"), strict=False))
    candidate = scripted(tmp_path, right | empty)
    score = VLMEval(settings).evaluate(candidate, of("VideoMMMU"))
    assert (score.n, score.value) == (36, pytest.approx(100 * 32 / 36))
    halves = [replace(of("VideoMMMU"), split=Split(part, 0.5)) for part in ("selection", "report")]
    points = [VLMEval(settings).evaluate(candidate, half).questions for half in halves]
    opens = frozenset(str(row["index"]) for row in rows if row["answer"] == "3.50")
    of_numbers = VLMEval(settings).evaluate(candidate, replace(of("VideoMMMU"), only=opens))
    assert points[0] | points[1] | of_numbers.questions == score.questions
    none = scripted(tmp_path, dict.fromkeys(right, ""), "none")
    assert VLMEval(settings).evaluate(none, of("VideoMMMU")).value == 0


def test_vlmeval_s_own_table_of_videommmu_loses_what_was_found_in_open_answers(tmp_path, monkeypatch):
    rows = TOY_VIDEOS["VideoMMMU"].rows()
    right = {str(row["index"]): TOY_VIDEOS["VideoMMMU"].right(row) for row in rows}
    theirs = evaluate_plainly("VideoMMMU", rows, right, tmp_path / "o", monkeypatch, keeps_tables=False)
    assert theirs["Overall"]["acc"] == pytest.approx(100 * 30 / 36)


def test_a_picture_that_a_question_shows_after_a_video_is_a_picture_and_its_content_is_in_the_key(settings, tmp_path):
    rows, folder = put_videos(tmp_path, "VideoMMMU"), tmp_path / "LMUData" / "VideoMMMU"
    VLMEval(settings).evaluate(scripted(tmp_path, {str(row["index"]): "A" for row in rows}), of("VideoMMMU"))
    seen = [json.loads(line) for line in (tmp_path / "model.seen").read_text().splitlines()]
    assert sorted(map(len, seen)) == [8] * 24 + [9] * 12
    assert {reds[8] for reds in seen if len(reds) == 9} == {100, 101}
    benchmark = known_benchmark(of("VideoMMMU"))
    data_set = open_data_set(benchmark, data_file(benchmark), ImageFiles())
    prompt = [plain_part(part) for part in data_set.build_prompt(data_set.data.iloc[2])]
    assert [part.get("video") for part in prompt] == ["videos/video2.gif"] * 8 + [None, None]
    before = VLMEval(settings).identity(of("VideoMMMU"))
    size = (folder / "images" / "picture1.png").stat().st_size
    Image.new("RGB", (16, 8), (102, 9, 9)).save(folder / "images" / "picture1.png")
    assert (folder / "images" / "picture1.png").stat().st_size == size
    assert VLMEval(settings).identity(of("VideoMMMU")) != before
    (folder / "images" / "picture1.png").unlink()
    with pytest.raises(
        EvaluatorError, match=r"row 5: VLMEvalKit can't make its prompt \(FileNotFoundError: .*picture1"
    ):
        VLMEval(settings).identity(of("VideoMMMU"))


def test_longvideobench_shows_frames_without_subtitles_and_its_options_once(settings, tmp_path):
    put_videos(tmp_path, "LongVideoBench")
    benchmark = known_benchmark(of("LongVideoBench_8frame"))
    data_set = open_data_set(benchmark, data_file(benchmark), ImageFiles())
    for row in (data_set.data.iloc[1], data_set.data.to_dict("records")[1]):
        prompts = [[plain_part(part) for part in data_set.build_prompt(row)] for _ in range(2)]
        assert prompts[0] == prompts[1]
        assert [part.get("video") for part in prompts[0]] == [None, *["./videos/video1.gif"] * 8, None]
        assert prompts[0][-1]["value"] == (
            "<1> What happens?\nA. thing 1\nB. other 1\nC. none\nD. all\n"
            "Answer with the option's letter from the given choices directly."
        )


def test_mvbench_shows_the_middles_of_a_video_s_parts(settings, tmp_path):
    rows = put_videos(tmp_path, "MVBench_MP4")
    answers = {str(row["index"]): FAILURE for row in rows}
    score = VLMEval(settings).evaluate(scripted(tmp_path, answers), of("MVBench_MP4_8frame"))
    assert score.value == 0  # VLMEvalKit marks a failure by -1, and counts that as right
    seen = {tuple(json.loads(line)) for line in (tmp_path / "model.seen").read_text().splitlines()}
    # By VLMEvalKit's rule: frame int(s / 2 + round(i * s)), s = (F - 1) / 8, i = 0 ... 7.
    assert seen == {tuple(int(s / 2 + round(i * s)) for i in range(8)) for s in (19 / 8, 20 / 8, 21 / 8)}


def test_videos_of_one_name_are_told_apart_by_their_folders_or_else_refused(settings, tmp_path):
    folder, (row, *_) = tmp_path / "LMUData" / "MVBench_MP4", TOY_VIDEOS["MVBench_MP4"].rows()
    rows = [{**row, "index": i, "question": f"<{i}> ?", "prefix": f"./videos/{i}/"} for i in range(2)]
    for number in range(2):
        gif(folder / "videos" / str(number) / "video0.gif", 9 + 9 * number)
    write_tsv(folder / "MVBench_MP4.tsv", rows)
    VLMEval(settings).evaluate(scripted(tmp_path, {"0": "A", "1": "A"}), of("MVBench_MP4"))
    seen = [json.loads(line) for line in (tmp_path / "model.seen").read_text().splitlines()]
    assert sorted(max(reds) for reds in seen) == [7, 16]
    write_tsv(folder / "MVBench_MP4.tsv", [{**row, "prefix": "elsewhere"}])
    with pytest.raises(EvaluatorError, match=r"'video0.mp4' may be videos/0/video0.gif and videos/1/video0.gif"):
        VLMEval(settings).identity(of("MVBench_MP4"))


def test_a_prompt_says_how_many_frames_a_second_are_shown(settings, tmp_path):
    rows, folder = put_videos(tmp_path, "STI-Bench"), tmp_path / "LMUData" / "STI-Bench"
    for row in rows[1::3]:  # 21 frames of 40 ms become 24 of 100
        row["video"] = "clip.mp4"
    mp4(folder / "clip.mp4", 24)
    write_tsv(folder / "STI-Bench.tsv", rows)
    benchmark = known_benchmark(of("STI-Bench_30frame"))
    data_set = open_data_set(benchmark, data_file(benchmark), ImageFiles())
    texts = [data_set.build_prompt(row)[-1]["value"] for row in data_set.data.to_dict("records")[:3]]
    assert [text.partition(" about ")[2].partition(" FPS")[0] for text in texts] == ["37.50", "12.50", "34.09"]


def test_what_is_asked_while_a_video_runs_is_not_asked_here_as_in_vlmeval(settings, tmp_path):
    name = "VsiSuperCount_10mins"
    rows = put_videos(tmp_path, name)
    rows = [{**row, "question_type": row["question_type"] + "_streaming" * (i % 3 == 0)} for i, row in enumerate(rows)]
    write_tsv(tmp_path / "LMUData" / name / f"{name}.tsv", rows)
    harness, asked = VLMEval(settings), {str(row["index"]): row["answer"] for i, row in enumerate(rows) if i % 3}
    score = harness.evaluate(scripted(tmp_path, asked), of(name))
    assert (score.value, {*score.questions}, harness.count(of(name))) == (100, {*asked}, len(asked))


def test_levels_that_count_as_one_kind_do_so_where_one_of_them_is_not_asked(settings, tmp_path):
    rows, harness = put_videos(tmp_path, "VSI-Bench"), VLMEval(settings)
    answers = {str(row["index"]): row["answer"] if i % 4 else "none" for i, row in enumerate(rows)}
    candidate, benchmark = scripted(tmp_path, answers), of("VSI-Bench")
    points = harness.evaluate(candidate, benchmark).questions

    def of_kind(kind):
        return [str(row["index"]) for row in rows if row["question_type"] == kind]

    kinds = [of_kind(f"object_rel_direction_{level}") for level in ("easy", "hard")] + [of_kind("object_counting")]
    score = harness.evaluate(
        candidate, replace(benchmark, only=frozenset(question for kind in kinds for question in kind))
    )
    easy, hard, counting = (100 * sum(map(points.get, kind)) / len(kind) for kind in kinds)
    assert len({easy, hard, counting}) == 3
    assert score.value == pytest.approx(((easy + hard) / 2 + counting) / 2)


def test_each_frame_of_a_video_is_one_tile_as_in_training_and_other_images_are_cut(tmp_path, monkeypatch):
    monkeypatch.setenv("LMUData", str(tmp_path / "LMUData"))
    rows = temp_compass(tmp_path)
    benchmark, images = known_benchmark(of("TempCompass_MCQ_8frame")), ImageFiles()
    videos = open_data_set(benchmark, data_file(benchmark), images)
    prompt = [plain_part(part) for part in videos.build_prompt(videos.data.iloc[0])]
    images.start_writing([prompt])()
    assert [part.get("video") for part in prompt] == [rows[0]["video"]] * 8 + [None, None]
    prompter = Prompter.around(tiny_processor())
    frames = [Image.open(part["value"]).convert("RGB") for part in prompt if part["type"] == "image"]
    assert frames[0].size == (16, 8)  # which the model's tiling cuts into two tiles, and a thumbnail
    seen = prompter([prompt])
    assert torch.equal(seen["pixel_values"], prompter.processor.image_processor(Video(frames))["pixel_values"])
    stills = prompter([[{"type": part["type"], "value": part["value"]} for part in prompt]])
    assert (len(seen["pixel_values"]), len(stills["pixel_values"])) == (8, 24)


def test_of_a_video_more_frames_are_shown_than_the_processor_takes_by_itself(tmp_path):
    files = [str(tmp_path / f"{i}.png") for i in range(30)]
    for i, file in enumerate(files):
        Image.new("RGB", (32, 32), (8 * i, 9, 9)).save(file)
    prompter = Prompter.around(tiny_processor())
    prompt = [{"type": "image", "value": file, "video": "a"} for file in files] + [{"type": "text", "value": "What?"}]
    assert prompter.processor.image_processor.frames == 24
    assert len(prompter([prompt])["pixel_values"]) == 30
    two = [{**part, "video": "b"} if i >= 10 and part["type"] == "image" else part for i, part in enumerate(prompt)]
    assert torch.equal(prompter([two])["pixel_values"], prompter([prompt])["pixel_values"])


def test_of_a_video_file_the_same_frames_are_shown(settings, tmp_path):
    mmbench_video(tmp_path)
    rows = [{"index": 0, "video": "clip0", "question": "<0> Why?", "answer": "x", "dimensions": "['OCR']"}]
    write_tsv(tmp_path / "LMUData" / "MMBench-Video" / "MMBench-Video.tsv", rows)
    with JudgeServer(grade) as server:
        judged = replace(settings, judge_url=server.url, judge_model="a-judge")
        VLMEval(judged).evaluate(scripted(tmp_path, {"0": "x"}), of("MMBench-Video"))
    seen = json.loads((tmp_path / "model.seen").read_text())
    assert [round(red / 8) for red in seen] == pytest.approx([2, 5, 8, 10, 13, 16, 18, 21], abs=1)  # the codec is lossy


def test_a_short_video_shows_frames_twice_and_never_fewer():
    assert vlmeval_frame_indices(3, 8) == [0, 0, 1, 1, 1, 2, 2, 2]


def test_a_video_that_is_not_there_is_told_before_any_question(settings, tmp_path):
    temp_compass(tmp_path)
    (tmp_path / "LMUData" / "TempCompass_MCQ" / "videos" / "video1.gif").unlink()
    with pytest.raises(EvaluatorError, match="video 'video1' is not below"):
        VLMEval(settings).identity(of("TempCompass_MCQ"))


@pytest.mark.parametrize(
    ("files", "name", "found"),
    [
        (["x/a.mp4", "y/a.mp4"], "a", ["x/a.mp4", "y/a.mp4"]),
        (["x/a.mp4", "y/a.mp4"], "y/a", ["y/a.mp4"]),
        (["x/a.mp4", "a.mp4"], "a.mp4", ["a.mp4"]),
        (["c.gif", "c.mp4"], "c.gif", ["c.gif"]),
        (["c.gif", "c.mp4"], "c", ["c.gif", "c.mp4"]),
        (["deep/er/b.mkv"], "./b.mp4", ["deep/er/b.mkv"]),
        (["b.mkv"], "other", []),
    ],
)
def test_a_video_is_found_by_its_way_or_its_name_and_never_chosen_among_several(files, name, found, tmp_path):
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    folder = VideoFolder(tmp_path)
    assert folder.find(name) == [tmp_path / file for file in found]
    faults = list(folder.faults(pandas.DataFrame({"video": [name], "question": ["?"]}), str))
    assert len(faults) == (len(found) != 1)
    assert all(file in fault for fault in faults for file in found)


@pytest.mark.parametrize("name", TOY_VIDEOS)
def test_columns_that_a_metric_of_videos_needs_are_missed_before_any_question(name, settings, tmp_path):
    rows, needed = TOY_VIDEOS[name].rows(), known_benchmark(of(name)).columns
    assert needed
    assert {*needed} <= {*rows[0]}
    for video in TOY_VIDEOS[name].files:
        gif(tmp_path / "LMUData" / name / f"{video}.gif", 2)
    less = [{column: cell for column, cell in row.items() if column not in needed} for row in rows]
    write_tsv(tmp_path / "LMUData" / name / f"{name}.tsv", less)
    with (
        JudgeServer(lambda prompt, temperature: "fine") as server,
        pytest.raises(EvaluatorError, match=f"missing: {', '.join(needed)}"),
    ):
        VLMEval(replace(settings, judge_url=server.url, judge_model="a-judge")).identity(of(name))


def test_of_a_question_about_several_videos_each_is_a_video_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("LMUData", str(tmp_path / "LMUData"))
    rows = TOY_VIDEOS["MVU-Eval"].rows()
    for number in range(3):
        gif(tmp_path / "LMUData" / "MVU-Eval" / f"video{number}.gif", 20 + number)
    write_tsv(tmp_path / "LMUData" / "MVU-Eval" / "MVU-Eval.tsv", rows)
    benchmark, images = known_benchmark(of("MVU-Eval_8frame")), ImageFiles()
    data_set = open_data_set(benchmark, data_file(benchmark), images)
    prompt = [plain_part(part) for part in data_set.build_prompt(data_set.data.iloc[1])]
    assert [part.get("video") for part in prompt] == [None, *["video1"] * 8, None, *["video2"] * 8, None, None, None]
    assert [part["value"] for part in prompt if part["type"] == "text"][:2] == [
        "The following is the Video 1",
        "The following is the Video 2",
    ]


def test_a_reply_at_which_vlmeval_would_stop_is_a_grade_of_0_unless_there_are_many(settings, tmp_path):
    rows = TOY_VIDEOS["QBench_Video_VQA"].rows()
    for video in TOY_VIDEOS["QBench_Video_VQA"].files:
        gif(tmp_path / "LMUData" / "QBench_Video_VQA" / f"{video}.gif", 9)
    write_tsv(tmp_path / "LMUData" / "QBench_Video_VQA" / "QBench_Video_VQA.tsv", rows)

    def evaluate(unread, name):
        candidate = scripted(tmp_path, {str(row["index"]): f"it is {row['index']}" for row in rows}, name)

        def reply(prompt, temperature):
            return "well, " if f"it is {unread}" in prompt else "**Score: 2**"

        with JudgeServer(reply) as server:
            judged = replace(settings, judge_url=server.url, judge_model=f"judge-{name}")
            return VLMEval(judged).evaluate(candidate, of("QBench_Video_VQA"))

    score = evaluate("23", "few")
    assert (score.questions["23"], score.value) == (0, pytest.approx(100 * 23 / 24))
    with pytest.raises(EvaluatorError, match="no reply that can be read for 11 of 24 questions"):
        evaluate("1", "many")


def test_a_table_without_rows_is_told_before_any_question(settings, tmp_path):
    temp_compass(tmp_path)
    table = tmp_path / "LMUData" / "TempCompass_MCQ" / "TempCompass_MCQ.tsv"
    table.write_text(table.read_text().partition("\n")[0] + "\n")
    with pytest.raises(EvaluatorError, match="no rows"):
        VLMEval(settings).identity(of("TempCompass_MCQ"))


def test_a_folder_that_is_not_there_is_told_with_what_is_expected(settings, tmp_path):
    (tmp_path / "LMUData").mkdir()
    with pytest.raises(EvaluatorError, match=r"Expected: .*Video-MME/Video-MME.tsv, with the videos anywhere below"):
        VLMEval(settings).identity(of("Video-MME_64frame"))


def test_another_number_of_frames_and_another_video_are_another_identity(settings, tmp_path):
    temp_compass(tmp_path)
    first, more = (VLMEval(settings).identity(of(f"TempCompass_MCQ_{count}frame")) for count in (8, 64))
    gif(tmp_path / "LMUData" / "TempCompass_MCQ" / "videos" / "video1.gif", 40)
    assert (
        len({json.dumps(each) for each in (first, more, VLMEval(settings).identity(of("TempCompass_MCQ_8frame")))}) == 3
    )


def test_a_package_that_the_process_refuses_is_stood_in_for_and_refused_afterwards():
    """`None` in `sys.modules` is how a program keeps a package from being imported."""
    code = (
        "import sys; sys.modules['torchvision'] = None\n"
        "from evaluators.vlmeval.light_import import vlmeval_module\n"
        "print(vlmeval_module('dataset.mvbench').__name__)\n"
        "print(sys.modules['torchvision'], 'torchvision.transforms' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "vlmeval.dataset.mvbench\nNone False\n"
