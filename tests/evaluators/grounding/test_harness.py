"""Files of the exact schemas, asked and scored; VLMEvalKit's own numbers on the same answers."""

from __future__ import annotations

import gc
import json
import statistics
import warnings

import pandas
import pytest
from PIL import Image

from evaluators.grounding.harness import Grounding
from evaluators.vlmeval.light_import import vlmeval_module
from soup.errors import EvaluatorError
from soup.evaluation.api import Benchmark, Split
from soup.evaluation.settings import EvalSettings
from soup.testing import check_evaluator
from tests.helpers.scripted_models import SCRIPTED, scripted

SOURCES = {"mobile": "ios", "desktop": "macos", "web": "shop"}


def screenspot(folder, counts):
    """ScreenSpot's three files: of each cell so many instructions, all on an element from (40, 20) to (60, 40)."""
    (folder / "screenspot_imgs").mkdir()
    number = 0
    for platform, source in SOURCES.items():
        rows = []
        Image.new("RGB", (200, 100)).save(folder / "screenspot_imgs" / f"{platform}.png")
        for kind in ("text", "icon"):
            for _ in range(counts.get(f"{platform} {kind}", 1)):
                number += 1
                instruction = f"open <{number}>"
                rows.append(
                    {"img_filename": f"{platform}.png", "bbox": [40, 20, 20, 20], "instruction": instruction}
                    | {"data_type": kind, "data_source": source}
                )
        (folder / f"screenspot_{platform}.json").write_text(json.dumps(rows))
    return number


def written(path, rows):
    Image.new("RGB", (200, 100)).save(path.with_name("a.png"))
    path.write_text("\n".join(json.dumps({"image": "a.png", **row}) for row in rows))
    return path


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "model.py").write_text(SCRIPTED)
    return EvalSettings(model=f"{tmp_path / 'model.py'}:Scripted")


def benchmark(target, **options):
    return Benchmark(f"grounding:{target}", "grounding", str(target), **options)


def test_screenspots_cells_count_alike_and_samples_are_told_beside_them(tmp_path, settings):
    count = screenspot(tmp_path, {"desktop icon": 10})  # numbers 4 to 13; files are read in their names' order
    wrong = {str(n): "(0.9,0.9)" for n in range(4, 14)}
    candidate = scripted(tmp_path, {str(n): "(0.25,0.30)" for n in range(1, count + 1)} | wrong | {"1": "no idea"})
    score = check_evaluator(Grounding, benchmark(tmp_path), candidate, settings=settings)
    name = tmp_path.name
    assert score.parts == {
        f"{name} desktop text": 100,
        f"{name} desktop icon": 0,
        f"{name} mobile text": 0,
        f"{name} mobile icon": 100,
        f"{name} web text": 100,
        f"{name} web icon": 100,
    }
    assert score.value == pytest.approx(400 / 6)
    assert 100 * statistics.fmean(score.questions.values()) == pytest.approx(400 / 15)
    assert score.unparsed == pytest.approx(1 / 15)
    assert "26.67 over 15 samples, 66.67 over 6 cells, 1 answer without a place." in candidate.remarks[0]


def test_pointing_is_told_by_f1_precision_recall_and_frequency(tmp_path, settings):
    near, far = "[10, 10]", "[100, 90]"
    rows = [
        {"question": "<1>", "points": []},
        {"question": "<2>", "points": [[10, 10]], "radius": 5},
        {"question": "<3>", "points": [[10, 10], [50, 50]], "radius": 5},
        {"question": "<4>", "points": [[10 * n, 10] for n in range(1, 6)], "radius": 5},
    ]
    file = written(tmp_path / "points.jsonl", rows)
    answers = {"1": "There are none.", "2": f"{near} {far}", "3": near, "4": near}
    target = benchmark(f"{file}@brackets:pixels")
    score = check_evaluator(Grounding, target, scripted(tmp_path, answers), settings=settings)
    shown = {name.removeprefix("points "): round(value, 2) for name, value in score.parts.items()}
    for name, part in score.by_name(target.name).items():
        assert part.value == pytest.approx(100 * statistics.fmean(part.questions.values())), name
    assert {*score.part_questions["points one"]} < {*score.part_questions["points f1"]} == {*score.questions}
    assert shown == {
        "f1": round(100 * (1 + 2 / 3 + 2 / 3 + 1 / 3) / 4, 2),
        "precision": round(100 * 3.5 / 4, 2),
        "recall": round(100 * (1 + 1 + 0.5 + 0.2) / 4, 2),
        "zero": 100,
        "one": 66.67,
        "few": 66.67,
        "many": 33.33,
    }


def test_boxes_of_several_phrases_are_asked_scored_and_split(tmp_path, settings):
    rows = [
        {"id": f"g/{n}", "question": f"Where? <{n}>", "boxes": {"cat": [[0, 0, 100, 50]], "dog": [[100, 50, 200, 100]]}}
        for n in range(4)
    ]
    file = written(tmp_path / "boxes.jsonl", rows)
    both = "<ref>cat</ref><box>[[0, 0, 500, 500]]</box> <ref>dog</ref><box>[[500, 500, 1000, 1000]]</box>"
    answers = {"0": both, "1": both.partition(" <")[0], "2": "no", "3": both}
    harness, target = Grounding(settings), benchmark(f"{file}@internvl")
    candidate = scripted(tmp_path, answers)
    score = check_evaluator(Grounding, target, candidate, settings=settings)
    assert score.questions == {"g/0": 1, "g/1": 0.5, "g/2": 0, "g/3": 1}
    assert (score.value, score.parts, score.unparsed) == (62.5, {}, 0.25)
    assert harness.asks_some(target)
    assert harness.count(target) == 4


def test_answers_are_remembered_and_data_and_convention_are_in_the_identity(tmp_path, settings):
    file = written(tmp_path / "boxes.jsonl", [{"question": "Where? <0>", "boxes": [[0, 0, 100, 50]]}])
    candidate, notes = scripted(tmp_path, {"0": "[0, 0, 500, 500]"}), tmp_path / "model.notes"
    identities = []
    for convention in ("ferret-ui", "brackets:percent"):
        harness, target = Grounding(settings), benchmark(f"{file}@{convention}")
        assert harness.evaluate(candidate, target).value == (100 if convention == "ferret-ui" else 0)
        identities.append(harness.identity(target))
    assert notes.read_text().count("asked") == 1
    Image.new("RGB", (200, 100), "red").save(tmp_path / "a.png")
    identities.append(Grounding(settings).identity(target))
    assert len({json.dumps(identity, sort_keys=True) for identity in identities}) == 3
    Grounding(settings).evaluate(candidate, target)
    assert notes.read_text().count("asked") == 2  # another image is another prompt


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"boxes": [[5, 1, 1, 5]]}, "a box that ends before it begins"),
        ({"boxes": [[1, 5, 5, 1]]}, "a box that ends before it begins"),
        ({"boxes": [[0, 0, 9, 9]], "points": [[1, 2]]}, "found boxes and points in one file"),
        ({"boxes": {"cat": []}}, "at least one box for each phrase"),
        ({"points": [[1, 2, 3]], "radius": 1}, "expected 2 numbers"),
        ({"points": [[1, 2]]}, "KeyError: 'radius'"),
        ({"points": [[1, 2]], "masks": []}, "a mask for each of 1 points"),
        ({"points": [[1, 2]], "masks": ["gone.png"]}, "no such mask"),
        ({"answer": "A"}, "found none of them"),
    ],
)
def test_a_row_that_cannot_be_asked_is_told_before_any_work(tmp_path, settings, row, message):
    file = written(tmp_path / "rows.jsonl", [{"question": "Where?", **row}])
    with pytest.raises(EvaluatorError, match=message):
        Grounding(settings).identity(benchmark(file))


def test_what_is_not_there_is_told(tmp_path, settings):
    with pytest.raises(EvaluatorError, match="expected a file of questions"):
        Grounding(settings).identity(benchmark(tmp_path / "gone.jsonl"))
    with pytest.raises(EvaluatorError, match="Did you mean 'molmo'"):
        Grounding(settings).identity(benchmark("a.jsonl@molmoo"))
    file = written(tmp_path / "a.jsonl", [{"question": "<0>", "boxes": [[0, 0, 1, 1]]}])
    halves = [benchmark(file, split=Split(part, 0.5)) for part in ("selection", "report")]
    refused = 0
    for half in halves:
        try:
            Grounding(settings).identity(half)
        except EvaluatorError:
            refused += 1
    assert refused == 1


def test_vlmevalkits_numbers_differ_where_the_docs_say_so(tmp_path, settings, monkeypatch):
    """10 of 10 texts and none of 100 icons; on the right edge; beside it; percent; unparsable at the upper left."""
    counts = {f"{platform} {kind}": 0 for platform in SOURCES for kind in ("text", "icon")}
    (tmp_path / "ours").mkdir()
    count = screenspot(tmp_path / "ours", counts | {"mobile text": 10, "mobile icon": 100})
    for platform in ("desktop", "web"):
        (tmp_path / "ours" / f"screenspot_{platform}.json").unlink()
    hit, miss = "pyautogui.click(x=0.25, y=0.3)", "pyautogui.click(x=0.9, y=0.9)"
    answers = {str(n): hit if n <= 10 else miss for n in range(1, count + 1)}
    theirs = vlmevals(tmp_path, monkeypatch, answers)
    score = Grounding(settings).evaluate(scripted(tmp_path, answers), benchmark(f"{tmp_path / 'ours'}@pyautogui"))
    assert theirs["Overall_Accuracy"] == pytest.approx(100 / 11)
    assert theirs["all_Accuracy"] == pytest.approx(100 * 10 * 10 / (10 * 10 + 100 * 100))  # cells by their squares
    assert 100 * statistics.fmean(score.questions.values()) == pytest.approx(100 / 11)
    assert score.value == 50  # the mean of two cells
    edge = answers | {"1": "pyautogui.click(x=0.3, y=0.4)", "2": "none", "3": "pyautogui.click(x=25, y=30)"}
    theirs = vlmevals(tmp_path, monkeypatch, edge)
    assert theirs["Format_Err_Rate"] == 0  # an unparsable answer is a click at (0, 0)
    score = Grounding(settings).evaluate(scripted(tmp_path, edge, "edge"), benchmark(f"{tmp_path / 'ours'}@pyautogui"))
    assert score.questions["1"] == 1  # the box ends at x + w, theirs a pixel before
    assert theirs["Text_Accuracy"] == pytest.approx(70)
    assert score.parts["ours mobile text"] == pytest.approx(80)
    assert score.unparsed == pytest.approx(1 / 110)


def vlmevals(tmp_path, monkeypatch, answers):
    """What VLMEvalKit's ScreenSpot makes of answers to the questions of the one file."""
    monkeypatch.setenv("LMUData", str(tmp_path))
    monkeypatch.setenv("PRED_FORMAT", "tsv")
    rows = json.loads((tmp_path / "ours" / "screenspot_mobile.json").read_text())
    table = pandas.DataFrame(rows).rename(columns={"instruction": "question", "img_filename": "image_path"})
    table["category"], table["prediction"] = "all", [answers[str(n)] for n in range(1, len(rows) + 1)]
    table.to_csv(tmp_path / "answers.tsv", sep="\t", index=False)
    data_set = vlmeval_module("dataset.GUI.screenspot").ScreenSpot(skeleton=True)
    data_set.img_root = str(tmp_path / "ours" / "screenspot_imgs")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves the closing of its files to Python
        result = data_set.evaluate_point(str(tmp_path / "answers.tsv"))
        gc.collect()
    return result
