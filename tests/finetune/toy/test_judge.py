"""The toy family's judge: a rule that reads VLMEvalKit's own prompts, over real HTTP, at a port that it keeps."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.answering.endpoint_judge import EndpointJudge
from evaluators.vlmeval.light_import import vlmeval_module
from finetune.toy.judge import MODEL, JudgeServer, extract, grade, reply
from finetune.toy.rule_server import open_server
from finetune.toy.tasks import Question, draw_scene, with_hint
from soup.errors import EvaluatorError
from tests.helpers.threaded_servers import in_thread

mathvista = vlmeval_module("dataset.utils.mathvista")
mmvet = vlmeval_module("dataset.utils.mmvet")
WORDS = st.text(st.characters(codec="utf-8"), max_size=60)


@pytest.fixture
def server():
    with JudgeServer() as server, in_thread(server):
        yield server


def of_mathvista(question, prediction):
    return mathvista.build_mathvista_gpt4_prompt({"question": question, "prediction": prediction})


def of_mmvet(question, answer, prediction):
    return mmvet.build_mmvet_gpt4_prompt({"question": question, "answer": answer, "prediction": prediction})


WHOLE = with_hint("whole", Question("How many?", "4"))
DECIMAL = with_hint("decimal", Question("How much?", "4.0"))
LISTED = with_hint("listed", Question("Which?", "first", ("first", "second", "upper left", "left")))


@pytest.mark.parametrize(
    ("question", "response", "answer"),
    [
        (WHOLE, "There are 4.", "4"),
        (WHOLE, "of 10 dots, four are red, so: four", "4"),
        (WHOLE, "-3", "-3"),
        (WHOLE, "no idea", "none"),
        (WHOLE, "", "none"),
        (DECIMAL, "about 2.5 cm", "2.5"),
        (DECIMAL, "7", "7"),
        (LISTED, "The answer is (B).", "B"),
        (LISTED, "second", "B"),
        (LISTED, "the UPPER LEFT one", "none"),  # two choices have their words in it
        (LISTED, "first or second", "none"),
        ("Hint: Please give a Python list as an answer.\nQuestion: When?", "between [1, 2] and [3, 4]", "[3, 4]"),
        ("Question: without any hint?", "It is 12", "12"),
    ],
)
def test_what_a_response_answers_is_taken_out_of_vlmevalkits_own_prompt(question, response, answer):
    assert reply(of_mathvista(question, response)) == answer


@pytest.mark.parametrize(
    ("wanted", "answer", "score"),
    [
        ("red<AND>circle", "red circle", "1.0"),
        ("red<AND>circle", "A circle that is red!", "1.0"),
        ("red<AND>circle", "red square", "0.5"),
        ("red<AND>circle", "blue", "0.0"),
        ("four<OR>4", "4", "1.0"),
        ("four<OR>4", "fourteen 44", "0.0"),
        ("upper left", "in the upper left corner", "1.0"),
        ("upper left", "left, upper", "0.0"),
        ("a<AND>b<AND>c", "a | c | ", "0.7"),
        ("7", "7\n\nwith an afterthought", "1.0"),
        ("7", "", "0.0"),
    ],
)
def test_an_answer_is_graded_from_vlmevalkits_own_prompt(wanted, answer, score):
    assert reply(of_mmvet("What is it?", wanted, answer)) == score


@given(prediction=WORDS)
def test_whatever_was_predicted_the_grade_is_one_that_vlmevalkit_can_read(prediction):
    grade = reply(of_mmvet("What is in the picture?", "red<AND>ring", prediction))
    assert 0 <= float(grade) <= 1
    assert len(grade) == 3  # VLMEvalKit lets this judge say three tokens


@given(prediction=WORDS, question=st.sampled_from([WHOLE, DECIMAL, LISTED]))
def test_whatever_was_predicted_an_answer_is_extracted_or_none(prediction, question):
    grade = reply(of_mathvista(question, prediction))
    assert grade == "none" or re.fullmatch(r"[A-H]" if question == LISTED else r"-?\d+(\.\d+)?", grade)


@given(n=st.integers(-(10**6), 10**6), before=st.text("abc ,.", max_size=9))
def test_a_number_is_found_whatever_stands_before_it(n, before):
    assert extract(WHOLE, f"{before} {n}") == str(n)


@given(parts=st.lists(st.sampled_from(["red", "ring", "two", "upper left"]), min_size=1, max_size=4, unique=True))
def test_all_parts_in_any_order_are_all_right(parts):
    assert grade("<AND>".join(parts), ", ".join(reversed(parts))) == 1
    assert grade("nothing<OR>" + "<AND>".join(parts), " and ".join(parts)) == 1


@pytest.mark.parametrize("skill", ["both", "count", "place", "grid", "number"])
def test_right_answers_of_the_toy_tasks_are_all_right_and_another_scenes_are_not(skill):
    first = draw_scene(0, "x", skill, 0).questions["open"].answer
    others = {draw_scene(0, "x", skill, i).questions["open"].answer for i in range(30)} - {first}
    assert grade(first.replace(" ", "<AND>") if skill == "both" else first, first) == 1
    assert all(grade(first, other) < 1 for other in others)


def test_soups_line_to_a_judge_gets_its_grades_over_http(server):
    judge = EndpointJudge(server.url, MODEL, "NO_KEY")
    judge.check_reachable("mmvet")
    assert judge.ask(of_mmvet("What is it?", "red<AND>ring", "red"), 0, 3) == "0.5"


def test_it_refuses_to_play_a_model_that_it_is_not(server):
    with pytest.raises(EvaluatorError, match=r"404.*only toy-rule-judge"):
        EndpointJudge(server.url, "gpt-4", "NO_KEY").ask("Hello.", 0, 3)
    with pytest.raises(EvaluatorError, match=r"422.*of MathVista and MM-Vet; this is none of them"):
        EndpointJudge(server.url, MODEL, "NO_KEY").ask("Who wrote Faust?", 0, 3)


@pytest.mark.parametrize("data", [b"not JSON", b"{}", b"[]", b'{"model": "toy-rule-judge", "messages": []}'])
def test_what_is_no_chat_completion_is_refused(server, data):
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{server.url}/chat/completions", data)
    with caught.value as error:
        assert error.code == 400


def test_another_path_is_refused_and_models_are_listed(server):
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{server.url}/embeddings", b"{}")
    caught.value.close()
    with urllib.request.urlopen(f"{server.url}/models") as answer:
        assert [model["id"] for model in json.load(answer)["data"]] == [MODEL]


def test_the_port_is_the_same_the_next_time_unless_it_is_taken(tmp_path, capsys):
    file = tmp_path / "work" / "judge.port"
    with open_server(JudgeServer, file) as first:
        port = first.server_port
        assert file.read_text() == f"{port}\n"
        with open_server(JudgeServer, file) as second:
            assert second.server_port != port
            assert f"Port {port} is taken" in capsys.readouterr().err
            assert file.read_text() == f"{second.server_port}\n"
    with open_server(JudgeServer, file) as third:
        assert third.server_port == second.server_port


def test_a_process_tells_its_url_first_and_ends_with_whoever_started_it(tmp_path):
    line = f'"{sys.executable}" -m finetune.toy.judge >"{tmp_path}/url" & echo $! >"{tmp_path}/pid"; cat'
    shell = subprocess.Popen(["sh", "-c", line], stdin=subprocess.PIPE, start_new_session=True)
    url = waited_for(lambda: (tmp_path / "url").is_file() and (tmp_path / "url").read_text())
    EndpointJudge(url.strip(), MODEL, "NO_KEY").check_reachable("mmvet")
    process = int((tmp_path / "pid").read_text())
    assert not is_gone(process)
    shell.send_signal(signal.SIGKILL)  # no trap could help
    shell.communicate()
    assert waited_for(lambda: is_gone(process))


def waited_for(look, seconds=300):
    until = time.monotonic() + seconds
    while not (value := look()):
        assert time.monotonic() < until, "never came"
        time.sleep(0.05)
    return value


def is_gone(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False
