"""Checkpoint directories: what is read, what is refused and with which words."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import soup
from soup.checkpoints.digest import DigestCache, FileStamp, digest_checkpoint, side_digest
from soup.checkpoints.reader import Checkpoint
from soup.checkpoints.weight_files import INDEX, WEIGHTS, looks_like_checkpoint
from soup.errors import CheckpointError
from soup.testing import TINY_SHAPES, tiny_checkpoint, tiny_tensor
from tests.helpers.merge_oracle import read_back


def refusal(path):
    with pytest.raises(CheckpointError) as error:
        Checkpoint(path)
    return str(error.value)


def edit_index(path, change):
    index = json.loads((path / INDEX).read_text())
    change(index["weight_map"])
    (path / INDEX).write_text(json.dumps(index))


@pytest.fixture
def single(tmp_path):
    return tiny_checkpoint(tmp_path / "one")


@pytest.fixture
def sharded(tmp_path):
    return tiny_checkpoint(tmp_path / "sharded", shards=3)


def bytes_of(checkpoint, name):
    buffer = bytearray(checkpoint.tensors[name].bytes)
    checkpoint.read_into(name, 0, memoryview(buffer))
    return bytes(buffer)


# --- what is read -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shards", [1, 2, 9])
def test_every_tensor_is_read_as_safetensors_reads_it(tmp_path, shards):
    path = tiny_checkpoint(tmp_path / "model", shards=shards)
    expected = read_back(path)
    with Checkpoint(path) as checkpoint:
        assert checkpoint.tensors.keys() == expected.keys() == TINY_SHAPES.keys()
        assert checkpoint.sharded == (shards > 1)
        assert len(checkpoint.files) == shards
        assert checkpoint.bytes == sum(value.numel() * 2 for value in expected.values())
        for name, value in expected.items():
            assert checkpoint.tensors[name].shape == tuple(value.shape)
            assert bytes_of(checkpoint, name) == bytes(value.reshape(-1).view(torch.uint8).tolist())
            assert value.equal(tiny_tensor(name, TINY_SHAPES[name]))
    assert not checkpoint.warnings


def test_one_file_of_another_name_is_read(tmp_path):
    path = tiny_checkpoint(tmp_path / "model")
    (path / WEIGHTS).rename(path / "consolidated.safetensors")
    assert Checkpoint(path).files == ("consolidated.safetensors",)


def test_an_index_with_one_shard_is_fine(single):
    (single / WEIGHTS).rename(single / "model-00001-of-00001.safetensors")
    weight_map = dict.fromkeys(TINY_SHAPES, "model-00001-of-00001.safetensors")
    (single / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    assert Checkpoint(single).sharded


def test_an_index_that_names_the_single_file_is_fine(single):
    (single / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(TINY_SHAPES, WEIGHTS)}))
    assert Checkpoint(single).files == (WEIGHTS,)


def test_an_index_may_name_files_by_a_dot_and_a_slash(single, sharded):
    for folder in (single, sharded):
        names = json.loads((folder / INDEX).read_text())["weight_map"] if (folder / INDEX).exists() else None
        names = names or dict.fromkeys(TINY_SHAPES, WEIGHTS)
        (folder / INDEX).write_text(json.dumps({"weight_map": {name: f"./{file}" for name, file in names.items()}}))
        with Checkpoint(folder) as checkpoint:
            assert {*checkpoint.files} == {*names.values()}
            assert checkpoint.tensors.keys() == TINY_SHAPES.keys()
            assert not checkpoint.warnings, "none is left unread"


def test_shards_in_a_subdirectory_are_read(sharded):
    (sharded / "weights").mkdir()
    for file in sharded.glob("*.safetensors"):
        file.rename(sharded / "weights" / file.name)
    edit_index(sharded, lambda index: index.update({name: f"weights/{file}" for name, file in index.items()}))
    assert Checkpoint(sharded).tensors.keys() == TINY_SHAPES.keys()


def test_links_into_a_cache_like_the_hub_s_are_followed(tmp_path, sharded):
    """The Hub's cache: snapshots/REVISION holds links to ../../blobs, and blobs have no extension."""
    blobs, snapshot = tmp_path / "hub/blobs", tmp_path / "hub/snapshots/1234"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, file in enumerate(sorted(sharded.iterdir())):
        shutil.move(file, blobs / str(number))
        (snapshot / file.name).symlink_to(Path("../../blobs") / str(number))
    checkpoint = Checkpoint(snapshot)
    assert checkpoint.tensors.keys() == TINY_SHAPES.keys()
    assert not checkpoint.warnings


def test_a_stray_shard_is_warned_of_and_not_read(sharded):
    save_file({"old": torch.zeros(2)}, sharded / "model-00009-of-00009.safetensors")
    checkpoint = Checkpoint(sharded)
    assert "old" not in checkpoint.tensors
    (warning,) = checkpoint.warnings
    assert "not read" in warning
    assert "model-00009-of-00009.safetensors" in warning


def test_a_stray_file_beside_the_single_one_is_warned_of(single):
    save_file({"old": torch.zeros(2)}, single / "ema.safetensors")
    checkpoint = Checkpoint(single)
    assert checkpoint.tensors.keys() == TINY_SHAPES.keys()
    assert "ema.safetensors" in checkpoint.warnings[0]


def test_tensors_that_the_index_forgets_are_read_and_warned_of(sharded):
    edit_index(sharded, lambda index: index.pop("lm_head.weight"))
    checkpoint = Checkpoint(sharded)
    assert "lm_head.weight" in checkpoint.tensors
    assert "model.safetensors.index.json does not name 1 tensor, merged all the same" in checkpoint.warnings[0]


def test_pickles_beside_safetensors_do_not_matter(single):
    (single / "pytorch_model.bin").write_bytes(b"\x80\x04")
    assert Checkpoint(single).tensors.keys() == TINY_SHAPES.keys()


# --- what is refused --------------------------------------------------------------------------------------------------


def test_a_path_that_is_no_directory_is_refused(tmp_path, single):
    assert "no such directory" in refusal(tmp_path / "absent")
    assert "a file, and no directory. A checkpoint is a directory" in refusal(single / WEIGHTS)


def test_an_empty_directory_and_a_lone_config_are_refused(tmp_path, single):
    (tmp_path / "empty").mkdir()
    assert f"no .safetensors file here. A checkpoint holds {WEIGHTS}" in refusal(tmp_path / "empty")
    (single / WEIGHTS).unlink()
    assert "no .safetensors file here" in refusal(single)


def test_a_single_file_beside_an_index_is_refused_and_it_says_which_would_be_loaded(sharded):
    save_file({"w": torch.zeros(2)}, sharded / WEIGHTS)
    message = refusal(sharded)
    assert f"both {WEIGHTS} and {INDEX}" in message
    assert f"transformers would load {WEIGHTS}" in message


def test_several_files_without_an_index_are_refused(sharded):
    (sharded / INDEX).unlink()
    message = refusal(sharded)
    assert f"3 weight files and no {INDEX}" in message
    assert "model-00002-of-00003.safetensors" in message
    (sharded / "model-00001-of-00003.safetensors").unlink()
    assert f"2 weight files and no {INDEX}" in refusal(sharded)


@pytest.mark.parametrize(("name", "shards"), [("model-00002-of-00003", 3), ("model-00001-of-00002", 2)])
def test_a_shard_alone_without_an_index_is_no_whole_model(tmp_path, name, shards):
    save_file({"w": torch.zeros(2)}, tmp_path / f"{name}.safetensors")
    assert f"{name}.safetensors is one of {shards} shards" in refusal(tmp_path)


def test_the_only_shard_of_one_is_a_whole_model(tmp_path):
    save_file({"w": torch.zeros(2)}, tmp_path / "model-00001-of-00001.safetensors")
    assert [*Checkpoint(tmp_path).tensors] == ["w"]


def test_a_missing_shard_is_named(sharded):
    (sharded / "model-00001-of-00003.safetensors").unlink()
    (sharded / "model-00003-of-00003.safetensors").unlink()
    message = refusal(sharded)
    assert "model-00001-of-00003.safetensors" in message
    assert "model-00003-of-00003.safetensors" in message
    assert "model-00002" not in message


def test_a_link_to_nowhere_is_a_missing_shard(sharded):
    (sharded / "model-00001-of-00003.safetensors").unlink()
    (sharded / "model-00001-of-00003.safetensors").symlink_to("gone")
    assert "missing" in refusal(sharded)


def test_a_truncated_shard_is_refused_by_name(sharded):
    file = sharded / "model-00002-of-00003.safetensors"
    file.write_bytes(file.read_bytes()[:-3])
    assert "model-00002-of-00003.safetensors" in refusal(sharded)


def test_keys_that_the_index_names_and_no_shard_has_are_all_listed(sharded):
    edit_index(
        sharded,
        lambda index: index.update(ghost="model-00001-of-00003.safetensors", spook="model-00002-of-00003.safetensors"),
    )
    message = refusal(sharded)
    assert "ghost: expected in model-00001-of-00003.safetensors, found nowhere" in message
    assert "spook: expected in model-00002-of-00003.safetensors, found nowhere" in message


def test_a_key_that_lies_in_another_shard_than_the_index_says_is_refused(sharded):
    files = json.loads((sharded / INDEX).read_text())["weight_map"]
    right = files["lm_head.weight"]
    wrong = next(file for file in files.values() if file != right)
    edit_index(sharded, lambda index: index.update({"lm_head.weight": wrong}))
    assert f"lm_head.weight: expected in {wrong}, found in {right}" in refusal(sharded)


def test_a_tensor_in_two_shards_is_refused(sharded):
    both = {"lm_head.weight": torch.zeros(2), "model.vision_tower.temperature": torch.zeros(())}
    save_file(both, sharded / "model-00004-of-00004.safetensors")
    edit_index(sharded, lambda index: index.update({"more": "model-00004-of-00004.safetensors"}))
    message = refusal(sharded)
    assert "tensors that lie in two shards" in message
    assert "lm_head.weight: in model-0000" in message


@pytest.mark.parametrize(
    "file",
    [
        "../elsewhere/model.safetensors",
        "/etc/model.safetensors",
        "a/../../model.safetensors",
        "..\\elsewhere.safetensors",
        "a\\b.safetensors",
        "C:model.safetensors",
        "C:/model.safetensors",
        "//host/share/model.safetensors",
        "model.bin",
        "",
        "..",
        "x\0.safetensors",
    ],
)
def test_index_entries_that_point_elsewhere_are_refused(sharded, file):
    edit_index(sharded, lambda index: index.update({"lm_head.weight": file}))
    assert "outside of the directory are refused" in refusal(sharded)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"weight_map": []}',
        '{"weight_map": {"a": 1}}',
        '{"weight_map": {}}',
        "\xff",
        "[" * 9999,
    ],
)
def test_a_damaged_index_is_refused(sharded, text):
    (sharded / INDEX).write_bytes(text.encode("latin-1"))
    assert str(sharded / INDEX) in refusal(sharded)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "\xff"])
def test_a_damaged_config_is_told_when_it_is_needed(single, text):
    (single / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError, match=r"config\.json"):
        _ = Checkpoint(single).config


def test_a_folder_of_gguf_is_refused_with_what_to_soup_instead(tmp_path):
    (tmp_path / "model-Q4_K_M.gguf").write_bytes(b"GGUF")
    assert "no .safetensors file here" in refusal(tmp_path)
    assert "GGUF is made of such a checkpoint" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth", "model.ckpt", "model.pt"])
def test_pickles_are_refused_with_the_reason(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x80\x04")
    (tmp_path / "config.json").write_text("{}")
    message = refusal(tmp_path)
    assert f"the weights are pickles ({name}), and loading a pickle can run any code" in message
    assert ("python -c" in message) == (name == "pytorch_model.bin")
    assert ("transformers loads none of such names" in message) == (name != "pytorch_model.bin")


def test_the_command_that_converts_pickles_makes_a_checkpoint_of_them(tmp_path):
    """Of any architecture, and of parts that share memory or lie the other way round."""
    whole = torch.arange(12.0).view(3, 4)
    parts = ({"a.weight": whole, "b.weight": whole.T}, {"c.bias": whole[0], "lm_head.weight": torch.ones(2).half()})
    for number, part in enumerate(parts, 1):
        torch.save(part, tmp_path / f"pytorch_model-0000{number}-of-00002.bin")
    torch.save({"learning_rate": 1}, tmp_path / "training_args.bin")
    code = re.search('python -c "(.+)"', refusal(tmp_path))[1]
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    made = load_file(tmp_path / WEIGHTS)
    for name, value in (parts[0] | parts[1]).items():
        assert torch.equal(made[name], value)
    assert Checkpoint(tmp_path).tensors.keys() == made.keys()


def test_a_diffusers_folder_is_refused_with_the_command_that_converts_it(tmp_path, single):
    (single / "model_index.json").write_text("{}")
    assert "Diffusers-style" in refusal(single)
    save_file({"w": torch.zeros(2)}, tmp_path / "diffusion_pytorch_model.safetensors")
    assert "save_file(load_file(" in refusal(tmp_path)


def test_a_lora_adapter_is_refused_with_the_command_that_merges_it(tmp_path, single):
    (single / "adapter_config.json").write_text("{}")
    (single / WEIGHTS).rename(single / "adapter_model.safetensors")
    assert "merge_and_unload()" in refusal(single)
    save_file({"w": torch.zeros(2)}, tmp_path / "adapter_model.safetensors")
    assert "a LoRA adapter, not a whole model" in refusal(tmp_path)


@pytest.mark.parametrize("shards", [1, 2])
def test_a_whole_model_beside_an_adapter_config_that_was_left_behind_is_taken_and_told(tmp_path, shards):
    path = tiny_checkpoint(tmp_path / "model", shards=shards)
    (path / "adapter_config.json").write_text("{}")
    checkpoint = Checkpoint(path)
    assert checkpoint.tensors.keys() == TINY_SHAPES.keys()
    assert "adapter_config.json are both here; the whole model is taken" in checkpoint.warnings[0]
    assert "adapter_config.json" in checkpoint.side_files.left_out, (
        "transformers would load its base in place of a soup"
    )


# --- quantised --------------------------------------------------------------------------------------------------------


def test_ordinary_weights_are_not_quantised(single):
    assert Checkpoint(single).quantised is None


@pytest.mark.parametrize("where", ["top", "text_config"])
def test_a_quantization_config_is_found(tmp_path, where):
    facts = {"quantization_config": {"quant_method": "gptq"}}
    tensors = {"layer.codes": torch.zeros(4, dtype=torch.int32), "norm.weight": (4,)}
    path = tiny_checkpoint(tmp_path / "q", tensors=tensors, config=facts if where == "top" else {where: facts})
    assert Checkpoint(path).quantised == "config.json has a quantization_config (gptq)"


@pytest.mark.parametrize(
    ("key", "facts", "method"),
    [
        ("compression_config", {"quant_method": "compressed-tensors", "format": "int-quantized"}, "compressed-tensors"),
        ("quantization", {"group_size": 64, "bits": 4}, "unnamed"),  # MLX'
    ],
)
def test_a_quantisation_under_another_librarys_key_is_found_and_left_out_where_it_is_stale(
    tmp_path, key, facts, method
):
    tensors = {"layer.codes": torch.zeros(4, dtype=torch.int32), "norm.weight": (4,)}
    path = tiny_checkpoint(tmp_path / "q", tensors=tensors, config={key: facts})
    assert Checkpoint(path).quantised == f"config.json has a {key} ({method})"
    for name in "ab":
        tiny_checkpoint(tmp_path / "ckpts" / name, seed=ord(name), config={key: facts})
    made = soup.cook("average", tmp_path / "ckpts", out=tmp_path / "out")
    assert f"config.json has a {key} ({method}), but its weights are ordinary" in made.warnings[0]
    assert key not in Checkpoint(tmp_path / "out").config


def test_a_key_quantization_that_is_no_quantisation_of_weights_stays(tmp_path):
    for name in "ab":
        tiny_checkpoint(tmp_path / "ckpts" / name, seed=ord(name), config={"quantization": {"codebooks": 4}})
    soup.cook("average", tmp_path / "ckpts", out=tmp_path / "out")
    assert Checkpoint(tmp_path / "out").config["quantization"] == {"codebooks": 4}


def test_weights_that_are_whole_numbers_are_quantised_whatever_the_config_says(tmp_path):
    masks = {"attn.bias": torch.ones(1, 1, 4, 4, dtype=torch.uint8), "steps.weight": torch.zeros(3, dtype=torch.int32)}
    path = tiny_checkpoint(tmp_path / "q", tensors=masks | {"up.weight": torch.ones(4, 4, dtype=torch.int8)})
    assert Checkpoint(path).quantised == "1 weight of whole numbers, the first up.weight: int8[4, 4]"
    assert Checkpoint(tiny_checkpoint(tmp_path / "masks", tensors=masks)).quantised is None


@pytest.mark.parametrize("where", ["top", "text_config"])
def test_dequantised_weights_are_merged_and_the_stale_key_is_told_and_left_out(tmp_path, where):
    facts = {"quantization_config": {"quant_method": "bitsandbytes"}, "kept": 1}
    tensors = dict(TINY_SHAPES) | {"position_ids": torch.arange(3)}
    for name in "ab":
        config = facts if where == "top" else {where: facts}
        tiny_checkpoint(tmp_path / "ckpts" / name, seed=ord(name), tensors=tensors, config=config)
    made = soup.cook("average", tmp_path / "ckpts", out=tmp_path / "out")
    assert "a: config.json has a quantization_config (bitsandbytes), but its weights are ordinary" in made.warnings[0]
    assert len(made.warnings) == 2
    config = Checkpoint(tmp_path / "out").config
    assert "quantization_config" not in json.dumps(config)
    assert (config if where == "top" else config[where])["kept"] == 1


def test_float8_weights_are_quantised(tmp_path):
    path = tiny_checkpoint(tmp_path / "q", tensors={"a": (2,), "w": torch.zeros(4).to(torch.float8_e4m3fn)})
    assert Checkpoint(path).quantised == "1 tensor of packed numbers, the first w: float8_e4m3fn[4]"


@pytest.mark.parametrize(
    "suffix",
    [
        *("qweight", "qzeros", "weight_packed", "W_q", "SCB", "weight.absmax", "weight.quant_state.bitsandbytes__nf4"),
        *("weight._data", "weight._data._data", "_weight_qdata"),
    ],
)
def test_packed_integers_are_known_by_their_names(tmp_path, suffix):
    tensors = {f"layers.0.q_proj.{suffix}": torch.zeros(4, dtype=torch.uint8), "norm.weight": (4,)}
    path = tiny_checkpoint(tmp_path / "q", tensors=tensors)
    assert "1 tensor of a quantisation, the first layers.0.q_proj" in Checkpoint(path).quantised


# --- side files -------------------------------------------------------------------------------------------------------


def test_what_belongs_to_the_model_is_carried_and_what_belongs_to_the_training_is_not(sharded):
    carried = [
        "added_tokens.json",
        "chat_template.jinja",
        "code/modeling_mine.py",
        "generation_config.json",
        "preprocessor_config.json",
        "tokenizer.model",
        "vocab.json",
    ]
    left = [
        "README.md",
        "events.out.tfevents.1",
        "optimizer.pt",
        "pytorch_model.bin",
        "recipe.yaml",
        "rng_state_0.pth",
        "scheduler.pt",
        "train.log",
        "trainer_state.json",
        "training_args.bin",
    ]
    not_entered = [".git/config", "checkpoint-100/config.json", "runs/x/log.txt", "__pycache__/m.pyc", ".gitattributes"]
    for name in [*carried, *left, *not_entered]:
        (sharded / name).parent.mkdir(parents=True, exist_ok=True)
        (sharded / name).write_text("x")
    files_beside = Checkpoint(sharded).side_files
    assert set(files_beside.carried) == {*carried, "config.json", "tokenizer.json"}
    assert set(files_beside.left_out) == {*left, INDEX}


# --- digests ----------------------------------------------------------------------------------------------------------


def content(path):
    return digest_checkpoint(Checkpoint(path)).content


def test_the_digest_does_not_depend_on_shards_paths_or_side_files(tmp_path):
    digests = {content(tiny_checkpoint(tmp_path / f"{shards}", shards=shards)) for shards in (1, 2, 5)}
    digests.add(content(tiny_checkpoint(tmp_path / "other", config={"x": 1}, tokenizer=False)))
    assert len(digests) == 1


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(name=st.sampled_from(sorted(TINY_SHAPES)), position=st.integers(0, 10**6), bit=st.integers(0, 15))
def test_one_bit_of_one_tensor_changes_its_digest_and_the_content_s_alone(tmp_path_factory, name, position, bit):
    folder = tmp_path_factory.mktemp("digest")
    state = {key: tiny_tensor(key, shape) for key, shape in TINY_SHAPES.items()}
    before = digest_checkpoint(Checkpoint(tiny_checkpoint(folder / "a", tensors=state)))
    word = state[name].reshape(-1).view(torch.int16)
    word[position % len(word)] ^= -(2**15) if bit == 15 else 2**bit
    after = digest_checkpoint(Checkpoint(tiny_checkpoint(folder / "b", tensors=state)))
    assert before.content != after.content
    assert [key for key in state if before.tensors[key] != after.tensors[key]] == [name]


def test_names_dtypes_and_shapes_are_part_of_the_digest(tmp_path):
    values = torch.zeros(8, dtype=torch.int32)
    variants = [{"a": values}, {"b": values}, {"a": values.view(torch.float32)}, {"a": values.reshape(2, 4)}]
    variants += [{"a": values, "b": torch.empty(0)}, {"a": values, "b": torch.empty(0, 1)}]
    digests = [content(tiny_checkpoint(tmp_path / str(i), tensors=state)) for i, state in enumerate(variants)]
    assert len(set(digests)) == len(variants)


def test_the_side_digest_covers_names_and_contents_of_what_is_carried(tmp_path, single):
    before = side_digest(Checkpoint(single))
    (single / "README.md").write_text("not carried")
    assert side_digest(Checkpoint(single)) == before
    (single / "tokenizer.json").write_text("{}")
    changed = side_digest(Checkpoint(single))
    assert changed != before
    (single / "tokenizer.json").rename(single / "tokeniser.json")
    assert side_digest(Checkpoint(single)) not in (before, changed)


def test_a_remembered_digest_is_that_of_the_files_as_they_are(tmp_path, single):
    cache = DigestCache(tmp_path / "digests.json")
    first, read = cache.get(Checkpoint(single)), []
    again = DigestCache(tmp_path / "digests.json")
    assert again.knows(Checkpoint(single))
    assert again.get(Checkpoint(single), read.append) == first
    assert not read
    shutil.rmtree(single)
    tiny_checkpoint(single, seed=7)
    assert not again.knows(Checkpoint(single))
    assert again.get(Checkpoint(single)).content not in ("", first.content)


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_a_damaged_cache_of_digests_is_an_empty_one(tmp_path, single, text):
    (tmp_path / "digests.json").write_text(text)
    assert DigestCache(tmp_path / "digests.json").get(Checkpoint(single)).content == content(single)


def test_the_cache_of_digests_holds_stamps_as_lists_as_earlier_runs_wrote_them(tmp_path, single):
    digest = DigestCache(tmp_path / "digests.json").get(Checkpoint(single))
    stat = (single / WEIGHTS).stat()
    assert json.loads((tmp_path / "digests.json").read_text()) == {
        str(single.resolve()): {
            "stamp": [[WEIGHTS, stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns]],
            "content": digest.content,
            "tensors": digest.tensors,
        }
    }


@pytest.mark.parametrize("field", range(5), ids=FileStamp._fields)
def test_a_file_of_another_name_size_inode_or_time_is_another(tmp_path, single, field):
    DigestCache(tmp_path / "digests.json").get(Checkpoint(single))
    document = json.loads((tmp_path / "digests.json").read_text())
    stamp = document[str(single.resolve())]["stamp"][0]
    stamp[field] = "other" if field == 0 else stamp[field] + 1
    (tmp_path / "digests.json").write_text(json.dumps(document))
    assert not DigestCache(tmp_path / "digests.json").knows(Checkpoint(single))


@pytest.mark.parametrize("damage", [{}, [], None, {"stamp": [["a"]]}, {"stamp": [], "content": "x"}], ids=repr)
def test_a_damaged_entry_of_the_cache_is_none_and_the_others_stay(tmp_path, single, damage):
    path = tmp_path / "digests.json"
    digest = DigestCache(path).get(Checkpoint(single))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"/other": damage}))
    assert DigestCache(path).knows(Checkpoint(single))
    path.write_text(json.dumps({str(single.resolve()): damage}))
    assert DigestCache(path).get(Checkpoint(single)) == digest


def test_what_is_meant_as_a_checkpoint_looks_like_one(tmp_path, single):
    assert looks_like_checkpoint(single)
    for name in ("config.json", "pytorch_model.bin", "adapter_config.json", "x.safetensors", INDEX):
        (tmp_path / f"with {name}").mkdir()
        (tmp_path / f"with {name}" / name).write_text("")
        assert looks_like_checkpoint(tmp_path / f"with {name}")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "train.log").write_text("")
    assert not looks_like_checkpoint(tmp_path / "logs")
    assert not looks_like_checkpoint(tmp_path / "absent")
    single.rename(tmp_path / ".partial")
    assert not looks_like_checkpoint(tmp_path / ".partial")
