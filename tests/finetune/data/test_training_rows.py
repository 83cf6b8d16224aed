"""The rows of a run: surveyed, mixed, packed, collated."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerFast

from finetune.config import DataSet, TrainSettings
from finetune.data import IGNORED, Collator, Corpus, FeatureCache, RowTokenizer, TrainingRows, normalise_tiles
from finetune.data.packing import Packs, first_fit
from finetune.data.row_scan import RowScanner, scan_rows
from finetune.jobs import rows_lost
from finetune.points.model import PointsForConditionalGeneration
from finetune.points.processing import IMAGE_TOKEN, PointsProcessor
from finetune.points.tiny import tiny_config, tiny_processor
from soup.errors import FinetuneError


@pytest.fixture(scope="module")
def processor():
    return tiny_processor(["What?", "red"])


@pytest.fixture(scope="module")
def model(processor):
    torch.manual_seed(0)
    tokenizer = processor.tokenizer
    ids = (processor.image_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id)
    return PointsForConditionalGeneration(tiny_config(len(tokenizer), *ids)).eval()


def conversation(*turns):
    return [{"from": ("human", "gpt")[k % 2], "value": text} for k, text in enumerate(turns)]


def rows_of_all_kinds(root):
    """Six rows: one image, none, several of unequal sizes, a video, many turns, an image in an answer."""
    rng = np.random.default_rng(0)
    sizes = {"a": (64, 32), "b": (32, 32), "c": (40, 90), "clip/9": (50, 20), "clip/10": (20, 50), "clip/11": (32, 32)}
    (root / "clip").mkdir()
    for name, (width, height) in sizes.items():
        noise = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
        Image.fromarray(noise).save(root / f"{name}.png")
    return [
        {"image": "a.png", "conversations": conversation("<image>\nWhat?", "red")},
        {"conversations": conversation("Hello", "Good day to you, and to all of yours.")},
        {
            "image": ["a.png", "b.png", "c.png"],
            "conversations": conversation("<image><image> or <image>?", "The third."),
        },
        {"video": "clip", "conversations": conversation("<video>\nWhat happens?", "Nothing.")},
        {"image": "c.png", "conversations": conversation("<image>\nWhat?", "red", "Sure?", "Yes.", "Why?", "So.")},
        {"image": ["b.png"], "conversations": conversation("Draw red.", "Here: <image>\nred")},
    ]


@pytest.fixture
def root(tmp_path):
    (tmp_path / "data.json").write_text(json.dumps(rows_of_all_kinds(tmp_path)))
    return tmp_path


def settings(**changed):
    return TrainSettings(**{"lr": 1e-3, "steps": 3, "global_batch_size": 6, "max_length": 256, **changed})


def training(root, processor, **changed):
    return TrainingRows(Corpus([DataSet(path=str(root), frames=2)]), settings(**changed), processor)


def collator(processor, **changed):
    return Collator(processor, FeatureCache(), max_length=256, **changed)


def test_an_epoch_holds_every_row_once_and_the_next_another_order(root, processor):
    rows = training(root, processor, steps=2)
    places = [rows[n]["where"] for n in range(12)]
    assert len(rows) == 12
    assert len(set(places[:6])) == len(set(places[6:])) == 6
    assert places[:6] != places[6:]


def test_epochs_become_steps(root, processor):
    assert training(root, processor, steps=None, epochs=2.5, global_batch_size=4).steps == 4
    assert training(root, processor, steps=None, epochs=1, global_batch_size=4).steps == 2


def test_a_share_of_an_epoch_is_taken_as_it_is_written(tmp_path, processor):
    rows = [{"conversations": conversation("What?", str(number))} for number in range(100)]
    (tmp_path / "data.json").write_text(json.dumps(rows))
    for epochs, steps in ((1.11, 111), (0.56, 56), (0.001, 1), (1, 100)):
        made = training(tmp_path, processor, steps=None, epochs=epochs, global_batch_size=1)
        assert (made.steps, made.items) == (steps, steps)


def test_the_manifest_tells_what_the_mixture_came_to(root, processor):
    manifest_ = training(root, processor).manifest
    assert manifest_["groups"] == {
        "text_only": {"rows": 1, "epoch": 1},
        "single_image": {"rows": 3, "epoch": 3},
        "several_images": {"rows": 2, "epoch": 2},
    }
    assert (manifest_["rows"], manifest_["epoch"], manifest_["skipped"]) == (6, 6, 0)
    json.dumps(manifest_)


def test_a_run_that_resumes_reads_the_rows_that_it_had_not_read(root, processor):
    for packing in (False, True):
        whole = training(root, processor, packing=packing, max_length=100)
        again = training(root, processor, packing=packing, max_length=100)
        assert [whole[n] for n in range(18)][7:] == [again[n] for n in range(7, 18)]


def test_worker_processes_give_the_batches_that_one_process_gives(root, processor):
    batches = []
    for workers in (0, 2):
        loader = DataLoader(
            training(root, processor, steps=4, global_batch_size=3),
            batch_size=3,
            num_workers=workers,
            collate_fn=collator(processor),
            multiprocessing_context="fork" if workers else None,
        )
        batches.append(list(loader))
    assert len(batches[0]) == 4
    for one, other in zip(*batches, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_rows_go_to_a_process_that_is_started_afresh(root, processor):
    rows = training(root, processor)
    assert pickle.loads(pickle.dumps(rows))[4] == rows[4]


def oracle(processor, messages, pictures):
    """Ids, and what is learnt of them, written out by hand from the template's words."""
    ids, learnt, tiles = [], [], iter(pictures)

    def put(text, learn):
        new = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        ids.extend(new)
        learnt.extend([learn] * len(new))

    for message in messages:
        put("<|im_start|>" + message["role"] + "\n", False)
        parts = message["content"] if isinstance(message["content"], list) else [{"text": message["content"]}]
        for part in parts:
            if "text" in part:
                put(part["text"], message["role"] == "assistant")
            else:
                put("<|image_pad|>" * (4 * next(tiles)), False)
        put("<|im_end|>", message["role"] == "assistant")
        put("\n", False)
    return ids, [token if learn else IGNORED for token, learn in zip(ids, learnt, strict=True)]


def test_labels_are_what_the_template_written_out_by_hand_says(root, processor):
    rows = training(root, processor)
    # Tiles by the sizes above: 64 x 32 two and a thumbnail, 32 x 32 one, 40 x 90 by CATTY, two frames.
    c = len(processor.image_processor([Image.open(root / "c.png")])["pixel_values"])
    tiles = [[3], [], [3, 1, c], [2], [c], [1]]
    for n in range(6):
        row = rows[n]
        i = rows.order[n]
        batch = collator(processor)([row])
        ids, labels = oracle(processor, rows.corpus[i]["messages"], tiles[i])
        assert batch["input_ids"].tolist() == [ids]
        assert batch["labels"].tolist() == [labels]
        assert rows.length_at(n) == len(ids)
        assert batch.get("pixel_values", torch.zeros(0)).shape[0] == sum(tiles[i])


def test_a_video_is_its_uniformly_sampled_frames_in_the_order_of_their_numbers(root, processor):
    corpus = Corpus([DataSet(path=str(root), frames=3)])
    row = {
        "segments": RowTokenizer(processor).segments(corpus[3]["messages"]),
        "images": corpus[3]["images"],
        "where": "x",
    }
    tiles = collator(processor)([row])["pixel_values"]
    frames = [Image.open(root / f"clip/{i}.png").resize((32, 32), Image.Resampling.BILINEAR) for i in (9, 10, 11)]
    assert torch.equal(tiles, processor.image_processor(frames, do_tile=False)["pixel_values"])


def test_more_frames_than_the_processor_s_own_setting_are_taken_where_the_data_set_says_so(tmp_path, processor):
    (tmp_path / "clip").mkdir()
    for i in range(40):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / "clip" / f"{i}.png")
    (tmp_path / "data.json").write_text(json.dumps([{"video": "clip", "conversations": conversation("<video>x", "y")}]))
    rows = TrainingRows(Corpus([DataSet(path=str(tmp_path), frames=30)]), settings(), processor)
    assert collator(processor)([rows[0]])["pixel_values"].shape[0] == 30


def test_bytes_are_the_same_pixels_as_the_file(root, processor):
    rows = json.loads((root / "data.json").read_text())
    import base64

    content = (root / "a.png").read_bytes()
    (root / "data.json").write_text(json.dumps([rows[0], {**rows[0], "image": base64.b64encode(content).decode()}]))
    scanned = training(root, processor)
    by_path, by_base64 = (collator(processor)([scanned[n]])["pixel_values"] for n in range(2))
    assert torch.equal(by_path, by_base64)


def loss_of(model, batch, items=None):
    with torch.no_grad():
        return model(**batch).loss.double()


def test_packed_loss_is_the_unpacked_loss_images_included(root, processor, model):
    rows = training(root, processor)
    single = [rows[n] for n in range(6)]
    alone = [collator(processor)([row]) for row in single]
    # The first token of a row has nothing before it, so the number of tokens learnt is that of its labels.
    counts = torch.tensor([int((batch["labels"][:, 1:] != IGNORED).sum()) for batch in alone]).double()
    expected = (torch.stack([loss_of(model, batch) for batch in alone]) * counts).sum() / counts.sum()
    packed = collator(processor, packing=True)([single[:4], single[4:]])
    assert "attention_mask" not in packed
    assert int((packed["labels"][:, 1:] != IGNORED).sum()) == counts.sum()
    assert abs(loss_of(model, packed) - expected) < 1e-5
    # And it would be another one if the rows saw each other.
    seeing = {name: value for name, value in packed.items() if name != "position_ids"}
    assert abs(loss_of(model, seeing) - expected) > 1e-4


def test_packed_gradients_are_the_unpacked_ones(root, processor, model):
    rows = training(root, processor)
    single = [rows[n] for n in range(6)]
    tokens = sum(int((collator(processor)([row])["labels"][:, 1:] != IGNORED).sum()) for row in single)
    model.zero_grad()
    for row in single:
        model(**collator(processor)([row]), num_items_in_batch=torch.tensor(tokens)).loss.backward()
    alone = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    model(**collator(processor, packing=True)([single])).loss.backward()
    for name, parameter in model.named_parameters():
        if name in alone:
            assert torch.allclose(parameter.grad, alone[name], atol=1e-5), name
    model.zero_grad()


def test_packs_hold_every_row_of_the_order_once_and_none_is_over_full(root, processor):
    rows = training(root, processor, packing=True, steps=20, global_batch_size=5, max_length=120)
    positions = [row["position"] for n in range(100) for row in rows[n]]
    assert len(set(positions)) == len(positions)
    assert sorted(positions[:50])[:20] == list(range(20))
    assert all(sum(rows.length_at(row["position"]) for row in rows[n]) <= 120 for n in range(100))
    batch = collator(processor, packing=True)([rows[0]])
    starts = [i for i, place in enumerate(batch["position_ids"][0].tolist()) if place == 0]
    assert len(starts) == len(rows[0])
    assert (batch["labels"][0, starts] == IGNORED).all()


def test_epochs_of_packs_cover_the_epochs_rows(root, processor):
    rows = training(root, processor, packing=True, steps=None, epochs=100, global_batch_size=2, max_length=120)
    positions = [row["position"] for n in range(len(rows)) for row in rows[n]]
    assert set(range(600)) <= set(positions)
    packs_of_last_step = [row["position"] for n in range(len(rows) - 2, len(rows)) for row in rows[n]]
    assert {position for position in positions if position >= 600} <= set(packs_of_last_step)


@given(lengths=st.lists(st.integers(1, 50)), room=st.integers(50, 80))
def test_first_fit_places_each_row_once_within_the_room(lengths, room):
    packs = first_fit(lengths, room)
    assert sorted(i for pack in packs for i in pack) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in pack) <= room for pack in packs)
    # The known bound, 11/9 of the best, which is at least the sum's; no two packs could be one.
    assert len(packs) <= 11 / 9 * -(-sum(lengths) // room) * 2 + 1
    loads = sorted(sum(lengths[i] for i in pack) for pack in packs)
    assert len(loads) < 2 or loads[0] + loads[1] > room


def test_the_longest_rows_are_laid_first_and_packs_stand_by_their_first_rows():
    assert first_fit([3, 5, 7, 5], 10) == [[0, 2], [1, 3]]
    assert first_fit([1, 9, 10], 10) == [[0, 1], [2]]


def test_a_row_longer_than_a_pack_is_no_pack_of_its_own():
    with pytest.raises(ValueError, match="a row of 9 tokens for packs of 8"):
        first_fit([3, 9], 8)


@hypothesis_settings(max_examples=50)
@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=20), start=st.integers(0, 60))
def test_packs_are_a_function_of_their_number(lengths, start):
    def length_at(position):
        return lengths[position % len(lengths)]

    whole = Packs(length_at, 20, window=8)
    expected = [whole[n] for n in range(start + 5)]
    again = Packs(length_at, 20, window=8)
    assert [again[n] for n in range(start, start + 5)] == expected[start:]
    assert [again[n] for n in range(start)] == expected[:start], "back again"


@hypothesis_settings(max_examples=50)
@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=20), end=st.integers(0, 60))
def test_packs_end_where_the_epochs_do_and_go_on_behind_it(lengths, end):
    packs = Packs(lambda position: lengths[position % len(lengths)], 20, window=8, end=end)
    count = packs.count()
    assert sorted(position for n in range(count) for position in packs[n]) == list(range(end))
    later = [position for n in range(count, count + 24) for position in packs[n]]
    assert sorted(later)[:24] == list(range(end, end + 24))


def damaged(root, rows=None):
    """The second of three pictures is damaged in its middle."""
    noise = np.random.default_rng(0).integers(0, 255, (32, 64, 3), dtype=np.uint8)
    for name in "abc":
        Image.fromarray(noise).save(root / f"{name}.png")
    content = (root / "b.png").read_bytes()
    half = len(content) // 2
    (root / "b.png").write_bytes(content[:half] + b"\xff" * 99 + content[half + 99 :])
    samples = [{"image": f"{name}.png", "conversations": conversation("<image>What?", name)} for name in "abc"]
    (root / "data.json").write_text(json.dumps(samples))
    return root


def test_a_picture_that_only_decoding_finds_damaged_is_told_with_set_row_and_file(tmp_path, processor):
    rows = training(damaged(tmp_path), processor)
    with pytest.raises(FinetuneError, match=r"data\.json, row 2, image 1 \(.*b\.png\).*(damaged|cut off)"):
        collator(processor)([rows[n] for n in range(3)])
    loader = iter(DataLoader(rows, 3, collate_fn=collator(processor), num_workers=1, multiprocessing_context="fork"))
    with pytest.raises(FinetuneError, match=r"row 2, image 1 \(.*b\.png\)"):
        next(loader)
    loader._shutdown_workers()


def test_where_bad_rows_are_skipped_a_damaged_picture_costs_its_row_alone(tmp_path, processor, caplog):
    rows = training(damaged(tmp_path), processor, on_bad_row="skip")
    collate = collator(processor, replacement=rows.after)
    batch = collate([rows[n] for n in range(3)])
    assert len(batch["input_ids"]) == 2
    assert "b.png" in caplog.text
    bad = next(n for n in range(3) if "row 2" in rows[n]["where"])
    assert torch.equal(collate([rows[bad]])["input_ids"], collate([rows.after(rows[bad])])["input_ids"])


def test_a_row_is_never_cut(root, processor):
    rows = training(root, processor)
    row = next(rows[n] for n in range(6) if rows[n]["images"])
    with pytest.raises(FinetuneError, match=r"data\.json, row \d: \d+ tokens, more than max_length 9"):
        Collator(processor, FeatureCache(), max_length=9)([row])


def test_bad_rows_stop_a_run_before_its_first_step_unless_they_are_skipped(root, processor, caplog):
    rows = json.loads((root / "data.json").read_text())
    rows += [{"image": "gone.png", "conversations": conversation("<image>What?", "red")}, {"conversations": []}]
    (root / "data.json").write_text(json.dumps(rows))
    with pytest.raises(FinetuneError, match=r"(?s)bad rows: 2 of 8.*row 7: image 1: no such file.*row 8: expected a"):
        training(root, processor)
    rows = training(root, processor, on_bad_row="skip")
    assert rows.manifest["skipped"] == 2
    assert "gone.png" in caplog.text
    (root / "log.txt").write_text(caplog.text)
    assert rows_lost(root) == [], "none more was lost in training"
    assert {rows[n]["where"].split()[-1] for n in range(18)} == set("123456")


def test_rows_over_max_length_are_bad_rows(root, processor):
    with pytest.raises(FinetuneError, match=r"(?s)rows over max_length: 4.*tokens, more than max_length 40"):
        training(root, processor, max_length=40)
    scan = scan_rows(Corpus([DataSet(path=str(root), frames=2)]), RowScanner(processor, 40, exact=True))
    assert [bool(good) for good in scan.good] == [length <= 40 for length in scan.lengths]
    assert scan.bad


def test_the_bound_on_a_length_is_never_below_it(root, processor):
    corpus = Corpus([DataSet(path=str(root), frames=2)])
    tokens, scanner = RowTokenizer(processor), RowScanner(processor, 256, exact=True)
    for sample in corpus:
        tiles = [1 if not picture.frames else 2 for picture in sample["images"]]
        assert tokens.length(sample, tiles) <= tokens.longest_possible(sample, tiles)
        assert scanner.length(sample) == scanner.length(sample) > 0


@hypothesis_settings(max_examples=100, deadline=None)
@given(texts=st.lists(st.text(max_size=30).filter(lambda text: IMAGE_TOKEN not in text), min_size=1, max_size=3))
def test_the_bound_holds_for_any_text(texts):
    tokens = RowTokenizer(tiny_processor())
    turns = [{"role": role, "content": text} for text in texts for role in ("user", "assistant")]
    assert tokens.length({"messages": turns}, []) <= tokens.longest_possible({"messages": turns}, [])


def test_no_bound_is_known_where_a_text_s_normal_form_may_be_much_longer():
    processor = tiny_processor()
    message = {"messages": [{"role": "user", "content": "\ufdfa"}]}  # 18 characters in NFKC
    for normalizer, known in ((normalizers.NFC(), True), (normalizers.NFKC(), False)):
        processor.tokenizer.backend_tokenizer.normalizer = normalizer
        assert (RowTokenizer(processor).longest_possible(message, []) is not None) == known


def test_an_answer_of_points_ends_with_the_token_that_its_template_writes(root):
    learnt = []
    for end in ("<|im_end|>", "<|endoftext|>"):
        processor = tiny_processor(["What?", "red"])
        processor.tokenizer.eos_token = end
        rows = training(root, processor)
        labels = collator(processor)([rows[n] for n in range(6)])["labels"]
        learnt.append(labels[labels != IGNORED].tolist())
    assert learnt[0] == learnt[1]


@pytest.mark.parametrize("tiles", [[], [2, 2]])
def test_a_text_of_other_images_than_its_row_has_is_an_error(processor, tiles):
    text = f"a {processor.image_token} b"
    with pytest.raises(ValueError, match=rf"1 image tokens .* in the text, {len(tiles)} images"):
        RowTokenizer(processor).encoded([(text, False), ("red", True)], tiles)


def test_a_tokenizer_that_begins_each_text_by_itself_does_not_so_in_the_midst_of_a_row():
    processor = tiny_processor()
    plain = RowTokenizer(processor).encoded([("What?", False), ("red", True)], [])
    begin = ("<|endoftext|>", processor.tokenizer.pad_token_id)
    backend = processor.tokenizer.backend_tokenizer
    backend.post_processor = processors.TemplateProcessing(single=f"{begin[0]} $A", special_tokens=[begin])
    assert processor.tokenizer("red")["input_ids"][0] == begin[1]
    assert RowTokenizer(processor).encoded([("What?", False), ("red", True)], []) == plain


@hypothesis_settings(max_examples=100, deadline=None)
@given(texts=st.lists(st.text(max_size=12) | st.sampled_from(["red", "What?", "\n"]), min_size=2, max_size=4))
def test_a_text_cut_at_its_images_is_tokenised_as_the_whole(texts, processor):
    tokens = RowTokenizer(processor)
    assert tokens._cut_at_images
    ids, _ = tokens.encoded([(processor.image_token.join(texts), False)], [2] * (len(texts) - 1))
    whole = (processor.image_token * 8).join(texts)
    assert ids == processor.tokenizer(whole, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize(
    ("template", "turns", "why"),
    [
        (
            "{% for message in messages %}{{ message['content'] }}{% endfor %}"
            "{% if add_generation_prompt %}:{% endif %}",
            1,
            r"a turn that waits for its answer \(':'\) otherwise than one that has it \('red'\)",
        ),
        (
            "{% for message in messages %}{% if message['role'] == 'user' %}?{% else %}"
            ":{{ message['content'] if loop.last }}{% endif %}{% endfor %}{% if add_generation_prompt %}:{% endif %}",
            2,
            "rewrites earlier turns once later ones follow",
        ),
    ],
)
def test_a_template_that_hides_where_answers_begin_is_told_with_what_it_wrote(template, turns, why):
    processor = tiny_processor()
    processor.chat_template = template
    messages = [{"role": role, "content": text} for role, text in (("user", "What?"), ("assistant", "red"))] * turns
    with pytest.raises(FinetuneError, match=why):
        RowTokenizer(processor).segments(messages)


def test_a_tokenizer_that_begins_with_a_space_gets_the_text_as_a_whole(processor):
    alphabet = {letter: i for i, letter in enumerate("▁abcde .\n")}
    tokenizer = Tokenizer(models.BPE(vocab={**alphabet, "<|image_pad|>": 9}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.add_special_tokens([AddedToken("<|image_pad|>", special=True, normalized=False)])
    other = PointsProcessor(
        processor.image_processor, PreTrainedTokenizerFast(tokenizer_object=tokenizer), tokens_per_tile=4
    )
    tokens = RowTokenizer(other)
    assert not tokens._cut_at_images
    ids, _ = tokens.encoded([("a<|image_pad|>b", False)], [2])
    assert ids == [0, 1, *[9] * 8, 2]


def test_bytes_become_the_processor_s_own_numbers(root, processor):
    rows = training(root, processor)
    batch = [rows[n] for n in range(6)]
    numbers, as_bytes = collator(processor)(batch), collator(processor, as_bytes=True)(batch)
    assert as_bytes["pixel_values"].dtype == torch.uint8
    made = normalise_tiles(as_bytes, processor.image_processor)
    assert made.keys() == numbers.keys()
    assert all(torch.equal(made[name], numbers[name]) for name in made)
    assert normalise_tiles(numbers, processor.image_processor) is numbers
    assert torch.equal(
        collator(processor, as_bytes=True).normalise_tiles(as_bytes)["pixel_values"], numbers["pixel_values"]
    )
    with pytest.raises(ValueError, match="must be numbers"):
        collator(processor, as_bytes=True, encode=lambda tiles: tiles)
