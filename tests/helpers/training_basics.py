"""Tiny jobs for the tests of training: rows with one picture, several, and none; models that answer for themselves."""

from __future__ import annotations

import json
import random

import torch
from PIL import Image, ImageDraw

from finetune.config import DataSet, TrainSettings
from finetune.jobs import Job
from finetune.points.model import PointsForConditionalGeneration
from finetune.points.tiny import tiny_config, tiny_processor
from finetune.training.listener import Listener

BASICS = {"lr": 2e-3, "steps": 6, "global_batch_size": 4, "dtype": "float32", "log_to": [], "precision": "float32"}


def tiny_model(seed=0):
    """A fresh POINTS of the smallest size, its last layers of vision unused as in any."""
    processor = tiny_processor()
    tokenizer = processor.tokenizer
    torch.manual_seed(seed)
    ids = (processor.image_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id)
    return PointsForConditionalGeneration(tiny_config(len(tokenizer), *ids)), processor


def write_rows(directory, count=24, pictures=(1, 0, 1, 2)):
    """A data set of LLaVA's form; row i has `pictures[i % len(pictures)]` pictures, and a length of its own."""
    (directory / "images").mkdir(parents=True)
    chance = random.Random(1)
    rows = []
    for i in range(count):
        names = [f"images/{i}-{n}.png" for n in range(pictures[i % len(pictures)])]
        for name in names:
            picture = Image.new("RGB", (32, 32), "white")
            ImageDraw.Draw(picture).rectangle((0, 0, chance.randint(4, 28), 20), fill="blue")
            picture.save(directory / name)
        prompt = "<image>\n" * len(names) + "Say " + "very " * (i % 3) + f"{i}."
        turns = [{"from": "human", "value": prompt}, {"from": "gpt", "value": "yes " * (1 + i % 4) + str(i)}]
        rows.append({"id": str(i), **({"image": names} if names else {}), "conversations": turns})
    (directory / "data.json").write_text(json.dumps(rows))
    return directory


class Notes(Listener):
    """Notes down what a training tells; with `killed_at` it is killed after that step."""

    def __init__(self, killed_at=None):
        self.killed_at = killed_at
        self.steps, self.all_losses, self.all_scores = [], {}, {}

    def step(self, step, steps, loss, pace):
        self.steps.append((step, steps, loss, pace))
        if step == self.killed_at:
            raise KeyboardInterrupt

    def losses(self, step, loss, best):
        self.all_losses[step] = loss

    def scores(self, step, scores):
        self.all_scores[step] = scores


def make_job(root, data, name="job", start="tiny", digest="d", **settings):
    """A job in `root/<name>`, whose ingredient will be `root/out-<name>`."""
    folder = root / name
    sets = tuple(DataSet(path=str(data_set)) for data_set in (data if isinstance(data, list) else [data]))
    job = Job(name, str(start), sets, TrainSettings(**{**BASICS, **settings}), root / f"out-{name}", folder)
    job.write(digest)
    return job
