"""The files that VLMEvalKit's own `evaluate` reads and writes on its way, as far as they are kept in memory."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from evaluators.answering.judge_session import JudgeSession
from evaluators.vlmeval.library_types import IMAGE_COLUMNS, DataSet, Frame
from evaluators.vlmeval.light_import import vlmeval_module
from evaluators.vlmeval.rule import PointsOf, Rule
from evaluators.vlmeval.stand_ins import SerialPool, SilentBar, SilentLogger, SteadyDice

__all__ = ["LibraryFiles", "LibraryImages", "LibraryPandas"]


class _Maker:
    """Stands for a class of VLMEvalKit's in its class methods: it makes the data set that there is already."""

    def __init__(self, data_set: DataSet) -> None:
        self._data_set = data_set

    def __call__(self, *_: object) -> DataSet:
        return self._data_set

    def __getattr__(self, name: str) -> Any:
        return getattr(self._data_set, name)


class LibraryImages:
    """Stands for `PIL.Image` where `evaluate` opens the images that VLMEvalKit would have written into its folder."""

    def __init__(self, data_set: DataSet) -> None:
        self._data_set = data_set

    def __getattr__(self, name: str) -> Any:
        from PIL import Image

        return getattr(Image, name)

    def open(self, file: Any, *settings: object, **options: object) -> Any:
        """Open an image: that of the row to which the name of a file belongs, or else the file."""
        from PIL import Image

        cell = self._cells.get(Path(file)) if isinstance(file, str) else None
        return Image.open(file if cell is None else io.BytesIO(base64.b64decode(cell)), *settings, **options)

    @cached_property
    def _cells(self) -> dict[Path, str]:
        """Return the images of all rows as base64, by the files that VLMEvalKit would make of them."""
        rows = self._data_set.whole.to_dict("records") if "image" in self._data_set.whole else ()
        named = [(name, row["image"]) for row in rows for name in (row.get("image_path"), f"{row['index']}.png")]
        root = Path(getattr(self._data_set, "img_root", ""))
        return {root / name: cell for name, cell in named if isinstance(name, str)}


class LibraryPandas:
    """Stands for `pandas` where `evaluate` reads tables back by itself: Excel's files stay in memory.

    Args:
        load: Reads a file of VLMEvalKit's.
    """

    def __init__(self, load: Callable[[str], Any]) -> None:
        self._load = load

    def __getattr__(self, name: str) -> Any:
        import pandas

        return getattr(pandas, name)

    def read_excel(self, file: str, **_: object) -> Any:
        """Read a table."""
        return self._load(file)


class LibraryFiles:
    """What `evaluate` reads and writes: Excel's files stay in memory, every table is remembered as it was written."""

    def __init__(self, folder: Path, name: str) -> None:
        library = vlmeval_module("smp")
        self._load, self._dump = library.load, library.dump
        self._folder, self._name, self._calls = folder, name, 0
        self._kept: dict[str, Frame] = {}
        self._rows: Frame = ()
        self._keeps_tables = False
        self.tables: list[Frame] = []
        self.points: dict[object, float] = {}

    def read_back(self, frame: Frame, whole: Frame) -> Frame:
        """Return the rows as VLMEvalKit reads them from the file that it writes, but every answer as text.

        A part of the rows reads back as it does among all of them: where all of its cells look like numbers and others
        do not, they are texts.

        Args:
            frame: Some of a data set's rows, with a column of predictions.
            whole: All of them.
        """
        file = str(self._folder / "rows.tsv")
        is_part = len(frame) < len(whole) and whole.index.is_unique
        rows = whole.drop(columns=[*IMAGE_COLUMNS], errors="ignore") if is_part else frame
        self._dump(rows, file)
        read = self._load(file)
        if is_part:
            read = read.set_axis(whole.index).loc[frame.index].reset_index(drop=True)
        return read.assign(prediction=[str(answer) for answer in frame["prediction"]])

    def evaluate(self, rule: Rule, data_set: DataSet, rows: Frame, judge: JudgeSession | None) -> Any:
        """Call the data set's `evaluate` on rows, in a fresh folder: it takes what it finds there for its own."""
        self._calls += 1
        folder = self._folder / str(self._calls)
        folder.mkdir()
        file = str(folder / f"soup_{self._name}.{rule.call.suffix}")
        Path(file).touch()
        self._rows, self._keeps_tables = rows, rule.call.keeps_tables
        self._kept[file] = rows.set_axis(list(rows["index"])) if rule.call.by_index else rows
        settings: dict[str, object] = dict(rule.call.settings)
        if judge is not None:
            settings |= {"nproc": 4, **({"model": "judge"} if rule.call.takes_model else {})}
        elif rule.judge == "may":
            settings |= {"model": "exact_matching"}
        if rule.call.reads_itself:  # of a class method the first argument makes the data set: these rows are it
            return getattr(data_set.evaluate, "__func__", data_set.evaluate)(_Maker(data_set), file, **settings)
        return data_set.evaluate(file, **settings)

    def names(self, judge: JudgeSession | None) -> dict[str, object]:
        """Return what the names of VLMEvalKit's modules that touch files or run things at once stand for."""
        return {
            "load": self.load,
            "dump": self.dump,
            "track_progress_rich": self._rows_by(judge),
            "tqdm": SilentBar(),
            "mp": SerialPool(),
            "rd": SteadyDice(),
            "random": SteadyDice(),
            "logger": SilentLogger(),
            "pd": LibraryPandas(self.load),
            "rotational_eval": lambda *_: None,  # TDBench: it looks for the files of other rotations
        }

    def load(self, file: str, **options: object) -> Any:
        """Read a file of VLMEvalKit's."""
        kept = self._kept.get(str(file))
        if kept is None:
            return self._load(file, **options)
        return self._table_class(kept, copy=True) if self._keeps_tables else kept.copy()

    @cached_property
    def _table_class(self) -> type[Frame]:
        """The class of tables that are written here if they are told to write themselves, as are copies of them."""
        from pandas import DataFrame

        def to_excel(table: Frame, file: str, **_: object) -> None:
            self.dump(table, file)

        return type("Table", (DataFrame,), {"_constructor": property(type), "to_excel": to_excel})

    def dump(self, data: Any, file: str, **options: object) -> None:
        """Write a file of VLMEvalKit's."""
        if isinstance(data, list) and data and all(isinstance(row, Mapping) for row in data):
            self.tables.append(type(self._rows)(data))
        if hasattr(data, "columns"):
            self.tables.append(data.copy())
            if self._keeps_tables or str(file).endswith(".xlsx") or str(file) in self._kept:
                self._kept[str(file)] = data.copy()
                Path(file).touch()
                return
        self._dump(data, file, **options)

    def listeners(self, points_from: Mapping[str, PointsOf]) -> dict[str, object]:
        """Return functions of VLMEvalKit's, by name, that also keep in `points` what they say of each row's index."""
        return {name.rpartition(".")[2]: self._listener(name, points_of) for name, points_of in points_from.items()}

    def _listener(self, name: str, points_of: PointsOf) -> Callable[..., Any]:
        module, _, attribute = name.rpartition(".")
        function = getattr(vlmeval_module(module), attribute)

        def call(table: Frame, *settings: object) -> Any:
            result = function(table, *settings)
            rows = table.to_dict("records") if hasattr(table, "columns") else table
            indices = [row["index"] for row in rows] if rows and "index" in rows[0] else [*self._rows["index"]]
            self.points.update(zip(indices, map(float, points_of(rows, result)), strict=True))
            return result

        return call

    def _remember(self, values: Sequence[Any]) -> None:
        """Take what a function says of every row for a table: some of VLMEvalKit's write none."""
        if len(values) == len(self._rows) and all(isinstance(value, Mapping) for value in values):
            columns = {name: [value.get(name) for value in values] for name in values[0]}
            self.tables.append(self._rows[["index"]].assign(**columns))

    def _rows_by(self, judge: JudgeSession | None) -> Callable[..., list[Any]]:
        def track(
            func: Callable[..., Any],
            tasks: Sequence[Any] = (),
            nproc: int | None = 1,
            save: str | None = None,
            keys: Sequence[object] | None = None,
            **_: object,
        ) -> list[Any]:
            def call(index: int) -> Any:
                task = tasks[index]
                if isinstance(task, Mapping):
                    return func(**task)
                return func(*task) if isinstance(task, tuple | list) else func(task)

            values = judge.map(call, range(len(tasks))) if judge else [call(index) for index in range(len(tasks))]
            self._remember(values)
            if save is not None and keys is not None:
                before = self._load(save) if Path(save).exists() else {}
                self._dump({**before, **dict(zip(keys, values, strict=True))}, save)
            return values

        return track
