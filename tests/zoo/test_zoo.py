"""Every image-text-to-text class that transformers can make: soup merges it, transformers loads the soup.

Run by `make zoo`, which writes what it saw to docs/zoo.md; see conftest.py.
"""

from __future__ import annotations

import logging
import os

import pytest
import torch
import yaml
from transformers import AutoModelForImageTextToText

import soup
from evaluators.answering.hot_swap import HotSwap
from soup.checkpoints.reader import Checkpoint
from soup.evaluation.settings import EvalSettings
from soup.testing import tiny_candidate
from tests.helpers.forward_pass import ForwardError, run_once
from tests.helpers.merge_oracle import assert_mean, mean, mean_of, read_back, recipe_of, rounded, same_bits, ulps
from tests.helpers.mergekit import running
from tests.helpers.tiny_architectures import CLASSES, fine_tunes, tiny_model, working_config, write_pool_of

pytestmark = [
    pytest.mark.zoo,
    pytest.mark.filterwarnings("ignore"),  # of transformers' own classes
    pytest.mark.usefixtures("one_thread"),
]

LAYOUTS = {"one file": (1, 1, 1), "shards": (3, 6, 1)}
MERGEKIT = os.environ.get("ZOO_MERGEKIT")
ENGINE = """
from transformers import AutoModelForImageTextToText


class Engine:
    def __init__(self, directory):
        self.module = AutoModelForImageTextToText.from_pretrained(directory, dtype="auto")

    def answer(self, prompts): ...
"""


@pytest.fixture(scope="module", params=CLASSES)
def models(request):
    try:
        working_config(request.param)
    except Exception as cause:
        pytest.skip(f"unmade: {type(cause).__name__}: {str(cause).strip()[:300]}")
    return list(fine_tunes(request.param))


@pytest.fixture(scope="module", params=LAYOUTS)
def pool(request, models, tmp_path_factory):
    folder = write_pool_of(models, tmp_path_factory.mktemp("pool"), LAYOUTS[request.param])
    with Checkpoint(folder / "model-1") as checkpoint:
        assert (len(checkpoint.shards) > 1) == (request.param == "shards")
    return folder


@pytest.fixture(scope="module")
def out(pool, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "soup"
    soup.merge(recipe_of(pool), out)
    return out


@pytest.fixture
def reloadable(pool):
    """The pool, where transformers loads its checkpoints: what it does not load of its own files is no soup's fault."""
    _, loading_info = load_told(pool / "model-0")
    if any(loading_info.values()):
        differences = "; ".join(
            f"{len(names)} {kind.replace('_', ' ')}" for kind, names in loading_info.items() if names
        )
        pytest.skip(f"transformers does not load its own checkpoint: {differences}")
    return pool


def load(directory):
    return AutoModelForImageTextToText.from_pretrained(directory, dtype="auto")


def load_told(directory):
    return AutoModelForImageTextToText.from_pretrained(directory, dtype="auto", output_loading_info=True)


def test_no_tensor_is_lost_and_each_is_the_mean_in_float64(models, pool, out, record_property):
    result, inputs = read_back(out), [read_back(path) for path in sorted(pool.iterdir())]
    record_property("tensors", len(result))
    assert result.keys() == inputs[0].keys()
    floating = [name for name, values in result.items() if values.is_floating_point()]
    assert {result[name].dtype for name in floating} == {torch.bfloat16}
    assert_mean(result, inputs, floating)
    assert all(torch.equal(result[name], inputs[0][name]) for name in result.keys() - {*floating})


def test_transformers_reloads_it_as_the_mean_of_its_models(models, reloadable, out):
    model, loading_info = load_told(out)
    assert not any(loading_info.values()), loading_info
    assert type(model) is type(models[0])
    sources = [load(path).state_dict() for path in sorted(reloadable.iterdir())]
    state = model.state_dict()
    assert state.keys() == sources[0].keys()
    floating = [name for name, values in state.items() if values.is_floating_point()]
    # Some classes keep a few tensors in float32: there, too, stands what the file holds.
    stored = {name: state[name].to(torch.bfloat16) for name in floating}
    assert all(torch.equal(stored[name].to(state[name].dtype), state[name]) for name in floating)
    assert_mean(stored, sources, floating)
    assert all(torch.equal(state[name], sources[0][name]) for name in state.keys() - {*floating})


def test_the_reloaded_soup_runs(request, reloadable, out, record_property):
    try:
        run_once(tiny_model(request.node.callspec.params["models"]))
    except ForwardError as cause:
        pytest.skip(f"no input was taken: {cause}")
    names = run_once(load(out).float())
    assert {"input_ids", "decoder_input_ids"} & {*names}, "its logits are finite for text of some kind"
    record_property("detail", ", ".join(name for name in names if name != "attention_mask"))


def test_hot_swap_holds_the_written_soup_or_falls_back_with_nothing_touched(
    reloadable, out, tmp_path, caplog, record_property
):
    (tmp_path / "engine.py").write_text(ENGINE)
    swap = HotSwap(EvalSettings(model=f"{tmp_path / 'engine.py'}:Engine"))
    with tiny_candidate(reloadable / "model-1", tmp_path / "first") as candidate:
        module = swap.model_for(candidate).module
    before = {name: values.clone() for name, values in module.state_dict().items()}
    with caplog.at_level(logging.WARNING), mean_of(reloadable, tmp_path / "home") as candidate:
        swapped = swap.model_for(candidate).module
    written = load(out).state_dict()
    held = swapped.state_dict()
    assert held.keys() == written.keys()
    assert all(same_bits(values, written[name]) for name, values in held.items())
    if swapped is module:
        record_property("detail", "streamed")
        return
    assert all(same_bits(values, before[name]) for name, values in module.state_dict().items())
    reason = caplog.records[-1].getMessage().partition("can't be streamed into the model. ")[2]
    assert reason
    record_property("detail", "from disk: " + reason.splitlines()[min(1, reason.count("\n"))])


@pytest.fixture(scope="module")
def mergekit():
    with running(MERGEKIT) as merge:
        yield merge


@pytest.mark.skipif(not MERGEKIT, reason="not run")
def test_mergekit(request, reloadable, tmp_path, record_property):
    """What mergekit makes of the same input is told, whatever it is."""
    if request.node.callspec.params["pool"] != "one file":
        pytest.skip("not run")
    merge = request.getfixturevalue("mergekit")
    paths = sorted(reloadable.iterdir())
    recipe = {"merge_method": "linear", "dtype": "float32", "out_dtype": "bfloat16", "parameters": {"weight": 1.0}}
    (tmp_path / "merge.yaml").write_text(yaml.safe_dump({**recipe, "models": [{"model": str(path)} for path in paths]}))
    error = merge("--no-copy-tokenizer", "--quiet", tmp_path / "merge.yaml", tmp_path / "out")
    outcome = error.replace(f"{reloadable}/", "") or compared(tmp_path / "out", paths)
    assert outcome, "a cell of the table is never empty"
    record_property("detail", outcome)


def compared(directory, ingredients):
    """How a checkpoint differs from the float64 mean of the ingredients, all of them loaded by transformers."""
    try:
        model, loading_info = load_told(directory)
    except Exception as cause:
        return f"transformers does not load it: {type(cause).__name__}: {cause}"
    sources = [load(path).state_dict() for path in ingredients]
    lost = {str(key) for kind in ("missing_keys", "mismatched_keys") for key in loading_info[kind]}
    furthest = max(
        ulps(values.to(torch.bfloat16), rounded(mean([source[name] for source in sources]), torch.bfloat16)).max()
        for name, values in model.state_dict().items()
        if values.is_floating_point() and not any(name in key for key in lost)
    )
    wrong = [f"{len(keys)} {kind.replace('_', ' ')}" for kind, keys in loading_info.items() if keys]
    return ", ".join([*wrong, f"off by {furthest} ulp at most"])
