"""How the result of VLMEvalKit's own `evaluate` becomes a score of 0 to 100: a rule for each kind of result.

A rule names where in the result the total stands, what makes a percentage of it, and the column of the tables written
on the way that has each question's points. Classes whose result has no such total are refused by name: `refusals`.
"""

from __future__ import annotations

from collections.abc import Mapping

from evaluators.vlmeval.rule import Rule
from evaluators.vlmeval.rules.judged import JUDGED
from evaluators.vlmeval.rules.matched import MATCHED
from evaluators.vlmeval.rules.videos import VIDEOS

__all__ = ["IN_MEMORY", "RULES"]

IN_MEMORY: Mapping[str, tuple[str, ...]] = {
    "choices": (
        "ImageMCQDataset",
        "MMMUDataset",
        "MUIRDataset",
        "MedXpertQA_MM_test",
        "LEGO",
        "MSEarthMCQ",
        "SCAM",
        "CVQA",
        "MicroBench",
        "OmniMedVQA",
        "GMAIMMBenchDataset",
        "CustomMCQDataset",
    ),
    "vqa": ("ImageVQADataset", "VizWiz", "PlotQA"),
    "rated_yes_no": ("ImageYORNDataset",),
    "contained": ("OCRBench",),
    "extracted": ("MathVista",),
    "graded": ("MMVet",),
}
"""Classes by the metric of `evaluators.vlmeval.metrics` that calls what lies below their `evaluate`."""

RULES: Mapping[str, Rule] = {**MATCHED, **VIDEOS, **JUDGED}
"""By VLMEvalKit's class, or by data set where a class reports that one in its own way."""
