"""Toy files of data sets of which VLMEvalKit's `evaluate` reads answers as lists, or works out whether they solve."""

from __future__ import annotations

import csv

from tests.helpers.toy_data_sets import Toy, answers_rows, choice_rows
from tests.helpers.toy_test_sets import BITS, ODD

LISTS = ("[3, 2]", "[1,2]")
PUZZLES = ["graph_isomorphism", "24Points", "CryptoMath", "max_flow", "wordsearch"]
MOVES = ["24points_evaluator", "cryptomath_evaluator", "simple_str_match"]


def several_rows():
    """Multiple choice of one right option or more; one has a list, and one a list in another order."""
    rows = choice_rows()
    return [{**row, "answer": str([*"ABCD"[: 1 + i % 3]] if i % 5 else ["B", "A"])} for i, row in enumerate(rows)]


def puzzle_rows():
    """Pairs of questions on two graphs, sums to find, letters that stand for digits, and texts."""
    rows = answers_rows(lambda i: f"cell {i}")
    for i, row in enumerate(rows):
        kind = i // 2 % 5
        row |= {
            "category": PUZZLES[kind],
            "metric_info": str({"score_function": MOVES[kind - 1 if kind in (1, 2) else 2]}),
            "initial_state": "{}",
            "question_text": f"Pair {i // 10}: are they the same?" if kind == 0 else f"Text {i}",
            "answer": ["Yes", "No"][i // 10 % 2] if kind == 0 else row["answer"],
        }
        if kind == 1:
            row |= {"initial_state": str({"numbers": [4, 6, 1, 1]}), "answer": "4*6*1*1"}
        elif kind == 2:
            row |= {"initial_state": str({"equation": "A+B=C"}), "answer": str({"A": 1, "B": 2, "C": 3})}
    return rows


def overall_in_file(folder):
    (file,) = folder.glob("*_results.tsv")
    with file.open() as lines:
        return next(
            100 * float(row["average_score"])
            for row in csv.DictReader(lines, delimiter="\t")
            if row["group"] == "overall"
        )


PUZZLE_TOY = Toy(puzzle_rows, overall_in_file, right=lambda row: f"So \\boxed{{{row['answer']}}}")
"""Of MM-HELIX, whose pictures are files."""

TOYS: dict[str, Toy] = {
    "A4Bench": Toy(
        several_rows,
        lambda result: 100 * float(result["match"].mean()),
        fails_on=tuple(text for text in (*ODD, *BITS) if text not in LISTS),
    ),
}
