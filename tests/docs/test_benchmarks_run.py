"""Benchmarks run, in small: what they call is soup's own inside, which no promise keeps as it is."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.docs.pages import ROOT

QUICK = [
    "disputed.py simulated --count 1 --forgotten 0 --basin 0.05",
    "speculation.py --pools 2 --workers 2 --k 7",
    "strategies.py tables --count 2",
]
WITH_WEIGHTS = [
    "check.py --gigabytes 0.02 --repeats 1",
    "durability.py --gigabytes 0.01 --repeats 1",
    "harness.py --rows 4 --repeats 1",
    "loader.py --images 60 --rounds 1",
    "lora.py --gigabytes 0.02 --repeats 1",
    "merge.py --gigabytes 0.02 --repeats 1",
    "methods.py --gigabytes 0.02 --repeats 1 --methods dare,ties",
    "swap.py --gigabytes 0.3 --models 2 --repeats 1",
]


@pytest.mark.parametrize(
    "command", [*QUICK, *(pytest.param(command, marks=pytest.mark.slow) for command in WITH_WEIGHTS)]
)
def test_a_benchmark_prints_its_table(command):
    name, *arguments = command.split()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / name), *arguments], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "| --" in done.stdout
