"""Captions from two sources: one that a model writes of the picture, and one fused of that and the raw one.

    caption = G(raw caption, F(picture))      F: a captioner, G: a language model

The answer of each row becomes the fused caption; where that is empty or a refusal the synthetic one, and where that is
none either, the raw one stays. All three stay in the row, with who wrote them and what is suspicious about them.

Source: CapsFusion, arXiv 2310.20550; POINTS, arXiv 2409.04828, section 3.1.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

from finetune.config import Columns
from finetune.data.caption_marks import is_empty, is_refusal, marks_of
from finetune.data.flat_rows import FLAT
from finetune.data.row_output import RowJournal, first_reasons, moved_row, write_lines
from finetune.data.source_rows import Exchange, SourceRows, exchange_of, picture_files, row_id
from soup.errors import FinetuneError
from soup.evaluation.api import OnBatch, Prompt
from soup.support.json_text import MAX_TEXT_BYTES, read_text

__all__ = ["CapFusion", "CaptionWriter", "captions_path", "read_prompt"]

CHUNK = 256  # rows whose prompts, and pictures that were bytes, lie about at once
OnStep = Callable[[str, int, int], object]
"""Called with a step, rows done and rows in all."""
PLACES = re.compile(r"\{(raw|synthetic)\}")
PROMPTS = Path(__file__).with_name("prompts")


@dataclass(frozen=True)
class CaptionWriter:
    """What writes captions.

    name    stands in the rows
    answer  writes
    facts   all that its texts depend on, beside the prompt
    close   gives back the memory that it holds: two models may not fit
    """

    name: str
    answer: Callable[[list[Prompt], OnBatch], list[str]]
    facts: Mapping[str, object] = field(default_factory=dict)
    close: Callable[[], object] = lambda: None


def captions_path(out: Path) -> Path:
    """Give the file beside an output that holds what was written for all rows."""
    return out.with_name(f"{out.stem}.captions.jsonl")


def read_prompt(name: str, path: Path | None = None) -> str:
    """Read a prompt, `caption` or `fuse`: from a file of the user's, or the shipped one.

    Raises:
        FinetuneError: it can't be read, is empty, or does not say where the captions go.
    """
    file = path or PROMPTS / f"{name}.txt"
    try:
        text = read_text(file, FinetuneError, MAX_TEXT_BYTES).decode("utf-8").strip()
    except ValueError as error:
        raise FinetuneError(f"{file}: can't be read as text ({error}).") from error
    if not text:
        raise FinetuneError(f"{file}: empty; expected a prompt.")
    if name == "fuse" and set(PLACES.findall(text)) != {"raw", "synthetic"}:
        raise FinetuneError(f"{file}: expected {{raw}} and {{synthetic}} where the captions go.")
    return text


@dataclass
class _Row:
    number: int
    raw_row: dict[str, object]
    format: str
    exchange: Exchange
    raw: str
    synthetic: str | None
    fused: str | None = None


@dataclass(frozen=True)
class CapFusion:
    """New captions for the rows of a data set.

    Args:
        rows: The data set: a picture, a request and a caption in each row.
        out: The JSON lines that take the rows.
        captioner: Writes the synthetic captions; None: those of an earlier run are in the rows.
        fuser: Fuses; None: the synthetic caption is the new one.
        caption_prompt: What the captioner is asked.
        fuse_prompt: What the fuser is asked, with `{raw}` and `{synthetic}`.
    """

    rows: SourceRows
    out: Path
    captioner: CaptionWriter | None
    fuser: CaptionWriter | None
    caption_prompt: str
    fuse_prompt: str

    def journal(self) -> RowJournal:
        """Open what an earlier run wrote.

        Raises:
            FinetuneError: that was by other models, or other prompts.
        """
        facts: dict[str, object] = {**self.rows.facts}
        steps = ((self.captioner, "caption", self.caption_prompt), (self.fuser, "fuse", self.fuse_prompt))
        for writer, step, prompt in steps:
            facts[step] = {"writer": writer.name, "prompt": prompt, **writer.facts} if writer else None
        return RowJournal(captions_path(self.out), facts)

    def run(self, progress: OnStep = lambda step, done, count: None) -> dict[str, object]:
        """Write what is not written yet, and give a report: counts of rows, marks and failures.

        Args:
            progress: Called with a step, rows done and rows in all.

        Raises:
            SoupError: a model failed, or no row could be read.
        """
        with self.journal() as journal:
            run = _Run(self, journal)
            run.write_captions(progress)
            if len(run.failures) == len(self.rows):
                raise FinetuneError(f"no row of {len(self.rows)} could be captioned: {first_reasons(run.failures)}.")
            write_lines(self.out, run.new_rows())
            journal.replace(run.caption_lines())
        return {
            "schema": 1,
            "out": str(self.out),
            "rows": len(self.rows),
            "written": len(self.rows) - len(run.failures),
            "answer_from": dict(run.sources),
            "marks": dict(run.marks),
            "failed": len(run.failures),
            "failures": dict(Counter(run.failures.values()).most_common(20)),
        }


@dataclass
class _Run:
    """One run over the rows.

    Args:
        task: What is written, and by whom.
        journal: What is written by now.
        failures: Why a row gets no caption, by its number.
        marks: How many rows have each mark.
        sources: How many rows have their answer from each caption.
    """

    task: CapFusion
    journal: RowJournal
    failures: dict[int, str] = field(default_factory=dict)
    marks: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)

    def write_captions(self, progress: OnStep) -> None:
        """Have each writer write what the journal lacks."""
        total = len(self.task.rows)
        with tempfile.TemporaryDirectory(prefix="soup-capfuse-") as folder:
            for name, writer in (("synthetic", self.task.captioner), ("fused", self.task.fuser)):
                if writer is None:
                    continue
                with closing(writer):
                    for start in range(0, total, CHUNK):
                        numbers = range(total)[start : start + CHUNK]
                        self._write_chunk(name, writer, Path(folder), numbers)
                        progress(name, numbers.stop, total)

    def _write_chunk(self, name: str, writer: CaptionWriter, folder: Path, numbers: Iterable[int]) -> None:
        with ExitStack() as files:
            prompts = self._prompts(name, folder, numbers, files)
            identities = {id(prompt): identity for identity, prompt in prompts.items()}

            def keep(batch: list[Prompt], replies: list[str]) -> None:
                for prompt, reply in zip(batch, replies, strict=True):
                    identity = identities[id(prompt)]
                    self.journal.add(identity, {**self.journal.rows.get(identity, {}), name: reply.strip()})

            if prompts:
                writer.answer([*prompts.values()], keep)

    def _prompts(self, name: str, folder: Path, numbers: Iterable[int], files: ExitStack) -> dict[str, Prompt]:
        """Return the prompts of rows for which nothing is written yet, by the identities of the rows; equal ones once.

        Args:
            name: The caption that is wanted: `synthetic` or `fused`.
            folder: Where pictures that are bytes become files.
            numbers: The rows.
            files: Removes these files.
        """
        prompts: dict[str, Prompt] = {}
        for number in numbers:
            if number in self.failures:
                continue
            try:
                row, identity = self._row(number)
                if name not in self.journal.rows.get(identity, {}) and identity not in prompts:
                    prompts[identity] = self._prompt(name, row, files, folder)
            except FinetuneError as error:
                self.failures[number] = self.task.rows.reason(number, error)
        return prompts

    def _row(self, number: int) -> tuple[_Row, str]:
        raw_row = self.task.rows.raw(number)
        sample = self.task.rows.sample(number, raw_row)
        exchange = exchange_of(sample)
        identity = row_id(raw_row)
        written = self.journal.rows.get(identity, {})
        earlier = raw_row.get("captions")
        before = earlier if isinstance(earlier, Mapping) else {}
        raw = before.get("raw") if isinstance(before.get("raw"), str) else exchange.answer
        texts = {"synthetic": before.get("synthetic"), **written}
        synthetic, fused = (text if isinstance(text := texts.get(key), str) else None for key in ("synthetic", "fused"))
        return _Row(number, raw_row, sample["format"], exchange, str(raw), synthetic, fused), identity

    def _prompt(self, name: str, row: _Row, files: ExitStack, folder: Path) -> Prompt:
        if name == "synthetic":
            if len(row.exchange.pictures) != 1:
                raise FinetuneError(f"expected one picture to caption, found {len(row.exchange.pictures)}")
            [path] = files.enter_context(picture_files(row.exchange.pictures, folder, str(row.number)))
            return [{"type": "image", "value": path}, {"type": "text", "value": self.task.caption_prompt}]
        if row.synthetic is None:
            raise FinetuneError("no synthetic caption: expected `captions: {synthetic: ...}` of an earlier run")
        captions = {"raw": row.raw, "synthetic": row.synthetic}
        return [{"type": "text", "value": PLACES.sub(lambda match: captions[match[1]], self.task.fuse_prompt)}]

    def new_rows(self) -> Iterator[dict[str, object]]:
        """Yield the rows with their new captions, and count marks and sources."""
        for i in range(len(self.task.rows)):
            if i in self.failures:
                continue
            row, _ = self._row(i)
            captions = {"raw": row.raw, "synthetic": row.synthetic, "fused": row.fused}
            row_marks = marks_of(row.raw, row.synthetic, row.fused)
            usable = [name for name in ("fused", "synthetic") if _is_usable(captions[name])]
            source = usable[0] if usable else "raw"
            self.marks.update(row_marks)
            self.sources[source] += 1
            columns = self.task.rows.data_set.columns
            moved = moved_row(row.raw_row, self.task.rows.root, self.task.out.parent, columns)
            yield {
                **_with_answer(moved, row.format, str(captions[source]), columns),
                "captions": captions,
                "written_by": _earlier_writers(row.raw_row) | self._writers(),
                "answer_from": source,
                "marks": row_marks,
            }

    def _writers(self) -> dict[str, object]:
        writers = {"synthetic": self.task.captioner, "fused": self.task.fuser}
        return {name: writer.name for name, writer in writers.items() if writer}

    def caption_lines(self) -> Iterator[Mapping[str, object]]:
        """Yield what the journal is to hold: a line for each row, in their order."""
        for i in range(len(self.task.rows)):
            where = {"row": i, "where": self.task.rows.where(i)}
            if i in self.failures:
                yield {**where, "failure": self.failures[i]}
                continue
            row, identity = self._row(i)
            texts = self.journal.rows.get(identity, {})
            written: dict[str, object] = {key: texts[key] for key in ("synthetic", "fused") if key in texts}
            yield {"id": identity, **where, **written, "marks": marks_of(row.raw, row.synthetic, row.fused)}


def _is_usable(caption: str | None) -> bool:
    return caption is not None and not is_empty(caption) and not is_refusal(caption)


def _earlier_writers(raw: Mapping[str, object]) -> dict[str, object]:
    writers = raw.get("written_by")
    return dict(writers) if isinstance(writers, Mapping) else {}


def _with_answer(raw: dict[str, object], format: str, answer: str, columns: Columns | None) -> dict[str, object]:
    """Give a row of one question and one answer with another answer, in whatever form its turns are."""
    named = columns.model_dump(exclude_none=True) if columns else {}
    if format in FLAT:
        name = FLAT[format][2]
        return {**raw, named.get(name, name): answer}
    name = "messages" if format == "openai" else "conversations"
    turns = raw[name := named.get(name, name)]
    if isinstance(turns, Mapping):  # as some tables store a list of turns
        turns = [dict(zip(turns, values, strict=False)) for values in zip(*turns.values(), strict=False)]
    assert isinstance(turns, list), "the row was read"
    last = dict(turns[-1])
    last["value" if "value" in last else "content"] = answer
    return {**raw, name: [*turns[:-1], last]}
