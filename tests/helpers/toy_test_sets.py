"""Toy test sets of the exact schemas of OpenCompass's eight, right answers to them, and files of odd ones."""

from __future__ import annotations

import ast
import base64
import csv
import io
import random
import string

import pandas as pd
from PIL import Image

CIRCLE = 1_000_000
ODD = [
    "",
    "None",
    "NA",
    "nan",
    "=1+1",
    "x" * 40_000,
    "a\nb\r\nc\rd",
    "A\tB",
    "答案是 A",
    '"A',
    "\0",
    "\ud800",
    "Z",
    "007",
]
# fmt: off
BITS = [
    "A", "B.", "(C)", "D", "Z", "yes", "No!", "Yes no", "1", "0", "2.0", "1.5", "[3, 2]", "[1,2]", "-3 and 3",
    "mouse 4", "rodent", "text 5", "other answers", "答案", " ", "NULL", "true", "1e3", "\r\n", "'", "\\", "A\x00B",
    "The answer is A", "s3x1", "c4x2", "w1x0", "o7x3", "Failed to obtain answer via API.", "inf", "١٢", "½",
    "1_000", "0x10", "Cannot determine the answer", "A a A", "<image 2>", "7", "8",
]
# fmt: on

OCR_CATEGORIES = [
    "Regular Text Recognition",
    "Scene Text-centric VQA",
    "Doc-oriented VQA",
    "Key Information Extraction",
    "Handwritten Mathematical Expression Recognition",
]


def png(colour):
    file = io.BytesIO()
    Image.new("RGB", (24, 16), colour).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def mmbench_rows(count, options=4):
    """`count` questions with every rotation of their options, the rotations' images given by reference."""
    rows = []
    for question in range(1, count + 1):
        words = [f"w{question}x{option}" for option in range(options - question % 2)]
        for turn in range(len(words)):
            turned = words[turn:] + words[:turn]
            rows.append(
                {
                    "index": question + turn * CIRCLE,
                    "question": f'<{question + turn * CIRCLE}> What is it, "this"?',
                    "hint": "Look.\nTwice." if question % 3 == 0 else None,
                    **dict(zip("ABCD", turned + [None] * 4, strict=False)),
                    "answer": string.ascii_uppercase[turned.index(words[0])],
                    "category": ["ocr", "image_emotion"][question % 2],
                    "image": png((question % 256, 7, 9)) if turn == 0 else str(question),
                    "source": "toy",
                    "l2-category": ["coarse_perception", "logic_reasoning"][question % 2],
                    "comment": None,
                    "split": "dev",
                }
            )
    return sorted(rows, key=lambda row: row["index"])


def ocrbench_rows(count):
    return [
        {
            "index": index,
            "image": png((index % 256, index // 256, 200)),
            "dataset": "toy",
            "question": f"<{index}> What is written in the image?",
            "answer": repr([f"Text {index}!", f"{index:05d}"]),
            "category": OCR_CATEGORIES[index % 5],
        }
        for index in range(count)
    ]


def mmstar_rows(count):
    return [
        {
            "index": index,
            "question": f"<{index}> Which one, in this image?",
            "image": png((index % 256, 30, 60)),
            **dict(zip("ABCD", [f"s{index}x{option}" for option in range(4)], strict=True)),
            "answer": "ABCD"[index % 4],
            "category": ["coarse perception", "logical reasoning", "math"][index % 3],
            "l2_category": ["image topic", "common reasoning"][index % 2],
            "meta_info": str({"source": "toy", "split": "val"}),
        }
        for index in range(count)
    ]


def mmmu_rows(count):
    """Development rows first; two images now and then; every fifth question is open and has no options."""
    rows = []
    for index in range(1, count + 1):
        several, is_open, dev = index % 4 == 0, index % 5 == 0, index <= count // 5
        images = [png((index % 256, 90, number)) for number in range(2 if several else 1)]
        options = [f"o{index}x{option}" for option in range(4 - index % 2)]
        if several:
            options[1] = "<image 2>"
        rows.append(
            {
                "index": index,
                "id": f"{'dev' if dev else 'validation'}_Art_{index}",
                "question": f"<{index}> What does <image 1> show?" + (" And <image 2>?" if several and is_open else ""),
                "hint": None,
                **dict(zip("ABCDE", (options if not is_open else []) + [None] * 5, strict=False)),
                "answer": f"text {index}" if is_open else "ABC"[index % 3],
                "category": ["Art", "Physics"][index % 2],
                "l2-category": ["Art & Design", "Science"][index % 2],
                "image": str(images) if several else images[0],
                "split": "dev" if dev else "validation",
                "topic_difficulty": "Easy",
            }
        )
    rows[-1]["image"] = "1"  # borrowed from a row that does not count
    return rows


def mathvista_rows(count):
    """Multiple choice, whole numbers, decimal numbers and lists, in turn."""
    rows = []
    for index in range(1, count + 1):
        kind = ["choice", "integer", "float", "list"][index % 4]
        choices = [f"c{index}x{option}" for option in range(4)]
        answer = {"choice": choices[index % 3], "integer": index % 3, "float": f"{index / 10:.1f}", "list": [index, 2]}
        rows.append(
            {
                "index": index,
                "question": f"Hint: Please answer with a {kind}.\nQuestion: <{index}> What is it?",
                "image": png((index % 256, 120, 3)),
                "question_type": "multi_choice" if kind == "choice" else "free_form",
                "answer_type": "text" if kind == "choice" else kind,
                "precision": 1.0 if kind == "float" else None,
                "choices": str(choices) if kind == "choice" else None,
                "answer": str(answer[kind]),
                "answer_option": "ABCD"[index % 3] if kind == "choice" else None,
                "unit": None,
                "task": ["figure question answering", "geometry problem solving"][index % 2],
                "skills": str(["numeric commonsense", "arithmetic reasoning"][: 1 + index % 2]),
                "category": ["general-vqa", "math-targeted-vqa"][index % 2],
                "context": "toy",
                "grade": "daily life",
                "language": "english",
                "split": "testmini",
            }
        )
    return rows


def hallusionbench_rows(sets):
    """For each set two figures and two questions, and one question without an image, which nobody is asked."""
    rows = []
    for number in range(sets):
        kind = ["chart", "figure", "map"][number % 3]
        for figure, question in [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1)]:
            has_picture = int(figure > 0)
            index = f"{['VD', 'VS'][number % 2]}_{kind}_{has_picture}_{number // 3}_{figure}_{question}"
            rows.append(
                {
                    "index": index,
                    "category": ["VD", "VS"][number % 2],
                    "l2-category": kind,
                    "question": f"<{index}> Is it so? Please answer yes or no.",
                    "answer": "Yes" if (number + figure + question) % 2 else "No",
                    "image": png((number % 256, figure, 77)) if has_picture else None,
                }
            )
    return rows


def ai2d_rows(count):
    return [
        {
            "index": index,
            "question": f"<{index}> What is at {index}?",
            "image": png((index % 256, index // 256, 150)),
            **dict(zip("ABCD", [index + option for option in range(4)], strict=True)),
            "answer": "DCBA"[index % 4],
            "category": "diagram",
            "image_path": f"images/{index}.png",
        }
        for index in range(count)
    ]


def mmvet_rows(count):
    return [
        {
            "index": index,
            "image": png((index % 256, 2, 222)),
            "question": f"<{index}> What is x, and why?",
            "answer": f"-{index}<AND>{index}" if index % 2 else f"mouse {index}<OR>rodent {index}",
            "category": ["rec", "ocr,math", "rec,know,gen", "ocr,spat"][index % 4],
        }
        for index in range(count)
    ]


TOYS = {
    "mmbench": lambda: mmbench_rows(30),
    "mmstar": lambda: mmstar_rows(40),
    "mmmu": lambda: mmmu_rows(50),
    "mathvista": lambda: mathvista_rows(40),
    "hallusionbench": lambda: hallusionbench_rows(12),
    "ai2d": lambda: ai2d_rows(40),
    "ocrbench": lambda: ocrbench_rows(40),
    "mmvet": lambda: mmvet_rows(40),
}


def write_tsv(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(path, sep="\t", index=False, quoting=csv.QUOTE_MINIMAL)
    return path


def right(rows):
    """The right answer of each row."""
    return {row["index"]: right_answer(row) for row in rows}


def right_answer(row):
    if "dataset" in row:  # OCRBench: any of a list
        return ast.literal_eval(row["answer"])[0]
    if "answer_option" in row:
        return row["answer_option"] or row["answer"]
    return row["answer"].replace("<AND>", " and ").partition("<OR>")[0]


def predictions(kind, rows):
    """A whole file of answers of one kind, by index."""
    answers = right(rows)
    numbers = {index: index % CIRCLE if isinstance(index, int) else number for number, index in enumerate(answers)}
    if kind == "half right":
        return {index: answer if numbers[index] // 2 % 2 else "no idea" for index, answer in answers.items()}
    if kind == "noise":
        chance = random.Random(7)
        odd = {index: chance.choice(ODD) if chance.random() < 0.2 else answer for index, answer in answers.items()}
        return {**odd, **dict(zip(answers, ODD, strict=False))}
    if kind == "sentences":
        return {index: f"The answer is {answer}." for index, answer in answers.items()}
    return answers


def random_predictions(seed, rows):
    """Half of the answers right, the others another question's, or bits on which matching may stumble."""
    chance, answers = random.Random(seed), right(rows)

    def other():
        bits = " ".join(chance.choice([*BITS, *ODD]) for _ in range(chance.choice([1, 1, 2, 3])))
        return chance.choice([bits, bits, chance.choice([*answers.values()])])

    return {index: answer if chance.random() < 0.5 else other() for index, answer in answers.items()}
