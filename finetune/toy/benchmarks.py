"""The eight benchmarks of OpenCompass in small: rows of the very schemas of VLMEvalKit's TSV files, over toy scenes.

Each function gives a benchmark's rows, of which `count` are questions that VLMEvalKit asks. Their quirks are kept:
rotations that name the image of their question (MMBench), development rows, several images and open questions (MMMU),
hints within the question (MathVista), figures that differ where the question is the same and questions without one
(HallusionBench), Python lists in cells (OCRBench), alternatives and parts of an answer (MM-Vet).

Lists, which MathVista has a few of, are left out: VLMEvalKit's metric counts every answer to them as wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from finetune.toy.gallery import Gallery, base64_png
from finetune.toy.tasks import Question, Scene, claim, rotated, with_hint

__all__ = ["BENCHMARKS", "STEP"]

Row = dict[str, object]

STEP = 1_000_000  # between the rotations of one question, as in MMBench's own files
DEV = 10  # every so many validation questions, MMMU has one more for development
UNSEEN = 4  # every so many sets, HallusionBench asks once without a picture, and VLMEvalKit leaves that out

INSTANCE = "finegrained_perception (instance-level)"
MMBENCH = {
    "color": ("attribute_recognition", INSTANCE),
    "count": ("counting", INSTANCE),
    "shape": ("object_shape", INSTANCE),
    "bars": ("structuralized_imagetext_understanding", "logic_reasoning"),
}
MMSTAR = {
    "place": ("fine-grained perception", "localization"),
    "shape": ("coarse perception", "image topic"),
    "count": ("math", "numeric commonsense and calculation"),
}
MMMU = {
    "color": ("Art", "Art & Design"),
    "shape": ("Design", "Art & Design"),
    "pair": ("Art_Theory", "Art & Design"),
    "number": ("Math", "Science"),
}
MATHVISTA = {
    "number": ("whole", "integer", "visual question answering", ["numeric commonsense"], "general-vqa"),
    "count": ("whole", "integer", "visual question answering", ["numeric commonsense"], "general-vqa"),
    "decimal": ("decimal", "float", "figure question answering", ["scientific reasoning"], "math-targeted-vqa"),
    "bars": ("listed", "text", "figure question answering", ["statistical reasoning"], "general-vqa"),
}
HALLUSIONBENCH = {"bars": "VS_chart", "count": "VS_table", "color": "VD_illusion", "shape": "VD_figure"}
OCRBENCH = {"number": "Digit String Recognition", "word": "Regular Text Recognition"}
MMVET = {"both": "rec", "count": "rec,math", "place": "rec,spat", "grid": "ocr,spat", "number": "ocr"}


def mmbench(gallery: Gallery, count: int) -> Iterator[Row]:
    """All questions, then all of their rotations, which name the image of their question."""
    turned = []
    for index, scene in enumerate(_scenes(gallery, "mmbench", MMBENCH, count)):
        question = scene.questions["choice"]
        yield _mmbench_row(scene, question, index, base64_png(scene.images[0]))
        for k in range(1, len(question.options)):
            turned.append(_mmbench_row(scene, rotated(question, k), index + k * STEP, str(index)))
    yield from turned


def _mmbench_row(scene: Scene, question: Question, index: int, image: str) -> Row:
    category, level_2 = MMBENCH[scene.skill]
    row = {"index": index, "question": question.text, "hint": question.hint, **_options(question)}
    row |= {"answer": question.letter, "category": category, "image": image}
    return row | {"source": "toy", "l2-category": level_2, "comment": "", "split": "dev"}


def mmstar(gallery: Gallery, count: int) -> Iterator[Row]:
    """Four options, asked once."""
    for index, scene in enumerate(_scenes(gallery, "mmstar", MMSTAR, count)):
        question = scene.questions["choice"]
        category, level_2 = MMSTAR[scene.skill]
        row = {"index": index, "question": question.text, "image": base64_png(scene.images[0]), **_options(question)}
        meta_info = {"source": "toy", "split": "val", "image_path": f"images/{index}.jpg"}
        yield row | {
            "answer": question.letter,
            "category": category,
            "l2_category": level_2,
            "meta_info": str(meta_info),
        }


def mmmu(gallery: Gallery, count: int) -> Iterator[Row]:
    """Images in the midst of the text; development rows first, which do not count; some questions are open."""
    parts = {"dev": max(1, count // DEV), "validation": count}
    index = 0
    for split, n in parts.items():
        for scene in _scenes(gallery, f"mmmu/{split}", MMMU, n):
            index += 1
            yield _mmmu_row(scene, index, split)


def _mmmu_row(scene: Scene, index: int, split: str) -> Row:
    question = scene.questions["college"]
    subject, field = MMMU[scene.skill]
    images = [base64_png(image) for image in scene.images]
    row = {"index": index, "id": f"{split}_{subject}_{index}", "question": question.text, "hint": question.hint}
    options = {**_options(question), "E": "", "answer": question.letter if question.options else question.answer}
    labels = {"category": subject, "l2-category": field, "image": images[0] if len(images) == 1 else str(images)}
    return row | options | labels | {"split": split, "topic_difficulty": "Easy"}


def mathvista(gallery: Gallery, count: int) -> Iterator[Row]:
    """Whole numbers, decimal numbers and choices; the hint is part of the question."""
    for index, scene in enumerate(_scenes(gallery, "mathvista", MATHVISTA, count)):
        form, kind, task, skills, category = MATHVISTA[scene.skill]
        question = scene.questions[form]
        row = {"index": index + 1, "question": with_hint(form, question), "image": base64_png(scene.images[0])}
        row |= {"question_type": "multi_choice" if question.options else "free_form", "answer_type": kind}
        choices = str(list(question.options)) if question.options else ""
        row |= {"precision": 1.0 if kind == "float" else "", "choices": choices}
        row |= {"answer": question.answer, "answer_option": question.letter if question.options else "", "unit": ""}
        row |= {"task": task, "skills": str(skills), "category": category, "context": "synthetic scene"}
        yield row | {"grade": "not applicable", "language": "english", "split": "testmini"}


def hallusionbench(gallery: Gallery, count: int) -> Iterator[Row]:
    """Draw sets of two figures and two questions: what is so in the one figure is not so in the other."""
    sets = _spread(count // 4, HALLUSIONBENCH)
    for skill, kind in HALLUSIONBENCH.items():
        scenes = gallery.testing("hallusionbench", skill)
        for number in range(sets[skill]):
            first = next(scenes)
            second = next(scene for scene in scenes if scene.truth != first.truth)
            words = (first.truth, second.truth)
            if number % UNSEEN == 0:
                yield _claim_row(kind, f"0_{number}_0_0", claim(first, words[0]), "")
            for figure, scene in enumerate((first, second), 1):
                image = base64_png(scene.images[0])
                for claimed, word in enumerate(words):
                    yield _claim_row(kind, f"1_{number}_{figure}_{claimed}", claim(scene, word), image)


def _claim_row(kind: str, name: str, question: Question, image: str) -> Row:
    category, _, level_2 = kind.partition("_")
    row: Row = {"index": f"{kind}_{name}", "category": category, "l2-category": level_2}
    return row | {"question": question.text, "answer": question.answer.split()[-1], "image": image}


def ai2d(gallery: Gallery, count: int) -> Iterator[Row]:
    """Draw a diagram of four fields, and four options."""
    for index, scene in enumerate(gallery.testing("ai2d", "grid", count)):
        question = scene.questions["choice"]
        row = {"index": index, "question": question.text, "image": base64_png(scene.images[0]), **_options(question)}
        yield row | {"answer": question.letter, "category": "diagram", "image_path": f"images/{index}.png"}


def ocrbench(gallery: Gallery, count: int) -> Iterator[Row]:
    """Draw questions whose answer is a Python list of accepted strings."""
    for index, scene in enumerate(_scenes(gallery, "ocrbench", OCRBENCH, count)):
        question = scene.questions["open"]
        row = {"index": index, "image": base64_png(scene.images[0]), "dataset": "toy", "question": question.text}
        yield row | {"answer": repr([question.answer]), "category": OCRBENCH[scene.skill]}


def mmvet(gallery: Gallery, count: int) -> Iterator[Row]:
    """Open questions; an answer may have parts (<AND>) or alternatives (<OR>)."""
    for index, scene in enumerate(_scenes(gallery, "mmvet", MMVET, count)):
        question = scene.questions["open"]
        row = {"index": index, "image": base64_png(scene.images[0]), "question": question.text}
        yield row | {"answer": _accepted_answer(scene), "category": MMVET[scene.skill]}


def _accepted_answer(scene: Scene) -> str:
    """Return the answer as MM-Vet writes it for its judge: parts and alternatives marked."""
    answer = scene.questions["open"].answer
    if scene.skill == "both":
        return answer.replace(" ", "<AND>")
    return f"{answer}<OR>{scene.questions['whole'].answer}" if scene.skill == "count" else answer


def _scenes(gallery: Gallery, benchmark: str, kinds: Iterable[str], count: int) -> Iterator[Scene]:
    """`count` scenes, of each kind about as many."""
    for skill, n in _spread(count, kinds).items():
        yield from gallery.testing(benchmark, skill, n)


def _spread(count: int, kinds: Iterable[str]) -> dict[str, int]:
    """How many of each kind: equal parts, the first kinds one more where it can't be divided so."""
    names = list(kinds)
    return {name: count // len(names) + (index < count % len(names)) for index, name in enumerate(names)}


def _options(question: Question) -> dict[str, str]:
    return dict(zip("ABCD", question.options or ("",) * 4, strict=True))


BENCHMARKS: dict[str, tuple[str, Callable[[Gallery, int], Iterator[Row]]]] = {
    "mmbench": ("MMBench_DEV_EN", mmbench),
    "mmstar": ("MMStar", mmstar),
    "mmmu": ("MMMU_DEV_VAL", mmmu),
    "mathvista": ("MathVista_MINI", mathvista),
    "hallusionbench": ("HallusionBench", hallusionbench),
    "ai2d": ("AI2D_TEST", ai2d),
    "ocrbench": ("OCRBench", ocrbench),
    "mmvet": ("MMVet", mmvet),
}
