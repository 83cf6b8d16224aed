"""What training does to a model: how much of it, at what rate, in which precision, however a batch is cut."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

import soup
from finetune.config import TrainSettings
from finetune.data import Collator, FeatureCache
from finetune.jobs import read_stamp
from finetune.points.config import PointsConfig
from finetune.points.presets import preset_config
from finetune.training import checkpoints
from finetune.training import start_model as start
from finetune.training.arguments import shares
from finetune.training.logs import loggers
from finetune.training.train import prepare, train_job
from finetune.training.trainer import StopRequest
from soup.errors import FinetuneError
from tests.helpers.training_basics import Notes, make_job, tiny_model, write_rows

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("data") / "rows")


def weights(directory):
    return {name: t for path in sorted(directory.glob("*.safetensors")) for name, t in load_file(path).items()}


def trained(place, data, digest="d", **settings):
    """The weights of a job that ran to its end, and what each step told."""
    job = make_job(place, data, digest=digest, **settings)
    notes = Notes()
    assert train_job(job, digest, StopRequest(), notes)
    return weights(job.out), notes.steps


@pytest.fixture(scope="module")
def plain(tmp_path_factory, data):
    place = tmp_path_factory.mktemp("plain")
    return *trained(place, data), place / "out-job"


def furthest(some, others):
    assert some.keys() == others.keys()
    return max((some[name].float() - others[name].float()).abs().max().item() for name in some)


def test_ingredients_that_start_from_nothing_share_their_tokenizer(tmp_path):
    base, (a, b) = write_rows(tmp_path / "base"), [tmp_path / f"{name}.json" for name in "ab"]
    for path in (a, b):
        turns = [{"from": "human", "value": f"Please {path.stem}: go"}, {"from": "gpt", "value": "no"}]
        path.write_text(json.dumps([{"conversations": turns}] * 60))
    jobs = [make_job(tmp_path, [base, path], name=path.stem, steps=1) for path in (a, b)]
    for job in jobs:
        assert train_job(job, "d", StopRequest())
    assert (jobs[0].out / "tokenizer.json").read_bytes() == (jobs[1].out / "tokenizer.json").read_bytes()


def test_images_may_be_cut_otherwise_in_training_than_by_the_ingredient(plain, data, tmp_path):
    tiling = "anyres:min_tiles=2,max_tiles=2"
    runs = [
        prepare(make_job(tmp_path, data, name=name, **more), "d", StopRequest())
        for name, more in (("a", {}), ("b", {"tiling": tiling}))
    ]
    own, other = (run.pipeline for run in runs)
    tiles = [len(pipeline.collator([pipeline.rows[0]])["pixel_values"]) for pipeline in (own, other)]
    pictures = len(own.rows[0]["images"])
    assert tiles == [pictures, 3 * pictures], "small squares are one tile; here they are two and an overview"
    assert other.rows.length_at(0) == own.rows.length_at(0) + 2 * 4 * pictures
    trained(tmp_path, data, name="c", tiling=tiling, steps=1)
    config = "processor_config.json"
    assert (tmp_path / "out-c" / config).read_bytes() == (plain[2] / config).read_bytes()


def test_every_step_is_told(plain):
    assert [step[:2] for step in plain[1]] == [(step, 6) for step in range(1, 7)]
    assert plain[1][-1][2] < plain[1][0][2] - 0.5
    assert all(pace > 0 for *_, pace in plain[1])


def test_the_ingredient_says_how_it_came_to_be(plain):
    stamp = read_stamp(plain[2])
    assert stamp["digest"] == "d"
    assert (stamp["steps"], stamp["rows"], stamp["rows_seen"]) == (6, 24, 24)
    assert stamp["first_loss"] == round(plain[1][0][2], 4)
    assert stamp["last_loss"] == round(plain[1][-1][2], 4)
    assert stamp["settings"]["lr"] == 2e-3
    assert stamp["precision"] == "float32"
    assert {"soup", "torch", "transformers", "accelerate", "peft"} <= stamp["versions"].keys()
    assert stamp["tokens"] > 24 * 10
    assert stamp["seconds"] > 0


def test_the_ingredient_is_an_ordinary_checkpoint(plain):
    model, loading_info = AutoModelForImageTextToText.from_pretrained(plain[2], output_loading_info=True)
    assert not any(loading_info.values())
    assert model.dtype == torch.float32
    assert model.config.text_config.use_cache is True


@pytest.mark.parametrize("micro", [1, 2])
def test_a_step_in_parts_is_the_step_as_a_whole(plain, data, tmp_path, micro):
    # Rows differ in how many of their tokens are learnt: a mean of the parts' means would be another loss.
    cut, steps = trained(tmp_path, data, micro_batch=micro)
    assert [step[2] for step in steps] == pytest.approx([step[2] for step in plain[1]], rel=1e-4)
    assert furthest(cut, plain[0]) < 2e-4


def test_recomputing_what_is_forgotten_changes_nothing(plain, data, tmp_path):
    again, steps = trained(tmp_path, data, gradient_checkpointing=True)
    assert [step[2] for step in steps] == pytest.approx([step[2] for step in plain[1]], rel=1e-5)
    assert furthest(again, plain[0]) < 1e-4


def test_bfloat16_is_of_the_arithmetic_alone(plain, data, tmp_path):
    rough, steps = trained(tmp_path, data, precision="bfloat16")
    losses = [step[2] for step in steps]
    assert losses != [step[2] for step in plain[1]]
    assert losses == pytest.approx([step[2] for step in plain[1]], rel=0.02)
    assert {tensor.dtype for tensor in rough.values()} == {torch.float32}
    # Steps of less than bfloat16's resolution are kept: the weights themselves are float32.
    assert any((tensor != tensor.bfloat16().float()).any() for tensor in rough.values())


def test_eager_attention_gives_the_same_model(plain, data, tmp_path):
    again, _ = trained(tmp_path, data, attn_implementation="eager")
    assert 0 < furthest(again, plain[0]) < 2e-3


def test_attention_that_is_not_installed_is_told(data, tmp_path):
    with pytest.raises(FinetuneError, match="attn_implementation: flash_attention_2 can't be had here"):
        trained(tmp_path, data, attn_implementation="flash_attention_2")


def prepared(place, data, **settings):
    return prepare(make_job(place, data, **settings), "d", StopRequest())


def test_rates_rise_over_the_first_steps_and_fall_as_a_cosine(data, tmp_path):
    run = prepared(
        tmp_path, data, steps=20, warmup_ratio=0.2, lr_overrides={"llm": 1e-4}, freeze=["general_vit", "ocr_vit"]
    )
    run.trainer.train()
    logs = [log for log in run.trainer.state.log_history if "loss" in log]
    share = [min(step / 4, 0.5 * (1 + math.cos(math.pi * max(0, step - 4) / 16))) for step in range(20)]
    assert [log["learning_rate"] for log in logs] == pytest.approx([2e-3 * factor for factor in share])
    assert [log["learning_rate/llm"] for log in logs] == pytest.approx([1e-4 * factor for factor in share])


def test_a_step_moves_each_part_at_its_rate(data, tmp_path):
    # Adam's first step is the rate itself, whatever the gradient.
    rates = {"llm": 1e-4, "vision_projector": 3e-4}
    run = prepared(tmp_path, data, steps=1, warmup_ratio=0, lr_overrides=rates, freeze=["ocr_vit"], max_grad_norm=1e9)
    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    run.trainer.train()
    moved = {name: (tensor - before[name]).abs().max().item() for name, tensor in run.model.state_dict().items()}
    by_part = {part: max(m for name, m in moved.items() if name.startswith(part)) for part in (*rates, "general_vit")}
    assert by_part == pytest.approx({**rates, "general_vit": 2e-3}, rel=1e-2)
    assert not any(m for name, m in moved.items() if name.startswith("ocr_vit."))


def test_the_gradient_is_clipped(data, tmp_path):
    run = prepared(tmp_path, data, steps=1, max_grad_norm=1e-3)
    run.trainer.train()
    norm = run.trainer.state.log_history[0]["grad_norm"]
    assert norm > 1e-2
    # The second moment, 0.02 g^2, is of the clipped gradient.
    squares = sum(state["exp_avg_sq"].sum().item() for state in run.trainer.optimizer.state.values())
    assert math.sqrt(squares / 0.02) == pytest.approx(1e-3, rel=1e-3)


def test_adapters_train_and_are_gone_when_the_model_is_written(data, tmp_path, plain):
    start = plain[2]
    tuned, steps = trained(tmp_path, data, start=start, lora={"rank": 4}, freeze=["general_vit", "ocr_vit"])
    base = weights(start)
    assert tuned.keys() == base.keys()
    moved = {name for name in base if not torch.equal(base[name], tuned[name])}
    assert {name for name in moved if not name.startswith("vision_projector.")} == {
        f"llm.model.layers.{i}.{part}_proj.weight"
        for i in range(3)
        for part in (*(f"self_attn.{p}" for p in "qkvo"), "mlp.gate", "mlp.up", "mlp.down")
    }
    assert {name for name in moved if name.startswith("vision_projector.")} == {
        name for name in base if name.startswith("vision_projector.")
    }
    assert steps[-1][2] < steps[0][2]


LORA = {"rank": 4, "alpha": 6.0}


@pytest.mark.parametrize("more", [{}, {"train": {"general_vit": "last 1"}}], ids=["projector", "a layer of vision too"])
def test_a_kept_adapter_is_an_ingredient_that_makes_the_model_with_its_adapters_folded_in(data, tmp_path, plain, more):
    folded, _ = trained(tmp_path / "whole", data, start=plain[2], lora=LORA, **more)
    trained(tmp_path, data, start=plain[2], lora={**LORA, "keep_adapter": True}, **more)
    adapter = tmp_path / "out-job"
    assert read_stamp(adapter)["settings"]["lora"]["keep_adapter"]
    soup.cook("average", [adapter], out=tmp_path / "soup")  # on the base that it names
    merged = weights(tmp_path / "soup")
    assert furthest(merged, folded) < 1e-6
    assert furthest(merged, weights(plain[2])) > 1e-3


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft asks for it
def test_peft_loads_a_kept_adapter(data, tmp_path, plain):
    folded, _ = trained(tmp_path / "whole", data, start=plain[2], lora=LORA)
    trained(tmp_path, data, start=plain[2], lora={**LORA, "keep_adapter": True})
    base = AutoModelForImageTextToText.from_pretrained(plain[2])
    model = PeftModel.from_pretrained(base, tmp_path / "out-job")
    merged = model.merge_and_unload().state_dict()
    assert furthest({name: merged[name] for name in folded}, folded) < 1e-6


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft asks for it
@pytest.mark.parametrize("kind", ["dora", "rslora"])
def test_another_kind_of_adapter_is_folded_and_kept_as_peft_and_soup_read_it(data, tmp_path, plain, kind):
    lora = {**LORA, kind: True}
    folded, _ = trained(tmp_path / "whole", data, start=plain[2], lora=lora, steps=3)
    trained(tmp_path, data, start=plain[2], lora={**lora, "keep_adapter": True}, steps=3)
    usual, _ = trained(tmp_path / "usual", data, start=plain[2], lora=LORA, steps=3)
    assert furthest(folded, usual) > 1e-4
    soup.cook("average", [tmp_path / "out-job"], out=tmp_path / "soup")
    assert furthest(weights(tmp_path / "soup"), folded) < 2e-6
    base = AutoModelForImageTextToText.from_pretrained(plain[2])
    merged = PeftModel.from_pretrained(base, tmp_path / "out-job").merge_and_unload().state_dict()
    assert furthest({name: merged[name] for name in folded}, folded) < 2e-6


def test_an_adapter_needs_a_start_that_is_written(data, tmp_path):
    with pytest.raises(FinetuneError, match=r"lora\.keep_adapter: .* tiny is made anew"):
        trained(tmp_path, data, lora={"keep_adapter": True})


def test_tied_weights_are_written_once_though_they_were_gathered_apart(data, tmp_path, plain):
    # FSDP gives a full copy for each name.
    run = prepared(tmp_path, data)
    state = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    assert "llm.lm_head.weight" in state
    run.write(state, tmp_path / "out")
    assert weights(tmp_path / "out").keys() == weights(plain[2]).keys()


def test_the_last_layers_alone_may_be_trained(data, tmp_path, plain):
    tuned, _ = trained(tmp_path, data, start=plain[2], train={"general_vit": "last 1"}, freeze=["ocr_vit", "llm"])
    moved = {name for name, tensor in weights(plain[2]).items() if not torch.equal(tensor, tuned[name])}
    assert {name.rpartition(".layers.")[2].split(".")[0] for name in moved if "vit" in name} == {"1"}
    assert {name.split(".")[0] for name in moved} == {"general_vit", "vision_projector"}


def test_remembered_features_train_the_very_same_model(data, tmp_path, plain):
    keys = {"start": plain[2], "freeze": ["general_vit", "ocr_vit"]}
    seen, _ = trained(tmp_path / "seen", data, cache_features=True, **keys)
    looked, _ = trained(tmp_path / "looked", data, **keys)
    assert furthest(seen, looked) < 1e-5


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"cache_features": True, "freeze": ["ocr_vit"]}, "general_vit would be trained"),
        ({"cache_features": True, "freeze": ["ocr_vit", "general_vit"], "workers": 2}, "set workers to 0"),
        ({"parallel": "fsd"}, "Did you mean 'fsdp'"),
    ],
)
def test_settings_that_can_t_be_are_told_before_the_first_step(data, tmp_path, settings, words):
    with pytest.raises(FinetuneError, match=words):
        trained(tmp_path, data, **settings)


def test_packed_rows_have_the_loss_that_they_have_one_by_one(data, tmp_path):
    run = prepared(tmp_path, data, global_batch_size=2, packing=True, max_length=300, steps=1)
    packs = [run.trainer.train_dataset[i] for i in range(2)]
    rows = [row for pack in packs for row in pack]
    assert len(rows) > 8
    assert any(row["images"] for row in rows)
    padded = Collator(run.origin.processor, FeatureCache())(rows)
    with torch.no_grad():
        wanted = run.model(**padded).loss.item()
    run.trainer.train()
    log = run.trainer.state.log_history[0]
    assert log["loss"] == pytest.approx(wanted, rel=1e-5)
    assert (log["rows"], log["tokens"]) == (len(rows), int(padded["attention_mask"].sum()))


def test_packs_may_be_accumulated(data, tmp_path):
    keys = {"steps": 3, "global_batch_size": 4, "packing": True, "max_length": 120}
    _, steps = trained(tmp_path / "whole", data, **keys)
    _, again = trained(tmp_path / "cut", data, micro_batch=1, **keys)
    assert [step[2] for step in again] == pytest.approx([step[2] for step in steps], rel=1e-4)
    assert read_stamp(tmp_path / "cut" / "out-job")["rows_seen"] > 12


def test_rows_are_decoded_by_workers_into_the_same_model(plain, data, tmp_path):
    again, _ = trained(tmp_path, data, workers=1)
    assert furthest(again, plain[0]) == 0


@pytest.mark.parametrize("name", ["tensorboard", "trackio", "wandb"])
def test_a_logger_that_is_not_installed_is_told_with_its_command(monkeypatch, name):
    monkeypatch.setattr("importlib.util.find_spec", lambda one: None)
    line = 'pip install "vlm-soup[finetune]"' if name == "tensorboard" else f"pip install {name}"
    with pytest.raises(FinetuneError, match=re.escape(f"log_to: {name} is not installed: {line}")):
        loggers(TrainSettings(lr=1, steps=1, log_to=name), "job", Path(), 0)


@pytest.mark.parametrize(
    ("batch", "micro", "devices", "expected"),
    [(64, None, 1, (64, 1)), (64, None, 4, (16, 1)), (64, 8, 2, (8, 4)), (6, 1, 3, (1, 2))],
)
def test_a_step_is_shared_out_over_devices_and_parts(batch, micro, devices, expected):
    assert shares(TrainSettings(lr=1, steps=1, global_batch_size=batch, micro_batch=micro), devices) == expected


@pytest.mark.parametrize(("batch", "micro", "devices"), [(64, None, 3), (64, 16, 8)])
def test_a_batch_that_can_t_be_shared_out_is_told(batch, micro, devices):
    with pytest.raises(FinetuneError, match=f"global_batch_size 64.*{devices} devices"):
        shares(TrainSettings(lr=1, steps=1, global_batch_size=batch, micro_batch=micro), devices)


def test_a_larger_preset_starts_fresh_with_its_own_number_of_tokens(monkeypatch):
    small = preset_config("tiny").text_config.to_dict() | {"vocab_size": 5000, "max_position_embeddings": 777}
    config = PointsConfig(**{**preset_config("tiny").to_dict(), "text_config": small})
    monkeypatch.setattr(start, "preset_config", lambda name: config)
    model, processor = start.open_start("0.5b", TrainSettings(lr=1, steps=1))
    assert model.get_input_embeddings().num_embeddings == 5000
    assert processor.tokenizer.model_max_length == 777
    assert processor.tokens_per_tile == config.tokens_per_tile == 4
    assert model.generation_config.eos_token_id == processor.tokenizer.eos_token_id
    batch = processor(text=[f"{processor.image_token} what?"], images=[Image.new("RGB", (32, 32))], return_tensors="pt")
    assert model(**batch).logits.shape[-1] == 5000


def test_epochs_are_rounded_up_to_whole_steps(data, tmp_path):
    _, steps = trained(tmp_path, data, steps=None, epochs=0.4, global_batch_size=4)
    assert len(steps) == 3


def test_text_alone_is_data_too(tmp_path, plain):
    data = write_rows(tmp_path / "text", pictures=(0,))
    tuned, steps = trained(tmp_path, data, start=plain[2])
    moved = {name.split(".")[0] for name, t in weights(plain[2]).items() if not torch.equal(t, tuned[name])}
    assert "llm" in moved
    assert len(steps) == 6


def test_what_a_checkpoint_keeps_comes_back_and_nothing_else_fits(tmp_path):
    model, _ = tiny_model()
    model.llm.requires_grad_(False)
    trained = checkpoints.trained_tensors(model)
    assert {name.split(".")[0] for name in trained} == {"general_vit", "ocr_vit", "vision_projector"}
    checkpoints.save_trained(model, tmp_path)
    other, _ = tiny_model(seed=1)
    other.llm.requires_grad_(False)
    checkpoints.load_trained(other, tmp_path)
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in trained.items())
    other.ocr_vit.requires_grad_(False)
    with pytest.raises(FinetuneError, match="not the"):
        checkpoints.load_trained(other, tmp_path)


def test_what_is_saved_without_a_folder_goes_where_the_trainer_writes(data, tmp_path):
    trainer = prepared(tmp_path, data, steps=1).trainer
    trainer.save_model()
    trained = checkpoints.trained_tensors(trainer.model)
    written = load_file(Path(trainer.args.output_dir) / checkpoints.WEIGHTS)
    assert written.keys() == trained.keys()
    assert all(torch.equal(written[name], trained[name]) for name in trained)
