"""Prompts as OpenAI's chat completions, some at once: what the engines `openai` and `serve` share."""

from __future__ import annotations

import base64
import mimetypes
import threading
from collections.abc import Mapping
from pathlib import Path

from evaluators.answering.batching import prompt_beginning
from evaluators.answering.endpoint import ChatEndpoint, map_at_once
from soup.errors import EvaluatorError
from soup.evaluation.api import OnBatch, Prompt

__all__ = ["ask_endpoint", "chat_body", "chat_part"]


def ask_endpoint(
    endpoint: ChatEndpoint,
    model: str,
    prompts: list[Prompt],
    on_batch: OnBatch,
    *,
    requests: int,
    max_new_tokens: int,
) -> list[str]:
    """Answer prompts, in their order, by so many requests at a time.

    Args:
        endpoint: Where they are asked.
        model: The model's name there.
        prompts: All that there are.
        on_batch: Called with each prompt and its answer as it comes.
        requests: How many are under way at once: the endpoint batches what is there at the same time.
        max_new_tokens: How long an answer may become.

    Raises:
        EvaluatorError: an answer did not come after all attempts.
    """
    stopped, turn = threading.Event(), threading.Lock()

    def answer(prompt: Prompt) -> str:
        try:
            text = endpoint.complete(chat_body(model, prompt, max_new_tokens), stopped)
        except EvaluatorError as reason:
            raise EvaluatorError(
                f"{model} at {endpoint.address} gave no answer: {reason}; asked was {prompt_beginning(prompt)}"
            ) from None
        with turn:
            on_batch([prompt], [text])
        return text

    return map_at_once(answer, prompts, requests, stopped)


def chat_body(model: str, prompt: Prompt, max_new_tokens: int) -> Mapping[str, object]:
    """Return what is posted for a prompt: one message of the user's, images as the bytes of their files."""
    content = [chat_part(**part) for part in prompt]
    return {
        "model": model,
        "messages": [{"role": "user", "content": content}],
        "temperature": 0,
        "max_tokens": max_new_tokens,
    }


def chat_part(type: str, value: str, video: str = "") -> dict[str, object]:
    """Return a part of a prompt in the words of chat completions.

    Args:
        type: `text` or `image`.
        value: The text, or the path of the image's file.
        video: The video that the image is a frame of, which chat completions have no word for.

    Raises:
        EvaluatorError: another type.
    """
    if type == "text":
        return {"type": "text", "text": value}
    if type != "image":
        raise EvaluatorError(f"A prompt's part is text or image; found {type!r}.")
    kind = mimetypes.guess_type(value)[0] or "image/png"
    data = base64.b64encode(Path(value).read_bytes()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{data}"}}
