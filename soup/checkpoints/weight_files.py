"""Which files of a folder hold its model's weights: transformers' names, the index, and what is no such model."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath, PureWindowsPath

from soup.errors import CheckpointError
from soup.support.json_text import read_json
from soup.support.text import bullet_list

__all__ = [
    "INDEX",
    "WEIGHTS",
    "choose_weights",
    "is_adapter",
    "looks_like_checkpoint",
    "no_directory",
    "pickles_in",
    "read_index",
    "refuse_irregular_files",
]

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
"""The names under which transformers looks for weights: the first is preferred where both exist."""

_SHARD = re.compile(r"-\d+-of-(\d{1,9})\.safetensors$")

_PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}


def is_adapter(path: Path) -> bool:
    """Whether a directory holds a PEFT adapter and no whole model beside it."""
    return (path / "adapter_config.json").exists() and not any((path / name).exists() for name in (WEIGHTS, INDEX))


def looks_like_checkpoint(path: Path) -> bool:
    """Whether a directory is meant as a checkpoint, be it a broken one: it has weights of any kind, or a config."""
    if not path.is_dir() or path.name.startswith("."):
        return False
    names = [entry.name for entry in path.iterdir() if not entry.is_dir()]  # a pipe or a dead link is meant, too
    marks = {"config.json", "model_index.json", "adapter_config.json", INDEX}
    return any(name in marks or name.endswith((".safetensors", ".bin")) for name in names)


def pickles_in(names: Iterable[str]) -> list[str]:
    """List the files that are pickles by their names, sorted; not those in folders."""
    return sorted(name for name in names if PurePosixPath(name).suffix in _PICKLES and "/" not in name)


def no_directory(path: Path) -> str:
    """Say what a path that is no directory is, for an error."""
    return "a file, and no directory" if path.exists() else "no such directory"


def refuse_irregular_files(path: Path, names: Iterable[str]) -> None:
    """Refuse to open pipes (which would wait for ever), devices (which never end) and folders; all are listed."""
    irregular = [name for name in names if os.path.lexists(path / name) and not (path / name).is_file()]
    if irregular:
        raise CheckpointError(
            f"{path}: expected regular files, found pipes, devices, folders or links to missing files:\n"
            f"{bullet_list(irregular)}\nCopy or download these files again."
        )


def read_index(path: Path) -> dict[str, str] | None:
    """Read and check the `weight_map` of a checkpoint's index; None where there is no index.

    Raises:
        CheckpointError: It is damaged, or points out of the checkpoint.
    """
    file = path / INDEX
    if not file.exists():
        return None
    index = read_json(file, CheckpointError)
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not all(isinstance(value, str) for value in weight_map.values()):
        raise CheckpointError(f"{file}: expected an object with a 'weight_map' from tensor names to file names.")
    if not weight_map:
        raise CheckpointError(f"{file}: its weight_map is empty.")
    outside = sorted({value for value in weight_map.values() if not _inside(value)})
    if outside:
        raise CheckpointError(
            f"{file}: entries that point outside of the directory are refused:\n{bullet_list(outside)}"
        )
    return {name: PurePosixPath(value).as_posix() for name, value in weight_map.items()}  # `./a` is the file `a`


def _inside(name: str) -> bool:
    """Whether an index entry names a file in or below its own directory. Links as in the Hub's cache are fine."""
    pure = PurePosixPath(name)
    if not name or pure.is_absolute() or PureWindowsPath(name).drive or "\\" in name or "\0" in name:
        return False
    return ".." not in pure.parts and pure.suffix == ".safetensors"


def choose_weights(
    path: str, names: Collection[str], index: Mapping[str, str] | None, warnings: list[str]
) -> list[str]:
    """List the weight files to read, sorted: those of the index, or the only one there is.

    Args:
        path: The checkpoint's directory or Hub id, for errors.
        names: The files that it has, by their paths in it.
        index: The file of each tensor, if there is an index.
        warnings: Takes what stops nothing.

    Raises:
        CheckpointError: They are no whole model in safetensors, or leave open which one is meant.
    """
    files = sorted(name for name in names if name.endswith(".safetensors") and "/" not in name)
    _refuse_other_kinds(path, names, files, index)
    if "adapter_config.json" in names:
        warnings.append(
            f"{path}: a whole model ({WEIGHTS if index is None else INDEX}) and adapter_config.json are both here; the "
            "whole model is taken. transformers would load the adapter's base instead: move adapter_config.json away "
            "if it was left behind"
        )
    if index is None:
        if len(files) > 1 and WEIGHTS not in files:
            raise CheckpointError(
                f"{path}: {len(files)} weight files and no {INDEX} that joins them: {', '.join(files)}. "
                "Save the model again with save_pretrained, or move the files that don't belong here away."
            )
        chosen = [WEIGHTS] if WEIGHTS in files else files
        if (part := _SHARD.search(chosen[0])) and int(part[1]) > 1:
            raise CheckpointError(
                f"{path}: {chosen[0]} is one of {int(part[1])} shards, whose {INDEX} is not here. Copy "
                "or download the checkpoint again."
            )
    else:
        chosen = sorted(set(index.values()))
        if WEIGHTS in files and WEIGHTS not in chosen:
            raise CheckpointError(
                f"{path}: both {WEIGHTS} and {INDEX} (with {len(chosen)} shards) are here, and may be different "
                f"models. transformers would load {WEIGHTS}. Move the one that you don't mean away."
            )
        if missing := [name for name in chosen if name not in names]:
            raise CheckpointError(f"{path}: files that {INDEX} names are missing:\n{bullet_list(missing)}")
    stray = [name for name in files if name not in chosen]
    if stray:
        warnings.append(f"{path}: not read, since transformers would not load them: {', '.join(stray)}")
    return chosen


def _refuse_other_kinds(path: str, names: Collection[str], files: list[str], index: Mapping[str, str] | None) -> None:
    """Refuse adapters, Diffusers-style folders and pickles, each with the command that converts it."""
    whole = WEIGHTS in files or index is not None
    if not whole and ("adapter_config.json" in names or files == ["adapter_model.safetensors"]):
        raise CheckpointError(
            f"{path}: a LoRA adapter, not a whole model. As an ingredient it needs adapter_config.json beside it, and "
            "its base; to make it a whole model: "
            f"PeftModel.from_pretrained(base, '{path}').merge_and_unload().save_pretrained('{path}-merged')"
        )
    if "model_index.json" in names or any(name.startswith("diffusion_pytorch_model") for name in files):
        raise CheckpointError(
            f"{path}: a Diffusers-style folder. soup reads transformers checkpoints ({WEIGHTS}, or shards "
            f"with {INDEX}). To soup one component, save it alone: "
            f'python -c "from safetensors.torch import load_file, save_file; '
            f"save_file(load_file('{path}/diffusion_pytorch_model.safetensors'), 'OUT/{WEIGHTS}')\""
        )
    if files or index is not None:
        return
    if pickles := pickles_in(names):
        cure = (
            "If you trust them, convert once, in its folder or in a download: "
            'python -c "import glob, torch; from safetensors.torch import save_file; save_file({k: '
            "v.clone().contiguous() for f in glob.glob('pytorch_model*.bin') for k, v in "
            f"torch.load(f, map_location='cpu', weights_only=True).items()}}, '{WEIGHTS}', {{'format': 'pt'}})\""
            if any(fnmatchcase(name, "pytorch_model*.bin") for name in pickles)
            else "transformers loads none of such names: save the model again by the program that wrote them, with "
            "save_pretrained"
        )
        raise CheckpointError(
            f"{path}: the weights are pickles ({', '.join(pickles[:3])}), and loading a pickle can run any code. "
            f"{cure}."
        )
    other = (
        " GGUF is made of such a checkpoint, for llama.cpp: soup those, and convert the soup."
        if any(name.lower().endswith(".gguf") for name in names)
        else ""
    )
    raise CheckpointError(
        f"{path}: no .safetensors file here. A checkpoint holds {WEIGHTS}, or shards with {INDEX}.{other}"
    )
