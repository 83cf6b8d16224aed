"""Every place where the command line reads what may be damaged or hostile, and texts that are."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from soup.testing.tiny_checkpoints import tiny_checkpoint

__all__ = ["BAD_TEXTS", "PLACES", "Place", "lay_out"]

JUDGED = "--eval python:judge.py:score"
POOL = ("check --pool ckpts", "average --pool ckpts -o out")
TRAINED = ("finetune pool.yaml --dry-run", "finetune pool.yaml --status")
ASSEMBLED = "assemble --llm ckpts/a -o out --dry-run"
CONVERTED = "convert-points ckpts/a -o out"
JOB_FILES = ("launcher", "number/job", "number/state", "number/place")
CHECKED = "finetune pool.yaml --check --decode"


@dataclass(frozen=True)
class Place:
    """Files that get the same bytes, and the commands that read them."""

    files: tuple[str, ...]
    commands: tuple[str, ...]


# By the names of the fuzzers' targets.
PLACES = {
    "header": Place(("ckpts/a/model.safetensors",), (*POOL, "inspect ckpts/a", f"eval ckpts/a {JUDGED}")),
    "index": Place(("ckpts/a/model.safetensors.index.json",), ("inspect ckpts/a", *POOL)),
    "config": Place(
        ("ckpts/a/config.json",),
        (*POOL, "inspect ckpts/a", "finetune started.yaml --dry-run", ASSEMBLED, CONVERTED, f"{CONVERTED} --reverse"),
    ),
    "origin": Place(("ckpts/a/finetune.json", "ckpts/a/args.json", "ckpts/a/README.md"), (*POOL, *TRAINED)),
    "adapter": Place(("ckpts/a/adapter_config.json",), (POOL[0], "inspect ckpts/a")),
    "tokenizer": Place(
        ("ckpts/a/tokenizer.json", "ckpts/a/tokenizer_config.json", "ckpts/a/vocab.json"),
        (*POOL, ASSEMBLED),
    ),
    "processor": Place(
        ("ckpts/a/preprocessor_config.json", "ckpts/a/processor_config.json", "ckpts/a/generation_config.json"), POOL
    ),
    "recipe": Place(("recipe.yaml",), ("merge recipe.yaml -o out --dry-run", "merge recipe.yaml -o out")),
    "soup": Place(("out/recipe.yaml",), ("average --pool ckpts -o out",)),
    "journal": Place(("ckpts.soup/journal.jsonl",), ("report ckpts.soup", f"greedy --pool ckpts {JUDGED} -o out")),
    "arena": Place(
        ("x.arena/arena.json", "x.arena/candidates/001-a.json", "x.arena/votes.jsonl"),
        ("arena --run-dir x.arena --report", "report x.arena"),
    ),
    "result": Place(("ckpts.soup/soups/greedy.json",), ("report ckpts.soup", "report ckpts.soup --json")),
    "digests": Place(("ckpts.soup/digests.json",), (POOL[1],)),
    "finetune": Place(("pool.yaml",), (*TRAINED, "finetune pool.yaml --check", "finetune pool.yaml --dry-run --json")),
    "study": Place(("study.yaml",), ("study study.yaml --dry-run",)),
    "job": Place(
        (*(f"tuned.finetune/{name}.json" for name in JOB_FILES), "tuned/number/finetune.json"),
        (*TRAINED, "finetune pool.yaml --status --json"),
    ),
    "rows": Place(
        ("data/number.json",),
        (CHECKED, f"{CHECKED} --bad-rows bad.jsonl", TRAINED[0], "arena ckpts/a --prompts data/number.json --dry-run"),
    ),
    "picture": Place(("data/7.png",), (CHECKED,)),
    "score": Place(("score.txt",), ('eval ckpts/a --eval "command:cat score.txt # {checkpoint}"',)),
}

_LONG = "n" * 300
BAD_TEXTS = {
    "nothing": "",
    "blank": " \n",
    "null": "null",
    "a_list": "[]",
    "a_text": '"text"',
    "cut_off": '{"a": ',
    "binary": "\0\1\2",
    "no_utf8": b"\xff\xfe\xfa",
    "byte_order_mark": "\ufeff{}",
    "unfolds": "\n".join(["a0: &a0 [x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30))]),
    "within_itself": "&a [*a]",
    "deep_lists": "[" * 3000,
    "deep_closed_lists": "[" * 3000 + "]" * 3000,
    "deep_objects": '{"a":' * 3000 + "1" + "}" * 3000,
    "deep_block": "".join(f"{' ' * depth}a:\n" for depth in range(3000)),
    "half_a_pair": '{"a": "\\ud800", "\\udfff": 1}',
    "mixed_keys": "{1: a, b: c, 2.5: d}",
    "empty_mapping_as_key": "{{}: 3}",
    "a_date": "a: 2020-99-99",
    "a_bool": "a: !!bool x",
    "a_python_object": "!!python/object/apply:os.system [ls]",
    "many_digits": f'{{"a": {"9" * 5000}}}',
    "many_digits_behind_the_point": f'{{"a": 0.{"9" * 5000}, "b": 1e99999}}',
    "not_a_number": '{"a": NaN, "b": -Infinity}',
    "long_name": json.dumps(
        {_LONG: _LONG, "start": _LONG, "method": _LONG, "weight_map": {"a": f"{_LONG}.safetensors"}}
    ),
    "odd_names": json.dumps({"a\nb|c\x1b[31m\u202e": "d\nerror: e\x1b[31m\0", "start": "a\0b", "method": "a|b\n"}),
    "twice": '{"a": 1, "a": 2, "b": 3, "b": 4}',
    "regular_expression": "{start: a, data: b, include_base: true, lr: 1, steps: 1, lora: {target: 'a{9999999999}'}}",
    "sweep_without_end": json.dumps(
        {"start": "a", "data": "b", "include_base": True, "lr": 1, "steps": 1}
        | {"sweep": {name: list(range(1, 1000)) for name in ("seed", "max_length", "checkpoint_every", "steps")}}
    ),
}


def lay_out(folder: Path) -> Path:
    """Write a pool with a run, recipes, data and configurations that all commands take as they are."""
    for seed, path in enumerate((folder / "ckpts" / "a", folder / "ckpts" / "b")):
        tiny_checkpoint(path, seed=seed, tensors={"vision.proj": (2, 2), "lm.norm": (3,)})
    (folder / "judge.py").write_text("def score(checkpoint):\n    return 50.0\n")
    (folder / "score.txt").write_text("50\n")
    (folder / "recipe.yaml").write_text("ingredients: [{name: a, path: ckpts/a}, {name: b, path: ckpts/b}]\n")
    (folder / "data").mkdir()
    Image.new("RGB", (4, 3)).save(folder / "data" / "7.png")
    turns = [{"from": "human", "value": "<image>What?"}, {"from": "gpt", "value": "7"}]
    for name in ("base", "number"):
        (folder / "data" / f"{name}.json").write_text(json.dumps([{"image": "7.png", "conversations": turns}]))
    pool = {"start": "tiny", "data": "data/base.json", "added": {"number": "data/number.json"}, "lr": 1, "steps": 1}
    (folder / "pool.yaml").write_text(json.dumps({**pool, "out": "tuned"}))
    (folder / "started.yaml").write_text(json.dumps({**pool, "start": "ckpts/a", "freeze": ["vision"]}))
    (folder / "study.yaml").write_text(json.dumps({"finetune": pool, "eval": "python:judge.py:score"}))
    for name in ("ckpts.soup/soups", "tuned.finetune/number", "out"):
        (folder / name).mkdir(parents=True)
    return folder
