"""The engine of a search: opened once, swapped, closed and opened again where a swap can't be, and never half."""

from __future__ import annotations

import json
import logging

import pytest

from evaluators.answering.hot_swap import HotSwap
from evaluators.answering.session import EngineSession, shared_session
from evaluators.lm_eval.harness import LMEval
from soup.errors import EvaluatorError
from soup.evaluation.api import Benchmark
from soup.evaluation.settings import EvalSettings
from soup.support.plugins import ENGINES
from soup.testing import FakeEngine
from tests.helpers.scripted_models import ToyCandidate

PROMPTS = [[{"type": "text", "value": "Why?"}]]


@pytest.fixture
def fake(monkeypatch):
    engine = FakeEngine()
    monkeypatch.setitem(ENGINES.registered, "fake", lambda settings, *, speed=1, colour="red": engine)
    return engine


@pytest.fixture
def session(fake):
    return EngineSession(EvalSettings(engine="fake"))


def candidate(tmp_path, digest, config="{}"):
    path = tmp_path / digest
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(config)
    return ToyCandidate(path, tmp_path, digest)


def ask(session, soup):
    return session.answer(soup, PROMPTS, lambda *_: None)


def test_a_candidate_is_put_in_once_and_the_next_one_swapped_in(fake, session, tmp_path):
    a, b = candidate(tmp_path, "a"), candidate(tmp_path, "b")
    assert [ask(session, soup) for soup in (a, a, b)] == [["a: Why?"], ["a: Why?"], ["b: Why?"]]
    assert fake.calls == ["open a", "answer 1", "answer 1", "swap b", "answer 1"]


def test_other_files_around_the_weights_open_the_engine_anew(fake, session, tmp_path):
    ask(session, candidate(tmp_path, "a"))
    ask(session, candidate(tmp_path, "b", config='{"other": true}'))
    assert fake.calls == ["open a", "answer 1", "close", "open b", "answer 1"]


def test_after_a_failed_swap_the_engine_is_opened_on_the_candidate(fake, session, tmp_path, caplog):
    ask(session, candidate(tmp_path, "a"))
    fake.fails = ["swap"]
    with caplog.at_level(logging.WARNING):
        assert ask(session, candidate(tmp_path, "b")) == ["b: Why?"]
    assert fake.calls == ["open a", "answer 1", "swap b", "close", "open b", "answer 1"]
    assert "opened anew" in caplog.text


def test_an_engine_that_can_t_be_opened_holds_nobody(fake, session, tmp_path):
    a, b = candidate(tmp_path, "a"), candidate(tmp_path, "b")
    ask(session, a)
    fake.fails = ["swap", "open"]
    with pytest.raises(EvaluatorError, match="open: fails"):
        ask(session, b)
    assert ask(session, a) == ["a: Why?"]
    assert fake.calls[-2:] == ["open a", "answer 1"]


def test_an_interrupt_in_a_swap_leaves_nothing_that_could_answer(fake, session, tmp_path, monkeypatch):
    a, b = candidate(tmp_path, "a"), candidate(tmp_path, "b")
    ask(session, a)

    def interrupted(soup):
        fake._digest = "half of b"
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fake, "swap", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ask(session, b)
    assert ask(session, a) == ["a: Why?"]
    assert fake.calls[-3:] == ["close", "open a", "answer 1"]


def test_an_argument_that_the_engine_does_not_take_is_told(fake):
    EngineSession(EvalSettings(engine="fake", engine_args={"speed": 2}))
    with pytest.raises(EvaluatorError, match=r"sped: the engine fake has no .* takes speed, colour.* mean 'speed'"):
        EngineSession(EvalSettings(engine="fake", engine_args={"sped": 2}))
    with pytest.raises(EvaluatorError, match=r"speed: the engine transformers has no such argument; it takes none"):
        EngineSession(EvalSettings(engine_args={"speed": 2}))
    with pytest.raises(EvaluatorError, match=r"Unknown engine 'fak'.*Did you mean 'fake'"):
        EngineSession(EvalSettings(engine="fak"))


@pytest.mark.parametrize(
    ("engine", "arguments", "words"),
    [
        ("openai", {"requests": 0}, r"`engine_args` requests: Input should be greater than 0; found 0\."),
        ("openai", {"requests": "many"}, r"requests: Input should be a valid integer.*; found 'many'\."),
        ("openai", {"timeout_seconds": "soon"}, r"timeout_seconds: Input should be a valid number"),
        ("openai", {"model": ["a"]}, r"model: Input should be a valid string; found \['a'\]"),
        ("serve", {"max_new_tokens": -1}, r"max_new_tokens: Input should be greater than 0"),
        ("vllm", {"tensor_parallel_size": 0}, r"tensor_parallel_size: Input should be greater than 0"),
        ("vllm", {"options": "eager"}, r"options: Input should be a valid dictionary"),
    ],
)
def test_an_argument_of_another_type_is_told_before_anything_is_asked(engine, arguments, words):
    with pytest.raises(EvaluatorError, match=words):
        EngineSession(EvalSettings(engine=engine, engine_url="http://127.0.0.1:9/v1", engine_args=arguments))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("def Mine(settings, *, scale): return FakeEngine()", r"can't be made of .*`engine_args`: missing .*'scale'"),
        ("def Mine(): return FakeEngine()", r"can't be made of .*`engine_args`: too many positional arguments"),
        ("def Mine(settings): return Path()", r"mine\.py:Mine is none: it lacks identity, check, swap, answer, close"),
        ("class Mine(FakeEngine):\n def identity(self): return None", r"identity\(\) gives no mapping of JSON values"),
        ("class Mine(FakeEngine):\n def identity(self): return {1: Path()}", r"no mapping of JSON .*PosixPath"),
    ],
)
def test_what_is_no_engine_is_told_before_anything_is_asked(body, words, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(f"from pathlib import Path\nfrom soup.testing import FakeEngine\n{body}\n")
    with pytest.raises(EvaluatorError, match=words):
        EngineSession(EvalSettings(engine=f"{file}:Mine")).identity()


def test_a_number_is_a_text_where_a_text_is_expected():
    arguments = {"command": "serve {checkpoint} {port}", "version": 0.32}
    assert EngineSession(EvalSettings(engine="serve", engine_args=arguments)).identity()["version"] == "0.32"


def test_the_session_is_one_for_all_that_is_alike(fake):
    settings = EvalSettings(engine="fake", engine_args={"speed": 2})
    session = shared_session(settings)
    assert shared_session(EvalSettings(engine="fake", engine_args={"speed": 2})) is session
    assert shared_session(EvalSettings(engine="fake", engine_args={"speed": 3})) is not session


def test_a_model_of_the_users_and_an_engine_that_loads_by_itself_exclude_each_other(fake, tmp_path):
    session = EngineSession(EvalSettings(engine="fake", model="my.py:Mine"))
    with pytest.raises(EvaluatorError, match=r"my\.py:Mine: the engine fake loads checkpoints by itself"):
        session.identity()


def test_lm_eval_says_before_the_first_question_that_it_needs_likelihoods(fake, tmp_path):
    harness = LMEval(EvalSettings(engine="fake"))
    with pytest.raises(EvaluatorError, match="lm_eval: needs likelihoods of texts, and the engine fake gives"):
        harness.check(Benchmark("lm_eval:toy", "lm_eval", "toy"), candidate(tmp_path, "a").path)


def test_an_engine_in_a_file_is_taken_too(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("from soup.testing import FakeEngine\n")
    session = EngineSession(EvalSettings(engine=f"{file}:FakeEngine"))
    assert ask(session, candidate(tmp_path, "a")) == ["a: Why?"]


def test_the_default_engine_is_the_one_whose_keys_have_no_engine_in_them():
    session = EngineSession(EvalSettings())
    assert isinstance(session.engine, HotSwap)
    assert json.dumps(session.identity()) == json.dumps(HotSwap(EvalSettings()).identity())
    assert "engine" not in session.identity()
