"""Toy files of data sets whose totals are means of their parts' means: texts in photographs, of many sources."""

from __future__ import annotations

import json
from ast import literal_eval

from tests.helpers.toy_data_sets import TABLES, Toy, key, question

SOURCES = ["DocVQA-val", "ChartQA-human", *(f"TableVQA-{part}" for part in TABLES)]
READINGS = [
    *(("multi_lan_ocr", "French", "French"), ("multi_lan_ocr", "Arabic", "Arabic")),
    *(("multi_scene_ocr", "scene_text", "IC15"), ("kie", "constrained_category", "POIE")),
    *(("doc_parsing", "formula", "formula_handwriting"), ("doc_parsing", "table", "table_scan_eng")),
]
ABILITIES = [
    *("text recognition en", "VQA with position en", "key information extraction en", "formula recognition en"),
    *("text counting en", "cognition VQA en", "reasoning VQA en", "cognition VQA cn", "reasoning VQA cn"),
    *("key information extraction cn", "table parsing cn", "formula recognition cn", "table parsing en"),
]


def wild_rows():
    """Photographs of a document in four environments each; most of DocVQA."""
    rows = []
    for i in range(40):
        source = SOURCES[max(0, i // 4 - 4)]
        answer = {"vtabfact": str(i % 2), "fintabnetqa": f"{i}.5"}.get(source.partition("-")[2], f"word {i}")
        if source.startswith("DocVQA"):
            answer = repr([answer, f"{i:03d}"])
        index = f"{source}-{'env'}{i % 4}-{i // 4}"
        rows.append(question(i, question=f"<{index}> What is it?", answer=answer) | {"index": index})
    return rows


def wild_right(row):
    if "vtabfact" in row["index"]:
        return ["False", "True"][int(row["answer"])]
    return literal_eval(row["answer"])[0] if row["index"].startswith("DocVQA") else row["answer"]


def cc_rows():
    rows = []
    for i in range(30):
        category, level, split = READINGS[i // 3 if i < 18 else (29 - i) // 3]
        answer = {
            "kie": json.dumps({"name": [f"shop {i}"], "sum": [f"{i}.50"]}),
            "formula": f"x^{{{i}}} + y_{i}",
            "table": f"<table><tr><td>{i}</td><td>b</td></tr><tr><td>c</td><td>d{i}</td></tr></table>",
        }.get(level if category == "doc_parsing" else category, f"Le mot {i} est long")
        rows.append(
            question(i, answer=answer, category=category, split=split, image_name=f"{i}.jpg", **{"l2-category": level})
        )
    return rows


def ability_rows():
    rows = []
    for i in range(52):
        ability, text = ABILITIES[i % 13 if i % 3 else 0], f"What is <{i}>?"
        evaluation, bbox = "without eval", "without bbox"
        answers = [f"word {i}"]
        if ability == "cognition VQA en" and i % 2:
            answers, evaluation = ["ABCD"[i % 4]], "multiple choice"
        elif ability == "key information extraction en":
            answers = [{"name": [f"shop {i}"], "sum": [f"{i}.50"]}]
        elif ability == "key information extraction cn":
            answers = [repr({"name": [f"shop {i}"], "sum": [f"{i}.50"]})]
        elif ability == "text counting en":
            answers, evaluation = [i], ["exact match", "regression"][i % 2]
        elif ability.startswith("table parsing"):
            text += " Write it as html."
            answers = [f"<table><tr><td>{i}</td><td>b</td></tr><tr><td>c</td><td>d{i}</td></tr></table>"]
        elif ability == "VQA with position en":
            bbox = repr([i, i, 50 + i, 60])
        rows.append(
            question(
                i,
                question=text,
                answer=repr(answers),
                category=ability,
                eval=evaluation,
                bbox=bbox,
                content="without content",
            )
        )
    return rows


def ability_right(row):
    first = literal_eval(row["answer"])[0]
    if row["category"] == "key information extraction cn":
        first = literal_eval(first)
    if isinstance(first, dict):
        return json.dumps({name: values[0] for name, values in first.items()})
    if row["category"] == "VQA with position en":
        return json.dumps({"answer": first, "bbox": literal_eval(row["bbox"])})
    return str(first)


TOYS: dict[str, Toy] = {
    "WildDoc": Toy(
        wild_rows,
        lambda result: float(result[(result["Task"] == "WildDoc") & (result["Metric"] == "Overall")]["Score"].iloc[0]),
        right=wild_right,
        may_be_empty=False,
        fails_on=("inf",),
    ),
    "CCOCR": Toy(cc_rows, key("total"), may_be_empty=False),
    "OCRBench_v2_MINI": Toy(
        ability_rows,
        lambda result: 50 * (result["English Overall Score"] + result["Chinese Overall Score"]),
        right=ability_right,
    ),
}
