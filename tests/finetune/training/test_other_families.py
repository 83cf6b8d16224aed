"""Models of other families: trained by their own processors, their answers found, their checkpoints as they were."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, LlamaConfig, LlamaForCausalLM

from finetune.config import DataSet, TrainSettings
from finetune.data import IGNORED, Corpus
from finetune.data.check import check_data
from finetune.jobs import read_stamp
from finetune.training.input_pipeline import build_input_pipeline
from finetune.training.job import run
from finetune.training.other_families import ProcessorCollator, other_family_rows
from finetune.training.packed_families import PACKED, positions_of
from finetune.training.start_model import open_start
from finetune.training.train import prepare, train_job
from finetune.training.trainer import StopRequest
from soup.errors import FinetuneError
from soup.hf.processors import open_processor
from tests.finetune.training.test_job import together
from tests.helpers.training_basics import Notes, make_job, write_rows
from tests.helpers.vlm_families import FAMILIES, noise, save_family

pytestmark = pytest.mark.usefixtures("one_thread")

TRAINED = [name for name in FAMILIES if FAMILIES[name].chat]
FROZEN = {"qwen2_vl": "visual", "qwen2_5_vl": "visual", "qwen3_vl": "visual", "idefics3": "vision_model"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("data") / "rows", count=8)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    made = {}

    def of(kind):
        if kind not in made:
            made[kind] = save_family(kind, tmp_path_factory.mktemp(kind) / kind, seed=1)
            # The families' own template ends no turn.
            (made[kind] / "chat_template.jinja").write_text(
                "{% for message in messages %}{{ message['role'] }}:"
                "{% if message['content'] is string %}{{ message['content'] }}"
                "{% else %}{% for part in message['content'] %}{% if part['type'] == 'image' %}"
                + FAMILIES[kind].image
                + "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}</s>\n{% endfor %}"
                "{% if add_generation_prompt %}assistant:{% endif %}"
            )
        return made[kind]

    return of


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Good rows, and of each fault that no header of a text tells, one."""
    root = tmp_path_factory.mktemp("many")
    for name, size in {"a": (48, 32), "b": (32, 32), "c": (64, 40), "thin": (900, 3), "cut": (64, 64)}.items():
        noise(root / f"{name}.jpg", size, seed=1)
    (root / "cut.jpg").write_bytes((root / "cut.jpg").read_bytes()[:-200])
    rows = [
        *({"image": f"{name}.jpg", "conversations": turns("<image>Which?", name)} for name in "abcba"),
        {"image": ["a.jpg", "b.jpg"], "conversations": turns("<image><image>Same?", "no")},
        {"conversations": turns("Hello?", "Hi")},
        {"image": "a.jpg", "conversations": turns("<image>" + "x" * 3000, "no")},
        {"image": "cut.jpg", "conversations": turns("<image>Which?", "no")},
        {"image": "thin.jpg", "conversations": turns("<image>Which?", "no")},
    ]
    (root / "data.json").write_text(json.dumps(rows))
    return DataSet(path=str(root / "data.json"))


def turns(question, answer):
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def settings(**changed):
    return TrainSettings(**{"lr": 1e-3, "steps": 3, "global_batch_size": 4, "max_length": 3000, **changed})


@pytest.mark.parametrize("kind", TRAINED)
def test_the_check_finds_the_rows_that_a_job_would_stop_at(checkpoint, many, kind):
    processor = open_processor(checkpoint(kind))
    report = check_data([many], {}, settings(), processor)
    (data_set,) = report.sets
    faults = {"too_long": 1, "image_unreadable": 1}
    if kind.startswith("qwen"):  # the others take it
        assert "can't make a row of it (absolute aspect ratio must be smaller than 200, got 300.0)" in report.errors[0]
        faults["unreadable"] = 1
    assert data_set.faults == faults
    assert report.notes == (f"{many.path}: 2 of 10 rows repeat an earlier one",)


def test_a_video_is_a_bad_row_of_every_family_but_points(checkpoint, tmp_path):
    noise(tmp_path / "a.jpg", (48, 32), seed=1)
    row = {"video": ["a.jpg", "a.jpg"], "conversations": turns("<video>Which?", "a")}
    (tmp_path / "data.json").write_text(json.dumps([row]))
    data = DataSet(path=str(tmp_path / "data.json"))
    (report,) = check_data([data], {}, settings(), open_processor(checkpoint("llava"))).sets
    assert report.faults == {"image_unreadable": 1}
    assert "POINTS models alone are trained on videos" in report.first[0]


@pytest.mark.parametrize("kind", TRAINED)
def test_lengths_that_sizes_tell_are_those_of_the_batches(checkpoint, many, kind):
    processor = open_processor(checkpoint(kind))
    rows = other_family_rows(Corpus([many]), processor, settings(on_bad_row="skip"))
    collator = ProcessorCollator(processor, 3000)
    for i in np.flatnonzero(rows.scan.good):
        sample = rows.corpus[i]
        row = {
            "segments": rows.tokens.segments(sample["messages"]),
            "images": sample["images"],
            "where": "",
            "position": 0,
        }
        assert collator([row])["input_ids"].shape[1] == rows.scan.lengths[i]


def test_bad_rows_are_left_out_of_a_job_that_skips_them(checkpoint, many, tmp_path):
    job = make_job(tmp_path, many.path, start=checkpoint("qwen2_vl"), on_bad_row="skip", max_length=3000, steps=4)
    assert train_job(job, "d", StopRequest())
    assert read_stamp(job.out)["mixture"]["skipped"] == 3


@pytest.mark.parametrize("fault", [StopIteration(), ZeroDivisionError("division by zero")])
def test_a_row_that_a_processor_breaks_at_is_told_or_replaced(checkpoint, many, monkeypatch, fault, caplog):
    processor = open_processor(checkpoint("llava"))
    rows = other_family_rows(Corpus([many]), processor, settings(on_bad_row="skip"))
    items = [rows[i] for i in range(4)]
    make = type(processor).__call__

    def stumble(self, text, **options):
        if text[0] == "".join(piece for piece, _ in items[1]["segments"]):
            raise fault
        return make(self, text=text, **options)

    monkeypatch.setattr(type(processor), "__call__", stumble)
    with pytest.raises(FinetuneError, match=r"data\.json, row \d+: LlavaProcessor can't make a row of it"):
        ProcessorCollator(processor, 3000)(items)
    collator = ProcessorCollator(processor, 3000, rows.after)
    assert len(collator(items)["input_ids"]) == sum(item["segments"] != items[1]["segments"] for item in items)
    assert torch.equal(collator([items[1]])["input_ids"], collator([rows.after(items[1])])["input_ids"])
    assert "left out: " in caplog.text


def weights(directory):
    return {name: t for path in sorted(directory.glob("*.safetensors")) for name, t in load_file(path).items()}


@pytest.mark.parametrize("kind", TRAINED)
def test_the_answers_are_learnt_and_nothing_else(checkpoint, data, tmp_path, kind):
    job = make_job(tmp_path, data, start=checkpoint(kind))
    processor = open_processor(checkpoint(kind))
    corpus = Corpus(job.data)
    rows = other_family_rows(corpus, processor, job.settings)
    items = [rows[i] for i in range(8)]
    batch = ProcessorCollator(processor, 4096)(items)
    for item, labels in zip(items, batch["labels"], strict=True):
        answer = "".join(text for text, learnt in item["segments"] if learnt)
        assert processor.tokenizer.decode(labels[labels != IGNORED]) == answer.removesuffix("\n")
        assert answer.endswith("</s>\n")
    assert (batch["labels"][batch["attention_mask"] == 0] == IGNORED).all()


@pytest.mark.parametrize("kind", TRAINED)
def test_a_batch_has_the_loss_of_its_rows(checkpoint, data, tmp_path, kind):
    # Pictures of several rows, and rows without one: each row's own stay its own.
    model, processor = open_start(str(checkpoint(kind)), make_job(tmp_path, data).settings)
    model.eval()
    rows = other_family_rows(Corpus([DataSet(path=str(data))]), processor, make_job(tmp_path, data).settings)
    collator, items = ProcessorCollator(processor, 4096), [rows[i] for i in range(6)]
    with torch.no_grad():
        whole = model(**collator(items)).loss
        alone = [(batch := collator([item]), model(**batch).loss) for item in items]
    counts = [(batch["labels"] != IGNORED).sum() for batch, _ in alone]
    wanted = sum(count * loss for count, (_, loss) in zip(counts, alone, strict=True)) / sum(counts)
    assert whole.item() == pytest.approx(wanted.item(), rel=1e-4)


def packs(checkpoint, kind, data):
    """The model in training, its rows, and what packs them."""
    model, processor = open_start(str(checkpoint(kind)), settings())
    rows = other_family_rows(Corpus([DataSet(path=str(data))]), processor, settings())
    return model, [rows[i] for i in range(6)], ProcessorCollator(processor, 3000, None, positions_of(model))


def test_every_family_that_may_be_packed_is_one_that_is_tried():
    assert {*PACKED} == {*TRAINED} - {"gemma3"}


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", PACKED)
def test_packed_rows_do_not_see_each_other(checkpoint, data, kind, attention):
    model, items, collator = packs(checkpoint, kind, data)
    model.eval()
    model.set_attn_implementation(attention)
    alone = ProcessorCollator(open_processor(checkpoint(kind)), 3000)
    with torch.no_grad():
        batch = collator([items[:4], items[4:]])
        whole = model(**{name: tensor for name, tensor in batch.items() if name != "labels"}).logits[0]
        apart = [model(**{n: t for n, t in alone([item]).items() if n != "labels"}).logits[0] for item in items]
    assert "attention_mask" not in batch
    assert any(not item["images"] for item in items)
    assert any(len(item["images"]) > 1 for item in items)
    torch.testing.assert_close(whole, torch.cat(apart), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", PACKED)
def test_packing_changes_neither_loss_nor_gradient_of_any_family(checkpoint, data, kind):
    model, items, collator = packs(checkpoint, kind, data)
    model.train()
    alone = [ProcessorCollator(open_processor(checkpoint(kind)), 3000)([item]) for item in items]
    total = sum(int((batch["labels"] != IGNORED).sum()) for batch in alone)
    whole = model(**collator([items]))
    whole.loss.backward()
    packed = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    losses = [model(**batch).loss * int((batch["labels"] != IGNORED).sum()) / total for batch in alone]
    sum(losses).backward()
    assert whole.loss.item() == pytest.approx(sum(losses).item(), rel=1e-5)
    for name, gradient in packed.items():
        torch.testing.assert_close(gradient, model.get_parameter(name).grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", ["qwen2_vl", "llava"])
def test_a_job_learns_from_packs_and_tells_how_many_rows_they_held(checkpoint, data, tmp_path, kind):
    keys = {"packing": True, "global_batch_size": 2, "micro_batch": 1, "max_length": 600, "steps": 3, "lr": 1e-3}
    keys |= {"validation": 0.2, "validate_every": 3}
    job = make_job(tmp_path, data, start=checkpoint(kind), **keys)
    notes = Notes()
    assert train_job(job, "d", StopRequest(), notes)
    rows = prepare(make_job(tmp_path, data, "again", checkpoint(kind), **keys), "d", StopRequest()).pipeline.rows
    held = [len(rows.packs[n]) for n in range(6)]
    assert min(held) > 1
    assert read_stamp(job.out)["rows_seen"] == sum(held)
    assert notes.steps[-1][2] < notes.steps[0][2]


def furthest(one, other):
    assert one.keys() == other.keys()
    return max((one[name].float() - other[name].float()).abs().max().item() for name in one)


@pytest.mark.parametrize(
    "kind", [kind if kind in ("llava", "qwen3_vl") else pytest.param(kind, marks=pytest.mark.slow) for kind in TRAINED]
)
def test_a_step_in_parts_is_the_step_as_a_whole_in_any_family(checkpoint, data, tmp_path, kind):
    # Rows differ in how many of their tokens are learnt: a mean of the parts' means would be another loss.
    made, losses = [], []
    for micro in (4, 1):
        job = make_job(tmp_path, data, f"by-{micro}", checkpoint(kind), steps=3, lr=1e-3, micro_batch=micro)
        notes = Notes()
        assert train_job(job, "d", StopRequest(), notes)
        made.append(weights(job.out))
        losses.append([step[2] for step in notes.steps])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert furthest(weights(checkpoint(kind)), made[0]) > 1e-3
    assert furthest(*made) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["llava", "qwen3_vl"])
def test_two_processes_train_what_one_does_in_any_family(checkpoint, data, tmp_path, kind):
    made = []
    for name in ("alone", "pair"):
        job = make_job(tmp_path, data, name, checkpoint(kind), steps=3, lr=1e-3, micro_batch=1)
        assert (together(job.folder).returncode if name == "pair" else run(job.folder)) == 0
        made.append(job.out)
    assert read_stamp(made[1])["last_loss"] == pytest.approx(read_stamp(made[0])["last_loss"], rel=1e-4)
    assert furthest(*map(weights, made)) < 1e-4


@pytest.mark.parametrize("kind", TRAINED)
def test_any_family_is_trained_and_saved_as_it_was(checkpoint, data, tmp_path, kind):
    start = checkpoint(kind)
    frozen = FROZEN.get(kind, "vision_tower")
    job = make_job(tmp_path, data, start=start, freeze=[frozen], steps=4, lr=1e-3, micro_batch=2)
    notes = Notes()
    assert train_job(job, "d", StopRequest(), notes)
    before, after = weights(start), weights(job.out)
    assert {name: (t.shape, t.dtype) for name, t in after.items()} == {n: (t.shape, t.dtype) for n, t in before.items()}
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert not any(frozen in name and "merger" not in name for name in moved)
    assert notes.steps[-1][2] < notes.steps[0][2]
    assert read_stamp(job.out)["rows_seen"] == 16
    _, loading_info = AutoModelForImageTextToText.from_pretrained(job.out, output_loading_info=True)
    assert not any(loading_info.values())


def test_adapters_are_merged_into_any_family(checkpoint, data, tmp_path):
    start = checkpoint("llava")
    lora = {"rank": 2, "save": "multi_modal_projector"}
    job = make_job(tmp_path, data, start=start, lora=lora, steps=3)
    assert train_job(job, "d", StopRequest())
    before, after = weights(start), weights(job.out)
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name for name in moved if "multi_modal_projector" in name}
    assert {name.split(".")[-2] for name in moved if "language_model" in name} == {
        *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    }
    assert not any("vision_tower" in name or "lm_head" in name for name in moved)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"packing": True},
            "packing: not for a Gemma3ForConditionalGeneration: .* known of POINTS, idefics3, internvl",
        ),
        ({"cache_features": True}, "only for POINTS"),
        ({"max_length": 20}, "more than max_length 20"),
    ],
)
def test_what_only_others_can_is_told(checkpoint, data, tmp_path, settings, words):
    job = make_job(tmp_path, data, start=checkpoint("gemma3"), **settings)
    with pytest.raises(FinetuneError, match=words):
        train_job(job, "d", StopRequest())


def opened(start, data, tmp_path):
    return open_start(str(start), make_job(tmp_path, data).settings)


def test_a_start_that_is_no_vision_language_model_is_told(data, tmp_path):
    tiny = LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    LlamaForCausalLM(tiny).save_pretrained(tmp_path / "llama")
    with pytest.raises(FinetuneError, match=r"a llama \(LlamaConfig\), no vision-language model"):
        opened(tmp_path / "llama", data, tmp_path)


def test_a_start_that_is_nothing_is_told_with_the_presets(data, tmp_path):
    with pytest.raises(FinetuneError, match="Did you mean 'tiny'"):
        opened("tinny", data, tmp_path)


def copy_of(directory, folder):
    import shutil

    return shutil.copytree(directory, folder / "start")


def test_a_tokenizer_without_the_image_token_is_told(checkpoint, data, tmp_path):
    import json

    start = copy_of(checkpoint("llava"), tmp_path)
    text = (start / "tokenizer.json").read_text().replace('"<image>"', '"<picture>"')
    (start / "tokenizer.json").write_text(text)
    settings = json.loads((start / "tokenizer_config.json").read_text())
    kept = {key: value for key, value in settings.items() if "special" not in key and "decoder" not in key}
    (start / "tokenizer_config.json").write_text(json.dumps(kept))
    with pytest.raises(FinetuneError, match="lacks the image token '<image>'"):
        opened(start, data, tmp_path)


def test_weights_that_are_missing_are_told(checkpoint, data, tmp_path):
    from safetensors.torch import save_file

    start = copy_of(checkpoint("llava"), tmp_path)
    tensors = load_file(start / "model.safetensors")
    gone = next(name for name in tensors if "projector" in name)
    del tensors[gone]
    tensors["extra.weight"] = torch.zeros(2)
    save_file(tensors, start / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(FinetuneError, match=r"(?s)projector.*not in its files.*extra\.weight: no weight of this model"):
        opened(start, data, tmp_path)


def test_a_pickle_is_not_opened(checkpoint, data, tmp_path):
    start = copy_of(checkpoint("llava"), tmp_path)
    tensors = load_file(start / "model.safetensors")
    (start / "model.safetensors").unlink()
    torch.save(tensors, start / "pytorch_model.bin")
    with pytest.raises(FinetuneError, match="can't be opened"):
        opened(start, data, tmp_path)


def test_a_processor_without_a_chat_template_is_told(checkpoint, data, tmp_path):
    start = copy_of(checkpoint("llava"), tmp_path)
    (start / "chat_template.jinja").unlink()
    with pytest.raises(FinetuneError, match="no chat template"):
        opened(start, data, tmp_path)


def test_texts_are_written_by_a_template_that_knows_parts_alone(checkpoint, many, tmp_path):
    start = copy_of(checkpoint("llava"), tmp_path)
    template = (start / "chat_template.jinja").read_text()
    parts_alone = "{% for part in message['content'] | selectattr('type', 'defined') %}"
    (start / "chat_template.jinja").write_text(
        template.replace("message['content'] is string", "false").replace(
            "{% for part in message['content'] %}", parts_alone
        )
    )
    assert parts_alone in (start / "chat_template.jinja").read_text()
    learnt = []
    for directory in (start, checkpoint("llava")):
        rows = other_family_rows(Corpus([many]), open_processor(directory), settings(on_bad_row="skip"))
        good = map(int, np.flatnonzero(rows.scan.good))
        learnt.append([rows.tokens.segments(rows.corpus[i]["messages"]) for i in good])
    assert learnt[0] == learnt[1]
    assert learnt[0][6][1][0].startswith("Hi")


@pytest.mark.parametrize(("end", "count"), [("</s>", 0), ("</s>\n", 0), (" ", 1), ("\n", 1), ("", 1)])
def test_a_template_that_ends_no_turn_is_told(checkpoint, many, tmp_path, end, count):
    start = copy_of(checkpoint("llava"), tmp_path)
    template = (start / "chat_template.jinja").read_text()
    (start / "chat_template.jinja").write_text(template.replace("</s>\n", end))
    report = check_data([many], {}, settings(on_bad_row="skip"), open_processor(start))
    assert sum("a model does not learn to stop" in note for note in report.notes) == count


@pytest.mark.parametrize("own", ["</s>", "<end_of_utterance>"])
def test_an_answer_ends_with_the_token_that_the_template_writes_whatever_ends_a_text(checkpoint, many, tmp_path, own):
    start = copy_of(checkpoint("idefics3"), tmp_path)
    template = start / "chat_template.jinja"
    template.write_text(template.read_text().replace("</s>", own))
    processor = open_processor(start)
    rows = other_family_rows(Corpus([many]), processor, settings(on_bad_row="skip"))
    items = [rows[i] for i in range(4)]
    batch = ProcessorCollator(processor, 3000)(items)
    for item, labels in zip(items, batch["labels"], strict=True):
        (answer,) = (text for text, learnt in item["segments"] if learnt)
        assert answer.endswith(f"{own}\n")
        assert processor.tokenizer.decode(labels[labels != IGNORED]) == answer.removesuffix("\n")


def test_the_end_of_a_turn_in_a_text_is_told_whether_the_template_or_the_tokenizer_names_it(checkpoint, tmp_path):
    start = copy_of(checkpoint("idefics3"), tmp_path)
    template = start / "chat_template.jinja"
    template.write_text(template.read_text().replace("</s>", "<end_of_utterance>"))
    answers = ("a</s>b", "a<end_of_utterance>b", "a<end_of_utterance>")
    (tmp_path / "data.json").write_text(json.dumps([{"conversations": turns("Hi", answer)} for answer in answers]))
    data = DataSet(path=str(tmp_path / "data.json"))
    (report,) = check_data([data], {}, settings(), open_processor(start)).sets
    assert report.faults == {"end_token": 2}
    assert "turn 2 holds <end_of_utterance>, which ends a turn, before its end" in report.first[1]


def test_feeding_knows_whose_model_it_is(checkpoint, data, tmp_path):
    job = make_job(tmp_path, data)
    model, processor = opened(checkpoint("internvl"), data, tmp_path)
    food = build_input_pipeline(Corpus(job.data), model, processor, job.settings)
    assert isinstance(food.collator, ProcessorCollator)
    assert (food.count, food.rows.steps) == (8, 6)
