"""vLLM's tests: what they share, and where they can't run."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from evaluators.answering.session import EngineSession
from soup.evaluation.settings import EvalSettings
from tests.helpers.vlm_families import noise

OPTIONS = {
    "enforce_eager": True,
    "max_model_len": 1024,
    "limit_mm_per_prompt": {"image": 2},
    "kv_cache_memory_bytes": 64 << 20,
    "max_num_seqs": 16,
}
TOKENS = 8

collect_ignore = [] if importlib.util.find_spec("vllm") else ["test_swaps.py", "test_servers.py"]


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.vllm)


@pytest.fixture(scope="session")
def prompts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    images = [noise(folder / f"{size[0]}.png", size, seed) for seed, size in enumerate([(40, 30), (64, 48)])]
    texts = ["Why?", "Is it so? Say yes or no.", "B"]
    questions = [
        [{"type": "image", "value": image}, {"type": "text", "value": text}] for image in images for text in texts
    ]
    long = [{"type": "text", "value": "Why so? " * 60}]  # some blocks of the cache of beginnings
    return [*questions, long, [{"type": "text", "value": "What is a pool?"}]]


@pytest.fixture
def open_session():
    """Open sessions of the engine, which are closed in the end."""
    opened = []

    def session(check_swap="never", tensor_parallel_size=1, **options):
        arguments = {"max_new_tokens": TOKENS, "check_swap": check_swap, "options": {**OPTIONS, **options}}
        settings = EvalSettings(engine="vllm", engine_args={**arguments, "tensor_parallel_size": tensor_parallel_size})
        opened.append(EngineSession(settings))
        return opened[-1]

    yield session
    for each in opened:
        each.close()


def ask(session, soup, prompts):
    """The texts and log probabilities that the session's engine gives for a candidate."""
    session.hold(soup)
    answers = [None] * len(prompts)

    def keep(replies):
        for index, text, log_probability in replies:
            answers[index] = [text, log_probability]

    session.engine._call("answer", prompts, TOKENS, True, on_answers=keep)
    return answers


def ask_fresh(directories, prompts, **options):
    """The same of vLLM alone, opened on each directory."""
    job = {"directories": list(map(str, directories)), "prompts": prompts, "max_new_tokens": TOKENS}
    job["options"] = {**OPTIONS, **options}
    script = Path(__file__).with_name("fresh_engine.py")
    done = subprocess.run([sys.executable, str(script), json.dumps(job)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def differences(left, right):
    """Of two lists of answers: the texts that differ, and the largest difference of log probabilities."""
    texts = [(first, other) for (first, _), (other, _) in zip(left, right, strict=True) if first != other]
    return texts, max(abs(first - other) for (_, first), (_, other) in zip(left, right, strict=True))
