"""Ranges of a uniform grid: order statistics, searches and given numbers, against NumPy, PyTorch and brute force."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from fewbits.errors import FewbitsError
from fewbits.quantizers import Given, LeastError, MinMax, MovingAverage, Percentile, PerRow, Uniform

RANGES = [MinMax(), Percentile(90), LeastError(), LeastError(7), Given(-0.7, 1.1), MovingAverage()]
both_grids = pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "affine"])


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def parameters(low, high, bits: int, symmetric: bool):
    """Scale, zero point and the ends of the integers, by the formulas, with NumPy in the type of the ends."""
    if symmetric:
        top = 2 ** (bits - 1) - 1
        return np.maximum(high, -low) / low.dtype.type(top), np.zeros_like(low), -top, top
    first, last = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    low, high = np.minimum(low, 0), np.maximum(high, 0)
    scale = (high - low) / low.dtype.type(last - first)
    return scale, np.clip(np.rint(low.dtype.type(first) - low / scale), first, last), first, last


def assert_like_torch(quantizer: Uniform, weight: torch.Tensor, low: np.ndarray, high: np.ndarray) -> None:
    """Against PyTorch's own operator, one channel a group, away from ties, where it multiplies by 1 / s."""
    rows = weight.reshape(len(low), -1)
    scale, zero_point, first, last = parameters(low, high, quantizer.bits, quantizer.symmetric)
    theirs = torch.fake_quantize_per_channel_affine(
        rows, torch.from_numpy(scale), torch.from_numpy(zero_point).int(), 0, first, last
    )
    codes = quantizer.encode(weight)
    np.testing.assert_array_equal(codes.tables["scale"], scale)
    tie = ((rows / torch.from_numpy(scale)[:, None]) % 1 - 0.5).abs() < 1e-4
    assert torch.equal(codes.decode().reshape(rows.shape)[~tie], theirs[~tie])
    assert (~tie).float().mean() > 0.9


@both_grids
@pytest.mark.parametrize("bits", [2, 5, 8])
@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (-0.25, 2.5), (0.5, 1.5), (-3.0, -0.5)])
def test_a_given_range_agrees_with_torch(bits, symmetric, low, high):
    ends = np.float32([low]), np.float32([high])
    assert_like_torch(Uniform(bits, symmetric=symmetric, range=Given(low, high)), draw(500), *ends)
    ends = np.repeat(ends[0], 8), np.repeat(ends[1], 8)
    assert_like_torch(Uniform(bits, PerRow(), symmetric, Given(low, high)), draw(8, 40), *ends)


@both_grids
@pytest.mark.parametrize("bits", [2, 5, 8])
@pytest.mark.parametrize("percent", [50, 97.5, 99.9, 100])
def test_percentiles_are_numpy_order_statistics_and_agree_with_torch(bits, symmetric, percent):
    weight = draw(8, 200)
    rows, share = weight.numpy(), Fraction(str(percent)) / 100
    if symmetric:
        rank = math.ceil(share * 200) - 1
        high = np.partition(np.abs(rows), rank, axis=1)[:, rank]
        low = -high
    else:
        above = int((1 - share) / 2 * 200)  # how many may lie beyond each end
        ordered = np.sort(rows, axis=1)
        low, high = ordered[:, above], ordered[:, 199 - above]
    assert_like_torch(Uniform(bits, PerRow(), symmetric, Percentile(percent)), weight, low, high)


numbers = st.floats(-8, 8, width=16).map(lambda number: number + 0.0)  # no −0
groups = arrays("float16", array_shapes(min_dims=2, max_dims=2, max_side=9), elements=numbers)


@given(rows=groups, percent=st.one_of(st.sampled_from([100, 75, 50, 99.9, 1e-3]), st.floats(0.1, 100)))
def test_percentiles_hold_the_share_and_nothing_smaller_does(rows, percent):
    """By the definition: of the weights themselves, the smallest range that holds enough."""
    share = Fraction(repr(float(percent))) / 100
    tensor = torch.from_numpy(rows)
    low, high = Percentile(percent).ends(tensor, Uniform(4), None)
    half = (1 - share) / 2
    below, above = Percentile(percent).ends(tensor, Uniform(4, symmetric=False), None)
    for number, row in enumerate(rows.tolist()):
        enough = [r for r in map(abs, row) if sum(abs(w) <= r for w in row) >= share * len(row)]
        assert (low[number].item(), high[number].item()) == (-min(enough), min(enough))
        assert above[number].item() == min(r for r in row if sum(w > r for w in row) <= half * len(row))
        assert below[number].item() == max(r for r in row if sum(w < r for w in row) <= half * len(row))


@both_grids
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_all_weights_and_no_past_are_min_and_max(symmetric, dtype):
    weight = draw(4, 60, dtype=dtype)
    plain = Uniform(5, PerRow(), symmetric).encode(weight)
    for end in (Percentile(100), MovingAverage(), LeastError(1)):
        codes = Uniform(5, PerRow(), symmetric, end).encode(weight)
        assert torch.equal(codes.integers, plain.integers)
        assert torch.equal(codes.decode(), plain.decode())


@both_grids
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_a_range_of_zero_alone_clips_everything_to_zero(symmetric, dtype):
    weight = torch.zeros(200, dtype=dtype)
    weight[::50] = torch.tensor([0.3, 5.0, -80.0, 1.5], dtype=dtype)
    assert not Uniform(4, symmetric=symmetric, range=Percentile(90))(weight).any()


# --- the least error -------------------------------------------------------------------------------------------------


def error(weight: torch.Tensor, value: torch.Tensor, importance: torch.Tensor | None) -> float:
    squares = (value.double() - weight.double()) ** 2
    return math.fsum((squares if importance is None else squares * importance).flatten().tolist())


@both_grids
@pytest.mark.parametrize("bits", [2, 3, 6])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("candidates", [1, 9, 64])
def test_the_least_error_is_that_of_brute_force(bits, symmetric, weighted, candidates):
    """All candidates by NumPy in float64, as the weights are, so that both do the same arithmetic."""
    weight = draw(6, 80, dtype=torch.float64) ** 3
    importance = draw(6, 80, seed=1, dtype=torch.float64) ** 2 if weighted else None
    expected = []
    for index, row in enumerate(weight.numpy()):
        tried = []
        for part in range(candidates, 0, -1):
            low, high = row.min() * (part / candidates), row.max() * (part / candidates)
            scale, zero_point, first, last = parameters(low, high, bits, symmetric)
            value = scale * (np.clip(np.rint(row / scale) + zero_point, first, last) - zero_point)
            squares = (value - row) ** 2 * (1 if importance is None else importance[index].numpy())
            tried.append((math.fsum(squares), scale))
        expected.append(min(tried, key=lambda each: each[0])[1])
    codes = Uniform(bits, PerRow(), symmetric, LeastError(candidates)).encode(weight, importance=importance)
    assert codes.tables["scale"].tolist() == expected


@both_grids
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@settings(max_examples=20)
@given(data=st.data())
def test_the_least_error_is_never_worse_than_min_and_max(symmetric, dtype, data):
    weight = torch.from_numpy(data.draw(groups).astype(dtype))
    importance = torch.from_numpy(np.abs(data.draw(arrays("float64", tuple(weight.shape), elements=numbers))))
    for d in (None, importance):
        least = Uniform(3, PerRow(), symmetric, LeastError(10))(weight, importance=d)
        plain = Uniform(3, PerRow(), symmetric)(weight)
        # each term of a sum in float64 is rounded once
        assert error(weight, least, d) <= error(weight, plain, d) * (1 + weight.numel() * 2.0**-52)


@both_grids
def test_a_weight_that_does_not_count_is_clipped(symmetric):
    weight, importance = draw(300), torch.ones(300)
    weight[:2], importance[:2] = torch.tensor([40.0, -40.0]), 0.0
    quantizer = Uniform(4, symmetric=symmetric, range=LeastError())
    assert quantizer(weight).abs().max() > 8
    assert quantizer(weight, importance=importance).abs().max() < 4


@both_grids
def test_of_equal_errors_the_wider_range_is_taken(symmetric):
    weight = draw(4, 30)
    quantizer = Uniform(3, PerRow(), symmetric, LeastError())
    plain = Uniform(3, PerRow(), symmetric)
    assert torch.equal(quantizer(weight, importance=torch.zeros(4, 30)), plain(weight))
    assert torch.equal(quantizer(torch.full((4, 30), 0.5)), plain(torch.full((4, 30), 0.5)))


# --- what is refused, and what is not --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Percentile(0), "above 0"),
        (lambda: Percentile(100.1), "up to 100"),
        (lambda: Percentile(math.nan), "above 0"),
        (lambda: LeastError(0), "at least 1"),
        (lambda: LeastError(2.5), "whole number"),
        (lambda: Given(1.0, 1.0), "smaller one first"),
        (lambda: Given(2, 1), "smaller one first"),
        (lambda: Given(-math.inf, 1), "finite"),
        (lambda: Given(0, math.nan), "finite"),
        (lambda: MovingAverage(1.0), "below 1"),
        (lambda: MovingAverage(-0.1), "at least 0"),
        (lambda: MovingAverage(math.nan), "at least 0"),
        (lambda: Uniform(3, range=Given(-1e5, 1e5))(torch.ones(3, dtype=torch.float16)), "overflows"),
    ],
)
def test_what_is_no_range_is_refused(make, words):
    with pytest.raises(FewbitsError, match=words):
        make()


@both_grids
@pytest.mark.parametrize("end", RANGES, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_empty_and_constant(symmetric, end, dtype):
    for bits in (2, 16):
        quantizer = Uniform(bits, PerRow(), symmetric, end)
        assert quantizer(torch.zeros(3, 0, dtype=dtype)).shape == (3, 0)
        assert not quantizer(torch.zeros(3, 4, dtype=dtype)).any()
        value = quantizer(torch.full((3, 4), -0.5, dtype=dtype))
        assert value.dtype == dtype
        assert value.unique().numel() == 1


def test_sixteen_affine_bits_reach_both_ends_in_float16():
    """All on one side of 0: the highest code minus the zero point is beyond float16."""
    weight = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float16)
    quantizer = Uniform(16, symmetric=False)
    torch.testing.assert_close(quantizer(weight), weight, rtol=2.0**-10, atol=0)
    torch.testing.assert_close(quantizer(-weight), -weight, rtol=2.0**-10, atol=0)


@both_grids
@pytest.mark.parametrize("end", [end for end in RANGES if end != Percentile(90)], ids=repr)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_sixteen_bits_are_as_good_as_the_type(symmetric, end, dtype):
    """A step, and a rounding of the type each in the ends, the scale and the value; up to 1.1 by the given range."""
    weight = draw(3, 50, dtype=dtype).clamp(-0.7, 0.7)
    error = (Uniform(16, PerRow(), symmetric, end)(weight).double() - weight.double()).abs().max()
    assert error <= 2.2 / (2**16 - 2) + 3 * 1.1 * torch.finfo(dtype).eps / 2


@pytest.mark.parametrize("weighted", [False, True])
def test_the_errors_of_a_long_row_are_summed_over_all_its_tiles(weighted):
    """Against each candidate as a range of its own; the last tile alone would want the whole range."""
    weight = torch.randn(2**17 + 500, generator=torch.Generator().manual_seed(0))
    weight[2**17 :] = 6.0
    importance = torch.linspace(0.1, 2.0, weight.numel()) if weighted else None
    mass = 1.0 if importance is None else importance.double()
    low, high = float(weight.min()), float(weight.max())
    errors = {}
    for part in range(1, 9):
        value = Uniform(3, range=Given(low * part / 8, high * part / 8))(weight)
        errors[part] = float((mass * (value - weight).double().square()).sum())
    found = Uniform(3, range=LeastError(8))(weight, importance=importance)
    best = min(errors, key=errors.__getitem__)
    assert best < 8
    assert float((mass * (found - weight).double().square()).sum()) == pytest.approx(errors[best], rel=1e-9)
