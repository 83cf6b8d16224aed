"""Pictures and words into one batch: image tokens in the text, as many as the images' tiles need.

An item of a prompt is an image, or a `Video`: its frames together stand where one `<|image_pad|>` is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import ProcessorMixin

from finetune.points.images import PointsImageProcessor, PointsImagesKwargs, flat
from soup.errors import FinetuneError
from soup.support.text import bullet_list

__all__ = ["CHAT_TEMPLATE", "IMAGE_TOKEN", "PointsImageProcessor", "PointsImagesKwargs", "PointsProcessor"]

IMAGE_TOKEN = "<|image_pad|>"

# Qwen2's form of a conversation; an image part is one image token, which the processor then multiplies.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "<|im_start|>{{ message['role'] + '\\n' }}"
    "{%- if message['content'] is string -%}{{ message['content'] }}"
    "{%- else -%}"
    "{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'image' -%}" + IMAGE_TOKEN + "{%- else -%}{{ part['text'] }}{%- endif -%}"
    "{%- endfor -%}"
    "{%- endif -%}"
    "{{ '<|im_end|>\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)


class PointsProcessor(ProcessorMixin):
    """Images and text into one batch: each `<|image_pad|>` of the text becomes as many as its image has tokens.

    `tokens_per_tile` is what the model makes of a tile (144 for tiles of 336). A video is an item of `images`:
    `Video(frames)`, in a conversation {"type": "image", "image": Video(frames)}.
    """

    def __init__(
        self,
        image_processor: PointsImageProcessor | None = None,
        tokenizer: Any = None,
        tokens_per_tile: int = 144,
        chat_template: str | None = None,
    ):
        self.tokens_per_tile = tokens_per_tile
        self.image_token = IMAGE_TOKEN
        self.image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        super().__init__(image_processor, tokenizer, chat_template=chat_template or CHAT_TEMPLATE)

    @property
    def unused_input_names(self) -> list[str]:
        """The image processor's outputs that are for the text side, not for the model."""
        return ["num_tiles"]

    def replace_image_token(self, image_inputs: dict[str, Any], image_idx: int, **kwargs: Any) -> str:
        """Give the image tokens of one image: `tokens_per_tile` for each of its tiles."""
        return self.image_token * (self.tokens_per_tile * int(image_inputs["num_tiles"][image_idx]))

    def validate_inputs(
        self, images: Any = None, text: Any = None, videos: Any = None, audio: Any = None, **kwargs: Any
    ) -> None:
        """Validate as transformers does, with videos among the images; what it would ignore is an error.

        Raises:
            ValueError: not as many images as `<|image_pad|>` in the text.
            FinetuneError: something given as `videos` or `audio`.
        """
        if videos is not None:
            raise FinetuneError(
                "videos: a video is one of the images here; give images=[Video(frames)], in a conversation "
                '{"type": "image", "image": Video(frames)}, with Video from finetune.points.video.'
            )
        if audio is not None:
            raise FinetuneError("audio: this model hears nothing; leave it out.")
        stills = None if images is None else [np.zeros((1, 1, 3), np.uint8) for _ in flat(images)]
        super().validate_inputs(images=stills, text=text, **kwargs)

    def _process_images(self, images: Any, **kwargs: Any) -> tuple[BatchFeature, list[str]]:
        if not flat(images):  # a batch of rows without images, in the form of one with images
            return BatchFeature(), []
        processed = self.image_processor(images, **kwargs)
        return processed, [self.replace_image_token(processed, i) for i in range(len(processed["num_tiles"]))]

    def apply_chat_template(self, conversation: Any, *args: Any, **kwargs: Any) -> Any:
        """Write a prompt as transformers does; texts that contain `<|image_pad|>` are an error.

        In the prompt they could not be told from an image's marker, and the model would take a text about an image for
        one. `sanitize_control_tokens=True` has transformers spell such words out instead.

        Raises:
            FinetuneError: messages with the image token in their text, all of them listed.
        """
        if not kwargs.get("sanitize_control_tokens"):
            _check_words(conversation)
        return super().apply_chat_template(conversation, *args, **kwargs)

    def _merge_kwargs(self, *args: Any, **kwargs: Any) -> dict[str, dict[str, Any]]:
        """Merge as transformers does; a keyword that it would ignore is an error."""
        merged = super()._merge_kwargs(*args, **kwargs)
        known = {"text_kwargs", "images_kwargs", "tokenizer_init_kwargs", "common_kwargs", *merged}
        known |= {name for part in merged.values() if isinstance(part, dict) for name in part}
        unknown = sorted(set(kwargs) - known)
        if unknown:
            raise TypeError(f"PointsProcessor got unknown keywords: {', '.join(unknown)}.")
        return merged


def _check_words(conversation: Any) -> None:
    """Raise FinetuneError where the texts of a conversation, or of several, hold the image token."""
    several = bool(conversation) and isinstance(conversation[0], list | tuple)
    faults = [
        f"{f'conversation {i + 1}, ' if several else ''}message {k + 1} ({message['role']})"
        for i, messages in enumerate(conversation if several else [conversation])
        for k, message in enumerate(messages)
        if any(IMAGE_TOKEN in words for words in _words(message.get("content")))
    ]
    if faults:
        raise FinetuneError(
            f"{IMAGE_TOKEN} stands for an image, and can't be part of a text; take it out, and give an image as "
            f'{{"type": "image"}}:\n{bullet_list(faults)}'
        )


def _words(content: Any) -> list[str]:
    if isinstance(content, str):
        return [content]
    return [part["text"] for part in content or () if isinstance(part.get("text"), str)]
