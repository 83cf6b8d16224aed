"""A judge on loopback for the toy family: `python -m finetune.toy.judge --port-file FILE`.

It speaks OpenAI's chat completions and answers the prompts that VLMEvalKit sends for MathVista (take the answer out of
a response) and MM-Vet (grade an answer against what is wanted). It is a rule, no model, and says so by its name:

    MathVista   the last number, list, option's letter or option's words of the response, by what the hint asks for
    MM-Vet      the share of wanted words that stand in the answer; of alternatives (<OR>), the best one

The first line of its output is its URL. The port is the one in the port file, so that the next run finds the same
judge there: to the journal, a judge at another place is another judge.
"""

from __future__ import annotations

import re

from finetune.toy.commands import serving_command
from finetune.toy.rule_server import RuleServer

__all__ = ["MODEL", "JudgeServer", "extract", "grade", "reply"]

MODEL = "toy-rule-judge"

RESPONSE = "Model respone: "  # VLMEvalKit's spelling
EXTRACTED = "Extracted answer:"
TABLE = "Question | Ground truth | Prediction | Correctness"
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def reply(prompt: str) -> str | None:
    """Return the judgement that a prompt asks for; None for a prompt that is neither MathVista's nor MM-Vet's."""
    if prompt.endswith(EXTRACTED) and RESPONSE in prompt:
        examples, _, response = prompt.removesuffix(EXTRACTED).rpartition(RESPONSE)
        return extract(examples.rpartition(EXTRACTED)[2], response)  # the question follows the last example's answer
    if TABLE in prompt:
        _, wanted, answer = _last_row(prompt)
        return f"{grade(wanted, answer):.1f}"
    return "Hello." if prompt == "Hello." else None


def extract(question: str, response: str) -> str:
    """Return what a response answers to a question of MathVista's, as short as its hint wants; "none" without one."""
    if "option letter" in question:
        return _option(question, response) or "none"
    if "Python list" in question:
        return (re.findall(r"\[[^\[\]]*\]", response) or ["none"])[-1]
    pattern = r"-?\d+\.\d+|-?\d+" if "floating-point" in question else r"-?\d+"
    numbers = re.findall(pattern, _in_digits(response))
    return numbers[-1] if numbers else "none"


def _option(question: str, response: str) -> str | None:
    """Return the letter that the response names, or that of the one choice whose words it has."""
    letters = re.findall(r"\(([A-H])\)|\b([A-H])\b", response)
    if letters:
        return max(letters[-1])
    choices = re.findall(r"\(([A-H])\) *([^\n(]+)", question)
    named = [letter for letter, words in choices if _holds(response, words)]
    return named[0] if len(named) == 1 else None


def _in_digits(text: str) -> str:
    """Return the text with small numbers in digits."""
    return re.sub(r"[a-z]+", lambda word: str(NUMBERS.index(word[0])) if word[0] in NUMBERS else word[0], text.lower())


def grade(wanted: str, answer: str) -> float:
    """From 0 to 1: the share of all parts (<AND>) that stand in the answer, of the alternative (<OR>) that has most."""
    alternatives = [[part.strip() for part in each.split("<AND>")] for each in wanted.split("<OR>")]
    return max(sum(_holds(answer, part) for part in parts) / len(parts) for parts in alternatives)


def _holds(text: str, words: str) -> bool:
    """Whether the words stand in the text one after another, whatever is between them and around them."""
    needed, present = (re.findall(r"\w+", each.lower()) for each in (words, text))
    starts = range(len(present) - len(needed) + 1)
    return bool(needed) and any(present[start : start + len(needed)] == needed for start in starts)


def _last_row(prompt: str) -> tuple[str, str, str]:
    """Question, ground truth and prediction of the row to be completed: an empty line parts it from the examples."""
    row = prompt.partition(TABLE)[2].partition("\n\n")[2]
    question, wanted, answer = [*row.removesuffix(" | ").split(" | ", 2), "", ""][:3]
    return question, wanted, answer


class JudgeServer(RuleServer):
    """The judge at one port of loopback; 0 for any that is free.

    Raises:
        OSError: the port is taken.
    """

    model = MODEL
    prompts = "the prompts of MathVista and MM-Vet"

    def reply(self, prompt: str) -> str | None:
        """Return the judgement that a prompt asks for."""
        return reply(prompt)


main = serving_command(JudgeServer, "Judge by a rule until interrupted, or until whoever started this is gone.")

if __name__ == "__main__":
    main()
