"""One candidate's questions over many workers: the scores, and what a harness hears, are those of one worker."""

from __future__ import annotations

import pickle
import random
import threading
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from soup.errors import EvaluatorError
from soup.evaluation.api import ALL, Benchmark, Score
from soup.evaluation.dealing import MissingFilesError, dealer_of
from soup.evaluation.suite import BenchmarkSuite, SuiteEntry
from soup.merging.recipe import Recipe, Share
from soup.search.workers.dealing import SPARE_SECONDS, DealingPool
from soup.search.workers.protocol import AnswersEvent, EvalTask, Remark, ScoreEvent, TaskDone
from soup.search.workers.watched import WatchedPool
from soup.testing.simulation import SimulatedCandidate, SimulatedWorkers


def reply(digest, request):
    """A repeatable reply to a request, by the candidate's weights."""
    return random.Random(f"{digest}/{request}").randrange(4)


class Rounds:
    """A harness that asks in rounds: a question whose reply is 0 is asked no further. It counts what it hears."""

    def __init__(self, counts):
        self.counts, self.heard = counts, {}

    def identity(self, benchmark):
        return {}

    def evaluate(self, candidate, benchmark):
        count, rounds = self.counts[benchmark.target]
        left, total = list(range(count)), 0
        candidate.remark(f"{benchmark.target} is asked")
        for turn in range(rounds):
            requests = [(benchmark.target, turn, question) for question in left]
            replies = self._replies(candidate, requests)
            total += sum(replies)
            left = [question for question, text in zip(left, replies, strict=True) if text]
        candidate.answered(count, count)
        return Score(100.0 * total / (3 * rounds * count or 1), count)

    def _replies(self, candidate, requests):
        if (dealer := dealer_of(candidate)) is None:
            return [reply(candidate.digest, request) for request in requests]

        def hear(positions, replies):
            for position, text in zip(positions, replies, strict=True):
                assert text == reply(candidate.digest, requests[position])
                key = (candidate.digest, requests[position])
                self.heard[key] = self.heard.get(key, 0) + 1

        return dealer.deal(requests, hear, lambda request: request[2] % 7)

    def answer(self, candidate, requests, on_replies):
        for start in range(0, len(requests), 3):
            part = range(start, min(start + 3, len(requests)))
            on_replies(part, [reply(candidate.digest, requests[position]) for position in part])


class Whole:
    """A harness that can't deal."""

    def identity(self, benchmark):
        return {}

    def evaluate(self, candidate, benchmark):
        assert dealer_of(candidate) is None
        return Score(12.5, 1)


def suite_of(counts, timeout_seconds=None, whole=()):
    rounds = Rounds(counts)
    names = [*counts, *whole]
    entries = [SuiteEntry(Benchmark(name, "toy", name), Whole() if name in whole else rounds, {}) for name in names]
    return BenchmarkSuite(tuple(entries), timeout_seconds)


def task_of(name, suite):
    shares = (Share(name=name, path=f"/{name}", digest=f"xxh3:{name}", weight=1),)
    return EvalTask(Recipe(ingredients=shares, side_digest="sha256:s"), ALL, tuple(range(len(suite.entries))))


def dealing(suite, size, **options):
    workers = SimulatedWorkers(size, suite, **options)
    return DealingPool(workers, suite, SimulatedCandidate, lambda: workers.now), workers


def run(pool, tasks):
    """All events until every task is done, each started as soon as the pool wants more."""
    waiting, events, running = list(tasks), [], 0
    while waiting or running:
        while waiting and pool.idle:
            pool.start(waiting.pop(0))
            running += 1
        new = pool.wait()
        running -= sum(isinstance(event, TaskDone) for event in new)
        events += new
    return events


def alone(suite, task):
    candidate = SimulatedCandidate(task.recipe, lambda text: None)
    return {i: suite.entries[i].evaluator.evaluate(candidate, suite.entries[i].benchmark) for i in task.indices}


def test_what_each_worker_is_at_is_told_and_changes_nothing():
    suite = suite_of({"a": (40, 2), "b": (9, 1)}, whole=("whole",))
    plain, workers = dealing(suite, 3)
    events = run(plain, [task_of("m", suite)])
    seen, told, dead = {}, [], set()

    def hear(number, state):
        before = seen.get(number)
        if state is not None and before is not None:
            assert (state.benchmark, state.questions) == (before.benchmark, before.questions), "no job without an end"
            assert before.answered <= state.answered <= state.questions
        seen[number] = state
        told.append((number, state))

    watched = SimulatedWorkers(3, suite)
    pool = DealingPool(WatchedPool(watched, suite, hear), suite, SimulatedCandidate, lambda: watched.now)
    assert [type(event) for event in run(pool, [task_of("m", suite)])] == [type(event) for event in events]
    given = [[(chunk.index, chunk.positions) for chunk in each.given] for each in (watched, workers)]
    assert given[0] == given[1]
    assert seen == dict.fromkeys(range(3))
    begun = [state for _, state in told if state and not state.answered]
    assert [(state.benchmark.name, state.questions) for state in begun].count(("whole", None)) == 1
    assert sum(state.questions or 0 for state in begun) == sum(len(chunk.positions) for chunk in watched.given)
    dies = SimulatedWorkers(3, suite, dies=lambda job: job.key not in dead and not dead.add(job.key))
    pool = DealingPool(WatchedPool(dies, suite, hear), suite, SimulatedCandidate, lambda: dies.now)
    run(pool, [task_of("m", suite)])
    assert seen == dict.fromkeys(range(3))


COUNTS = st.dictionaries(st.sampled_from("abcde"), st.tuples(st.integers(0, 40), st.integers(1, 4)), min_size=1)


@settings(deadline=None)
@given(counts=COUNTS, size=st.integers(1, 9), names=st.integers(1, 4), seed=st.integers(0, 10**6), whole=st.booleans())
def test_any_number_of_workers_any_order_and_any_deaths_give_the_scores_of_one(counts, size, names, seed, whole):
    chance = random.Random(seed)
    suite = suite_of(counts, whole=("whole",) if whole else ())
    tasks = [task_of(f"m{number}", suite) for number in range(names)]
    dead = set()

    def dies(job):  # once, at most, at each job
        return job.key not in dead and chance.random() < 0.3 and not dead.add(job.key)

    pool, workers = dealing(
        suite, size, seconds=lambda number, job: chance.choice([0.0, 1.0, chance.random()]), dies=dies
    )
    events = run(pool, tasks)
    assert [event.error for event in events if isinstance(event, TaskDone)] == [None] * names
    scores = {(e.task.key, e.index): e.score for e in events if isinstance(e, ScoreEvent)}
    assert scores == {(task.key, i): score for task in tasks for i, score in alone(suite, task).items()}
    rounds = next((entry.evaluator for entry in suite.entries if entry.benchmark.target in counts), None)
    assert set(rounds.heard.values()) <= {1}, "a harness hears each reply once, whoever died after it was sent"
    assert len(workers.given) == len({chunk.number for chunk in workers.given}), "what a death loses is the pool's"
    assert (pool.idle, workers.spare) == (size, {})
    pool.close()


def test_a_candidate_is_spread_over_all_workers_and_another_is_wanted_only_where_chunks_run_out():
    suite = suite_of({"a": (64, 1), "b": (64, 1)})
    pool, workers = dealing(suite, 4, seconds=lambda number, chunk: float(len(chunk.positions)))
    pool.start(task_of("m", suite))
    assert len(workers.jobs) == 4
    assert pool.idle == 0
    while not pool.idle:
        pool.wait()
    assert sum(len(chunk.positions) for chunk in workers.given) == 128
    sizes = [len(chunk.positions) for chunk in workers.given]
    assert max(sizes) >= 4 * sizes[-1], "chunks fall, so that all workers end at about the same time"
    pool.close()


def test_what_a_search_wants_no_more_waits_and_what_it_wants_now_goes_first():
    suite = suite_of({"a": (64, 1)})
    pool, workers = dealing(suite, 2, seconds=lambda number, chunk: float(len(chunk.positions)))
    bet, wanted, other = (task_of(name, suite) for name in ("bet", "wanted", "other"))
    for task, keys in ((bet, [bet]), (wanted, [wanted]), (other, [wanted, other])):
        pool.want([task.key for task in keys])
        pool.start(task)
    given = len(workers.given)
    events = [event for _ in range(100) for event in (pool.wait() if workers.jobs else [])]
    done = [event.task.key for event in events if isinstance(event, TaskDone)]
    assert done == [wanted.key, other.key]
    assert {chunk.task.key for chunk in workers.given[given:]} == {wanted.key, other.key}
    pool.want([bet.key])
    assert [event.task.key for event in until_done(pool) if isinstance(event, TaskDone)] == [bet.key]


def until_done(pool):
    events = []
    while not any(isinstance(event, TaskDone) for event in events):
        events += pool.wait()
    return events


def test_a_bet_is_made_only_where_workers_have_longer_to_wait_than_a_swap_takes_but_what_is_sure_is_begun_at_once():
    held = {}

    def seconds(number, chunk):
        swap = 0 if held.get(number) == chunk.recipe.digest else 15
        held[number] = chunk.recipe.digest
        return float(swap + sum(300 if request[0] == "slow" else 1 for request in chunk.requests))

    for slow, sure, bets in ((0, 1, False), (1, 1, True), (0, 2, True)):
        held.clear()
        suite = suite_of({"fast": (256, 1), "slow": (slow, 1)})
        pool, workers = dealing(suite, 4, seconds=seconds)
        first, second = task_of("first", suite), task_of("second", suite)
        run(pool, [first])
        pool.want([second.key, "a bet, or not"], sure)
        pool.start(second)
        offered = False
        while not any(isinstance(event, TaskDone) for event in pool.wait()):
            offered |= pool.idle > 0 and bool(workers.jobs)
        assert offered == bets


def test_all_workers_share_a_round_that_a_fast_model_is_through_with_in_a_second():
    suite = suite_of({"a": (600, 3)})
    pool, workers = dealing(suite, 2, seconds=lambda number, chunk: 0.001 * len(chunk.positions))
    run(pool, [task_of("first", suite)])
    workers.given.clear()
    run(pool, [task_of("second", suite)])
    rounds = [[len(chunk.positions) for chunk in workers.given if chunk.requests[0][1] == turn] for turn in range(3)]
    assert [max(sizes) for sizes in rounds] == [150, 128, 128]
    assert all(min(sizes[:-1]) >= 128 for sizes in rounds), "enough at once to fill a batch"


SPEEDS = st.dictionaries(st.sampled_from("abc"), st.tuples(st.integers(200, 1500), st.floats(-3, -1)), min_size=1)


@settings(deadline=None)
@given(benchmarks=SPEEDS, size=st.integers(2, 6))
@example(benchmarks={"a": (267, -2.39), "b": (658, -2.72), "c": (236, -2.0)}, size=4)
def test_a_worker_that_is_soon_done_has_its_next_chunk_already_and_no_other_worker_lacks_it(benchmarks, size):
    suite = suite_of({name: (count, 1) for name, (count, _) in benchmarks.items()})

    def seconds(number, chunk):
        return sum(10 ** benchmarks[request[0]][1] for request in chunk.requests)

    pool, workers = dealing(suite, size, seconds=seconds)
    run(pool, [task_of("first", suite)])  # what a question takes is known from now on
    pool.start(task_of("second", suite))
    while workers.jobs:
        left = {number: end - workers.now for end, _, number, _, _ in workers.jobs}
        spares = [left[number] for number in workers.spare]
        assert all(seconds < SPARE_SECONDS + 1e-9 for seconds in spares)
        assert not (workers.free and any(seconds > 1e-9 for seconds in spares)), "no chunk waits while a worker does"
        pool.wait()


def test_small_chunks_are_given_before_they_are_needed():
    suite = suite_of({"a": (4000, 1)})
    pool, workers = dealing(suite, 3, seconds=lambda number, chunk: 0.001 * len(chunk.positions))
    run(pool, [task_of("first", suite)])
    pool.start(task_of("second", suite))
    assert len(workers.spare) == 3


def test_a_worker_that_goes_on_with_the_next_candidate_beforehand_never_comes_back():
    suite, left = suite_of({"plain": (300, 1), "circles": (300, 4)}), set()
    pool, workers = dealing(suite, 3, seconds=lambda number, chunk: 0.01 * len(chunk.positions))
    give, held = workers.give, {}

    def watch(number, chunk):
        assert (number, chunk.recipe.digest) not in left
        if number not in workers.free and held[number] != chunk.recipe.digest:
            left.add((number, held[number]))
        held[number] = chunk.recipe.digest
        give(number, chunk)

    first, *others = [task_of(f"m{number}", suite) for number in range(6)]
    run(pool, [first])  # how many rounds there are is known from now on
    workers.give = watch
    pool.want([task.key for task in others], len(others))
    run(pool, others)
    assert left


def test_the_largest_requests_are_asked_first():
    suite = suite_of({"a": (40, 1)})
    pool, workers = dealing(suite, 2)
    run(pool, [task_of("m", suite)])
    asked = [request[2] % 7 for chunk in workers.given for request in chunk.requests]
    assert asked == sorted(asked, reverse=True)


def test_rounds_that_others_wait_for_come_first_once_it_is_known_that_there_are_some():
    suite = suite_of({"plain": (40, 1), "circles": (40, 4)})
    pool, workers = dealing(suite, 2, seconds=lambda number, chunk: float(len(chunk.positions)))
    run(pool, [task_of("first", suite)])
    workers.given.clear()
    run(pool, [task_of("second", suite)])
    assert [chunk.index for chunk in workers.given][:2] == [1, 1]
    last_circle = max(number for number, chunk in enumerate(workers.given) if chunk.index == 1)
    assert any(chunk.index == 0 for chunk in workers.given[:last_circle]), "meanwhile the others fill the gaps"
    assert workers.given[-1].index == 0, "what nothing waits for is left for the end"


def test_a_chunk_at_which_two_workers_died_fails_its_evaluation_and_no_other():
    suite = suite_of({"a": (20, 1), "b": (20, 1)})
    good, bad = task_of("good", suite), task_of("bad", suite)

    def dies(job):
        return job.task.key == bad.key and job.index == 1

    pool, _ = dealing(suite, 2, dies=dies)
    events = run(pool, [bad, good])
    done = {event.task.key: event.error for event in events if isinstance(event, TaskDone)}
    assert done[good.key] is None
    assert str(done[bad.key]).startswith("bad on b: a worker ended twice")
    assert pool.idle == 2


def test_an_error_of_a_worker_s_harness_is_the_evaluation_s():
    suite = suite_of({"a": (20, 1)})
    pool, _ = dealing(suite, 2, fails=lambda job: EvaluatorError("out of ideas"))
    (done,) = [event for event in run(pool, [task_of("m", suite)]) if isinstance(event, TaskDone)]
    assert str(done.error).startswith("m on a: out of ideas")


def test_an_evaluation_takes_no_more_than_its_time_whoever_works_at_it():
    suite = suite_of({"a": (20, 1)}, timeout_seconds=30)
    for seconds, is_late in ((2.0, False), (20.0, True)):
        pool, workers = dealing(suite, 4, seconds=lambda number, job, s=seconds: s / 4)
        (done,) = [event for event in run(pool, [task_of("m", suite)]) if isinstance(event, TaskDone)]
        assert (done.error is not None) == is_late
        assert workers.given[0].seconds == pytest.approx(30, abs=1)
    assert str(done.error).startswith("m on a: no answer within 30 seconds")


class Spinning(Rounds):
    def evaluate(self, candidate, benchmark):
        while True:
            pass


def test_a_harness_that_hangs_here_is_interrupted_too():
    suite = BenchmarkSuite((SuiteEntry(Benchmark("a", "toy", "a"), Spinning({}), {}),), 0.2)
    pool, _ = dealing(suite, 1)
    (done,) = run(pool, [task_of("m", suite)])
    assert "no answer within 0.2 seconds" in str(done.error)


class Judged(Rounds):
    """Waits for something outside until the benchmark beside it is done."""

    done: tuple[str, ...] = ()

    def evaluate(self, candidate, benchmark):
        score = super().evaluate(candidate, benchmark)
        if benchmark.target == "judged" and (dealer := dealer_of(candidate)) is not None:
            dealer.aside(self._wait)
        self.done = (*self.done, benchmark.target)
        return score

    def _wait(self):
        until = time.monotonic() + 120
        while not self.done and time.monotonic() < until:
            time.sleep(0.01)


def test_while_an_evaluation_waits_for_something_outside_the_others_go_on():
    harness = Judged({"judged": (3, 1), "plain": (90, 4)})
    entries = [SuiteEntry(Benchmark(name, "toy", name), harness, {}) for name in harness.counts]
    suite = BenchmarkSuite(tuple(entries))
    pool, _ = dealing(suite, 2)
    run(pool, [task_of("m", suite)])
    assert harness.done == ("plain", "judged")


def test_what_an_evaluation_remarks_and_how_far_it_is_are_told():
    suite = suite_of({"a": (20, 1)})
    pool, _ = dealing(suite, 2)
    events = run(pool, [task_of("m", suite)])
    assert [event.text for event in events if isinstance(event, Remark)] == ["a is asked"]
    assert [(event.index, event.count) for event in events if isinstance(event, AnswersEvent)] == [(0, 20)]


def test_files_that_a_worker_does_not_see_are_sent_once(tmp_path):
    (tmp_path / "image.png").write_bytes(b"pixels")
    suite = suite_of({"a": (4, 1)})
    missing = MissingFilesError([str(tmp_path / "image.png")])
    assert pickle.loads(pickle.dumps(missing)).paths == missing.paths
    pool, workers = dealing(suite, 1, fails=lambda job: None if job.files else missing)
    (done,) = [event for event in run(pool, [task_of("m", suite)]) if isinstance(event, TaskDone)]
    assert done.error is None
    assert workers.given[1].files == {str(tmp_path / "image.png"): b"pixels"}
    pool, workers = dealing(suite, 1, fails=lambda job: missing)
    (done,) = [event for event in run(pool, [task_of("m", suite)]) if isinstance(event, TaskDone)]
    assert "not there" in str(done.error)


def test_an_end_leaves_no_thread_behind():
    before = threading.active_count()
    suite = suite_of({"a": (20, 1), "b": (20, 2)})
    pool, _ = dealing(suite, 2)
    pool.start(task_of("m", suite))
    assert threading.active_count() == before + 2
    pool.close()
    assert threading.active_count() == before
