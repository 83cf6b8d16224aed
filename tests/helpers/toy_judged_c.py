"""Toy files of more data sets that an LLM judge grades, each with the judge's replies."""

from __future__ import annotations

from tests.helpers.toy_classes import open_rows
from tests.helpers.toy_data_sets import Toy, key, percent


def compare_with_chart(prompt):
    """What a judge says of ChartMuseum's two answers."""
    expected, _, answer = prompt.rpartition("Answer 1: ")[2].partition("\n\nPlease")[0].partition("\nAnswer 2: ")
    return "Yes" if expected == answer else "No"


def mark_of_doctor(prompt):
    """What a judge says of Asclepius's answers."""
    answer, _, response = prompt.rpartition("\nAnswer: ")[2].removesuffix("\nYour mark: \n").partition("\nResponse: ")
    return f"{int(answer == response)}\nAs it is."


def compare_in_korean(prompt):
    """What a judge gives GPT-4 and a model."""
    first, second = (
        prompt.partition(f"[어시스턴트 {k}]\n")[2].partition(f"\n\n[어시스턴트 {k} 끝]")[0] for k in (1, 2)
    )
    return f"8 {8 if first == second else len(second) % 8}\n유용성"


def grade_of_description(prompt):
    """What a judge gives a description; now and then in another form."""
    grade = len(prompt) % 3
    return [f"Score: {grade}", f'{{"score": {grade}}}', f" {grade} "][len(prompt) % 7 % 3]


def label_answer(prompt):
    """What a judge says of WorldVQA's answers."""
    answer, _, truth = prompt.rpartition("Model Answer: ")[2].partition("\n'''")[0].partition("\nGround Truth Answer: ")
    label = "Correct" if answer == truth.strip() else ["Incorrect", "Unattempted"][len(answer) % 2]
    return f"**Evaluation**: As it is.\n**Label**: {label}"


JUDGED: dict[str, Toy] = {
    "ChartMuseum_dev": Toy(
        open_rows,
        percent,
        right=lambda row: f"<answer>{row['answer']}</answer>",
        may_be_empty=False,
        grade=compare_with_chart,
    ),
    **{
        name: Toy(
            lambda columns=columns: [
                {name: cell for name, cell in each.items() if name not in ("answer", "image")}
                | {"description": f"Noise {each['index']}, good.", **dict.fromkeys(columns, each["image"])}
                for each in open_rows()
            ],
            lambda result: 50 * sum(map(float, result.values())) / 4,
            right=lambda row: row["description"],
            grade=grade_of_description,
        )
        for name, columns in (
            ("MedqbenchCaption_dev", ["image"]),
            ("MedqbenchPairedDescription_test", ["image_a", "image_b"]),
        )
    },
    "Asclepius": Toy(open_rows, percent, grade=mark_of_doctor),
    "SGI-Experimental-Reasoning": Toy(
        lambda: [
            {
                **each,
                "answer": each["index"] % 4,
                "options": repr([f"cell {each['index']}", "y", "z", "none"]),
                "steps": repr(["Look.", "Say."]),
                "step_images": "[]",
            }
            for each in open_rows()
        ],
        key("MCC"),
        right=lambda row: f"It is \\boxed{{{'ABCD'[row['answer']]}}}",
        grade=lambda prompt: str(len(prompt) % 11),
    ),
    "LLaVABench_KO": Toy(
        lambda: [
            {
                **each,
                "category": ["conv", "detail", "complex"][each["index"] % 3],
                "caption": f"caption {each['index']}",
                "gpt4_ans": each["answer"],
            }
            for each in open_rows()
        ],
        lambda result: min(100.0, float(result[result["split"] == "overall"]["Relative Score (main)"].iloc[0])),
        grade=compare_in_korean,
    ),
}
"""Data sets that an LLM judge grades."""
