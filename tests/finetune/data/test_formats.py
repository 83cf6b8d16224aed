"""Rows of all formats, from all kinds of files."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from finetune.config import Columns, DataSet, TrainSettings
from finetune.data import Corpus, texts_of
from finetune.data.check import check_data
from finetune.data.files import open_file
from finetune.data.formats import read_row
from finetune.data.json_files import read_array, read_lines
from finetune.data.rows import RowError
from finetune.launching.digests import Digests
from soup.errors import FinetuneError

LLAVA = {
    "id": "1",
    "image": "a.png",
    "conversations": [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "red"}],
}
SHAREGPT = {
    "images": ["a.png", "sub/b.png"],
    "system": "Be short.",
    "conversations": [
        {"from": "human", "value": "Compare <image> and <image>."},
        {"from": "gpt", "value": "Alike."},
        {"from": "human", "value": "Sure?"},
        {"from": "gpt", "value": "Yes."},
    ],
}
OPENAI = {
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is "},
                {"type": "image_url", "image_url": {"url": "file:///data/a%20b.png"}},
                {"type": "text", "text": "?"},
            ],
        },
        {"role": "assistant", "content": "red"},
    ]
}


def read(raw, tmp_path, **settings):
    return read_row(raw, "x.json, row 1", tmp_path, **settings)


def sources(sample):
    return [picture.source for picture in sample["images"]]


def png(color="red"):
    buffer = io.BytesIO()
    Image.new("RGB", (64, 32), color).save(buffer, "PNG")
    return buffer.getvalue()


def test_llava_s_line_break_after_a_marker_belongs_to_it(tmp_path):
    sample = read(LLAVA, tmp_path)
    assert sample["messages"][0] == {
        "role": "user",
        "content": [{"type": "image"}, {"type": "text", "text": "What?"}],
    }
    assert sample["messages"][1] == {"role": "assistant", "content": "red"}
    assert sources(sample) == [tmp_path / "a.png"]
    assert sample["format"] == "llava"


def test_sharegpt_has_a_system_message_and_several_images_within_its_text(tmp_path):
    sample = read(SHAREGPT, tmp_path)
    assert [message["role"] for message in sample["messages"]] == ["system", "user", "assistant", "user", "assistant"]
    kinds = [part.get("text", "image") for part in sample["messages"][1]["content"]]
    assert kinds == ["Compare ", "image", " and ", "image", "."]
    assert sources(sample) == [tmp_path / "a.png", tmp_path / "sub/b.png"]
    assert sample["format"] == "sharegpt"


def test_openai_s_parts_keep_their_order_and_hold_their_own_images(tmp_path):
    sample = read(OPENAI, tmp_path)
    assert [part.get("text", "image") for part in sample["messages"][0]["content"]] == ["What is ", "image", "?"]
    assert sources(sample) == [Path("/data/a b.png")]
    assert sample["format"] == "openai"


def test_openai_s_bare_parts_and_markers_take_their_images_from_the_row(tmp_path):
    bare = {"messages": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "x"}]}, *answer()]}
    marked = {"messages": [{"role": "user", "content": "<image>x"}, *answer()]}
    for raw in (bare, marked):
        sample = read({**raw, "images": [{"bytes": b"abc", "path": None}]}, tmp_path)
        assert sources(sample) == [{"bytes": b"abc", "path": None}]


def answer(text="yes"):
    return [{"role": "assistant", "content": text}]


def turns(question, reply):
    return [{"from": "human", "value": question}, {"from": "gpt", "value": reply}]


def test_a_text_about_markers_in_parts_is_a_text(tmp_path):
    parts = [{"type": "text", "text": "What does <image> do in SVG?"}]
    sample = read({"messages": [{"role": "user", "content": parts}, *answer()]}, tmp_path)
    assert texts_of(sample)[0] == "What does <image> do in SVG?"
    assert sample["images"] == []


def test_base64_and_bytes_are_images_and_no_paths(tmp_path):
    text = base64.b64encode(png()).decode()
    for image in (text, f"data:image/png;base64,{text}", png()):
        assert sources(read({**LLAVA, "image": image}, tmp_path)) == [image]


def test_an_empty_name_is_no_image(tmp_path):
    turns = [{"from": "human", "value": "Hello?"}, {"from": "gpt", "value": "Hi"}]
    assert read({"image": "", "conversations": turns}, tmp_path)["images"] == []


def test_a_long_path_without_dots_is_a_path_where_there_is_such_a_file(tmp_path):
    name = "a" * 80
    (tmp_path / name).write_bytes(png())
    assert sources(read({**LLAVA, "image": name}, tmp_path)) == [tmp_path / name]


@pytest.mark.parametrize("marker", ["<image>", "<video>"])
def test_a_video_is_one_image_of_many_frames(tmp_path, marker):
    turns = [{"from": "human", "value": f"{marker}\nWhat?"}, {"from": "gpt", "value": "red"}]
    directory = read({"video": "clip", "conversations": turns}, tmp_path, frames=8)
    frames = read({"video": ["1.png", "2.png"], "conversations": turns}, tmp_path, frames=8)
    assert [(image.source, image.frames) for image in directory["images"]] == [(tmp_path / "clip", 8)]
    assert [(image.source, image.frames) for image in frames["images"]] == [
        ([tmp_path / "1.png", tmp_path / "2.png"], 8)
    ]


def test_a_video_and_an_image_find_their_own_markers(tmp_path):
    turns = [{"from": "human", "value": "<video> or <image>?"}, {"from": "gpt", "value": "red"}]
    sample = read({"image": "a.png", "video": "clip", "conversations": turns}, tmp_path)
    assert [image.frames for image in sample["images"]] == [24, None]


INPUT = [{"type": "input_text", "text": "What?"}, {"type": "input_image", "image_url": "a.png"}]
OUTPUT = [{"role": "assistant", "content": [{"type": "output_text", "text": "red"}]}]


@pytest.mark.parametrize(
    ("raw", "roles", "images"),
    [
        (
            {"messages": [{"role": "developer", "content": "Short."}, {"role": "user", "content": INPUT}, *OUTPUT]},
            ["system", "user", "assistant"],
            [("a.png", None)],
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": "clip"}}]}, *OUTPUT]},
            ["user", "assistant"],
            [("clip", 24)],
        ),
        (
            {"image": "a.png", "conversations": {"from": ["human", "gpt"], "value": ["<image>\nWhat?", "red"]}},
            ["user", "assistant"],
            [("a.png", None)],
        ),
        (
            {"videos": ["b", "c"], "image": "<NA>", "conversations": turns("<video> or <video>?", "red")},
            ["user", "assistant"],
            [("b", 24), ("c", 24)],
        ),
    ],
    ids=["openai's new words", "video_url", "columns of turns", "videos"],
)
def test_other_words_and_shapes_mean_the_same(tmp_path, raw, roles, images):
    sample = read(raw, tmp_path)
    assert [message["role"] for message in sample["messages"]] == roles
    assert texts_of(sample)[-1] == "red"
    assert [(picture.source, picture.frames) for picture in sample["images"]] == [
        (tmp_path / name, frames) for name, frames in images
    ]


@pytest.mark.parametrize(
    ("raw", "kind", "said"),
    [
        ([1], "unreadable", "expected an object with conversations or messages, found list"),
        ({"text": "x"}, "unreadable", "expected conversations or messages, found text"),
        ({**LLAVA, **OPENAI}, "unreadable", "say which by `format`"),
        ({**LLAVA, "images": ["a.png"]}, "unreadable", "image (llava) and images (sharegpt)"),
        ({"conversations": []}, "unreadable", "found an empty list"),
        ({"conversations": ["x"]}, "unreadable", "turn 1: expected an object, found str"),
        ({"conversations": [{"from": "tool", "value": "x"}]}, "roles", "role 'tool' is not one of human, user"),
        ({"conversations": [{"from": "gpt", "value": "x"}]}, "roles", "found assistant"),
        ({"conversations": LLAVA["conversations"][:1], "image": "a.png"}, "roles", "found user"),
        ({"conversations": LLAVA["conversations"]}, "placeholders", "1 <image> in the text, 0 images"),
        ({**LLAVA, "image": ["a.png", "b.png"]}, "placeholders", "1 <image> in the text, 2 images"),
        (
            {"image": "a.png", "conversations": [{"from": "human", "value": "<video>x"}, *answer()]},
            "placeholders",
            "<video> in the text, and no video for it, but 1 image: write <image>",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "x"}]},
                    *answer(),
                ],
                "images": ["a.png"],
            },
            "placeholders",
            "no video for it, but 1 image",
        ),
        (
            {"messages": [{"role": "user", "content": "<video><video>"}, *answer()], "image": "a.png", "video": "clip"},
            "placeholders",
            "no video for it, but 1 image",
        ),
        (
            {"messages": [{"role": "user", "content": "x"}, *answer(" ")]},
            "empty_answer",
            "the answer of turn 2 is empty",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "audio"}]}, *answer()]}, "unreadable", "type 'audio'"),
        ({**LLAVA, "image": 7}, "unreadable", "image 1: expected a path, bytes or base64, found int"),
        ({**LLAVA, "image": "https://host/a.png"}, "image_missing", "a URL; download it first"),
    ],
)
def test_what_is_wrong_with_a_row_is_said_by_its_kind(tmp_path, raw, kind, said):
    with pytest.raises(RowError) as error:
        read(raw, tmp_path)
    assert [fault.kind for fault in error.value.faults] == [kind]
    assert said in str(error.value)
    assert str(error.value).startswith("x.json, row 1: ")


def test_all_that_is_wrong_with_a_row_is_said_at_once(tmp_path):
    turns = [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": ""}, {"from": "human", "value": "x"}]
    with pytest.raises(RowError) as error:
        read({"conversations": turns}, tmp_path)
    assert {fault.kind for fault in error.value.faults} == {"placeholders", "roles", "empty_answer"}


def test_an_error_of_a_row_comes_back_from_a_worker_process(tmp_path):
    with pytest.raises(RowError) as error:
        read([], tmp_path)
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.sampled_from(["<image>", "human", "gpt", "user"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["conversations", "messages", "from", "value", "role", "content", "type", "image", "images"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(raw=JSON)
def test_no_row_breaks_the_reader(raw, tmp_path_factory):
    with contextlib.suppress(RowError):
        assert read_row(raw, "here", tmp_path_factory.getbasetemp())["messages"][-1]["role"] == "assistant"


def test_lines_are_found_without_reading_rows(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(["", json.dumps(LLAVA), "   ", "not json", json.dumps(OPENAI), ""]))
    rows = read_lines(path)
    assert [rows.where(i).split()[-1] for i in range(len(rows))] == ["2", "4", "5"]
    corpus = pickle.loads(pickle.dumps(Corpus([DataSet(path=str(path))])))
    assert corpus[0]["format"] == "llava"
    assert corpus[2]["format"] == "openai"
    with pytest.raises(RowError, match=r"x\.jsonl, line 4: not a row in JSON"):
        corpus[1]
    assert list(corpus.texts())[:2] == ["What?", "red"]


def test_the_words_for_a_new_tokenizer_are_those_of_the_first_data_set_whatever_comes_behind_it(tmp_path):
    sets = []
    for name, row in (("base", LLAVA), ("added", OPENAI)):
        (tmp_path / f"{name}.json").write_text(json.dumps([row]))
        sets.append(DataSet(path=str(tmp_path / f"{name}.json")))
    assert list(Corpus(sets).texts()) == list(Corpus(sets[:1]).texts()) != list(Corpus(sets[1:]).texts())
    assert list(Corpus([]).texts()) == []


@settings(max_examples=100, deadline=None)
@given(texts=st.lists(st.text(max_size=20)), end=st.sampled_from(["", "\n", "\r\n", "\n\n"]))
def test_lines_of_any_kind_are_those_that_python_reads(texts, end, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    lines = [json.dumps({"text": text}) for text in texts]
    path.write_bytes("\n".join(lines).encode() + end.encode())
    assert [row["text"] for row in read_lines(path)] == texts


@settings(max_examples=200, deadline=None)
@given(rows=st.lists(JSON, max_size=5), indent=st.sampled_from([None, 0, 2]), ascii=st.booleans(), bom=st.booleans())
def test_a_list_s_rows_are_those_that_python_reads(rows, indent, ascii, bom, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "any.json"
    text = json.dumps(rows, indent=indent, ensure_ascii=ascii)
    path.write_bytes(b"\xef\xbb\xbf" * bom + f" {text}\n".encode("utf-8", "replace"))
    assert list(read_array(path)) == json.loads(path.read_text(encoding="utf-8-sig"))


@pytest.mark.parametrize("text", ["", "{}", "3", "[", "[1", "[1,", "[1,]", "[1 2]", "[1]]", "[,]", "[1] x", "[nul]"])
def test_what_is_no_list_is_refused_as_python_does(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(FinetuneError, match=r"x\.json: expected a list of rows in JSON"):
        read_array(path)


def test_lines_across_chunks_are_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("finetune.data.json_files.CHUNK_BYTES", 7)
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps({"n": i}) + "\n" for i in range(50)))
    assert [row["n"] for row in read_lines(path)] == list(range(50))


def test_a_json_file_of_lines_is_read_as_lines(tmp_path):
    (tmp_path / "data.json").write_text(json.dumps(LLAVA) + "\n" + json.dumps(LLAVA))
    assert len(Corpus([DataSet(path=str(tmp_path))])) == 2


@pytest.mark.parametrize("name", ["x.jsonl", "x.json"])
@pytest.mark.parametrize(
    "text",
    ["{0}\n{0}\n", "\ufeff{0}\r\n{0}", "\ufeff\n{0}\n{0}", "[{0}, {0}]", "\ufeff [\n{0},\n{0}]", '[{{"a":\n1}}, {0}]'],
)
def test_lines_and_lists_are_known_by_how_they_begin_not_by_their_suffix(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text.format(json.dumps(LLAVA)), encoding="utf-8")
    file = open_file(DataSet(path=str(path)))
    assert len(file) == 2
    assert file[0] in (LLAVA, {"a": 1})
    assert file[1] == LLAVA


@pytest.mark.parametrize("name", ["x.jsonl", "x.json"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (json.dumps(LLAVA, indent=1).encode() * 2, "found an object over several lines. Write each row into a line"),
        (json.dumps({"data": [LLAVA]}, indent=2).encode(), "of rows under a key write the list alone"),
        (json.dumps(LLAVA).encode("utf-16"), "expected text in UTF-8, found UTF-16"),
    ],
)
def test_what_is_neither_lines_nor_a_list_is_told_once_for_the_whole_file(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FinetuneError, match=said):
        open_file(DataSet(path=str(tmp_path / name)))


@pytest.mark.parametrize("name", ["x.jsonl", "x.json"])
def test_an_empty_file_has_no_rows(tmp_path, name):
    (tmp_path / name).write_text("\n")
    assert len(open_file(DataSet(path=str(tmp_path / name)))) == 0


def test_tables_without_rows_or_of_different_columns_are_told(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    import datasets

    datasets.Dataset.from_dict({"question": []}).to_parquet(tmp_path / "none.parquet")
    with pytest.raises(FinetuneError, match=r"none\.parquet: no row in it"):
        open_file(DataSet(path=str(tmp_path / "none.parquet")))
    (tmp_path / "set").mkdir()
    for name in ("a", "b"):
        datasets.Dataset.from_dict({name: ["x"]}).to_parquet(tmp_path / f"set/{name}.parquet")
    with pytest.raises(FinetuneError, match=r"can't be read as parquet \(.*column names don't match"):
        open_file(DataSet(path=str(tmp_path / "set")))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            {"question": "What?", "answer": ["a", "b"]},
            "answer: expected one text, found list; choose one of its values",
        ),
        ({"instruction": {"text": "a"}, "output": "b"}, "instruction: expected one text, found dict"),
        ({"conversations": None}, "expected conversations or messages, found nothing in conversations"),
        ({"Q": "a", "A": "b"}, "found Q, A; say by `columns` which is the question, and which the answer"),
    ],
)
def test_a_row_whose_columns_are_not_what_was_expected_is_told(tmp_path, row, said):
    with pytest.raises(RowError, match=said):
        read(row, tmp_path)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            {
                "query": "Where is <ref-object>?",
                "response": "<bbox>",
                "objects": {"ref": ["a cat"], "bbox": [[1, 2, 3, 4]]},
            },
            "<ref-object> stands for what objects holds, which is not read",
        ),
        (
            {"messages": [{"role": "user", "content": "<audio>What?"}, *answer()], "audios": ["a.wav"]},
            "<audio> stands for what audios holds",
        ),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "loss": False}]},
            "turn 2: is marked as not to be learnt",
        ),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0}]},
            "turn 2: is marked as not to be learnt",
        ),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "train": False}]},
            "turn 2: is marked as not to be learnt",
        ),
        *(
            ({"messages": [{"role": "user", "content": "a"}, {**answer()[0], name: mark}]}, f"turn 2: {name}: {shown}")
            for name, mark, shown in (
                ("loss", 0.5, "0.5 weighs the answer, but all answers count the same"),
                ("weight", 2, "2 weighs"),
                ("loss", "false", "'false' weighs"),
                ("training_detail", [{"begin_offset": 0, "end_offset": 1, "train": False}], r"\[{'begin_offset': 0"),
            )
        ),
        (
            {"messages": [{"role": "user", "content": "a"}, {**answer()[0], "training": False}]},
            "turn 2: is marked as not to be learnt",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": "a"},
                    {"role": "assistant", "content": "b", "tool_calls": [{"function": {"name": "zoom"}}]},
                ]
            },
            "turn 2: tool_calls is not read, and the answer would be learnt without it",
        ),
        (
            {"messages": [{"role": "user", "content": "a"}, {**answer()[0], "reasoning_content": "As I see"}]},
            "turn 2: reasoning_content is not read",
        ),
        (
            {
                "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}],
                "tools": '[{"name": "zoom"}]',
            },
            "tools: what the prompt would say of them is not read",
        ),
        ({"query": "a", "response": "b", "tools": [{"name": "zoom"}]}, "tools: what the prompt"),
        ({"messages": [{"role": "user", "content": "a"}, *answer()], "label": False}, "label: false says that its"),
        ({"query": "a", "response": "b", "label": False}, "label: false says"),
        ({"instruction": "a", "output": "b", "kto_tag": False}, "kto_tag: false says"),
        (
            {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "kto_tag": False},
            "kto_tag: false says",
        ),
    ],
)
def test_what_other_tools_would_do_with_a_row_and_nobody_here_does_is_told(tmp_path, row, said):
    with pytest.raises(RowError, match=said):
        read(row, tmp_path)


def test_marks_and_columns_that_change_nothing_are_no_faults(tmp_path):
    turns = [
        {"role": "user", "content": "What is <bbox>?", "loss": False, "weight": 0},
        {
            **answer()[0],
            "loss": True,
            "weight": 1,
            "train": None,
            "training": 1.0,
            "train_detail": [],
            "tool_calls": [],
            "function_call": {"name": None, "arguments": None},
            "reasoning_content": "",
        },
    ]
    others = {"audios": [], "objects": None, "label": True, "kto_tag": 0, "tools": "[]"}
    assert texts_of(read({"messages": turns, **others}, tmp_path)) == ["What is <bbox>?", "yes"]
    assert read({"question": "a", "answer": "b", "label": False, "tools": [{"name": "hammer"}]}, tmp_path)
    assert read({"query": "a", "response": "b", "tools": ["hammer"]}, tmp_path)
    read(
        {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "objects": ["cat"]},
        tmp_path,
    )


def tables(tmp_path):
    import datasets

    (tmp_path / "a.png").write_bytes(png())
    rows = {"images": [["a.png"], []], "messages": [[{"role": "user", "content": "<image>\nWhat?"}, *answer()]] * 2}
    rows["messages"][1] = [{"role": "user", "content": "Hello?"}, *answer("Hi")]
    by_path = datasets.Dataset.from_dict(rows)
    pictures = datasets.List(datasets.Image())
    by_bytes = datasets.Dataset.from_dict({**rows, "images": [[{"bytes": png(), "path": None}], []]})
    return by_path, by_bytes.cast_column("images", pictures)


def test_parquet_arrow_and_saved_tables_give_the_rows_that_json_gives(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    import datasets

    by_path, by_bytes = tables(tmp_path)
    by_path.to_parquet(tmp_path / "x.parquet")
    by_bytes.to_parquet(tmp_path / "bytes.parquet")
    by_bytes.save_to_disk(tmp_path / "saved")
    datasets.DatasetDict({"train": by_path, "test": by_path.select([0])}).save_to_disk(tmp_path / "splits")
    arrow = next((tmp_path / "saved").glob("*.arrow"))
    expected = [["What?", "yes"], ["Hello?", "Hi"]]
    for path, source in [
        ("x.parquet", tmp_path / "a.png"),
        ("bytes.parquet", {"bytes": png(), "path": None}),
        ("saved", {"bytes": png(), "path": None}),
        (str(arrow.relative_to(tmp_path)), {"bytes": png(), "path": None}),
        ("splits", tmp_path / "splits" / "a.png"),
    ]:
        corpus = Corpus([DataSet(path=str(tmp_path / path))])
        assert [texts_of(sample) for sample in corpus] == expected
        assert sources(corpus[0]) == [source]
        assert corpus[1]["images"] == []
        assert pickle.loads(pickle.dumps(corpus))[0]["images"] == corpus[0]["images"]
    assert len(Corpus([DataSet(path=str(tmp_path / "splits"), split="test", images=str(tmp_path))])) == 1
    with pytest.raises(FinetuneError, match="no split val; found train, test"):
        open_file(DataSet(path=str(tmp_path / "splits"), split="val"))


def test_a_directory_of_parquet_files_is_its_split(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    by_path, _ = tables(tmp_path)
    (tmp_path / "set").mkdir()
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
        by_path.to_parquet(tmp_path / "set" / f"{name}.parquet")
    assert len(open_file(DataSet(path=str(tmp_path / "set")))) == 4
    assert len(open_file(DataSet(path=str(tmp_path / "set"), split="test"))) == 2
    with pytest.raises(FinetuneError, match="no files of the split val"):
        open_file(DataSet(path=str(tmp_path / "set"), split="val"))


def test_json_needs_no_datasets(tmp_path):
    import subprocess
    import sys

    (tmp_path / "data.json").write_text(json.dumps([LLAVA]))
    code = (
        "import sys; from finetune.data import Corpus; from finetune.config import DataSet\n"
        f"Corpus([DataSet(path={str(tmp_path)!r})])[0]; sys.exit('datasets' in sys.modules or 'pyarrow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.json", "{", "not a row in JSON"),
        ("x.json", "[", "expected a list of rows in JSON"),
        ("x.parquet", "no", "can't be read as parquet"),
        ("x.csv", "a,b", "expected a file whose name ends in"),
        ("gone.jsonl", None, "no such file"),
        ("none/at/all", None, "no such file or directory"),
    ],
)
def test_files_that_hold_no_rows_are_told(tmp_path, name, content, said):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(FinetuneError) as error:
        list(Corpus([DataSet(path=str(tmp_path / name))]))
    assert said in str(error.value)
    assert name in str(error.value)


def test_all_data_sets_that_can_not_be_opened_are_told_at_once(tmp_path):
    with pytest.raises(FinetuneError, match=r"(?s)2 data sets.*one\.json.*two\.json"):
        Corpus([DataSet(path=str(tmp_path / "one.json")), DataSet(path=str(tmp_path / "two.json"))])


def test_an_empty_directory_says_what_it_should_hold(tmp_path):
    with pytest.raises(FinetuneError, match=r"there is no data\.json"):
        open_file(DataSet(path=str(tmp_path)))


def test_a_directory_with_one_file_of_rows_is_that_file_and_data_json_comes_first(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n{"a": 2}\n')
    assert [row["a"] for row in open_file(DataSet(path=str(tmp_path)))] == [1, 2]
    (tmp_path / "data.json").write_text('[{"a": 3}]')
    assert [row["a"] for row in open_file(DataSet(path=str(tmp_path)))] == [3]


@pytest.mark.parametrize("name", ["a/b/c", "./a", "~/a"])
def test_what_can_not_be_a_name_on_the_hub_is_not_asked_for_there(monkeypatch, name):
    import datasets

    monkeypatch.delattr(datasets, "load_dataset")
    with pytest.raises(FinetuneError, match="there is no such file or directory"):
        open_file(DataSet(path=name))


def test_a_column_that_is_renamed_is_no_longer_what_its_own_name_means(tmp_path):
    row = {"image": "What?", "A": "red"}
    sample = read_row(row, "row 1", tmp_path, columns=Columns(question="image", answer="A"))
    assert (texts_of(sample), sample["images"]) == (["What?", "red"], [])


def test_a_directory_of_other_kinds_of_files_says_which_are_there(tmp_path):
    for name in ("000.tar", "001.tar", "list.csv"):
        (tmp_path / name).touch()
    with pytest.raises(FinetuneError, match=r"no data\.json, and files of \.csv, \.tar are not read: convert them"):
        open_file(DataSet(path=str(tmp_path)))


def test_a_data_set_of_the_hub_is_asked_for_by_name_and_split(tmp_path, monkeypatch):
    """The Hub itself is out of reach of tests: what it would be asked for, and what becomes of its table."""
    import datasets

    asked = []

    def load(path, name=None, split=None):
        asked.append((path, name, split))
        return tables(tmp_path)[1]

    monkeypatch.setattr(datasets, "load_dataset", load)
    corpus = Corpus([DataSet(path="org/set", name="small", split="test")])
    assert asked == [("org/set", "small", "test")]
    assert sources(corpus[0]) == [{"bytes": png(), "path": None}]
    assert corpus.files[0].where(0) == "org/set[test], row 1"


def test_a_data_set_that_is_neither_here_nor_on_the_hub_is_told_as_both():
    with pytest.raises(FinetuneError) as error:
        Corpus([DataSet(path="org/no-such-set")])
    assert "org/no-such-set: no such file or directory" in str(error.value)
    assert "as a data set of the Hub it can't be loaded (name None, split train)" in str(error.value)


def test_columns_that_are_empty_in_a_row_are_as_good_as_absent(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    import datasets

    parts = [
        {"type": "text", "text": "What?", "image_url": None},
        {"type": "image_url", "text": None, "image_url": {"url": "a.png"}},
    ]
    said = [{"type": "text", "text": "red", "image_url": None}]
    messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": said}]
    llava = [{"from": "human", "value": "Hello?"}, {"from": "gpt", "value": "Hi"}]
    rows = {"messages": [messages, None], "conversations": [None, llava], "image": [None, None]}
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "x.parquet")
    corpus = Corpus([DataSet(path=str(tmp_path / "x.parquet"))])
    assert [sample["format"] for sample in corpus] == ["openai", "llava"]
    assert sources(corpus[0]) == [tmp_path / "a.png"]
    assert texts_of(corpus[0]) == ["What?", "red"]


@pytest.mark.parametrize("nothing", [float("nan"), "None", "nan", "null", "<NA>", None, [], [None], [float("nan")]])
def test_an_image_that_a_table_has_as_nothing_is_none(tmp_path, nothing):
    talk = [{"from": "human", "value": "Hello?"}, {"from": "gpt", "value": "None"}]
    for keys in ({"image": nothing}, {"images": nothing}, {"image": nothing, "images": nothing, "video": nothing}):
        sample = read({**keys, "conversations": talk}, tmp_path)
        assert sources(sample) == []
        assert texts_of(sample) == ["Hello?", "None"]
    with pytest.raises(RowError, match="1 <image> in the text, 0 images"):
        read({**LLAVA, "image": nothing}, tmp_path)
    row = {**LLAVA, "messages": float("nan"), "system": "None", "images": nothing}
    assert read(row, tmp_path) == read(LLAVA, tmp_path)


@pytest.mark.parametrize("word", ["<image>", "<video>"])
def test_a_marker_is_a_word_but_in_a_user_s_turn(tmp_path, word):
    talk = [
        {"from": "human", "value": "<image>Which tag?"},
        {"from": "gpt", "value": f"It is {word} here."},
    ]
    sample = read({"image": "a.png", "system": f"Know {word}.", "conversations": talk}, tmp_path, format="llava")
    assert sources(sample) == [tmp_path / "a.png"]
    assert texts_of(sample) == [f"Know {word}.", "Which tag?", f"It is {word} here."]
    assert [sum(part["type"] == "image" for part in message["content"]) for message in sample["messages"]] == [0, 1, 0]


@pytest.mark.parametrize("name", ["x" * 300 + ".png", "u" * 5000 + "?q=1", "-_" * 200, "A" * 401])
def test_an_image_text_that_no_file_can_be_called_makes_one_bad_row(tmp_path, name):
    (tmp_path / "a.png").write_bytes(png())
    path = tmp_path / "data.json"
    path.write_text(json.dumps([LLAVA, {**LLAVA, "image": name}]))
    report = check_data([DataSet(path=str(path))], {}, TrainSettings(lr=1, steps=1))
    assert report.sets[0].bad == 1
    assert name[:200] not in report.errors[0]
    assert Digests().content(DataSet(path=str(path))).rows == 2


ALPACA = {"instruction": "Name the colour.", "input": "of the sky", "output": "blue", "system": "Be short."}
SWIFT = {"query": "<image>And now?", "response": "red", "history": [["What is it?", "a cat"]], "images": ["a.png"]}


def test_alpaca_s_rows_are_conversations(tmp_path):
    sample = read(ALPACA, tmp_path)
    assert sample["format"] == "alpaca"
    assert [(message["role"], message["content"]) for message in sample["messages"]] == [
        ("system", "Be short."),
        ("user", "Name the colour.\nof the sky"),
        ("assistant", "blue"),
    ]
    assert texts_of(read({**ALPACA, "input": float("nan")}, tmp_path))[1] == "Name the colour."


def test_swift_s_rows_are_conversations_with_their_history(tmp_path):
    sample = read(SWIFT, tmp_path)
    assert sample["format"] == "swift"
    assert texts_of(sample) == ["What is it?", "a cat", "And now?", "red"]
    assert sample["messages"][2]["content"][0] == {"type": "image"}
    assert sources(sample) == [tmp_path / "a.png"]


def test_images_that_no_text_places_stand_before_the_first_question(tmp_path):
    sample = read({"query": "What?", "response": "red", "images": ["a.png", "b.png"]}, tmp_path)
    assert [part["type"] for part in sample["messages"][0]["content"]] == ["image", "image", "text"]


@pytest.mark.parametrize(
    ("videos", "question", "kinds"),
    [
        ({"video": "a.mp4"}, "What?", [24]),
        ({"video": ["0.png", "1.png"], "image": "a.png"}, "What?", [None, 24]),
        ({"videos": ["a.mp4", "b.mp4"]}, "<video>Which? <image>", [24, 24]),
        ({"videos": ["a.mp4"], "images": ["a.png"]}, "After <video> comes?", [None, 24]),
    ],
)
def test_videos_of_flat_rows_stand_where_the_text_says_or_before_it(tmp_path, videos, question, kinds):
    sample = read({"query": question, "response": "red", **videos}, tmp_path)
    assert [picture.frames for picture in sample["images"]] == kinds


@pytest.mark.parametrize("nothing", [None, float("nan"), "", "None", []])
def test_a_flat_row_s_image_or_video_that_is_none_is_none(tmp_path, nothing):
    for name in ("image", "video", "images", "videos"):
        sample = read({"query": "What?", "response": "red", name: nothing}, tmp_path)
        assert (sample["images"], texts_of(sample)) == ([], ["What?", "red"])


def test_columns_may_have_any_names(tmp_path):
    raw = {"Q": "What?", "A": "red", "picture": "a.png", "answer": "not this"}
    columns = Columns(question="Q", answer="A", image="picture")
    sample = read(raw, tmp_path, columns=columns)
    assert (sample["format"], texts_of(sample)) == ("flat", ["What?", "red"])
    assert sources(sample) == [tmp_path / "a.png"]
    turns = Columns(conversations="talk", image="picture")
    assert read({"talk": LLAVA["conversations"], "picture": "a.png"}, tmp_path, columns=turns)["format"] == "llava"


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"question": "What?", "A": "red"}, "columns: no Q in it; found question, A"),
        ({"Q": "What?", "A": "red", "history": "before"}, "history: expected pairs"),
    ],
)
def test_columns_that_are_not_there_are_told(tmp_path, raw, words):
    with pytest.raises(RowError, match=words):
        read(raw, tmp_path, columns=Columns(question="Q", answer="A"))


def test_flat_rows_are_counted_and_columns_are_in_digests_where_they_are_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ALPACA) + "\n" + json.dumps(ALPACA) + "\n")
    plain = DataSet(path=str(path))
    named = DataSet(path=str(path), columns=Columns(question="instruction", answer="output"))
    assert Digests().content(plain).rows == 2
    assert Digests().content(named).rows is None
    assert "columns" not in plain.model_dump()
    assert DataSet.model_validate(named.model_dump()) == named != plain
