"""The best ternary weights against all ternary codes."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fewbits.quantizers import TWN, LeastSquaresTernary, PerGate, PerGroup, PerRow, PerTensor

#: All codes of one sign convention: H may be negative, so that each t stands for −t too.
ALL = {n: np.array([t for t in itertools.product([-1.0, 0.0, 1.0], repeat=n) if any(t)]) for n in range(1, 8)}

rows = st.integers(1, 7).flatmap(
    lambda n: st.tuples(
        arrays("float64", n, elements=st.floats(-4, 4, allow_subnormal=False).map(lambda x: x if abs(x) > 1e-6 else 0)),
        arrays("float64", n, elements=st.just(0.0) | st.floats(0.001, 4)),
    )
)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def error(found: torch.Tensor, weight: torch.Tensor, importance: torch.Tensor | float = 1.0) -> torch.Tensor:
    return (importance * (found.double() - weight.double()) ** 2).sum(-1)


def least_error(weight: np.ndarray, importance: np.ndarray) -> float:
    """The error of the best of 3^n codes, each with its best H = Σ d w t / Σ d t²."""
    codes = ALL[len(weight)]
    mass = (codes**2) @ importance
    height = np.divide(codes @ (importance * weight), mass, out=np.zeros(len(codes)), where=mass > 0)
    errors = (importance * (weight - height[:, None] * codes) ** 2).sum(1)
    return min(float(errors.min()), float((importance * weight**2).sum()))


@settings(max_examples=60)
@given(row=rows)
def test_no_ternary_code_is_better(row):
    """With importance and without, and in both the error is that of the best code and height, to float64 rounding."""
    for importance in (np.ones(len(row[0])), row[1]):
        weight, share = torch.from_numpy(row[0]), torch.from_numpy(importance)
        found = LeastSquaresTernary()(weight, importance=share)
        scale = float((importance * row[0] ** 2).sum())
        assert error(found, weight, share).item() == pytest.approx(least_error(row[0], importance), abs=1e-13 * scale)


@pytest.mark.parametrize("length", range(1, 8))
def test_no_ternary_code_is_better_on_gaussian_weights(length):
    for seed in range(20):
        weight, importance = draw(length, seed=seed), draw(length, seed=seed + 100) ** 2
        for share in (torch.ones(length).double(), importance):
            best = least_error(weight.numpy(), share.numpy())
            found = error(LeastSquaresTernary()(weight, importance=share), weight, share).item()
            assert found == pytest.approx(best, abs=1e-13)


@pytest.mark.parametrize("granularity", [PerTensor(), PerRow(), PerGate(), PerGroup(3)], ids=repr)
def test_never_worse_than_twn(granularity):
    for seed in range(20):
        weight = draw(8, 12, seed=seed) * torch.exp(draw(8, 12, seed=seed + 50))
        groups = granularity.groups(weight.shape)
        ours, twn = (
            error(quantizer(weight).reshape(groups, -1), weight.reshape(groups, -1))
            for quantizer in (LeastSquaresTernary(granularity), TWN(granularity))
        )
        assert (ours <= twn * (1 + 1e-12)).all()
        assert ours.sum() < twn.sum()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("weighted", [False, True])
def test_height_is_the_mean_of_what_is_kept_and_half_of_it_the_threshold(dtype, weighted):
    """Both conditions hold at the optimum: H = Σ d |w| / Σ d over t ≠ 0, and t ≠ 0 where |w| > H / 2 (LAT)."""
    weight = draw(3, 500, seed=5).to(dtype)
    importance = draw(3, 500, seed=6) ** 2
    codes = LeastSquaresTernary(PerRow()).encode(weight, importance=importance if weighted else None)
    share = importance if weighted else torch.ones_like(importance)
    magnitude, kept = weight.double().abs(), codes.integers != 0
    exact = (share * magnitude * kept).sum(1) / (share * kept).sum(1)
    assert codes.tables["scale"].dtype == dtype
    rounding = torch.finfo(dtype).eps + 500 * 2.0**-52  # of the result, and of two sums of 500 in float64
    torch.testing.assert_close(codes.tables["scale"], exact.to(dtype), rtol=rounding, atol=0)
    assert torch.equal(kept, magnitude > exact[:, None] / 2)
    assert torch.equal(codes.integers, (weight.sign() * kept).to(torch.int8))
    assert codes.bits == 3 * 500 * 2 + 3 * dtype.itemsize * 8


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(1, 300_001), (3, 200_000), (400, 500)])
def test_the_running_sums_of_many_weights_go_on_from_part_to_part(shape, weighted):
    """The gains of all k at once, in NumPy; the best k is three quarters of the weights, beyond the first part."""
    weight, importance = (2 * draw(*shape, seed=1)).tanh(), draw(*shape, seed=2) ** 2
    codes = LeastSquaresTernary(PerRow()).encode(weight, importance=importance if weighted else None)
    magnitude = np.abs(weight.numpy())
    order = np.argsort(-magnitude, axis=1, kind="stable")
    falling = np.take_along_axis(magnitude, order, axis=1)
    share = np.take_along_axis(importance.numpy(), order, axis=1) if weighted else np.ones(shape)
    mass, moment = share.cumsum(axis=1), (share * falling).cumsum(axis=1)
    best = (moment**2 / mass).argmax(axis=1)[:, None]
    height = np.take_along_axis(moment / mass, best, axis=1)
    np.testing.assert_allclose(codes.tables["scale"].numpy()[:, None], height, rtol=1e-14)  # a last digit of float64
    kept = magnitude >= np.take_along_axis(falling, best, axis=1)
    assert np.array_equal(codes.integers.numpy(), np.sign(weight.numpy()) * kept)


@pytest.mark.parametrize("power", [-1020, -565, -300, 300, 565, 1020])  # 2^-565 is about 10^-170
@pytest.mark.parametrize("weighted", [False, True])
def test_weights_whose_squares_underflow_or_overflow(power, weighted):
    weight, importance = draw(3, 200).clamp(-7, 7), draw(3, 200, seed=1) ** 2 if weighted else None
    expected = LeastSquaresTernary(PerRow()).encode(weight, importance=importance)
    found = LeastSquaresTernary(PerRow()).encode(weight * 2.0**power, importance=importance)
    assert torch.equal(found.integers, expected.integers)
    assert torch.equal(found.tables["scale"], expected.tables["scale"] * 2.0**power)


def test_the_smallest_and_the_largest_number_of_float64():
    for value in (5e-324, torch.finfo(torch.float64).max):
        weight = torch.tensor([value, -value, 0.0, value], dtype=torch.float64)
        assert torch.equal(LeastSquaresTernary()(weight), weight)


def test_groups_of_zeros_and_of_no_importance_have_no_height():
    weight = torch.tensor([[0.0, -0.0, 0.0], [1.0, -2.0, 3.0], [1.0, -2.0, 3.0]])
    importance = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0], [0.0, 0.0, 5.0]])
    codes = LeastSquaresTernary(PerRow()).encode(weight, importance=importance)
    assert codes.tables["scale"].tolist() == [0.0, 0.0, 3.0]
    assert codes.decode().abs().tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 3]]
    assert codes.integers[0].tolist() == [0, 0, 0]
    assert LeastSquaresTernary(PerRow()).encode(weight).tables["scale"][0] == 0


def test_weights_of_no_importance_do_not_move_the_height():
    weight, importance = draw(300), (draw(300, seed=1) > 0).double()
    expected = LeastSquaresTernary().encode(weight[importance > 0]).tables["scale"]
    for quiet in (weight, 1000 * weight, -weight):
        mixed = torch.where(importance > 0, weight, quiet)
        found = LeastSquaresTernary().encode(mixed, importance=importance)
        torch.testing.assert_close(found.tables["scale"], expected, rtol=1e-13, atol=0)
        assert error(found.decode(), mixed, importance) == pytest.approx(
            error(LeastSquaresTernary()(weight[importance > 0]), weight[importance > 0]).item(), rel=1e-12
        )


def test_of_equal_gains_the_smallest_number_is_kept():
    codes = LeastSquaresTernary().encode(torch.tensor([3.0, 1.0, -1.0, -1.0]))  # 9 / 1 for one, 36 / 4 for all
    assert (codes.integers.tolist(), codes.tables["scale"].tolist()) == ([1, 0, 0, 0], [3.0])


def test_equal_weights_are_kept_or_dropped_together():
    for weight in ([2.0, 2.0, 2.0, -2.0], [5.0, 1.0, 1.0, -1.0, 1.0], [1.0, 3.0, 3.0, -3.0, 0.1, 0.1]):
        integers = LeastSquaresTernary().encode(torch.tensor(weight)).integers.abs()
        for value in {abs(w) for w in weight}:
            assert integers[torch.tensor(weight).abs() == value].unique().numel() == 1
