"""The demo itself, on a toy family of the smallest size: all of its commands, twice, and what it leaves behind."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from evaluators.vlmeval.benchmarks import BENCHMARKS
from finetune.toy.write import QUESTIONS, Sizes, make_toy

HERE = Path(__file__).parents[3]
DEMO = HERE / "examples" / "toy" / "demo.sh"
ENDS = r"question  .+\nanswer    .*\ntruth     .+\n$"


@pytest.fixture
def place(tmp_path):
    """A folder as seeds.py makes one: data, and a configuration that trains just enough for answers to end."""
    make_toy(tmp_path / "work" / "toy", sizes=Sizes(base=40, added=20, questions=dict.fromkeys(QUESTIONS, 32)))
    config = yaml.safe_load((DEMO.parent / "finetune.yaml").read_text())
    config |= {"root": ".", "steps": 2, "global_batch_size": 8, "added": dict(list(config["added"].items())[:2])}
    config["start"] |= {"steps": 60, "global_batch_size": 32}
    (tmp_path / "work" / "finetune.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return tmp_path / "work"


def demo(place):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(HERE), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(["sh", str(DEMO), str(place)], env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def is_served(port):
    with socket.socket() as line:
        return line.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.slow
def test_the_demo_scores_all_eight_ends_with_an_answer_and_finds_all_of_it_done_the_next_time(place):
    figures = demo(place)
    assert re.search(ENDS, figures)
    assert not is_served(int((place / "judge.port").read_text()))
    journal = place / "ckpts.soup" / "journal.jsonl"
    scored = [json.loads(line) for line in journal.read_text().splitlines()]
    assert {each["benchmark"] for each in scored} == set(BENCHMARKS)
    assert {each["identity"]["judge"]["model"] for each in scored if "judge" in each["identity"]} == {"toy-rule-judge"}
    left = [journal, place / "out" / "recipe.yaml", place / "judge.port"]
    before = [path.read_bytes() for path in left]
    again = demo(place)
    assert [path.read_bytes() for path in left] == before
    tables = [text[text.index("soup report") : text.rindex("$ python ask.py")] for text in (figures, again)]
    assert tables[0] == tables[1]
