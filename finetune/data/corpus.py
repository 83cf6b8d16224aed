"""Several data sets as one sequence of rows, each read when it is indexed."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path

from finetune.config import DataSet
from finetune.data.examples import chosen_examples, with_examples
from finetune.data.files import RowFile, open_file
from finetune.data.formats import read_row
from finetune.data.grounded_rows import grounded
from finetune.data.rows import Fault, RowError, Sample, texts_of
from soup.errors import FinetuneError
from soup.support.text import bullet_list

__all__ = ["Corpus"]


class Corpus:
    """The rows of data sets, one set after another.

    Raises:
        FinetuneError: data sets that can't be opened; all of them are listed.
    """

    def __init__(self, data_sets: Sequence[DataSet]):
        self.data_sets = tuple(data_sets)
        self.files = _open_files(self.data_sets)
        self.sizes = [len(file) for file in self.files]
        self.begins = [0, *accumulate(self.sizes)]
        for data_set, rows in zip(self.data_sets, self.sizes, strict=True):
            if rows <= (shots := data_set.shots or 0) != 0:
                raise FinetuneError(f"{data_set.path}: shots {shots}: expected more rows than that, found {rows}.")

    def __len__(self) -> int:
        return self.begins[-1]

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, i: int) -> Sample:
        """Give row `i` as a `Sample`, with its examples, where its data set asks for some.

        Raises:
            RowError: it can't be read, or one of its examples.
        """
        which = self.set_of(i)
        begin, shots = self.begins[which], self.data_sets[which].shots
        if not shots:
            return self.without_examples(i)
        examples = chosen_examples(i - begin, self.sizes[which], shots)
        return with_examples(self.without_examples(i), [self.without_examples(begin + example) for example in examples])

    def without_examples(self, i: int) -> Sample:
        """Give row `i` as a `Sample`, alone.

        Raises:
            RowError: it can't be read.
        """
        which = self.set_of(i)
        data_set, file, index = self.data_sets[which], self.files[which], i - self.begins[which]
        where = file.where(index)
        root = Path(data_set.images) if data_set.images else file.root
        try:
            raw = file[index]
        except (ValueError, OSError) as error:
            raise RowError(where, [Fault("unreadable", f"not a row in JSON ({error})")]) from error
        sample = read_row(raw, where, root, data_set.format, data_set.frames, data_set.columns)
        return grounded(sample, data_set.coordinates, data_set.coordinates_as) if data_set.coordinates else sample

    def has_examples(self, i: int) -> bool:
        """Whether examples stand before the question of row `i`."""
        return bool(self.data_sets[self.set_of(i)].shots)

    def set_of(self, i: int) -> int:
        """Give the index of the data set that row `i` is of.

        Raises:
            IndexError: there is no such row.
        """
        if not 0 <= i < len(self):
            raise IndexError(i)
        return bisect_right(self.begins, i) - 1

    def texts(self) -> Iterator[str]:
        """Give the texts of all messages of the first data set's good rows, without pictures."""
        for i in range(self.begins[1] if self.sizes else 0):
            try:
                sample = self.without_examples(i)
            except RowError:
                continue
            yield from texts_of(sample)


def _open_files(data_sets: Sequence[DataSet]) -> list[RowFile]:
    files, faults = [], []
    for data_set in data_sets:
        try:
            files.append(open_file(data_set))
        except FinetuneError as error:
            faults.append(str(error))
    if len(faults) == 1:
        raise FinetuneError(faults[0])
    if faults:
        raise FinetuneError(f"{len(faults)} data sets can't be opened:\n{bullet_list(faults)}")
    return files
