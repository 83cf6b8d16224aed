"""A base model from pretrained parts: what is whose, bit for bit, and what can't be put together."""

from __future__ import annotations

import json

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    BertConfig,
    BertModel,
    Blip2Config,
    Blip2ForConditionalGeneration,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MixtralConfig,
    MixtralForCausalLM,
)

from finetune.points.assemble import AssemblyOptions, assemble, plan_assembly
from finetune.points.config import CONNECTORS
from soup.checkpoints.reader import Checkpoint
from soup.cli.app import cli
from soup.errors import CheckpointError, FinetuneError, OutputError
from tests.helpers.forked_cli import Forge
from tests.helpers.hub_server import HubServer
from tests.helpers.pretrained_parts import CLIPS, TEXT, plain_tokenizer, save_encoder, save_llm
from tests.helpers.tiny_points import ENCODERS, TOKENIZER, noise, prompt_of


def put_together(out, llm, *encoders, **options):
    plan = plan_assembly(str(llm), *map(str, encoders), options=AssemblyOptions(**options))
    assemble(plan, out)
    return plan


def tensors_of(folder):
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


def answers(folder):
    """Whether the checkpoint loads whole and answers; gives the model."""
    model, loading_info = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    assert not any(loading_info[part] for part in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    processor = AutoProcessor.from_pretrained(folder)
    batch = processor(images=[noise(64, 32, 0)], text=[prompt_of(1), prompt_of(0)], return_tensors="pt", padding=True)
    answer = model.generate(**batch, max_new_tokens=3, do_sample=False)
    assert answer.shape[1] > batch["input_ids"].shape[1]
    return model, processor


def equal(state, begin, expected):
    extra_keys = {
        name.removeprefix(f"{begin}."): tensor for name, tensor in state.items() if name.startswith(f"{begin}.")
    }
    assert extra_keys.keys() == expected.keys()
    return all(torch.equal(extra_keys[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize(
    ("general", "ocr"),
    [
        (("clip", False), ("clip", True)),
        (("siglip", True), ("siglip", False)),
        (("clip", True), ("siglip", False)),
        (("eva_clip", False), ("convnext", False)),
        (("dinov2", False), None),
        (("clip", True), None),
    ],
    ids=str,
)
@pytest.mark.parametrize("llm", ["qwen2", "llama", "qwen2_tied"])
def test_the_parts_are_their_sources_bit_for_bit_and_the_whole_answers(general, ocr, llm, tmp_path):
    first = save_encoder(tmp_path / "general", general[0], whole=general[1], seed=1)
    second = save_encoder(tmp_path / "ocr", ocr[0], whole=ocr[1], seed=2) if ocr else None
    words = save_llm(tmp_path / "llm", llm, dtype=torch.float32)
    places = [tmp_path / "general", *([tmp_path / "ocr"] if ocr else [])]
    put_together(tmp_path / "base", tmp_path / "llm", *places)
    tensors = tensors_of(tmp_path / "base")
    assert equal(tensors, "general_vit", first)
    assert ocr is None or equal(tensors, "ocr_vit", second)
    assert equal(tensors, "llm", words)
    model, processor = answers(tmp_path / "base")
    assert set(model.config.vision_configs) == {"general_vit", "ocr_vit"} if ocr else {"general_vit"}
    assert processor.image_processor.image_mean == CLIPS["image_mean"]
    assert processor.tokens_per_tile == 4


def test_without_an_encoder_patches_go_into_the_language_model(tmp_path):
    words = save_llm(tmp_path / "llm", dtype=torch.float32)
    put_together(tmp_path / "base", tmp_path / "llm", tile=32, patch=16)
    tensors = tensors_of(tmp_path / "base")
    assert equal(tensors, "llm", words)
    assert {name for name in tensors if not name.startswith("llm.")} == {
        f"vision_projector.0.{p}" for p in ("weight", "bias")
    }
    model, processor = answers(tmp_path / "base")
    assert (model.config.connector, processor.tokens_per_tile, processor.image_processor.tile) == ("linear", 4, 32)


def test_the_dtype_is_the_language_models_unless_told(tmp_path):
    first = save_encoder(tmp_path / "vit", "clip")
    words = save_llm(tmp_path / "llm")
    plan = put_together(tmp_path / "base", tmp_path / "llm", tmp_path / "vit")
    assert plan.remarks == ("general_vit: float32 is rounded to bfloat16",)
    tensors = tensors_of(tmp_path / "base")
    assert equal(tensors, "llm", words)
    assert equal(tensors, "general_vit", {name: tensor.bfloat16() for name, tensor in first.items()})
    assert answers(tmp_path / "base")[0].dtype == torch.bfloat16
    put_together(tmp_path / "wide", tmp_path / "llm", tmp_path / "vit", dtype="float32")
    assert {tensor.dtype for tensor in tensors_of(tmp_path / "wide").values()} == {torch.float32}
    assert answers(tmp_path / "wide")[0].dtype == torch.float32


def test_values_that_a_dtype_can_not_hold_are_told_and_nothing_is_left(tmp_path):
    save_encoder(tmp_path / "vit", "clip")
    words = save_llm(tmp_path / "llm", dtype=torch.float32)
    file = next((tmp_path / "llm").glob("*00001*.safetensors"))
    tensors = load_file(file)
    name = next(iter(tensors))
    tensors[name] = torch.full_like(words[name], 1e6)
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(FinetuneError, match=f"(?s)too large for the dtype.*llm.{name}"):
        put_together(tmp_path / "base", tmp_path / "llm", tmp_path / "vit", dtype="float16")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["llm", "vit"]


def test_the_same_seed_makes_the_same_files_and_another_one_another_connector_alone(tmp_path):
    save_encoder(tmp_path / "vit", "clip")
    save_llm(tmp_path / "llm")
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        put_together(tmp_path / name, tmp_path / "llm", tmp_path / "vit", seed=seed)
    files = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in "ab"]
    assert files[0] == files[1]
    first, other = tensors_of(tmp_path / "a"), tensors_of(tmp_path / "c")
    unlike = {name for name in first if not torch.equal(first[name], other[name])}
    assert unlike == {"vision_projector.0.weight", "vision_projector.2.weight"}
    weight = first["vision_projector.0.weight"].float()
    assert weight.std().item() == pytest.approx(0.1, rel=0.05)  # the language model's initializer_range
    assert (first["vision_projector.0.bias"] == 0).all()


@pytest.mark.parametrize(("llm", "more"), [("llama", 3), ("qwen2_tied", 4)])  # Qwen's tokenizers add <|endoftext|>
def test_a_tokenizer_without_the_image_token_gets_it_and_rows_that_are_the_mean(llm, more, tmp_path):
    save_encoder(tmp_path / "vit", "clip")
    tokenizer = plain_tokenizer()
    words = save_llm(tmp_path / "llm", llm, tokenizer=tokenizer, rows=len(tokenizer), dtype=torch.float32)
    plan = put_together(tmp_path / "base", tmp_path / "llm", tmp_path / "vit")
    assert plan.added_tokens == ("<|image_pad|>", "<|im_start|>", "<|im_end|>")
    tensors = tensors_of(tmp_path / "base")
    old = len(tokenizer)
    for name in ("model.embed_tokens.weight", *(["lm_head.weight"] if llm == "llama" else [])):
        rows = tensors[f"llm.{name}"]
        assert rows.shape[0] == old + more
        assert torch.equal(rows[:old], words[name])
        assert torch.equal(rows[old:], words[name].double().mean(0).float().expand(more, -1))
    model, processor = answers(tmp_path / "base")
    assert processor.tokenizer.convert_tokens_to_ids("<|image_pad|>") == model.config.image_token_id
    assert len(processor.tokenizer("<|im_start|>", add_special_tokens=False)["input_ids"]) == 1
    assert model.config.image_token_id >= old
    assert model.generation_config.eos_token_id == [old + more - 1, tokenizer.eos_token_id]
    assert processor.tokenizer.padding_side == "left"
    assert processor.tokenizer.pad_token == ("</s>" if llm == "llama" else "<|endoftext|>")


def test_spare_rows_are_taken_before_new_ones_are_made(tmp_path):
    save_encoder(tmp_path / "vit", "clip")
    tokenizer = plain_tokenizer()
    words = save_llm(tmp_path / "llm", "llama", tokenizer=tokenizer, rows=len(tokenizer) + 2, dtype=torch.float32)
    put_together(tmp_path / "base", tmp_path / "llm", tmp_path / "vit")
    rows = tensors_of(tmp_path / "base")["llm.model.embed_tokens.weight"]
    assert len(rows) == len(tokenizer) + 3
    assert torch.equal(rows[:-1], words["model.embed_tokens.weight"])


def test_a_tokenizer_that_has_the_tokens_stays_and_so_do_the_rows(tmp_path):
    save_encoder(tmp_path / "vit", "clip")
    save_llm(tmp_path / "llm", rows=300)
    plan = put_together(tmp_path / "base", tmp_path / "llm", tmp_path / "vit")
    assert plan.added_tokens == ()
    assert plan.config.text_config.vocab_size == 300


@pytest.mark.parametrize("connector", CONNECTORS)
def test_connector_and_tiling_are_as_wished(connector, tmp_path):
    save_encoder(tmp_path / "vit", "clip")
    save_llm(tmp_path / "llm", dtype=torch.float32)
    options = {"connector": connector, "shuffle": 4, "tiling": "anyres", "feature_layer": [-1, -3]}
    put_together(tmp_path / "base", tmp_path / "llm", tmp_path / "vit", **options)
    model, processor = answers(tmp_path / "base")
    assert (model.config.connector, model.config.shuffle, model.config.vision_feature_layer) == (connector, 4, [-1, -3])
    assert processor.tokens_per_tile == 1
    assert processor.image_processor.tiling["name"] == "anyres"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden_size": 64}, "hidden_size 32 and 64"),
        ({"image_size": 48}, "image_size 32 and 48; patches along a tile's side 4 and 6"),
        ({"patch_size": 4, "hidden_size": 64}, r"hidden_size 32 and 64; patches along a tile's side 4 and 8"),
    ],
)
def test_encoders_that_differ_are_refused_with_all_differences(changes, said, tmp_path):
    save_encoder(tmp_path / "general", "clip")
    save_encoder(tmp_path / "ocr", "clip", **changes)
    save_llm(tmp_path / "llm")
    with pytest.raises(FinetuneError, match=said):
        plan_assembly(str(tmp_path / "llm"), str(tmp_path / "general"), str(tmp_path / "ocr"))


def test_encoders_that_want_other_pixels_are_refused(tmp_path):
    save_encoder(tmp_path / "general", "clip")
    save_encoder(tmp_path / "ocr", "siglip", pixels={"image_mean": [0.5] * 3, "image_std": [0.5] * 3})
    save_llm(tmp_path / "llm")
    with pytest.raises(FinetuneError, match=r"(?s)normalised differently.*general_vit: .*0\.48.*ocr_vit: .*0\.5"):
        plan_assembly(str(tmp_path / "llm"), str(tmp_path / "general"), str(tmp_path / "ocr"))


def test_an_encoder_that_does_not_say_how_it_wants_pixels_is_told(tmp_path):
    save_encoder(tmp_path / "vit", "clip", pixels=None, dtype=torch.bfloat16)
    save_llm(tmp_path / "llm")
    (remark,) = plan_assembly(str(tmp_path / "llm"), str(tmp_path / "vit")).remarks
    assert "CLIP's mean and deviation are assumed" in remark


def test_a_model_that_sees_nothing_is_no_encoder(tmp_path):
    BertModel(BertConfig(**TEXT)).save_pretrained(tmp_path / "bert")
    save_llm(tmp_path / "llm")
    with pytest.raises(FinetuneError, match="bert: not a vision model: BertModel takes input_ids"):
        plan_assembly(str(tmp_path / "llm"), str(tmp_path / "bert"))
    with pytest.raises(FinetuneError, match="qwen2: not a vision model"):
        plan_assembly(str(tmp_path / "llm"), str(tmp_path / "llm"))


def test_a_model_that_writes_nothing_is_no_language_model(tmp_path):
    save_encoder(tmp_path / "vit", "clip")
    with pytest.raises(FinetuneError, match="transformers has no causal language model of this type"):
        plan_assembly(str(tmp_path / "vit"), str(tmp_path / "vit"))
    save_encoder(tmp_path / "whole", "clip", whole=True)
    with pytest.raises(FinetuneError, match="clip sees images already"):
        plan_assembly(str(tmp_path / "whole"), str(tmp_path / "vit"))


def test_a_language_model_without_a_tokenizer_is_refused(tmp_path):
    save_encoder(tmp_path / "vit", "clip")
    save_llm(tmp_path / "llm", tokenizer=None)
    with pytest.raises(FinetuneError, match=r"no tokenizer here: expected one of tokenizer\.json"):
        plan_assembly(str(tmp_path / "llm"), str(tmp_path / "vit"))


@pytest.mark.parametrize("kind", ["blip_2", "llava"])
def test_an_encoder_may_lie_within_a_model_that_sees_and_writes(kind, tmp_path):
    torch.manual_seed(0)
    if kind == "blip_2":
        vision = {key: value for key, value in ENCODERS["eva_clip"].items() if key != "model_type"}
        words = {"model_type": "opt", **TEXT, "ffn_dim": 32, "word_embed_proj_dim": 32, "max_position_embeddings": 64}
        config = Blip2Config(vision_config=vision, qformer_config=TEXT, text_config=words, num_query_tokens=2)
        model = Blip2ForConditionalGeneration(config)
        tower = model.vision_model if hasattr(model, "vision_model") else model.model.vision_model
    else:
        config = LlavaConfig(vision_config=dict(ENCODERS["clip"]), text_config={"model_type": "llama", **TEXT})
        model = LlavaForConditionalGeneration(config)
        tower = model.model.vision_tower
    model.save_pretrained(tmp_path / "whole")
    save_llm(tmp_path / "llm", dtype=torch.float32)
    put_together(tmp_path / "base", tmp_path / "llm", tmp_path / "whole")
    assert equal(tensors_of(tmp_path / "base"), "general_vit", tower.state_dict())
    answers(tmp_path / "base")


def test_a_model_whose_tensors_transformers_joins_is_refused_with_the_way_out(tmp_path):
    save_encoder(tmp_path / "vit", "clip")
    options = {**TEXT, "num_key_value_heads": 2, "num_local_experts": 2}
    MixtralForCausalLM(MixtralConfig(**options)).save_pretrained(tmp_path / "llm")
    TOKENIZER.save_pretrained(tmp_path / "llm")
    with pytest.raises(FinetuneError, match=r"save_original_format=False.*\n.*transformers converts it on loading"):
        plan_assembly(str(tmp_path / "llm"), str(tmp_path / "vit"))


def test_missing_and_misshapen_tensors_are_listed(tmp_path):
    save_encoder(tmp_path / "vit", "clip", whole=True)
    save_llm(tmp_path / "llm")
    file = tmp_path / "vit/model.safetensors"
    tensors = load_file(file)
    del tensors["vision_model.encoder.layers.1.mlp.fc1.bias"]
    tensors["vision_model.post_layernorm.weight"] = torch.ones(5)
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(FinetuneError, match=r"(?s)\(2 differences.*fc1\.bias: missing.*\[32\], found \[5\]"):
        plan_assembly(str(tmp_path / "llm"), str(tmp_path / "vit"))


def test_wishes_that_can_not_be_had_are_told(tmp_path):
    save_encoder(tmp_path / "vit", "clip")
    save_llm(tmp_path / "llm")
    llm, vit = str(tmp_path / "llm"), str(tmp_path / "vit")
    for options, said in (
        ({"shuffle": 3}, "shuffle 3 does not divide the 4 patches"),
        ({"feature_layer": -9}, "expected -1 to -4"),
        ({"tiling": "cats"}, "cats"),
        ({"tile": 64}, "an encoder brings its own"),
    ):
        with pytest.raises(FinetuneError, match=said):
            plan_assembly(llm, vit, options=AssemblyOptions(**options))
    with pytest.raises(FinetuneError, match="give the only one as --general-vit"):
        plan_assembly(llm, None, vit)
    with pytest.raises(CheckpointError, match="no such directory"):
        plan_assembly(llm, str(tmp_path / "nowhere"))


def test_blocks_of_any_size_make_the_same_files_and_nothing_larger_is_held(tmp_path, monkeypatch):
    save_encoder(tmp_path / "vit", "clip")
    tokenizer = plain_tokenizer()
    save_llm(tmp_path / "llm", "llama", tokenizer=tokenizer, rows=len(tokenizer))
    put_together(tmp_path / "whole", tmp_path / "llm", tmp_path / "vit")
    monkeypatch.setattr("finetune.points.slice_writer.LEAF_ELEMENTS", 100)
    plan, counts = plan_assembly(str(tmp_path / "llm"), str(tmp_path / "vit")), []
    assemble(plan, tmp_path / "blocks", progress=counts.append)
    assert (max(counts), sum(counts)) == (200, plan.write_bytes)
    files = [{path.name: path.read_bytes() for path in (tmp_path / out).iterdir()} for out in ("whole", "blocks")]
    assert files[0] == files[1]


def test_an_output_among_the_sources_is_refused_and_an_interrupt_leaves_nothing(tmp_path):
    save_encoder(tmp_path / "vit", "clip")
    save_llm(tmp_path / "llm")
    plan = plan_assembly(str(tmp_path / "llm"), str(tmp_path / "vit"))
    with pytest.raises(OutputError):
        assemble(plan, tmp_path / "llm/base")

    def interrupt(count):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        assemble(plan, tmp_path / "base", progress=interrupt)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["llm", "vit"]


@pytest.mark.slow
def test_parts_come_from_the_hub_and_a_pickle_is_told_where_else_to_look(tmp_path):
    there = tmp_path / "there"
    first, words = save_encoder(there / "vit", "clip"), save_llm(there / "llm", dtype=torch.float32)
    (there / "old").mkdir()
    (there / "old/pytorch_model.bin").write_bytes(b"a pickle")
    (there / "old/config.json").write_text((there / "vit/config.json").read_text())
    with HubServer({f"team/{name}": there / name for name in ("vit", "llm", "old")}) as hub, Forge() as forge:
        environment = hub.environment(tmp_path / "home")
        command = ("assemble", "--llm", "team/llm", "-o", "base", "--general-vit")
        done = forge(*command, "team/vit", cwd=tmp_path, env=environment)
        refused = forge(*command, "team/old", cwd=tmp_path, env=environment)
    assert done.code == 0, done
    tensors = tensors_of(tmp_path / "base")
    assert equal(tensors, "general_vit", first)
    assert equal(tensors, "llm", words)
    assert refused.code == 1
    assert "team/old@refs/pr/1" in refused.stderr


def test_the_command_shows_its_plan_does_it_and_tells(tmp_path):
    save_encoder(tmp_path / "vit", "clip", whole=True)
    save_llm(tmp_path / "llm")
    out = tmp_path / "base"
    command = ["assemble", "--llm", str(tmp_path / "llm"), "--general-vit", str(tmp_path / "vit"), "--ocr-vit"]
    command += [str(tmp_path / "vit"), "-o", str(out), "--max-shard-size", "100KB", "--json"]
    planned = CliRunner().invoke(cli, [*command, "--dry-run"])
    assert planned.exit_code == 0, planned.output
    assert not out.exists()
    done = CliRunner().invoke(cli, command)
    document = json.loads(done.stdout)
    assert json.loads(planned.stdout) == document
    written = Checkpoint(out)
    assert (document["schema"], document["tensors"], document["write_bytes"]) == (
        1,
        len(written.tensors),
        written.bytes,
    )
    assert sorted(document["files"]) == sorted(written.files)
    assert document["parameters"] == sum(spec.elements for spec in written.tensors.values())
    assert set(document["parts"]) == {"general_vit", "ocr_vit", "llm"}
    answers(out)
