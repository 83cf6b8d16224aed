"""Pools so small that a search over them takes milliseconds, and a judge that tells how often it was asked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

TOKENIZER = {"model": {"vocab": {"a": 0, "b": 1}, "merges": []}, "added_tokens": [{"id": 2, "content": "</s>"}]}

# It scores a checkpoint by its weights alone: 100 less the distance of `head` from a target, question by question.
# One line per call goes into calls.txt beside it. What is in its `mood` file makes it fail in one way or another.
JUDGE = """
import math
import os
import signal
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

HERE = Path(__file__).parent


def weights(checkpoint):
    found = {}
    for file in sorted(Path(checkpoint).glob("*.safetensors")):
        found |= load_file(file)
    return found


def note(checkpoint, kind):
    with (HERE / "calls.txt").open("a") as calls:
        calls.write(kind + " " + weights(checkpoint)["head"].tobytes().hex() + "\\n")


def score(checkpoint):
    note(checkpoint, "score")
    misbehave()
    return 100 - float(np.abs(weights(checkpoint)["head"] - np.float32([1, 2, 3, 4])).mean())


def other(checkpoint):
    note(checkpoint, "other")
    return 50 + float(weights(checkpoint)["head"].mean())


def misbehave():
    try:
        mood = (HERE / "mood").read_text()
    except FileNotFoundError:  # none, or another worker has taken it away
        return None
    calls = len((HERE / "calls.txt").read_text().splitlines())
    at, what = mood.split(" ", 1)
    if calls >= int(at):
        exec(what)


def chatty(checkpoint):
    print("I am thinking aloud")
    return score(checkpoint)


def nan(checkpoint):
    return math.nan


def text(checkpoint):
    return "good"


def nothing(checkpoint):
    return None


def huge(checkpoint):
    return 10**400


def beyond(checkpoint):
    return 100.5


def below(checkpoint):
    return -1


def true(checkpoint):
    return True


def explode(checkpoint):
    raise ValueError("the judge is ill")


def leave(checkpoint):
    raise SystemExit(0)


def sleep(checkpoint):
    time.sleep(600)


def doze(checkpoint):
    note(checkpoint, "doze")
    time.sleep(600)


def spin(checkpoint):
    while True:
        pass


def deaf(checkpoint):
    while True:
        try:
            time.sleep(600)
        except Exception:
            pass


def two(checkpoint):
    return {"reading": 40, "counting": 60}
"""


def make_checkpoint(path, seed=0, *, head=None, tensors=None, config=None, tokenizer=TOKENIZER, shards=1):
    """A checkpoint of four tensors: a frozen tower that is the same for every seed, and three that are not."""
    path = Path(path)
    path.mkdir(parents=True)
    if tensors is None:
        random = np.random.default_rng(seed)
        tensors = {
            "vision.tower": np.arange(12, dtype=np.float16).reshape(3, 4),
            "language.0": random.normal(size=(5, 7)).astype(np.float32),
            "language.1": random.normal(size=300_000).astype(np.float32),
            "head": np.float32(head) if head is not None else random.normal(size=4).astype(np.float32),
        }
    if shards == 1:
        save_file(tensors, path / "model.safetensors", {"format": "pt"})
    else:
        _save_shards(path, tensors, shards)
    config = {"model_type": "toy", "architectures": ["Toy"], "dtype": "float32"} if config is None else config
    (path / "config.json").write_text(json.dumps(config))
    if tokenizer is not None:
        (path / "tokenizer.json").write_text(json.dumps(tokenizer))
    return path


def _save_shards(path, tensors, shards):
    names = list(tensors)
    weight_map = {}
    for i in range(shards):
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: tensors[name] for name in names[i::shards]}
        save_file(part, path / file, {"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def make_pool(folder, heads=None, **common):
    """Ingredients a, b, c, ...; greedy starts with b, admits c, and refuses d and a."""
    heads = heads or {"a": [9, 9, 9, 9], "b": [1, 2, 3, 6], "c": [1, 2, 3, 1.5], "d": [1, 2, 6, 4.2]}
    for seed, (name, head) in enumerate(heads.items(), start=1):
        make_checkpoint(Path(folder) / name, seed, head=head, **common)
    return Path(folder)


def make_judge(folder):
    """A judge in a file; `python:FILE:score` is a benchmark."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "judge.py").write_text(JUDGE)
    return folder / "judge.py"


def calls(judge):
    """What the judge was asked so far, one entry a call: the function, and the head that it saw."""
    log = Path(judge).with_name("calls.txt")
    return log.read_text().splitlines() if log.exists() else []


def tree(folder):
    """Every file below a folder with its bytes; hidden ones too."""
    folder = Path(folder)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def debris(folder, run="ckpts.soup"):
    """What no run may leave behind once it has ended by itself or was interrupted."""
    kept = {"journal.jsonl", "digests.json", "logs", "soups"}
    hidden = [path for path in Path(folder).rglob("*") if path.name.startswith(".")]
    hidden += [path for path in Path(folder, run).glob("[!.]*") if path.name not in kept]
    return sorted(path.relative_to(folder).as_posix() for path in hidden)
