"""The pool of LoRA adapters that PEFT trains, souped as the example's README says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.forked_cli import one_threaded_forge

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parents[2] / "examples" / "lora"


def test_adapters_of_peft_are_checked_souped_and_written_as_one(tmp_path, monkeypatch):
    words = [line.split() for line in (EXAMPLE / "README.md").read_text(encoding="utf-8").splitlines()]
    commands = [line[1:] for line in words if line[:1] == ["soup"]]
    assert [command[0] for command in commands] == ["check", "greedy", "average"]
    script = [sys.executable, str(EXAMPLE / "make_adapters.py"), "lora-demo"]
    trained = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout.count(": loss ") == 5
    documents = {}
    with one_threaded_forge(monkeypatch) as forge:
        for command in commands:
            ended = forge(*command, "--json", cwd=tmp_path)
            assert ended.code == 0, ended
            documents[command[0]] = json.loads(ended.stdout)
    overall = {trial["label"]: trial["overall"] for trial in documents["greedy"]["trials"]}
    chosen = documents["greedy"]["chosen"]
    assert "mixture" in chosen
    assert "wrong-labels" not in chosen
    assert max(overall.values()) >= overall["mixture"] > overall["wrong-labels"] + 10
    settings = json.loads((tmp_path / "lora-demo" / "one" / "adapter_config.json").read_text())
    assert settings["r"] == 4 * 8
