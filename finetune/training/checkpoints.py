"""What a job resumes from: written apart, renamed when complete, replaced by the next one.

checkpoints/part/checkpoint-40/    while it is written; never resumed from
checkpoints/step-40/               complete: what is trained, the optimizer, the schedule, the random numbers
"""

import re
import shutil
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from soup.errors import FinetuneError

__all__ = ["complete", "load_trained", "newest", "save_trained", "scratch", "trained_tensors"]

WEIGHTS = "trained.safetensors"  # the rest is the start's
JOB = "job-digest.txt"


def scratch(folder: Path) -> Path:
    """Where a job's checkpoints are written."""
    return folder / "checkpoints" / "part"


def newest(folder: Path, digest: str) -> Path | None:
    """The last complete checkpoint of the very job, or None; one of other settings, data or start is no such."""
    found = [path for path in (folder / "checkpoints").glob("step-*") if re.fullmatch(r"step-\d+", path.name)]
    own = [path for path in found if _digest(path) == digest]
    return max(own, key=lambda path: int(path.name.removeprefix("step-")), default=None)


def complete(folder: Path, step: int, digest: str) -> None:
    """Gives the checkpoint that was just written its name, and removes those before it."""
    written = scratch(folder) / f"checkpoint-{step}"
    (written / JOB).write_text(digest + "\n")
    place = folder / "checkpoints" / f"step-{step}"
    if place.exists():
        shutil.rmtree(place)
    written.rename(place)
    for path in (folder / "checkpoints").glob("step-*"):
        if path != place:
            shutil.rmtree(path, ignore_errors=True)


def trained_tensors(model: nn.Module) -> dict[str, Tensor]:
    """What training changes, each tensor under one name: parameters that are not frozen, and buffers that are kept."""
    kept = model.state_dict(keep_vars=True).keys()
    own = {name: tensor for name, tensor in model.named_parameters() if tensor.requires_grad}
    return own | {name: tensor for name, tensor in model.named_buffers() if name in kept}


def save_trained(model: nn.Module, directory: Path) -> None:
    """Writes what training has changed."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().contiguous() for name, tensor in trained_tensors(model).items()}
    save_file(tensors, directory / WEIGHTS)


def load_trained(model: nn.Module, directory: Path) -> None:
    """Puts it back, tensor by tensor.

    Raises:
        FinetuneError: the model trains other tensors than the checkpoint has.
    """
    own = trained_tensors(model)
    with safe_open(directory / WEIGHTS, framework="pt") as file:
        if set(file.keys()) != own.keys():
            raise FinetuneError(f"{directory}: its {len(file.keys())} tensors are not the {len(own)} that are trained.")
        for name, tensor in own.items():
            tensor.data.copy_(file.get_tensor(name))


def _digest(path: Path) -> str | None:
    try:
        return (path / JOB).read_text().strip()
    except OSError:
        return None
