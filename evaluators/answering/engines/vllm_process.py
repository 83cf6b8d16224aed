"""The process in which vLLM runs, one a GPU or group of GPUs: apart from soup's, whose threads and logs vLLM changes.

Messages come over a connection, each a word and its arguments; replies are `("done", value)`, `("failed", text)`, and
before them any number of `("answers", [(index, text, log_probability), ...])`; of losses the text is the number of
tokens, or why there is none.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from multiprocessing.connection import Connection
from typing import Any

from evaluators.answering.batching import prompt_beginning
from evaluators.answering.prompt_parts import template_part
from soup.errors import EvaluatorError, SoupError
from soup.evaluation.api import Prompt
from soup.support.text import pluralize

__all__ = ["ENVIRONMENT", "main"]

ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # this process is the engine's own already
}
WAITING_PROMPTS = 1024
"""How many prompts vLLM has at once: it never runs dry, and not all images of a benchmark are in memory."""

ENQUEUED_AT_ONCE = 64
EXTENSION = "evaluators.answering.engines.vllm_worker.SwapExtension"

Send = Callable[[tuple[str, object]], None]


class _Server:
    def __init__(self, send: Send) -> None:
        self._send = send
        self._llm: Any = None

    def open(self, directory: str, options: Mapping[str, Any]) -> None:
        from vllm import LLM

        from evaluators.answering.engines.vllm_loader import LOAD_FORMAT

        defaults = {"worker_extension_cls": EXTENSION, "load_format": LOAD_FORMAT, "seed": 0}
        self._llm = LLM(model=directory, **{**defaults, **options})

    def swap(self, candidate: bytes, count: int) -> None:
        read = self._llm.collective_rpc("soup_swap", args=(candidate,))
        if set(read) != {count}:
            raise EvaluatorError(f"vLLM's workers read {read} tensors of {count}")
        # What was computed with the weights before: images, their embeddings, the beginnings of prompts.
        self._llm.llm_engine.reset_encoder_cache()
        self._llm.reset_mm_cache()
        if not self._llm.reset_prefix_cache():
            raise EvaluatorError("vLLM did not forget the beginnings of prompts that it remembers")

    def answer(self, prompts: Sequence[Prompt], max_new_tokens: int, log_probabilities: bool) -> None:
        """Ask all prompts, the next ones long before the last is done, and send answers as they come.

        Raises:
            EvaluatorError: vLLM gave no answer to some of them.
        """
        from vllm import SamplingParams

        # Of the checkpoint's own generation settings all but what samples: as the engine `transformers` has it.
        penalty = self._llm.get_default_sampling_params().repetition_penalty
        greedy = SamplingParams(
            temperature=0,
            max_tokens=max_new_tokens,
            repetition_penalty=penalty,
            logprobs=0 if log_probabilities else None,
        )
        engine, waiting = self._llm.llm_engine, iter(enumerate(prompts))
        indices: dict[str, int] = {}  # by the request's name
        more = True
        while more or engine.has_unfinished_requests():
            while more and engine.get_num_unfinished_requests() < WAITING_PROMPTS:
                part = list(islice(waiting, ENQUEUED_AT_ONCE))
                more = bool(part)
                if more:
                    names = self._enqueue([prompt for _, prompt in part], greedy)
                    indices.update(zip(map(_number, names), (index for index, _ in part), strict=True))
            done = [output for output in engine.step() if output.finished]
            if done:
                self._send(("answers", [_answer(indices.pop(_number(output.request_id)), output) for output in done]))
        if indices:
            left = [prompts[index] for index in indices.values()]
            raise EvaluatorError(
                f"vLLM gave no answer to {pluralize(len(left), 'prompt')}, the first {prompt_beginning(left[0])}"
            )

    def _enqueue(self, prompts: Sequence[Prompt], sampling: Any) -> list[str]:
        """Hand prompts over, and return the names of their requests.

        Raises:
            EvaluatorError: vLLM takes one of them not, for its length or a picture; says which, for vLLM does not.
        """
        try:
            names: list[str] = self._llm.enqueue_chat(list(map(_messages, prompts)), sampling, use_tqdm=False)
        except Exception as error:
            traceback.print_exc()
            if len(prompts) > 1:
                for prompt in prompts:  # the one that it is stops here
                    self._enqueue([prompt], sampling)
                raise
            reason = "".join(traceback.format_exception_only(error)).strip()
            raise EvaluatorError(f"{reason}; asked was {prompt_beginning(prompts[0])}") from error
        return names

    def losses(self, tasks: Sequence[tuple[Prompt, str]]) -> None:
        """Send the mean loss of each answer and its tokens, or why there is none."""
        from vllm import SamplingParams

        scoring = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0)
        encode, engine = self._llm.get_tokenizer(), self._llm.llm_engine
        requested: dict[str, tuple[int, int]] = {}  # index and tokens of the answer, by the request's name
        for index, (prompt, answer) in enumerate(tasks):
            tokens = encode(answer, add_special_tokens=False)["input_ids"]
            try:
                if not tokens:
                    raise EvaluatorError("an answer without a token has no loss")
                rendered = self._llm._preprocess_chat_one(_messages(prompt))
                rendered["prompt_token_ids"] = [*rendered["prompt_token_ids"], *tokens]
                name = self._llm._add_request(rendered, scoring)
            except Exception as error:  # of this row: a picture, a length
                self._send(("answers", [(index, f"{type(error).__name__}: {error}", None)]))
                continue
            requested[_number(name)] = index, len(tokens)
        while engine.has_unfinished_requests():
            for output in engine.step():
                if output.finished:
                    index, count = requested.pop(_number(output.request_id))
                    self._send(("answers", [(index, str(count), _loss(output, count))]))
        if requested:
            raise EvaluatorError(f"vLLM gave no log probabilities of {pluralize(len(requested), 'answer')}")


def _loss(output: Any, count: int) -> float:
    """Return the mean negative log probability of the last tokens of a prompt."""
    last = zip(output.prompt_token_ids[-count:], output.prompt_logprobs[-count:], strict=True)
    return -float(sum(entry[token].logprob for token, entry in last)) / count


def _number(request: str) -> str:
    """Return a request's number, which vLLM gives a suffix in some places."""
    return request.partition("-")[0]


def _answer(index: int, output: Any) -> tuple[int, str, float | None]:
    (best,) = output.outputs
    return index, best.text.strip(), best.cumulative_logprob


def _messages(prompt: Prompt) -> list[dict[str, object]]:
    return [{"role": "user", "content": [template_part(**part, picture_word="image_pil") for part in prompt]}]


def main() -> None:
    """Serve what comes over the connection until it ends."""
    connection = Connection(int(sys.argv[1]))
    os.environ.update({name: value for name, value in ENVIRONMENT.items() if name not in os.environ})
    server = _Server(connection.send)
    while True:
        try:
            word, arguments = connection.recv()
        except EOFError:
            return
        try:
            connection.send(("done", getattr(server, word)(*arguments)))
        except SoupError as error:
            connection.send(("failed", str(error)))
        except Exception as error:
            traceback.print_exc()
            connection.send(("failed", "".join(traceback.format_exception_only(error)).strip()))
