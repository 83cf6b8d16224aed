"""In-context rows: which examples, what becomes of their pictures and words, what is learnt of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from finetune.config import DataSet, TrainSettings
from finetune.data import Collator, Corpus, FeatureCache, TrainingRows
from finetune.data.examples import chosen_examples, with_examples
from finetune.data.row_scan import RowScanner, scan_rows
from finetune.points.tiny import tiny_processor
from soup.errors import FinetuneError


@pytest.fixture
def root(tmp_path):
    """Five rows with a picture each, its colour its number; the third is said twice."""
    rows = []
    for i in (0, 1, 2, 2, 3):
        Image.new("RGB", (32, 32), (i, 0, 0)).save(tmp_path / f"{i}.png")
        turns = [("human", f"<image>\nWhich {i}?"), ("gpt", f"no {i}"), ("human", "Sure?"), ("gpt", "yes")]
        conversation = [{"from": role, "value": text} for role, text in turns]
        rows.append({"image": f"{i}.png", "conversations": conversation})
    (tmp_path / "data.json").write_text(json.dumps(rows))
    return tmp_path


@settings(deadline=None)
@given(st.integers(1, 30), st.data())
def test_examples_are_other_rows_each_once_and_the_same_ones_whenever_they_are_drawn(shots, data):
    rows = data.draw(st.integers(shots + 1, 100))
    row = data.draw(st.integers(0, rows - 1))
    examples = chosen_examples(row, rows, shots)
    assert len({*examples, row}) == shots + 1
    assert all(0 <= example < rows for example in examples)
    assert examples == chosen_examples(row, rows, shots)


def test_all_rows_become_examples_about_equally_often():
    counts = np.bincount([example for row in range(2000) for example in chosen_examples(row, 2000, 3)], minlength=2000)
    assert counts.mean() == 3
    assert counts.var() == pytest.approx(3, rel=0.15), "as drawn at random"


def test_a_row_s_first_question_begins_with_the_first_exchange_of_each_example(root):
    corpus, plain = Corpus([DataSet(path=str(root), shots=2)]), Corpus([DataSet(path=str(root))])
    for i in range(5):
        first, second = chosen_examples(i, 5, 2)
        messages, own = corpus[i]["messages"], plain[i]["messages"]
        examples = []
        for example in (first, second):
            question, answer = plain[example]["messages"][:2]
            examples += [*question["content"], {"type": "text", "text": f"\nAnswer: {answer['content']}\n\n"}]
        assert messages[0] == {"role": "user", "content": [*examples, *own[0]["content"]]}
        assert messages[1:] == own[1:]
        sources = [picture.source for picture in corpus[i]["images"]]
        assert sources == [plain[n]["images"][0].source for n in (first, second, i)]
        assert corpus[i]["where"] == plain[i]["where"]


def test_pictures_of_another_turn_stay_where_they_are():
    def sample(name, *contents):
        roles = ["system", "user", "assistant", "user", "assistant"]
        messages = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]
        images = [f"{name}{i}" for i in range(sum(len(c) for c in contents if isinstance(c, list)))]
        return {"messages": messages, "images": images, "where": name, "format": "openai"}

    image = {"type": "image"}
    a, b = (sample(name, [image], [image, image], name, [image], "end") for name in "ab")
    both = with_examples(a, [b])
    assert both["images"] == ["a0", "b1", "b2", "a1", "a2", "a3"]
    assert both["messages"][1]["content"] == [image, image, {"type": "text", "text": "\nAnswer: b\n\n"}, image, image]


def test_rows_of_text_stay_text():
    def sample(question, answer):
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        return {"messages": messages, "images": [], "where": "", "format": "openai"}

    both = with_examples(sample("1 + 1?", "2"), [sample("2 + 2?", "4")])
    assert both["messages"][0]["content"] == "2 + 2?\nAnswer: 4\n\n1 + 1?"


def test_nothing_of_an_example_is_learnt_and_its_tokens_count(root):
    processor, how = tiny_processor(), TrainSettings(lr=1, steps=2, global_batch_size=5, max_length=400)
    rows = TrainingRows(Corpus([DataSet(path=str(root), shots=2)]), how, processor)
    alone = TrainingRows(Corpus([DataSet(path=str(root))]), how, processor)
    for n in range(5):
        batch, plain = (Collator(processor, FeatureCache())([each[n]]) for each in (rows, alone))
        learnt, expected = (each["labels"][each["labels"] != -100] for each in (batch, plain))
        assert learnt.tolist() == expected.tolist()
        assert len(batch["pixel_values"]) == 3
        assert rows.length_at(n) == batch["input_ids"].shape[1]
        text = processor.tokenizer.decode(batch["input_ids"][0])
        assert text.count("\nAnswer: no ") == 2
        assert text.count("Sure?") == 1


def test_rows_with_examples_have_several_images_and_are_told_apart_by_themselves(root):
    corpus = Corpus([DataSet(path=str(root), shots=1)])
    scan = scan_rows(corpus, RowScanner(tiny_processor(), 400))
    assert set(scan.groups) == {2}
    assert len(set(scan.digests)) == 4, "the row that is there twice, whatever examples it has"


def test_a_row_whose_example_can_t_be_seen_is_bad(root):
    (root / "0.png").unlink()
    scan = scan_rows(Corpus([DataSet(path=str(root), shots=1)]), RowScanner(tiny_processor(), 400))
    needs = [i for i in range(5) if i == 0 or chosen_examples(i, 5, 1) == [0]]
    assert np.flatnonzero(~scan.good).tolist() == needs
    assert len(needs) > 1


def test_more_examples_than_other_rows_are_refused(root):
    with pytest.raises(FinetuneError, match="shots 5: expected more rows than that, found 5"):
        Corpus([DataSet(path=str(root), shots=5)])


def test_a_data_set_without_examples_is_stored_as_before():
    assert "shots" not in DataSet(path="a").model_dump()
    assert DataSet(path="a", shots=2).model_dump()["shots"] == 2


def test_the_examples_of_a_row_are_those_that_earlier_versions_drew():
    assert [chosen_examples(row, 100, 3) for row in (0, 7, 99)] == [[36, 72, 33], [19, 91, 54], [41, 80, 0]]
