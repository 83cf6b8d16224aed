"""Open a checkpoint directory lazily: headers, index and side files now, weights block by block when they are needed.

There is no table of architectures: whatever lies in the shards is the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

from soup.checkpoints.carried_files import SideFiles, find_side_files
from soup.checkpoints.dtypes import TensorSpec
from soup.checkpoints.shard import FilePlace, Shard
from soup.checkpoints.weight_files import INDEX, choose_weights, no_directory, read_index, refuse_irregular_files
from soup.errors import CheckpointError
from soup.support.json_text import read_json
from soup.support.open_files import read_errors
from soup.support.text import bullet_list, is_possible_path, pluralize

__all__ = ["Checkpoint", "quantisations_in"]

_QUANTISATIONS = ("quantization_config", "compression_config", "quantization")
"""The keys of transformers, of older versions of compressed-tensors, and of MLX."""
_QUANTISED = (
    *(".qweight", ".qzeros", ".weight_packed", ".W_q", ".SCB", ".quant_state.bitsandbytes__nf4", ".absmax"),
    *("._data", "_qdata"),
)
"""How names end that GPTQ, AWQ, compressed-tensors, HQQ and bitsandbytes give, and then quanto and torchao."""


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
                f"{self.path}: {no_directory(self.path)}. A checkpoint is a directory with .safetensors files."
            )
        self.warnings: list[str] = []
        shards = sorted(path.name for path in self.path.glob("*.safetensors"))
        refuse_irregular_files(self.path, ["config.json", "adapter_config.json", INDEX, *shards])
        with read_errors(self.path, CheckpointError):
            index, names = self._find_weights()
        refuse_irregular_files(self.path, names)  # which may lie in folders
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
            return f"{pluralize(len(packed), 'tensor')} of packed numbers, the first {packed[0].name}: {packed[0]}"
        marks = [name for name in self.tensors if name.endswith(_QUANTISED)]
        if marks:
            return f"{pluralize(len(marks), 'tensor')} of a quantisation, the first {marks[0]}"
        codes = [spec for spec in self.tensors.values() if _may_be_codes(spec)]
        if self.quantisation is not None and codes:
            return f"config.json has a {self.quantisation}"
        if weights := [spec for spec in codes if spec.name.endswith(".weight") and len(spec.shape) > 1]:
            return f"{pluralize(len(weights), 'weight')} of whole numbers, the first {weights[0].name}: {weights[0]}"
        return None

    @cached_property
    def quantisation(self) -> str | None:
        """The key, with its method, of the quantisation that `config.json` tells of, be it a stale one; or None."""
        for config, key in quantisations_in(self.config):
            return f"{key} ({config[key].get('quant_method', 'unnamed')})"
        return None

    def read_into(self, name: str, start: int, view: memoryview) -> None:
        """Fill `view` with the bytes of tensor `name` from byte `start` on; see `Shard.read_into`."""
        self._shard_of(name).read_into(name, start, view)

    def place_of(self, name: str) -> FilePlace:
        """Return where tensor `name` begins, and in which file."""
        return self._shard_of(name).place_of(name)

    def expect(self, name: str, start: int, count: int) -> None:
        """Tell the operating system that `count` bytes of tensor `name` from byte `start` on are read soon."""
        self._shard_of(name).expect(name, start, count)

    def _shard_of(self, name: str) -> Shard:
        return self._shards_by_tensor[name]

    @cached_property
    def _shards_by_tensor(self) -> dict[str, Shard]:
        return {name: shard for shard in reversed(self.shards) for name in shard.header.tensors}

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


def quantisations_in(config: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield each quantisation of a `config.json`: the config, or the one within it, that has it, and the key there."""
    for part in [config, *(value for value in config.values() if isinstance(value, dict))]:
        for key in _QUANTISATIONS:
            value = part.get(key)
            if isinstance(value, dict) and value and (key == _QUANTISATIONS[0] or {"quant_method", "bits"} & {*value}):
                yield part, key


def _may_be_codes(spec: TensorSpec) -> bool:
    """Whether a tensor may hold codes of quantised weights; positions and counters are int64, masks bool."""
    return spec.dtype.kind == "integer" and spec.dtype.name not in ("bool", "int64") and spec.elements > 1


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
                f"{path}: {INDEX} does not name {pluralize(len(unnamed), 'tensor')}, merged all the same, e.g. "
                f"{unnamed[0]}"
            )
