"""Judges over HTTP: replies, refusals, silence, memory, and a key that is nowhere but in its header."""

from __future__ import annotations

import json
import re
import signal
import ssl
import threading
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from evaluators.answering import endpoint
from evaluators.answering.endpoint_judge import EndpointJudge
from evaluators.answering.judge_session import JudgeSession
from evaluators.answering.response_cache import ResponseCache
from evaluators.vlmeval.benchmarks import BENCHMARKS
from evaluators.vlmeval.harness import VLMEval
from soup.errors import EvaluatorError
from soup.evaluation.api import Benchmark
from soup.evaluation.config import EvalConfig
from soup.evaluation.journal import score_key
from soup.evaluation.settings import EvalSettings
from soup.evaluation.suite import build_suite
from soup.search.evaluate import evaluate
from soup.testing import tiny_checkpoint
from tests.helpers.scripted_models import SCRIPTED, JudgeServer, grade, plain_vlmeval, scripted
from tests.helpers.toy_test_sets import TOYS, mathvista_rows, mmvet_rows, png, right, write_tsv

KEY = "sk-very-secret-4711"
MATHVISTA = Benchmark("mathvista", "vlmeval", "mathvista")
MMVET = Benchmark("mmvet", "vlmeval", "mmvet")


@pytest.fixture(autouse=True)
def quick_and_with_a_key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(endpoint, "FIRST_PAUSE_SECONDS", 0.001)


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("LMUData", str(tmp_path / "LMUData"))
    rows = {"mathvista": mathvista_rows(24), "mmvet": mmvet_rows(24)}
    for name in rows:
        write_tsv(tmp_path / "LMUData" / f"{BENCHMARKS[name].data_set}.tsv", rows[name])
    return rows


@pytest.fixture
def server():
    with JudgeServer() as server:
        yield server


@pytest.fixture
def settings(tmp_path, server):
    file = tmp_path / "model.py"
    file.write_text(SCRIPTED)
    return EvalSettings(model=f"{file}:Scripted", batch_size=7, judge_url=server.url, judge_model="a-judge")


def judged_prompts(server):
    return [prompt for prompt in server.prompts if prompt != "Hello."]


def asked(settings):
    file = Path(settings.model.rpartition(":")[0]).with_suffix(".notes")
    return sum(int(note.split()[1]) for note in file.read_text().splitlines() if note.startswith("asked"))


class Plays:
    """A judge that is scripted: the first replies as given (None: `grade`'s), then as `then` has it."""

    def __init__(self, *replies, then=grade):
        self.replies, self.then, self.turn = [*replies], then, threading.Lock()

    def __call__(self, prompt, temperature):
        with self.turn:
            reply = self.replies.pop(0) if self.replies else self.then(prompt, temperature)
        return grade(prompt, temperature) if reply is None else reply


def test_the_judge_is_asked_as_vlmeval_asks_and_with_the_key_in_its_header(data, settings, server, tmp_path):
    score = VLMEval(settings).evaluate(scripted(tmp_path, {i: f"It is {i}." for i in range(24)}), MMVET)
    assert score.questions["1"] == 0.5
    assert {path for path, _ in server.headers} == {"/v1/chat/completions"}
    assert {headers["Authorization"] for _, headers in server.headers} == {f"Bearer {KEY}"}
    bodies = [body for body in server.bodies if body["messages"][0]["content"] != "Hello."]
    assert {body["model"] for body in bodies} == {"a-judge"}
    assert {body["max_tokens"] for body in bodies} == {3}
    # Questions whose grade can't be read are asked once more, a little warmer.
    assert sorted(body["temperature"] for body in bodies) == [0] * 24 + [0.5] * 3


def test_a_server_without_a_key_gets_no_header(data, settings, server, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    VLMEval(settings).evaluate(scripted(tmp_path, right(data["mmvet"])), MMVET)
    assert not any("Authorization" in headers for _, headers in server.headers)


def test_the_key_may_be_in_another_variable(data, settings, server, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", "mine")
    VLMEval(replace(settings, judge_key_env="MY_KEY")).evaluate(scripted(tmp_path, right(data["mmvet"])), MMVET)
    assert {headers["Authorization"] for _, headers in server.headers} == {"Bearer mine"}


@pytest.mark.parametrize("engine", [{"judge_engine": "vllm"}, {"judge_engine_args": {"requests": 3}}])
def test_an_engine_for_a_judge_that_is_no_checkpoint_is_refused(engine, settings):
    with pytest.raises(EvaluatorError, match="`judge_engine`: runs a judge that is a checkpoint; `judge_model` names"):
        VLMEval(replace(settings, **engine))
    with pytest.raises(EvaluatorError, match="`judge_engine`: runs a judge that is a checkpoint"):
        VLMEval(replace(settings, judge_url=None, judge_model=None, **engine))


def test_what_needs_no_judge_is_not_brought_to_it(data, settings, server, tmp_path):
    assert VLMEval(settings).evaluate(scripted(tmp_path, right(data["mathvista"])), MATHVISTA).value == 75
    prompts = judged_prompts(server)
    # Letters and numbers speak for themselves (but for 0, which VLMEvalKit takes for nothing); lists never do.
    assert len(prompts) == 6 + sum(row["answer"] == "0" for row in data["mathvista"])
    assert all("Extracted answer:" in prompt for prompt in prompts)


@pytest.mark.parametrize("benchmark", [MATHVISTA, MMVET], ids=lambda benchmark: benchmark.name)
def test_without_a_judge_nothing_starts_and_the_way_out_is_told(benchmark, data, settings):
    alone = replace(settings, judge_url=None, judge_model=None)
    with pytest.raises(EvaluatorError) as caught:
        VLMEval(alone).identity(benchmark)
    for words in ("`judge_url`", "`judge_model`", "OPENAI_API_KEY", f"leave {benchmark.name} out of `eval`"):
        assert words in str(caught.value)
    with pytest.raises(EvaluatorError, match="both `judge_url` and `judge_model`"):
        VLMEval(replace(settings, judge_model=None))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("localhost:8000/v1", "expected http://HOST/PATH"),
        ("ftp://host/v1", "expected http://HOST/PATH"),
        ("http://me:secret@host/v1", "a plain URL"),
        ("http://host/v1?key=secret", "a plain URL"),
        ("http://host/v1#secret", "expected http://HOST/PATH"),
        ("http://[::1/secret", "expected http://HOST/PATH"),
        ("http://host:secret/v1", "expected http://HOST/PATH"),
        ("http://host:99999/v1/secret", "expected http://HOST/PATH"),
        ("http://host/sécret", "in ASCII and without blanks"),
        ("http://host/v1 /secret", "in ASCII and without blanks"),
        ("http://host/v1/secret\n", "in ASCII and without blanks"),
    ],
)
def test_a_url_that_is_none_or_holds_a_secret_is_refused_without_repeating_it(url, words):
    with pytest.raises(EvaluatorError, match=words) as caught:
        EndpointJudge(url, "m", "OPENAI_API_KEY")
    assert "secret" not in str(caught.value)


def test_the_whole_path_may_be_given_too(server):
    assert (
        EndpointJudge(f"{server.url}/chat/completions", "m", "K").identity()
        == EndpointJudge(server.url + "/", "m", "K").identity()
    )


def test_a_slash_behind_the_path_names_the_same_endpoint(server):
    for end in ("/", "/chat/completions/"):
        judge = EndpointJudge(server.url + end, "m", "OPENAI_API_KEY")
        assert judge.address == server.url.removeprefix("http://")
        judge.ask("Hello.", 0, 16)
        assert server.headers[-1][0] == "/v1/chat/completions"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_server_on_this_machine_is_asked_past_the_proxy_of_the_environment(host, server, monkeypatch):
    with JudgeServer(lambda *_: "from the proxy") as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "")
        server.plays = lambda *_: "from the server"
        local = EndpointJudge(server.url.replace("127.0.0.1", host), "m", "OPENAI_API_KEY")
        assert local.ask("Hello.", 0, 16) == "from the server"
        assert EndpointJudge("http://other.example/v1", "m", "OPENAI_API_KEY").ask("?", 0, 16) == "from the proxy"


def test_load_and_broken_replies_are_tried_again(data, settings, server, tmp_path):
    broken = (500, "the line breaks in the mid", {"Content-Length": "99"})
    server.plays = Plays(
        None, broken, (429, "slow down", {"Retry-After": "0.01"}), (503, "back soon"), (500, ""), (200, "<html>")
    )
    score = VLMEval(settings).evaluate(scripted(tmp_path, right(data["mmvet"])), MMVET)
    assert score.value == 100
    assert len(server.prompts) == 1 + 24 + 3 + 5  # the greeting, all questions, unreadable grades, refusals


def test_a_judge_that_stops_midway_is_an_error_and_the_rerun_asks_only_for_the_rest(data, settings, server, tmp_path):
    candidate = scripted(tmp_path, {i: f"It is {i}." for i in range(24)})
    server.plays = Plays(*[None] * 11, then=lambda *_: (503, "gone fishing"))
    with pytest.raises(EvaluatorError) as caught:
        VLMEval(settings).evaluate(candidate, MMVET)
    message = str(caught.value)
    for words in ("mmvet", "a-judge", "stopped answering after 10 replies", "503: gone fishing", "kept", "leave mmvet"):
        assert words in message
    assert asked(settings) == 24
    server.plays, server.prompts[:] = grade, []
    score = VLMEval(settings).evaluate(candidate, MMVET)
    assert asked(settings) == 24  # not one answer is asked for again
    assert len(judged_prompts(server)) == 24 + 3 - 10
    fresh = scripted(tmp_path, {i: f"It is {i}." for i in range(24)}, name="fresh")
    assert score == VLMEval(settings).evaluate(fresh, MMVET)


def test_a_judge_that_is_not_there_is_told_before_the_model_is_asked(data, settings, tmp_path):
    dead = replace(settings, judge_url="http://127.0.0.1:9/v1")
    judge = VLMEval(dead)
    judge.identity(MMVET)
    with pytest.raises(
        EvaluatorError, match=r"mmvet: the judge a-judge at 127.0.0.1:9/v1 does not answer: .*refused.*2 att"
    ):
        judge.evaluate(scripted(tmp_path, right(data["mathvista"])), MATHVISTA)
    assert not Path(settings.model.rpartition(":")[0]).with_suffix(".notes").exists()


def test_a_wrong_key_is_told_at_once_and_never_repeated(data, settings, server, tmp_path):
    server.plays = lambda *_: (401, json.dumps({"error": f"Incorrect API key provided: {KEY}"}))
    with pytest.raises(EvaluatorError, match=r"HTTP status 401: .*Incorrect API key provided: \*\*\*") as caught:
        VLMEval(settings).evaluate(scripted(tmp_path, right(data["mmvet"])), MMVET)
    assert KEY not in str(caught.value)
    assert caught.value.__cause__ is None
    assert len(server.prompts) == 1


def test_a_key_with_a_line_break_is_refused_without_repeating_it(settings, server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-\nsecret")
    with pytest.raises(EvaluatorError, match="variable OPENAI_API_KEY can't stand in an HTTP header") as caught:
        EndpointJudge.from_settings(settings).ask("?", 0, 3)
    assert "secret" not in str(caught.value)


def test_a_slow_judge_is_asked_as_often_as_any_that_was_reached_and_not_forever(settings, server, monkeypatch):
    monkeypatch.setattr(endpoint, "TIMEOUT_SECONDS", 0.1)
    monkeypatch.setattr(endpoint, "ATTEMPTS", 3)
    server.plays = lambda *_: time.sleep(0.5) or "1.0"
    with pytest.raises(EvaluatorError, match=r"no reply within 0.1 seconds \(3 attempts\)"):
        EndpointJudge.from_settings(settings).ask("?", 0, 3)


def test_certificates_are_verified_whatever_vlmeval_did_to_the_process(settings, monkeypatch):
    monkeypatch.setattr(ssl, "_create_default_https_context", ssl._create_unverified_context)
    handlers = EndpointJudge("https://host/v1", "m", "K")._endpoint._opener.handlers
    (secure,) = [handler for handler in handlers if isinstance(handler, urllib.request.HTTPSHandler)]
    assert secure._context.verify_mode == ssl.CERT_REQUIRED
    assert secure._context.check_hostname


def test_a_redirect_is_not_followed_with_the_key(settings, server):
    with JudgeServer() as other:
        server.plays = lambda *_: (302, "", {"Location": other.url})
        with pytest.raises(EvaluatorError, match="HTTP status 302"):
            EndpointJudge.from_settings(settings).ask("?", 0, 3)
        assert not other.headers


def test_a_judge_that_only_rambles_is_an_error_and_no_zero(data, settings, server, tmp_path):
    server.plays = lambda *_: "As a language model"
    with pytest.raises(EvaluatorError, match=r"gave no reply that can be read for 24 of 24 questions"):
        VLMEval(settings).evaluate(scripted(tmp_path, right(data["mmvet"])), MMVET)


def test_a_judge_that_was_mended_is_asked_again_for_what_could_not_be_read(data, settings, server, tmp_path):
    candidate = scripted(tmp_path, right(data["mmvet"]))
    server.plays = lambda *_: "As a language model"
    with pytest.raises(EvaluatorError, match="Its replies are not kept: mend it and type the same command again"):
        VLMEval(settings).evaluate(candidate, MMVET)
    server.plays = grade
    assert VLMEval(settings).evaluate(candidate, MMVET).value == 100
    server.plays = lambda *_: "As a language model"
    assert VLMEval(settings).evaluate(candidate, MMVET).value == 100, "what could be read is kept"


def test_one_reply_that_can_t_be_read_counts_as_vlmeval_counts_it(data, settings, server, tmp_path):
    server.plays = lambda prompt, temperature: "?" if "\n<5>" in prompt else grade(prompt, temperature)
    score = VLMEval(settings).evaluate(scripted(tmp_path, right(data["mmvet"])), MMVET)
    assert score.questions["5"] == 0
    assert score.value == pytest.approx(100 * 23 / 24)


@pytest.mark.parametrize(("name", "benchmark"), [("mmvet", MMVET), ("mathvista", MATHVISTA)])
def test_each_grade_is_told_once_and_in_order_behind_the_answers(name, benchmark, data, settings, tmp_path):
    candidate = scripted(tmp_path, right(data[name]))
    VLMEval(settings).evaluate(candidate, benchmark)
    assert candidate.progress[-1] == (24, 24)
    assert candidate.grades == [(count, 24) for count in range(1, 25)]


def test_nothing_in_a_reply_is_an_empty_reply(server, settings):
    server.plays = lambda *_: (200, json.dumps({"choices": [{"message": {"content": None}}]}))
    assert EndpointJudge.from_settings(settings).ask("?", 0, 3) == ""


def test_the_judge_is_part_of_the_journals_key(data, settings, server):
    identities = [
        VLMEval(judged).identity(MMVET)
        for judged in (settings, replace(settings, judge_model="b"), replace(settings, judge_url="http://other/v1"))
    ]
    assert len({score_key("sha256:1", MMVET, identity) for identity in identities}) == 3
    assert identities[0]["judge"] == {"url": server.url[7:], "model": "a-judge", "prompts": "VLMEvalKit's"}
    assert KEY not in json.dumps(identities)


CONSTANT = """
class Constant:
    def __init__(self, directory): pass
    def answer(self, prompts): return ["It is 7, and A."] * len(prompts)
"""


def test_the_key_is_in_no_file_of_a_run_that_fails_or_one_that_works(data, settings, server, tmp_path, capfd):
    (tmp_path / "constant.py").write_text(CONSTANT)
    settings = replace(settings, model=f"{tmp_path / 'constant.py'}:Constant")
    checkpoint = tiny_checkpoint(tmp_path / "ckpts" / "a")
    config = EvalConfig("mathvista,mmvet", **vars(settings))
    run = {"eval": config, "run_dir": tmp_path / "run"}
    server.plays = Plays(*[None] * 9, then=lambda *_: (500, f"Bearer {KEY} is overloaded"))
    with pytest.raises(EvaluatorError, match=r"stopped answering .*Bearer \*\*\* is overloaded"):
        evaluate([checkpoint], **run)
    kept = {path.name for path in (tmp_path / "run" / "answers").rglob("*.jsonl")}
    assert "mathvista.jsonl" in kept
    server.plays = grade
    (trial,) = evaluate([checkpoint], **run)
    assert set(trial.scores) == {"mathvista", "mmvet"}
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert len(files) >= 3
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
    assert server.url[7:].encode() in (tmp_path / "run" / "journal.jsonl").read_bytes()
    assert KEY not in "".join(capfd.readouterr())
    before = len(server.prompts)
    evaluate([checkpoint], **run)
    assert len(server.prompts) == before  # all remembered: nobody is asked anything


HESITANT = {"mmbench", "mmstar", "mmmu", "hallusionbench", "ai2d"}


@pytest.mark.parametrize("name", sorted(HESITANT))
def test_any_benchmark_may_use_the_judge_as_vlmevals_own_evaluate_does(name, settings, server, tmp_path, monkeypatch):
    monkeypatch.setenv("LMUData", str(tmp_path / "LMUData"))
    rows = TOYS[name]()
    write_tsv(tmp_path / "LMUData" / f"{BENCHMARKS[name].data_set}.tsv", rows)
    answers = {index: hesitant(i, answer) for i, (index, answer) in enumerate(right(rows).items())}
    benchmark = Benchmark(name, "vlmeval", name)
    judged = replace(settings, judge_for=(name,))
    score = VLMEval(judged).evaluate(scripted(tmp_path, answers), benchmark)
    assert score.value == pytest.approx(
        plain_vlmeval(BENCHMARKS[name], answers, tmp_path / "o", monkeypatch, "a-judge")
    )
    alone = VLMEval(settings).evaluate(scripted(tmp_path, answers, name="alone"), benchmark)
    assert alone.value < score.value < 100
    assert judged_prompts(server)
    assert "judge" in VLMEval(judged).identity(benchmark)
    assert "judge" not in VLMEval(settings).identity(benchmark)


def hesitant(index, answer):
    """An answer in which matching finds nothing, and the judge does; now and then a plain wrong one."""
    if answer in ("Yes", "No"):
        return "certainly" if (answer == "Yes") != (index % 9 == 8) else "by no means... not at all"
    if len(answer) > 1:
        return answer
    wrong = "ABCD"[("ABCD".index(answer) + 1) % 4]
    return wrong if index % 9 == 8 else f"I would go for number {answer}7"


def test_a_metric_that_asks_nobody_refuses_a_judge(settings, tmp_path):
    with pytest.raises(EvaluatorError, match="ocrbench: its metric has no use for a judge"):
        VLMEval(replace(settings, judge_for=("ocrbench",)))._judging.judge_of(BENCHMARKS["ocrbench"])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mmbanch", "Unknown benchmark 'mmbanch'. Did you mean 'mmbench'?"),
        ("seedbench-img", "Unknown benchmark 'seedbench-img'. Did you mean 'SEEDBench_IMG'?"),
        ("ScreenSpot", "ScreenSpot: not scored here"),
    ],
)
def test_a_judge_for_what_nobody_judges_is_refused(name, words, settings):
    with pytest.raises(EvaluatorError, match=re.escape(f"`judge_for`: {words}")):
        VLMEval(replace(settings, judge_for=(name,)))


def test_the_judge_is_wanted_for_a_benchmark_by_either_of_its_names(settings):
    judged = VLMEval(replace(settings, judge_for=("MMBench_DEV_EN",)))
    assert judged._judging.judge_of(BENCHMARKS["mmbench"]) is not None


def test_a_judge_for_a_benchmark_that_is_not_evaluated_is_refused(data, settings):
    with pytest.raises(EvaluatorError, match=r"`judge_for`: not evaluated: mmstar\..*Evaluated: mmvet, mathvista"):
        build_suite([MMVET, MATHVISTA], replace(settings, judge_for=("MathVista_MINI", "mmstar")))
    suite = build_suite([MMVET, MATHVISTA], replace(settings, judge_for=("MathVista_MINI",)))
    assert all("judge" in entry.identity for entry in suite.entries)


def test_where_the_judge_names_no_option_the_draw_is_the_same_in_every_run(settings, server, tmp_path, monkeypatch):
    monkeypatch.setenv("LMUData", str(tmp_path / "LMUData"))
    rows = TOYS["mmstar"]()
    write_tsv(tmp_path / "LMUData" / "MMStar.tsv", rows)
    server.plays = lambda *_: "Hard to say"
    answers = {**right(rows), 7: "I would go for number B7"}
    benchmark, judged = Benchmark("mmstar", "vlmeval", "mmstar"), replace(settings, judge_for=("mmstar",))
    scores = [VLMEval(judged).evaluate(scripted(tmp_path, answers, name=f"m{i}"), benchmark) for i in range(3)]
    assert scores[0] == scores[1] == scores[2]
    assert scores[0].value in (97.5, 100)
    vague = dict.fromkeys(right(rows), "I would go for number B7")
    with pytest.raises(EvaluatorError, match="can be read for 40 of 40 questions"):
        VLMEval(judged).evaluate(scripted(tmp_path, vague, name="vague"), benchmark)


def test_an_interrupt_does_not_wait_for_replies(settings, tmp_path, request):
    def ring(*_):
        raise ConnectionAbortedError

    before = signal.signal(signal.SIGALRM, ring)
    request.addfinalizer(lambda: signal.signal(signal.SIGALRM, before))
    session = JudgeSession(EndpointJudge.from_settings(settings), ResponseCache(tmp_path / "kept.jsonl"), "mmvet")
    released, replies = threading.Event(), []
    request.addfinalizer(released.set)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    with pytest.raises(ConnectionAbortedError):
        session.map(lambda _: replies.append(released.wait(30)), range(40))
    assert not replies


def test_images_never_go_to_the_judge(data, settings, server, tmp_path):
    VLMEval(settings).evaluate(scripted(tmp_path, right(data["mmvet"])), MMVET)
    assert not any(png((1, 2, 222))[:40] in json.dumps(body) for body in server.bodies)
