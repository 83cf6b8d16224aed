"""The checkpoints that a job resumes from: written apart, renamed when complete, replaced by the next one.

checkpoints/part/checkpoint-40/    while it is written; never resumed from
checkpoints/step-40/               complete: what is trained, the optimizer, the schedule, the random numbers
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from soup.errors import FinetuneError
from soup.support.atomic_files import rename_synced

__all__ = ["complete", "load_trained", "newest", "save_trained", "scratch", "trained_tensors"]

WEIGHTS = "trained.safetensors"  # the rest is the start's
JOB = "job-digest.txt"


def scratch(folder: Path) -> Path:
    """Give the directory that a job's checkpoints are written in."""
    return folder / "checkpoints" / "part"


def newest(folder: Path, digest: str) -> Path | None:
    """Give the last complete checkpoint of just this job, not of other settings, data or start; or None."""
    steps = [path for path in (folder / "checkpoints").glob("step-*") if re.fullmatch(r"step-\d+", path.name)]
    ours = [path for path in steps if _digest(path) == digest]
    return max(ours, key=lambda path: int(path.name.removeprefix("step-")), default=None)


def complete(folder: Path, step: int, digest: str) -> None:
    """Give the checkpoint that was just written its name, and remove those before it."""
    written = scratch(folder) / f"checkpoint-{step}"
    (written / JOB).write_text(digest + "\n")
    target = folder / "checkpoints" / f"step-{step}"
    if target.exists():
        shutil.rmtree(target)
    rename_synced(written, target)
    for path in (folder / "checkpoints").glob("step-*"):
        if path != target:
            shutil.rmtree(path, ignore_errors=True)


def trained_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Give what training changes, each tensor under one name: parameters that are not frozen, and saved buffers."""
    kept = model.state_dict(keep_vars=True).keys()
    trained = {name: tensor for name, tensor in model.named_parameters() if tensor.requires_grad}
    return trained | {name: tensor for name, tensor in model.named_buffers() if name in kept}


def save_trained(model: nn.Module, directory: Path) -> None:
    """Write what training has changed."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().contiguous() for name, tensor in trained_tensors(model).items()}
    save_file(tensors, directory / WEIGHTS)


def load_trained(model: nn.Module, directory: Path) -> None:
    """Put what `save_trained` wrote back, tensor by tensor.

    Raises:
        FinetuneError: the model trains other tensors than the checkpoint has.
    """
    tensors = trained_tensors(model)
    with safe_open(directory / WEIGHTS, framework="pt") as file:
        if set(file.keys()) != tensors.keys():
            raise FinetuneError(
                f"{directory}: its {len(file.keys())} tensors are not the {len(tensors)} that are trained."
            )
        for name, tensor in tensors.items():
            tensor.data.copy_(file.get_tensor(name))


def _digest(path: Path) -> str | None:
    try:
        return (path / JOB).read_text().strip()
    except OSError:
        return None
