"""Toy files of data sets whose classes differ from others in a few columns or words of their prompts."""

from __future__ import annotations

from tests.helpers.toy_data_sets import Toy, answers_rows, choice_rows, key, overall, question, row

LETTERS = "ABCD"


def spatial_rows():
    """Multiple choice about space, in the columns of all of VLMEvalKit's benchmarks of that kind."""
    return choice_rows(
        question_type=lambda i: ["one", "two"][i % 2],
        task=lambda i: ["one", "two"][i % 2],
        task_type=lambda i: ["one", "two"][i % 2],
        sub_task_type=lambda i: "three",
        relation=lambda i: "left",
        level=lambda i: "easy",
        options=lambda i: repr([f"x{i}", "y", "z", "none"]),
        candidates=lambda i: repr([f"x{i}", "y", "z", "none"]),
        input_prompt=lambda i: f"<image> <{i}> Where is it?",
        question_raw=lambda i: f"<image> <{i}> Where is it?",
    )


NEEDLES = ["count-text", "find-image", "find-text", "infer-choose", "count-image", "visual-reasoning"]
LEVELS = ["L1_single", "L2_objects", "L3_2d_spatial", "L4_occ", "L4_pose", "L5_6d_spatial", "L5_collision"]
REFERRED = ["RefCOCO_testA", "RefCOCO_testB", "RefCOCO_val"]


def needle_rows():
    """Haystacks of a text and one picture: a letter, a list of counts or a word is to be found."""
    rows = []
    for i in range(24):
        category = NEEDLES[i % 6]
        choices = (
            [["red", "blue", "green", "none"], []]
            if category in ("visual-reasoning", "find-image", "infer-choose")
            else [[], []]
        )
        rows.append(
            question(
                i,
                question=repr([f"<{i}> Some text.", "What <image> is it?"]),
                answer={"visual-reasoning": i % 4, "find-image": i % 4, "count-text": f"[{i}, 2]"}.get(
                    category, f"word {i}"
                ),
                category=category,
                image_path=f"n{i}.png",
                **{"multi-choice options": repr(choices)},
            )
        )
    return rows


PAIRED = ["gc-mat", "gc-trk", "oc-cpr", "pc-cpr"]


def linked_rows():
    """Pairs of statements of which one is true, counts, and options, as the index and the category have them."""
    rows = []
    for i in range(36):
        category = [*PAIRED, "oc-cnt", "oc-grp"][i // 2 % 6]
        index = f"{category}_{i // 12}_{'pn'[i % 2]}" if category in PAIRED else f"{category}_{i}"
        answer = {"oc-cnt": 2 + i % 3, "oc-grp": "ABCD"[i % 4]}.get(category, "TF"[i % 2])
        rows.append(question(i, question=f"<{index}> Is it?", answer=str(answer), category=category) | {"index": index})
    return rows


def measured_rows():
    kinds = [
        ("int", str),
        ("float", lambda i: f"{i + 1}.5"),
        ("str", lambda i: ["yes", "no"][i // 4 % 2]),
        ("str", lambda i: f"red{i}"),
    ]
    return [
        question(i, answer=kinds[i % 4 if i < 24 else 0][1](i), answer_type=kinds[i % 4 if i < 24 else 0][0])
        for i in range(30)
    ]


BLANKS = ["选择", "判断", "填空"]


def chinese_rows():
    """Options, statements that are right or wrong, and blanks; four of the six subjects."""
    return [
        question(
            i,
            type=BLANKS[i % 3],
            answer=["ABCD"[i % 4], ["对", "错"][i % 2], f"{i}.5" if i % 2 else f"氧气{i}"][i % 3],
            category=["技术与工程", "科学", "健康与医学", "商业", "艺术与设计", "人文社会科学"][i % 6],
            **{f"option{k}": f"选项{i}第{k}" for k in range(1, 5)},
        )
        for i in range(36)
    ]


TOYS: dict[str, Toy] = {
    "CMMMU_VAL": Toy(
        chinese_rows,
        lambda result: 100 * float(result["总准确率"].iloc[0]),
        right=lambda row: {
            "填空": f"答案是{row['answer']}",
            "判断": {"对": "正确", "错": "错误"}.get(row["answer"]),
        }.get(row["type"], row["answer"]),
    ),
    "MedqbenchMCQ_test": Toy(
        lambda: [{**each, "answer": "ABCD".index(each["answer"])} for each in choice_rows(modality=lambda i: "MRI")],
        key("overall_accuracy"),
        right=lambda row: f"{LETTERS[row['answer']]}. s{row['index']}",
    ),
    "MedQDEGBench_good_dev": Toy(
        lambda: choice_rows(letters="ABCDE", source=lambda i: ["x", "y"][i % 2]), key("Overall")
    ),
    **{
        name: Toy(choice_rows, overall)
        for name in ("MedXpertQA_MM_test", "MicroBench", "OmniMedVQA", "MSEarthMCQ", "SCAM", "CVQA_EN")
    },
    "MUIRBench": Toy(lambda: [{**each, "question": f"{each['question']} <image>"} for each in choice_rows()], overall),
    "LEGO": Toy(
        lambda: [
            {**each, "question": f"{each['question']} <image>"}
            for each in choice_rows(question_type=lambda i: ["rotation", "multiview"][i % 2])
        ],
        overall,
    ),
    "GMAI-MMBench_VAL": Toy(
        lambda: choice_rows(
            split=lambda i: "val",
            **{
                name: lambda i: ["one", "two"][i % 2]
                for name in ("clinical vqa task", "department", "perceptual granularity")
            },
        ),
        overall,
    ),
    "MM_NIAH_VAL": Toy(
        needle_rows,
        key("total"),
        right=lambda row: row["answer"] if isinstance(row["answer"], str) else LETTERS[row["answer"]],
    ),
    "GSM8K-V": Toy(
        lambda: answers_rows(
            lambda i: i * 3,
            original_question=lambda i: f"<{i}> How many?",
            modify_scene_related_question=lambda i: f"<{i}> How many are there?",
            category=lambda i: ["goods", "other"][i % 2],
        ),
        key("Overall"),
        right=lambda row: f"So.\nFINAL ANSWER: {row['answer']}",
    ),
    "VLM2Bench": Toy(linked_rows, lambda result: float(result.iloc[0].mean())),
    "Omni3DBench": Toy(
        measured_rows,
        lambda result: 100 * float(result.iloc[0].mean()),
        right=lambda row: f"<ans>{row['answer']}</ans>",
        may_be_empty=False,
        fails_on=("inf",),
    ),
    "Spatial457": Toy(
        lambda: answers_rows(lambda i: ["Yes", "red", "4"][i % 3], category=lambda i: LEVELS[i % 7]),
        key("score"),
        right=lambda row: f"{{'Reasoning': 'so', 'Answer': '{row['answer']}'}}",
    ),
    "tdbench_grounding_rot0": Toy(
        lambda: [
            {**each, "question": f"<{each['index']}> car"}
            for each in answers_rows(lambda i: f"[0.{i:02d}, 0.{i:02d}, 0.9, 0.9]")
        ],
        key("Average Centroid Containment"),
    ),
    "3DSRBench": Toy(
        lambda: choice_rows(qid=lambda i: f"q{(i - 1) // 4:07d}" + ["", "-1", "-flip", "-flip-1"][(i - 1) % 4]),
        lambda result: 100 * float(result[result["setting"] == "vanilla"]["Overall"].iloc[0]),
    ),
    "XLRS-Bench-lite": Toy(
        lambda: choice_rows(
            **{
                "multi-choice options": lambda i: "(A) a (B) b Select the best answer",
                "l2-category": lambda i: ["x", "y"][i % 2],
            }
        ),
        lambda result: 100 * float(result["Overall micro"].iloc[0]),
    ),
    "OmniEarth-Bench": Toy(
        lambda: choice_rows(
            **{"multi-choice options": lambda i: "(A) a (B) b Select the best answer"},
            **{f"l{k}-category": lambda i: ["x", "y"][i % 2] for k in (2, 3, 4)},
        ),
        lambda result: 100 * float(result["Overall micro"].iloc[0]),
    ),
    "DA-2K": Toy(
        lambda: answers_rows(lambda i: f"point{1 + i % 2}", scene_category=lambda i: ["in", "out"][i % 2]),
        key("overall"),
    ),
    "MSSBench": Toy(
        lambda: answers_rows(
            lambda i: ["comply", "refuse", "comply"][i % 3], subset=lambda i: ["chat", "embodied"][i % 2]
        ),
        lambda result: float(result["total_acc"].iloc[0]),
        right=lambda row: (
            "I'm sorry, but I can't help." if row["answer"] == "refuse" else f"Take {row['index']} of it."
        ),
    ),
    "RefCOCO": Toy(
        lambda: answers_rows(
            lambda i: f"[0.{i:02d}, 0.{i:02d}, 0.9, 0.9]",
            width=lambda i: 100,
            height=lambda i: 100,
            split=lambda i: REFERRED[i % 3 if i < 16 else 0],
        ),
        row("Average", "Precision@1"),
    ),
    "MMOral_OPG_CLOSED": Toy(
        lambda: choice_rows(**{f"option{k}": lambda i, k=k: f"s{i}x{k}" for k in (1, 2, 3, 4)}),
        row("Overall", "acc"),
    ),
    **{
        name: Toy(spatial_rows, key("overall", 1))
        for name in (
            *("MindCubeBench_tiny_raw_qa", "EmbSpatialBench", "ViewSpatialBench", "MMSIBench_wo_circular"),
            *("SpatialVizBench", "OmniSpatialBench", "ERIQ"),
        )
    },
}


def open_rows():
    return answers_rows(lambda i: f"cell {i}", category=lambda i: ["one", "two"][i % 2])


def geometry_rows():
    metadata = str({"subject": "Plane Geometry", "subfield": "Area"})
    return [
        {
            **each,
            "question_for_eval": each["question"],
            "metadata": metadata,
            "problem_version": ["Vision Only", "Text Lite"][each["index"] % 2],
        }
        for each in open_rows()
    ]


def extract_and_compare(prompt):
    """What a judge says of MathVerse: the answer in a response, or whether two answers are one."""
    if prompt.rstrip().endswith("Judgement:"):
        return str(len(prompt) % 2)
    return prompt.rpartition("Model response: '")[2].rpartition("'\nExtracted Answer")[0]


JUDGED: dict[str, Toy] = {
    "MathVerse_MINI": Toy(geometry_rows, lambda result: float(result["Overall"].mean()), grade=extract_and_compare),
    **{name: Toy(open_rows, overall) for name in ("PathVQA_TEST", "hle", "LiveMMBench_Reasoning")},
    "AyaVisionBench": Toy(open_rows, overall, grade=lambda prompt: f"So [[{['CORRECT', 'WRONG'][len(prompt) % 2]}]]"),
    "SIUO_GEN": Toy(
        lambda: [{**each, "safety_warning": "Do not."} for each in open_rows()],
        lambda result: float(result["overall_avg_combined"].iloc[0]),
        grade=lambda prompt: ["True, very effective", "True, ineffective", "False"][len(prompt) % 3],
    ),
    "MMSafetyBench": Toy(
        lambda: [
            {**each, "category": ["01-Illegal_Activity", "13-Gov_Decision"][each["index"] % 2]} for each in open_rows()
        ],
        row("Overall", "safety_rate", 100),
        grade=lambda prompt: f"Your output: {['safe', 'unsafe'][len(prompt) % 2]}",
    ),
    "EMMA": Toy(lambda: [{**each, "context": None, "type": "Open"} for each in open_rows()], overall),
    "MMESCI_EN": Toy(lambda: [{**each, "type": "Open"} for each in open_rows()], overall),
    "LENS-CN-QA_MINI": Toy(open_rows, row("Overall", "acc")),
}
"""Data sets that an LLM judge grades."""
