"""Bad input costs nobody a trace: the whole command line over the fuzzers' corpus, and over inputs made by hand."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from soup.cli.app import main
from tests.helpers.bad_inputs import BAD_TEXTS, PLACES, lay_out
from tests.helpers.case_parts import some_of

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "tests" / "fuzz" / "corpus"
FILES = [path for path in sorted(CORPUS.glob("*/*")) if path.parent.name in PLACES]


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    return lay_out(tmp_path_factory.mktemp("toys"))


@pytest.fixture
def here(toys, tmp_path, monkeypatch):
    monkeypatch.chdir(shutil.copytree(toys, tmp_path / "here"))
    return Path.cwd()


ENDS = (0, 1, 2)  # done, an error of one sentence, wrong usage


@pytest.fixture
def soup(here, monkeypatch, capfd):
    """Runs `soup ...` in this process, as its script does; gives its exit code. Nothing but text may come of it."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def run(command):
        monkeypatch.setattr(sys, "argv", ["soup", *(shlex.split(command) if isinstance(command, str) else command)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        output = capfd.readouterr()
        assert code in ENDS, (command, code)
        assert "Traceback" not in output.out + output.err, (command, output.err)
        assert code == 0 or "rror:" in output.err or "problem" in output.out, (command, output)
        return code

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


def put(location, data):
    for file in location.files:
        path = Path(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())


@pytest.mark.parametrize("name", PLACES)
def test_the_toys_are_good(name, soup):
    """So that what a bad file costs is that file's doing."""
    good = {"check", "average", "inspect", "eval", "merge", "greedy", "finetune", "study"}
    for command in PLACES[name].commands:
        if command.split()[0] in good:
            assert soup(command) == 0, command


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_no_file_of_the_corpus_costs_a_trace(path, soup):
    put(PLACES[path.parent.name], path.read_bytes())
    for command in PLACES[path.parent.name].commands:
        assert soup(command) in ENDS


@pytest.mark.parametrize("text", some_of(BAD_TEXTS))
@pytest.mark.parametrize("name", PLACES)
def test_no_text_made_by_hand_costs_a_trace(name, text, soup):
    put(PLACES[name], BAD_TEXTS[text])
    for command in PLACES[name].commands:
        assert soup(command) in ENDS


@pytest.mark.parametrize("path", sorted(CORPUS.glob("words/*")), ids=lambda path: path.name)
@pytest.mark.parametrize("option", ["--eval", "--weights", "--guard", "--method-arg", "--exclude", "--dtype"])
def test_no_word_on_the_command_line_costs_a_trace(path, option, soup):
    word = path.read_bytes().decode("utf-8", "replace").replace("\0", "")
    assert soup(["average", "--pool", "ckpts", "-o", "out", "--dry-run", f"{option}={word}"]) in ENDS


@pytest.mark.parametrize("name", ["n" * 300, "a\nb", "a\x1b[31mb", "a|b", "..", "", "a\udcff"])
@pytest.mark.parametrize(
    "command", ["inspect", "merge -o out", "report", "finetune", "study", "eval --eval python:judge.py:score"]
)
def test_no_name_on_the_command_line_costs_a_trace(name, command, soup):
    assert soup([*command.split(), name]) in ENDS


@pytest.mark.slow
@pytest.mark.parametrize("name", ["header", "config", "recipe", "journal", "finetune", "rows"])
def test_nor_does_it_in_a_process_of_its_own(name, here):
    """The same by `python -m soup`, for a sample."""
    put(PLACES[name], BAD_TEXTS["deep_lists"])
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for command in PLACES[name].commands:
        words = [sys.executable, "-m", "soup", *shlex.split(command)]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode in (0, 1, 2), done
        assert "Traceback" not in done.stdout + done.stderr, done.stderr


@pytest.mark.slow
def test_a_header_of_80_megabytes_costs_no_trace(soup):
    """A million empty tensors; then as many that are cut off."""
    tensors = ",".join(
        f'"m.{number:07}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for number in range(1_300_000)
    )
    for text in (f"{{{tensors}}}", f"{{{tensors}"):
        put(PLACES["header"], len(text).to_bytes(8, "little") + text.encode())
        assert soup("inspect ckpts/a --no-digest") in ENDS
