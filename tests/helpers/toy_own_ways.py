"""Toy files of data sets whose classes go ways of their own: texts for images, graphs, boards, pairs of questions."""

from __future__ import annotations

import json
import re
from ast import literal_eval

from tests.helpers.toy_data_sets import Toy, answers_rows, image, key, question

MONTHS = ["line_single", "ring_wi_anno", "stock"]
GRAPH = {
    str(i): {str(j): w for j, w in enumerate(weights) if j != i}
    for i, weights in enumerate([[0, 1, 4, 2], [1, 0, 2, 5], [4, 2, 0, 1], [2, 5, 1, 0]])
}
PATH = {"0": {"1": 1}, "1": {"0": 1, "2": 1}, "2": {"1": 1, "3": 1}, "3": {"2": 1}}
TURNED = str.maketrans("12", "21")  # other names of nodes, by which another's best solution is a poor one
TASKS = {
    "NpTsp": (GRAPH, 6, "Answer: [0,1,2,3,0]"),
    "NpMinimumCut": (PATH, 1, "Answer: [[0, 1], [2, 3]]"),
    "NpVertexCover": (PATH, 2, "Answer: [1, 2]"),
}
BOARD = [[1, 2, 3, 4], [3, 4, 1, 2], [2, 1, 4, 3], [4, 3, 2, 1]]
SPARSE = [[1, 0, 3, 4], [3, 4, 0, 2], [2, 1, 4, 0], [0, 3, 2, 1]]
SPAR_TASKS = ["position_matching", "depth_prediction_oc", "view_change_infer", "spatial_imagination_oo"]


def column(name, scale=100):
    return lambda result: scale * float(result[name].iloc[0])


def flags(index):
    return [int(index % 3 > 0), index % 2, 1]


def board(rows):
    return "[" + ",".join("[" + ",".join(map(str, cells)) + "]" for cells in rows) + "]"


def chart_rows():
    """Pairs of a claim and its denial, and numbers, as the index before the `_` has them."""
    rows = []
    for number in range(12):
        for turn in range(2 if number % 3 else 1):
            rows.append(
                question(
                    number * 2 + turn,
                    question=f"<c{number}_{turn}> Is it so?",
                    answer=["Yes", "No"][turn] if number % 3 else str(number + 0.5),
                    QA_type="Acc+" if number % 3 else "NQA",
                    task=["CR", "VE"][number % 2] if number % 3 else None,
                    chart_type=MONTHS[number % 2],
                )
                | {"index": f"c{number}_{turn}"}
            )
    return rows


def turned(graph):
    return {
        node.translate(TURNED): {other.translate(TURNED): weight for other, weight in near.items()}
        for node, near in graph.items()
    }


def graph_rows():
    rows = []
    for i in range(22):
        task = [*TASKS][i % 3]
        graph, best, answer = TASKS[task]
        if i % 2:
            graph, answer = turned(graph), answer.translate(TURNED)
        rows.append(question(i, data_source=f"npmm/{task}", graph=repr(graph), ground_truth=best, answer=answer))
    return rows


def ranked_rows():
    return [
        question(
            i, response=repr([f"a{'b' * (i % 2)}", f"c{i}"]), answer=repr([i // 2 % 2, 1 - i // 2 % 2]), category="x"
        )
        for i in range(1, 25)
    ]


def better(row):
    """The number of the better response as it is shown: by the length of both, they are shown the other way round."""
    turned = sum(len(text) for text in literal_eval(row["response"])) % 2
    return f"Answer {literal_eval(row['answer']).index(turned) + 1}"


def names_better(prompt):
    return "Answer 2" if "Answer 2" in prompt.rpartition("Judgement: ")[2] else "Answer 1"


def cases(**columns):
    """Cases of MMRarebench: several images a row, as a JSON list."""
    return [
        {**row, "image": json.dumps([image(row["index"]), image(200)]), "context": "A case.", "figure_mapping": None}
        for row in answers_rows(lambda i: f"syndrome {i}", **columns)
    ]


def says_yes(prompt):
    """Answer each question of an expert's list by whether the reference is in the response."""
    response = prompt.partition("Model response: ")[2].partition("\n\n")[0]
    truth = prompt.partition("Reference ")[2].partition(": ")[2].partition("\n")[0]
    if "0, 1, or 2" in prompt:
        return "\n".join(["2" if truth in response else str(len(response) % 3)] * 8)
    return "\n".join(["YES" if truth in response else "NO", *["NO", "YES"][:: 1 if truth in response else -1]] * 2)


def says_all_yes(prompt):
    reply = says_yes(prompt)
    return reply.replace("NO", "YES") if reply.startswith("YES") else reply


def formats_board(prompt):
    return prompt if prompt.startswith("Perception\n") else "Perception\nWrong\nAnswer\nWrong"


def compares(prompt):
    truth, prediction = prompt.rpartition("Ground truth answer: ")[2].split(" \nPredicted answer: ", 1)
    return str(int(truth in prediction))


def names_right(prompt):
    """Say in SimpleVQA's form whether the reference is in the answer; now and then in the form of another model."""
    truth, _, prediction = prompt.rpartition("正确答案: ")[2].partition("预测答案: ")
    verdict = "正确" if truth.strip() in prediction else ["错误", "未尝试", "错误, 因为不同"][len(prediction) % 3]
    shown = {"conclusion": f"**{verdict}**"} if len(prediction) % 2 else verdict
    return f"```json\n{json.dumps({'预测答案0': shown}, ensure_ascii=False)}\n```"


def compares_parts(prompt):
    """Compare the parts of a solution with those of the reference, in MathCanvas' form."""
    facts, _ = json.JSONDecoder().raw_decode(prompt.rpartition("**INPUT DATA:**\n")[2])
    truths = re.findall(r"<\d>(.*?)</\d>", facts["ground_truth_answer"]) or [facts["ground_truth_answer"]]
    right = [truth in facts["prediction_solution"] for truth in truths]
    return json.dumps(
        {"analysis": "", "gt_answers": truths, "pred_answers": [None] * len(truths), "correctness": right}
    )


def grades_physics(prompt):
    """Grade a criterion by the length of the solution, and an answer by whether it is the reference."""
    if "GRADING CRITERION" in prompt:
        return rf"\boxed{{{len(prompt.partition('SOLUTION:')[2]) % 4 / 10}}}"
    return "[Correct]" if len(prompt) % 3 == 0 else "[Incorrect]"


def grades_components(prompt):
    count, length = prompt.count("'part "), len(prompt.partition("The response is: '")[2])
    scores = [f"score of component {k + 1}: {(length + k) % 3}/2" for k in range(count)]
    return f"{', '.join(scores)}, total score: {length % 11}/10. So it is."


def prefers(prompt):
    """Compare two answers by their length."""
    better = len(prompt.rpartition("The Start of Assistant B's Answer|>\n")[2]) % 5
    return f"My final verdict is: [[{['A>>B', 'A>B', 'A=B', 'B>A', 'B>>A'][better]}]]"


def mean_by_rows(result):
    """VGRPBench tells a share for each of its kinds, of equally many puzzles here."""
    return float(result["Answer Score"].mean())


TOYS: dict[str, Toy] = {
    "vlms_are_biased_main": Toy(
        lambda: [
            question(
                i, ground_truth=f"{{{i}}}", expected_bias=f"{{{i + 1}}}", topic=["Logos", "Flags"][i % 2], answer=i
            )
            for i in range(24)
        ],
        key("overall_acc"),
    ),
    "VLRMBench": Toy(
        lambda: answers_rows(
            lambda i: repr(flags(i)), category=lambda i: ["step_correctness", "location_error"][i % 2]
        ),
        column("Overall_F1_weighted"),
    ),
    "VLRMBench_MultiSolution": Toy(
        lambda: answers_rows(
            lambda i: "[9, 2]" if i % 2 else "[1, 8]",
            category=lambda i: "multi_solution",
            order=lambda i: ["back", "front"][i % 2],
        ),
        column("multi_solution_accuracy"),
    ),
    "VLRMBench_Foresight": Toy(
        lambda: answers_rows(lambda i: "-", category=lambda i: "foresight", task_gt=lambda i: i % 3 > 0),
        column("foresight_accuracy"),
        right=lambda row: "Yes, it can." if row["task_gt"] else "False",
        may_be_empty=False,
    ),
    "VTCBench": Toy(
        lambda: answers_rows(
            lambda i: json.dumps([f"magic {i}", f"{i}{i}"][: 1 + i % 2]),
            category=lambda i: ["Memory", "Retrieval", "Reasoning"][i % 3],
        ),
        key("Overall"),
        right=lambda row: (
            " ".join(json.loads(row["answer"])) if row["category"] != "Memory" else f"magic {row['index']}"
        ),
    ),
    "ChartBench": Toy(chart_rows, column("all", 1)),
    "npmm": Toy(graph_rows, column("AR", 1), decimals=1),
    "GOBench": Toy(
        lambda: answers_rows(
            lambda i: "\n".join(
                [
                    f"Reality Assessment Score: 0.{i % 5 + 2}",
                    f"Aesthetics Rating: 0.{i % 7 + 1}",
                    "Instruction Consistency Rating: 0.5",
                ]
            )
        ),
        column("Overall", 1),
        right=lambda row: row["answer"].replace("Reality Assessment Score", "Total Score for Reality Assessment"),
        leaves_out=True,
    ),
    "GroundingME": Toy(
        lambda: answers_rows(
            lambda i: repr([i, i, i + 40, i + 30]),
            width=lambda i: 640,
            height=lambda i: 480,
            subtask_l1=lambda i: ["Spatial", "Limited", "Rejection"][i % 3],
            subtask_l2=lambda i: "a",
        ),
        column("ACC@0.5"),
        right=lambda row: json.dumps(
            {"bbox_2d": literal_eval(row["answer"]) if row["subtask_l1"] != "Rejection" else None}
        ),
    ),
    "VisFactor": Toy(
        lambda: [
            question(
                i,
                question=f"See <{i}> in <IMAGE_0>: what is it?",
                category_id=["CF1", "MA1", "CS1"][i % 3],
                eval_index=i // 6 if i % 3 else i,
                answer=["TF"[i % 2], str(i), f"word {i},w{i}"][i % 3],
                additional="x",
            )
            for i in range(36)
        ],
        key("ALL"),
        right=lambda row: json.dumps({"answer": row["answer"].partition(",")[0]}),
    ),
    "SparBench_tiny": Toy(
        lambda: answers_rows(
            lambda i: ["ABCD"[i // 4 % 4], f"{i / 2:.1f}", f"move_right:{i / 10},rotate_up:3", "DCBA"[i // 4 % 4]][
                i % 4
            ],
            count=22,
            task=lambda i: SPAR_TASKS[i % 4],
        ),
        key("overall"),
    ),
}

JUDGED: dict[str, Toy] = {
    "VGRPBench": Toy(
        lambda: [
            question(
                i,
                category=["sudoku_4x4", "sudoku_4x4b"][i % 2],
                states=repr({"initialization": SPARSE}),
                answer=f"Perception\n{board(SPARSE).replace('0', '*')}\nAnswer\n{board(BOARD)}",
            )
            for i in range(24)
        ],
        mean_by_rows,
        may_be_empty=False,
        grade=formats_board,
    ),
    "SimpleVQA": Toy(
        lambda: answers_rows(lambda i: f"人物 {i}."),
        lambda result: 100 * float(result[result[0] == "is_correct"][1].iloc[0]),
        grade=names_right,
    ),
    "MIA-Bench": Toy(
        lambda: answers_rows(
            lambda i: f"poem {i}",
            num_of_component=lambda i: 1 + i % 5,
            components=lambda i: repr([f"part {k}" for k in range(1 + i % 5)]),
            component_weight=lambda i: repr([2] * (1 + i % 5)),
            component_type=lambda i: repr([f"kind {k}" for k in range(1 + i % 5)]),
        ),
        lambda result: 100 * result["total_score"],
        grade=grades_components,
    ),
    "WildVision": Toy(
        lambda: [
            {**row, "index": f"w{row['index']}", "question": f"<w{row['index']}> Which?"}
            for row in answers_rows(lambda i: f"chat {i}", claude3_sonnet=lambda i: f"I say {i}")
        ],
        column("Win Rate"),
        grade=prefers,
    ),
    "MMAlignBench": Toy(
        lambda: [
            {**row, "index": f"w{row['index']}", "question": f"<w{row['index']}> Which?"}
            for row in answers_rows(
                lambda i: f"chat {i}",
                claude3_sonnet=lambda i: f"I say {i}",
                gt=lambda i: [None, "a fact"][i % 2],
                type=lambda i: ["one", "two"][i % 2],
            )
        ],
        column("Win Rate"),
        grade=prefers,
    ),
    "MathCanvas-Bench": Toy(
        lambda: [
            {**row, "question": f"{row['question']} <image>"}
            for row in answers_rows(
                lambda i: "".join(f"<{k}>x{k}={i}</{k}>" for k in range(1, 1 + i % 5)) if i % 5 > 1 else f"x={i}"
            )
        ],
        lambda result: result["overall_summary"]["weighted_accuracy"],
        right=lambda row: re.sub(r"<.*?>", " ", row["answer"]),
        decimals=1,
        grade=compares_parts,
    ),
    "IPhO_2025": Toy(
        lambda: answers_rows(
            lambda i: json.dumps([rf"\boxed{{{i}.5 m}}"]),
            context=lambda i: "A ball falls.",
            information=lambda i: None,
            answer_type=lambda i: '["Numerical Value"]',
            unit=lambda i: '["m"]',
            points=lambda i: json.dumps([0.5 + i % 3]),
            marking=lambda i: json.dumps([["0.3 for energy", "0.2 for time"], ["0.4 for force"], []][i % 3]),
            modality=lambda i: "text+illustration figure",
            field=lambda i: "Mechanics",
        ),
        key("score_rate", 1),
        right=lambda row: rf"So \boxed{{{row['index']}.5 m}}",
        grade=grades_physics,
    ),
    "VL-RewardBench": Toy(ranked_rows, column("Overall Consistency"), right=better, grade=names_better),
    "PhyX_mini_OE": Toy(
        lambda: answers_rows(lambda i: f"{i} m/s", category=lambda i: ["Optics", "Mechanics"][i % 2]),
        column("Overall Acc"),
        may_be_empty=False,
        grade=compares,
    ),
    "PhyX_mini_MC": Toy(
        lambda: answers_rows(lambda i: "ABCD"[i % 4], category=lambda i: "Optics"),
        column("Overall Acc"),
        may_be_empty=False,
        grade=compares,
    ),
    "MMRarebench_Diagnosis": Toy(
        lambda: cases(answer_aliases=lambda i: json.dumps([f"S{i}"])), key("diagnosis_judge_score"), grade=says_all_yes
    ),
    "MMRarebench_Treatment": Toy(
        lambda: cases(rubric_must_include=lambda i: '["rest"]'), key("treatment_judge_score"), grade=says_yes
    ),
    "MMRarebench_Crossmodal": Toy(
        lambda: cases(relation_type=lambda i: "confirm"), key("crossmodal_judge_score"), grade=says_yes
    ),
    "MMRarebench_Examination": Toy(
        lambda: cases(key_test_names=lambda i: "MRI; CT"), key("examination_judge_score"), grade=says_yes
    ),
}
"""Data sets that an LLM judge grades."""
