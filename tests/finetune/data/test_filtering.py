"""The filter by perplexity, with losses that are known: which rows are kept, and that nothing else decides it."""

from __future__ import annotations

import json
import math
import random
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from finetune.config import DataSet
from finetune.data import filter_report
from finetune.data.corpus import Corpus
from finetune.data.filtering import KeepRule, RowFilter, scores_path
from finetune.data.row_output import RowJournal, write_lines
from finetune.data.source_rows import SourceRows, plain_json
from soup.errors import FinetuneError, OutputError
from soup.evaluation.answer_loss import AnswerLoss


def row(answer, image=None, question="Describe it."):
    turns = [{"from": "human", "value": "<image>\n" * bool(image) + question}, {"from": "gpt", "value": answer}]
    return {"conversations": turns, **({"image": image} if image else {})}


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def loss_of(answer):
    """Few values, so that there are ties; and answers that have none."""
    return zlib.crc32(answer.encode()) % 5 / 4


class Losses:
    """Computes made-up losses, some tasks at a time in another order, and may be killed after some."""

    def __init__(self, window=1, dies_after=None, seed=0):
        self.window, self.dies_after, self.random = window, dies_after, random.Random(seed)
        self.asked, self.answered = [], []

    def __call__(self, tasks):
        waiting, given_back = [], 0
        for task in tasks:
            waiting.append(task)
            self.asked.append(task.answer)
            while len(waiting) >= self.window:
                yield self.loss(waiting.pop(self.random.randrange(len(waiting))))
                given_back += 1
                if given_back == self.dies_after:
                    raise KeyboardInterrupt
        yield from map(self.loss, waiting)

    def loss(self, task):
        self.answered.append(task.answer)
        failure = "no such luck" if task.answer.startswith("bad") else None
        return AnswerLoss(task.index, failure=failure) if failure else AnswerLoss(task.index, loss_of(task.answer), 3)


def run(source, out, losses=None, rule=None):
    return RowFilter(SourceRows(DataSet(path=str(source))), out).run(losses or Losses(), rule or KeepRule())


ANSWERS = st.lists(st.sampled_from([f"{kind} {k}" for kind in ("a tree", "bad") for k in range(12)]), min_size=1)


@settings(
    max_examples=8,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(ANSWERS, st.randoms(), st.integers(1, 6), st.integers(1, 30), st.sampled_from([0.07, 0.2, 0.5, 1.0]))
@example([f"a tree {k}" for k in range(12)] * 2, random.Random(1), 3, 4, 0.5)  # ties across the border
def test_order_of_rows_workers_and_kills_change_no_byte(tmp_path, answers, shuffler, window, dies_after, keep):
    shutil.rmtree(tmp_path / "x", ignore_errors=True)
    source, other = write(tmp_path / "x/in.jsonl", map(row, answers)), tmp_path / "x/other.jsonl"
    shuffled = [*answers]
    shuffler.shuffle(shuffled)
    write(other, map(row, shuffled))
    good = [answer for answer in answers if not answer.startswith("bad")]
    if not good:
        with pytest.raises(FinetuneError, match="could be scored: no such luck"):
            run(source, tmp_path / "x/out.jsonl", rule=KeepRule(keep))
        return
    run(source, tmp_path / "x/out.jsonl", rule=KeepRule(keep))
    for again, name in ((source, "again"), (other, "shuffled")):
        out, losses = tmp_path / f"x/{name}.jsonl", Losses(window, dies_after)
        try:
            run(again, out, losses, KeepRule(keep))
        except KeyboardInterrupt:
            assert not out.exists()
            rest = Losses(window)
            run(again, out, rest, KeepRule(keep))
            assert not {*rest.asked} & {*losses.answered} & {*good}
        assert out.read_bytes() == (tmp_path / "x/out.jsonl").read_bytes()
    scores = [scores_path(tmp_path / f"x/{name}.jsonl").read_bytes() for name in ("out", "again")]
    assert scores[0] == scores[1]
    kept = [line["conversations"][1]["value"] for line in read(tmp_path / "x/out.jsonl")]
    assert len(kept) == -(-round(keep * 100) * len(good) // 100)
    assert sorted(map(loss_of, good))[: len(kept)] == list(map(loss_of, kept))


def test_every_row_has_a_score_or_the_reason_why_not(tmp_path):
    rows = [row("a"), row("b", "none.png"), row("bad luck"), {"text": "no row"}]
    rows.append({"conversations": row("c")["conversations"] * 2})
    (tmp_path / "torn.png").write_text("no picture")
    rows += [row("d", "torn.png"), {"video": "clip", "conversations": row("e", "clip")["conversations"]}]
    source = write(tmp_path / "in.jsonl", rows)
    source.write_text(source.read_text() + '{"torn')
    run(source, tmp_path / "out.jsonl")
    facts, *lines = read(scores_path(tmp_path / "out.jsonl"))
    assert facts == {"schema": 1, "request": None}
    assert [line["row"] for line in lines] == [*range(8)]
    assert lines[0]["perplexity"] == math.exp(loss_of("a"))
    assert (lines[0]["tokens"], lines[0]["characters"], lines[0]["kept"]) == (3, 1, True)
    reasons = ["image 1 (", "no such luck", "conversations", "one question and one answer", "image 1 (", "a video"]
    reasons.append("not a row in JSON")
    assert [why in line["failure"] for why, line in zip(reasons, lines[1:], strict=True)] == [True] * 7
    assert not any("in.jsonl" in line.get("failure", "") for line in lines[:7]), "`where` has it"


def test_rows_with_less_than_a_perplexity_are_kept(tmp_path):
    answers = [f"a {k}" for k in range(40)]
    source = write(tmp_path / "in.jsonl", map(row, answers))
    run(source, tmp_path / "out.jsonl", rule=KeepRule(below=math.exp(0.5)))
    kept = [loss_of(line["conversations"][1]["value"]) for line in read(tmp_path / "out.jsonl")]
    assert kept == sorted(loss_of(answer) for answer in answers if loss_of(answer) < 0.5)
    assert 0 < len(kept) < len(answers)


def test_the_share_is_the_number_that_was_typed_and_rounded_up():
    kept = [KeepRule(share).count(np.zeros(rows)) for share, rows in ((0.07, 100), (0.2, 5), (0.2, 6), (1.0, 3))]
    assert kept == [7, 1, 2, 3]


@pytest.mark.parametrize(
    "values", [{"share": 0}, {"share": 1.5}, {"share": math.nan}, {"below": 1.0}, {"below": math.nan}], ids=str
)
def test_a_rule_that_is_none_is_refused(values):
    with pytest.raises(FinetuneError, match="found"):
        KeepRule(**values)


def prompt_of(source, request=None):
    prompts = []

    def losses(tasks):
        for task in tasks:
            prompts.append([part["value"] if part["type"] == "text" else "image" for part in task.prompt])
            yield AnswerLoss(task.index, 0.5, 1)

    out = source.with_name(f"{request is None}.jsonl")
    RowFilter(SourceRows(DataSet(path=str(source))), out, request).run(losses, KeepRule())
    return prompts


def test_a_prompt_is_the_row_s_pictures_and_question_or_the_request_behind_the_pictures(tmp_path):
    picture(tmp_path / "a.png")
    source = write(tmp_path / "in.jsonl", [row("a", "a.png", " What is it? "), row("b", "a.png", "")])
    assert prompt_of(source) == [["image", "What is it?"], ["image"]]
    assert prompt_of(source, "Describe.") == [["image", "Describe."]] * 2


def test_each_row_is_told_as_it_is_done(tmp_path):
    source = write(tmp_path / "in.jsonl", map(row, ["a", "b", "a", "bad luck"]))
    calls = []
    task = RowFilter(SourceRows(DataSet(path=str(source))), tmp_path / "out.jsonl")
    for _ in range(2):
        task.run(Losses(), KeepRule(), lambda *counts: calls.append(counts))
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)] * 2


def test_rows_with_the_same_content_are_computed_once_whatever_the_order_of_their_keys(tmp_path):
    one = row("a") | {"id": 3}
    source, losses = write(tmp_path / "in.jsonl", [one, dict(reversed(one.items()))]), Losses()
    run(source, tmp_path / "out.jsonl", losses, KeepRule(1.0))
    assert (losses.asked, len(read(tmp_path / "out.jsonl"))) == (["a"], 2)


def test_what_json_has_no_word_for_is_written_as_it_can():
    values = {"nan": math.nan, "inf": -math.inf, "bytes": b"x", "pair": (1, 2.5), "path": Path("a")}
    assert plain_json(values) == {"nan": None, "inf": None, "bytes": "eA==", "pair": [1, 2.5], "path": "a"}


def test_a_perplexity_that_no_number_holds_is_none_and_its_row_comes_last(tmp_path):
    source = write(tmp_path / "in.jsonl", map(row, ["900", "1"]))
    task = RowFilter(SourceRows(DataSet(path=str(source))), tmp_path / "out.jsonl")
    table = task.run(by_number, KeepRule(1.0))
    assert [line["perplexity"] for line in read(scores_path(task.out))[1:]] == [None, math.exp(1)]
    assert [line["conversations"][1]["value"] for line in read(task.out)] == ["1", "900"]
    assert filter_report.as_json(task, table)["kept"]["perplexity"] == [math.exp(1), None]


def by_number(tasks):
    """Losses that the answers say, of as many tokens and one more."""
    for task in tasks:
        yield AnswerLoss(task.index, float(task.answer), int(task.answer) + 1)


def test_the_report_shows_both_ends_and_the_border_with_lengths_and_bars(tmp_path):
    source = write(tmp_path / "in.jsonl", [row(str(19 - k)) for k in range(20)])
    task = RowFilter(SourceRows(DataSet(path=str(source))), tmp_path / "out.jsonl")
    report = filter_report.as_json(task, task.run(by_number, KeepRule(0.5)))
    shown = {title: [int(entry["answer"]) for entry in entries] for title, entries in report["gallery"].items()}
    assert shown == {
        "likeliest": [*range(6)],
        "last kept": [*range(4, 10)],
        "first dropped": [*range(10, 16)],
        "least likely": [*range(14, 20)],
    }
    assert report["kept"]["tokens"] == {"p5": 1.4, "p25": 3.2, "median": 5.5, "p75": 7.8, "p95": 9.5}
    assert report["dropped"]["perplexity"] == [math.exp(10), math.exp(19)]
    assert [sum(report["histogram"][name][:15]) for name in ("kept", "dropped")] == [10, 0]
    page = filter_report.as_page(task, report)
    assert page.count('height="200.0"><title>') == 20, "each bar is the only row of its bin, as high as the picture"


def test_answers_that_differ_in_case_and_spaces_alone_are_repeated(tmp_path):
    source = write(tmp_path / "in.jsonl", map(row, ["A  Tree", "a tree", "a bush"]))
    task = RowFilter(SourceRows(DataSet(path=str(source))), tmp_path / "out.jsonl")
    report = filter_report.as_json(task, task.run(Losses(), KeepRule(1.0)))
    assert (report["kept"]["repeated_answers"], report["kept"]["most_repeated"]) == (1, 2)


def test_a_finished_filter_with_another_share_computes_nothing(tmp_path):
    source = write(tmp_path / "in.jsonl", map(row, ["a", "b", "a", "c"]))
    first, again = Losses(), Losses()
    run(source, tmp_path / "out.jsonl", first)
    run(source, tmp_path / "out.jsonl", again, KeepRule(1.0))
    assert (sorted(first.asked), again.asked, len(read(tmp_path / "out.jsonl"))) == (["a", "b", "c"], [], 4)


def test_a_torn_line_is_a_row_that_is_computed_again(tmp_path):
    source, out = write(tmp_path / "in.jsonl", map(row, ["a", "b", "c"])), tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run(source, out, Losses(dies_after=2))
    journal = scores_path(out)
    journal.write_bytes(journal.read_bytes()[:-9])
    again = Losses(dies_after=1)
    with pytest.raises(KeyboardInterrupt):
        run(source, out, again)
    rest = Losses()
    run(source, out, rest, KeepRule(1.0))
    assert (again.asked, rest.asked, len(read(out))) == (["b"], ["c"], 3)


def test_a_journal_of_which_a_kill_left_half_a_line_begins_anew(tmp_path):
    source, out = write(tmp_path / "in.jsonl", map(row, ["a", "b"])), tmp_path / "out.jsonl"
    scores_path(out).write_text('{"schema": 1, "re')
    run(source, out)
    assert [line.get("id") is None for line in read(scores_path(out))] == [True, False, False]


def test_what_stands_in_a_journal_s_place_is_told(tmp_path):
    (tmp_path / "out.scores.jsonl").mkdir()
    with pytest.raises(FinetuneError, match=r"out\.scores\.jsonl: expected a file, or nothing"):
        RowJournal(tmp_path / "out.scores.jsonl", {})


def test_rows_that_can_t_be_written_leave_what_was_there(tmp_path):
    def rows():
        yield {"a": 1}
        raise RuntimeError

    (tmp_path / "out.jsonl").write_text("before")
    with pytest.raises(RuntimeError):
        write_lines(tmp_path / "out.jsonl", rows())
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"out.jsonl": "before"}


def test_scores_of_another_model_are_refused(tmp_path):
    source, rows = write(tmp_path / "in.jsonl", [row("a")]), None
    run(source, tmp_path / "out.jsonl")
    rows = SourceRows(DataSet(path=str(source)))
    with pytest.raises(FinetuneError, match=r"was made otherwise \(model was not set, is b\)"):
        RowFilter(rows, tmp_path / "out.jsonl", facts={"model": "b"}).run(Losses(), KeepRule())


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 10), "red").save(path)
    return path.read_bytes()


def test_pictures_that_were_bytes_lie_on_the_disk_until_their_row_is_done(tmp_path):
    datasets = pytest.importorskip("datasets")
    content = picture(tmp_path / "a.png")
    rows = [row(answer, {"bytes": content, "path": None}) for answer in "abc"]
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "in.parquet")
    paths = []

    def losses(tasks):
        for task in tasks:
            paths.append(Path(task.prompt[0]["value"]))
            assert [path.exists() for path in paths] == [False] * (len(paths) - 1) + [True]
            yield AnswerLoss(task.index, 0.5, 1)

    run(tmp_path / "in.parquet", tmp_path / "out.jsonl", losses)
    assert len(set(paths)) == 3


@pytest.mark.parametrize("kind", ["path", "bytes", "part", "absolute", "list"])
def test_kept_rows_are_a_data_set_in_another_folder(tmp_path, kind):
    content = picture(tmp_path / "data/pics/a.png")
    rows = [row("a", "pics/a.png")]
    if kind == "absolute":
        rows = [row("a", str(tmp_path / "data/pics/a.png"))]
    if kind == "list":
        rows = [{"images": ["pics/a.png"], "conversations": row("a", "pics/a.png")["conversations"]}]
    if kind == "part":
        parts = [{"type": "image", "image": "pics/a.png"}, {"type": "text", "text": "What?"}]
        rows = [{"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "a"}]}]
    source = write(tmp_path / "data/in.jsonl", rows)
    if kind == "bytes":
        datasets = pytest.importorskip("datasets")
        source = tmp_path / "data/in.parquet"
        datasets.Dataset.from_list([row("a", {"bytes": content, "path": None})]).to_parquet(source)
    out = tmp_path / "elsewhere/deep/out.jsonl"
    seen = []

    def losses(tasks):
        for task in tasks:
            seen.append(Path(next(part["value"] for part in task.prompt if part["type"] == "image")).read_bytes())
            yield AnswerLoss(task.index, 0.5, 1)

    run(source, out, losses)
    [sample] = Corpus([DataSet(path=str(out))])
    assert seen == [content]
    assert len(sample["images"]) == 1
    task = RowFilter(SourceRows(DataSet(path=str(out))), out)
    report = filter_report.as_json(task, run(out, tmp_path / "b.jsonl"))
    page = filter_report.as_page(task, report)
    assert page.count("<img") == 2


def test_the_report_counts_lengths_and_repetitions_of_kept_and_dropped(tmp_path):
    likely = next(f"a {k}" for k in range(50) if loss_of(f"a {k}") == 0)
    rare = next(f"<b> {k}" for k in range(50) if loss_of(f"<b> {k}") == 1)
    source = write(tmp_path / "in.jsonl", [row(likely)] * 3 + [row(rare), row(rare + " "), row("bad")])
    task = RowFilter(SourceRows(DataSet(path=str(source))), tmp_path / "out.jsonl")
    report = filter_report.as_json(task, task.run(Losses(), KeepRule(0.5)))
    assert (report["rows"], report["scored"], report["failed"]) == (6, 5, 1)
    assert (report["kept"]["rows"], report["kept"]["repeated_answers"], report["kept"]["most_repeated"]) == (3, 2, 3)
    assert (report["dropped"]["rows"], report["dropped"]["repeated_answers"]) == (2, 1)
    assert (sum(report["histogram"]["kept"]), sum(report["histogram"]["dropped"])) == (3, 2)
    assert report["kept"]["perplexity"] == [1.0, 1.0]
    assert report["gallery"]["least likely"][-1]["answer"] == rare
    page = filter_report.as_page(task, report)
    assert "&lt;b&gt;" in page
    assert "<b> " not in page
    assert "no such luck: 1" in page


def test_one_run_at_a_time_writes_to_a_journal(tmp_path):
    source, out = write(tmp_path / "in.jsonl", [row(f"a tree {k}") for k in range(3)]), tmp_path / "out.jsonl"

    def another(tasks):
        with pytest.raises(OutputError, match=r"out\.scores\.jsonl: another run is writing it just now"):
            run(source, out)
        yield from Losses()(tasks)

    run(source, out, another)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl", "out.scores.jsonl"]


def test_what_another_run_wrote_meanwhile_is_known_and_kept(tmp_path):
    source = write(tmp_path / "in.jsonl", [row(f"a tree {k}") for k in range(3)])
    task = RowFilter(SourceRows(DataSet(path=str(source))), tmp_path / "out.jsonl")
    waiting = task.journal()
    task.run(Losses(), KeepRule())
    with waiting as journal:
        assert len(journal.rows) == 3
    assert len(task.journal().rows) == 3


@pytest.mark.parametrize("changed", [{"format": "llava"}, {"images": "elsewhere"}])
def test_scores_of_rows_that_were_read_otherwise_are_not_taken(tmp_path, changed):
    source, out = write(tmp_path / "in.jsonl", [row("a tree")]), tmp_path / "out.jsonl"
    run(source, out)
    with pytest.raises(FinetuneError, match=rf"was made otherwise \({next(iter(changed))}.* was not set, is "):
        RowFilter(SourceRows(DataSet(path=str(source), **changed)), out).run(Losses(), KeepRule())


def test_pictures_are_found_from_a_folder_that_is_a_link(tmp_path):
    (tmp_path / "disk/deep/out").mkdir(parents=True)
    (tmp_path / "data").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk/deep/out")
    (tmp_path / "pictures").symlink_to(tmp_path / "disk")
    Image.new("RGB", (8, 8)).save(tmp_path / "disk/a.png")
    source = write(tmp_path / "data/in.jsonl", [row("a tree", "../pictures/a.png")])
    run(source, tmp_path / "out/kept.jsonl")
    [kept] = read(tmp_path / "out/kept.jsonl")
    assert (tmp_path / "out" / kept["image"]).samefile(tmp_path / "disk/a.png")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(
    ("opened", "file"), [("out.scores.jsonl", "out.scores.jsonl"), (".out.jsonl.new", "out.jsonl")]
)
def test_a_full_disk_is_told_with_the_file(tmp_path, monkeypatch, opened, file):
    source, original = write(tmp_path / "in.jsonl", [row("a tree")]), Path.open

    def open_full(path, mode="r", **more):
        return original(Path("/dev/full") if path.name == opened and mode != "rb" else path, mode, **more)

    monkeypatch.setattr(Path, "open", open_full)
    with pytest.raises(OSError, match="No space left") as error:
        run(source, tmp_path / "out.jsonl")
    assert error.value.filename == str(tmp_path / file)
    assert not (tmp_path / "out.jsonl").exists()
    assert not list(tmp_path.glob(".*"))
