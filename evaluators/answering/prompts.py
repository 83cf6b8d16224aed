"""How a message becomes a model's inputs: the checkpoint's own processor, and its own way of writing a prompt.

A chat template says where an image goes, who speaks, and where the answer starts. Without one that would be a guess,
except for the processors that document a prompt of images and text alone and add the rest themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from soup.errors import EvaluatorError
from soup.hf.processors import has_torchvision, open_processor

__all__ = ["Prompter", "image_backend"]

PLAIN_PROMPTS = ("PaliGemmaProcessor",)
"""Processors whose prompt is the images' tokens and then the text; start-of-text and newline are their own doing."""


def image_backend() -> str:
    """What resizes images here; the two differ in the last bits of a pixel, and so may an answer."""
    return "torchvision" if has_torchvision() else "pillow"


class Prompter:
    """Makes inputs of messages with the processor of a checkpoint directory; see `Answerer` for what a message is.

    Raises:
        EvaluatorError: the checkpoint has no processor for images, or neither chat template nor plain prompt.
    """

    def __init__(self, directory: Path | str, options: Mapping[str, Any]) -> None:
        self.processor: Any = open_processor(directory, options)
        name = type(self.processor).__name__
        self.plain = not getattr(self.processor, "chat_template", None)
        if getattr(self.processor, "image_processor", None) is None or (self.plain and name not in PLAIN_PROMPTS):
            raise EvaluatorError(
                f"{directory}: --model auto needs a processor with an image processor and a chat template, found "
                f"{name}; give a model of your own with --model FILE.py:CLASS."
            )
        self.tokenizer: Any = self.processor.tokenizer

    def __call__(self, messages: Sequence[Sequence[Mapping[str, str]]]) -> Any:
        """The inputs of one batch, padded on the left: the next token follows the prompt's last one."""
        how = {"padding": True, "padding_side": "left"}
        parts = [[_part(**part) for part in message] for message in messages]
        if self.plain:
            return self._plainly(parts, how)
        return self.processor.apply_chat_template(
            [[{"role": "user", "content": content}] for content in parts],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs=how,
        )

    def _plainly(self, messages: list[list[dict[str, Any]]], how: Mapping[str, Any]) -> Any:
        images = [[part["image"] for part in message if part["type"] == "image"] for message in messages]
        if not all(images):
            raise EvaluatorError(f"{type(self.processor).__name__} needs an image with each text; found a text alone.")
        token = self.processor.image_token
        texts = [" ".join(part["text"] for part in message if part["type"] == "text") for message in messages]
        prompts = [token * len(own) + text for own, text in zip(images, texts, strict=True)]
        inputs = self.processor(images=images, text=prompts, **how)
        inputs.pop("labels", None)  # for training
        return inputs.convert_to_tensors("pt")


def _part(type: str, value: str) -> dict[str, Any]:
    """One part of a message in the words of transformers' chat templates."""
    from PIL import Image

    if type == "text":
        return {"type": "text", "text": value}
    if type != "image":
        raise EvaluatorError(f"A message's part is text or image; found {type!r}.")
    with Image.open(value) as image:
        # By Pillow alone, as VLMEvalKit does: a score is to be the leaderboard's, whatever training does to pictures.
        return {"type": "image", "image": image.convert("RGB")}
