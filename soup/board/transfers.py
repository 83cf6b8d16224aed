"""Bytes and rows on the board: what is being merged, read, downloaded or checked."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from soup.board.layout import cut
from soup.support.text import format_bytes, format_duration

__all__ = ["TransferSection"]

LONGEST_NAME = 30


class TransferSection:
    """One bar, of bytes or of rows: what comes next takes the place of what was before.

    Args:
        console: What the bars are drawn for.
    """

    def __init__(self, console: Console) -> None:
        name, left = TextColumn("{task.description}", markup=False), TimeRemainingColumn(compact=True)
        columns = (name, BarColumn(20), DownloadColumn(), TransferSpeedColumn(), left)
        self._bytes = Progress(*columns, console=console, auto_refresh=False)
        self._rows = Progress(name, BarColumn(20), MofNCompleteColumn(), left, console=console, auto_refresh=False)
        self._name = ""

    def begin(self, name: str, total_bytes: int) -> None:
        """Show a bar for the bytes that follow."""
        self.end()
        self._name = name
        self._bytes.add_task(cut(name, LONGEST_NAME), total=total_bytes)

    def advance(self, count: int) -> None:
        """Move the bar on by so many bytes."""
        for task in self._bytes.task_ids:
            self._bytes.advance(task, count)

    def show_download(self, name: str, count: int, total_bytes: int) -> None:
        """Show how many bytes of a download are here; its total grows with the files that were begun."""
        if name != self._name or not self._bytes.task_ids:
            self.begin(name, total_bytes)
        for task in self._bytes.task_ids:
            self._bytes.update(task, completed=count, total=total_bytes)

    def show_rows(self, name: str, done: int, count: int) -> None:
        """Show how many of so many rows are done."""
        if name != self._name or not self._rows.task_ids:
            self.end()
            self._name = name
            self._rows.add_task(cut(name, LONGEST_NAME), total=count)
        for task in self._rows.task_ids:
            self._rows.update(task, completed=done)

    def end(self) -> None:
        """Show nothing any more."""
        for bars in (self._bytes, self._rows):
            for task in bars.task_ids:
                bars.remove_task(task)

    def lines(self, width: int, height: int) -> list[Text]:
        """Return the bar's line, where there is one."""
        bars = next((bars for bars in (self._bytes, self._rows) if bars.task_ids), None)
        if bars is None or not height:
            return []
        options = bars.console.options.update(width=width)
        rendered = bars.console.render_lines(bars.get_renderable(), options, pad=False)
        return [Text.assemble(*((each.text, each.style or "") for each in line), no_wrap=True) for line in rendered[:1]]

    def line(self) -> str:
        """Return how far it is, in one line; nothing where nothing is under way."""
        for bars, shown in ((self._bytes, lambda count: format_bytes(int(count))), (self._rows, "{:,.0f}".format)):
            for task in bars.tasks:
                if task.total and not task.finished:
                    left = f", about {format_duration(task.time_remaining)} left" if task.time_remaining else ""
                    return f"{self._name}: {shown(task.completed)} of {shown(task.total)}{left}"
        return ""
