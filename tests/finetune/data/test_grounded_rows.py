"""Points and boxes of rows are checked, and learnt as the configuration says."""

from __future__ import annotations

import json

import pytest
from PIL import Image
from pydantic import ValidationError

from finetune.config import DataSet, TrainSettings
from finetune.data.check import check_data
from finetune.data.corpus import Corpus
from finetune.data.rows import texts_of


def written(root, turns, **options):
    """A data set of a row for each question and answer, about a picture of 400 x 200."""
    Image.new("RGB", (400, 200)).save(root / "a.png")
    rows = [
        {"image": "a.png", "conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}]}
        for q, a in turns
    ]
    (root / "data.json").write_text(json.dumps(rows))
    return DataSet(path=str(root), **options)


def texts(data_set):
    return [texts_of(sample) for sample in Corpus([data_set])]


PROMPT = ("<image>\nWhat is at [100, 50]?", "The cat [50, 50, 200, 150] is.")


def test_visual_prompts_and_grounded_answers_are_learnt_by_another_convention(tmp_path):
    data_set = written(tmp_path, [PROMPT], coordinates="brackets:pixels", coordinates_as="internvl")
    (row,) = texts(data_set)
    assert row == ["What is at <box>[[250, 250]]</box>?", "The cat <box>[[125, 250, 500, 750]]</box> is."]


def test_texts_stay_as_they_are_without_another_convention(tmp_path):
    assert texts(written(tmp_path, [PROMPT], coordinates="brackets:pixels")) == [
        ["What is at [100, 50]?", "The cat [50, 50, 200, 150] is."]
    ]


def test_the_check_finds_points_and_boxes_that_cannot_be_right(tmp_path):
    wrong = [
        ("<image>\nWhere?", "The cat [50, 50, 500, 150]."),
        ("<image>\nWhere?", "The cat [60, 50, 50, 150]."),
        ("<image>\nWhat is at [1, 2, 3]?", "A cat."),
        ("<image>\nWhere?", "Nowhere."),
    ]
    report = check_data(
        [written(tmp_path, [PROMPT, *wrong], coordinates="brackets:pixels")],
        {},
        TrainSettings(lr=1e-3, steps=3, max_length=200),
        None,
    )
    (one,) = report.sets
    assert (one.rows, one.bad, one.faults) == (5, 3, {"coordinates": 3})
    assert "row 2: turn 2: [50, 50, 500, 150]: leaves the image" in report.errors[0]
    assert "row 4: turn 1: [1, 2, 3]: expected 2 numbers (a point) or 4 (a box), found 3" in report.errors[0]


def test_a_point_on_an_image_that_the_row_does_not_have_is_wrong(tmp_path):
    data_set = written(
        tmp_path, [("<image>\nWhere?", '<points coords="2 1 500 500">cat</points>')], coordinates="molmo2"
    )
    report = check_data([data_set], {}, TrainSettings(lr=1e-3, steps=3), None)
    assert "turn 2: a point or box on image 2, and the row has 1" in report.errors[0]


def test_a_convention_that_there_is_none_of_is_refused():
    with pytest.raises(ValidationError, match="Did you mean 'molmo'"):
        DataSet(path="a", coordinates="molmoo")
    with pytest.raises(ValidationError, match="say by `coordinates`"):
        DataSet(path="a", coordinates_as="molmo")


def test_a_data_set_without_coordinates_is_stored_as_before():
    assert "coordinates" not in DataSet(path="a").model_dump()
    assert DataSet(path="a", coordinates="molmo").model_dump()["coordinates"] == "molmo"
