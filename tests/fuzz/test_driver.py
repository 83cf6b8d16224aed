"""The driver: what it mutates stays near to what readers expect, and what fails is kept, once for each place."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import __main__ as driver
from tests.fuzz.mutation import mutate, mutate_bytes

ROOT = Path(__file__).parents[2]


def mutants(name, data, count=300):
    for seed in range(count):
        dice = random.Random(seed)
        yield mutate(name, data, driver.MOST_BYTES, dice, lambda part, dice=dice: mutate_bytes(part, dice))


def test_most_changed_headers_keep_their_length_and_many_are_json():
    text = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    changed = list(mutants("header", len(text).to_bytes(8, "little") + text + b"\0" * 4))
    whole = [data[8:-4] for data in changed if int.from_bytes(data[:8], "little") == len(data) - 12]
    assert len(set(changed)) > 200
    assert len(whole) > 200
    assert sum(_is_json(data) for data in whole) > 60


def test_a_changed_recipe_is_often_yaml_still_and_never_too_long():
    changed = list(mutants("recipe", b"ingredients:\n- {name: a, path: b}\n"))
    assert all(len(data) <= driver.MOST_BYTES for data in changed)
    assert sum(b"ingredients:" in data for data in changed) > 100


def test_an_input_that_fails_is_kept_with_its_trace_once_for_each_place(tmp_path, monkeypatch):
    monkeypatch.setattr(driver, "FINDINGS", tmp_path)
    (tmp_path / "score").mkdir()

    def broken(name, data, folder):
        if data:
            raise KeyError(data)

    once = driver._keep("score", broken, tmp_path)
    for data in (b"", b"first", b"second"):
        once(data)
    (kept,) = [path for path in (tmp_path / "score").iterdir() if not path.suffix]
    assert kept.read_bytes() == b"first"
    assert "KeyError" in kept.with_suffix(".txt").read_text()


@pytest.mark.parametrize("engine", ["_fuzz_by_hypothesis", pytest.param("_fuzz_by_atheris", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_both_engines_run_a_target(engine, tmp_path):
    if engine == "_fuzz_by_atheris":
        pytest.importorskip("atheris")
    code = f"from pathlib import Path; from tests.fuzz.__main__ import {engine}; {engine}('score', 50, 0, Path('.'))"
    command = [sys.executable, "-c", code]
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "done 50" in done.stdout or "number_of_executed_units: 50" in done.stderr


def _is_json(data):
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True
