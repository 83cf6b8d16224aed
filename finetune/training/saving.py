"""An ingredient: an ordinary checkpoint with `finetune.json` in it, under its name only when complete."""

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
from finetune.jobs import STAMP
from soup.checkpoints.reader import Checkpoint
from soup.errors import FinetuneError

__all__ = ["Origin", "one_tensor_each", "publish", "save", "versions"]

OURS = (STAMP, "recipe.yaml", "README.md")  # of the start itself, not of what becomes of it


@dataclass(frozen=True)
class Origin:
    """What a start has beside its weights. Without a `place` it was made here, and its processor is written anew.

    `config` is as it was before training, which turns the cache off for everyone; `tied` is told by `one_tensor_each`.
    """

    config: Any
    processor: Any
    place: Path | None
    tied: dict[str, str]

    def copy_to(self, out: Path) -> None:
        """Tokenizer, processor, template and code, to the byte as they are."""
        if self.place is None:
            self.processor.save_pretrained(out)
            return
        with Checkpoint(self.place) as start:
            for name in start.side_files.carried:
                if name != "config.json" and Path(name).name not in OURS:
                    (out / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(self.place / name, out / name)


def save(model: PreTrainedModel, state: dict[str, Tensor], origin: Origin, settings: TrainSettings, out: Path) -> None:
    """The model's weights `state`, in the dtype that the settings name, which its configuration then names, too."""
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


def one_tensor_each(model: nn.Module) -> dict[str, str]:
    """The first name of what goes by several, for each other name: tied weights, which engines that cut up forget."""
    first: dict[int, str] = {}
    names = {name: first.setdefault(id(tensor), name) for name, tensor in model.state_dict(keep_vars=True).items()}
    return {name: own for name, own in names.items() if name != own}


def rounded(state: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Every floating-point tensor in that dtype, on the processor; what was one tensor under two names stays one."""
    done: dict[tuple[object, ...], Tensor] = {}
    for tensor in state.values():
        if _place(tensor) not in done:
            wanted = dtype if tensor.is_floating_point() else tensor.dtype
            done[_place(tensor)] = tensor.detach().to("cpu", wanted)
    return {name: done[_place(tensor)] for name, tensor in state.items()}


def publish(part: Path, out: Path, stamp: dict[str, Any], write: Callable[[Path], None]) -> None:
    """Writes a checkpoint at `part` by `write`, with its stamp, and moves it to `out` in one step.

    Raises:
        FinetuneError: something else stands at `out`.
    """
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    write(part)
    (part / STAMP).write_text(json.dumps(stamp, indent=2) + "\n", encoding="utf-8")
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.exists():
        raise FinetuneError(f"{out}: stands there already. Remove it, or name another `out`.")
    try:
        part.rename(out)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        beside = out.with_name(f".{out.name}.part")  # on another disk: copied there first
        shutil.rmtree(beside, ignore_errors=True)
        shutil.copytree(part, beside)
        beside.rename(out)
        shutil.rmtree(part)


def versions() -> dict[str, str]:
    """Of what took part."""
    from importlib.metadata import PackageNotFoundError, version

    import soup

    found = {"soup": soup.__version__}
    for name in ("torch", "transformers", "accelerate", "peft"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _place(tensor: Tensor) -> tuple[object, ...]:
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, tensor.device
