"""The line between two models: its points' bytes, its barrier, and what is asked for it."""

from __future__ import annotations

import json
import re
import shutil
from typing import ClassVar

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

import soup
from soup.cli.app import cli
from soup.errors import EvaluatorError, PoolError, RecipeError
from soup.evaluation.api import Harness, Score
from soup.evaluation.progress import Progress
from soup.report.tables import run_table
from soup.support.plugins import EVALUATORS
from tests.helpers.toy_pools import calls, make_checkpoint, make_judge

# `head` is t: 50 at the first end, 80 at the other, and 40 t (1 - t) below the line between them.
CURVES = """

def t_of(checkpoint):
    note(checkpoint, "t")
    return float(weights(checkpoint)["head"][0])


def dip(checkpoint):
    t = t_of(checkpoint)
    return 50 + 30 * t - 40 * t * (1 - t)


def bump(checkpoint):
    t = t_of(checkpoint)
    return 50 + 30 * t + 20 * t * (1 - t)


def asked(checkpoint):
    t = t_of(checkpoint)
    return {"questions": {str(number): min(1, max(0, t * number / 40)) for number in range(40)}}
"""


@pytest.fixture
def judge(tmp_path):
    judge = make_judge(tmp_path / "judge")
    judge.write_text(judge.read_text() + CURVES)
    return judge


@pytest.fixture
def ends(tmp_path):
    return [make_checkpoint(tmp_path / "ckpts" / name, seed, head=[seed] * 4) for seed, name in enumerate("ab")]


def test_the_barrier_is_the_largest_dip_below_the_line_and_has_a_place(ends, judge):
    result = soup.sweep(*ends, eval=[f"python:{judge}:dip", f"python:{judge}:bump"], steps=11)
    dip, bump, overall = result.barriers.values()
    assert (dip.height, dip.t) == (pytest.approx(10, abs=1e-4), 0.5)
    assert (bump.height, bump.t) == (0, 0)
    assert overall.height == pytest.approx(2.5, abs=1e-4)
    assert [round(point.t, 9) for point in result.points] == [round(0.1 * step, 9) for step in range(11)]


def test_what_is_left_of_a_straight_line_by_rounding_is_no_barrier(ends):
    result = soup.sweep(*ends, eval=straight, steps=11)
    assert [point.trial.overall for point in result.points][5] == pytest.approx(50.1 / 3)
    assert result.barriers["overall"].height == 0


def straight(checkpoint):
    t = float(load_file(f"{checkpoint}/model.safetensors")["head"][0].round(3).astype(str))
    return (1 - t) * 0.1 / 3 + t * 100.1 / 3


def test_what_lies_beyond_the_ends_counts_for_no_barrier(ends, judge):
    result = soup.sweep(*ends, eval=f"python:{judge}:bump", steps=3, extrapolate=0.75)
    assert [point.t for point in result.points] == [-0.75, -0.375, 0, 0.5, 1, 1.375, 1.75]
    first = result.points[0].trial
    assert first.overall == pytest.approx(50 - 30 * 0.75 - 20 * 0.75 * 1.75, abs=1e-4)
    assert result.barriers["overall"].height == 0


def test_the_ends_are_the_models_own_scores_and_nothing_is_asked_twice(ends, judge):
    name = f"python:{judge}:dip"
    alone = soup.evaluate(ends, eval=name)
    count = len(calls(judge))
    first = soup.sweep(*ends, eval=name, steps=6)
    assert len(calls(judge)) == count + 4
    assert [first.points[0].trial.overall, first.points[-1].trial.overall] == [trial.overall for trial in alone]
    soup.sweep(*ends, eval=name, steps=6)
    assert len(calls(judge)) == count + 4
    soup.sweep(*ends, eval=name, steps=11)  # every second point is known
    assert len(calls(judge)) == count + 9
    soup.cook("average", [*ends], eval=name, out=ends[0].parent.parent / "out")
    assert len(calls(judge)) == count + 9  # it is the point in the middle


def test_points_have_the_bytes_of_the_float64_line(ends):
    states = []

    def keep(checkpoint):
        states.append(load_file(f"{checkpoint}/model.safetensors"))
        return 50.0

    result = soup.sweep(*ends, eval=keep, steps=2, extrapolate=0.25)
    a, b = (load_file(end / "model.safetensors") for end in ends)
    assert len(states) == len(result.points) == 4
    for point, tensors in zip(result.points, states, strict=True):
        for name, values in tensors.items():
            exact = (1 - point.t) * a[name].astype(np.float64) + point.t * b[name].astype(np.float64)
            np.testing.assert_array_max_ulp(values, exact.astype(values.dtype), 1)
            assert (values == exact.astype(values.dtype)).mean() >= 0.9995
        assert tensors["vision.tower"].tobytes() == a["vision.tower"].tobytes()


def test_workers_find_the_same_and_both_halves_of_the_questions_are_scored(ends, judge):
    config = {"benchmarks": f"python:{judge}:asked", "split": 0.5}
    starts = []
    progress = Progress(on_search=lambda start: starts.append((start.title, start.evaluations)))
    first = soup.sweep(*ends, eval=soup.EvalConfig(**config), steps=4, progress=progress)
    shutil.rmtree(ends[0].parent.with_name("ckpts.soup"))
    second = soup.sweep(*ends, eval=soup.EvalConfig(**config, workers=2), steps=4)
    assert starts == [("sweep", 8)]
    assert all(point.trial.report_overall is not None for point in first.points)
    assert len(calls(judge)) == 16
    assert without_seconds(first) == without_seconds(second)


class Teacher(Harness):
    """Scores 50; its loss is 2 - t, and 2 t (1 - t) above that between both ends."""

    asked: ClassVar[list[str]] = []

    def __init__(self, settings):
        pass

    def identity(self, benchmark):
        measures = {"measures": "likelihood"} if benchmark.measures == "likelihood" else {}
        return {"evaluator": "teacher", **measures}

    def evaluate(self, candidate, benchmark):
        t = float(load_file(candidate.directory() / "model.safetensors")["head"][0])
        self.asked.append(benchmark.name)
        if benchmark.measures == "score":
            return Score(50.0)
        return Score.of_loss([1.5 - t + 2 * t * (1 - t), 2.5 - t + 2 * t * (1 - t)])

    def why_no_likelihood(self, benchmark):
        return None


@pytest.fixture
def teacher(monkeypatch):
    monkeypatch.setitem(EVALUATORS.registered, "teacher", Teacher)
    Teacher.asked.clear()
    return "teacher"


def test_the_loss_s_barrier_is_its_largest_rise_and_is_remembered(ends, judge, teacher):
    starts = []
    progress = Progress(on_search=lambda start: starts.append(start.evaluations))
    for _ in range(2):
        result = soup.sweep(*ends, eval=[teacher, f"python:{judge}:dip"], steps=5, progress=progress)
        assert Teacher.asked == ["teacher"] * 5 + ["teacher likelihood"] * 5
    assert starts == [5, 5] * 2, "of scores, then of losses"
    assert result.loss_curves == {"teacher": pytest.approx([2, 2.125, 2, 1.625, 1], abs=1e-6)}
    rise = result.loss_barriers["teacher"]
    assert (rise.height, rise.t) == (pytest.approx(0.5, abs=1e-6), 0.5)
    assert result.barriers["overall"].height == pytest.approx(5, abs=1e-4)  # the mean of both benchmarks' scores alone
    assert set(result.no_loss) == {f"python:{judge}:dip"}
    assert [row["losses"]["teacher"] for row in result.as_json()["trials"]] == result.loss_curves["teacher"]


def test_a_loss_that_nobody_wants_is_not_asked_for(tmp_path, ends, teacher):
    result = soup.sweep(*ends, eval=teacher, steps=2, loss=False)
    assert Teacher.asked == ["teacher"] * 2
    assert result.loss_barriers == {}
    words = ["sweep", *map(str, ends), "--eval", teacher, "--steps", "2"]
    assert CliRunner().invoke(cli, [*words, "--no-loss"]).exit_code == 0
    assert Teacher.asked == ["teacher"] * 2
    lines = CliRunner().invoke(cli, words).stdout.splitlines()
    assert lines[0].split() == ["t", "teacher", "overall", "teacher", "loss"]
    assert lines[1].split() == ["0.000", "50.00", "50.00", "2.0000", "a"]
    assert lines[-1] == "teacher: the largest rise of the loss above that line is 0.0000"


def test_a_likelihood_is_no_part_of_a_run_s_overall(ends, teacher):
    soup.sweep(*ends, eval=teacher, steps=2)
    table = run_table(ends[0].parent.with_name("ckpts.soup"))
    assert table.columns == ("teacher", "teacher likelihood", "overall")
    assert [row.values[2] for row in table.rows] == [50, 50]


@pytest.mark.parametrize("losses", [[], [float("nan"), 1.0]])
def test_a_loss_of_nothing_is_no_likelihood(losses):
    with pytest.raises(EvaluatorError, match="expected the losses of questions"):
        Score.of_loss(losses)
    assert Score.of_loss([5000.0]).loss == pytest.approx(700)  # there is no smaller number


def without_seconds(result):
    document = result.as_json()
    return {**document, "trials": [{**row, "remembered": None} for row in document["trials"]]}


def test_benchmarks_without_a_loss_are_told_by_their_reason(ends, judge):
    words = ["sweep", *map(str, ends), "--eval", f"python:{judge}:dip,python:{judge}:bump", "--steps", "3"]
    told = [line for line in CliRunner().invoke(cli, words).stdout.splitlines() if "no loss" in line]
    assert told == [f"python:{judge}:dip, python:{judge}:bump: no loss, for its harness gives scores alone"]


def test_the_command_prints_a_row_for_each_point_and_json_has_the_same(tmp_path, ends, judge):
    pytest.importorskip("matplotlib")
    words = ["sweep", *map(str, ends), "--eval", f"python:{judge}:dip", "--steps", "5", "--extrapolate", "0.25"]
    plan = json.loads(CliRunner().invoke(cli, [*words, "--dry-run", "--json"]).stdout)
    assert (plan["points"], plan["evaluations_at_most"]) == ([-0.25, 0, 0.25, 0.5, 0.75, 1, 1.25], 7)
    assert not calls(judge)
    done = CliRunner().invoke(cli, [*words, "--plot", str(tmp_path / "line.svg")])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[1].split() == ["-0.250", "55.00", "55.00", "-"]
    assert lines[2].split() == ["0.000", "50.00", "50.00", "-", "a"]
    assert lines[-2] == "overall: the largest dip below the line between both is 10.00 at t = 0.500"
    assert lines[-1] == f"python:{judge}:dip: no loss, for its harness gives scores alone"
    document = json.loads(CliRunner().invoke(cli, [*words, "--json"]).stdout)
    assert len(calls(judge)) == 7
    assert [row["t"] for row in document["trials"]] == plan["points"]
    assert document["trials"][2]["label"] == "a (0.75) + b (0.25)"
    assert document["trials"][0]["label"] == "a (1.25) + b (-0.25)"
    assert document["barriers"]["overall"]["height"] == pytest.approx(10, abs=1e-4)
    assert "from a (0) to b (1)" in (tmp_path / "line.svg").read_text()


def other_architecture(tmp_path, a, b):
    return a, make_checkpoint(tmp_path / "c", tensors={"w": np.zeros(3, np.float32)})


def one_of_a_folder(tmp_path, a, b):
    """The only checkpoint of a folder, and all else that it holds: so a shell's star makes it."""
    (tmp_path / "star/logs").mkdir(parents=True)
    return shutil.copytree(a, tmp_path / "star/a"), tmp_path / "star/logs"


WRONG = {
    "twice": (lambda tmp_path, a, b: (a, a), {}, PoolError, "The same checkpoint is given twice"),
    "same": (
        lambda tmp_path, a, b: (a, shutil.copytree(a, tmp_path / "c")),
        {},
        PoolError,
        "hold the same weights: there is no line between them",
    ),
    "one": (one_of_a_folder, {}, PoolError, "to another:\n  - logs: skipped, not a checkpoint$"),
    "other": (other_architecture, {}, PoolError, "do not belong together"),
    "steps": (lambda tmp_path, a, b: (a, b), {"steps": 1}, RecipeError, "`steps` must be at least 2"),
    "reach": (lambda tmp_path, a, b: (a, b), {"extrapolate": -0.1}, RecipeError, "`extrapolate` must lie between 0"),
    "type": (lambda tmp_path, a, b: (a, b), {"steps": "9"}, RecipeError, "steps: expected int, found '9'"),
    "no benchmark": (lambda tmp_path, a, b: (a, b), {"eval": ()}, EvaluatorError, "benchmark"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_makes_no_line_is_refused_before_the_first_question(tmp_path, ends, judge, kind):
    make, options, error, text = WRONG[kind]
    with pytest.raises(error, match=text):
        soup.sweep(*make(tmp_path, *ends), **{"eval": f"python:{judge}:dip", **options})
    assert not calls(judge)


def test_a_dry_run_of_a_sweep_with_one_end_is_refused_as_the_sweep_is(tmp_path, ends, judge):
    a, logs = one_of_a_folder(tmp_path, *ends)
    arguments = ["sweep", str(a), str(logs), "--eval", f"python:{judge}:dip", "--dry-run"]
    done = CliRunner().invoke(cli, arguments)
    assert isinstance(done.exception, PoolError)


def test_a_sweep_advises_no_option_that_it_has_not(tmp_path, ends, judge):
    with pytest.raises(PoolError) as refused:
        soup.sweep(*other_architecture(tmp_path, *ends), eval=f"python:{judge}:dip")
    assert not re.search("`(exclude|drop|dtype)`", str(refused.value))


@pytest.mark.parametrize("end", [0, 1])
def test_an_adapter_is_refused_by_name(tmp_path, ends, judge, end):
    (tmp_path / "c").mkdir()
    (tmp_path / "c/adapter_config.json").write_text("{}")
    save_file({"x": np.zeros(1, np.float32)}, tmp_path / "c/adapter_model.safetensors")
    pair = [ends[0], ends[0]]
    pair[end] = tmp_path / "c"
    with pytest.raises(RecipeError, match="c: a line goes between whole models, and this is an adapter"):
        soup.sweep(*pair, eval=f"python:{judge}:dip")
