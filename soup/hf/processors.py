"""A checkpoint's own processor, by transformers, for judging and training alike; nothing here imports it by itself."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

__all__ = ["has_torchvision", "open_processor"]


def has_torchvision() -> bool:
    """Whether torchvision can be imported: transformers' faster image processors, and all for videos, need it."""
    return importlib.util.find_spec("torchvision") is not None


def open_processor(directory: Path | str, *, trust_remote_code: bool = False) -> Any:
    """Open the processor of a checkpoint; if it takes videos as well, without torchvision for images alone.

    Args:
        directory: The checkpoint.
        trust_remote_code: Whether code that comes with it may run. Unless told, transformers would ask the terminal.
    """
    import transformers

    with nullcontext() if has_torchvision() else _no_videos():
        return transformers.AutoProcessor.from_pretrained(
            directory, trust_remote_code=trust_remote_code, local_files_only=True
        )


@contextmanager
def _no_videos() -> Iterator[None]:
    """Let a processor that also takes videos be built without torchvision, which only its videos need.

    For the one call, the part for videos is one that knows nothing: images and text are processed by the classes that
    would process them anyway, and a video, which no question here has, would fail.
    """
    from transformers.processing_utils import transformers_module as classes
    from transformers.video_processing_utils import VideoProcessorMixin

    # By its name: as an attribute of its package it is a stand-in of transformers', until somebody has imported it.
    auto = importlib.import_module("transformers.models.auto.video_processing_auto")

    class NoVideos(VideoProcessorMixin):  # type: ignore[misc]  # transformers is Any to mypy
        model_input_names: tuple[str, ...] = ()

        @classmethod
        def from_pretrained(cls, *args: Any, **options: Any) -> NoVideos:
            return cls()

    with ExitStack() as after:
        for module, name, stand_in in (
            (auto, "AutoVideoProcessor", NoVideos),
            (classes, "VideoProcessorMixin", VideoProcessorMixin),
        ):
            if name in vars(module):
                after.callback(setattr, module, name, vars(module)[name])
            else:
                after.callback(delattr, module, name)
            setattr(module, name, stand_in)
        yield
