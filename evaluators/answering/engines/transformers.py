"""`--model auto`: any image-text-to-text checkpoint of transformers, our POINTS family among them.

The checkpoint's own processor makes the prompt; decoding is greedy. Weights keep the checkpoint's dtype, so that what
is scored is what ships.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from evaluators.answering.engines.answer_loss import loss_of_answer, refuse_looking_ahead
from evaluators.answering.prompts import Prompter, TextPrompter, image_backend
from soup.errors import EvaluatorError
from soup.evaluation.api import Prompt
from soup.evaluation.settings import EvalSettings
from soup.hf.progress_bars import without_progress_bars
from soup.hf.saved_form import inner_model
from soup.support.devices import torch_device
from soup.support.extras import install_line
from soup.support.json_text import read_json_object
from soup.support.options import option_name
from soup.support.text import bullet_list, pluralize

__all__ = ["MAX_NEW_TOKENS", "LanguageModel", "TransformersModel", "check_prompts", "few_threads", "identity"]

MAX_NEW_TOKENS = 2048  # as POINTS is evaluated; an answer ends at its end-of-sequence token, long before
SAMPLING = ("temperature", "top_p", "top_k", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")
LENGTHS = ("max_length", "max_new_tokens", "min_length", "min_new_tokens")
TINY_PARAMETERS = 30_000_000


def identity(settings: EvalSettings) -> Mapping[str, object]:
    """Return what can change an answer besides the checkpoint. The batch size is no part of it: answers stand alone.

    On a GPU they nearly do: its sums depend on the shape of a batch, and so may the last bits of a logit. Which
    questions go together is known there, but for those that are dealt out to workers.
    """
    device = settings.device or torch_device()
    by_chance = {"batches": "as workers were free"} if settings.dealt and device != "cpu" else {}
    return {
        "transformers": str(_transformers().__version__),
        "decoding": "greedy",
        "dtype": "the checkpoint's",
        "max_new_tokens": MAX_NEW_TOKENS,
        "device": device,
        "images": image_backend(),
        "trust_remote_code": settings.trust_remote_code,
        **by_chance,
    }


def check_prompts(directory: Path, trust_remote_code: bool) -> None:
    """Make a prompt with a checkpoint's processor, without its weights.

    Raises:
        EvaluatorError: there is no processor or template, or the template fails or leaves the question out.
    """
    _transformers()
    _register_ours(directory)
    Prompter(directory, trust_remote_code=trust_remote_code).check()


class TransformersModel:
    """A checkpoint directory that answers, through its processor, its chat template and greedy decoding.

    `module` is the torch module, in evaluation mode; weights may be streamed into it between answers.

    Args:
        directory: The checkpoint, complete.
        max_new_tokens: How long an answer may become at most.
        trust_remote_code: Whether code that comes with the checkpoint may run.
        device: Where it runs; by default on a GPU if there is one.

    Raises:
        EvaluatorError: the checkpoint is no image-text-to-text model, lacks weights, or has no processor or prompt.
    """

    auto_class: ClassVar[str] = "AutoModelForImageTextToText"
    prompter: ClassVar[Callable[..., Prompter | TextPrompter]] = Prompter

    def __init__(
        self,
        directory: Path | str,
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
        trust_remote_code: bool = False,
        device: str | None = None,
    ) -> None:
        transformers = _transformers()
        _register_ours(Path(directory))
        prompter = self.prompter(directory, trust_remote_code=trust_remote_code)
        with without_progress_bars():
            module, loading_info = getattr(transformers, self.auto_class).from_pretrained(
                directory,
                dtype="auto",
                output_loading_info=True,
                trust_remote_code=trust_remote_code,
                local_files_only=True,
                use_safetensors=True,
            )
        _refuse_incomplete(directory, loading_info)
        self._hold(module.to(device or torch_device()).eval(), prompter, max_new_tokens)

    @classmethod
    def check(cls, directory: Path, *, trust_remote_code: bool) -> None:
        """Look for what would stop it, without its weights.

        Raises:
            EvaluatorError: no processor or tokenizer, or no prompt.
        """
        cls.prompter(directory, trust_remote_code=trust_remote_code)

    @classmethod
    def around(cls, module: Any, processor: Any) -> TransformersModel:
        """Return one for a model that is loaded already; its settings of generation become those of judging."""
        model = cls.__new__(cls)
        model._hold(module, Prompter.around(processor), MAX_NEW_TOKENS)
        return model

    def _hold(self, module: Any, prompter: Prompter | TextPrompter, max_new_tokens: int) -> None:
        self.module, self._prompter = module, prompter
        self.tokenizer = self._prompter.tokenizer
        self._decoding = _greedy(self.module, self.tokenizer)
        for part in (self.module, inner_model(self.module)):  # or generate would fill what is neutralised from it again
            part.generation_config = self._decoding
        self.max_new_tokens = max_new_tokens
        self._is_causal = False  # until it was tried

    def answer(self, prompts: list[Prompt], /) -> list[str]:
        """Answer one batch of prompts, each with the same number of images."""
        import torch

        with torch.inference_mode(), few_threads(self.module):
            inputs = self._prompter(prompts).to(self.module.device, dtype=self.module.dtype)
            limits = [self._token_limit(length) for length in inputs["attention_mask"].sum(1).tolist()]
            decoding = copy.copy(self._decoding)  # its length beside it, as an argument, is warned about
            decoding.max_new_tokens = max(limits)
            tokens = self.module.generate(**inputs, generation_config=decoding)
        # An encoder-decoder gives nothing but what was added to the prompt.
        start = 0 if self.module.config.is_encoder_decoder else inputs["input_ids"].shape[1]
        added = [row[start : start + limit] for row, limit in zip(tokens, limits, strict=True)]
        return [text.strip() for text in self.tokenizer.batch_decode(added, skip_special_tokens=True)]

    def loss(self, prompt: Prompt, answer: str, /) -> float:
        """Return how unlikely an answer is: the mean over its tokens of their negative log likelihood, in nats.

        Raises:
            EvaluatorError: the answer is empty, or the model reads it before it is asked for it.
        """
        return self.loss_and_tokens(prompt, answer)[0]

    def loss_and_tokens(self, prompt: Prompt, answer: str, /) -> tuple[float, int]:
        """Return the loss of an answer (see `loss`), and its number of tokens.

        Raises:
            EvaluatorError: see `loss`; or prompt and answer are longer than the model has positions for.
        """
        tokens = self.tokenizer(answer, add_special_tokens=False, return_tensors="pt")["input_ids"]
        if not (count := tokens.shape[1]):
            raise EvaluatorError(f"A reference answer without a token has no loss: {answer!r:.80}.")
        with few_threads(self.module):
            inputs = self._prompter([prompt]).to(self.module.device, dtype=self.module.dtype)
            self._refuse_too_long(inputs["input_ids"].shape[1], count)
            tokens = tokens.to(self.module.device)
            if not self._is_causal:
                refuse_looking_ahead(self.module, inputs, tokens)
                self._is_causal = True
            return loss_of_answer(self.module, inputs, tokens), count

    def _refuse_too_long(self, prompt_length: int, answer_length: int) -> None:
        positions = getattr(self.module.config.get_text_config(), "max_position_embeddings", None)
        length = prompt_length if self.module.config.is_encoder_decoder else prompt_length + answer_length
        if positions is not None and length > positions:
            raise EvaluatorError(f"{length} tokens with the answer, more than the model's {positions} positions.")

    def _token_limit(self, prompt_length: int) -> int:
        """Return how many tokens an answer may have: what the model has positions for, whatever its neighbours."""
        positions = getattr(self.module.config.get_text_config(), "max_position_embeddings", None)
        return self.max_new_tokens if positions is None else max(1, min(self.max_new_tokens, positions - prompt_length))


class LanguageModel(TransformersModel):
    """A checkpoint of a language model, which answers prompts of text alone."""

    auto_class = "AutoModelForCausalLM"
    prompter = TextPrompter

    @classmethod
    def check(cls, directory: Path, *, trust_remote_code: bool) -> None:
        """Look for what would stop it, without its weights: another kind of model, too."""
        super().check(directory, trust_remote_code=trust_remote_code)
        transformers = _transformers()
        try:
            config = transformers.AutoConfig.from_pretrained(
                directory, trust_remote_code=trust_remote_code, local_files_only=True
            )
        except (OSError, ValueError, KeyError) as cause:
            trust = option_name("trust_remote_code", "trust-code")
            raise EvaluatorError(
                f"{directory}: its config can't be opened: {cause}. Code that comes with it runs with {trust} alone."
            ) from cause
        is_own = cls.auto_class in (getattr(config, "auto_map", None) or {})
        if not is_own and type(config) not in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
            raise EvaluatorError(
                f"{directory}: expected a language model, found the model_type {config.model_type}, which "
                f"transformers' {cls.auto_class} does not load."
            )


def _transformers() -> Any:
    try:
        return importlib.import_module("transformers")
    except ImportError as cause:
        raise EvaluatorError(
            f"{option_name('model')} auto needs transformers, not importable here ({cause}): "
            f"{install_line('transformers')}."
        ) from cause


def _register_ours(directory: Path) -> None:
    """Make transformers know our POINTS family, where the checkpoint is of it."""
    config = read_json_object(directory / "config.json", EvaluatorError)
    if config.get("model_type") == "points":
        import finetune.points  # noqa: F401  # what it registers is all that is wanted of it


def _greedy(module: Any, tokenizer: Any) -> Any:
    """Copy the checkpoint's own generation settings, with all that samples or searches several answers neutralised."""
    decoding = copy.deepcopy(module.generation_config)
    for flag in SAMPLING + LENGTHS:
        setattr(decoding, flag, None)  # not merely unused: a value beside do_sample=False is warned about
    decoding.do_sample, decoding.num_beams, decoding.num_return_sequences = False, 1, 1
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if decoding.pad_token_id is None:
        decoding.pad_token_id = tokenizer.pad_token_id
    if decoding.eos_token_id is None:
        decoding.eos_token_id = tokenizer.eos_token_id
    return decoding


def _refuse_incomplete(directory: Path | str, loading_info: Mapping[str, Collection[str]]) -> None:
    """Refuse a checkpoint that lacks weights: transformers fills them with random numbers."""
    missing = sorted(loading_info["missing_keys"])
    if missing:
        raise EvaluatorError(
            f"{directory}: not a whole model, its files lack {pluralize(len(missing), 'tensor')}:\n"
            f"{bullet_list(missing)}"
        )


@contextmanager
def few_threads(module: Any) -> Iterator[None]:
    """Give a tiny model on the CPU one thread: several would wait for each other longer than they work.

    Seen with 1.3 million parameters on two busy cores: 15 times slower with two threads than with one.
    """
    import torch

    threads = torch.get_num_threads()
    if module.device.type == "cpu" and module.num_parameters() < TINY_PARAMETERS:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
