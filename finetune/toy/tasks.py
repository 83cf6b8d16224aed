"""What is asked about a scene, in the very words in which the benchmarks will ask.

A skill draws a scene for the i-th row of a split; its random stream depends on seed, split, skill and i alone, so that
any row can be made again, and alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from PIL import Image

from finetune.toy import render

__all__ = ["CHOICE_SKILLS", "READING_SKILLS", "SKILLS", "Row", "choice_prompt", "draw_row", "rotated"]

COUNTS = ("one", "two", "three", "four", "five", "six")
PLACES = ("first", "second", "third", "fourth", "fifth", "sixth")
LETTERS = "ACEHKLNORTUX"


@dataclass(frozen=True)
class Row:
    """A scene and one question about it; `options` (in the order of the letters) where it is a choice."""

    skill: str
    image: Image.Image
    question: str
    answer: str
    options: tuple[str, ...] = ()
    hint: str = ""

    @property
    def letter(self) -> str:
        """The letter of the right option."""
        return "ABCD"[self.options.index(self.answer)]


def rotated(row: Row, k: int) -> Row:
    """The row with its options moved on by k places, as circular evaluation asks it again."""
    moved = row.options[k:] + row.options[:k]
    return Row(row.skill, row.image, row.question, row.answer, moved, row.hint)


def choice_prompt(row: Row) -> str:
    """The prompt that VLMEvalKit builds from a multiple-choice row, to the letter."""
    hint = f"Hint: {row.hint}\n" if row.hint else ""
    options = "".join(f"{letter}. {option}\n" for letter, option in zip("ABCD", row.options, strict=True))
    ask = "Please select the correct answer from the options above. \n"
    return f"{hint}Question: {row.question}\nOptions:\n{options}{ask}"


def draw_row(seed: int, split: str, skill: str, i: int) -> Row:
    """The i-th row of a split for one skill: always the same."""
    return SKILLS[skill](Random(f"{seed}/{split}/{skill}/{i}"))


def _number(random: Random) -> Row:
    text = "".join(random.choice("0123456789") for _ in range(3))
    return Row("number", render.line_of_text(random, text), "what is the number in the image?", text)


def _word(random: Random) -> Row:
    text = "".join(random.choice(LETTERS) for _ in range(4))
    image = render.line_of_text(random, text, 2 * render.SIDE)
    return Row("word", image, "what is written in the image?", text)


def _count(random: Random) -> Row:
    n = random.randint(1, len(COUNTS))
    image = render.dots(random, n)
    answer = COUNTS[n - 1]
    return Row("count", image, "How many dots are in the picture?", answer, _options(random, answer, COUNTS))


def _color(random: Random) -> Row:
    answer = random.choice(list(render.COLORS))
    image = render.figure(random, random.choice(render.SHAPES), answer)
    return Row("color", image, "What color is the shape?", answer, _options(random, answer, tuple(render.COLORS)))


def _shape(random: Random) -> Row:
    answer = random.choice(render.SHAPES)
    image = render.figure(random, answer, random.choice(list(render.COLORS)))
    return Row("shape", image, "What shape is in the picture?", answer, _options(random, answer, render.SHAPES))


def _bars(random: Random) -> Row:
    tallest = random.randrange(len(PLACES))
    image = render.bars(random, tallest, len(PLACES))
    answer = PLACES[tallest]
    hint = "Bars are counted from the left."
    return Row("bars", image, "Which bar is the tallest?", answer, _options(random, answer, PLACES), hint)


def _options(random: Random, answer: str, words: tuple[str, ...]) -> tuple[str, ...]:
    """The answer and three other words, in any order."""
    options = [answer, *random.sample([word for word in words if word != answer], 3)]
    random.shuffle(options)
    return tuple(options)


CHOICE_SKILLS: dict[str, Callable[[Random], Row]] = {
    "color": _color,
    "count": _count,
    "shape": _shape,
    "bars": _bars,
}
READING_SKILLS: dict[str, Callable[[Random], Row]] = {"number": _number, "word": _word}
SKILLS = CHOICE_SKILLS | READING_SKILLS
