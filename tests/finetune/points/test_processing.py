"""Pictures and words into tensors."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoProcessor

from finetune.media.images import open_picture
from finetune.points.catty import catty_boxes, within_ratio
from finetune.points.model import PointsForConditionalGeneration
from finetune.points.processing import IMAGE_TOKEN, PointsImageProcessor
from finetune.points.tiny import common_phrases, tiny_config, tiny_processor, tiny_tokenizer
from finetune.points.video import Video
from soup.errors import FinetuneError

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


def written_out(image, tile, mean, std, *, max_tiles=8, single_thumbnail=True):
    """CATTY tiles and the thumbnail, normalised as whole arrays."""

    def resized(picture, size):
        return picture if picture.size == size else picture.resize(size, Image.Resampling.BILINEAR)

    image = resized(image, within_ratio(*image.size, max_tiles=max_tiles))
    size, boxes = catty_boxes(*image.size, tile=tile, max_tiles=max_tiles)
    image = resized(image, size)
    tiles = [image.crop(box) for box in boxes]
    if len(tiles) > 1 or single_thumbnail:
        tiles.append(resized(image, (tile, tile)))
    pixels = np.stack([np.asarray(picture) for picture in tiles]).astype(np.float32) / np.float32(255)
    return ((pixels - np.float32(mean)) / np.float32(std)).transpose(0, 3, 1, 2)


@pytest.mark.parametrize("size", [(1000, 600), (37, 500), (1, 1), (336, 336), (900, 20), (640, 481)], ids=str)
def test_by_default_the_tensors_are_those_of_catty_bit_for_bit(size):
    image = picture(*size)
    for settings in ({}, {"max_tiles": 3, "single_thumbnail": False}):
        processor = PointsImageProcessor(tile=48, **settings)
        expected = written_out(image, 48, processor.image_mean, processor.image_std, **settings)
        assert processor(image)["pixel_values"].numpy().tobytes() == expected.tobytes()


def test_the_configuration_of_an_older_checkpoint_is_read_as_it_was_meant(tmp_path):
    saved = {
        "do_tile": True,
        "image_mean": [0.85, 0.84, 0.83],
        "image_processor_type": "PointsImageProcessor",
        "image_std": [0.2, 0.21, 0.23],
        "max_tiles": 6,
        "single_thumbnail": False,
        "tile": 32,
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(saved))
    processor = PointsImageProcessor.from_pretrained(tmp_path)
    assert (processor.max_tiles, processor.single_thumbnail) == (6, False)
    image = picture(90, 47)
    means = {"mean": saved["image_mean"], "std": saved["image_std"]}
    expected = written_out(image, 32, **means, max_tiles=6, single_thumbnail=False)
    assert processor(image)["pixel_values"].numpy().tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    "tiling",
    ["catty", "single", {"name": "anyres", "rule": "internvl", "min_tiles": 1}, {"name": "multicrop", "margin": 1}],
    ids=str,
)
def test_a_tiling_is_saved_with_its_parameters_and_comes_back(tiling, tmp_path):
    before = PointsImageProcessor(tile=48, tiling=tiling, frames=5, resizer="torch")
    before.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert saved["tiling"] == before.tiling
    after = PointsImageProcessor.from_pretrained(tmp_path)
    assert after.to_dict() == before.to_dict()
    items = [picture(130, 70), Video([picture(20, 10, i) for i in range(7)])]
    assert torch.equal(before(items)["pixel_values"], after(items)["pixel_values"])


def test_loading_may_override_what_was_saved(tmp_path):
    PointsImageProcessor(tile=32).save_pretrained(tmp_path)
    assert PointsImageProcessor.from_pretrained(tmp_path, max_tiles=4).tiling["max_tiles"] == 4
    assert PointsImageProcessor.from_pretrained(tmp_path, tiling="multicrop", tile=336).max_tiles == 12


def test_one_call_may_tile_otherwise():
    processor = PointsImageProcessor(tile=32)
    image = picture(96, 96)
    assert processor(image, tiling={"name": "anyres", "min_tiles": 1})["num_tiles"] == [10]
    assert processor(image, tiling="anyres", max_tiles=4)["num_tiles"] == [5]
    assert processor(image, tiling="single")["num_tiles"] == [1]
    assert processor.tiling["name"] == "catty"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tilling": "catty"}, "'tilling'. Did you mean 'tiling'"),
        ({"tiling": "any-res"}, "Did you mean 'anyres'"),
        ({"tiling": {"name": "catty", "min_tiles": 1}}, "'min_tiles'"),
        ({"tiling": "single", "max_tiles": 4}, "single has no max_tiles"),
        ({"tiling": "multicrop", "tile": 64}, "leave nothing of a tile of 64"),
        ({"resizer": "pilow"}, "Did you mean 'pillow'"),
        ({"frames": 0}, "frames: expected a whole number of at least 1, found 0"),
        ({"crop_size": 3, "do_tille": True}, "'crop_size'"),
        ({"crop_size": 3, "do_tille": True}, "'do_tille'. Did you mean 'do_tile'"),
    ],
)
def test_unknown_and_impossible_settings_are_told(settings, message):
    with pytest.raises(FinetuneError) as error:
        PointsImageProcessor(**settings)
    assert message in str(error.value)


def test_an_unknown_tiling_of_one_call_is_told(processor):
    with pytest.raises(FinetuneError, match="Did you mean 'catty'"):
        processor(images=[picture(32, 32)], text=[IMAGE_TOKEN], images_kwargs={"tiling": "cat"})


def test_bytes_normalised_later_are_the_same_bits():
    processor, image = PointsImageProcessor(tile=32), picture(90, 40)
    tiles = processor(image, do_normalize=False)["pixel_values"]
    assert tiles.dtype == torch.uint8
    assert tiles.is_contiguous()
    assert torch.equal(processor.normalised(tiles), processor(image)["pixel_values"])


def test_a_video_is_one_item_and_each_of_its_chosen_frames_one_tile(processor):
    frames = [Image.new("RGB", (40, 20), (i, 2 * i, 255 - i)) for i in range(100)]
    conversation = [{"role": "user", "content": [{"type": "image", "image": picture(32, 32)}]}]
    conversation[0]["content"] += [{"type": "image", "image": Video(frames)}, {"type": "text", "text": "What is it?"}]
    batch = processor.apply_chat_template(
        conversation, tokenize=True, return_dict=True, return_tensors="pt", processor_kwargs={"frames": 4}
    )
    assert batch["pixel_values"].shape == (1 + 4, 3, 32, 32)
    assert (batch["input_ids"] == processor.image_token_id).sum() == (1 + 4) * processor.tokens_per_tile
    normalised = processor.image_processor(frames, do_tile=False)["pixel_values"]
    assert torch.equal(batch["pixel_values"][1:], normalised[[12, 37, 62, 87]])


def test_a_short_video_has_fewer_tiles_and_batches_nest_as_transformers_nests_them(processor):
    video = Video([picture(30, 30, i) for i in range(3)])
    nested = processor.image_processor([[video, picture(32, 32)], [], [picture(32, 32)]])
    assert nested["num_tiles"] == [3, 1, 1]
    assert processor.image_processor(video)["num_tiles"] == [3]


@pytest.mark.parametrize(("name", "message"), [("videos", "one of the images"), ("audio", "hears nothing")])
def test_what_transformers_would_drop_without_a_word_is_refused(processor, name, message):
    with pytest.raises(FinetuneError, match=message):
        processor(text=["What is it?"], **{name: [[picture(32, 32)]]})


def test_an_image_that_is_named_is_opened_by_the_rules_for_pictures(processor, tmp_path):
    picture(32, 32).save(tmp_path / "a.png")
    ask = [{"role": "user", "content": [{"type": "image", "path": str(tmp_path / "a.png")}]}]
    batch = processor.apply_chat_template(ask, tokenize=True, return_dict=True, return_tensors="pt")
    assert torch.equal(batch["pixel_values"], processor.image_processor(picture(32, 32))["pixel_values"])
    ask[0]["content"][0] = {"type": "image", "url": "https://example.org/a.png"}
    with pytest.raises(FinetuneError, match="a URL"):
        processor.apply_chat_template(ask, tokenize=True, return_dict=True)


@pytest.mark.parametrize("how", [{"tokenize": False}, {"tokenize": True, "return_dict": True}], ids=str)
def test_words_that_hold_the_image_token_are_never_taken_for_an_image(processor, how):
    content = [{"type": "text", "text": f"Say {IMAGE_TOKEN} twice."}]
    talk = [
        {"role": "user", "content": "What is it?"},
        {"role": "assistant", "content": IMAGE_TOKEN},
        {"role": "user", "content": content},
    ]
    for conversation, first in ((talk, "message 2"), ([talk[:1], talk], "conversation 2, message 2")):
        with pytest.raises(FinetuneError) as error:
            processor.apply_chat_template(conversation, **how)
        assert f"{first} (assistant)" in str(error.value)
        assert "message 3 (user)" in str(error.value)


def test_words_that_hold_the_image_token_can_be_spelt_out_on_request(processor):
    text = f"Say {IMAGE_TOKEN} twice."
    ask = [{"role": "user", "content": [{"type": "image", "image": picture(32, 32)}, {"type": "text", "text": text}]}]
    how = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "sanitize_control_tokens": True}
    batch = processor.apply_chat_template(ask, **how)
    assert (batch["input_ids"] == processor.image_token_id).sum() == processor.tokens_per_tile
    assert text in processor.tokenizer.decode(batch["input_ids"][0])


def test_llavas_marker_is_mere_words_to_the_processor(processor):
    ask = [
        {"role": "user", "content": [{"type": "image", "image": picture(32, 32)}, {"type": "text", "text": "<image>"}]}
    ]
    batch = processor.apply_chat_template(ask, tokenize=True, return_dict=True, return_tensors="pt")
    assert (batch["input_ids"] == processor.image_token_id).sum() == processor.tokens_per_tile
    assert "<image>" in processor.tokenizer.decode(batch["input_ids"][0])


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_lie_on_white(mode):
    image = Image.new("RGBA", (32, 32), (10, 20, 30, 0)).convert(mode)
    if mode == "P":
        image.info["transparency"] = image.getpixel((0, 0))
    tiles = PointsImageProcessor(tile=32, image_mean=(0, 0, 0), image_std=(1, 1, 1))(image)["pixel_values"]
    assert (tiles == 1).all()


def test_a_batch_of_texts_alone_may_come_with_empty_lists_of_images(processor):
    batch = processor(images=[[], []], text=["What is it?", "What?"], return_tensors="pt", padding=True)
    assert set(batch) == {"input_ids", "attention_mask"}
    with pytest.raises(FinetuneError, match="no images"):
        processor.image_processor([])


def test_a_photograph_is_seen_upright_however_it_was_opened(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(60, 30).save(tmp_path / "a.png", exif=exif)
    processor = PointsImageProcessor(tile=32, tiling="single")
    expected = processor(picture(60, 30).transpose(Image.Transpose.ROTATE_270))["pixel_values"]
    with Image.open(tmp_path / "a.png") as opened:
        for image in (opened, opened.convert("RGB"), open_picture(tmp_path / "a.png")):
            assert torch.equal(processor(image)["pixel_values"], expected)


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


@pytest.mark.parametrize("tiling", ["catty", "anyres:min_tiles=1", "multicrop:margin=1,patch=8", "single"])
def test_a_model_answers_about_images_and_videos_in_every_tiling(tiling, processor, tmp_path):
    processor.save_pretrained(tmp_path)
    tiled = AutoProcessor.from_pretrained(tmp_path, tiling=tiling)
    tokenizer = tiled.tokenizer
    config = tiny_config(len(tokenizer), tiled.image_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id)
    torch.manual_seed(0)
    model = PointsForConditionalGeneration(config).eval()
    items = [picture(100, 60), Video([picture(40, 30, i) for i in range(30)])]
    talks = [[{"role": "user", "content": [{"type": "image", "image": item}]}] for item in items]
    how = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
    batch = tiled.apply_chat_template(talks, processor_kwargs={"padding": True}, **how)
    with torch.inference_mode():
        both = model(**batch).logits[:, -1]
        alone = [model(**tiled.apply_chat_template(talk, **how)).logits[0, -1] for talk in talks]
        assert model.generate(**batch, max_new_tokens=2, do_sample=False).shape[0] == 2
    assert torch.allclose(both, torch.stack(alone), atol=1e-4)
