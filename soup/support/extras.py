"""Which extra brings a library that is not installed: error messages and `soup doctor` name it.

What an extra holds is read from the package's own metadata, so that setup.cfg is the only list.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from packaging.requirements import Requirement

__all__ = [
    "DISTRIBUTION",
    "EXTRAS",
    "absent_libraries",
    "absent_requirements",
    "distribution_of",
    "extra_of",
    "extra_requirements",
    "install_line",
    "missing_extra",
]

DISTRIBUTION = "vlm-soup"
EXTRAS = {
    "plot": "pictures of pools, models and sweeps",
    "cma": "the strategy cma",
    "video": "frames of mp4 and other videos",
    "slurm": "fine-tuning on a SLURM cluster",
    "ray": "workers and fine-tuning on a Ray cluster",
    "vlmeval-light": "VLMEvalKit's benchmarks, with ms-vlmeval by itself",
    "finetune": "fine-tuning, and all of soup data",
    "lm-eval": "the text tasks of lm-eval",
    "vlmeval": "VLMEvalKit with all that it asks for",
    "vllm": "the engine vllm, in an environment of its own",
}
"""What each is for. Of several that hold a library the first one is named: the light ones come first."""
_IMPORTED_AS = {"PIL": "pillow", "vlmeval": "ms-vlmeval", "yaml": "pyyaml"}


def distribution_of(module: str) -> str:
    """Return the name under which package indexes know a module's library."""
    from packaging.utils import canonicalize_name

    top = module.partition(".")[0]
    return str(canonicalize_name(_IMPORTED_AS.get(top, top)))


@cache
def extra_requirements(extra: str) -> tuple[Requirement, ...]:
    """Return what an extra asks for; nothing where soup is run from its sources without being installed."""
    try:
        soup = distribution(DISTRIBUTION)
    except PackageNotFoundError:
        return ()
    always = _needed_by(soup, ())
    return tuple(need for need in _needed_by(soup, (extra,)) if need not in always)


def extra_of(module: str, preferred: str = "") -> str | None:
    """Return the extra that brings a module's library; None where there is none.

    Args:
        module: As it is imported, such as `PIL.Image`.
        preferred: The extra to name where several hold it.
    """
    library = distribution_of(module)
    order = sorted(EXTRAS, key=lambda extra: extra != preferred)
    return next((extra for extra in order if any(need.name == library for need in extra_requirements(extra))), None)


def install_line(module: str, preferred: str = "") -> str:
    """Return the command that installs a module's library: by its extra, or else by its own name.

    Args:
        module: See `extra_of`.
        preferred: See `extra_of`.
    """
    extra = extra_of(module, preferred)
    return f'pip install "{DISTRIBUTION}[{extra}]"' if extra else f"pip install {distribution_of(module)}"


def absent_libraries(modules: Iterable[str], preferred: str = "") -> list[str]:
    """Say of each library that is not here how it is installed.

    Args:
        modules: As they are imported.
        preferred: See `extra_of`.
    """
    absent = [module for module in modules if importlib.util.find_spec(module) is None]
    return [f"{module} is not installed: {install_line(module, preferred)}" for module in absent]


def missing_extra(error: BaseException) -> str | None:
    """Say which library is missing and how to install it; None for errors of another kind, and for broken libraries."""
    top = ((error.name if isinstance(error, ModuleNotFoundError) else None) or "").partition(".")[0]
    if not top or importlib.util.find_spec(top) is not None or extra_of(top) is None:
        return None
    return f"{top} is not installed: {install_line(top)}."


def absent_requirements(extra: str) -> list[str]:
    """Return the libraries that are not here of those that an extra asks for, and of those that these ask for."""
    absent: dict[str, None] = {}
    needed = list(extra_requirements(extra))
    for need in needed:  # which grows
        try:
            library = distribution(need.name)
        except PackageNotFoundError:
            absent[need.name] = None
            continue
        if not need.specifier.contains(library.version, prereleases=True):
            absent[f"{need.name}{need.specifier}"] = None
        needed += [further for further in _needed_by(library, need.extras) if further not in needed]
    return list(absent)


def _needed_by(library: Distribution, extras: Iterable[str]) -> list[Requirement]:
    """Return what a library asks for on this machine, with some of its extras."""
    from packaging.requirements import Requirement

    needed = [Requirement(line) for line in library.requires or []]
    chosen = ("", *extras)
    return [need for need in needed if not need.marker or any(need.marker.evaluate({"extra": name}) for name in chosen)]
