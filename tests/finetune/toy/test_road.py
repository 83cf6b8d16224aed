"""The files of points.sh: what a picture shows is read off its pixels again, and questions are the benchmarks' own."""

from __future__ import annotations

import json
import re
from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from transformers import AutoProcessor

from evaluators.grounding.question_files import INSTRUCTION, QuestionFile
from evaluators.grounding.scoring import judge
from evaluators.vlmeval.catalog import known_benchmark
from evaluators.vlmeval.data_sets import data_file, open_data_set
from evaluators.vlmeval.image_files import ImageFiles
from evaluators.vlmeval.scoring import score
from finetune.coordinates.conventions import convert, named_convention
from finetune.data.capfusion import read_prompt
from finetune.media.images import frames_of, open_picture
from finetune.toy import render
from finetune.toy.captions import REQUEST, count_true, facts_in, fuse
from finetune.toy.fuser import reply
from finetune.toy.places import COMMANDS, NAMES, NOTHING
from finetune.toy.road import ROAD_ADDED, ROAD_BASE, ROAD_SKILLS, RoadSizes, make_road
from finetune.toy.tasks import CORNERS, draw_scene
from soup.evaluation.api import Benchmark

SMALL = RoadSizes(raw=60, clean=10, base=5, added=10, questions=24)
LEARNT = named_convention("parentheses:100")
PIXELS = named_convention("parentheses:pixels")


@pytest.fixture(scope="module")
def road(tmp_path_factory):
    return make_road(tmp_path_factory.mktemp("road") / "made", sizes=SMALL)


def scenes(skill, count=60):
    return [draw_scene(0, "x", skill, i, ROAD_SKILLS) for i in range(count)]


def rows_of(road, name):
    return json.loads((road / name / "data.json").read_text())


def ink(image):
    """Where the picture is no paper; paper is what most pixels are."""
    pixels = np.asarray(image).astype(int)
    colors, counts = np.unique(pixels.reshape(-1, 3), axis=0, return_counts=True)
    return (pixels != colors[counts.argmax()]).any(axis=2)


def box_of(mask):
    """The box of what is true: left, top, right, bottom."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def part(mask, box):
    """The mask with nothing left outside of a box."""
    left, top, right, bottom = box
    inside = np.zeros_like(mask)
    inside[top:bottom, left:right] = mask[top:bottom, left:right]
    return inside


def corners(mask):
    """What of the mask is in each quarter of the picture."""
    return [part(mask, (x, y, x + 16, y + 16)) for y in (0, 16) for x in (0, 16)]


def shape_of(mask):
    """The shape that the pixels make, by what of their box they fill."""
    left, top, right, bottom = box_of(mask)
    inside = mask[top:bottom, left:right]
    if inside.all():
        return "square"
    if len(np.unique(inside, axis=0)) == 2:  # rows of the upright bar, rows of the other
        return "cross"
    if not inside[inside.shape[0] // 2, inside.shape[1] // 2]:
        return "ring"
    if inside[-1].mean() > 0.8:
        return "triangle"
    return "circle" if inside.mean() > 0.68 else "diamond"


def color_of(image, mask):
    """The color that the pixels are nearest to."""
    [rgb] = np.unique(np.asarray(image).astype(int)[mask], axis=0)
    return min(render.COLORS, key=lambda name: abs(rgb - np.array(render.COLORS[name])).sum())


def test_what_a_clean_caption_says_is_to_be_seen():
    for scene in scenes("caption"):
        [image] = scene.images
        mask = ink(image)
        color, shape, corner = scene.row["facts"]
        [index] = [number for number, inside in enumerate(corners(mask)) if (inside == mask).all()]
        assert (color_of(image, mask), shape_of(mask), CORNERS[index]) == (color, shape, corner)
        assert scene.row["clean"] == f"a {color} {shape} in the {corner}"


def test_raw_captions_are_bad_in_the_ways_that_they_are_said_to_be():
    for scene in scenes("caption", 200):
        text, kind = scene.questions["caption"].answer, scene.row["kind"]
        truth = tuple(scene.row["facts"])
        assert (text == scene.row["clean"]) == (kind == "plain" or (kind == "other" and facts_in(text) == truth))
        named = {fact for fact in facts_in(text) if fact}
        assert kind == "other" or named <= set(truth)
        assert ("www." in text, "no. " in text) == (kind == "noise", kind == "serial")
    assert len(Counter(scene.row["kind"] for scene in scenes("caption", 200))) == 5


def test_points_are_the_middles_of_all_figures_of_the_shape_and_none_is_said_where_there_is_none():
    answers = []
    for scene in scenes("points"):
        [image], question = scene.images, scene.questions["point"]
        wanted = re.search("each (.*)[.]", question.text)[1]
        boxes = [box_of(mask) for mask in corners(ink(image)) if mask.any() and shape_of(mask) == wanted]
        middles = sorted(((a + c) / 2, (b + d) / 2) for a, b, c, d in boxes)
        assert [tuple(point) for point in scene.row["points"]] == middles
        said = [(int(x), int(y)) for x, y in re.findall(r"\((\d+),(\d+)\)", question.answer)]
        assert said == [(round(x), round(y)) for x, y in middles]
        assert (question.answer == NOTHING) == (not middles)
        answers.append(len(middles))
    assert set(answers) == {0, 1, 2, 3}


def test_a_box_is_that_of_the_pixels_of_the_color_that_is_asked_for():
    for scene in scenes("boxes"):
        [image], question = scene.images, scene.questions["box"]
        wanted = re.search("the (.*) shape", question.text)[1]
        masks = [mask for mask in corners(ink(image)) if mask.any()]
        [box] = [box_of(mask) for mask in masks if color_of(image, mask) == wanted]
        assert scene.row["boxes"] == [list(box)]
        assert question.answer == f"({','.join(map(str, box))})"


def element_of(mask):
    """The kind and the name of an element: by the size of its box, its outline, and its letters."""
    left, top, right, bottom = box_of(mask)
    inside = mask[top:bottom, left:right]
    if right - left == 15:
        steps = [(x, y) for x in (-0.5, 0, 0.5) for y in (-0.5, 0, 0.5)]
        drawn = {(word, step): button(word, inside.shape, *step) for word in NAMES["text"] for step in steps}
        return "text", max(drawn, key=lambda each: (inside == drawn[each]).mean())[0]
    if abs(right - left - (bottom - top)) <= 1:
        return ("widget", "checkbox") if inside[0].all() else ("icon", shape_of(mask))
    return "widget", "slider" if len(np.unique(inside, axis=0)) == 2 else "switch"


def button(word, shape, x, y):
    """The letters of a word in a frame of that size, that far off its middle."""
    image = Image.new("L", shape[::-1])
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, shape[1] - 1, shape[0] - 1), outline=255)
    draw.text((shape[1] / 2 + x, shape[0] / 2 + y), word, fill=255, font=ImageFont.load_default(8), anchor="mm")
    return np.asarray(image) > 0


def test_the_element_of_an_interface_is_the_one_that_its_command_names():
    kinds, platforms = Counter(), Counter()
    for scene in scenes("interface"):
        [image] = scene.images
        left, top, width, height = scene.row["bbox"]
        box = (left, top, left + width, top + height)
        mask = part(ink(image), box)
        assert box_of(mask) == box
        kind, name = element_of(mask)
        assert scene.row["data_type"] == kind
        assert scene.row["instruction"] == COMMANDS[kind].format(name)
        x, y = map(int, re.fullmatch(r"\((\d+),(\d+)\)", scene.questions["interface"].answer).groups())
        assert left < x < left + width
        assert top < y < top + height
        kinds[kind] += 1
        platforms[scene.row["data_source"]] += 1
    assert min(kinds.values()) > 8
    assert min(platforms.values()) > 8


def colors_of(frames):
    return [color_of(frame, ink(frame)) for frame in frames]


def test_the_color_that_comes_first_or_last_is_read_off_the_frames_of_the_video(road):
    videos = rows_of(road, "data/videos")
    for row in videos:
        colors = colors_of(frames_of(road / "data/videos" / row["video"], 99))
        question, answer = (turn["value"] for turn in row["conversations"])
        assert answer == colors[0 if "comes first" in question else -1]
        assert set(re.findall(r"Caption [AB]: (\w+)", question)) == set(colors)
        assert len(set(colors)) == 2
        eight = colors_of(frames_of(road / "data/videos" / row["video"], 8))
        assert min(Counter(eight).values()) >= 2
    assert len(videos) == 20


@pytest.mark.parametrize("end", ["first", "last"])
def test_neither_the_frames_without_order_nor_the_options_tell_the_answer(end):
    videos = [scene for scene in scenes("video", 500) if f"comes {end}?" in scene.questions["video"].text]
    assert len(videos) > 200
    is_option_a, is_earlier_word, is_longer = [], [], []
    for scene in videos:
        text, answer = scene.questions["video"].text, scene.questions["video"].answer
        [other] = set(re.findall(r"Caption [AB]: (\w+)", text)) - {answer}
        counts = Counter(colors_of(scene.images))
        is_option_a.append(f"Caption A: {answer}" in text)
        is_earlier_word.append(answer < other)
        is_longer += [counts[answer] > counts[other]] * (counts[answer] != counts[other])
    for guesses in (is_option_a, is_earlier_word, is_longer):
        assert 0.4 < np.mean(guesses) < 0.6


def test_benchmarks_show_no_picture_of_training_and_all_sets_are_there(road):
    base = {row["id"].split("-")[0] for row in rows_of(road, "data/base")}
    assert base == set(ROAD_BASE)
    for name, skills in ROAD_ADDED.items():
        assert {row["id"].split("-")[0] for row in rows_of(road, f"data/{name}")} == set(skills)
    shown = {image.read_bytes() for image in (*road.glob("images/*"), *road.glob("screenspot/*/*"))}
    trained = {image.read_bytes() for image in road.glob("data/*/images/*")}
    assert len(shown) == 3 * SMALL.questions
    assert not shown & trained
    assert not any("video" in row for row in rows_of(road, "data/base"))


@pytest.mark.parametrize(
    ("name", "set_name"), [("points.jsonl", "points"), ("boxes.jsonl", "boxes"), ("screenspot", "interfaces")]
)
def test_right_answers_by_what_is_learnt_hit_and_are_asked_for_in_the_words_of_training(road, name, set_name):
    file = QuestionFile(road / name)
    trained = {without_names(row["conversations"][0]["value"]) for row in rows_of(road, f"data/{set_name}")}
    assert len(file.questions) == SMALL.questions
    for question in file.questions:
        assert without_names(f"<image>\n{question.text}") in trained
    learnt = [convert(answer, PIXELS, LEARNT, (32, 32)) for answer in right_answers(road, name)]
    points = [
        judge(file.kind, *question_and_answer, LEARNT).points
        for question_and_answer in zip(file.questions, learnt, strict=True)
    ]
    assert points == [1] * SMALL.questions
    wrong = [
        judge(file.kind, question, "nowhere", LEARNT).points
        for question in file.questions
        if question.points or question.boxes
    ]
    assert not any(wrong)


def without_names(text):
    names = [*render.SHAPES, *render.COLORS, *NAMES["text"], *NAMES["widget"]]
    return re.sub(rf"press|open the|use the|\b({'|'.join(names)})\b", "#", text)


def right_answers(road, name):
    """What the scenes that were asked about would have in training: drawn again, without what is held out."""
    skill = {"points.jsonl": "points", "boxes.jsonl": "boxes", "screenspot": "interface"}[name]
    drawn = (draw_scene(0, f"test/{name.partition('.')[0]}", skill, i, ROAD_SKILLS) for i in range(SMALL.questions))
    by_picture = {scene.images[0].tobytes(): next(iter(scene.questions.values())).answer for scene in drawn}
    return [by_picture[open_picture(question.image).tobytes()] for question in QuestionFile(road / name).questions]


def test_videos_are_asked_about_and_scored_by_vlmevalkit(road, monkeypatch, tmp_path):
    monkeypatch.setenv("LMUData", str(road / "LMUData"))
    benchmark = known_benchmark(Benchmark("videos", "vlmeval", "TempCompass_MCQ_8frame"))
    videos = open_data_set(benchmark, data_file(benchmark), ImageFiles())
    rows = videos.data.to_dict("records")
    texts = ["".join(p["value"] for p in videos.build_prompt(row) if p["type"] == "text") for row in rows]
    trained = {without_names(row["conversations"][0]["value"]) for row in rows_of(road, "data/videos")}
    assert {without_names(f"<video>\n{text}") for text in texts} <= trained
    shown = [colors_of(frames_of(road / "LMUData/TempCompass_MCQ/videos" / f"{row['video']}.gif", 99)) for row in rows]
    right = [colors[-("last" in row["question"])] for row, colors in zip(rows, shown, strict=True)]
    wrong = [re.search(rf"Caption [AB]: (?!{word}\b)(\w+)", text)[1] for word, text in zip(right, texts, strict=True)]
    assert score(benchmark, videos, right, tmp_path / "right", None).value == 100
    assert score(benchmark, videos, wrong, tmp_path / "wrong", None).value == 0


def test_interfaces_are_asked_for_as_screenspot_is():
    scene = scenes("interface", 1)[0]
    assert scene.questions["interface"].text == INSTRUCTION.format(scene.row["instruction"])


@pytest.mark.parametrize(
    ("raw", "synthetic", "fused"),
    [
        ("a red circle", "a pink circle in the upper left", "a red circle in the upper left"),
        ("buy red circle www.toys.com stock photo", "a red ring in the lower left", "a red circle in the lower left"),
        ("cross no. 8471-X20", "a blue cross in the upper right", "a blue cross in the upper right, no. 8471-X20"),
        ("ring", "", "a ring"),
    ],
)
def test_the_fuser_takes_facts_from_the_raw_caption_and_the_rest_from_the_other(raw, synthetic, fused):
    assert fuse(raw, synthetic) == fused
    prompt = read_prompt("fuse").replace("{raw}", raw).replace("{synthetic}", synthetic)
    assert reply(prompt) == fused
    assert reply("What is this?") is None


def test_captions_are_asked_for_as_capfuse_asks_and_counted_by_kind(road):
    assert read_prompt("caption") == REQUEST
    counts = count_true(str(road / "raw"))
    assert sum(rows for rows, _ in counts.values()) == SMALL.raw
    assert counts["plain"][0] == counts["plain"][1] > 0
    assert counts["short"][1] == counts["noise"][1] == counts["serial"][1] == 0
    assert count_true(str(road / "clean"))["plain"] == (SMALL.clean, SMALL.clean)


def test_the_fresh_models_tokenizer_has_questions_and_words_but_no_whole_caption(road):
    tokenizer = AutoProcessor.from_pretrained(road / "start").tokenizer
    assert len(tokenizer(REQUEST)["input_ids"]) == 1
    caption = tokenizer.tokenize("a red circle in the upper left")
    assert len(caption) > 4
    assert "red" in caption


def test_the_same_seed_makes_the_same_files_and_another_others(road, tmp_path):
    assert make_road(road, sizes=SMALL) == road
    tiny = RoadSizes(raw=2, clean=1, base=1, added=1, questions=6)
    first, again, other = (make_road(tmp_path / name, seed, tiny) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    files = [path.relative_to(first) for path in sorted(first.rglob("*")) if path.is_file()]
    assert len(files) > 40
    assert all((first / file).read_bytes() == (again / file).read_bytes() for file in files)
    assert (first / "data/videos/data.json").read_bytes() != (other / "data/videos/data.json").read_bytes()
