"""The jobs of a configuration: trained, skipped when done, gone on with after a stop, and told of when they fail."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from finetune import launch
from finetune.launch import finetune
from finetune.toy.write import Sizes, make_toy
from soup.errors import FinetuneError

CONFIG = """
start: {start: tiny, data: toy/data/base, out: base, lr: 2.0e-3, steps: 12, batch: 8, max_shard_size: 1MB}
added: {number: toy/data/number, bars: toy/data/bars}
data: toy/data/base
cache_features: true
freeze: [general_vit, ocr_vit]
lr: 1.0e-3
steps: 4
batch: 8
max_shard_size: 1MB
"""


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    # Two threads that wait for each other on a busy machine make seconds into minutes.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return make_toy(tmp_path_factory.mktemp("toy") / "toy", sizes=Sizes(base=8, added=8, mmbench=1, ocrbench=1))


@pytest.fixture(scope="module")
def place(toy):
    (toy.parent / "finetune.yaml").write_text(CONFIG)
    return toy.parent


@pytest.fixture(scope="module")
def done(place):
    told = []
    ingredients = finetune(place / "finetune.yaml", progress=lambda *step: told.append(step))
    return place, ingredients, told


def weights(directory):
    return {name: t for path in directory.glob("*.safetensors") for name, t in load_file(path).items()}


def test_ingredients_lie_side_by_side_and_the_base_apart(done):
    place, ingredients, _ = done
    assert ingredients == [place / "ckpts" / name for name in ("number", "bars")]
    assert sorted(p.name for p in (place / "ckpts").iterdir()) == ["bars", "number"]
    assert (place / "base" / "config.json").is_file()


def test_checkpoints_are_sharded_bfloat16_and_complete(done):
    for directory in [done[0] / "base", *done[1]]:
        index = json.loads((directory / "model.safetensors.index.json").read_text())
        assert len(set(index["weight_map"].values())) > 1
        config = json.loads((directory / "config.json").read_text())
        assert config["dtype"] == "bfloat16"
        assert "use_cache" not in config
        assert config["text_config"]["use_cache"] is True
        assert all(tensor.dtype == torch.bfloat16 for tensor in weights(directory).values())
        assert AutoProcessor.from_pretrained(directory).tokens_per_tile == 4
        assert not list(directory.glob("*.bin"))
        assert (directory / "finetune.json").is_file()


def test_frozen_encoders_are_the_bases_bit_for_bit_and_the_rest_moved(done):
    base = weights(done[0] / "base")
    for directory in done[1]:
        tuned = weights(directory)
        assert tuned.keys() == base.keys()
        moved = {name.split(".")[0] for name in base if not torch.equal(base[name], tuned[name])}
        assert moved == {"vision_projector", "llm"}


def test_training_lowers_the_loss(done):
    told = json.loads((done[0] / "base" / "finetune.json").read_text())
    assert told["last_loss"] < told["first_loss"] - 1
    assert told["steps"] == 12


def test_progress_tells_every_step(done):
    steps = [(name, step, of) for name, step, of, _ in done[2]]
    assert steps[:12] == [("start", i, 12) for i in range(1, 13)]
    assert steps[12:] == [(name, i, 4) for name in ("number", "bars") for i in range(1, 5)]


def test_a_rerun_trains_nothing(done, monkeypatch):
    monkeypatch.setattr("finetune.train.train", None)
    told = []
    assert finetune(done[0] / "finetune.yaml", progress=lambda *step: told.append(step)) == done[1]
    assert [step[:3] for step in told] == [("start", 12, 12), ("number", 4, 4), ("bars", 4, 4)]


def test_the_same_seed_trains_the_same_bytes(done, tmp_path):
    (tmp_path / "toy").symlink_to(done[0] / "toy")
    (tmp_path / "finetune.yaml").write_text(CONFIG)
    again = finetune(tmp_path / "finetune.yaml")
    for mine, before in zip(again, done[1], strict=True):
        for path in before.glob("*.safetensors"):
            assert (mine / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("when", [1, 2])
def test_a_stopped_run_goes_on_where_it_stopped(place, tmp_path, monkeypatch, when):
    (tmp_path / "toy").symlink_to(place / "toy")
    (tmp_path / "finetune.yaml").write_text(CONFIG)
    names, stopping = ["base", "number", "bars"], []

    def stop(name, step, steps, loss):
        stopping.append(name)
        if name == names[when]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(tmp_path / "finetune.yaml", progress=stop)
    complete = [p.name for p in [tmp_path / "base", *sorted(tmp_path.glob("ckpts/*"))] if p.exists()]
    assert complete == names[:when]
    trained = []
    original = launch._train_logged
    monkeypatch.setattr(launch, "_train_logged", lambda job, *rest: (trained.append(job.name), original(job, *rest))[1])
    finetune(tmp_path / "finetune.yaml")
    assert trained == names[when:]


def test_all_paths_start_at_the_root_that_is_named(place, tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "toy").symlink_to(place / "toy")
    (tmp_path / "finetune.yaml").write_text(CONFIG.replace("bars: toy/data/bars", "") + "root: work\n")
    assert finetune(tmp_path / "finetune.yaml") == [tmp_path / "work" / "ckpts" / "number"]
    assert (tmp_path / "work" / "base").is_dir()


def test_an_added_set_may_be_called_base(place, tmp_path):
    (tmp_path / "toy").symlink_to(place / "toy")
    (tmp_path / "finetune.yaml").write_text(CONFIG.replace("number: toy/data/number, bars", "base"))
    assert finetune(tmp_path / "finetune.yaml") == [tmp_path / "ckpts" / "base"]


def test_what_stands_there_already_is_never_overwritten(done):
    path = done[0] / "other.yaml"
    path.write_text(CONFIG.replace("lr: 1.0e-3", "lr: 9.0e-4"))
    with pytest.raises(FinetuneError, match="stands there already"):
        finetune(path)


def test_another_image_under_the_same_name_is_other_data(place, tmp_path):
    shutil.copytree(place / "toy" / "data" / "bars", tmp_path / "bars")
    before = launch._data_digest(tmp_path / "bars")
    assert before == launch._data_digest(place / "toy" / "data" / "bars")
    next((tmp_path / "bars" / "images").iterdir()).write_bytes(b"other")
    launch._data_digest.cache_clear()
    assert launch._data_digest(tmp_path / "bars") != before


def test_missing_data_sets_are_told_before_any_work_all_of_them(place):
    path = place / "wrong.yaml"
    path.write_text(CONFIG.replace("toy/data/number", "gone/a").replace("toy/data/bars", "gone/b"))
    with pytest.raises(FinetuneError) as error:
        finetune(path)
    assert "gone/a" in str(error.value)
    assert "gone/b" in str(error.value)


def test_a_part_to_freeze_that_does_not_exist_is_told_with_those_that_do(done):
    path = done[0] / "freeze.yaml"
    path.write_text(CONFIG.replace("ocr_vit]", "ocr_tower]\nout: elsewhere"))
    with pytest.raises(FinetuneError, match=r"ocr_tower.*general_vit, llm, ocr_vit"):
        finetune(path)
    assert not (done[0] / "elsewhere").exists()


def test_a_failed_job_tells_the_end_of_its_log_and_its_path(done, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("out of luck")

    monkeypatch.setattr("finetune.train.save", broken)
    path = done[0] / "failing.yaml"
    path.write_text(CONFIG + "out: failing\n")
    with pytest.raises(FinetuneError) as error:
        finetune(path)
    assert "RuntimeError: out of luck" in str(error.value)
    log = done[0] / "failing.finetune" / "number" / "log.txt"
    assert str(log) in str(error.value)
    assert "step 4 of 4" in log.read_text()
    assert not (done[0] / "failing").exists()


def test_a_loss_that_is_not_finite_stops_the_job(done):
    path = done[0] / "diverging.yaml"
    path.write_text(CONFIG.replace("lr: 1.0e-3", "lr: 1.0e+30") + "out: diverging\n")
    with pytest.raises(FinetuneError, match="try a lower lr"):
        finetune(path)
    assert not (done[0] / "diverging").exists()


def test_a_start_that_is_no_checkpoint_is_told(done, tmp_path):
    path = done[0] / "start.yaml"
    text = CONFIG[CONFIG.index("added") :]
    path.write_text("start: toy\nout: nowhere\n" + text)
    with pytest.raises(FinetuneError, match="can't be opened"):
        finetune(path)


def test_a_fine_tune_answers_through_transformers_alone(done):
    model = AutoModelForImageTextToText.from_pretrained(done[1][0])
    assert type(model).__name__ == "PointsForConditionalGeneration"
    assert model.generation_config.eos_token_id == model.config.eos_token_id
