"""Every row looked at once: is it good, what group is it of, how long is it.

Each row is read, its pictures' headers are read, and its tokens are counted where they might be too many. No pixel is
decoded unless `decode` is set, and no row is kept: 14 bytes of it are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xxhash

from finetune.data.corpus import Corpus
from finetune.data.processor_rows import ProcessorRows
from finetune.data.row_images import tiles_of
from finetune.data.rows import KINDS, Fault, Picture, RowError, Sample, texts_of
from finetune.data.tokens import RowTokenizer, knows_tiles
from finetune.points.processing import IMAGE_TOKEN
from finetune.points.token_layout import TileLayout, Tiles
from soup.errors import FinetuneError
from soup.support.text import bullet_list

__all__ = ["RowScan", "RowScanner", "group_of", "scan_rows"]

SHOWN, SHOWN_OF_A_KIND = 20, 5  # bad rows, in full
Size = tuple[int, int]
REMEMBERED = 2**16  # pictures whose headers are not read again
OnBadRow = Callable[[int, RowError], object]
"""Called with each bad row's index and all that is wrong with it."""


@dataclass
class RowScan:
    """What is known of the rows of a corpus [N].

    good     whether anything can be learnt from it
    groups   index in `finetune.data.mixture.GROUPS`
    lengths  tokens; 0 where they were not counted
    digests  of messages and pictures; equal for equal rows

    Of the bad rows `faults` counts each kind, `first` are some of each, in full. `formats` counts rows by format.
    """

    good: np.ndarray
    groups: np.ndarray
    lengths: np.ndarray
    digests: np.ndarray
    faults: Counter[str] = field(default_factory=Counter)
    formats: Counter[str] = field(default_factory=Counter)
    first: list[RowError] = field(default_factory=list)

    @property
    def bad(self) -> int:
        """The number of bad rows."""
        return int((~self.good).sum())

    def describe(self) -> str:
        """Give the bad rows in words, the first of them one by one."""
        kinds = ", ".join(f"{KINDS[kind]}: {n}" for kind, n in self.faults.most_common())
        rows = [str(error) for error in self.first]
        rows += [f"... and {self.bad - len(rows)} more"] * (self.bad > len(rows))
        return f"bad rows: {self.bad} of {len(self.good)} ({kinds}).\n{bullet_list(rows, SHOWN + 1)}"


class RowScanner:
    """Checks rows: are they good, and how long are they.

    Without a processor lengths are not known, and the image token is taken to be that of POINTS. `exact` counts the
    tokens of every row of POINTS, where otherwise those that can't be too many are left out; of other families all are
    counted. `decode` opens every picture in full.
    """

    def __init__(self, processor: Any, max_length: int, *, exact: bool = False, decode: bool = False):
        self.tokens = RowTokenizer(processor) if knows_tiles(processor) else None
        self.others = ProcessorRows(processor) if processor is not None and not self.tokens else None
        self.template = RowTokenizer(processor)
        self.image_tokens = [IMAGE_TOKEN] if processor is None else _image_tokens(processor)
        self.end_tokens = [] if processor is None else processor.tokenizer.convert_ids_to_tokens(self.template.ends)
        self.max_length, self.exact, self.decode = max_length, exact, decode
        self.seen: dict[str, Tiles | Size | Fault] = {}

    @property
    def counts(self) -> bool:
        """Whether tokens can be counted."""
        return self.tokens is not None or self.others is not None

    def faults(self, sample: Sample) -> list[Fault]:
        """Give what is wrong with the row's texts and pictures, beyond what its format tells."""
        faults = [
            Fault("image_token", f"turn {i} holds {token}, which stands for an image; write it otherwise")
            for i, text in enumerate(texts_of(sample), 1)
            for token in self.image_tokens
            if token in text
        ]
        faults += [
            Fault("end_token", f"turn {i} holds {token}, which ends a turn, before its end; take it out")
            for i, text in enumerate(texts_of(sample), 1)
            for token in self.end_tokens
            if token in text.rstrip().removesuffix(token)
        ]
        for k, picture in enumerate(sample["images"], 1):
            if isinstance(fault := self._measured(picture), Fault):
                faults.append(Fault(fault.kind, f"image {k}: {fault.text}"))
        return faults

    def _measured(self, picture: Picture) -> Tiles | Size | Fault:
        """Which tiles a picture will have, or its size for other families, or what is wrong with it; read once."""
        if picture.key not in self.seen:
            if len(self.seen) >= REMEMBERED:
                self.seen.clear()
            if self.others and picture.frames:
                self.seen[picture.key] = Fault("image_unreadable", "a video; POINTS models alone are trained on videos")
            elif self.tokens:
                self.seen[picture.key] = tiles_of(picture, self.tokens.tiles, self.decode)
            else:
                self.seen[picture.key] = tiles_of(picture, lambda width, height: (width, height), self.decode)
        return self.seen[picture.key]

    def length(self, sample: Sample) -> int:
        """Count the tokens of a row by its pictures' headers; 0 where they were not counted, because they are few.

        Raises:
            RowError: a picture's header can't be read.
            FinetuneError: the template can't write these messages.
        """
        measured = [self._measured(picture) for picture in sample["images"]]
        if faults := [fault for fault in measured if isinstance(fault, Fault)]:
            raise RowError(sample["where"], faults)
        if self.others:
            sizes = [size for size in measured if isinstance(size, tuple) and not isinstance(size, TileLayout)]
            return self.others.length(self.template.segments(sample["messages"]), sizes)
        if self.tokens is None:
            return 0
        tiles = [count for count in measured if isinstance(count, Tiles)]
        if not self.exact:
            bound = self.tokens.longest_possible(sample, tiles)
            if bound is not None and bound <= self.max_length:
                return 0
        return self.tokens.length(sample, tiles)


def scan_rows(
    corpus: Corpus,
    scanner: RowScanner,
    *,
    progress: Callable[[int, int], object] | None = None,
    on_bad_row: OnBadRow | None = None,
) -> RowScan:
    """Check all rows of a corpus.

    Args:
        corpus: the rows.
        scanner: what checks a row.
        progress: called with rows done and rows in all, now and then.
        on_bad_row: called with each bad row's index and all that is wrong with it.
    """
    n = len(corpus)
    scan = RowScan(np.ones(n, bool), np.zeros(n, np.int8), np.zeros(n, np.int32), np.zeros(n, np.uint64))
    for i in range(n):
        try:
            _scan_row(corpus, i, scanner, scan)
        except RowError as error:
            scan.good[i] = False
            scan.faults.update({fault.kind for fault in error.faults})
            if any(scan.faults[fault.kind] <= SHOWN_OF_A_KIND for fault in error.faults) and len(scan.first) < SHOWN:
                scan.first.append(error)
            if on_bad_row:
                on_bad_row(i, error)
        if progress and ((i + 1) % 1000 == 0 or i + 1 == n):
            progress(i + 1, n)
    return scan


def _scan_row(corpus: Corpus, i: int, scanner: RowScanner, scan: RowScan) -> None:
    """Write what is known of a row into the scan.

    Raises:
        RowError: it is bad.
    """
    sample = corpus[i]
    scan.formats[sample["format"]] += 1
    scan.groups[i] = group_of(sample)
    scan.digests[i] = _digest(corpus.without_examples(i) if corpus.has_examples(i) else sample)
    if faults := scanner.faults(sample):
        raise RowError(sample["where"], faults)
    try:
        scan.lengths[i] = length = scanner.length(sample)
    except FinetuneError as error:
        raise RowError(sample["where"], [Fault("unreadable", str(error))]) from error
    if length > scanner.max_length:
        text = f"{length} tokens, more than max_length {scanner.max_length}; shorten it, or raise max_length"
        raise RowError(sample["where"], [Fault("too_long", text)])


def _image_tokens(processor: Any) -> list[str]:
    """Give what a model takes for a picture, wherever it stands in a text."""
    if knows_tiles(processor):
        return [processor.image_token]
    named = (
        getattr(part, name, None)
        for part in (processor, processor.tokenizer)
        for name in ("image_token", "video_token")
    )
    return list(dict.fromkeys(token for token in named if token))


def group_of(sample: Sample) -> int:
    """Give the row's index in `GROUPS`: text alone, one image, several; a video is several."""
    pictures = sample["images"]
    return 2 if len(pictures) > 1 or any(picture.frames for picture in pictures) else len(pictures)


def _digest(sample: Sample) -> int:
    texts = [[message["role"], message["content"]] for message in sample["messages"]]
    pictures = [picture.key for picture in sample["images"]]
    return xxhash.xxh3_64_intdigest(repr((texts, pictures)).encode("utf-8", "surrogatepass"))
