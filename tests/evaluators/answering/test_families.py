"""`--model auto` answers with any family that transformers has, from the files of a checkpoint alone."""

from __future__ import annotations

import gc
import importlib
import json
import logging
import sys
import types

import pytest
import torch
from safetensors.torch import load_file, save_file

from evaluators.answering import prompts as prompts_module
from evaluators.answering.batching import LARGEST_BATCH, ask
from evaluators.answering.engines.transformers import TransformersModel
from evaluators.answering.hot_swap import HotSwap
from soup.errors import EvaluatorError
from soup.evaluation.settings import EvalSettings
from tests.helpers.merge_oracle import mean_of, read_back, same_bits
from tests.helpers.scripted_models import ToyCandidate
from tests.helpers.vlm_families import FAMILIES, noise, save_family

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def pools(tmp_path_factory):
    """Two fine-tunes of a family, made when first asked for."""
    root, made = tmp_path_factory.mktemp("families"), {}

    def pool(kind):
        if kind not in made:
            for seed in (0, 1):
                save_family(kind, root / kind / f"m{seed}", seed)
            made[kind] = root / kind
        return made[kind]

    return pool


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    """Images of several sizes and shapes, texts of several lengths, one image, two, none."""
    root = tmp_path_factory.mktemp("images")
    pictures = []
    for index, size in enumerate([(32, 32), (64, 32), (40, 90), (33, 31)]):
        path = noise(root / f"{index}.png", size, index, "RGBA" if index == 1 else "RGB")
        pictures.append({"type": "image", "value": path})
    why, colour, count = (
        {"type": "text", "value": text} for text in ("Why?", "What colour is it? " * 4, "Count them all.")
    )
    return [
        [pictures[0], why],
        [pictures[1], colour],
        [count],
        [pictures[2], count],
        [pictures[0], colour],
        [pictures[3], pictures[0], count],
        [pictures[2], why],
        [why],
        [pictures[3], why],
    ]


def askable(kind, prompts):
    """PaliGemma has no chat: an image belongs to each of its prompts."""
    return prompts if FAMILIES[kind].chat else [prompt for prompt in prompts if prompt[0]["type"] == "image"]


@pytest.mark.parametrize("kind", FAMILIES)
def test_an_answer_does_not_depend_on_its_neighbours(kind, pools, prompts):
    engine = TransformersModel(pools(kind) / "m0", max_new_tokens=10)
    prompts = askable(kind, prompts)
    alone = [engine.answer([prompt])[0] for prompt in prompts]
    for batch_size in (1, 3, 64):
        assert ask(engine, prompts, batch_size) == alone
        assert ask(engine, prompts[::-1], batch_size) == alone[::-1]
    assert len(set(alone)) > 3


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_candidate_answers_from_the_loaded_model_as_its_merged_files_do(kind, pools, prompts, tmp_path, caplog):
    swap, prompts = HotSwap(EvalSettings()), askable(kind, prompts)
    first = swap.model_for(ToyCandidate(pools(kind) / "m0", tmp_path, digest="first"))
    with mean_of(pools(kind), tmp_path / "home") as soup:
        engine = swap.model_for(soup)
        assert engine is first
        assert not (tmp_path / "home" / "checkpoint").exists()
        assert not caplog.records
        fresh = TransformersModel(soup.directory(), max_new_tokens=10)
        held, there = engine.module.state_dict(), fresh.module.state_dict()
        assert held.keys() == there.keys()
        assert all(same_bits(held[name], values) for name, values in there.items())
        engine.max_new_tokens = 10
        answers = ask(engine, prompts, 64)
        assert answers == ask(fresh, prompts, 64)
    assert answers != ask(TransformersModel(pools(kind) / "m0", max_new_tokens=10), prompts, 64)


def test_transformers_has_nothing_to_complain_of_while_a_model_answers(pools, prompts):
    warnings = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: warnings.append(record.getMessage())
    importlib.import_module("transformers.utils.logging").warning_once.cache_clear()
    logging.getLogger("transformers").addHandler(handler)
    try:
        TransformersModel(pools("llava") / "m0", max_new_tokens=3).answer(prompts[:1])
    finally:
        logging.getLogger("transformers").removeHandler(handler)
    assert warnings == []


def test_the_dtype_on_disk_is_the_dtype_in_memory(tmp_path, prompts):
    path = save_family("qwen3_vl", tmp_path / "half", 0, torch.bfloat16)
    engine = TransformersModel(path, max_new_tokens=3)
    assert {values.dtype for values in engine.module.state_dict().values()} == {torch.bfloat16}
    assert len(ask(engine, prompts, "auto")) == len(prompts)


def test_a_tokenizer_that_pads_on_the_right_is_made_to_pad_on_the_left(tmp_path, prompts, pools):
    path = save_family("llava", tmp_path / "right", 0)
    config = json.loads((path / "tokenizer_config.json").read_text())
    (path / "tokenizer_config.json").write_text(json.dumps({**config, "padding_side": "right"}))
    right = TransformersModel(path, max_new_tokens=10)
    assert right._prompter.tokenizer.padding_side == "right"
    left = TransformersModel(pools("llava") / "m0", max_new_tokens=10)
    assert ask(right, prompts, 64) == ask(left, prompts, 64)


def test_text_alone_to_a_model_that_needs_an_image_is_told(pools, prompts):
    engine = TransformersModel(pools("paligemma") / "m0")
    with pytest.raises(EvaluatorError, match="PaliGemmaProcessor needs an image with each text"):
        ask(engine, prompts, 64)


def test_a_plain_prompt_is_the_images_and_then_the_text(pools, prompts, monkeypatch):
    engine = TransformersModel(pools("paligemma") / "m0", max_new_tokens=2)
    inputs = engine._prompter([prompts[5]])
    text = engine._prompter.tokenizer.decode(inputs["input_ids"][0])
    assert text.replace(" ", "") == "<image>" * 32 + "<s>Countthemall.\n"
    assert "labels" not in inputs


@pytest.mark.parametrize("kind", ["qwen2_vl", "llava", "gemma3"])
def test_another_model_without_a_chat_template_is_refused_not_guessed_at(kind, tmp_path):
    path = save_family(kind, tmp_path / "bare", 0)
    (path / "chat_template.jinja").unlink()
    with pytest.raises(EvaluatorError, match="needs a processor with an image processor and a chat template"):
        TransformersModel(path)


def test_a_checkpoint_that_lacks_weights_is_refused(tmp_path):
    path = save_family("llava", tmp_path / "hollow", 0)
    whole = load_file(path / "model.safetensors")
    kept = {name: values for name, values in whole.items() if "layers.1.mlp" not in name}
    save_file(kept, path / "model.safetensors", {"format": "pt"})
    with pytest.raises(EvaluatorError, match=r"not a whole model, its files lack 7 tensors:\n.*layers\.1\.mlp"):
        TransformersModel(path)


def test_what_videos_need_is_left_as_it_was(pools):
    from transformers import processing_utils

    video_processing_auto = importlib.import_module("transformers.models.auto.video_processing_auto")
    before = video_processing_auto.AutoVideoProcessor, vars(processing_utils.transformers_module).keys()
    TransformersModel(pools("qwen2_vl") / "m0")
    after = video_processing_auto.AutoVideoProcessor, vars(processing_utils.transformers_module).keys()
    assert before == after


def test_what_resizes_images_is_part_of_the_identity(monkeypatch):
    assert HotSwap(EvalSettings()).identity()["images"] == "pillow"
    monkeypatch.setattr(prompts_module, "has_torchvision", lambda: True)
    assert HotSwap(EvalSettings()).identity()["images"] == "torchvision"


class Narrow:
    """An engine that has memory for so many prompts, and runs out as torch or Python would."""

    def __init__(self, most, error):
        self.most, self.error, self.tried = most, error, []

    def answer(self, prompts):
        self.tried.append(len(prompts))
        if len(prompts) > self.most:
            raise self.error
        return [prompt[0]["value"] for prompt in prompts]


TEXTS = [[{"type": "text", "value": "?" * count}] for count in range(1, 101)]
SHORTAGES = [
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB)"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    MemoryError(),
]


@pytest.mark.parametrize("shortage", SHORTAGES, ids=str)
def test_batches_halve_where_memory_runs_out_and_all_goes_on(shortage, caplog, monkeypatch):
    monkeypatch.setattr(gc, "collect", lambda: 0)  # through all that tests have imported, half a second each time
    model = Narrow(20, shortage)
    with caplog.at_level(logging.WARNING):
        assert ask(model, TEXTS, "auto") == [prompt[0]["value"] for prompt in TEXTS]
    assert model.tried == [64, 32, 16, 16, 16, 16, 16, 16, 4]
    assert caplog.messages[-1] == "Out of memory with 32 questions at a time; going on with 16."
    ask(model, TEXTS, "auto")
    assert max(model.tried[9:]) == 16  # for this model it is known by now
    assert ask(Narrow(1, shortage), TEXTS[:2], "auto") == ["?", "??"]


def test_each_batch_is_told_once_however_often_it_was_tried():
    heard = []
    ask(Narrow(20, SHORTAGES[0]), TEXTS, "auto", lambda batch, replies: heard.extend(zip(batch, replies, strict=True)))
    assert sorted(len(reply) for _, reply in heard) == list(range(1, 101))
    assert all(prompt[0]["value"] == reply for prompt, reply in heard)


def test_a_number_that_does_not_fit_is_told_with_what_to_do():
    with pytest.raises(EvaluatorError, match=r"(?s)out of memory.*A smaller `batch_size` may fit; auto finds it"):
        ask(Narrow(20, SHORTAGES[0]), TEXTS, 32)
    assert ask(Narrow(20, SHORTAGES[0]), TEXTS, 20)


def test_a_single_question_that_does_not_fit_is_an_error():
    with pytest.raises(EvaluatorError, match="out of memory") as caught:
        ask(Narrow(0, SHORTAGES[0]), TEXTS, "auto")
    assert "smaller" not in str(caught.value)


def test_an_error_of_another_kind_is_not_taken_for_a_shortage():
    model = Narrow(0, RuntimeError("shapes do not match"))
    with pytest.raises(EvaluatorError, match="shapes do not match"):
        ask(model, TEXTS, "auto")
    assert model.tried == [64]


def test_a_model_that_can_not_be_remembered_halves_all_the_same():
    sizes = []

    class Slotted:
        __slots__ = ("tried",)

        def answer(self, prompts):
            sizes.append(len(prompts))
            if len(prompts) > 8:
                raise SHORTAGES[0]
            return ["" for _ in prompts]

    assert len(ask(Slotted(), TEXTS, "auto")) == 100
    assert sizes[:5] == [LARGEST_BATCH, 32, 16, 8, 8]


def test_nothing_of_a_failed_attempt_is_held_when_the_next_begins():
    import weakref

    class Activations:
        pass

    held = []

    class Hoarding:
        def answer(self, prompts):
            assert not [ref for ref in held if ref() is not None]
            activations = Activations()
            held.append(weakref.ref(activations))
            if len(prompts) > 10:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
            return ["" for _ in prompts]

    ask(Hoarding(), TEXTS, "auto")
    assert len(held) > 4
    assert LARGEST_BATCH == 64


WRAPPERS = """
class Toy:
    def __init__(self, model_path="org/name", **options):
        self.path = model_path
    def generate(self, message, dataset=None):
        return f"{len(message)} parts, {self.path}"
"""


def test_vlmeval_s_own_wrapper_is_built_for_each_candidate(tmp_path, monkeypatch):
    full = types.ModuleType("vlmeval.vlm")
    exec(WRAPPERS, vars(full))
    monkeypatch.setitem(sys.modules, "vlmeval.vlm", full)
    swap = HotSwap(EvalSettings(model="vlmeval:Toy"))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        engine = swap.model_for(ToyCandidate(tmp_path / name, tmp_path, digest=name))
        assert ask(engine, TEXTS[:2], "auto") == [f"1 parts, {tmp_path / name}"] * 2
    identity = swap.identity()
    assert identity["model"] == "vlmeval:Toy"
    assert identity["vlmeval"]
    with pytest.raises(EvaluatorError, match=r"has no model class 'Toi'\. Did you mean 'Toy'"):
        HotSwap(EvalSettings(model="vlmeval:Toi"))


def test_vlmeval_without_its_gigabytes_is_one_sentence_with_the_pip_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "vlmeval.vlm", None)
    with pytest.raises(EvaluatorError, match=r'needs VLMEvalKit in full.*pip install "vlm-soup\[vlmeval\]"'):
        HotSwap(EvalSettings(model="vlmeval:Qwen2VLChat"))


def test_the_merged_files_hold_all_that_is_answered_with(pools, tmp_path):
    with mean_of(pools("internvl"), tmp_path / "home") as soup:
        engine = HotSwap(EvalSettings()).model_for(soup)
        written = read_back(soup.directory())
    held = engine.module.state_dict()
    assert len({values.data_ptr() for values in held.values()}) == len(written)  # tied ones are one
