"""Pictures and words into tensors."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoProcessor

from finetune.points.processing import IMAGE_TOKEN, PointsImageProcessor
from finetune.points.tiny import common_phrases, tiny_processor, tiny_tokenizer

ASK = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}]


@pytest.fixture(scope="module")
def processor():
    return tiny_processor(["What is it?"])


def picture(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_the_template_is_points_own(processor):
    text = processor.apply_chat_template(ASK, add_generation_prompt=True, tokenize=False)
    assert text == f"<|im_start|>user\n{IMAGE_TOKEN}What is it?<|im_end|>\n<|im_start|>assistant\n"


def test_each_image_gets_as_many_tokens_as_its_tiles_need(processor):
    text = processor.apply_chat_template(ASK, add_generation_prompt=True, tokenize=False)
    images = [picture(32, 32), picture(64, 32), picture(32, 96)]
    batch = processor(images=images, text=[text] * 3, return_tensors="pt", padding=True)
    assert batch["pixel_values"].shape == (1 + 3 + 4, 3, 32, 32)  # one tile; two and three tiles and their thumbnails
    assert (batch["input_ids"] == processor.image_token_id).sum(1).tolist() == [4, 12, 16]
    assert set(batch) == {"input_ids", "attention_mask", "pixel_values"}


def test_the_thumbnail_comes_last_and_is_the_whole_image_squashed():
    image = picture(64, 32)
    tiles = PointsImageProcessor(tile=32, image_mean=(0, 0, 0), image_std=(1, 1, 1))(image)["pixel_values"]
    squashed = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR)).transpose(2, 0, 1) / np.float32(255)
    assert np.array_equal(tiles[-1].numpy(), squashed.astype(np.float32))


def test_tiles_are_cut_row_by_row():
    image = picture(64, 64)
    tiles = PointsImageProcessor(tile=32, image_mean=(0, 0, 0), image_std=(1, 1, 1))(image)["pixel_values"]
    whole = np.asarray(image).transpose(2, 0, 1) / np.float32(255)
    corners = [whole[:, y : y + 32, x : x + 32] for y in (0, 32) for x in (0, 32)]
    assert np.array_equal(tiles[:4].numpy(), np.stack(corners).astype(np.float32))


def test_without_tiling_an_image_is_its_thumbnail_alone():
    assert PointsImageProcessor(tile=32)(picture(200, 90), do_tile=False)["num_tiles"] == [1]


def test_a_thumbnail_of_one_tile_is_kept_as_published_unless_told_otherwise():
    assert PointsImageProcessor(tile=32)(picture(32, 32))["num_tiles"] == [2]
    assert PointsImageProcessor(tile=32, single_thumbnail=False)(picture(32, 32))["num_tiles"] == [1]


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
def test_images_of_other_modes_are_taken(mode):
    assert PointsImageProcessor(tile=32)(picture(40, 40).convert(mode))["pixel_values"].shape[1:] == (3, 32, 32)


def test_an_unknown_keyword_is_an_error(processor):
    with pytest.raises(TypeError, match="bogus"):
        PointsImageProcessor(tile=32)(picture(32, 32), bogus=1)
    with pytest.raises(TypeError, match="bogus"):
        processor(images=[picture(32, 32)], text=[IMAGE_TOKEN], bogus=1)


def test_images_and_image_tokens_must_be_as_many(processor):
    with pytest.raises(ValueError, match="number of"):
        processor(images=[picture(32, 32)], text=["none here"])


def test_a_saved_processor_is_the_same_when_loaded(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert type(loaded) is type(processor)
    text = loaded.apply_chat_template(ASK, add_generation_prompt=True, tokenize=False)
    images = [picture(70, 31)]
    before = processor(images=images, text=[text], return_tensors="pt")
    after = loaded(images=images, text=[text], return_tensors="pt")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert loaded.tokenizer.padding_side == "left"


@given(st.text(max_size=40))
def test_any_text_comes_back_whole(text):
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    assert TOKENIZER.decode(ids) == text


TOKENIZER = tiny_tokenizer(["red", "\nOptions:", "Question: ", "\nA. "])


def test_what_comes_up_often_is_a_phrase():
    texts = ["Question: What?\nOptions:\nA. red\nB. blue\n"] * 50 + ["once"]
    phrases = common_phrases(texts)
    assert {"Question: ", "What?", "\nOptions:", "\nA. ", "red", "\nB. ", "blue"} <= set(phrases)
    assert "once" not in phrases
