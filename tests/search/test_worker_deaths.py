"""A task that costs a worker its life is given to another one once; the second time it is an error."""

from __future__ import annotations

import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from evaluators.answering.engines import transformers as transformers_engine
from soup.errors import EvaluatorError
from soup.evaluation.api import ALL, Benchmark, Score
from soup.evaluation.config import EvalConfig
from soup.evaluation.run_directory import RunDirectory
from soup.evaluation.settings import EvalSettings
from soup.merging.options import MergeOptions
from soup.merging.recipe import Recipe, Share
from soup.search.session import answering_settings
from soup.search.workers.local import LocalPool
from soup.search.workers.protocol import EvalTask, ScoreEvent, TaskDone, WorkerSpec
from soup.search.workers.ray import RayPool
from soup.search.workers.worker import Worker
from soup.support.devices import torch_device
from tests.helpers import flat_arguments as flat
from tests.helpers.toy_pools import calls, make_judge, make_pool


def task_of(name):
    shares = (Share(name=name, path=f"/{name}", digest=f"xxh3:{name}", weight=1),)
    return EvalTask(Recipe(ingredients=shares, side_digest="sha256:s"), ALL, (0,))


def test_a_task_goes_to_a_new_process_after_one_death_and_is_an_error_after_two(tmp_path):
    """Its pool is not there, so that each process ends before it judges anything."""
    nowhere = str(tmp_path / "nowhere")
    run = RunDirectory(tmp_path)
    spec = WorkerSpec((("a", nowhere),), None, (), EvalSettings(), MergeOptions(), run, {})
    pool = LocalPool(1, run.logs)
    try:
        pool.open(partial(Worker, spec))
        pool.give(0, task := task_of("a"))
        assert pool.wait() == []
        assert pool.free == []
        (done,) = pool.wait()
        assert (done.task, pool.free) == (task, [0])
    finally:
        pool.close()
    log = tmp_path / "logs" / "worker-0.log"
    assert str(done.error).startswith(f"a: the worker that evaluated it ended twice, with exit code 1. Its log: {log}")
    assert f"soup.errors.CheckpointError: {nowhere}" in str(done.error)


@pytest.mark.slow
def test_a_trial_that_kills_its_actor_twice_is_an_error_and_not_tried_again(tmp_path):
    pytest.importorskip("ray")
    judge, pool = make_judge(tmp_path / "judge"), make_pool(tmp_path / "ckpts", {"a": (1, 2, 3, 9), "b": (1, 2, 9, 4)})
    (judge.parent / "mood").write_text("1 os.kill(os.getpid(), signal.SIGKILL)")
    options = {"workers": 1, "ray": "local"}
    with pytest.raises(EvaluatorError, match=r"^a: the actor that evaluated it ended twice\."):
        flat.cook("greedy", pool=pool, eval=[f"python:{judge}:score"], out=tmp_path / "out", **options)
    assert calls(judge) == 2 * [f"score {np.float32([1, 2, 3, 9]).tobytes().hex()}"]


class ActorDiedError(Exception):
    """What the stand-in raises in place of Ray's own."""


class StandInRay:
    """As much of Ray as the pool uses. An actor does what the next of `fates` says: it dies, or it answers."""

    exceptions = SimpleNamespace(RayActorError=ActorDiedError)

    def __init__(self, *fates):
        self.fates, self.actors, self.answers, self.ended = list(fates), 0, {}, []

    def init(self, **_):
        pass

    def cluster_resources(self):
        return {"CPU": 2.0}

    def remote(self, actor):
        return self

    def options(self, **_):
        return SimpleNamespace(remote=self._start)

    def _start(self, start, in_flags):
        self.actors += 1
        return SimpleNamespace(work=SimpleNamespace(remote=self._work), number=self.actors)

    def _work(self, task):
        self.answers[reference := object()] = (self.fates.pop(0), task)
        return reference

    def wait(self, references, num_returns, timeout):
        return references[:num_returns], references[num_returns:]

    def get(self, reference):
        fate, task = self.answers.pop(reference)
        if fate == "dies":
            raise ActorDiedError("out of memory")
        return [ScoreEvent(task, 0, Score(50.0), 1.0), TaskDone(task)]

    def kill(self, actor):
        self.ended.append(actor.number)

    def shutdown(self):
        pass


@pytest.fixture
def ray(monkeypatch):
    """Puts a stand-in in the place of Ray, for actors of these fates."""

    def stand_in(*fates):
        monkeypatch.setitem(sys.modules, "ray", made := StandInRay(*fates))
        return made

    return stand_in


def test_a_task_goes_to_a_new_actor_after_one_death_and_is_an_error_after_two(ray):
    cluster = ray("dies", "dies", "answers")
    pool = RayPool(None, 1, "local")
    pool.give(0, task := task_of("a"))
    assert pool.wait() == []
    assert (cluster.actors, pool.free) == (2, [])
    (done,) = pool.wait()
    assert (done.task, pool.free) == (task, [0])
    assert str(done.error).startswith("a: the actor that evaluated it ended twice.")
    assert "out of memory" in str(done.error)
    assert cluster.fates == ["answers"], "no third try"
    pool.give(0, other := task_of("b"))  # the actor in its place judges the next
    assert [event.task for event in pool.wait()] == [other, other]


def test_a_dead_actor_s_successor_gets_what_waited_behind_the_job_too_and_in_order(ray):
    cluster = ray("dies", "lost with it", "dies", "lost with it", "answers")
    pool = RayPool(None, 1, "local")
    first, second = task_of("a"), task_of("b")
    pool.give(0, first)
    assert pool.with_one_job == [0]
    pool.give(0, second)
    assert (pool.with_one_job, pool.free) == ([], [])
    assert pool.wait() == []
    (done,) = pool.wait()
    assert (done.task, cluster.actors, pool.with_one_job) == (first, 3, [0]), "the second one has not failed"
    assert [event.task for event in pool.wait()] == [second, second]
    assert pool.free == [0]


def test_on_a_cluster_the_key_has_what_actors_compute_on_and_functions_that_ask_no_engine_ask_none_of_them(
    ray, monkeypatch
):
    actor_calls = []
    monkeypatch.setattr(StandInRay, "cluster_resources", lambda self: {"CPU": 2.0, "GPU": 4.0})
    monkeypatch.setattr(
        StandInRay,
        "remote",
        lambda self, *_, **options: (
            lambda function: SimpleNamespace(
                remote=lambda: actor_calls.append((options, function)) or "cuda"  # it has what this process has not
            )
        ),
    )
    monkeypatch.setattr(StandInRay, "get", lambda self, reference: reference)
    ray()
    benchmark = Benchmark("mmbench", "vlmeval", "mmbench")
    for config, facts in (
        (EvalConfig("mmbench", workers=2), {"device": "cpu"}),
        (EvalConfig("mmbench", ray="local"), {"device": "cuda", "batches": "as workers were free"}),
    ):
        settings = answering_settings([benchmark], config)
        monkeypatch.setattr(transformers_engine, "torch_device", lambda: "cpu")
        assert transformers_engine.identity(settings).items() >= facts.items()
        assert ("batches" in transformers_engine.identity(settings)) == ("batches" in facts)
    assert actor_calls == [({"num_gpus": 1, "num_cpus": 1}, torch_device)]
    function = Benchmark("python:mine.py:f", "python", "mine.py:f")
    assert answering_settings([function], EvalConfig("python:mine.py:f", ray="local")).device is None
    assert len(actor_calls) == 1


def test_a_ray_that_does_not_start_is_one_sentence(ray, monkeypatch):
    def init(self, **_):
        raise Exception("The current node timed out during startup.")  # noqa: TRY002  # as Ray has it

    monkeypatch.setattr(StandInRay, "init", init)
    ray()
    with pytest.raises(EvaluatorError, match=r"`ray` local: no cluster there \(The current node timed out"):
        RayPool(None, 1, "local")


def test_deaths_over_different_tasks_are_not_added_up(ray):
    cluster = ray("dies", "answers", "dies", "answers")
    pool = RayPool(None, 1, "local")
    for name in ("a", "b"):
        pool.give(0, task_of(name))
        assert pool.wait() == []
        score, done = pool.wait()
        assert (score.score, done.error) == (Score(50.0), None)
    pool.close()
    assert cluster.actors == 3
    assert cluster.ended == [3], "the dead are gone already"
