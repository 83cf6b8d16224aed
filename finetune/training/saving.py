"""An ingredient: an ordinary checkpoint with `finetune.json` in it, under its name only when complete."""

from __future__ import annotations

import copy
import errno
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from finetune.config import TrainSettings
from finetune.jobs import STAMP, Stamp
from soup.checkpoints.reader import Checkpoint
from soup.errors import FinetuneError
from soup.support.atomic_files import make_folders, rename_synced

__all__ = ["Origin", "publish", "publish_written", "save", "tied_names", "versions"]

OURS = (STAMP, "recipe.yaml", "README.md")  # of the start itself, not of what becomes of it


@dataclass(frozen=True)
class Origin:
    """What a start has beside its weights. Without a `folder` it was made here, and its processor is written anew.

    `config` is as it was before training, which turns the cache off for everyone; `tied` is from `tied_names`.
    """

    config: Any
    processor: Any
    folder: Path | None
    tied: dict[str, str]

    def copy_to(self, out: Path) -> None:
        """Copy tokenizer, processor, template and code, byte for byte."""
        if self.folder is None:
            self.processor.save_pretrained(out)
            return
        with Checkpoint(self.folder) as start:
            for name in start.side_files.carried:
                if name != "config.json" and Path(name).name not in OURS:
                    (out / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(self.folder / name, out / name)


def save(model: PreTrainedModel, state: dict[str, Tensor], origin: Origin, settings: TrainSettings, out: Path) -> None:
    """Save a model in the dtype that the settings name, which its configuration then names, too.

    Args:
        model: whose class and configuration are written.
        state: its weights.
        origin: what is copied from the start.
        settings: `dtype` and `max_shard_size`.
        out: the directory.
    """
    dtype = getattr(torch, settings.dtype)
    state = {name: state[origin.tied.get(name, name)] for name in state}
    model.save_pretrained(out, state_dict=rounded(state, dtype), max_shard_size=settings.max_shard_size)
    config = copy.deepcopy(origin.config)
    config.architectures = [type(model).__name__]
    for part in (config, *(getattr(config, name, None) for name in config.sub_configs)):
        if part is not None:
            part.dtype = dtype
    config.save_pretrained(out)
    origin.copy_to(out)


def tied_names(model: nn.Module) -> dict[str, str]:
    """Give for each other name of a tied weight its first name: engines that shard weights forget the ties."""
    first: dict[int, str] = {}
    names = {name: first.setdefault(id(tensor), name) for name, tensor in model.state_dict(keep_vars=True).items()}
    return {name: first_name for name, first_name in names.items() if name != first_name}


def rounded(state: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Give every floating-point tensor in that dtype, on the CPU; one tensor under two names stays one."""
    rounded_tensors: dict[tuple[object, ...], Tensor] = {}
    for tensor in state.values():
        if _storage_key(tensor) not in rounded_tensors:
            target = dtype if tensor.is_floating_point() else tensor.dtype
            rounded_tensors[_storage_key(tensor)] = tensor.detach().to("cpu", target)
    return {name: rounded_tensors[_storage_key(tensor)] for name, tensor in state.items()}


def publish(part: Path, out: Path, stamp: Stamp, write: Callable[[Path], None]) -> None:
    """Write a checkpoint with its stamp, and move it to `out` in one step.

    Args:
        part: where it is while it is written.
        out: where it goes.
        stamp: for its `finetune.json`.
        write: writes the checkpoint into a directory.

    Raises:
        FinetuneError: something else stands at `out`.
    """
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    write(part)
    publish_written(part, out, stamp)


def publish_written(part: Path, out: Path, stamp: Stamp) -> None:
    """Move a checkpoint that is written to `out` in one step, with its stamp.

    Raises:
        FinetuneError: something else stands at `out`.
    """
    (part / STAMP).write_text(json.dumps(stamp, indent=2) + "\n", encoding="utf-8")
    usual_mode = (part / STAMP).stat().st_mode
    for weights in part.glob("*.safetensors"):
        weights.chmod(usual_mode)  # safetensors writes files that nobody else may read
    make_folders(out.parent)
    if out.exists():
        raise FinetuneError(f"{out}: stands there already. Move it away, or name another `out`.")
    try:
        rename_synced(part, out)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        beside = out.with_name(f".{out.name}.part")  # on another disk: copied there first
        shutil.rmtree(beside, ignore_errors=True)
        shutil.copytree(part, beside)
        rename_synced(beside, out)
        shutil.rmtree(part)


def versions() -> dict[str, str]:
    """Give the versions of the packages that took part."""
    from importlib.metadata import PackageNotFoundError, version

    import soup

    packages = {"soup": soup.__version__}
    for name in ("torch", "transformers", "accelerate", "peft"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    return packages


def _storage_key(tensor: Tensor) -> tuple[object, ...]:
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, tensor.device
