"""The pages of the documentation, and what stands in them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATTERNS = ("*.md", "docs/*.md", "examples/*/README.md", "benchmarks/README.md", "finetune/README.md")
PAGES = sorted(page for pattern in PATTERNS for page in ROOT.glob(pattern))
FENCE = re.compile(
    r"^(?P<indent> *)```(?:\{\.)?(?P<language>\w*)\}?\n(?P<code>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE
)
INDENTED = re.compile(r"(?:^|\n)\n((?: {4}.*\n)(?:(?: {4}.*)?\n)*)")


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of code of a page in that language."""
    return [match["code"] for match in FENCE.finditer(text_of(page)) if match["language"] == language]


def shell_lines(page: Path) -> list[str]:
    """The lines of blocks that name no language, each with those that continue it."""
    rest = FENCE.sub("", text_of(page))
    code = "\n".join([*INDENTED.findall(rest), *blocks(page, ""), *blocks(page, "sh")])
    return [line.strip().removeprefix("$ ") for line in re.sub(r"\\\n\s*", "", code).splitlines()]


def inline_commands(page: Path) -> list[str]:
    """The commands of soup's within lines of text."""
    return re.findall(r"`(soup [^`\n]+)`", INDENTED.sub("\n", FENCE.sub("", text_of(page))))


def without_code(page: Path) -> str:
    """The page without its blocks and spans of code."""
    return re.sub(r"`[^`\n]*`", "", INDENTED.sub("\n", FENCE.sub("", text_of(page))))
