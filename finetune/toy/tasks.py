"""What is asked about a scene, in the very words in which the benchmarks will ask.

A skill draws the i-th scene of a split; its random stream depends on seed, split, skill and i alone, so that any scene
can be made again, and alone. A scene is asked about in several forms, each as one kind of benchmark puts it:

    open      the question, answered in a word or two          OCRBench, MM-Vet
    choice    four options, answered in an option's words      MMBench, MMStar, AI2D
    college   the same with the images in the midst of it      MMMU
    whole     a hint, answered by a whole number               MathVista
    decimal   a hint, answered by a number with one decimal    MathVista
    listed    a hint and lettered choices                      MathVista
    claim     whether what somebody says is right              HallusionBench
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from PIL import Image

from finetune.toy import render

__all__ = ["CLAIMS", "SKILLS", "Question", "Scene", "Skills", "claim", "draw_scene", "prompt", "rotated"]

COUNTS = ("one", "two", "three", "four", "five", "six")
ORDER = ("first", "second", "third", "fourth", "fifth", "sixth")
CORNERS = ("upper left", "upper right", "lower left", "lower right")
COLORS = tuple(render.COLORS)
DIGITS = tuple("0123456789")
LETTERS = "ACEHKLNORTUX"

FROM_LEFT = "Bars are counted from the left."
HINTS = {  # MathVista's own
    "whole": "Please answer the question requiring an integer answer and provide the final value, e.g., 1, 2, 3, at "
    "the end.",
    "decimal": "Please answer the question requiring a floating-point number with one decimal place and provide the "
    "final value, e.g., 1.2, 1.3, 1.4, at the end.",
    "listed": "Please answer the question and provide the correct option letter, e.g., A, B, C, D, at the end.",
}

# Skills about whose scenes claims are made, and the words that are claimed.
CLAIMS: dict[str, Sequence[str]] = {"color": COLORS, "shape": render.SHAPES, "count": COUNTS, "bars": ORDER}


@dataclass(frozen=True)
class Question:
    """One question about a scene; `options` (in the order of the letters) where it is a choice."""

    text: str
    answer: str
    options: tuple[str, ...] = ()
    hint: str = ""

    @property
    def letter(self) -> str:
        """The letter of the right option."""
        return "ABCD"[self.options.index(self.answer)]


@dataclass(frozen=True)
class Scene:
    """One or more pictures, and the questions about them, by form.

    `is_video`: the pictures are the frames of a video. `row`: what a benchmark's file says of the scene beside picture
    and question.
    """

    skill: str
    images: tuple[Image.Image, ...]
    questions: Mapping[str, Question]
    is_video: bool = False
    row: Mapping[str, object] = field(default_factory=dict)

    @property
    def truth(self) -> str:
        """The short answer to the open question, about which claims are made."""
        return self.questions["open"].answer


Skills = Mapping[str, Callable[[Random], Scene]]


def draw_scene(seed: int, split: str, skill: str, i: int, skills: Skills | None = None) -> Scene:
    """Return the i-th scene of a split for one skill; the same arguments give the same scene.

    Args:
        seed: Another one draws other scenes.
        split: The name of the split.
        skill: The skill's name.
        i: The scene's number.
        skills: What draws each skill's scenes; None: those of the eight benchmarks.
    """
    return (skills or SKILLS)[skill](Random(f"{seed}/{split}/{skill}/{i}"))


def prompt(form: str, question: Question) -> str:
    """Return the text that VLMEvalKit builds from a benchmark's row, to the letter.

    Images come before it, but in the form `college`, where `<image 1>` and so on stand in their places.
    """
    if form in ("choice", "college"):
        return _multiple_choice(question)
    if form in HINTS:
        return with_hint(form, question)
    return question.text


def claim(scene: Scene, word: str) -> Question:
    """Return the question whether that word is the answer to the open question.

    The answer is the right word, and then yes or no: this size was seen to compare two words of a text, but hardly a
    word with a picture. VLMEvalKit looks for a yes or a no anywhere in an answer.
    """
    question = f"{scene.questions['open'].text} Someone says: {word}\nIs that right? Please answer yes or no."
    return Question(question, f"{scene.truth}\n{'Yes' if word == scene.truth else 'No'}")


def with_hint(form: str, question: Question) -> str:
    """Return the question as it stands in MathVista's own file: a hint before it, lettered choices after it."""
    choices = "".join(f"\n({letter}) {option}" for letter, option in zip("ABCD", question.options, strict=False))
    listed = f"\nChoices:{choices}" if choices else ""
    return f"Hint: {HINTS[form]}\nQuestion: {question.text}{listed}"


def rotated(question: Question, k: int) -> Question:
    """Return the question with its options moved on by k places, as circular evaluation asks it again."""
    return Question(question.text, question.answer, question.options[k:] + question.options[:k], question.hint)


def _multiple_choice(question: Question) -> str:
    hint = f"Hint: {question.hint}\n" if question.hint else ""
    lines = "".join(f"{letter}. {option}\n" for letter, option in zip("ABCD", question.options, strict=False))
    options = f"Options:\n{lines}Please select the correct answer from the options above. \n" if lines else ""
    return f"{hint}Question: {question.text}\n{options}"


def _number(random: Random) -> Scene:
    text = "".join(random.choices(DIGITS, k=3))
    question = Question("what is the number in the image?", text)
    questions = {"open": question, "college": _after_image(question), "whole": question}
    return Scene("number", (render.line_of_text(random, text),), questions)


def _decimal(random: Random) -> Scene:
    text = f"{random.randint(0, 9)}.{random.randint(0, 9)}"
    return Scene(
        "decimal", (render.line_of_text(random, text),), {"decimal": Question("What is the measured value?", text)}
    )


def _word(random: Random) -> Scene:
    text = "".join(random.choices(LETTERS, k=4))
    image = render.line_of_text(random, text, 2 * render.SIDE)
    return Scene("word", (image,), {"open": Question("what is written in the image?", text)})


def _grid(random: Random) -> Scene:
    digits = random.sample(DIGITS, 4)
    corner = random.randrange(4)
    question = Question(f"Which number is at the {CORNERS[corner]}?", digits[corner])
    image = render.grid(random, digits)
    return Scene("grid", (image,), {"open": question, "choice": _with_options(random, question, digits)})


def _count(random: Random) -> Scene:
    n = random.randint(1, len(COUNTS))
    word = COUNTS[n - 1]
    question = Question("How many dots are in the picture?", word)
    questions = {"open": question, "choice": _with_options(random, question, COUNTS)}
    questions["whole"] = Question(question.text, str(n))
    return _claimed(random, Scene("count", (render.dots(random, n),), questions))


def _color(random: Random) -> Scene:
    word = random.choice(COLORS)
    image = render.figure(random, random.choice(render.SHAPES), word)
    return _claimed(random, _four_forms(random, "color", image, Question("What color is the shape?", word), COLORS))


def _shape(random: Random) -> Scene:
    word = random.choice(render.SHAPES)
    image = render.figure(random, word, random.choice(COLORS))
    question = Question("What shape is in the picture?", word)
    return _claimed(random, _four_forms(random, "shape", image, question, render.SHAPES))


def _both(random: Random) -> Scene:
    color, shape = random.choice(COLORS), random.choice(render.SHAPES)
    question = Question("What is in the picture?", f"{color} {shape}")
    return Scene("both", (render.figure(random, shape, color),), {"open": question})


def _place(random: Random) -> Scene:
    corner = random.randrange(4)
    question = Question("Where is the shape?", CORNERS[corner])
    image = render.figure(random, random.choice(render.SHAPES), random.choice(COLORS), corner=corner)
    return Scene("place", (image,), {"open": question, "choice": _with_options(random, question, CORNERS)})


def _pair(random: Random) -> Scene:
    colors = random.sample(COLORS, 2)
    images = tuple(render.figure(random, random.choice(render.SHAPES), color) for color in colors)
    question = Question("<image 1>\n<image 2>\nWhat color is the shape in the second picture?", colors[1])
    return Scene("pair", images, {"college": _with_options(random, question, COLORS)})


def _bars(random: Random) -> Scene:
    tallest = random.randrange(len(ORDER))
    image = render.bars(random, tallest, len(ORDER))
    question = Question("Which bar is the tallest?", ORDER[tallest], hint=FROM_LEFT)
    choice = _with_options(random, question, ORDER)
    questions = {"open": question, "choice": choice, "listed": choice}
    return _claimed(random, Scene("bars", (image,), questions))


def _four_forms(random: Random, skill: str, image: Image.Image, question: Question, words: Sequence[str]) -> Scene:
    choice = _with_options(random, question, words)
    return Scene(skill, (image,), {"open": question, "choice": choice, "college": _after_image(choice)})


def _with_options(random: Random, question: Question, words: Sequence[str]) -> Question:
    """Return the question with the answer and three other words as options, in any order."""
    options = [question.answer, *random.sample([word for word in words if word != question.answer], 3)]
    random.shuffle(options)
    return Question(question.text, question.answer, tuple(options), question.hint)


def _after_image(question: Question) -> Question:
    return Question(f"<image 1>\n{question.text}", question.answer, question.options, question.hint)


def _claimed(random: Random, scene: Scene) -> Scene:
    """Return the scene with a claim about it that is true or false, by chance."""
    false = random.choice([word for word in CLAIMS[scene.skill] if word != scene.truth])
    statement = claim(scene, random.choice([scene.truth, false]))
    return Scene(scene.skill, scene.images, {**scene.questions, "claim": statement})


SKILLS: Skills = {
    "number": _number,
    "decimal": _decimal,
    "grid": _grid,
    "word": _word,
    "count": _count,
    "color": _color,
    "shape": _shape,
    "both": _both,
    "place": _place,
    "pair": _pair,
    "bars": _bars,
}
