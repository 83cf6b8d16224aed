"""What a merge would refuse, `soup check` refuses, and nothing else: random damages, and the verdicts of both."""

from __future__ import annotations

import json
import os
import struct
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import soup
from soup.checkpoints.weight_files import INDEX
from soup.errors import SoupError
from soup.merging.options import MergeOptions
from soup.report.pool_check import check
from soup.testing import tiny_checkpoint

CONFIG = {
    "model_type": "toy",
    "architectures": ["Toy"],
    "dtype": "float32",
    "text_config": {"rope_theta": 1e4, "num_hidden_layers": 2, "attention_dropout": 0.0},
}


def tensors(seed):
    torch.manual_seed(seed)
    return {
        "vision.tower": torch.arange(12, dtype=torch.float16).reshape(3, 4),
        "language.0": torch.randn(5, 7),
        "language.norm": torch.randn(5).bfloat16(),
        "position_ids": torch.arange(4),
        "mask": torch.tensor([True, False]),
        "norm.num_batches_tracked": torch.tensor(seed),
        "scalar": torch.tensor(float(seed)),
    }


def weight_files(folder):
    return sorted(path for path in folder.glob("*.safetensors") if path.is_file())


def rewrite(folder, change):
    """Change the tensors of the first weight file that can still be read."""
    for file in weight_files(folder):
        try:
            held = load_file(file)
        except Exception:  # damaged already
            continue
        save_file(change(held), file, {"format": "pt"})
        return


def changed(pick, change):
    def apply(folder, data):
        def edit(held):
            names = [name for name in sorted(held) if pick(held[name])]
            if not names:
                return held
            return change(held, data.draw(st.sampled_from(names)))

        rewrite(folder, edit)

    return apply


def is_float(value):
    return value.is_floating_point() and value.element_size() > 1


def put(number):
    def change(held, name):
        value = held[name].clone()
        value.view(-1)[:1] = number
        return held | {name: value}

    return changed(is_float, change)


def any_value(value):
    return True


def without(held, name):
    return {key: value for key, value in held.items() if key != name}


def edited_json(file, edit):
    def apply(folder, data):
        path = folder / file
        if path.is_file():
            try:
                document = json.loads(path.read_text())
            except ValueError:
                return
            edit(document)
            path.write_text(json.dumps(document))

    return apply


def replaced(file, kind):
    def apply(folder, data):
        path = folder / file if file else next(iter(weight_files(folder)), folder)
        if path.is_dir() and not path.is_symlink():
            return
        path.unlink(missing_ok=True)
        {
            "fifo": lambda: os.mkfifo(path),
            "folder": path.mkdir,
            "nothing": lambda: None,
            "empty": lambda: path.write_bytes(b""),
            "noise": lambda: path.write_bytes(b"\xff{" * 9),
            "dead link": lambda: path.symlink_to("nowhere"),
            "device": lambda: path.symlink_to("/dev/zero"),
        }[kind]()

    return apply


def cut(folder, data):
    for file in weight_files(folder)[:1]:
        size = file.stat().st_size
        os.truncate(file, data.draw(st.integers(0, size)))


def grow(folder, data):
    for file in weight_files(folder)[:1]:
        with file.open("ab") as out:
            out.write(b"\0" * data.draw(st.integers(1, 9)))


def flip(folder, data):
    """Change one byte of a header: a name, a dtype, a shape, an offset, or nothing that matters."""
    for file in weight_files(folder)[:1]:
        content = bytearray(file.read_bytes())
        if len(content) < 9:
            return
        size = struct.unpack("<Q", content[:8])[0]
        content[data.draw(st.integers(0, min(7 + size, len(content) - 1)))] = data.draw(st.integers(0, 255))
        file.write_bytes(content)


DAMAGES = {
    "NaN": put(float("nan")),
    "infinity": put(float("-inf")),
    "too large for float16": put(1e6),  # and so is the mean of three: check goes by each alone, as a search would
    "another dtype": changed(is_float, lambda held, name: held | {name: held[name].double()}),
    "whole numbers": changed(is_float, lambda held, name: held | {name: held[name].to(torch.int8)}),
    "packed numbers": changed(is_float, lambda held, name: held | {name: held[name].to(torch.float8_e4m3fn)}),
    "another shape": changed(any_value, lambda held, name: held | {name: held[name].new_zeros(held[name].numel() + 1)}),
    "an empty weight": changed(is_float, lambda held, name: held | {f"{name}.weight": torch.zeros(0)}),
    "other integers": changed(
        lambda value: not value.is_floating_point(), lambda held, name: held | {name: ~held[name]}
    ),
    "a tensor missing": changed(any_value, without),
    "a tensor more": lambda folder, data: rewrite(folder, lambda held: held | {"extra": torch.zeros(2)}),
    "a LoRA factor": lambda folder, data: rewrite(folder, lambda held: held | {"x.lora_A.weight": torch.zeros(2)}),
    "marks of a quantisation": lambda folder, data: rewrite(folder, lambda held: held | {"x.qweight": torch.zeros(2)}),
    "a prefix": lambda folder, data: rewrite(folder, lambda held: {f"module.{key}": held[key] for key in held}),
    "a cut file": cut,
    "bytes at the end": grow,
    "a byte of the header": flip,
    "a second file": lambda folder, data: save_file({"w": torch.zeros(1)}, folder / "z.safetensors"),
    "another rope_theta": edited_json("config.json", lambda config: config["text_config"].update(rope_theta=1e6)),
    "another dropout": edited_json("config.json", lambda config: config["text_config"].update(attention_dropout=0.1)),
    "another model_type": edited_json("config.json", lambda config: config.update(model_type="llava")),
    "a stale quantisation": edited_json(
        "config.json", lambda config: config.update(quantization_config={"quant_method": "bitsandbytes"})
    ),
    "another token number": edited_json("tokenizer.json", lambda text: text["model"]["vocab"].update(a=7)),
    "a ghost in the index": edited_json(INDEX, lambda index: index["weight_map"].update(ghost="z.safetensors")),
    "a file outside": edited_json(INDEX, lambda index: index["weight_map"].update(scalar="../x.safetensors")),
    **{
        f"{kind} in place of {file or 'a shard'}": replaced(file, kind)
        for file in ("config.json", "tokenizer.json", INDEX, None)
        for kind in ("fifo", "folder", "nothing", "empty", "noise", "dead link", "device")
    },
}

OPTIONS = st.builds(
    MergeOptions,
    dtype=st.sampled_from([None, "float16", "float32", "bfloat16"]),
    drop=st.lists(st.sampled_from(["extra", "x.*", "scalar", "language.*", "*", "nothing"]), max_size=2),
    allow_nonfinite=st.booleans(),
    tokenizer=st.sampled_from([None, None, None, "a", "base", "z"]),
    method=st.sampled_from(["linear"] * 9 + ["linaer"]),
)


def verdict(action):
    """Why it is refused; None where it is not."""
    try:
        return action()
    except SoupError as error:
        return str(error)


def hold_against_each_other(data):
    parts = ["a", "b", "c", *(["base"] if data.draw(st.booleans(), label="base") else [])]
    damages = data.draw(st.lists(st.tuples(st.sampled_from(parts), st.sampled_from(sorted(DAMAGES))), max_size=2))
    options = data.draw(OPTIONS)
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        shards = data.draw(st.sampled_from([1, 2]), label="shards")
        for seed, name in enumerate(parts):
            where = home / "base" if name == "base" else home / "ckpts" / name
            tiny_checkpoint(where, tensors=tensors(seed), config=CONFIG, shards=shards)
        for name, damage in damages:
            folder = home / "base" if name == "base" else home / "ckpts" / name
            DAMAGES[damage](folder, data)
        base = home / "base" if "base" in parts else None
        checked = verdict(lambda: "\n".join(map(str, check(home / "ckpts", base, merge=options).problems)) or None)
        merged = verdict(
            lambda: soup.cook("average", home / "ckpts", base=base, out=home / "out", merge=options) and None
        )
        event("refused" if merged else "merged")
        assert (checked is None) == (merged is None), f"check: {checked}\nmerge: {merged}"
        assert (merged is None) == (home / "out").exists()


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_check_refuses_just_what_the_merge_refuses(data):
    hold_against_each_other(data)


@pytest.mark.slow
@settings(max_examples=1500, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_check_refuses_just_what_the_merge_refuses_again_and_again(data):
    hold_against_each_other(data)
