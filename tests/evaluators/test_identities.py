"""What a remembered score or answer is found by: these keys stay as they are, or every journal would be asked anew."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from types import SimpleNamespace

import pytest
import torch

import evaluators.command
import evaluators.python
from evaluators.answering.endpoint_judge import EndpointJudge
from evaluators.answering.engines import transformers as transformers_engine
from evaluators.answering.judge_session import JudgeSession
from evaluators.answering.prompts import image_backend
from evaluators.answering.response_cache import ResponseCache, cached_answers
from evaluators.lm_eval.harness import LMEval
from evaluators.vlmeval.benchmarks import BENCHMARKS
from evaluators.vlmeval.harness import VLMEval
from evaluators.vlmeval_version import version
from soup.evaluation.api import Benchmark, Score
from soup.evaluation.config import EvalConfig
from soup.evaluation.settings import EvalSettings
from soup.evaluation.suite import BenchmarkSuite, SuiteEntry
from soup.search.result import card_scores
from tests.helpers.toy_test_sets import TOYS, write_tsv

MODEL = "class Mine:\n    def answer(self, prompts):\n        return ['yes' for _ in prompts]\n"
DIGEST = "94c4b6558a61efa8bd29dfebea4221043800bc9ca5468fc243dbb8f6d5e7770f"  # of that text
JUDGE = {"url": "judges.example:8000/v1", "model": "a-judge", "prompts": "VLMEvalKit's"}
VLMEVAL = {
    "mmbench": {"dataset": "MMBench_DEV_EN", "metric": "Overall x 100, circular evaluation"},
    "mmstar": {"dataset": "MMStar", "metric": "Overall x 100"},
    "mmmu": {"dataset": "MMMU_DEV_VAL", "metric": "Overall x 100"},
    "mathvista": {"dataset": "MathVista_MINI", "metric": "acc of Overall", "judge": JUDGE},
    "hallusionbench": {"dataset": "HallusionBench", "metric": "mean of aAcc, fAcc and qAcc"},
    "ai2d": {"dataset": "AI2D_TEST", "metric": "Overall x 100"},
    "ocrbench": {"dataset": "OCRBench", "metric": "Final Score per 100 questions"},
    "mmvet": {"dataset": "MMVet", "metric": "acc of Overall", "judge": JUDGE},
}
TASK = """\
task: toy
dataset_path: json
dataset_kwargs: {data_files: {test: rows.jsonl}}
output_type: multiple_choice
test_split: test
fewshot_split: test
num_fewshot: 1
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
doc_to_choice: "{{choices}}"
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
metadata: {version: 1.5}
"""


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MODEL)
    judge = {"judge_url": "http://judges.example:8000/v1", "judge_model": "a-judge"}
    return EvalSettings(model="mine.py:Mine", **judge)


@pytest.mark.parametrize("name", VLMEVAL)
def test_the_identity_of_each_of_vlmevalkits_benchmarks(name, settings, tmp_path, monkeypatch):
    monkeypatch.setenv("LMUData", str(tmp_path))
    rows = write_tsv(tmp_path / f"{VLMEVAL[name]['dataset']}.tsv", TOYS[name]())
    assert VLMEval(settings).identity(Benchmark(name, "vlmeval", name)) == {
        "evaluator": "vlmeval",
        "version": version(),
        "data": hashlib.sha256(rows.read_bytes()).hexdigest(),
        "prompt": "the data set's",
        "answering": {"model": "mine.py:Mine", "digest": DIGEST},
        **VLMEVAL[name],
    }


def test_the_identity_of_a_task_of_lm_eval(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "toy.yaml").write_text(TASK)
    row = {"question": "What is 1 and 2?", "choices": ["2", "3"], "answer": 1}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert LMEval(EvalSettings()).identity(Benchmark("lm_eval:toy@.", "lm_eval", "toy@.")) == {
        "evaluator": "lm_eval",
        "version": importlib.metadata.version("lm-eval"),
        "task": "toy",
        "tasks": {"toy": {"version": "1.5", "examples": 1}},
        "metric": "acc",
        "prompt": "the task's, without a chat template",
        "data": "c1c4019f30630852adf97718fbbfa6b1cff4f7484e98b37ace4e506abf4d0c7b",
        "code": "ed6bd0e8cd5a1614758d7970b400248a1056a187e8f470a9870d8abdc51deacf",
        "answering": {
            "model": "auto",
            "transformers": importlib.metadata.version("transformers"),
            "decoding": "greedy",
            "dtype": "the checkpoint's",
            "max_new_tokens": 2048,
            "device": device,
            "images": image_backend(),
            "trust_remote_code": False,
        },
    }


def test_the_identity_of_a_function(settings):
    judge = evaluators.python.PythonFunction(settings)
    assert judge.identity(Benchmark("python:mine.py:Mine", "python", "mine.py:Mine")) == {
        "evaluator": "python",
        "function": "mine.py:Mine",
        "code": DIGEST,
    }


def test_the_identity_of_a_command(settings):
    judge = evaluators.command.Command(settings)
    assert judge.identity(Benchmark("command:eval {checkpoint}", "command", "eval {checkpoint}")) == {
        "evaluator": "command",
        "command": "eval {checkpoint}",
    }


def test_the_keys_of_answers(tmp_path):
    remembered = ResponseCache(tmp_path / "answers.jsonl")
    image = {"type": "image", "value": str(tmp_path / "0123abcd.png")}
    prompts = [[image, {"type": "text", "value": "What?"}], [{"type": "text", "value": "Why?"}]]
    engine = ["a digest", {"model": "auto"}]
    cached_answers(remembered, engine, prompts, lambda prompts, hear: hear(prompts, ["a", "b"]) or ["a", "b"])
    assert (tmp_path / "answers.jsonl").read_text().splitlines() == [
        '{"key": "94c88737cc972d866fd7a8bec0fd4338", "text": "a"}',
        '{"key": "f0e445d4ed1847a66a7e3a04b2ca40ff", "text": "b"}',
    ]


def test_the_key_of_a_judges_reply(tmp_path, monkeypatch):
    judge = EndpointJudge("http://judges.example:8000/v1", "a-judge", "NO_KEY")
    monkeypatch.setattr(judge, "ask", lambda *_: "0.5")
    session = JudgeSession(judge, ResponseCache(tmp_path / "mmvet.jsonl"), "mmvet", BENCHMARKS["mmvet"].judge_tokens)
    assert session.generate("How right is it?", temperature=0.5) == "0.5"
    assert (tmp_path / "mmvet.jsonl").read_text() == '{"key": "0ac675c6610e43fc1f61f0c293901846", "text": "0.5"}\n'


@pytest.mark.parametrize(("device", "is_said"), [("cpu", False), ("cuda", True)])
def test_where_batches_are_left_to_chance_on_a_gpu_a_score_s_key_and_the_card_say_so(monkeypatch, device, is_said):
    monkeypatch.setattr(transformers_engine, "torch_device", lambda: device)
    alone, dealt = (EvalConfig("a", workers=workers).settings for workers in (0, 2))
    facts = {"batches": "as workers were free"} if is_said else {}
    assert transformers_engine.identity(dealt) == {**transformers_engine.identity(alone), **facts}
    benchmark = Benchmark("mine", "vlmeval", "mine")
    suite = BenchmarkSuite((SuiteEntry(benchmark, None, {"answering": transformers_engine.identity(dealt)}),))
    trial = SimpleNamespace(scores={"mine": Score(50.0)}, report={}, part="all", overall=50.0, report_overall=None)
    note = "mine (batches as workers were free: a rerun may differ in a few answers)"
    assert list(card_scores(trial, suite.notes)) == [note if is_said else "mine", "overall"]
