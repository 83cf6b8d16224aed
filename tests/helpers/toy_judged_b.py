"""Toy files of data sets that an LLM judge grades in more than one way, and what their judges say."""

from __future__ import annotations

import re

from tests.helpers.toy_data_sets import Toy, answers_rows, row

ORAL = ["Teeth", "Patho", "HisT", "Jaw,SumRec", "Report", "Teeth,Report"]


def extract_or_agree(prompt):
    """What a judge says of MMReason: the answer in a response, or whether two expressions are one."""
    if "YOUR TASK" in prompt:
        first, second = prompt.rpartition("Expression 1: ")[2].split("\n    Expression 2: ")
        return "Yes" if second.strip()[-1] in first else "No"
    return prompt.rpartition("Model response: '")[2].rpartition("'\nExtracted Answer")[0]


def compare_expressions(prompt):
    """What a judge says of two expressions of a physics problem."""
    first, second = re.findall(r"Expression \d:\n(.*?)\n\n", prompt, re.DOTALL)
    return str(first == second or len(first) % 3 == 0)


def grade_oral(prompt):
    truth, response = prompt.rpartition("\n<")[2].split(" | ", 2)[1:]
    return "1.0" if response == f"{truth} | " else str(len(response) % 10 / 10)


JUDGED: dict[str, Toy] = {
    "MMReason_testmini": Toy(
        lambda: answers_rows(lambda i: f"cell {i}", discipline=lambda i: ["one", "two"][i % 2]),
        row("Overall", "accuracy"),
        grade=extract_or_agree,
    ),
    "Physics": Toy(
        lambda: answers_rows(lambda i: f"['{i} \\\\text{{eV}}']", 8, category=lambda i: ["one", "two"][i % 2]),
        row("Overall", "acc"),
        right=lambda cells: f"So.\n\\[\n\\boxed{{{cells['index']} \\text{{eV}}}}\n\\]",
        grade=compare_expressions,
    ),
    "MMOral_OPG_OPEN": Toy(
        lambda: answers_rows(lambda i: f"cell {i}", category=lambda i: ORAL[i % 6]),
        row("Overall", "acc"),
        grade=grade_oral,
    ),
}
