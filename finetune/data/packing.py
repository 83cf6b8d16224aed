"""Several rows in one sequence: which of them go together.

The positions of a run are taken in windows, and each window's rows are laid into packs by first fit: the longest rows
first, each into the first pack that it fits into. What a pack holds depends on its own window alone, so a run may
start anywhere: to find the window of pack n, the rows before it are counted again, and no picture is opened for that.

Source: first fit decreasing, Johnson, 1973; packing of training rows, Krell et al., arXiv 2107.02027.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence

__all__ = ["Packs", "first_fit"]

WINDOW = 256  # rows; the last pack of a window may stay half empty, so larger windows waste less and mix less


def first_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Give indices of `lengths` by pack, none of more than `capacity` in sum; packs and indices in order of index.

    Raises:
        ValueError: a length above the capacity.
    """
    packs: list[list[int]] = []
    left: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if lengths[i] > capacity:
            raise ValueError(f"a row of {lengths[i]} tokens for packs of {capacity}")
        which = next((k for k, tokens in enumerate(left) if tokens >= lengths[i]), None)
        if which is None:
            which = len(packs)
            packs.append([])
            left.append(capacity)
        packs[which].append(i)
        left[which] -= lengths[i]
    return sorted(sorted(pack) for pack in packs)


class Packs:
    """The packs of a run, one after another: `packs[n]` is the positions in pack n.

    Args:
        length_at: gives the tokens of the row at a position.
        capacity: tokens of a pack.
        window: rows that are laid into packs together.
        end: a window ends here too, so that no pack holds rows of both sides; 0: no such position.
    """

    def __init__(self, length_at: Callable[[int], int], capacity: int, window: int = WINDOW, end: int = 0):
        self.length_at, self.capacity, self.window, self.end = length_at, capacity, window, end
        self.begins = [0]  # the number of the first pack of each window that is known, and of the next one
        self.latest: tuple[int, list[list[int]]] = (-1, [])

    def __getitem__(self, n: int) -> list[int]:
        while self.begins[-1] <= n:
            self.begins.append(self.begins[-1] + len(self._of_window(len(self.begins) - 1)))
        which = bisect_right(self.begins, n) - 1
        return self._of_window(which)[n - self.begins[which]]

    def count(self) -> int:
        """Count the packs before the end."""
        windows = -(-self.end // self.window)
        while len(self.begins) <= windows:
            self.begins.append(self.begins[-1] + len(self._of_window(len(self.begins) - 1)))
        return self.begins[windows]

    def _of_window(self, which: int) -> list[list[int]]:
        if self.latest[0] != which:
            positions = self._positions(which)
            lengths = [self.length_at(position) for position in positions]
            packs = [[positions[i] for i in pack] for pack in first_fit(lengths, self.capacity)]
            self.latest = (which, packs)
        return self.latest[1]

    def _positions(self, which: int) -> range:
        """Return the positions of a window: the one before the end may be short, and those behind it begin there."""
        first = which * self.window
        if first < self.end:
            return range(first, min(first + self.window, self.end))
        begin = first - -self.end % self.window
        return range(begin, begin + self.window)
