"""Toy files of data sets whose questions count in groups, or whose classes expect all kinds of them at once."""

from __future__ import annotations

from tests.helpers.toy_data_sets import Toy, answers_rows, choice_rows, image, key, question
from tests.helpers.toy_own_ways import column

GROUPS = 1900  # which VLMEvalKit's metric of NaturalBench takes, no more and no fewer
TRUTHS = (1, 0, 0, 1)  # of two questions on two pictures
SOURCES = [f"OE_{shown}_{subject}" for shown in ("MM", "TO") for subject in ("maths_en_COMP", "maths_zh_CEE")]
SOURCES += [f"OE_{shown}_physics_{rest}" for shown in ("MM", "TO") for rest in ("en_COMP", "zh_CEE")]
SOURCES += ["OE_MM_maths_zh_COMP", "OE_TO_maths_zh_COMP"]


def natural_rows(groups=GROUPS):
    """Two questions on two pictures in a row; all rows but the first two show their images."""
    rows = []
    for i in range(4 * groups):
        kind = ["yes_no", "multiple_choice"][i // 4 % 2]
        words = ("No", "Yes") if kind == "yes_no" else ("B", "A")
        rows.append(
            {
                "index": i,
                "image": image(i) if i < 2 else i % 2,
                "question": f"<{i}> Is it there?",
                "answer": words[TRUTHS[i % 4]],
                "type": kind,
            }
        )
    return rows


def stepped_rows():
    """Problems of two steps and of three: the steps, and the whole."""
    rows = []
    for problem in range(12):
        count = 2 + problem % 2
        for key_end in (*range(1, count + 1), "multi"):
            (row,) = choice_rows(1)
            index = len(rows) + 1
            rows.append(
                {
                    **row,
                    "index": index,
                    "image": image(index),
                    "question": f"<{index}> How much?",
                    "answer": "ABCD"[index % 4],
                    "ID": problem // 2,
                    "key": f"{count}steps_{key_end}",
                    "knowledge concept": "Area of Circles",
                    "hint": None,
                }
            )
    return rows


def two_images(index):
    header = "https://huggingface.co/datasets/Anonymous8976/M4Bench/resolve/main/data/"
    return {
        "index": index,
        "image1": image(index),
        "image2": image(500 + index),
        "image1_path": f"{header}a/{index // 2}.jpg",
        "image2_path": f"{header}b/{index // 2}.jpg",
        "query": f"<{index}> Which?\n(A) this\n(B) that\n(C) neither",
        "response": "ABC"[index % 3],
    }


def room_rows():
    kinds = ["object_rel_direction", "object_rel_distance", "object_counting", "object_abs_distance"]
    return [
        question(
            i,
            question_type=kinds[i % 4],
            candidates=repr([f"{letter}. x{i}" for letter in "ABCD"]) if i % 4 < 2 else "[]",
            answer="ABCD"[i % 3] if i % 4 < 2 else str(i / 4),
        )
        for i in range(26)
    ]


def net_rows():
    kinds = ["2d_trans", "temporal", "folding_nets", "tangram_puzzle_vsim"]
    return [
        question(
            i, question=f"<{i}> A. yes B. no <image>", answer="AB"[i // 4 % 2], category=kinds[i % 4], other_info="x"
        )
        for i in range(24)
    ]


def olympiad_rows(sources=SOURCES):
    return [
        {**row, "answer_type": "Numerical", "final_answer": f"['{row['index']}']", "error": None, "unit": None}
        | {"is_multiple_answer": False, "source": sources[row["index"] % len(sources)], "context": None}
        for row in answers_rows(str)
    ]


TOYS: dict[str, Toy] = {
    "NaturalBenchDataset": Toy(natural_rows, key("G_Acc")),
    "WeMath": Toy(
        stepped_rows,
        lambda result: (float(result["Score (Strict)"].iloc[0].rstrip("%")) - 100) * 525 / 12 + 100,
        decimals=0,
        may_be_empty=False,
    ),
    "State_Invariance": Toy(
        lambda: [two_images(i) for i in range(24)], key("acc", 1), right=lambda row: f"({row['response']})"
    ),
    "SPBench-SI": Toy(room_rows, key("overall", 1)),
    "StareBench": Toy(net_rows, key("overall_accuracy", 1)),
    "SiteBenchImage": Toy(
        lambda: choice_rows(options=lambda i: repr(["x", "y", "z", "none"])), key("overall_accuracy", 1)
    ),
    "OlympiadBench": Toy(olympiad_rows, column("AVG", 1), right=lambda row: rf"So it is \boxed{{{row['answer']}}}."),
}
