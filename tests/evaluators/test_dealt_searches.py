"""Real worker processes: one candidate's questions over all of them, with the answers, scores and soup of one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evaluators.vlmeval.harness import VLMEval
from soup.errors import EvaluatorError
from soup.evaluation.dealing import MissingFilesError
from soup.evaluation.settings import EvalSettings
from tests.helpers import flat_arguments as flat
from tests.helpers.toy_pools import make_pool, tree
from tests.helpers.toy_test_sets import mmbench_rows, ocrbench_rows, write_tsv

HEADS = {"a": (1, 2, 3, 9), "b": (1, 2, 9, 4), "c": (9, 2, 3, 4)}

# It answers by its weights and the question alone, and notes which process answered how many. What is in its `mood`
# file is done before an answer.
MODEL = """
import hashlib, os, signal, time
from pathlib import Path

HERE = Path(__file__).parent


class Hashing:
    def __init__(self, directory):
        self.weights = b"".join(file.read_bytes() for file in sorted(Path(directory).glob("*.safetensors")))

    def answer(self, prompts):
        with (HERE / "notes").open("a") as notes:
            notes.write(f"{os.getpid()} {len(prompts)}\\n")
        try:
            mood = (HERE / "mood").read_text()
        except FileNotFoundError:
            mood = ""
        exec(mood)
        return [self.reply(prompt) for prompt in prompts]

    def reply(self, prompt):
        text = "".join(part["value"] for part in prompt if part["type"] == "text")
        assert all(Path(part["value"]).is_file() for part in prompt if part["type"] == "image")
        drawn = hashlib.sha256(self.weights + text.encode()).digest()[0]
        right = max("ABCD", key=lambda letter: f"{letter}. w" in text and "x0" in text.partition(f"{letter}. w")[2][:4])
        return right if drawn % 4 else "ABCD"[drawn // 4 % 4]
"""


@pytest.fixture
def settings(tmp_path, monkeypatch):
    root = tmp_path / "LMUData"
    write_tsv(root / "MMBench_DEV_EN.tsv", mmbench_rows(30))
    write_tsv(root / "OCRBench.tsv", ocrbench_rows(40))
    monkeypatch.setenv("LMUData", str(root))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.py").write_text(MODEL)
    return EvalSettings(model=f"{tmp_path / 'model' / 'model.py'}:Hashing", batch_size=4)


@pytest.fixture
def pool(tmp_path):
    return make_pool(tmp_path / "ckpts", HEADS)


def search(tmp_path, pool, settings, name, **options):
    run = tmp_path / f"{name}.soup"
    names = ["mmbench,ocrbench"]
    made = flat.cook("greedy", pool=pool, eval=names, out=tmp_path / name, run_dir=run, settings=settings, **options)
    facts = [(trial.names, trial.overall, made.accepted(trial)) for trial in made.trials]
    return facts, tree(tmp_path / name), journal(run, made), answers(run, made)


def journal(run, made):
    """What the journal says of the trials, but for when it was and how long it took."""
    digests = {trial.recipe.digest for trial in made.trials}
    entries = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    lines = [{k: v for k, v in entry.items() if k not in ("seconds", "time", "at")} for entry in entries]
    lines = [entry for entry in lines if any(digest in json.dumps(entry) for digest in digests)]
    return sorted(json.dumps(entry, sort_keys=True) for entry in lines)


def answers(run, made):
    folders = {trial.recipe.digest[7:19] for trial in made.trials}
    files = [file for file in (run / "answers").rglob("*.jsonl") if file.parent.name in folders]
    return {f"{file.parent.name}/{file.name}": sorted(file.read_text().splitlines()) for file in files}


def notes(settings):
    lines = Path(settings.model.rpartition(":")[0]).with_name("notes").read_text().splitlines()
    return [tuple(map(int, line.split())) for line in lines]


def mood(settings, what):
    Path(settings.model.rpartition(":")[0]).with_name("mood").write_text(what)


def test_two_workers_share_each_candidate_with_the_answers_scores_and_bytes_of_one_process(tmp_path, pool, settings):
    alone = search(tmp_path, pool, settings, "alone")
    count_alone = sum(count for _, count in notes(settings))
    both = search(tmp_path, pool, settings, "both", workers=2)
    assert both == alone
    assert alone[2], "there is a journal to compare"
    assert alone[3], "there are answers to compare"
    assert len({process for process, _ in notes(settings)}) == 3
    assert sum(count for _, count in notes(settings)) - count_alone >= count_alone
    assert {path.name for path in (tmp_path / "both.soup").iterdir()} == {
        path.name for path in (tmp_path / "alone.soup").iterdir()
    } | {"logs"}


@pytest.mark.slow
def test_a_worker_that_dies_at_a_chunk_is_replaced_and_all_is_as_with_one_process(tmp_path, pool, settings):
    alone = search(tmp_path, pool, settings, "alone")
    mood(settings, "(HERE / 'mood').unlink(missing_ok=True); os.kill(os.getpid(), signal.SIGKILL)")
    assert search(tmp_path, pool, settings, "both", workers=2) == alone


@pytest.mark.slow
def test_a_chunk_that_kills_two_workers_is_an_error_with_the_worker_s_log(tmp_path, pool, settings):
    mood(settings, "print('last words', flush=True); os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(EvaluatorError, match=r"(?s)ended twice, killed by signal 9\. Its log.*last words"):
        search(tmp_path, pool, settings, "both", workers=2)
    assert not (tmp_path / "both").exists()


@pytest.mark.slow
def test_a_timeout_holds_where_chunks_are_dealt_out(tmp_path, pool, settings):
    mood(settings, "time.sleep(600)")
    settings = EvalSettings(model=settings.model, batch_size=4, timeout_seconds=8)
    with pytest.raises(EvaluatorError, match="no answer within 8 seconds"):
        search(tmp_path, pool, settings, "both", workers=2)


@pytest.mark.slow
def test_what_was_answered_before_an_error_is_not_asked_again(tmp_path, pool, settings):
    mood(settings, "if sum(1 for _ in (HERE / 'notes').open()) > 6: raise ValueError('out of ideas')")
    with pytest.raises(EvaluatorError, match="out of ideas"):
        search(tmp_path, pool, settings, "both", workers=2)
    kept = sum(len(file.read_text().splitlines()) for file in (tmp_path / "both.soup" / "answers").rglob("*.jsonl"))
    assert kept > 0
    mood(settings, "")
    before = sum(count for _, count in notes(settings))
    search(tmp_path, pool, settings, "both")
    again = sum(count for _, count in notes(settings)) - before
    search(tmp_path, pool, settings, "alone")
    assert again + kept == sum(count for _, count in notes(settings)) - before - again


@pytest.mark.slow
def test_actors_on_two_nodes_of_a_cluster_give_the_journal_of_one_process(tmp_path, pool, settings):
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    alone = search(tmp_path, pool, settings, "alone")
    mood(settings, "(HERE / 'mood').unlink(missing_ok=True); os.kill(os.getpid(), signal.SIGKILL)")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        assert search(tmp_path, pool, settings, "both", workers=2, ray=cluster.address) == alone
    finally:
        import ray

        ray.shutdown()
        cluster.shutdown()


def test_prompts_whose_images_are_on_another_machine_are_sent_back_for_them(tmp_path, settings):
    image = {"type": "image", "value": str(tmp_path / "elsewhere" / "image.png")}
    with pytest.raises(MissingFilesError) as caught:
        VLMEval(settings).answer(None, [[image, {"type": "text", "value": "Why?"}]], None)
    assert caught.value.paths == (image["value"],)
