"""Checkpoints with the headers of a large model and no data: sparse files, which take no room on the disk."""

from __future__ import annotations

import json
import math
from pathlib import Path

from tests.helpers.vlm_families import save_family

SHARD_TENSORS = 200


def qwen_7b_shapes():
    """The shapes of Qwen2.5-VL-7B's tensors, by their names on the Hub."""
    import torch
    from transformers import AutoModelForImageTextToText

    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(qwen_7b_config())
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    return {
        name.replace("model.visual.", "visual.").replace("model.language_model.", "model."): shape
        for name, shape in shapes.items()
    }


def qwen_7b_config():
    from transformers import Qwen2_5_VLConfig

    text = {"hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4}
    text |= {"intermediate_size": 18944, "vocab_size": 152064, "max_position_embeddings": 128000}
    text |= {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}}
    vision = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False)
    config.architectures = ["Qwen2_5_VLForConditionalGeneration"]
    return config


def sparse_qwen_7b(folder: Path, names):
    """Write directories of that model by these names; processor and tokenizer are a tiny one's."""
    shapes = qwen_7b_shapes()
    for name in names:
        path = save_family("qwen2_5_vl", folder / name, 0)
        qwen_7b_config().save_pretrained(path)
        (path / "model.safetensors").unlink()
        write_sparse_shards(path, shapes)
    return sum(2 * math.prod(shape) for shape in shapes.values())


def write_sparse_shards(path, shapes):
    """Write shards of bfloat16 tensors of these shapes, by name, and their index."""
    names = sorted(shapes)
    groups = [names[first : first + SHARD_TENSORS] for first in range(0, len(names), SHARD_TENSORS)]
    files = {}
    for number, group in enumerate(groups, start=1):
        file = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        files |= dict.fromkeys(group, file)
        header, end = {}, 0
        for name in group:
            begin, end = end, end + 2 * math.prod(shapes[name])
            header[name] = {"dtype": "BF16", "shape": shapes[name], "data_offsets": [begin, end]}
        data = json.dumps(header).encode()
        data += b" " * (-len(data) % 8)
        with (path / file).open("wb") as stream:
            stream.write(len(data).to_bytes(8, "little") + data)
            stream.truncate(8 + len(data) + end)
    total = sum(2 * math.prod(shape) for shape in shapes.values())
    (path / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": total}, "weight_map": files})
    )
