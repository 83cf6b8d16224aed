"""What ships: POINTS' stages with the paper's figures, and accelerate configurations that accelerate understands."""

from __future__ import annotations

from importlib.metadata import distribution
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file

import finetune
from finetune.config_file import read_config
from finetune.jobs import Job, plan_jobs, read_stamp
from finetune.training import parallel
from finetune.training.components import choose_trained, last_layers, learning_rates
from finetune.training.parallel import configuration_path, environment_of
from finetune.training.train import train_job
from finetune.training.trainer import StopRequest
from soup.errors import FinetuneError
from tests.helpers.training_basics import tiny_model, write_rows

CONFIGS = Path(finetune.__file__).parent / "configs"
STAGES = {
    "ocr_vit": ({"ocr_vit": 2e-4, "vision_projector": 2e-5}, 0.0),
    "pretrain": ({"general_vit": 2e-4, "vision_projector": 2e-5}, 0.0),
    "sft": ({"llm": 2e-5, "vision_projector": 2e-5}, 0.1),
}


def with_deep_encoders(model):
    """The tiny model with as many layers of vision as three used ones need."""
    for vit in (model.general_vit, model.ocr_vit):
        vit.encoder.layers.extend([vit.encoder.layers[0]] * 2)
    return model


def test_there_is_a_configuration_for_each_stage():
    assert {path.stem for path in (CONFIGS / "points").glob("*.yaml")} == STAGES.keys()


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_trains_the_paper_s_parts_at_the_paper_s_rates(stage):
    rates_of_parts, decay = STAGES[stage]
    settings = read_config(CONFIGS / "points" / f"{stage}.yaml").settings()
    model = with_deep_encoders(tiny_model()[0])
    choose_trained(model, settings)
    model.train()
    rates = learning_rates(model, settings)
    assert {(name.split(".")[0], rate) for name, rate in rates.items()} == set(rates_of_parts.items())
    assert (settings.warmup_ratio, settings.weight_decay, settings.global_batch_size, settings.max_length) == (
        0.03,
        decay,
        32,
        4096,
    )
    assert settings.max_grad_norm == 1.0


def test_the_second_stage_trains_the_last_three_layers_that_are_asked():
    settings = read_config(CONFIGS / "points" / "pretrain.yaml").settings()
    model = with_deep_encoders(tiny_model()[0])
    assert settings.train == {"general_vit": "last 3"}
    assert last_layers(model, "general_vit", 3) == [f"general_vit.encoder.layers.{i}" for i in (1, 2, 3)]


def test_the_third_stage_makes_the_seven_ingredients_of_the_paper_and_the_baseline(tmp_path):
    jobs = plan_jobs(read_config(CONFIGS / "points" / "sft.yaml"), tmp_path)
    assert [job.name for job in jobs] == [
        *("mathv360k", "mapqa", "robut-wtq", "iam", "chart2text", "screenqa", "visual7w"),
        "base",
    ]


@pytest.mark.parametrize("name", ["ddp", "fsdp", "zero2", "zero3"])
def test_accelerate_reads_what_ships(name):
    config = load_config_from_file(str(configuration_path(name)))
    assert isinstance(config, ClusterConfig)
    kinds = {"ddp": "MULTI_GPU", "fsdp": "FSDP", "zero2": "DEEPSPEED", "zero3": "DEEPSPEED"}
    assert config.distributed_type == kinds[name]


def as_environment(monkeypatch, name):
    for key, value in environment_of(name).items():
        monkeypatch.setenv(key, value)


def test_plain_data_parallel_asks_for_nothing():
    assert environment_of("ddp") == {}


def test_fsdp_becomes_accelerate_s_plugin(monkeypatch):
    from accelerate.utils import FullyShardedDataParallelPlugin
    from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy

    as_environment(monkeypatch, "fsdp")
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2
    assert plugin.reshard_after_forward is True
    assert plugin.auto_wrap_policy is transformer_auto_wrap_policy
    assert str(plugin.state_dict_type) == "StateDictType.SHARDED_STATE_DICT"
    plugin.set_auto_wrap_policy(tiny_model()[0])
    wrapped = plugin.auto_wrap_policy.keywords["transformer_layer_cls"]
    assert {kind.__name__ for kind in wrapped} >= {"CLIPEncoderLayer", "Qwen2DecoderLayer"}


@pytest.mark.parametrize(("name", "stage"), [("zero2", 2), ("zero3", 3)])
def test_zero_becomes_accelerate_s_plugin(monkeypatch, name, stage):
    from accelerate.utils import DeepSpeedPlugin

    as_environment(monkeypatch, name)
    plugin = DeepSpeedPlugin()
    zero = plugin.deepspeed_config["zero_optimization"]
    assert zero["stage"] == stage == plugin.zero_stage
    assert zero["stage3_gather_16bit_weights_on_model_save"] is (stage == 3)
    assert plugin.zero3_init_flag is False


def test_any_accelerate_configuration_may_be_named_by_its_path(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(configuration_path("fsdp").read_text().replace("offload_params: false", "offload_params: true"))
    assert environment_of(str(path))["FSDP_OFFLOAD_PARAMS"] == "true"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("distributed_type: FSDP\nfsdp_confg: {}", "fsdp_confg"),
        ("distributed_type: FSDP\nfsdp_config: {fsdp_version: 1}", "fsdp_version: expected 2, found 1"),
        ("- a\n- b", "not an accelerate configuration"),
    ],
)
def test_what_accelerate_does_not_understand_is_told(tmp_path, text, words):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(FinetuneError, match=words):
        environment_of(str(path))


def test_an_unknown_kind_of_parallel_is_told():
    with pytest.raises(FinetuneError, match="Did you mean 'zero3'"):
        configuration_path("zero4")


def test_one_process_alone_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr(parallel.os, "environ", {})
    parallel.join("fsdp")
    assert parallel.os.environ == {}


@pytest.mark.parametrize(("name", "words"), [("zero2", "pip install deepspeed"), ("fsdp", "there is none here")])
def test_what_can_t_be_had_here_is_told(monkeypatch, name, words):
    monkeypatch.setattr(parallel.os, "environ", {"WORLD_SIZE": "2"})
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    monkeypatch.setattr("accelerate.utils.is_deepspeed_available", lambda: False)
    with pytest.raises(FinetuneError, match=words):
        parallel.join(name)


def test_configurations_are_part_of_the_package():
    setup = Path(finetune.__file__).parents[1] / "setup.cfg"
    if setup.is_file():
        assert "finetune = py.typed, configs/**/*.yaml" in setup.read_text()
    else:
        files = {str(file) for file in distribution("vlm-soup").files}
        assert "finetune/configs/points/sft.yaml" in files


OTHERS = ["mm15/pretrain", "mm15/continual", "mm15/sft", "molmo/captions", "molmo/sft"]


def test_the_stages_of_mm15_and_molmo_are_all_tried():
    assert {f"{path.parent.name}/{path.stem}" for kind in ("mm15", "molmo") for path in (CONFIGS / kind).glob("*")} == {
        *OTHERS
    }


@pytest.mark.parametrize("stage", OTHERS)
def test_a_stage_runs_on_a_toy(stage, tmp_path, one_thread):
    config = read_config(CONFIGS / f"{stage}.yaml")
    pictures = {"data/text": (0,), "data/several-images": (2,)}
    paths = {each.path: write_rows(tmp_path / each.path, 8, pictures.get(each.path, (1,))) for each in config.data}
    small = {"steps": 2, "epochs": None, "global_batch_size": 2, "micro_batch": 1, "workers": 0, "log_to": []}
    settings = config.settings({**small, "precision": "float32"})
    data = tuple(each.model_copy(update={"path": str(paths[each.path])}) for each in config.data)
    job = Job("base", "tiny", data, settings, tmp_path / "out", tmp_path / "job")
    assert train_job(job, "d", StopRequest())
    stamp = read_stamp(tmp_path / "out")
    assert stamp["steps"] == 2
    epoch = {name: part["epoch"] for name, part in stamp["mixture"]["categories"].items()}
    if stage == "mm15/sft":
        ratios = {name: epoch[name] / epoch["general"] for name in ("science", "math", "code")}
        assert ratios == pytest.approx({"science": 0.1, "math": 0.5, "code": 0.2}, abs=0.005)  # of rounded counts
        groups, whole = stamp["mixture"]["groups"], stamp["mixture"]["epoch"]
        assert round(groups["single_image"]["epoch"] / whole, 2) == 0.8
