"""What `--eval` takes: benchmarks of any harness, shipped or a plug-in; the core knows none by name."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest
from click.testing import CliRunner

import soup
from evaluators.vlmeval.harness import VLMEval
from soup.cli.app import cli
from soup.errors import EvaluatorError
from soup.evaluation.api import Benchmark, BenchmarkInfo, Evaluator, Harness, Location, Score, Split
from soup.evaluation.benchmark_data import fetch_benchmarks
from soup.evaluation.benchmark_names import parse_benchmarks
from soup.evaluation.harnesses import Catalog, may_have_parts
from soup.evaluation.objective import Objective
from soup.evaluation.settings import EvalSettings
from soup.report.listing import list_kind
from soup.support.plugins import EVALUATORS
from tests.helpers import flat_arguments as flat
from tests.helpers.toy_pools import make_pool

OPENCOMPASS = ["mmbench", "mmstar", "mmmu", "mathvista", "hallusionbench", "ai2d", "ocrbench", "mmvet"]
FIVE_MORE = ["scienceqa", "mme", "llavabench", "realworldqa", "pope"]


class Bare:
    """Scores with the two methods that every evaluator has, and nothing else."""

    def __init__(self, settings):
        self.settings = settings

    def identity(self, benchmark):
        return {"evaluator": "bare", "target": benchmark.target}

    def evaluate(self, candidate, benchmark):
        return Score(50.0)


class Owner(Bare):
    """Lists two benchmarks of its own, one of them in a group."""

    benchmarks: ClassVar = {
        "reading": BenchmarkInfo("letters", "READ", 12, "right words", group="school"),
        "counting": BenchmarkInfo("numbers", "COUNT", 34, "right numbers", judge=True, group="school"),
        "singing": BenchmarkInfo("songs", "SING", 5, "right notes"),
    }
    has_parts = False
    home = Path("nowhere")

    def locate(self, benchmark):
        return Location(self.home / f"{benchmark.target}.tsv", f"https://example.org/{benchmark.target}")

    def count(self, benchmark):
        if benchmark.target == "counting":
            raise EvaluatorError("counting: its data are not here")
        return len(benchmark.target)

    def fetch(self, benchmark, phase, progress):
        phase(f"fetching {benchmark.name}", 3)
        progress(3)
        return self.home / benchmark.target


@pytest.fixture
def plug_in(monkeypatch):
    def register(name, thing):
        monkeypatch.setitem(EVALUATORS.registered, name, thing)

    return register


def install(folder, monkeypatch, **entry_points):
    """A package on the path with these evaluators as entry points."""
    info = folder / "plug_in-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plug-in\nVersion: 1.0\n")
    lines = [f"{name} = {target}" for name, target in entry_points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[soup.evaluators]", *lines, ""]))
    monkeypatch.syspath_prepend(folder)


def triples(*texts):
    return [(benchmark.name, benchmark.harness, benchmark.target) for benchmark in parse_benchmarks(texts)]


# The names


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mmbench", [("mmbench", "vlmeval", "mmbench")]),
        ("vlmeval:mmbench", [("vlmeval:mmbench", "vlmeval", "mmbench")]),
        ("mmbench, ocrbench,,mmbench", [("mmbench", "vlmeval", "mmbench"), ("ocrbench", "vlmeval", "ocrbench")]),
        ("python:a.py:f", [("python:a.py:f", "python", "a.py:f")]),
        ("command:a, b {checkpoint} ", [("command:a, b {checkpoint} ", "command", "a, b {checkpoint} ")]),
        (" command:a {checkpoint} ", [("command:a {checkpoint}", "command", "a {checkpoint}")]),
        ("mmvet,command:a,b", [("mmvet", "vlmeval", "mmvet"), ("command:a,b", "command", "a,b")]),
        ("mmvet, command:a,b", [("mmvet", "vlmeval", "mmvet"), ("command:a,b", "command", "a,b")]),
        ("lm_eval:a,,b@d", [("lm_eval:a", "lm_eval", "a"), ("lm_eval:b@d", "lm_eval", "b@d")]),
        ("lm_eval:a,mmvet", [("lm_eval:a", "lm_eval", "a"), ("mmvet", "vlmeval", "mmvet")]),
        ("python:a.py:f,command:x", [("python:a.py:f", "python", "a.py:f"), ("command:x", "command", "x")]),
        ("opencompass", [(name, "vlmeval", name) for name in OPENCOMPASS]),
        ("mmvet,opencompass", [(name, "vlmeval", name) for name in ("mmvet", *OPENCOMPASS[:-1])]),
    ],
)
def test_a_text_names_benchmarks(text, expected):
    assert triples(text) == expected


def test_names_keep_their_order_and_their_split():
    split = Split("report", 0.25)
    assert parse_benchmarks(["mmvet", "python:a.py:f,mmstar", "mmvet"], split) == [
        Benchmark("mmvet", "vlmeval", "mmvet", split),
        Benchmark("python:a.py:f", "python", "a.py:f", split),
        Benchmark("mmstar", "vlmeval", "mmstar", split),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "`eval` names no benchmark. Known: mmbench, mmstar"),
        (" , ", "`eval` names no benchmark"),
        ("mmbnch", "Unknown benchmark 'mmbnch'. Did you mean 'mmbench'? Known: "),
        ("opencompas", "Did you mean 'opencompass'?"),
        ("pythn:a.py:f", "Unknown benchmark 'pythn:a.py:f'."),
        ("python", "python: expected python:FILE.py:FUNCTION."),
        ("command", "command: expected command:TEMPLATE."),
        ("lm_eval", "lm_eval: expected lm_eval:TASK[@DIR]."),
        ("vlmeval", "vlmeval: expected vlmeval:BENCHMARK."),
        ("lm_eval:boolq,python", "python: expected python:FILE.py:FUNCTION."),
    ],
)
def test_a_name_that_is_none_is_told_with_what_is_expected(text, words):
    with pytest.raises(EvaluatorError) as caught:
        parse_benchmarks([text])
    assert words in str(caught.value)


def test_all_that_is_wrong_is_told_at_once():
    with pytest.raises(EvaluatorError) as caught:
        parse_benchmarks(["mmbnch,python", "mmbench,ocrbnch"])
    lines = str(caught.value).splitlines()
    assert [line.split("'")[1] if "'" in line else line for line in lines] == [
        "mmbnch",
        "python: expected python:FILE.py:FUNCTION.",
        "ocrbnch",
    ]


# Harnesses of others


def test_an_installed_harness_is_found_by_its_name_and_judges_a_search(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_pool(tmp_path / "ckpts", {"a": [1, 2, 3, 4], "b": [2, 3, 4, 5]})
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "perplexity_plug_in.py").write_text(
        "from safetensors.numpy import load_file\n"
        "from soup.evaluation import Score\n"
        "class Perplexity:\n"
        "    def __init__(self, settings): pass\n"
        "    def identity(self, benchmark): return {'evaluator': 'ppl', 'target': benchmark.target}\n"
        "    def evaluate(self, candidate, benchmark):\n"
        "        return Score(10.0 * load_file(candidate.directory() / 'model.safetensors')['head'][0].item())\n"
    )
    install(tmp_path / "site", monkeypatch, ppl="perplexity_plug_in:Perplexity")
    assert triples("ppl") == [("ppl", "ppl", "ppl")]
    assert triples("ppl:wikitext,mmvet") == [("ppl:wikitext", "ppl", "wikitext"), ("mmvet", "vlmeval", "mmvet")]
    made = flat.cook("maximum", pool="ckpts", eval="ppl", out="out")
    assert made.chosen == ("b",)
    assert {trial.names: trial.scores["ppl"].value for trial in made.trials} == {
        ("a",): 10.0,
        ("b",): 20.0,
        ("a", "b"): 15.0,
    }


def test_a_harness_with_two_methods_is_an_evaluator_and_no_second_class(plug_in):
    plug_in("bare", Bare)
    assert isinstance(Bare(EvalSettings()), Evaluator)
    assert triples("bare,bare:x,mmvet")[:2] == [("bare", "bare", "bare"), ("bare:x", "bare", "x")]
    assert may_have_parts("bare")
    assert [row["name"] for row in list_kind("benchmarks")] == [*OPENCOMPASS, *FIVE_MORE]
    with pytest.raises(EvaluatorError, match="There is nothing to fetch for bare: only mmbench, mmstar"):
        fetch_benchmarks(["bare", "mmbench"])


def test_the_defaults_may_be_inherited(plug_in):
    class Inheriting(Harness):
        def __init__(self, settings):
            pass

        def identity(self, benchmark):
            return {}

        def evaluate(self, candidate, benchmark):
            return Score(1.0)

    benchmark = Benchmark("mine", "mine", "mine")
    harness = Inheriting(EvalSettings())
    assert (harness.locate(benchmark), harness.count(benchmark), harness.has_parts) == (None, None, True)
    with pytest.raises(EvaluatorError, match="There is nothing to fetch for mine"):
        harness.fetch(benchmark, print, print)
    plug_in("mine", Inheriting)
    assert triples("mine") == [("mine", "mine", "mine")]
    with pytest.raises(EvaluatorError, match="There is nothing to fetch for mine: only mmbench, "):
        fetch_benchmarks(["mine"])


def test_a_harness_may_be_made_by_a_function(plug_in):
    plug_in("made", lambda settings: Bare(settings))
    assert triples("made") == [("made", "made", "made")]


def test_benchmarks_of_a_harness_need_no_prefix_and_come_in_groups(plug_in):
    plug_in("owner", Owner)
    assert triples("singing,mmvet") == [("singing", "owner", "singing"), ("mmvet", "vlmeval", "mmvet")]
    assert triples("school") == [("reading", "owner", "reading"), ("counting", "owner", "counting")]
    assert triples("lm_eval:boolq,reading") == [("lm_eval:boolq", "lm_eval", "boolq"), ("reading", "owner", "reading")]
    with pytest.raises(EvaluatorError, match="Did you mean 'singing'"):
        parse_benchmarks(["singin"])
    assert not may_have_parts("owner")


def test_they_are_listed_counted_located_and_fetched(plug_in):
    plug_in("owner", Owner)
    rows = {row["name"]: row for row in list_kind("benchmarks")}
    assert [*rows] == [*OPENCOMPASS, *FIVE_MORE, "reading", "counting", "singing"]
    assert rows["reading"] == {
        "name": "reading",
        "kind": "",
        "summary": "letters",
        "source": "READ",
        "questions": 12,
        "metric": "right words",
        "judge": False,
        "here": 7,
        "path": str(Path("nowhere/reading.tsv")),
        "url": "https://example.org/reading",
        "can_fetch": True,
        "why_not": None,
    }
    assert (rows["counting"]["here"], rows["counting"]["why_not"]) == (None, "counting: its data are not here")
    assert fetch_benchmarks(["singing"]) == [Path("nowhere/singing")]


def test_fetching_is_advised_where_the_harness_can_and_else_the_reason_is_told(plug_in, monkeypatch):
    monkeypatch.setattr(VLMEval, "benchmarks", {})
    plug_in("owner", Owner)
    listing = CliRunner().invoke(cli, ["list", "benchmarks"])
    assert "soup list benchmarks --fetch reading,counting,singing downloads into nowhere" in listing.stderr
    monkeypatch.delattr(Owner, "fetch")
    listing = CliRunner().invoke(cli, ["list", "benchmarks"])
    assert "--fetch" not in listing.stderr
    assert "counting: its data are not here" in listing.stderr


def test_where_the_harness_is_not_installed_its_line_is_told_once_and_no_folder(plug_in, monkeypatch):
    def locate(self, benchmark):
        raise EvaluatorError("Singing is scored by a choir, which is not installed.")

    monkeypatch.setattr(VLMEval, "benchmarks", {})
    monkeypatch.setattr(Owner, "locate", locate)
    plug_in("owner", Owner)
    listing = CliRunner().invoke(cli, ["list", "benchmarks"])
    assert listing.stderr.splitlines() == ["Singing is scored by a choir, which is not installed."]


def test_what_a_harness_can_not_score_stands_below_the_table_of_all_by_its_reason(plug_in, monkeypatch):
    monkeypatch.setattr(VLMEval, "benchmarks", {})
    monkeypatch.setattr(VLMEval, "unlisted", classmethod(lambda cls: {}))
    known = {"whistling": "it is heard", "humming": "it is heard", "drawing": Owner.benchmarks["reading"]}
    plug_in("owner", type("Full", (Owner,), {"unlisted": classmethod(lambda cls: known)}))
    table, _, below = (
        CliRunner().invoke(cli, ["list", "benchmarks", "--all"]).stdout.partition("\nCan't be evaluated here:\n")
    )
    assert below == "- whistling, humming: it is heard\n"
    assert ("drawing" in table, "whistling" in table) == (True, False)


def test_a_weight_for_a_name_that_its_harness_will_never_score_is_refused_before_any_work(
    plug_in, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    make_pool(tmp_path / "ckpts", {"a": [1, 2, 3, 4], "b": [2, 3, 4, 5]})
    plug_in("owner", Owner)
    plug_in("bare", Bare)
    with pytest.raises(EvaluatorError, match="No benchmark 'raeding' to weigh"):
        flat.cook("average", pool="ckpts", eval="school", objective=Objective({"raeding": 2.0}), out="out")
    assert not (tmp_path / "ckpts.soup" / "journal.jsonl").exists()
    with pytest.raises(EvaluatorError, match="No benchmark 'raeding' to weigh"):
        flat.cook("average", pool="ckpts", eval="bare", objective=Objective({"raeding": 2.0}), out="out")
    assert (tmp_path / "ckpts.soup" / "journal.jsonl").exists(), "its score might have had such a part"


def test_what_ships_comes_before_a_plug_in_that_lists_the_same_name(plug_in):
    plug_in("aaa", type("Imitator", (Owner,), {"benchmarks": {"mmbench": Owner.benchmarks["reading"]}}))
    assert triples("mmbench") == [("mmbench", "vlmeval", "mmbench")]


def test_a_broken_plug_in_breaks_no_other_name_and_is_told_where_a_name_may_be_its_own(tmp_path, monkeypatch, plug_in):
    (tmp_path / "broken_plug_in.py").write_text("raise SystemExit('no licence')\n")
    install(tmp_path, monkeypatch, broken="broken_plug_in:Evaluator")
    plug_in("odd", type("Odd", (Bare,), {"benchmarks": ["mine"]}))
    assert triples("mmbench,lm_eval:boolq")[0] == ("mmbench", "vlmeval", "mmbench")
    assert triples("broken:x") == [("broken:x", "broken", "x")]  # building it will tell
    assert may_have_parts("broken")
    with pytest.raises(EvaluatorError, match="importing broken_plug_in failed: SystemExit: no licence") as caught:
        parse_benchmarks(["broken"])
    assert "Unknown benchmark" not in str(caught.value)
    with pytest.raises(EvaluatorError) as caught:
        parse_benchmarks(["mmbnch"])
    assert "Did you mean 'mmbench'" in str(caught.value)
    assert "no licence" in str(caught.value)
    assert "evaluator 'odd': expected its `benchmarks` to map names to" in str(caught.value)


def test_a_harness_that_can_t_be_built_is_a_row_with_its_reason(plug_in):
    def refuse(self, settings):
        raise ValueError("no licence")

    plug_in("owner", type("Unbuildable", (Owner,), {"__init__": refuse}))
    rows = {row["name"]: row for row in list_kind("benchmarks")}
    assert rows["singing"]["why_not"] == "evaluator 'owner' can't be built: ValueError: no licence"


# What is loaded, and what the core knows


def test_names_with_their_harness_load_that_harness_alone(plug_in, monkeypatch):
    monkeypatch.setattr(Catalog, "load", lambda: pytest.fail("all harnesses were loaded"))
    assert len(triples("python:a.py:f,vlmeval:mmbench", "lm_eval:boolq", "command:a,b")) == 4


def test_finding_all_benchmarks_loads_no_library_that_judges():
    code = (
        "import sys\n"
        "from soup.evaluation.benchmark_names import parse_benchmarks\n"
        "assert len(parse_benchmarks(['opencompass'])) == 8\n"
        "heavy = {'vlmeval', 'lm_eval', 'transformers', 'torch', 'numpy', 'pandas', 'PIL'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_core_names_no_harness():
    root = Path(soup.__file__).parent
    # The registry, and what says which packages are installed.
    known = {root / "support" / "plugins.py", root / "support" / "extras.py", root / "report" / "doctor.py"}
    core = [path for path in root.rglob("*.py") if path not in known and (root / "cli") not in path.parents]
    assert len(core) > 50
    pattern = re.compile(r"vlm-?eval|lm[-_]eval|opencompass", re.IGNORECASE)
    assert not {path.name: pattern.findall(path.read_text()) for path in core if pattern.search(path.read_text())}
