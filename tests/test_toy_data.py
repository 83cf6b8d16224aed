"""Toy data: the same from the same seed, held out by construction, and in the benchmarks' own schemas."""

import ast
import base64
import csv
import hashlib
import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from finetune.toy.__main__ import main
from finetune.toy.tasks import CHOICE_SKILLS, READING_SKILLS, SKILLS, choice_prompt, draw_row, rotated
from finetune.toy.write import ADDED, MMBENCH_COLUMNS, OCRBENCH_COLUMNS, STEP, Sizes, make_toy, pixel_digest

SMALL = Sizes(base=6, added=4, mmbench=5, ocrbench=7)
csv.field_size_limit(10**7)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return make_toy(tmp_path_factory.mktemp("toy") / "made", seed=3, sizes=SMALL)


def lines(toy, name):
    with (toy / "LMUData" / name).open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def opened(text):
    return Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB")


def files_of(toy):
    return {p.relative_to(toy): hashlib.sha256(p.read_bytes()).digest() for p in toy.rglob("*") if p.is_file()}


def test_the_same_seed_makes_the_same_bytes(toy, tmp_path):
    assert files_of(make_toy(tmp_path / "again", seed=3, sizes=SMALL)) == files_of(toy)


def test_another_seed_makes_other_pictures(toy, tmp_path):
    other = make_toy(tmp_path / "other", seed=4, sizes=SMALL)
    assert files_of(other)[SAMPLE] != files_of(toy)[SAMPLE]


SAMPLE = Path("data/base/images/count-00000.png")


def test_no_picture_of_a_benchmark_is_in_training(toy):
    rows = lines(toy, "MMBench_DEV_EN.tsv") + lines(toy, "OCRBench.tsv")
    held_out = {pixel_digest(opened(row["image"])) for row in rows if len(row["image"]) > 64}
    trained = {pixel_digest(Image.open(path).convert("RGB")) for path in toy.glob("data/*/images/*.png")}
    assert len(held_out) == 4 * SMALL.mmbench + 2 * SMALL.ocrbench
    assert not held_out & trained


def test_a_picture_that_a_benchmark_holds_is_skipped_in_training(monkeypatch, tmp_path):
    # Every scene drawn twice, whatever its split: without the check each training picture would be held out.
    twice = {}

    def repeating(seed, split, skill, i):
        return twice.setdefault((skill, i), draw_row(seed, "any", skill, i))

    monkeypatch.setattr("finetune.toy.write.draw_row", repeating)
    test_no_picture_of_a_benchmark_is_in_training(make_toy(tmp_path / "made", sizes=SMALL))


def test_mmbench_has_the_schema_and_the_rotations_of_the_real_file(toy):
    rows = lines(toy, "MMBench_DEV_EN.tsv")
    assert list(rows[0]) == MMBENCH_COLUMNS
    originals = {int(row["index"]): row for row in rows if int(row["index"]) < STEP}
    assert len(originals) == 4 * SMALL.mmbench
    assert len(rows) == 4 * len(originals)
    for row in rows:
        index, k = int(row["index"]) % STEP, int(row["index"]) // STEP
        first = originals[index]
        options = [first[letter] for letter in "ABCD"]
        assert [row[letter] for letter in "ABCD"] == options[k:] + options[:k]
        assert row[row["answer"]] == first[first["answer"]]
        assert row["split"] == "dev"
        if k:
            assert row["image"] == str(index)
        else:
            assert len(row["image"]) > 64
            assert opened(row["image"]).size == (32, 32)


def test_answers_of_ocrbench_are_literal_lists_and_its_categories_count(toy):
    rows = lines(toy, "OCRBench.tsv")
    assert list(rows[0]) == OCRBENCH_COLUMNS
    assert all(ast.literal_eval(row["answer"])[0].isalnum() for row in rows)
    assert {row["category"] for row in rows} == {"Digit String Recognition", "Regular Text Recognition"}


def test_the_full_benchmarks_have_a_thousand_questions_and_more():
    assert 4 * Sizes().mmbench >= 1000
    assert 2 * Sizes().ocrbench == 1000  # VLMEvalKit's "Final Score" divides by ten, whatever the number of questions


def test_data_sets_are_llava_conversations_with_their_images(toy):
    for name in ("base", *ADDED):
        samples = json.loads((toy / "data" / name / "data.json").read_text())
        assert len({sample["id"] for sample in samples}) == len(samples)
        for sample in samples:
            human, gpt = sample["conversations"]
            assert (human["from"], gpt["from"]) == ("human", "gpt")
            assert human["value"].startswith("<image>\n")
            assert (toy / "data" / name / sample["image"]).is_file()


def test_the_base_set_has_all_skills_and_an_added_set_one(toy):
    skills = {
        name: {s["id"].split("-")[0] for s in json.loads((toy / "data" / name / "data.json").read_text())}
        for name in ("base", *ADDED)
    }
    assert skills.pop("base") == set(SKILLS)
    assert skills == {name: {name} for name in ADDED}


def test_the_prompt_is_as_vlmevalkit_builds_it():
    row = draw_row(0, "x", "bars", 0)
    a, b, c, d = row.options
    assert choice_prompt(row) == (
        f"Hint: {row.hint}\nQuestion: {row.question}\nOptions:\nA. {a}\nB. {b}\nC. {c}\nD. {d}\n"
        "Please select the correct answer from the options above. \n"
    )
    assert not choice_prompt(draw_row(0, "x", "color", 0)).startswith("Hint")


@pytest.mark.parametrize("skill", CHOICE_SKILLS)
def test_options_hold_the_answer_once_and_differ_from_each_other(skill):
    for i in range(50):
        row = draw_row(0, "x", skill, i)
        assert len(set(row.options)) == 4
        # VLMEvalKit finds an option's words within an answer: none may be a part of another.
        assert not any(a in b for a in row.options for b in row.options if a != b)
        assert rotated(row, 3).options[("ABCD".index(row.letter) + 1) % 4] == row.answer


@pytest.mark.parametrize("skill", CHOICE_SKILLS)
def test_answers_and_letters_are_spread(skill):
    rows = [draw_row(0, "x", skill, i) for i in range(400)]
    letters = [row.letter for row in rows]
    assert all(60 < letters.count(letter) < 140 for letter in "ABCD")
    answers = [row.answer for row in rows]
    assert max(answers.count(answer) for answer in answers) < 400 / len(set(answers)) * 1.6


@pytest.mark.parametrize("skill", READING_SKILLS)
def test_texts_to_read_hardly_repeat(skill):
    assert len({draw_row(0, "x", skill, i).answer for i in range(200)}) > 150


def test_a_word_is_two_tiles_wide():
    assert draw_row(0, "x", "word", 0).image.size == (64, 32)


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

    monkeypatch.setattr("finetune.toy.write._write_ocrbench", interrupted)
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
