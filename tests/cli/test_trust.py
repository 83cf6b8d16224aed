"""Nothing that soup reads runs by being read, and what is secret stays where it was put: all commands are tried."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.helpers.pretrained_parts import save_encoder, save_llm
from tests.helpers.toy_pools import make_pool, tree
from tests.helpers.toy_test_sets import ocrbench_rows, write_tsv
from tests.helpers.vlm_families import save_family

ROOT = Path(__file__).parents[2]


def run(*words, cwd, **environment):
    """The command line in a process of its own, where no other module was imported before; nobody types an answer."""
    return subprocess.run(
        [sys.executable, "-m", "soup", *map(str, words)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
    )


class Loads:
    """Unpickled, it leaves a file behind."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return open, (self.marker, "w")


def give_code(checkpoint, marker):
    """Put code into a checkpoint in every place where a loader might run it."""
    import pickle

    code = f"open({str(marker)!r}, 'a').close()\nclass Theirs:\n    pass\n"
    for name in ("theirs", "modeling_theirs", "sitecustomize", "setup", "conftest", "__init__"):
        (checkpoint / f"{name}.py").write_text(code)
    names = ("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoModelForImageTextToText", "AutoProcessor")
    for file, more in {
        "config.json": {},
        "tokenizer_config.json": {"tokenizer_class": "Theirs"},
        "processor_config.json": {"processor_class": "Theirs"},
        "preprocessor_config.json": {"image_processor_type": "Theirs"},
    }.items():
        path = checkpoint / file
        held = json.loads(path.read_text()) if path.exists() else {}
        remote = dict.fromkeys((*names, "AutoImageProcessor", "AutoVideoProcessor"), "theirs.Theirs")
        remote["AutoTokenizer"] = ["theirs.Theirs", "theirs.Theirs"]
        path.write_text(json.dumps({**held, **more, "auto_map": remote}))
    evil = pickle.dumps(Loads(marker))
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "rng_state.pth", "trainer_state.pkl"):
        (checkpoint / name).write_bytes(evil)
    template = "{{ ''.__class__.__mro__[1].__subclasses__() }}{% for x in messages %}{{ x.content }}{% endfor %}"
    (checkpoint / "chat_template.jinja").write_text(template)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A pool whose checkpoints bring code along, a recipe that does, and files for the other commands."""
    here = tmp_path_factory.mktemp("hostile")
    for seed, name in enumerate("ab"):
        give_code(save_family("llava", here / "ckpts" / name, seed), here / "ran")
    write_tsv(here / "LMUData/OCRBench.tsv", ocrbench_rows(4))
    (here / "method.py").write_text(f"open({str(here / 'ran')!r}, 'a').close()\n")
    ingredient = {"name": "a", "path": "ckpts/a"}
    (here / "foreign.yaml").write_text(yaml.safe_dump({"method": "method.py:M", "ingredients": [ingredient]}))
    tagged = f"!!python/object/apply:builtins.open [{here / 'ran'}, a]"
    for name in ("tagged.yaml", "pool.yaml", "study.yaml"):
        (here / name).write_text(f"start: {tagged}\ningredients: {tagged}\n")
    rows = [{"conversations": [{"from": "human", "value": "Hello?"}, {"from": "gpt", "value": "Hi"}]}] * 4
    (here / "rows.json").write_text(json.dumps(rows))
    data = [{"path": "rows.json"}]
    config = {"start": "ckpts/a", "data": data, "added": {"x": data}, "lr": 1e-5, "steps": 1, "out": "made"}
    (here / "hostile_start.yaml").write_text(yaml.safe_dump(config))
    (here / "ckpts.soup").mkdir()
    save_llm(here / "llm")
    save_encoder(here / "vit", "clip", whole=True)
    for folder in (here / "llm", here / "vit"):
        give_code(folder, here / "ran")
    return here


COMMANDS = {
    "check": "check --pool ckpts",
    "inspect": "inspect ckpts/a",
    "average": "average --pool ckpts -o out-average",
    "maximum": "maximum --pool ckpts -o out-maximum --eval ocrbench",
    "greedy": "greedy --pool ckpts -o out-greedy --eval ocrbench",
    "cook": "cook --strategy greedy --pool ckpts -o out-cook --eval ocrbench --dry-run",
    "eval": "eval ckpts/a --eval ocrbench",
    "eval by lm-eval": "eval ckpts/a --eval lm_eval:arc_easy",
    "merge": "merge out-average/recipe.yaml -o again",
    "merge of a foreign recipe": "merge foreign.yaml -o foreign",
    "merge of a tagged recipe": "merge tagged.yaml -o tagged",
    "report": "report ckpts.soup",
    "finetune": "finetune hostile_start.yaml --check",
    "finetune dry": "finetune hostile_start.yaml --dry-run",
    "finetune of a tagged file": "finetune pool.yaml",
    "study": "study study.yaml --dry-run",
    "assemble": "assemble --llm llm --general-vit vit -o assembled",
    "convert-points": "convert-points ckpts/a -o converted",
    "list": "list evaluators",
}


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_runs_code_of_a_checkpoint_a_recipe_or_a_config(hostile, command):
    done = run(*COMMANDS[command].split(), cwd=hostile, LMUData=str(hostile / "LMUData"))
    assert not (hostile / "ran").exists(), done.stderr
    assert done.returncode in (0, 1), done.stderr
    assert "Traceback" not in done.stderr
    assert "[y/N]" not in done.stdout + done.stderr, "nobody is asked either"


@pytest.mark.slow
def test_a_model_that_is_assembled_of_parts_names_none_of_their_code(hostile):
    out = hostile / "assembled"
    if not out.exists():
        assert run(*COMMANDS["assemble"].split(), cwd=hostile).returncode == 0
    for path in out.glob("*.json"):
        assert "auto_map" not in path.read_text(), path.name
    assert not list(out.glob("*.py"))


@pytest.mark.slow
def test_the_code_would_run_where_it_is_trusted(hostile, tmp_path):
    """So that the test above can fail: the same planted code, and the flag."""
    done = run("eval", "ckpts/a", "--eval", "ocrbench", "--trust-code", cwd=hostile, LMUData=str(hostile / "LMUData"))
    assert (hostile / "ran").exists(), done.stderr
    (hostile / "ran").unlink()
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    run("merge", "foreign.yaml", "-o", tmp_path / "out", "--trust-code", cwd=hostile)
    assert (hostile / "ran").exists()
    (hostile / "ran").unlink()


def test_every_call_of_transformers_loaders_says_whether_code_may_run():
    """One that says nothing asks the terminal: [y/N]."""
    silent = []
    for package in ("soup", "evaluators", "finetune"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    loads = node.func.attr == "from_pretrained" and not isinstance(node.func.value, ast.Call)
                    if loads and "trust_remote_code" not in {keyword.arg for keyword in node.keywords}:
                        silent.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert silent == []


PLANTED = "plantedsecret0123456789abcdef"
TOKENS = {
    "OPENAI_API_KEY": f"sk-{PLANTED}",
    "JUDGE_KEY": f"jk-{PLANTED}",
    "HF_TOKEN": f"hf_{PLANTED}",
    "WANDB_API_KEY": PLANTED,
    "AWS_SECRET_ACCESS_KEY": PLANTED,
}
KEYED = {  # templates that a user may type: with the key itself, and with a variable that the command reads
    "an option": f"command:: --api-key {PLANTED} {{checkpoint}}; echo 50",
    "an assignment": f"command:OPENAI_API_KEY=sk-{PLANTED} sh -c 'echo {{checkpoint}}; echo 50'",
    "a header": f"command:: -H 'Authorization: Bearer {PLANTED}' {{checkpoint}}; echo 50",
    "a URL": f"command:: https://me:{PLANTED}@host/ {{checkpoint}}; echo 50",
    "a variable": 'command:test -n "$JUDGE_KEY" && echo {checkpoint}; echo 50',
    "a failure": f"command:false --api-key {PLANTED} {{checkpoint}}",
}


def leaks(folder):
    """Every file below a folder that holds the secret."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path.relative_to(folder).as_posix() for path in files if PLANTED.encode() in path.read_bytes()]


@pytest.mark.slow
@pytest.mark.parametrize("template", KEYED)
def test_a_secret_of_the_environment_or_a_template_reaches_no_file_log_error_or_page(tmp_path, template):
    shown = KEYED[template]
    make_pool(tmp_path / "ckpts")
    words = ["--pool", "ckpts", "--eval", shown]
    greedy = run("greedy", *words, "-o", "out", cwd=tmp_path, **TOKENS)
    planned = run("greedy", *words, "-o", "other", "--dry-run", "--json", cwd=tmp_path, **TOKENS)
    alone = run("eval", "ckpts/a", "--eval", shown, "--json", cwd=tmp_path, **TOKENS)
    report = run("report", "ckpts.soup", cwd=tmp_path, **TOKENS)
    assert [greedy.returncode, alone.returncode] == ([1, 1] if template == "a failure" else [0, 0]), greedy.stderr
    for done in (greedy, planned, alone, report):
        assert PLANTED not in done.stdout + done.stderr
    assert leaks(tmp_path) == []
    assert ("holds what looks like a key" in greedy.stderr) == ("$JUDGE_KEY" not in shown)


WRITING = {
    "check --pool ckpts": (),
    "inspect ckpts/a": (),
    "average --pool ckpts -o out": ("out",),
    "merge out/recipe.yaml -o again": ("again",),
    "greedy --pool ckpts -o chosen --eval ocrbench": ("chosen", "ckpts.soup"),
    "greedy --pool ckpts -o side --eval ocrbench --workers 2 --run-dir work": ("side", "work"),
    "eval ckpts/a --eval ocrbench": ("ckpts.soup",),
    "report ckpts.soup": ("ckpts.soup",),
    "list methods": (),
}


@pytest.mark.slow
def test_nothing_is_written_outside_of_output_and_run_directory(tmp_path):
    here = tmp_path / "here"
    for seed, name in enumerate("ab"):
        save_family("llava", here / "ckpts" / name, seed)
    write_tsv(here / "LMUData/OCRBench.tsv", ocrbench_rows(2))
    homes = {name: str(tmp_path / name) for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "HF_HOME")}
    for folder in homes.values():
        Path(folder).mkdir()
    for command, outputs in WRITING.items():
        before = tree(tmp_path)
        done = run(*command.split(), cwd=here, LMUData=str(here / "LMUData"), **homes)
        assert done.returncode == 0, done.stderr
        after = tree(tmp_path)
        written = {name for name in after if after[name] != before.get(name)} | (before.keys() - after.keys())
        assert {name for name in written if not name.startswith(tuple(f"here/{out}/" for out in outputs))} == set()
