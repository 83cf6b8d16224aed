"""Low-rank adapters beside a model's linear layers; folded into them when the job is done, or written by themselves.

Source: LoRA, arXiv 2106.09685, section 4.1: h = W x + s B A x with s = alpha / r; rsLoRA, arXiv 2312.03732, has
s = alpha / sqrt(r); DoRA, arXiv 2402.09353, section 4.1: W' = m (W + s B A) / |W + s B A|, row by row of the outputs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from finetune.config import Lora, TrainSettings
from finetune.training.components import UnknownPartError, find_part, part_names, within
from soup.checkpoints.adapter import ADAPTER_WEIGHTS, PREFIX
from soup.checkpoints.hub import HubId
from soup.errors import FinetuneError
from soup.support.text import bullet_list, did_you_mean

__all__ = ["attach", "fold", "language_layers", "write_adapter"]

NAME = "default"  # peft's own name for the only adapter
BASE, DOWN, UP = ".base_layer.", f".lora_A.{NAME}.weight", f".lora_B.{NAME}.weight"
LENGTHS = f".lora_magnitude_vector.{NAME}.weight"  # of DoRA: m


def attach(model: PreTrainedModel, settings: TrainSettings) -> list[str]:
    """Put adapters beside the linear layers that the settings name, and give the layers' names.

    Everything else is then frozen: `choose_trained` comes after, and frees what is trained in full.

    Raises:
        FinetuneError: a target that matches no linear layer, a frozen one, or a tied one.
    """
    from peft import LoraConfig, inject_adapter_in_model

    lora = settings.lora
    assert lora is not None, "settings without lora have no adapters"
    names = language_layers(model) if lora.target is None else _matching(model, lora.target)
    _check(model, lora.target, settings.freeze, names)
    alternatives = "|".join(re.escape(name) for name in names)
    inject_adapter_in_model(LoraConfig(**_arguments(lora), target_modules=f"(?:{alternatives})"), model, NAME)
    return names


def _arguments(lora: Lora) -> dict[str, Any]:
    """Return what peft's configuration takes from the settings; it types alpha as whole, and only divides it."""
    return {
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "bias": "none",
        "use_rslora": lora.rslora,
        "use_dora": lora.dora,
    }


def fold(state: dict[str, Tensor], settings: TrainSettings) -> dict[str, Tensor]:
    """Give the model's ordinary weights, adapters added in float32, under their names without adapters."""
    if settings.lora is None:
        return state
    folded = {}
    for name, tensor in state.items():
        if name.endswith((DOWN, UP, LENGTHS)):
            continue
        layer, base, kind = name.partition(BASE)
        if base and kind == "weight":
            down, up = state[layer + DOWN].float(), state[layer + UP].float()
            tensor = tensor.float().addmm(up, down, alpha=settings.lora.scale)
            if settings.lora.dora:
                tensor *= (state[layer + LENGTHS].float() / tensor.norm(dim=1))[:, None]
        folded[f"{layer}.{kind}" if base else name] = tensor
    return folded


def write_adapter(
    state: dict[str, Tensor], trained: Iterable[str], settings: TrainSettings, start: str, out: Path
) -> None:
    """Write what was trained as a PEFT adapter on the start: factors as they are, whole modules in `settings.dtype`.

    Args:
        state: the model's weights.
        trained: the names of those that were trained.
        settings: how.
        start: the directory or Hub id that training began from.
        out: the adapter's directory.
    """
    from peft import LoraConfig

    assert settings.lora is not None, "settings without lora have no adapters"
    layers = [name.removesuffix(DOWN) for name in state if name.endswith(DOWN)]
    tensors, modules = {}, set()
    for name in trained:
        tensor = state[name].detach().to("cpu")
        if not name.endswith((DOWN, UP, LENGTHS)):
            tensor = tensor.to(getattr(torch, settings.dtype))
            modules.add(name.rpartition(".")[0])
        key = name.replace(LENGTHS, ".lora_magnitude_vector").replace(f".{NAME}.", ".").replace(BASE, ".")
        tensors[PREFIX + key] = tensor.contiguous()
    hub_id = HubId.parse(start)
    is_repository = hub_id is not None and hub_id.folder is None  # PEFT knows no folders of a base
    config = LoraConfig(
        **_arguments(settings.lora),
        target_modules=layers,
        modules_to_save=sorted(modules) or None,
        base_model_name_or_path=hub_id.name if hub_id and is_repository else start,
        revision=hub_id.revision if hub_id and is_repository else None,
        inference_mode=True,
    )
    config.save_pretrained(str(out))
    save_file(tensors, out / ADAPTER_WEIGHTS, {"format": "pt"})


def language_layers(model: PreTrainedModel) -> list[str]:
    """Give the linear layers of the language model's body: beside its word embeddings, its head left out."""
    embeddings = model.get_input_embeddings()
    name_of_embeddings = next(name for name, module in model.named_modules() if module is embeddings)
    body = name_of_embeddings.rpartition(".")[0]
    return [name for name in _linear(model) if within(name, body)]


def _linear(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]


def _matching(model: nn.Module, target: str) -> list[str]:
    return [name for name in _linear(model) if re.fullmatch(target, name)]


def _check(model: nn.Module, target: str | None, freeze: Iterable[str], names: list[str]) -> None:
    """Check the layers that adapters are put beside.

    Raises:
        FinetuneError: none, or some that are frozen or whose weight another part uses, too.
    """
    if not names:
        raise FinetuneError(_nothing(model, target))
    frozen = [find_part(model, part) for part in freeze if _known(model, part)]
    problems = [f"{name}: frozen by `freeze`" for name in names if any(within(name, part) for part in frozen)]
    uses: dict[int, int] = {}
    for _, parameter in model.named_parameters(remove_duplicate=False):
        uses[id(parameter)] = uses.get(id(parameter), 0) + 1
    tied = [name for name in names if uses[id(model.get_submodule(name).weight)] > 1]
    problems += [f"{name}: its weight is another part's, too: it would change there as well" for name in tied]
    if problems:
        raise FinetuneError(
            f"lora.target takes in {len(problems)} layers that can't be adapted:\n{bullet_list(problems)}"
        )


def _known(model: nn.Module, part: str) -> bool:
    try:
        find_part(model, part)
    except UnknownPartError:
        return False
    return True


def _nothing(model: nn.Module, target: str | None) -> str:
    """Return the error that a target matches nothing, with what is near."""
    linear = _linear(model)
    if target is None:
        return f"lora: the language model has no linear layers. Parts of the model: {', '.join(part_names(model))}."
    anywhere = [name for name in linear if re.search(target, name)]
    if anywhere:
        hint = f"It is found within {len(anywhere)} names, but has to match the whole: .*{target}.* would.\n"
        return f"lora.target {target!r} matches no linear layer. {hint}{bullet_list(anywhere, most=5)}"
    ends = {name.rpartition(".")[2] for name in linear}
    words = re.findall(r"[A-Za-z_]\w+", target) or [target]
    return (
        f"lora.target {target!r} matches no linear layer. The last word of their names:{did_you_mean(words[-1], ends)}"
        f"\nFor instance:\n{bullet_list(linear, most=5)}"
    )
