"""Every kind of POINTS model: saved, loaded, generating, batched, packed, trained."""

from __future__ import annotations

import warnings

import pytest
import torch
from transformers import AutoModelForImageTextToText

from finetune.points.config import CONNECTORS
from tests.helpers.case_parts import some_of
from tests.helpers.tiny_points import ENCODERS, LANGUAGE_MODELS, TOKENIZER, batch_of, noise, points_model, prompt_of

MOLMO = ("clip", "siglip", "attention-pool")
KINDS = [
    MOLMO,
    *[(name, None, connector) for name in ENCODERS for connector in CONNECTORS],
    *[("clip", "clip", connector) for connector in CONNECTORS],
    ("clip", "siglip", "shuffle"),
    ("eva_clip", "convnext", "pool"),  # the ConvNeXt's third stage happens to fit: 4 x 4 of width 32
]


def name_of(kind):
    return "-".join(filter(None, kind))


def model_of(kind):
    """A model of a kind; Molmo's connector joins two hidden states."""
    return points_model(*kind, vision_feature_layer=[-2, -3] if kind == MOLMO else -2)


def mixed_batch(model, side="left"):
    """Two images, none, one: of different sizes, so that rows have different lengths."""
    images = [noise(64, 32, 0), noise(32, 32, 1), noise(40, 70, 2)]
    return batch_of(model, images, [prompt_of(2), prompt_of(0, "???"), prompt_of(1, "!")], side)


@torch.no_grad()
@pytest.mark.parametrize("kind", some_of(KINDS), ids=name_of)
def test_every_kind_comes_back_from_its_files_and_answers_alike(kind, tmp_path):
    model = model_of(kind)
    model.save_pretrained(tmp_path, max_shard_size="60KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    loaded, loading_info = AutoModelForImageTextToText.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(loading_info[part] for part in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    ours, theirs = model.state_dict(), loaded.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    batch = mixed_batch(model)
    settings = {"max_new_tokens": 5, "do_sample": False}
    answers = model.generate(**batch, **settings)
    assert torch.equal(answers, loaded.generate(**batch, **settings))
    assert torch.equal(answers, model.generate(**batch, **settings, use_cache=False))


@torch.no_grad()
def test_an_image_token_is_never_an_answer():
    model = points_model()
    model.llm.get_output_embeddings().weight.zero_()
    batch = batch_of(model, [noise(32, 32, 0)], [prompt_of(1)])
    weight = model.llm.get_output_embeddings().weight
    weight[model.config.image_token_id] = (
        1e3
        * model.llm.model(
            inputs_embeds=model.embed_inputs(batch["input_ids"], model.encode(batch["pixel_values"]))
        ).last_hidden_state[0, -1]
    )
    assert model(**batch).logits[0, -1].argmax() == model.config.image_token_id
    answer = model.generate(**batch, max_new_tokens=1, do_sample=False)[0, -1]
    assert answer != model.config.image_token_id


@torch.no_grad()
@pytest.mark.parametrize("llm", LANGUAGE_MODELS)
def test_every_language_model_comes_back_from_its_files_and_answers_alike(llm, tmp_path):
    model = points_model("clip", llm=llm)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert type(loaded.llm) is type(model.llm)
    tied = loaded.llm.get_output_embeddings().weight is loaded.llm.get_input_embeddings().weight
    assert tied == (llm in ("qwen2_tied", "gpt2"))
    batch = mixed_batch(model)
    settings = {"max_new_tokens": 5, "do_sample": False}
    assert torch.equal(model.generate(**batch, **settings), loaded.generate(**batch, **settings))
    assert torch.equal(model.generate(**batch, **settings), model.generate(**batch, **settings, use_cache=False))


@torch.no_grad()
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_attention_may_be_chosen_for_every_encoder(encoder, attention, tmp_path):
    model = points_model(encoder)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path, attn_implementation=attention)
    assert loaded.llm.config._attn_implementation == attention
    batch = mixed_batch(model)
    real = batch["attention_mask"].bool()  # what a padding token makes of seeing nothing differs
    torch.testing.assert_close(loaded(**batch).logits[real], model(**batch).logits[real], rtol=1e-4, atol=1e-5)
    model.set_attn_implementation(attention)
    assert torch.equal(loaded(**batch).logits[real], model(**batch).logits[real])


@torch.no_grad()
@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_kind_computes_in_bfloat16(encoder, tmp_path):
    points_model(encoder).save_pretrained(tmp_path)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}
    logits = loaded(**mixed_batch(loaded)).logits
    assert logits.dtype == torch.bfloat16
    assert logits.isfinite().all()


@torch.no_grad()
def test_encoders_may_be_kept_in_fewer_bits_than_the_rest():
    model = points_model("clip", "siglip")
    whole = model(**mixed_batch(model)).logits
    model.general_vit.to(torch.bfloat16)
    mixed = model(**mixed_batch(model)).logits
    assert mixed.dtype == torch.float32
    assert 0 < (mixed - whole).abs().max() < 0.2


@torch.no_grad()
@pytest.mark.parametrize("kind", [("clip", "siglip", "shuffle"), ("none", None, "linear")], ids=name_of)
def test_parts_compute_what_transformers_own_modules_compute(kind):
    model = model_of(kind)
    batch = mixed_batch(model)
    pixels = batch["pixel_values"]
    shares = []
    for vit in model.encoders:
        if kind[0] == "none":
            state = pixels.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 4, 5, 1).reshape(len(pixels), 4, 4, -1)
        else:
            state = vit(pixels, output_hidden_states=True).hidden_states[-2][:, -16:].unflatten(1, (4, 4))
        squares = state.reshape(len(pixels), 2, 2, 2, 2, -1).transpose(2, 3).reshape(len(pixels), 4, -1)
        shares.append(torch.nn.Sequential(*model.vision_projector)(squares))
    images = sum(share / len(shares) for share in shares)
    embedded = model.llm.get_input_embeddings()(batch["input_ids"])
    embedded[batch["input_ids"] == model.config.image_token_id] = images.flatten(0, 1)
    expected = model.llm(inputs_embeds=embedded, attention_mask=batch["attention_mask"]).logits
    assert (model(**batch).logits - expected).abs().max() == 0


@torch.no_grad()
@pytest.mark.parametrize("llm", ["qwen2", "llama"])
def test_the_content_of_padding_changes_no_logit_of_a_real_token(llm):
    model = points_model("clip", "clip", llm=llm)
    for side in ("left", "right"):
        batch = mixed_batch(model, side)
        real = batch["attention_mask"].bool()
        assert not real.all()
        before = model(**batch).logits
        batch["input_ids"][~real] = TOKENIZER.convert_tokens_to_ids("<|im_start|>")
        assert (model(**batch).logits[real] - before[real]).abs().max() == 0


@torch.no_grad()
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("llm", ["qwen2", "llama"])
def test_padding_on_either_side_changes_no_logit_beyond_the_last_bits(llm, side, attention):
    model = points_model("clip", "clip", llm=llm)
    model.set_attn_implementation(attention)
    images, texts = [noise(64, 32, 0), noise(40, 70, 2)], [prompt_of(1), prompt_of(1, " Look well, then tell.")]
    batch = batch_of(model, images, texts, side)
    # Places count from the first real token, as generate counts them; without, only the rotation of queries and keys
    # against each other matters, and rounding differs.
    places = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
    together = model(**batch, position_ids=places).logits
    for row, (image, text) in enumerate(zip(images, texts, strict=True)):
        alone = model(**batch_of(model, [image], [text])).logits[0]
        real = batch["attention_mask"][row].bool()
        assert (together[row][real] - alone).abs().max() < 2e-6


def packed(batches):
    """Batches of one row each as one row without padding: places begin anew with each."""
    return {
        "input_ids": torch.cat([batch["input_ids"] for batch in batches], dim=1),
        "position_ids": torch.cat([torch.arange(batch["input_ids"].shape[1])[None] for batch in batches], dim=1),
        "pixel_values": torch.cat([batch["pixel_values"] for batch in batches if "pixel_values" in batch]),
    }


@torch.no_grad()
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("llm", ["qwen2", "llama"])
@pytest.mark.parametrize("encoder", ["clip", "none"])
def test_rows_packed_into_one_do_not_see_each_other(encoder, llm, attention):
    model = points_model(encoder, llm=llm)
    model.set_attn_implementation(attention)
    rows = [
        batch_of(model, [noise(64, 32, 0), noise(32, 32, 1)], [prompt_of(2)]),
        batch_of(model, [], [prompt_of(0, "???")]),
        batch_of(model, [noise(40, 70, 2)], [prompt_of(1, "!")]),
    ]
    together = model(**packed(rows)).logits[0].split([row["input_ids"].shape[1] for row in rows])
    for row, logits in zip(rows, together, strict=True):
        assert (model(**row).logits[0] - logits).abs().max() < 1e-5


def test_packing_changes_neither_loss_nor_gradient():
    model = points_model("clip", "clip").train()
    rows = [batch_of(model, [noise(64, 32, 0)], [prompt_of(1)]), batch_of(model, [], [prompt_of(0, "???")])]
    labels = [row["input_ids"].clone() for row in rows]
    for label in labels:
        label[:, 0] = -100  # in a packed row, the token before it is another row's
    counts = torch.tensor([float((label[:, 1:] != -100).sum()) for label in labels])
    for row, label, share in zip(rows, labels, counts / counts.sum(), strict=True):
        (model(**row, labels=label).loss * share).backward()
    apart = {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.requires_grad}
    model.zero_grad()
    model(**packed(rows), labels=torch.cat(labels, dim=1)).loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, apart[name], rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_remembered_features_answer_like_pixels():
    model = points_model("clip", "siglip", "pool")
    batch = mixed_batch(model)
    expected = model.generate(**batch, max_new_tokens=5, do_sample=False)
    batch["vision_features"] = model.encode(batch.pop("pixel_values"))
    assert torch.equal(model.generate(**batch, max_new_tokens=5, do_sample=False), expected)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS, ids=name_of)
def test_what_is_seen_of_no_tile_has_the_shape_of_what_is_seen_of_one(kind):
    model = model_of(kind)
    none, single = (model.encode(torch.zeros(tiles, 3, 32, 32)) for tiles in (0, 1))
    assert (len(none), none.shape[1:]) == (0, single.shape[1:])


def gradients(model, batch):
    model.train()
    model.zero_grad()
    out = model(**batch, labels=batch["input_ids"])
    out.loss.backward()
    return out.loss.item(), {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("kind", KINDS, ids=name_of)
def test_every_weight_that_wants_a_gradient_gets_one_with_or_without_an_image(kind):
    model = model_of(kind)
    for images, texts in (([noise(64, 32, 0)], [prompt_of(1)]), ([], [prompt_of(0)])):
        _, names = gradients(model, batch_of(model, images, texts))
        assert not [name for name, gradient in names.items() if gradient is None]
        of_encoders = [gradient for name, gradient in names.items() if not name.startswith("llm.")]
        assert of_encoders
        assert all((gradient != 0).any() for gradient in of_encoders if gradient.ndim > 1) == bool(images)


@pytest.mark.parametrize("images", ["nothing", "no tile", "no feature"])
def test_a_batch_of_text_has_the_loss_and_gradients_of_its_text_alone(images):
    model = points_model("clip", "siglip")
    batch = batch_of(model, [], [prompt_of(0)])
    model.eval()
    model.llm.train()  # the model itself is not: no way by the images
    expected = model(**batch, labels=batch["input_ids"])
    expected.loss.backward()
    of_text = {name: p.grad.clone() for name, p in model.llm.named_parameters()}
    if images == "no tile":
        batch["pixel_values"] = torch.zeros(0, 3, 32, 32)
    if images == "no feature":
        batch["vision_features"] = torch.zeros(0, 2, 4, 128)
    loss, names = gradients(model, batch)
    assert loss == expected.loss.item()
    assert all(torch.equal(names[f"llm.{name}"], gradient) for name, gradient in of_text.items())
    assert all((names[f"vision_projector.{i}.weight"] == 0).all() for i in (0, 2))


def test_frozen_encoders_are_not_run_for_a_batch_of_text():
    model = points_model("clip", "siglip")
    for vit in model.encoders:
        vit.requires_grad_(False)
        vit.embeddings.register_forward_hook(lambda *_: pytest.fail("ran"))
    _, names = gradients(model, batch_of(model, [], [prompt_of(0)]))
    assert all((names[f"vision_projector.{i}.weight"] == 0).all() for i in (0, 2))


def test_nothing_goes_by_way_of_the_images_where_nothing_of_them_is_trained_or_no_training_is_on():
    model, ran = points_model("clip"), []
    model.vision_projector.register_forward_hook(lambda *_: ran.append("projector"))
    batch = batch_of(model, [], [prompt_of(0)])
    model.eval()(**batch)
    assert ran == []
    model.train()(**batch)
    assert ran == ["projector"], "while it is trained"
    model.general_vit.requires_grad_(False)
    model.vision_projector.requires_grad_(False)
    model.train()(**batch)
    assert ran == ["projector"]


@pytest.mark.parametrize(
    "kind", [(name, None, "shuffle") for name in ENCODERS] + [("clip", "siglip", "pool")], ids=name_of
)
def test_gradient_checkpointing_changes_neither_loss_nor_gradient(kind):
    model = model_of(kind)
    batch = batch_of(model, [noise(64, 32, 0)], [prompt_of(1)])
    loss, plain = gradients(model, batch)
    plain = {name: gradient if gradient is None else gradient.clone() for name, gradient in plain.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # transformers is about to rename it; this is its present name
        model.gradient_checkpointing_enable()
    assert model.is_activation_checkpointing
    again, names = gradients(model, batch)
    assert again == loss
    for name, gradient in names.items():
        assert (gradient is None) == (plain[name] is None), name
        assert gradient is None or torch.equal(gradient, plain[name]), name


@pytest.mark.parametrize("encoder", ["clip", "siglip", "eva_clip"])
def test_gradient_checkpointing_reaches_the_layers_of_a_trained_encoder(encoder):
    model = points_model(encoder)
    model.activation_checkpointing_enable()
    ran = []
    model.general_vit.encoder.layers[0].layer_norm1.register_forward_hook(lambda *_: ran.append(1))
    gradients(model, batch_of(model, [noise(32, 32, 0)], [prompt_of(1)]))
    assert len(ran) == 2  # forwards, and again for the gradient


def test_idle_weights_want_no_gradient_in_a_fresh_model_nor_in_a_loaded_one(tmp_path):
    model = points_model("clip", "siglip")
    model.save_pretrained(tmp_path)
    for loaded in (model, AutoModelForImageTextToText.from_pretrained(tmp_path)):
        idle = {name for name, parameter in loaded.named_parameters() if not parameter.requires_grad}
        assert {name.split(".")[0] for name in idle} == {"general_vit", "ocr_vit"}
        assert "general_vit.post_layernorm.weight" in idle
        assert "ocr_vit.head.probe" in idle
        assert len(loaded.idle_parameters()) == len(idle)


def test_its_layers_are_named_for_sharding_and_all_of_them_exist():
    model = points_model("clip", "siglip", llm="llama")
    classes = {type(module).__name__ for module in model.modules()}
    assert model._no_split_modules <= classes
    assert {"CLIPEncoderLayer", "SiglipEncoderLayer", "LlamaDecoderLayer"} <= model._no_split_modules
