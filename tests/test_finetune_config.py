"""The YAML file of `soup finetune`: what it may say, and how it is told what is wrong."""

import pytest

from finetune.config import Stage, read_config
from finetune.jobs import plan
from soup.errors import FinetuneError

FULL = """
start:
  start: tiny
  data: data/base
  out: base
  lr: 1.0e-3
  steps: 8
added:
  number: data/number
  word: [data/word, data/more]
data: data/base
freeze: [general_vit, ocr_vit]
lr: 5.0e-4
steps: 4
"""


def written(tmp_path, text):
    path = tmp_path / "finetune.yaml"
    path.write_text(text)
    return path


def test_a_base_to_train_comes_first_and_every_added_set_starts_from_it(tmp_path):
    config = read_config(written(tmp_path, FULL))
    base, number, word = plan(config, tmp_path)
    assert isinstance(config.start, Stage)
    assert (base.name, base.start, base.out) == ("start", "tiny", tmp_path / "base")
    assert (base.settings.freeze, base.settings.lr) == ([], 1e-3)
    assert number.start == word.start == str(tmp_path / "base")
    assert number.out == tmp_path / "ckpts" / "number"
    assert [one.path for one in word.data] == ["data/base", "data/word", "data/more"]
    assert number.settings.freeze == ["general_vit", "ocr_vit"]


def test_the_base_takes_what_it_does_not_say_from_the_rest_but_freezes_nothing(tmp_path):
    config = read_config(written(tmp_path, FULL + "seed: 7\nbatch: 3\nmax_shard_size: 1MB\n"))
    settings = plan(config, tmp_path)[0].settings
    assert (settings.seed, settings.batch, settings.max_shard_size) == (7, 3, "1MB")
    assert (settings.lr, settings.steps, settings.freeze) == (1e-3, 8, [])


def test_the_word_on_is_a_key_and_not_yaml_s_true(tmp_path):
    assert read_config(written(tmp_path, FULL + "on: ray:10.0.0.1:6379\n")).on == "ray:10.0.0.1:6379"


def test_a_base_that_is_there_is_only_named(tmp_path):
    text = FULL[FULL.index("added") :]
    jobs = plan(read_config(written(tmp_path, "start: org/model\n" + text)), tmp_path)
    assert [job.start for job in jobs] == ["org/model"] * 2
    (tmp_path / "mine").mkdir()
    jobs = plan(read_config(written(tmp_path, "start: mine\n" + text)), tmp_path)
    assert [job.start for job in jobs] == [str(tmp_path / "mine")] * 2


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("lr: 5.0e-4", "lr: 5.0e-4\nlearning_rate: 1", "learning_rate: unknown key"),
        ("steps: 8", "steps: 8\n  step: 9", "start.step: unknown key. Did you mean 'steps'?"),
        ("lr: 5.0e-4", "lr: -1", "lr: Input should be greater than 0, found -1"),
        ("lr: 5.0e-4\n", "", "lr: Field required"),
        ("  data: data/base\n", "", "start.data: Field required"),
        ("  number: data/number", "  ../up: data/number", "added.../up"),
        ("steps: 4", "steps: 4\ndtype: int8", "dtype: Input should be"),
        ("added:\n  number: data/number\n  word: [data/word, data/more]", "added: {}", "nothing to train"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, old, new, said):
    assert old in FULL
    with pytest.raises(FinetuneError) as error:
        read_config(written(tmp_path, FULL.replace(old, new)))
    assert said in str(error.value)
    assert "finetune.yaml" in str(error.value)


def test_all_that_is_wrong_comes_at_once(tmp_path):
    with pytest.raises(FinetuneError) as error:
        read_config(written(tmp_path, FULL.replace("lr: 5.0e-4", "lr: 0\nbogus: 1").replace("steps: 4", "steps: x")))
    assert all(word in str(error.value) for word in ("3 wrong", "lr:", "bogus:", "steps:"))


@pytest.mark.parametrize("text", ["", "- a\n- b", "just words", "a: [1", "\x00"])
def test_what_is_no_mapping_is_refused(tmp_path, text):
    with pytest.raises(FinetuneError, match=r"finetune\.yaml"):
        read_config(written(tmp_path, text))


def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path):
    with pytest.raises(FinetuneError, match="can't be read"):
        read_config(tmp_path / "none.yaml")
