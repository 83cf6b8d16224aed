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
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import FunctionType
from typing import Any

from evaluators.vlmeval_version import INSTALL, version
from soup.errors import EvaluatorError

__all__ = ["module", "plain_texts", "rewired"]

PARENTS = ("vlmeval", "vlmeval.dataset")
TEXTS = "future.infer_string"  # pandas' option


def module(name: str) -> Any:
    """A module of VLMEvalKit by its name below `vlmeval`, such as `dataset.image_mcq`.

    Where the whole of vlmeval is imported already, the module is that one's.

    Raises:
        EvaluatorError: VLMEvalKit, or something that it imports, is not installed.
    """
    if (known := sys.modules.get(f"vlmeval.{name}")) is not None:
        return known
    version()
    with _bare_parents(), _pillow_as_it_was():
        try:
            return importlib.import_module(f"vlmeval.{name}")
        except ImportError as cause:
            raise EvaluatorError(f"VLMEvalKit can't be imported ({cause}): {INSTALL}.") from cause


def rewired(function: Callable[..., Any], **names: Any) -> Callable[..., Any]:
    """The same code with some of the global names that it looks up replaced, for this one function object.

    So the metric stays VLMEvalKit's, byte code for byte code, while what it reads and writes is ours; and nothing of
    VLMEvalKit is patched for others. A class method is given back as a plain function.
    """
    plain = getattr(function, "__func__", function)
    copy = FunctionType(
        plain.__code__, {**plain.__globals__, **names}, plain.__name__, plain.__defaults__, plain.__closure__
    )
    copy.__kwdefaults__ = plain.__kwdefaults__
    return copy


@contextmanager
def plain_texts() -> Iterator[None]:
    """Pandas keeps texts as Python's own, not in arrays of its own: rows are taken one by one here, much faster.

    Nothing but time depends on it, so that a version of pandas without that option is as good.
    """
    pandas: Any = importlib.import_module("pandas")
    with warnings.catch_warnings(), ExitStack() as after:
        warnings.filterwarnings("ignore", f".*{re.escape(TEXTS)}")  # it is to go in some later version
        with suppress(pandas.errors.OptionError):
            after.callback(pandas.set_option, TEXTS, pandas.get_option(TEXTS))
            pandas.set_option(TEXTS, False)
        yield


@contextmanager
def _bare_parents() -> Iterator[None]:
    """Registers what is missing of the two packages as bare objects; takes all back if the import inside fails."""
    before = set(sys.modules)
    for name in PARENTS:
        if name not in sys.modules:
            spec = importlib.util.find_spec(name)
            if spec is None:
                raise EvaluatorError(f"VLMEvalKit's package {name} can't be found: {INSTALL}.")
            # With its spec, so that importlib.reload() makes it the full package for whoever wants that later.
            sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        yield
    except BaseException:
        for name in set(sys.modules) - before:
            if name.partition(".")[0] == "vlmeval":
                del sys.modules[name]
        raise


@contextmanager
def _pillow_as_it_was() -> Iterator[None]:
    """Importing VLMEvalKit raises Pillow's limit against decompression bombs for the whole process: put it back."""
    try:
        image: Any = importlib.import_module("PIL.Image")
    except ImportError as cause:
        raise EvaluatorError(f"VLMEvalKit can't be imported ({cause}): {INSTALL}.") from cause
    limit = image.MAX_IMAGE_PIXELS
    try:
        yield
    finally:
        image.MAX_IMAGE_PIXELS = limit
