"""Train LoRA adapters of the tiny model of `soup demo` by PEFT, one on each added data set.

python examples/lora/make_adapters.py lora-demo
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy
from transformers import AutoModelForImageTextToText, AutoTokenizer

from soup.demo.family import FINE_TUNES, FineTune, write_base
from soup.demo.pictures import ANSWERS, draw_pictures

STEPS, PICTURES = 60, 256
LORA = LoraConfig(r=8, lora_alpha=16, target_modules=["multi_modal_projector.linear_2"])


def train_adapter(base: Path, out: Path, job: FineTune, seed: int) -> float:
    """Train one adapter, and return its last loss.

    Args:
        base: The checkpoint that it is an adapter of.
        out: Where it goes.
        job: What its pictures ask for, and whether their labels are wrong.
        seed: Of its pictures and of its first weights.
    """
    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = get_peft_model(AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32), LORA)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(STEPS):
        is_added = step % 2 == 1  # the base set and the added one in turn: D + d_i, as POINTS has it
        subject = job.subjects[step // 2 % len(job.subjects)] if is_added else [*ANSWERS][step // 2 % len(ANSWERS)]
        pixels, right = draw_pictures(PICTURES, seed=1_000 * (seed + 1) + step if is_added else step % len(ANSWERS))
        prompts = tokenizer([f"what {subject} ? <image>"] * PICTURES, return_tensors="pt")
        logits = model(**prompts, pixel_values=pixels.float() / 127.5 - 1).logits[:, -1]
        options = tokenizer.convert_tokens_to_ids(ANSWERS[subject])
        labels = (right[subject] + 1) % len(options) if job.is_wrong and is_added else right[subject]
        loss = cross_entropy(logits[:, options], labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.save_pretrained(out)
    return loss.item()


def main(folder: Path) -> None:
    """Make the base and the pool."""
    torch.set_num_threads(1)  # a model as small as this one loses more to waiting for threads than it gains
    write_base(folder / "base")
    for seed, job in enumerate(FINE_TUNES):
        loss = train_adapter(folder / "base", folder / "adapters" / job.name, job, seed)
        print(f"{folder / 'adapters' / job.name}: loss {loss:.3f}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
