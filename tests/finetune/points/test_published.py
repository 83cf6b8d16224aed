"""Published checkpoints into ours and back: names, bytes, and what they compute."""

from __future__ import annotations

import json

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from finetune.points.config import PointsConfig
from finetune.points.convert import convert_points, plan_conversion
from finetune.points.model import tensor_shapes
from finetune.points.presets import preset_config
from finetune.points.published import PublishedRows, published_names
from finetune.points.published_config import from_published_config, to_published_config
from soup.checkpoints.reader import Checkpoint
from soup.cli.app import cli
from soup.errors import FinetuneError, OutputError
from tests.helpers.published_points import FAMILIES, publish, published_config, published_logits, published_shapes
from tests.helpers.tiny_points import TOKENIZER, noise, points_config, points_model, prompt_of


def convert(source, out, **how):
    convert_points(plan_conversion(str(source), **how), out)
    return out


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors*")}


def all_tensors(folder):
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


@pytest.mark.parametrize("files", [1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_there_and_back_again_gives_the_same_files_bit_for_bit(family, files, tmp_path):
    publish(tmp_path / "published", family, files=files)
    convert(tmp_path / "published", tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "back", reverse=True)
    before, after = files_of(tmp_path / "published"), files_of(tmp_path / "back")
    weights = [name for name in before if name.endswith(".safetensors")]
    assert sorted(name for name in after if name.endswith(".safetensors")) == sorted(weights)
    assert all(before[name] == after[name] for name in weights)
    if files > 1:
        index = "model.safetensors.index.json"
        assert json.loads(before[index])["weight_map"] == json.loads(after[index])["weight_map"]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_published_configuration_comes_back(family, tmp_path):
    publish(tmp_path / "published", family)
    convert(tmp_path / "published", tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "back", reverse=True)
    before = json.loads((tmp_path / "published/config.json").read_text())
    after = json.loads((tmp_path / "back/config.json").read_text())
    before.pop("auto_map")  # it names code, which stays where it was
    assert {key: after["llm_config"][key] for key in before["llm_config"]} == before.pop("llm_config")
    assert {key: after["vision_config"][key] for key in before["vision_config"]} == before.pop("vision_config")
    assert {key: after[key] for key in before} == before
    assert json.loads((tmp_path / "back/preprocessor_config.json").read_text())["image_mean"] == [0.5, 0.4, 0.3]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_converted_checkpoint_loads_without_a_key_too_few_or_too_many_and_answers(family, tmp_path):
    publish(tmp_path / "published", family)
    ours = convert(tmp_path / "published", tmp_path / "ours")
    model, loading_info = AutoModelForImageTextToText.from_pretrained(ours, output_loading_info=True)
    assert not any(loading_info[part] for part in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert model.dtype == torch.bfloat16
    assert type(model.llm).__name__ == ("LlamaForCausalLM" if family == "yi" else "Qwen2ForCausalLM")
    processor = AutoProcessor.from_pretrained(ours)
    assert processor.image_processor.image_mean == [0.5, 0.4, 0.3]
    assert (processor.image_processor.tile, processor.tokens_per_tile) == (32, 4)
    batch = processor(images=[noise(64, 32, 0)], text=[prompt_of(1)], return_tensors="pt")
    answer = model.generate(**batch, max_new_tokens=3, do_sample=False)
    assert answer.shape[1] > batch["input_ids"].shape[1]
    assert model.generation_config.eos_token_id == TOKENIZER.convert_tokens_to_ids("<|im_end|>")
    assert not (ours / "modeling_points_chat.py").exists()


def test_a_tokenizer_that_can_not_pad_learns_it_from_the_token_that_ends_an_answer(tmp_path):
    publish(tmp_path / "published")
    file = tmp_path / "published/tokenizer_config.json"
    document = json.loads(file.read_text())
    file.write_text(json.dumps({key: value for key, value in document.items() if not key.startswith("pad")}))
    # A tokenizer that has padded before, as another test's may have, keeps the token in here as well.
    file = file.with_name("tokenizer.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"padding": None}))
    processor = AutoProcessor.from_pretrained(convert(tmp_path / "published", tmp_path / "ours"))
    batch = processor(text=[prompt_of(0), prompt_of(0, "?")], return_tensors="pt", padding=True)
    assert batch["attention_mask"].tolist()[0][0] == 0
    assert processor.tokenizer.pad_token == "<|im_end|>"


@torch.no_grad()
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_ours_computes_what_the_published_code_computes(family, tied, tmp_path):
    tensors = publish(tmp_path / "published", family, dtype=torch.float32, tie_word_embeddings=tied)
    model = AutoModelForImageTextToText.from_pretrained(convert(tmp_path / "published", tmp_path / "ours")).double()
    assert model.config.tie_word_embeddings == tied
    pixels = torch.randn(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([[5, 6, *[model.config.image_token_id] * 8, 7, 8, 9]])
    config = json.loads((tmp_path / "published/config.json").read_text())
    embedded = model.embed_inputs(ids, model.encode(pixels))[0]
    expected = published_logits(tensors, config, embedded)
    torch.testing.assert_close(
        model(input_ids=ids, pixel_values=pixels).logits[0], expected, rtol=1e-4, atol=1e-5
    )  # its norms are float32


@torch.no_grad()
def test_image_tokens_are_the_published_ones(tmp_path):
    tensors = publish(tmp_path / "published", dtype=torch.float32)
    model = AutoModelForImageTextToText.from_pretrained(convert(tmp_path / "published", tmp_path / "ours"))
    pixels = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    halves = []
    for name in ("general_vit", "ocr_vit"):
        vit = getattr(model, name)
        begin = f"{name}.vision_model."
        vit.load_state_dict({key.removeprefix(begin): t for key, t in tensors.items() if key.startswith(begin)})
        grid = vit(pixels, output_hidden_states=True).hidden_states[-2][0, 1:].reshape(4, 4, 32)
        # Rows of two squares; in each square the patches row by row, every patch whole.
        squares = [
            torch.cat([grid[r, c], grid[r, c + 1], grid[r + 1, c], grid[r + 1, c + 1]]) for r in (0, 2) for c in (0, 2)
        ]
        x = torch.stack(squares)
        for i in (0, 2):
            x = x @ tensors[f"vision_projector.{i}.weight"].T + tensors[f"vision_projector.{i}.bias"]
            x = torch.nn.functional.gelu(x) if i == 0 else x
        halves.append(x)
    torch.testing.assert_close(model.project(model.encode(pixels))[0], 0.5 * halves[0] + 0.5 * halves[1])


@pytest.mark.parametrize("family", FAMILIES)
def test_every_published_name_is_one_of_ours_or_shared_out_without_rest(family):
    published = published_config(family)
    config = from_published_config(published, 3, tied=False, eos_token_id=1, pad_token_id=0)
    shapes, theirs = tensor_shapes(config), published_shapes(published)
    parts = published_names(list(shapes), config)
    taken: dict[str, list[int]] = {name: [] for name in theirs}
    for name, part in parts.items():
        rows, columns = theirs[part.name][0], 1
        for size in theirs[part.name][1:]:
            columns *= size
        for start, count in part.runs(rows, columns):
            taken[part.name] += range(start, start + count)
        assert sum(count for _, count in part.runs(rows, columns)) == torch.Size(shapes[name]).numel()
    for name, elements in taken.items():
        assert sorted(elements) == list(range(torch.Size(theirs[name]).numel())), name


def test_the_map_is_written_out_for_one_layer():
    config = from_published_config(published_config("qwen"), 3, tied=False, eos_token_id=1, pad_token_id=0)
    ours, theirs = "llm.model.layers.1", "llm.lm.layers.1"
    parts = published_names([name for name in tensor_shapes(config) if name.startswith(ours)], config)
    assert parts == {
        f"{ours}.input_layernorm.weight": PublishedRows(f"{theirs}.input_layernorm.weight"),
        f"{ours}.post_attention_layernorm.weight": PublishedRows(f"{theirs}.post_attention_layernorm.weight"),
        f"{ours}.self_attn.q_proj.weight": PublishedRows(f"{theirs}.attention.query_dense.weight"),
        f"{ours}.self_attn.q_proj.bias": PublishedRows(f"{theirs}.attention.query_dense.bias"),
        f"{ours}.self_attn.k_proj.weight": PublishedRows(f"{theirs}.attention.key_value_dense.weight", 0, 2, 2),
        f"{ours}.self_attn.k_proj.bias": PublishedRows(f"{theirs}.attention.key_value_dense.bias", 0, 2, 2),
        f"{ours}.self_attn.v_proj.weight": PublishedRows(f"{theirs}.attention.key_value_dense.weight", 1, 2, 2),
        f"{ours}.self_attn.v_proj.bias": PublishedRows(f"{theirs}.attention.key_value_dense.bias", 1, 2, 2),
        f"{ours}.self_attn.o_proj.weight": PublishedRows(f"{theirs}.attention.dense.weight"),
        f"{ours}.mlp.up_proj.weight": PublishedRows(f"{theirs}.mlp.dense_h_to_4h.weight", 0, 2),
        f"{ours}.mlp.gate_proj.weight": PublishedRows(f"{theirs}.mlp.dense_h_to_4h.weight", 1, 2),
        f"{ours}.mlp.down_proj.weight": PublishedRows(f"{theirs}.mlp.dense_4h_to_h.weight"),
    }


@pytest.mark.parametrize(("preset", "layers", "a_layer"), [("7b", 28, 9), ("9b", 48, 7)])
def test_every_name_of_a_published_size_is_met_with_its_shape(preset, layers, a_layer):
    config = preset_config(preset)
    shapes = tensor_shapes(config)
    rows: dict[str, tuple[int, ...]] = {}
    for name, part in published_names(list(shapes), config).items():
        rows[part.name] = (rows.get(part.name, (0,))[0] + shapes[name][0], *shapes[name][1:])
    assert rows == published_shapes(to_published_config(config))
    # An encoder: 3 embeddings, 2 norms of 2, 24 layers of 16. A layer of the language model: 2 norms, query and
    # key-value (each with a bias in Qwen's case), dense, 2 of the MLP.
    assert len(rows) == 2 * (3 + 4 + 24 * 16) + 4 + 3 + layers * a_layer


def test_buffers_of_older_releases_are_left_out_and_told(tmp_path):
    tensors = publish(tmp_path / "published", files=1)
    tensors["general_vit.vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    tensors["llm.lm.layers.0.attention.rotary_emb.inv_freq"] = torch.ones(6)
    save_file(tensors, tmp_path / "published/model.safetensors", {"format": "pt"})
    plan = plan_conversion(str(tmp_path / "published"))
    assert len(plan.left_out) == 2
    assert [line.split(": ")[1] for line in plan.as_json(tmp_path / "ours")["remarks"]] == list(plan.left_out)


def test_shards_may_be_laid_out_anew(tmp_path):
    tensors = publish(tmp_path / "published")
    plan = plan_conversion(str(tmp_path / "published"))
    convert_points(plan, tmp_path / "ours", max_shard_bytes=30_000)
    assert len(Checkpoint(tmp_path / "ours").files) > 3
    convert(tmp_path / "ours", tmp_path / "back", reverse=True)
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in all_tensors(tmp_path / "back").items())


def edit(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(config.get(key), dict):
            config[key] |= value
        else:
            config[key] = value
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "pointsv1.5_chat"}, "POINTS 1.5 is another model: one encoder"),
        ({"model_type": "llava"}, r"/config\.json: expected model_type points_chat .* found 'llava'"),
        ({"model_type": "points"}, "found 'points'. It is of this family already: --reverse"),
        ({"llm_config": None}, "found 'points_chat', and no llm_config"),
        (
            {"llm_config": {"rotary_pct": 0.5, "hidden_act": "gelu"}},
            r"hidden_act: expected swiglu, found 'gelu'\n.*0\.5",
        ),
        ({"llm_config": {"norm_type": "layer_norm"}}, "expected rms_norm, found 'layer_norm'"),
        ({"llm_config": {"mlp_fc1_bias": True}}, "biases"),
        ({"vision_config": {"model_type": "siglip_vision_model"}}, "expected clip_vision_model"),
        ({"llm_config": {"num_layers": 3}}, r"layers\.2\..*: missing"),
        ({"llm_config": {"num_layers": 1}}, r"layers\.1\..*: unexpected"),
        ({"llm_config": {"ffn_hidden_size": 60}}, r"dense_h_to_4h\.weight: expected \[120, 48\], found \[112, 48\]"),
    ],
    ids=str,
)
def test_what_is_not_points_v1_is_refused(changes, said, tmp_path):
    publish(tmp_path / "published")
    edit(tmp_path / "published", **changes)
    with pytest.raises(FinetuneError, match=f"(?s){said}"):
        plan_conversion(str(tmp_path / "published"))


def test_a_tokenizer_without_the_image_token_is_refused(tmp_path):
    publish(tmp_path / "published")
    file = tmp_path / "published/tokenizer.json"
    file.write_text(file.read_text().replace("<|image_pad|>", "<|another|>"))
    with pytest.raises(FinetuneError, match=r"has no token <\|image_pad\|>"):
        plan_conversion(str(tmp_path / "published"))


@pytest.mark.parametrize(
    ("parts", "more", "said"),
    [
        (("clip",), {}, "expected two CLIP encoders, found clip_vision_model"),
        (("clip", "siglip"), {}, "found clip_vision_model, siglip_vision_model"),
        (("clip", "clip"), {"connector": "pool"}, "connector: expected shuffle, found pool"),
        (("clip", "clip"), {"merge_weights": [0.25, 0.75]}, r"merge_weights: expected \[0.5, 0.5\]"),
        (("clip", "clip"), {"llm": "gpt2"}, "expected qwen2 or llama, found gpt2"),
    ],
)
def test_what_the_published_form_has_no_place_for_is_refused(parts, more, said):
    with pytest.raises(FinetuneError, match=said):
        to_published_config(points_config(*parts, **more))


def test_reverse_takes_our_family_alone(tmp_path):
    publish(tmp_path / "published")
    with pytest.raises(FinetuneError, match="to have model_type points, found 'points_chat'"):
        plan_conversion(str(tmp_path / "published"), reverse=True)


def test_any_model_of_ours_that_fits_can_be_published(tmp_path):
    model = points_model("clip", "clip", llm="llama")
    model.save_pretrained(tmp_path / "ours")
    TOKENIZER.save_pretrained(tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "theirs", reverse=True)
    again = convert(tmp_path / "theirs", tmp_path / "again")
    ours, tensors = model.state_dict(), all_tensors(again)
    assert ours.keys() == tensors.keys()
    assert all(torch.equal(ours[name], tensor) for name, tensor in tensors.items())
    assert isinstance(PointsConfig.from_pretrained(again), PointsConfig)


def test_a_destination_that_holds_something_is_refused(tmp_path):
    publish(tmp_path / "published")
    plan = plan_conversion(str(tmp_path / "published"))
    for out in (tmp_path / "published", tmp_path / "published/within"):
        with pytest.raises(OutputError):
            convert_points(plan, out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["published"]


def test_an_interrupted_conversion_leaves_nothing(tmp_path):
    publish(tmp_path / "published")
    plan = plan_conversion(str(tmp_path / "published"))

    def interrupt(count):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_points(plan, tmp_path / "ours", progress=interrupt)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["published"]


def test_the_command_shows_its_plan_does_it_and_tells(tmp_path):
    publish(tmp_path / "published")
    command = ["convert-points", str(tmp_path / "published"), "-o", str(tmp_path / "ours"), "--json"]
    planned = CliRunner().invoke(cli, [*command, "--dry-run"])
    assert not (tmp_path / "ours").exists()
    done = CliRunner().invoke(cli, command)
    assert json.loads(planned.stdout) == json.loads(done.stdout)
    document = json.loads(done.stdout)
    assert (document["schema"], document["tensors"]) == (1, len(Checkpoint(tmp_path / "ours").tensors))
    assert document["write_bytes"] == Checkpoint(tmp_path / "ours").bytes
    assert {*document["files"], *document["side_files"]} <= {path.name for path in (tmp_path / "ours").iterdir()}
    back = CliRunner().invoke(
        cli,
        ["convert-points", str(tmp_path / "ours"), "--reverse", "-o", str(tmp_path / "b"), "--max-shard-size", "20KB"],
    )
    assert back.exit_code == 0
    assert back.stdout.startswith(f"{tmp_path / 'b'}: ")
