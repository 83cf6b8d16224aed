"""Checks that a method, a strategy or an evaluator keeps its contract; soup's own plug-ins pass them.

Each raises AssertionError with what is wrong.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from soup.checkpoints.dtypes import named_dtype
from soup.checkpoints.writer import view_bytes
from soup.errors import EvaluatorError, RecipeError
from soup.evaluation.api import Benchmark, Candidate, Evaluator, Score, Split
from soup.evaluation.harnesses import why_no_likelihood
from soup.evaluation.settings import EvalSettings
from soup.hf.places import Place, places_of
from soup.merging.compiled import merge_block
from soup.merging.kernel_library import has_kernels
from soup.merging.methods.base import Block, Method
from soup.merging.pool import Pool
from soup.merging.shares import shares_of
from soup.search.strategies.base import Choice, Chosen, Strategy
from soup.testing.tiny_checkpoints import tiny_pool, tiny_tensor

if TYPE_CHECKING:
    import torch

__all__ = ["check_evaluator", "check_method", "check_strategy"]

TENSOR_NAME = "layers.1.weight"


def check_method(method: Method, *, seed: int = 0) -> None:
    """Check that a method keeps the contract of `soup.merging.methods.base.Method`.

    It is tried with 1 to 5 ingredients, all floating dtypes, several shapes, uniform and random weights. It must be a
    frozen dataclass. Its result must have the block's shape and `accumulate_in`, be finite where the inputs are, and be
    the same at every call; the inputs must stay as they were. Copies of one model must give that model. Where its
    granularity is `element` it must give the same bits however the tensor is cut. What `arithmetic` says must give the
    bytes of the call, rounded; that is tried where soup's compiled library is installed. What `prepare` asks of all
    inputs it gets of the tensors that are tried.

    Args:
        method: An instance with its parameters set.
        seed: Seeds the random tensors and weights.

    Raises:
        AssertionError: The method breaks the contract.
    """
    import torch

    what = type(method).__name__
    params = getattr(method, "__dataclass_params__", None)
    assert params is not None, f"{what}: must be a dataclass, whose fields are the method's parameters"
    assert params.frozen, f"{what}: must be frozen: @dataclass(frozen=True)"
    rng = random.Random(seed)
    whole = _granularity(method, (7, 33)) == "tensor"
    shapes = [(1,), (96,), (7, 33) if whole else (231,)]
    usable = 0
    for count, dtype, shape in itertools.product((1, 2, 3, 5), ("bfloat16", "float16", "float32", "float64"), shapes):
        for weights in ((1 / count,) * count, tuple(rng.uniform(0.1, 2.0) for _ in range(count))):
            try:
                method.check(weights)
            except RecipeError:
                continue
            usable += 1
            block = _random_block(method, dtype, shape, weights, rng.randrange(2**32))
            _check_call(method, block)
            _check_copies(method, block)
            _check_arithmetic(method, block)
            if _granularity(method, shape) == "element":
                uncut = method(block)
                cuts = sorted({0, *(rng.randrange(1, shape[0] + 1) for _ in range(4)), shape[0]})
                pieces = [method(_sliced(block, begin, end)) for begin, end in itertools.pairwise(cuts)]
                assert _same_bits(torch.cat(pieces), uncut), (
                    f"{what}: {dtype}, {count} ingredients: cut at {cuts} the result has other bits than in one "
                    'piece. If it needs the whole tensor, say granularity = "tensor".'
                )
    assert usable, f"{what}: check() refused all weights that were tried, uniform ones too"


def _granularity(method: Method, shape: tuple[int, ...]) -> str:
    granularity = method.granularity_of(TENSOR_NAME, shape)
    what = type(method).__name__
    assert granularity in ("element", "tensor"), f"{what}: unknown granularity {granularity!r}"
    return granularity


@dataclasses.dataclass(frozen=True)
class _OneTensor:
    """A `FirstPass` over a single block that is a whole tensor."""

    block: Block

    @property
    def weights(self) -> tuple[float, ...]:
        return self.block.weights

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {TENSOR_NAME: tuple(self.block.raw[0].shape)}

    @property
    def places(self) -> Mapping[str, Place]:
        return places_of([TENSOR_NAME])

    def sums(
        self, statistic: Callable[[Block], torch.Tensor], sample: int | None = None
    ) -> Iterator[tuple[str, torch.Tensor]]:
        yield TENSOR_NAME, statistic(self.block)

    def with_constants(self, constants: object) -> _OneTensor:
        return _OneTensor(dataclasses.replace(self.block, constants=constants))


def _random_block(method: Method, dtype: str, shape: tuple[int, ...], weights: tuple[float, ...], seed: int) -> Block:
    raw = tuple(tiny_tensor(f"ingredient {i}", shape, seed=seed, dtype=dtype) for i in range(len(weights)))
    base = tiny_tensor("base", shape, seed=seed, dtype=dtype) if method.needs_base else None
    digests = tuple(f"digest {i}" for i in range(len(weights))) if method.needs_digests else ()
    accumulate_in = named_dtype(dtype).accumulates_in.torch
    place = places_of([TENSOR_NAME])[TENSOR_NAME] if method.uses_places else None
    return _prepared(method, Block(TENSOR_NAME, weights, raw, accumulate_in, base, place=place, digests=digests))


def _prepared(method: Method, block: Block) -> Block:
    return dataclasses.replace(block, constants=method.prepare(_OneTensor(block)))


def _sliced(block: Block, begin: int, end: int) -> Block:
    base = block.raw_base[begin:end] if block.raw_base is not None else None
    return dataclasses.replace(block, raw=tuple(raw[begin:end] for raw in block.raw), raw_base=base, first=begin)


def _check_call(method: Method, block: Block) -> None:
    import torch

    what = f"{type(method).__name__}: {len(block)} ingredients of {block.raw[0].dtype}{list(block.raw[0].shape)}"
    inputs = [*block.raw, *([block.raw_base] if block.raw_base is not None else [])]
    before = [tensor.clone() for tensor in inputs]
    first = method(block)
    assert isinstance(first, torch.Tensor), f"{what}: expected a tensor, found {type(first).__name__}"
    assert first.shape == block.raw[0].shape, f"{what}: found shape {list(first.shape)}"
    assert first.dtype == block.accumulate_in, f"{what}: expected {block.accumulate_in}, found {first.dtype}"
    assert torch.isfinite(first).all(), f"{what}: NaN or infinity from finite inputs"
    assert all(map(_same_bits, inputs, before)), f"{what}: changed its inputs; take block[i], a fresh copy"
    kept = first.clone()
    assert _same_bits(method(block), kept), f"{what}: the second call gave other bits than the first"


def _check_arithmetic(method: Method, block: Block) -> None:
    """Check that the compiled pass does what the call does, but for elements on which all inputs agree."""
    import torch

    if "arithmetic" not in vars(type(method)) or not has_kernels() or len(block) == 1:
        return
    arithmetic = method.arithmetic(block)
    inputs = [*block.raw, *([block.raw_base] if block.raw_base is not None else [])]
    dtype = named_dtype(str(inputs[0].dtype).removeprefix("torch."))
    views = [memoryview(bytearray(view_bytes(values))) for values in inputs]
    out = memoryview(bytearray(len(views[0])))
    if merge_block(arithmetic, dtype, views, block.first, out) != "merged":
        return
    words = [values.contiguous().view(-1).view(torch.uint8).view(-1, dtype.bits // 8) for values in inputs]
    agree = torch.stack([(word == words[0]).all(1) for word in words]).all(0)
    expected = torch.where(agree, inputs[0].reshape(-1), method(block).to(inputs[0].dtype).reshape(-1))
    same = _same_bits(torch.frombuffer(out, dtype=inputs[0].dtype), expected)
    what = f"{type(method).__name__}: {len(block)} ingredients of {inputs[0].dtype}"
    assert same, f"{what}: the compiled pass of `arithmetic` gives other bytes than the call"


def _check_copies(method: Method, block: Block) -> None:
    """Check that copies of a model (and of its base) give that model: bit for bit where `keeps_equal`, else nearly."""
    import torch

    copy = block.raw[0]
    base = copy if block.raw_base is not None else None
    copies = _prepared(method, dataclasses.replace(block, raw=(copy,) * len(block), raw_base=base))
    values = method(copies)
    what = f"{type(method).__name__}: {len(block)} copies of one {copy.dtype} tensor, weights {block.weights}"
    near = math.sqrt(torch.finfo(block.accumulate_in).eps)
    assert torch.allclose(values, copy.to(values.dtype), rtol=near, atol=near * 0.02), f"{what} gave another tensor"
    if method.keeps_equal(block.weights) and copy.dtype != block.accumulate_in:
        same = _same_bits(values.to(copy.dtype), copy)
        assert same, f"{what}: other bits, and keeps_equal() says that there are none"


def _same_bits(left: torch.Tensor, right: torch.Tensor) -> bool:
    import torch

    return torch.equal(left.contiguous().view(-1).view(torch.uint8), right.contiguous().view(-1).view(torch.uint8))


def check_strategy(strategy: Strategy, *, tables: int = 25, seed: int = 0, **options: object) -> None:
    """Check that a strategy keeps the contract, over pools of 1 to 6 ingredients and random scores, many with ties.

    The pools have a base. The strategy must choose at least one ingredient of the pool, each once (or finite weights
    for them, not all 0), and call `score` with such choices alone, as often as its `budget` says at most. It must leave
    the pool as it is, and make the same choice when it is called again. It may refuse some pools by a RecipeError, but
    not all.

    Args:
        strategy: The function.
        tables: With how many tables of scores it is tried.
        seed: Seeds the scores.
        options: Passed on to the strategy.

    Raises:
        AssertionError: The strategy breaks the contract.
    """
    with tempfile.TemporaryDirectory() as folder, Pool(tiny_pool(folder, 7, tensors={"w": (1,)})) as seven:
        usable = 0
        for number in range(tables):
            pool = Pool.of(seven.ingredients[: 1 + number % 6], base=seven.ingredients[-1])
            before = pool.names
            table = _ScoreTable(pool, f"{seed}/{number}", ties=number % 2 == 1)
            try:
                first = strategy(pool, table, **options)
            except RecipeError as error:
                refusal = error
                continue
            usable += 1
            chosen = _soup(pool, first)
            assert pool.names == before, f"the pool was changed: expected {before}, found {pool.names}"
            again = _soup(pool, strategy(pool, table, **options))
            assert chosen == again, f"the same scores led to {chosen} and then to {again}"
            _check_budget(strategy, pool, table, first, options)
        assert usable, f"it refused all pools of 1 to 6 ingredients: {refusal}"


def _check_budget(
    strategy: Strategy, pool: Pool, table: _ScoreTable, returned: object, options: Mapping[str, object]
) -> None:
    if (most := getattr(strategy, "budget", None)) is None:
        return
    choice = returned if isinstance(returned, Choice) else Choice(cast("Chosen", returned))
    table(choice.chosen, choice.method, choice.params)  # a run scores what was chosen
    said = most(len(pool), **options)
    assert len(table.soups) <= said.singles + said.soups, (
        f"over {len(pool)} ingredients it asked for {len(table.soups)} soups; its budget said {said}"
    )


def _soup(pool: Pool, returned: object) -> object:
    if not isinstance(returned, Choice):
        return _choice(pool, returned, "it chose")
    return _choice(pool, returned.chosen, "it chose"), returned.method, returned.params


@dataclasses.dataclass
class _ScoreTable:
    """A score for every soup of a pool, from a hash: a soup has the same score in whatever order scores are called."""

    pool: Pool
    seed: str
    ties: bool
    soups: set[str] = dataclasses.field(default_factory=set)

    def __call__(
        self, chosen: Chosen, /, method: str | None = None, params: Mapping[str, object] | None = None
    ) -> _TableScore:
        soup = _choice(self.pool, chosen, "it asked for the score of")
        name = f"{sorted(soup)}{[method, dict(params)] if params else method or ''}"
        self.soups.add(name)
        drawn = hashlib.sha256(f"{self.seed}/{name}".encode()).digest()
        numbers = [int.from_bytes(drawn[i : i + 4], "big") for i in range(0, 12, 4)]
        values = [float(number % 3) if self.ties else number % 100_001 / 1000 for number in numbers]
        return _TableScore({f"benchmark {i}": Score(value) for i, value in enumerate(values)})


@dataclasses.dataclass(frozen=True)
class _TableScore:
    scores: Mapping[str, Score]

    @property
    def overall(self) -> float:
        return math.fsum(score.value for score in self.scores.values()) / len(self.scores)


def _choice(pool: Pool, chosen: object, did: str) -> list[tuple[str, float]]:
    """List the (name, weight) of each chosen ingredient, in the order of choice."""
    assert isinstance(chosen, Sequence | Mapping), f"{did} {chosen!r}: expected ingredients, or a weight for each"
    assert not isinstance(chosen, str), f"{did} {chosen!r}: expected a list of ingredients"
    assert len(chosen), f"{did} nothing"
    try:
        shares = {share.name: share.weight for share in shares_of(pool, chosen)}
    except RecipeError as error:
        raise AssertionError(f"{did} {chosen!r}: {error}") from error
    names = [str(getattr(entry, "name", entry)) for entry in chosen]
    return [(name, shares[name]) for name in names]


def check_evaluator(
    factory: Callable[[EvalSettings], Evaluator],
    benchmark: Benchmark,
    candidate: Candidate,
    *,
    settings: EvalSettings | None = None,
    failing: Candidate | None = None,
) -> Score:
    """Check that an evaluator keeps the contract of `soup.evaluation.Evaluator`.

    Its identity must be JSON and stay the same. A candidate must get the same score twice, and from a second evaluator
    too. If it can split, the halves must share no question and together be all of them. If it says that it gives the
    likelihood of reference answers, that has an identity of its own, and is the same twice.

    Args:
        factory: What the entry point names: makes an evaluator from settings.
        benchmark: The benchmark to evaluate on.
        candidate: The candidate, such as one of `tiny_candidate`.
        settings: The settings (default: `EvalSettings()`).
        failing: A candidate that can't be evaluated: it must raise EvaluatorError, and never get a score.

    Returns:
        The candidate's score.

    Raises:
        AssertionError: The evaluator breaks the contract.
    """
    settings = settings or EvalSettings()
    evaluator, second = factory(settings), factory(settings)
    assert isinstance(evaluator, Evaluator), f"{factory}: no identity() or no evaluate()"
    identity = _identity(evaluator, benchmark)
    assert _identity(second, benchmark) == identity, "two evaluators of the same settings have two identities"
    score = _evaluate(evaluator, candidate, benchmark)
    _check_score(score, benchmark)
    for other in (evaluator, second):
        assert _evaluate(other, candidate, benchmark) == score, "the same candidate got another score the second time"
    assert _identity(evaluator, benchmark) == identity, "evaluating changed the identity"
    _check_halves(evaluator, benchmark, candidate, score)
    if why_no_likelihood(evaluator, benchmark) is None:
        likely = benchmark.likelihood
        assert _identity(evaluator, likely) != identity, "a likelihood would be remembered as the score"
        values = [_evaluate(each, candidate, likely).loss for each in (evaluator, second)]
        assert values[0] == values[1], "the same candidate got another likelihood the second time"
    if failing is not None:
        _check_failure(evaluator, benchmark, failing)
    return score


class _Attempt:
    """A candidate with fresh directories: nothing that an earlier evaluation left there can answer for it."""

    def __init__(self, candidate: Candidate, folder: Path) -> None:
        self.scratch, self.kept, self._candidate = folder / "scratch", folder / "kept", candidate
        self.scratch.mkdir()

    def __getattr__(self, name: str) -> object:
        attribute: object = getattr(self._candidate, name)
        return attribute


def _evaluate(evaluator: Evaluator, candidate: Candidate, benchmark: Benchmark) -> Score:
    with tempfile.TemporaryDirectory() as folder:
        return evaluator.evaluate(cast("Candidate", _Attempt(candidate, Path(folder))), benchmark)


def _check_failure(evaluator: Evaluator, benchmark: Benchmark, failing: Candidate) -> None:
    try:
        score = _evaluate(evaluator, failing, benchmark)
    except EvaluatorError as error:
        message = str(error)
    else:
        raise AssertionError(f"the failing candidate was given a score: {score}")
    assert message.strip(), "an EvaluatorError that says nothing"


def _identity(evaluator: Evaluator, benchmark: Benchmark) -> str:
    """Check that the identity is JSON, and return it as such."""
    identity = evaluator.identity(benchmark)
    try:
        text = json.dumps(identity, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise AssertionError(f"the identity is no JSON ({error}): {identity!r}") from error
    assert json.loads(text) == identity, f"the identity does not come back from JSON as it was: {identity!r}"
    return text


def _check_score(score: object, benchmark: Benchmark) -> None:
    assert isinstance(score, Score), f"expected a soup.evaluation.Score, found {score!r:.80}"
    assert score.n is None or score.n > 0, f"a score over {score.n} questions"
    if score.questions is not None:
        outside = [index for index in score.questions if not benchmark.split.holds(index)]
        assert not outside, f"questions of the other half were judged: {outside[:5]}"
        assert all(0 <= points <= 1 for points in score.questions.values()), "a question's points are 0 to 1"
    if score.parts:
        mean = math.fsum(score.parts.values()) / len(score.parts)
        assert math.isclose(score.value, mean), (
            f"the value must be the parts' mean: expected {mean}, found {score.value}"
        )


def _check_halves(evaluator: Evaluator, benchmark: Benchmark, candidate: Candidate, whole: Score) -> None:
    """Check that the halves of a split are disjoint and complete, if the evaluator can split."""
    halves = [dataclasses.replace(benchmark, split=Split(part, 0.5)) for part in ("selection", "report")]
    try:
        for half in halves:
            _identity(evaluator, half)
        chosen = _evaluate(evaluator, candidate, halves[0])
    except EvaluatorError:
        return  # it can't split, and says so before any work, or when it first sees that questions are not told
    reported = _evaluate(evaluator, candidate, halves[1])
    for half, score in zip(halves, (chosen, reported), strict=True):
        _check_score(score, half)
    if whole.n is not None and chosen.n is not None and reported.n is not None:
        assert chosen.n + reported.n == whole.n, f"halves of {chosen.n} and {reported.n} questions out of {whole.n}"
    if whole.questions is not None and chosen.questions is not None and reported.questions is not None:
        shared = chosen.questions.keys() & reported.questions.keys()
        assert not shared, f"questions in both halves: {sorted(shared)[:5]}"
        assert {*chosen.questions, *reported.questions} == {*whole.questions}, "the halves are not the whole"
