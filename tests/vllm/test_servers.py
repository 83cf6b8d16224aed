"""Real servers, started on each candidate by `--engine serve`: vLLM's own and transformers'."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from evaluators.answering.engines.transformers import TransformersModel
from evaluators.answering.session import EngineSession
from soup.evaluation.settings import EvalSettings
from tests.helpers.hot_swaps import candidate_of
from tests.helpers.vlm_families import noise
from tests.vllm.conftest import TOKENS
from tests.vllm.families import save_served

VLLM = (
    f"env HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1 {sys.executable} -m vllm.entrypoints.openai.api_server "
    "--model {checkpoint} --port {port} --host 127.0.0.1 --dtype float32 --enforce-eager --max-model-len 1024 "
    "--max-num-seqs 16 --kv-cache-memory-bytes 67108864 --seed 0"
)
TRANSFORMERS = (
    f"env HF_HUB_OFFLINE=1 WITHOUT_TORCHVISION=1 {Path(sys.executable).with_name('transformers')} serve {{checkpoint}} "
    "--port {port} --host 127.0.0.1 --device cpu --dtype float32"
)


@pytest.mark.parametrize("command", [VLLM, TRANSFORMERS], ids=["vllm", "transformers"])
def test_a_real_server_answers_as_the_soup_does(command, tmp_path):
    for seed in range(2):
        save_served("llava", tmp_path / "pool" / f"m{seed}", seed)
    image = noise(tmp_path / "image.png", (32, 32), 1)  # as the model wants it: nobody resizes
    texts = ["Why?", "Is it so? Say yes or no.", "B", "What is a pool?"]
    prompts = [[{"type": "image", "value": image}, {"type": "text", "value": text}] for text in texts]
    arguments = {"command": command, "max_new_tokens": TOKENS, "requests": 8, "start_seconds": 300}
    session = EngineSession(EvalSettings(engine="serve", engine_args=arguments))
    try:
        for weights in ([1, 0], [0.5, 0.5]):
            with candidate_of(tmp_path / "pool", tmp_path / "home", weights=weights) as soup:
                answers = session.answer(soup, prompts, lambda *_: None)
                model = TransformersModel(soup.directory(), max_new_tokens=TOKENS)
                assert answers == [model.answer([prompt])[0] for prompt in prompts]
    finally:
        session.close()
