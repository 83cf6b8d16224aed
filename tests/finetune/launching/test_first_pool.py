"""A pool file from a folder of data: all that is there in it, ready to be checked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from finetune.jobs import read_plan
from finetune.launching.first_pool import write_first_pool
from soup.cli.app import cli
from soup.errors import FinetuneError
from tests.helpers.training_basics import write_rows

ROW = '{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}\n'


@pytest.fixture
def data(tmp_path):
    write_rows(tmp_path / "data" / "maps", count=4)
    (tmp_path / "data" / "yes.jsonl").write_text(ROW * 9)
    (tmp_path / "data" / "7 words: a.jsonl").write_text(ROW)
    (tmp_path / "data" / "notes.txt").write_text("none")
    (tmp_path / "data" / "empty").mkdir()
    return tmp_path / "data"


def test_the_largest_set_is_the_base_and_the_others_are_added(data, tmp_path):
    (data / "7 words: a.jsonl").rename(data / "words.jsonl")
    path = tmp_path / "pool.yaml"
    result = CliRunner().invoke(cli, ["finetune", str(path), "--init", str(data)])
    assert result.exit_code == 0, result.output
    config, _, jobs = read_plan(path)
    assert [data_set.path for data_set in config.data] == ["data/yes.jsonl"]
    assert {name: sets[0].path for name, sets in config.added.items()} == {
        "maps": "data/maps",
        "words": "data/words.jsonl",
    }
    assert [job.name for job in jobs] == ["maps", "words", "base"]
    assert "# 4 rows" in path.read_text()


def test_one_called_base_is_the_base(data, tmp_path):
    (data / "7 words: a.jsonl").rename(data / "base.jsonl")
    config = write_first_pool(data, tmp_path / "pool.yaml").config
    assert config.data[0].path == "data/base.jsonl"
    assert set(config.added) == {"maps", "yes"}  # which YAML 1.1 would read as true


def test_names_of_ingredients_are_those_of_files_as_far_as_folders_may_be_called_so(data, tmp_path):
    for name in ("yes.json", "start.json", "base.json", "..x.json", "\u732b.json"):
        (data / name).write_text(ROW)
    (data / "base.jsonl").write_text(ROW * 2)
    config = write_first_pool(data, tmp_path / "pool.yaml").config
    assert config.data[0].path == "data/base.json"
    assert {name: Path(sets[0].path).name for name, sets in config.added.items()} == {
        "7_words_a": "7 words: a.jsonl",
        "base-2": "base.jsonl",
        "maps": "maps",
        "start-2": "start.json",
        "yes": "yes.json",
        "yes-2": "yes.jsonl",
        "\u732b": "\u732b.json",
    }
    assert len(read_plan(tmp_path / "pool.yaml")[2]) == 8


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_what_is_no_data_set_is_told_with_the_reason(data, tmp_path, words):
    (data / "torn.parquet").write_text("no")
    result = CliRunner().invoke(cli, ["finetune", str(tmp_path / "pool.yaml"), "--init", str(data), *words])
    assert result.exit_code == 0, result.output
    for why in ("empty: expected a data set here", "torn.parquet: can't be read as parquet"):
        assert why in (result.stdout if words else result.stderr)
    if words:
        assert [*json.loads(result.stdout)["left_out"]] == ["empty", "torn.parquet"]


def test_a_folder_with_one_data_set_is_told(data, tmp_path):
    for path in data.glob("*.jsonl"):
        path.unlink()
    with pytest.raises(FinetuneError, match=r"found maps; no data sets are:\n  - .*empty: expected a data set"):
        write_first_pool(data, tmp_path / "pool.yaml")


def test_a_file_that_is_there_stays(data, tmp_path):
    (tmp_path / "pool.yaml").write_text("mine")
    with pytest.raises(FinetuneError, match="stands there already"):
        write_first_pool(data, tmp_path / "pool.yaml")
    assert (tmp_path / "pool.yaml").read_text() == "mine"
