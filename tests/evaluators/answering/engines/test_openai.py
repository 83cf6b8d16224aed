"""An endpoint on loopback as an engine: asked by several requests at once, for one checkpoint."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import socket
import threading
import time

import pytest

from evaluators.answering import endpoint
from evaluators.answering.engines.openai import OpenAI
from evaluators.answering.response_cache import ResponseCache, cached_answers
from evaluators.answering.session import EngineSession
from evaluators.vlmeval.harness import VLMEval
from soup.errors import EvaluatorError
from soup.evaluation.api import Benchmark
from soup.evaluation.settings import EvalSettings
from tests.helpers.scripted_models import JudgeServer, ToyCandidate, scripted
from tests.helpers.toy_test_sets import mmbench_rows, png, right, write_tsv

TEXTS = [[{"type": "text", "value": f"What is {number}?"}] for number in range(40)]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(endpoint, "FIRST_PAUSE_SECONDS", 0.001)


def echo(prompt, temperature):
    return f" {prompt[-1]['text']} "


@pytest.fixture
def server():
    with JudgeServer(echo) as server:
        yield server


def settings(server, **arguments):
    return EvalSettings(engine="openai", engine_url=server.url, engine_args=arguments)


def candidate(tmp_path, digest="a", names=("a",)):
    path = tmp_path / digest
    path.mkdir(exist_ok=True)
    return ToyCandidate(path, tmp_path, digest, names=names)


@pytest.mark.parametrize(("name", "kind"), [("0123.png", "png"), ("0123.jpg", "jpeg"), ("0123", "png")])
def test_every_prompt_gets_its_own_answer_and_images_go_as_their_bytes(name, kind, server, tmp_path):
    image = tmp_path / name
    image.write_bytes(base64.b64decode(png(7)))
    shown = [{"type": "image", "value": str(image)}, {"type": "text", "value": "What is it?"}]
    answers = EngineSession(settings(server)).answer(candidate(tmp_path), [*TEXTS, shown], lambda *_: None)
    assert answers == [f"What is {number}?" for number in range(40)] + ["What is it?"]
    (body,) = [body for body in server.bodies if len(body["messages"][0]["content"]) == 2]
    url = body["messages"][0]["content"][0]["image_url"]["url"]
    assert base64.b64decode(url.removeprefix(f"data:image/{kind};base64,")) == image.read_bytes()
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("a-model", 0, 2048)


def test_so_many_requests_are_under_way_at_once_and_no_more(server, tmp_path):
    under_way, most, turn = 0, 0, threading.Lock()

    def slowly(prompt, temperature):
        nonlocal under_way, most
        with turn:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.02)
        with turn:
            under_way -= 1
        return "yes"

    server.plays = slowly
    EngineSession(settings(server, requests=5)).answer(candidate(tmp_path), TEXTS, lambda *_: None)
    assert most == 5


def test_load_is_waited_out_and_answers_so_far_are_kept_when_it_does_not_end(server, tmp_path):
    cache, session, soup = ResponseCache(tmp_path / "a.jsonl"), EngineSession(settings(server)), candidate(tmp_path)

    def ask():
        return cached_answers(cache, ["a"], TEXTS, lambda prompts, hear: session.answer(soup, prompts, hear))

    server.plays = lambda prompt, _: (503, "busy") if len(server.prompts) > 20 else "early"
    with pytest.raises(EvaluatorError, match=r"a-model at 127.0.0.1:\d+/v1 gave no answer: HTTP status 503: busy"):
        ask()
    kept = len(ResponseCache(tmp_path / "a.jsonl"))
    assert 0 < kept <= 20
    refused = iter([(429, "slow down"), (500, "")])
    server.plays, server.prompts[:] = lambda *_: next(refused, "late"), []
    answers = ask()
    assert (answers.count("early"), answers.count("late")) == (kept, 40 - kept)
    assert len(server.prompts) == 40 - kept + 2


def test_a_prompt_is_refused_as_often_as_it_likes_while_others_get_replies(server, tmp_path):
    """As by an endpoint that answers so many requests a minute: 429 is its queue there, and no failure."""
    refused, answered = 0, 0

    def rations(prompt, temperature):
        nonlocal refused, answered
        if prompt[-1]["text"] == "What is 0?" and refused < 15:
            refused += 1
            while answered < refused + 2:  # so that the client has counted a reply since it asked the last time
                time.sleep(0.001)
            return 429, "slow down"
        while answered > refused + 2 and refused < 15:  # or the others would soon be done
            time.sleep(0.001)
        answered += 1
        return "yes"

    server.plays = rations
    answers = EngineSession(settings(server, requests=2)).answer(candidate(tmp_path), TEXTS, lambda *_: None)
    assert (answers, refused) == (["yes"] * 40, 15)


def test_a_failure_of_another_kind_is_one_whoever_gets_replies(server, tmp_path):
    server.plays = lambda prompt, _: (500, "no") if prompt[-1]["text"] == "What is 0?" else "yes"
    with pytest.raises(EvaluatorError, match=r"HTTP status 500: no \(6 attempts\)"):
        EngineSession(settings(server, requests=2)).answer(candidate(tmp_path), TEXTS, lambda *_: None)


def test_a_soup_and_a_second_checkpoint_are_refused_in_one_sentence(server, tmp_path):
    session = EngineSession(settings(server))
    with pytest.raises(
        EvaluatorError, match=r"an endpoint serves one model, and a\+b is a soup; for soups take"
    ) as soup:
        session.answer(candidate(tmp_path, "ab", ("a", "b")), TEXTS[:1], lambda *_: None)
    assert str(soup.value).count(". ") == 0
    session.answer(candidate(tmp_path), TEXTS[:1], lambda *_: None)
    with pytest.raises(EvaluatorError, match="b is another checkpoint than the one before"):
        session.answer(candidate(tmp_path, "b", ("b",)), TEXTS[:1], lambda *_: None)
    assert session.answer(candidate(tmp_path), TEXTS[:1], lambda *_: None) == ["What is 0?"]


def test_a_run_over_several_checkpoints_is_refused_before_the_first_question(server, tmp_path):
    session = EngineSession(settings(server))
    paths = [candidate(tmp_path, name).path for name in "ab"]
    session.check(paths[0])
    session.check(paths[0])
    with pytest.raises(EvaluatorError, match="this run has several checkpoints"):
        session.check(paths[1])
    assert server.prompts == []


def test_the_identity_names_address_and_model(server):
    assert EngineSession(settings(server)).identity() == {
        "engine": "openai",
        "url": server.url.removeprefix("http://"),
        "model": "a-model",
        "decoding": "greedy",
        "max_new_tokens": 2048,
    }
    assert EngineSession(settings(server, model="b")).identity()["model"] == "b"


def test_what_can_not_be_asked_is_told_before_anything_else(server):
    with pytest.raises(EvaluatorError, match=r"openai: needs `engine_url`"):
        EngineSession(EvalSettings(engine="openai"))
    with pytest.raises(EvaluatorError, match=r"127.0.0.1:9/v1 does not answer: ConnectionRefusedError: "):
        EngineSession(EvalSettings(engine="openai", engine_url="http://127.0.0.1:9/v1")).identity()
    server.models = ("one", "two")
    with pytest.raises(EvaluatorError, match=r"serves one, two: say which by `engine_args` model=NAME"):
        EngineSession(settings(server)).identity()


def test_a_benchmark_is_scored_through_an_endpoint(server, tmp_path, monkeypatch):
    rows = mmbench_rows(12)
    write_tsv(tmp_path / "LMUData" / "MMBench_DEV_EN.tsv", rows)
    monkeypatch.setenv("LMUData", str(tmp_path / "LMUData"))
    answers = right(rows)

    def knows(prompt, temperature):
        text = prompt[-1]["text"]
        return next(answer for index, answer in answers.items() if f"<{index}>" in text)

    server.plays = knows
    harness = VLMEval(settings(server))
    benchmark = Benchmark("mmbench", "vlmeval", "mmbench")
    assert harness.identity(benchmark)["answering"]["engine"] == "openai"
    assert harness.evaluate(scripted(tmp_path, {}), benchmark).value == 100
    assert OpenAI is type(harness._engine.engine)


@pytest.mark.parametrize(
    ("reply", "words"), [("!!!!", "different questions with the same text"), (None, "most answers are empty")]
)
def test_what_is_strange_about_answers_is_remarked_though_they_come_one_by_one(
    reply, words, server, tmp_path, monkeypatch
):
    write_tsv(tmp_path / "LMUData" / "MMBench_DEV_EN.tsv", mmbench_rows(20))
    monkeypatch.setenv("LMUData", str(tmp_path / "LMUData"))
    server.plays = lambda *_: reply
    VLMEval(settings(server)).evaluate(soup := scripted(tmp_path, {}), Benchmark("mmbench", "vlmeval", "mmbench"))
    assert [words in remark for remark in soup.remarks] == [True]


def test_a_reply_in_parts_is_the_text_of_its_parts(server, tmp_path):
    server.plays = lambda prompt, _: [{"type": "reasoning", "reasoning": "B?"}, {"type": "text", "text": "A"}]
    assert EngineSession(settings(server)).answer(candidate(tmp_path), TEXTS[:2], lambda *_: None) == ["A", "A"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('{"error": {"message": "no credits are left"}}', "no credits are left"),
        ('{"choices": [{"message": {"content": 7}}]}', '"content": 7'),
        ('{"choices": [{"message": {"content": null}, "finish_reason": "content_filter"}]}', "content_filter"),
        ('{"choices": [{"message": {"content": null}, "finish_reason": "tool_calls"}]}', "tool_calls"),
        ('{"choices": [{"message": {"content": ""}, "finish_reason": "content_filter"}]}', "content_filter"),
        ('{"choices": [{"message": {"content": "A or"}, "finish_reason": "abort"}]}', "abort"),
        ('{"choices": [{"message": {"content": ""}, "finish_reason": "tool_calls"}]}', "tool_calls"),
        ('{"choices": [{"message": {"content": null, "tool_calls": [{}]}, "finish_reason": "stop"}]}', "tool_calls"),
        ("", "in the body: nothing"),
    ],
)
def test_what_is_no_reply_is_never_an_empty_answer_and_told_in_the_servers_words(body, words, server, tmp_path):
    server.plays = lambda *_: (200, body)
    with pytest.raises(EvaluatorError, match=re.escape(words)):
        EngineSession(settings(server)).answer(candidate(tmp_path), TEXTS[:1], lambda *_: None)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": None}, ""),
        ({"content": None, "refusal": "I can't."}, "I can't."),
        ({"content": "", "tool_calls": []}, ""),
        ({"content": "B", "tool_calls": [{}]}, "B"),
    ],
)
def test_a_model_that_ended_by_itself_said_nothing_or_refused_in_words(message, text, server, tmp_path):
    server.plays = lambda *_: (200, json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}))
    assert EngineSession(settings(server)).answer(candidate(tmp_path), TEXTS[:1], lambda *_: None) == [text]


def test_a_reply_with_half_of_a_character_is_an_answer_and_asked_for_once(server, tmp_path):
    server.plays = lambda *_: "A \ud800."
    cache, session, soup = ResponseCache(tmp_path / "a.jsonl"), EngineSession(settings(server)), candidate(tmp_path)

    def ask(cache):
        return cached_answers(cache, ["a"], TEXTS[:3], lambda prompts, hear: session.answer(soup, prompts, hear))

    assert ask(cache) == ["A ?."] * 3
    assert ask(ResponseCache(tmp_path / "a.jsonl")) == ["A ?."] * 3
    assert len(server.prompts) == 3


def test_half_of_a_character_in_an_answer_of_any_engine_is_kept_once_and_the_same_in_the_next_run(tmp_path):
    asked = []

    def answer(prompts, hear):
        asked.extend(prompts)
        hear(prompts, ["B \udfff"] * len(prompts))
        return ["B \udfff"] * len(prompts)

    runs = [cached_answers(ResponseCache(tmp_path / "a.jsonl"), ["a"], TEXTS[:3], answer) for _ in range(2)]
    assert runs == [["B ?"] * 3] * 2
    assert len(asked) == 3


def test_a_reply_without_end_is_refused_at_a_size(server, tmp_path, monkeypatch):
    monkeypatch.setattr(endpoint, "MOST_BYTES", 1000)
    server.plays = lambda *_: "A" * 100_000
    with pytest.raises(
        EvaluatorError, match=r"gave no answer: a reply of more than 1,000 bytes; asked was 'What is 0\?'$"
    ):
        EngineSession(settings(server)).answer(candidate(tmp_path), TEXTS[:1], lambda *_: None)
    assert len(server.prompts) == 1


def test_a_redirect_is_told_with_its_address_and_not_followed(server, tmp_path):
    server.plays = lambda *_: (307, "", {"Location": "https://other.example/v1"})
    with pytest.raises(EvaluatorError, match=r"HTTP status 307: it redirects to https://other.example/v1, where"):
        EngineSession(settings(server)).answer(candidate(tmp_path), TEXTS[:1], lambda *_: None)
    assert len(server.prompts) == 1


def test_the_prompt_that_gets_no_answer_is_told(server, tmp_path):
    images = [str(tmp_path / f"{index}.png") for index in range(3)]
    for image in images:
        (tmp_path / image).write_bytes(base64.b64decode(png(7)))
    shown = [{"type": "image", "value": image, "video": "walk.mp4"} for image in images]
    prompt = [*shown, {"type": "text", "value": "What is it? " * 20}]
    server.plays = lambda prompt, _: (400, "too long") if len(prompt) > 1 else "yes"
    words = re.escape(
        f"HTTP status 400: too long; asked was {('What is it? ' * 20)[:80]!r} with {images[0]} and 2 more"
    )
    with pytest.raises(EvaluatorError, match=words):
        EngineSession(settings(server)).answer(candidate(tmp_path), [*TEXTS, prompt], lambda *_: None)


def test_a_status_without_words_is_told_by_its_name(server, tmp_path):
    server.plays = lambda *_: (403, "")
    with pytest.raises(EvaluatorError, match=r"HTTP status 403: Forbidden \(no key was sent: SOME_KEY is empty\)"):
        EngineSession(settings(server, key_env="SOME_KEY")).answer(candidate(tmp_path), TEXTS[:1], lambda *_: None)


def test_a_key_that_is_refused_is_told_by_its_variable(server, tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_KEY", "sk-4711")
    server.plays = lambda *_: (401, "not sk-4711")
    words = re.escape("HTTP status 401: not *** (the key in SOME_KEY was sent)")
    with pytest.raises(EvaluatorError, match=words):
        EngineSession(settings(server, key_env="SOME_KEY")).answer(candidate(tmp_path), TEXTS[:1], lambda *_: None)


def test_a_path_that_is_not_there_is_told(server, tmp_path):
    url = server.url.removesuffix("/v1")
    words = re.escape(f"HTTP status 404: Not Found ({url}/models was asked). If it only does not say what")
    with pytest.raises(EvaluatorError, match=words):
        EngineSession(EvalSettings(engine="openai", engine_url=url)).identity()


@pytest.mark.parametrize("listed", ["<html>Welcome</html>", "[1, 2]", '{"data": [{"name": "a"}]}'])
def test_what_is_no_list_of_models_is_told_in_the_servers_words(listed, server):
    server.models = listed
    words = re.escape(f"no list of models in the body of /models: {listed}. If it only does not say")
    with pytest.raises(EvaluatorError, match=words):
        EngineSession(settings(server)).identity()


def test_a_server_that_keeps_the_line_open_and_never_answers_is_waited_for_so_long_and_no_longer(monkeypatch):
    monkeypatch.setattr(endpoint, "ATTEMPTS", 1)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip():
            line, _ = listener.accept()
            with line, contextlib.suppress(OSError):
                line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
                for _ in range(500):  # 10 s
                    line.sendall(b" ")
                    time.sleep(0.02)

        threading.Thread(target=drip, daemon=True).start()
        began = time.monotonic()
        dripping = endpoint.ChatEndpoint(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", "", "url", 0.3)
        with pytest.raises(EvaluatorError, match=r"no reply within 0\.3 seconds"):
            dripping.complete({})
        assert time.monotonic() - began < 8


REPLIES = {
    "hangs up": b"",
    "fails": b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
    "stops midway": b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{",
    "is no endpoint": b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>",
}


@pytest.mark.parametrize("reply", REPLIES.values(), ids=REPLIES)
def test_an_address_that_was_ever_reached_is_asked_six_times_and_one_where_nobody_is_twice(reply):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            with contextlib.suppress(OSError):  # the listener is closed in the end
                while True:
                    line, _ = listener.accept()
                    with line:
                        while b"{}" not in line.recv(1 << 16):
                            pass
                        line.sendall(reply)

        threading.Thread(target=serve, daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        with pytest.raises(EvaluatorError, match=r"\(6 attempts\)$"):
            endpoint.ChatEndpoint(url, "", "url").complete({})
        listener.shutdown(socket.SHUT_RDWR)
    with pytest.raises(EvaluatorError, match=r"refused.*\(2 attempts\)$"):
        endpoint.ChatEndpoint(url, "", "url").complete({})
