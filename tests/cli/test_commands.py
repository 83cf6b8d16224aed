"""The command line as a user meets it: what stands on stdout and stderr, exit codes, JSON, help, wrong inputs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

from soup._version import __version__
from soup.cli.app import cli
from soup.cli.options import Size
from soup.report.tables import ScoreRow, ShownTable
from tests.helpers.forked_cli import Forge
from tests.helpers.toy_pools import calls, make_checkpoint, make_judge, make_pool, tree

COMMANDS = sorted(cli.commands)
JUDGED = ("--eval", "python:judge/judge.py:score")
GREEDY = ("greedy", "--pool", "ckpts", "-o", "out", *JUDGED)


@pytest.fixture(scope="module")
def forge():
    with Forge() as forge:
        yield forge


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toys")
    make_pool(folder / "ckpts", shards=2)
    make_judge(folder / "judge")
    return folder


@pytest.fixture
def here(toys, tmp_path):
    return shutil.copytree(toys, tmp_path / "here")


@pytest.fixture
def soup(forge, here):
    """Runs `soup ...` among the toys."""

    def run(*argv, code=0, **options):
        ended = forge(*argv, cwd=here, **options)
        assert ended.code == code, ended
        assert "Traceback" not in ended.stderr or "judge.py" in ended.stderr, ended.stderr
        return ended

    return run


def answer(ended):
    """The one JSON document on stdout."""
    document = json.loads(ended.stdout)
    assert document["schema"] == 1
    return document


# Help


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_every_option_of_it_too(name):
    command = cli.commands[name]
    assert command.callback.__doc__
    done = CliRunner().invoke(cli, [name, "--help"])
    assert done.exit_code == 0
    first = command.get_short_help_str(200)
    assert first.endswith((".", "?"))
    assert first[:1].isupper()
    for param in command.params:
        if isinstance(param, click.Option):
            assert param.help, f"soup {name} {param.opts[0]} has no help"
            assert param.opts[0] in done.output


def test_a_command_ends_without_a_look_for_garbage_which_takes_a_second_with_torch_and_transformers():
    code = (
        "import atexit, gc, sys\n"
        "atexit.register(lambda: print(gc.get_freeze_count() > 0))\n"  # what is registered first runs last
        "from soup.__main__ import main\n"
        "sys.argv = ['soup', '--version']\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "True"


def test_help_and_version_answer_without_torch():
    code = (
        "import sys\nfrom soup.cli.app import cli\n"
        "for argv in (['--help'], ['greedy', '-h'], ['--version']):\n"
        "    cli.main(argv, standalone_mode=False)\n"
        "heavy = {'torch', 'transformers', 'pydantic', 'rich', 'yaml', 'huggingface_hub', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(f"\n  {name} " in done.stdout for name in COMMANDS)
    assert __version__ in done.stdout


def test_the_console_script_is_there_and_a_wrong_command_is_a_usage_error():
    script = Path(sys.executable).with_name("soup")
    done = subprocess.run([script, "gredy"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "No such command 'gredy'" in done.stderr


# Answers


def test_a_search_prints_its_table_on_stdout_and_its_talk_on_stderr(soup):
    done = soup(*GREEDY)
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["soup", "python:judge/judge.py:score", "overall"]
    assert [line.split()[0] for line in lines[1:5]] == [*"abcd"]
    assert re.search(r"^b \+ c +99\.94 +99\.94  accepted$", done.stdout, re.MULTILINE)
    assert lines[-1] == "out: the mean of b + c"
    assert done.stderr.splitlines()[0] == "greedy: at most 7 evaluations"
    assert "  a: overall 93.50 (python:judge/judge.py:score 93.50; " in done.stderr
    assert "\x1b" not in done.stdout + done.stderr, "colours and bars are for terminals"


def test_all_commands_are_as_loud_as_is_wished(soup):
    quiet = soup(*GREEDY, "--quiet", "--run-dir", "quiet")
    assert (quiet.stderr, "accepted" in quiet.stdout) == ("", True)
    verbose = soup(*GREEDY, "--verbose", "--overwrite", "--run-dir", "verbose")
    assert "evaluating a on python:judge/judge.py:score ...\n" in verbose.stderr
    assert "  a on python:judge/judge.py:score: 93.50 (0." in verbose.stderr
    both = soup("inspect", "ckpts/a", "--quiet", "--verbose", code=2)
    assert "--quiet and --verbose exclude each other" in both.stderr


def test_the_json_of_a_search(soup, here):
    document = answer(soup(*GREEDY, "--json"))
    assert (document["strategy"], document["out"], document["chosen"]) == ("greedy", "out", ["b", "c"])
    assert [trial["accepted"] for trial in document["trials"]] == [False, True, False, False, True, False, False]
    best = document["trials"][4]
    assert best["ingredients"] == ["b", "c"]
    score = best["scores"]["python:judge/judge.py:score"]
    assert score == {"value": pytest.approx(99.9375), "n": None, "split": "all"}
    assert best["overall"] == score["value"]
    recipe = document["recipe"]
    assert recipe["schema"] == 1
    assert [share["name"] for share in recipe["ingredients"]] == ["b", "c"]
    assert recipe["digest"] in (here / "out" / "README.md").read_text()
    again = answer(soup(*GREEDY, "--json"))
    assert all(trial["remembered"] for trial in again["trials"])
    assert {**again, "trials": []} == {**document, "trials": []}


def test_the_json_of_eval(soup):
    document = answer(soup("eval", "ckpts/a", "ckpts/b", *JUDGED, "--json"))
    assert document.keys() == {"schema", "trials"}
    names = [trial["ingredients"] for trial in document["trials"]]
    assert names == [["a"], ["b"]]
    assert document["trials"][1]["scores"]["python:judge/judge.py:score"]["value"] == 99.5


def test_eval_weighs_benchmarks_as_a_search_does(soup):
    names = [f"python:judge/judge.py:{name}" for name in ("score", "other")]
    asked = ("eval", "ckpts/a", "--eval", ",".join(names), "--json", "--weights")
    [trial] = answer(soup(*asked, f"{names[0]}=3"))["trials"]
    score, other = (trial["scores"][name]["value"] for name in names)
    assert trial["overall"] == pytest.approx((3 * score + other) / 4)
    assert "No benchmark 'mmbnch' to weigh" in soup(*asked, "mmbnch=2", code=1).stderr


def test_json_stands_alone_on_stdout_however_much_a_judge_or_strategy_prints(soup, here):
    text = "print('loading')\ndef loud(pool, score):\n    print('thinking')\n    return list(pool)\n"
    (here / "loud.py").write_text(text)
    argv = ("cook", "--strategy", "loud.py:loud", "--pool", "ckpts", "-o", "out", "--json")
    judge = ("--eval", "python:judge/judge.py:chatty")
    done = soup(*argv, *judge)
    assert answer(done)["chosen"] == [*"abcd"]
    assert all(word in done.stderr for word in ("loading", "thinking", "thinking aloud"))
    assert answer(soup(*argv, "--dry-run"))["strategy"] == "loud.py:loud"


@pytest.mark.parametrize("kind", ["strategies", "methods", "evaluators", "engines", "benchmarks"])
def test_lists(soup, kind):
    rows = {row["name"]: row for row in answer(soup("list", kind, "--json"))[kind]}
    shipped = {
        "strategies": {"average", "greedy", "maximum"},
        "methods": {"linear"},
        "evaluators": {"vlmeval", "python", "command"},
        "engines": {"transformers", "openai", "serve", "vllm"},
        "benchmarks": {"mmbench", "ocrbench"},
    }
    assert shipped[kind] <= rows.keys()
    assert all(row["summary"] for row in rows.values())
    output = soup("list", kind).stdout
    assert output.startswith("name")
    assert all(f"\n{name} " in output for name in shipped[kind])


def test_check_says_that_a_pool_can_be_merged_and_whom_distances_speak_against(soup):
    *table, summary = soup("check", "--pool", "ckpts").stdout.splitlines()
    counts = "0 problems, 0 warnings, 4 misfits"
    assert summary == f"{counts}: a, b, c, d can be merged; look at a, b, c, d first."
    assert [row.split()[0] for row in table] == ["ingredient", *"abcd", "frozen"]
    assert all("not from this mean" in row for row in table[1:5]), "each is made of random numbers of its own"
    document = answer(soup("check", "--pool", "ckpts", "--json"))
    assert document.pop("distances")["reference"] == "mean"
    assert document == {"schema": 1, "ingredients": [*"abcd"], "problems": [], "warnings": [], "misfits": [*"abcd"]}


def test_check_ends_with_1_and_tells_all_that_is_wrong(soup, here):
    file = here / "ckpts/c/model-00001-of-00002.safetensors"
    tensors = load_file(file)
    save_file({name: np.zeros(2, np.float32) for name in tensors}, file, {"format": "pt"})
    shutil.copytree(here / "ckpts/b", here / "ckpts/z")
    config = json.loads((here / "ckpts/d/config.json").read_text()) | {"model_type": "llava"}
    (here / "ckpts/d/config.json").write_text(json.dumps(config))
    done = soup("check", "--pool", "ckpts", code=1)
    problems = [line for line in done.stdout.splitlines() if line.startswith("problem: ")]
    assert len(problems) == len(tensors) + 1
    assert all(f"c: {name}: expected" in done.stdout for name in tensors)
    assert problems[-1].startswith("problem: d: config.json: model_type: expected toy as in a, found llava. ")
    assert done.stdout.endswith(" do not belong together.\n")
    assert "warning: z holds the same weights as b: it counts twice" in done.stderr
    document = answer(soup("check", "--pool", "ckpts", "--json", code=1))
    assert [f"problem: {problem['text']}" for problem in document["problems"]] == problems
    cure = "Correct the file where it is wrong; --exclude leaves d out"
    assert document["problems"][-1] == {
        "kind": "config",
        "text": f"d: config.json: model_type: expected toy as in a, found llava. {cure}",
        "ingredient": "d",
        "keys": ["model_type"],
        "file": "config.json",
        "against": "a",
        "expected": "toy",
        "found": "llava",
        "cure": cure,
    }


def test_inspect_counts_what_is_there(soup, here):
    document = answer(soup("inspect", "ckpts/a", "--json"))
    tensors = {
        name: value for file in (here / "ckpts/a").glob("*.safetensors") for name, value in load_file(file).items()
    }
    assert document["bytes"] == sum(value.nbytes for value in tensors.values())
    shapes = {tensor["name"]: tensor["shape"] for tensor in document["tensors"]}
    assert shapes == {name: list(value.shape) for name, value in tensors.items()}
    components = {part["name"]: part for part in document["components"]}
    assert components["language"]["elements"] == 300_035
    assert components["vision"] == {"name": "vision", "tensors": 1, "elements": 12, "bytes": 24, "dtypes": "float16"}
    assert document["model_type"] == "toy"
    assert document["digest"].startswith("xxh3:")
    output = soup("inspect", "ckpts/a", "--tensors", "--no-digest").stdout
    assert re.search(r"^language +2 +300,035 +1\.20 MB +float32$", output, re.MULTILINE)
    assert "digest" not in output
    assert all(name in output for name in tensors)


def test_equal_weights_have_equal_digests_however_they_are_laid_out(soup, here):
    make_checkpoint(here / "whole", 1, head=[9, 9, 9, 9])
    digests = {answer(soup("inspect", folder, "--json"))["digest"] for folder in ("whole", "ckpts/a")}
    assert len(digests) == 1


def test_report_shows_every_model_and_every_soup_of_a_run(soup):
    soup(*GREEDY)
    soup("average", "--pool", "ckpts", "-o", "mean", *JUDGED)
    document = answer(soup("report", "ckpts.soup", "--json"))
    rows = {row["name"]: row for row in document["rows"]}
    assert [*rows] == [*"abcd", "average", "greedy"]
    assert rows["greedy"]["remark"] == "b + c"
    assert rows["greedy"]["values"]["overall"] == pytest.approx(99.9375)
    assert document["columns"] == ["python:judge/judge.py:score", "overall"]
    output = soup("report", "ckpts.soup").stdout
    assert re.search(r"^greedy +99\.94 +99\.94  b \+ c *$", output, re.MULTILINE)


def test_a_runs_table_is_shown_apart_for_each_part_of_the_questions():
    columns = ("a", "b (x)", "a (selection)", "b (x) (selection)", "a (report)", "b (x) (report)")
    table = ShownTable(columns, (ScoreRow("m", (1.0, 2.0, 3.0, 4.0, 5.0, None), "m + n"),))
    assert table.by_part() == {
        "all": ShownTable(("a", "b (x)"), (ScoreRow("m", (1.0, 2.0), "m + n"),)),
        "selection": ShownTable(("a", "b (x)"), (ScoreRow("m", (3.0, 4.0), "m + n"),)),
        "report": ShownTable(("a", "b (x)"), (ScoreRow("m", (5.0, None), "m + n"),)),
    }


def test_a_recipe_names_its_ingredients_one_by_one_so_that_its_soup_may_lie_beside_them(soup, here):
    (here / "plain.yaml").write_text("ingredients: [{name: a, path: ckpts/a}, {name: b, path: ckpts/b}]")
    soup("merge", "plain.yaml", "-o", "ckpts/out")
    assert (here / "ckpts/out/recipe.yaml").exists()


def test_a_soup_among_its_ingredients_is_told(soup, here):
    soup("average", "--pool", "ckpts", "--exclude", "d", "-o", "made")
    shutil.move(here / "made", here / "ckpts/made")
    remark = "made: is a soup of a, b, c, by its recipe.yaml, which are ingredients, too. --exclude made leaves it out"
    assert remark in soup("average", "--pool", "ckpts", "-o", "out").stderr
    assert "is a soup of" not in soup("average", "--pool", "ckpts", "--exclude", "a", "-o", "others").stderr


def test_a_plan_shows_some_of_many_values_and_how_many_there_are(soup):
    line = ("sweep", "ckpts/a", "ckpts/b", *JUDGED, "--steps", "1001", "--dry-run")
    text = " ".join(soup(*line).stdout.split())
    assert "points 0.0, 0.001, 0.002, " in text
    assert "0.018, 0.019, ..., 1.0 (1,001; --json has all)" in text
    assert len(json.loads(soup(*line, "--json").stdout)["points"]) == 1001


def test_merge_makes_the_soup_of_a_recipe(soup, here):
    soup("average", "--pool", "ckpts", "-o", "out")
    done = soup("merge", "out/recipe.yaml", "-o", "again")
    assert done.stdout.startswith("again: a + b + c + d (sha256:")
    document = answer(soup("merge", "out/recipe.yaml", "-o", "third", "--json"))
    assert [share["name"] for share in document["recipe"]["ingredients"]] == [*"abcd"]
    assert document["recipe"] == answer(soup("average", "--pool", "ckpts", "-o", "out", "--json"))["recipe"]
    assert tree(here / "out") == tree(here / "again") == tree(here / "third")


# Dry runs


@pytest.mark.parametrize("name", ["average", "maximum", "greedy", "cook", "merge"])
def test_a_dry_run_tells_the_plan_and_writes_nothing(soup, here, name):
    extra = {"cook": ["--strategy", "greedy"], "merge": ["kept/recipe.yaml"]}.get(name, [])
    shared = [] if name == "merge" else ["--pool", "ckpts", *JUDGED]
    soup("average", "--pool", "ckpts", "-o", "kept")
    before = tree(here)
    plan = answer(soup(name, *extra, *shared, "-o", "out", "--dry-run", "--json"))
    assert (plan["tensors"], plan["read_bytes"], plan["write_bytes"]) == (4, 4 * 1_200_180, 1_200_180)
    assert plan["shards"] == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    if name != "merge":
        assert plan["evaluations_at_most"] == (1 if name == "average" else 7)
    output = soup(name, *extra, *shared, "-o", "out", "--dry-run").stdout
    assert re.search(r"^write +1\.20 MB", output, re.MULTILINE)
    assert tree(here) == before
    assert calls(here / "judge/judge.py") == []


def test_a_dry_run_of_eval_asks_nothing_and_refuses_what_eval_refuses(soup, here):
    before = tree(here)
    plan = answer(soup("eval", "ckpts/a", "ckpts/b", *JUDGED, "--dry-run", "--json"))
    assert (plan["checkpoints"], plan["evaluations_at_most"]) == (["a", "b"], 2)
    assert re.search(
        r"^checkpoints +a, b$", soup("eval", "ckpts/a", "ckpts/b", *JUDGED, "--dry-run").stdout, re.MULTILINE
    )
    refused = soup("eval", "ckpts/none", *JUDGED, "--dry-run", code=1).stderr
    assert refused == soup("eval", "ckpts/none", *JUDGED, code=1).stderr
    assert tree(here) == before


@pytest.mark.parametrize("name", ["average", "merge", "sweep"])
def test_a_dry_run_warns_of_what_the_merge_warns_of(soup, here, name):
    config = json.loads((here / "ckpts/b/config.json").read_text()) | {"dropout": 0.5}
    (here / "ckpts/b/config.json").write_text(json.dumps(config))
    soup("average", "--pool", "ckpts", "-o", "kept")
    inputs = {"average": ["--pool", "ckpts", "-o", "out"], "merge": ["kept/recipe.yaml", "-o", "out"]}
    line = [name, *inputs.get(name, ["ckpts/a", "ckpts/b", *JUDGED])]
    warned = soup(*line, "--dry-run").stderr
    assert warned.startswith("warning: b: config.json has keys more: dropout (0.5)")
    assert [f"warning: {text}\n" for text in answer(soup(*line, "--dry-run", "--json"))["warnings"]] == [warned]
    assert soup(*line).stderr.startswith(warned)


# Options


@pytest.mark.parametrize(
    ("text", "size"),
    [("5GB", 5 * 10**9), ("500MB", 5 * 10**8), ("2GiB", 2 * 2**30), ("4096", 4096), ("1.5kb", 1500), ("10 MB", 10**7),
     ("1T", 10**12), ("7B", 7), (" 3K ", 3000)],
)  # fmt: skip
def test_sizes(text, size):
    assert Size().convert(text, None, None) == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "0", "0.0001", "5XB", "5GBB", "1e9", "five", "1,5GB", "nan"])
def test_what_is_no_size(text):
    with pytest.raises(click.BadParameter, match="is no size"):
        Size().convert(text, None, None)


def test_a_shard_size_lays_the_files_out_anew_and_changes_no_number(soup, here):
    soup("average", "--pool", "ckpts", "-o", "out")
    soup("average", "--pool", "ckpts", "-o", "one", "--max-shard-size", "5GB")
    soup("average", "--pool", "ckpts", "-o", "many", "--max-shard-size", "1")
    files = {folder: sorted(path.name for path in (here / folder).glob("*.safetensors")) for folder in ("one", "many")}
    assert files["one"] == ["model.safetensors"]
    assert files["many"] == [f"model-0000{i}-of-00004.safetensors" for i in (1, 2, 3, 4)]
    digests = [answer(soup("inspect", folder, "--json"))["digest"] for folder in ("out", "one", "many")]
    assert len({*digests}) == 1


def test_options_of_a_strategy_of_the_users(soup, here):
    (here / "my.py").write_text("def first(pool, score, *, count):\n    return pool[:count]\n")
    argv = ("cook", "--strategy", "my.py:first", "--pool", "ckpts", "-o", "out", "--json")
    assert answer(soup(*argv, "--strategy-arg", "count=3"))["chosen"] == [*"abc"]
    assert "missing a required argument: 'count'" in soup(*argv, code=1).stderr
    assert "expected KEY=VALUE" in soup(*argv, "--strategy-arg", "count", code=2).stderr


def test_every_option_of_a_search_at_once(soup, here):
    argv = ("cook", "--strategy", "greedy", "--strategy-arg", "accept=gt", "--pool", "ckpts/a", "--pool", "ckpts/b")
    more = ("--base", "ckpts/c", "--dtype", "bfloat16", "--drop", "vision.*", "--run-dir", "run", "--timeout", "60")
    last = ("--threads", "1", "--max-shard-size", "1GB", "--eval", "command:echo 50 # {checkpoint}", "-o", "x/y/out")
    document = answer(soup(*argv, *more, *last, "--json"))
    assert document["chosen"] == ["a"]
    assert (here / "run/journal.jsonl").is_file()
    parsed = answer(soup("inspect", "x/y/out", "--json"))
    assert {tensor["dtype"] for tensor in parsed["tensors"]} == {"bfloat16"}
    assert len(parsed["tensors"]) == 3


# Wrong inputs: one clean message, the right exit code, nothing on stdout


WRONG = {
    "no pool": (2, "greedy", "Missing option '--pool'"),
    "an unknown option": (2, "greedy --pool ckpts --evla x", "No such option"),
    "a strategy's argument as an option": (2, "cook --accept p>0.9", "--strategy-arg accept=VALUE (the strategy's)"),
    "a method's argument as an option": (2, "average --density 1", "If it is an argument: --method-arg density=VALUE"),
    "p of 0": (2, "maximum --pool ckpts --top-k 0", "0 is not in the range"),
    "a size that is none": (2, "average --pool ckpts --max-shard-size big", "'big' is no size; expected e.g. 5GB"),
    "a timeout of 0": (2, "greedy --pool ckpts --timeout 0", "is not in the range"),
    "a split that is no number": (2, "greedy --pool ckpts --split half", "'half' is not a valid float"),
    "an unknown kind": (2, "list strategy", "'strategy' is not one of"),
    "questions of a search for eval": (2, "eval ckpts/a --eval mmbench --questions disputed", "No such option"),
    "questions of a search for a line": (2, "sweep ckpts/a ckpts/b --eval x --questions all", "No such option"),
    "questions of no benchmark": (1, "average --pool ckpts --questions disputed", "are about benchmarks: pass --eval"),
    "no recipe": (2, "merge -o out", "Missing argument 'RECIPE'"),
    "no output for merge": (2, "merge recipe.yaml", "Missing option"),
    "no checkpoint": (2, "eval --eval mmbench", "Missing argument 'CHECKPOINTS...'"),
    "a pool that is not there": (1, "greedy --pool nowhere", "nowhere: no such directory"),
    "a file as a pool": (1, "average --pool judge/judge.py", "judge.py: a file, and no directory"),
    "a pool without checkpoints": (1, "average --pool judge", "no ingredient"),
    "a base that is not there": (1, "average --pool ckpts --base nowhere", "nowhere: no such directory"),
    "no benchmark": (1, "greedy --pool ckpts", "pass --eval"),
    "an empty benchmark": (1, "greedy --pool ckpts --eval ,", "names no benchmark. Known: mmbench"),
    "an unknown benchmark": (1, "greedy --pool ckpts --eval mmbnch", "Did you mean 'mmbench'?"),
    "an unknown benchmark for eval": (1, "eval ckpts/a --eval mmbnch", "Did you mean 'mmbench'?"),
    "no benchmark for eval": (1, "eval ckpts/a", "names no benchmark"),
    "an unknown strategy": (1, "cook --strategy gredy --pool ckpts", "Did you mean 'greedy'?"),
    "a judge that is not there": (1, "greedy --pool ckpts --eval python:x.py:f", "no such file"),
    "a command without a place": (1, "greedy --pool ckpts --eval command:true", "has no {checkpoint}"),
    "a split beyond 1": (1, "greedy --pool ckpts --eval mmbench --split 2", "between 0 and 1"),
    "p beyond the pool": (1, "maximum --pool ckpts --top-k 9", "from 1 to 4"),
    "an unknown dtype": (1, "average --pool ckpts --dtype fp17", "fp17"),
    "all dropped": (1, "average --pool ckpts --drop *", "leaves no tensor"),
    "nobody excluded": (1, "average --pool ckpts --exclude A", "no such ingredient. Here: a, b, c, d"),
    "an output in the pool": (1, "average --pool ckpts -o ckpts/out", "lies in the pool"),
    "an output that exists": (1, "average --pool ckpts -o judge", "exists and is not empty"),
    "a file as an output": (1, "average --pool ckpts -o judge/judge.py", "exists and is no directory"),
    "an output below a file": (1, "average --pool ckpts -o judge/judge.py/out", "can't be written"),
    "no such recipe": (
        1,
        "merge nowhere.yaml -o out",
        "nowhere.yaml: no recipe can be read there",
    ),
    "a recipe that brings code": (1, "merge foreign.yaml -o out", "if you trust it, say so by --trust-code"),
    "a recipe that brings code, looked at": (1, "merge foreign.yaml -o out --dry-run", "by --trust-code"),
    "a recipe that is none": (1, "merge judge/judge.py -o out", "judge.py: "),
    "nothing to inspect": (1, "inspect nowhere", "nowhere: no such directory"),
    "a pool to inspect": (1, "inspect ckpts", "no .safetensors file here"),
    "no run to report": (1, "report nowhere", "no journal"),
    "a file to report": (2, "report judge/judge.py", "is a file"),
    "two forms of a report": (2, "report ckpts --csv --json", "--csv, --markdown and --json exclude each other"),
    "a page on stdout": (1, "report ckpts --html -", "--html -: expected a file that ends in .html, .htm"),
    "a page in its numbers": (1, "report ckpts --html x.json", "x.json: expected a file that ends in .html, .htm"),
    "a page whose numbers hit a file": (1, "report ckpts --html ckpts/a/config.html", "which no report wrote"),
    "a run that is a file": (
        2,
        "greedy --pool ckpts --eval python:judge/judge.py:score --run-dir judge/judge.py",
        "--run-dir",
    ),
    "a timeout that is no number": (
        1,
        "greedy --pool ckpts --eval python:judge/judge.py:score --timeout nan",
        "above 0",
    ),
    "an output that is the run": (1, "greedy --pool ckpts --eval python:judge/judge.py:two -o ckpts.soup", "--run-dir"),
    "an output around the run": (
        1,
        "greedy --pool ckpts --eval python:judge/judge.py:two -o x --run-dir x/y",
        "--run-dir",
    ),
    "an output in the scratch": (
        1,
        "greedy --pool ckpts --eval python:judge/judge.py:two -o r/scratch/x --run-dir r",
        "its own files",
    ),
    "no configuration": (1, "finetune nowhere.yaml", "nowhere.yaml"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_input_is_one_clean_message(soup, here, name):
    code, line, said = WRONG[name]
    (here / "foreign.yaml").write_text("method: judge/judge.py:M\ningredients: [{name: a, path: ckpts/a}]")
    before = tree(here)
    done = soup(*line.split(), code=code)
    assert said in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.count("rror: ") == 1
    if code == 1:
        assert done.stderr.startswith("error: ") or "\nerror: " in done.stderr
    assert tree(here) == before


def test_wrong_usage_ends_with_the_command_s_example(soup):
    for line in ("eval --pool ckpts", "check ckpts", "merge ckpts -o out"):
        name = line.split()[0]
        assert soup(*line.split(), code=2).stderr.endswith(f"\nExample: {cli.commands[name].example}\n")


def test_options_are_suggested_by_their_names_and_not_by_their_dashes(soup):
    assert "No such option '--pool'.\n" in soup("eval", "--pool", "ckpts", code=2).stderr  # no Did you mean '--model'
    assert "Did you mean '--batch-size'?" in soup("eval", "x", "--batchsize", "3", code=2).stderr


def test_a_wrong_input_with_json_leaves_stdout_empty(soup):
    done = soup("greedy", "--pool", "nowhere", "--json", code=1)
    assert (done.stdout, done.stderr[:7]) == ("", "error: ")


def test_a_failed_evaluation_ends_with_1_and_says_where_to_look(soup, here):
    done = soup("greedy", "--pool", "ckpts", "--eval", "python:judge/judge.py:explode", code=1)
    assert "error: a on python:judge/judge.py:explode: the function raised" in done.stderr
    log = re.search(r"The whole trace: (.*error\.log)", done.stderr)[1]
    assert "the judge is ill" in (here / log).read_text()
    done = soup("greedy", "--pool", "ckpts", "--eval", "python:judge/judge.py:spin", "--timeout", "0.2", code=1)
    assert "no answer within 0.2 seconds (--timeout); it was in spin" in done.stderr


def test_markup_in_names_is_text(soup, here):
    (here / "ckpts/a").rename(here / "ckpts/[red]a")
    done = soup("average", "--pool", "ckpts", "-o", "out")
    assert done.stdout == "out: the mean of [red]a + b + c + d\n"
    assert "[red]a" in soup("eval", "ckpts/[red]a", *JUDGED).stdout


def test_names_in_any_script_are_fine(soup, here):
    (here / "ckpts/a").rename(here / "ckpts/ingrédient 一 🍲")
    document = answer(soup(*GREEDY[:3], "-o", "süp pe", *JUDGED, "--json"))
    assert document["trials"][-1]["ingredients"]
    assert "ingrédient 一 🍲" in {name for trial in document["trials"] for name in trial["ingredients"]}
    soup("merge", "süp pe/recipe.yaml", "-o", "again")


def test_a_name_that_is_no_text_is_told(soup, here):
    os.rename(here / "ckpts/a", os.fsencode(here / "ckpts") + b"/a\xff")  # noqa: PTH104
    for argv in (GREEDY, ("average", "--pool", "ckpts"), ("check", "--pool", "ckpts"), ("inspect", "ckpts/a\udcff")):
        done = soup(*argv, code=1)
        assert "a\\udcff': its name is not UTF-8" in (done.stdout if argv[0] == "check" else done.stderr)


def test_a_timeout_of_for_ever_is_fine(soup):
    assert "the mean of" in soup(*GREEDY, "--timeout", "inf").stdout
    assert "50.00" in soup("eval", "ckpts/a", "--eval", "python:judge/judge.py:two", "--timeout", "1e300").stdout


def test_a_damaged_run_is_told_by_report(soup, here):
    soup(*GREEDY)
    outcome = here / "ckpts.soup/soups/greedy.json"
    for text in ("{", "[]", "{}"):
        outcome.write_text(text)
        assert "greedy.json: damaged" in soup("report", "ckpts.soup", code=1).stderr
    (here / "ckpts.soup/journal.jsonl").write_text("\n")
    assert "line 1 of 1 is damaged" in soup("report", "ckpts.soup", code=1).stderr


@pytest.mark.parametrize("limit", [0, 1, 4, 300, 1000])
def test_a_disk_that_fills_up_is_one_clean_message_and_leaves_no_soup(here, limit):
    """A limit on the size of a file stands for the disk: the error comes from the same call."""
    code = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit * 1024}, resource.RLIM_INFINITY))\n"
        f"sys.argv = {['soup', *GREEDY]!r}\n"
        "from soup.cli.app import main\nmain()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=here, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr.partition("the function raised")[0]
    assert "error: " in done.stderr
    assert "File too large" in done.stderr
    assert not (here / "out").exists()


def test_a_reader_that_leaves_early_is_no_error_of_ours(here):
    script = Path(sys.executable).with_name("soup")
    line = f"'{script}' inspect ckpts/a --tensors --no-digest | true"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", line], cwd=here, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert done.stderr == ""


def test_check_names_every_tensor_with_nan_or_infinity(tmp_path):
    pool = make_pool(tmp_path / "ckpts")
    make_checkpoint(tmp_path / "ckpts" / "e", 9, head=[1, float("nan"), 3, 4])
    done = CliRunner().invoke(cli, ["check", "--pool", str(pool), "--json"])
    assert done.exit_code == 1
    problems = json.loads(done.stdout)["problems"]
    assert problems == [
        {
            "kind": "nonfinite",
            "text": "e: head: NaN or infinity. --allow-nonfinite merges them all the same",
            "ingredient": "e",
            "keys": ["head"],
            "cure": "--allow-nonfinite merges them all the same",
        }
    ]


def test_what_only_the_system_can_explain_is_one_sentence_with_the_file(here, soup):
    (here / "file").touch()
    done = soup("demo", "file/x", code=1)
    last = done.stderr.splitlines()[-1]
    assert last == "error: file/x: Not a directory. Mend it and type the same command again."
