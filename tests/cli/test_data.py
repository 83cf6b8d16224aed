"""`soup data ...`, with tiny checkpoints, as a user types it."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args

import pytest
from click.testing import CliRunner

from evaluators.answering.engines.transformers import TransformersModel
from finetune.config import DataSet
from finetune.data.capfusion import read_prompt
from soup.cli.app import cli
from soup.cli.data import FORMATS
from soup.errors import EvaluatorError, SoupError
from tests.evaluators.vlmeval.test_local_judge import save_language_model
from tests.helpers.scripted_models import JudgeServer
from tests.helpers.toy_pools import make_checkpoint
from tests.helpers.vlm_families import noise, save_family

pytestmark = [pytest.mark.usefixtures("one_thread")]
ANSWERS = ["a tree", "a red house", "xq 88-1", "a tree by the sea", "two trees"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_family("llava", tmp_path / "vlm", 0)
    rows = []
    for i, answer in enumerate(ANSWERS):
        noise(tmp_path / f"{i}.png", (40 + i, 60), i, "RGB")
        turns = [{"from": "human", "value": "<image>\nDescribe it."}, {"from": "gpt", "value": answer}]
        rows.append({"image": f"{i}.png", "conversations": turns})
    rows.append({**rows[0], "image": "none.png"})
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def run(*words):
    return CliRunner().invoke(cli, ["data", *words], catch_exceptions=False)


FILTER = ("filter", "in.jsonl", "-o", "out/kept.jsonl", "--model", "vlm")


def test_a_filter_keeps_the_likeliest_and_writes_scores_and_a_report(here):
    plan = json.loads(run(*FILTER, "--dry-run", "--json").stdout)
    assert (plan["rows"], plan["scored_before"], (here / "out").exists()) == (6, 0, False)
    report = json.loads(run(*FILTER, "--keep", "0.5", "--json").stdout)
    assert (report["scored"], report["failed"], report["kept"]["rows"]) == (5, 1, 3)
    kept = [json.loads(line) for line in (here / "out/kept.jsonl").read_text().splitlines()]
    scores = [json.loads(line) for line in (here / "out/kept.scores.jsonl").read_text().splitlines()[1:]]
    by_loss = sorted((line["loss"], ANSWERS[line["row"]]) for line in scores if "loss" in line)
    assert [row["conversations"][1]["value"] for row in kept] == [answer for _, answer in by_loss[:3]]
    assert kept[0]["image"].startswith("../")
    assert "<svg" in (here / "out/kept.report.html").read_text()
    assert json.loads(run(*FILTER, "--dry-run", "--json").stdout)["scored_before"] == 5


@pytest.mark.parametrize("address", ["10.0.0.1:6379", "local"])
def test_scores_have_the_device_of_the_actors_and_are_not_mixed_with_those_of_this_processor(
    here, monkeypatch, address
):
    run(*FILTER)
    words = (*FILTER, "--ray", address, "--dry-run", "--json")
    asked = []
    monkeypatch.setattr("soup.search.workers.ray.actor_device", lambda address: asked.append(address) or "cpu")
    assert json.loads(run(*words).stdout)["scored_before"] == 5
    assert asked == [address]
    monkeypatch.setattr("soup.search.workers.ray.actor_device", lambda address: "cuda")
    with pytest.raises(SoupError, match=r"kept\.scores\.jsonl: was made otherwise \(device was cpu, is cuda\)"):
        run(*words)


COLUMNS = ("--column", "question=Q", "--column", "answer=the=answer", "--column", "image=picture")


@pytest.fixture
def with_other_columns(here):
    rows = [json.loads(line) for line in (here / "in.jsonl").read_text().splitlines()]
    other = [
        {"Q": "Describe it.", "the=answer": row["conversations"][1]["value"], "picture": row["image"]} for row in rows
    ]
    (here / "other.jsonl").write_text("".join(json.dumps(row) + "\n" for row in other))
    return here


def test_a_filter_reads_columns_of_other_names_and_keeps_rows_as_they_are(with_other_columns):
    here = with_other_columns
    words = ("filter", "other.jsonl", "-o", "out/other.jsonl", "--model", "vlm", "--keep", "1", "--json")
    assert json.loads(run(*words, *COLUMNS).stdout)["scored"] == 5
    rows = [json.loads(line) for line in (here / "out/other.jsonl").read_text().splitlines()]
    assert {row["the=answer"] for row in rows} == {*ANSWERS}
    assert all({*row} == {"Q", "the=answer", "picture"} and (here / "out" / row["picture"]).is_file() for row in rows)
    run(*FILTER, "--keep", "1")
    losses = [
        [line["loss"] for line in map(json.loads, (here / f"out/{name}.scores.jsonl").read_text().splitlines()[1:6])]
        for name in ("kept", "other")
    ]
    assert losses[0] == losses[1]
    with pytest.raises(SoupError, match=r"otherwise \(columns was .*'the=answer'.*, is not set"):
        run(*words)


def test_a_data_set_of_the_hub_is_read_by_its_configuration_and_split(here, monkeypatch):
    import datasets

    asked = []
    table = datasets.Dataset.from_dict({"question": ["What?"], "answer": ["a tree"]})
    monkeypatch.setattr(datasets, "load_dataset", lambda *words, **more: asked.append((words, more)) or table)
    words = ("filter", "org/rows", "-o", "kept.jsonl", "--model", "vlm", "--name", "en", "--split", "test")
    assert json.loads(run(*words, "--dry-run", "--json").stdout)["rows"] == 1
    assert asked == [(("org/rows", "en"), {"split": "test"})]


def test_new_captions_go_where_the_rows_own_are(with_other_columns):
    with JudgeServer(lambda prompt, temperature: "A tree.") as server:
        words = ("capfuse", "other.jsonl", "-o", "out/fused.jsonl", "--captioner", server.url, "--json")
        assert json.loads(run(*words, *COLUMNS).stdout)["written"] == 5
    rows = [json.loads(line) for line in (with_other_columns / "out/fused.jsonl").read_text().splitlines()]
    assert {row["the=answer"] for row in rows} == {"A tree."}
    assert [row["captions"]["raw"] for row in rows] == ANSWERS
    assert all((with_other_columns / "out" / row["picture"]).is_file() for row in rows)


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        (("questoin=Q",), "in.jsonl: columns.questoin: unknown key. Did you mean 'question'?"),
        (("question=Q",), "no Q in it; found image, conversations"),
    ],
)
def test_columns_that_are_wrong_are_told(here, columns, why):
    with pytest.raises(SoupError, match=re.escape(why)):
        run(*FILTER, *(word for column in columns for word in ("--column", column)))


@pytest.mark.parametrize("column", ["question", "question=", "=Q"])
def test_a_column_without_a_name_is_wrong_usage(here, column):
    done = run(*FILTER, "--column", column)
    assert (done.exit_code, f"'{column}': expected OURS=THEIRS" in done.output) == (2, True)


def test_formats_are_those_of_training():
    assert get_args(get_args(DataSet.model_fields["format"].annotation)[0]) == FORMATS


@pytest.mark.slow
def test_a_filter_on_ray_that_is_stopped_goes_on_and_writes_the_file_of_one_process(here):
    pytest.importorskip("ray")
    turns = [{"from": "human", "value": "<image>\nDescribe it."}, {"from": "gpt", "value": ""}]
    rows = [
        {"image": f"{i % 5}.png", "conversations": [turns[0], {**turns[1], "value": f"{ANSWERS[i % 5]} {i}"}]}
        for i in range(300)
    ]
    (here / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    random.Random(3).shuffle(rows)
    (here / "shuffled.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run(*FILTER)
    line = [sys.executable, "-m", "soup", "data", "filter", "shuffled.jsonl", "-o", "ray/kept.jsonl", "--model", "vlm"]
    line += ["--ray", "local", "--workers", "2"]
    scores = here / "ray/kept.scores.jsonl"
    process = subprocess.Popen(line, start_new_session=True, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 300
    while (not scores.exists() or len(scores.read_text().splitlines()) < 5) and time.monotonic() < until:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C in a terminal does
    assert process.communicate(timeout=60)[1].splitlines()[-1].startswith("interrupted")
    assert (process.returncode, (here / "ray/kept.jsonl").exists()) == (130, False)
    known = len(scores.read_text().splitlines()) - 1
    assert 3 < known < 300
    done = subprocess.run([*line, "--json"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["scored"] == 300
    assert (here / "ray/kept.jsonl").read_bytes() == (here / "out/kept.jsonl").read_bytes()


def test_a_request_takes_the_place_of_the_rows_own_question(here):
    (here / "request.txt").write_text("What is to be seen?\n")
    own = run(*FILTER, "--json")
    other = run("filter", "in.jsonl", "-o", "other.jsonl", "--model", "vlm", "--request", "request.txt", "--json")
    perplexities = [json.loads(done.stdout)["kept"]["perplexity"] for done in (own, other)]
    assert perplexities[0] != perplexities[1]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("in.jsonl", "-o", "kept.json", "--model", "vlm"), "ends in .jsonl"),
        (("in.jsonl", "-o", "in.jsonl", "--model", "vlm"), "no earlier run of this command made it"),
        (("none.jsonl", "-o", "kept.jsonl", "--model", "vlm"), "there is no such file"),
        (("in.jsonl", "-o", "kept.jsonl", "--model", "no vlm"), "no such directory"),
        (("in.jsonl", "-o", "kept.jsonl", "--model", "vlm", "--keep", "0"), "a share of rows"),
        (("in.jsonl", "-o", "kept.jsonl", "--model", "vlm", "--keep-below", "0.5"), "above 1"),
        (("in.jsonl", "-o", "kept.jsonl", "--model", "vlm", "--request", "none.txt"), "none.txt: can't be read"),
    ],
)
def test_bad_input_is_told_in_a_sentence_and_nothing_is_written(here, words, why):
    before = {path.name for path in here.iterdir()}
    with pytest.raises(SoupError, match=why):
        run("filter", *words)
    assert {path.name for path in here.iterdir()} == before


def test_an_output_within_a_folder_of_rows_is_refused_for_the_next_run_would_read_it(here):
    (here / "rows").mkdir()
    (here / "in.jsonl").rename(here / "rows/in.jsonl")
    for command in (("filter", "--model", "vlm"), ("capfuse", "--captioner", "vlm")):
        with pytest.raises(SoupError, match=r"rows/sub/kept\.jsonl: lies in the input rows, and would be read as part"):
            run(command[0], "rows", "-o", "rows/sub/kept.jsonl", *command[1:])
    (here / "rows/in.jsonl").rename(here / "rows/data.json")
    plan = json.loads(run("filter", "rows", "-o", "rows/kept.jsonl", "--model", "vlm", "--dry-run", "--json").stdout)
    assert plan["rows"] == 6


@pytest.mark.parametrize(("command", "model"), [("filter", "--model"), ("capfuse", "--captioner")])
def test_files_of_rows_beside_data_json_are_told_but_not_those_that_the_command_makes(here, command, model):
    (here / "rows").mkdir()
    for name in ("0.png", "1.png", "2.png", "3.png", "4.png"):
        (here / name).rename(here / "rows" / name)
    (here / "in.jsonl").rename(here / "rows/data.json")
    words = (command, "rows", "-o", "rows/made.jsonl", model, "vlm")
    assert "data.json alone" not in run(*words).stderr
    assert "data.json alone" not in run(*words).stderr
    (here / "rows/more.jsonl").write_text("{}\n")
    told = " ".join(run(*words, "--dry-run").stderr.split())
    assert "data rows: data.json alone is read, not more.jsonl; name a file to have it read" in told


@pytest.fixture
def language_model(here):
    return save_language_model(here / "llm", 0)


CAPFUSE = ("capfuse", "in.jsonl", "-o", "fused.jsonl")


def test_tiny_checkpoints_caption_and_fuse(here, language_model):
    plan = json.loads(run(*CAPFUSE, "--captioner", "vlm", "--fuser", "llm", "--dry-run", "--json").stdout)
    assert (plan["rows"], plan["written_before"]) == (6, 0)
    report = json.loads(run(*CAPFUSE, "--captioner", "vlm", "--fuser", "llm", "--json").stdout)
    assert (report["written"], report["failed"]) == (5, 1)
    rows = [json.loads(line) for line in (here / "fused.jsonl").read_text().splitlines()]
    assert [row["captions"]["raw"] for row in rows] == ANSWERS
    model = TransformersModel(here / "vlm", max_new_tokens=256)
    prompt = [{"type": "image", "value": "2.png"}, {"type": "text", "value": read_prompt("caption")}]
    assert rows[2]["captions"]["synthetic"] == model.answer([prompt])[0].strip()
    assert {row["written_by"]["fused"] for row in rows} == {"llm"}


def test_an_endpoint_captions_and_fuses_and_nothing_is_asked_twice(here):
    def reply(prompt, temperature):
        return "A tree of the sea." if len(prompt) == 2 else f"fused: {prompt[0]['text'].splitlines()[2]}"

    with JudgeServer(reply) as server:
        words = ("--captioner", server.url, "--fuser", server.url, "--json")
        report = json.loads(run(*CAPFUSE, *words).stdout)
        asked = len(server.bodies)
        again = json.loads(run(*CAPFUSE, *words).stdout)
        assert len(server.bodies) == asked == 10
    assert report == again
    [first, *_] = [json.loads(line) for line in (here / "fused.jsonl").read_text().splitlines()]
    assert first["conversations"][1]["value"] == "fused: Web caption: a tree"
    assert first["written_by"] == {"synthetic": "a-model", "fused": "a-model"}


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--captioner", "no vlm"), "no vlm: expected a checkpoint's directory, or the address of an endpoint"),
        (("--fuser", "no llm"), "no llm: expected a checkpoint's directory"),
        (("--captioner", "vlm", "--captioner-model", "x"), "has no models of other names"),
        (("--captioner", "vlm", "--caption-prompt", "0.png"), "0.png: can't be read as text"),
    ],
)
def test_what_can_t_write_captions_is_told_in_a_sentence(here, words, why):
    with pytest.raises(SoupError, match=why):
        run(*CAPFUSE, *words)


def test_nothing_to_write_captions_with_is_wrong_usage(here):
    done = CliRunner().invoke(cli, ["data", *CAPFUSE])
    assert (done.exit_code, "expected --captioner, --fuser, or both" in done.output) == (2, True)


def test_a_model_without_a_processor_is_refused_by_one_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_checkpoint("toy")
    Path("rows.jsonl").write_text(json.dumps({"id": "a", "conversations": [{"from": "human", "value": "What?"}]}))
    done = CliRunner().invoke(cli, ["data", "filter", "rows.jsonl", "-o", "kept.jsonl", "--model", "toy"])
    assert isinstance(done.exception, EvaluatorError)
    assert str(done.exception).startswith("toy: transformers can't open its processor (")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--engine", "openai"], "--engine openai: gives no losses; expected transformers or vllm"),
        (["--engine", "vllm", "--workers", "2"], "--workers and --ray are for --engine transformers"),
        (["--engine", "vllm", "--ray", "local"], "--workers and --ray are for --engine transformers"),
    ],
)
def test_an_engine_that_gives_no_losses_and_workers_beside_vllm_are_refused(words, message):
    done = CliRunner().invoke(cli, ["data", "filter", "rows.jsonl", "-o", "kept.jsonl", "--model", "toy", *words])
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())
