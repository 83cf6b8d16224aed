"""VLMEvalKit's data sets by their own names: our score is what its own `evaluate` says, by the rule of the class."""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import gc
import importlib.metadata
import importlib.util
import inspect
import io
import json
import random
import re
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas
import pytest

from evaluators.answering import endpoint
from evaluators.vlmeval import catalog
from evaluators.vlmeval.catalog import all_data_sets, known_benchmark, near_data_sets
from evaluators.vlmeval.data_sets import DOWNLOADS, LOADED_AS_IS, data_file, open_data_set, question_ids
from evaluators.vlmeval.harness import VLMEval
from evaluators.vlmeval.image_files import ImageFiles
from evaluators.vlmeval.library_index import classes_in
from evaluators.vlmeval.library_source import (
    REQUIREMENTS,
    missing_packages,
    missing_requirements,
    names_in_source,
    source_of,
)
from evaluators.vlmeval.light_import import vlmeval_module
from evaluators.vlmeval.refusals import REFUSED
from evaluators.vlmeval.rules import IN_MEMORY, RULES
from evaluators.vlmeval.stand_ins import (
    SerialPool,
    SilentLogger,
    SteadyDice,
    _inner_imports,
    literal,
    load_inner_imports,
    replaced_names,
)
from soup.errors import EvaluatorError
from soup.evaluation.api import Benchmark, Split
from soup.evaluation.benchmark_names import parse_benchmarks
from soup.evaluation.question_rule import AuditSize
from soup.evaluation.questions import Dispute
from soup.evaluation.settings import EvalSettings
from soup.report.listing import list_kind
from tests.helpers import (
    toy_classes,
    toy_clicks,
    toy_data_sets,
    toy_documents,
    toy_groups,
    toy_judged_a,
    toy_judged_b,
    toy_judged_c,
    toy_own_ways,
    toy_puzzles,
)
from tests.helpers.case_parts import some_of
from tests.helpers.scripted_models import SCRIPTED, JudgeServer, scripted
from tests.helpers.toy_test_sets import BITS, ODD, write_tsv

TOYS = {
    **toy_data_sets.TOYS,
    **toy_own_ways.TOYS,
    **toy_documents.TOYS,
    **toy_classes.TOYS,
    **toy_groups.TOYS,
    **toy_clicks.TOYS,
    **toy_puzzles.TOYS,
}
JUDGED = {
    **toy_data_sets.JUDGED,
    **toy_own_ways.JUDGED,
    **toy_classes.JUDGED,
    **toy_judged_a.JUDGED,
    **toy_judged_b.JUDGED,
    **toy_judged_c.JUDGED,
}
ALL = {**TOYS, **JUDGED}


def grade(prompt, temperature=0):
    """What a judge replies, to each of VLMEvalKit's prompts; now and then nothing that can be read."""
    if "[Assistant 2]" in prompt:
        first, second = re.findall(r"\[Assistant \d\]\n(.*?)\n\n\[End", prompt, re.DOTALL)
        return f"8 {8 if first == second else len(second) % 8}"
    if "Model respone: " in prompt:  # their spelling
        return prompt.rpartition("Model respone: ")[2].removesuffix("Extracted answer:")
    if "information extractor" in prompt:
        return prompt.rpartition("Answer: <start>\n")[2].partition("\n")[0]
    if "correctness score" in prompt:
        truth, prediction = prompt.rpartition("\n<")[2].split(" | ", 3)[1:3]
        return "1.0" if truth in prediction else str(len(prediction) % 3 / 4)
    if prompt.startswith("Grade: "):  # CharXiv
        truth, _, prediction = prompt.removeprefix("Grade: ").partition(" | ")
        return json.dumps({"extract_answer": prediction, "score": int(truth == prediction)})
    if "on a scale from 0 to 9" in prompt:
        return str(len(prompt) % 10)
    if "[Begin Response]" in prompt:
        truth, response = re.findall(r"\[Begin (?:Ground-Truth|Response)\](.*?)\[End", prompt, re.DOTALL)[-2:]
        return f"[Begin Correctness]{'yes' if truth in response else 'no'}[End Correctness]"
    if "[ANSWER]" in prompt:
        return f"[ANSWER]{prompt.rpartition(chr(10))[2]}[/ANSWER]"
    return ["yes", "no", "A"][len(prompt) % 3]


class StandIn:
    """The same judge for VLMEvalKit's own `evaluate`, without the way through HTTP."""

    fail_msg = "Failed to obtain answer via API."
    reply = staticmethod(grade)

    def __init__(self, **settings):
        self.settings = settings

    def working(self):
        return True

    model = "a-judge"

    def generate(self, message, temperature=0, **_):
        parts = message if isinstance(message, list) else [message]
        plain = [part if isinstance(part, dict) else {"type": "text", "value": part} for part in parts]
        texts = [part["value"] for part in plain if part["type"] == "text"]
        return self.reply("\n".join(texts))


class ClientStandIn:
    """The same judge behind OpenAI's client."""

    def __init__(self, plays):
        self.plays = plays
        self.beta = self.chat = self.completions = self

    def create(self, messages, **settings):
        message = SimpleNamespace(content=self.plays(messages[0]["content"], settings["temperature"]))
        return SimpleNamespace(choices=[SimpleNamespace(message=message)])

    def parse(self, messages, response_format, **settings):
        parsed = response_format.model_validate_json(self.plays(messages[0]["content"], settings["temperature"]))
        return SimpleNamespace(choices=[SimpleNamespace(message=SimpleNamespace(parsed=parsed))])


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.setenv("LMUData", str(tmp_path / "LMUData"))
    monkeypatch.setenv("GSM8K_V_MODE", "visual_explicit")  # by default the question stands in the images alone
    file = tmp_path / "model.py"
    file.write_text(SCRIPTED)
    return EvalSettings(model=f"{file}:Scripted", batch_size=7)


def put(tmp_path, name):
    rows = ALL[name].rows()
    write_tsv(tmp_path / "LMUData" / f"{name}.tsv", rows)
    return rows


@pytest.fixture(autouse=True)
def _any_antlr(monkeypatch):
    """Toy answers are no LaTeX: only OlympiadBench's own class can't do with an ANTLR that sympy does not take."""
    monkeypatch.setitem(REQUIREMENTS, "antlr4", ANTLR.partition("==")[0])


ANTLR = REQUIREMENTS["antlr4"]


def skip_without_packages(name):
    """Leave a data set out of which the class or the metric needs a package that is not here."""
    owner = next((owner for owner in catalog._classes() if name.startswith(owner.name)), None)
    if owner is not None and owner.name in NEEDED:
        pytest.importorskip(NEEDED[owner.name])
    rule = known_benchmark(Benchmark(name, "vlmeval", name)).rule
    with pytest.MonkeyPatch.context() as patch:
        if name.startswith("OlympiadBench"):
            patch.setitem(REQUIREMENTS, "antlr4", ANTLR)
        if rule and (missing := missing_requirements(rule.call.packages)):
            pytest.skip(f"missing: {missing}")


NEEDED = {"SparBench": "num2words"}  # by the class that imports it


def half_right(name, rows):
    """Right answers, another question's, and odd cells, in turn; as markers in the prompt name them."""
    toy, chance = ALL[name], random.Random(name)
    odd = [text for text in (*ODD, *BITS) if toy.may_be_empty or text not in ("", "None", "NA", "nan", "NULL", " ")]
    odd = [text for text in odd if text not in toy.fails_on]
    right = [toy.right(row) for row in rows]
    return [
        answer if chance.random() < 0.5 else chance.choice([chance.choice(odd), chance.choice(right)])
        for answer in right
    ]


def judge_of(name):
    """The class of the stand-in that grades as a toy has it."""
    own = ALL[name].grade
    return type("Judge", (StandIn,), {"reply": staticmethod(own)}) if own else StandIn


def plays(name):
    """What the server on loopback replies for a toy."""
    own = ALL[name].grade

    def play(prompt, temperature):
        if isinstance(prompt, list):  # with images
            prompt = "\n".join(part["text"] for part in prompt if part["type"] == "text")
        return "fine" if prompt == "Hello." else own(prompt)

    return play if own else grade


def without_excel(patch):
    """Excel's files need libraries of their own, and here nothing of what they would change."""
    patch.setattr(pandas.DataFrame, "to_excel", lambda self, file, **_: self.to_csv(file, sep="\t", index=False))
    patch.setattr(pandas, "read_excel", lambda file, **_: pandas.read_csv(file, sep="\t"))


def no_judge(**_):
    raise AssertionError("no key")


def theirs(name, rows, answers, directory, monkeypatch):
    """The result of VLMEvalKit's own data set and `evaluate`, called as its run.py does, in one thread.

    In several at once Python 3.11 fails to read literals now and then: "recursion depth mismatch".
    """
    entry = known_benchmark(Benchmark(name, "vlmeval", name))
    base = entry.data_set_class()
    with monkeypatch.context() as patch, warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        patch.setenv("PRED_FORMAT", "tsv")
        patch.setattr(concurrent.futures, "ThreadPoolExecutor", lambda *_, **__: ThreadPoolExecutor(1))
        patch.delitem(base.DATASET_MD5, name, raising=False)
        module = vlmeval_module(entry.module)
        if hasattr(module, "mp"):
            patch.setattr(module, "mp", SerialPool())
        without_excel(patch)
        if entry.rule and entry.rule.call.plain:  # as its code means: what it reads back is never right
            objects, load = dict.fromkeys(entry.rule.call.plain.split(), object), module.load
            patch.setattr(module, "load", lambda file: load(file).astype(objects))
        # A method of pandas 2, by which WeMath's metric adds the one row to a table.
        patch.setattr(
            pandas.DataFrame, "_append", lambda _, cells, **__: pandas.DataFrame([cells], index=[0]), raising=False
        )
        load_inner_imports(base)
        if parser := getattr(module, "Point2DParser", None):  # it writes to a logger that it lacks
            patch.setattr(parser, "logger", SilentLogger(), raising=False)
        for name_of_module, imported in [*sys.modules.items()]:
            if name_of_module.startswith("vlmeval.") and hasattr(imported, "build_judge"):
                patch.setattr(imported, "build_judge", judge_of(name) if entry.needs_judge else no_judge)
            if name_of_module.startswith("vlmeval.") and inspect.ismodule(getattr(imported, "random", None)):
                patch.setattr(imported, "random", SteadyDice())  # what they guess is ours to say
            if name_of_module == "vlmeval.dataset.spatial457":  # it calls a module
                patch.setattr(imported, "tqdm", iter)
            if name_of_module.startswith("vlmeval.") and hasattr(imported, "OpenAI"):
                patch.setattr(imported, "OpenAI", lambda **_: ClientStandIn(plays(name)))
        # The table that it would make of downloads is here.
        table = vlmeval_module("smp").load(str(data_file(entry)))
        patch.setattr(base, "_ensure_metadata_ready", lambda self: None, raising=False)
        patch.setattr(base, "prepare_tsv", lambda self, *_: table.copy())
        if name not in LOADED_AS_IS and any(word in inspect.getsource(base.load_data) for word in DOWNLOADS):
            patch.setattr(base, "load_data", lambda self, dataset: table.copy())
        elif hasattr(base, "prepare_dataset"):
            folder = {"root": "", "data_file": str(data_file(entry))}
            patch.setattr(base, "prepare_dataset", lambda self, _: folder)
        data_set = base(dataset=name)
        for _, row in data_set.data.iterrows() if ALL[name].opens_images else ():
            data_set.dump_image(row)
        data = data_set.data.drop(columns="image", errors="ignore")
        names = [str(index) if str(index) in answers else str(index).rpartition("_")[2] for index in data["index"]]
        data["prediction"] = [answers[index].encode("utf-8", "replace").decode() for index in names]
        directory.mkdir()
        file = str(directory / f"model_{name}.{entry.rule.call.suffix if entry.rule else 'tsv'}")
        vlmeval_module("smp").dump(data, file)
        random.seed(0)  # some metrics guess where they find nothing
        may_judge = entry.rule is None or entry.rule.judge == "may"
        takes_model = entry.rule is None or entry.rule.call.takes_model
        judge = (
            {"model": "a-judge"}
            if entry.needs_judge and takes_model
            else {"model": "exact_matching"}
            if may_judge and not entry.needs_judge
            else {}
        )
        result = data_set.evaluate(file, **judge, **dict(entry.rule.call.settings if entry.rule else ()))
    return directory if result is None else result  # which stands in a file then


@pytest.mark.parametrize("kind", [pytest.param("all right", marks=pytest.mark.slow), "half right"])
@pytest.mark.parametrize("name", JUDGED)
def test_a_judged_score_is_what_vlmevals_own_evaluate_says(name, kind, settings, tmp_path, monkeypatch):
    skip_without_packages(name)
    rows = put(tmp_path, name)
    given = [JUDGED[name].right(row) for row in rows] if kind == "all right" else half_right(name, rows)
    answers = {str(row["index"]): answer for row, answer in zip(rows, given, strict=True)}
    with JudgeServer(plays(name)) as server:
        judged = judged_settings(settings, server)
        score = VLMEval(judged).evaluate(scripted(tmp_path, answers), Benchmark(name, "vlmeval", name))
    total = JUDGED[name].total(theirs(name, rows, answers, tmp_path / "o", monkeypatch))
    assert score.value == pytest.approx(total, abs=0.051)  # VLMEvalKit rounds one of them to a decimal
    assert score.n == len(score.questions) == len(rows)
    assert 2 < score.value < 98 or kind == "all right"


@pytest.mark.parametrize("kind", [pytest.param("all right", marks=pytest.mark.slow), "half right"])
@pytest.mark.parametrize("name", TOYS)
def test_the_score_is_what_vlmevals_own_evaluate_says(name, kind, settings, tmp_path, monkeypatch):
    skip_without_packages(name)
    rows = put(tmp_path, name)
    texts = [TOYS[name].right(row) for row in rows] if kind == "all right" else half_right(name, rows)
    answers = {str(row["index"]): answer for row, answer in zip(rows, texts, strict=True)}
    score = VLMEval(settings).evaluate(scripted(tmp_path, answers), Benchmark(name, "vlmeval", name))
    total = TOYS[name].total(theirs(name, rows, answers, tmp_path / "o", monkeypatch))
    if TOYS[name].leaves_out and kind == "half right":
        unread = sum("Aesthetics" not in answer for answer in texts)
        total *= 1 - unread / len(rows)
    assert score.value == pytest.approx(total, abs=0.51 * 0.1 ** TOYS[name].decimals)
    if kind == "all right":
        assert score.value == pytest.approx(100 if name != "MME" else 100 * 1000 / 2800, abs=0.01)
    else:
        assert 2 < score.value < 98


def test_a_data_set_is_found_by_its_own_name_with_and_without_the_prefix():
    names = ["MMBench_DEV_EN,vlmeval:MMBench_DEV_EN", "POPE,vlmeval:SEEDBench_IMG,ChartQA_TEST", "mme"]
    benchmarks = parse_benchmarks(names)
    assert {benchmark.harness for benchmark in benchmarks} == {"vlmeval"}
    assert [known_benchmark(benchmark).name for benchmark in benchmarks] == [
        *("mmbench", "mmbench", "pope"),
        *("SEEDBench_IMG", "ChartQA_TEST", "mme"),
    ]
    with pytest.raises(EvaluatorError, match=r"Did you mean 'pope'.* ocrbench, opencompass, [^O]*pope, [^O]*python:,"):
        parse_benchmarks(["POPPE"])  # each known name is there once
    for name in ("SEEDBench_IMGS", "seedbench_img"):
        with pytest.raises(EvaluatorError, match=f"Unknown benchmark '{name}'. Did you mean 'SEEDBench_IMG'"):
            parse_benchmarks([name])


def test_any_name_in_another_case_with_hyphens_is_told_the_name_of_the_same_letters():
    names = {name for name, _, _ in all_data_sets()}
    assert len(names) > 300
    for name in names:
        (near,) = near_data_sets(name.lower().replace("_", "-") + ".")
        assert near.lower().replace("_", "-") == name.lower().replace("_", "-")


def test_of_two_names_of_the_same_letters_the_short_one_is_told():
    assert near_data_sets("MM-BENCH") == ["mmbench"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("MM-IFEval", "calls functions by the names that its table holds"),
        ("SArena", "runs or renders what the model wrote as code"),
        ("SciDocBench", "runs or renders what the model wrote as code"),
        ("BMMR", "hands what the model wrote to sympy's `parse_expr`, which runs it as code"),
        ("OST", "leaves answers in which `Failed` stands out of its figures"),
        ("MedqbenchMCQ", "name MedqbenchMCQ_dev or MedqbenchMCQ_test"),
        ("MedqbenchCaption", "name MedqbenchCaption_dev or MedqbenchCaption_test"),
        ("ChartX", "several figures without a total"),
        ("VenusBench-GD", "compares a list with a number"),
        ("HiPhO_ALL", "it is several data sets together: name IPhO_2024"),
        ("OmniDocBench", "with all rows of its own file"),
        ("MMLongBench_DOC", "to ten models that it lists by name, and to no other"),
        ("MM-Math", "so that only equal texts are right"),
        ("ChartCap", "a BERT model among them, are fetched from the Hub"),
        ("SIUO", "SIUO: not scored here: it is two data sets together: name SIUO_GEN and SIUO_MCQ"),
        ("MMMB", "it is several data sets together: name MMMB_ar, MMMB_cn"),
        ("MVBench_8frame", "it shows parts of videos, .* MVBench_MP4 asks the same of whole videos"),
        ("VideoMMMU_1fps", "videos are shown here as a number of frames, and by no other setting"),
        ("MVTamperBench", "it shows parts of videos, .* and videos that are folders of pictures"),
        ("Video-MME_1fps", "videos are shown here as a number of frames, and by no other setting"),
        ("XSTest", "its questions are texts without images"),
        ("MOAT", "shuffles the options of a question at random"),
        ("MME-Reasoning", "hands what the model wrote to sympy's `parse_expr`, which runs it as code"),
        ("MM-HELIX_lang", "its questions are texts without images"),
        ("Xyzzy", "Unknown benchmark 'Xyzzy'. soup list benchmarks --all lists what VLMEvalKit has"),
        ("SEEDBench_IMGS", "Did you mean.*SEEDBench_IMG"),
    ],
)
def test_what_can_not_be_scored_is_refused_by_name_with_the_reason(name, words, settings):
    with pytest.raises(EvaluatorError, match=words):
        VLMEval(settings).identity(Benchmark(name, "vlmeval", name))


@pytest.mark.parametrize("name", some_of(ALL, 3))
def test_columns_that_a_metric_needs_are_missed_before_anything_is_asked(name, settings, tmp_path):
    skip_without_packages(name)
    rows, needed = ALL[name].rows(), known_benchmark(Benchmark(name, "vlmeval", name)).columns
    assert {*needed} <= {*rows[0]}
    less = [{"other": 1} | {column: cell for column, cell in row.items() if column not in needed} for row in rows]
    write_tsv(tmp_path / "LMUData" / f"{name}.tsv", less)
    with (
        JudgeServer(plays(name)) as server,
        pytest.raises(EvaluatorError, match=re.escape(f"missing: {', '.join(needed)}")),
    ):
        VLMEval(judged_settings(settings, server)).identity(Benchmark(name, "vlmeval", name))


@pytest.mark.parametrize(
    ("name", "without", "words"),
    [
        ("SEEDBench_IMG", "CD", "the options of all right answers; missing: C, D"),
        ("HRBench4K", "A", "the options of all right answers; missing: A"),
        ("VSR-zeroshot", ["image"], "row 0: its image '0.jpg' is no file, neither as it stands nor below images/"),
    ],
)
def test_what_no_model_could_answer_is_told_before_anything_is_asked(name, without, words, settings, tmp_path):
    rows = [{column: cell for column, cell in row.items() if column not in without} for row in ALL[name].rows()]
    write_tsv(tmp_path / "LMUData" / f"{name}.tsv", rows)
    with pytest.raises(EvaluatorError, match=words):
        VLMEval(settings).identity(Benchmark(name, "vlmeval", name))


def test_an_index_that_many_rows_have_is_told_in_a_line(settings, tmp_path):
    write_tsv(tmp_path / "LMUData" / "RealWorldQA.tsv", [{**row, "index": 3} for row in ALL["RealWorldQA"].rows()])
    with pytest.raises(EvaluatorError, match=r"row 3: the index is there 24 times$"):
        VLMEval(settings).identity(Benchmark("r", "vlmeval", "RealWorldQA"))


def opened(tmp_path, name, rows):
    write_tsv(tmp_path / "LMUData" / f"{name}.tsv", rows)
    entry, images = known_benchmark(Benchmark(name, "vlmeval", name)), ImageFiles()
    data_set = open_data_set(entry, data_file(entry), images)
    return data_set, images


def test_options_that_a_class_has_as_a_list_are_shown_each_on_a_line(settings, tmp_path):
    data_set, _ = opened(tmp_path, "SGI-Experimental-Reasoning", ALL["SGI-Experimental-Reasoning"].rows())
    assert data_set.build_prompt(data_set.data.iloc[0])[-1]["value"].endswith("A. cell 1\nB. y\nC. z\nD. none\n")


def test_a_prompt_that_writes_its_images_itself_shows_both_and_writes_none_into_the_user_s_folder(settings, tmp_path):
    rows = ALL["Asclepius"].rows()
    rows = [{**row, "image_2": other["image"]} for row, other in zip(rows, [*rows[1:], rows[0]], strict=True)]
    data_set, images = opened(tmp_path, "Asclepius", rows)
    prompt = data_set.build_prompt(data_set.data.iloc[0])
    images.start_writing([prompt])()
    shown = [Path(part["value"]).read_bytes() for part in prompt if part["type"] == "image"]
    assert shown == [base64.b64decode(rows[0][name]) for name in ("image", "image_2")]
    assert [path.name for path in (tmp_path / "LMUData").rglob("*")] == ["Asclepius.tsv"]


def test_two_images_that_a_prompt_writes_under_names_of_other_rows_are_each_row_s_own(settings, tmp_path):
    name, (first, second, *_) = "State_Invariance", ALL["State_Invariance"].rows()
    rows = [{**second, "image1_path": first["image1_path"], "image2_path": first["image2_path"]}, first]
    data_set, images = opened(tmp_path, name, rows)
    for row in rows:
        prompt = data_set.build_prompt(next(line for line in data_set.data.to_dict("records") if line == line | row))
        images.start_writing([prompt])()
        shown = [Path(part["value"]).read_bytes() for part in prompt if part["type"] == "image"]
        assert shown == [base64.b64decode(row["image1"]), base64.b64decode(row["image2"])]
    assert [path.name for path in (tmp_path / "LMUData").rglob("*")] == [f"{name}.tsv"]
    write_tsv(tmp_path / "LMUData" / f"{name}.tsv", [{**first, "image2": "no image"}])
    with pytest.raises(EvaluatorError, match="row 0: image2 'no image' is no base64"):
        VLMEval(settings).identity(Benchmark(name, "vlmeval", name))


@pytest.mark.parametrize("name", ["StareBench", "SPBench-MV_CoT", "SiteBenchImage", "ViewSpatialBench"])
def test_images_that_a_table_names_are_found_in_the_folder_of_the_data_set(name, settings, tmp_path):
    row, folder = ALL["SPBench-SI" if "SPBench" in name else name].rows()[0], tmp_path / "LMUData" / "images" / name
    names = ["sub/0.png", str(tmp_path / "1.png")]
    row |= {"question": "First\\nthen <image><image>?", "image_path": repr(names)}
    del row["image"]
    for path in map(Path, (folder / names[0], names[1])):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(path.name.encode())
    data_set, images = opened(tmp_path, name, [row])
    prompt = data_set.build_prompt(data_set.data.iloc[0])
    images.start_writing([prompt])()
    shown = [Path(part["value"]).read_bytes() for part in prompt if part["type"] == "image"]
    assert shown == [b"0.png", b"1.png"]
    text = "".join(part["value"] for part in prompt if part["type"] == "text")
    assert ("First\nthen" in text) == (name == "StareBench")  # whose class takes such signs out of its table
    (folder / names[0]).unlink()
    with pytest.raises(EvaluatorError, match=f"'sub/0.png' is no file, neither as it stands nor below images/{name}"):
        VLMEval(settings).identity(Benchmark(name, "vlmeval", name))


READER = """
from pathlib import Path

class Scripted:
    def __init__(self, directory):
        pass

    def answer(self, prompts):
        return [Path(part["value"]).read_text() for prompt in prompts for part in prompt if part["type"] == "image"]
"""


def test_an_answer_that_is_kept_is_known_by_the_content_of_an_image_that_a_table_names(settings, tmp_path):
    name, benchmark = "ViewSpatialBench", Benchmark("v", "vlmeval", "ViewSpatialBench")
    (tmp_path / "model.py").write_text(READER)
    first, *others = ALL[name].rows()
    rows = [first, *({**first, "index": row["index"], "answer": row["answer"]} for row in others)]
    rows = [{**row, "image_path": f"{row['index']}/0.png"} for row in rows]
    for row in rows:
        del row["image"]
        file = tmp_path / "LMUData" / "images" / name / row["image_path"]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(row["answer"])
    write_tsv(tmp_path / "LMUData" / f"{name}.tsv", rows)
    candidate = scripted(tmp_path, {})
    for _ in ("asked", "kept"):
        assert VLMEval(settings).evaluate(candidate, benchmark).value == 100
    file.write_text("ABCD"["ABCD".index(row["answer"]) - 1])
    assert VLMEval(settings).evaluate(candidate, benchmark).questions[str(row["index"])] == 0


def test_a_score_s_key_tells_images_of_other_sizes_that_a_table_names(settings, tmp_path):
    rows = [{**row, "image_path": f"{row['index'] % 2}.png"} for row in ALL["ViewSpatialBench"].rows()]
    for row in rows:
        del row["image"]
    write_tsv(tmp_path / "LMUData" / "ViewSpatialBench.tsv", rows)
    files = [tmp_path / "LMUData" / "images" / "ViewSpatialBench" / f"{number}.png" for number in (0, 1)]
    benchmark, keys = Benchmark("v", "vlmeval", "ViewSpatialBench"), []
    for content in (b"seen", b"seen", b"other"):
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        keys.append(VLMEval(settings).identity(benchmark)["images"])
    assert keys[0] == keys[1] != keys[2]
    put(tmp_path, "ViewSpatialBench")
    assert "images" not in VLMEval(settings).identity(benchmark)


def test_masks_that_a_table_names_are_found_in_the_folder_of_the_data_set_and_stand_in_the_key(
    settings, tmp_path, monkeypatch
):
    name = "RefSpatial_wo_unseen"
    folder = tmp_path / "LMUData" / "images" / name
    rows, benchmark = toy_clicks.place_rows(folder), Benchmark("r", "vlmeval", name)
    monkeypatch.setitem(ALL, name, toy_data_sets.Toy(lambda: rows, toy_data_sets.key("overall")))
    texts = half_right(name, rows)
    texts[:3] = [f"[{{'point_2d': [0.99, 0.99]}}, {{'point_2d': [{x}, 0.1]}}]" for x in (0.1, 0.25, 0.4)]
    answers = {str(row["index"]): text for row, text in zip(rows, texts, strict=True)}
    put(tmp_path, name)
    total = 100 * theirs(name, rows, answers, tmp_path / "o", monkeypatch)["overall"]
    short = [{**row, "mask_path": str(Path(row["mask_path"]).relative_to(folder))} for row in rows]
    write_tsv(tmp_path / "LMUData" / f"{name}.tsv", short)
    score = VLMEval(settings).evaluate(scripted(tmp_path, answers), benchmark)
    assert score.value == pytest.approx(total)
    assert 2 < total < 98
    assert [score.questions[number] for number in "012"] == [0.5, 0, 0]
    before, last = VLMEval(settings).identity(benchmark)["images"], Path(rows[-1]["mask_path"])
    last.write_bytes(last.read_bytes() + b" ")
    assert VLMEval(settings).identity(benchmark)["images"] != before
    last.unlink()
    with pytest.raises(EvaluatorError, match=r"row 23: its mask 'masks/23.png' is no file, .* no column mask$"):
        VLMEval(settings).identity(benchmark)


def test_a_box_of_more_pixels_than_memory_holds_is_wrong_and_others_are_read_as_vlmeval_does(
    settings, tmp_path, monkeypatch
):
    name, parser = "RefSpatial_wo_unseen", vlmeval_module("dataset.utils.spatial_bench.tools.utils").Point2DParser
    rows, read = toy_clicks.place_rows(tmp_path / "LMUData" / "images" / name), parser.__dict__["_text2pts"].__func__
    monkeypatch.setitem(ALL, name, toy_data_sets.Toy(lambda: rows, toy_data_sets.key("overall")))
    texts = ["(0, 0, 3, 3)", "(0.0, 0.0, 0.5, 0.5)", "(1, 2)", "(1,2,3)", "(3 - 1)", "(9, 9, 2, 1), (1, 1, 4, 4)"]
    texts = [*texts, *["(0.1, 0.1)"] * (len(rows) - 8), "(9,9,0,0)", "nothing"]
    answers = {str(row["index"]): text for row, text in zip(rows, texts, strict=True)}
    put(tmp_path, name)
    total = theirs(name, rows, answers, tmp_path / "o", monkeypatch)["overall"]
    huge = answers | {str(rows[-1]["index"]): "the box (0, 0, 50000, -50000.5)"}

    seen = []

    def watched(text, *values, **settings):
        seen.append(text)  # of a huge box it would list each pixel
        return read("" if "50000" in text else text, *values, **settings)

    monkeypatch.setattr(parser, "_text2pts", staticmethod(watched))
    score = VLMEval(settings).evaluate(scripted(tmp_path, huge), Benchmark("r", "vlmeval", name))
    assert score.value == pytest.approx(100 * total)
    assert score.questions[str(rows[-1]["index"])] == 0
    assert 0 < score.value < 100
    assert {*seen} == {*texts[:-1]}


@pytest.mark.parametrize("kind", ["all right", "half right"])
def test_images_that_a_prompt_reads_from_files_are_shown_and_answers_about_them_graded(
    kind, settings, tmp_path, monkeypatch
):
    name, folder = "WorldVQA", tmp_path / "LMUData" / "images" / "WorldVQA"
    rows, contents = [], {}
    for row in toy_classes.open_rows():
        contents[f"<{row['index']}>"] = content = base64.b64decode(row.pop("image"))
        (folder / "zh").mkdir(parents=True, exist_ok=True)
        (folder / f"zh/{row['index']}.png").write_bytes(content)
        rows.append({**row, "image_path": f"zh/{row['index']}.png", "language": ["zh", "en"][row["index"] % 2]})
    toy = toy_data_sets.Toy(
        lambda: rows, toy_data_sets.row("Overall", "Accuracy", 100), grade=toy_judged_c.label_answer
    )
    monkeypatch.setitem(ALL, name, toy)
    data_set, images = opened(tmp_path, name, rows)
    prompt = data_set.build_prompt(data_set.data.iloc[3])
    images.start_writing([prompt])()
    assert Path(prompt[0]["value"]).read_bytes() == contents[prompt[1]["value"].partition("\n")[2].split()[0]]
    given = [row["answer"] for row in rows] if kind == "all right" else half_right(name, rows)
    answers = {str(row["index"]): answer for row, answer in zip(rows, given, strict=True)}
    with JudgeServer(plays(name)) as server:
        score = VLMEval(judged_settings(settings, server)).evaluate(
            scripted(tmp_path, answers), Benchmark(name, "vlmeval", name)
        )
    assert score.value == pytest.approx(toy.total(theirs(name, rows, answers, tmp_path / "o", monkeypatch)))
    assert score.n == len(score.questions) == len(rows)
    assert 2 < score.value < 98 or kind == "all right"
    with JudgeServer(lambda prompt, temperature: "Correct, as I see it.") as server:
        judged, candidate = judged_settings(settings, server), scripted(tmp_path, answers, "other")
        with pytest.raises(EvaluatorError, match="no reply that can be read for 24 of 24 questions"):
            VLMEval(replace(judged, judge_model="b")).evaluate(candidate, Benchmark(name, "vlmeval", name))


@pytest.mark.parametrize("kind", ["all right", "half right"])
def test_puzzles_are_scored_as_vlmeval_does_of_pairs_both_in_any_part_of_the_questions(
    kind, settings, tmp_path, monkeypatch
):
    name, toy, folder = "MM-HELIX", toy_puzzles.PUZZLE_TOY, tmp_path / "LMUData" / "images" / "MM-HELIX"
    rows = [{**row, "image_path": str([f"{row['category']}/{row['index']}.png"])} for row in toy.rows()]
    for row in rows:
        file = folder / row["category"] / f"{row['index']}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(base64.b64decode(row.pop("image")))
    monkeypatch.setitem(ALL, name, replace(toy, rows=lambda: rows))
    put(tmp_path, name)
    given = [toy.right(row) for row in rows] if kind == "all right" else half_right(name, rows)
    answers = {str(row["index"]): answer for row, answer in zip(rows, given, strict=True)}
    harness, candidate, benchmark = VLMEval(settings), scripted(tmp_path, answers), Benchmark(name, "vlmeval", name)
    score = harness.evaluate(candidate, benchmark)
    assert score.value == pytest.approx(toy.total(theirs(name, rows, answers, tmp_path / "o", monkeypatch)))
    assert {*score.questions.values()} == ({1} if kind == "all right" else {0, 1})
    assert score.n == len(score.questions) == len(rows) - 3  # of three pairs
    assert harness.total(benchmark, score.questions) == pytest.approx(score.value)
    halves = [
        harness.evaluate(candidate, replace(benchmark, split=Split(part, 0.5))) for part in ("selection", "report")
    ]
    assert halves[0].questions | halves[1].questions == score.questions
    if kind == "all right":  # at an answer to one VLMEvalKit stops
        puzzle = vlmeval_module("dataset.utils.mmhelix.metrics").metrics["24points_evaluator"]
        monkeypatch.setattr(puzzle, "evaluate", lambda text, *_: text == "4*6*1*1" or {}[text])
        odd = scripted(tmp_path, answers | {"3": "\\boxed{24}"}, "odd")
        assert harness.evaluate(odd, benchmark).questions == score.questions | {"3": 0}


STOPS = ["", "None", "A", "['A'", "5", "[1, 'A']", "['A']['A']", "(" * 999, "['A', 'B'] or so", "['A'] if x else 1"]


def test_an_answer_at_which_vlmeval_s_metric_stops_is_wrong_and_a_table_at_which_it_does_is_an_error(
    settings, tmp_path
):
    name, rows = "A4Bench", put(tmp_path, "A4Bench")
    answers = {str(row["index"]): row["answer"] for row in rows}
    odd = answers | {str(row["index"]): text for row, text in zip(rows, STOPS, strict=False)}
    harness, benchmark = VLMEval(settings), Benchmark(name, "vlmeval", name)
    score = harness.evaluate(scripted(tmp_path, odd, "odd"), benchmark)
    assert score.questions == {str(row["index"]): float(i >= len(STOPS)) for i, row in enumerate(rows)}
    rows[3]["answer"] = "A, B"
    write_tsv(tmp_path / "LMUData" / f"{name}.tsv", rows)
    with pytest.raises(EvaluatorError, match="A4Bench: VLMEvalKit's metric failed"):
        VLMEval(settings).evaluate(scripted(tmp_path, answers), benchmark)


@pytest.mark.parametrize(("name", "language"), [("OlympiadBench_EN", "en"), ("OlympiadBench_CN", "zh")])
def test_a_part_of_the_kinds_is_scored_though_vlmeval_divides_by_the_number_of_each(name, language, settings, tmp_path):
    whole, sources = "OlympiadBench", [each for each in toy_groups.SOURCES if f"_{language}_" in each]
    skip_without_packages(whole)
    rows = toy_groups.olympiad_rows(sources)
    write_tsv(tmp_path / "LMUData" / f"{name}.tsv", rows)
    answers = {str(row["index"]): ALL[whole].right(row) if row["index"] % 3 else "wrong" for row in rows}
    harness, candidate, benchmark = VLMEval(settings), scripted(tmp_path, answers), Benchmark(name, "vlmeval", name)
    score = harness.evaluate(candidate, benchmark)
    assert score.questions == {str(row["index"]): float(row["index"] % 3 > 0) for row in rows}
    assert score.value == pytest.approx(100 * 2 / 3)
    assert harness.evaluate(candidate, replace(benchmark, only=frozenset("23"))).questions == {"2": 1, "3": 0}


TABLES = ("IMAGE_DATASET", "VIDEO_DATASET", "TEXT_DATASET")


@pytest.mark.parametrize("table", TABLES)
def test_each_class_of_the_installed_vlmeval_has_a_rule_or_a_reason(table):
    known = {*RULES, *REFUSED, *(name for classes in IN_MEMORY.values() for name in classes)}
    assert not [owner.name for owner in classes_in(table) if owner.name not in known]


@pytest.mark.parametrize("table", ["IMAGE_DATASET", "TEXT_DATASET"])
def test_what_the_source_of_a_class_says_is_what_the_class_says(table):
    read = 0
    for owner in classes_in(table):
        missing = missing_packages(owner.module)
        try:
            imported = owner.load()
        except EvaluatorError:
            assert missing
            continue
        assert missing == ()
        names = names_in_source(owner.module, owner.name)
        read += names is not None
        assert names in (None, [*imported.supported_datasets()])
        assert owner.kind() == getattr(imported, "TYPE", "VQA")
        addresses = getattr(imported, "DATASET_URL", {})
        assert all(owner.address(name) == (addresses.get(name) or None) for name in owner.data_sets())
    assert read > 0.9 * len(classes_in(table))


@pytest.mark.parametrize(
    "name", ["State_Invariance", "MME-RealWorld", "MMMU_Pro_10c", "SGI-Experimental-Reasoning", "SPBench-SI"]
)
def test_classes_with_words_of_their_own_for_multiple_choice_are_listed_as_such(name):
    assert known_benchmark(Benchmark(name, "vlmeval", name)).info.kind == "multiple choice"


def test_all_names_are_listed_without_importing_most_classes(monkeypatch):
    loaded, load = set(), catalog.DataSetClass.load
    monkeypatch.setattr(catalog.DataSetClass, "load", lambda self: loaded.add(self.name) or load(self))
    assert len([*catalog.all_data_sets()]) > 400
    assert len(loaded) < 10


def test_the_page_counts_the_classes_that_are_judged():
    page = " ".join((Path(__file__).parents[3] / "docs" / "benchmarks.md").read_text("utf-8").split())
    images, videos = ([owner.name for owner in classes_in(table)] for table in TABLES[:2])
    judged = [sum(name not in REFUSED for name in names) for names in (images, videos)]
    assert (
        f"Of the {len(images)} classes of images that VLMEvalKit 0.0.20 has, {judged[0]} are scored here, and of its "
        f"{len(videos)} classes of videos {judged[1]}."
    ) in page


def test_a_judge_that_looks_at_images_is_shown_each_question_s_own(settings, tmp_path):
    rows = put(tmp_path, "WildVision")
    answers = {str(row["index"]): "as I see it" for row in rows}
    with JudgeServer(plays("WildVision")) as server:
        VLMEval(judged_settings(settings, server)).evaluate(
            scripted(tmp_path, answers), Benchmark("w", "vlmeval", "WildVision")
        )
        asked = [
            body["messages"][-1]["content"]
            for body in server.bodies
            if isinstance(body["messages"][-1]["content"], list)
        ]
    shown = {
        re.search("<(w[0-9]+)>", str(parts))[1]: part["image_url"]["url"].partition(",")[2]
        for parts in asked
        for part in parts
        if part["type"] == "image_url"
    }
    assert shown == {row["index"]: row["image"] for row in rows}


def test_no_class_has_both_a_rule_and_a_reason_and_no_reason_is_of_a_class_that_is_gone():
    classes = {owner.name for table in TABLES for owner in classes_in(table)}
    assert {*REFUSED} - classes == {"HiPhO_ALL", "MedqbenchCaption", "MedqbenchMCQ", "MM-HELIX_lang"}
    assert not {*REFUSED} & {*RULES, *(name for names in IN_MEMORY.values() for name in names)}


def test_a_class_that_vlmeval_adds_is_refused_until_it_has_a_rule(settings, monkeypatch):
    monkeypatch.setattr(catalog, "REFUSED", {})
    with pytest.raises(EvaluatorError, match="MM-IFEval: not scored here: no rule says how VLMEvalKit's result"):
        VLMEval(settings).identity(Benchmark("m", "vlmeval", "MM-IFEval"))


def test_a_number_without_a_tolerance_may_be_right(settings, tmp_path):
    rows = [{**row, "relative_tolerance": None} for row in put(tmp_path, "MaCBench")]
    write_tsv(tmp_path / "LMUData" / "MaCBench.tsv", rows)
    answers = {str(row["index"]): str(row["answer"] * (1 if row["index"] % 2 else 1.05)) for row in rows}
    with JudgeServer(plays("MaCBench")) as server:
        score = VLMEval(judged_settings(settings, server)).evaluate(
            scripted(tmp_path, answers), Benchmark("m", "vlmeval", "MaCBench")
        )
    assert score.value == 50


def test_a_judge_may_read_answers_of_any_data_set_that_has_a_use_for_one(settings, tmp_path):
    rows = put(tmp_path, "SEEDBench_IMG")
    answers = {str(row["index"]): "the first of them" for row in rows}
    with JudgeServer(lambda prompt, temperature: "A") as server:
        judged = replace(settings, judge_url=server.url, judge_model="a-judge", judge_for=("SEEDBench_IMG",))
        score = VLMEval(judged).evaluate(scripted(tmp_path, answers), Benchmark("s", "vlmeval", "SEEDBench_IMG"))
    assert score.value == pytest.approx(100 * sum(row["answer"] == "A" for row in rows) / len(rows))


def test_a_judge_may_read_the_answers_to_a_problem_and_its_steps(settings, tmp_path):
    rows = [
        {**row, "answer": "A" if (row["ID"], row["key"][0]) == (0, "2") else "B"} for row in put(tmp_path, "WeMath")
    ]
    write_tsv(tmp_path / "LMUData" / "WeMath.tsv", rows)
    answers = {str(row["index"]): "the first of them" for row in rows}
    with JudgeServer(lambda prompt, temperature: "A") as server:
        judged = replace(settings, judge_url=server.url, judge_model="a-judge", judge_for=("WeMath",))
        score = VLMEval(judged).evaluate(scripted(tmp_path, answers), Benchmark("w", "vlmeval", "WeMath"))
    assert score.questions["2steps 0"] == 1
    assert score.value == pytest.approx(100 / 12)


def test_a_blank_counts_once_though_vlmeval_counts_it_for_each_sentence_that_has_it(settings, tmp_path, monkeypatch):
    rows = [row for row in put(tmp_path, "CMMMU_VAL") if row["answer"].startswith("氧气")]
    rows = [
        {**row, "category": subject}
        for row in rows
        for subject in {each["category"] for each in put(tmp_path, "CMMMU_VAL")}
    ]
    rows = [{**row, "index": i, "question": f"<{i}> ?"} for i, row in enumerate(rows)]
    write_tsv(tmp_path / "LMUData" / "CMMMU_VAL.tsv", rows)
    answers = {str(row["index"]): f"它是{row['answer']}。所以答案为{row['answer']}也" for row in rows[1:]} | {
        "0": "none"
    }
    score = VLMEval(settings).evaluate(scripted(tmp_path, answers), Benchmark("c", "vlmeval", "CMMMU_VAL"))
    result = theirs("CMMMU_VAL", rows, answers, tmp_path / "o", monkeypatch)
    assert float(result["总准确率"].iloc[0]) == pytest.approx(2 * (len(rows) - 1) / len(rows))
    assert score.value == pytest.approx(100 * (len(rows) - 1) / len(rows))


def test_rows_that_a_class_numbers_itself_need_no_index(settings, tmp_path):
    rows = [{name: cell for name, cell in row.items() if name != "index"} for row in ALL["ScreenSpot_Pro_CAD"].rows()]
    write_tsv(tmp_path / "LMUData" / "ScreenSpot_Pro_CAD.tsv", rows)
    right = {str(number): toy_clicks.click({"index": number}) for number in range(1, 25)}
    answers = {number: click if int(number) % 3 else "x=0.99, y=0.99" for number, click in right.items()}
    score = VLMEval(settings).evaluate(scripted(tmp_path, answers), Benchmark("s", "vlmeval", "ScreenSpot_Pro_CAD"))
    assert score.questions == {str(number): float(number % 3 > 0) for number in range(1, 25)}


def test_a_half_is_a_problem_s_of_which_the_steps_alone_are_right(settings, tmp_path):
    rows = put(tmp_path, "WeMath")
    answers = {str(row["index"]): row["answer"] if "multi" not in row["key"] else "none" for row in rows}
    score = VLMEval(settings).evaluate(scripted(tmp_path, answers), Benchmark("w", "vlmeval", "WeMath"))
    assert {*score.questions.values()} == {0.5}  # VLMEvalKit divides by the problems that are solved as a whole


@pytest.mark.parametrize("name", ["eval", "ast"])
def test_literals_are_read_by_threads_at_once(name):
    module = vlmeval_module("dataset.utils.phyx")
    text = "[" + "[1, 2, {1: (3, 4)}, -5], " * 20 + "5]"

    class Garbage:
        """What Python frees wherever it is, in the midst of its parser, too; then other threads go on."""

        def __init__(self):
            self.itself = self

        def __del__(self):
            time.sleep(1e-5)

    def read(_):
        for _ in range(100):
            Garbage()
            assert len(read_literal(text)) == 21

    before = gc.get_threshold()
    gc.set_threshold(5, 1, 1)
    try:
        with replaced_names({}), ThreadPoolExecutor(4) as threads:
            read_literal = module.ast.literal_eval if name == "ast" else module.eval
            [*threads.map(read, range(8))]
    finally:
        gc.set_threshold(*before)


def test_cells_are_read_as_literals_where_vlmeval_would_execute_them(settings, tmp_path):
    marker = tmp_path / "executed"
    rows = put(tmp_path, "DocVQA_VAL")
    rows[0]["answer"] = f"[open({str(marker)!r}, 'w')]"
    write_tsv(tmp_path / "LMUData" / "DocVQA_VAL.tsv", rows)
    answers = {str(row["index"]): TOYS["DocVQA_VAL"].right(row) for row in rows}
    score = VLMEval(settings).evaluate(scripted(tmp_path, answers), Benchmark("d", "vlmeval", "DocVQA_VAL"))
    assert not marker.exists()
    assert score.value == pytest.approx(100 * 23 / 24)


@pytest.mark.parametrize(
    "name", ["MathVision_MINI", "IPhO_2025", "OlympiadBench", "Physics", "LENS-CN-QA_MINI", "npmm", "Omni3DBench"]
)
def test_no_answer_of_a_model_is_run_as_code(name, settings, tmp_path):
    skip_without_packages(name)
    rows, marker = put(tmp_path, name), tmp_path / "executed"
    code = [f"open('{marker}', 'w')", f"__import__('pathlib').Path('{marker}').touch()"]
    forms = ["{}", "\\boxed{{{}}}", "Answer: {}", "So ${}$.", "[{}]", "<ans>{}</ans>", "x = {}"]
    answers = {str(row["index"]): forms[i // 2 % len(forms)].format(code[i % 2]) for i, row in enumerate(rows)}
    with JudgeServer(plays(name)) as server, contextlib.suppress(EvaluatorError):
        VLMEval(judged_settings(settings, server)).evaluate(
            scripted(tmp_path, answers), Benchmark(name, "vlmeval", name)
        )
    assert not marker.exists()


EQUAL = [("1/2", "0.5"), ("\\frac{1}{2}", "1/2"), ("-(3+4)*2", "-14"), ("2**10", "1024.0"), ("[1/2]", "0.5")]
OTHER = [("1/2", "0.6"), ("1/0", "0"), ("x/2", "x/3"), ("(1)(2)", "2"), ("'a'*3", "3")]


def test_numbers_that_are_written_as_arithmetic_are_equal_where_vlmeval_s_own_function_says_so():
    pytest.importorskip("latex2sympy2_extended")
    is_equal = vlmeval_module("dataset.utils.mathv").is_equal.__wrapped__  # without a process for each
    for pairs, is_so in ((EQUAL, True), (OTHER, False)):
        assert [is_equal(*pair) for pair in pairs] == [is_so] * len(pairs)
        with replaced_names({}):
            assert [is_equal(*pair) for pair in pairs] == [is_so] * len(pairs)


def test_a_power_of_more_digits_than_a_page_holds_is_not_computed_and_nothing_else_is_run():
    assert literal("[1/2, (2 ** 10, -3)]") == [0.5, (1024, -3)]
    assert literal("2 ** -1") == 0.5
    refused = ["10**10**10", "9**99999", "(9**9999)**99", "[1]*10**9", "'a'*10**9", "1/0", "1e9**99", "len([1])", "a+1"]
    for text in (*refused, "1 if 2 else 3", "1 < 2", "~1", "1 << 9**9", "(" * 999):
        with pytest.raises(ValueError, match="is no Python literal"):
            literal(text)


def test_names_of_vlmeval_are_its_own_again_afterwards(settings, tmp_path):
    before = {name: dict(vars(module)) for name, module in sys.modules.items() if name.startswith("vlmeval.")}
    rows = put(tmp_path, "CRPE_EXIST")
    answers = {str(row["index"]): row["answer"] for row in rows}
    VLMEval(settings).evaluate(scripted(tmp_path, answers), Benchmark("c", "vlmeval", "CRPE_EXIST"))
    after = {name: vars(module) for name, module in sys.modules.items() if name in before}
    assert not [name for name in before if "eval" in after[name] and "eval" not in before[name]]
    assert all(after["vlmeval.smp.file"][name] is before["vlmeval.smp.file"][name] for name in ("load", "dump"))


def test_a_problem_of_an_olympiad_without_a_picture_is_asked_as_a_text(settings, tmp_path):
    rows = put(tmp_path, "IPhO_2025")
    rows[1]["image"] = "NO_IMAGE_PLACEHOLDER_" + 50 * "x"
    write_tsv(tmp_path / "LMUData" / "IPhO_2025.tsv", rows)
    benchmark = Benchmark("i", "vlmeval", "IPhO_2025")
    data_set = VLMEval(settings)._data_set(known_benchmark(benchmark), benchmark)
    kinds = [[part["type"] for part in data_set.build_prompt(data_set.data.iloc[i])] for i in (0, 1)]
    assert kinds == [["image", "text"], ["text"]]


def test_pairs_are_told_by_the_index_as_it_stands_in_the_file(settings, tmp_path):
    rows = put(tmp_path, "ChartBench")
    for row in rows:  # VLMEvalKit takes such an index for a number, in which 12_0 is 120, and finds no pairs
        row |= {"index": row["index"][1:], "question": row["question"].replace("<c", "<")}
    write_tsv(tmp_path / "LMUData" / "ChartBench.tsv", rows)
    answers = {row["index"]: row["answer"] for row in rows}
    score = VLMEval(settings).evaluate(scripted(tmp_path, answers), Benchmark("c", "vlmeval", "ChartBench"))
    assert score.value == 100


def test_what_the_environment_chooses_to_ask_stands_in_the_key(settings, tmp_path, monkeypatch):
    put(tmp_path, "GSM8K-V")
    benchmark = Benchmark("g", "vlmeval", "GSM8K-V")
    explicit = VLMEval(settings).identity(benchmark)
    monkeypatch.delenv("GSM8K_V_MODE")
    implicit = VLMEval(settings).identity(benchmark)
    assert [key["GSM8K_V_MODE"] for key in (explicit, implicit)] == ["visual_explicit", "visual_implicit"]
    monkeypatch.setenv("GSM8K_V_MODE", "all")
    with pytest.raises(EvaluatorError, match=r"GSM8K_V_MODE in the environment: expected visual_implicit or .* 'all'"):
        VLMEval(settings).identity(benchmark)


def test_each_variable_of_the_environment_that_changes_a_prompt_is_in_the_rule_of_its_class():
    read = {}
    for owner in classes_in("IMAGE_DATASET"):
        if owner.name not in REFUSED and not missing_packages(owner.module):
            functions = [getattr(owner.load(), name) for name in ("__init__", "build_prompt")]
            source = "".join(inspect.getsource(function) for function in functions)
            read[owner.name] = {*re.findall(r"""environ(?:\.get\(|\[)['"](\w+)""", source)}
    known = {name: {variable for variable, _ in RULES[name].questions.variables} for name in read if name in RULES}
    assert {name: variables for name, variables in read.items() if variables} == {
        name: variables for name, variables in known.items() if variables
    }


@pytest.mark.parametrize(("name", "value"), [("USE_CAPTION", "1"), ("USE_COT_PROMPT", "0"), ("USE_IMAGE", "0")])
def test_what_the_environment_chooses_to_show_of_seephys_stands_in_the_key(
    name, value, settings, tmp_path, monkeypatch
):
    put(tmp_path, "SeePhys")
    benchmark = Benchmark("s", "vlmeval", "SeePhys")
    with JudgeServer(plays("SeePhys")) as server:
        default = VLMEval(judged_settings(settings, server)).identity(benchmark)
        monkeypatch.setenv(name, value)
        other = VLMEval(judged_settings(settings, server)).identity(benchmark)
    assert {fact for fact in default if default[fact] != other[fact]} == {name}


def test_questions_without_a_reference_answer_are_not_asked_where_vlmeval_leaves_them_out(
    settings, tmp_path, monkeypatch
):
    name, rows = "Asclepius", ALL["Asclepius"].rows()
    rows = [{**row, "answer": None if row["index"] % 4 == 0 else row["answer"]} for row in rows]
    write_tsv(tmp_path / "LMUData" / f"{name}.tsv", rows)
    answers = {str(row["index"]): str(row["answer"]) if row["index"] % 3 else "wrong" for row in rows}
    with JudgeServer(plays(name)) as server:
        harness, benchmark = VLMEval(judged_settings(settings, server)), Benchmark(name, "vlmeval", name)
        score = harness.evaluate(scripted(tmp_path, answers), benchmark)
        assert score.n == harness.count(benchmark) == sum(row["answer"] is not None for row in rows)
    assert score.value == pytest.approx(
        JUDGED[name].total(theirs(name, rows, answers, tmp_path / "o", monkeypatch)), abs=0.01
    )


def test_a_number_is_a_text_where_dynamath_expects_one_and_vlmeval_stops(settings, tmp_path):
    name = "DynaMath"
    rows = [{**row, "answer": "5 apples", "answer_type": "text"} for row in put(tmp_path, name)]
    write_tsv(tmp_path / "LMUData" / f"{name}.tsv", rows)
    answers = {str(row["index"]): json.dumps({"short answer": [5, 6.5, True][row["index"] % 3]}) for row in rows}
    with JudgeServer(plays(name)) as server:
        score = VLMEval(judged_settings(settings, server)).evaluate(
            scripted(tmp_path, answers), Benchmark(name, "vlmeval", name)
        )
    assert score.value == pytest.approx(100 / 3)


def test_a_table_that_vlmeval_would_remove_as_damaged_stays_where_it_is(settings, tmp_path):
    rows, file = put(tmp_path, "RefCOCO"), tmp_path / "LMUData" / "RefCOCO.tsv"
    before = file.read_bytes()
    answers = {str(row["index"]): row["answer"] for row in rows}
    assert VLMEval(settings).evaluate(scripted(tmp_path, answers), Benchmark("r", "vlmeval", "RefCOCO")).value == 100
    assert file.read_bytes() == before


@pytest.mark.parametrize("name", ["MMVP", "CRPE_EXIST", "MME", "3DSRBench"])
def test_questions_that_count_together_are_never_divided(name, settings, tmp_path):
    rows = put(tmp_path, name)
    answers = {str(row["index"]): ALL[name].right(row) for row in rows}
    candidate, harness, groups = scripted(tmp_path, answers), VLMEval(settings), {}
    for part in ("selection", "report"):
        benchmark = Benchmark(name, "vlmeval", name, Split(part, 0.5))
        ids = question_ids(known_benchmark(benchmark), harness._data_set(known_benchmark(benchmark), benchmark).data)
        groups[part] = {question.partition("/")[0] for question in ids}
        assert len(ids) == len(groups[part]) * (4 if name in ("CRPE_EXIST", "3DSRBench") else 2)
        assert harness.evaluate(candidate, benchmark).n == len(set(ids))
    assert not groups["selection"] & groups["report"]


def test_the_points_of_questions_are_told_where_vlmeval_tells_totals_alone(settings, tmp_path):
    rows = put(tmp_path, "CountBenchQA")
    answers = {str(row["index"]): str(row["answer"]) if row["index"] % 3 else "none" for row in rows}
    score = VLMEval(settings).evaluate(scripted(tmp_path, answers), Benchmark("c", "vlmeval", "CountBenchQA"))
    assert score.questions == {str(row["index"]): float(row["index"] % 3 > 0) for row in rows}


TOTALS = (
    *("npmm", "ChartBench", "VLRMBench_MultiSolution", "SparBench_tiny", "CRPE_EXIST", "VisFactor", "MMVP"),
    *("TableVQABench", "WildDoc", "CCOCR", "OCRBench_v2_MINI"),
    *("RefCOCO", "MSSBench", "MMOral_OPG_CLOSED", "3DSRBench", "VLM2Bench", "Omni3DBench"),
    *("CV-Bench-2D", "VLMBlind", "VisuLogic", "PuzzleVQA", "VisualPuzzles"),
    *("NaturalBenchDataset", "WeMath", "SPBench-SI", "CMMMU_VAL", "ScreenSpot_Mobile"),
)
"""Data sets whose totals are means of parts' means, or count groups, or are told without points."""


@pytest.mark.parametrize("name", TOTALS)
def test_a_soup_that_is_asked_a_part_has_the_total_of_all_by_vlmevals_own_evaluate(
    name, settings, tmp_path, monkeypatch
):
    skip_without_packages(name)
    monkeypatch.setattr("soup.evaluation.question_rule.LEAST_AUDITED", 3)
    rows, benchmark, harness = put(tmp_path, name), Benchmark(name, "vlmeval", name), VLMEval(settings)
    right, mixed = [TOYS[name].right(row) for row in rows], half_right(name, rows)
    # Every third question is wrong by all singles, every second disputed.
    tables = {
        digest: {
            str(row["index"]): "wrong" if i // 4 % 3 == 0 else mixed[i] if i // 4 % 2 and number else right[i]
            for i, row in enumerate(rows)
        }
        for number, digest in enumerate(("first", "second"))
    }
    singles = {each: harness.evaluate(scripted(tmp_path, table, each), benchmark) for each, table in tables.items()}
    for single in singles.values():
        assert harness.total(benchmark, single.questions) == pytest.approx(single.value, abs=1e-9)
    dispute = Dispute.among(singles, lambda points: harness.total(benchmark, points))
    question_set = dispute.questions_of("sha256:0", AuditSize(0.05))
    soup = {str(row["index"]): mixed[i - 1] if i % 2 else right[i] for i, row in enumerate(rows)}
    score = harness.evaluate(scripted(tmp_path, soup, "soup"), replace(benchmark, only=question_set.asked))
    estimate = question_set.estimate(score, lambda points: harness.total(benchmark, points))
    entry = known_benchmark(benchmark)
    ids = question_ids(entry, harness._data_set(entry, benchmark).data)
    table = {
        str(row["index"]): (soup if question in question_set.asked else tables["first"])[str(row["index"])]
        for row, question in zip(rows, ids, strict=True)
    }
    assert 0 < len(question_set.asked) < len(set(ids))
    total = TOYS[name].total(theirs(name, rows, table, tmp_path / "o", monkeypatch))
    assert estimate.value == pytest.approx(total, abs=0.51 * 0.1 ** TOYS[name].decimals)


@pytest.mark.parametrize("name", ["TableVQABench", "WildDoc", "OCRBench_v2_MINI"])
def test_questions_of_one_part_are_scored_alone_though_vlmeval_stops_where_a_part_is_missing(
    name, settings, tmp_path, capsys
):
    skip_without_packages(name)
    rows, benchmark, harness = put(tmp_path, name), Benchmark(name, "vlmeval", name), VLMEval(settings)
    texts = [TOYS[name].right(row) if i % 3 else "wrong" for i, row in enumerate(rows)]
    candidate = scripted(tmp_path, {str(row["index"]): text for row, text in zip(rows, texts, strict=True)})
    whole = harness.evaluate(candidate, benchmark)
    assert not capsys.readouterr().out  # WildDoc's class prints each prompt
    parts_of = known_benchmark(benchmark).rule.parts
    parts = {str(row["index"]): parts_of(row) for row in rows}
    for part in {*parts.values()}:
        asked = frozenset(question for question, its_part in parts.items() if its_part == part)
        score = harness.evaluate(candidate, replace(benchmark, only=asked))
        assert score.questions == {question: whole.questions[question] for question in asked}
        assert score.value == pytest.approx(100 * sum(score.questions.values()) / len(asked))


def test_a_part_of_the_questions_has_the_points_that_it_has_among_all(settings, tmp_path):
    rows = put(tmp_path, "MTVQA_TEST")
    for row, text in zip(rows, ("3.50", "007", "1e3", "True"), strict=False):
        row["answer"] = text
    write_tsv(tmp_path / "LMUData" / "MTVQA_TEST.tsv", rows)
    candidate = scripted(tmp_path, {str(row["index"]): row["answer"] for row in rows})
    benchmark = Benchmark("MTVQA_TEST", "vlmeval", "MTVQA_TEST")
    assert VLMEval(settings).evaluate(candidate, benchmark).value == 100
    for count in (1, 2, 3):  # which look like numbers by themselves
        some = replace(benchmark, only=frozenset(str(row["index"]) for row in rows[:count]))
        assert VLMEval(settings).evaluate(candidate, some).value == 100


def test_the_list_of_all_names_kind_judge_and_why_not(settings, tmp_path):
    put(tmp_path, "RealWorldQA")
    put(tmp_path, "ChartQA_TEST")
    rows = {row["name"]: row for row in list_kind("benchmarks", is_all=True)}
    assert len(rows) > 400
    assert (rows["realworldqa"]["here"], rows["ChartQA_TEST"]["here"]) == (24, 24)
    assert (rows["ChartQA_TEST"]["kind"], rows["ChartQA_TEST"]["judge"]) == ("open questions", False)
    assert (rows["SEEDBench_IMG"]["kind"], rows["SEEDBench_IMG"]["here"]) == ("multiple choice", None)
    assert rows["LogicVista"]["judge"]
    assert "runs or renders what the model wrote" in rows["SArena"]["why_not"]
    assert "RealWorldQA" not in rows  # it has a short name
    assert not [name for name, row in rows.items() if "no rule says" in str(row["why_not"])]


def judged_settings(settings, server):
    return replace(settings, judge_url=server.url, judge_model="a-judge")


def test_a_judge_that_fails_is_an_error_where_vlmevals_function_would_count_its_questions_as_wrong(
    settings, tmp_path, monkeypatch
):
    monkeypatch.setattr(endpoint, "FIRST_PAUSE_SECONDS", 0.001)
    rows = put(tmp_path, "CharXiv_reasoning_val")
    answers = {str(row["index"]): row["answer"] for row in rows}
    benchmark = Benchmark("c", "vlmeval", "CharXiv_reasoning_val")
    with (
        JudgeServer(lambda prompt, temperature: "fine" if prompt == "Hello." else (401, "no such key")) as server,
        pytest.raises(
            EvaluatorError, match=r"the judge a-judge at .* stopped answering after 0 replies: .*no such key"
        ),
    ):
        VLMEval(judged_settings(settings, server)).evaluate(scripted(tmp_path, answers), benchmark)


def test_variants_of_a_problem_are_scored_without_the_first_which_vlmeval_looks_up(settings, tmp_path):
    rows, benchmark = put(tmp_path, "DynaMath"), Benchmark("d", "vlmeval", "DynaMath", only=frozenset({"1/2", "5/5"}))
    answers = {str(row["index"]): JUDGED["DynaMath"].right(row) for row in rows}
    with JudgeServer(plays("DynaMath")) as server:
        score = VLMEval(judged_settings(settings, server)).evaluate(scripted(tmp_path, answers), benchmark)
    assert score.questions == {"1/2": 1, "5/5": 1}


@pytest.mark.parametrize(
    "name",
    [
        *("CharXiv_reasoning_val", "VL-RewardBench", "MMRarebench_Treatment", "PhyX_mini_OE", "PathVQA_VAL"),
        *("SimpleVQA", "MathCanvas-Bench", "IPhO_2025", "SFE", "CoreCognition", "MaCBench", "MMVMBench"),
        *(
            "AyaVisionBench",
            "MMSafetyBench",
            "ChartMuseum_dev",
            "Asclepius",
            "MMOral_OPG_OPEN",
            "SeePhys",
            "OCR_Reasoning",
            "LogicVista",
            "MathVerse_MINI",
            "MMReason_testmini",
            "MedqbenchCaption_dev",
        ),
    ],
)
def test_a_judge_whose_replies_are_not_of_the_form_is_an_error(name, settings, tmp_path):
    rows = put(tmp_path, name)
    answers = {str(row["index"]): "as I see it" for row in rows}
    with (
        JudgeServer(lambda prompt, temperature: "well done") as server,
        pytest.raises(EvaluatorError, match="no reply that can be read for 24 of 24 questions"),
    ):
        VLMEval(judged_settings(settings, server)).evaluate(
            scripted(tmp_path, answers), Benchmark("c", "vlmeval", name)
        )


def test_questions_of_two_kinds_are_graded_though_vlmeval_divides_by_the_number_of_each_kind(settings, tmp_path):
    name = "MMOral_OPG_OPEN"
    answers = {str(row["index"]): row["answer"] for row in put(tmp_path, name)}
    with JudgeServer(plays(name)) as server:
        benchmark = Benchmark(name, "vlmeval", name, only=frozenset({"1", "2"}))
        score = VLMEval(judged_settings(settings, server)).evaluate(scripted(tmp_path, answers), benchmark)
    assert score.questions == {"1": 1.0, "2": 1.0}


def test_a_package_that_only_the_metric_imports_is_missed_before_anything_is_asked(settings, tmp_path, monkeypatch):
    put(tmp_path, "ChartQAPro")
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "anls" else find(name))
    with pytest.raises(EvaluatorError, match=r"ChartQAPro: its metric needs .*: pip install anls$"):
        VLMEval(settings).evaluate(scripted(tmp_path, {}), Benchmark("c", "vlmeval", "ChartQAPro"))
    assert not (tmp_path / "model.notes").exists()


@pytest.mark.parametrize("name", ["OlympiadBench", "SeePhys", "Physics"])
def test_a_package_of_another_version_than_the_metric_reads_with_is_told_by_the_name_to_install(
    name, settings, tmp_path, monkeypatch
):
    put(tmp_path, name)
    entry = known_benchmark(Benchmark("o", "vlmeval", name))  # finds VLMEvalKit while it can be found
    monkeypatch.setitem(REQUIREMENTS, "antlr4", ANTLR)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, find=importlib.util.find_spec: find("json"))
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "4.13.2")
    with pytest.raises(EvaluatorError, match=r"pip install antlr4-python3-runtime==4\.11\.\*$"):
        open_data_set(entry, tmp_path, ImageFiles())
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "4.11.1")
    assert missing_requirements(["antlr4"]) == []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert missing_requirements(["dotenv", "anls"]) == ["python-dotenv", "anls"]


def test_each_metric_that_reads_latex_names_the_packages_that_read_it():
    readers = {"sympy.parsing.latex": "antlr4", "latex2sympy2_extended": "latex2sympy2_extended"}
    needed = {}
    for owner in classes_in("IMAGE_DATASET"):
        if owner.name not in RULES:
            continue
        vlmeval_module(owner.module)
        waiting = [module for _, _, module in _inner_imports(f"vlmeval.{owner.module}", owner.name)]
        waiting += [owner.module] if owner.module != "dataset.image_vqa" else []
        seen = set(waiting)
        while waiting:
            text = source_of(module := waiting.pop())
            below = {f"dataset.utils.{name}" for name in re.findall(r"from \.(\w+) import", text)} - seen
            seen |= below
            waiting += below if module.startswith("dataset.utils.") else ()
        texts = "".join(map(source_of, seen))
        needed[owner.name] = {package for module, package in readers.items() if f"from {module} import" in texts}
    assert {name for name in needed if needed[name]} >= {"SeePhys", "Physics_yale", "LENS", "OlympiadBench"}
    assert {name: packages - set(RULES[name].call.packages) for name, packages in needed.items() if packages} == {
        name: set() for name, packages in needed.items() if packages
    }


def test_a_class_imports_what_its_functions_need_and_nothing_of_other_classes_in_its_module():
    vlmeval_module("dataset.image_vqa")  # whose MMSci_Captioning alone needs BERT, transformers' pipelines and nltk
    modules = {
        name: {module for _, _, module in _inner_imports("vlmeval.dataset.image_vqa", name)}
        for name in ("MMSci_Captioning", "CRPE", "SeePhys")
    }
    assert modules["MMSci_Captioning"] == {"dataset.utils.mmsci"}
    assert modules["CRPE"] == {"dataset.utils.crpe"}
    assert modules["SeePhys"] == {"dataset.utils.seephys"}


def test_an_unknown_name_imports_what_another_did_not_already():
    assert not catalog.is_data_set("NoSuchSet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog.DataSetClass, "load", lambda self: pytest.fail(f"{self.name} is imported again"))
        assert not catalog.is_data_set("NoSuchSetEither")
