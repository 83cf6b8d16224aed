"""What is wrong with data is found before anything is trained."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from finetune.config import DataSet, TrainSettings
from finetune.data.check import COLUMNS, JobData, check_data
from finetune.data.corpus import Corpus
from finetune.data.row_scan import RowScanner
from finetune.data.rows import RowError
from finetune.points.tiny import tiny_processor
from soup.errors import FinetuneError


@pytest.fixture(scope="module")
def processor():
    return tiny_processor()


def settings(**changed):
    return TrainSettings(**{"lr": 1e-3, "steps": 3, "max_length": 200, **changed})


def ask(question="<image>\nWhat?", answer="red"):
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def written(root, name, rows):
    """A data set beside the pictures good.png, cut.png and text.png (which is none)."""
    if not (root / "good.png").exists():
        Image.effect_noise((64, 32), 50).save(root / "good.png")
        content = (root / "good.png").read_bytes()
        (root / "cut.png").write_bytes(content[: len(content) // 2])
        (root / "text.png").write_text("no picture")
        (root / "empty.png").write_bytes(b"")
    path = root / f"{name}.json"
    path.write_text(json.dumps(rows))
    return DataSet(path=str(path))


GOOD = {"image": "good.png", "conversations": ask()}
BAD = {
    "unreadable": {"text": "no conversation"},
    "roles": {"conversations": ask("Hello?")[::-1]},
    "placeholders": {"conversations": ask()},
    "image_token": {"conversations": ask("What is <|image_pad|>?")},
    "end_token": {"conversations": ask("Hello?", "red<|im_end|>blue")},
    "empty_answer": {"conversations": ask("Hello?", " ")},
    "image_missing": {"image": "gone.png", "conversations": ask()},
    "image_unreadable": {"image": "text.png", "conversations": ask()},
    "too_long": {"conversations": ask("x" * 200)},
}


def test_every_kind_of_bad_row_is_counted_and_told(tmp_path, processor):
    data = written(tmp_path, "data", [GOOD, *BAD.values(), {"image": "empty.png", "conversations": ask()}])
    report = check_data([data], {}, settings(), processor)
    (one,) = report.sets
    assert one.faults == {**dict.fromkeys(BAD, 1), "image_unreadable": 2}
    assert (one.rows, one.bad, len(one.first)) == (11, 10, 10)
    assert not report.ok
    assert "bad rows: 10 of 11" in report.errors[0]
    assert "image 1: no such file: " in report.errors[0]
    assert f"{data.path}, row 10: " in report.errors[0]
    with pytest.raises(FinetuneError, match="not fit to train on"):
        report.require()


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_row_of_each_kind_alone_is_found(tmp_path, processor, kind):
    report = check_data([written(tmp_path, "data", [GOOD, BAD[kind]])], {}, settings(), processor)
    assert report.sets[0].faults == {kind: 1}
    assert not report.ok


def test_the_end_of_a_turn_is_no_fault_at_the_end_of_a_text(tmp_path, processor):
    rows = [{"conversations": ask("Hello?", answer)} for answer in ("Hi<|im_end|>", "Hi<|im_end|>\n", "Hi<|im_end")]
    check_data([written(tmp_path, "data", rows)], {}, settings(), processor).require()


def test_good_rows_are_fit_and_counted(tmp_path, processor):
    rows = [
        GOOD,
        {"conversations": ask("Hello?", "Hi")},
        {"image": ["good.png"] * 2, "conversations": ask("<image><image>")},
    ]
    report = check_data([written(tmp_path, "data", rows)], {}, settings(), processor)
    report.require()
    (one,) = report.sets
    assert one.groups == {"text_only": 1, "single_image": 1, "several_images": 1}
    assert (one.bad, one.repeated, one.shared) == (0, 0, {})
    # Two tiles and a thumbnail of 4 tokens each, and the template's bytes and specials.
    around = len("user\n") + len("assistant\n") + len("\n") * 2 + 4
    assert one.longest == 2 * 12 + around + len("red")
    assert one.tokens == one.longest + 12 + around + len("What?red") + around + len("Hello?Hi")
    assert len(report.lines()[0]) == len(COLUMNS)
    assert report.lines()[0][2:] == ("3", "0", "1", "1", "1", "0", str(one.tokens), str(one.longest))


def test_how_far_it_is_is_told_every_thousand_rows_and_at_the_end(tmp_path):
    told = []
    data = written(tmp_path, "data", [{"conversations": ask("Hello?", "Hi")}] * 2001)
    check_data([data], {}, settings(), progress=lambda path, done, rows: told.append((done, rows)))
    assert told == [(1000, 2001), (2000, 2001), (2001, 2001)]


def test_a_row_whose_picture_is_gone_has_no_length(tmp_path, processor):
    corpus = Corpus([written(tmp_path, "data", [GOOD, BAD["image_missing"]])])
    with pytest.raises(RowError, match=r"row 2: no such file: "):
        RowScanner(processor, 100).length(corpus[1])


def test_the_report_is_json(tmp_path, processor):
    report = check_data([written(tmp_path, "data", [GOOD, BAD["roles"]])], {}, settings(), processor)
    document = json.loads(json.dumps(report.as_json()))
    assert (document["schema"], document["ok"]) == (1, False)
    assert document["sets"][0]["faults"] == {"roles": 1}


def test_without_a_processor_all_but_the_lengths_is_known(tmp_path):
    data = written(tmp_path, "data", [GOOD, *BAD.values()])
    (one,) = check_data([data], {}, settings()).sets
    assert one.faults == {kind: 1 for kind in BAD if kind not in ("too_long", "end_token")}
    assert (one.tokens, one.longest) == (None, None)
    assert one.line()[-2:] == ("", "")


def test_damage_behind_a_header_is_found_when_all_is_decoded(tmp_path):
    data = written(tmp_path, "data", [GOOD, {"image": "hole.png", "conversations": ask()}])
    content = (tmp_path / "good.png").read_bytes()
    half = len(content) // 2
    (tmp_path / "hole.png").write_bytes(content[:half] + b"\xff" * 99 + content[half + 99 :])
    assert check_data([data], {}, settings()).ok
    report = check_data([data], {}, settings(), decode=True)
    assert report.sets[0].faults == {"image_unreadable": 1}
    assert "cut off" in report.errors[0]


def test_a_picture_that_is_cut_off_is_found_by_its_end(tmp_path):
    data = written(tmp_path, "data", [GOOD, {"image": "cut.png", "conversations": ask()}])
    report = check_data([data], {}, settings())
    assert report.sets[0].faults == {"image_unreadable": 1}
    assert "cut off" in report.errors[0]


def test_headers_are_enough_to_count_tokens(tmp_path, processor, monkeypatch):
    data = written(tmp_path, "data", [GOOD])
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("a picture was decoded"))
    assert check_data([data], {}, settings(), processor).ok


def test_frames_are_counted_and_missing_ones_found(tmp_path, processor):
    data = written(tmp_path, "data", [])
    rows = [
        {"video": ["good.png"] * 3, "conversations": ask("<video>What?")},
        {"video": ["good.png", "gone.png"], "conversations": ask("<video>What?")},
        {"video": "gone", "conversations": ask("<video>What?")},
    ]
    data = written(tmp_path, "data", rows)
    (one,) = check_data([data], {}, settings(), processor).sets
    assert one.faults == {"image_missing": 2}
    assert one.groups["several_images"] == 1
    assert one.tokens == 3 * 4 + len("user\nassistant\n\n\n") + 4 + len("What?red")


def test_bad_rows_overwrite_nothing_but_those_of_an_earlier_check(tmp_path, processor):
    data = written(tmp_path, "data", [BAD["roles"]])
    file, other = tmp_path / "faults.jsonl", tmp_path / "data.json"
    for _ in range(2):
        check_data([data], {}, settings(), processor, faults_to=file)
    before = other.read_bytes()
    with pytest.raises(FinetuneError, match="no earlier check wrote it"):
        check_data([data], {}, settings(), processor, faults_to=other)
    assert other.read_bytes() == before


def test_where_bad_rows_are_skipped_they_are_notes_unless_nothing_is_left(tmp_path, processor):
    some, none = written(tmp_path, "some", [GOOD, BAD["roles"]]), written(tmp_path, "none", [BAD["roles"]])
    report = check_data([some], {}, settings(on_bad_row="skip"), processor)
    assert report.ok
    assert "left out are bad rows: 1 of 2 (roles out of order: 1)" in report.notes[0]
    report = check_data([none], {}, settings(on_bad_row="skip"), processor)
    assert "no good row" in report.errors[0]


def test_all_bad_rows_go_into_a_file_when_asked(tmp_path, processor):
    data = written(tmp_path, "data", [GOOD] + [BAD["roles"]] * 30)
    report = check_data([data], {}, settings(), processor, faults_to=tmp_path / "faults.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "faults.jsonl").read_text().splitlines()]
    assert [line["row"] for line in lines] == list(range(1, 31))
    assert lines[0]["faults"][0]["kind"] == "roles"
    assert len(report.sets[0].first) == 5
    assert "... and 25 more" in report.errors[0]
    with pytest.raises(FinetuneError, match="can't be written"):
        check_data([data], {}, settings(), processor, faults_to=tmp_path / "none" / "faults.jsonl")


def test_some_rows_of_each_kind_are_told_in_full_however_many_of_another_come_first(tmp_path, processor):
    rows = [GOOD, *[BAD["roles"]] * 30, BAD["image_missing"], *[BAD["empty_answer"]] * 30]
    report = check_data([written(tmp_path, "data", rows)], {}, settings(), processor)
    reasons = report.sets[0].first
    assert [sum(word in reason for reason in reasons) for word in ("in turns", "no such file", "is empty")] == [5, 1, 5]
    assert "(base): bad rows: 61 of 62" in report.errors[0]


def test_repeated_rows_are_told_within_and_between_data_sets(tmp_path):
    other = {"conversations": ask("Hello?", "Hi")}
    base = written(tmp_path, "base", [GOOD, GOOD, other, {**GOOD, "id": "again"}])
    added = written(tmp_path, "added", [other, {"conversations": ask("Bye?", "Bye")}])
    report = check_data([base], {"more": [added]}, settings())
    assert report.ok
    assert [data_set.repeated for data_set in report.sets] == [2, 0]
    assert report.sets[1].shared == {base.path: 1}
    assert f"{base.path}: 2 of 4 rows repeat an earlier one" in report.notes
    assert f"{added.path} (more): 1 of 2 rows are in {base.path}, too" in report.notes


def test_a_set_without_rows_is_told_where_tokens_are_counted_too(tmp_path, processor):
    base, empty = written(tmp_path, "base", [GOOD]), written(tmp_path, "empty", [])
    report = check_data([base], {"empty": [empty]}, settings(), processor)
    assert report.errors == (f"{empty.path} (empty): empty, expected rows to train on",)
    assert (report.sets[1].tokens, report.sets[1].longest) == (0, 0)


def test_added_sets_that_are_empty_equal_the_base_or_repeat_another_are_told(tmp_path):
    word = {"conversations": ask("Hello?", "Hi")}
    base, twin = written(tmp_path, "base", [GOOD]), written(tmp_path, "twin", [GOOD])
    one, two = written(tmp_path, "one", [word, GOOD]), written(tmp_path, "two", [GOOD, word])
    empty = written(tmp_path, "empty", [])
    added = {"twin": [twin], "one": [one], "two": [two], "empty": [empty], "self": [base]}
    report = check_data([base], added, settings())
    assert report.errors == (f"{empty.path} (empty): empty, expected rows to train on",)
    same = [note.split(";")[0] for note in report.notes if "same rows" in note]
    assert same == [
        "twin: holds the same rows as the base set",
        "two: holds the same rows as one",
        "self: holds the same rows as the base set",
    ]
    assert report.sets[0].of == ("base", "self")


def test_a_data_set_that_can_not_be_opened_hides_no_other(tmp_path):
    gone = DataSet(path=str(tmp_path / "gone.json"))
    report = check_data([gone], {"more": [written(tmp_path, "more", [BAD["roles"]])]}, settings())
    assert len(report.errors) == 2
    assert "gone.json" in report.errors[0]


def test_rows_that_look_like_two_formats_are_told(tmp_path):
    both = {**GOOD, "messages": [{"role": "user", "content": "x"}]}
    report = check_data([written(tmp_path, "data", [GOOD, both])], {}, settings())
    assert "say which by `format`" in report.errors[0]
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    report = check_data([written(tmp_path, "mixed", [GOOD, {"messages": messages}])], {}, settings())
    assert report.ok
    assert "rows of several formats (llava: 1, openai: 1)" in report.notes[0]


def test_progress_is_told_to_the_end(tmp_path):
    seen = []
    data = written(tmp_path, "data", [GOOD] * 3)
    check_data([data], {}, settings(), progress=lambda *told: seen.append(told))
    assert seen == [(data.path, 3, 3)]


def test_that_tokens_were_not_counted_is_said(tmp_path, processor):
    data = written(tmp_path, "data", [GOOD])
    (note,) = check_data([data], {}, settings()).notes
    assert "tokens were not counted (the start is not here yet" in note
    assert check_data([data], {}, settings(), processor).notes == ()


def test_a_row_is_too_long_by_the_shortest_length_among_the_jobs_that_train_on_it(tmp_path, processor):
    long = {"conversations": ask("x" * 150)}
    base, added = written(tmp_path, "base", [GOOD, long]), written(tmp_path, "added", [GOOD, long])
    uses = [JobData("a", [base, added], settings()), JobData("start", [base], settings(max_length=100))]
    report = check_data([base], {"a": [added]}, settings(), processor, jobs=uses)
    assert [data_set.faults for data_set in report.sets] == [{"too_long": 1}, {}]
    assert "max_length 100" in report.errors[0]


def test_bad_rows_are_errors_where_one_of_the_jobs_takes_them_for_errors(tmp_path, processor):
    base = written(tmp_path, "base", [GOOD, BAD["roles"]])
    uses = [JobData("a", [base], settings(on_bad_row="skip")), JobData("start", [base], settings())]
    assert not check_data([base], {}, settings(on_bad_row="skip"), processor, jobs=uses).ok
    assert check_data([base], {}, settings(), processor, jobs=uses[:1]).ok


def test_a_mixture_that_the_good_rows_do_not_allow_is_an_error_told_once(tmp_path, processor):
    base = written(tmp_path, "base", [GOOD, {**BAD["roles"]}])
    added = {name: [written(tmp_path, name, [GOOD, {**GOOD, "id": name}])] for name in "ab"}
    mixture = {"groups": {"single_image": 0.5, "text_only": 0.5}}
    report = check_data([base], added, settings(mixture=mixture, on_bad_row="skip"), processor)
    (error,) = report.errors
    assert error.startswith("base, a, b: the mixture can't be made")
    assert "groups.text_only: no rows" in error


def test_a_data_set_that_can_t_be_opened_is_told_with_whose_it_is(tmp_path):
    gone = DataSet(path=str(tmp_path / "gone.json"))
    report = check_data([written(tmp_path, "data", [GOOD])], {"more": [gone]}, settings())
    assert report.errors[0].startswith(f"more: {gone.path}: expected a data set here")
