"""Conversations into batches."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

from finetune.config import DataSet
from finetune.data import IGNORED, Collator, Corpus, FeatureCache, RowTokenizer
from finetune.data.batches import Encoded
from finetune.points.tiny import tiny_processor
from soup.errors import FinetuneError


@pytest.fixture(scope="module")
def processor():
    return tiny_processor(["What?", "red"])


def data_set(root, *conversations, image="a.png"):
    Image.new("RGB", (64, 32), "red").save(root / "a.png")
    roles = ("human", "gpt")
    samples = [
        {
            "id": str(i),
            **({"image": image} if any("<image>" in text for text in turns) else {}),
            "conversations": [{"from": roles[k % 2], "value": text} for k, text in enumerate(turns)],
        }
        for i, turns in enumerate(conversations)
    ]
    (root / "data.json").write_text(json.dumps(samples))
    return root


def read(root):
    return list(Corpus([DataSet(path=str(root))]))


def rows_of(processor, root):
    return [{**sample, "segments": RowTokenizer(processor).segments(sample["messages"])} for sample in read(root)]


def batch_of(processor, root, **settings):
    return Collator(processor, FeatureCache(), **settings)(rows_of(processor, root))


def learnt(processor, batch, i):
    labels = batch["labels"][i]
    return processor.tokenizer.decode(labels[labels != IGNORED])


def test_the_loss_is_taken_over_the_assistants_words_and_the_end_of_its_turn_alone(processor, tmp_path):
    batch = batch_of(processor, data_set(tmp_path, ["<image>\nWhat?", "red"]))
    assert learnt(processor, batch, 0) == "red<|im_end|>"
    spots = batch["labels"] != IGNORED
    assert torch.equal(batch["labels"][spots], batch["input_ids"][spots])


def test_every_turn_of_the_assistant_is_learnt(processor, tmp_path):
    batch = batch_of(processor, data_set(tmp_path, ["<image>\nWhat?", "red", "Sure?", "Yes."]))
    assert learnt(processor, batch, 0) == "red<|im_end|>Yes.<|im_end|>"


def test_a_row_is_tokenised_as_the_processor_does_at_inference(processor, tmp_path):
    batch = batch_of(processor, data_set(tmp_path, ["<image>\nWhat?", "red"]))
    ask = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}]
    text = processor.apply_chat_template(ask, add_generation_prompt=True, tokenize=False)
    expected = processor(images=[Image.open(tmp_path / "a.png")], text=[text], return_tensors="pt")
    n = expected["input_ids"].shape[1]
    assert torch.equal(batch["input_ids"][:, :n], expected["input_ids"])
    assert torch.equal(batch["pixel_values"], expected["pixel_values"])
    assert (batch["labels"][:, :n] == IGNORED).all()
    assert (batch["labels"][0, n:] != IGNORED).sum() == 2


def test_rows_with_and_without_images_make_one_batch(processor, tmp_path):
    root = data_set(tmp_path, ["<image>\nWhat?", "red"], ["Hello", "Good day to you, and to all of yours."])
    batch = batch_of(processor, root)
    assert batch["pixel_values"].shape[0] == 3
    assert (batch["input_ids"] == processor.image_token_id).sum(1).tolist() == [12, 0]
    assert batch["attention_mask"][0, -1] == 0
    assert batch["attention_mask"].unique().tolist() == [0, 1]
    assert batch["labels"][0, -1] == IGNORED


def test_text_alone_makes_a_batch_without_images(processor, tmp_path):
    assert set(batch_of(processor, data_set(tmp_path, ["Hello", "Hi"]))) == {"input_ids", "attention_mask", "labels"}


def test_what_encoders_see_is_remembered_and_asked_for_once(processor, tmp_path):
    root, asked = data_set(tmp_path, ["<image>\nWhat?", "red"], ["<image>\nWhat?", "no"]), []

    def see(tiles):
        asked.append(len(tiles))
        return tiles.mean((1, 2, 3))

    rows = rows_of(processor, root)
    collate = Collator(processor, FeatureCache(), see, "vision_features")
    first, again = (collate([rows[0], rows[1]])["vision_features"] for _ in range(2))
    assert asked == [3]
    assert torch.equal(first, again)


def test_an_album_without_room_makes_pages_anew():
    cache, made = FeatureCache(max_bytes=8), []

    def make(paths):
        made.extend(paths)
        return [Encoded(torch.zeros(2), 1) for _ in paths]

    cache.get(["a", "b", "a"], make)
    cache.get(["a", "b"], make)
    assert made == ["a", "b", "b"]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[1]",
        '[{"conversations": [{"from": "robot", "value": "x"}]}]',
        '[{"conversations": [{"from": "human", "value": "<image>"}]}]',
        '[{"image": "a.png", "conversations": [{"from": "human", "value": "no marker"}]}]',
    ],
)
def test_what_is_no_conversation_is_refused_with_its_file(tmp_path, text):
    (tmp_path / "data.json").write_text(text)
    with pytest.raises(FinetuneError, match=r"data\.json"):
        read(tmp_path)


def test_a_missing_data_set_is_said_to_be_missing(tmp_path):
    with pytest.raises(FinetuneError, match=r"no data\.json"):
        read(tmp_path / "none")


def test_an_image_that_can_not_be_opened_is_named(processor, tmp_path):
    root = data_set(tmp_path, ["<image>\nWhat?", "red"], image="gone.png")
    with pytest.raises(FinetuneError, match=r"gone\.png"):
        batch_of(processor, root)
