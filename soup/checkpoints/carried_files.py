"""Which files beside the weights go into a soup: those that transformers knows, and nothing else that lies there.

Configuration, generation settings, tokenizer, processor, chat templates, remote code, licences. What training left
there (optimizer states, logs, predictions, plots) is not the model's, and may be larger than the model.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from soup.errors import CheckpointError
from soup.support.json_text import read_text
from soup.support.open_files import real_path
from soup.support.text import format_bytes

__all__ = [
    "CODE",
    "MAX_SIDE_FILE_BYTES",
    "PROCESSOR",
    "PROCESSOR_CONFIG",
    "TEMPLATE",
    "TOKENIZER",
    "TOKENIZER_CONFIG",
    "VOCABULARY",
    "SideFiles",
    "find_side_files",
    "is_side_file",
    "matches",
    "read_side_file",
]

TOKENIZER_CONFIG, PROCESSOR_CONFIG = "tokenizer_config.json", "processor_config.json"

MAX_SIDE_FILE_BYTES = 100_000_000
"""The largest tokenizers have some 35 MB."""

VOCABULARY = (
    *("added_tokens.json", "vocab*", "*_vocab.json", "merges*", "*.model", "*.tiktoken", "*.spm", "*.bpe", "bpe.codes"),
    *("tekken.json", "dict.txt", "encoder.json", "emoji.json"),
)
TOKENIZER = ("tokenizer*.json", "tokenization*.json", "special_tokens_map.json", "normalizer.json", *VOCABULARY)
PROCESSOR = (
    PROCESSOR_CONFIG,
    "preprocessor_config.json",
    "*_preprocessor_config.json",
    "*_processor_config.json",
)
TEMPLATE = ("chat_template.json", "chat_template.jinja", "additional_chat_templates/*.jinja")
CODE = ("*.py", "*/*.py", "*/*/*.py")
"""Patterns of the files of each kind, by their paths in the checkpoint."""

_OTHERS = ("config.json", "generation_config.json", "*.py", "*.jinja")
_LICENCES = ("licen[sc]e*", "notice*", "copying*", "use_policy*", "third_party*")
_EXPECTED = (  # what saving and training always leave: left out without a word
    *("readme.md", "finetune.json", "recipe.yaml", "*.index.json", "*_results.json", "trainer_state.json"),
    *("trainer_log.jsonl", "training_args*", "events.out.tfevents*", "optimizer*", "scheduler*", "rng_state*"),
    *("*.log", "*.lock", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.safetensors", "*.h5", "*.msgpack"),
    *("*.onnx", "*.gguf", "*.ot", "*.tflite", "*.npz"),
)
_NOT_ENTERED = ("checkpoint-", "global_step", "runs", "logs", "__pycache__", "wandb", "onnx", "openvino")


@dataclass(frozen=True)
class SideFiles:
    """The files beside the weights, by their paths in the directory.

    Args:
        carried: Those that go into every soup.
        left_out: Those that do not.
        surprising: Those of `left_out` that a user may miss, each with the reason.
        refused: Of a known kind, but links out of the checkpoint, too large, or no regular files.
    """

    carried: tuple[str, ...]
    left_out: tuple[str, ...]
    surprising: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


def find_side_files(folder: Path, weights: Sequence[str]) -> SideFiles:
    """Look at what lies in a checkpoint, from names and sizes alone.

    Args:
        folder: The checkpoint.
        weights: Its weight files, which are no side files.
    """
    carried, left_out, surprising, refused = [], [], [], []
    for path in _walk(folder, folder):
        name = path.relative_to(folder).as_posix()
        reason = _reason_to_leave(path, name, folder)
        if reason is None:
            carried.append(name)
        elif name not in weights:
            left_out.append(name)
            if reason:
                refused.append(name)
            if reason or not matches(path.name.lower(), _EXPECTED):
                surprising.append(f"{name} ({reason})" if reason else name)
    return SideFiles(tuple(carried), tuple(left_out), tuple(surprising), tuple(refused))


def is_side_file(name: str) -> bool:
    """Whether a file of that path in a checkpoint is one that goes into a soup, as far as its name tells."""
    *folders, _ = name.split("/")
    return _is_known(name) and not any(folder.startswith((".", *_NOT_ENTERED)) for folder in folders)


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a file's path in the checkpoint matches one of the patterns, in which `*` matches no slash."""
    return any(fnmatchcase(name, pattern) and name.count("/") == pattern.count("/") for pattern in patterns)


def read_side_file(path: Path) -> bytes:
    """Return the content of a carried file.

    Raises:
        CheckpointError: It can't be read, or is larger than any such file.
    """
    return read_text(path, CheckpointError, MAX_SIDE_FILE_BYTES)


def _reason_to_leave(path: Path, name: str, folder: Path) -> str | None:
    """Tell why a file does not go into a soup: in words, or empty where it is just unknown; None for one that goes."""
    if not _is_known(name):
        return ""
    if path.is_symlink() and not _is_own(path, folder):
        return "a link out of the checkpoint"
    if not path.is_file():
        return "no regular file"
    size = path.stat().st_size
    if size <= MAX_SIDE_FILE_BYTES:
        return None
    return f"{format_bytes(size)}, over the limit of {format_bytes(MAX_SIDE_FILE_BYTES)}"


def _is_known(name: str) -> bool:
    known = (*TOKENIZER, *PROCESSOR, *TEMPLATE, *_OTHERS)
    return name.endswith(".py") or matches(name, known) or matches(name.lower(), _LICENCES)


def _is_own(path: Path, folder: Path) -> bool:
    """Whether a link leads to a file of the checkpoint, or of the Hub cache's blobs: snapshots/REVISION -> blobs."""
    home, target = real_path(folder), real_path(path)
    caches = [parent.parent for parent in home.parents if parent.name == "snapshots"]  # home may lie within a snapshot
    return target.is_relative_to(home) or any(target.parent == cache / "blobs" for cache in caches)


def _walk(folder: Path, top: Path) -> Iterator[Path]:
    """Yield all that is no folder below a checkpoint, sorted; not what is hidden, nor what training's folders hold.

    A folder that is a link, can't be read, or stands in place of a known file is yielded itself.
    """
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        is_open = entry.is_dir() and not entry.is_symlink() and os.access(entry, os.R_OK | os.X_OK)
        if not is_open or _is_known(entry.relative_to(top).as_posix()):
            yield entry
        elif not entry.name.startswith(_NOT_ENTERED):
            yield from _walk(entry, top)
