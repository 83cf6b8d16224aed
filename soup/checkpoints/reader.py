"""Open a checkpoint directory lazily: headers, index and side files now, weights block by block when they are needed.

There is no table of architectures: whatever lies in the shards is the model.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import TracebackType

from soup.checkpoints.carried_files import SideFiles, find_side_files
from soup.checkpoints.dtypes import TensorSpec
from soup.checkpoints.shard import Shard
from soup.errors import CheckpointError
from soup.support.json_text import read_json
from soup.support.text import bullet_list, is_possible_path

__all__ = ["INDEX", "WEIGHTS", "Checkpoint", "choose_weights", "is_adapter", "looks_like_checkpoint", "read_index"]

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
"""The names under which transformers looks for weights: the first is preferred where both exist."""

_PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}


class Checkpoint:
    """A directory that holds one model in safetensors: one file, or shards with an index.

    As a context manager it closes its files at the end.

    Raises:
        CheckpointError: The directory is no checkpoint, or an incomplete, ambiguous or damaged one.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise CheckpointError(
                f"{self.path}: no such directory. A checkpoint is a directory with .safetensors files."
            )
        self.warnings: list[str] = []
        shards = sorted(path.name for path in self.path.glob("*.safetensors"))
        _refuse_irregular(self.path, ["config.json", "adapter_config.json", INDEX, *shards])
        index, names = self._find_weights()
        _refuse_irregular(self.path, names)  # which may lie in folders
        self.sharded = index is not None
        self.shards = tuple(Shard(self.path / name) for name in names)
        _check_index(self.path, self.shards, names, index, self.warnings)
        self.files = tuple(names)
        self._contents_when_opened = self._contents()

    def _find_weights(self) -> tuple[dict[str, str] | None, list[str]]:
        """Return the index if there is one, and the weight files to read, sorted."""
        index = read_index(self.path)
        names = {entry.name for entry in self.path.iterdir()}
        names |= {name for name in (index or {}).values() if is_possible_path(name) and (self.path / name).exists()}
        return index, choose_weights(str(self.path), names, index, self.warnings)

    @property
    def stored(self) -> Checkpoint:
        """The checkpoint whose files are this one's alone: itself, but for a model that is a base with an adapter."""
        return self

    @property
    def facts(self) -> tuple[str, ...]:
        """Lines of what decides its content beside the weights, for the digest."""
        return ()

    @property
    def watched(self) -> tuple[str, ...]:
        """The files that decide its content."""
        return self.files

    def source_of(self, name: str) -> tuple[Checkpoint, str]:
        """Return the checkpoint whose files hold the bytes of tensor `name`, and its name there."""
        return self, name

    @cached_property
    def tensors(self) -> Mapping[str, TensorSpec]:
        """The tensors' specs by name, shard by shard in file order."""
        if len(self.shards) == 1:
            return self.shards[0].header.specs  # which other checkpoints may share
        return {spec.name: spec for shard in self.shards for spec in shard}

    @cached_property
    def layout(self) -> Mapping[str, str]:
        """The file of each tensor, by its path in the directory."""
        return {spec.name: file for file, shard in zip(self.files, self.shards, strict=True) for spec in shard}

    def refuse_changed(self) -> None:
        """Refuse weights that another program changed since the checkpoint was opened; call it after reading them.

        Raises:
            CheckpointError: Size, inode or time of a file is another, or the file is gone.
        """
        if self._contents() != self._contents_when_opened:
            raise CheckpointError(
                f"{self.path}: its weights changed while they were in use. Wait until they are complete, and run the "
                "same command again."
            )

    def _contents(self) -> list[tuple[int, int, int]] | None:
        """Return what changes with a file's content, and not with a hard link to it; None where a file is gone."""
        try:
            stats = [(self.path / file).stat() for file in self.watched]
        except OSError:
            return None
        return [(stat.st_size, stat.st_ino, stat.st_mtime_ns) for stat in stats]

    @property
    def bytes(self) -> int:
        """The size of all tensors, without headers."""
        return sum(spec.bytes for spec in self.tensors.values())

    @cached_property
    def config(self) -> dict[str, object]:
        """The content of `config.json`; empty where there is none."""
        path = self.path / "config.json"
        if not path.is_file():
            return {}
        config = read_json(path, CheckpointError)
        if not isinstance(config, dict):
            raise CheckpointError(f"{path}: expected a JSON object, found {type(config).__name__}.")
        return config

    @cached_property
    def side_files(self) -> SideFiles:
        """The files that a soup takes along (config, tokenizer, processor, templates, remote code), and the others."""
        return find_side_files(self.path, self.files)

    @cached_property
    def quantised(self) -> str | None:
        """The reason why the weights are quantised, and so can't be averaged; None for ordinary numbers."""
        packed = [spec for spec in self.tensors.values() if spec.dtype.kind == "packed"]
        if packed:
            return f"{len(packed)} tensors are packed numbers, the first {packed[0].name}: {packed[0]}"
        suffixes = (".qweight", ".qzeros", ".weight_packed", ".SCB", ".quant_state.bitsandbytes__nf4", ".absmax")
        marks = [name for name in self.tensors if name.endswith(suffixes)]
        if marks:
            return f"{len(marks)} tensors belong to a quantisation, the first {marks[0]}"
        if self.quantisation is not None and any(map(_may_be_codes, self.tensors.values())):
            return f"config.json has a quantization_config ({self.quantisation})"
        return None

    @cached_property
    def quantisation(self) -> str | None:
        """The method of the quantisation that `config.json` tells of, be it a stale one; None where it has none."""
        for config in [self.config, *(part for part in self.config.values() if isinstance(part, dict))]:
            quantisation = config.get("quantization_config")
            if isinstance(quantisation, dict) and quantisation:
                return str(quantisation.get("quant_method", "unnamed"))
        return None

    def read_into(self, name: str, start: int, view: memoryview) -> None:
        """Fill `view` with the bytes of tensor `name` from byte `start` on; see `Shard.read_into`."""
        self._shard_of(name).read_into(name, start, view)

    def read_cached(self, name: str, start: int, view: memoryview) -> int:
        """Fill `view` as far as the page cache reaches; see `Shard.read_cached`."""
        return self._shard_of(name).read_cached(name, start, view)

    def expect(self, name: str, start: int, count: int) -> None:
        """Tell the operating system that `count` bytes of tensor `name` from byte `start` on are read soon."""
        self._shard_of(name).expect(name, start, count)

    def _shard_of(self, name: str) -> Shard:
        return next(shard for shard in self.shards if name in shard.header.tensors)

    def metadata(self, file: str) -> Mapping[str, str]:
        """Give the free metadata in the header of one of its files."""
        return self.shards[self.files.index(file)].header.metadata

    def close(self) -> None:
        """Close its files; reading opens them again."""
        for shard in self.shards:
            shard.close()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Checkpoint({str(self.path)!r})"


def _may_be_codes(spec: TensorSpec) -> bool:
    """Whether a tensor may hold codes of quantised weights; positions and counters are int64, masks bool."""
    return spec.dtype.kind == "integer" and spec.dtype.name not in ("bool", "int64") and spec.elements > 1


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


def _refuse_irregular(path: Path, names: Iterable[str]) -> None:
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
    return weight_map


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
    pickles = sorted(name for name in names if PurePosixPath(name).suffix in _PICKLES and "/" not in name)
    if pickles:
        raise CheckpointError(
            f"{path}: the weights are pickles ({', '.join(pickles[:3])}), and loading a pickle can run any code. "
            f'If you trust them, convert once: python -c "from transformers import AutoModelForImageTextToText as M; '
            f"M.from_pretrained('{path}', dtype='auto').save_pretrained('{path}-safetensors')\" "
            "(and copy the tokenizer and processor files beside the result)."
        )
    raise CheckpointError(f"{path}: no .safetensors file here. A checkpoint holds {WEIGHTS}, or shards with {INDEX}.")


def _check_index(
    path: Path, shards: tuple[Shard, ...], names: list[str], index: dict[str, str] | None, warnings: list[str]
) -> None:
    """Make sure that each tensor lies in one shard, and that the index and the headers agree."""
    files: dict[str, str] = {}
    twice: list[str] = []
    for file, shard in zip(names, shards, strict=True):
        for spec in shard:
            if files.setdefault(spec.name, file) != file:
                twice.append(f"{spec.name}: in {files[spec.name]} and in {file}")
    if twice:
        raise CheckpointError(f"{path}: tensors that lie in two shards:\n{bullet_list(twice)}")
    if index is not None:
        lost = [
            f"{name}: expected in {file}, found {f'in {files[name]}' if name in files else 'nowhere'}"
            for name, file in index.items()
            if files.get(name) != file
        ]
        if lost:
            raise CheckpointError(f"{path}: {INDEX} names tensors that are not there:\n{bullet_list(lost)}")
        unnamed = [name for name in files if name not in index]
        if unnamed:
            warnings.append(
                f"{path}: {len(unnamed)} tensors that {INDEX} does not name are merged too, e.g. {unnamed[0]}"
            )
