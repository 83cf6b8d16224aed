"""Captions from two sources, by writers of the test's own: what stays in a row, what is marked, what a stop costs."""

from __future__ import annotations

import json
from typing import ClassVar

import pytest
from PIL import Image

from finetune.config import DataSet
from finetune.data import capfusion
from finetune.data.capfusion import CapFusion, CaptionWriter, captions_path, read_prompt
from finetune.data.caption_marks import marks_of
from finetune.data.corpus import Corpus
from finetune.data.rows import texts_of
from finetune.data.source_rows import SourceRows
from soup.errors import FinetuneError

RAW = "Eiffel Tower 1923 buy now www.shop.com"
SYNTHETIC = "A tall iron tower stands under a grey sky."
FUSED = "The Eiffel Tower, in 1923, stands under a grey sky."


@pytest.mark.parametrize(
    ("raw", "synthetic", "fused", "marks"),
    [
        (RAW, SYNTHETIC, FUSED, []),
        (RAW, SYNTHETIC, None, []),
        (RAW, "", FUSED, ["synthetic_empty"]),
        (RAW, "I'm sorry, I can't describe it.", FUSED, ["synthetic_refused"]),
        (RAW, SYNTHETIC, " - ", ["fused_empty"]),
        (RAW, SYNTHETIC, "As an AI model I cannot see.", ["fused_refused"]),
        (RAW, SYNTHETIC, "Sorry, no.", ["fused_refused"]),
        ("A dog, Rex", "A brown animal", "a dog rex.", ["copied_raw"]),
        (RAW, SYNTHETIC, "a tall iron tower stands under a grey sky", ["copied_synthetic"]),
        (RAW, SYNTHETIC, "The Eiffel Tower in 1923, at www.shop.com.", ["noise"]),
        (RAW, SYNTHETIC, "The tower, see tower.jpg.", ["noise"]),
        ("Three boats, 1990", "Two boats and the number 7", None, ["disagreement"]),
        ("A kitchen with a window", "A horse jumps over hurdles", None, ["disagreement"]),
        (RAW, SYNTHETIC, "The tower in 1924.", ["invented"]),
        (RAW, SYNTHETIC, "The tower, by Gustave, in 1923.", ["invented"]),
        ("A zebra", "A horse", None, ["disagreement"]),
        ("Trains of Berlin", "A train station", None, []),
        ("In 1923, 5 boats", "5 boats", None, []),
        ("A zebra", "", None, ["synthetic_empty"]),
        (RAW, SYNTHETIC, "A tower. Standing under a sky, it says: I cannot.", []),
        ("C#major sonata", "A sonata for piano", "A C#major sonata", []),
        (RAW, SYNTHETIC, "A tower at #sunset.", ["noise"]),
        (RAW, SYNTHETIC, "A stock photo of the tower.", ["noise"]),
    ],
)
def test_marks_follow_rules(raw, synthetic, fused, marks):
    assert marks_of(raw, synthetic, fused) == marks


class Writer:
    """Answers by a function, two prompts at a time; may stop after some. `events`: who was asked or closed."""

    events: ClassVar[list] = []

    def __init__(self, name, reply, dies_after=None):
        self.name, self.reply, self.dies_after, self.asked = name, reply, dies_after, []
        self.events.clear()

    def answer(self, prompts, on_batch):
        for start in range(0, len(prompts), 2):
            if self.dies_after is not None and len(self.asked) >= self.dies_after:
                raise KeyboardInterrupt
            batch = prompts[start : start + 2]
            self.events.append(self.name)
            self.asked += [prompt[-1]["value"] for prompt in batch]
            on_batch(batch, [self.reply(prompt) for prompt in batch])
        return []

    @property
    def role(self):
        return CaptionWriter(self.name, self.answer, close=lambda: self.events.append(f"{self.name} closed"))


def captioner(**more):
    return Writer("a-vlm", lambda prompt: f" {SYNTHETIC} ", **more)


def fuser(reply=lambda prompt: FUSED, **more):
    return Writer("an-llm", reply, **more)


@pytest.fixture
def source(tmp_path):
    rows = []
    for i in range(5):
        Image.new("RGB", (8, 8 + i)).save(tmp_path / f"{i}.png")
        turns = [{"from": "human", "value": "<image>\nDescribe."}, {"from": "gpt", "value": f"{RAW} {i}"}]
        rows.append({"id": i, "image": f"{i}.png", "conversations": turns})
    rows.append({**rows[0], "id": 5, "image": "none.png"})
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "in.jsonl"


def fuse(source, out, captioner, fuser, fuse_prompt=None):
    prompts = [read_prompt("caption"), fuse_prompt or read_prompt("fuse")]
    roles = [writer.role if writer else None for writer in (captioner, fuser)]
    return CapFusion(SourceRows(DataSet(path=str(source))), out, *roles, *prompts).run()


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_all_three_captions_stay_with_who_wrote_them(source, tmp_path):
    llm = fuser()
    report = fuse(source, tmp_path / "out/fused.jsonl", captioner(), llm)
    assert (report["written"], report["failed"], report["answer_from"]) == (5, 1, {"fused": 5})
    assert "no such file" in next(iter(report["failures"]))
    rows = read(tmp_path / "out/fused.jsonl")
    assert rows[2]["captions"] == {"raw": f"{RAW} 2", "synthetic": SYNTHETIC, "fused": FUSED}
    assert rows[2]["written_by"] == {"synthetic": "a-vlm", "fused": "an-llm"}
    assert (rows[2]["id"], rows[2]["answer_from"], rows[2]["marks"]) == (2, "fused", [])
    assert [texts_of(sample)[1] for sample in Corpus([DataSet(path=str(tmp_path / "out/fused.jsonl"))])] == [FUSED] * 5
    assert f"Web caption: {RAW} 2\n" in llm.asked[2]
    assert f"Model's caption: {SYNTHETIC}\n" in llm.asked[2]


@pytest.mark.parametrize(("reply", "marks"), [("", ["fused_empty"]), ("I'm sorry.", ["fused_refused"])])
def test_what_is_no_caption_falls_back_to_the_synthetic_one_and_is_marked(source, tmp_path, reply, marks):
    report = fuse(source, tmp_path / "fused.jsonl", captioner(), fuser(lambda prompt: reply))
    [row, *_] = read(tmp_path / "fused.jsonl")
    assert (row["conversations"][1]["value"], row["answer_from"], row["marks"]) == (SYNTHETIC, "synthetic", marks)
    assert report["marks"] == {marks[0]: 5}


def test_either_step_alone_gives_what_both_together_give(source, tmp_path):
    fuse(source, tmp_path / "both.jsonl", captioner(), fuser())
    fuse(source, tmp_path / "captioned.jsonl", captioner(), None)
    assert [row["answer_from"] for row in read(tmp_path / "captioned.jsonl")] == ["synthetic"] * 5
    fuse(tmp_path / "captioned.jsonl", tmp_path / "fused.jsonl", None, fuser())
    assert read(tmp_path / "fused.jsonl") == read(tmp_path / "both.jsonl")


def test_a_fuser_without_synthetic_captions_says_what_it_expects(source, tmp_path):
    with pytest.raises(FinetuneError, match="no synthetic caption: expected `captions"):
        fuse(source, tmp_path / "fused.jsonl", None, fuser())


def test_the_captioner_s_memory_is_given_back_before_the_fuser_is_asked(source, tmp_path):
    vlm, llm = captioner(), fuser()
    fuse(source, tmp_path / "fused.jsonl", vlm, llm)
    assert vlm.events == ["a-vlm"] * 3 + ["a-vlm closed"] + ["an-llm"] * 3 + ["an-llm closed"]


def test_rows_are_taken_some_at_a_time_and_equal_ones_are_asked_once(source, tmp_path, monkeypatch):
    lines = source.read_text().splitlines(keepends=True)
    source.write_text("".join(lines[:3] + lines[1:2] + lines[3:]))
    fuse(source, tmp_path / "whole.jsonl", captioner(), fuser())
    monkeypatch.setattr(capfusion, "CHUNK", 3)
    calls, vlm, llm = [], captioner(), fuser()
    prompts = [read_prompt("caption"), read_prompt("fuse")]
    rows = SourceRows(DataSet(path=str(source)))
    CapFusion(rows, tmp_path / "parts.jsonl", vlm.role, llm.role, *prompts).run(lambda *told: calls.append(told))
    assert calls == [(step, done, 7) for step in ("synthetic", "fused") for done in (3, 6, 7)]
    assert (len(vlm.asked), len(llm.asked), len(read(tmp_path / "parts.jsonl"))) == (5, 5, 6)
    assert (tmp_path / "parts.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_where_neither_can_be_used_the_raw_caption_stays(source, tmp_path):
    refusing = Writer("a-vlm", lambda prompt: "I'm sorry, I can't.")
    report = fuse(source, tmp_path / "fused.jsonl", refusing, fuser(lambda prompt: " - "))
    [first, *_] = read(tmp_path / "fused.jsonl")
    assert (first["conversations"][1]["value"], first["answer_from"]) == (f"{RAW} 0", "raw")
    assert (report["answer_from"], report["marks"]) == ({"raw": 5}, {"synthetic_refused": 5, "fused_empty": 5})


def test_what_a_caption_says_in_braces_is_no_place_for_another(source, tmp_path):
    source.write_text(source.read_text().replace(RAW, "{synthetic}"))
    llm = fuser()
    fuse(source, tmp_path / "fused.jsonl", captioner(), llm, "{raw} | {synthetic}")
    assert llm.asked[0] == f"{{synthetic}} 0 | {SYNTHETIC}"


@pytest.mark.parametrize(("pictures", "found"), [([], 0), (["0.png", "1.png"], 2)])
def test_a_row_without_one_picture_is_not_captioned(source, tmp_path, pictures, found):
    turns = [{"from": "human", "value": "<image>" * found + "Describe."}, {"from": "gpt", "value": "x"}]
    with source.open("a") as file:
        file.write(json.dumps({"image": pictures, "conversations": turns}) + "\n")
    report = fuse(source, tmp_path / "fused.jsonl", captioner(), None)
    assert f"expected one picture to caption, found {found}" in report["failures"]


PARTS = [{"type": "image", "image": "0.png"}, {"type": "text", "text": "What?"}]
QUESTION = "<image>\nWhat?"


@pytest.mark.parametrize(
    ("row", "answer_of"),
    [
        ({"messages": [{"role": "user", "content": PARTS}, {"role": "assistant", "content": RAW}]}, "messages"),
        ({"image": "0.png", "conversations": {"from": ["human", "gpt"], "value": [QUESTION, RAW]}}, "conversations"),
        ({"image": "0.png", "instruction": QUESTION, "output": RAW}, "output"),
        ({"images": ["0.png"], "query": QUESTION, "response": RAW}, "response"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_row_of_any_format_keeps_it_with_the_new_caption(source, tmp_path, row, answer_of):
    source.write_text(json.dumps(row) + "\n")
    fuse(source, tmp_path / "out/fused.jsonl", captioner(), fuser())
    [line] = read(tmp_path / "out/fused.jsonl")
    assert line.keys() - row.keys() == {"captions", "written_by", "answer_from", "marks"}
    assert line[answer_of] != row[answer_of]
    [sample] = Corpus([DataSet(path=str(tmp_path / "out/fused.jsonl"))])
    assert (texts_of(sample)[1], len(sample["images"])) == (FUSED, 1)
    assert line["captions"]["raw"] == RAW


@pytest.mark.parametrize("dies_after", [0, 2, 4])
def test_a_stopped_run_asks_for_the_rest_alone_and_ends_the_same(source, tmp_path, dies_after):
    fuse(source, tmp_path / "whole.jsonl", captioner(), fuser())
    vlm, llm = captioner(), fuser(dies_after=dies_after)
    with pytest.raises(KeyboardInterrupt):
        fuse(source, tmp_path / "again.jsonl", vlm, llm)
    assert not (tmp_path / "again.jsonl").exists()
    rest_vlm, rest_llm = captioner(), fuser()
    fuse(source, tmp_path / "again.jsonl", rest_vlm, rest_llm)
    assert (len(vlm.asked), rest_vlm.asked, len(rest_llm.asked)) == (5, [], 5 - dies_after)
    for path in (lambda out: out, captions_path):
        assert path(tmp_path / "again.jsonl").read_bytes() == path(tmp_path / "whole.jsonl").read_bytes()


def test_captions_by_another_prompt_are_not_mixed(source, tmp_path):
    fuse(source, tmp_path / "fused.jsonl", captioner(), fuser())
    with pytest.raises(FinetuneError, match="was made otherwise"):
        fuse(source, tmp_path / "fused.jsonl", captioner(), fuser(), "{raw} and {synthetic}")


@pytest.mark.parametrize(("text", "why"), [("", "empty"), ("Only {raw}", "where the captions go")])
def test_a_prompt_of_the_user_s_is_checked(tmp_path, text, why):
    (tmp_path / "p.txt").write_text(text)
    with pytest.raises(FinetuneError, match=why):
        read_prompt("fuse", tmp_path / "p.txt")
