"""The model against its parts, as transformers itself runs them, and against itself."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForImageTextToText

from finetune.points import PointsConfig, PointsForConditionalGeneration
from finetune.points.connectors import pixel_shuffle
from finetune.points.tiny import tiny_config, tiny_processor

ASK = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}]


@pytest.fixture(scope="module")
def processor():
    return tiny_processor(["What is it?"])


@pytest.fixture(scope="module")
def model(processor):
    torch.manual_seed(0)
    tokenizer = processor.tokenizer
    ids = (processor.image_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id)
    return PointsForConditionalGeneration(tiny_config(len(tokenizer), *ids)).eval()


@pytest.fixture(scope="module")
def pixels():
    return torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def batch_of(processor, images, texts):
    return processor(images=images or None, text=texts, return_tensors="pt", padding=True)


def prompt_of(processor, more=""):
    return processor.apply_chat_template(ASK, add_generation_prompt=True, tokenize=False).replace("it?", f"it?{more}")


def noise(width, height, seed):
    pixels = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(seed)).byte()
    return Image.fromarray(pixels.numpy())


def test_it_is_as_small_as_it_says(model):
    assert 1_000_000 < sum(p.numel() for p in model.parameters()) < 3_000_000


def test_pixel_shuffle_joins_squares_row_by_row():
    x = torch.arange(16).reshape(1, 4, 4, 1)
    shuffled = pixel_shuffle(x, 2)[0].tolist()
    assert shuffled == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]


@torch.no_grad()
@pytest.mark.parametrize(("vit", "index"), [("general_vit", 0), ("ocr_vit", 1)])
def test_features_are_the_last_but_one_hidden_state_without_the_class_token(model, pixels, vit, index):
    states = getattr(model, vit)(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
    expected = pixel_shuffle(states.unflatten(1, (4, 4)), 2)
    assert (model.encode(pixels)[:, index] - expected).abs().max() == 0


@torch.no_grad()
def test_both_encoders_go_through_one_projector_and_count_a_half_each(model, pixels):
    features = model.encode(pixels)
    up, act, down = model.vision_projector
    general, ocr = (down(act(up(features[:, i]))) for i in (0, 1))
    assert torch.equal(model.project(features), 0.5 * general + 0.5 * ocr)


@torch.no_grad()
def test_image_features_stand_in_the_places_of_the_image_tokens_in_order(model, processor):
    batch = batch_of(
        processor, [noise(64, 32, 0), noise(32, 32, 1)], [prompt_of(processor), prompt_of(processor, "!!")]
    )
    features = model.encode(batch["pixel_values"])
    placed = model.embed_inputs(batch["input_ids"], features)
    spots = batch["input_ids"] == processor.image_token_id
    assert torch.equal(placed[spots], model.project(features).flatten(0, 1))
    words = model.llm.get_input_embeddings()(batch["input_ids"])
    assert torch.equal(placed[~spots], words[~spots])


@torch.no_grad()
def test_logits_are_the_language_models_own(model, processor):
    batch = batch_of(processor, [noise(32, 32, 0)], [prompt_of(processor)])
    embedded = model.embed_inputs(batch["input_ids"], model.encode(batch["pixel_values"]))
    expected = model.llm(inputs_embeds=embedded, attention_mask=batch["attention_mask"]).logits
    assert (model(**batch).logits - expected).abs().max() == 0


@torch.no_grad()
def test_remembered_features_give_the_same_logits_as_pixels(model, processor):
    batch = batch_of(processor, [noise(32, 32, 0)], [prompt_of(processor)])
    features = model.encode(batch["pixel_values"])
    assert torch.equal(model(input_ids=batch["input_ids"], vision_features=features).logits, model(**batch).logits)


@torch.no_grad()
def test_left_padding_changes_no_logit(model, processor):
    image, text = noise(32, 32, 0), prompt_of(processor)
    alone = model(**batch_of(processor, [image], [text])).logits[0]
    batch = batch_of(processor, [image, noise(64, 32, 1)], [text, prompt_of(processor, " Look well, then tell.")])
    assert batch["attention_mask"][0, 0] == 0
    padded = model(**batch).logits[0, -len(alone) :]
    assert (padded - alone).abs().max() < 1e-5


@torch.no_grad()
def test_a_batch_is_answered_as_one_by_one(model, processor):
    images = [noise(32, 32, 0), noise(64, 32, 1), noise(32, 70, 2)]
    texts = [prompt_of(processor, "?" * i) for i in range(3)]
    together = model.generate(**batch_of(processor, images, texts), max_new_tokens=5, do_sample=False)
    for i, (image, text) in enumerate(zip(images, texts, strict=True)):
        alone = model.generate(**batch_of(processor, [image], [text]), max_new_tokens=5, do_sample=False)
        answer = alone[0, -5:].tolist() if alone.shape[1] >= 5 else alone[0].tolist()
        assert together[i, -5:].tolist()[: len(answer)] == answer


@torch.no_grad()
def test_the_cache_changes_no_answer(model, processor):
    batch = batch_of(processor, [noise(64, 32, 3)], [prompt_of(processor)])
    with_cache = model.generate(**batch, max_new_tokens=6, do_sample=False, use_cache=True)
    assert torch.equal(with_cache, model.generate(**batch, max_new_tokens=6, do_sample=False, use_cache=False))


@torch.no_grad()
def test_a_question_without_an_image_is_answered(model, processor):
    text = "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    assert model.generate(**batch_of(processor, [], [text]), max_new_tokens=3, do_sample=False).shape[0] == 1


@torch.no_grad()
def test_rows_with_and_without_an_image_mix_in_one_batch(model, processor):
    text = "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    alone = model(**batch_of(processor, [], [text])).logits[0, -1]
    mixed = model(**batch_of(processor, [noise(32, 32, 0)], [text, prompt_of(processor)])).logits[0, -1]
    assert (mixed - alone).abs().max() < 1e-5


def test_the_loss_is_the_mean_over_labels_that_count(model, processor):
    batch = batch_of(processor, [noise(32, 32, 0)], [prompt_of(processor)])
    labels = torch.full_like(batch["input_ids"], -100)
    labels[0, -3:] = batch["input_ids"][0, -3:]
    out = model(**batch, labels=labels)
    expected = torch.nn.functional.cross_entropy(out.logits[0, -4:-1], labels[0, -3:])
    assert out.loss.item() == pytest.approx(expected.item(), abs=1e-6)


def test_too_few_image_tokens_are_an_error(model, processor):
    batch = batch_of(processor, [noise(32, 32, 0)], [prompt_of(processor)])
    with pytest.raises(ValueError, match="expected 8 image tokens"):
        model(input_ids=batch["input_ids"], pixel_values=torch.zeros(2, 3, 32, 32))


def test_image_tokens_without_an_image_are_an_error(model, processor):
    batch = batch_of(processor, [noise(32, 32, 0)], [prompt_of(processor)])
    with pytest.raises(ValueError, match="expected images for the image tokens"):
        model(input_ids=batch["input_ids"])


def test_what_can_not_be_meant_is_an_error(model, processor):
    batch = batch_of(processor, [noise(32, 32, 0)], [prompt_of(processor)])
    features = model.encode(batch["pixel_values"])
    embedded = model.embed_inputs(batch["input_ids"], features)
    for inputs, said in (
        ({}, "either input_ids or inputs_embeds"),
        ({"input_ids": batch["input_ids"], "inputs_embeds": embedded}, "either input_ids or inputs_embeds"),
        ({**batch, "vision_features": features}, "either pixel_values or vision_features"),
        ({"inputs_embeds": embedded, "vision_features": features}, "no places for images"),
    ):
        with pytest.raises(ValueError, match=said):
            model(**inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shard", ["300KB", "1GB"])
def test_a_saved_model_comes_back_bit_for_bit_under_its_own_names(model, tmp_path, dtype, shard):
    before = {name: tensor.detach().to(dtype) for name, tensor in model.named_parameters()}
    copied = PointsForConditionalGeneration(model.config).to(dtype)
    copied.load_state_dict({name: tensor.to(dtype) for name, tensor in model.state_dict().items()})
    copied.save_pretrained(tmp_path, max_shard_size=shard)
    on_disk = {}
    for path in tmp_path.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            on_disk |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (shard == "300KB")
    assert on_disk.keys() == before.keys()
    assert all(torch.equal(on_disk[name], before[name]) for name in before)
    loaded, loading_info = AutoModelForImageTextToText.from_pretrained(tmp_path, output_loading_info=True)
    assert not loading_info["missing_keys"]
    assert not loading_info["unexpected_keys"]
    assert not loading_info["mismatched_keys"]
    assert loaded.dtype == dtype
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == str(dtype).removeprefix("torch.")
    assert all(torch.equal(tensor, before[name]) for name, tensor in loaded.named_parameters())


def test_names_are_those_of_the_published_model(model):
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == {
        "general_vit",
        "ocr_vit",
        "vision_projector",
        "llm",
    }
    assert {name for name, _ in model.vision_projector.named_parameters(prefix="vision_projector")} == {
        f"vision_projector.{i}.{kind}" for i in (0, 2) for kind in ("weight", "bias")
    }


def test_its_config_comes_back_equal(model, tmp_path):
    model.config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(loaded, PointsConfig)
    assert loaded.to_dict() | {"_name_or_path": ""} == model.config.to_dict() | {"_name_or_path": ""}


def test_the_published_size_gives_144_tokens_a_tile():
    vision = {"hidden_size": 1024, "num_attention_heads": 16, "image_size": 336, "patch_size": 14}
    config = PointsConfig(general_config=vision, ocr_config=vision)
    assert (config.tile, config.tokens_per_tile, config.shuffled_size) == (336, 144, 4096)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"merge_weights": [0.5, 0.6]}, "sum to 1"),
        ({"merge_weights": [1.0]}, "sum to 1"),
        ({"ocr_config": {"patch_size": 16, "image_size": 32}}, "share one projector"),
        ({"shuffle": 3}, "shuffle 3"),
        ({"vision_feature_layer": 0}, "vision_feature_layer: expected -1 to -13"),
        ({"vision_feature_layer": -14}, "found -14"),
        ({"connector": "resampler"}, "expected one of shuffle, pool, attention-pool, linear, found 'resampler'"),
        ({"text_config": {"model_type": "bogus"}}, "bogus"),
    ],
)
def test_a_config_that_can_not_work_is_refused(change, said):
    vision = {"image_size": 32, "patch_size": 8}
    with pytest.raises(Exception, match=said):
        PointsConfig(**{"general_config": vision, "ocr_config": vision} | change)


def test_all_that_is_wrong_with_a_config_is_told_at_once():
    general, ocr = {"image_size": 32, "patch_size": 8}, {"image_size": 48, "patch_size": 8, "hidden_size": 96}
    with pytest.raises(Exception, match="sum to 1") as refusal:
        PointsConfig(general_config=general, ocr_config=ocr, merge_weights=[1.0], connector="x", shuffle=3)
    assert "hidden_size 768 and 96; image_size 32 and 48; patches along a tile's side 4 and 6" in str(refusal.value)
    assert "expected one of shuffle" in str(refusal.value)
    assert "shuffle 3 does not divide" in str(refusal.value)


def test_a_config_written_before_there_were_connectors_means_the_same(model):
    """As the first release of the toy family wrote it, less the parts' own fields."""
    vision = {"hidden_size": 96, "image_size": 32, "intermediate_size": 384, "model_type": "clip_vision_model"}
    vision |= {"num_attention_heads": 4, "num_hidden_layers": 3, "patch_size": 8, "initializer_range": 0.08}
    old = {
        "architectures": ["PointsForConditionalGeneration"],
        "general_config": dict(vision),
        "image_token_id": 259,
        "merge_weights": [0.5, 0.5],
        "model_type": "points",
        "ocr_config": dict(vision),
        "shuffle": 2,
        "text_config": model.config.text_config.to_dict(),
        "tie_word_embeddings": True,
        "vision_feature_layer": -2,
    }
    config = PointsConfig.from_dict(old)
    assert (config.connector, config.merge_weights, config.tokens_per_tile) == ("shuffle", [0.5, 0.5], 4)
    with torch.device("meta"):
        shapes = {name: t.shape for name, t in PointsForConditionalGeneration(config).state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in model.state_dict().items()}
