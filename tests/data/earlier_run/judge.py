"""Scores a checkpoint by its weights alone: a benchmark of one number, and one of two parts with questions' points."""

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file


def distance(checkpoint):
    weights = {}
    for file in sorted(Path(checkpoint).glob("*.safetensors")):
        weights |= load_file(file)
    return float(np.abs(weights["head"] - np.float32([1, 2, 3, 4])).mean())


def score(checkpoint):
    return 100 - distance(checkpoint)


def two(checkpoint):
    return {"reading": 80 - distance(checkpoint), "counting": 60 - 2 * distance(checkpoint)}
