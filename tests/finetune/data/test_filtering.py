"""The filter by perplexity, with losses that are known: which rows are kept, and that nothing else decides it."""

from __future__ import annotations

import json
import math
import random
import shutil
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from finetune.config import DataSet
from finetune.data import filter_report
from finetune.data.corpus import Corpus
from finetune.data.filtering import KeepRule, RowFilter, scores_path
from finetune.data.source_rows import SourceRows
from soup.errors import FinetuneError
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
    source = write(tmp_path / "in.jsonl", rows)
    source.write_text(source.read_text() + '{"torn')
    run(source, tmp_path / "out.jsonl")
    facts, *lines = read(scores_path(tmp_path / "out.jsonl"))
    assert facts == {"schema": 1, "request": None}
    assert [line["row"] for line in lines] == [*range(6)]
    assert lines[0]["perplexity"] == math.exp(loss_of("a"))
    assert (lines[0]["tokens"], lines[0]["characters"], lines[0]["kept"]) == (3, 1, True)
    reasons = ["no such file", "no such luck", "conversations", "one question and one answer", "not a row in JSON"]
    assert [why in line["failure"] for why, line in zip(reasons, lines[1:], strict=True)] == [True] * 5


def test_rows_with_less_than_a_perplexity_are_kept(tmp_path):
    answers = [f"a {k}" for k in range(40)]
    source = write(tmp_path / "in.jsonl", map(row, answers))
    run(source, tmp_path / "out.jsonl", rule=KeepRule(below=math.exp(0.5)))
    kept = [loss_of(line["conversations"][1]["value"]) for line in read(tmp_path / "out.jsonl")]
    assert kept == sorted(loss_of(answer) for answer in answers if loss_of(answer) < 0.5)
    assert 0 < len(kept) < len(answers)


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
    again = Losses()
    run(source, out, again, KeepRule(1.0))
    assert (again.asked, len(read(out))) == (["b", "c"], 3)


def test_scores_of_another_model_are_refused(tmp_path):
    source, rows = write(tmp_path / "in.jsonl", [row("a")]), None
    run(source, tmp_path / "out.jsonl")
    rows = SourceRows(DataSet(path=str(source)))
    with pytest.raises(FinetuneError, match=r"was made otherwise \(model differ\)"):
        RowFilter(rows, tmp_path / "out.jsonl", facts={"model": "b"}).run(Losses(), KeepRule())


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 10), "red").save(path)
    return path.read_bytes()


@pytest.mark.parametrize("kind", ["path", "bytes", "part", "absolute"])
def test_kept_rows_are_a_data_set_in_another_folder(tmp_path, kind):
    content = picture(tmp_path / "data/pics/a.png")
    rows = [row("a", "pics/a.png")]
    if kind == "absolute":
        rows = [row("a", str(tmp_path / "data/pics/a.png"))]
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
