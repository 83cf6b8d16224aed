"""Every data set of VLMEvalKit, by its own name: the class that has it, and the rule by which it is scored here.

What there is stands in VLMEvalKit's tables of contents, see `library_index`. A class is imported once its data set is
asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache

from evaluators.vlmeval.benchmarks import BENCHMARKS, CHOICE, CHOICES, OPEN, YES_NO, VLMEvalBenchmark
from evaluators.vlmeval.library_index import DataSetClass, classes_in, collections, video_settings
from evaluators.vlmeval.library_source import missing_packages
from evaluators.vlmeval.metrics import METRICS
from evaluators.vlmeval.refusals import REFUSED
from evaluators.vlmeval.rule import Rule
from evaluators.vlmeval.rules import IN_MEMORY, RULES
from evaluators.vlmeval.video_catalog import videos
from soup.errors import EvaluatorError
from soup.evaluation.api import Benchmark, BenchmarkInfo
from soup.support.text import near_names

__all__ = ["all_data_sets", "is_data_set", "known_benchmark", "near_data_sets"]

CIRCULAR_NAMES = ("mmbench", "ccbench", "circular", "mmcr")
"""VLMEvalKit's rule: a multiple choice data set with one of these in its name is asked in rotations."""
CLASSES_WITH_REPORTS = ("MMVP", "MMSci")
"""Multiple choice data sets, by the start of their names, that VLMEvalKit reports by a table of their own."""
KINDS = {
    "MCQ": CHOICE,
    **dict.fromkeys(("MCQ_MMMU_Pro", "MMERealWorld", "M4Bench"), CHOICE),
    "Y/N": YES_NO,
    "Caption": "captions",
}
"""By VLMEvalKit's word; any other is of questions that are answered freely."""
OTHER_WAYS = (
    "videos are shown here as a number of frames, and by no other setting: no rate, subtitles, sound, size, prompt"
)
NO_RULE = "no rule says how VLMEvalKit's result for it becomes 0 to 100"
METRICS_OF_ONE_CLASS = ("contained", "extracted", "graded")
COLUMNS = {
    "choices": CHOICES[:-1],
    "circular": CHOICES[:-1],
    "vqa": ("index", "question", "answer"),
    "rated_yes_no": ("index", "question", "answer"),
}
COLUMNS_OF_DATA_SETS = {
    "VizWiz": ("index", "question", "answers"),
    "AMBER": ("index", "question", "answer", "category", "image_path"),
}


def known_benchmark(benchmark: Benchmark) -> VLMEvalBenchmark:
    """Return what is known of a benchmark that was asked for: by its short name, or by the data set's in VLMEvalKit.

    Raises:
        EvaluatorError: there is none of that name, or it can't be scored here; says why.
    """
    name = benchmark.target
    if name in BENCHMARKS:
        return BENCHMARKS[name]
    if (short := next((entry for entry in BENCHMARKS.values() if entry.data_set == name), None)) is not None:
        return short
    if (entry := videos().get(name)) is not None:
        return entry
    if (data_set := find_data_set(name)) is not None:
        return _entry(name, data_set)
    if (reason := _refused_names().get(name)) is not None:
        raise EvaluatorError(f"{name}: not scored here: {reason}.")
    near = "".join(f" Did you mean '{each}'?" for each in near_data_sets(name))
    raise EvaluatorError(f"Unknown benchmark '{name}'.{near} soup list benchmarks --all lists what VLMEvalKit has.")


def near_data_sets(name: str) -> list[str]:
    """Return the name of a data set that is nearest to one that there is not; nothing where none is near."""
    of_classes = (row for owner in _classes() for row in _names_if_any(owner) or ())
    known = (*videos(), *_refused_names(), *of_classes)
    # Of two names that differ in case alone, MMBench and mmbench, the short one is told.
    return near_names(name, [*BENCHMARKS, *(each for each in known if each.lower() not in BENCHMARKS)], cutoff=0.7)


def is_data_set(name: str) -> bool:
    """Whether VLMEvalKit has a data set of that name."""
    return name in videos() or find_data_set(name) is not None or name in _refused_names()


@cache
def find_data_set(name: str) -> DataSetClass | None:
    """Return the class of a data set of images of VLMEvalKit's; of several, the one that VLMEvalKit takes."""
    return next((owner for owner in _classes() if name in (_names_if_any(owner) or ())), None)


@cache
def _names_if_any(owner: DataSetClass) -> frozenset[str] | None:
    """Return the names of a class's data sets, read once; None where it would have to be imported, and can't be."""
    try:
        return frozenset(owner.data_sets())
    except (EvaluatorError, AttributeError):
        return None


def all_data_sets() -> Iterator[tuple[str, BenchmarkInfo, str]]:
    """Yield every data set of VLMEvalKit's with what is known of it, and why it can't be scored here, if so."""
    yield from ((name, entry.info, "") for name, entry in videos().items())
    known_names = {entry.data_set for entry in BENCHMARKS.values()}
    for owner in _classes():
        try:
            names = owner.data_sets()
        except (EvaluatorError, AttributeError) as reason:
            yield owner.name, BenchmarkInfo("", owner.name, None, ""), REFUSED.get(owner.name, str(reason))
            continue
        for name in dict.fromkeys(names):
            if name not in known_names:
                known_names.add(name)
                why = _why_not(name, owner)
                if not why and (missing := missing_packages(owner.module)):
                    why = f"its class needs packages that are not here: pip install {' '.join(missing)}"
                yield name, BenchmarkInfo("", name, None, "") if why else _entry(name, owner).info, why
    settings = {setting.name for setting in video_settings() if setting.name != setting.data_set}
    for name, why in _refused_names().items():  # of videos not each way to show them
        if name not in known_names and name not in settings:
            yield name, BenchmarkInfo("", name, None, ""), why


@cache
def _refused_names() -> Mapping[str, str]:
    """Return why a name of VLMEvalKit's that is no data set of images is not scored here, by that name."""
    names = {name: f"it is several data sets together: name {', '.join(each)}" for name, each in collections().items()}
    for setting in video_settings():
        why = REFUSED.get(setting.class_name, OTHER_WAYS)
        for name in (setting.name, setting.data_set):
            if name not in videos():
                names[name] = why
    classes = {setting.class_name for setting in video_settings()}
    unnamed = [owner.name for owner in classes_in("VIDEO_DATASET") if owner.name not in classes]
    return names | {name: REFUSED[name] for name in unnamed if name in REFUSED}


def _entry(name: str, owner: DataSetClass) -> VLMEvalBenchmark:
    if why := _why_not(name, owner):
        raise EvaluatorError(f"{name}: not scored here: {why}.")
    metric, rule = _metric(name, owner.name)
    words = rule.description if rule else METRICS[str(metric)].description
    is_judged = metric in ("extracted", "graded") or (rule is not None and rule.judge == "always")
    info = BenchmarkInfo("", name, None, words, judge=is_judged, kind=_kind(owner))
    same = next((entry for entry in BENCHMARKS.values() if entry.class_name == owner.name), None)
    model = same if metric in METRICS_OF_ONE_CLASS else None
    return VLMEvalBenchmark(
        name,
        info,
        owner.module,
        owner.name,
        _columns(name, metric, rule) if model is None else model.columns,
        metric or "evaluate",
        literals=model.literals if model else (),
        filled=model.filled if model else (),
        judge_tokens=model.judge_tokens if model else 2048,
        rule=rule,
    )


def _columns(name: str, metric: str | None, rule: Rule | None) -> tuple[str, ...]:
    if rule is not None:
        return (*(() if rule.questions.numbers_rows else ("index",)), *rule.columns.split())
    return COLUMNS_OF_DATA_SETS.get(name) or COLUMNS.get(str(metric), ("index",))


def _why_not(name: str, owner: DataSetClass) -> str:
    """Return why a data set is not scored here; empty if it is."""
    is_ruled = _metric(name, owner.name) != (None, None)
    return next((REFUSED[key] for key in (name, owner.name) if key in REFUSED), "" if is_ruled else NO_RULE)


def _metric(name: str, class_name: str) -> tuple[str | None, Rule | None]:
    special = next((start for start in CLASSES_WITH_REPORTS if name.startswith(start)), None)
    if class_name == "ImageMCQDataset" and special:
        return None, RULES[special]
    metric = next((metric for metric, classes in IN_MEMORY.items() if class_name in classes), None)
    if metric == "choices" and any(part in name.lower() for part in CIRCULAR_NAMES):
        metric = "circular"
    return metric, RULES.get(name) or RULES.get(class_name)


def _kind(owner: DataSetClass) -> str:
    return KINDS.get(owner.kind().strip().removeprefix("Video-"), OPEN)


@cache
def _classes() -> tuple[DataSetClass, ...]:
    """All classes over images, and those over texts, which are refused."""
    return (*classes_in("IMAGE_DATASET"), *classes_in("TEXT_DATASET"))
