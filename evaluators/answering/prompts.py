"""How a prompt becomes a model's inputs: the checkpoint's own processor, and its own way of writing a prompt.

A chat template says where an image goes, who speaks, and where the answer starts. Without one that would be a guess,
except for the processors that document a prompt of images and text alone and add the rest themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from evaluators.answering.prompt_parts import template_part
from soup.errors import EvaluatorError
from soup.hf.processors import has_torchvision, open_processor
from soup.support.options import option_name

__all__ = ["Prompter", "TextPrompter", "image_backend"]

PADDING: Mapping[str, object] = {"padding": True, "padding_side": "left"}
PROBE = "How many apples?"
PLAIN_PROMPTS = ("PaliGemmaProcessor",)
"""Processors whose prompt is the images' tokens and then the text; start-of-text and newline are their own doing."""


def image_backend() -> str:
    """Name what resizes images here; the two differ in the last bits of a pixel, and so may an answer."""
    return "torchvision" if has_torchvision() else "pillow"


class Prompter:
    """Makes inputs of prompts with the processor of a checkpoint; see `evaluators.answering.batching` for prompts.

    Args:
        directory: The checkpoint.
        trust_remote_code: Whether code that comes with it may run.

    Raises:
        EvaluatorError: the checkpoint has no processor for images, or neither chat template nor plain prompt.
    """

    def __init__(self, directory: Path | str, *, trust_remote_code: bool) -> None:
        try:
            processor = open_processor(directory, trust_remote_code=trust_remote_code)
        except (OSError, ValueError) as error:
            raise EvaluatorError(f"{directory}: transformers can't open its processor ({error}).") from error
        self._hold(processor, directory)

    @classmethod
    def around(cls, processor: object) -> Prompter:
        """Return one for a processor that is open already."""
        prompter = cls.__new__(cls)
        prompter._hold(processor, "the model in memory")
        return prompter

    def _hold(self, processor: Any, directory: Path | str) -> None:
        self.processor: Any = processor
        name = type(self.processor).__name__
        self.has_template = bool(getattr(self.processor, "chat_template", None))
        has_prompt = self.has_template or name in PLAIN_PROMPTS
        if getattr(self.processor, "image_processor", None) is None or not has_prompt:
            raise EvaluatorError(
                f"{directory}: a vision-language model needs a processor with an image processor and a chat template, "
                f"found {name}. Searches also take a model of your own: {option_name('model')} FILE.py:CLASS."
            )
        self.tokenizer: Any = self.processor.tokenizer
        self._directory = directory
        self._knows_videos = name == "PointsProcessor"

    def check(self) -> None:
        """Write a prompt of an image and a question by the chat template, and look for the question in it.

        Raises:
            EvaluatorError: the template fails, or leaves the question out.
        """
        if not self.has_template:
            return
        content = [{"type": "image"}, {"type": "text", "text": PROBE}]
        try:
            text = self.processor.apply_chat_template(
                [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
            )
        except Exception as cause:  # jinja's, or whatever a template raises
            raise EvaluatorError(
                f"{self._directory}: its chat template fails on a question with an image: "
                f"{type(cause).__name__}: {cause}"
            ) from cause
        if PROBE not in text:
            raise EvaluatorError(
                f"{self._directory}: its chat template leaves the question out, so that every answer would be a guess. "
                f"Of '{PROBE}' it makes {text!r:.200}."
            )

    def __call__(self, prompts: Sequence[Sequence[Mapping[str, str]]]) -> Any:
        """Make the inputs of one batch, padded on the left: the next token follows the prompt's last one."""
        contents = [self._content(prompt) for prompt in prompts]
        if not self.has_template:
            return self._without_template(contents)
        frames = [len(part["image"].frames) for content in contents for part in content if part.get("is_video")]
        return self.processor.apply_chat_template(
            [[{"role": "user", "content": content}] for content in contents],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={**PADDING, **({"frames": max(frames)} if frames else {})},  # transformers writes into it
        )

    def _content(self, prompt: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
        """Say a prompt in the words of chat templates; a video is one item where the processor knows videos.

        So each of its frames is one tile, as in training; as images, they would be cut into tiles.
        """
        if not self._knows_videos:
            return [template_part(**part) for part in prompt]
        from finetune.points.video import Video

        content: list[dict[str, Any]] = []
        for video, group in groupby(prompt, key=lambda part: part.get("video", "")):
            parts = [template_part(**part) for part in group]
            frames = [part["image"] for part in parts] if video else []
            content += [{"type": "image", "image": Video(frames), "is_video": True}] if video else parts
        return content

    def _without_template(self, contents: list[list[dict[str, Any]]]) -> Any:
        images = [[part["image"] for part in content if part["type"] == "image"] for content in contents]
        if not all(images):
            raise EvaluatorError(f"{type(self.processor).__name__} needs an image with each text; found a text alone.")
        token = self.processor.image_token
        texts = [" ".join(part["text"] for part in content if part["type"] == "text") for content in contents]
        prompts = [token * len(shown) + text for shown, text in zip(images, texts, strict=True)]
        inputs = self.processor(images=images, text=prompts, **PADDING)
        inputs.pop("labels", None)  # for training
        return inputs.convert_to_tensors("pt")


class TextPrompter:
    """Makes inputs of prompts of text alone, with a language model's tokenizer and chat template.

    Args:
        directory: The checkpoint.
        trust_remote_code: Whether code that comes with it may run.

    Raises:
        EvaluatorError: the checkpoint has no tokenizer, or one without a chat template.
    """

    def __init__(self, directory: Path | str, *, trust_remote_code: bool) -> None:
        import transformers

        try:
            self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(
                directory, trust_remote_code=trust_remote_code, local_files_only=True
            )
        except (OSError, ValueError, KeyError) as cause:
            raise EvaluatorError(f"{directory}: its tokenizer can't be opened: {cause}") from cause
        if not getattr(self.tokenizer, "chat_template", None):
            raise EvaluatorError(f"{directory}: its tokenizer has no chat template, so that nothing can be asked.")

    def __call__(self, prompts: Sequence[Sequence[Mapping[str, str]]]) -> Any:
        """Make the inputs of one batch, padded on the left."""
        import transformers

        texts = ["\n".join(part["value"] for part in prompt) for prompt in prompts]
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        inputs = self.tokenizer.apply_chat_template(
            [[{"role": "user", "content": text}] for text in texts],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            tokenizer_kwargs={"padding_side": "left"},
            padding=True,
        )
        return transformers.BatchFeature(dict(inputs))  # which a dtype can be named to, as of a processor's inputs
