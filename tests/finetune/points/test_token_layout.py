"""Which image tokens the language model reads where margins are dropped, and what marks them; models that do so."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForImageTextToText, AutoProcessor

from finetune.data import Collator, FeatureCache, RowTokenizer
from finetune.data.rows import Picture
from finetune.points.multicrop import MultiCrop
from finetune.points.processing import PointsImageProcessor, PointsProcessor
from finetune.points.token_layout import MARKS, TileLayout, grids_of, layout_of, token_order
from finetune.points.video import Video
from soup.cli.app import cli
from soup.errors import FinetuneError
from tests.helpers.pretrained_parts import save_encoder, save_llm
from tests.helpers.tiny_points import TOKENIZER, noise, prompt_of

TILE, SIDE = 64, 4  # pixels and tokens of a tile; a token is 16 pixels, two patches of 8
TILING = {"name": "multicrop", "max_tiles": 6, "margin": 2, "patch": 8, "drop_margins": True}
BEGIN, ROW, END = MARKS


@settings(max_examples=10_000, deadline=None)
@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 12), st.sampled_from([0, 2, 4, 6, 10]), st.booleans())
@pytest.mark.slow
def test_each_region_of_the_image_is_read_exactly_once_and_row_by_row(width, height, most, margin, first):
    tiling = MultiCrop(max_tiles=most, margin=margin, drop_margins=True, thumbnail_first=first)
    plan = tiling.plan(width, height, 336)
    tiles = layout_of(plan)
    order = token_order(tiles, 12, 336)
    overview, joined = (order[:144], order[144:]) if first else (order[-144:], order[:-144])
    assert np.array_equal(overview, np.arange(144) + (0 if first else len(plan.boxes) * 144)), "whole, and in order"
    tile, index = np.divmod(joined - 144 * first, 144)
    corners = np.array([box[:2] for box in plan.boxes])[tile] // 28
    columns, rows = plan.canvas[0] // 28, plan.canvas[1] // 28
    cells = (corners[:, 1] + index // 12) * columns + corners[:, 0] + index % 12
    assert np.array_equal(cells, np.arange(rows * columns)), "all cells of the canvas, row by row"
    grid = (columns, rows)
    assert grids_of(tiles, 12, 336) == ([(12, 12), grid] if first else [grid, (12, 12)])


def test_an_inner_tile_is_read_without_its_margins_and_one_at_the_edge_up_to_it():
    assert token_order(TileLayout(2, 2, 1, 16, True), 4, 64).tolist() == [
        *(0, 1, 2, 16 + 1, 16 + 2, 16 + 3),
        *(4, 5, 6, 16 + 5, 16 + 6, 16 + 7),
        *(8, 9, 10, 16 + 9, 16 + 10, 16 + 11),
        *(12, 13, 14, 16 + 13, 16 + 14, 16 + 15),
    ]


def processor_of(tiling=TILING, marks=False, tokenizer=TOKENIZER):
    return PointsProcessor(PointsImageProcessor(tile=TILE, tiling=tiling), tokenizer, SIDE**2, marks=marks)


def test_marks_stand_where_a_grid_begins_behind_each_row_and_where_it_ends(loaded):
    processor = loaded[1]
    pad, tokens = processor.image_token, RowTokenizer(processor)
    overview = BEGIN + (pad * 4 + ROW) * 4 + END
    assert processor.image_text(TileLayout(3, 2, 1, 16, True)) == overview + BEGIN + (pad * 6 + ROW) * 4 + END
    assert processor.image_text(2) == overview * 2
    ids, labels = tokens.encoded([(f"{pad}What?", False), (f"red{pad}", True)], [2, 1])
    assert processor.tokenizer.decode(ids) == f"{overview * 2}What?red{overview}"
    learnt = processor.tokenizer.decode([label for label in labels if label != -100])
    assert learnt == "red", "an image in an answer is not learnt, nor are its marks"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A checkpoint as Molmo is built, by the command."""
    root = tmp_path_factory.mktemp("molmo")
    save_encoder(root / "vit", "clip", image_size=TILE)
    save_llm(root / "llm", dtype=torch.float32)
    tiling = "multicrop:" + ",".join(f"{key}={json.dumps(value)}" for key, value in TILING.items() if key != "name")
    parts = ["--llm", str(root / "llm"), "--general-vit", str(root / "vit"), "-o", str(root / "base")]
    options = ["--connector", "attention-pool", "--feature-layer", "-2,-4", "--marks", "--tiling", tiling]
    result = CliRunner().invoke(cli, ["assemble", *parts, *options])
    assert result.exit_code == 0, result.output
    return root / "base"


@pytest.fixture(scope="module")
def loaded(base):
    return AutoModelForImageTextToText.from_pretrained(base).eval(), AutoProcessor.from_pretrained(base)


def test_a_checkpoint_as_molmo_s_remembers_all_of_it(loaded):
    model, processor = loaded
    assert (model.config.connector, model.config.vision_feature_layer) == ("attention-pool", [-2, -4])
    assert (processor.marks, processor.image_processor.tiling) == (True, {**TILING, "single_thumbnail": True})
    assert set(MARKS) <= set(processor.tokenizer.get_vocab())


PICTURES = [noise(150, 60, 0), noise(40, 30, 1), noise(64, 200, 2)]


def batch_of(processor, pictures, texts):
    return processor(images=pictures or None, text=texts, return_tensors="pt", padding=True)


@torch.no_grad()
def test_the_model_reads_what_is_in_its_place_on_the_image(loaded):
    model, processor = loaded
    batch = batch_of(processor, PICTURES, [prompt_of(2), prompt_of(1, "!")])
    images = model.project(model.encode(batch["pixel_values"]))
    expected, first = [], 0
    for picture in PICTURES:
        plan = MultiCrop(**{key: value for key, value in TILING.items() if key != "name"}).plan(*picture.size, TILE)
        expected += images[first]
        for row in range(plan.canvas[1] // 16):
            for column in range(plan.canvas[0] // 16):
                # of the tiles that show the cell, the one whose middle is nearest to it
                distances = [
                    math.hypot(left + 32 - column * 16 - 8, top + 32 - row * 16 - 8) for left, top, _, _ in plan.boxes
                ]
                nearest = int(np.argmin(distances))
                left, top = plan.boxes[nearest][:2]
                expected.append(images[first + 1 + nearest, (row - top // 16) * 4 + column - left // 16])
        first += 1 + len(plan.boxes)
    x = model.embed_inputs(batch["input_ids"], model.encode(batch["pixel_values"]), batch["kept_tokens"])
    assert torch.equal(x[batch["input_ids"] == model.config.image_token_id], torch.stack(expected))


@torch.no_grad()
def test_it_generates_alike_in_a_batch_and_without_a_cache_and_after_loading(loaded, tmp_path):
    model, processor = loaded
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, its = AutoModelForImageTextToText.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)
    batch = batch_of(its, PICTURES, [prompt_of(2), prompt_of(1, "!")])
    options = {"max_new_tokens": 4, "do_sample": False}
    answers = model.generate(**batch_of(processor, PICTURES, [prompt_of(2), prompt_of(1, "!")]), **options)
    assert torch.equal(again.generate(**batch, **options), answers)
    assert torch.equal(model.generate(**batch, **options, use_cache=False), answers)
    alone = model.generate(**batch_of(processor, PICTURES[2:], [prompt_of(1, "!")]), **options)
    assert torch.equal(alone[0, -4:], answers[1, -4:])


def row(text, *pictures):
    segments = [(text, False), ("red<|im_end|>\n", True)]
    return {"segments": segments, "images": list(pictures), "where": "row 1", "position": 0}


def saved(picture, folder, name):
    picture.save(folder / name)
    return Picture(folder / name, name)


@pytest.mark.parametrize("cached", [False, True])
def test_rows_for_training_are_what_the_processor_makes_of_them(loaded, tmp_path, cached):
    model, processor = loaded
    pictures = [saved(picture, tmp_path, f"{i}.png") for i, picture in enumerate(PICTURES)]
    rows = [row(prompt_of(2), *pictures[:2]), row(prompt_of(0)), row(prompt_of(1, "!"), pictures[2])]
    encode = (lambda tiles: model.encode(tiles)) if cached else None
    collate = Collator(processor, FeatureCache(), encode, "vision_features" if cached else "pixel_values")
    texts = ["".join(text for text, _ in row["segments"]) for row in rows]
    expected = processor(
        images=PICTURES, text=texts, return_tensors="pt", padding=True, text_kwargs={"padding_side": "right"}
    )
    for _ in range(2):  # made, and remembered
        batch = collate(rows)
        assert torch.equal(batch["input_ids"], expected["input_ids"])
        assert torch.equal(batch["kept_tokens"], expected["kept_tokens"])
        labels = batch.pop("labels")
        with torch.no_grad():
            torch.testing.assert_close(model(**batch).logits, model(**expected).logits, rtol=1e-5, atol=1e-5)
    learnt = processor.tokenizer.decode(labels[0][labels[0] != -100])
    assert learnt == "red<|im_end|>"


@torch.no_grad()
def test_packed_rows_are_read_as_each_alone(loaded, tmp_path):
    model, processor = loaded
    pictures = [saved(picture, tmp_path, f"{i}.png") for i, picture in enumerate(PICTURES)]
    rows = [row(prompt_of(2), *pictures[:2]), row(prompt_of(1, "!"), pictures[2])]
    packed = Collator(processor, FeatureCache(), packing=True)([rows])
    together = model(**{name: value for name, value in packed.items() if name != "labels"}).logits[0]
    alone = [Collator(processor, FeatureCache())([row]) for row in rows]
    apart = [model(**{name: value for name, value in batch.items() if name != "labels"}).logits[0] for batch in alone]
    torch.testing.assert_close(together, torch.cat(apart), rtol=1e-5, atol=1e-5)


def test_every_weight_of_it_is_trained(loaded):
    model, processor = loaded
    model.train()
    batch = batch_of(processor, PICTURES, [prompt_of(2), prompt_of(1, "!")])
    model(**batch, labels=batch["input_ids"]).loss.backward()
    without = [name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None]
    model.zero_grad()
    model.eval()
    assert without == []


@torch.no_grad()
def test_a_soup_of_such_models_is_their_mean_and_answers(base, tmp_path):
    paths = []
    for i in range(2):
        other = AutoModelForImageTextToText.from_pretrained(base)
        for weight in other.parameters():
            weight += 0.01 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(i))
        other.save_pretrained(tmp_path / f"m{i}")
        AutoProcessor.from_pretrained(base).save_pretrained(tmp_path / f"m{i}")
        paths.append(str(tmp_path / f"m{i}"))
    result = CliRunner().invoke(cli, ["average", "--pool", *paths, "-o", str(tmp_path / "soup")])
    assert result.exit_code == 0, result.output
    soup, processor = (kind.from_pretrained(tmp_path / "soup") for kind in (AutoModelForImageTextToText, AutoProcessor))
    ingredients = [AutoModelForImageTextToText.from_pretrained(path).state_dict() for path in paths]
    for name, weight in soup.state_dict().items():
        torch.testing.assert_close(weight, (ingredients[0][name] + ingredients[1][name]) / 2, rtol=1e-6, atol=1e-7)
    assert (processor.marks, processor.image_processor.tiling["drop_margins"]) == (True, True)
    batch = batch_of(processor, PICTURES, [prompt_of(2), prompt_of(1, "!")])
    assert soup.generate(**batch, max_new_tokens=2, do_sample=False).shape[1] == batch["input_ids"].shape[1] + 2


def test_a_video_has_its_frames_and_no_grid(loaded):
    _, processor = loaded
    video = Video([noise(150, 60, 3), noise(60, 150, 4)])
    batch = processor(images=[video, PICTURES[0]], text=[prompt_of(2)], return_tensors="pt")
    assert batch["kept_tokens"][:48].tolist() == list(range(48)), "two frames, and the overview of the picture"
    assert (batch["input_ids"] == processor.image_token_id).sum() == len(batch["kept_tokens"])


def test_files_of_a_processor_without_these_options_name_none_of_them(tmp_path):
    tiling = {"name": "multicrop", "max_tiles": 12, "margin": 2, "patch": 8, "single_thumbnail": True}
    processor = processor_of(tiling)
    assert processor.image_processor.tiling == tiling
    processor.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "processor_config.json").read_text())
    assert "marks" not in stored
    assert "kept_tokens" not in processor(images=[PICTURES[0]], text=[prompt_of(1)], return_tensors="pt")


def test_what_does_not_go_together_is_told():
    with pytest.raises(FinetuneError, match=r"lacks <\|vision_start\|>, <\|vision_row_end\|>, <\|vision_end\|>"):
        processor_of(marks=True)
    with pytest.raises(FinetuneError, match="margin of 8 pixels can't be dropped, as a token is 16 pixels a side"):
        processor_of({**TILING, "margin": 1})
