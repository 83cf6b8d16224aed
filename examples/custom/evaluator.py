"""An evaluator of your own: a function that asks a checkpoint the questions of a file, by transformers.

soup greedy --pool soup-demo/ckpts --eval python:examples/custom/evaluator.py:score --split 0.5 -o soup-demo/by-mine
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from pathlib import Path

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

QUESTIONS = Path(__file__).with_name("questions.jsonl")
# Scores are remembered by the digest of this file: with that of the questions in it, other questions are other scores.
QUESTIONS_SHA256 = "5d390ad5634901eaabe735cc929ab2d87c6be69b843c7d12dee84161a3e3be7c"


def score(checkpoint: str) -> dict[str, dict[str, float]]:
    """Return the points of each question, 0 to 1: then --split can divide them, and soups are compared one by one.

    Args:
        checkpoint: The directory of a candidate, complete: what is scored here is, bit for bit, what would be written.
    """
    data = QUESTIONS.read_bytes()
    if hashlib.sha256(data).hexdigest() != QUESTIONS_SHA256:
        raise ValueError(f"{QUESTIONS} is not the file that QUESTIONS_SHA256 names")
    rows = [json.loads(line) for line in data.decode().splitlines()]
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype="auto").eval()
    processor = AutoProcessor.from_pretrained(checkpoint)
    points = {row["index"]: float(answer(model, processor, row) == row["answer"]) for row in rows}
    return {"questions": points}


def answer(model, processor, row) -> str:
    """Return the option that a model finds the likeliest answer to a question on a picture."""
    image = Image.open(io.BytesIO(base64.b64decode(row["image"])))
    content = [{"type": "image"}, {"type": "text", "text": row["question"]}]
    messages = [{"role": "user", "content": content}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    inputs = processor(images=[image], text=[text], return_tensors="pt").to(model.device, dtype=model.dtype)
    with torch.inference_mode():
        logits = model(**inputs).logits[0, -1]
    # By the first token of each: no answer has to be read out of a text.
    tokens = [processor.tokenizer(option, add_special_tokens=False)["input_ids"][0] for option in row["options"]]
    return row["options"][int(logits[tokens].argmax())]
