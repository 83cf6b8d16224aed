"""check_engine: what keeps the contract passes, and each way to break it is caught."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from evaluators.answering.hot_swap import HotSwap
from soup.evaluation import api
from soup.evaluation import engine as building
from soup.testing import FakeEngine, check_engine
from tests.helpers.scripted_models import ToyCandidate
from tests.helpers.vlm_families import noise, save_family

PROMPTS = [[{"type": "text", "value": "x" * length}] for length in (1, 5, 3)]


@pytest.fixture
def candidates(tmp_path):
    return [ToyCandidate(tmp_path, tmp_path, digest) for digest in ("a", "b")]


def check(kind, candidates, **options):
    check_engine(lambda settings: kind(), candidates, PROMPTS, **options)


def test_the_fake_engine_keeps_the_contract_and_notes_what_was_done(candidates, tmp_path):
    engine = FakeEngine(fails=["swap bad", "open bad"])
    bad = ToyCandidate(tmp_path, tmp_path, "bad")
    check_engine(lambda settings: engine, candidates, PROMPTS, failing=bad)
    assert engine.calls[:4] == ["open a", "answer 3", "close", "open b"]
    assert engine.calls[-6:] == ["swap bad", "close", "open bad", "open a", "answer 3", "close"]
    assert engine.fails == []


class Unstable(FakeEngine):
    def identity(self):
        return {"engine": "fake", "calls": len(self.calls)}


class Forgetful(FakeEngine):
    def answer(self, prompts, on_batch):
        return super().answer(prompts, lambda *_: None)


class Neighbourly(FakeEngine):
    def answer(self, prompts, on_batch):
        answers = [f"{self._digest} {len(prompts)}" for _ in prompts]
        on_batch(prompts, answers)
        return answers


class Ordered(FakeEngine):
    def answer(self, prompts, on_batch):
        answers = [f"{self._digest} {index}" for index, _ in enumerate(prompts)]
        on_batch(prompts, answers)
        return answers


class Deaf(FakeEngine):
    def swap(self, candidate):
        pass


class TooFew(FakeEngine):
    def answer(self, prompts, on_batch):
        return super().answer(prompts, on_batch)[1:]


class OneByOne(FakeEngine):
    def answer(self, prompts, on_batch):
        return (answer for answer in super().answer(prompts, on_batch))


class Copying(FakeEngine):
    def answer(self, prompts, on_batch):
        return super().answer(prompts, lambda batch, replies: on_batch([[*prompt] for prompt in batch], replies))


class Changing(FakeEngine):
    def answer(self, prompts, on_batch):
        answers = super().answer(prompts, on_batch)
        for prompt in prompts:
            prompt.clear()
        return answers


class Threaded(FakeEngine):
    def answer(self, prompts, on_batch):
        told, ready = [], threading.Barrier(len(prompts))
        answers = super().answer(prompts, lambda *batch: told.append(batch))

        def tell(batch):
            ready.wait()
            on_batch(*batch)

        threads = [threading.Thread(target=tell, args=(batch,)) for batch in told]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return answers


def named(identity):
    """An engine of another identity."""

    class Named(FakeEngine):
        def identity(self):
            return identity

    return Named


class Same(FakeEngine):
    def answer(self, prompts, on_batch):
        on_batch(prompts, ["yes"] * len(prompts))
        return ["yes"] * len(prompts)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Unstable, "two engines of the same settings|changed the identity"),
        (Forgetful, "on_batch did not hear"),
        (Neighbourly, "what is asked at the same time"),
        (Ordered, "the order of the prompts"),
        (Deaf, "after a swap than after opening"),
        (lambda: FakeEngine(resets=False), "after a swap than after opening"),
        (TooFew, "2 answers to 3 prompts"),
        (OneByOne, "answers that are no list"),
        (Copying, "other prompts than it was given: of copies"),
        (Changing, "the prompts were changed"),
        (Threaded, "from several threads at the same time"),
        (named(None), "the identity is no mapping"),
        (named({}), "the identity is empty"),
        (named({"home": Path()}), "not made of JSON values"),
        (named({"scale": float("nan")}), "not made of JSON values"),
        (Same, "all candidates answered alike"),
        (object, "a member of .* is missing"),
    ],
)
def test_an_engine_that_breaks_the_contract_is_caught(kind, words, candidates):
    with pytest.raises(AssertionError, match=words):
        check(kind, candidates)


def test_a_candidate_that_can_t_be_put_in_must_raise(candidates, tmp_path):
    with pytest.raises(AssertionError, match=r"was taken by swap"):
        check(FakeEngine, candidates, failing=ToyCandidate(tmp_path, tmp_path, "bad"))
    with pytest.raises(AssertionError, match=r"was taken by open"):
        check(lambda: FakeEngine(fails=["swap bad"]), candidates, failing=ToyCandidate(tmp_path, tmp_path, "bad"))


def test_what_is_left_open_by_a_failure_is_caught(candidates, tmp_path):
    class Open(FakeEngine):
        def open(self, candidate):
            assert self._digest is None, "it is open already"
            self._digest = candidate.digest
            self._note("open", candidate.digest)

    engine = Open(fails=["swap bad", "open bad"])
    with pytest.raises(AssertionError, match=r"left something open: it is open already"):
        check(lambda: engine, candidates, failing=ToyCandidate(tmp_path, tmp_path, "bad"))


def test_transformers_keeps_the_contract(tmp_path):
    paths = [save_family("llava", tmp_path / f"m{seed}", seed) for seed in (0, 1)]
    image = noise(tmp_path / "image.png", (40, 30), 1)
    prompts = [[{"type": "image", "value": image}, {"type": "text", "value": text}] for text in ("Why?", "Is it so?")]
    prompts.append([{"type": "text", "value": "What is a pool?"}])
    empty = tmp_path / "empty"
    empty.mkdir()
    check_engine(
        Short,
        [ToyCandidate(path, tmp_path, path.name) for path in paths],
        prompts,
        failing=ToyCandidate(empty, tmp_path, "empty"),
    )


class Short(HotSwap):
    """Answers of a few tokens: random weights never come to an end."""

    def model_for(self, candidate):
        model = super().model_for(candidate)
        model.max_new_tokens = 6
        return model


def test_the_folder_of_the_fake_is_not_touched(candidates, tmp_path):
    check(FakeEngine, candidates)
    assert list(Path(tmp_path).iterdir()) == []


def test_plug_ins_find_the_contract_with_the_evaluators_and_where_it_stood_before():
    names = ("Engine", "OnBatch", "Prompt")
    assert [getattr(building, name) for name in names] == [getattr(api, name) for name in names]
