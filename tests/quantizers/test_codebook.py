"""Codebooks against brute force, plain means, dynamic programming and the k-means of scipy."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.vq import kmeans2

from fewbits.errors import FewbitsError
from fewbits.quantizers import Codebook, PerGate, PerGroup, PerRow, PerTensor, Start

TYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def inertia(found: torch.Tensor, weight: torch.Tensor, importance: torch.Tensor | float = 1.0) -> float:
    return (importance * (found.double() - weight.double()) ** 2).sum().item()


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize(
    ("bits", "start"), [(1, Start.DENSITY), (3, Start.LINEAR), (4, Start.RANDOM), (5, Start.DENSITY), (8, Start.LINEAR)]
)
def test_every_weight_is_at_its_nearest_number(dtype, bits, start):
    weight = draw(2, 700, seed=bits).to(dtype)
    codes = Codebook(bits, start, granularity=PerRow()).encode(weight)
    numbers = codes.tables["codebook"]
    assert numbers.shape == (2, 2**bits)
    assert numbers.dtype == dtype
    assert (numbers.diff(dim=1) >= 0).all()
    distance = (weight.double()[..., None] - numbers.double()[:, None]).abs()
    assert torch.equal((weight.double() - codes.decode().double()).abs(), distance.amin(2))
    assert torch.equal(codes.decode(), numbers.gather(1, codes.integers.long()))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("start", Start)
def test_at_the_end_each_number_is_the_mean_of_its_members(weighted, bits, start):
    for seed in range(5):
        weight = draw(400, seed=seed)
        importance = draw(400, seed=seed + 99) ** 2 if weighted else None
        codes = Codebook(bits, start, iterations=1000).encode(weight, importance=importance)
        further = Codebook(bits, start, iterations=1001).encode(weight, importance=importance)
        assert torch.equal(codes.tables["codebook"], further.tables["codebook"]), "the rounds have ended"
        share = importance.numpy() if weighted else np.ones(400)
        for number, mean in enumerate(codes.tables["codebook"][0].tolist()):
            members = codes.integers.numpy() == number
            expected = np.average(weight.numpy()[members], weights=share[members])
            assert mean == pytest.approx(expected, rel=0, abs=1e-12)  # sums of 400 numbers below 4, in float64


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("start", Start)
@pytest.mark.parametrize("weighted", [False, True])
def test_no_round_raises_the_error(dtype, start, weighted):
    """A mean rounded to its type is the best number of this type; float64 alone rounds as the sums do."""
    weight = draw(500, seed=3).to(dtype)
    weight[:200] = 0  # a start at quantiles has numbers without a weight then
    importance = (draw(500, seed=4) ** 2).clamp(max=1) if weighted else None
    errors = [
        inertia(
            Codebook(4, start, rounds)(weight, importance=importance), weight, 1.0 if importance is None else importance
        )
        for rounds in (*range(12), 100)
    ]
    for before, after in itertools.pairwise(errors):
        assert after <= before * (1 + 1e-12)
    assert errors[-1] < errors[0]


def test_where_the_numbers_start():
    weight = draw(1000)
    ordered = np.sort(weight.numpy())
    linear = Codebook(3, Start.LINEAR, 0).encode(weight).tables["codebook"][0]
    np.testing.assert_allclose(linear, np.linspace(ordered[0], ordered[-1], 8), rtol=0, atol=1e-14)
    density = Codebook(3, Start.DENSITY, 0).encode(weight).tables["codebook"][0]
    below = [(ordered < number).mean() for number in density.numpy()]
    np.testing.assert_allclose(below, (2 * np.arange(8) + 1) / 16, rtol=0, atol=1 / 1000)
    assert np.isin(density.numpy(), ordered).all()
    drawn = [Codebook(3, Start.RANDOM, 0, seed).encode(weight).tables["codebook"][0] for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert np.isin(drawn[0].numpy(), ordered).all()


@pytest.mark.parametrize("start", Start)
@settings(max_examples=40)
@given(
    values=st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=8),
    counts=st.lists(st.integers(1, 40), min_size=8, max_size=8),
)
def test_as_many_numbers_as_different_weights_lose_nothing(start, values, counts):
    weight = torch.tensor([v for v, count in zip(values, counts, strict=False) for _ in range(count)])
    assert torch.equal(Codebook(3, start)(weight), weight)


def test_numbers_that_no_weight_is_nearest_to_are_put_to_use():
    """Nine tenths zeros: a start at the quantiles has most numbers at zero, and one in equal steps most in the gap."""
    weight = torch.cat([torch.zeros(9000, dtype=torch.float64), draw(999), torch.tensor([1000.0]).double()])
    for start in Start:
        codes = Codebook(4, start).encode(weight)
        assert codes.integers.unique().numel() == 16
        assert inertia(codes.decode(), weight) < inertia(Codebook(2)(weight[9000:-1]), weight[9000:-1]) / 4


def optimum(ordered: np.ndarray, count: int) -> float:
    """The least inertia of at most ``count`` groups, by dynamic programming: the best groups are intervals."""
    sums, squares = (np.concatenate([[0.0], np.cumsum(ordered**power)]) for power in (1, 2))
    best = np.where(np.arange(len(sums)) > 0, np.inf, 0.0)  # of the first 0, 1, … numbers
    for _ in range(count):
        last = best.copy()
        for end in range(1, len(sums)):
            begin = np.arange(end)
            within = squares[end] - squares[begin] - (sums[end] - sums[begin]) ** 2 / (end - begin)
            best[end] = min(last[end], (last[begin] + within).min())
    return float(best[-1])


@pytest.mark.parametrize("bits", [1, 2, 3])
def test_the_optimum_is_a_bound_and_two_numbers_often_reach_it(bits):
    reached = 0
    for seed in range(10):
        weight = draw(60, seed=seed)
        best = optimum(np.sort(weight.numpy()), 2**bits)
        for start in Start:
            found = inertia(Codebook(bits, start)(weight), weight)
            assert found >= best * (1 - 1e-12)
            reached += found <= best * (1 + 1e-12)
    assert reached >= (10 if bits == 1 else 1)


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("number", [3000, 150_000])
def test_from_the_same_start_the_rounds_are_those_of_scipy(bits, number):
    weight = draw(number)
    for rounds in (1, 2, 7):
        start = Codebook(bits, Start.LINEAR, 0).encode(weight).tables["codebook"][0].numpy()
        theirs, _ = kmeans2(weight.numpy()[:, None], start[:, None], iter=rounds, minit="matrix", missing="raise")
        ours = Codebook(bits, Start.LINEAR, rounds).encode(weight).tables["codebook"][0]
        np.testing.assert_allclose(ours, theirs[:, 0], rtol=0, atol=1e-16 * number + 1e-12)  # means of numbers below 5


@pytest.mark.parametrize("shape", [(1, 300_001), (3, 140_000), (400, 500)])
@pytest.mark.parametrize("weighted", [False, True])
def test_one_round_of_many_weights(shape, weighted):
    """The boundaries are the means of neighbours, the numbers the means between them, as NumPy computes them."""
    weight, importance = draw(*shape, seed=1), draw(*shape, seed=2) ** 2 if weighted else None
    before = weight.clone(), None if importance is None else importance.clone()
    start, found = (
        Codebook(2, iterations=rounds, granularity=PerRow()).encode(weight, importance=importance).tables["codebook"]
        for rounds in (0, 1)
    )
    share = np.ones(shape) if importance is None else importance.numpy()
    for row, d, centres, moved in zip(weight.numpy(), share, start.numpy(), found.numpy(), strict=True):
        label = np.searchsorted((centres[1:] + centres[:-1]) / 2, row)
        expected = np.bincount(label, d * row, minlength=4) / np.bincount(label, d, minlength=4)
        np.testing.assert_allclose(moved, expected, rtol=0, atol=1e-16 * shape[1] + 1e-12)  # sums of numbers below 5
    assert torch.equal(weight, before[0])
    assert importance is None or torch.equal(importance, before[1])


@pytest.mark.parametrize("bits", [1, 2, 3])
def test_the_end_is_as_good_as_that_of_scipy_from_the_same_start(bits):
    """Both make Lloyd's rounds until nothing moves, so that the inertia differs by the rounding of its sum."""
    for seed in range(8):
        weight = draw(2000, seed=seed)
        start = Codebook(bits, iterations=0).encode(weight).tables["codebook"]
        centres, labels = kmeans2(weight.numpy()[:, None], start.T.numpy(), iter=1000, minit="matrix", missing="raise")
        theirs = ((weight.numpy() - centres[labels, 0]) ** 2).sum()
        assert inertia(Codebook(bits, iterations=1000)(weight), weight) == pytest.approx(theirs, rel=1e-12)


@settings(max_examples=60)
@given(
    pairs=st.lists(st.tuples(st.integers(-50, 50), st.integers(0, 5)), min_size=1, max_size=30).filter(
        lambda pairs: any(count for _, count in pairs)
    ),
    bits=st.integers(1, 3),
)
def test_an_importance_of_n_is_n_equal_weights(pairs, bits):
    """Weights are whole numbers, so that sums are exact; the start in equal steps does not count weights."""
    weight, count = torch.tensor(pairs).unbind(1)
    quantizer = Codebook(bits, Start.LINEAR)
    weighed = quantizer.encode(weight.double(), importance=count.double())
    repeated = quantizer.encode(weight.double().repeat_interleave(count))
    assert torch.equal(weighed.tables["codebook"], repeated.tables["codebook"])
    assert torch.equal(weighed.integers.repeat_interleave(count), repeated.integers)


def test_weights_of_no_importance_have_no_say():
    weight, importance = draw(300), (draw(300, seed=1) > 0).double()
    quiet = importance == 0
    for start in Start:
        codes = Codebook(3, start).encode(weight, importance=importance)
        for factor in (1000, -1000):
            other = torch.where(quiet, factor * weight, weight)
            same = Codebook(3, start).encode(other, importance=importance)
            assert torch.equal(same.tables["codebook"], codes.tables["codebook"])
    nothing = Codebook(2).encode(weight, importance=torch.zeros(300))
    assert torch.equal(nothing.tables["codebook"], Codebook(2, iterations=0).encode(weight).tables["codebook"])


@pytest.mark.parametrize("start", Start)
@pytest.mark.parametrize(
    ("granularity", "groups"), [(PerTensor(), 1), (PerRow(), 8), (PerGate(), 4), (PerGroup(6), 16)]
)
def test_groups_do_not_know_each_other(start, granularity, groups):
    weight = draw(8, 12)
    importance = draw(8, 12, seed=1) ** 2
    codes = Codebook(2, start, granularity=granularity).encode(weight, importance=importance)
    alone = [
        Codebook(2, start).encode(part, importance=share)
        for part, share in zip(weight.reshape(groups, -1), importance.reshape(groups, -1), strict=True)
    ]
    assert torch.equal(codes.tables["codebook"], torch.cat([part.tables["codebook"] for part in alone]))
    assert torch.equal(codes.integers.reshape(groups, -1), torch.stack([part.integers for part in alone]))
    assert codes.bits == 96 * 2 + groups * 4 * 64
    assert codes.nbytes == 24 + groups * 4 * 8


@pytest.mark.parametrize("count", [2, 5, 300])
@pytest.mark.parametrize("iterations", [0, 100])
def test_a_group_of_one_value_keeps_it(count, iterations):
    """Equal steps over no range: rounding alone would bring them out of order."""
    for value in draw(40).float().tolist():
        weight = torch.full((count,), value)
        codes = Codebook(8, Start.LINEAR, iterations).encode(weight)
        assert (codes.tables["codebook"].diff() >= 0).all()
        torch.testing.assert_close(codes.decode(), weight, rtol=0 if iterations else 2.0**-22, atol=0)


@pytest.mark.parametrize("bits", [0, 9, True, 2.0])
def test_bits_without_a_codebook_are_refused(bits):
    with pytest.raises(FewbitsError, match="a whole number"):
        Codebook(bits)


@pytest.mark.parametrize("iterations", [-1, 0.5, None])
def test_iterations_are_counted(iterations):
    with pytest.raises(FewbitsError, match="whole number"):
        Codebook(2, iterations=iterations)
