"""The oracle: vLLM alone, opened on one directory after another, without a line of soup's engine.

usage: fresh_engine.py JSON, with {"directories", "prompts", "options", "max_new_tokens"}; prints of each directory
the text and the log probability of each answer, as JSON.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys


def main():
    from PIL import Image
    from vllm import LLM, SamplingParams

    job = json.loads(sys.argv[1])
    greedy = SamplingParams(temperature=0, max_tokens=job["max_new_tokens"], logprobs=0)

    def part(type, value):
        if type == "text":
            return {"type": "text", "text": value}
        return {"type": "image_pil", "image_pil": Image.open(value).convert("RGB")}

    messages = [[{"role": "user", "content": [part(**each) for each in prompt]}] for prompt in job["prompts"]]
    outcome = []
    for directory in job["directories"]:
        llm = LLM(model=directory, seed=0, **job["options"])
        best = [output.outputs[0] for output in llm.chat(messages, greedy, use_tqdm=False)]
        outcome.append([[each.text.strip(), each.cumulative_logprob] for each in best])
        del llm
        gc.collect()
    return outcome


if __name__ == "__main__":
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    with contextlib.redirect_stdout(sys.stderr):
        outcome = main()
    print("\n" + json.dumps(outcome))
