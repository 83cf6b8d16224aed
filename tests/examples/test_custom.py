"""Each file of examples/custom runs through the command line as its first lines say, and does what it says."""

from __future__ import annotations

import base64
import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from soup.demo.family import write_family
from soup.demo.pictures import ANSWERS, draw_pictures, png_file
from soup.support.plugins import load_object
from soup.testing import check_method, check_strategy
from tests.helpers.forked_cli import one_threaded_forge
from tests.helpers.toy_test_sets import ocrbench_rows, write_tsv

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder as the first lines of the examples expect it."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "examples").symlink_to(EXAMPLES)
    write_family(folder / "soup-demo" / "base", folder / "soup-demo" / "ckpts")
    return folder


@pytest.fixture(scope="module")
def run(here):
    """The command line in that folder; it gives what `--json` prints."""
    with pytest.MonkeyPatch.context() as patch, one_threaded_forge(patch) as forge:

        def run_words(*words, **environment):
            ended = forge(*words, "--json", cwd=here, env=environment)
            assert ended.code == 0, ended
            return json.loads(ended.stdout)

        yield run_words


def command_of(name):
    """The words after `soup` of the command in the first lines of an example."""
    text = (EXAMPLES / "custom" / name).read_text(encoding="utf-8")
    return shlex.split(re.search(r"^soup (.+?)\n(?=\n|\"\"\")", text, re.DOTALL | re.MULTILINE)[1].replace("\\\n", ""))


def test_the_strategy_takes_what_is_near_the_best(run, here):
    made = run(*command_of("strategy.py"))
    overall = {trial["label"]: trial["overall"] for trial in made["trials"] if trial["single"]}
    assert made["chosen"] == [name for name, value in overall.items() if value >= max(overall.values()) - 15]
    assert 1 < len(made["chosen"]) < len(overall) == 5
    strategy = load_object(f"{EXAMPLES}/custom/strategy.py:near_the_best", "strategy", ValueError)
    check_strategy(strategy)


def test_the_method_is_the_median(run, here):
    run(*command_of("method.py"))
    soup = load_file(here / "soup-demo" / "median" / "model.safetensors")
    states = [load_file(path / "model.safetensors") for path in sorted((here / "soup-demo" / "ckpts").iterdir())]
    for name, tensor in soup.items():
        assert torch.equal(tensor, torch.stack([state[name] for state in states]).median(dim=0).values), name
    check_method(load_object(f"{EXAMPLES}/custom/method.py:Median", "method", ValueError)())


def test_the_evaluator_asks_transformers_what_the_demo_s_own_asks_without(run, here):
    words = command_of("evaluator.py")
    assert words[:3] == ["greedy", "--pool", "soup-demo/ckpts"]
    (trial,) = run("eval", "soup-demo/ckpts/colours", *words[3:5], "--run-dir", "asked.soup")["trials"]
    points = json.loads((here / "asked.soup" / "journal.jsonl").read_text())["questions"]
    assert trial["scores"][words[4]]["n"] == len(points) == 60
    colours = [points[str(index)] for index in range(0, 60, 3)]
    assert sum(colours) >= 16  # what this fine-tune learnt; four answers to each


@pytest.mark.slow
def test_the_engine_gives_the_answers_of_soup_s_own(run, here):
    pixels, right = draw_pictures(12, seed=5)
    rows = ocrbench_rows(12)
    for row, picture, label in zip(rows, pixels, right["colour"], strict=True):
        answer = repr([ANSWERS["colour"][int(label)]])
        row |= {"image": base64.b64encode(png_file(picture)).decode(), "question": "what colour ?", "answer": answer}
    write_tsv(here / "LMUData" / "OCRBench.tsv", rows)
    words = command_of("engine.py")
    engine = words[words.index("--engine") :]
    command = ["eval", "soup-demo/ckpts/colours", "soup-demo/ckpts/shapes", "--eval", "ocrbench"]
    scores = {}
    for name, chosen in (("mine", engine), ("ours", ["--engine", "transformers"])):
        trials = run(*command, *chosen, "--run-dir", f"{name}.soup", LMUData=str(here / "LMUData"))["trials"]
        scores[name] = [trial["overall"] for trial in trials]
    assert scores["mine"] == scores["ours"]
    assert scores["mine"][0] > scores["mine"][1]  # the engine swapped the other one in


def test_the_engine_passes_its_suite_as_the_page_runs_it(here, tmp_path, monkeypatch):
    page = (EXAMPLES.parent / "docs" / "custom.md").read_text(encoding="utf-8")
    (code,) = (block for block in re.findall(r"^```python\n(.+?)^```$", page, re.S | re.M) if "check_engine" in block)
    engine = load_object(f"{EXAMPLES}/custom/engine.py:OneByOne", "engine", ValueError)
    names = {"__name__": "mine", "OneByOne": engine}
    exec(compile(code, "mine.py", "exec", dont_inherit=True), names)
    monkeypatch.chdir(here)
    names["test_my_engine"](tmp_path)
    monkeypatch.setattr(engine, "swap", lambda self, candidate: None)
    with pytest.raises(AssertionError, match="other answers after a swap than after opening"):
        names["test_my_engine"](tmp_path)
