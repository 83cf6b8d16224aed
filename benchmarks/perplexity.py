"""What the arithmetic of a perplexity filter decides: rows kept by float32 logarithms, and by the published way.

    python benchmarks/perplexity.py CHECKPOINT DATA --rows 400 --keep 0.2

The published script of POINTS casts probabilities to bfloat16 before it takes their logarithm: every one above .998
becomes 1. Both ways see the same logits here.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
import torch

from evaluators.answering.engines.answer_loss import answer_logits
from evaluators.answering.engines.transformers import TransformersModel, few_threads
from finetune.config import DataSet
from finetune.data.filtering import KeepRule
from finetune.data.source_rows import SourceRows, exchange_of, picture_files


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("data")
@click.option("--rows", "count", default=400, help="Rows to score, spread over the data set.")
@click.option("--keep", default=0.2)
def main(checkpoint: Path, data: str, count: int, keep: float) -> None:
    """Score rows both ways, and count the kept ones that differ."""
    rows, model = SourceRows(DataSet(path=data)), TransformersModel(checkpoint)
    chosen = range(0, len(rows), max(1, len(rows) // count))[:count]
    exact, published = [], []
    with tempfile.TemporaryDirectory() as folder:
        for i in chosen:
            losses = _losses(model, rows, i, Path(folder))
            exact.append(losses[0])
            published.append(losses[1])
    kept = KeepRule(keep).count(torch.tensor(exact).numpy())
    sets = [set(sorted(range(len(chosen)), key=lambda i: (losses[i], i))[:kept]) for losses in (exact, published)]
    differ, ones = len(sets[0] - sets[1]), sum(loss == 0 for loss in published)
    print(f"{len(chosen)} rows, {kept} kept: {differ} of them are others in bfloat16 ({differ / kept:.1%})")
    print(f"different losses: {len(set(exact))} in float32, {len(set(published))} in bfloat16, {ones} of them 0")


def _losses(model: TransformersModel, rows: SourceRows, i: int, folder: Path) -> tuple[float, float]:
    """Give an answer's mean negative log likelihood: in float32, and by probabilities that bfloat16 rounded."""
    exchange = exchange_of(rows.sample(i))
    with picture_files(exchange.pictures, folder, str(i)) as files, few_threads(model.module), torch.inference_mode():
        paths = iter(files)
        parts = [
            {"type": "image", "value": next(paths)} if part is None else {"type": "text", "value": part}
            for part in exchange.parts
        ]
        inputs = model._prompter([parts]).to(model.module.device, dtype=model.module.dtype)
        answer = model.tokenizer(exchange.answer, add_special_tokens=False, return_tensors="pt")["input_ids"]
        logits = answer_logits(model.module, inputs, answer.to(model.module.device)).float()
    logs = logits.log_softmax(-1).gather(1, answer.T)
    rounded = logits.softmax(-1).gather(1, answer.T).bfloat16().log()
    return -logs.mean().item(), -rounded.float().mean().item()


if __name__ == "__main__":
    main()
