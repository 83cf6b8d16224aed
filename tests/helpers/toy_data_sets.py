"""Toy files of VLMEvalKit's data sets beside OpenCompass's eight: its columns, its forms of values, right answers."""

from __future__ import annotations

import base64
import io
from ast import literal_eval
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from PIL import Image

from evaluators.vlmeval.light_import import vlmeval_module
from tests.helpers.toy_test_sets import mmbench_rows, ocrbench_rows, png

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Toy:
    """A toy data set, and how the test reads VLMEvalKit's result for it."""

    rows: Callable[[], Rows]
    total: Callable[[Any], float]
    right: Callable[[dict[str, Any]], str] = lambda row: str(row["answer"])
    may_be_empty: bool = True  # whether VLMEvalKit survives an answer that reads back as a missing cell
    fails_on: tuple[str, ...] = ()  # answers at which VLMEvalKit's metric stops with an error
    decimals: int = 2  # to which VLMEvalKit rounds the total, or more
    leaves_out: bool = False  # whether VLMEvalKit leaves out answers that can't be read, which count as 0 here
    opens_images: bool = False  # whether VLMEvalKit's `evaluate` opens what its prompts have written
    grade: Callable[[str], str] | None = None  # what a judge replies to a prompt, where the tests' own reply is none


def overall(result):
    return 100 * float(result["Overall"].iloc[0])


def percent(result):
    return float(result["Overall"].iloc[0])


def key(name, scale=100):
    return lambda result: scale * float(result[name])


def row(name, column, scale=1):
    return lambda result: scale * float(result[(result == name).any(axis=1)][column].iloc[0])


def image(index):
    return png((index % 256, 99, index // 256))


def question(index, **columns):
    return {"index": index, "image": image(index), "question": f"<{index}> What is it?", **columns}


def choice_rows(count=24, letters="ABCD", **columns):
    """Multiple choice; an option that is a number, one that is missing, categories that are missing."""
    made = []
    for index in range(1, count + 1):
        words = [f"s{index}x{option}" for option in range(len(letters))]
        words[1] = str(index) if index % 5 == 0 else words[1]
        made.append(
            question(
                index,
                **dict(zip(letters, words, strict=True)),
                answer=letters[index % len(letters)],
                category=["one", "two", "3"][index % 3],
                **{name: value(index) for name, value in columns.items()},
            )
        )
    return made


def yes_no_rows(categories, count=24, group=2):
    return [
        question(
            index,
            answer="Yes" if index % 2 else "No",
            category=categories[index // group % len(categories)],
            image_path=f"{index // group}.jpg",
        )
        for index in range(count)
    ]


def answers_rows(make, count=24, **columns):
    return [
        question(index, answer=make(index), **{name: value(index) for name, value in columns.items()})
        for index in range(1, count + 1)
    ]


MME_CATEGORIES = ["OCR", "color", "existence", "code_reasoning", "text_translation"]
VISULOGIC = ["Quantitative", "Spatial", "Positional", "Attribute", "Stylistic"]
VISUAL_PUZZLES = ["spatial", "algorithmic", "analogical", "inductive", "deductive"]
LEVELS = ["easy", "medium", "hard"]
TREES = ["Perception/OCR", "Reasoning/Ordering", "Reasoning/Comparison"]
VLMBLIND = ["Touching Circles", "Olympic Counting - Circles", "Nested Squares"]
SKILLS = ["inductive", "deductive", "numerical", "spatial", "mechanical"]
TABLES = ["fintabnetqa", "vtabfact", "vwtq", "vwtq_syn"]
PUZZLES = [
    "grid_number",
    "size_grid",
    "rectangle_height_color",
    "shape_size_hexagon",
    "rectangle_height_number",
    "shape_reflect",
    "circle_size_number",
    "polygon_sides_color",
    "color_overlap_squares",
    "color_size_circle",
    "venn",
    "size_cycle",
    "polygon_sides_number",
    "shape_size_grid",
    "color_hexagon",
    "grid_number_color",
    "color_grid",
    "shape_morph",
    "triangle",
    "color_number_hexagon",
]
VMC = [
    "SEEDBench",
    "MMStar",
    "A-OKVQA",
    "VizWiz",
    "MMVet",
    "VQAv2",
    "OKVQA",
    "MMMU",
    "MathVista",
    "ScienceQA",
    "RealWorldQA",
    "GQA",
    "MathVision",
    "TextVQA",
    "OCRVQA",
    "AI2D",
    "ChartQA",
    "DocVQA",
    "InfoVQA",
    "TableVQABench",
]


def tenfold(index):
    return repr([f"word {index}"] * 9 + ["other"])


def letters_of(prompt):
    """What a judge says of LogicVista: the letters that an answer is, or Z."""
    answer = prompt.rpartition("Answer: <start>\n")[2].partition("\n<end>")[0]
    return answer if answer.isupper() and answer.isalpha() else "Z"


TOYS: dict[str, Toy] = {
    "RealWorldQA": Toy(choice_rows, overall),
    "ScienceQA_TEST": Toy(lambda: choice_rows(split=lambda i: "test", hint=lambda i: None), overall),
    "SEEDBench_IMG": Toy(choice_rows, overall),
    "MicroVQA": Toy(lambda: choice_rows(letters="ABCDE"), overall),
    "MMBench_DEV_CN": Toy(lambda: mmbench_rows(20), overall),
    "CCBench": Toy(lambda: mmbench_rows(40), overall),
    "MMMU_Pro_10c": Toy(lambda: choice_rows(letters="ABCDE", split=lambda i: "test"), overall),
    "MMVP": Toy(lambda: pair_rows(), overall),
    "MMT-Bench_VAL": Toy(
        lambda: [{**row, "l2-category": mmt_category(row["index"])} for row in choice_rows(40, split=lambda i: "VAL")],
        row("ALL", "Overall", 100),
    ),
    "CV-Bench-2D": Toy(
        lambda: choice_rows(
            prompt=lambda i: f"<{i}> Which?", split=lambda i: "2D", source=lambda i: ["COCO", "ADE20K"][i % 5 == 0]
        ),
        overall,
    ),
    "CV-Bench-3D": Toy(
        lambda: choice_rows(prompt=lambda i: f"<{i}> Which?", split=lambda i: "3D", source=lambda i: "Omni3D"), overall
    ),
    "HRBench4K": Toy(
        lambda: [
            {**row, "category": ["single", "cross"][row["index"] % 2]}
            for row in choice_rows(cycle_category=lambda i: i % 4)
        ],
        lambda result: (
            100 * float(result[(result["cycle"] == "Average") & (result["type"] == "all")]["accuracy"].iloc[0])
        ),
    ),
    "MME-RealWorld-Lite": Toy(
        lambda: [
            {
                **row,
                "category": f"Perception/{['Monitoring', 'Remote Sensing'][row['index'] % 2]}",
                "l2-category": "count",
            }
            for row in choice_rows(
                letters="ABCDE",
                **{"multi-choice options": lambda i: repr([f"({letter}) o{letter}" for letter in "ABCDE"])},
            )
        ],
        key("Overall"),
        may_be_empty=False,
    ),
    "VMCBench_DEV": Toy(
        lambda: [{**row, "category": VMC[row["index"] % 20]} for row in choice_rows(40)],
        percent,
        right=lambda row: f"({row['answer']})",
    ),
    "VisuLogic": Toy(
        lambda: [
            {**row, "category": [*(f"{name} Reasoning" for name in VISULOGIC), "Other"][row["index"] % 6]}
            for row in choice_rows()
        ],
        row("Overall", "acc"),
        right=lambda row: rf"\boxed{{{row['answer']}}}",
        may_be_empty=False,
    ),
    "VisualPuzzles": Toy(
        lambda: [
            {
                **row,
                "category": VISUAL_PUZZLES[row["index"] % 5],
                "difficulty": LEVELS[row["index"] % 3],
                "options": None,
            }
            for row in choice_rows(30)
        ],
        row("overall", "acc"),
        right=lambda row: f"Answer: {row['answer']}",
        may_be_empty=False,
    ),
    "PuzzleVQA": Toy(
        lambda: [
            {
                **row,
                "category": PUZZLES[row["index"] % 20],
                "answer": row[row["answer"]],
                "options": repr([row[k] for k in "ABCD"]),
            }
            for row in choice_rows(40)
        ],
        row("overall", "acc"),
        right=lambda row: f"Answer: {'ABCD'[[row[k] for k in 'ABCD'].index(row['answer'])]}",
        may_be_empty=False,
    ),
    "tdbench_cs_zoom": Toy(choice_rows, overall),
    "SIUO_MCQ": Toy(choice_rows, percent),
    "M3oralBench": Toy(lambda: choice_rows(task_type=lambda i: "judge"), percent),
    "ERQA": Toy(choice_rows, row("Overall", "Accuracy (%)")),
    "MME": Toy(
        lambda: yes_no_rows(MME_CATEGORIES),
        lambda result: 100 * float(result["perception"].iloc[0] + result["reasoning"].iloc[0]) / 2800,
    ),
    "POPE": Toy(lambda: yes_no_rows(["random", "popular,adversarial"]), percent),
    "AMBER": Toy(
        lambda: [
            {**row, "answer": row["answer"].lower()}
            for row in yes_no_rows(["discriminative-hallucination", "relation", "discriminative-attribute-state"])
        ],
        lambda result: float(result["Avg ACC"].iloc[0]),
    ),
    "VSR-zeroshot": Toy(lambda: yes_no_rows(["x"]), lambda result: float(result["acc"].iloc[0])),
    "TextVQA_VAL": Toy(lambda: answers_rows(tenfold), percent, right=lambda row: f"word {row['index']}"),
    "DocVQA_VAL": Toy(
        lambda: answers_rows(lambda i: repr([f"text {i}", f"{i:04d}"])), percent, right=lambda r: f"text {r['index']}"
    ),
    "InfoVQA_VAL": Toy(
        lambda: answers_rows(lambda i: f"text {i}", split=lambda i: ["a", "b"][i % 2]),
        lambda r: float(r["Overall"].iloc[0]),
    ),
    "ChartQA_TEST": Toy(
        lambda: answers_rows(lambda i: str(i * 1.5), split=lambda i: ["test_human", "test_augmented"][i % 2]), percent
    ),
    "OCRVQA_TESTCORE": Toy(lambda: answers_rows(lambda i: f"Book {i}"), percent),
    "GQA_TestDev_Balanced": Toy(
        lambda: answers_rows(lambda i: ["yes", "left", "7"][i % 3], category=lambda i: None), percent
    ),
    "VizWiz": Toy(
        lambda: [{**row, "answers": row["answer"]} for row in answers_rows(tenfold)],
        percent,
        right=lambda row: f"word {row['index']}",
    ),
    "PlotQA": Toy(lambda: answers_rows(lambda i: str(i * 10)), percent),
    "OCRBench_MINI": Toy(
        lambda: ocrbench_rows(30),
        lambda result: 100 * result["Final Score"] / 30,
        right=lambda row: f"Text {row['index']}!",
    ),
    "CountBenchQA": Toy(lambda: answers_rows(lambda i: i % 10), key("accuracy", 1)),
    "TallyQA": Toy(
        lambda: answers_rows(lambda i: i % 10),
        lambda result: 100 * float(result["TallyQA"].iloc[0]),
        may_be_empty=False,
    ),
    "MTVQA_TEST": Toy(
        lambda: answers_rows(lambda i: f"Wort {i}.", category=lambda i: ["de", "th"][i % 2], split=lambda i: "test"),
        key("Average", 1),
    ),
    "CRPE_EXIST": Toy(lambda: answers_rows(lambda i: "ABCD"[i % 4], category=lambda i: "exist"), key("total")),
    "ZEROBench": Toy(
        lambda: [{**row, "answers": row["answer"]} for row in answers_rows(lambda i: f"z{i}")],
        key("accuracy"),
        right=lambda row: f"It is {{{row['answer']}}}",
    ),
    "VLMBlind": Toy(
        lambda: [
            question(
                i, task=VLMBLIND[i % 3], prompt=f"<{i}>?", answers=["Yes", "five", "3"][i % 3], **dict.fromkeys("AB")
            )
            for i in range(22)
        ],
        lambda result: 100 * float(result.iloc[0].mean()),
        right=lambda row: {"Yes": "Yes", "five": "five", "3": "{3}"}[row["answers"]],
        may_be_empty=False,
    ),
    "TableVQABench": Toy(
        lambda: [
            {
                **row,
                "answer": ["12", "1", f"w{row['index']}", f"w{row['index']}"][row["index"] % 4],
                "split": TABLES[row["index"] % 4],
            }
            for row in answers_rows(str)
        ],
        lambda result: sum(each[0] if isinstance(each, list) else each for each in result["average_scores"]) / 4,
        right=lambda row: "true" if row["split"] == "vtabfact" else str(row["answer"]),
        may_be_empty=False,
        fails_on=("inf",),
    ),
    "ChartQAPro": Toy(
        lambda: [
            question(
                i,
                question=repr(["Before?", f"<{i}>?"] if i % 3 == 0 else [f"<{i}>?"]),
                answer=repr(["x", f"word {i}"] if i % 3 == 0 else [[f"{i * 10}", "true", f"['a {i}', '7']"][i % 3]]),
                question_type=["Conversational", "Fact Checking", "Factoid"][i % 3],
                year=repr(["NO", "NO"]),
                paragraph=None,
            )
            for i in range(1, 25)
        ],
        lambda result: 100 * float(result[result[0] == "Overall"][1].iloc[0]),
        right=lambda row: literal_eval(row["answer"])[-1],
    ),
    "TopViewRS": Toy(choice_rows, overall),
    "COCO_VAL": Toy(
        lambda: [
            {**row, "question": f"<{row['index']}> Describe it."}
            for row in answers_rows(lambda i: repr([f"a red square number {i}", f"square {i} in red"]))
        ],
        key("ROUGE_L", 1),
        right=lambda row: literal_eval(row["answer"])[0],
    ),
    "TreeBench": Toy(
        lambda: [
            {**row, "category": TREES[row["index"] % 3], "target_instances": "[[1, 1, 9, 9]]"} for row in choice_rows()
        ],
        key("Overall"),
        right=lambda row: f"<think><box>[1,1,9,9]</box></think><answer>{row['answer']}</answer>",
        may_be_empty=False,
    ),
    "RefSpatial_Location": Toy(
        lambda: [
            question(i, prompt=f"<{i}> Where?", mask=half_mask(), split="Location", step=1 + i % 2) for i in range(24)
        ],
        row("Overall", "Success Rate (%)"),
        right=lambda row: "[[0.2, 0.5]]",
    ),
}


JUDGED: dict[str, Toy] = {
    "LLaVABench": Toy(
        lambda: answers_rows(
            lambda i: f"answer {i}",
            category=lambda i: ["conv", "detail", "complex"][i % 3],
            caption=lambda i: f"caption {i}",
            gpt4_ans=lambda i: f"answer {i}",
        ),
        lambda result: min(100.0, float(result[result["split"] == "overall"]["Relative Score (main)"].iloc[0])),
    ),
    "LogicVista": Toy(
        lambda: answers_rows(lambda i: ["A", "B, D", "C"][i % 3], skill=lambda i: SKILLS[i % 5]),
        row("Overall", "acc"),
        right=lambda row: row["answer"].replace(", ", ""),
        grade=letters_of,
    ),
    "PathVQA_VAL": Toy(lambda: answers_rows(lambda i: f"cell {i}"), overall),
    "CharXiv_reasoning_val": Toy(
        lambda: answers_rows(
            lambda i: f"bar {i}",
            grading_query=lambda i: f"Grade: bar {i} | {{PREDICTION}}",
            inst_category=lambda i: 1 + i % 4,
        ),
        overall,
    ),
    "VLMBias": Toy(lambda: answers_rows(lambda i: i % 7), overall, right=lambda row: f"It is {{{row['answer']}}}"),
    "SFE": Toy(
        lambda: [
            {**row, "question": f"{row['question']} <image>", "question_type": "open_ended", "category": "Earth"}
            for row in answers_rows(lambda i: f"grain {i}")
        ],
        percent,
    ),
    "CoreCognition": Toy(
        lambda: answers_rows(
            lambda i: ["A", "YES"][i % 2],
            question_type=lambda i: ["MCQ", "YORN"][i % 2],
            category=lambda i: "stage",
            **{"l2-category": lambda i: "concept"},
        ),
        percent,
    ),
    "MaCBench": Toy(
        lambda: [
            question(i, question=f"<{i}> {{image}}?", answer=i, category="lab", relative_tolerance=0.02)
            for i in range(1, 25)
        ],
        overall,
    ),
    "MMVMBench": Toy(
        lambda: answers_rows(lambda i: f"pair {i}", match_type=lambda i: f"[{1 + i % 8}]"),
        overall,
        may_be_empty=False,
        grade=lambda prompt: ["[YES]", "[NO]"][len(prompt) % 2],
    ),
    "MMVet_Hard": Toy(
        lambda: answers_rows(lambda i: f"mouse {i}", category=lambda i: ["rec", "ocr,math", "know,gen", "spat"][i % 4]),
        lambda result: float(result[result["Category"] == "Overall"]["acc"].iloc[0]),
    ),
}
"""Data sets that an LLM judge grades."""


def half_mask():
    """The left half of a picture, as base64 of a PNG of more than 100 characters."""
    picture, file = Image.new("L", (64, 48)), io.BytesIO()
    picture.paste(255, (0, 0, 32, 48))
    picture.save(file, "PNG", compress_level=0)
    return base64.b64encode(file.getvalue()).decode()


def mmt_category(index):
    """VLMEvalKit's table of MMT-Bench wants every one of its categories."""
    names = [*vlmeval_module("dataset.utils.multiple_choice").MMT_abbrs]
    return names[index % len(names)]


def pair_rows():
    rows = choice_rows()
    return [{**row, "hint": f"<{row['index']}>", "question": f"Pair {(row['index'] + 1) // 2}?"} for row in rows]
