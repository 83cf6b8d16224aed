"""The YAML file of `soup finetune`: what it may say, and how it is told what is wrong."""

from __future__ import annotations

import re

import pytest

from finetune.config import (
    KEYS_ELSEWHERE,
    RENAMED_SETTINGS,
    VALIDATING,
    WATCHING,
    FinetuneConfig,
    Stage,
    TrainSettings,
)
from finetune.config_file import read_config
from finetune.jobs import plan_jobs
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
    base, number, word = plan_jobs(config, tmp_path)
    assert isinstance(config.start, Stage)
    assert (base.name, base.start, base.out) == ("start", "tiny", tmp_path / "base")
    assert (base.settings.freeze, base.settings.lr) == ([], 1e-3)
    assert number.start == word.start == str(tmp_path / "base")
    assert number.out == tmp_path / "ckpts" / "number"
    assert [data_set.path for data_set in word.data] == ["data/base", "data/word", "data/more"]
    assert number.settings.freeze == ["general_vit", "ocr_vit"]


def test_the_base_takes_what_it_does_not_say_from_the_rest_but_freezes_nothing(tmp_path):
    config = read_config(written(tmp_path, FULL + "seed: 7\nglobal_batch_size: 3\nmax_shard_size: 1MB\n"))
    settings = plan_jobs(config, tmp_path)[0].settings
    assert (settings.seed, settings.global_batch_size, settings.max_shard_size) == (7, 3, "1MB")
    assert (settings.lr, settings.steps, settings.freeze) == (1e-3, 8, [])


def test_the_executor_may_be_a_cluster_s_address(tmp_path):
    assert read_config(written(tmp_path, FULL + "executor: ray:10.0.0.1:6379\n")).executor == "ray:10.0.0.1:6379"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("also: [base]", "- also: is called include_base now."),
        ("vary: {lr: [1]}", "- vary: is called sweep now."),
        ("on: local", "- on: is called executor now."),
        ("'on': local", "- on: is called executor now."),
        ("lr_of: {llm: 1}", "- lr_of: is called lr_overrides now."),
        ("warmup: 0.1", "- warmup: is called warmup_ratio now."),
        ("attention: eager", "- attention: is called attn_implementation now."),
        ("batch: 8", "- batch: is called global_batch_size now."),
        ("sweep: {warmup: [0.1]}", "- sweep.warmup: is called warmup_ratio now."),
        ("start: {data: data/base, batch: 8}", "- start.batch: is called global_batch_size now."),
        ("mixture: {batch: 8}", "- mixture.batch: unknown key."),
    ],
)
def test_a_key_s_old_name_is_an_error_that_tells_the_new_one(tmp_path, line, message):
    text = FULL[FULL.index("added") :]
    start = "" if line.startswith("start") else "start: org/model\n"
    with pytest.raises(FinetuneError, match=re.escape(f"finetune.yaml: 1 wrong.\n  {message}")):
        read_config(written(tmp_path, f"{start}{text}{line}\n"))


def test_settings_are_stored_under_their_first_names_and_read_from_them():
    settings = TrainSettings(lr=1, steps=3, warmup_ratio=0.1, global_batch_size=8, lr_overrides={"llm": 0.5})
    stored = settings.as_stored()
    assert (stored["warmup"], stored["batch"], stored["lr_of"], stored["attention"]) == (0.1, 8, {"llm": 0.5}, None)
    assert not stored.keys() & RENAMED_SETTINGS.keys()
    first = [name for name in TrainSettings.model_fields if name not in (*WATCHING, *VALIDATING, "tiling")]
    assert list(stored) == [RENAMED_SETTINGS.get(name, name) for name in first]
    assert TrainSettings.from_stored(stored) == settings


def test_a_tiling_of_training_is_stored_where_there_is_one():
    cut = TrainSettings(lr=1, steps=1, tiling="anyres:max_tiles=9")
    assert "tiling" not in TrainSettings(lr=1, steps=1).as_stored()
    assert cut.as_stored()["tiling"] == "anyres:max_tiles=9"
    assert TrainSettings.from_stored(cut.as_stored()) == cut


def test_adapters_that_are_folded_in_are_stored_as_before_there_were_others():
    folded, kept = (TrainSettings(lr=1, steps=3, lora={"keep_adapter": keep}) for keep in (False, True))
    assert "keep_adapter" not in folded.as_stored()["lora"]
    assert kept.as_stored()["lora"]["keep_adapter"]
    assert [TrainSettings.from_stored(each.as_stored()) for each in (folded, kept)] == [folded, kept]


def test_a_start_is_no_adapter(tmp_path):
    text = FULL.replace("  steps: 8", "  steps: 8\n  lora: {keep_adapter: true}")
    with pytest.raises(FinetuneError, match=r"start\.lora\.keep_adapter: the others start from a whole model"):
        read_config(written(tmp_path, text))


def test_a_base_that_is_there_is_only_named(tmp_path):
    text = FULL[FULL.index("added") :]
    jobs = plan_jobs(read_config(written(tmp_path, "start: org/model\n" + text)), tmp_path)
    assert [job.start for job in jobs] == ["org/model"] * 2
    (tmp_path / "mine").mkdir()
    jobs = plan_jobs(read_config(written(tmp_path, "start: mine\n" + text)), tmp_path)
    assert [job.start for job in jobs] == [str(tmp_path / "mine")] * 2


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "lr: 5.0e-4",
            "lr: 5.0e-4\nlearning_rate: 1",
            "learning_rate: is called lr here.",
        ),
        (
            "steps: 8",
            "steps: 8\n  max_steps: 9",
            "start.max_steps: is called steps here.",
        ),
        ("steps: 8", "steps: 8\n  step: 9", "start.step: unknown key. Did you mean 'steps'?"),
        ("lr: 5.0e-4", "lr: -1", "lr: Input should be greater than 0, found -1"),
        ("lr: 5.0e-4", "lr: .inf", "lr: Input should be a finite number, found inf"),
        ("lr: 5.0e-4", "lr: 5.0e-4\nkeep_every: yes", "keep_every: expected a number, found True"),
        ("lr: 5.0e-4", "lr: 5.0e-4\nlr_overrides: {vision: on}", "lr_overrides: expected a number"),
        ("lr: 5.0e-4", "lr: true", "lr: expected a number, found True"),
        ("  steps: 8", "  steps: 8\n  early_stopping: true", "start.early_stopping: expected a number, found True"),
        ("lr: 5.0e-4", "lr: 5.0e-4\nlora: {rank: true, keep_adapter: true}", "lora.rank: expected a number"),
        ("lr: 5.0e-4\n", "", "lr: Field required"),
        ("  data: data/base\n", "", "start.data: Field required"),
        ("  number: data/number", "  ../up: data/number", "added.../up"),
        ("steps: 4", "steps: 4\ndtype: int8", "dtype: Input should be"),
        ("added:\n  number: data/number\n  word: [data/word, data/more]", "added: {}", "- nothing to train"),
        ("lr: 5.0e-4", "lr: 5.0e-4\nsweep: {rate: [1]}", "- sweep.rate: no setting."),
        ("lr: 5.0e-4", "lr: 5.0e-4\ntrain: {llm: lost 3}", "train.llm: expected all, none, or `last 3`"),
        ("lr: 5.0e-4", "lr: 5.0e-4\nlog_to: tensorbord", "log_to.0: Input should be 'tensorboard'"),
        (
            "lr: 5.0e-4",
            "lr: 5.0e-4\nexecutor: moon",
            "executor: expected local, slurm, ray or ray:ADDRESS, found 'moon'",
        ),
        ("lr: 5.0e-4", "lr: 5.0e-4\nlora: {target: '('}", "lora.target: not a regular expression"),
        ("lr: 5.0e-4", "lr: 5.0e-4\nlora: {target: 'a{9999999999}'}", "lora.target: not a regular expression"),
        ("lr: 5.0e-4", f"lr: 5.0e-4\nlora: {{target: '{'(' * 1000}'}}", "lora.target: not a regular expression"),
        (
            "lr: 5.0e-4",
            f"lr: 5.0e-4\nsweep: {{seed: {list(range(10_001))}}}",
            "models to train, more than 10,000",
        ),
        ("steps: 8", "steps: 8\n  mixture: {categories: {1: 1}}", "1: no data set has this category"),
        ("lr: 5.0e-4", "lr: 5.0e-4\nmax_shard_size: much", "max_shard_size: expected a size such as 5GB"),
        ("lr: 5.0e-4", "lr: 5.0e-4\nslurm: {time: noon}", "slurm.time: no time limit of SLURM"),
        ("lr: 5.0e-4", "lr: 5.0e-4\nslurm: {time: 00:02:00}", "slurm.time: a job is asked to stop 2 minutes before"),
        (
            "lr: 5.0e-4",
            "lr: 5.0e-4\nglobal_batch_size: 8\nmicro_batch: 3",
            "- micro_batch 3 does not divide global_batch_size 8.",
        ),
        ("lr: 5.0e-4", "lr: 5.0e-4\nmixture: {categories: {mth: 1}}", "mth: no data set has this category"),
        ("steps: 8", "steps: 8\n  mixture: {categories: {mth: 1}}", "mth: no data set has this category"),
        ("lr: 5.0e-4", "lr: 5.0e-4\nsweep: {mixture: [{categories: {mth: 1}}]}", "mth: no data set has this category"),
        ("  number: data/number", "  'a b': data/number", "added.a b: a name becomes a folder"),
        ("lr: 5.0e-4", "lr: 5.0e-4\nlr: 1.0e-4", "lr: stands there twice"),
        ("data: data/base\nfreeze", f"data: {'x' * 300}\nfreeze", "a path has at most 3,000 bytes, a name in it 255"),
        ("  number: data/number", f"  number: {'x' * 300}", "a path has at most 3,000 bytes, a name in it 255"),
        ("  number: data/number", f"  {'x' * 300}: data/number", "a name becomes a folder"),
        ("lr: 5.0e-4", 'lr: 5.0e-4\nroot: "a\\0b"', "a path has at most 3,000 bytes, a name in it 255, and none is 0"),
        ("  number: data/number", "  number: data/number\n  number: data/more", "number: stands there twice"),
        (
            "  number: data/number",
            "  number: 3",
            "added.number.0: expected a path, or a mapping, as in {path: ...}, fo",
        ),
        ("lr: 5.0e-4", "lr: 5.0e-4\nlora: 16", "lora: expected a mapping, as in {rank: ...}, found 16"),
        ("lr: 5.0e-4", "lr: 5.0e-4\nsweep: lr", "sweep: expected a mapping, as in {name: ...}, found 'lr'"),
        (
            "start:\n  start: tiny",
            "start: [tiny]\nroot: .\nslurm:\n  time: 1",
            "start: expected a checkpoint, or a map",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path, old, new, said):
    assert old in FULL
    with pytest.raises(FinetuneError) as error:
        read_config(written(tmp_path, FULL.replace(old, new)))
    assert said in str(error.value)
    assert "finetune.yaml" in str(error.value)


def test_keys_of_other_tools_name_keys_that_there_are():
    assert set(KEYS_ELSEWHERE.values()) <= set(FinetuneConfig.model_fields)
    assert not set(KEYS_ELSEWHERE) & set(FinetuneConfig.model_fields)


def test_all_that_is_wrong_comes_at_once(tmp_path):
    with pytest.raises(FinetuneError) as error:
        read_config(written(tmp_path, FULL.replace("lr: 5.0e-4", "lr: 0\nbogus: 1").replace("steps: 4", "steps: x")))
    assert all(word in str(error.value) for word in ("3 wrong", "lr:", "bogus:", "steps:"))


def test_all_that_does_not_go_together_comes_at_once_too(tmp_path):
    text = FULL.replace("  number:", "  start:") + "sweep: {a: [1], b: [2]}\n"
    with pytest.raises(FinetuneError) as error:
        read_config(written(tmp_path, text))
    assert all(word in str(error.value) for word in ("3 wrong", "- an added data set is called start", "- sweep.b: no"))


def test_times_and_small_numbers_are_what_they_look_like(tmp_path):
    text = FULL.replace("5.0e-4", "5e-4") + "sweep: {lr: [1e-5]}\nslurm: {time: 24:00:00}\n"
    config = read_config(written(tmp_path, text))
    assert (config.lr, config.sweep["lr"], config.slurm.time) == (5e-4, [1e-5], "24:00:00")
    assert read_config(written(tmp_path, FULL + "slurm: {time: 90}\n")).slurm.time == "90"


def test_a_mixture_s_categories_are_for_the_jobs_that_have_them(tmp_path):
    sets = "  number: {path: data/number, category: math}\n  word: {path: data/word, category: text}"
    text = FULL.replace("  number: data/number\n  word: [data/word, data/more]", sets)
    ratios = "mixture: {categories: {math: 0.5, text: 0.1}}\n"
    base, number, word = plan_jobs(read_config(written(tmp_path, text + ratios)), tmp_path)
    assert [job.settings.mixture.categories for job in (base, number, word)] == [{}, {"math": 0.5}, {"text": 0.1}]


def test_what_varies_is_named_by_what_was_said_of_it(tmp_path):
    text = FULL[FULL.index("added") :].replace("  word: [data/word, data/more]\n", "")
    sweep = "sweep: {lora: [{rank: 4}, {rank: 8, save: [llm.lm_head]}], lr: [1e-5]}\n"
    jobs = plan_jobs(read_config(written(tmp_path, "start: org/model\n" + text + sweep)), tmp_path)
    assert [job.name for job in jobs] == ["number-lorarank4-lr1e-05", "number-lorarank8-savellm.lm_head-lr1e-05"]


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "finetune.yaml").write_bytes(b"\x89PNG\r\n\xff\xfe")
    with pytest.raises(FinetuneError, match=r"finetune\.yaml: expected a YAML file, found bytes that are no text"):
        read_config(tmp_path / "finetune.yaml")


@pytest.mark.parametrize("text", ["", "- a\n- b", "just words", "a: [1", "\x00"])
def test_what_is_no_mapping_is_refused(tmp_path, text):
    with pytest.raises(FinetuneError, match=r"finetune\.yaml"):
        read_config(written(tmp_path, text))


def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path):
    with pytest.raises(FinetuneError, match="can't be read"):
        read_config(tmp_path / "none.yaml")


@pytest.mark.parametrize("text", ["start: mine\ndata: org/data\n", "start: org/model\ndata: rows.jsonl\n"])
def test_nothing_is_taken_from_wherever_the_command_is_typed(tmp_path, monkeypatch, text):
    root, elsewhere = tmp_path / "pool", tmp_path / "elsewhere"
    (elsewhere / "mine").mkdir(parents=True)
    root.mkdir()
    (elsewhere / "mine/config.json").write_text("{}")
    (elsewhere / "rows.jsonl").write_text("{}")
    monkeypatch.chdir(elsewhere)
    config = read_config(written(root, text + "include_base: true\nlr: 1\nsteps: 1\n"))
    with pytest.raises(FinetuneError, match=r"start at .*pool .* one in the working directory, .*elsewhere"):
        plan_jobs(config, root)
    monkeypatch.chdir(root)
    [job] = plan_jobs(config, root)
    assert (job.start, job.data[0].path) in (("mine", "org/data"), ("org/model", str(root / "rows.jsonl")))
