"""What is wrong with the data, before the first GPU hour: every row of every data set looked at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from finetune.config import DataSet, TrainSettings
from finetune.data.corpus import Corpus
from finetune.data.mixture import GROUPS, strata_of
from finetune.data.row_scan import RowScan, RowScanner, scan_rows
from finetune.data.rows import RowError
from soup.errors import FinetuneError
from soup.support.text import bullet_list

__all__ = ["COLUMNS", "DataReport", "JobData", "SetReport", "check_data"]

COLUMNS = ("data set", "of", "rows", "bad", "text", "one image", "several", "repeated", "tokens", "longest")
Progress = Callable[[str, int, int], object]
"""Called with a data set's path, rows done, and rows in all."""


@dataclass(frozen=True)
class JobData:
    """What one job trains on, and how: which rows are bad, and the mixture, depend on its settings."""

    name: str
    data: Sequence[DataSet]
    settings: TrainSettings


@dataclass(frozen=True)
class SetReport:
    """What one data set holds.

    Args:
        path: The data set's.
        of: `base`, or the name of an added set, or several that share it.
        rows: How many rows it has, the bad ones among them.
        bad: How many rows can't be learnt from.
        formats: How many rows have each format.
        groups: How many rows are of each group (`finetune.data.mixture.GROUPS`).
        faults: The bad rows by kind (the keys of `finetune.data.rows.KINDS`).
        first: Some of the bad rows, in full.
        repeated: How many rows were there before in the same data set.
        shared: How many rows are those of other sets, by their path.
        tokens: Of all rows; None without a processor.
        longest: The tokens of the longest row; None without a processor.
    """

    path: str
    of: tuple[str, ...]
    rows: int
    bad: int
    formats: dict[str, int]
    groups: dict[str, int]
    faults: dict[str, int]
    first: tuple[str, ...]
    repeated: int
    shared: dict[str, int]
    tokens: int | None
    longest: int | None

    def line(self) -> tuple[str, ...]:
        """Give this data set's values for `COLUMNS`."""
        counts = [self.rows, self.bad, *(self.groups.get(group, 0) for group in GROUPS), self.repeated]
        lengths = ["" if n is None else f"{n:,}" for n in (self.tokens, self.longest)]
        return (self.path, ", ".join(self.of), *(f"{n:,}" for n in counts), *lengths)


@dataclass(frozen=True)
class DataReport:
    """What all data sets hold. `errors` must be mended before training; `notes` need not."""

    sets: tuple[SetReport, ...]
    errors: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether training could begin."""
        return not self.errors

    def as_json(self) -> dict[str, object]:
        """Give the report for machines."""
        return {"schema": 1, "ok": self.ok, **json.loads(json.dumps(asdict(self)))}

    def lines(self) -> list[tuple[str, ...]]:
        """Give one line for each data set, under `COLUMNS`."""
        return [data_set.line() for data_set in self.sets]

    def require(self) -> None:
        """Raise FinetuneError with all errors, if there are any."""
        if self.errors:
            raise FinetuneError(f"the data is not fit to train on:\n{bullet_list(self.errors)}")


def check_data(
    base: Sequence[DataSet],
    added: Mapping[str, Sequence[DataSet]],
    settings: TrainSettings,
    processor: Any = None,
    progress: Progress | None = None,
    *,
    jobs: Sequence[JobData] = (),
    decode: bool = False,
    faults_to: Path | None = None,
) -> DataReport:
    """Look at every row of every data set once, however many jobs train on it.

    Args:
        base: the base set D.
        added: the added sets d_i by name.
        settings: `max_length`, whether bad rows are errors (`on_bad_row`), and `mixture`.
        processor: counts tokens, those of images by the sizes in their headers; without it lengths are not known.
        progress: called with a data set's path, rows done and rows in all, now and then.
        jobs: where their settings differ from these; of a data set that several train on the strictest count.
            By default one for each added set, and one for D alone.
        decode: decode every picture in full, where otherwise headers do: minutes for a hundred thousand.
        faults_to: a file that takes all bad rows, one JSON object a line; the report holds the first ones.

    Raises:
        FinetuneError: the file can't be written. What is wrong with the data is in the report.
    """
    users = _users(base, added)
    jobs = jobs or [JobData(name, data, settings) for name, data in _trained_on(base, added).items()]
    scanner = RowScanner(processor, settings.max_length, exact=True, decode=decode)
    scanned: dict[str, _ScannedSet] = {}
    errors: list[str] = []
    with _opened(faults_to) as file:
        for key, (data_set, names) in users.items():
            users_settings = [job.settings for job in jobs if key in map(_key, job.data)] or [settings]
            scanner.max_length = min(each.max_length for each in users_settings)
            strict = any(each.on_bad_row == "error" for each in users_settings)
            try:
                scanned[key] = _scan(data_set, scanner, strict, progress, file)
            except (FinetuneError, OSError) as error:
                errors.append(f"{', '.join(names)}: {error}")
    sets = tuple(_report(key, users, scanned) for key in scanned)
    wrong, notes = _bad_rows(sets, scanned)
    twins = _twins(base, added, scanned)
    if processor is not None and not scanner.template.ends_turns:
        notes.append(
            "the chat template writes no token that ends a turn behind an answer: a model does not learn to stop. Let "
            "it write the tokenizer's eos_token there"
        )
    notes += [*_formats(sets), *_repeated(sets), *twins, *_uncounted(scanned)]
    return DataReport(sets, (*errors, *wrong, *_mixtures(jobs, scanned)), tuple(notes))


def _opened(faults_to: Path | None) -> AbstractContextManager[IO[str] | None]:
    """Open the file that takes bad rows, if there is to be one.

    Raises:
        FinetuneError: it can't be written, or is another's.
    """
    if faults_to is None:
        return nullcontext()
    try:
        _refuse_other(faults_to)
        return faults_to.open("w", encoding="utf-8")
    except OSError as error:
        raise FinetuneError(f"{faults_to}: can't be written ({error.strerror}).") from error


def _refuse_other(path: Path) -> None:
    """Refuse a file that no check wrote, such as a data set, before it is overwritten.

    Raises:
        FinetuneError: it is one.
        OSError: it can't be read.
    """
    if not path.is_file():
        return
    with path.open("rb") as file:
        first = file.readline(2**20)
    if first and not first.startswith(b'{"data_set": '):
        raise FinetuneError(f"{path}: exists, and no earlier check wrote it. Name another file for bad rows.")


@dataclass(frozen=True)
class _ScannedSet:
    """A data set that could be opened."""

    data_set: DataSet
    scan: RowScan
    counted: bool
    strict: bool


def _key(data_set: DataSet) -> str:
    """Equal for those that hold the same rows, whatever their weight."""
    return repr(data_set.model_dump(exclude={"weight", "category"}))


def _users(
    base: Sequence[DataSet], added: Mapping[str, Sequence[DataSet]]
) -> dict[str, tuple[DataSet, dict[str, None]]]:
    """Each data set once, and who trains on it."""
    users: dict[str, tuple[DataSet, dict[str, None]]] = {}
    for name, sets in [("base", base), *added.items()]:
        for data_set in sets:
            users.setdefault(_key(data_set), (data_set, {}))[1][name] = None
    return users


def _trained_on(base: Sequence[DataSet], added: Mapping[str, Sequence[DataSet]]) -> dict[str, Sequence[DataSet]]:
    return {"base": base, **{name: [*base, *sets] for name, sets in added.items()}}


def _scan(
    data_set: DataSet, scanner: RowScanner, strict: bool, progress: Progress | None, file: IO[str] | None
) -> _ScannedSet:
    def write(i: int, error: RowError) -> None:
        if file:
            faults = [{"kind": fault.kind, "text": fault.text} for fault in error.faults]
            row = {"data_set": data_set.path, "row": i, "where": error.where, "faults": faults}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def done(n: int, rows: int) -> None:
        if progress:
            progress(data_set.path, n, rows)

    scan = scan_rows(Corpus([data_set]), scanner, progress=done, on_bad_row=write)
    return _ScannedSet(data_set, scan, scanner.counts, strict)


def _report(
    key: str, users: Mapping[str, tuple[DataSet, dict[str, None]]], scanned: Mapping[str, _ScannedSet]
) -> SetReport:
    scan = scanned[key].scan
    digests = scan.digests[scan.digests != 0]
    shared = {
        other.data_set.path: n
        for name, other in scanned.items()
        if name != key and (n := int(np.isin(digests, other.scan.digests).sum()))
    }
    groups = np.bincount(scan.groups[scan.good], minlength=len(GROUPS)).tolist()
    return SetReport(
        path=scanned[key].data_set.path,
        of=tuple(users[key][1]),
        rows=len(scan.good),
        bad=scan.bad,
        formats=dict(scan.formats),
        groups=dict(zip(GROUPS, groups, strict=True)),
        faults=dict(scan.faults),
        first=tuple(map(str, scan.first)),
        repeated=len(digests) - len(np.unique(digests)),
        shared=shared,
        tokens=int(scan.lengths[scan.good].sum()) if scanned[key].counted else None,
        longest=int(scan.lengths.max(initial=0)) if scanned[key].counted else None,
    )


def _bad_rows(sets: Sequence[SetReport], scanned: Mapping[str, _ScannedSet]) -> tuple[list[str], list[str]]:
    """Errors and notes: bad rows are errors or notes, and a data set without any good row is an error."""
    errors: list[str] = []
    notes: list[str] = []
    for report, each in zip(sets, scanned.values(), strict=True):
        if not report.rows:
            errors.append(f"{report.path} ({', '.join(report.of)}): empty, expected rows to train on")
        elif report.bad == report.rows:
            errors.append(f"{report.path} ({', '.join(report.of)}): no good row. {each.scan.describe()}")
        elif report.bad and each.strict:
            errors.append(f"{report.path} ({', '.join(report.of)}): {each.scan.describe()}")
        elif report.bad:
            notes.append(f"{report.path} ({', '.join(report.of)}): left out are {each.scan.describe()}")
    return errors, notes


def _formats(sets: Sequence[SetReport]) -> list[str]:
    """Find data sets whose rows look like several formats: each was read as what it looks like."""
    notes = []
    for report in sets:
        # A row of text alone looks like LLaVA's, whatever its neighbours are.
        if len(set(report.formats) - {"llava"}) > 1 or {"llava", "openai"} <= set(report.formats):
            counts = ", ".join(f"{name}: {n}" for name, n in report.formats.items())
            notes.append(
                f"{report.path}: rows of several formats ({counts}), each read as what it looks like; say format if "
                "that is wrong"
            )
    return notes


def _repeated(sets: Sequence[SetReport]) -> list[str]:
    """Rows that are there more than once."""
    notes = []
    for report in sets:
        if report.repeated:
            notes.append(f"{report.path}: {report.repeated:,} of {report.rows:,} rows repeat an earlier one")
        notes += [
            f"{report.path} ({', '.join(report.of)}): {n:,} of {report.rows:,} rows are in {path}, too"
            for path, n in report.shared.items()
            if "base" not in report.of
        ]
    return notes


def _twins(
    base: Sequence[DataSet], added: Mapping[str, Sequence[DataSet]], scanned: Mapping[str, _ScannedSet]
) -> list[str]:
    """Find added sets that hold what the base set holds, or what another one holds."""

    def content(sets: Sequence[DataSet]) -> bytes:
        scans = [scanned[_key(data_set)].scan for data_set in sets if _key(data_set) in scanned]
        digests = [scan.digests[scan.good] for scan in scans]
        return np.unique(np.concatenate(digests)).tobytes() if digests else b""

    contents = {"the base set": content(base)}
    notes = []
    for name, sets in added.items():
        rows = content(sets)
        twin = next((other for other, others in contents.items() if rows and others == rows), None)
        if twin:
            notes.append(f"{name}: holds the same rows as {twin}; its ingredient will differ by little but the order")
        contents.setdefault(name, rows)
    return notes


def _uncounted(scanned: Mapping[str, _ScannedSet]) -> list[str]:
    """Note that tokens are not known, and why."""
    if all(each.counted for each in scanned.values()):
        return []
    why = "the start is not here yet, or has no processor"
    return [f"tokens were not counted ({why}): rows over max_length will stop a job, or be left out, when it begins"]


def _mixtures(jobs: Sequence[JobData], scanned: Mapping[str, _ScannedSet]) -> list[str]:
    """Mixtures that the good rows do not allow, each once for all the jobs that have it."""
    wrong: dict[str, list[str]] = {}
    for job in jobs:
        keys = [_key(data_set) for data_set in job.data]
        if not all(key in scanned and scanned[key].scan.good.any() for key in keys):
            continue  # an error already
        scans = [scanned[key].scan for key in keys]
        rows = [np.flatnonzero(scan.good) for scan in scans]
        groups = [scan.groups[scan.good] for scan in scans]
        try:
            strata_of(job.data, rows, groups, job.settings.mixture)
        except FinetuneError as error:
            wrong.setdefault(str(error), []).append(job.name)
    return [f"{', '.join(names)}: {fault}" for fault, names in wrong.items()]
