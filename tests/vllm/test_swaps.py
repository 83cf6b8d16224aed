"""Candidates swapped into the real vLLM: answers and log probabilities are those of vLLM opened on the written soup."""

from __future__ import annotations

import contextlib
import logging
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from evaluators.answering.engines import vllm
from evaluators.answering.engines.transformers import TransformersModel
from evaluators.answering.engines.vllm import VLLM
from soup.checkpoints.reader import Checkpoint
from soup.errors import EvaluatorError
from soup.evaluation.settings import EvalSettings
from soup.testing import check_engine
from tests.helpers.hot_swaps import candidate_of
from tests.helpers.scripted_models import ToyCandidate
from tests.helpers.tiny_adapters import linear_factors, write_adapter
from tests.vllm.conftest import OPTIONS, TOKENS, ask, ask_fresh, differences
from tests.vllm.families import KINDS, RENAMED, TIED, rename_as_on_hub, save_served

WEIGHTS = ([1, 0, 0], [0.5, 0.5, 0], [0.2, 0, 0.8])
SAME = 1e-3
"""The largest difference of log probabilities of what is the same; 1e-4 was seen, 28 after a swap that went wrong."""


@pytest.fixture
def pool_of(tmp_path):
    def pool(kind, dtype=torch.float32, count=3, **fields):
        for seed in range(count):
            save_served(kind, tmp_path / "pool" / f"m{seed}", seed, dtype, **fields)
        return tmp_path / "pool"

    return pool


@contextlib.contextmanager
def soups(pool, home, weights=WEIGHTS, **fields):
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(candidate_of(pool, home / f"soup{index}", weights=parts, **fields))
            for index, parts in enumerate(weights)
        ]


def check_same(session, candidates, prompts, dtype, **options):
    """Swap after swap, then vLLM alone on what is written of each candidate."""
    swapped = [ask(session, candidate, prompts) for candidate in candidates]
    check_same_answers(
        swapped, ask_fresh([candidate.directory() for candidate in candidates], prompts, dtype=dtype, **options)
    )


def check_same_answers(swapped, fresh):
    outcome = [differences(*pair) for pair in zip(swapped, fresh, strict=True)]
    assert [texts for texts, _ in outcome] == [[]] * len(fresh)
    assert max(difference for _, difference in outcome) <= SAME, outcome
    assert len({str(answers) for answers in fresh}) == len(fresh)  # no two of them answer alike


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_swap_after_swap_answers_as_a_fresh_engine(kind, dtype, pool_of, prompts, open_session, tmp_path, monkeypatch):
    pool = pool_of(kind, getattr(torch, dtype))
    with Checkpoint(pool / "m0") as checkpoint:
        assert (kind in TIED) == ("lm_head.weight" not in " ".join(checkpoint.tensors))
    session = open_session()
    opened = []
    start = VLLM._start
    monkeypatch.setattr(VLLM, "_start", lambda self, log: opened.append(log) or start(self, log))
    with soups(pool, tmp_path) as candidates:
        check_same(session, candidates, prompts, dtype)
        if dtype == "float32":  # and it is the model that transformers loads
            model = TransformersModel(candidates[1].directory(), max_new_tokens=TOKENS)
            texts = [model.answer([prompt])[0] for prompt in prompts]
            assert texts == [text for text, _ in ask(session, candidates[1], prompts)]
    assert len(opened) == 1


@pytest.mark.parametrize("kind", RENAMED)
def test_the_names_that_transformers_5_saves(kind, pool_of, prompts, open_session, tmp_path, caplog):
    session = open_session()
    with soups(pool_of(kind, count=2, on_hub=False), tmp_path, ([1, 0], [0.5, 0.5])) as candidates:
        swapped = [ask(session, candidate, prompts) for candidate in candidates]
        directories = [rename_as_on_hub(candidate.directory()) for candidate in candidates]
        check_same_answers(swapped, ask_fresh(directories, prompts, dtype="float32"))
    assert caplog.text == ""  # nor was the engine opened anew for the second


def test_a_checkpoint_that_lacks_a_weight_is_refused_by_name(prompts, open_session, tmp_path):
    folder = save_served("internvl", tmp_path / "m", 0)
    tensors = load_file(folder / "model.safetensors")
    lacking = next(name for name in tensors if name.endswith("layers.1.mlp.down_proj.weight"))
    del tensors[lacking]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(EvaluatorError, match=r"lacks weights of its model:\n.*layers\.1\.mlp\.down_proj\.weight$"):
        ask(open_session(), ToyCandidate(folder, tmp_path / "home", "x"), prompts)


def test_with_tensor_parallel_workers(pool_of, prompts, open_session, tmp_path, monkeypatch):
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")  # left to itself vLLM wants a NUMA node for each worker
    pool = pool_of("internvl")
    with soups(pool, tmp_path) as candidates:
        check_same(open_session(tensor_parallel_size=2), candidates, prompts, "float32", tensor_parallel_size=2)


def test_delta_methods_go_the_same_way(pool_of, prompts, open_session, tmp_path):
    pool = pool_of("internvl")
    fields = {"method": "ties", "base": str(save_served("internvl", tmp_path / "base", 9))}
    with soups(pool, tmp_path, ([1 / 3, 1 / 3, 1 / 3], [0.2, 0.5, 0.3]), **fields) as candidates:
        check_same(open_session(), candidates, prompts, "float32")


def test_adapter_soups_go_the_same_way(prompts, open_session, tmp_path):
    base = save_served("internvl", tmp_path / "base", 9)
    shapes = {name: values.shape for name, values in load_file(base / "model.safetensors").items()}
    adapted = {name.removesuffix(".weight"): shape for name, shape in shapes.items() if "down_proj" in name}
    for seed in range(2):
        write_adapter(tmp_path / "pool" / f"a{seed}", linear_factors(adapted, seed=seed), base=str(base))
    with soups(tmp_path / "pool", tmp_path, ([1, 0], [0.5, 0.5])) as candidates:
        check_same(open_session(), candidates, prompts, "float32")


def test_the_contract(pool_of, prompts, tmp_path):
    pool = pool_of("internvl", count=2)
    broken = tmp_path / "broken"
    shutil.copytree(pool / "m0", broken)
    (broken / "config.json").write_text('{"model_type": "unheard_of", "architectures": ["Unheard"]}')
    settings = EvalSettings(
        engine="vllm", engine_args={"max_new_tokens": TOKENS, "options": OPTIONS, "check_swap": "never"}
    )
    with soups(pool, tmp_path, ([1, 0], [0.5, 0.5])) as candidates:
        check_engine(
            lambda settings: VLLM(settings, **settings.engine_args),
            candidates,
            prompts[:3],
            settings=settings,
            failing=ToyCandidate(broken, tmp_path / "broken-home", "broken"),
        )


def test_the_first_swap_is_held_against_a_fresh_engine_and_then_believed(
    pool_of, prompts, open_session, tmp_path, monkeypatch, caplog
):
    session, opened = open_session(check_swap="first"), []
    start = VLLM._start
    monkeypatch.setattr(VLLM, "_start", lambda self, log: opened.append(log) or start(self, log))
    with soups(pool_of("internvl"), tmp_path) as candidates:
        answers = [session.answer(soup, prompts, lambda *_: None) for soup in candidates[:3]]
        fresh = ask_fresh([soup.directory() for soup in candidates[:3]], prompts, dtype="float32")
    assert answers == [[text for text, _ in each] for each in fresh]
    assert len(opened) == 2
    assert caplog.text == ""


def test_a_swap_that_went_wrong_is_noticed_and_told_and_no_wrong_answer_comes_out(
    pool_of, prompts, open_session, tmp_path, monkeypatch, caplog
):
    session = open_session(check_swap="first")
    call = VLLM._call

    def lossy(self, word, *arguments, **options):  # a swap that is confirmed, and never happened
        return None if word == "swap" else call(self, word, *arguments, **options)

    with soups(pool_of("internvl"), tmp_path) as candidates, caplog.at_level(logging.WARNING):
        session.answer(candidates[0], prompts, lambda *_: None)
        monkeypatch.setattr(VLLM, "_call", lossy)
        answers = [session.answer(soup, prompts, lambda *_: None) for soup in candidates[1:3]]
        fresh = ask_fresh([soup.directory() for soup in candidates[1:3]], prompts, dtype="float32")
    assert answers == [[text for text, _ in each] for each in fresh]
    assert "give other log probabilities" in caplog.text


def test_after_a_worker_s_failure_vllm_is_opened_anew(pool_of, prompts, open_session, tmp_path, monkeypatch, caplog):
    session = open_session()
    with soups(pool_of("internvl"), tmp_path) as candidates:
        ask(session, candidates[0], prompts)
        monkeypatch.setattr(vllm.pickle, "dumps", lambda soup: b"torn on the way")
        torn = ask(session, candidates[1], prompts)
        monkeypatch.undo()
        fresh = ask_fresh([candidates[1].directory()], prompts, dtype="float32")[0]
    assert differences(torn, fresh)[0] == []
    assert "opened anew" in caplog.text


def test_a_process_that_dies_is_told_with_the_end_of_its_log(pool_of, prompts, open_session, tmp_path):
    session = open_session()
    with soups(pool_of("internvl", count=1), tmp_path, ([1],)) as candidates:
        ask(session, candidates[0], prompts)
        session.engine._process.stop()
        with pytest.raises(EvaluatorError, match=r"(?s)vLLM's process ended while it was to answer\. Log: "):
            ask(session, candidates[0], prompts)


def test_what_vllm_can_not_open_is_told_with_its_own_words(open_session, prompts, tmp_path):
    folder = save_served("internvl", tmp_path / "m", 0)
    (folder / "config.json").write_text('{"model_type": "unheard_of", "architectures": ["Unheard"]}')
    with pytest.raises(EvaluatorError, match=r"(?s)vLLM failed to open: .*unheard_of"):
        ask(open_session(), ToyCandidate(folder, tmp_path / "home", "x"), prompts)
