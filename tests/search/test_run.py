"""A search from the pool to the soup: what is evaluated, remembered, refused and told."""

from __future__ import annotations

import json
import shutil
import time
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors.numpy import load_file, save_file

import soup
import soup.errors
from soup.errors import CheckpointError, EvaluatorError, OutputError, PoolError, RecipeError
from soup.evaluation.api import Score
from soup.evaluation.journal import Journal
from soup.evaluation.objective import Objective
from soup.evaluation.progress import Progress
from soup.evaluation.settings import EvalSettings
from soup.merging.pool import Pool
from soup.merging.recipe import Recipe
from soup.search.evaluate import evaluate
from soup.support.plugins import EVALUATORS
from tests.helpers import flat_arguments as flat
from tests.helpers.toy_pools import TOKENIZER, calls, debris, make_checkpoint, make_judge, make_pool, tree

CONFIG = {"model_type": "toy", "architectures": ["Toy"], "dtype": "float32"}


@pytest.fixture
def judge(tmp_path):
    return make_judge(tmp_path / "judge")


@pytest.fixture
def pool(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return make_pool(tmp_path / "ckpts")


def cook(strategy, pool, judge, function="score", **options):
    return flat.cook(strategy, pool=pool, eval=[f"python:{judge}:{function}"] if judge else [], **options)


def warnings_of(*arguments, **fields):
    messages = []
    flat.cook(*arguments, progress=Progress(on_warning=messages.append), **fields)
    return messages


def change(checkpoint, **tensors):
    file = checkpoint / "model.safetensors"
    save_file(load_file(file) | tensors, file, {"format": "pt"})


# What is evaluated


def test_the_recipe_of_a_search_has_all_that_its_soup_and_its_choice_depend_on(pool, judge):
    spec = f"python:{judge}:score"
    make_checkpoint("base", 9)
    objective = Objective.parse([f"{spec}=2"], [f"{spec}>=-100"])
    recipe = flat.cook(
        "greedy",
        pool=pool,
        base="base",
        eval=[spec],
        out="out",
        objective=objective,
        method="task-arithmetic",
        method_args={"scale": 0.5},
        dtype="float16",
        drop=["vision.*"],
        tokenizer="c",
    ).recipe
    assert (recipe.strategy, recipe.method, recipe.params) == ("greedy", "task-arithmetic", {"scale": 0.5})
    assert (recipe.dtype, recipe.drop, recipe.code) == ("float16", ("vision.*",), None)
    assert (recipe.base.name, recipe.tokenizer.name) == ("base", "c")
    assert recipe.objective == objective.as_json()
    assert recipe.side_digest


def test_greedy_keeps_the_best_and_what_does_not_hurt_it(pool, judge):
    made = cook("greedy", pool, judge, out="out")
    assert made.chosen == ("b", "c")
    assert [trial.names for trial in made.trials][:4] == [("a",), ("b",), ("c",), ("d",)]
    assert [made.accepted(trial) for trial in made.trials] == [False, True, False, False, True, False, False]
    assert len(calls(judge)) == 7
    whole = load_file("out/model.safetensors")
    parts = [load_file(pool / name / "model.safetensors") for name in "bc"]
    assert all(np.array_equal(whole[name], (parts[0][name] + parts[1][name]) / 2) for name in parts[0])


def test_what_was_scored_is_bit_for_bit_what_ships(pool, judge):
    cook("greedy", pool, judge, out="out")
    head = load_file("out/model.safetensors")["head"].tobytes().hex()
    assert f"score {head}" in calls(judge)


def test_a_rerun_evaluates_nothing_and_changes_nothing(pool, judge):
    made = cook("greedy", pool, judge, out="out")
    whole, times = tree("out"), {path: path.stat().st_mtime_ns for path in made.out.iterdir()}
    again = cook("greedy", pool, judge, out="out")
    assert len(calls(judge)) == 7
    assert tree("out") == whole
    assert {path: path.stat().st_mtime_ns for path in made.out.iterdir()} == times
    assert (again.chosen, again.recipe) == (made.chosen, made.recipe)
    assert all(trial.seconds is None for trial in again.trials)


def test_a_split_that_leaves_no_question_to_report_is_refused_before_any_evaluation(pool, tmp_path):
    Image.new("RGB", (20, 10)).save(tmp_path / "1.png")
    row = {"id": "1", "image": "1.png", "question": "Where?", "boxes": {"cat": [[0, 0, 9, 9]]}}
    (tmp_path / "boxes.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(EvaluatorError, match="no question lies in the report part"):
        flat.cook("greedy", pool=pool, eval="grounding:boxes.jsonl", split=0.999, out="out")
    assert not (tmp_path / "ckpts.soup/journal.jsonl").exists()


def test_a_function_of_too_few_questions_for_a_split_is_asked_once(pool, tmp_path):
    code = "from pathlib import Path\n\ndef score(path):\n    with Path('asked').open('a') as file:\n"
    code += "        file.write('x')\n    return {'questions': {'1': 1, '2': 0}}\n"
    (tmp_path / "mine.py").write_text(code)
    with pytest.raises(EvaluatorError, match="none of its 2 questions is in the report part"):
        flat.cook("greedy", pool=pool, eval="python:mine.py:score", split=0.999, out="out")
    assert (tmp_path / "asked").read_text() == "x"


def test_maximum_after_greedy_finds_every_single_models_score(pool, judge):
    cook("greedy", pool, judge, out="greedy")
    before = len(calls(judge))
    made = cook("maximum", pool, judge, out="maximum")
    # Top 1 and top 2 are greedy's own, as is b + c + d; the mean of all four is new.
    assert [trial.names for trial in made.trials if trial.seconds is not None] == [("a", "b", "c", "d")]
    assert len(calls(judge)) == before + 1


def test_scores_told_by_eval_are_not_asked_for_again(pool, judge):
    trials = evaluate([pool / name for name in "abcd"], eval=f"python:{judge}:score")
    assert [trial.names for trial in trials] == [("a",), ("b",), ("c",), ("d",)]
    cook("maximum", pool, judge, out="out", strategy_args={"top_k": 1})
    assert len(calls(judge)) == 4


def test_average_needs_no_benchmark_and_asks_for_one_score_where_there_is_one(pool, judge):
    cook("average", pool, None, out="out")
    assert calls(judge) == []
    cook("average", pool, judge, out="out2")
    assert len(calls(judge)) == 1
    assert tree("out")["model.safetensors"] == tree("out2")["model.safetensors"]


def test_several_benchmarks_weigh_the_same(pool, judge):
    names = [f"python:{judge}:score", f"python:{judge}:other", f"python:{judge}:two"]
    trial = evaluate([pool / "b"], eval=names)[0]
    # A function that gives a dict counts as one benchmark for each of its entries.
    assert [*trial.scores] == [names[0], names[1], "reading", "counting"]
    assert trial.overall == pytest.approx(sum(score.value for score in trial.scores.values()) / 4)


def test_changed_weights_under_the_same_path_are_evaluated_again(pool, judge):
    made = cook("greedy", pool, judge, out="out")
    change(pool / "a", head=np.float32([1, 2, 3, 4]))
    again = cook("greedy", pool, judge, out="out2")
    assert made.chosen[0] == "b"
    assert again.chosen[0] == "a"
    fresh = [trial.names for trial in again.trials if trial.seconds is not None]
    assert ("a",) in fresh
    assert not {("b",), ("c",), ("d",)} & {*fresh}


def test_weights_changed_in_place_with_their_times_put_back_are_evaluated_again(pool, judge):
    cook("greedy", pool, judge, out="out")
    file = pool / "a" / "model.safetensors"
    before = file.stat()
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    import os

    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    again = cook("greedy", pool, judge, out="out2")
    assert ("a",) in [trial.names for trial in again.trials if trial.seconds is not None]


def test_a_moved_pool_is_not_evaluated_again(pool, judge, tmp_path):
    cook("greedy", pool, judge, out="out", run_dir="run")
    moved = pool.rename(tmp_path / "elsewhere")
    (moved / "b").rename(moved / "best")
    made = cook("greedy", moved, judge, out="out2", run_dir="run")
    assert made.chosen == ("best", "c")
    # The order of the pool is that of the names, and it is the same here.
    assert len(calls(judge)) == 7


@pytest.mark.parametrize("file", ["tokenizer.json", "config.json", "chat_template.jinja", "modeling_toy.py"])
def test_a_changed_side_file_is_another_model(pool, judge, file):
    evaluate([pool / "a"], eval=f"python:{judge}:score")
    path = pool / "a" / file
    path.write_text((path.read_text() if path.exists() else "") + "\n")
    evaluate([pool / "a"], eval=f"python:{judge}:score")
    assert len(calls(judge)) == 2


def test_a_changed_readme_or_trainer_state_is_not_another_model(pool, judge):
    evaluate([pool / "a"], eval=f"python:{judge}:score")
    (pool / "a" / "README.md").write_text("a better text")
    (pool / "a" / "trainer_state.json").write_text("{}")
    evaluate([pool / "a"], eval=f"python:{judge}:score")
    assert len(calls(judge)) == 1


def test_an_edited_judge_judges_again_with_its_new_code_in_the_same_process(pool, judge):
    before = evaluate([pool / "b"], eval=f"python:{judge}:score")[0]
    judge.write_text(judge.read_text().replace("return 100 - ", "return 90 - "))
    after = evaluate([pool / "b"], eval=f"python:{judge}:score")[0]
    assert after.overall == pytest.approx(before.overall - 10)


# What a judge may do


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("explode", "ValueError: the judge is ill"),
        ("leave", "SystemExit"),
        ("nan", "expected a finite number from 0 to 100, found nan"),
        ("text", "expected a number from 0 to 100, found 'good'"),
        ("nothing", "expected a number from 0 to 100, found None"),
        ("huge", "expected a finite number from 0 to 100, found 1000"),
        ("beyond", "expected a finite number from 0 to 100, found 100.5"),
        ("below", "expected a finite number from 0 to 100, found -1"),
        ("true", "expected a number from 0 to 100, found True"),
    ],
)
def test_a_judge_that_gives_no_score_is_an_error_and_never_a_zero(pool, judge, function, said):
    with pytest.raises(EvaluatorError) as caught:
        cook("greedy", pool, judge, function, out="out")
    text = str(caught.value)
    assert said in text
    assert text.startswith(f"a on python:{judge}:{function}: ")
    logs = [*(pool.parent / "ckpts.soup" / "scratch").rglob("error.log")]
    assert len(logs) == 1
    assert str(logs[0]) in text
    assert said in logs[0].read_text()
    assert not (pool.parent / "out").exists()
    with Journal(pool.parent / "ckpts.soup" / "journal.jsonl") as journal:
        assert list(journal) == []


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    "raised", ["GeneratorExit('odd')", "BaseExceptionGroup('odd', [GeneratorExit()])", "ValueError('odd \\ud800')"]
)
def test_whatever_an_evaluator_raises_is_its_failure_and_no_trace(pool, judge, raised, workers):
    judge.write_text(f"def score(checkpoint):\n    raise {raised}\n")
    with pytest.raises(EvaluatorError, match=r"(?s)a on python:.*: the function raised\..*odd.*The whole trace: "):
        flat.cook("greedy", pool=pool, eval=f"python:{judge}:score", workers=workers, out="out")
    logs = [log.read_text() for log in (pool.parent / "ckpts.soup" / "scratch").rglob("error.log")]
    assert logs
    assert all("odd" in log for log in logs)


@pytest.mark.parametrize("function", ["sleep", "spin", "deaf"])
def test_a_judge_that_never_answers_is_stopped_at_the_timeout(pool, judge, function):
    began = time.monotonic()
    with pytest.raises(EvaluatorError) as caught:
        cook("greedy", pool, judge, function, out="out", settings=EvalSettings(timeout_seconds=0.3))
    assert time.monotonic() - began < 30
    text = str(caught.value)
    assert f"a on python:{judge}:{function}: no answer within 0.3 seconds" in text
    assert f"in {function}" in text, "where it hung"
    assert "error.log" in text


def test_a_command_that_fails_tells_its_log_and_the_end_of_it(pool):
    with pytest.raises(EvaluatorError, match="exit code 3") as caught:
        flat.cook("greedy", pool=pool, eval=["command:echo so far so good; echo oh no >&2; exit 3 # {checkpoint}"])
    text = str(caught.value)
    assert text.startswith("a on command:")
    log = pool.parent / "ckpts.soup" / "scratch"
    assert str(*log.rglob("command.log")) in text
    assert "oh no" in text


def test_a_command_that_never_answers_tells_what_it_said_so_far(pool):
    settings = EvalSettings(timeout_seconds=1)
    with pytest.raises(EvaluatorError, match=r"no answer within 1 second ") as caught:
        flat.cook("greedy", pool=pool, eval=["command:echo step 3 of 9; sleep 60 # {checkpoint}"], settings=settings)
    assert "command.log, which ends:\n$ echo step 3 of 9; sleep 60" in str(caught.value)
    assert "\nstep 3 of 9\n" in str(caught.value)


def test_a_failed_evaluations_scratch_goes_with_the_next_run(pool, judge):
    with pytest.raises(EvaluatorError):
        cook("greedy", pool, judge, "explode", out="out")
    cook("greedy", pool, judge, out="out")
    assert debris(pool.parent) == []


def test_scores_before_a_failure_are_kept_and_the_rerun_goes_on_from_there(pool, judge):
    mood = judge.with_name("mood")
    mood.write_text("5 raise OSError('the cluster is down')")
    with pytest.raises(EvaluatorError, match=r"(?s)b\+c on .*the cluster is down"):
        cook("greedy", pool, judge, out="out")
    assert len(calls(judge)) == 5
    mood.unlink()
    made = cook("greedy", pool, judge, out="out")
    assert made.chosen == ("b", "c")
    assert len(calls(judge)) == 5 + 3


def test_prints_of_a_judge_stay_off_stdout(pool, judge, capsys):
    cook("greedy", pool, judge, "chatty", out="out")
    out, err = capsys.readouterr()
    assert out == ""
    assert "thinking aloud" in err


@pytest.mark.parametrize("name", ["python:{judge}:score", "command:echo 5 # {{checkpoint}}"])
def test_a_judge_that_does_not_tell_its_questions_cannot_be_split(pool, judge, name):
    with pytest.raises(EvaluatorError, match="can't be split"):
        flat.cook("greedy", pool=pool, eval=[name.format(judge=judge)], split=0.5)
    assert calls(judge) == []


@pytest.mark.parametrize("split", [0, 1, -0.5, 1.5, float("nan")])
def test_a_split_outside_of_0_to_1_is_refused(pool, judge, split):
    with pytest.raises(EvaluatorError, match="`split` must lie between 0 and 1"):
        cook("greedy", pool, judge, split=split)


def test_a_strategy_that_wants_scores_asks_for_benchmarks(pool):
    with pytest.raises(EvaluatorError, match="pass `eval`"):
        flat.cook("greedy", pool=pool)


def test_benchmarks_that_are_not_known_are_all_named_with_the_nearest(pool):
    with pytest.raises(EvaluatorError) as caught:
        flat.cook("greedy", pool=pool, eval="mmbnch,ocrbench,orcbench,pithon:x.py:f")
    text = str(caught.value)
    assert "Unknown benchmark 'mmbnch'. Did you mean 'mmbench'?" in text
    assert "Unknown benchmark 'orcbench'. Did you mean 'ocrbench'?" in text
    assert "Unknown benchmark 'pithon:x.py:f'. Did you mean 'python:'?" in text


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("nowhere.py:score", "no such file"),
        ("judge/judge.py:scroe", "has no 'scroe'. Did you mean 'score'"),
        ("judge/judge.py:HERE", "expected a function"),
        ("judge/judge.py", "expected FILE.py:NAME"),
        ("no.such.package:score", "No module named"),
        ("judge/broken.py:score", "SyntaxError"),
    ],
)
def test_a_judge_that_is_not_there_is_told_before_anything_is_read(pool, judge, target, said):
    judge.with_name("broken.py").write_text("def score(:\n")
    with pytest.raises(EvaluatorError) as caught:
        flat.cook("greedy", pool=pool, eval=f"python:{target}")
    assert said in str(caught.value)
    assert not (pool.parent / "ckpts.soup").exists()


# Which pools


def test_two_ingredients_of_the_same_weights_are_told_to_count_twice(pool, judge):
    shutil.copytree(pool / "b", pool / "z")
    warnings = warnings_of("greedy", pool=pool, eval=f"python:{judge}:score", out="out")
    assert [text for text in warnings if "same weights" in text] == ["z holds the same weights as b: it counts twice"]
    assert len(calls(judge)) == 4 + 4, "z alone is b alone"
    warnings = warnings_of("average", pool=pool, out="average")
    assert "z holds the same weights as b: it counts twice" in warnings


def test_eval_of_the_same_weights_under_two_names_shows_both(pool, judge):
    shutil.copytree(pool / "b", pool / "z")
    trials = evaluate([pool / "b", pool / "z"], eval=f"python:{judge}:score")
    assert [trial.names for trial in trials] == [("b",), ("z",)]
    assert len(calls(judge)) == 1


@pytest.mark.parametrize("strategy", ["average", "maximum", "greedy"])
def test_a_pool_of_one_gives_that_one_back_bit_for_bit(tmp_path, judge, strategy):
    lone = make_checkpoint(tmp_path / "lone" / "a", 1)
    made = cook(strategy, lone.parent, judge, out=tmp_path / "out")
    assert made.chosen == ("a",)
    name = made.recipe.names[0]
    assert f"a pool of one: {name} is averaged with no other" in made.warnings
    ours, theirs = load_file(tmp_path / "out/model.safetensors"), load_file(lone / "model.safetensors")
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("inside", [None, "notes", "README.md"])
def test_an_empty_pool_is_refused(tmp_path, inside):
    (tmp_path / "ckpts").mkdir()
    if inside:
        (tmp_path / "ckpts" / inside).mkdir()
    with pytest.raises(PoolError, match="no ingredient"):
        flat.cook("average", pool=tmp_path / "ckpts", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_pool_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(PoolError, match="no such directory"):
        flat.cook("average", pool=tmp_path / "ckpts")


def test_exclude_leaves_one_out_and_refuses_a_name_that_is_not_there(pool, judge):
    assert cook("average", pool, None, out="out", exclude=["a"]).chosen == ("b", "c", "d")
    with pytest.raises(PoolError, match=r"`exclude` nobody: no such ingredient. Here: a, b, c, d"):
        cook("average", pool, None, out="out2", exclude=["nobody"])
    with pytest.raises(PoolError, match="no ingredient"):
        cook("average", pool, None, out="out2", exclude=[*"abcd"])


def test_exclude_takes_patterns_and_a_name_that_looks_like_one_as_it_is(pool, judge):
    for name in ("run-1", "run-2", "a[1]"):
        (pool / "a").rename(pool / name) if name == "a[1]" else make_checkpoint(pool / name, 9)
    assert cook("average", pool, None, out="out", exclude=["run-*", "[cd]", "a[1]"]).chosen == ("b",)
    with pytest.raises(PoolError, match=r"`exclude` ran-\*: no such ingredient"):
        cook("average", pool, None, out="out2", exclude=["run-*", "ran-*"])


def test_the_base_in_the_folder_of_the_pool_is_no_ingredient(pool, judge):
    made = cook("greedy", pool, judge, base=pool / "a", out="out")
    assert all("a" not in trial.names for trial in made.trials)
    assert made.recipe.base.name == "base"
    linked = pool.parent / "link"
    linked.symlink_to(pool / "a")
    assert cook("average", pool, None, base=linked, out="out2").chosen == ("b", "c", "d")


def test_the_same_checkpoint_given_twice_is_refused(pool):
    with pytest.raises(PoolError, match="given twice"):
        Pool([pool / "a", pool / "b", pool / "a"])


def test_checkpoints_of_the_same_name_are_told_apart_by_their_folders(tmp_path):
    for folder in ("x/final", "y/final"):
        make_checkpoint(tmp_path / folder, 1)
    with Pool([tmp_path / "x/final", tmp_path / "y/final"]) as opened:
        assert opened.names == ("x/final", "y/final")


def test_a_pool_has_folders_that_are_no_checkpoints_and_says_so(pool):
    (pool / "notes").mkdir()
    (pool / ".git").mkdir()
    assert "notes: skipped, not a checkpoint" in warnings_of("average", pool=pool, out="out")


def mismatches(pool, *names, **options):
    with Pool([pool / name for name in names], **options) as opened, pytest.raises(PoolError) as caught:
        opened.check()
    return str(caught.value)


def test_every_mismatch_of_a_pool_is_told_at_once_with_names(tmp_path):
    tensors = load_file(make_checkpoint(tmp_path / "good", 1) / "model.safetensors")
    wide = tensors | {"head": np.zeros(5, np.float32), "language.0": np.zeros((7, 5), np.float32)}
    fewer = {name: value for name, value in tensors.items() if name != "head"} | {"adapter.0": np.zeros(2, np.float32)}
    half = {name: value.astype(np.float16) for name, value in tensors.items()}
    others = {"wide": wide, "fewer": fewer, "half": half, "whole": tensors | {"head": np.zeros(4, np.int64)}}
    for name, changed in others.items():
        make_checkpoint(tmp_path / name, tensors=changed)
    make_checkpoint(tmp_path / "kind", 2, config=CONFIG | {"model_type": "llava"})
    numbers = {"a": 1, "b": 0}
    make_checkpoint(tmp_path / "words", 2, tokenizer=TOKENIZER | {"model": {"vocab": numbers, "merges": []}})
    make_checkpoint(tmp_path / "added", 2, tokenizer=TOKENIZER | {"added_tokens": [{"id": 7, "content": "</s>"}]})
    text = mismatches(tmp_path, "good", *others, "kind", "words", "added")
    for line in (
        "wide: head: expected float32[4] as in good, found float32[5]",
        "wide: language.0: expected float32[5, 7] as in good, found float32[7, 5]",
        "fewer: 1 tensor missing that good has: head",
        "fewer: 1 tensor that good has not: adapter.0",
        "half: language.1: expected float32[300000] as in good, found float16[300000]. `dtype` merges",
        "half: head: expected",
        "whole: head: expected float32[4] as in good, found int64[4]",
        "kind: config.json: model_type: expected toy as in good, found llava",
        "words: the tokenizer is not good's: tokenizer.json: 2 vocab entries differ ('a': 0 and 1",
        "added: the tokenizer is not good's: tokenizer.json: 1 added tokens entries differ ('</s>': 2 and 7)",
    ):
        assert line in text, text


def test_nothing_is_evaluated_in_a_pool_that_does_not_belong_together(pool, judge):
    change(pool / "d", head=np.zeros(3, np.float32))
    with pytest.raises(PoolError, match="d: head: expected"):
        cook("greedy", pool, judge, out="out")
    assert calls(judge) == []


def test_all_checkpoints_that_cannot_be_opened_are_told_at_once(pool):
    (pool / "a" / "model.safetensors").write_bytes(b"short")
    (pool / "c" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError) as caught:
        Pool(pool)
    assert "2 checkpoints can't be opened" in str(caught.value)
    assert str(pool / "a") in str(caught.value)
    assert str(pool / "c") in str(caught.value)


# Where the soup goes


def test_an_output_in_the_pool_is_refused(pool, judge):
    with pytest.raises(OutputError, match="lies in the pool"):
        cook("greedy", pool, judge, out=pool / "out")
    assert calls(judge) == []


@pytest.mark.parametrize("out", ["ckpts", "ckpts/a", "ckpts/a/out", "."])
def test_an_output_in_or_around_an_ingredient_is_refused_before_the_first_evaluation(pool, judge, out):
    for overwrite in (False, True):
        with pytest.raises(OutputError):
            cook("greedy", pool, judge, out=out, overwrite=overwrite)
    assert calls(judge) == []


def test_a_folder_that_is_no_soup_is_never_replaced(pool, judge):
    thesis = pool.parent / "thesis"
    thesis.mkdir()
    (thesis / "chapter1.tex").write_text("years of work")
    with pytest.raises(OutputError, match=r"exists and is not empty.*or remove it if you don't need it"):
        cook("greedy", pool, judge, out=thesis)
    with pytest.raises(OutputError, match="replaces soups only"):
        cook("greedy", pool, judge, out=thesis, overwrite=True)
    (pool.parent / "file").touch()
    with pytest.raises(OutputError, match="exists and is no directory"):
        cook("greedy", pool, judge, out="file", overwrite=True)
    assert tree(thesis) == {"chapter1.tex": b"years of work"}
    assert calls(judge) == []


def test_an_empty_folder_is_a_fine_output(pool):
    (pool.parent / "out").mkdir()
    cook("average", pool, None, out="out")
    assert "recipe.yaml" in tree("out")


def test_a_soup_of_other_weights_is_replaced_only_on_demand(pool):
    cook("average", pool, None, out="out")
    before = tree("out")
    change(pool / "a", head=np.float32([0, 0, 0, 0]))
    with pytest.raises(OutputError, match=r"exists and is not empty.*pass `overwrite`"):
        cook("average", pool, None, out="out")
    assert tree("out") == before
    cook("average", pool, None, out="out", overwrite=True)
    assert tree("out") != before
    assert debris(pool.parent) == []


def test_a_damaged_soup_is_not_taken_for_a_finished_one(pool):
    cook("average", pool, None, out="out")
    (pool.parent / "out" / "model.safetensors").write_bytes(b"")
    with pytest.raises(OutputError, match="exists and is not empty"):
        cook("average", pool, None, out="out")
    cook("average", pool, None, out="out", overwrite=True)


def test_without_an_output_the_soup_goes_to_its_strategys_folder(pool, judge):
    assert cook("greedy", pool, judge).out.resolve() == pool.parent / "soups" / "greedy"


# Recipes


def test_a_soups_recipe_makes_it_again_wherever_the_tree_was_moved(pool, judge, tmp_path):
    cook("greedy", pool, judge, out="soups/best")
    whole = tree("soups/best")
    (tmp_path / "moved").mkdir()
    for name in ("ckpts", "soups"):
        shutil.move(tmp_path / name, tmp_path / "moved" / name)
    again = soup.merge(tmp_path / "moved/soups/best/recipe.yaml", tmp_path / "moved/soups/again")
    assert again.names == ("b", "c")
    made = tree(tmp_path / "moved/soups/again")
    assert {name for name in whole if whole[name] != made[name]} == {"README.md"}  # whose scores merge can't know


def test_a_recipe_whose_ingredient_changed_is_refused_and_leaves_nothing(pool):
    cook("average", pool, None, out="out")
    change(pool / "c", head=np.float32([0, 0, 0, 1]))
    with pytest.raises(RecipeError) as caught:
        soup.merge("out/recipe.yaml", "again")
    text = str(caught.value)
    digest = Recipe.read("out/recipe.yaml").ingredients[2].digest
    assert f"c ({pool / 'c'}): expected {digest}, found xxh3:" in text
    assert "a (" not in text
    assert not (pool.parent / "again").exists()
    assert debris(pool.parent) == []


def test_a_recipe_whose_tokenizer_changed_is_refused(pool):
    cook("average", pool, None, out="out")
    (pool / "a" / "tokenizer.json").write_text(json.dumps(TOKENIZER) + " ")
    with pytest.raises(RecipeError, match="Config, tokenizer or processor files of"):
        soup.merge("out/recipe.yaml", "again")


def test_a_recipe_without_digests_is_filled_in(pool):
    text = yaml.safe_dump({"ingredients": [{"name": "one", "path": "ckpts/a"}, {"name": "two", "path": "ckpts/b"}]})
    (pool.parent / "mine.yaml").write_text(text)
    made = soup.merge("mine.yaml", "out")
    assert all(share.digest.startswith("xxh3:") for share in made.ingredients)
    assert Recipe.read("out/recipe.yaml").digest == made.digest


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected a recipe (a mapping), found NoneType"),
        ("- 1", "expected a recipe (a mapping), found list"),
        ("a: [", "not readable as YAML"),
        ("drop: head\ningredients: [{name: a, path: x}]", "drop: Input should be a valid list"),
        ("ingredients: []", "ingredients: Tuple should have at least 1 item"),
        ("ingredients: [{name: a}]", "ingredients.0.path: Field required"),
        ("ingredients: [ckpts/a]", "ingredients.0: Input should be a mapping with name and path, found 'ckpts/a'"),
        ("base: b\ningredients: [{name: a, path: x}]", "base: Input should be a mapping with name and path, found 'b'"),
        ("ingredients: [{name: a, path: x}, {name: a, path: y}]", "ingredients of the same name: a"),
        ("ingredients: [{name: a, path: x, weight: .nan}]", "ingredients.0.weight: Input should be a finite number"),
        ("ingredients: [{name: a, path: x, weight: much}]", "ingredients.0.weight: Input should be a valid number"),
        ("ingredients: [{name: a, path: x, weight: 0}]", "all weights are 0"),
        ("ingredients: [{name: a, path: x, wieght: 1}]", "ingredients.0.wieght: no such key. Did you mean 'weight'?"),
        ("schema: 2\ningredients: [{name: a, path: x}]", "schema: Input should be 1"),
        ("methd: linear\ningredients: [{name: a, path: x}]", "methd: no such key. Did you mean 'method'?"),
    ],
)
def test_a_faulty_recipe_is_told_with_the_place_of_the_fault(tmp_path, text, said):
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(RecipeError) as caught:
        Recipe.read(tmp_path / "recipe.yaml")
    assert said in str(caught.value)
    assert str(tmp_path / "recipe.yaml") in str(caught.value)


def test_all_faults_of_a_recipe_are_told_at_once(tmp_path):
    (tmp_path / "recipe.yaml").write_text("x: 1\ny: 2\ningredients: [{name: a, weight: z}]")
    with pytest.raises(RecipeError) as caught:
        Recipe.read(tmp_path / "recipe.yaml")
    keys = ["x: ", "y: ", "ingredients.0.path: ", "ingredients.0.weight: "]
    assert all(f"- {key}" in str(caught.value) for key in keys)
    assert str(caught.value).count("  - ") == len(keys), "what only follows from these is left out"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"method": "linaer"}, "Unknown method 'linaer'. Did you mean 'linear'?"),
        ({"method_args": {"strength": 2}}, "does not take these params"),
        ({"dtype": "bfloat17"}, "bfloat17"),
        ({"dtype": "int8"}, "int8"),
        ({"drop": ["*"]}, "leaves no tensor"),
    ],
)
def test_a_wrong_method_parameter_or_dtype_is_told_before_the_first_evaluation(pool, judge, fields, said):
    with pytest.raises(soup.errors.SoupError) as caught:
        cook("greedy", pool, judge, out="out", **fields)
    assert said in str(caught.value)
    assert calls(judge) == []


# Weighted soups


def weighted(pool, score):
    score([pool[0], pool[1]])
    return {pool[0]: 0.25, pool[1]: 0.75}


def test_a_weighted_choice_is_merged_with_its_weights(pool, judge):
    made = cook(weighted, pool, judge, out="out")
    assert [share.weight for share in made.recipe.ingredients] == [0.25, 0.75]
    parts = [load_file(pool / name / "model.safetensors")["head"] for name in "ab"]
    assert np.allclose(load_file("out/model.safetensors")["head"], 0.25 * parts[0] + 0.75 * parts[1])


def test_the_card_tells_the_scores_of_the_weighted_soup_and_not_of_the_plain_mean(pool, judge):
    made = cook(weighted, pool, judge, out="out")
    plain, chosen = made.trials
    assert plain.overall != chosen.overall
    assert f"| overall | {chosen.overall:.2f} |" in (pool.parent / "out" / "README.md").read_text()
    assert [made.accepted(trial) for trial in made.trials] == [False, True]


def test_weights_count_without_a_benchmark_too(pool):
    def fixed(pool, score):
        return {pool[0]: 0.25, "b": 0.75}

    made = cook(fixed, pool, None, out="out")
    assert [share.weight for share in made.recipe.ingredients] == [0.25, 0.75]


# Runs and reports


def test_a_run_directory_that_cannot_be_is_told(pool, judge):
    (pool.parent / "file").touch()
    with pytest.raises(soup.errors.JournalError, match="`run_dir`"):
        cook("greedy", pool, judge, out="out", run_dir="file")
    with pytest.raises(soup.errors.JournalError, match="`run_dir`"):
        cook("greedy", pool, judge, out="out", run_dir="file/below")


def test_a_split_judges_single_models_and_the_chosen_soup_on_the_other_questions_too(pool, judge, monkeypatch):
    import evaluators.python

    monkeypatch.setattr(evaluators.python, "refuse_split", lambda benchmark: None)
    made = cook("greedy", pool, judge, out="out", split=0.5)
    assert [bool(trial.report) for trial in made.trials] == [True, True, True, True, True, False, False]
    card = (pool.parent / "out" / "README.md").read_text()
    assert "| benchmark | selection | report |" in card
    assert len(calls(judge)) == 7 + 5
    cook("greedy", pool, judge, out="out", split=0.5)
    assert len(calls(judge)) == 7 + 5
    cook("greedy", pool, judge, out="out2", split=0.25)
    assert len(calls(judge)) == 2 * (7 + 5)


def test_a_function_that_tells_its_questions_serves_splits_and_the_rule_by_probability(pool, tmp_path):
    (tmp_path / "points.py").write_text(
        "import pathlib\ndef score(checkpoint):\n"
        "    level = sum(pathlib.Path(checkpoint, 'model.safetensors').read_bytes()[-16:]) % 40\n"
        "    return {'questions': {str(i): float(i % 50 < level) for i in range(200)}}\n"
    )
    spec = f"python:{tmp_path / 'points.py'}:score"
    made = flat.cook("greedy", pool=pool, eval=[spec], split=0.5, out="out", strategy_args={"accept": "p>0.9"})
    for trial in made.trials[:4]:
        chosen, reported = trial.scores[spec].questions, trial.report[spec].questions
        assert {*chosen} | {*reported} == {str(index) for index in range(200)}
        assert not {*chosen} & {*reported}
    assert all("versus_best" in trial for trial in made.as_json()["trials"][1:])


# What is known before the first question


def test_a_full_disk_or_a_file_in_the_way_of_the_output_is_told_before_the_first_score(pool, judge, monkeypatch):
    (pool.parent / "file").touch()
    with pytest.raises(OutputError, match=r"out: can't be written: .*file is no directory"):
        cook("greedy", pool, judge, out="file/below/out")
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=7))
    with pytest.raises(OutputError, match=r"the disk is too small: .* needed, 7 B free"):
        cook("greedy", pool, judge, out="out")
    assert calls(judge) == []


class Picky:
    """An evaluator that looks at checkpoints before the first question, and notes it."""

    looked: ClassVar[list[str]] = []

    def __init__(self, settings):
        pass

    def identity(self, benchmark):
        return {"version": 1}

    def check(self, benchmark, checkpoint):
        self.looked.append(f"{benchmark.target} {checkpoint.name}")
        if checkpoint.name == benchmark.target:
            raise EvaluatorError(f"{checkpoint.name} has no template")

    def evaluate(self, candidate, benchmark):
        return Score(50.0 + len(candidate.directory().name), 7, {"1": 0.5})


@pytest.fixture
def picky(monkeypatch):
    monkeypatch.setitem(EVALUATORS.registered, "picky", Picky)
    monkeypatch.setattr(Picky, "looked", [])
    return Picky


def test_benchmarks_look_at_every_ingredient_before_the_first_question_and_tell_all_faults(pool, judge, picky):
    with pytest.raises(EvaluatorError, match=r"^c has no template\nd has no template$"):
        flat.cook("greedy", pool=pool, eval=[f"python:{judge}:score", "picky:c", "picky:d"], out="out")
    assert picky.looked == [f"{target} {name}" for target in "cd" for name in "abcd"]
    assert calls(judge) == []


def test_a_dry_run_looks_at_the_same(pool, picky):
    with pytest.raises(EvaluatorError, match="c has no template"):
        flat.plan_cook("greedy", pool=pool, eval=["picky:c"], out="out")
    flat.plan_cook("greedy", pool=pool, eval=["picky:nobody"], out="out")
    assert picky.looked == [f"{target} {name}" for target in ("c", "nobody") for name in "abcd"]


def test_nothing_is_looked_at_where_all_scores_are_remembered(pool, picky):
    flat.cook("greedy", pool=pool, eval=["picky:nobody"], out="out")
    assert len(picky.looked) == 4
    flat.cook("greedy", pool=pool, eval=["picky:nobody"], out="out")
    assert len(picky.looked) == 4
