"""The first minute: `soup` alone, `soup doctor`, and what is said where a library is missing."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from soup.cli.app import main
from tests.helpers.toy_pools import make_judge, make_pool


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """The command line in this process; it gives its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def run_words(*words):
        monkeypatch.setattr(sys, "argv", ["soup", *words])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code
        return (code, *capsys.readouterr())

    yield run_words
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_soup_alone_says_what_it_is_and_three_commands(run):
    code, said, _ = run()
    assert code == 0
    commands = [line.split()[1] for line in said.splitlines() if line.startswith("  soup ")]
    assert commands == ["demo", "doctor", "greedy"]
    assert max(map(len, said.splitlines())) <= 110


def test_doctor_tells_each_absence_with_a_line_below(run):
    code, said, _ = run("doctor")
    assert code == 0
    assert said.splitlines()[1].split()[:2] == ["soup", "here"]
    findings = json.loads(run("doctor", "--json")[1])["findings"]
    assert all(finding["mend"] for finding in findings if finding["state"] != "here")
    assert all(finding["mend"] in said for finding in findings)


MISSING = [
    ("plot", "matplotlib", ["check", "--pool", "ckpts", "--plot", "p.svg"]),
    ("cma", "cma", ["cook", "--strategy", "cma", "--pool", "ckpts", "--eval", "python:judge.py:score", "-o", "o"]),
    ("ray", "ray", ["greedy", "--pool", "ckpts", "--eval", "python:judge.py:score", "--ray", "local", "-o", "o"]),
    ("lm-eval", "lm_eval", ["eval", "ckpts/a", "--eval", "lm_eval:arc_easy"]),
    ("vlmeval", "vlmeval", ["eval", "ckpts/a", "--eval", "ocrbench"]),
]


@pytest.mark.parametrize(("extra", "module", "words"), MISSING, ids=[name for name, *_ in MISSING])
def test_a_missing_library_is_told_in_a_sentence_that_names_its_extra(extra, module, words, run, monkeypatch, tmp_path):
    make_pool(tmp_path / "ckpts")
    make_judge(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr("evaluators.vlmeval_version.DISTRIBUTIONS", ())  # of VLMEvalKit the source is read, too
    code, _, said = run(*words)
    assert code == 1, said
    assert "Traceback" not in said
    assert f"vlm-soup[{extra}]" in said


def test_the_commands_of_training_name_theirs(tmp_path):
    code = "import sys; sys.modules |= dict.fromkeys(('PIL', 'transformers')); from soup.cli.app import main; main()"
    words = ["data", "filter", "a.jsonl", "-o", "b.jsonl", "--model", "m"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert 'pip install "vlm-soup[finetune]"' in done.stderr


def test_a_library_that_a_user_s_file_lacks_is_named_with_its_extra(run, monkeypatch, tmp_path):
    make_pool(tmp_path / "ckpts")
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "mine.py").write_text("import av\ndef score(directory):\n    return 1\n")
    code, _, said = run("eval", "ckpts/a", "--eval", "python:mine.py:score")
    assert (code, 'av is not installed: pip install "vlm-soup[video]"' in said) == (1, True)


def test_a_library_missing_anywhere_is_an_error_of_one_line(run, monkeypatch):
    def fail(run_dir):
        raise ModuleNotFoundError("No module named 'PIL.Image'", name="PIL.Image")

    monkeypatch.setattr("soup.report.doctor.examine", fail)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run("doctor") == (1, "", 'error: PIL is not installed: pip install "vlm-soup[vlmeval-light]".\n')


def test_a_library_that_no_extra_brings_keeps_its_trace(run, monkeypatch):
    def fail(run_dir):
        raise ModuleNotFoundError("No module named 'gumbo'", name="gumbo")

    monkeypatch.setattr("soup.report.doctor.examine", fail)
    with pytest.raises(ModuleNotFoundError):
        run("doctor")
