"""Low-rank adapters beside a model's linear layers, and folded into them when the job is done.

Source: LoRA, arXiv 2106.09685, section 4.1: h = W x + (alpha / r) B A x.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from finetune.config import TrainSettings
from finetune.training.components import UnknownPartError, find_part, part_names, within
from soup.errors import FinetuneError
from soup.support.text import bullet_list, did_you_mean

__all__ = ["attach", "fold", "language_layers"]

NAME = "default"  # peft's own name for the only adapter
BASE, DOWN, UP = ".base_layer.", f".lora_A.{NAME}.weight", f".lora_B.{NAME}.weight"


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
    alpha: Any = lora.alpha  # typed as whole by peft, which only divides it by the rank
    config = LoraConfig(
        r=lora.rank, lora_alpha=alpha, lora_dropout=lora.dropout, target_modules=f"(?:{alternatives})", bias="none"
    )
    inject_adapter_in_model(config, model, NAME)
    return names


def fold(state: dict[str, Tensor], settings: TrainSettings) -> dict[str, Tensor]:
    """Give the model's ordinary weights, W + (alpha / r) B A in float32, under their names without adapters."""
    if settings.lora is None:
        return state
    scale = settings.lora.alpha / settings.lora.rank
    folded = {}
    for name, tensor in state.items():
        if name.endswith((DOWN, UP)):
            continue
        layer, base, kind = name.partition(BASE)
        if base and kind == "weight":
            down, up = state[layer + DOWN].float(), state[layer + UP].float()
            tensor = tensor.float().addmm(up, down, alpha=scale)
        folded[f"{layer}.{kind}" if base else name] = tensor
    return folded


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
