"""The launcher on jobs of a stand-in process: what is run, skipped, gone on with, stopped, and told when it fails."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from finetune.jobs import SO_IT_WAS, JobStatus, job_command, plan_jobs
from finetune.launching import job_plans
from finetune.launching.data_check import check
from finetune.launching.dry_run import details, plan_dry_run, rows
from finetune.launching.job_plans import plan_launch
from finetune.launching.launch import LOCK, LaunchProgress, finetune
from finetune.launching.outcomes import JobOutcome, failure_report
from finetune.launching.status import status, status_json
from soup.checkpoints.digest import digest_checkpoint
from soup.errors import FinetuneError, OutputError
from soup.support.file_lock import FileLock
from tests.faults.processes import wait_for
from tests.helpers.stand_in_jobs import CONFIG, Release, command, data_set, place, seen, set_moods, state

STAGE = CONFIG.replace("start: tiny", "start: {start: tiny, data: data/base, out: base, steps: 5}")
NAMES = ["a", "b", "c"]

ROOT = Path(__file__).parents[3]


def launch(path, **given):
    return finetune(path, command=command, **given)


def refusal(path, **given):
    with pytest.raises(FinetuneError) as error:
        launch(path, **given)
    return str(error.value)


def names_of(lines):
    return [line["name"] for line in lines]


def test_one_ingredient_for_each_added_set_and_their_folders_outside_of_the_pool(tmp_path):
    messages = []
    made = launch(place(tmp_path), progress=lambda *step: messages.append(step))
    assert made == [tmp_path / "ckpts" / name for name in NAMES]
    assert sorted(path.name for path in (tmp_path / "ckpts").iterdir()) == NAMES
    for name in NAMES:
        folder = tmp_path / "ckpts.finetune" / name
        assert {"job.json", "state.json", "log.txt", "place.json"} <= {path.name for path in folder.iterdir()}
        assert json.loads((folder / "place.json").read_text())["command"] == command(plan_of(tmp_path)[name], 1)
    assert [step[:3] for step in messages if step[1] == step[2]] == [(name, 20, 20) for name in NAMES]


def plan_of(root):
    from finetune.config_file import read_config

    return {job.name: job for job in plan_jobs(read_config(root / "finetune.yaml"), root)}


def test_what_the_stamp_says_covers_data_and_start(tmp_path):
    launch(place(tmp_path))
    digests = json.loads((tmp_path / "ckpts" / "a" / "finetune.json").read_text())["digests"]
    assert digests["start"] == "tiny"
    assert sorted(digests["data"]) == [str(tmp_path / "data" / "a"), str(tmp_path / "data" / "base")]


def test_the_start_comes_first_and_the_others_wait_for_it(tmp_path):
    made = launch(place(tmp_path, STAGE))
    assert made == [tmp_path / "ckpts" / name for name in NAMES]
    begins, ends = seen(tmp_path), seen(tmp_path, "end")
    assert names_of(begins)[0] == names_of(ends)[0] == "start"
    assert all(line["at"] >= ends[0]["at"] for line in begins[1:])


def test_when_the_start_fails_the_others_are_told_as_not_started(tmp_path):
    said = refusal(place(tmp_path, STAGE, start="fail"))
    assert "0 of 4 jobs done; not done:" in said
    assert "start failed: out of luck" in said
    assert all(f"{name} not started: its start, start, failed" in said for name in NAMES)
    assert names_of(seen(tmp_path)) == ["start"]


def test_base_alone_what_varies_and_snapshots_are_ingredients_too(tmp_path):
    config = CONFIG.replace("added: {a: data/a, b: data/b, c: data/c}", "added: {a: data/a}\ninclude_base: true")
    path = place(tmp_path, config + "sweep: {lr: [1.0e-5, 2.0e-5]}\nkeep_every: 8\n")
    names = ["a-lr1e-05", "a-lr2e-05", "base-lr1e-05", "base-lr2e-05"]
    kept = tmp_path / "ckpts" / "a-lr1e-05-step8"
    made = launch(path)
    assert made == [tmp_path / "ckpts" / name for name in names]
    kept.mkdir()
    (kept / "finetune.json").write_bytes((tmp_path / "ckpts" / "a-lr1e-05" / "finetune.json").read_bytes())
    assert launch(path) == [kept, *made]


def test_a_setting_that_is_swept_to_none_is_named_so_unless_its_folder_has_the_old_name(tmp_path):
    config = CONFIG.replace("added: {a: data/a, b: data/b, c: data/c}", "added: {a: data/a}")
    path = place(tmp_path, config + "sweep: {lora: [{rank: 4}, null], micro_batch: [null]}\n")
    names = ["a-lorarank4-nomicro_batch", "a-nolora-nomicro_batch"]
    assert [row.name for row in status(path)] == names
    old = tmp_path / "ckpts" / "a-loraNone-micro_batchNone"
    old.mkdir(parents=True)
    assert [row.name for row in status(path)] == [names[0], old.name]


LEAVING_OUT = """
import json, subprocess, sys
from pathlib import Path
subprocess.run([sys.executable, *sys.argv[1:]], check=True)
job = json.loads(Path(sys.argv[2], "job.json").read_text())
path = Path(job["out"], "finetune.json")
left_out = {data_set["path"]: [1 + i, 3] for i, data_set in enumerate(job["data"][: 1 + (job["name"] == "b")])}
path.write_text(json.dumps({**json.loads(path.read_text()), "mixture": {"left_out": left_out}}))
if job["name"] == "c":
    for row in (3, 7, 3):
        print(f"12:00:00 left out: {job['data'][0]['path']}: row {row}: its image is cut.", file=sys.stderr)
"""


def test_rows_that_were_left_out_are_told_at_the_end_by_count_and_data_set(tmp_path):
    remarks = []
    finetune(
        place(tmp_path),
        command=lambda job, gpus: [sys.executable, "-c", LEAVING_OUT, *command(job, gpus)[1:]],
        listener=LaunchProgress(warn=remarks.append),
    )
    data = tmp_path.resolve() / "data"
    assert remarks == [
        f"1 of 3 rows of {data / 'base'} were left out as bad rows (a, b, c): soup finetune --check tells why",
        f"2 of 3 rows of {data / 'b'} were left out as bad rows (b): soup finetune --check tells why",
        "c: 2 rows more, found bad in training, left out; the first: "
        f"{data / 'base'}: row 3: its image is cut. All are in {tmp_path.resolve() / 'ckpts.finetune/c/log.txt'}",
    ]


def test_a_start_of_the_same_weights_under_another_template_is_told_so(tmp_path):
    path = place(tmp_path, points_start(tmp_path))
    (tmp_path / "start" / "chat_template.jinja").write_text("one")
    launch(path)
    (tmp_path / "start" / "chat_template.jinja").write_text("another")
    said = refusal(path)
    assert "holds the same weights, but other files beside them" in said
    assert "other weights" not in said
    save_file({"x": torch.ones(2)}, tmp_path / "start" / "model.safetensors")
    assert "held other weights than" in refusal(path)


def test_a_rerun_starts_nothing_and_tells_of_each_job_once(tmp_path):
    path = place(tmp_path)
    made, messages = launch(path), []
    assert launch(path, progress=lambda *step: messages.append(step)) == made
    assert messages == [(name, 20, 20, 1 / 20) for name in NAMES]
    assert names_of(seen(tmp_path)) == NAMES


def test_a_folder_that_moved_holds_the_same_models(tmp_path):
    place(tmp_path / "there")
    launch(tmp_path / "there" / "finetune.yaml")
    (tmp_path / "there").rename(tmp_path / "here")
    launch(tmp_path / "here" / "finetune.yaml")
    assert names_of(seen(tmp_path / "here")) == NAMES


def test_what_a_job_said_at_its_end_is_told_once_with_the_lines_before_it(tmp_path):
    message = refusal(place(tmp_path, b="fail"))
    log = tmp_path / "ckpts.finetune" / "b" / "log.txt"
    assert log.read_text().splitlines()[-2:] == ["a line before", "out of luck"]
    assert message.count("out of luck") == 1
    assert "    a line before\n" in message
    assert f"all of it: {log}" in message
    assert message.endswith("When that is mended, the same command goes on with what is not done.")


@pytest.mark.parametrize(
    ("mood", "said"),
    [
        ("fail", "b failed: out of luck"),
        ("die", "b failed: was killed by SIGKILL"),
        ("silent", "b failed: ended well, but left no checkpoint"),
        ("disk", "the disk is full"),
        ("memory", "lower micro_batch"),
        ("gpu", "a GPU is lost"),
    ],
)
def test_one_failing_job_never_stops_the_others_and_is_not_tried_again(tmp_path, mood, said):
    message = refusal(place(tmp_path, b=mood))
    assert said in message
    assert str(tmp_path / "ckpts.finetune" / "b" / "log.txt") in message or mood == "silent"
    assert "2 of 3 jobs done; not done:" in message
    assert names_of(seen(tmp_path)) == NAMES
    assert (tmp_path / "ckpts" / "c").is_dir()
    assert state(tmp_path, "b")["phase"] == "failed"
    set_moods(tmp_path)
    launch(tmp_path / "finetune.yaml")
    assert names_of(seen(tmp_path)) == [*NAMES, "b"]


def test_the_end_of_a_failed_job_s_log_is_told(tmp_path):
    said = refusal(place(tmp_path, a="fail", c="die"))
    assert "    a line before" in said
    assert "    about to die" in said


def test_what_an_earlier_attempt_said_is_not_taken_for_this_one_s(tmp_path):
    path = place(tmp_path, a="fail")
    refusal(path)
    with pytest.raises(FinetuneError) as error:
        finetune(path, command=lambda job, gpus: [sys.executable, "-c", "import sys; sys.exit(7)"])
    assert "a failed: ended with exit code 7" in str(error.value)
    assert "out of luck" not in str(error.value).partition("the end of its log")[0]


def test_the_end_of_a_log_is_that_of_the_last_attempt(tmp_path):
    path = place(tmp_path, a="fail")
    assert "out of luck" in refusal(path)
    log = tmp_path / "ckpts.finetune" / "a" / "log.txt"
    log.write_text("word of the first attempt\n")
    silent = "import sys; sys.exit(7)"
    with pytest.raises(FinetuneError) as error:
        finetune(path, command=lambda job, gpus: [sys.executable, "-c", silent])
    assert "a failed: ended with exit code 7" in str(error.value)
    assert "word of the first" not in str(error.value)
    with pytest.raises(FinetuneError) as error:
        finetune(path, command=lambda job, gpus: [sys.executable, "-c", f"print('word of the third'); {silent}"])
    assert "  the end of its log:\n    word of the third\n" in str(error.value)
    parts = log.read_text().split("\n===== another attempt, begun at ")
    assert [part.split("\n", 1)[-1] for part in parts[1:]] == ["", "word of the third\n"]
    assert parts[0] == "word of the first attempt\n"


def test_a_reason_that_an_earlier_attempt_had_is_not_repeated_as_the_end_of_the_log(tmp_path):
    place(tmp_path)
    job, why = plan_of(tmp_path)["a"], "bad rows: 2 of 2."
    job.folder.mkdir()
    (job.folder / "log.txt").write_text(f"a line before\n{why}\n")
    report = failure_report([(job, JobOutcome(JobStatus.FAILED, f"{why}\n{SO_IT_WAS}1."))], 1)
    assert report.count(why) == 1
    assert "    a line before" in report


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("evaluate: [mmstra]\nevaluate_every: 2\n", "evaluate: .*mmstra"),
        ("evaluate: ['python:none.py:score']\nevaluate_every: 2\n", r"evaluate: .*none\.py"),
        ("evaluate: ['python:none.py:score']\nevaluate_every: 2\ngpus_per_job: 2\n", "Train on one GPU"),
    ],
)
def test_benchmarks_that_can_t_be_asked_on_the_way_are_told_before_any_job(tmp_path, more, said):
    path = place(tmp_path, CONFIG + more)
    for attempt in (launch, plan_dry_run):
        with pytest.raises(FinetuneError, match=rf"nothing was started\.\n  - .*{said}"):
            attempt(path)
    assert re.search(said, check(path).errors[0])
    assert not (tmp_path / "ckpts.finetune" / "a").exists()


@pytest.mark.parametrize("setting", ["cache_features: true", "tiling: anyres"])
def test_what_points_models_alone_can_is_refused_of_another_start_before_any_job(tmp_path, setting):
    start = tmp_path / "other"
    start.mkdir()
    (start / "config.json").write_text('{"model_type": "llava", "text_config": {}}')
    save_file({"a": torch.zeros(2)}, start / "model.safetensors")
    said = refusal(place(tmp_path, CONFIG.replace("start: tiny", "start: other") + setting))
    assert f"{setting.partition(':')[0]}: only for POINTS models, not for llava." in said


def test_a_command_that_is_not_there_is_that_job_s_failure(tmp_path):
    with pytest.raises(FinetuneError, match=r"could not be started.*no/such/program"):
        finetune(place(tmp_path), command=lambda job, gpus: ["no/such/program"])


def stopping(names):
    """A listener that interrupts, once, as soon as all of these jobs run."""
    once = []

    def board(rows):
        running = {row.name for row in rows if row.state == "running" and row.step}
        if not once and running >= set(names):
            once.append(names)
            raise KeyboardInterrupt

    return LaunchProgress(board=board)


def test_an_interrupt_has_each_running_job_write_a_checkpoint_and_a_rerun_goes_on_from_it(tmp_path):
    config = CONFIG.replace("steps: 20", "steps: 60") + "jobs_at_once: 2\n"
    path = place(tmp_path, config, a="slow", b="slow", c="slow")
    with pytest.raises(KeyboardInterrupt):
        launch(path, listener=stopping("ab"))
    assert not (tmp_path / "ckpts").exists()
    assert sorted(names_of(seen(tmp_path))) == ["a", "b"]
    assert [state(tmp_path, name)["phase"] for name in "ab"] == ["stopped", "stopped"]
    set_moods(tmp_path)
    launch(path)
    firsts = {line["name"]: line["first"] for line in seen(tmp_path)[2:]}
    assert firsts["a"] > 0
    assert firsts["b"] > 0
    assert firsts["c"] == 0


def test_a_second_interrupt_ends_the_jobs_at_once(tmp_path):
    path = place(tmp_path, CONFIG.replace("steps: 20", "steps: 6000"), a="deaf")
    asked = []

    def board(rows):
        if any(row.state == "running" and row.step > len(asked) for row in rows) and len(asked) < 2:
            asked.append(rows)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch(path, listener=LaunchProgress(board=board))
    assert len(asked) == 2
    pid = json.loads((tmp_path / "ckpts.finetune" / "a" / "place.json").read_text())["pid"]
    assert not psutil.pid_exists(pid)


SCRIPT = """
import sys
sys.path.insert(0, {root!r})
import finetune.launching.launch
from soup.cli import app
from tests.helpers import stand_in_jobs
launch = finetune.launching.launch.finetune
finetune.launching.launch.finetune = lambda path, **given: launch(path, **given, command=stand_in_jobs.command)
sys.argv[1:] = ["finetune", *{arguments!r}]
app.main()
"""


def soup(*arguments, **given):
    """`soup finetune` as a process of its own, its jobs done by the stand-in."""
    code = SCRIPT.format(root=str(ROOT), arguments=list(map(str, arguments)))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}

    def hear_hangups():  # which nobody does whose tests run under nohup
        signal.signal(signal.SIGHUP, signal.SIG_DFL)

    return subprocess.Popen([sys.executable, "-c", code], **pipes, preexec_fn=hear_hangups, **given)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_is_passed_on_and_the_exit_code_tells_which(tmp_path, number, code):
    path = place(tmp_path, CONFIG.replace("steps: 20", "steps: 6000"), a="slow")
    process = soup(path)
    wait_for(lambda: seen(tmp_path))
    time.sleep(0.3)
    process.send_signal(number)
    said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert state(tmp_path, "a")["phase"] == "stopped"
    assert (tmp_path / "ckpts.finetune" / "a" / "checkpoints" / "step").exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP])
def test_jobs_outlive_a_launcher_that_is_killed_or_hung_up_and_the_next_one_adopts_them(tmp_path, number):
    path = place(tmp_path, a="held")
    process = soup(path)
    wait_for(lambda: seen(tmp_path) and state(tmp_path, "a")["phase"] == "running")
    process.send_signal(number)
    process.communicate()
    assert {row.name: row.state for row in status(path)}["a"] == "running"
    say = Release(tmp_path, "a: still runs from an earlier call")
    launch(path, listener=LaunchProgress(say=say))
    assert say.text in say
    assert names_of(seen(tmp_path)) == NAMES


def test_a_job_that_was_killed_with_its_launcher_is_told_as_lost_and_gone_on_with(tmp_path):
    path = place(tmp_path, CONFIG.replace("steps: 20", "steps: 200"), a="slow")
    process = soup(path)
    wait_for(lambda: seen(tmp_path))
    wait_for(lambda: (tmp_path / "ckpts.finetune" / "a" / "place.json").exists())
    process.kill()
    process.communicate()
    victim = json.loads((tmp_path / "ckpts.finetune" / "a" / "place.json").read_text())["pid"]
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: not psutil.pid_exists(victim) or psutil.Process(victim).status() == psutil.STATUS_ZOMBIE)
    row = status(path)[0]
    assert row.state == "lost"
    assert "nothing does" in row.why
    set_moods(tmp_path)
    launch(path)
    assert {row.state for row in status(path)} == {"done"}


def test_the_second_launcher_on_one_output_is_told(tmp_path):
    path = place(tmp_path)
    lock = FileLock.take(tmp_path / "ckpts.finetune" / LOCK)
    try:
        assert "another soup finetune is at work" in refusal(path)
    finally:
        lock.release()
    launch(path)


def test_an_ingredient_of_other_settings_is_never_overwritten_and_what_differs_is_listed(tmp_path):
    launch(place(tmp_path))
    data_set(tmp_path, "more")
    changed = CONFIG.replace("lr: 1.0e-3", "lr: 9.0e-4\nseed: 3").replace("a: data/a", "a: [data/a, data/more]")
    said = refusal(place(tmp_path, changed))
    assert f"{tmp_path / 'ckpts' / 'a'}: stands there already" in said
    assert "2 checkpoints stand there already" in said
    assert all(f"  - {tmp_path / 'ckpts' / name}\n" in said for name in "bc")
    assert said.count("seed: 0 there, 3 now") == 2, "what several share is told once"
    assert "lr: 0.001 there, 0.0009 now" in said
    assert f"data {tmp_path / 'data' / 'more'}: not there, but now" in said
    assert names_of(seen(tmp_path)) == NAMES


def test_what_is_no_ingredient_and_stands_in_the_way_is_not_called_one_that_could_be_removed(tmp_path):
    said = refusal(place(tmp_path, CONFIG + "out: data\n"))
    assert "3 ingredients have no place: what stands there already is not of soup finetune" in said
    assert all(f"  - {tmp_path / 'data' / name}\n" in said for name in "abc")
    assert said.endswith("Name another `out`, or move that away.")
    assert "Remove" not in said


def test_what_is_said_of_a_data_set_is_named_where_it_changed(tmp_path):
    launch(place(tmp_path))
    said = refusal(place(tmp_path, CONFIG.replace("b: data/b", "b: {path: data/b, weight: 0.5, category: maps}")))
    assert said.count("stands there already") == 1
    assert f"data {tmp_path / 'data' / 'b'}: weight: 1.0 there, 0.5 now" in said
    assert f"data {tmp_path / 'data' / 'b'}: category: general there, maps now" in said


def test_a_model_of_another_version_is_told_as_such_where_nothing_else_differs(tmp_path, monkeypatch):
    launch(place(tmp_path))
    monkeypatch.setattr("finetune.launching.digests.FORMAT", 99)
    said = refusal(tmp_path / "finetune.yaml")
    assert "3 checkpoints stand there already" in said
    assert "another version of soup trained them otherwise" in said


def test_a_job_s_folder_has_one_name_however_the_file_is_named(tmp_path, monkeypatch):
    path = place(tmp_path, CONFIG + "root: data/..\n")
    wanted = [planned.job.folder for planned in plan_launch(path).jobs]
    assert wanted == [tmp_path / "ckpts.finetune" / name for name in NAMES]
    monkeypatch.chdir(tmp_path / "data")
    assert [planned.job.folder for planned in plan_launch("../finetune.yaml").jobs] == wanted
    assert [row.log for row in status("../finetune.yaml")] == [str(folder / "log.txt") for folder in wanted]


def test_a_picture_that_is_younger_than_what_was_trained_on_it_is_a_remark_and_stops_nothing(tmp_path):
    path = place(tmp_path)
    launch(path)
    remarks = []
    launch(path, listener=LaunchProgress(warn=remarks.append))
    assert remarks == []
    for data, image in (("base", "base1.png"), ("b", "b0.png")):
        picture = tmp_path / "data" / data / "images" / image
        picture.write_bytes(picture.read_bytes().replace(b"x", b"y"))
        os.utime(picture, (time.time() + 10,) * 2)
    launch(path, listener=LaunchProgress(warn=remarks.append))
    assert [remark.partition(" had been")[0] for remark in remarks] == [
        f"data {tmp_path / 'data' / 'base'}: images/base1.png was written after a, b, c",
        f"data {tmp_path / 'data' / 'b'}: images/b0.png was written after b",
    ]
    assert names_of(seen(tmp_path)) == NAMES


def test_data_whose_content_changed_is_named(tmp_path):
    path = place(tmp_path)
    launch(path)
    (tmp_path / "data" / "b" / "images" / "b0.png").write_bytes(b"other size")
    said = refusal(path)
    assert said.count("stands there already") == 1
    assert f"data {tmp_path / 'data' / 'b'}: its content changed" in said


def test_what_was_begun_with_other_settings_is_set_aside_not_resumed(tmp_path):
    path = place(tmp_path, CONFIG.replace("steps: 20", "steps: 6000"), a="slow")
    with pytest.raises(KeyboardInterrupt):
        launch(path, listener=stopping("a"))
    remarks = []
    launch(place(tmp_path, CONFIG), listener=LaunchProgress(warn=remarks.append))
    assert any("a: begins anew" in text and "steps: 6000 there, 20 now" in text for text in remarks)
    assert (tmp_path / "ckpts.finetune" / "a~1" / "checkpoints" / "step").exists()
    assert seen(tmp_path)[-3]["first"] == 0


def test_all_missing_data_and_starts_are_listed_at_once_and_nothing_is_left(tmp_path):
    changed = CONFIG.replace("data/a", "gone/a").replace("data/b,", "gone/b,").replace("start: tiny", "start: nowhere")
    path = place(tmp_path, changed)
    (tmp_path / "ckpts.finetune" / "moods.json").unlink()
    (tmp_path / "ckpts.finetune").rmdir()
    said = refusal(path)
    assert all(word in said for word in ("gone/a", "gone/b", "start nowhere: no directory, no Hub id, no preset"))
    assert not (tmp_path / "ckpts.finetune").exists()
    assert not (tmp_path / "ckpts").exists()


def test_empty_data_sets_are_refused(tmp_path):
    path = place(tmp_path)
    (tmp_path / "data" / "a" / "data.json").write_text("[]")
    (tmp_path / "data" / "b" / "data.json").unlink()
    said = refusal(path)
    assert f"data set {tmp_path / 'data' / 'a'}: no rows were found in it" in said
    assert f"{tmp_path / 'data' / 'b'}: no data.json" in said


def test_added_sets_that_hold_what_others_hold_are_remarked_upon(tmp_path):
    path = place(tmp_path)
    copies = {"b": "a", "c": "base"}
    for name, other in copies.items():
        target = tmp_path / "data" / name
        for file in [*target.glob("images/*"), target / "data.json"]:
            file.unlink()
        for file in (tmp_path / "data" / other).rglob("*.*"):
            (target / file.relative_to(tmp_path / "data" / other)).write_bytes(file.read_bytes())
    remarks = []
    launch(path, listener=LaunchProgress(warn=remarks.append))
    assert remarks == [
        "b: the added data set holds just what a holds",
        "c: the added data set holds just what the base set holds",
    ]


def test_a_start_without_weights_or_config_is_told_before_any_job(tmp_path):
    (tmp_path / "start").mkdir()
    path = place(tmp_path, CONFIG.replace("start: tiny", "start: start"))
    assert "start" in refusal(path)
    assert not seen(tmp_path)


def test_the_same_path_for_two_checkpoints_is_told(tmp_path):
    clash = STAGE.replace("out: base", "out: b") + "out: .\n"
    assert "several checkpoints for one place" in refusal(place(tmp_path, clash))


def test_a_wrong_value_that_varies_is_told(tmp_path):
    said = refusal(place(tmp_path, CONFIG + "sweep: {lr: [1.0e-5, -1]}\n"))
    assert "a value of `sweep` is wrong" in said
    assert "lr" in said


@pytest.mark.parametrize("executor", ["cloud", "local:3", "slurm:x", "ray:"])
def test_an_unknown_place_is_told(tmp_path, executor):
    assert f"--executor {executor}: no such executor" in refusal(place(tmp_path), executor=executor)


def test_an_output_that_can_t_be_written_is_told(tmp_path):
    path = place(tmp_path, CONFIG + "out: file/ckpts\n")
    (tmp_path / "file").write_text("in the way")
    assert "can't be written" in refusal(path)


def test_a_disk_that_is_too_small_for_the_ingredients_is_told_before_any_job(tmp_path, monkeypatch):
    monkeypatch.setattr(job_plans, "_weights_bytes", lambda job: 2**60)
    with pytest.raises(OutputError, match=r"need 3458764\.51 TB by .* and .* [GT]B are free at"):
        launch(place(tmp_path))
    assert not seen(tmp_path)


def test_status_tells_of_every_job_in_one_document(tmp_path):
    path = place(tmp_path, b="fail")
    assert {row.state for row in status(path)} == {"not started"}
    refusal(path)
    document = status_json(status(path))
    assert document["schema"] == 1
    jobs = {row["name"]: row for row in document["jobs"]}
    assert [jobs[name]["state"] for name in NAMES] == ["done", "failed", "done"]
    assert jobs["b"]["why"] == "out of luck"
    assert jobs["a"]["log"] == str(tmp_path / "ckpts.finetune" / "a" / "log.txt")


def test_status_while_it_runs_tells_step_speed_and_time_left(tmp_path):
    path = place(tmp_path, a="slow")
    boards = []
    outside = []

    def board(rows):
        boards.append({row.name: row for row in rows})
        outside.append({row.name: row.state for row in status(path)})

    launch(path, listener=LaunchProgress(board=board))
    assert {"a": "running", "b": "waiting", "c": "waiting"} in outside
    running = next(board for board in boards if board["a"].state == "running" and board["a"].step)
    assert running["b"].state == "waiting"
    assert running["a"].left_seconds == pytest.approx(0.01 * (20 - running["a"].step))
    assert {row.state for row in boards[-1].values()} == {"done"}


def test_a_rehearsal_tells_all_and_leaves_nothing(tmp_path):
    path = place(tmp_path, STAGE)
    before = sorted(tmp_path.rglob("*"))
    plan = plan_dry_run(path)
    assert sorted(tmp_path.rglob("*")) == before
    start, a, *_ = plan["jobs"]
    assert (start["plan"], start["rows"], start["steps"]) == ("begin", 3, 5)
    assert (a["after"], a["rows"], a["steps"]) == ("start", 6, 20)
    assert a["command"].split()[1:] == ["-m", "finetune.training.job", str(tmp_path / "ckpts.finetune" / "a")]
    assert plan["seconds"] is None
    assert len(rows(plan)) == 4
    assert any(a["command"] in line for line in details(plan))


def test_a_rehearsal_reads_no_weights_where_nothing_was_trained_and_later_those_that_no_launch_read(
    tmp_path, monkeypatch
):
    path = place(tmp_path, points_start(tmp_path))
    read = []

    def digest(checkpoint, progress=None):
        read.append(checkpoint.path.name)
        return digest_checkpoint(checkpoint, progress)

    for module in ("soup.checkpoints.digest", "finetune.launching.digests"):
        monkeypatch.setattr(f"{module}.digest_checkpoint", digest)
    plans = [plan_dry_run(path)["jobs"][0]["plan"]]
    assert read == []
    launch(path)
    assert read == ["start"]
    plans.append(plan_dry_run(path)["jobs"][0]["plan"])
    assert read == ["start"]
    save_file({"llm.model.q_proj.weight": torch.ones(2, 2)}, tmp_path / "start" / "model.safetensors")
    with pytest.raises(FinetuneError, match="held other weights than"):
        plan_dry_run(path)
    assert (plans, read) == (["begin", "done"], ["start", "start"])


def test_a_rehearsal_tells_of_a_start_that_is_damaged(tmp_path):
    path = place(tmp_path, points_start(tmp_path))
    (tmp_path / "start" / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(FinetuneError, match=r"nothing was started.*\n.*model\.safetensors"):
        plan_dry_run(path)


def test_a_rehearsal_after_a_run_knows_how_long_steps_take(tmp_path):
    path = place(tmp_path)
    launch(path)
    data_set(tmp_path, "d")
    more = CONFIG.replace("c: data/c", "c: data/c, d: data/d")
    plan = plan_dry_run(place(tmp_path, more))
    assert [job["plan"] for job in plan["jobs"]] == ["done", "done", "done", "begin"]
    assert plan["jobs"][3]["seconds"] == pytest.approx(20 * 0.01)
    assert plan["seconds"] == pytest.approx(20 * 0.01)
    assert path.exists()


def test_several_gpus_are_several_processes_by_torchrun_on_any_free_port(tmp_path):
    path = place(tmp_path)
    job = plan_of(tmp_path)["a"]
    assert job_command(job, 1) == [sys.executable, "-m", "finetune.training.job", str(job.folder)]
    assert job_command(job, 4)[1:] == [
        *("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "4"),
        *("-m", "finetune.training.job", str(job.folder)),
    ]
    assert path.exists()


def test_the_launcher_imports_no_torch(tmp_path):
    place(tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "import soup.cli.training, soup.cli.console\n"
        "from tests.helpers import stand_in_jobs; from finetune.launching.launch import finetune\n"
        f"finetune({str(tmp_path / 'finetune.yaml')!r}, command=stand_in_jobs.command)\n"
        "heavy = {'torch', 'transformers', 'datasets', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_the_command_prints_checkpoints_status_and_plan(tmp_path):
    path = place(tmp_path)
    answers = {}
    for words in ([], ["--json"], ["--status", "--json"], ["--dry-run", "--json"], ["--status"], ["--dry-run"]):
        process = soup(path, *words)
        said, talk = process.communicate(timeout=120)
        assert process.returncode == 0, talk
        answers[" ".join(words)] = said
    ingredients = [str(tmp_path / "ckpts" / name) for name in NAMES]
    assert answers[""].split() == ingredients
    assert json.loads(answers["--json"])["checkpoints"] == ingredients
    assert {job["state"] for job in json.loads(answers["--status --json"])["jobs"]} == {"done"}
    assert {job["plan"] for job in json.loads(answers["--dry-run --json"])["jobs"]} == {"done"}
    assert answers["--status"].split()[:2] == ["job", "state"]
    assert answers["--dry-run"].split()[:2] == ["job", "plan"]


def test_the_check_looks_at_all_rows_and_its_exit_code_tells(tmp_path):
    path = place(tmp_path)  # whose pictures are no pictures
    process = soup(path, "--check", "--json")
    said, talk = process.communicate(timeout=120)
    assert process.returncode == 1, talk
    report = json.loads(said)
    assert report["ok"] is False
    assert [data_set["of"] for data_set in report["sets"]] == [["base"], *([name] for name in NAMES)]
    assert [data_set["bad"] for data_set in report["sets"]] == [3] * 4
    for image in tmp_path.glob("data/*/images/*.png"):
        Image.new("RGB", (8, 8)).save(image)
    process = soup(path, "--check")
    said, talk = process.communicate(timeout=120)
    assert process.returncode == 0, talk
    assert "0 problems" in said


def test_a_check_with_decoding_finds_pictures_that_are_damaged_and_writes_all_bad_rows(tmp_path):
    path = place(tmp_path)
    for image in tmp_path.glob("data/*/images/*.png"):
        Image.effect_noise((64, 64), 50).save(image)
    assert check(path).ok
    cut = tmp_path / "data" / "b" / "images" / "b0.png"
    content = cut.read_bytes()
    cut.write_bytes(content[:2000] + b"\xff" * 99 + content[-99:])
    assert check(path).ok, "its header and its end are whole"
    report = check(path, decode=True, faults_to=tmp_path / "bad.jsonl")
    assert [data_set.faults for data_set in report.sets] == [{}, {}, {"image_unreadable": 1}, {}]
    assert json.loads((tmp_path / "bad.jsonl").read_text())["row"] == 0


def test_a_wrong_value_of_what_varies_is_told_by_every_way_to_ask(tmp_path):
    path = place(tmp_path, CONFIG + "sweep: {lr: [1.0e-5, -1]}\n")
    for ask in (check, status, plan_dry_run, plan_launch):
        with pytest.raises(FinetuneError, match=r"`sweep` is wrong\.\n  - lr: Input should be greater than 0"):
            ask(path)


def test_options_that_exclude_each_other_are_a_wrong_usage(tmp_path):
    process = soup(place(tmp_path), "--status", "--dry-run")
    _, talk = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "exclude each other" in talk
    process = soup(place(tmp_path), "--decode")
    _, talk = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "--decode, --bad-rows and --show go with --check" in talk


def test_a_failure_is_exit_code_1(tmp_path):
    process = soup(place(tmp_path, b="fail"))
    said, talk = process.communicate(timeout=60)
    assert (process.returncode, said) == (1, "")
    assert "b failed: out of luck" in talk


def test_an_added_set_whose_name_begins_with_another_s_is_told_as_its_twin_all_the_same(tmp_path):
    data_set(tmp_path, "a-b")
    place(tmp_path, CONFIG.replace("b: data/b, c: data/c", "a-b: data/a"))
    remarks = plan_launch(tmp_path / "finetune.yaml").remarks
    assert remarks == ("a-b: the added data set holds just what a holds",)


def points_start(root):
    """A start with the tensors of a POINTS model, and nothing else of it."""
    start = root / "start"
    start.mkdir()
    names = ("general_vit.layers.0.w", "llm.model.q_proj.weight", "vision_projector.0.weight")
    save_file({name: torch.zeros(2, 2) for name in names}, start / "model.safetensors")
    (start / "config.json").write_text('{"model_type": "points"}')
    return CONFIG.replace("start: tiny", "start: start")


def test_what_settings_name_in_vain_is_told_before_any_job_and_once_for_all(tmp_path, monkeypatch):
    find, absent = importlib.util.find_spec, ("trackio", "wandb")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in absent else find(name))
    wrong = "freeze: [general_vt, llm.model]\ntrain: {ocr_vit: all}\nlr_overrides: {visual: 1.0e-5}\nparallel: fsdpp\n"
    wrong += "log_to: [tensorboard, trackio, wandb]\n"
    said = refusal(place(tmp_path, points_start(tmp_path) + wrong + "lora: {target: q_proj}\n"))
    assert said.count("freeze: no part is called general_vt. Did you mean 'general_vit'?") == 1
    assert "train: no part is called ocr_vit" in said
    assert "lr_overrides: no part is called visual" in said
    assert "lora.target 'q_proj' matches no linear layer; it has to match the whole name: .*q_proj.* takes in" in said
    for name in absent:
        assert said.count(f"log_to: {name} is not installed: pip install {name}") == 1
    assert "parallel: fsdpp is no file and no name. Did you mean 'fsdp'?" in said
    assert "llm.model" not in said.replace("llm.model.q_proj", "")
    assert not seen(tmp_path)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ("freeze: [general_vit, llm, vision_projector]\n", "nothing is left to train: all parts are frozen"),
        ("train: {general_vit: none, llm: none, vision_projector: none}\n", "nothing is left to train"),
        ("train: {general_vit: last 2}\n", "train.general_vit: has 1 layer, fewer than 2"),
        ("train: {general_vit: last 1, llm: last 1}\n", "train.llm: has 0 layers, fewer than 1"),
        ("freeze: [llm]\ntrain: {llm: last 1}\n", "llm: both in freeze and in train or lora.save"),
        ("freeze: [llm]\nlr_overrides: {llm: 1.0e-5}\n", "lr_overrides.llm: nothing of it is trained"),
        (
            "lora: {save: []}\nlr_overrides: {vision_projector: 1.0e-5}\n",
            "vision_projector: nothing of it is trained",
        ),
    ],
)
def test_settings_by_which_a_start_would_not_learn_are_told_before_any_job(tmp_path, wrong, why):
    path = place(tmp_path, points_start(tmp_path) + wrong)
    assert refusal(path).count(why) == 1
    assert not seen(tmp_path)


def test_examples_that_a_data_set_has_too_few_rows_for_are_told_before_any_job(tmp_path):
    path = place(tmp_path, CONFIG.replace("data: data/base", "data: {path: data/base, shots: 1000}"))
    assert "data/base: shots 1000: expected more rows than that, found " in refusal(path)


def test_a_data_set_none_of_whose_pictures_is_there_is_a_remark(tmp_path):
    data_set(tmp_path, "pictures")
    text = CONFIG.replace("a: data/a,", "a: {path: data/pictures, images: IMAGES},")
    assert text != CONFIG
    path = place(tmp_path, text.replace("IMAGES", "data/a"))
    (remark,) = plan_dry_run(path)["remarks"]
    assert f"none of the 3 pictures that its rows name is in {tmp_path / 'data' / 'a'}: `images` says" in remark
    path.write_text(text.replace("IMAGES", "data/pictures"))
    assert plan_dry_run(path)["remarks"] == []


def test_a_dry_run_remarks_where_nothing_of_another_family_seems_to_be_trained(tmp_path):
    path = place(tmp_path, points_start(tmp_path) + "freeze: [general_vit, llm, vision_projector]\n")
    (tmp_path / "start" / "config.json").write_text('{"model_type": "llava"}')
    (remark,) = plan_dry_run(path)["remarks"]
    assert "a, b, c: by the tensors' names in files nothing would be trained; --check tells for sure" in remark


def test_a_part_that_is_trained_within_a_frozen_one_is_no_fault(tmp_path):
    frozen = "freeze: [general_vit, llm, vision_projector]\ntrain: {llm.model.q_proj: all}\n"
    assert plan_launch(place(tmp_path, points_start(tmp_path) + frozen), writing=False).jobs


def test_a_part_that_is_trained_in_full_beside_adapters_is_no_fault(tmp_path):
    beside = "lora: {save: []}\ntrain: {general_vit: all}\nlr_overrides: {general_vit: 1.0e-5}\n"
    assert plan_launch(place(tmp_path, points_start(tmp_path) + beside), writing=False).jobs


def test_parts_that_a_start_has_are_no_fault(tmp_path):
    right = "freeze: [general_vit]\nlr_overrides: {q_proj: 1.0e-5}\nlora: {target: '.*q_proj'}\nparallel: zero2\n"
    assert len(launch(place(tmp_path, points_start(tmp_path) + right))) == 3


def test_a_language_model_as_the_start_is_told_before_any_job(tmp_path):
    text = points_start(tmp_path)
    (tmp_path / "start" / "config.json").write_text('{"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}')
    said = refusal(place(tmp_path, text))
    assert "a language model (Qwen2ForCausalLM), no vision-language model" in said
    assert not seen(tmp_path)
