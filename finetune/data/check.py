"""What is wrong with the data, before the first GPU hour: every row of every data set looked at once."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from finetune.config import DataSet, TrainSettings
from finetune.data.corpus import Corpus
from finetune.data.mixture import GROUPS, strata_of
from finetune.data.row_scan import Survey, Surveyor, survey
from finetune.data.rows import RowError
from soup.errors import FinetuneError
from soup.support.text import bullet_list

__all__ = ["COLUMNS", "DataReport", "SetReport", "Use", "check_data"]

COLUMNS = ("data set", "of", "rows", "bad", "text", "one image", "several", "repeated", "tokens", "longest")
Progress = Callable[[str, int, int], object]


@dataclass(frozen=True)
class Use:
    """What one job trains on, and how: bad rows, the longest one and the mixture are its own affair."""

    name: str
    data: Sequence[DataSet]
    settings: TrainSettings


@dataclass(frozen=True)
class SetReport:
    """What one data set holds. `of`: `base`, or the name of an added set, or several that share it.

    `faults` counts the bad rows by kind (the keys of `finetune.data.rows.KINDS`), `first` tells of some in full.
    `repeated` counts rows that were there before in the same data set, `shared` those of other sets, by their path.
    `tokens` and `longest` (of a row) are None without a processor.
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
        """This data set's values for `COLUMNS`."""
        counts = [self.rows, self.bad, *(self.groups.get(group, 0) for group in GROUPS), self.repeated]
        lengths = ["" if n is None else f"{n:,}" for n in (self.tokens, self.longest)]
        return (self.path, ", ".join(self.of), *(f"{n:,}" for n in counts), *lengths)


@dataclass(frozen=True)
class DataReport:
    """What all data sets hold. `errors` must be mended before training; `notes` should be known."""

    sets: tuple[SetReport, ...]
    errors: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether training could begin."""
        return not self.errors

    def as_json(self) -> dict[str, Any]:
        """The report for machines."""
        return {"schema": 1, "ok": self.ok, **json.loads(json.dumps(asdict(self)))}

    def lines(self) -> list[tuple[str, ...]]:
        """One line for each data set, under `COLUMNS`."""
        return [one.line() for one in self.sets]

    def require(self) -> None:
        """Raises FinetuneError with all errors, if there are any."""
        if self.errors:
            raise FinetuneError(f"the data is not fit to train on:\n{bullet_list(self.errors)}")


def check_data(
    base: Sequence[DataSet],
    added: Mapping[str, Sequence[DataSet]],
    settings: TrainSettings,
    processor: Any = None,
    progress: Progress | None = None,
    *,
    uses: Sequence[Use] = (),
    decode: bool = False,
    faults_to: Path | None = None,
) -> DataReport:
    """Looks at every row of every data set once, however many jobs train on it.

    Args:
        base: the base set D.
        added: the added sets d_i by name.
        settings: `max_length`, whether bad rows are errors (`on_bad_row`), and `mixture`.
        processor: counts tokens, those of images by the sizes in their headers; without it, or with one of another
            family than POINTS, lengths are not known.
        progress: called with a data set's path, rows done and rows in all, now and then.
        uses: the jobs, where their settings differ from these; of a data set that several train on the strictest count.
            By default one for each added set, and one for D alone.
        decode: decode every picture in full, where otherwise headers do: minutes for a hundred thousand.
        faults_to: a file that takes all bad rows, one JSON object a line; the report holds the first ones.

    Raises:
        FinetuneError: the file can't be written. What is wrong with the data is in the report.
    """
    users = _users(base, added)
    found: dict[str, _Found] = {}
    errors: list[str] = []
    uses = uses or [Use(name, data, settings) for name, data in _trained_on(base, added).items()]
    surveyor = Surveyor(processor, settings.max_length, exact=True, decode=decode)
    try:
        with faults_to.open("w", encoding="utf-8") if faults_to else nullcontext() as file:
            for key, (data_set, names) in users.items():
                own = [use.settings for use in uses if key in map(_key, use.data)] or [settings]
                surveyor.max_length = min(one.max_length for one in own)
                strict = any(one.on_bad_row == "error" for one in own)
                try:
                    found[key] = _look(data_set, surveyor, strict, progress, file)
                except FinetuneError as error:
                    errors.append(f"{', '.join(names)}: {error}")
    except OSError as error:
        raise FinetuneError(f"{faults_to}: can't be written ({error.strerror}).") from error
    sets = tuple(_told(key, users, found) for key in found)
    wrong, notes = _bad_rows(sets, found)
    twins = _twins(base, added, found)
    notes += [*_formats(sets), *_repeated(sets), *twins, *_uncounted(found, processor)]
    return DataReport(sets, (*errors, *wrong, *_mixtures(uses, found)), tuple(notes))


@dataclass(frozen=True)
class _Found:
    """A data set that could be opened."""

    data_set: DataSet
    survey: Survey
    counted: bool
    strict: bool


def _key(data_set: DataSet) -> str:
    """Equal for those that hold the same rows, whatever their weight."""
    return repr((data_set.path, data_set.images, data_set.format, data_set.name, data_set.split, data_set.frames))


def _users(
    base: Sequence[DataSet], added: Mapping[str, Sequence[DataSet]]
) -> dict[str, tuple[DataSet, dict[str, None]]]:
    """Each data set once, and who trains on it."""
    users: dict[str, tuple[DataSet, dict[str, None]]] = {}
    for name, sets in [("base", base), *added.items()]:
        for one in sets:
            users.setdefault(_key(one), (one, {}))[1][name] = None
    return users


def _trained_on(base: Sequence[DataSet], added: Mapping[str, Sequence[DataSet]]) -> dict[str, Sequence[DataSet]]:
    return {"base": base, **{name: [*base, *sets] for name, sets in added.items()}}


def _look(data_set: DataSet, surveyor: Surveyor, strict: bool, progress: Progress | None, file: Any) -> _Found:
    def tell(i: int, error: RowError) -> None:
        if file:
            faults = [{"kind": fault.kind, "text": fault.text} for fault in error.faults]
            row = {"data_set": data_set.path, "row": i, "where": error.where, "faults": faults}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def done(n: int, rows: int) -> None:
        if progress:
            progress(data_set.path, n, rows)

    found = survey(Corpus([data_set]), surveyor, progress=done, tell=tell)
    return _Found(data_set, found, surveyor.tokens is not None, strict)


def _told(key: str, users: Mapping[str, tuple[DataSet, dict[str, None]]], found: Mapping[str, _Found]) -> SetReport:
    own = found[key].survey
    digests = own.digests[own.digests != 0]
    shared = {
        other.data_set.path: n
        for name, other in found.items()
        if name != key and (n := int(np.isin(digests, other.survey.digests).sum()))
    }
    groups = np.bincount(own.groups[own.good], minlength=len(GROUPS)).tolist()
    return SetReport(
        path=found[key].data_set.path,
        of=tuple(users[key][1]),
        rows=len(own.good),
        bad=own.bad,
        formats=dict(own.formats),
        groups=dict(zip(GROUPS, groups, strict=True)),
        faults=dict(own.faults),
        first=tuple(map(str, own.first)),
        repeated=len(digests) - len(np.unique(digests)),
        shared=shared,
        tokens=int(own.lengths[own.good].sum()) if found[key].counted else None,
        longest=int(own.lengths.max(initial=0)) if found[key].counted else None,
    )


def _bad_rows(sets: Sequence[SetReport], found: Mapping[str, _Found]) -> tuple[list[str], list[str]]:
    """Errors and notes: bad rows are the one or the other, and a data set without any good row is an error."""
    errors: list[str] = []
    notes: list[str] = []
    for one, own in zip(sets, found.values(), strict=True):
        if not one.rows:
            errors.append(f"{one.path} ({', '.join(one.of)}): empty, expected rows to train on")
        elif one.bad == one.rows:
            errors.append(f"{one.path} ({', '.join(one.of)}): no good row. {own.survey.told()}")
        elif one.bad and own.strict:
            errors.append(f"{one.path} ({', '.join(one.of)}): {own.survey.told()}")
        elif one.bad:
            notes.append(f"{one.path} ({', '.join(one.of)}): left out are {own.survey.told()}")
    return errors, notes


def _formats(sets: Sequence[SetReport]) -> list[str]:
    """Data sets whose rows look like several formats: each was read as what it looks like."""
    return [
        f"{one.path}: rows of several formats ({', '.join(f'{name}: {n}' for name, n in one.formats.items())}), each "
        "read as what it looks like; say format if that is wrong"
        for one in sets
        # A row of text alone looks like LLaVA's, whatever its neighbours are.
        if len(set(one.formats) - {"llava"}) > 1 or {"llava", "openai"} <= set(one.formats)
    ]


def _repeated(sets: Sequence[SetReport]) -> list[str]:
    """Rows that are there more than once."""
    notes = []
    for one in sets:
        if one.repeated:
            notes.append(f"{one.path}: {one.repeated:,} of {one.rows:,} rows repeat an earlier one")
        notes += [
            f"{one.path} ({', '.join(one.of)}): {n:,} of {one.rows:,} rows are in {path}, too"
            for path, n in one.shared.items()
            if "base" not in one.of
        ]
    return notes


def _twins(base: Sequence[DataSet], added: Mapping[str, Sequence[DataSet]], found: Mapping[str, _Found]) -> list[str]:
    """Added sets that hold what the base set holds, or what another one holds."""

    def held(sets: Sequence[DataSet]) -> bytes:
        surveys = [found[_key(one)].survey for one in sets if _key(one) in found]
        digests = [own.digests[own.good] for own in surveys]
        return np.unique(np.concatenate(digests)).tobytes() if digests else b""

    seen = {"the base set": held(base)}
    notes = []
    for name, sets in added.items():
        own = held(sets)
        twin = next((other for other, rows in seen.items() if own and rows == own), None)
        if twin:
            notes.append(f"{name}: holds the same rows as {twin}; its ingredient will differ by little but the order")
        seen.setdefault(name, own)
    return notes


def _uncounted(found: Mapping[str, _Found], processor: Any) -> list[str]:
    """That nothing is known of tokens, and why."""
    if all(own.counted for own in found.values()):
        return []
    why = "the start is not here yet, or has no processor" if processor is None else "its processor tells no sizes"
    return [f"tokens were not counted ({why}): rows over max_length will stop a job, or be left out, when it begins"]


def _mixtures(uses: Sequence[Use], found: Mapping[str, _Found]) -> list[str]:
    """Mixtures that the good rows do not allow, each told once for all the jobs that want it."""
    wrong: dict[str, list[str]] = {}
    for use in uses:
        keys = [_key(one) for one in use.data]
        if not all(key in found and found[key].survey.good.any() for key in keys):
            continue  # told already
        surveys = [found[key].survey for key in keys]
        rows = [np.flatnonzero(own.good) for own in surveys]
        groups = [own.groups[own.good] for own in surveys]
        try:
            strata_of(use.data, rows, groups, use.settings.mixture)
        except FinetuneError as error:
            wrong.setdefault(str(error), []).append(use.name)
    return [f"{', '.join(names)}: {fault}" for fault, names in wrong.items()]
