"""The demo: its models are transformers' own to the last bit of a logit, and its scores are what their weights say."""

from __future__ import annotations

import io
import json
import re

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from soup.demo.family import FINE_TUNES, write_family
from soup.demo.model import LEARNT, WORDS, answer_logits
from soup.demo.pictures import ANSWERS, draw_pictures, png_file
from soup.demo.quiz import QUESTIONS, Quiz
from soup.errors import EvaluatorError
from soup.evaluation.api import AskedModel, Benchmark
from soup.evaluation.settings import EvalSettings
from soup.testing import check_evaluator, tiny_candidate, tiny_checkpoint
from tests.docs.pages import ROOT, blocks, text_of
from tests.helpers.forked_cli import one_threaded_forge

TUTORIAL = blocks(ROOT / "docs/tutorial.md", "text")[-1].splitlines()
"""What the ten-minute tutorial shows of the demo's output; `...` stands for the end of a line."""


def is_printed(line, output):
    """Whether a line of the tutorial was printed, with columns that it leaves out or without."""
    cells = map(re.escape, re.split(r" {2,}", line.removesuffix(" ...")))
    return re.search(rf"^{' .*'.join(cells)}", output, re.MULTILINE) is not None


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    folder = tmp_path_factory.mktemp("family")
    write_family(folder / "base", folder / "ckpts")
    return folder


def score(checkpoint, subject, scratch):
    benchmark = Benchmark(f"demo:{subject}", "demo", subject)
    with tiny_candidate(checkpoint, scratch) as candidate:
        return Quiz(EvalSettings()).evaluate(candidate, benchmark)


def test_transformers_loads_a_model_whole_and_gives_the_same_logits(family):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    checkpoint = family / "ckpts" / "mixture"
    model, loaded = AutoModelForImageTextToText.from_pretrained(
        checkpoint, output_loading_info=True, dtype=torch.float32
    )
    assert not any(loaded.values())
    processor = AutoProcessor.from_pretrained(checkpoint)
    pixels, _ = draw_pictures(8, seed=7)
    ours = answer_logits(load_file(checkpoint / "model.safetensors"), pixels)
    for picture, expected in zip(pixels, ours, strict=True):
        image = Image.open(io.BytesIO(png_file(picture)))
        inputs = processor(images=image, text="what colour ? <image>", return_tensors="pt")
        with torch.no_grad():
            torch.testing.assert_close(model(**inputs).logits[0, -1], expected)
        answer = model.generate(**inputs, max_new_tokens=9, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        assert processor.decode(answer).split() == [WORDS[int(expected.argmax())], "<eos>"]


def test_each_fine_tune_learnt_what_it_was_shown_and_the_one_with_wrong_labels_lost_all(family, tmp_path):
    names = [job.name for job in FINE_TUNES]
    overall = dict.fromkeys(["base", *names], 0.0)
    for subject in ANSWERS:
        value = {"base": score(family / "base", subject, tmp_path / "s").value}
        value |= {name: score(family / "ckpts" / name, subject, tmp_path / "s").value for name in names}
        (job_name,) = (job.name for job in FINE_TUNES if job.subjects == (subject,))
        assert value[job_name] > value["base"] + 15
        assert value["wrong-labels"] < value["base"] - 15
        overall = {name: overall[name] + value[name] / 3 for name in overall}
    assert max(overall, key=lambda name: overall[name]) == "mixture"


def test_a_score_follows_the_weights(family, tmp_path):
    state = load_file(family / "ckpts" / "colours" / "model.safetensors")
    write_family(tmp_path / "base", tmp_path / "ckpts")
    weights = tmp_path / "base" / "model.safetensors"
    save_file({**state, LEARNT: -state[LEARNT]}, weights)
    opposite = score(tmp_path / "base", "colour", tmp_path / "s").value
    assert opposite < 10 < 80 < score(family / "ckpts" / "colours", "colour", tmp_path / "s").value


def test_the_family_is_the_same_bytes_again_and_what_is_there_stays(family, tmp_path):
    write_family(tmp_path / "base", tmp_path / "ckpts")
    paths = [path.relative_to(family) for path in sorted(family.rglob("*")) if path.is_file()]
    assert all((tmp_path / path).read_bytes() == (family / path).read_bytes() for path in paths)
    (tmp_path / "base" / "config.json").write_text("{}")
    write_family(tmp_path / "base", tmp_path / "ckpts")
    assert (tmp_path / "base" / "config.json").read_text() == "{}"


def test_the_quiz_is_an_evaluator_that_refuses_other_models(family, tmp_path):
    benchmark = Benchmark("demo:shape", "demo", "shape")
    with (
        tiny_candidate(family / "base", tmp_path / "s") as candidate,
        tiny_candidate(tiny_checkpoint(tmp_path / "another"), tmp_path / "t") as failing,
    ):
        result = check_evaluator(Quiz, benchmark, candidate, failing=failing)
        assert result.n == QUESTIONS
        (shown,) = Quiz(EvalSettings()).show(benchmark, ["3"], [AskedModel("", candidate.kept, {})]).values()
        assert (shown.answers[0] == shown.reference) == (result.questions["3"] == 1)
    with pytest.raises(EvaluatorError, match="Did you mean 'shape'"):
        Quiz(EvalSettings()).identity(Benchmark("demo:shapes", "demo", "shapes"))


def test_a_png_file_holds_the_picture():
    (picture, *_), _ = draw_pictures(1, seed=3)
    with Image.open(io.BytesIO(png_file(picture))) as image:
        assert image.mode == "RGB"
        assert list(image.tobytes()) == picture.permute(1, 2, 0).flatten().tolist()


def test_a_dry_run_names_the_commands_and_writes_nothing(tmp_path, monkeypatch):
    with one_threaded_forge(monkeypatch) as forge:
        plan = forge("demo", "here", "--dry-run", cwd=tmp_path)
        document = json.loads(forge("demo", "here", "--dry-run", "--json", cwd=tmp_path).stdout)
    head, *commands = plan.stdout.splitlines()
    assert (plan.code, plan.stderr) == (0, "")
    assert head.endswith("into here/, and then:")
    assert commands == document["commands"]
    assert [line.split()[1] for line in commands] == ["check", "eval", "average", "greedy", "report"]
    assert list(tmp_path.iterdir()) == []


def test_the_command_shows_what_it_runs_and_ends_with_the_table_the_page_and_what_to_type_next(tmp_path, monkeypatch):
    with one_threaded_forge(monkeypatch) as forge:
        ended = forge("demo", cwd=tmp_path)
        again = forge("demo", "--json", cwd=tmp_path)
        quiet = forge("demo", "--quiet", cwd=tmp_path)
    assert ended.code == 0, ended
    *table, _, page, following = ended.stdout.splitlines()
    scores = {
        line.split()[0]: float(line.split()[4]) for line in table if line.split()[0] in ("average", "greedy", "mixture")
    }
    assert scores["greedy"] > scores["mixture"] + 2  # on the questions that chose nothing: the last table
    assert page == f"The page of this run: {tmp_path / 'soup-demo' / 'report.html'}"
    assert following.startswith("Next: soup greedy --pool ")
    assert ended.stderr.count("\n$ soup ") == 5
    assert [line for line in TUTORIAL if not is_printed(line, ended.stderr)] == []
    overalls = [scores["average"], scores["greedy"], scores["mixture"]]
    assert "{:.2f} on the questions that report, greedy's soup of four {:.2f}, the best single model {:.2f}".format(
        *overalls
    ) in re.sub(r"\s+", " ", text_of(ROOT / "docs/tutorial.md"))
    html = (tmp_path / "soup-demo" / "report.html").read_text(encoding="utf-8")
    assert "data:image/png;base64," in html
    document = json.loads(again.stdout)
    assert (tmp_path / document["page"]).is_file()
    assert {row["name"] for row in document["rows"]} >= {"base", "average", "greedy", "mixture"}
    assert "greedy: at most" in ended.stderr
    assert re.search(r"; \d+\.\d s\)", ended.stderr)
    assert not re.search(r"; \d+\.\d s\)", again.stderr), "every score is remembered"
    assert (quiet.stdout, quiet.stderr) == (ended.stdout, "")
