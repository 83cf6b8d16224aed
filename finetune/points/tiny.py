"""A POINTS of about 1.3 million parameters, tokenizer included, that learns on a CPU in a minute.

Narrow parts need larger first weights than CLIP's and Qwen2's 0.02: from those this size did not learn.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from finetune.points.config import PointsConfig
from finetune.points.processing import CHAT_TEMPLATE, IMAGE_TOKEN, PointsImageProcessor, PointsProcessor

__all__ = ["common_phrases", "tiny_config", "tiny_processor", "tiny_tokenizer"]

TILE = 32
PATCH = 8
# Of the toy pictures, which are mostly light paper: with CLIP's, all of them would look nearly the same to the model.
MEAN = (0.85, 0.84, 0.83)
STD = (0.20, 0.21, 0.23)


def tiny_config(vocab_size: int, image_token_id: int, pad_token_id: int, eos_token_id: int) -> PointsConfig:
    """Give two encoders of 96 x 3 layers on tiles of 32 pixels (4 tokens each), a language model of 128 x 3 layers."""
    vision = {
        "hidden_size": 96,
        "intermediate_size": 384,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "image_size": TILE,
        "patch_size": PATCH,
        "initializer_range": 0.08,
    }
    text = {
        "vocab_size": vocab_size,
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 512,
        "initializer_range": 0.08,
        "tie_word_embeddings": True,
        "pad_token_id": pad_token_id,
        "eos_token_id": eos_token_id,
        "bos_token_id": None,
    }
    return PointsConfig(
        general_config=dict(vision),
        ocr_config=dict(vision),
        text_config=text,
        image_token_id=image_token_id,
        pad_token_id=pad_token_id,
        eos_token_id=eos_token_id,
    )


def tiny_tokenizer(phrases: Iterable[str] = ()) -> PreTrainedTokenizerFast:
    """Make a tokenizer of single bytes and phrases, longest first.

    Any text comes back whole: what is no phrase is spelled in bytes. Phrases that prompts repeat word for word keep
    sequences short, as the merges of a large vocabulary would.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={byte: i for i, byte in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", IMAGE_TOKEN]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    longest_first = sorted(set(phrases), key=lambda phrase: (-len(phrase), phrase))
    tokenizer.add_tokens([AddedToken(phrase, normalized=False) for phrase in longest_first])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        padding_side="left",
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )


def common_phrases(texts: Iterable[str], least: int = 50) -> list[str]:
    """Give the pieces that are in the texts at least so often: markers like "Hint: " or "B. ", whole lines, words."""
    pieces = re.compile(r"\n?[A-Z]\. |\n?[^\n]+?(?:: |(?=\n)|$)")
    counts = Counter(piece for text in texts for piece in pieces.findall(text))
    often = {piece for piece, n in counts.items() if n >= least and len(piece) > 1}
    return sorted(often | {"user\n", "assistant\n"})  # the chat template's own


def tiny_processor(phrases: Iterable[str] = ()) -> PointsProcessor:
    """Make a processor of the tiny tokenizer, and tiles of 32 pixels, at most 8 of them."""
    images = PointsImageProcessor(tile=TILE, max_tiles=8, single_thumbnail=False, image_mean=MEAN, image_std=STD)
    return PointsProcessor(images, tiny_tokenizer(phrases), tokens_per_tile=(TILE // PATCH // 2) ** 2)
