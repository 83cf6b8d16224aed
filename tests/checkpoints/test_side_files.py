"""What lies beside the weights: what a soup takes along, what it leaves, and who lends what the lead lacks."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import soup
from soup.checkpoints.carried_files import MAX_SIDE_FILE_BYTES
from soup.checkpoints.digest import digest_checkpoint, side_digest
from soup.checkpoints.reader import Checkpoint
from soup.checkpoints.side_files import side_differences
from soup.checkpoints.tokenizer_differences import tokenizer_differences
from soup.checkpoints.weight_files import INDEX
from soup.checkpoints.written_config import config_for
from soup.errors import CheckpointError, PoolError
from soup.evaluation.candidate import SoupCandidate
from soup.merging.options import MergeOptions
from soup.merging.recipe import Recipe
from soup.report.pool_check import check
from soup.testing import tiny_checkpoint, tiny_pool

SHARD = "model-00001-of-00002.safetensors"
KNOWN = [
    *("additional_chat_templates/tools.jinja", "chat_template.jinja", "chat_template.json", "code/modeling_mine.py"),
    *("configuration_mine.py", "generation_config.json", "LICENSE", "LICENSE.txt", "merges.txt", "Notice.md"),
    *("preprocessor_config.json", "processor_config.json", "qwen.tiktoken", "sentencepiece.bpe.model"),
    *("special_tokens_map.json", "spiece.model", "tokenizer.model", "tokenizer_config.json", "USE_POLICY.md"),
    *("video_preprocessor_config.json", "vocab.json", "vocab.txt"),
]
UNKNOWN = [
    *("__0_0.distcp", ".metadata", "bf16_zero_pp_rank_0_mp_rank_00_optim_states.dat", "confusion.png"),
    *("dist/vocab.json", "eval_outputs.jsonl", "mmbench_predictions.xlsx", "predictions.json", "train.out"),
    *("training_loss.svg",),
]


def put(folder, name, text="x"):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


@pytest.fixture
def pool(tmp_path):
    return tiny_pool(tmp_path / "pool", 2)


def average(pool, out, **keywords):
    heard = []
    soup.cook("average", pool, out=out, progress=soup.Progress(on_warning=heard.append), **keywords)
    return heard


def test_what_transformers_knows_is_carried_and_the_rest_is_left_out_and_named_once(tmp_path, pool):
    for ingredient in pool.iterdir():
        for name in [*KNOWN, *UNKNOWN]:
            put(ingredient, name, "{}")
    heard = average(pool, tmp_path / "out")
    made = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert set(KNOWN) <= made
    assert not made & set(UNKNOWN)
    (line,) = [text for text in heard if "left out of the soup" in text]
    named = [name for name in UNKNOWN if name in line]
    assert len(named) == 8, line
    assert line.endswith("and 1 more")  # .metadata is hidden


def test_a_file_of_a_known_name_that_is_too_large_is_left_out_and_never_read(tmp_path, pool):
    with (pool / "model-0" / "vocab.txt").open("wb") as file:
        file.truncate(MAX_SIDE_FILE_BYTES + 1)
    heard = average(pool, tmp_path / "out")
    assert not (tmp_path / "out" / "vocab.txt").exists()
    assert "model-0: left out of the soup: vocab.txt (100.00 MB, over the limit of 100.00 MB)" in heard


def test_the_files_are_copied_and_digested_in_a_stream(tmp_path, pool, monkeypatch):
    put(pool / "model-0", "tokenizer.model", "t" * 3_000_000)
    before = side_digest(Checkpoint(pool / "model-0"))
    read = Path.read_bytes

    def small_only(path):
        assert path.stat().st_size < 1_000_000, path
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", small_only)
    average(pool, tmp_path / "out")
    assert (tmp_path / "out" / "tokenizer.model").stat().st_size == 3_000_000
    assert side_digest(Checkpoint(pool / "model-0")) == before


# --- only regular files, only of the checkpoint's own -----------------------------------------------------------------


def replace_by(kind, path):
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to({"device": "/dev/zero", "link to the folder": ".", "link to nothing": "nowhere"}[kind])


KINDS = ["pipe", "folder", "device", "link to the folder", "link to nothing"]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", KINDS)
def test_in_place_of_a_side_file_it_is_left_out_and_named(tmp_path, pool, kind):
    for ingredient in pool.iterdir():
        for name in ("vocab.txt", "LICENSE"):
            replace_by(kind, ingredient / name)
    heard = average(pool, tmp_path / "out")
    assert not {"vocab.txt", "LICENSE"} & {path.name for path in (tmp_path / "out").iterdir()}
    (line,) = [text for text in heard if "left out" in text]
    assert "vocab.txt" in line
    assert "LICENSE" in line


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("names", [["config.json", INDEX, SHARD], [SHARD]], ids=["all", "shard"])
def test_in_place_of_config_index_or_shard_it_is_one_error(tmp_path, kind, names):
    path = tiny_checkpoint(tmp_path / "a", shards=2)
    for name in names:
        assert (path / name).exists(), name
        replace_by(kind, path / name)
    with pytest.raises(CheckpointError) as error:
        Checkpoint(path)
    assert all(name in str(error.value) for name in names)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["pipe", "device", "link to nothing"])
def test_a_pool_in_which_one_has_no_regular_weights_is_refused_and_not_made_smaller(tmp_path, pool, kind):
    for name in ("model.safetensors", "config.json"):
        replace_by(kind, pool / "model-1" / name)
    with pytest.raises(CheckpointError, match="model-1: expected regular files"):
        average(pool, tmp_path / "out")


def test_links_out_of_the_checkpoint_are_named_and_left_out_and_those_within_are_followed(tmp_path, pool):
    put(tmp_path, "secret/passwd.py", "root")
    lead = pool / "model-0"
    (lead / "notes.py").symlink_to(tmp_path / "secret" / "passwd.py")
    (lead / "code").symlink_to(tmp_path / "secret")
    put(lead, "src/model.py", "ours")
    (lead / "model.py").symlink_to("src/model.py")
    heard = average(pool, tmp_path / "out")
    assert "model-0: left out of the soup: code, notes.py (a link out of the checkpoint)" in heard
    assert (tmp_path / "out" / "model.py").read_text() == "ours"
    assert not (tmp_path / "out" / "notes.py").exists()
    assert not (tmp_path / "out" / "code").exists()


def test_a_hub_cache_is_followed_into_its_own_blobs_and_no_others(tmp_path):
    snapshot = tmp_path / "models--org--name" / "snapshots" / "abc"
    tiny_checkpoint(snapshot)
    blobs, others = tmp_path / "models--org--name" / "blobs", tmp_path / "models--org--other" / "blobs"
    for folder, name in ((blobs, "f00"), (others, "ba5")):
        put(folder, name)
    (snapshot / "vocab.json").symlink_to("../../blobs/f00")
    (snapshot / "code").mkdir()
    (snapshot / "code" / "model.py").symlink_to("../../../blobs/f00")
    (snapshot / "merges.txt").symlink_to(others / "ba5")
    files = Checkpoint(snapshot).side_files
    assert {"vocab.json", "code/model.py"} <= set(files.carried)
    assert files.surprising == ("merges.txt (a link out of the checkpoint)",)


def test_a_candidate_is_loaded_from_just_the_files_that_it_ships_with(tmp_path, pool):
    def template(pool, name):
        checkpoint = pool[name].checkpoint
        digest = digest_checkpoint(checkpoint)
        recipe = Recipe.uniform([pool[name].source()]).sealed([digest.content], side_digest(checkpoint))
        folder = SoupCandidate(recipe, pool, tmp_path / "home", [digest]).template
        return folder, sorted(path.name for path in folder.iterdir())

    (pool / "model-1" / "vocab.txt").symlink_to(tmp_path / "elsewhere")
    (pool / "model-0" / "predictions.json").write_text("[]")
    with soup.Pool(pool) as opened:
        assert template(opened, "model-0")[0] == pool / "model-0"
        folder, names = template(opened, "model-1")
    assert folder != pool / "model-1"
    assert "tokenizer.json" in names
    assert "vocab.txt" not in names


# --- a soup is complete -----------------------------------------------------------------------------------------------


def strip(folder):
    for path in folder.glob("*"):
        if path.suffix != ".safetensors" and path.name not in ("config.json", INDEX):
            path.unlink()


def give_all(folder, mark):
    for name in ("tokenizer.json", "preprocessor_config.json", "chat_template.jinja"):
        put(folder, name, json.dumps({"of": mark}))


def test_tokenizer_processor_and_template_come_from_the_lead_else_the_base_else_an_ingredient(tmp_path, pool):
    base = tiny_checkpoint(tmp_path / "base")
    for folder in (base, *pool.iterdir()):
        strip(folder)
    give_all(pool / "model-1", "model-1")
    heard = average(pool, tmp_path / "first")
    for kind in ("tokenizer", "processor", "chat template"):
        assert f"model-0: has no {kind}: the soup takes model-1's" in heard
    assert (tmp_path / "first" / "tokenizer.json").read_text() == '{"of": "model-1"}'
    assert (tmp_path / "first" / "chat_template.jinja").exists()
    again = soup.merge(tmp_path / "first" / "recipe.yaml", tmp_path / "again")
    assert again.digest == soup.Recipe.read(tmp_path / "first" / "recipe.yaml").digest
    heard = average(pool, tmp_path / "based", base=base)
    assert "base: has no tokenizer: the soup takes model-1's" in heard
    assert (tmp_path / "based" / "preprocessor_config.json").exists()


def test_a_kind_of_files_is_never_mixed_from_two(tmp_path, pool):
    for folder in pool.iterdir():
        strip(folder)
    put(pool / "model-0", "tokenizer.model")
    put(pool / "model-1", "tokenizer.model")
    put(pool / "model-1", "added_tokens.json", "{}")
    average(pool, tmp_path / "out")
    assert not (tmp_path / "out" / "added_tokens.json").exists()


@pytest.mark.parametrize("part", ["tokenizer", "processor"])
def test_a_template_in_the_config_of_tokenizer_or_processor_is_a_template(tmp_path, pool, part):
    put(pool / "model-0", f"{part}_config.json", '{"chat_template": "hello"}')
    put(pool / "model-1", "chat_template.jinja", "other")
    average(pool, tmp_path / "out")
    assert not (tmp_path / "out" / "chat_template.jinja").exists()


def test_a_soup_without_any_tokenizer_is_told(tmp_path, pool):
    for folder in pool.iterdir():
        strip(folder)
    (line,) = [text for text in average(pool, tmp_path / "out") if "no tokenizer" in text]
    assert "the soup has none" in line


AUTO_MAP = {"AutoModel": "modeling_chat.Chat", "AutoConfig": "there/repository--configuration_chat.Config"}


def give_code(folder, mark="x = 1"):
    put(folder, "modeling_chat.py", mark)
    put(folder, "helpers/pixels.py", mark)


def test_code_that_the_lead_s_config_names_and_lacks_is_an_ingredient_s_with_what_it_imports(tmp_path):
    pool = tiny_pool(tmp_path / "ckpts", 3, config={"auto_map": AUTO_MAP})
    give_code(pool / "model-1")
    give_code(pool / "model-2", "x = 2")
    assert "model-0: has no code for auto_map: the soup takes model-1's" in average(pool, tmp_path / "out")
    code = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.py")}
    assert code == {"modeling_chat.py", "helpers/pixels.py"}
    assert (tmp_path / "out/modeling_chat.py").read_text() == "x = 1"
    again = soup.merge(tmp_path / "out/recipe.yaml", tmp_path / "again")
    assert again.digest == soup.Recipe.read(tmp_path / "out/recipe.yaml").digest


def test_the_lead_s_own_code_stays_where_it_lacks_another_module(tmp_path):
    auto_map = {**AUTO_MAP, "AutoConfig": "configuration_chat.Config"}
    pool = tiny_pool(tmp_path / "ckpts", 2, config={"auto_map": auto_map})
    give_code(pool / "model-0", "edited = 1")
    give_code(pool / "model-1")
    put(pool / "model-1", "configuration_chat.py", "x = 1")
    average(pool, tmp_path / "out")
    assert (tmp_path / "out/modeling_chat.py").read_text() == "edited = 1"
    assert (tmp_path / "out/configuration_chat.py").read_text() == "x = 1"


def test_code_of_a_tokenizer_that_is_lent_comes_beside_the_lead_s_own(tmp_path):
    pool = tiny_pool(tmp_path / "ckpts", 2, config={"auto_map": AUTO_MAP})
    strip(pool / "model-0")
    give_code(pool / "model-0", "mine = 1")
    put(pool / "model-1", "tokenizer_config.json", json.dumps({"auto_map": {"AutoTokenizer": ["words.Slow", None]}}))
    put(pool / "model-1", "words.py")
    assert not [text for text in average(pool, tmp_path / "out") if "nor in an ingredient" in text]
    assert (tmp_path / "out/words.py").exists()
    assert (tmp_path / "out/modeling_chat.py").read_text() == "mine = 1"


def test_code_of_a_tokenizer_that_is_lent_comes_with_it(tmp_path, pool):
    strip(pool / "model-0")
    auto_map = {"AutoTokenizer": ["tokenization_chat.Slow", None]}
    put(pool / "model-1", "tokenizer_config.json", json.dumps({"auto_map": auto_map}))
    put(pool / "model-1", "tokenization_chat.py")
    average(pool, tmp_path / "out")
    assert (tmp_path / "out/tokenization_chat.py").exists()


def test_code_that_no_config_names_stays_where_it_is(tmp_path, pool):
    give_code(pool / "model-1")
    average(pool, tmp_path / "out")
    assert not (tmp_path / "out/modeling_chat.py").exists()


def test_code_that_is_named_and_nowhere_is_told(tmp_path):
    pool = tiny_pool(tmp_path / "ckpts", 2, config={"auto_map": AUTO_MAP})
    (line,) = [text for text in average(pool, tmp_path / "out") if "auto_map" in text]
    assert "model-0: auto_map names modeling_chat.py, not here nor in an ingredient: the soup loads only" in line
    give_code(pool / "model-0")
    assert not any("auto_map" in text for text in average(pool, tmp_path / "other"))


@pytest.mark.parametrize(("owner", "count"), [("model-0", 0), ("model-1", 1)])
def test_code_that_is_named_and_nowhere_is_told_of_the_tokenizer_that_soups_take(tmp_path, owner, count):
    pool = tiny_pool(tmp_path / "ckpts", 2)
    put(pool / owner, "tokenizer_config.json", json.dumps({"auto_map": {"AutoTokenizer": ["words.Slow", None]}}))
    remarks = average(pool, tmp_path / "out", merge=MergeOptions(tokenizer="model-1"))
    assert sum("auto_map names words.py" in text for text in remarks) == count


def other_tokenizer(pool, name):
    path = pool / name / "tokenizer.json"
    document = json.loads(path.read_text())
    document["model"]["vocab"]["extra"] = 14
    path.write_text(json.dumps(document))
    put(pool / name, "chat_template.jinja", f"template of {name}")


def added_at(number):
    return json.dumps({"added_tokens_decoder": {number: {"content": "<image>"}}})


@pytest.mark.parametrize(
    ("name", "contents", "difference"),
    [
        ("sentencepiece.bpe.model", ("a", "b"), "sentencepiece.bpe.model differs"),
        ("qwen.tiktoken", ("YQ== 0", "YQ== 1"), "qwen.tiktoken differs"),
        ("tekken.json", ('{"vocab": [1]}', '{"vocab": [2]}'), "tekken.json differs"),
        (
            "tokenizer_config.json",
            (added_at("14"), added_at("15")),
            "tokenizer_config.json: 1 added tokens entries differ ('<image>': 14 and 15)",
        ),
    ],
)
def test_any_file_that_numbers_tokens_makes_another_tokenizer(tmp_path, pool, name, contents, difference):
    for folder, content in zip(sorted(pool.iterdir()), contents, strict=False):
        strip(folder)
        put(folder, name, content)
    (problem,) = check(pool).problems
    assert problem.kind == "tokenizer"
    assert difference in problem.text


def test_added_tokens_in_another_order_are_the_same_tokenizer(tmp_path, pool):
    entries = [("14", {"content": "<image>"}), ("15", {"content": "<box>", "special": True})]
    for folder, listed in zip(sorted(pool.iterdir()), (entries, entries[::-1]), strict=False):
        strip(folder)
        put(folder, "tokenizer_config.json", json.dumps({"added_tokens_decoder": dict(listed)}))
    assert check(pool).ok


@pytest.fixture
def two_tokenizers(tmp_path, pool):
    other_tokenizer(pool, "model-1")
    put(pool / "model-0", "chat_template.jinja", "template of model-0")
    put(pool / "model-0", "vocab.txt", "of model-0")
    put(pool / "model-0", "preprocessor_config.json", "{}")
    return pool


def test_where_tokenizers_differ_one_is_chosen_and_a_soup_has_it_whole_with_its_template(tmp_path, two_tokenizers):
    (problem,) = check(two_tokenizers).problems
    assert problem.kind == "tokenizer"
    assert "`tokenizer` says whose" in problem.cure
    with pytest.raises(PoolError, match="the tokenizer is not model-0's"):
        soup.cook("average", two_tokenizers, out=tmp_path / "out")
    chosen = MergeOptions(tokenizer="model-1")
    assert check(two_tokenizers, merge=chosen).ok
    made = soup.cook("average", two_tokenizers, out=tmp_path / "out", merge=chosen)
    assert "a soup takes tokenizer and chat template of model-1, whatever the others have" in made.warnings
    for name in ("tokenizer.json", "chat_template.jinja"):
        assert (tmp_path / "out" / name).read_bytes() == (two_tokenizers / "model-1" / name).read_bytes()
    assert not (tmp_path / "out" / "vocab.txt").exists(), "no file of the other tokenizer stays"
    assert (tmp_path / "out" / "preprocessor_config.json").exists()
    assert made.recipe.tokenizer.name == "model-1"
    again = soup.merge(tmp_path / "out" / "recipe.yaml", tmp_path / "again")
    assert again.digest == made.recipe.digest
    assert {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()
    }


@pytest.mark.parametrize(
    ("owner", "template", "is_kept"),
    [
        ("model-0", "mine", True),
        ("model-0", "template of model-1", False),
        ("model-0", None, False),
        ("base", "a", True),
    ],
)
def test_a_template_in_the_lead_s_processor_that_would_win_over_the_chosen_tokenizer_s_is_refused(
    tmp_path, two_tokenizers, owner, template, is_kept
):
    """transformers' processors look into their own config first."""
    base = tiny_checkpoint(tmp_path / "base") if owner == "base" else None
    folder = base or two_tokenizers / owner
    put(folder, "processor_config.json", json.dumps({"chat_template": template} if template else {}))
    problems = check(two_tokenizers, base, merge=MergeOptions(tokenizer="model-1")).problems
    assert [(problem.ingredient, problem.file, problem.against) for problem in problems] == [
        (owner, "processor_config.json", "model-1")
    ] * is_kept
    assert all(problem.cure == f"Remove that key from {folder}/processor_config.json" for problem in problems)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_search_judges_its_soups_with_the_tokenizer_that_ships(tmp_path, two_tokenizers, workers):
    judge = tmp_path / "judge.py"
    judge.write_text(
        "from pathlib import Path\n"
        "def score(checkpoint):\n"
        "    return 60 if (Path(checkpoint) / 'chat_template.jinja').read_text() == 'template of model-1' else 10\n"
    )
    config = soup.EvalConfig(f"python:{judge}:score", workers=workers)
    options = MergeOptions(tokenizer="model-1")
    made = soup.cook("greedy", two_tokenizers, out=tmp_path / "out", eval=config, merge=options)
    assert {trial.overall for trial in made.trials} == {60}


def test_a_recipe_of_one_ingredient_may_have_the_tokenizer_of_another(tmp_path, two_tokenizers):
    made = soup.cook("average", two_tokenizers, out=tmp_path / "out", merge=MergeOptions(tokenizer="model-1"))
    alone = made.recipe.model_copy(update={"ingredients": made.recipe.ingredients[:1], "side_digest": None})
    soup.merge(alone, tmp_path / "alone")
    assert (tmp_path / "alone" / "chat_template.jinja").read_text() == "template of model-1"
    assert soup.Recipe.read(tmp_path / "alone" / "recipe.yaml").tokenizer.path == str(two_tokenizers / "model-1")


def test_a_tokenizer_of_nobody_is_refused(tmp_path, two_tokenizers):
    with pytest.raises(PoolError, match=r"`tokenizer` model-9: no such ingredient\. Did you mean 'model-"):
        soup.cook("average", two_tokenizers, out=tmp_path / "out", merge=MergeOptions(tokenizer="model-9"))
    strip(two_tokenizers / "model-0")
    with pytest.raises(PoolError, match="has no tokenizer"):
        soup.cook("average", two_tokenizers, out=tmp_path / "out", merge=MergeOptions(tokenizer="model-0"))


KEYS = dict.fromkeys("abcdef", 1)


@pytest.mark.parametrize(
    ("name", "first", "other", "lines"),
    [
        ("generation_config.json", '{"top_k": 1}', '{ "top_k":1 }', []),
        ("generation_config.json", '{"top_k": 1}', '{"top_k": 1, "transformers_version": "5"}', []),
        ("generation_config.json", '{"top_k": 1, "b": 1}', '{"top_k": 2, "a": 1}', ["differs in a, b, top_k"]),
        ("generation_config.json", "{}", json.dumps(KEYS), ["differs in a, b, c, d, e"]),
        ("generation_config.json", "{}", "[]", ["differs"]),
        ("generation_config.json", "{", "{}", ["differs"]),
        ("chat_template.jinja", "a", "b", ["differs"]),
        ("chat_template.jinja", None, "b", ["is only in model-1"]),
        ("chat_template.jinja", "a", None, ["is only in model-0"]),
        ("config.json", '{"a": 1}', '{"a": 2}', []),
        ("config.json", "{}", None, ["is only in model-0"]),
        ("config.json", None, "{}", ["is only in model-1"]),
        ("notes.out", "a", "b", []),
    ],
)
def test_carried_files_differ_where_they_say_something_else(pool, name, first, other, lines):
    folders = [pool / "model-0", pool / "model-1"]
    for folder, text in zip(folders, (first, other), strict=True):
        (folder / name).unlink(missing_ok=True)
        if text is not None:
            put(folder, name, text)
    with Checkpoint(folders[0]) as left, Checkpoint(folders[1]) as right:
        assert side_differences(left, right) == [f"{name} {line}" for line in lines]
        assert side_differences(left, left) == []


def words(vocab=None, added=(), merges=None, **others):
    tokens = [{"content": text, "id": number} for text, number in added]
    return json.dumps({"model": {"vocab": vocab or {"a": 0}, "merges": merges}, "added_tokens": tokens, **others})


@pytest.mark.parametrize(
    ("name", "first", "other", "lines"),
    [
        ("tokenizer.json", words(), words(padding={"length": 9}), []),
        ("tokenizer.json", words({"a": 0, "b": 1}), words([["a", -1.5], ["b", -2]]), []),
        ("tokenizer.json", words({"a": 0}), words({"a": 1}), ["tokenizer.json: 1 vocab entries differ ('a': 0 and 1)"]),
        (
            "tokenizer.json",
            words(),
            words(added=[(text, 5) for text in "wxyz"]),
            ["tokenizer.json: 4 added tokens entries differ ('w': None and 5, 'x': None and 5, 'y': None and 5, ...)"],
        ),
        ("tokenizer.json", words(merges=["a b"]), words(merges=[["a", "b"]]), []),
        ("tokenizer.json", words(merges=[]), words(), []),
        ("tokenizer.json", words(merges=["a b"]), words(merges=["b a"]), ["tokenizer.json: merges differ"]),
        ("tokenizer.json", "[]", "[1]", ["tokenizer.json: merges differ"]),
        ("tokenizer.json", "[]", "[]", []),
        ("vocab.txt", "a\nb", "a\r\nb\r\n", []),
        ("vocab.txt", "a\nb", "b\na", ["vocab.txt differs"]),
        ("vocab.json", '{"a": 0}', '{ "a": 0 }', []),
        ("vocab.json", '{"a": 0}', '{"a": 1}', ["vocab.json differs"]),
        ("spiece.model", "a b", "a  b", ["spiece.model differs"]),
        ("spiece.model", "a", None, []),
    ],
)
def test_tokenizers_differ_where_a_token_has_another_number(pool, name, first, other, lines):
    folders = [pool / "model-0", pool / "model-1"]
    for folder, text in zip(folders, (first, other), strict=True):
        if text is not None:
            put(folder, name, text)
    with Checkpoint(folders[0]) as left, Checkpoint(folders[1]) as right:
        assert tokenizer_differences(left, right) == lines
        assert len(tokenizer_differences(right, left)) == len(lines)


def test_a_tokenizer_json_that_one_tokenizer_lacks_is_a_difference_and_no_tokenizer_at_all_is_none(pool):
    (pool / "model-1/tokenizer.json").unlink()
    for name, lines in (("tokenizer.model", 1), (None, 0)):
        strip(pool / "model-1")
        if name:
            put(pool / "model-1", name)
        with Checkpoint(pool / "model-0") as left, Checkpoint(pool / "model-1") as right:
            only = [f"tokenizer.json is only in {left.path}"] * lines
            assert (tokenizer_differences(left, right), tokenizer_differences(right, left)) == (only, only)
            assert tokenizer_differences(right, Checkpoint(right.path)) == []


@pytest.mark.parametrize(
    ("config", "written"),
    [
        ({"a": 1}, None),
        ({"dtype": "bfloat16", "text_config": {"torch_dtype": "torch.bfloat16"}}, None),
        ({"dtype": "float32", "text_config": {}}, {"dtype": "bfloat16", "text_config": {}}),
        ({"text_config": {"torch_dtype": "float32"}, "b": {}}, {"text_config": {"torch_dtype": "bfloat16"}, "b": {}}),
        ({"dtype": {"text": "float32"}}, None),
        ({"quantization_config": {"bits": 4}}, {}),
        ({"llm": {"quantization_config": {"bits": 4}, "a": "θ"}}, {"llm": {"a": "θ"}}),
        ([], None),
    ],
)
def test_a_config_says_the_dtype_that_is_written_and_no_quantisation_or_keeps_its_bytes(pool, config, written):
    data = json.dumps(config).encode()
    with Checkpoint(pool / "model-0") as checkpoint:
        changed = config_for(data, [*checkpoint.tensors.values()])
    assert {spec.dtype.name for spec in checkpoint.tensors.values()} == {"bfloat16"}
    if written is None:
        assert changed == data
    else:
        assert changed == (json.dumps(written, indent=2, ensure_ascii=False) + "\n").encode()
