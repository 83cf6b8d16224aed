"""What of VLMEvalKit's is not scored here, by class or data set, each with the reason that a user is told."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["REFUSED"]


def _all(classes: str, reason: str) -> dict[str, str]:
    return dict.fromkeys(classes.split(), reason)


IMAGES: Mapping[str, str] = {
    **_all(
        "MMGenBench MME_CoT MATBench OceanOCRBench olmOCRBench",
        "VLMEvalKit's `evaluate` returns no result for it",
    ),
    **_all(
        "ChartX FoxBench CreationMMBenchDataset",
        "VLMEvalKit's result for it is several figures without a total",
    ),
    **_all(
        "ChartMimic SArena UniSVG Design2Code SciDocBench",
        "its `evaluate` runs or renders what the model wrote as code",
    ),
    **_all(
        "BMMR MMEReasoning",
        "its metric hands what the model wrote to sympy's `parse_expr`, which runs it as code",
    ),
    "MOAT": "VLMEvalKit shuffles the options of a question at random, by what was asked before it",
    "OSTDataset": "VLMEvalKit leaves answers in which `Failed` stands out of its figures, of which none is a total",
    "VLADBench": "its prompts read image files of a folder that VLMEvalKit downloads, by its table's column of images",
    "MMIFEval": "its `evaluate` calls functions by the names that its table holds, which may be any of its module's",
    "VCRDataset": "it downloads models of spaCy's whenever it is built, and its `evaluate` returns no result",
    **_all(
        "MMSci_Captioning ChartCapDataset",
        "its metrics, a BERT model among them, are fetched from the Hub while answers are scored",
    ),
    **_all(
        "MMLongBench DUDE SlideVQA",
        "VLMEvalKit shows its pages to ten models that it lists by name, and to no other",
    ),
    "MM-HELIX_lang": "its questions are texts without images: name MM-HELIX",
    "HiPhO_ALL": "it is several data sets together: name IPhO_2024, IPhO_2025 and so on",
    "MMDUDataset": "its questions are turns of one conversation",
    "MedqbenchCaption": "VLMEvalKit has no file of that name: name MedqbenchCaption_dev or MedqbenchCaption_test",
    "MedqbenchMCQ": "VLMEvalKit has no file of that name: name MedqbenchMCQ_dev or MedqbenchMCQ_test",
    "MMMath": "VLMEvalKit's time limit for comparing formulas fails in its threads, so that only equal texts are right",
    "OmniDocBench": "VLMEvalKit matches answers with all rows of its own file, so that no part of them can be scored",
    "QSpatial": "it fetches its prompts from the network whenever it is built",
    "ReasonMap_Plus": "VLMEvalKit's prompt for it has an image's cell where a path belongs, at which its models stop",
    "SIUODataset": "it is two data sets together: name SIUO_GEN and SIUO_MCQ",
    "SSIBenchDataset": "VLMEvalKit's package lacks the file taxonomy.json that its `evaluate` reads",
    "VenusBench_GD": "VLMEvalKit's metric compares a list with a number, so that every evaluation ends with an error",
}

VIDEOS: Mapping[str, str] = {
    "MVBench": "it shows parts of videos, from one second to another; MVBench_MP4 asks the same of whole videos",
    "MVTamperBench": "it shows parts of videos, from one second to another, and videos that are folders of pictures",
    "EgoExoBench_MCQ": "a question shows parts of several videos, from one second to another",
    "MMSIVideoBench": "its videos are folders of pictures, of which a question shows several parts",
    "OMTGBench": "it shows so many frames a second, and a number of frames at equal distances is shown here",
    **_all(
        "CGBench_MCQ_Grounding CGBench_MCQ_Grounding_Mini CGBench_OpenEnded CGBench_OpenEnded_Mini CGAVCounting "
        "VCRBench",
        "VLMEvalKit's result for it is several figures without a total",
    ),
    **_all("VDC Video_MMLU_CAP", "VLMEvalKit draws its prompts at random, others in each run"),
    "DREAM": "VLMEvalKit leaves empty answers out of its total, which is no mean of the questions' points",
    "Video_MMLU_QA": "VLMEvalKit's `evaluate` for it fails: it looks for a column that captions alone get",
    "MEGABench": "its metric runs the programs that the model wrote",
    "AVSpeakerBench": "it asks for what is heard in videos, and only their frames are shown here",
    "MLVU": "it is two data sets together: name MLVU_MCQ and MLVU_OpenEnded",
    "QBench_Video": "it is two data sets together: name QBench_Video_MCQ and QBench_Video_VQA",
    "TempCompass": "it is three data sets together: name TempCompass_MCQ, TempCompass_Captioning, TempCompass_YorN",
}

TEXTS: Mapping[str, str] = _all(
    "TextMCQDataset SGI_Bench_Wet_Experiment SGI_Bench_Dry_Experiment SGI_Bench_Deep_Research "
    "SGI_Bench_Idea_Generation XSTestDataset FlamesDataset",
    "its questions are texts without images",
)

REFUSED: Mapping[str, str] = {**IMAGES, **VIDEOS, **TEXTS}
"""Why a class, or one data set of a class, is not scored here."""
