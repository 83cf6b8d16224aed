"""VLMEvalKit's metrics over a table of predictions in memory: its code, byte for byte, on rows that we hand it.

Its `evaluate` functions read and write files on the way and ask their judge from a progress bar's threads. What counts
lies below them: one function that scores a row, one that sums a table. Those are called here. The tests hold every
score equal to that of VLMEvalKit's own full `evaluate`.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any

from evaluators.answering.judge_session import JudgeSession
from evaluators.vlmeval.benchmarks import VLMEvalBenchmark
from evaluators.vlmeval.data_checks import CIRCLE
from evaluators.vlmeval.known_results import known_results
from evaluators.vlmeval.library_evaluate import MetricResult, score_by_evaluate
from evaluators.vlmeval.library_types import DataSet, Frame, Row
from evaluators.vlmeval.light_import import vlmeval_module, with_globals
from evaluators.vlmeval.question_groups import PointsSum, sum_of_parts
from evaluators.vlmeval.stand_ins import SilentLogger, replaced_names

__all__ = ["METRICS", "Metric", "metric_of"]

MULTIPLE_CHOICE = "dataset.utils.multiple_choice"
RESULTS = "results"  # the file of what it found before, which is none


@dataclass(frozen=True)
class Metric:
    """How a table of predictions becomes a score.

    Args:
        score_rows: Called with VLMEvalKit's data set, the table, and the LLM judge's session (None: no judge).
        description: The metric in words, for the identity.
        can_use_judge: Whether a judge can be asked where matching finds nothing.
        sum_points: Called with one row for each question, gives what makes the score of their points; None: their mean.
    """

    score_rows: Callable[[DataSet, Frame, JudgeSession | None], MetricResult]
    description: str
    can_use_judge: bool = True
    sum_points: Callable[[Frame], PointsSum] | None = None


def _circular(data_set: DataSet, frame: Frame, judge: JudgeSession | None) -> MetricResult:
    """Score by circular evaluation: a question is right if all rotations of its options are."""
    library = vlmeval_module(MULTIPLE_CHOICE)
    rows = _lower_case(frame)
    circles = rows["g_index"] if "g_index" in rows else [int(index % CIRCLE) for index in rows["index"]]
    rotations = defaultdict[Any, list[Any]](list)
    for circle, index, answer in zip(circles, rows["index"], rows["prediction"], strict=True):
        rotations[circle].append((index, answer))
    hits = _KnownHits(data_set, "circles", {circle: tuple(answers) for circle, answers in rotations.items()}, judge)
    # What it would keep in files between two steps, one of them /tmp/<the time in seconds>, stays in memory.
    dumped: dict[str, object] = {RESULTS: hits.results}
    evaluate = with_globals(
        library.mcq_circular_eval,
        osp=SimpleNamespace(exists=dumped.__contains__),
        dump=lambda data, file: dumped.__setitem__(file, data),
        load=lambda file: dumped[file],
        timestr=lambda: "",
        track_progress_rich=_row_evaluation(judge),
        logger=SilentLogger(),
        prefetch_circular_group=_circle_reading(library, rows[[circle not in hits.results for circle in circles]]),
    )
    result = evaluate(judge, rows, data_set.data, 1, RESULTS, data_set.dataset_name)
    hits.add(result)
    return _accuracy(library, result, judge)


class _KnownHits:
    """Which questions VLMEvalKit found right before, by their answers: what it takes for a file of its earlier results.

    With a judge, whose replies are kept elsewhere, nothing is known.

    Args:
        data_set: Keeps them.
        kind: Of questions.
        answers: To each question, by its index.
        judge: Who was asked about what matching did not find.
    """

    def __init__(
        self, data_set: DataSet, kind: str, answers: Mapping[Any, Hashable], judge: JudgeSession | None
    ) -> None:
        self._known = known_results(data_set, kind) if judge is None else {}
        self._answers = answers
        self.results = {each: self._known[each, text] for each, text in answers.items() if (each, text) in self._known}

    def add(self, result: Frame) -> None:
        """Keep what VLMEvalKit found."""
        for index, hit, log in zip(result["index"], result["hit"], result["log"], strict=True):
            self._known[index, self._answers[index]] = {"hit": hit, "log": log}


class _Rows:
    """As much of a table as VLMEvalKit uses of a question's rotations: rows as dicts, ten times as fast to read."""

    def __init__(self, rows: list[Row]) -> None:
        self.iloc = rows

    def __len__(self) -> int:
        return len(self.iloc)


def _circle_reading(library: ModuleType, frame: Frame) -> Callable[..., Any]:
    """Stand in for what VLMEvalKit reads of a question's rotations before it asks a judge."""
    rows = {row["index"]: row for row in frame.to_dict("records")}

    def prefetch_circular_group(circle: Frame, verbose: bool = False) -> Any:
        rotations = [{**rows[index], "GT": right} for index, right in zip(circle["index"], circle["GT"], strict=True)]
        return library.prefetch_circular_group(_Rows(rotations), verbose)

    return prefetch_circular_group


def _choices(data_set: DataSet, frame: Frame, judge: JudgeSession | None) -> MetricResult:
    """Score by options: a question is right if the right option's letter, or else its words, are in the answer."""
    library = vlmeval_module(MULTIPLE_CHOICE)
    hits = _KnownHits(data_set, "rows", dict(zip(frame["index"], frame["prediction"], strict=True)), judge)
    evaluate = with_globals(
        library.mcq_vanilla_eval,
        osp=SimpleNamespace(exists=lambda file: True),
        load=lambda file: dict(hits.results),
        track_progress_rich=_row_evaluation(judge),
        MMMU_preproc=with_globals(library.MMMU_preproc, logger=SilentLogger()),
    )
    result = evaluate(judge, _lower_case(frame), data_set.data, 1, RESULTS, data_set.dataset_name)
    hits.add(result)
    return _accuracy(library, result, judge)


def _accuracy(library: ModuleType, result: Frame, judge: JudgeSession | None) -> MetricResult:
    if judge is not None:
        drawn = [log for log in result["log"] if "randomly generate one" in str(log)]
        judge.refuse_unread(drawn, len(result))
    hits = [float(hit) for hit in result["hit"]]
    # Without categories, of which it sorts the names: it stops where some are missing. Overall does not know them.
    report = library.report_acc(result.drop(columns=["category", "l2-category"], errors="ignore"))["Overall"]
    # A row for each of several splits: all questions count alike then.
    overall = 100 * (float(report.item()) if len(report) == 1 else sum(hits) / len(hits))
    return MetricResult(overall, overall, hits, result)


def _contained(data_set: DataSet, frame: Frame, judge: JudgeSession | None) -> MetricResult:
    """Score by texts contained: `Final Score` per hundred questions (of the standard 1,000: `Final Score` / 10)."""
    silent = {"tqdm": lambda rows: rows, "dump": lambda *_: None, "get_intermediate_file_path": lambda *_: ""}
    count = with_globals(type(data_set).evaluate, load=lambda table: table, **silent)
    # It gives totals alone, and so is also called with each row by itself.
    answers, known = list(zip(frame.index, frame["prediction"], strict=True)), known_results(data_set, "contained")
    for position, answer in enumerate(answers):
        if answer not in known:
            known[answer] = float(count(None, frame.iloc[position : position + 1])["Final Score"])
    total = 100 * count(None, frame)["Final Score"] / len(frame)
    return MetricResult(total, total, [known[answer] for answer in answers], frame)


VQA_METHODS = (
    (("TextVQA",), "vqa_score"),
    (("ChartQA", "PlotQA"), "relaxed_accuracy"),
    (("OCRVQA", "GQA"), "accuracy"),
    (("DocVQA", "InfoVQA"), "anls"),
)
YES_NO = "dataset.utils.yorn"


def _yes_no_rows(frame: Frame, judge: JudgeSession | None, *, is_lower: bool = False) -> Frame:
    """Return the rows with what each answer says, yes or no, and whether that is right."""
    library = vlmeval_module(YES_NO)
    words = [library.YOrN_Extraction(prediction) for prediction in frame["prediction"]]
    if judge is not None:
        unknown = [index for index, word in enumerate(words) if word == "Unknown"]
        judged = judge.map(lambda index: library.YOrN_auxeval(judge, frame.iloc[index]), unknown)
        judge.refuse_unread([word for word in judged if word == "Unknown"], len(frame))
        for index, word in zip(unknown, judged, strict=True):
            words[index] = word
    pairs = zip(frame["answer"], words, strict=True)
    hits = [str(answer).lower() == word.lower() if is_lower else answer == word for answer, word in pairs]
    return frame.assign(extracted=words, score=hits)


def _figures(data_set: DataSet, frame: Frame, judge: JudgeSession | None) -> MetricResult:
    """Score by the mean of aAcc, fAcc and qAcc (answers, figures and questions of which all are right).

    A question's points are its aAcc alone: their mean is not the score, which counts groups.
    """
    rows = _yes_no_rows(frame, judge)
    value, mean = _sum_groups(rows)
    return MetricResult(value, mean, [float(hit) for hit in rows["score"]], rows)


def _sum_groups(rows: Frame) -> tuple[float, float]:
    """Return the mean of aAcc, fAcc and qAcc, and aAcc alone, of rows whose `score` says whether they are right."""
    library = vlmeval_module(YES_NO)
    needed = rows[["index", "l2-category", "score"]]  # of all, not by category
    rating = with_globals(library.Hallusion_rating, load=lambda table: table.copy())(needed)
    overall = rating[rating["split"] == "Overall"].iloc[0]
    return float((overall["aAcc"] + overall["fAcc"] + overall["qAcc"]) / 3), float(overall["aAcc"])


def _sum_figures(rows: Frame) -> PointsSum:
    return lambda points: _sum_groups(rows.assign(score=[point == 1 for point in points]))[0]


MME_TOTAL = 2800  # 2,000 of perception and 800 of reasoning
RATINGS: dict[str, tuple[str, Callable[[Frame], float]]] = {
    "MME": ("MME_rating", lambda rating: 100 * (rating["perception"] + rating["reasoning"]) / MME_TOTAL),
    "POPE": ("POPE_rating", lambda rating: rating["Overall"]),
    "AMBER": ("AMBER_rating", lambda rating: rating["Avg ACC"]),
    "VSR-zeroshot": ("VSR_rating", lambda rating: rating["acc"]),
}
"""By data set: VLMEvalKit's function, and what of its first row is the score."""


def _rated_yes_no(data_set: DataSet, frame: Frame, judge: JudgeSession | None) -> MetricResult:
    """Score yes and no by the data set's own rating. A question's points are whether it is right."""
    library = vlmeval_module(YES_NO)
    name = data_set.dataset_name
    rows = _yes_no_rows(frame, judge, is_lower=name == "AMBER")
    rate, total = RATINGS.get(name, ("default_rating", lambda rating: rating["Overall"]))
    rating = with_globals(getattr(library, rate), load=lambda table: table.copy())(rows).iloc[0]
    points = [float(hit) for hit in rows["score"]]
    return MetricResult(float(total(rating)), 100 * sum(points) / len(points), points, rows)


def _vqa(data_set: DataSet, frame: Frame, judge: JudgeSession | None) -> MetricResult:
    """Score short answers: the share of people's answers that agree, edit distance, or a margin, by data set."""
    library = vlmeval_module("dataset.utils.vqa_eval")
    name = data_set.dataset_name
    method = next((method for parts, method in VQA_METHODS if any(part in name for part in parts)), "vqa_score")
    rows = frame.assign(answer=[str(answer) for answer in frame["answers" if name == "VizWiz" else "answer"]])
    with replaced_names({}):
        matches = [library.process_line(rows.iloc[index], method=method) for index in range(len(rows))]
    hits = [float(hit) for hit in library.hit_calculate(matches, "ChartQA" if name == "PlotQA" else name)]
    overall = 100 * sum(hits) / len(hits)
    return MetricResult(overall, overall, hits, rows)


def _extracted(data_set: DataSet, frame: Frame, judge: JudgeSession | None) -> MetricResult:
    """Score answers that the judge extracts, unless the prediction is nothing else; compared by type."""
    assert judge is not None
    library = vlmeval_module("dataset.utils.mathvista")
    extracted = judge.map(lambda index: library.MathVista_auxeval(judge, frame.iloc[index]), range(len(frame)))
    rows = frame.assign(res=[str(row["res"]) for row in extracted], log=[row["log"] for row in extracted])
    judge.refuse_unread([log for log in rows["log"] if log.endswith("retries failed.\n")], len(rows))
    table = with_globals(library.MathVista_acc, load=lambda table: table)(rows)
    overall = float(table.loc[table["Task&Skill"] == "Overall", "acc"].item())
    points = [float(library.post_check(rows.iloc[index], prefetch=False)) for index in range(len(rows))]
    return MetricResult(overall, overall, points, rows)


CAPABILITIES = "rec,ocr,know,gen,spat,math"


def _graded(data_set: DataSet, frame: Frame, judge: JudgeSession | None) -> MetricResult:
    """Score by the judge's grades, 0 to 1 for each answer."""
    assert judge is not None
    library = vlmeval_module("dataset.utils.mmvet")
    graded = judge.map(lambda index: library.MMVet_auxeval(judge, frame.iloc[index]), range(len(frame)))
    judge.refuse_unread([row["log"] for row in graded if row["log"].endswith("retries failed.\n")], len(frame))
    # All capabilities in every row: it divides by the number of each, which a part of the questions may lack. Its
    # Overall is the mean of all grades, whatever the categories.
    rows = frame.assign(score=[row["score"] for row in graded], category=CAPABILITIES)
    table, _ = with_globals(library.MMVet_acc, load=lambda table: table)(rows)
    overall = float(table.loc[table["Category"] == "Overall", "acc"].item())
    return MetricResult(overall, overall, [float(grade) for grade in rows["score"]], rows)


def _lower_case(frame: Frame) -> Frame:
    """Name columns as VLMEvalKit's `evaluate` does: lower case, but for the letters of the options."""
    return frame.rename(columns=lambda name: name if len(name) == 1 else name.lower())


def _row_evaluation(judge: JudgeSession | None) -> Callable[..., list[Any]]:
    """Stand in for VLMEvalKit's progress bar over threads that write a file after every row."""
    library = vlmeval_module(MULTIPLE_CHOICE)

    def evaluate_rows(
        function: Callable[..., Any], tasks: Sequence[dict[str, Any]], keys: Sequence[object], **_: object
    ) -> list[Any]:
        if judge is None:
            return [function(**task) for task in tasks]

        def evaluate_row(index: int) -> Any:
            # Where the judge names no option VLMEvalKit draws one: here the same in every run.
            dice = random.Random(str(keys[index]))
            extract = with_globals(library.extract_answer_from_item, rd=dice, logger=SilentLogger())
            return with_globals(function, extract_answer_from_item=extract)(**tasks[index])

        return judge.map(evaluate_row, range(len(tasks)))

    return evaluate_rows


METRICS = {
    "circular": Metric(_circular, "Overall x 100, circular evaluation"),
    "choices": Metric(_choices, "Overall x 100"),
    "contained": Metric(_contained, "Final Score per 100 questions", can_use_judge=False),
    "yes_no": Metric(_figures, "mean of aAcc, fAcc and qAcc", sum_points=_sum_figures),
    "rated_yes_no": Metric(_rated_yes_no, "the data set's own rating of yes and no"),
    "vqa": Metric(_vqa, "Overall", can_use_judge=False),
    "extracted": Metric(_extracted, "acc of Overall"),
    "graded": Metric(_graded, "acc of Overall"),
}


def metric_of(benchmark: VLMEvalBenchmark) -> Metric:
    """Return how answers to a benchmark become a score."""
    if benchmark.rule is None:
        return METRICS[benchmark.metric]
    can_use_judge = benchmark.rule.judge != "never"
    rule = benchmark.rule
    sum_points = partial(sum_of_parts, rule) if rule.parts or rule.weight else None
    return Metric(partial(score_by_evaluate, rule), rule.description, can_use_judge, sum_points)
