"""What engines cost: questions a second, the seconds of a swap, memory; each beside transformers' in one run.

A Qwen2-VL of random weights is asked about images of random pixels; no answer comes to an end by itself, so that all
engines write the same number of tokens. Each engine is opened on one model, and the mean of two is swapped in. A
question is counted from the swapped candidate's alone, the first batch left out. Memory is the peak of the
resident sets of the process and all that it started (`psutil`), shared pages counted in each.

    python -m benchmarks.engines                              transformers, vllm, and a vLLM server, in .venv-vllm
    python -m benchmarks.engines --engine transformers        only these
    python -m benchmarks.engines --width 2048 --layers 24 --dtype bfloat16 --questions 2000       on a GPU
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import click

from benchmarks.results import record

SERVER = (
    f"{sys.executable} -m vllm.entrypoints.openai.api_server --model {{checkpoint}} --port {{port}} --host 127.0.0.1 "
    "--dtype DTYPE --enforce-eager --max-model-len 1024 --kv-cache-memory-bytes 268435456"
)
VLLM = {"enforce_eager": True, "max_model_len": 1024, "kv_cache_memory_bytes": 256 << 20}


@click.command()
@click.option("--engine", "engines", multiple=True, type=click.Choice(["transformers", "vllm", "serve"]))
@click.option("--width", default=512, show_default=True, help="The language model's hidden size.")
@click.option("--layers", default=8, show_default=True)
@click.option("--dtype", default="float32", show_default=True)
@click.option("--questions", default=64, show_default=True)
@click.option("--tokens", default=32, show_default=True, help="New tokens of each answer.")
@click.option("--record", "recording", is_flag=True, help="Keep the rates in results/engines.json, for draw.py.")
def main(
    engines: tuple[str, ...], width: int, layers: int, dtype: str, questions: int, tokens: int, recording: bool
) -> None:
    """Make two models, ask each engine in a process of its own, print a table."""
    with tempfile.TemporaryDirectory() as folder:
        make_models(Path(folder), width, layers, dtype)
        rows = []
        for name in engines or ("transformers", "vllm", "serve"):
            job = {"engine": name, "folder": folder, "dtype": dtype, "questions": questions, "tokens": tokens}
            script = f"import benchmarks.engines as b; b.measure({job!r})"
            process = subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.PIPE, text=True)
            rows.append(json.loads(process.stdout.splitlines()[-1]))
    click.echo(table(rows))
    if recording:
        record("engines", [{**row, "rate": round(row["rate"], 2)} for row in rows], ("engine",))


def make_models(folder: Path, width: int, layers: int, dtype: str) -> None:
    """Write two checkpoints and an image."""
    import torch

    from tests.helpers.vlm_families import noise
    from tests.vllm.families import save_served

    heads = width // 32
    sizes = {"hidden_size": width, "intermediate_size": 3 * width, "num_hidden_layers": layers, "head_dim": 32}
    text = {**sizes, "num_attention_heads": heads, "num_key_value_heads": heads, "initializer_range": 0.05}
    for seed in range(2):
        save_served("qwen2_vl", folder / "pool" / f"m{seed}", seed, getattr(torch, dtype), **text)
    for number in range(8):
        noise(folder / f"{number}.png", (64, 64), number)


def measure(job: dict[str, object]) -> None:
    """Open an engine, swap, ask; print one line of JSON."""
    from evaluators.answering.engines import transformers
    from evaluators.answering.session import EngineSession
    from soup.evaluation.settings import EvalSettings
    from tests.helpers.hot_swaps import candidate_of

    logging.disable(logging.WARNING)
    folder, tokens, name = Path(str(job["folder"])), int(str(job["tokens"])), str(job["engine"])
    command = SERVER.replace("DTYPE", str(job["dtype"]))
    arguments: dict[str, object] = {
        "transformers": {},
        "vllm": {"options": VLLM, "check_swap": "never", "max_new_tokens": tokens},
        "serve": {"command": command, "max_new_tokens": tokens},
    }[name]
    transformers.TransformersModel.__init__.__kwdefaults__["max_new_tokens"] = tokens
    session = EngineSession(EvalSettings(engine=name, engine_args=arguments))
    peak = Peak()
    with (
        candidate_of(folder / "pool", folder / "first", weights=[1, 0]) as first,
        candidate_of(folder / "pool", folder / "mean") as mean,
    ):
        questions = prompts(folder, int(str(job["questions"])))
        opened = timed(lambda: session.answer(first, questions[:4], ignore))
        swapped = timed(lambda: session.hold(mean))
        session.answer(mean, questions[:4], ignore)
        answered = timed(lambda: session.answer(mean, questions, ignore))
    session.close()
    row = {"engine": name, "open": opened, "swap": swapped, "rate": len(questions) / answered, "peak": peak.stop()}
    print("\n" + json.dumps(row))


def prompts(folder: Path, count: int) -> list[list[dict[str, str]]]:
    """Return questions about the images, none like another."""
    return [
        [
            {"type": "image", "value": str(folder / f"{number % 8}.png")},
            {"type": "text", "value": f"What is {number}? " + "x" * (number % 50)},
        ]
        for number in range(count)
    ]


def ignore(*_: object) -> None:
    """Hear of answers, and do nothing."""


def timed(work: object) -> float:
    """Return the seconds that a call takes."""
    began = time.perf_counter()
    work()  # type: ignore[operator]  # a function
    return time.perf_counter() - began


class Peak:
    """Looks at the memory of this process and all below it, ten times a second."""

    def __init__(self) -> None:
        self._most, self._done = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """Return the most bytes that were seen."""
        self._done.set()
        self._thread.join()
        return self._most

    def _watch(self) -> None:
        import psutil

        this = psutil.Process()
        while not self._done.wait(0.1):
            sizes = []
            for process in [this, *this.children(recursive=True)]:
                try:
                    sizes.append(process.memory_info().rss)
                except psutil.Error:
                    continue
            self._most = max(self._most, sum(sizes))


def table(rows: list[dict[str, float]]) -> str:
    """Return the rows in Markdown, rates as multiples of the first."""
    lines = [
        "| engine | questions a second | of the first | swap | open and 4 questions | peak memory |",
        "|" + " --- |" * 6,
    ]
    for row in rows:
        ratio = row["rate"] / rows[0]["rate"]
        cells = [f"{row['rate']:.2f}", f"{ratio:.2f}", f"{row['swap']:.2f} s", f"{row['open']:.1f} s"]
        lines.append("| " + " | ".join([str(row["engine"]), *cells, f"{row['peak'] / 1e6:.0f} MB"]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
