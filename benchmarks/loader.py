"""Does the loader keep ahead of the model? Pictures of 1 megapixel into batches, by worker processes.

Made on the spot: JPEGs of 1155 x 866 pixels with a photograph's detail, one to a row, an answer of 30 words. A row is
read, decoded, cut into 7 tiles of 336 (CATTY), tokenised (1,008 image tokens and the words), and padded into a batch.
The bar is a consumer of 200 images/s on 2 cores; where that is not reached, the table says how far it gets.

Beside it a pipeline of `datasets` with the same processor and the same tiles: `cast_column(Image)`, `with_transform`,
torch's DataLoader with as many workers, the processor called on each batch. (`map` would write the tiles of every
picture to disk first: 9.5 MB each.)

Seconds of the clock depend on what else the machine does; those of the processor, which are counted over all processes,
depend on it less.

    python benchmarks/loader.py                    two minutes
    python benchmarks/loader.py --rate 100         another consumer
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import click
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader

from finetune.config import DataSet, TrainSettings
from finetune.data import Collator, Corpus, FeatureCache, TrainingRows
from finetune.points.images import PointsImageProcessor
from finetune.points.processing import PointsProcessor
from finetune.points.tiny import tiny_tokenizer

WORK = Path(__file__).parent / "work" / "loader"
WIDTH, HEIGHT = 1155, 866
QUESTION = "What is to be seen in this picture? Describe it in detail."
ANSWER = " ".join(["Hills in the mist, and a road that leads to the sea."] * 3)
BATCH = 8


class Run(NamedTuple):
    """Images after the first batch, seconds for them, processor seconds an image, the consumer's share of waiting."""

    images: int
    seconds: float
    cpu_per_image: float
    waited: float

    @property
    def rate(self) -> float:
        return self.images / self.seconds


@click.command()
@click.option("--images", default=240, show_default=True, help="Images of a round.")
@click.option("--workers", default=2, show_default=True, help="Processes that decode.")
@click.option("--rate", default=200.0, show_default=True, help="Images/s that the consumer would take.")
@click.option("--rounds", default=3, show_default=True, help="Rounds of each; the one with the best rate counts.")
def main(images: int, workers: int, rate: float, rounds: int) -> None:
    """Make the pictures, run all loaders, print a table."""
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    try:
        make_pictures(WORK, 48)
        click.echo(report(measured(images, workers, rate, rounds), workers, rate))
    finally:
        shutil.rmtree(WORK)


def measured(images: int, workers: int, rate: float, rounds: int) -> dict[str, tuple[Run, Run]]:
    """Each loader as fast as it can, and against the consumer; all in turn in each round, so that noise hits all."""
    loaders: dict[str, Callable[[], Iterable[Any]]] = {
        "soup": lambda: ours(images, workers, processor("pillow"), as_bytes=False),
        "soup, tiles as bytes": lambda: ours(images, workers, processor("pillow"), as_bytes=True),
        "soup, tiles as bytes, `resizer: torch`": lambda: ours(images, workers, processor("torch"), as_bytes=True),
        "datasets": lambda: theirs(images, workers, processor("pillow")),
        "datasets, `resizer: torch`": lambda: theirs(images, workers, processor("torch")),
    }
    best: dict[str, tuple[Run, Run]] = {}
    for _ in range(rounds):
        for name, loader in loaders.items():
            free, fed = consume(loader(), None), consume(loader(), rate)
            if name not in best or free.rate > best[name][0].rate:
                best[name] = free, fed
    return best


def consume(batches: Iterable[Any], rate: float | None) -> Run:
    """Take all batches, each in the time that a model of that rate would need (the processor is free meanwhile)."""
    before = cpu_seconds()
    images, waited, began = 0, 0.0, 0.0
    requested = time.perf_counter()
    for batch in batches:
        now = time.perf_counter()
        if not began:  # the first batch is what the workers' start costs
            began = now
        else:
            waited += now - requested
            images += len(batch["input_ids"])
        if rate:
            time.sleep(len(batch["input_ids"]) / rate)
        requested = time.perf_counter()
    seconds = time.perf_counter() - began
    return Run(images, seconds, (cpu_seconds() - before) / (images + BATCH), waited / seconds)


def cpu_seconds() -> float:
    """Of this process and of those of its children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def ours(images: int, workers: int, processor: Any, as_bytes: bool) -> Iterable[Any]:
    """Soup's rows and collator, as a training job reads them."""
    settings = TrainSettings(lr=1, steps=images // BATCH, global_batch_size=BATCH, max_length=4096)
    rows = TrainingRows(Corpus([DataSet(path=str(WORK))]), settings, processor)
    collate = Collator(processor, FeatureCache(0), max_length=4096, as_bytes=as_bytes)
    return DataLoader(rows, BATCH, num_workers=workers, collate_fn=collate, multiprocessing_context="fork")


def theirs(images: int, workers: int, processor: Any) -> Iterable[Any]:
    """Load the same by `datasets`: pictures decoded by its Image feature, text and tiles by the same processor."""
    import datasets

    rows = json.loads((WORK / "data.json").read_text())
    table = datasets.Dataset.from_dict(
        {"image": [str(WORK / rows[i % len(rows)]["image"]) for i in range(images)], "answer": [ANSWER] * images}
    )
    table = table.cast_column("image", datasets.Image()).shuffle(seed=0).with_transform(lambda batch: batch)

    def collate(batch: list[dict[str, Any]]) -> dict[str, Any]:
        ask = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}]
        question = processor.apply_chat_template(ask, add_generation_prompt=True, tokenize=False)
        texts = [f"{question}{row['answer']}<|im_end|>\n" for row in batch]
        made = processor(
            images=[[row["image"].convert("RGB")] for row in batch], text=texts, padding=True, return_tensors="pt"
        )
        prompt = (
            len(processor.tokenizer(question)["input_ids"]) + made["input_ids"].eq(processor.image_token_id).sum(1) - 1
        )
        labels = made["input_ids"].masked_fill(made["attention_mask"] == 0, -100)
        for row, n in zip(labels, prompt, strict=True):
            row[: int(n)] = -100
        return {**made, "labels": labels}

    return DataLoader(table, BATCH, num_workers=workers, collate_fn=collate, multiprocessing_context="fork")


def processor(resizer: str) -> Any:
    """POINTS' tiles, 7 of each picture, and a small tokenizer."""
    tokenizer = tiny_tokenizer([QUESTION, ANSWER])
    tokenizer.model_max_length = 4096
    return PointsProcessor(PointsImageProcessor(resizer=resizer), tokenizer, tokens_per_tile=144)


def make_pictures(root: Path, count: int) -> None:
    """JPEGs of quality 90, smooth shapes under fine grain: about as many bytes as photographs of that size have."""
    noise = np.random.default_rng(0)
    for i in range(count):
        shapes = Image.fromarray(noise.integers(0, 255, (HEIGHT // 32, WIDTH // 32, 3), dtype=np.uint8))
        pixels = np.asarray(shapes.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)).astype(np.int16)
        pixels = pixels + noise.normal(0, 5, (HEIGHT, WIDTH, 1)).astype(np.int16)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / f"{i}.jpg", quality=90)
    turns = [{"from": "human", "value": f"<image>\n{QUESTION}"}, {"from": "gpt", "value": ANSWER}]
    rows = [{"image": f"{i}.jpg", "conversations": turns} for i in range(count)]
    (root / "data.json").write_text(json.dumps(rows))


def report(runs: dict[str, tuple[Run, Run]], workers: int, rate: float) -> str:
    """Return the table as Markdown."""
    base = runs["datasets"][0].rate
    kilobytes = np.mean([path.stat().st_size for path in WORK.glob("*.jpg")]) / 1000
    lines = [
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} (this among it), {workers} workers, "
        f"batches of {BATCH}, JPEGs of {kilobytes:.0f} kB.",
        "",
        f"| | images/s | of datasets | processor ms an image | of {rate:g} images/s, the consumer gets | and waits |",
        "| --- | --: | --: | --: | --: | --: |",
    ]
    for name, (free, fed) in runs.items():
        lines.append(
            f"| {name} | {free.rate:.0f} | {free.rate / base:.2f} | {free.cpu_per_image * 1000:.1f} | {fed.rate:.0f} | "
            f"{fed.waited:.0%} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
