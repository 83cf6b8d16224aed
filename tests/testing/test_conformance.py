"""The suites for plug-in authors: what ships passes them, and what breaks a promise does not."""

from __future__ import annotations

import dataclasses
import json
import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from evaluators.command import Command
from evaluators.python import PythonFunction
from evaluators.vlmeval.harness import VLMEval
from soup import average, greedy, maximum
from soup.checkpoints.reader import Checkpoint
from soup.errors import EvaluatorError, RecipeError
from soup.evaluation.api import Benchmark, Score
from soup.evaluation.settings import EvalSettings
from soup.merging.kernel_library import has_kernels
from soup.merging.methods import Method
from soup.merging.methods.task_arithmetic import TaskArithmetic
from soup.search.strategies import Budget, Choice, budget
from soup.support.plugins import METHODS, STRATEGIES
from soup.testing import (
    TINY_SHAPES,
    check_evaluator,
    check_method,
    check_strategy,
    tiny_candidate,
    tiny_checkpoint,
    tiny_pool,
    tiny_tensor,
)
from tests.helpers.merge_oracle import read_back
from tests.helpers.scripted_models import SCRIPTED, scripted
from tests.helpers.toy_test_sets import mmbench_rows, ocrbench_rows, write_tsv

# --- what ships -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS.shipped)
def test_every_method_that_ships_keeps_its_promises(name):
    check_method(METHODS.get(name)())


@pytest.mark.parametrize("name", STRATEGIES.shipped)
def test_every_strategy_that_ships_keeps_its_promises(name):
    check_strategy(STRATEGIES.get(name))


def test_strategies_keep_them_with_their_options_too():
    check_strategy(greedy, accept="gt")
    check_strategy(maximum, top_k=1)


JUDGE = """
from pathlib import Path

def size(checkpoint):
    return Path(checkpoint, "model.safetensors").stat().st_size % 101

def several(checkpoint):
    return {"one": 10.0, "two": 30.0}

def broken(checkpoint):
    raise ZeroDivisionError
"""


@pytest.fixture
def candidate(tmp_path):
    with tiny_candidate(tiny_checkpoint(tmp_path / "model"), tmp_path / "scratch") as candidate:
        yield candidate


def benchmark_of(tmp_path, function):
    (tmp_path / "judge.py").write_text(JUDGE)
    target = f"{tmp_path}/judge.py:{function}"
    return Benchmark(f"python:{target}", "python", target)


@pytest.mark.parametrize(("function", "parts"), [("size", 0), ("several", 2)])
def test_python_functions_keep_their_promises(tmp_path, candidate, function, parts):
    assert len(check_evaluator(PythonFunction, benchmark_of(tmp_path, function), candidate).parts) == parts


def test_commands_keep_their_promises(candidate):
    target = 'echo 61.8 "{checkpoint}" | cut -c1-4'
    assert check_evaluator(Command, Benchmark("command:x", "command", target), candidate).value == 61.8


@pytest.mark.parametrize("name", ["mmbench", "ocrbench"])
def test_vlmeval_keeps_its_promises(tmp_path, monkeypatch, name):
    rows = {"mmbench": mmbench_rows(12), "ocrbench": ocrbench_rows(12)}[name]
    file = {"mmbench": "MMBench_DEV_EN.tsv", "ocrbench": "OCRBench.tsv"}[name]
    write_tsv(tmp_path / "LMUData" / file, rows)
    monkeypatch.setenv("LMUData", str(tmp_path / "LMUData"))
    (tmp_path / "model.py").write_text(SCRIPTED)
    good = scripted(tmp_path, {row["index"]: "A" for row in rows}, "good")
    dumb = scripted(tmp_path, {}, "without answers")
    settings = EvalSettings(model=f"{tmp_path}/model.py:Scripted")
    score = check_evaluator(VLMEval, Benchmark(name, "vlmeval", name), good, settings=settings, failing=dumb)
    assert score.n == 12


# --- what breaks a promise is caught ----------------------------------------------------------------------------------


def frozen(call, **members):
    """A method of one function."""
    return dataclasses.dataclass(frozen=True)(type("Broken", (Method,), {"__call__": call, **members}))()


def first_plus_noise(self, block):
    return block[0] + torch.rand(block[0].shape) * 1e-3


def in_place(self, block):
    block.raw[0].mul_(2)
    return block[0]


def over_the_slice(self, block):
    return sum(block[1:], block[0]) / len(block) + block[0].mean() * 1e-12


def without_nan(self, block):
    return torch.nan_to_num(sum(block[1:], block[0]) / len(block))


def stopped_by_nan(self, block):
    mean = sum(block[1:], block[0]) / len(block)
    return mean.mul_(mean.sum().item() * 0 == 0 or 1 / 0)


def not_the_mean(self, block):
    return sum(block[1:], block[0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (first_plus_noise, "second call gave other bits"),
        (in_place, "changed its inputs"),
        (over_the_slice, 'say granularity = "tensor"'),
        (not_the_mean, "gave another tensor"),
        (without_nan, "NaN in one is gone from the result"),
        (stopped_by_nan, "NaN in one raised ZeroDivisionError"),
        (lambda self, block: block[0].sum(), "found shape"),
        (lambda self, block: block[0].double().float().half(), "expected torch.float32, found torch.float16"),
        (lambda self, block: block[0] / 0, "NaN or infinity from finite inputs"),
        (lambda self, block: None, "expected a tensor, found NoneType"),
    ],
)
def test_a_method_that_breaks_a_promise_is_caught(call, message):
    with pytest.raises(AssertionError, match=message):
        check_method(frozen(call))


def test_a_method_that_claims_to_keep_equal_bits_and_does_not_is_caught():
    with pytest.raises(AssertionError, match=r"keeps_equal\(\) says that there are none"):
        check_method(frozen(lambda self, block: block[0] * (1 + 2**-11.6), keeps_equal=lambda self, weights: True))


def test_a_method_must_be_a_frozen_dataclass_that_takes_some_weights():
    @dataclass
    class Thawed(Method):
        def __call__(self, block):
            return block[0]

    class Plain(Method):
        def __call__(self, block):
            return block[0]

    def refuse(self, weights):
        raise RecipeError("no")

    with pytest.raises(AssertionError, match="must be frozen"):
        check_method(Thawed())
    with pytest.raises(AssertionError, match="whose fields are the method's parameters"):
        check_method(Plain())
    with pytest.raises(AssertionError, match="refused all weights"):
        check_method(frozen(lambda self, block: block[0], check=refuse))


def test_a_method_of_whole_tensors_with_a_base_can_pass():
    @dataclass(frozen=True)
    class Arithmetic(Method):
        granularity: ClassVar = "tensor"
        needs_base: ClassVar = True

        def __call__(self, block):
            return block.base + sum(values - block.base for values in block) / len(block)

    check_method(Arithmetic())


def refuses_all(pool, score):
    raise RecipeError("never")


def strategies_that_break_a_promise():
    chance = random.Random(0)
    yield lambda pool, score: [], "nothing"
    yield lambda pool, score: None, "expected ingredients, or a weight for each"
    yield lambda pool, score: "model-0", "expected a list of ingredients"
    yield lambda pool, score: ["model-9"], "no ingredient 'model-9'"
    yield lambda pool, score: [pool[0], pool[0]], "each once"
    yield lambda pool, score: [max(pool, key=lambda part: score([part, "gumbo"]).overall)], "no ingredient 'gumbo'"
    yield lambda pool, score: dict.fromkeys(pool.names, 0.0), "not all 0"
    yield lambda pool, score: dict.fromkeys(pool.names, math.nan), "finite"
    yield lambda pool, score: chance.sample(list(pool), len(pool)), "the same scores led to"
    yield lambda pool, score: Choice([pool[0]], params={"scale": chance.random()}), "the same scores led to"
    yield (
        budget(lambda count: Budget(0, 1))(
            lambda pool, score: max([[p] for p in pool], key=lambda s: score(s).overall)
        ),
        "its budget said",
    )
    yield refuses_all, "refused all pools.*: never"


@pytest.mark.parametrize(("strategy", "message"), list(strategies_that_break_a_promise()))
def test_a_strategy_that_breaks_a_promise_is_caught(strategy, message):
    with pytest.raises(AssertionError, match=message):
        check_strategy(strategy)


def test_strategies_may_answer_with_names_or_with_weights():
    check_strategy(lambda pool, score: [pool.names[-1]])
    check_strategy(lambda pool, score: {part: 1 + score([part]).overall for part in pool})
    check_strategy(lambda pool, score: average(list(pool), score))


@dataclass
class Judge:
    """An evaluator whose every promise can be broken."""

    settings: EvalSettings
    identities: object = None
    scores: object = None
    fail: str | None = None
    splits: bool = True

    def identity(self, benchmark):
        if not self.splits and benchmark.split.part != "all":
            raise EvaluatorError("can't be split")
        return next(self.identities) if self.identities else {"evaluator": "judge", "version": 1}

    def evaluate(self, candidate, benchmark):
        if "broken" in str(candidate.template):
            if self.fail:
                raise EvaluatorError(self.fail)
            return Score(0.0)
        if self.scores:
            return next(self.scores)
        questions = {str(i): float(i % 2) for i in range(20) if benchmark.split.holds(str(i))}
        return Score(100 * sum(questions.values()) / len(questions), len(questions), questions)


class Teacher(Judge):
    """One that says that it gives likelihoods, too."""

    def why_no_likelihood(self, benchmark):
        return None


MINE = Benchmark("mine:task", "mine", "task")


def judge(**broken):
    return lambda settings: Judge(settings, **broken)


def test_a_likelihood_without_an_identity_of_its_own_is_caught(candidate):
    with pytest.raises(AssertionError, match="a likelihood would be remembered as the score"):
        check_evaluator(Teacher, MINE, candidate)


def test_an_evaluator_that_keeps_its_promises_passes(tmp_path, candidate):
    with tiny_candidate(tiny_checkpoint(tmp_path / "broken"), tmp_path / "more") as failing:
        assert check_evaluator(judge(fail="no answer"), MINE, candidate, failing=failing).n == 20
        check_evaluator(judge(splits=False), MINE, candidate)
        with pytest.raises(AssertionError, match="was given a score"):
            check_evaluator(judge(), MINE, candidate, failing=failing)
        with pytest.raises(AssertionError, match="says nothing"):
            check_evaluator(judge(fail=" "), MINE, candidate, failing=failing)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda: judge(identities=iter([{"a": 1}, {"a": 2}])), "two identities"),
        (lambda: judge(identities=iter([{"a": Path()}])), "no JSON"),
        (lambda: judge(identities=iter([{"a": math.nan}])), "no JSON"),
        (lambda: judge(identities=iter([{1: "a"}])), "does not come back from JSON"),
        (lambda: judge(scores=iter([61.8])), "expected a soup.evaluation.Score, found 61.8"),
        (lambda: judge(scores=iter([Score(61.8), Score(61.9)])), "another score the second time"),
        (lambda: judge(scores=iter([Score(61.8, 0)])), "over 0 questions"),
        (lambda: judge(scores=iter([Score(50.0, 1, {"a": 50.0})])), "points are 0 to 1"),
        (lambda: judge(scores=iter([Score(50.0, parts={"a": 1.0})])), "must be the parts' mean"),
        (lambda: judge(scores=iter([Score(50.0, 9)] * 5)), "halves of 9 and 9 questions out of 9"),
        (lambda: judge(scores=iter([Score(50.0, None, {"0": 0.5})] * 5)), "questions of the other half"),
        (lambda: lambda settings: object(), "no identity"),
    ],
)
def test_an_evaluator_that_breaks_a_promise_is_caught(candidate, broken, message):
    with pytest.raises(AssertionError, match=message):
        check_evaluator(broken(), MINE, candidate)


# --- tiny checkpoints -------------------------------------------------------------------------------------------------


def test_tiny_tensors_are_the_same_on_every_machine():
    values = tiny_tensor("w", (3,), dtype="float32")
    assert values.tolist() == [-0.008971691131591797, -0.024252891540527344, -0.005303382873535156]
    many = tiny_tensor("w", (100_000,), dtype="float64")
    assert abs(many.mean()) < 1e-3
    assert 0.015 < many.std() < 0.02
    assert not torch.equal(tiny_tensor("w", (9,)), tiny_tensor("w", (9,), seed=1))
    assert not torch.equal(tiny_tensor("w", (9,)), tiny_tensor("v", (9,)))
    assert tiny_tensor("w", (2, 0)).shape == (2, 0)


def test_tiny_checkpoints_are_what_they_are_asked_to_be(tmp_path):
    path = tiny_checkpoint(tmp_path / "a", dtype="float32", shards=3, config={"hidden_size": 16})
    checkpoint = Checkpoint(path)
    assert checkpoint.tensors.keys() == TINY_SHAPES.keys()
    assert {spec.dtype.name for spec in checkpoint.tensors.values()} == {"float32"}
    assert len(checkpoint.files) == 3
    assert json.loads((path / "config.json").read_text())["hidden_size"] == 16
    shaped = tiny_checkpoint(tmp_path / "b", tensors={"shape": (2, 3), "values": torch.arange(4)}, tokenizer=False)
    assert read_back(shaped)["values"].tolist() == [0, 1, 2, 3]
    assert read_back(shaped)["shape"].shape == (2, 3)
    assert not (shaped / "tokenizer.json").exists()


def test_the_tiny_tokenizer_is_one(tmp_path):
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(tiny_checkpoint(tmp_path / "a") / "tokenizer.json"))
    assert tokenizer.decode(tokenizer("what is it ?")["input_ids"]) == "what is it ?"


def test_a_tiny_pool_holds_different_models(tmp_path):
    folder = tiny_pool(tmp_path / "pool", 3, shards=2)
    states = [read_back(path) for path in sorted(folder.iterdir())]
    assert [path.name for path in sorted(folder.iterdir())] == ["model-0", "model-1", "model-2"]
    assert not torch.equal(states[0]["lm_head.weight"], states[1]["lm_head.weight"])


def test_the_package_s_suites_need_no_pytest():
    for source in (Path(__file__).parents[2] / "soup/testing").glob("*.py"):
        assert "import pytest" not in source.read_text()


@pytest.mark.skipif(not has_kernels(), reason="installed where there was no C compiler")
def test_a_method_whose_arithmetic_is_not_its_call_is_told():
    @dataclass(frozen=True)
    class Half(TaskArithmetic):
        scale: float = 0.5

        def arithmetic(self, tensor):
            return dataclasses.replace(super().arithmetic(tensor), scale=0.25)

    with pytest.raises(AssertionError, match=r"Half: .* the compiled pass of `arithmetic` gives other bytes"):
        check_method(Half())
