"""lm-eval's tasks, judged in the one loaded model: its own `simple_evaluate` over the merged files is the oracle."""

from __future__ import annotations

import importlib.metadata
import json
import pickle
import random
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from evaluators.answering.batching import ask
from evaluators.answering.engines.transformers import TransformersModel
from evaluators.answering.response_cache import ResponseCache
from evaluators.answering.session import shared_session
from evaluators.lm_eval.dealing import evaluate_dealt
from evaluators.lm_eval.harness import LMEval
from evaluators.lm_eval.model import language_model
from soup.errors import EvaluatorError
from soup.evaluation.api import Benchmark, Split
from soup.evaluation.benchmark_names import parse_benchmarks
from soup.evaluation.settings import EvalSettings
from tests.helpers.merge_oracle import mean_of
from tests.helpers.scripted_models import ToyCandidate
from tests.helpers.vlm_families import noise, save_family

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]

CHOICE = {
    "dataset_path": "json",
    "output_type": "multiple_choice",
    "test_split": "test",
    "fewshot_split": "test",
    "num_fewshot": 1,
    "doc_to_text": "{{question}}",
    "doc_to_target": "{{answer}}",
    "doc_to_choice": "{{choices}}",
    "metric_list": [
        {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
        {"metric": "acc_norm", "aggregation": "mean", "higher_is_better": True},
    ],
    "metadata": {"version": 1.5},
}
WRITING = {
    "dataset_path": "json",
    "output_type": "generate_until",
    "test_split": "test",
    "doc_to_text": "{{question}}",
    "doc_to_target": "{{choices[answer]}}",
    "generation_kwargs": {"until": ["Q", "z"], "max_gen_toks": 7},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    "metadata": {"version": 2},
}
PERPLEXITY = {
    "dataset_path": "json",
    "output_type": "loglikelihood_rolling",
    "test_split": "test",
    "doc_to_text": "",
    "doc_to_target": "{{question}}",
    "metric_list": [{"metric": "word_perplexity", "aggregation": "weighted_perplexity", "higher_is_better": False}],
}
LIKELIHOOD = {
    **CHOICE,
    "metric_list": [{"metric": "likelihood", "aggregation": "mean", "higher_is_better": True}],
    "process_results": "!function mine.likelihood",
}
GROUP = {
    "group": "toys",
    "task": ["toy_choice", "toy_more"],
    "aggregate_metric_list": [{"metric": "acc", "aggregation": "mean", "weight_by_size": True}],
    "metadata": {"version": 1},
}


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path_factory.getbasetemp() / "datasets"))


def write_tasks(folder, count=12):
    folder.mkdir(parents=True)
    chance = random.Random(3)
    for name, size in (("one", count), ("two", count // 2)):
        rows = [
            {
                "question": f"What is {chance.randrange(100)} and {chance.randrange(100)}?",
                "choices": [f"{chance.randrange(100)}" for _ in range(3)],
                "answer": chance.randrange(3),
            }
            for _ in range(size)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {
        "toy_choice": (CHOICE, "one"),
        "toy_more": (CHOICE, "two"),
        "toy_writing": (WRITING, "one"),
        "toy_perplexity": (PERPLEXITY, "one"),
    }
    for name, (task, data) in files.items():
        config = {"task": name, **task, "dataset_kwargs": {"data_files": {"test": str(folder / f"{data}.jsonl")}}}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
    (folder / "toys.yaml").write_text(yaml.safe_dump(GROUP))
    config = {"task": "toy_scale", **LIKELIHOOD, "dataset_kwargs": {"data_files": {"test": str(folder / "one.jsonl")}}}
    text = yaml.safe_dump(config).replace("'!function mine.likelihood'", "!function mine.likelihood")
    (folder / "toy_scale.yaml").write_text(text)
    (folder / "mine.py").write_text("def likelihood(doc, results):\n    return {'likelihood': 7.0}\n")
    return folder


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    return write_tasks(tmp_path_factory.mktemp("tasks") / "toys")


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    root = tmp_path_factory.mktemp("pool")
    for seed in (0, 1):
        save_family("llava", root / f"m{seed}", seed)
    return root


def benchmark(tasks, name, split=None):
    target = f"{name}@{tasks}"
    return Benchmark(f"lm_eval:{target}", "lm_eval", target, *([split] if split else []))


def plainly(checkpoint, tasks, name, metric):
    """What lm-eval says with nothing of ours in between: the model by from_pretrained, the task by name."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    from transformers import AutoModelForImageTextToText, AutoTokenizer

    module = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype="auto")
    model = HFLM(pretrained=module, tokenizer=AutoTokenizer.from_pretrained(checkpoint), batch_size=5)
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    results = lm_eval.simple_evaluate(model=model, tasks=[name], task_manager=manager, bootstrap_iters=0)
    return results["results"][name][f"{metric},none"]


@pytest.mark.parametrize(
    ("name", "metric", "count"), [("toy_choice", "acc", 12), ("toy_writing", "exact_match", 12), ("toys", "acc", 18)]
)
def test_the_score_is_lm_evals_own_over_the_merged_files(name, metric, count, pool, tasks, tmp_path):
    evaluator = LMEval(EvalSettings())
    with mean_of(pool, tmp_path / "home") as candidate:
        score = evaluator.evaluate(candidate, benchmark(tasks, name))
        assert not (tmp_path / "home" / "checkpoint").exists()  # streamed into the model, never written
        expected = plainly(candidate.directory(), tasks, name, metric)
    assert score.value == pytest.approx(100 * expected, abs=1e-9)
    assert score.n == len(score.questions) == count
    assert sum(score.questions.values()) / count == pytest.approx(expected)


def test_answers_are_written_as_lm_eval_alone_would(pool, tasks, tmp_path, monkeypatch):
    # Exact matches of random models are rare: compare what was written, not only the score.
    import lm_eval

    runs = []
    whole = lm_eval.simple_evaluate
    monkeypatch.setattr(lm_eval, "simple_evaluate", lambda **arguments: runs.append(whole(**arguments)) or runs[-1])
    candidate = ToyCandidate(pool / "m0", tmp_path, "m0")
    ask(shared_session(EvalSettings()).model_for(candidate, "lm_eval"), [[{"type": "text", "value": "Why?"}]], 1)
    LMEval(EvalSettings()).evaluate(candidate, benchmark(tasks, "toy_writing"))
    plainly(pool / "m0", tasks, "toy_writing", "exact_match")
    ours, theirs = ([row["resps"] for row in results["samples"]["toy_writing"]] for results in runs)
    assert ours == theirs
    assert len({str(reply) for reply in ours}) > 3


def test_one_model_serves_both_kinds_of_benchmarks_and_neither_hears_of_the_other(pool, tasks, tmp_path):
    settings = EvalSettings()
    evaluator, swap = LMEval(settings), shared_session(settings)
    assert shared_session(EvalSettings()) is swap
    assert shared_session(EvalSettings(trust_remote_code=True)) is not swap
    image = noise(tmp_path / "image.png", (40, 30), 1)
    prompts = [[{"type": "image", "value": image}, {"type": "text", "value": text}] for text in ("Why?", "Is it so?")]
    outcomes = {}
    for turn in range(2):
        for seed in (0, 1):
            candidate = ToyCandidate(pool / f"m{seed}", tmp_path, f"m{seed}")
            engine = swap.model_for(candidate, "lm_eval")
            engine.max_new_tokens = 8
            answers = ask(engine, prompts, "auto")
            scores = [evaluator.evaluate(candidate, benchmark(tasks, name)).value for name in ("toy_choice", "toys")]
            assert evaluator._engine.model_for(candidate, "lm_eval") is engine
            assert outcomes.setdefault(seed, (answers, scores)) == (answers, scores), turn
    assert outcomes[0][0] != outcomes[1][0]


def test_half_of_the_questions_choose_and_the_other_half_reports(pool, tasks, tmp_path):
    evaluator, candidate = LMEval(EvalSettings()), ToyCandidate(pool / "m0", tmp_path, "m0")
    whole = evaluator.evaluate(candidate, benchmark(tasks, "toys"))
    parts = [
        evaluator.evaluate(candidate, benchmark(tasks, "toys", Split(part, 0.5))) for part in ("selection", "report")
    ]
    assert parts[0].questions.keys() | parts[1].questions.keys() == whole.questions.keys()
    assert not parts[0].questions.keys() & parts[1].questions.keys()
    assert min(part.n for part in parts) > 3
    for part, split in zip(parts, (Split("selection", 0.5), Split("report", 0.5)), strict=True):
        assert all(split.holds(name) for name in part.questions)
        assert part.value == pytest.approx(100 * sum(part.questions.values()) / part.n)


def test_without_examples_no_more_is_asked_than_what_is_wanted_and_one_question_of_each_task(pool, tasks, tmp_path):
    for name in ("toy_choice", "toy_more"):
        file = tasks / f"{name}.yaml"
        (tmp_path / file.name).write_text(file.read_text().replace("num_fewshot: 1", "num_fewshot: 0"))
    (tmp_path / "toys.yaml").write_text((tasks / "toys.yaml").read_text())
    evaluator, candidate = LMEval(EvalSettings()), ToyCandidate(pool / "m0", tmp_path, "m0")
    group = benchmark(tmp_path, "toys")
    assert evaluator.asks_some(group)
    whole = evaluator.evaluate(candidate, group)
    wanted = frozenset({"toy_choice:3", "toy_choice:7"})
    some = evaluator.evaluate(candidate, replace(group, only=wanted))
    assert some.questions == {name: whole.questions[name] for name in (*wanted, "toy_more:0")}
    assert evaluator.total(group, whole.questions) == pytest.approx(whole.value)


def test_examples_depend_on_what_was_asked_before_so_that_everything_is_asked(tasks):
    assert not LMEval(EvalSettings()).asks_some(benchmark(tasks, "toys"))


def test_a_part_without_a_question_is_told(tasks):
    with pytest.raises(EvaluatorError, match=r"no question in the selection part of toy_"):
        LMEval(EvalSettings()).identity(benchmark(tasks, "toys", Split("selection", 1e-9)))


def test_the_identity_knows_the_task_the_data_and_the_model(tmp_path):
    tasks = write_tasks(tmp_path / "toys")
    first = LMEval(EvalSettings()).identity(benchmark(tasks, "toy_choice"))
    assert json.loads(json.dumps(first)) == first
    assert first["version"] == importlib.metadata.version("lm-eval")
    assert first["tasks"] == {"toy_choice": {"version": "1.5", "examples": 1}}
    assert first["metric"] == "acc"
    assert first["answering"]["model"] == "auto"
    assert first == LMEval(EvalSettings(batch_size=3)).identity(benchmark(tasks, "toy_choice"))
    rows = (tasks / "one.jsonl").read_text().replace("What", "Who")
    (tasks / "other.jsonl").write_text(rows)
    text = (tasks / "toy_choice.yaml").read_text()
    (tasks / "toy_choice.yaml").write_text(text.replace("one.jsonl", "other.jsonl"))
    second = LMEval(EvalSettings()).identity(benchmark(tasks, "toy_choice"))
    assert second["data"] != first["data"]
    assert second["code"] != first["code"]
    (tasks / "toy_choice.yaml").write_text(text.replace("{{question}}", "{{question}} Say:"))
    third = LMEval(EvalSettings()).identity(benchmark(tasks, "toy_choice"))
    assert (third["data"] == first["data"], third["code"] == first["code"]) == (True, False)


def test_other_questions_are_other_data_where_no_examples_are_shown_either(tmp_path):
    before = write_tasks(tmp_path / "toys")
    after = write_tasks(tmp_path / "others")
    rows = (after / "one.jsonl").read_text()
    (after / "one.jsonl").write_text(rows.replace("What", "Who", 1))
    first, second = (LMEval(EvalSettings()).identity(benchmark(tasks, "toy_writing")) for tasks in (before, after))
    assert first["tasks"] == {"toy_writing": {"version": "2", "examples": 0}}
    assert second["data"] != first["data"]


def test_lm_eval_is_silent(pool, tasks, tmp_path, capfd, caplog):
    evaluator = LMEval(EvalSettings())
    for name in ("toy_choice", "toy_writing", "toys"):
        evaluator.evaluate(ToyCandidate(pool / "m0", tmp_path, "m0"), benchmark(tasks, name))
    output = capfd.readouterr()
    assert (output.out, output.err, caplog.text) == ("", "", "")


def test_random_numbers_of_others_stay_as_they_were(pool, tasks, tmp_path):
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    LMEval(EvalSettings()).evaluate(ToyCandidate(pool / "m0", tmp_path, "m0"), benchmark(tasks, "toy_choice"))
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before


@pytest.mark.parametrize("name", ["toy_choice", "toy_writing"])
def test_batches_halve_where_memory_runs_out(name, pool, tasks, tmp_path, monkeypatch):
    evaluator, candidate = LMEval(EvalSettings()), ToyCandidate(pool / "m0", tmp_path, "m0")
    expected = evaluator.evaluate(candidate, benchmark(tasks, name))
    module, sizes = evaluator._engine.model_for(candidate, "lm_eval").module, []
    forward = type(module).forward

    def narrow(self, input_ids=None, **others):
        if input_ids is not None:
            sizes.append(len(input_ids))
            if len(input_ids) > 3:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return forward(self, input_ids=input_ids, **others)

    monkeypatch.setattr(type(module), "forward", narrow)
    score = evaluator.evaluate(candidate, benchmark(tasks, name))
    assert score == expected
    assert max(sizes) > 3
    with pytest.raises(torch.cuda.OutOfMemoryError):
        LMEval(EvalSettings(batch_size=8)).evaluate(candidate, benchmark(tasks, name))


@pytest.mark.parametrize(
    "kind",
    [
        *("qwen3_vl", "internvl", "gemma3"),
        *(
            pytest.param(kind, marks=pytest.mark.slow)
            for kind in ("qwen2_vl", "qwen2_5_vl", "llava_onevision", "idefics3")
        ),
    ],
)
def test_the_language_model_of_every_family_is_judged_as_lm_eval_alone_would(kind, tasks, tmp_path):
    path = save_family(kind, tmp_path / kind, 0)
    evaluator, candidate = LMEval(EvalSettings()), ToyCandidate(path, tmp_path, kind)
    engine = evaluator._engine.model_for(candidate, "lm_eval")
    engine.max_new_tokens = 3
    image = noise(tmp_path / "image.png", (40, 30), 1)
    ask(engine, [[{"type": "image", "value": image}, {"type": "text", "value": "Why?"}]], 1)  # and leaves no trace
    for name, metric in (("toy_choice", "acc"), ("toy_writing", "exact_match")):
        score = evaluator.evaluate(candidate, benchmark(tasks, name))
        assert score.value == pytest.approx(100 * plainly(path, tasks, name, metric))


def test_a_model_that_knows_what_comes_is_refused(tmp_path):
    engine = TransformersModel(save_family("paligemma", tmp_path / "both-ways", 0))
    with pytest.raises(EvaluatorError, match="reads its whole prompt at once"):
        language_model(engine, "auto")


def test_a_model_of_the_users_needs_a_module_and_a_tokenizer():
    class Mine:
        module = torch.nn.Linear(1, 1)

    with pytest.raises(EvaluatorError, match="needs `model` auto, or a model with the attributes module and tokenizer"):
        language_model(Mine(), 4)


def test_weights_that_the_files_keep_apart_are_not_tied_for_lm_eval(tmp_path):
    engine = TransformersModel(save_family("llava", tmp_path / "m", 0))
    engine.module.config.tie_word_embeddings = engine.module.config.text_config.tie_word_embeddings = True
    head = engine.module.lm_head.weight.clone()
    language_model(engine, "auto")
    assert torch.equal(engine.module.lm_head.weight, head)
    assert "tie_weights" not in vars(engine.module)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("toy_choise", "lm-eval knows no task 'toy_choise' in .*Did you mean 'toy_choice'"),
        ("mmbnech", "lm-eval knows no task 'mmbnech' in .*Did you mean 'mmbench'"),
        ("toy_perplexity", "no one score of which more is better"),
    ],
)
def test_a_task_that_can_not_be_scored_is_told_before_any_work(name, words, tasks):
    with pytest.raises(EvaluatorError, match=words):
        LMEval(EvalSettings()).identity(benchmark(tasks, name))


GROUPS = {
    "a metric that a task lacks": (
        {"metric": "acc"},
        ["toy_choice", "toy_writing"],
        "sums up acc, and toy_writing gives exact_match alone",
    ),
    "less is better": ({"metric": "word_perplexity"}, ["toy_perplexity"], "word_perplexity of toy_perplexity: less is"),
    "another filter": (
        {"metric": "acc", "filter_list": ["strict"]},
        ["toy_choice", "toy_more"],
        "sums up the filter strict, and toy_more has none alone",
    ),
}


@pytest.mark.parametrize("case", GROUPS)
def test_a_group_that_sums_up_what_its_tasks_do_not_give_is_told_before_any_work(case, tmp_path):
    aggregate, inside, words = GROUPS[case]
    tasks = write_tasks(tmp_path / "toys")
    group = {**GROUP, "task": inside, "aggregate_metric_list": [{"aggregation": "mean", **aggregate}]}
    (tasks / "toys.yaml").write_text(yaml.safe_dump(group))
    with pytest.raises(EvaluatorError, match=words):
        LMEval(EvalSettings()).identity(benchmark(tasks, "toys"))


def test_a_metric_of_the_whole_test_set_on_an_unknown_scale_is_told_before_any_work(tmp_path):
    tasks = write_tasks(tmp_path / "toys")
    task = yaml.safe_load((tasks / "toy_choice.yaml").read_text())
    metric = {"metric": "mcc", "aggregation": "matthews_corrcoef", "higher_is_better": True}
    (tasks / "toy_choice.yaml").write_text(yaml.safe_dump({**task, "metric_list": [metric]}))
    with pytest.raises(EvaluatorError, match="the scale of its metric mcc is not known"):
        LMEval(EvalSettings()).identity(benchmark(tasks, "toy_choice"))


def test_a_checkpoint_without_a_processor_is_told_before_any_question(pool, tasks, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_bytes((pool / "m0" / "config.json").read_bytes())
    LMEval(EvalSettings()).check(benchmark(tasks, "toy_choice"), pool / "m0")
    with pytest.raises(EvaluatorError, match=str(bare)):
        LMEval(EvalSettings()).check(benchmark(tasks, "toy_choice"), bare)


def test_a_scale_that_is_not_known_is_refused(pool, tasks, tmp_path):
    with pytest.raises(EvaluatorError, match="the scale of its metric likelihood is not known"):
        LMEval(EvalSettings()).evaluate(ToyCandidate(pool / "m0", tmp_path, "m0"), benchmark(tasks, "toy_scale"))


def test_data_that_are_not_here_are_told_before_any_work(tmp_path):
    tasks = write_tasks(tmp_path / "toys")
    (tasks / "one.jsonl").unlink()
    with pytest.raises(EvaluatorError, match=r"(?s)the task or its data can't be loaded: .*one\.jsonl"):
        LMEval(EvalSettings()).identity(benchmark(tasks, "toy_choice"))
    with pytest.raises(EvaluatorError, match="no such folder"):
        LMEval(EvalSettings()).identity(benchmark(tmp_path / "nowhere", "toy_choice"))


def test_without_lm_eval_the_error_is_one_sentence_with_the_pip_line(monkeypatch, tasks):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(EvaluatorError, match=r'pip install "vlm-soup\[lm-eval\]"'):
        LMEval(EvalSettings()).identity(benchmark(tasks, "toy_choice"))


def test_names_after_lm_eval_are_its_tasks_until_another_benchmark_comes():
    benchmarks = parse_benchmarks(["lm_eval:arc_easy,boolq@tasks/,mmbench", "ocrbench,lm_eval:boolq,python:a.py:f"])
    assert [(benchmark.harness, benchmark.target) for benchmark in benchmarks] == [
        ("lm_eval", "arc_easy"),
        ("lm_eval", "boolq@tasks/"),
        ("vlmeval", "mmbench"),
        ("vlmeval", "ocrbench"),
        ("lm_eval", "boolq"),
        ("python", "a.py:f"),
    ]
    assert len(parse_benchmarks(["lm_eval:a,opencompass"])) == 1 + 8
    with pytest.raises(EvaluatorError, match="Unknown benchmark 'boolq'"):
        parse_benchmarks(["mmbench,boolq"])
    with pytest.raises(EvaluatorError, match="Unknown benchmark 'boolq'"):
        parse_benchmarks(["lm_eval:arc_easy,mmbench,boolq"])


@pytest.mark.parametrize(("name", "count"), [("toy_choice", 12), ("toys", 18)])
def test_the_likelihood_is_that_of_the_right_choices(name, count, pool, tasks, tmp_path):
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoModelForImageTextToText, AutoTokenizer

    evaluator = LMEval(EvalSettings())
    with mean_of(pool, tmp_path / "home") as candidate:
        score = evaluator.evaluate(candidate, benchmark(tasks, name).likelihood)
        checkpoint = candidate.directory()
        module = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype="auto")
        model = HFLM(pretrained=module, tokenizer=AutoTokenizer.from_pretrained(checkpoint), batch_size=5)
    losses = []
    for task in evaluator._loaded(benchmark(tasks, name)).tasks.values():
        for request in (each for each in task.instances if each.idx == each.doc["answer"]):
            ((log_likelihood, _),) = model.loglikelihood([request])
            losses.append(-log_likelihood / len(model.tok_encode(request.args[1])))
    assert score.n == len(losses) == count
    assert score.loss == pytest.approx(sum(losses) / count, rel=1e-4)
    assert evaluator.identity(benchmark(tasks, name).likelihood)["measures"].startswith("likelihood")
    assert "measures" not in evaluator.identity(benchmark(tasks, name))


def test_a_task_without_choices_says_why_it_has_no_likelihood(tasks):
    evaluator = LMEval(EvalSettings())
    assert evaluator.why_no_likelihood(benchmark(tasks, "toy_choice")) is None
    assert "generate_until" in evaluator.why_no_likelihood(benchmark(tasks, "toy_writing"))


class Shuffling:
    """A dealer that has requests answered by another harness, through a pickle, in chunks and in any order."""

    def __init__(self, harness, candidate):
        self.harness, self.candidate, self.dealt = harness, candidate, 0

    def deal(self, requests, on_replies, size):
        positions, self.dealt = list(range(len(requests))), self.dealt + len(requests)
        random.Random(1).shuffle(positions)
        assert all(size(request) > 0 for request in requests)
        for start in range(0, len(positions), 5):
            chunk = positions[start : start + 5]
            sent = pickle.loads(pickle.dumps(tuple(requests[position] for position in chunk)))
            self.harness.answer(
                self.candidate, sent, lambda at, replies, chunk=chunk: on_replies([chunk[i] for i in at], replies)
            )


@pytest.mark.parametrize("name", ["toy_choice", "toy_writing", "toys"])
def test_requests_that_others_answer_give_the_same_score_and_are_not_asked_again(name, pool, tasks, tmp_path):
    there, here = LMEval(EvalSettings()), LMEval(EvalSettings())
    candidate = ToyCandidate(pool / "m0", tmp_path / "scratch", "m0")
    plain = there.evaluate(candidate, benchmark(tasks, name))
    here._engine = SimpleNamespace(identity=dict)  # which can't be loaded
    candidate.dealer = first = Shuffling(there, candidate)
    assert here.evaluate(candidate, benchmark(tasks, name)) == plain
    assert first.dealt > 0
    assert candidate.progress[-1] == (first.dealt, first.dealt)
    candidate.dealer = again = Shuffling(there, candidate)
    assert here.evaluate(candidate, benchmark(tasks, name)) == plain
    assert again.dealt == 0


def test_a_task_that_makes_other_requests_each_time_is_refused_and_not_asked_for_ever(tmp_path):
    draws = iter("abc")
    dealer = SimpleNamespace(
        deal=lambda requests, on_replies, size: on_replies(range(len(requests)), [(0.0, True)] * len(requests))
    )

    def evaluate(model):
        return model.loglikelihood([SimpleNamespace(args=(next(draws), "?"))])

    with pytest.raises(EvaluatorError, match="makes other requests each time"):
        evaluate_dealt(evaluate, ToyCandidate(tmp_path, tmp_path, "m"), dealer, ResponseCache(tmp_path / "kept"), [])
    assert next(draws) == "c", "asked once, and looked at once more"
