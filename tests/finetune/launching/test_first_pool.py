"""A pool file from a folder of data: all that is there in it, ready to be checked."""

from __future__ import annotations

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
    config = write_first_pool(data, tmp_path / "pool.yaml")
    assert config.data[0].path == "data/base.jsonl"
    assert set(config.added) == {"maps", "yes"}  # which YAML 1.1 would read as true


def test_a_name_that_can_t_be_a_folder_s_is_told_before_anything_is_written(data, tmp_path):
    with pytest.raises(FinetuneError, match="7 words: a"):
        write_first_pool(data, tmp_path / "pool.yaml")
    assert not (tmp_path / "pool.yaml").exists()


def test_a_folder_with_one_data_set_is_told(data, tmp_path):
    for path in data.glob("*.jsonl"):
        path.unlink()
    with pytest.raises(FinetuneError, match="found maps; no data sets are empty"):
        write_first_pool(data, tmp_path / "pool.yaml")


def test_a_file_that_is_there_stays(data, tmp_path):
    (tmp_path / "pool.yaml").write_text("mine")
    with pytest.raises(FinetuneError, match="stands there already"):
        write_first_pool(data, tmp_path / "pool.yaml")
    assert (tmp_path / "pool.yaml").read_text() == "mine"
