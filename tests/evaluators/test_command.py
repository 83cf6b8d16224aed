from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from evaluators import command
from evaluators.command import Command
from soup.errors import EvaluatorError
from soup.evaluation.api import Benchmark, Evaluator, Split
from soup.evaluation.benchmark_names import parse_benchmarks
from soup.evaluation.settings import EvalSettings
from soup.support import child_process
from tests.helpers.scripted_models import ToyCandidate


@pytest.fixture
def candidate(tmp_path):
    path = tmp_path / "a 'quoted' $(touch hacked) checkpoint"
    path.mkdir()
    (path / "value").write_text("61.8")
    return ToyCandidate(path, tmp_path / "scratch", "digest")


@pytest.fixture(autouse=True)
def short_grace(monkeypatch):
    monkeypatch.setattr(command, "GRACE_SECONDS", 0.3)
    monkeypatch.setattr(child_process, "GRACE_SECONDS", 0.3)


def benchmark(line, **rest):
    return Benchmark("command:it", "command", line, **rest)


def evaluate(candidate, line, **settings):
    return Command(EvalSettings(**settings)).evaluate(candidate, benchmark(line))


def gone(pid):
    """Whether the process is no more (a zombie that its new parent has not fetched yet is no more)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    if Path("/proc/self/stat").exists():
        stat = Path(f"/proc/{pid}/stat")
        return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"
    return subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True).stdout[:1] in (b"Z", b"")


def wait_until(fact, seconds=120.0):
    end = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_last_line_of_stdout_is_the_score(candidate):
    assert isinstance(Command(EvalSettings()), Evaluator)
    score = evaluate(candidate, "echo loading; echo careful >&2; cat {checkpoint}/value; echo")
    assert (score.value, score.n) == (61.8, None)
    log = (candidate.scratch / "command.log").read_text()
    assert "loading" in log
    assert "careful" in log
    assert "61.8" in log
    assert log.startswith("$ echo loading")


def test_the_directory_is_quoted_for_the_shell(candidate, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert evaluate(candidate, "cat {checkpoint}/value").value == 61.8
    assert not (tmp_path / "hacked").exists()


def test_a_json_object_gives_parts_and_their_mean(candidate):
    score = evaluate(candidate, """echo '{{"a": 10, "b": 20}}' {checkpoint} >/dev/null; echo '{"a": 10, "b": 20}'""")
    assert (score.value, score.parts) == (15, {"a": 10, "b": 20})


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        ("", "nothing"),
        ("all good", "'all good'"),
        ("NaN", "'NaN'"),
        ("Infinity", "'Infinity'"),
        ("null", "'null'"),
        ("true", "'true'"),
        ("101", "'101'"),
        ("[1]", "'\\[1\\]'"),
        ("{}", "'{}'"),
        ('{"a": NaN}', "NaN"),
        ("50\nbye", "'bye'"),
    ],
)
def test_no_number_is_an_error_with_the_logs_path_and_never_a_zero(output, shown, candidate):
    with pytest.raises(EvaluatorError, match=f"found {shown}|found .*{shown}") as caught:
        evaluate(candidate, f"echo wisdom >&2; printf %s {shlex.quote(output)}; : {{checkpoint}}")
    assert str(candidate.scratch / "command.log") in str(caught.value)
    assert "wisdom" in str(caught.value)


def test_a_failed_command_is_told_with_its_exit_code_and_log(candidate):
    with pytest.raises(EvaluatorError, match="exit code 3") as caught:
        evaluate(candidate, "echo 50; echo out of memory >&2; exit 3 # {checkpoint}")
    assert "out of memory" in str(caught.value)
    with pytest.raises(EvaluatorError, match="killed by signal 9"):
        evaluate(candidate, "kill -9 $$ # {checkpoint}")


def test_a_long_output_does_not_block_and_only_its_end_is_told(candidate):
    line = f"{sys.executable} -c \"print('x' * 3_000_000); print('the end')\" # {{checkpoint}}"
    with pytest.raises(EvaluatorError, match="found 'the end'") as caught:
        evaluate(candidate, line)
    assert len(str(caught.value)) < 5000
    assert (candidate.scratch / "command.log").stat().st_size > 3_000_000


def test_a_template_without_its_place_is_refused(candidate):
    for work in (
        lambda: Command(EvalSettings()).identity(benchmark("echo 50")),
        lambda: evaluate(candidate, "echo 50"),
    ):
        with pytest.raises(EvaluatorError, match=r"has no \{checkpoint\}"):
            work()


def test_a_split_is_refused_as_soon_as_the_first_score_tells_no_questions(candidate):
    with pytest.raises(EvaluatorError, match="can't be split"):
        Command(EvalSettings()).evaluate(candidate, benchmark("echo 50 # {checkpoint}", split=Split("report", 0.5)))


def test_questions_on_the_last_line_are_scored_by_their_mean_and_can_be_split(candidate):
    points = {str(index): index % 2 for index in range(40)}
    line = f"echo '{json.dumps({'questions': points})}' # {{checkpoint}}"
    whole = evaluate(candidate, line)
    assert (whole.value, whole.n, whole.questions) == (50, 40, points)
    split = Split("selection", 0.5)
    half = Command(EvalSettings()).evaluate(candidate, benchmark(line, split=split))
    assert half.questions == {index: value for index, value in points.items() if split.holds(index)}


def test_questions_that_are_no_points_are_told_with_the_question(candidate):
    with pytest.raises(EvaluatorError, match="question a: expected points from 0 to 1, found 7"):
        evaluate(candidate, """echo '{"questions": {"a": 7}}' # {checkpoint}""")


def test_the_identity_is_the_template():
    assert Command(EvalSettings()).identity(benchmark("judge {checkpoint}")) == {
        "evaluator": "command",
        "command": "judge {checkpoint}",
    }


def grandchild(candidate, tail="wait"):
    """A command whose child, deaf to SIGTERM, has a child of its own; it writes the grandchild's process id."""
    pid = candidate.scratch.parent / "pid"
    inner = f"trap '' TERM; sleep 60 & echo $! > {pid}; wait; sleep 60"
    return f"sh -c {shlex.quote(inner)} & {tail} # {{checkpoint}}", pid


def test_a_timeout_ends_the_whole_process_group(candidate):
    line, pid = grandchild(candidate)
    with pytest.raises(EvaluatorError, match=r"did not end within 0.4 seconds \(`timeout_seconds`\).*command.log"):
        evaluate(candidate, line, timeout_seconds=0.4)
    wait_until(lambda: gone(int(pid.read_text())))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGALRM], ids=["Ctrl-C", "a timeout from outside"])
def test_any_exception_that_passes_through_ends_the_whole_process_group(number, candidate):
    class PassingThrough(BaseException):
        pass

    def interrupt(*_):
        raise PassingThrough

    line, pid = grandchild(candidate)
    before = signal.signal(number, interrupt)

    def send():
        wait_until(lambda: pid.exists() and pid.read_text().strip())
        os.kill(os.getpid(), number)

    sender = threading.Thread(target=send)
    try:
        sender.start()
        with pytest.raises(PassingThrough):
            evaluate(candidate, line)
    finally:
        sender.join()
        signal.signal(number, before)
    wait_until(lambda: gone(int(pid.read_text())))


def test_what_a_command_leaves_running_is_ended_when_it_is_done(candidate):
    line, pid = grandchild(candidate, tail="while ! test -s PID; do sleep 0.01; done; echo 50")
    assert evaluate(candidate, line.replace("PID", str(pid))).value == 50
    wait_until(lambda: gone(int(pid.read_text())))


def test_a_process_that_left_the_group_does_not_keep_the_score_waiting(candidate):
    leave = f'{sys.executable} -c "import os, time; os.setsid(); print(os.getpid(), flush=True); time.sleep(2)"'
    start = time.monotonic()
    with pytest.raises(EvaluatorError, match="exit code 4"):
        evaluate(candidate, f"{leave} & sleep 0.5; exit 4 # {{checkpoint}}")
    assert time.monotonic() - start < 1.9


@pytest.mark.parametrize(
    "line",
    [
        'cat "{checkpoint}"/value',
        "cat '{checkpoint}'/value",
        """sh -c 'cat "{checkpoint}/value"'""",
        """sh -c "cat {checkpoint}/value" """,
        """echo "$(cat "{checkpoint}/value")" """,
        "echo `cat {checkpoint}/value`",
        """eval "cat \\"{checkpoint}/value\\"" """,
    ],
)
def test_a_path_within_quotes_is_never_executed(candidate, tmp_path, monkeypatch, line):
    monkeypatch.chdir(tmp_path)
    assert evaluate(candidate, line).value == 61.8
    assert not (tmp_path / "hacked").exists()


def test_a_plain_path_stands_as_it_is_within_quotes(tmp_path):
    (tmp_path / "plain").mkdir()
    candidate = ToyCandidate(tmp_path / "plain", tmp_path / "scratch", "digest")
    evaluate(candidate, 'echo "{checkpoint}"; echo 1')
    assert f"\n{tmp_path}/plain\n" in (tmp_path / "scratch/command.log").read_text()


def test_what_looks_like_a_secret_is_shown_nowhere_and_used(candidate):
    secret = "sk-" + "a1" * 12
    line = f"test --key={secret} = --key={secret} && cat {{checkpoint}}/value"
    (benchmark,) = parse_benchmarks([f"command:{line}"])
    evaluator = Command(EvalSettings())
    assert evaluator.evaluate(candidate, benchmark).value == 61.8
    shown = f"{benchmark.name} {evaluator.identity(benchmark)} {(candidate.scratch / 'command.log').read_text()}"
    assert secret not in shown
    assert "--key=***" in shown


def test_a_template_without_secrets_keeps_its_name_identity_and_key():
    line = "OPENAI=$OPENAI_API_KEY score --token ${TOKEN} --max-new-tokens 123456789 {checkpoint}"
    (benchmark,) = parse_benchmarks([f"command:{line}"])
    identity = Command(EvalSettings()).identity(benchmark)
    assert (benchmark.name, identity["command"]) == (f"command:{line}", line)
