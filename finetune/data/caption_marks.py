"""What is suspicious about captions that models wrote, by rules that see no picture.

A mark is no verdict: it is for whoever filters or looks.
"""

from __future__ import annotations

import re

__all__ = ["MARKS", "is_empty", "is_refusal", "marks_of"]

MARKS = {
    "synthetic_empty": "the captioner's caption has no letter and no digit",
    "synthetic_refused": "the captioner refused",
    "fused_empty": "the fused caption has no letter and no digit",
    "fused_refused": "the fuser refused",
    "copied_raw": "the fused caption is the raw one, but for case, spaces and stops",
    "copied_synthetic": "the fused caption is the synthetic one, but for these",
    "noise": "the fused caption holds a web address, a file's name, a hashtag or a stock agency's words",
    "disagreement": "raw and synthetic name different numbers, or share no word of five letters or more",
    "invented": "the fused caption has a number or a name that neither of the two has",
}

REFUSAL = re.compile(
    r"\W*(?:i(?:'|\u2019)?m (?:really |very )?(?:sorry|unable|not able)|(?:i am|we are) (?:sorry|unable|not able)"
    r"|sorry\b|i (?:can(?:not|(?:'|\u2019)t)|could not|couldn't|won't)\b|as an (?:ai|artificial|language model)"
    r"|unfortunately,? i\b|(?:the |this )?(?:image|picture) (?:is not|was not|cannot|can't|could not))",
    re.IGNORECASE,
)
NOISE = re.compile(
    r"https?://|\bwww\.|\b[\w-]+\.(?:jpe?g|png|gif|webp|com|net|org)\b|(?<!\w)#\w{2,}"
    r"|\b(?:stock (?:photo|image|vector|illustration)|royalty[- ]free|shutterstock|getty ?images|alamy|istock)\b",
    re.IGNORECASE,
)
NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
WORD = re.compile(r"[^\W\d_]+")
LONG, STEM = 5, 5  # letters of a word that says what is shown, and those that tell words apart: trains, training


def is_empty(text: str) -> bool:
    """Whether a text has no letter and no digit."""
    return not any(character.isalnum() for character in text)


def is_refusal(text: str) -> bool:
    """Whether a text begins as a refusal does."""
    return REFUSAL.match(text.strip()) is not None


def marks_of(raw: str, synthetic: str | None, fused: str | None) -> list[str]:
    """Give the marks of a row's captions, in the order of `MARKS`; None: not written."""
    marks = set()
    for name, text in (("synthetic", synthetic), ("fused", fused)):
        if text is not None and is_empty(text):
            marks.add(f"{name}_empty")
        elif text is not None and is_refusal(text):
            marks.add(f"{name}_refused")
    is_good = not marks
    if synthetic is not None and is_good and _disagree(raw, synthetic):
        marks.add("disagreement")
    if fused is not None and synthetic is not None and is_good:
        marks |= _marks_of_fused(raw, synthetic, fused)
    return [mark for mark in MARKS if mark in marks]


def _marks_of_fused(raw: str, synthetic: str, fused: str) -> set[str]:
    marks = {f"copied_{name}" for name, text in (("raw", raw), ("synthetic", synthetic)) if _bare(text) == _bare(fused)}
    if NOISE.search(fused):
        marks.add("noise")
    captions = f"{raw} {synthetic}"
    words = {word.lower() for word in WORD.findall(captions)}
    if _numbers(fused) - _numbers(captions) or any(name.lower() not in words for name in _names(fused)):
        marks.add("invented")
    return marks


def _disagree(raw: str, synthetic: str) -> bool:
    numbers, others = _numbers(raw), _numbers(synthetic)
    if numbers and others and not numbers & others:
        return True
    words, more = _stems(raw), _stems(synthetic)
    return bool(words and more and not words & more)


def _bare(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def _numbers(text: str) -> set[str]:
    return set(NUMBER.findall(text))


def _stems(text: str) -> set[str]:
    return {word.lower()[:STEM] for word in WORD.findall(text) if len(word) >= LONG}


def _names(text: str) -> list[str]:
    """Give the words with a capital that begin no sentence."""
    return [match[1] for match in re.finditer(r"(?<=[\w,;:)] )([A-Z][^\W\d_]+)", text)]
