"""Toy files of data sets of problems in mathematics and physics that an LLM judge grades."""

from __future__ import annotations

import json

from tests.helpers.toy_data_sets import Toy, answers_rows, row
from tests.helpers.toy_test_sets import ODD

LETTERS = "ABCD"
LONG = tuple(text for text in ODD if len(text) > 200)
KINDS = ["multiple choice", "float", "text"]


def maths_rows():
    """Numbers and letters; the choices stand in a list, which is empty for an open question."""
    made = answers_rows(
        lambda i: str(i) if i % 2 else LETTERS[1 + i % 3], category=lambda i: ["algebra", "topology"][i % 2]
    )
    for each in made:
        each["choices"] = str([] if each["index"] % 2 else [f"s{each['index']}x{option}" for option in range(4)])
    return made


def dynamic_rows():
    """Two variants of each problem; VLMEvalKit looks a problem up by the index of the first."""
    rows = answers_rows(
        lambda i: [LETTERS[i % 4], f"{i}.250", f"cell {i}"][i % 3],
        answer_type=lambda i: KINDS[i % 3],
        subject=lambda i: ["algebra", "statistics"][i % 2],
        knowledge_level=lambda i: ["high school", "undergraduate"][i // 2 % 2],
    )
    return [{**each, "qid": (each["index"] - 1) // 2 * 2 + 1, "varid": (each["index"] - 1) % 2 + 1} for each in rows]


def physics_rows():
    return answers_rows(
        lambda i: f"{i} m" if i % 2 else f"\\frac{{{i}}}{{7}}",
        level=lambda i: 1 + i % 3,
        subject=lambda i: ["EM", "OM"][i % 2],
        language=lambda i: ["English", "Chinese"][i % 2],
        sig_figs=lambda i: 2 if i % 3 else None,
        caption=lambda i: "A ramp.",
    )


def reasoning_rows():
    rows = answers_rows(
        lambda i: [f"word {i}", str(i), f"{i}.5", LETTERS[i % 4]][i % 4],
        question_type=lambda i: "multi_choice" if i % 4 == 3 else "free_form",
        answer_type=lambda i: ["text", "integer", "float", "text"][i % 4],
        task=lambda i: ["Spatial Reasoning", "Numerical Analysis Reasoning"][i % 2],
        language=lambda i: ["English", "Chinese"][i // 2 % 2],
        format=lambda i: "The answer is X.",
        reasoning=lambda i: f"As it stands there, {i}.",
        answer_option=lambda i: LETTERS[i % 4],
    )
    return [{**each, "choices": str([f"s{each['index']}x{option}" for option in range(4)])} for each in rows]


def short_answer(prompt):
    """What a judge makes of an answer to DynaMath that is not in its form."""
    return prompt.removeprefix("Free-form answer: ").rpartition("\nInstruction: ")[0]


def judge_physics(prompt):
    """What a judge says of SeePhys: the answer in a response, or whether two answers are one."""
    if prompt.endswith("Judgement: "):
        truth, _, answer = prompt.rpartition("[Standard Answer]: ")[2].partition("\n[Model Answer]: ")
        return f"Judgement: {int(truth in answer or len(answer) % 2)}"
    return prompt.rpartition("Model response: ")[2].removesuffix("Extracted answer:") or "nothing"


def rate_or_extract(prompt):
    """What a judge says of OCR_Reasoning: a rating of the reasoning, or the answer in a response."""
    if "[The Start of Reference Answer]" in prompt:
        return f"Rating: [[{1 + len(prompt) % 10}]]"
    return prompt.rpartition("Model respone: ")[2].removesuffix("Extracted answer:")  # their spelling


JUDGED: dict[str, Toy] = {
    # VLMEvalKit executes answers, so that A is a variable that has the right one; a long text takes it half a minute.
    "MathVision_MINI": Toy(maths_rows, row("Overall", "acc"), fails_on=(*LONG, "A")),
    "DynaMath": Toy(
        dynamic_rows,
        row("Average", "Overall", 100),
        right=lambda each: json.dumps({"solution": "As I see it.", "short answer": each["answer"]}),
        grade=short_answer,
    ),
    "DynaMath_noprompt": Toy(dynamic_rows, row("Average", "Overall", 100), grade=short_answer),
    "SeePhys": Toy(physics_rows, lambda result: result["Overall"]["Accuracy (%)"], grade=judge_physics),
    "OCR_Reasoning": Toy(reasoning_rows, row("Overall", "acc"), grade=rate_or_extract),
}
"""Data sets that an LLM judge grades."""
