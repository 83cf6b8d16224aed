"""Rows as the model sees them: their tokens as text, what is learnt marked, images counted and not spelt out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from finetune.data import IGNORED, Collator, Corpus, FeatureCache, RowTokenizer
from finetune.data.held_out import training_row
from finetune.data.row_scan import RowScanner
from finetune.data.tokens import knows_tiles
from finetune.jobs import Job, read_plan
from finetune.launching.data_check import open_start_processor
from finetune.training.other_families import ProcessorCollator
from soup.errors import FinetuneError

__all__ = ["LEARNT", "show_rows"]

LEARNT = "\u27e6{}\u27e7"  # white square brackets, which texts hardly hold


def show_rows(config_path: Path | str, count: int) -> Iterator[str]:
    """Give the first good rows of each data set that is here as its start's model sees them.

    Args:
        config_path: the YAML file.
        count: rows of each data set.

    Raises:
        FinetuneError: the start, whose tokenizer and template make the rows, is not here.
    """
    _, _, jobs = read_plan(config_path)
    processor = open_start_processor(jobs)
    if processor is None:
        raise FinetuneError(
            f"{config_path}: rows can be shown once the start is here, for its tokenizer and template make them."
        )
    return _rows(jobs, processor, count)


def _rows(jobs: Sequence[Job], processor: Any, count: int) -> Iterator[str]:
    length = max(job.settings.max_length for job in jobs)
    collator = Collator(processor, FeatureCache(0)) if knows_tiles(processor) else ProcessorCollator(processor, length)
    scanner, tokens = RowScanner(processor, length, exact=True), RowTokenizer(processor)
    for data_set in {repr(each): each for job in jobs for each in job.data}.values():
        try:
            corpus, shown = Corpus([data_set]), 0
        except FinetuneError:  # --check tells of it
            continue
        for i in range(len(corpus)):
            if shown == count:
                break
            try:
                if scanner.faults(corpus[i]):
                    continue
                row = training_row(corpus, i, tokens, i)
                batch = collator([row])
            except FinetuneError:  # as above
                continue
            shown += 1
            yield _shown(row["where"], batch, processor)


def _shown(where: str, batch: dict[str, Any], processor: Any) -> str:
    ids, labels = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
    learnt = sum(label != IGNORED for label in labels)
    parts = []
    for is_learnt, members in groupby(zip(ids, labels, strict=True), lambda pair: pair[1] != IGNORED):
        text = "".join(_words([token for token, _ in members], processor))
        parts.append(LEARNT.format(text) if is_learnt else text)
    return f"{where}: {len(ids)} tokens, {learnt} learnt\n{''.join(parts)}"


def _words(ids: list[int], processor: Any) -> Iterator[str]:
    """Yield the text of tokens; of an image token that stands several times, how often."""
    for token, members in groupby(ids, lambda token: token if _stands_for_image(token, processor) else None):
        some = list(members)
        if token is None:
            yield processor.tokenizer.decode(some, clean_up_tokenization_spaces=False)
        else:
            name = processor.tokenizer.decode([token])
            yield name if len(some) == 1 else f"{name} x {len(some)}"


def _stands_for_image(token: int, processor: Any) -> bool:
    return token in (
        getattr(processor, "image_token_id", None),
        processor.tokenizer.convert_tokens_to_ids(processor.image_token),
    )
