"""An engine of your own: what answers a benchmark's prompts with a candidate's weights, here one after the other.

soup eval ckpts/a --eval ocrbench --engine examples/custom/engine.py:OneByOne --engine-arg max_new_tokens=32
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import transformers
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from soup.errors import EvaluatorError
from soup.evaluation.api import Candidate, OnBatch, Prompt
from soup.evaluation.settings import EvalSettings


class OneByOne:
    """transformers' generate, greedy, a prompt at a time.

    Args:
        settings: The run's.
        max_new_tokens: An argument of your own: keyword-only parameters are what `--engine-arg` sets.
    """

    def __init__(self, settings: EvalSettings, *, max_new_tokens: int = 512) -> None:
        self.settings, self.max_new_tokens = settings, max_new_tokens
        self._model = None
        self._processor = None

    def identity(self) -> Mapping[str, object]:
        """Return all that can change an answer: scores and answers are remembered by it."""
        version = transformers.__version__
        return {"engine": "one-by-one", "transformers": version, "max_new_tokens": self.max_new_tokens}

    def check(self, checkpoint: Path) -> None:
        """Refuse a checkpoint before anything is loaded, by the files around its weights alone."""
        if not AutoProcessor.from_pretrained(checkpoint).chat_template:
            raise EvaluatorError(f"{checkpoint}: has no chat template.")

    def open(self, candidate: Candidate) -> None:
        """Load a candidate; `directory()` writes it where it is no checkpoint on disk."""
        directory = candidate.directory()
        self._processor = AutoProcessor.from_pretrained(directory)
        self._model = AutoModelForImageTextToText.from_pretrained(directory, dtype="auto").eval()

    def swap(self, candidate: Candidate) -> None:
        """Put another candidate's weights in place of those that are held; loading it anew is right, and slow.

        `candidate.load_into(module, ...)` streams them in, and an error here has soup close the engine and open it.
        """
        self.open(candidate)

    def answer(self, prompts: list[Prompt], on_batch: OnBatch) -> list[str]:
        """Answer all prompts, and tell of each answer as it comes: it is kept, should the run be stopped."""
        answers = []
        for prompt in prompts:
            answers.append(self._say(prompt))
            on_batch([prompt], answers[-1:])
        return answers

    def close(self) -> None:
        """Give back what is held."""
        self._model = self._processor = None

    def _say(self, prompt: Prompt) -> str:
        images = [Image.open(part["value"]) for part in prompt if part["type"] == "image"]
        content = [
            {"type": "text", "text": part["value"]} if part["type"] == "text" else {"type": "image"} for part in prompt
        ]
        messages = [{"role": "user", "content": content}]
        text = self._processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        inputs = self._processor(images=images or None, text=[text], return_tensors="pt")
        inputs = inputs.to(self._model.device, dtype=self._model.dtype)
        with torch.inference_mode():
            tokens = self._model.generate(**inputs, max_new_tokens=self.max_new_tokens, do_sample=False)
        added = tokens[0, inputs["input_ids"].shape[1] :]
        return self._processor.decode(added, skip_special_tokens=True).strip()
