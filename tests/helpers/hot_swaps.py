"""What the tests of hot swaps share: candidates as a search has them, and an engine that is a module alone."""

from __future__ import annotations

from contextlib import contextmanager

from transformers import AutoModelForImageTextToText

from evaluators.answering import hot_swap
from evaluators.answering.hot_swap import HotSwap
from soup.checkpoints.digest import digest_checkpoint
from soup.checkpoints.reader import Checkpoint
from soup.evaluation.candidate import SoupCandidate
from soup.evaluation.settings import EvalSettings
from soup.merging.pool import Pool
from tests.helpers.merge_oracle import recipe_of


@contextmanager
def candidate_of(pool, home, **fields):
    """The mean of a folder's checkpoints as a search has it: digests known, nothing written yet."""
    with Pool(pool, fields.get("base")) as opened:
        bases = [opened.base] if "base" in fields else []
        digests = [digest_checkpoint(part.checkpoint) for part in [*opened, *bases]]
        recipe = recipe_of(pool, **fields).sealed([digest.content for digest in digests], "sha256:" + "0" * 64)
        candidate = SoupCandidate(recipe, opened, home, digests)
        yield candidate
        candidate.remove()


def on_disk(directory):
    with Checkpoint(directory) as checkpoint:
        return list(checkpoint.tensors)


def load(directory):
    return AutoModelForImageTextToText.from_pretrained(directory, dtype="auto")


def bare_swap(monkeypatch):
    """A HotSwap whose model is a module alone: these checkpoints have no processor."""

    class Bare:
        def __init__(self, directory):
            self.module = load(directory)

        def answer(self, prompts): ...

    monkeypatch.setattr(hot_swap, "_model_factory", lambda settings: Bare)
    monkeypatch.setattr(hot_swap, "side_files_digest", lambda directory: "the same")
    return HotSwap(EvalSettings())
