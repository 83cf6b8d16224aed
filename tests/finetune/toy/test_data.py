"""Toy data: the same from the same seed, held out by construction, and in the benchmarks' own schemas and words."""

from __future__ import annotations

import ast
import base64
import csv
import hashlib
import io
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from evaluators.answering.endpoint_judge import EndpointJudge
from evaluators.answering.judge_session import JudgeSession
from evaluators.answering.response_cache import ResponseCache
from evaluators.vlmeval.benchmarks import BENCHMARKS as OPENCOMPASS
from evaluators.vlmeval.data_sets import data_file, open_data_set, question_ids
from evaluators.vlmeval.image_files import ImageFiles
from evaluators.vlmeval.scoring import score
from finetune.toy.__main__ import main
from finetune.toy.benchmarks import BENCHMARKS, STEP
from finetune.toy.gallery import Gallery, pixel_digest
from finetune.toy.judge import MODEL, JudgeServer
from finetune.toy.tasks import CLAIMS, SKILLS, draw_scene, prompt, rotated
from finetune.toy.write import ADDED, BASE_SHARES, QUESTIONS, Sizes, make_toy
from tests.helpers.threaded_servers import in_thread
from tests.helpers.toy_test_sets import TOYS

SMALL = Sizes(base=4, added=3, questions=dict.fromkeys(QUESTIONS, 24))
CHOICES = [skill for skill in SKILLS if "choice" in draw_scene(0, "x", skill, 0).questions]
csv.field_size_limit(10**7)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return make_toy(tmp_path_factory.mktemp("toy") / "made", seed=3, sizes=SMALL)


@pytest.fixture(scope="module")
def datasets(toy):
    """VLMEvalKit's own data sets over the toy files, by the benchmark's name."""
    images = ImageFiles()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMUData", str(toy / "LMUData"))
        return {name: open_data_set(OPENCOMPASS[name], data_file(OPENCOMPASS[name]), images) for name in BENCHMARKS}


@pytest.fixture
def judge_url():
    """The toy judge, on loopback."""
    with JudgeServer() as server, in_thread(server):
        yield server.url


def lines(toy, name):
    with (toy / "LMUData" / f"{BENCHMARKS[name][0]}.tsv").open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def pictures(row):
    """The images of a row of any benchmark; none where it has none, or names another row's."""
    cell = row["image"]
    cells = ast.literal_eval(cell) if cell.startswith("[") else [cell] * (len(cell) > 64)
    return [Image.open(io.BytesIO(base64.b64decode(each))).convert("RGB") for each in cells]


def samples(toy, name):
    return json.loads((toy / "data" / name / "data.json").read_text())


def files_of(toy):
    return {p.relative_to(toy): hashlib.sha256(p.read_bytes()).digest() for p in toy.rglob("*") if p.is_file()}


def test_the_same_seed_makes_the_same_bytes(toy, tmp_path):
    assert files_of(make_toy(tmp_path / "again", seed=3, sizes=SMALL)) == files_of(toy)


def test_another_seed_makes_other_pictures(toy, tmp_path):
    other = make_toy(tmp_path / "other", seed=4, sizes=SMALL)
    assert files_of(other)[SAMPLE] != files_of(toy)[SAMPLE]


SAMPLE = Path("data/base/images/count-00000.png")


def test_no_picture_of_a_benchmark_is_in_training_or_in_another_benchmark(toy):
    shown = [pixel_digest(image) for name in BENCHMARKS for row in lines(toy, name) for image in pictures(row)]
    held_out = set(shown)
    assert len(shown) >= 8 * 20
    assert len(held_out) == len(shown) - repeats_of_claims(toy)
    trained = {pixel_digest(Image.open(path).convert("RGB")) for path in toy.glob("data/*/images/*.png")}
    assert len(trained) > 50
    assert not held_out & trained


def repeats_of_claims(toy):
    """HallusionBench asks twice about each figure."""
    return sum(bool(row["image"]) for row in lines(toy, "hallusionbench")) // 2


def test_a_picture_that_a_benchmark_shows_is_skipped_in_training(monkeypatch):
    # Every scene drawn the same in all splits: without the check each training picture would be held out.
    monkeypatch.setattr(
        "finetune.toy.gallery.draw_scene", lambda seed, split, skill, i, skills: draw_scene(0, "any", skill, i)
    )
    gallery = Gallery(0)
    tested = [scene.images for scene in gallery.testing("ocrbench", "number", 3)]
    trained = [scene.images for scene in gallery.training("base", "number", 3)]
    again = [scene.images for scene in gallery.testing("mmvet", "number", 2)]
    assert tested == [draw_scene(0, "any", "number", i).images for i in range(3)]
    assert trained == [*again, draw_scene(0, "any", "number", 5).images]


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_columns_are_those_of_the_real_file(name, toy):
    assert set(lines(toy, name)[0]) == set(TOYS[name]()[0])
    assert {row["category"] for row in lines(toy, name)}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_vlmevalkit_reads_the_file_and_finds_as_many_questions_as_are_told(name, datasets):
    rows = datasets[name]
    assert type(rows).__name__ == OPENCOMPASS[name].class_name
    assert len(set(question_ids(OPENCOMPASS[name], rows.data))) == SMALL.questions[name]


@pytest.mark.parametrize("name", BENCHMARKS)
def test_right_answers_are_worth_a_hundred_and_wrong_ones_nothing(name, datasets, judge_url, tmp_path):
    benchmark, data_set = OPENCOMPASS[name], datasets[name]
    session = JudgeSession(
        EndpointJudge(judge_url, MODEL, "NO_KEY"), ResponseCache(tmp_path / "kept.jsonl"), name, benchmark.judge_tokens
    )
    judge = session if benchmark.needs_judge else None
    answers = [in_words(name, row) for row in data_set.data.to_dict("records")]
    assert score(benchmark, data_set, answers, tmp_path / "right", judge).value == 100
    assert score(benchmark, data_set, ["nothing of the kind"] * len(answers), tmp_path / "wrong", judge).value == 0


def in_words(name, row):
    """The answer as training gives it: an option's words, not its letter."""
    if name == "ocrbench":
        return ast.literal_eval(row["answer"])[0]
    if name == "mmvet":
        return row["answer"].partition("<OR>")[0].replace("<AND>", " ")
    return str(row[row["answer"]]) if row["answer"] in ("A", "B", "C", "D") else str(row["answer"])


@pytest.mark.parametrize("name", BENCHMARKS)
def test_training_asks_in_the_very_words_of_the_benchmark(name, toy, datasets):
    trained = {without_drawn_words(sample["conversations"][0]["value"]) for sample in samples(toy, "base")}
    for row in datasets[name].data.to_dict("records"):
        parts = datasets[name].build_prompt(row)
        text = "".join("<image>\n" if part["type"] == "image" else part["value"] for part in parts)
        assert without_drawn_words(text) in trained, text


def without_drawn_words(text):
    """To ask for another color is no other way of asking."""
    words = {
        *"0123456789",
        "upper",
        "lower",
        "left",
        "right",
        *(word for words in CLAIMS.values() for word in words),
    }
    return re.sub(r"\w+", lambda word: "#" if word[0] in words else word[0], text)


def test_mmbench_has_every_rotation_and_the_image_once(toy):
    rows = lines(toy, "mmbench")
    originals = {int(row["index"]): row for row in rows if int(row["index"]) < STEP}
    assert len(rows) == 4 * len(originals)
    for row in rows:
        index, k = int(row["index"]) % STEP, int(row["index"]) // STEP
        first = originals[index]
        options = [first[letter] for letter in "ABCD"]
        assert [row[letter] for letter in "ABCD"] == options[k:] + options[:k]
        assert row[row["answer"]] == first[first["answer"]]
        assert row["image"] == str(index) if k else [image.size for image in pictures(row)] == [(32, 32)]


def test_mmmu_has_development_rows_rows_of_two_images_and_open_questions(toy):
    rows = lines(toy, "mmmu")
    assert {row["split"] for row in rows} == {"dev", "validation"}
    assert {len(pictures(row)) for row in rows} == {1, 2}
    assert {bool(row["A"]) for row in rows} == {True, False}
    assert all(f"<image {len(pictures(row))}>" in row["question"] for row in rows)


def test_hallusionbench_turns_each_answer_round_from_one_figure_to_the_other(toy):
    rows = {row["index"]: row for row in lines(toy, "hallusionbench")}
    with_picture = [index for index, row in rows.items() if row["image"]]
    assert len(with_picture) < len(rows)  # some questions come without a picture
    for index in with_picture:
        kind, category, _, position, figure, question = index.split("_")
        other = rows["_".join([kind, category, "1", position, {"1": "2", "2": "1"}[figure], question])]
        assert {rows[index]["answer"], other["answer"]} == {"Yes", "No"}
        assert rows[index]["question"] == other["question"]
        assert rows[index]["image"] != other["image"]


def test_answers_of_mathvista_are_of_the_types_that_its_metric_can_count(toy):
    kinds = {(row["question_type"], row["answer_type"]) for row in lines(toy, "mathvista")}
    assert kinds == {("free_form", "integer"), ("free_form", "float"), ("multi_choice", "text")}


def test_the_full_benchmarks_are_as_large_as_the_readme_says():
    assert Sizes().questions == QUESTIONS
    assert QUESTIONS["mmbench"] >= 1000
    assert QUESTIONS["ocrbench"] >= 1000
    assert min(QUESTIONS.values()) >= 200


def test_data_sets_are_llava_conversations_with_their_images(toy):
    for name in ("base", *ADDED):
        rows = samples(toy, name)
        assert len({sample["id"] for sample in rows}) == len(rows)
        for sample in rows:
            human, gpt = sample["conversations"]
            images = [sample["image"]] if isinstance(sample["image"], str) else sample["image"]
            assert (human["from"], gpt["from"]) == ("human", "gpt")
            assert human["value"].count("<image>\n") == len(images)
            assert all((toy / "data" / name / image).is_file() for image in images)


def test_the_base_set_has_all_skills_and_an_added_set_its_own(toy):
    keys = {name: {s["id"].split("-")[0] for s in samples(toy, name)} for name in ("base", *ADDED)}
    assert keys.pop("base") == set(SKILLS) == set(BASE_SHARES)
    assert keys == {name: set(skills) for name, skills in ADDED.items()}
    added = [skill for skills in ADDED.values() for skill in skills]
    assert len(added) == len(set(added))


def test_a_choice_is_asked_as_vlmevalkit_asks_it():
    question = draw_scene(0, "x", "bars", 0).questions["choice"]
    a, b, c, d = question.options
    assert prompt("choice", question) == (
        f"Hint: {question.hint}\nQuestion: {question.text}\nOptions:\nA. {a}\nB. {b}\nC. {c}\nD. {d}\n"
        "Please select the correct answer from the options above. \n"
    )
    assert not prompt("choice", draw_scene(0, "x", "color", 0).questions["choice"]).startswith("Hint")


@pytest.mark.parametrize("skill", CHOICES)
def test_options_hold_the_answer_once_and_differ_from_each_other(skill):
    for i in range(50):
        question = draw_scene(0, "x", skill, i).questions["choice"]
        assert len(set(question.options)) == 4
        # VLMEvalKit finds an option's words within an answer: none may be a part of another.
        assert not any(a in b for a in question.options for b in question.options if a != b)
        assert rotated(question, 3).options[("ABCD".index(question.letter) + 1) % 4] == question.answer


@pytest.mark.parametrize("skill", CHOICES)
def test_answers_and_letters_are_spread(skill):
    asks = [draw_scene(0, "x", skill, i).questions["choice"] for i in range(400)]
    letters = [question.letter for question in asks]
    assert all(60 < letters.count(letter) < 140 for letter in "ABCD")
    answers = [question.answer for question in asks]
    assert max(answers.count(answer) for answer in answers) < 400 / len(set(answers)) * 1.6


@pytest.mark.parametrize("skill", CLAIMS)
def test_a_claim_is_right_as_often_as_not_and_just_then_names_the_truth(skill):
    claims = [(scene.truth, scene.questions["claim"]) for scene in (draw_scene(0, "x", skill, i) for i in range(200))]
    assert 70 < sum(question.answer.endswith("Yes") for _, question in claims) < 130
    for truth, question in claims:
        is_right = f": {truth}\n" in question.text
        assert question.answer == f"{truth}\n{'Yes' if is_right else 'No'}"
        assert any(f": {word}\n" in question.text for word in CLAIMS[skill])


@pytest.mark.parametrize("skill", ["number", "word"])
def test_texts_to_read_hardly_repeat(skill):
    assert len({draw_scene(0, "x", skill, i).questions["open"].answer for i in range(200)}) > 150


def test_a_word_is_two_tiles_wide():
    assert draw_scene(0, "x", "word", 0).images[0].size == (64, 32)


def test_the_tallest_bar_is_the_tallest():
    for i in range(60):
        scene = draw_scene(0, "x", "bars", i)
        heights = bar_heights(scene.images[0])
        assert heights.count(max(heights)) == 1
        order = ("first", "second", "third", "fourth", "fifth", "sixth")
        assert order[heights.index(max(heights))] == scene.truth


def bar_heights(image):
    """In pixels, from the left: bars stand on paper, which is a light grey."""
    paper = image.getpixel((0, 0))
    middles = [number * 5 + 3 for number in range(6)]
    return [sum(image.getpixel((x, y)) != paper for y in range(32)) for x in middles]


def test_making_it_again_changes_nothing_and_takes_no_time(toy):
    before = {p: p.stat().st_mtime_ns for p in toy.rglob("*")}
    assert make_toy(toy, seed=3, sizes=SMALL) == toy
    assert {p: p.stat().st_mtime_ns for p in toy.rglob("*")} == before


def test_other_data_in_the_place_are_left_alone(toy):
    with pytest.raises(FileExistsError, match="something else"):
        make_toy(toy, seed=5, sizes=SMALL)


def test_an_interrupted_run_leaves_nothing_under_the_final_name(monkeypatch, tmp_path):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("finetune.toy.write.write_set", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_toy(tmp_path / "made", sizes=SMALL)
    assert not list(tmp_path.iterdir())


def test_the_command_tells_where_it_wrote(monkeypatch, tmp_path):
    monkeypatch.setattr("finetune.toy.write.Sizes", lambda: SMALL)
    result = CliRunner().invoke(main, [str(tmp_path / "made")])
    assert result.exit_code == 0
    assert result.stdout.strip() == str(tmp_path / "made")
    refused = CliRunner().invoke(main, [str(tmp_path / "made"), "--seed", "9"])
    assert refused.exit_code == 1
