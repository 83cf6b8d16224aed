"""What is published of a soup whose run asked questions."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from soup.errors import CheckpointError, OutputError
from soup.merging.model_card import model_card
from soup.report.page.document import run_document
from soup.report.publication import Publication
from tests.helpers.simulated_runs import SimulatedRun


@pytest.fixture
def simulated(tmp_path):
    return SimulatedRun(tmp_path / "run")


@pytest.fixture
def recipe(simulated):
    return simulated.search().recipe


@pytest.fixture
def out(tmp_path, recipe):
    folder = tmp_path / "out"
    folder.mkdir()
    metadata = {"format": "pt", "soup_recipe": recipe.digest}
    save_file({"a": np.zeros(3, np.float32)}, folder / "model.safetensors", metadata)
    (folder / "config.json").write_text('{"model_type": "toy"}')
    (folder / "recipe.yaml").write_text(recipe.text(folder))
    (folder / "README.md").write_text(model_card(recipe, None, {}))
    return folder


def texts(publication):
    return {name: data.decode() for name, data in publication.files.items() if isinstance(data, bytes)}


def test_the_report_goes_without_questions_images_and_answers(simulated, out):
    publication = Publication.of(out, "team/soup", simulated.folder)
    assert len(run_document(simulated.folder)["questions"]) > 3
    report = json.loads(texts(publication)["report.json"])
    assert report["questions"] == []
    assert report["headline"]["rows"]
    assert report["title"] == "team/soup"
    assert not [name for name, text in texts(publication).items() if "What is" in text or "base64" in text]
    assert "report.html" in publication.card


def test_no_folder_of_an_ingredient_goes_along(simulated, out):
    assert not [
        name for name, text in texts(Publication.of(out, "team/soup", simulated.folder)).items() if "Jane" in text
    ]


def test_a_folder_that_all_machines_have_is_no_private_one(out, monkeypatch):
    (out / "modeling_toy.py").write_text("CACHE = '/tmp/toy'\n")
    monkeypatch.chdir("/tmp")
    assert "modeling_toy.py" in Publication.of(out, "team/soup", with_report=False).files
    monkeypatch.setenv("HOME", "/tmp")
    with pytest.raises(OutputError, match=r"modeling_toy\.py, line 1"):
        Publication.of(out, "team/soup", with_report=False)


def test_a_run_that_came_to_another_soup_is_refused_where_it_was_named(simulated, out, tmp_path):
    other = SimulatedRun(tmp_path / "other", seed=5, ingredients=3)
    other.search()
    with pytest.raises(OutputError, match="no search of this run came to this soup"):
        Publication.of(out, "team/soup", other.folder)
    publication = Publication.of(out, "team/soup")
    assert "report.html" not in publication.files
    assert any(remark.startswith("no report: ") for remark in publication.remarks)


def test_a_card_that_was_edited_is_what_goes(simulated, out):
    card = (out / "README.md").read_text()
    (out / "README.md").write_text(card.replace("tags:", "license: mit\nmine: [1, 2]\ntags:") + "\nBy us.\n")
    publication = Publication.of(out, "team/soup", with_report=False)
    assert publication.card == (out / "README.md").read_text()
    assert not any("license" in remark for remark in publication.remarks)


@pytest.mark.parametrize(
    "text", ["# No metadata\n", "---\n- a list\n---\n# A\n", "---\nlicense: mit\n", "---\na: [\n---\n"]
)
def test_a_card_without_metadata_is_refused(out, text):
    (out / "README.md").write_text(text)
    with pytest.raises(OutputError, match=r"README\.md"):
        Publication.of(out, "team/soup", with_report=False)


def test_a_card_that_is_gone_is_written_again(out):
    (out / "README.md").unlink()
    assert "# A model soup" in Publication.of(out, "team/soup", with_report=False).card


def test_weights_that_the_recipe_did_not_make_are_refused(out):
    save_file({"a": np.zeros(3, np.float32)}, out / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"were not made by its recipe\.yaml"):
        Publication.of(out, "team/soup", with_report=False)
