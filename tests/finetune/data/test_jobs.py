"""Jobs fed in every way: by worker processes, in packs, from mixtures, past damaged pictures."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from finetune.config import DataSet, Mixture, TrainSettings
from finetune.data.check import check_data
from finetune.jobs import read_stamp
from finetune.training.train import train_job
from finetune.training.trainer import StopRequest
from soup.errors import FinetuneError
from tests.helpers.training_basics import make_job, write_rows


def weights(job):
    assert train_job(job, "d", StopRequest())
    return load_file(job.out / "model.safetensors")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("data") / "rows")


@pytest.mark.slow
def test_worker_processes_train_the_very_same_model(data, tmp_path):
    alone, fed = (weights(make_job(tmp_path, data, f"with{n}", steps=3, workers=n)) for n in (0, 2))
    assert all(torch.equal(alone[name], fed[name]) for name in alone)


def test_a_mixture_is_told_in_the_ingredients_stamp(data, tmp_path):
    groups = {"single_image": 0.5, "several_images": 0.25, "text_only": 0.25}
    job = make_job(tmp_path, data, steps=2, mixture=Mixture(groups=groups))
    sets = (job.data[0], DataSet(path=str(data), weight=0.5, category="more"))
    weights(replace(job, data=sets))
    stamp = read_stamp(job.out)["mixture"]
    assert [reason["rows"] for reason in stamp["data_sets"]] == [24, 24]
    assert stamp["epoch"] == 36
    assert {name: round(of["epoch"]) for name, of in stamp["groups"].items()} == {
        "text_only": 9,
        "single_image": 18,
        "several_images": 9,
    }


def test_packs_are_learnt_and_a_row_that_fits_none_is_told(data, tmp_path):
    job = make_job(tmp_path, data, steps=4, global_batch_size=2, packing=True, max_length=128)
    assert weights(job)
    with pytest.raises(FinetuneError, match="rows over max_length"):
        weights(make_job(tmp_path, data, "short", packing=True, max_length=40))


@pytest.mark.slow
def test_a_picture_damaged_behind_its_header_stops_a_job_by_name_or_costs_its_row(tmp_path):
    root = write_rows(tmp_path / "rows")
    broken = root / "images" / "0-0.png"
    content = broken.read_bytes()
    broken.write_bytes(content[:-30] + b"\xff" * 10 + content[-20:])  # its end is there
    with pytest.raises(FinetuneError, match=r"data\.json, row 1, image 1 \(.*0-0\.png\)"):
        weights(make_job(tmp_path, root, "strict"))
    assert weights(make_job(tmp_path, root, "lenient", on_bad_row="skip"))


def test_the_check_says_what_jobs_would_stumble_over(data, tmp_path):
    rows = json.loads((data / "data.json").read_text())
    rows[3]["image"] = ["gone.png", *rows[3]["image"][1:]]
    path = data / "broken.json"
    path.write_text(json.dumps(rows))
    job = make_job(tmp_path, path)
    with pytest.raises(FinetuneError) as stumbled:
        weights(job)
    report = check_data(job.data, {}, TrainSettings(lr=1, steps=1))
    assert report.sets[0].first[0] in str(stumbled.value)
    assert weights(replace(job, settings=job.settings.model_copy(update={"on_bad_row": "skip"})))
    assert read_stamp(job.out)["mixture"]["skipped"] == 1
    assert read_stamp(job.out)["mixture"]["left_out"] == {str(path): [1, 24]}
