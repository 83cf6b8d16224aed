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

from evaluators.vlmeval.benchmarks import BENCHMARKS, GROUP
from finetune.toy.write import QUESTIONS, Sizes, make_toy
from tests.docs.pages import ROOT, blocks

HERE = ROOT
DEMO = HERE / "examples" / "toy" / "demo.sh"
EIGHT = {name for name, benchmark in BENCHMARKS.items() if benchmark.info.group == GROUP}
ENDS = r"question  .+\nanswer    .*\ntruth     .+\n$"


@pytest.fixture
def work(tmp_path):
    """A folder as seeds.py makes one: data, and a configuration that trains just enough for answers to end."""
    make_toy(tmp_path / "work" / "toy", sizes=Sizes(base=40, added=20, questions=dict.fromkeys(QUESTIONS, 32)))
    config = yaml.safe_load((DEMO.parent / "finetune.yaml").read_text())
    config |= {"root": ".", "steps": 2, "global_batch_size": 8, "added": dict(list(config["added"].items())[:2])}
    config["start"] |= {"steps": 60, "global_batch_size": 32}
    (tmp_path / "work" / "finetune.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return tmp_path / "work"


def demo(work):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(HERE), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(["sh", str(DEMO), str(work)], env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, done.stderr


def forms(text):
    """The lines of an output without what differs from run to run: numbers, names of ingredients, folders, space."""
    text = re.sub(r"[-+]?\d[\d.,]*", "0", text).replace(f"{ROOT}/", "")
    text = re.sub(r"\b(?:(?:bars|count|number|shape|word|start)(?:, )?)+\b", "NAME", text)
    return {" ".join(re.sub(r"\S*work/", "work/", line).split()) for line in text.splitlines()}


def is_served(port):
    with socket.socket() as line:
        return line.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.slow
def test_the_demo_scores_all_eight_ends_with_an_answer_and_finds_all_of_it_done_the_next_time(work):
    figures, talk = demo(work)
    assert re.search(ENDS, figures)
    jobs, look = blocks(ROOT / "docs/tutorial.md", "text")[:2]
    assert forms(jobs + look) - forms(figures + talk) == set(), "what the tutorial shows is what is printed"
    assert not is_served(int((work / "judge.port").read_text()))
    journal = work / "ckpts.soup" / "journal.jsonl"
    scored = [json.loads(line) for line in journal.read_text().splitlines()]
    assert {each["benchmark"] for each in scored} == EIGHT
    assert {each["identity"]["judge"]["model"] for each in scored if "judge" in each["identity"]} == {"toy-rule-judge"}
    left = [journal, work / "out" / "recipe.yaml", work / "judge.port"]
    before = [path.read_bytes() for path in left]
    again, _ = demo(work)
    assert [path.read_bytes() for path in left] == before
    tables = [text[text.index("soup report") : text.rindex("$ python ask.py")] for text in (figures, again)]
    assert tables[0] == tables[1]
