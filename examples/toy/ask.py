"""Asks a checkpoint one question about one picture, with transformers alone.

python examples/toy/ask.py out/                                        # a freshly drawn picture
python examples/toy/ask.py out/ my.png "what is written in the image?"
"""

from __future__ import annotations

import sys
from random import SystemRandom

from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.utils import logging

import finetune.points  # noqa: F401 (makes the Auto classes know the family)
from finetune.toy import SKILLS

logging.disable_progress_bar()


def answer(checkpoint: str, image: Image.Image, question: str) -> str:
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype="float32").eval()
    processor = AutoProcessor.from_pretrained(checkpoint)
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    batch = processor(images=[image], text=[text], return_tensors="pt")
    tokens = model.generate(**batch, max_new_tokens=16, do_sample=False)
    return processor.decode(tokens[0, batch["input_ids"].shape[1] :], skip_special_tokens=True)


def drawn(random: SystemRandom) -> tuple[Image.Image, str, str]:
    """Return a fresh picture, a question about it, and the truth."""
    scenes = [skill(random) for skill in SKILLS.values()]
    scene = random.choice([scene for scene in scenes if "open" in scene.questions])
    ask = scene.questions["open"]
    return scene.images[0], ask.text, ask.answer


def main(checkpoint: str, picture: str | None = None, question: str | None = None) -> None:
    if picture and question:
        image, truth = Image.open(picture), "?"
    else:
        image, question, truth = drawn(SystemRandom())
    print(f"question  {question}")
    print(f"answer    {answer(checkpoint, image, question)}")
    print(f"truth     {truth}")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 4):
        sys.exit(__doc__)
    main(*sys.argv[1:])
