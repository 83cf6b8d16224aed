from __future__ import annotations

import gc
import hashlib
import json
import sys
import warnings
import weakref
from pathlib import Path

import pytest
import torch

from evaluators.answering.batching import ask, prompt_beginning
from evaluators.answering.engines.transformers import MAX_NEW_TOKENS, TransformersModel
from evaluators.answering.hot_swap import HotSwap
from soup.errors import EvaluatorError
from soup.evaluation.settings import EvalSettings
from tests.helpers.scripted_models import SCRIPTED, ToyCandidate, scripted
from tests.helpers.vlm_families import noise

pytestmark = pytest.mark.usefixtures("one_thread")

TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endfor %}"
)


def character_tokenizer():
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    specials = ["<pad>", "<s>", "</s>", "<unk>", "<image>"]
    words = {word: index for index, word in enumerate([*specials, *map(chr, range(32, 127)), "\n"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, additional_special_tokens=["<image>"], **names)


def save_llava(directory, seed, dtype=torch.float32):
    """A tiny LLaVA of random weights: its names on disk are not its names in memory."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    tokenizer = character_tokenizer()
    images = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor = LlavaProcessor(
        images,
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        chat_template=TEMPLATE,
        num_additional_image_tokens=1,
    )
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**shape, image_size=32, patch_size=8),
        text_config=LlamaConfig(**shape, vocab_size=len(tokenizer), initializer_range=0.3),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
    )
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config).to(dtype)
    model.generation_config.update(do_sample=True, temperature=0.7, top_p=0.8, top_k=20, max_length=9)
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
    return directory


def save_points(directory, seed, dtype=torch.float32):
    """A tiny POINTS of random weights, in several shards: its names on disk are its names in memory."""
    from finetune.points import PointsForConditionalGeneration
    from finetune.points.tiny import tiny_config, tiny_processor

    processor = tiny_processor()
    tokenizer = processor.tokenizer
    image = tokenizer.convert_tokens_to_ids("<|image_pad|>")
    torch.manual_seed(seed)
    config = tiny_config(len(tokenizer), image, tokenizer.pad_token_id, tokenizer.eos_token_id)
    PointsForConditionalGeneration(config).to(dtype).save_pretrained(directory, max_shard_size="1MB")
    processor.save_pretrained(directory)
    return directory


MAKERS = {"llava": save_llava, "points": save_points}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Two checkpoints of each tiny model."""
    root = tmp_path_factory.mktemp("checkpoints")
    return {(kind, seed): make(root / f"{kind}{seed}", seed) for kind, make in MAKERS.items() for seed in (0, 1)}


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    """Eight prompts: images of several sizes, texts of several lengths, one without an image, one with two."""
    root = tmp_path_factory.mktemp("images")
    paths = []
    for index, size in enumerate([(32, 32), (64, 32), (40, 90), (33, 31)]):
        paths.append(str(root / f"{index}.png"))
        noise(paths[-1], size, index, "RGBA" if index == 1 else "RGB")
    picture = [{"type": "image", "value": path} for path in paths]
    text = [{"type": "text", "value": value} for value in ("Why?", "What colour is it? " * 4, "Count them all.")]
    return [
        [picture[0], text[0]],
        [picture[1], text[1]],
        [text[2]],
        [picture[2], text[2]],
        [picture[0], text[1]],
        [picture[3], picture[0], text[2]],
        [picture[2], text[0]],
        [picture[3], text[0]],
    ]


def candidate(path, scratch):
    return ToyCandidate(path, scratch, digest=f"digest of {path.name}")


def weights(directory):
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in directory.glob("*.safetensors")}


@pytest.mark.parametrize("kind", MAKERS)
def test_an_answer_does_not_depend_on_its_neighbours(kind, checkpoints, prompts):
    engine = TransformersModel(checkpoints[kind, 0], max_new_tokens=12)
    alone = [engine.answer([prompt])[0] for prompt in prompts]
    for batch_size in (1, 3, 64):
        assert ask(engine, prompts, batch_size) == alone
        assert ask(engine, prompts[::-1], batch_size) == alone[::-1]
    assert len(set(alone)) > 4


@pytest.mark.parametrize("kind", MAKERS)
def test_decoding_is_greedy_and_leaves_random_numbers_and_gradients_alone(kind, checkpoints, prompts):
    engine = TransformersModel(checkpoints[kind, 0], max_new_tokens=12)
    before = torch.get_rng_state()
    first = ask(engine, prompts, 64)
    torch.manual_seed(99)
    assert ask(engine, prompts, 64) == first
    torch.set_rng_state(before)
    torch.set_num_threads(2)
    ask(engine, prompts, 64)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("kind", MAKERS)
def test_greedy_is_the_most_likely_token_step_by_step(kind, checkpoints, prompts):
    # The oracle: the module's own forward pass over the whole sequence so far, one token at a time, with no cache.
    engine = TransformersModel(checkpoints[kind, 0], max_new_tokens=5)
    processor, module = engine._prompter.processor, engine.module
    with torch.inference_mode():
        inputs = processor.apply_chat_template(
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "image", "path": prompts[3][0]["value"]},
                        {"type": "text", "text": prompts[3][1]["value"]},
                    ],
                }
            ],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        start = inputs["input_ids"].shape[1]
        for _ in range(5):
            token = module(**inputs, use_cache=False).logits[:, -1:].argmax(-1)
            inputs["input_ids"] = torch.cat([inputs["input_ids"], token], 1)
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
            if token.item() == processor.tokenizer.eos_token_id:
                break
    expected = processor.tokenizer.decode(inputs["input_ids"][0, start:], skip_special_tokens=True).strip()
    assert engine.answer([prompts[3]]) == [expected]


def test_an_answer_that_never_ends_stops_at_the_models_last_position_whatever_its_neighbours(tmp_path, prompts):
    endless = save_llava(tmp_path / "endless", 0)
    for name in ("config.json", "generation_config.json"):
        config = json.loads((endless / name).read_text())
        config.get("text_config", config).update(max_position_embeddings=60, eos_token_id=97)
        (endless / name).write_text(json.dumps(config))
    engine = TransformersModel(endless)
    alone = [engine.answer([prompt])[0] for prompt in prompts]
    assert ask(engine, prompts, 64) == alone
    assert 60 - 16 - len("Why?") - 3 <= len(alone[0]) <= 60 - 16 - len("Why?")  # 16 tokens of one image
    assert len(alone[0]) > len(alone[3])


def test_the_checkpoints_dtype_is_kept(tmp_path, prompts):
    for dtype in (torch.bfloat16, torch.float32):
        engine = TransformersModel(save_llava(tmp_path / str(dtype), 0, dtype), max_new_tokens=4)
        assert {parameter.dtype for parameter in engine.module.parameters()} == {dtype}
        assert len(ask(engine, prompts, 2)) == len(prompts)


@pytest.mark.parametrize("kind", MAKERS)
def test_a_candidate_is_streamed_into_the_loaded_model_once(kind, checkpoints, prompts, tmp_path):
    swap = HotSwap(EvalSettings())
    files = {seed: weights(checkpoints[kind, seed]) for seed in (0, 1)}
    answers = {}
    modules = set()
    for seed in (0, 1, 1, 0):
        soup = candidate(checkpoints[kind, seed], tmp_path)
        engine = swap.model_for(soup)
        engine.max_new_tokens = 8
        modules.add(id(engine.module))
        alone = TransformersModel(checkpoints[kind, seed], max_new_tokens=8)
        assert ask(engine, prompts, 4) == ask(alone, prompts, 4) == answers.setdefault(seed, ask(alone, prompts, 4))
        held = engine.module.state_dict()
        assert all(torch.equal(held[name], value) for name, value in alone.module.state_dict().items())
        assert "directory" not in soup.calls
        swap.model_for(soup)
        assert len(soup.calls) <= 1
    assert len(modules) == 1
    assert answers[0] != answers[1]
    # The model that weights are streamed into was read from the first checkpoint: that one's files stay as they are.
    assert files == {seed: weights(checkpoints[kind, seed]) for seed in (0, 1)}


def test_another_tokenizer_or_configuration_builds_the_model_anew(checkpoints, tmp_path):
    swap = HotSwap(EvalSettings())
    first = swap.model_for(candidate(checkpoints["points", 0], tmp_path))
    assert swap.model_for(candidate(checkpoints["points", 1], tmp_path)) is first
    other = save_points(tmp_path / "other", 1)
    config = json.loads((other / "generation_config.json").read_text())
    (other / "generation_config.json").write_text(json.dumps({**config, "repetition_penalty": 1.5}))
    second = swap.model_for(candidate(other, tmp_path))
    assert second is not first
    assert second._decoding.repetition_penalty == 1.5


def test_a_swap_that_fails_halfway_leaves_no_candidate_in_the_model(checkpoints, tmp_path):
    swap = HotSwap(EvalSettings())
    swap.model_for(candidate(checkpoints["points", 0], tmp_path))

    class Torn(ToyCandidate):
        def load_into(self, module, names=None, conversions=()):
            torch.nn.init.zeros_(next(module.parameters()).data)
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        swap.model_for(Torn(checkpoints["points", 1], tmp_path, digest="torn"))
    again = candidate(checkpoints["points", 0], tmp_path)
    swap.model_for(again)
    assert again.calls == ["load_into"]  # though it was the last one to have been whole


def test_what_is_no_vision_language_checkpoint_is_refused(checkpoints, tmp_path):
    bare = save_llava(tmp_path / "bare", 0)
    (bare / "chat_template.jinja").unlink()
    with pytest.raises(EvaluatorError, match="needs a processor with an image processor and a chat template"):
        HotSwap(EvalSettings()).model_for(candidate(bare, tmp_path))
    (bare / "config.json").write_text("{")
    with pytest.raises(EvaluatorError, match=r"config\.json: not readable as JSON"):
        HotSwap(EvalSettings()).model_for(candidate(bare, tmp_path))
    (bare / "config.json").write_text('{"model_type": "unheard_of"}')
    with pytest.raises(EvaluatorError, match=r"needs a processor|can't be built from .*bare"):
        HotSwap(EvalSettings()).model_for(candidate(bare, tmp_path))


def test_code_from_a_checkpoint_does_not_run_unasked(tmp_path):
    marker = tmp_path / "ran"
    code = save_llava(tmp_path / "code", 0)
    (code / "theirs.py").write_text(f"open({str(marker)!r}, 'w').close()\nclass Theirs: pass\n")
    config = json.loads((code / "config.json").read_text())
    remote = {"AutoConfig": "theirs.Theirs", "AutoModelForImageTextToText": "theirs.Theirs"}
    (code / "config.json").write_text(json.dumps({**config, "model_type": "theirs", "auto_map": remote}))
    with pytest.raises(EvaluatorError, match=r"trust.remote.code"):
        HotSwap(EvalSettings()).model_for(candidate(code, tmp_path))
    assert not marker.exists()


def test_loading_and_answering_are_silent(checkpoints, prompts, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ask(TransformersModel(checkpoints["llava", 0], max_new_tokens=3), prompts, 3)
    output = capfd.readouterr()
    lines = [line for line in (output.out + output.err).splitlines() if "requires torchvision" not in line]
    assert lines == []


def test_the_identity_of_auto_is_json_and_knows_the_decoding():
    identity = HotSwap(EvalSettings()).identity()
    assert json.loads(json.dumps(identity)) == identity
    assert identity["model"] == "auto"
    assert identity["max_new_tokens"] == MAX_NEW_TOKENS == 2048
    assert identity == HotSwap(EvalSettings(batch_size=1)).identity()  # answers stand alone, whatever the batch


def test_without_transformers_the_error_is_one_sentence_with_the_pip_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(EvaluatorError, match=r'pip install "vlm-soup\[vlmeval-light\]"'):
        HotSwap(EvalSettings()).identity()


@pytest.fixture
def model(tmp_path):
    file = tmp_path / "model.py"
    file.write_text(SCRIPTED)
    return file


def test_a_model_of_the_users_is_built_anew_for_each_candidate(model, tmp_path):
    swap = HotSwap(EvalSettings(model=f"{model}:Scripted"))
    a, b = scripted(tmp_path, {1: "a"}, name="a"), scripted(tmp_path, {1: "b"}, name="b")
    for soup in (a, a, b, a):
        swap.model_for(soup)
    assert model.with_suffix(".notes").read_text().split("\n")[:-1] == ["built a", "built b", "built a"]
    assert a.calls == ["directory", "directory"]


def test_a_closed_engine_holds_nothing_of_a_model_that_refers_to_itself(tmp_path):
    (tmp_path / "cyclic.py").write_text(
        "class Cyclic:\n"
        "    def __init__(self, directory):\n"
        "        self.itself = self\n"
        "    def answer(self, prompts): ...\n"
    )
    engine = HotSwap(EvalSettings(model=f"{tmp_path / 'cyclic.py'}:Cyclic"))
    held = weakref.ref(engine.model_for(scripted(tmp_path, {})))
    gc.disable()
    try:
        engine.close()
        assert held() is None
    finally:
        gc.enable()


def test_a_model_of_the_users_with_a_module_has_candidates_streamed_into_it(checkpoints, prompts, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from evaluators.answering.engines.transformers import TransformersModel\n"
        "class Mine:\n"
        "    def __init__(self, checkpoint_directory):\n"
        "        self.inner = TransformersModel(checkpoint_directory, max_new_tokens=8)\n"
        "        self.module = self.inner.module\n"
        "    def answer(self, prompts):\n"
        "        return self.inner.answer(prompts)\n"
    )
    swap = HotSwap(EvalSettings(model=f"{file}:Mine"))
    first = candidate(checkpoints["points", 0], tmp_path)
    second = candidate(checkpoints["points", 1], tmp_path)
    engine = swap.model_for(first)
    assert swap.model_for(second) is engine
    assert (first.calls, second.calls) == (["directory"], ["load_into"])
    alone = TransformersModel(checkpoints["points", 1], max_new_tokens=8)
    assert ask(engine, prompts, 4) == ask(alone, prompts, 4)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Scriptd", "Did you mean 'Scripted'"),
        ("Mute", "expected a class with a method answer"),
        ("number", "expected a class with a method answer"),
        ("Unbuildable", "can't be built from .*no GPU for you"),
    ],
)
def test_a_model_of_the_users_that_can_not_be_had_is_told(name, words, model, tmp_path):
    with pytest.raises(EvaluatorError, match=f"(?s){words}"):
        HotSwap(EvalSettings(model=f"{model}:{name}")).model_for(scripted(tmp_path, {}))


@pytest.mark.parametrize("name", ["auto.py", "nonsense", "no.py:Class", ":", "package.module:Class"])
def test_a_model_that_is_no_file_and_class_is_told(name):
    with pytest.raises(EvaluatorError, match=r"no such file|expected auto, vlmeval:CLASS or FILE\.py:CLASS"):
        HotSwap(EvalSettings(model=name))


def test_batches_hold_like_with_like_the_longest_first(prompts):
    batches = []

    class Noting:
        def answer(self, prompts):
            batches.append([sum(part["type"] == "image" for part in prompt) for prompt in prompts])
            return [prompt[-1]["value"] + str(len(prompt)) for prompt in prompts]

    expected = [prompt[-1]["value"] + str(len(prompt)) for prompt in prompts]
    assert ask(Noting(), prompts, 4) == expected
    assert batches == [[2], [1, 1, 1, 1], [1, 1], [0]]
    assert ask(Noting(), [], 4) == []
    assert Path(prompts[0][0]["value"]).is_file()


@pytest.mark.parametrize(
    ("count", "pictures"), [(0, ""), (1, " with 0.png"), (2, " with 0.png and 1 more"), (3, " with 0.png and 2 more")]
)
def test_the_beginning_of_a_prompt_tells_it_from_others(count, pictures):
    images = [{"type": "image", "value": f"{number}.png"} for number in range(count)]
    prompt = [*images, {"type": "text", "value": "What is it?"}, {"type": "text", "value": "x" * 100}]
    assert prompt_beginning(prompt) == f"'What is it? {'x' * 68}'{pictures}"
