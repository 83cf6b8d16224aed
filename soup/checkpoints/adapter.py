"""A PEFT LoRA adapter as it lies on the disk: its config and its factors. What it makes of a base: `adapted.py`."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from functools import cached_property

from soup.checkpoints.reader import Checkpoint
from soup.errors import CheckpointError
from soup.support.json_text import read_json_object
from soup.support.text import bullet_list

__all__ = ["ADAPTER_CONFIG", "ADAPTER_WEIGHTS", "PREFIX", "Adapter", "missing_weights"]

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"

PREFIX = "base_model.model."
"""What PEFT puts before the names of the modules that it changes."""

_PLAIN_STARTS = (None, True, False, "gaussian", "eva", "orthogonal", "mica")
"""Values of `init_lora_weights` that leave the base as it is; the others take the first product out of it."""

_REFUSED = {  # keys of the config that make the product B A another thing, or not all there is
    "layer_replication": "replicated layers",
    "use_qalora": "QA-LoRA",
    "use_bdlora": "BD-LoRA",
    "alora_invocation_tokens": "activated LoRA, which is no change of the weights",
    "arrow_config": "Arrow, which chooses adapters token by token",
    "kasa_config": "KaSA",
    "monteclora_config": "MonteCLoRA",
    "megatron_config": "Megatron",
}

_NO_WEIGHTS = (
    "PROMPT_TUNING",
    "MULTITASK_PROMPT_TUNING",
    "P_TUNING",
    "PREFIX_TUNING",
    "ADAPTION_PROMPT",
    "CPT",
    "CARTRIDGE",
    "POLY",
    "XLORA",
    "LILY",
    "SHADOW",
)
"""Kinds that add to the input, or choose for each token or task, so that PEFT can't merge them either."""

_NEVER_MERGED = ("alora_invocation_tokens", "arrow_config", "use_qalora")
"""Keys of the config with which PEFT can't merge LoRA either."""

_FACTS = ("lora_alpha", "alpha_pattern", "use_rslora", "use_dora", "fan_in_fan_out")
"""The keys that decide, beside the tensors, what the adapter adds to its base."""

_IDLE = (  # they say how it was trained, or where it goes; the last line are other tools' and older versions'
    *("base_model_name_or_path", "revision", "auto_mapping", "peft_type", "peft_version", "task_type"),
    *("inference_mode", "runtime_config", "target_modules", "exclude_modules", "layers_to_transform"),
    *("layers_pattern", "lora_dropout", "init_lora_weights", "megatron_core", "qalora_group_size"),
    *("loftq_config", "eva_config", "corda_config", "lora_ga_config", "velora_config"),
    *("lora_dtype", "lorap_lr_ratio", "lorap_emb_lr", "parent_library", "merge_weights"),
)

_KINDS: dict[str, tuple[type, str]] = {  # what PEFT takes under the keys that decide
    **dict.fromkeys(("alpha_pattern", "rank_pattern"), (dict, "an object, from modules to numbers")),
    **dict.fromkeys(
        ("use_rslora", "use_dora", "lora_bias", "fan_in_fan_out", "ensure_weight_tying"), (bool, "true or false")
    ),
    **dict.fromkeys(("modules_to_save", "target_parameters"), (list, "a list of names")),
}


class Adapter(Checkpoint):
    """A directory with `adapter_config.json` and `adapter_model.safetensors`; its tensors are the factors.

    Raises:
        CheckpointError: Unreadable, no LoRA, or a kind of LoRA that is more than a low-rank change of the base.
    """

    def _find_weights(self) -> tuple[None, list[str]]:
        if not (self.path / ADAPTER_WEIGHTS).is_file():
            raise missing_weights(str(self.path), [entry.name for entry in self.path.iterdir()])
        _refuse_unsupported(self)
        if unknown := sorted(key for key in self.settings.keys() - _known_settings() if self.settings[key]):
            self.warnings.append(
                f"{self.path / ADAPTER_CONFIG} has {', '.join(unknown)}, of which soup knows nothing: what the adapter "
                "adds is taken to be as without. Hold the soup against PEFT's merge_and_unload"
            )
        if stray := sorted(path.name for path in self.path.glob("*.safetensors") if path.name != ADAPTER_WEIGHTS):
            self.warnings.append(f"{self.path}: not read, since PEFT would not load them: {', '.join(stray)}")
        return None, [ADAPTER_WEIGHTS]

    @cached_property
    def settings(self) -> dict[str, object]:
        """The content of `adapter_config.json`."""
        return read_json_object(self.path / ADAPTER_CONFIG, CheckpointError)

    @property
    def watched(self) -> tuple[str, ...]:
        """The files that decide its content."""
        return (*self.files, ADAPTER_CONFIG)

    @property
    def facts(self) -> tuple[str, ...]:
        """The settings that decide, beside the factors, what it adds to its base."""
        later = [key for key in ("trainable_token_indices", "target_parameters") if self.settings.get(key)]
        if self.settings.get("bias") == "all" and self.settings.get("modules_to_save"):
            later.append("bias")  # version 0.1 added others, whose digest and scores are not these
        keys = [*_FACTS, *later]
        return tuple(f"{key}\0{json.dumps(self.settings.get(key), sort_keys=True)}\n" for key in keys)

    @property
    def base_location(self) -> str | None:
        """The directory or Hub id of the base that it was trained on, as its config says; None where it does not."""
        name, revision = self.settings.get("base_model_name_or_path"), self.settings.get("revision")
        if not isinstance(name, str) or not name.strip():
            return None
        pinned = isinstance(revision, str) and revision and not name.startswith(("/", "."))
        return f"{name}@{revision}" if pinned and "@" not in name else name

    @property
    def is_transposed(self) -> bool:
        """Whether its config says that weights are [in, out], as GPT-2's are."""
        return self.is_set("fan_in_fan_out")

    def is_set(self, setting: str) -> bool:
        """Whether its config has a setting that is true."""
        return self.settings.get(setting) is True

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks of its factors, each once, sorted."""
        shapes = [spec.shape for name, spec in self.tensors.items() if re.search(r"\.lora_(?:embedding_)?A\b", name)]
        return tuple(sorted({shape[0] for shape in shapes if shape}))

    def scale(self, module: str, rank: int) -> float:
        """Return the number by which the product of a module's factors is multiplied.

        Args:
            module: The module's name, without PEFT's prefix.
            rank: The rank of its factors.

        Raises:
            CheckpointError: The config's alpha is no number.
        """
        alpha = self._of_module("alpha_pattern", module, self.settings.get("lora_alpha", 8))
        if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
            raise CheckpointError(
                f"{self.path / ADAPTER_CONFIG}: lora_alpha or alpha_pattern: expected a number for {module}, found "
                f"{alpha!r:.80}."
            )
        stated = self._of_module("rank_pattern", module, self.settings.get("r"))
        if type(stated) is int and stated != rank:
            self.other_ranks.setdefault(f"rank {rank} where {ADAPTER_CONFIG} says {stated}", module)
        return alpha / (math.sqrt(rank) if self.is_set("use_rslora") else rank)

    @cached_property
    def other_ranks(self) -> dict[str, str]:
        """Ranks of factors that are not what the config says, each with a module that has it; `scale` finds them."""
        return {}

    def tokens_of(self, module: str) -> tuple[int, ...]:
        """Return the tokens whose rows of a module are trained, as PEFT reads `trainable_token_indices`.

        Raises:
            CheckpointError: The config has no list of tokens for the module.
        """
        indices = self.settings.get("trainable_token_indices")
        if isinstance(indices, Mapping):  # by the end of a module's name
            names = [name for name in indices if module == name or module.endswith(f".{name}")]
            indices = indices[names[0]] if len(names) == 1 else None
        if not isinstance(indices, list) or not all(type(index) is int and index >= 0 for index in indices):
            raise CheckpointError(
                f"{self.path / ADAPTER_CONFIG}: trainable_token_indices: expected a list of tokens for {module}, found "
                f"{indices!r:.80}."
            )
        return tuple(indices)

    def _of_module(self, key: str, module: str, default: object) -> object:
        """Look a module up in a pattern of the config: the first regular expression that its name ends with."""
        patterns = self.settings.get(key)
        if not isinstance(patterns, Mapping):
            return default
        for pattern, value in patterns.items():
            try:
                if re.match(rf"(.*\.)?({pattern})$", module):
                    return value
            except re.error as error:
                raise CheckpointError(
                    f"{self.path / ADAPTER_CONFIG}: {key}: {pattern!r:.80} is no regular expression ({error})."
                ) from error
        return default


def _known_settings() -> set[str]:
    heard = {"r", "lora_alpha", "rank_pattern", "bias", "trainable_token_indices"}
    return {*heard, *_FACTS, *_REFUSED, *_KINDS, *_IDLE}


def missing_weights(path: str, names: Collection[str]) -> CheckpointError:
    """Make the error of an adapter without weights in safetensors.

    Args:
        path: Its directory or Hub id.
        names: The files that it has.
    """
    pickle = (
        " adapter_model.bin is a pickle, and loading one can run any code. If you trust it, load the adapter with PEFT "
        "and save it again: PeftModel.from_pretrained(base, ADAPTER).save_pretrained(OUT)"
    )
    advice = pickle if "adapter_model.bin" in names else " Copy or download it again."
    return CheckpointError(f"{path}: no {ADAPTER_WEIGHTS} beside {ADAPTER_CONFIG}.{advice}")


def _refuse_unsupported(adapter: Adapter) -> None:
    settings = adapter.settings
    kind = settings.get("peft_type")
    why = [f"peft_type {kind}, not LORA"] if kind != "LORA" else []
    why += [f"{key}: {text}" for key, text in _REFUSED.items() if settings.get(key)]
    if ill := [
        f"{key}: expected {text}, found {settings[key]!r:.80}"
        for key, (expected, text) in _KINDS.items()
        if settings.get(key) is not None and type(settings[key]) is not expected
    ]:
        raise CheckpointError(
            f"{adapter.path / ADAPTER_CONFIG}: values that PEFT never writes:\n{bullet_list(ill)}\nCorrect them: they "
            "decide what the adapter adds to its base."
        )
    start = settings.get("init_lora_weights", True)
    if start not in _PLAIN_STARTS:
        why.append(
            f"init_lora_weights {start!r:.40}: its factors belong to a base that was changed when training began"
        )
    if not why:
        return
    text = f"{adapter.path}: an adapter that soup can't add to its base block by block:\n{bullet_list(why)}\n"
    if kind in _NO_WEIGHTS:
        raise CheckpointError(f"{text}It changes no weights, so that no model by itself holds it: leave it out.")
    if any(settings.get(key) for key in _NEVER_MERGED):
        raise CheckpointError(f"{text}PEFT can't merge it either, so that no model by itself holds it: leave it out.")
    if start not in _PLAIN_STARTS:  # PEFT draws the start again when it loads one: its merge may be another model
        raise CheckpointError(
            f"{text}Where it was trained, with the model at hand, PEFT converts it: model.save_pretrained(OUT, "
            "path_initial_model_for_weight_conversion=START), of the adapter as it was saved before the first step; or "
            "makes it a whole model, which is an ingredient too: model.merge_and_unload().save_pretrained(OUT)."
        )
    raise CheckpointError(
        f"{text}Make it a whole model, which is an ingredient too: PeftModel.from_pretrained(base, '{adapter.path}')"
        f".merge_and_unload().save_pretrained('{adapter.path}-merged')"
    )
