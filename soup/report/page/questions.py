"""Questions that the chosen soup gained or lost against the best single model, with images and both answers."""

from __future__ import annotations

import base64
import io
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from soup.errors import SoupError
from soup.evaluation.api import AskedModel, ShownQuestion
from soup.evaluation.benchmark_names import parse_benchmarks
from soup.evaluation.harnesses import build_evaluator, categories, show
from soup.evaluation.journal_entry import Entry
from soup.report.page.run_record import RunModel, RunRecord

__all__ = ["ChangedQuestion", "changed_questions"]

IMAGE_BYTES = 6_000_000
"""So much all images may weigh together, as base64: a page stays below 10 MB."""
LONGEST_TEXT = 2_000
SMALL_BYTES = 40_000
PNG = b"\x89PNG\r\n\x1a\n"
LONGEST_SIDE = 512  # pixels


@dataclass(frozen=True)
class ChangedQuestion:
    """A question on which the chosen soup has other points than the best single model.

    Args:
        benchmark: Whose question.
        part: Of the questions.
        index: The question's.
        kind: `gained` or `lost`.
        points: The soup's and the single model's, 0 to 1.
        category: Where the data name one.
        text: The prompt, where the data are here.
        reference: The right answer, where there is one.
        answers: The soup's and the single model's, where they were kept.
        images: As data URIs.
    """

    benchmark: str
    part: str
    index: str
    kind: str
    points: tuple[float, float]
    category: str = ""
    text: str = ""
    reference: str = ""
    answers: tuple[str | None, ...] = ()
    images: tuple[str, ...] = ()

    def as_json(self) -> dict[str, object]:
        """Return it as JSON values."""
        return asdict(self)


def changed_questions(record: RunRecord, *, with_images: bool = True) -> tuple[list[ChangedQuestion], list[str]]:
    """Return the questions, and what could not be shown of them and why.

    Args:
        record: The run.
        with_images: Whether images are taken along, as far as they fit.
    """
    soup, single = record.chosen, record.best_single
    if soup is None or single is None or soup.digest == single.digest:
        return [], []
    questions: list[ChangedQuestion] = []
    missing: dict[str, None] = {}
    left_bytes = IMAGE_BYTES if with_images else 0
    for part in record.parts:
        for name in record.benchmarks:
            changed = _changed(name, part, soup, single)
            if not changed:
                continue
            try:
                changed, left_bytes = _with_texts(record, changed, (soup, single), left_bytes)
            except (SoupError, OSError, ValueError) as reason:
                missing[f"{name}: questions without texts and answers ({reason})"] = None
            questions += changed
    if with_images and left_bytes <= 0:
        missing[f"Images beyond {IMAGE_BYTES // 1_000_000} MB were left out"] = None
    return questions, [*missing]


def _changed(name: str, part: str, soup: RunModel, single: RunModel) -> list[ChangedQuestion]:
    ours, theirs = (model.scores.get(part, {}).get(name) for model in (soup, single))
    if not ours or not theirs or not ours.questions or not theirs.questions or ours.part_of:
        return []  # of parts, too: most of a benchmark's parts are about the same questions
    pairs = ((index, ours.questions[index], theirs.questions.get(index)) for index in ours.questions)
    return [
        ChangedQuestion(name, part, index, "gained" if new > old else "lost", (new, old))
        for index, new, old in pairs
        if old is not None and new != old
    ]


def _with_texts(
    record: RunRecord, changed: Sequence[ChangedQuestion], models: tuple[RunModel, ...], left_bytes: int
) -> tuple[list[ChangedQuestion], int]:
    """Add what the harness knows, and return the bytes that are left for images."""
    name, part = changed[0].benchmark, changed[0].part
    entries = [_entry(record, model, name, part) for model in models]
    [benchmark] = parse_benchmarks([name])
    benchmark = replace(benchmark, split=entries[0].split)
    evaluator = build_evaluator(benchmark.harness)
    kinds = categories(evaluator, benchmark)
    asked_models = [AskedModel(e.recipe, record.directory.answers_of(e.recipe), e.identity) for e in entries]
    shown = show(evaluator, benchmark, [question.index for question in changed], asked_models)
    filled = []
    for question in changed:
        known = shown.get(question.index)
        images = _images(known, left_bytes) if known else ()
        left_bytes -= sum(map(len, images))
        filled.append(_filled(question, known, images, kinds))
    return filled, left_bytes


def _filled(
    question: ChangedQuestion, known: ShownQuestion | None, images: tuple[str, ...], kinds: Mapping[str, str]
) -> ChangedQuestion:
    question = replace(question, category=kinds.get(question.index, ""))
    if known is None:
        return question
    answers = tuple(None if text is None else text[:LONGEST_TEXT] for text in known.answers)
    return replace(question, text=known.text[:LONGEST_TEXT], reference=known.reference, answers=answers, images=images)


def _entry(record: RunRecord, model: RunModel, name: str, part: str) -> Entry:
    """Return the last evaluation of a model on a benchmark."""
    return next(
        entry
        for entry in reversed(record.entries)
        if entry.recipe == model.digest and entry.benchmark == name and entry.split.part == part
    )


def _images(known: ShownQuestion, left_bytes: int) -> tuple[str, ...]:
    """Return images as data URIs while there is room."""
    uris: list[str] = []
    for data in known.images if left_bytes > 0 else ():
        uris.append(_small_image(data))
    return tuple(uris)


def _small_image(data: bytes) -> str:
    """Return an image as a data URI; a large one is made smaller first, and a small PNG file needs no Pillow."""
    if data.startswith(PNG) and len(data) < SMALL_BYTES and max(struct.unpack(">2I", data[16:24])) <= LONGEST_SIDE:
        return f"data:image/png;base64,{base64.b64encode(data).decode()}"
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        if max(image.size) <= LONGEST_SIDE and len(data) < SMALL_BYTES:
            return f"data:{Image.MIME.get(image.format or '', 'image/png')};base64,{base64.b64encode(data).decode()}"
        small = image.convert("RGB")
        small.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
        packed = io.BytesIO()
        small.save(packed, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(packed.getvalue()).decode()}"
