"""docs/own-benchmark.md: the table that its code writes is a benchmark, and its function a score of each question."""

from __future__ import annotations

from PIL import Image

from evaluators.vlmeval.harness import VLMEval
from soup.evaluation.api import Benchmark
from soup.evaluation.settings import EvalSettings
from tests.docs.pages import ROOT, blocks

TABLE, FUNCTION = blocks(ROOT / "docs/own-benchmark.md", "python")


def test_the_table_of_questions_is_a_benchmark_of_two(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LMUData", str(tmp_path / "LMUData"))
    for name in ("cat.png", "two.png"):
        Image.new("RGB", (8, 8)).save(name)
    exec(compile(TABLE, "table.py", "exec"), {})
    assert VLMEval(EvalSettings()).count(Benchmark("mmstar", "vlmeval", "mmstar")) == 2


def test_the_function_gives_the_points_of_each_question():
    names = {"load_questions": list, "ask": lambda checkpoint, questions: {"q1": True, "q2": False}}
    exec(compile(FUNCTION, "mine.py", "exec"), names)
    assert names["score"]("ckpts/a") == {"questions": {"q1": 1.0, "q2": 0.0}}
