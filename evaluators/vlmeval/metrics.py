"""VLMEvalKit's metrics over a table of predictions in memory: its code, byte for byte, on rows that we hand it.

Its `evaluate` functions read and write files on the way and ask their judge from a progress bar's threads. What counts
lies below them: one function that judges a row, one that sums a table. Those are called here. The tests hold every
score equal to that of VLMEvalKit's own full `evaluate`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from evaluators.vlmeval import light_import as light
from evaluators.vlmeval.llm_judge import JudgeSession

__all__ = ["METRICS", "Metric", "MetricResult"]


@dataclass(frozen=True)
class MetricResult:
    """A score (0 to 100), VLMEvalKit's own mean over the questions (0 to 100), and each question's points (0 to 1).

    `rows` has one row for each question, in the order of the points.
    """

    value: float
    mean: float
    points: Sequence[float]
    rows: Any


@dataclass(frozen=True)
class Metric:
    """How a table of rows with predictions is judged: `judge(dataset, frame, judging or None)`, and in words.

    `can_use_judge` tells whether a judge can be asked where matching finds nothing.
    """

    judge: Callable[[Any, Any, JudgeSession | None], MetricResult]
    words: str
    can_use_judge: bool = True


def _circular(dataset: Any, frame: Any, judge: JudgeSession | None) -> MetricResult:
    """A question is right if all rotations of its options are."""
    room = light.module("dataset.utils.multiple_choice")
    parked: dict[str, Any] = {}
    evaluate = light.rewired(
        room.mcq_circular_eval,
        # What it would park in files between two steps, one of them /tmp/<the time in seconds>, stays in memory.
        dump=lambda data, file: parked.__setitem__(file, data),
        load=lambda file: parked[file],
        timestr=lambda: "",
        track_progress_rich=_asking(judge),
        logger=_Silent(),
    )
    rows = _lower_case(frame)
    result = evaluate(judge, rows, dataset.data, 1, "", dataset.dataset_name)
    return _accuracy(room, result, judge)


def _choices(dataset: Any, frame: Any, judge: JudgeSession | None) -> MetricResult:
    """A question is right if the letter, or else the words, of the right option are found in the answer."""
    room = light.module("dataset.utils.multiple_choice")
    silent = {"logger": _Silent()}
    evaluate = light.rewired(
        room.mcq_vanilla_eval,
        load=lambda file: {},
        track_progress_rich=_asking(judge),
        MMMU_preproc=light.rewired(room.MMMU_preproc, **silent),
    )
    result = evaluate(judge, _lower_case(frame), dataset.data, 1, "", dataset.dataset_name)
    return _accuracy(room, result, judge)


def _accuracy(room: Any, result: Any, judge: JudgeSession | None) -> MetricResult:
    if judge is not None:
        drawn = [log for log in result["log"] if "randomly generate one" in str(log)]
        judge.refuse_unread(drawn, len(result))
    overall = float(room.report_acc(result.copy())["Overall"].item()) * 100
    return MetricResult(overall, overall, [float(hit) for hit in result["hit"]], result)


def _contained(dataset: Any, frame: Any, judge: JudgeSession | None) -> MetricResult:
    """`Final Score` per hundred questions; on the standard 1,000 that is `Final Score` / 10."""
    silent = {"tqdm": lambda rows: rows, "dump": lambda *_: None, "get_intermediate_file_path": lambda *_: ""}
    count = light.rewired(type(dataset).evaluate, load=lambda table: table, **silent)
    # It tells totals alone, and so is also asked about each row by itself.
    points = [float(count(None, frame.iloc[place : place + 1])["Final Score"]) for place in range(len(frame))]
    total = 100 * count(None, frame)["Final Score"] / len(frame)
    return MetricResult(total, total, points, frame)


def _yes_no(dataset: Any, frame: Any, judge: JudgeSession | None) -> MetricResult:
    """The mean of aAcc, fAcc and qAcc: right answers, figures and questions of which all answers are right.

    A question's points are its aAcc alone: their mean is not the score, which counts groups.
    """
    room = light.module("dataset.utils.yorn")
    found = [room.YOrN_Extraction(prediction) for prediction in frame["prediction"]]
    if judge is not None:
        unknown = [place for place, word in enumerate(found) if word == "Unknown"]
        told = judge.each(lambda place: room.YOrN_auxeval(judge, frame.iloc[place]), unknown)
        judge.refuse_unread([word for word in told if word == "Unknown"], len(frame))
        for place, word in zip(unknown, told, strict=True):
            found[place] = word
    rows = frame.assign(extracted=found, score=[a == f for a, f in zip(frame["answer"], found, strict=True)])
    rating = light.rewired(room.Hallusion_rating, load=lambda table: table.copy())(rows)
    overall = rating[rating["split"] == "Overall"].iloc[0]
    value = (overall["aAcc"] + overall["fAcc"] + overall["qAcc"]) / 3
    return MetricResult(float(value), float(overall["aAcc"]), [float(hit) for hit in rows["score"]], rows)


def _extracted(dataset: Any, frame: Any, judge: JudgeSession | None) -> MetricResult:
    """The judge extracts the answer, unless the prediction is nothing else; compared by type."""
    assert judge is not None
    room = light.module("dataset.utils.mathvista")
    told = judge.each(lambda place: room.MathVista_auxeval(judge, frame.iloc[place]), range(len(frame)))
    rows = frame.assign(res=[str(each["res"]) for each in told], log=[each["log"] for each in told])
    judge.refuse_unread([log for log in rows["log"] if log.endswith("retries failed.\n")], len(rows))
    table = light.rewired(room.MathVista_acc, load=lambda table: table)(rows)
    overall = float(table.loc[table["Task&Skill"] == "Overall", "acc"].item())
    points = [float(room.post_check(rows.iloc[place], prefetch=False)) for place in range(len(rows))]
    return MetricResult(overall, overall, points, rows)


CAPABILITIES = "rec,ocr,know,gen,spat,math"


def _graded(dataset: Any, frame: Any, judge: JudgeSession | None) -> MetricResult:
    """The judge grades each answer from 0 to 1."""
    assert judge is not None
    room = light.module("dataset.utils.mmvet")
    told = judge.each(lambda place: room.MMVet_auxeval(judge, frame.iloc[place]), range(len(frame)))
    judge.refuse_unread([each["log"] for each in told if each["log"].endswith("retries failed.\n")], len(frame))
    # All capabilities in every row: it divides by the number of each, which a part of the questions may lack. Its
    # Overall is the mean of all grades, whatever the categories.
    rows = frame.assign(score=[each["score"] for each in told], category=CAPABILITIES)
    table, _ = light.rewired(room.MMVet_acc, load=lambda table: table)(rows)
    overall = float(table.loc[table["Category"] == "Overall", "acc"].item())
    return MetricResult(overall, overall, [float(grade) for grade in rows["score"]], rows)


def _lower_case(frame: Any) -> Any:
    """Names of columns as VLMEvalKit's `evaluate` has them: lower case, but for the letters of the options."""
    return frame.rename(columns=lambda name: name if len(name) == 1 else name.lower())


def _asking(judge: JudgeSession | None) -> Callable[..., list[Any]]:
    """In place of VLMEvalKit's progress bar over threads that write a file after every row."""
    room = light.module("dataset.utils.multiple_choice")

    def track(function: Any, tasks: Sequence[Any], keys: Sequence[Any], **_: Any) -> list[Any]:
        if judge is None:
            return [function(**task) for task in tasks]

        def one(place: int) -> Any:
            # Where the judge names no option VLMEvalKit draws one: here the same one in every run.
            dice = random.Random(str(keys[place]))
            extract = light.rewired(room.extract_answer_from_item, rd=dice, logger=_Silent())
            return light.rewired(function, extract_answer_from_item=extract)(**tasks[place])

        return judge.each(one, range(len(tasks)))

    return track


class _Silent:
    """A logger that keeps its peace."""

    def info(self, *_: Any) -> None:
        """Nothing."""

    warning = info


METRICS = {
    "circular": Metric(_circular, "Overall x 100, circular evaluation"),
    "choices": Metric(_choices, "Overall x 100"),
    "contained": Metric(_contained, "Final Score per 100 questions", can_use_judge=False),
    "yes_no": Metric(_yes_no, "mean of aAcc, fAcc and qAcc"),
    "extracted": Metric(_extracted, "acc of Overall"),
    "graded": Metric(_graded, "acc of Overall"),
}
