"""The page is one file that asks for nothing else, whatever stands in the texts of a run; and tables to paste."""

from __future__ import annotations

import csv
import json
import re

import pytest
from click.testing import CliRunner

from soup.cli.app import cli
from soup.report.page.charts import scale_of
from soup.report.page.document import run_document
from soup.report.page.render import render_page
from soup.report.table_texts import as_csv, as_markdown
from soup.report.tables import ScoreRow, ShownTable, run_table
from tests.helpers.simulated_runs import HOSTILE, SimulatedRun


@pytest.fixture
def simulated(tmp_path):
    made = SimulatedRun(tmp_path / "ckpts.soup")
    made.search()
    return made


def report(*words):
    done = CliRunner().invoke(cli, ["report", *map(str, words)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize("typed", ["ckpts", "."])
def test_a_pool_or_the_folder_around_a_run_is_answered_with_the_run_s_name(simulated, tmp_path, monkeypatch, typed):
    (tmp_path / "ckpts").mkdir()
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, ["report", typed])
    assert "Did you mean ckpts.soup?" in str(done.exception)


def test_the_command_writes_the_page_and_its_numbers_beside_it(simulated, tmp_path):
    report(simulated.folder, "--html", tmp_path / "page.html", "--no-images")
    numbers = json.loads((tmp_path / "page.json").read_text())
    assert numbers == json.loads(json.dumps(run_document(simulated.folder, with_images=False)))
    page = (tmp_path / "page.html").read_text()
    for row in numbers["headline"]["rows"]:
        for part in row["parts"].values():
            assert f"{part['overall']:.2f}" in page


def test_the_page_asks_for_nothing_and_its_policy_forbids_it(simulated):
    page = render_page(run_document(simulated.folder))
    markup = re.sub(r"<script[^>]*>.*?</script>", "", page, flags=re.DOTALL)
    addresses = re.findall(r'\b(?:src|href|action)="?([^"> ]*)|url\(([^)]*)|@import', markup)
    assert {address.partition(":")[0] for address, _ in addresses if not address.startswith("#")} == {"data"}
    assert "<link" not in markup.replace('<link rel="icon" href="data:,">', "")
    assert "default-src 'none'" in page


def test_no_text_of_a_run_ends_the_script_that_holds_it(simulated):
    page = render_page(run_document(simulated.folder))
    assert HOSTILE not in page
    assert page.count("</script>") == 2
    data = re.search(r'<script type="application/json" id="question-data">(.*?)</script>', page, re.DOTALL)[1]
    assert HOSTILE in json.loads(data)[0]["text"]


@pytest.mark.parametrize("ends", [False, True])
def test_a_run_is_drawn_at_any_time(tmp_path, ends):
    made = SimulatedRun(tmp_path / "run", split=None)
    made.search(ends=ends, base=False)
    page = render_page(run_document(made.folder))
    assert ("Under way" in page) is not ends
    assert "undefined" not in re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL).lower()


def test_every_drawing_says_what_it_shows_and_where_its_numbers_are(simulated):
    page = render_page(run_document(simulated.folder))
    drawings = re.findall(r'role="img" aria-label="([^"]*)"', page)
    assert len(drawings) >= 2
    assert all("the table below" in label for label in drawings)
    svgs = re.findall(r"<svg[^>]*>", page)
    assert all('role="img"' in svg or 'aria-hidden="true"' in svg for svg in svgs)


def test_each_part_of_the_questions_has_its_colour_and_one_without_an_overall_no_column(simulated):
    document = run_document(simulated.folder)
    document["parts"] = ["selection", "all", "report"]
    document["ingredients"]["parts"]["all"] = {}  # somebody scored one benchmark without --split
    keys = re.compile(r"--key: var\(--(\w+)\)\">([a-z ]*questions[a-z ]*)<")
    assert [name for _, name in keys.findall(render_page(document))] == [
        "questions that chose",
        "questions that only report",
    ]
    for row in document["headline"]["rows"]:
        row["parts"]["all"] = row["parts"]["selection"]
    colors = [color for color, _ in keys.findall(render_page(document))]
    assert len(colors) == len(set(colors)) == 3


def test_more_than_eight_curves_are_told_apart_and_the_overall_is_like_none_of_them(simulated):
    curves = {name: [(0.0, 1.0), (1.0, 2.0)] for name in (*map(str, range(20)), "overall")}
    barriers = {name: {"height": 0.0, "t": 0.0} for name in curves}
    line = {"from": "a", "to": "b", "trials": [], "curves": curves, "barriers": barriers, "loss_barriers": {}}
    page = render_page(run_document(simulated.folder) | {"sweeps": [line]})
    keys = re.findall(r'<span class="([^"]*)">(?:\d+|overall)</span>', page)
    assert re.findall(r'<g class="([^"]*)">', page) == keys
    assert len(set(keys)) == 21


def test_long_names_are_told_apart_on_the_map_and_over_the_cosines(simulated):
    names = [f"a-name-that-is-much-too-long-for-a-map-{letter}" for letter in "abc"]
    ones = [[1.0] * 3] * 3
    rows = [
        {"name": name, "norm": 1.0, "by_component": {}, "moved": 1.0, "nearest": None, "verdict": "fits"}
        for name in names
    ]
    distances = {"reference": "base", "ingredients": rows, "cosines": {"all": ones}, "distances": ones, "frozen": []}
    points = [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)]
    pool = {"problems": [], "distances": distances, "map": {"names": ["base", *names], "points": points, "share": 1.0}}
    page = render_page(run_document(simulated.folder) | {"pool": pool})
    short = ["...a", "...b", "...c"]
    assert re.findall(r'dy="-6"[^>]*>([^<]*)<', page) == ["base", *short]
    assert re.findall(r'<span title="([^"]*)">([^<]*)<', page) == list(zip(names, short, strict=True))


def test_ticks_are_round_and_within_the_axis():
    scale = scale_of([61.2, 63.9])
    assert scale.ticks() == [61.5, 62.0, 62.5, 63.0, 63.5, 64.0] or scale.ticks() == [62.0, 63.0, 64.0]
    assert scale.place(scale.low) == 0
    assert scale.place(scale.high) == 100
    assert scale_of([5.0, 5.0]).low < 5 < scale_of([5.0, 5.0]).high
    assert scale_of([None]).ticks()


def test_csv_has_all_digits_and_no_formula(simulated):
    rows = list(csv.reader(report(simulated.folder, "--csv").splitlines()))
    table = run_table(simulated.folder)
    assert rows[0] == ["model", *table.columns, "remark"]
    assert [float(cell) if cell else None for cell in rows[1][1:-1]] == [*table.rows[0].values]
    scores = ShownTable(("a",), (ScoreRow("=cmd()", (1.0,), "+x", frozenset({0})),))
    assert as_csv(scores) == "model,a,remark,estimated\n'=cmd(),1.0,'+x,a\n"


def test_markdown_marks_estimates_and_escapes_names():
    scores = ShownTable(("a",), (ScoreRow("x|y", (1.0,), "", frozenset({0})),))
    assert as_markdown(scores) == "| model | a | remark |\n| --- | --: | --- |\n| x\\|y | ~1.00 |  |\n"
