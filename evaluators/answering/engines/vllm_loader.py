"""How vLLM reads a checkpoint that it is opened on: under the names that it knows.

Written for vLLM 0.32. It runs in each of vLLM's workers, whose extension imports it.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm.model_executor.model_loader import register_model_loader
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader

from soup.checkpoints.reader import Checkpoint
from soup.hf.key_mapping import names_on_hub

if TYPE_CHECKING:
    import torch

__all__ = ["LOAD_FORMAT", "known_names"]

LOAD_FORMAT = "soup"


@register_model_loader(LOAD_FORMAT)
class Loader(DefaultModelLoader):  # type: ignore[misc]  # vLLM is Any to mypy
    """vLLM's own loader; where it refuses a checkpoint's names, the Hub's take their place."""

    def __init__(self, load_config: Any) -> None:
        super().__init__(replace(load_config, load_format="auto"))
        self._names: dict[str, str] = {}

    def load_weights(self, model: Any, model_config: Any) -> None:
        """Load the weights, and keep on the model which names it knew."""
        try:
            super().load_weights(model, model_config)
        except Exception:
            path = Path(model_config.model)
            with Checkpoint(path) as checkpoint:
                self._names = names_on_hub(path, checkpoint.tensors)
            if not self._names:
                raise
            super().load_weights(model, model_config)
        model.soup_names = self._names

    def get_all_weights(self, model_config: Any, model: Any) -> Generator[tuple[str, torch.Tensor], None, None]:
        """Yield the tensors under the names that are tried."""
        for name, values in super().get_all_weights(model_config, model):
            yield self._names.get(name, name), values


def known_names(model: Any) -> dict[str, str]:
    """Return vLLM's names by those on disk, for what is called otherwise by a model that this loader loaded."""
    names: dict[str, str] = getattr(model, "soup_names", {})
    return names
