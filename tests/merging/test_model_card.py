from __future__ import annotations

import pytest
import yaml
from huggingface_hub import ModelCardData

from soup.checkpoints.card import CardFacts, Licence, read_card
from soup.merging.model_card import model_card
from soup.merging.recipe import Recipe

HOSTILE = "a\x1b[31m\n\n# Mine | ![x](http:x.png) <script> `code` \u202e"
APACHE, RESEARCH = Licence("apache-2.0"), Licence("other", "tongyi-qianwen", "LICENSE")


def recipe(*paths, **fields):
    parts = [{"name": f"i{n}", "path": path, "digest": f"xxh3:{n}"} for n, path in enumerate(paths, start=1)]
    return Recipe(**{"ingredients": parts, "side_digest": "sha256:1"} | fields)


def front(text):
    return yaml.safe_load(text.split("---\n")[1])


def card(name, **fields):
    parts = [{"name": name, "path": "/a", "digest": "xxh3:1"}, {"name": "b", "path": "/b", "digest": "xxh3:2"}]
    return model_card(recipe(ingredients=parts, **fields), {name: {"all": 61.8}}, {"model_type": name})


def test_a_hostile_name_stays_in_its_cell():
    text = card(HOSTILE, strategy=HOSTILE, objective={"weights": {HOSTILE: 2.0}})
    body = text.partition("\n---\n")[2]
    assert not [character for character in text if character in "\x1b\u202e"]
    cell = r"a\\u001b\[31m\\n\\n# Mine \| !\[x\](http:x.png) \<script> \`code\` \\u202e"
    assert f"\n| {cell} | 1 | not published | `xxh3:1` |\n" in body
    assert f"\n| {cell} | 61.80 |\n" in body
    assert f"Objective: {cell} weighs 2." in body
    heads = [line for line in body.splitlines() if line.startswith("#")]
    assert heads == ["# A model soup", "## Scores", "## Making it again"]


def test_an_ordinary_name_stands_as_it_is():
    assert "\n| my_model-1.5@v2 | 1 | not published | `xxh3:1` |\n" in card("my_model-1.5@v2")


def test_models_from_the_hub_are_its_base_models_and_linked_by_commit():
    commit = "0123456789" * 4
    text = model_card(recipe(f"team/a@{commit}", "team/b@v1:lora"), None, {})
    assert front(text)["base_model"] == ["team/a", "team/b"]
    assert front(text)["base_model_relation"] == "merge"
    assert f"| i1 | 1 | [team/a](https://huggingface.co/team/a/tree/{commit}) | `xxh3:1` |" in text
    assert "| [team/b](https://huggingface.co/team/b/tree/v1/lora) |" in text
    assert "beside the recipe" not in text


def test_a_model_of_this_machine_counts_by_what_its_card_was_made_from():
    cards = {"i1": CardFacts(base_models=("Qwen/Qwen2-VL-2B", "/home/me/base"))}
    assert front(model_card(recipe("/home/me/a"), None, {}, cards=cards))["base_model"] == ["Qwen/Qwen2-VL-2B"]
    assert "base_model" not in front(model_card(recipe("/home/me/a"), None, {}))


def test_an_adapter_names_the_model_that_it_is_put_on():
    base = {"name": "base", "path": "team/base@v1"}
    shown = front(model_card(recipe("team/a", "/b", base=base), None, {}, adapter_error=0.0))
    assert (shown["library_name"], shown["base_model"]) == ("peft", ["team/base"])
    assert shown["base_model_relation"] == "adapter"


@pytest.mark.parametrize(
    ("licences", "expected", "sentence"),
    [
        ([APACHE, APACHE], {"license": "apache-2.0"}, "apache-2.0, as i1, i2 say."),
        ([APACHE, None], {"license": "apache-2.0"}, "apache-2.0, as i1 says. i2: no word of a licence."),
        ([None, None], {}, None),
        ([APACHE, RESEARCH], {}, "name different licences, and all of them have to be heeded: apache-2.0: i1; "
         "tongyi-qianwen: i2."),
        ([RESEARCH, RESEARCH],
         {"license": "other", "license_name": "tongyi-qianwen", "license_link": "LICENSE"},
         "tongyi-qianwen, as i1, i2 say."),
    ],
)  # fmt: skip
def test_the_licence_is_the_pool_s_and_a_conflict_is_told(licences, expected, sentence):
    cards = {f"i{n}": CardFacts(licence=licence) for n, licence in enumerate(licences, start=1)}
    text = model_card(recipe("/a", "/b"), None, {}, cards=cards)
    assert {key: value for key, value in front(text).items() if key.startswith("license")} == expected
    assert sentence in text if sentence else "## Licence" not in text


def test_languages_are_those_of_all_and_tags_tell_what_it_is():
    cards = {"i1": CardFacts(languages=("en", "zh")), "i2": CardFacts(languages=("en", "de"))}
    shown = front(model_card(recipe("/a", "/b"), None, {"model_type": "qwen2_vl", "vision_config": {}}, cards=cards))
    assert shown["language"] == ["en", "zh", "de"]
    assert shown["tags"] == ["merge", "model-soup", "qwen2_vl"]
    assert shown["pipeline_tag"] == "image-text-to-text"


@pytest.mark.parametrize(
    ("config", "tags", "expected"),
    [
        ({"image_token_id": 3}, (), "image-text-to-text"),
        ({"architectures": ["LlamaForCausalLM"]}, (), "text-generation"),
        ({"vision_config": {}}, ("visual-question-answering",), "visual-question-answering"),
        ({"vision_config": {}}, ("a", "b"), "image-text-to-text"),
        ({}, (), None),
    ],
)
def test_the_pipeline_tag_is_the_ingredients_or_follows_from_the_config(config, tags, expected):
    cards = {f"i{n}": CardFacts(pipeline_tag=tag) for n, tag in enumerate(tags)}
    assert front(model_card(recipe("/a"), None, config, cards=cards)).get("pipeline_tag") == expected


def test_scores_that_chose_nothing_are_the_model_index_and_the_hub_s_own_client_reads_it():
    scores = {
        "mmbench": {"selection": 71.0, "report": 70.126},
        "python:/home/me/judge.py:score (a note)": {"selection": 1.0, "report": 2.0},
        "overall": {"selection": 36.0, "report": 36.06},
    }
    data = ModelCardData(**front(model_card(recipe("/a"), scores, {}, name="my-soup")))
    assert data.model_name == "my-soup"
    rows = [(row.dataset_type, row.dataset_name, row.metric_value) for row in data.eval_results]
    assert rows == [("mmbench", "mmbench", 70.13), ("python:judge.py:score", "python:judge.py:score (a note)", 2.0)]


def test_scores_that_chose_the_soup_are_in_no_model_index():
    scores = {"mmbench": {"all": 71.0}}
    text = model_card(recipe("/a", strategy="greedy"), scores, {})
    assert "model-index" not in front(text)
    assert "These very questions chose this soup" in text
    text = model_card(recipe("/a", strategy="average"), scores, {})
    assert "No score chose this soup" in text
    assert front(text)["model-index"][0]["results"][0]["metrics"][0]["value"] == 71.0


def test_no_folder_of_this_machine_is_on_a_card():
    parts = [
        {"name": f"{user}/x y/final", "path": f"/home/{user}/x y/final", "digest": f"xxh3:{n}"}
        for n, user in enumerate(("alice", "bob"))
    ]
    base = {"name": "base", "path": "/mnt/secret project/base", "digest": "xxh3:9"}
    judged = "python:/home/alice/x y/judge.py:score"
    fields = {"strategy": "/home/alice/my.py:pick", "method": "/home/alice/my.py:Mine", "code": "sha256:2"}
    made = recipe(
        ingredients=parts, base=base, objective={"weights": {judged: 2.0}, "guards": [f"{judged}>=-1"]}, **fields
    )
    cards = {part["name"]: CardFacts(licence=licence) for part, licence in zip(parts, (APACHE, RESEARCH), strict=True)}
    text = model_card(made, {judged: {"report": 50.0}}, {}, name="out", cards=cards)
    assert not [word for word in ("alice", "bob", "home", "secret", "x y") if word in text]
    assert "| final | 1 | not published | `xxh3:0` |\n| final-2 | 1 |" in text
    assert "apache-2.0: final; tongyi-qianwen: final-2" in text
    assert "It expects `final`, `final-2`, `base` beside the recipe" in text
    assert "The method is code of its own: `my.py:Mine`, of digest `sha256:2`." in text


def test_a_card_is_read_as_it_is_written(tmp_path):
    assert read_card(tmp_path) == CardFacts()
    (tmp_path / "README.md").write_text(
        "---\r\nlicense: other\r\nlicense_name: tongyi-qianwen\r\nlicense_link: LICENSE\r\nlanguage:\r\n- no\r\n"
        "- en\r\nbase_model: a/b\r\npipeline_tag: image-text-to-text\r\n---\r\n# A\r\n---\r\nlicense: mit\r\n",
        newline="",
    )  # fmt: skip
    assert read_card(tmp_path) == CardFacts(RESEARCH, ("no", "en"), ("a/b",), "image-text-to-text")


@pytest.mark.parametrize(
    "text", ["", "# A", "---\n- a\n---\n", "---\nlicense: [\n---\n", "---\nlicense: 3\n---\n", "---\nlicense: mit\n"]
)
def test_a_card_that_says_nothing_is_passed_over(tmp_path, text):
    (tmp_path / "README.md").write_text(text)
    assert read_card(tmp_path) == CardFacts()
