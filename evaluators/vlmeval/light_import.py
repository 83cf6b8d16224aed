"""VLMEvalKit's data sets, prompts and metrics, without the rest of VLMEvalKit.

`import vlmeval` in full takes torchvision, seconds and 650 MB, turns torch's gradients and the verification of TLS
certificates off and fixes the random seed. What judging needs lies below `vlmeval.dataset` and loads in a fraction of
a second, once the two packages above it are registered as bare module objects, which have a path but run no code.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from types import FunctionType, ModuleType
from typing import Any

from evaluators.vlmeval_version import INSTALL, version
from soup.errors import EvaluatorError

__all__ = ["python_strings", "unused_by", "vlmeval_module", "with_globals"]

PARENTS = ("vlmeval", "vlmeval.dataset")
MISNAMED = {"dataset.smp": "smp", "dataset.smp.log": "smp.log", "dataset.utils.mmreason": "dataset.mmreason"}
"""Modules that VLMEvalKit imports by a name that there is not: LLaVABench's and MMReason's metrics fail there."""
UNUSED = ("decord",)
"""Packages that some modules import and that nothing here uses: videos are read by other means."""
UNUSED_BY = {"dataset.mvbench": ("cv2", "imageio", "torchvision", "torchvision.transforms")}
"""More of them, by the one module that does."""
STRINGS_OPTION = "future.infer_string"  # pandas' option


def vlmeval_module(name: str) -> Any:
    """Import a module of VLMEvalKit by its name below `vlmeval`, such as `dataset.image_mcq`.

    Where the whole of vlmeval is imported already, the module is of that.

    Raises:
        EvaluatorError: VLMEvalKit, or something that it imports, is not installed.
    """
    if (module := sys.modules.get(f"vlmeval.{name}")) is not None:
        return module
    version()
    with _bare_parents(unused_by(name)), _pillow_limit_kept():
        try:
            for wrong, right in MISNAMED.items():
                sys.modules[f"vlmeval.{wrong}"] = importlib.import_module(f"vlmeval.{right}")
            return importlib.import_module(f"vlmeval.{name}")
        except ImportError as cause:
            raise EvaluatorError(f"VLMEvalKit can't be imported ({cause}): {INSTALL}.") from cause


def with_globals(function: Callable[..., Any], **replaced: object) -> Callable[..., Any]:
    """Copy a function so that some of the global names that it looks up are replaced, for the copy alone.

    So the metric stays VLMEvalKit's, byte code for byte code, while what it reads and writes is ours; and nothing of
    VLMEvalKit is patched for others.

    Args:
        function: A function of VLMEvalKit, or a method; of a class method the copy is a plain function.
        replaced: The global names with what they stand for in the copy.
    """
    plain = getattr(function, "__func__", function)
    copy = FunctionType(
        plain.__code__, {**plain.__globals__, **replaced}, plain.__name__, plain.__defaults__, plain.__closure__
    )
    copy.__kwdefaults__ = plain.__kwdefaults__
    return copy


@contextmanager
def python_strings() -> Iterator[None]:
    """Let pandas keep texts as Python's own, not in arrays of its own: rows are taken one by one here, much faster.

    Nothing but time depends on it, so that a version of pandas without that option is as good.
    """
    import pandas

    with warnings.catch_warnings(), ExitStack() as after:
        warnings.filterwarnings("ignore", f".*{re.escape(STRINGS_OPTION)}")  # it is to go in some later version
        with suppress(pandas.errors.OptionError):
            after.callback(pandas.set_option, STRINGS_OPTION, pandas.get_option(STRINGS_OPTION))
            pandas.set_option(STRINGS_OPTION, False)
        yield


def unused_by(name: str) -> tuple[str, ...]:
    """Return the packages that a module below `vlmeval` imports and nothing here uses, packages above before others."""
    return (*UNUSED, *UNUSED_BY.get(name, ()))


@contextmanager
def _bare_parents(unused: Sequence[str]) -> Iterator[None]:
    """Register what is missing of the two packages as bare objects; take all back if the import inside fails.

    So are packages that are imported and not used, for as long as the import takes.
    """
    before = set(sys.modules)
    for name in PARENTS:
        if name not in sys.modules:
            spec = importlib.util.find_spec(name)
            if spec is None:
                raise EvaluatorError(f"VLMEvalKit's package {name} can't be found: {INSTALL}.")
            # With its spec, so that importlib.reload() makes it the full package for whoever wants that later.
            sys.modules[name] = importlib.util.module_from_spec(spec)
    absent = [name for name in unused if sys.modules.get(name) is None and not _can_be_imported(name)]
    refused = {name: sys.modules[name] for name in absent if name in sys.modules}
    sys.modules.update({name: ModuleType(name) for name in absent})
    try:
        yield
    except BaseException:
        for name in set(sys.modules) - before:
            if name.partition(".")[0] == "vlmeval":
                del sys.modules[name]
        raise
    finally:
        for name in absent:
            del sys.modules[name]
        sys.modules.update(refused)


def _can_be_imported(name: str) -> bool:
    """Whether a package is here, and not refused by a None in `sys.modules`; nothing is imported."""
    top = name.partition(".")[0]
    if top in sys.modules:
        return hasattr(sys.modules[top], "__path__")
    return importlib.util.find_spec(top) is not None


@contextmanager
def _pillow_limit_kept() -> Iterator[None]:
    """Put Pillow's limit against decompression bombs back: importing VLMEvalKit raises it for the whole process."""
    try:
        image: Any = importlib.import_module("PIL.Image")
    except ImportError as cause:
        raise EvaluatorError(f"VLMEvalKit can't be imported ({cause}): {INSTALL}.") from cause
    limit = image.MAX_IMAGE_PIXELS
    try:
        yield
    finally:
        image.MAX_IMAGE_PIXELS = limit
