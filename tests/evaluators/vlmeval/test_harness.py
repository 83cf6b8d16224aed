from __future__ import annotations

import csv
import json
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from evaluators.vlmeval.benchmarks import BENCHMARKS
from evaluators.vlmeval.harness import VLMEval
from evaluators.vlmeval.reading_answers import AnswerRemarks, final_answer
from evaluators.vlmeval_version import version
from soup.errors import EvaluatorError
from soup.evaluation.api import Benchmark, Evaluator, Split
from soup.evaluation.settings import EvalSettings
from tests.helpers.scripted_models import SCRIPTED, plain_vlmeval, scripted
from tests.helpers.toy_test_sets import (
    CIRCLE,
    ODD,
    TOYS,
    mmbench_rows,
    mmstar_rows,
    ocrbench_rows,
    png,
    predictions,
    right,
    write_tsv,
)

MMBENCH = Benchmark("mmbench", "vlmeval", "mmbench")
OCRBENCH = Benchmark("ocrbench", "vlmeval", "ocrbench")


@pytest.fixture(autouse=True)
def nothing_leaves_this_machine(monkeypatch):
    def refuse(*_, **__):
        pytest.fail("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr("urllib.request.urlretrieve", refuse)


@pytest.fixture
def data(tmp_path, monkeypatch):
    """The rows of the two toy test sets, which lie where LMUData says."""
    rows = {"mmbench": mmbench_rows(30), "ocrbench": ocrbench_rows(40)}
    root = tmp_path / "LMUData"
    write_tsv(root / "MMBench_DEV_EN.tsv", rows["mmbench"])
    write_tsv(root / "OCRBench.tsv", rows["ocrbench"])
    monkeypatch.setenv("LMUData", str(root))
    return rows


@pytest.fixture
def settings(tmp_path):
    file = tmp_path / "model.py"
    file.write_text(SCRIPTED)
    return EvalSettings(model=f"{file}:Scripted", batch_size=7)


def notes(settings):
    return Path(settings.model.rpartition(":")[0]).with_suffix(".notes").read_text().split("\n")[:-1]


def test_every_single_odd_answer_is_judged_as_vlmeval_judges_it(data, settings, tmp_path, monkeypatch):
    # One question, one odd cell, the rest right: no sum in which two mistakes could cancel out.
    write_tsv(tmp_path / "LMUData" / "OCRBench.tsv", rows := ocrbench_rows(2))
    for number, odd in enumerate([*ODD, "Text 0!", "text 0!", "It says: TEXT 0!\n"]):
        answers = {**right(rows), 0: odd}
        score = VLMEval(settings).evaluate(scripted(tmp_path, answers, name=f"m{number}"), OCRBENCH)
        assert score.value == plain_vlmeval(BENCHMARKS["ocrbench"], answers, tmp_path / f"o{number}", monkeypatch)
        assert score.n == 2


def test_leading_zeros_count_though_all_answers_look_like_numbers(data, settings, tmp_path, monkeypatch):
    # Pandas would read a column of nothing but numbers as numbers: 00007 becomes 7, and a right answer a wrong one.
    answers = {row["index"]: f"{row['index']:05d}" for row in data["ocrbench"]}
    assert VLMEval(settings).evaluate(scripted(tmp_path, answers), OCRBENCH).value == 100
    assert plain_vlmeval(BENCHMARKS["ocrbench"], answers, tmp_path / "o", monkeypatch) < 100


def test_on_the_standard_thousand_ocrbench_is_final_score_by_ten(data, settings, tmp_path):
    write_tsv(tmp_path / "LMUData" / "OCRBench.tsv", rows := ocrbench_rows(1000))
    answers = {index: answer if index < 706 else "?" for index, answer in right(rows).items()}
    score = VLMEval(settings).evaluate(scripted(tmp_path, answers), OCRBENCH)
    assert (score.value, score.n) == (70.6, 1000)
    assert score.questions["705"] == 1
    assert score.questions["706"] == 0


def test_a_question_is_asked_no_further_after_its_first_wrong_rotation(data, settings, tmp_path):
    rows = data["mmbench"]
    answers = right(rows)
    for row in rows:
        if row["index"] % 2:
            answers[row["index"]] = "D" if row["answer"] != "D" else "C"
    candidate = scripted(tmp_path, answers)
    score = VLMEval(settings).evaluate(candidate, MMBENCH)
    asked = sum(int(note.split()[1]) for note in notes(settings) if note.startswith("asked"))
    assert score.value == 50
    assert asked == 15 + 15 * 4  # of the odd questions (3 rotations each) the first alone, of the even ones all 4
    assert len(rows) == 15 * 3 + 15 * 4


def test_a_missing_answer_is_an_error_and_never_a_zero(data, settings, tmp_path):
    for kind, words in {
        "TooFew": "expected 7 answers, found 6",
        "Nothing": "answer 0: None",
        "OneText": "expected a list of str, found str",
        "Broken": r"(?s)batch of 7 prompts, the first '.* with .*\.(png|jpg):\n.*the model is on fire",
    }.items():
        broken = EvalSettings(model=settings.model.replace("Scripted", kind), batch_size=7)
        with pytest.raises(EvaluatorError, match=words):
            VLMEval(broken).evaluate(scripted(tmp_path, right(data["mmbench"]), name=kind), MMBENCH)


def test_one_model_serves_both_benchmarks_and_splits_of_a_candidate(data, settings, tmp_path):
    candidate = scripted(tmp_path, {**right(data["ocrbench"]), **right(data["mmbench"])})
    judge = VLMEval(settings)
    for part in ("selection", "report"):
        judge.evaluate(scripted_again(candidate, part), Benchmark("mmbench", "vlmeval", "mmbench", Split(part, 0.5)))
    judge.evaluate(scripted_again(candidate, "ocr"), OCRBENCH)
    assert [note for note in notes(settings) if note.startswith("built")] == ["built m"]


def test_how_many_prompts_are_answered_is_told_batch_by_batch_and_remembered_ones_count(data, settings, tmp_path):
    candidate = scripted(tmp_path, right(data["ocrbench"]))
    half = Benchmark("ocrbench", "vlmeval", "ocrbench", Split("selection", 0.5))
    VLMEval(settings).evaluate(candidate, half)
    of = candidate.progress[-1][1]
    assert [count for count, _ in candidate.progress] == [*range(7, of, 7), of]
    candidate.progress.clear()
    again = scripted_again(candidate, "again")
    again.scratch.with_name("again.kept").symlink_to(candidate.kept)
    VLMEval(settings).evaluate(again, OCRBENCH)
    assert [count for count, _ in again.progress] == [*range(of + 7, 40, 7), 40]
    assert {total for _, total in again.progress} == {40}


def scripted_again(candidate, name):
    """The same candidate in another evaluation, with its own fresh scratch."""
    scratch = candidate.scratch / name
    scratch.mkdir()
    return type(candidate)(candidate.path, scratch, candidate.digest)


def test_an_earlier_model_of_the_same_name_leaves_nothing_behind(data, settings, tmp_path):
    judge = VLMEval(settings)
    first = scripted(tmp_path / "first", right(data["ocrbench"]), name="same")
    second = scripted(tmp_path / "second", dict.fromkeys(right(data["ocrbench"]), "?"), name="same")
    second.digest = "another"
    assert judge.evaluate(first, OCRBENCH).value == 100
    assert judge.evaluate(second, OCRBENCH).value == 0


@pytest.mark.parametrize("benchmark", [MMBENCH, OCRBENCH], ids=lambda benchmark: benchmark.name)
def test_the_two_halves_of_a_split_are_the_whole_and_keep_rotations_together(benchmark, data, settings, tmp_path):
    rows, judge = data[benchmark.name], VLMEval(settings)
    answers = predictions("half right", rows)
    whole = judge.evaluate(scripted(tmp_path, answers), benchmark)
    halves = {}
    for part in ("selection", "report"):
        split = Benchmark(benchmark.name, "vlmeval", benchmark.name, Split(part, 0.5))
        halves[part] = judge.evaluate(scripted(tmp_path, answers, name=part), split)
        wrong = judge.evaluate(scripted(tmp_path, dict.fromkeys(answers, "?"), name=f"{part}-wrong"), split)
        assert set(wrong.questions) == set(halves[part].questions)  # the same questions for every model
        assert all(split.split.holds(question) for question in wrong.questions)
    assert {**halves["selection"].questions, **halves["report"].questions} == whole.questions
    assert halves["selection"].n + halves["report"].n == whole.n
    assert min(halves["selection"].n, halves["report"].n) > 5


def test_a_split_without_questions_is_an_error(data, settings, tmp_path):
    write_tsv(tmp_path / "LMUData" / "OCRBench.tsv", ocrbench_rows(1))
    empty = "report" if Split("selection", 0.5).holds("0") else "selection"
    with pytest.raises(EvaluatorError, match=f"no question .* {empty}"):
        VLMEval(settings).identity(Benchmark("ocrbench", "vlmeval", "ocrbench", Split(empty, 0.5)))


def test_images_are_the_files_own_bytes_and_never_an_older_files(data, settings, tmp_path):
    import base64

    judge = VLMEval(settings)
    data_set = judge._data_set(BENCHMARKS["mmbench"], MMBENCH)
    rows = {row["index"]: row for row in data["mmbench"]}
    for position, index in enumerate(data_set.data["index"]):
        path = shown_image(judge, data_set.build_prompt(data_set.data.iloc[position]))
        assert path.read_bytes() == base64.b64decode(rows[index % CIRCLE]["image"])  # rotations refer to the first
    changed = mmbench_rows(30)
    changed[0]["image"] = png((250, 250, 250))
    write_tsv(tmp_path / "LMUData" / "MMBench_DEV_EN.tsv", changed)
    data_set = judge._data_set(BENCHMARKS["mmbench"], MMBENCH)
    path = shown_image(judge, data_set.build_prompt(data_set.data.iloc[0]))
    assert path.read_bytes() == base64.b64decode(png((250, 250, 250)))
    assert not (tmp_path / "LMUData" / "images").exists()


def shown_image(judge, prompt):
    """The file of a prompt's first image, written as before the model is asked."""
    judge._images.start_writing([prompt])()
    return Path(prompt[0]["value"])


def test_an_image_becomes_a_file_only_when_a_model_is_to_see_it(data, settings, tmp_path):
    candidate = scripted(tmp_path, right(data["mmbench"]))
    asked, kept = VLMEval(settings), VLMEval(settings)
    for judge in (asked, kept):
        assert judge.evaluate(candidate, MMBENCH).value == 100
    assert sum(path.is_file() for path in asked._images.directory.rglob("*")) == 30
    assert not [*kept._images.directory.iterdir()]


def test_the_prompt_is_vlmevals_own(data, settings, monkeypatch):
    benchmark = BENCHMARKS["mmbench"]
    monkeypatch.delitem(benchmark.data_set_class().DATASET_MD5, benchmark.data_set)
    theirs = benchmark.data_set_class()(dataset=benchmark.data_set)
    ours = VLMEval(settings)._data_set(benchmark, MMBENCH)
    monkeypatch.setattr(type(theirs), "dump_image", lambda self, line: ["p"])
    for position in range(len(theirs.data)):
        text = theirs.build_prompt(theirs.data.iloc[position])[-1]
        assert ours.build_prompt(ours.data.iloc[position])[-1] == text
    assert "Please select the correct answer" in text["value"]


def test_the_identity_tells_version_data_and_model_and_changes_with_them(data, settings, tmp_path):
    judge = VLMEval(settings)
    assert isinstance(judge, Evaluator)
    before = judge.identity(OCRBENCH)
    assert json.loads(json.dumps(before)) == before
    assert before["version"] == version()
    assert before == judge.identity(OCRBENCH) == VLMEval(settings).identity(OCRBENCH)
    write_tsv(tmp_path / "LMUData" / "OCRBench.tsv", ocrbench_rows(41))
    after = judge.identity(OCRBENCH)
    assert {name for name in before if before[name] != after[name]} == {"data"}
    Path(settings.model.rpartition(":")[0]).write_text(SCRIPTED + "\n# another model")
    assert VLMEval(settings).identity(OCRBENCH)["answering"] != after["answering"]


def test_local_data_of_another_md5_are_used_as_they_are(data, settings, tmp_path):
    file = tmp_path / "LMUData" / "OCRBench.tsv"
    before = file.read_bytes()
    VLMEval(settings).identity(OCRBENCH)
    assert file.read_bytes() == before
    assert sorted(path.name for path in file.parent.iterdir()) == ["MMBench_DEV_EN.tsv", "OCRBench.tsv"]


def test_missing_data_are_told_with_their_source_before_anything_runs(data, settings, tmp_path, monkeypatch):
    (tmp_path / "LMUData" / "OCRBench.tsv").unlink()
    url = BENCHMARKS["ocrbench"].data_set_class().DATASET_URL["OCRBench"]
    with pytest.raises(EvaluatorError) as caught:
        VLMEval(settings).identity(OCRBENCH)
    for words in (str(tmp_path / "LMUData" / "OCRBench.tsv"), url, "LMUData", "ocrbench"):
        assert words in str(caught.value)
    monkeypatch.setenv("LMUData", str(tmp_path / "nowhere"))
    with pytest.raises(EvaluatorError, match=r"nowhere.*create it or unset LMUData"):
        VLMEval(settings).identity(OCRBENCH)
    assert not (tmp_path / "nowhere").exists()
    monkeypatch.delenv("LMUData")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with pytest.raises(EvaluatorError, match=r"home/LMUData/OCRBench\.tsv"):
        VLMEval(settings).identity(OCRBENCH)
    assert not (tmp_path / "home").exists()


def test_cells_that_vlmeval_would_execute_or_trip_over_are_listed(data, settings, tmp_path):
    marker = tmp_path / "executed"
    code = f"[open({str(marker)!r}, 'w').name]"
    rows = ocrbench_rows(9)
    rows[1]["answer"], rows[2]["answer"], rows[3]["answer"] = code, "12", "['a', 3]"
    rows[4]["image"], rows[5]["image"] = code, "4711"
    rows[7]["index"] = 6
    write_tsv(tmp_path / "LMUData" / "OCRBench.tsv", rows)
    with pytest.raises(EvaluatorError) as caught:
        VLMEval(settings).identity(OCRBENCH)
    message = str(caught.value)
    assert [row for row in range(9) if f"row {row}:" in message] == [1, 2, 3, 4, 5, 6]
    assert not marker.exists()
    rows = ocrbench_rows(3)
    rows[0]["index"] = f"open({str(marker)!r}, 'w')"
    write_tsv(tmp_path / "LMUData" / "OCRBench.tsv", rows)
    with pytest.raises(EvaluatorError, match="an index is a whole number"):
        VLMEval(settings).identity(OCRBENCH)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda rows: [row for row in rows if row["index"] != 2], "rotation of question 2, which is not there"),
        (lambda rows: [{**row, "split": "dev" if row["index"] % 2 else "test"} for row in rows], "found dev, test"),
        (lambda rows: [{**row, "split": None} for row in rows], "expected one value in all rows, found nan"),
        (lambda rows: [{k: v for k, v in row.items() if k not in ("A", "image")} for row in rows], "missing: A, image"),
        (lambda rows: [{**row, "g_index": "many"} for row in rows], "column g_index: expected whole numbers"),
    ],
    ids=["lost question", "two splits", "no split", "columns", "g_index"],
)
def test_a_damaged_mmbench_is_refused(damage, words, data, settings, tmp_path):
    write_tsv(tmp_path / "LMUData" / "MMBench_DEV_EN.tsv", damage(data["mmbench"]))
    with pytest.raises(EvaluatorError, match=words):
        VLMEval(settings).identity(MMBENCH)


def test_a_category_unknown_to_the_metric_is_told_before_anything_is_asked(data, settings, tmp_path):
    write_tsv(tmp_path / "LMUData" / "OCRBench.tsv", [{**row, "category": "Odes"} for row in data["ocrbench"]])
    with pytest.raises(EvaluatorError, match="categories unknown to VLMEvalKit: Odes"):
        VLMEval(settings).identity(OCRBENCH)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"index\tquestion\n"], ids=["empty", "no text", "no rows"])
def test_a_file_that_is_no_table_is_refused(content, data, settings, tmp_path):
    (tmp_path / "LMUData" / "OCRBench.tsv").write_bytes(content)
    with pytest.raises(EvaluatorError, match="OCRBench"):
        VLMEval(settings).identity(OCRBENCH)


def test_images_by_reference_survive_where_a_block_holds_nothing_else(data, settings, tmp_path, monkeypatch):
    # Real files are read in blocks: one with references alone becomes numbers, which pandas warns of.
    rows = mmbench_rows(4)
    filler = "x" * 60_000
    rows = [{**row, "comment": filler} for row in rows]
    write_tsv(tmp_path / "LMUData" / "MMBench_DEV_EN.tsv", rows)
    assert VLMEval(settings).evaluate(scripted(tmp_path, right(rows)), MMBENCH).value == 100


def test_nothing_is_written_outside_of_the_scratch_and_the_environment_stays(data, settings, tmp_path, monkeypatch):
    import os

    monkeypatch.setenv("PRED_FORMAT", "xlsx")
    monkeypatch.setenv("PRINT_VANILLA", "1")
    monkeypatch.setenv("VERBOSE", "1")  # VLMEvalKit then takes the A of a sentence for an article
    monkeypatch.chdir(tmp_path)
    outside = set(Path("/tmp").glob("20*.tsv"))
    answers = {index: f"The right option must be {answer}" for index, answer in right(data["mmbench"]).items()}
    candidate = scripted(tmp_path / "odd.tsv.name", answers)
    before = dict(os.environ)
    assert VLMEval(settings).evaluate(candidate, MMBENCH).value == 100
    assert before == dict(os.environ)
    assert set(Path("/tmp").glob("20*.tsv")) == outside
    (fresh,) = candidate.scratch.iterdir()
    assert [path.name for path in fresh.iterdir()] == ["MMBench_DEV_EN.tsv"]
    written = pd.read_csv(fresh / "MMBench_DEV_EN.tsv", sep="\t", quoting=csv.QUOTE_ALL)
    assert [text[-1] for text in written["prediction"]] == list(written["answer"])


def test_the_light_import_has_no_side_effects_and_no_torchvision():
    run_alone(
        """
        import os, random, ssl, sys, logging, warnings
        import numpy, torch, PIL.Image
        def state():
            return (random.getstate(), str(numpy.random.get_state()), torch.is_grad_enabled(), torch.initial_seed(),
                    ssl._create_default_https_context, dict(os.environ), PIL.Image.MAX_IMAGE_PIXELS,
                    list(warnings.filters), logging.getLogger().handlers, logging.getLogger().level)
        import pandas
        before = state()
        from evaluators.vlmeval.light_import import vlmeval_module
        vlmeval_module("dataset.image_mcq"), vlmeval_module("dataset.image_vqa")
        assert state() == before
        assert not sys.modules.get("torchvision") and "vlmeval.vlm" not in sys.modules
        import importlib.util
        assert importlib.util.find_spec("vlmeval").origin.endswith("__init__.py")
        """
    )


def test_a_full_vlmeval_that_the_user_imported_is_the_one_used():
    run_alone(
        """
        import sys, types
        from evaluators.vlmeval.light_import import vlmeval_module
        import importlib.util
        full = importlib.util.module_from_spec(importlib.util.find_spec("vlmeval"))
        full.mine = True
        sys.modules["vlmeval"] = full
        theirs = types.ModuleType("vlmeval.dataset"); theirs.__path__ = [full.__path__[0] + "/dataset"]
        sys.modules["vlmeval.dataset"] = theirs
        vlmeval_module("dataset.image_mcq")
        assert sys.modules["vlmeval"] is full and sys.modules["vlmeval.dataset"] is theirs
        """
    )


@pytest.mark.parametrize("missing", ["tabulate", "pandas", "PIL"])
def test_what_vlmeval_needs_and_is_missing_is_told_with_the_pip_line(missing):
    run_alone(
        f"""
        import sys
        sys.modules["{missing}"] = None
        from evaluators.vlmeval.light_import import vlmeval_module
        from soup.errors import EvaluatorError
        try:
            vlmeval_module("dataset.image_mcq")
        except EvaluatorError as error:
            assert 'pip install "vlm-soup[vlmeval]"' in str(error), error
        assert not [name for name in sys.modules if name.split(".")[0] == "vlmeval"]
        """
    )


def test_without_vlmeval_the_error_is_one_sentence_with_the_pip_line(monkeypatch, settings):
    monkeypatch.setattr("evaluators.vlmeval_version.DISTRIBUTIONS", ("not-there",))
    with pytest.raises(EvaluatorError, match=r'not installed: pip install "vlm-soup\[vlmeval\]"'):
        VLMEval(settings).identity(MMBENCH)


def test_an_unknown_benchmark_gets_the_nearest_name(settings):
    with pytest.raises(EvaluatorError, match="Did you mean 'mmbench'"):
        VLMEval(settings).identity(Benchmark("mmbanch", "vlmeval", "mmbanch"))


def run_alone(code):
    import textwrap

    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
        check=False,
    )
    assert done.returncode == 0, done.stderr


# Right options that pandas would lose


MMSTAR = Benchmark("mmstar", "vlmeval", "mmstar")


def put_mmstar(tmp_path, change):
    rows = mmstar_rows(8)
    for row in rows:
        change(row)
    write_tsv(tmp_path / "LMUData" / "MMStar.tsv", rows)
    return rows


def letters(rows):
    return {row["index"]: row["answer"].upper().strip() for row in rows}


def prompt_of(harness, index):
    (data_set,) = harness._data_sets.values()
    return data_set.build_prompt(data_set.data.to_dict("records")[index])[-1]["value"]


@pytest.mark.parametrize("text", ["None", "NA", "null", "N/A", "nan"])
def test_a_right_option_that_reads_none_is_shown_and_counts(text, data, settings, tmp_path):
    rows = put_mmstar(tmp_path, lambda row: row.update({row["answer"]: text} if row["index"] in (2, 5) else {}))
    harness, candidate = VLMEval(settings), scripted(tmp_path, letters(rows))
    score = harness.evaluate(candidate, MMSTAR)
    assert score.value == 100
    assert f"C. {text}\n" in prompt_of(harness, 2)
    assert [remark[:62] for remark in candidate.remarks] == [
        "mmstar: the right option of 2 rows reads None, NA, null or the"
    ]
    assert "(index 2, 5)" in candidate.remarks[0]
    assert harness.identity(MMSTAR)["right options"] == "as written"


@pytest.mark.parametrize("change", [str.lower, lambda letter: f" {letter}"], ids=["small", "space"])
def test_an_answer_s_small_letter_is_the_same_option(change, data, settings, tmp_path):
    rows = put_mmstar(tmp_path, lambda row: row.update(answer=change(row["answer"])))
    score = VLMEval(settings).evaluate(candidate := scripted(tmp_path, letters(rows)), MMSTAR)
    assert score.value == 100
    assert len(candidate.remarks) == 1


def test_rotations_whose_right_option_reads_none_count_as_a_question(data, settings, tmp_path):
    rows = mmbench_rows(6)
    for row in rows:
        if row["index"] % CIRCLE == 3:
            row[row["answer"]] = "None"
    write_tsv(tmp_path / "LMUData" / "MMBench_DEV_EN.tsv", rows)
    score = VLMEval(settings).evaluate(scripted(tmp_path, letters(rows)), MMBENCH)
    assert (score.value, score.questions["3"]) == (100, 1)


def test_a_wrong_option_that_reads_none_stays_as_vlmeval_reads_it(data, settings, tmp_path, monkeypatch):
    rows = put_mmstar(tmp_path, lambda row: row.update({"ABCD"[(row["index"] + 1) % 4]: "None"}))
    harness, candidate = VLMEval(settings), scripted(tmp_path, answers := letters(rows) | {1: "C"})
    score = harness.evaluate(candidate, MMSTAR)
    assert score.value == plain_vlmeval(BENCHMARKS["mmstar"], answers, tmp_path / "o", monkeypatch)
    assert "None" not in prompt_of(harness, 2)
    assert candidate.remarks == []
    assert "right options" not in harness.identity(MMSTAR)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("mmstar", lambda row: row[row["answer"]]),
        ("mmstar", lambda row: f"({row['answer']})"),
        ("mmstar", lambda row: "ABCD".index(row["answer"])),
        ("mmstar", lambda row: ""),
        ("mmbench", lambda row: row[row["answer"]]),
        ("hallusionbench", lambda row: row["answer"].lower()),
        ("hallusionbench", lambda row: row["answer"] == "Yes"),
        ("hallusionbench", lambda row: "AB"[row["answer"] == "Yes"]),
    ],
)
def test_a_table_of_which_no_answer_would_be_right_is_told_before_any_question(name, change, data, settings, tmp_path):
    rows = [{**row, "answer": change(row)} for row in TOYS[name]()]
    write_tsv(tmp_path / "LMUData" / f"{BENCHMARKS[name].data_set}.tsv", rows)
    expected = "Yes or No" if name == "hallusionbench" else "the letter of an option that is there"
    with pytest.raises(
        EvaluatorError, match=f"no answer would be right: expected in column answer {expected}, found '"
    ):
        VLMEval(settings).identity(Benchmark(name, "vlmeval", name))


def test_rows_without_a_right_answer_are_wrong_as_in_vlmeval_and_told(data, settings, tmp_path, monkeypatch):
    odd = {1: {"answer": "A, B"}, 2: {"answer": ""}, 3: {"D": ""}, 4: {"answer": "a4"}}
    rows = put_mmstar(tmp_path, lambda row: row.update(odd.get(row["index"], {})))
    answers = letters(rows) | {2: "A"}
    score = VLMEval(settings).evaluate(candidate := scripted(tmp_path, answers), MMSTAR)
    assert score.value == plain_vlmeval(BENCHMARKS["mmstar"], answers, tmp_path / "o", monkeypatch)
    assert {question for question, points in score.questions.items() if not points} == {"1", "2", "3", "4"}
    assert [remark.partition(" (")[0] for remark in candidate.remarks] == [
        "mmstar: what stands as the right answer of 4 rows names no option that is there"
    ]
    assert "(index 1, 2, 3, 4): any answer to these rows is wrong, as in VLMEvalKit" in candidate.remarks[0]


def test_rows_that_a_quotation_mark_makes_a_part_of_another_are_told(data, settings, tmp_path):
    rows = mmstar_rows(12)
    questions = {
        4: '"What <4>',
        6: 'Which "one" is <6>?',
        9: '"Yes" or "no" <9>',
        11: "Year <11>\tof\tit\n2020\t5\t6\n\t\t",
    }
    for index, text in questions.items():
        rows[index]["question"] = text
    table = tmp_path / "LMUData" / "MMStar.tsv"
    assert [*rows[0]][:2] == ["index", "question"]
    lines = ["\t".join(map(str, row.values())) for row in [dict(zip(rows[0], rows[0], strict=True)), *rows]]
    lines[12] = "\t".join(str(cell) if "\n" not in str(cell) else f'"{cell}"' for cell in rows[11].values())
    table.write_text("\n".join(lines) + "\n", "utf-8")
    score = VLMEval(settings).evaluate(candidate := scripted(tmp_path, letters(rows)), MMSTAR)
    assert score.n == len(rows) - 2
    assert [remark.partition(", over")[0] for remark in candidate.remarks] == [
        "mmstar: a cell of 1 row holds what look like other rows (index 4 holds 5, 6), which are not asked, as in "
        "VLMEvalKit: a quotation mark at a cell's beginning goes on to the next one"
    ]


def test_a_table_of_another_kind_is_told_by_what_stands_in_its_first_line(data, settings, tmp_path):
    table = tmp_path / "LMUData" / "MMStar.tsv"
    table.write_text("index,question,A,B,answer,image\n0,What?,a,b,A,x\n")
    with pytest.raises(EvaluatorError, match=r"; found in its place 'index,question,A,B,answer,image': tabs separate"):
        VLMEval(settings).identity(MMSTAR)


@pytest.mark.parametrize("name", ["mmstar", "mmbench"])
def test_questions_without_a_category_are_scored_where_vlmeval_stops(name, data, settings, tmp_path):
    rows = [{**row, "category": "" if i % 2 else "x", "l2-category": ""} for i, row in enumerate(TOYS[name]())]
    write_tsv(tmp_path / "LMUData" / f"{BENCHMARKS[name].data_set}.tsv", rows)
    benchmark = Benchmark(name, "vlmeval", name)
    assert VLMEval(settings).evaluate(scripted(tmp_path, letters(rows)), benchmark).value == 100


# Models that think before they answer


def thoughts(rows):
    """Right answers, each after a thought of all options."""
    return {index: f"<think>A or B or C or D?</think>\n{answer}" for index, answer in letters(rows).items()}


def unchanged(row):
    """Leave a row as it is."""


@pytest.mark.parametrize("value", ["True", "1", "False"])
def test_split_think_judges_what_follows_the_thoughts_whatever_it_is_set_to(
    value, data, settings, tmp_path, monkeypatch
):
    monkeypatch.setenv("SPLIT_THINK", value)
    rows = put_mmstar(tmp_path, unchanged)
    score = VLMEval(settings).evaluate(candidate := scripted(tmp_path, thoughts(rows)), MMSTAR)
    assert score.value == 100
    assert candidate.remarks == []
    assert VLMEval(settings).evaluate(scripted(tmp_path, thoughts(data["mmbench"]), name="c"), MMBENCH).value == 100


def test_an_answer_after_several_thoughts_is_what_follows_the_last(monkeypatch):
    monkeypatch.setenv("SPLIT_THINK", "True")
    assert final_answer("<think>a</think> B <think>c</think> C ") == "C"
    assert final_answer(" <think>for ever ") == " <think>for ever "
    monkeypatch.delenv("SPLIT_THINK")
    assert final_answer("<think>a</think> B") == "<think>a</think> B"


def test_split_think_is_part_of_the_key_only_where_it_is_set(data, settings, monkeypatch):
    plain = VLMEval(settings).identity(MMBENCH)
    monkeypatch.setenv("SPLIT_THINK", "")
    assert VLMEval(settings).identity(MMBENCH) == plain
    monkeypatch.setenv("SPLIT_THINK", "True")
    assert VLMEval(settings).identity(MMBENCH) == {**plain, "thoughts": "split off"}


def test_answers_full_of_thoughts_are_remarked_with_the_switch_that_splits_them_off(data, settings, tmp_path):
    rows = put_mmstar(tmp_path, unchanged)
    score = VLMEval(settings).evaluate(candidate := scripted(tmp_path, thoughts(rows)), MMSTAR)
    assert score.value < 100
    assert "SPLIT_THINK=True" in candidate.remarks[0]
    assert len(set(candidate.remarks)) == 1


def test_thoughts_that_never_end_are_remarked_with_the_switch_too(data, settings, tmp_path, monkeypatch):
    monkeypatch.setenv("SPLIT_THINK", "True")
    rows = put_mmstar(tmp_path, unchanged)
    candidate = scripted(tmp_path, dict.fromkeys(letters(rows), "<think>Let me see: "))
    VLMEval(settings).evaluate(candidate, MMSTAR)
    assert "let the model generate more tokens" in candidate.remarks[0]


@pytest.mark.parametrize("batch", [1, 3, 64])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("!!!!", "answers different questions with the same text"),
        ("<think>Let me see: ", "let the model generate more tokens"),
        ("", "most answers are empty"),
    ],
)
def test_remarks_are_on_all_answers_so_far_however_many_come_at_a_time(text, words, batch):
    strange, many = AnswerRemarks("toy", 100), AnswerRemarks("toy", 100)
    answers = [text] * 20
    told = [remark for at in range(0, 20, batch) for remark in strange.hear(answers[at : at + batch])]
    assert sum(words in remark for remark in told) == 1
    assert not many.hear([text] * 3)  # a few may be chance
    assert not many.hear([f"{letter}." for letter in "ABCD"] * 4)


def test_one_text_for_all_questions_is_remarked_with_the_first_batch(data, settings, tmp_path):
    candidate = scripted(tmp_path, dict.fromkeys(right(data["ocrbench"]), "!!!!"))
    VLMEval(replace(settings, batch_size=20)).evaluate(candidate, OCRBENCH)
    assert "ocrbench: the model answers different questions with the same text" in candidate.remarks[0]
