"""Tiny random checkpoints of the common vision-language families, made by transformers from a configuration.

Each is laid out as such checkpoints are on the Hub. No torchvision: the image processors are those of Pillow, and the
processor's own file is written by hand, for a class that also processes videos can't be built here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image

TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "initializer_range": 0.3,
    "max_position_embeddings": 4096,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}


def character_tokenizer(specials=(), **named):
    """One token a character; `specials` besides <pad>, <s>, </s>; `named` are a family's own attributes."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    all_specials = ["<pad>", "<s>", "</s>", "<unk>", *specials]
    words = {word: index for index, word in enumerate([*all_specials, *map(chr, range(32, 127)), "\n"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    extra = {"extra_special_tokens": named} if named else {"additional_special_tokens": list(specials)}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **extra, **names)


@dataclass(frozen=True)
class Family:
    """How to make a tiny checkpoint: `config(ids)` and `images()` give transformers' objects."""

    processor: str
    image: str
    specials: tuple[str, ...]
    config: Callable
    images: Callable
    named: dict[str, str] = field(default_factory=dict)
    settings: dict = field(default_factory=dict)
    chat: bool = True
    dtype: torch.dtype = torch.float32

    def template(self):
        return (
            "{% for message in messages %}{% for part in message['content'] %}{% if part['type'] == 'image' %}"
            f"{self.image}{{% else %}}{{{{ part['text'] }}}}{{% endif %}}{{% endfor %}}{{% endfor %}}"
            "{% if add_generation_prompt %}:{% endif %}"
        )


def _ids(tokenizer):
    return {"vocab_size": len(tokenizer), "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def _qwen(kind):
    def config(tokenizer):
        import transformers

        text = {**TEXT, **_ids(tokenizer), "rope_parameters": MROPE}
        vision = {
            "qwen2_vl": {
                "depth": 2,
                "embed_dim": 32,
                "hidden_size": TEXT["hidden_size"],
                "num_heads": 2,
                "patch_size": 8,
            },
            "qwen2_5_vl": {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "patch_size": 8}
            | {"out_hidden_size": TEXT["hidden_size"], "window_size": 32, "fullatt_block_indexes": [1]},
            "qwen3_vl": {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "patch_size": 8}
            | {"out_hidden_size": TEXT["hidden_size"], "num_position_embeddings": 16, "deepstack_visual_indexes": [0]},
        }[kind]
        name = {"qwen2_vl": "Qwen2VLConfig", "qwen2_5_vl": "Qwen2_5_VLConfig", "qwen3_vl": "Qwen3VLConfig"}[kind]
        tokens = {
            "image_token_id": "<|image_pad|>",
            "video_token_id": "<|video_pad|>",
            "vision_start_token_id": "<|vision_start|>",
            "vision_end_token_id": "<|vision_end|>",
        }
        ids = {key: tokenizer.convert_tokens_to_ids(token) for key, token in tokens.items()}
        tied = kind == "qwen3_vl"  # one of the three ties its embeddings, as the small Qwen3-VL do
        return getattr(transformers, name)(text_config=text, vision_config=vision, tie_word_embeddings=tied, **ids)

    return config


def _qwen_images():
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    size = {"shortest_edge": 16 * 16, "longest_edge": 64 * 64}
    return Qwen2VLImageProcessorPil(size=size, patch_size=8, merge_size=2, temporal_patch_size=2)


def _llava(tokenizer):
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

    return LlavaConfig(
        vision_config=CLIPVisionConfig(**VISION),
        text_config=LlamaConfig(**TEXT, **_ids(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
    )


def _llava_images():
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    return CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})


def _onevision(tokenizer):
    from transformers import LlavaOnevisionConfig, Qwen2Config, SiglipVisionConfig

    return LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**VISION, vision_use_head=False),
        text_config=Qwen2Config(**TEXT, **_ids(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=[[32, 32], [32, 64], [64, 32], [64, 64]],
        vision_aspect_ratio="anyres_max_9",
    )


def _onevision_images():
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil

    grid = [[32, 32], [32, 64], [64, 32], [64, 64]]
    return LlavaOnevisionImageProcessorPil(size={"height": 32, "width": 32}, image_grid_pinpoints=grid)


def _internvl(tokenizer):
    from transformers import InternVLConfig, InternVLVisionConfig, Qwen2Config

    return InternVLConfig(
        vision_config=InternVLVisionConfig(**{**VISION, "image_size": [32, 32], "patch_size": [8, 8]}),
        text_config=Qwen2Config(**TEXT, **_ids(tokenizer), tie_word_embeddings=True),
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        downsample_ratio=0.5,
        tie_word_embeddings=True,
    )


def _internvl_images():
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

    return GotOcr2ImageProcessorPil(
        size={"height": 32, "width": 32}, crop_to_patches=True, min_patches=1, max_patches=4
    )


def _idefics(tokenizer):
    from transformers import Idefics3Config, Idefics3VisionConfig, LlamaConfig

    return Idefics3Config(
        vision_config=Idefics3VisionConfig(**VISION),
        text_config=LlamaConfig(**TEXT, **_ids(tokenizer)),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=0,
    )


def _idefics_images():
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    return Idefics3ImageProcessorPil(size={"longest_edge": 64}, max_image_size={"longest_edge": 32})


def _gemma3(tokenizer):
    from transformers import Gemma3Config, Gemma3TextConfig, SiglipVisionConfig

    return Gemma3Config(
        vision_config=SiglipVisionConfig(**VISION, vision_use_head=False),
        text_config=Gemma3TextConfig(
            **TEXT, **_ids(tokenizer), sliding_window=16, query_pre_attn_scalar=16, tie_word_embeddings=False
        ),
        tie_word_embeddings=False,  # tied ones, scaled up, would say the prompt's last character for ever
        mm_tokens_per_image=4,
        boi_token_index=tokenizer.convert_tokens_to_ids("<boi>"),
        eoi_token_index=tokenizer.convert_tokens_to_ids("<eoi>"),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )


def _gemma3_images():
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    return Gemma3ImageProcessorPil(size={"height": 32, "width": 32}, image_seq_length=4)


def _paligemma(tokenizer):
    from transformers import GemmaConfig, PaliGemmaConfig, SiglipVisionConfig

    return PaliGemmaConfig(
        vision_config=SiglipVisionConfig(**VISION, vision_use_head=False, projection_dim=32),
        text_config=GemmaConfig(**TEXT, **_ids(tokenizer), num_image_tokens=16),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        projection_dim=32,
        hidden_size=32,
    )


def _paligemma_images():
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    processor = SiglipImageProcessorPil(size={"height": 32, "width": 32})
    processor.image_seq_length = 16
    return processor


QWEN = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
IDEFICS_TILES = [f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)]
IDEFICS = ("<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>", *IDEFICS_TILES)
PALIGEMMA = ("<image>", *(f"<loc{n:04d}>" for n in range(1024)), *(f"<seg{n:03d}>" for n in range(128)))

FAMILIES = {
    "qwen2_vl": Family("Qwen2VLProcessor", QWEN_IMAGE, QWEN, _qwen("qwen2_vl"), _qwen_images),
    "qwen2_5_vl": Family("Qwen2_5_VLProcessor", QWEN_IMAGE, QWEN, _qwen("qwen2_5_vl"), _qwen_images),
    "qwen3_vl": Family("Qwen3VLProcessor", QWEN_IMAGE, QWEN, _qwen("qwen3_vl"), _qwen_images),
    "llava": Family(
        "LlavaProcessor",
        "<image>",
        ("<image>",),
        _llava,
        _llava_images,
        settings={"patch_size": 8, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1},
    ),
    "llava_onevision": Family(
        "LlavaOnevisionProcessor",
        "<image>",
        ("<image>", "<video>"),
        _onevision,
        _onevision_images,
        settings={"num_image_tokens": 16, "vision_feature_select_strategy": "full"},
    ),
    "internvl": Family(
        "InternVLProcessor",
        "<IMG_CONTEXT>",
        ("<img>", "</img>", "<IMG_CONTEXT>", "<video>"),
        _internvl,
        _internvl_images,
        named={
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
        settings={"image_seq_length": 4},
    ),
    "idefics3": Family(
        "Idefics3Processor", "<image>", IDEFICS, _idefics, _idefics_images, settings={"image_seq_len": 4}
    ),
    "gemma3": Family(
        "Gemma3Processor",
        "<boi>",
        ("<boi>", "<eoi>", "<image>"),
        _gemma3,
        _gemma3_images,
        named={"boi_token": "<boi>", "eoi_token": "<eoi>", "image_token": "<image>"},
        settings={"image_seq_length": 4},
    ),
    "paligemma": Family("PaliGemmaProcessor", "<image>", PALIGEMMA, _paligemma, _paligemma_images, chat=False),
}


def noise(path, size, seed, mode="RGB"):
    """An image of random pixels, the same ones each time."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return str(path)


def save_family(kind, directory, seed, dtype=torch.float32):
    """A tiny checkpoint of random weights; two seeds differ in the weights alone."""
    from transformers import AutoModelForImageTextToText

    family = FAMILIES[kind]
    tokenizer = character_tokenizer(family.specials, **family.named)
    config = family.config(tokenizer)
    torch.manual_seed(seed)
    model = AutoModelForImageTextToText.from_config(config).to(dtype)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith(("bias", "norm.weight")):  # else they are all alike, and a swap of names is not seen
                value.add_(torch.randn_like(value) * 0.1)
    model.generation_config.update(do_sample=True, temperature=0.7, top_p=0.8, top_k=20, max_length=9)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    images = family.images()
    images.save_pretrained(directory)
    if hasattr(images, "image_seq_length"):
        path = directory / "preprocessor_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "image_seq_length": images.image_seq_length}))
    (directory / "processor_config.json").write_text(
        json.dumps({"processor_class": family.processor, **family.settings})
    )
    if family.chat:
        (directory / "chat_template.jinja").write_text(family.template())
    return directory
