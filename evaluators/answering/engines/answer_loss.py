"""How likely a model finds an answer that it is given word by word: teacher forcing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from soup.errors import EvaluatorError
from soup.support.options import option_name

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LooksAheadError", "answer_logits", "loss_of_answer", "refuse_looking_ahead"]


class LooksAheadError(EvaluatorError):
    """The model reads an answer before it is asked for it, so that no loss of its says anything."""


def loss_of_answer(module: Any, inputs: Mapping[str, Tensor], answer: Tensor) -> float:
    """Return the mean over an answer's tokens of their negative log likelihood, in nats.

    Args:
        module: A model of transformers.
        inputs: Its inputs for one prompt.
        answer: The answer's tokens, [1, tokens].
    """
    import torch

    with torch.inference_mode():
        logits = answer_logits(module, inputs, answer)
        return float(torch.nn.functional.cross_entropy(logits.float(), answer[0]))


def refuse_looking_ahead(module: Any, inputs: Mapping[str, Tensor], answer: Tensor) -> None:
    """Refuse a model that reads the answer before it is asked for it, as one that reads prompts both ways does.

    Raises:
        LooksAheadError: what it expects first depends on the answer.
    """
    import torch

    other = (answer + 1) % module.config.get_text_config().vocab_size
    with torch.inference_mode():
        first, second = (answer_logits(module, inputs, tokens)[0].float() for tokens in (answer, other))
    if not torch.allclose(first, second, rtol=1e-2, atol=1e-2):
        raise LooksAheadError(
            f"{type(module).__name__} reads the answer before it is asked for it, so that its loss says nothing. Judge "
            f"it with {option_name('loss', 'no-loss')}; a filter by perplexity needs another model."
        )


def answer_logits(module: Any, inputs: Mapping[str, Tensor], answer: Tensor) -> Tensor:
    """Return what the model expects at each token of the answer: [tokens, vocabulary]."""
    if module.config.is_encoder_decoder:
        logits: Tensor = module(**inputs, labels=answer).logits[0]
        return logits
    logits = module(**_extended(inputs, answer), use_cache=False).logits[0]
    return logits[-answer.shape[1] - 1 : -1]


def _extended(inputs: Mapping[str, Tensor], answer: Tensor) -> dict[str, Tensor]:
    """Put the answer behind the prompt; what else is said of each token says that those of the answer are text."""
    import torch

    shape = inputs["input_ids"].shape
    tails = {"input_ids": answer, "attention_mask": torch.ones_like(answer)}
    return {
        name: torch.cat([values, tails.get(name, torch.zeros_like(answer)).to(values.dtype)], dim=1)
        if values.shape == shape
        else values
        for name, values in inputs.items()
    }
