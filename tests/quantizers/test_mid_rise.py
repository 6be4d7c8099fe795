"""Levels without a zero, against exact rationals and a formula of its own; equalised weights, against ranks."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from fewbits.errors import FewbitsError
from fewbits.quantizers import Balanced, Given, LeastError, MidRise, PerGate, PerRow


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def levels(largest: Fraction, bits: int) -> list[Fraction]:
    """2^bits numbers in equal steps from −largest to largest."""
    return [-largest + 2 * largest * c / (2**bits - 1) for c in range(2**bits)]


@given(bits=st.integers(1, 6), codes=st.lists(st.integers(-1000, 1000), min_size=1, max_size=30))
def test_the_nearest_level_in_exact_rationals_ties_to_even(bits, codes):
    """Quarters of steps up to the last level, which is (2^bits − 1) · 2^−3 exactly: every tie is met, and exact."""
    last = 2**bits - 1
    weight = [Fraction(max(-4 * last, min(4 * last, code)), 32) for code in codes] + [Fraction(last, 8)]
    found = MidRise(bits).encode(torch.tensor([float(w) for w in weight]))
    expected = [round((w * 8 + last) / 2) for w in weight]  # Python rounds halves to even
    assert found.integers.tolist() == [2 * c - last for c in expected]
    assert list(map(Fraction, found.decode().tolist())) == [levels(Fraction(last, 8), bits)[c] for c in expected]


@pytest.mark.parametrize("bits", [1, 2, 3, 8, 12, 16])
def test_no_level_is_nearer(bits):
    """In float64, against the levels as rationals: the two next to the chosen one are not nearer, but for rounding."""
    weight = draw(60).tolist()
    codes = MidRise(bits).encode(torch.tensor(weight, dtype=torch.float64))
    largest, last = max(map(abs, map(Fraction, weight))), 2**bits - 1
    for w, integer, value in zip(weight, codes.integers.tolist(), codes.decode().tolist(), strict=True):
        near = [Fraction(i, last) * largest for i in (integer - 2, integer, integer + 2) if abs(i) <= last]
        level = Fraction(integer, last) * largest
        distances = [abs(each - Fraction(w)) for each in near]
        assert abs(level - Fraction(w)) <= min(distances) + Fraction(2) ** -30 * 2 * largest / last
        assert abs(Fraction(value) - level) <= Fraction(2) ** -51 * abs(level)


@pytest.mark.parametrize(
    ("dtype", "bits"),
    [*((torch.float16, bits) for bits in (1, 2, 6)), *((torch.bfloat16, bits) for bits in (1, 2, 4))]
    + [(torch.float32, bits) for bits in (1, 2, 8, 12)],
    ids=str,
)
def test_it_is_the_linear_quantization_of_the_tables(dtype, bits):
    """q(x) = 2 · (round((2^k − 1) · (x + 1) / 2) / (2^k − 1) − 1/2) of x = w / max |w|, in NumPy (Xu et al. 2018)."""
    weight = draw(8, 60, dtype=dtype)
    wide = weight.double().numpy()
    largest = np.abs(wide).max(axis=1, keepdims=True)
    place = (2**bits - 1) * (wide / largest + 1) / 2
    expected = largest * 2 * (np.rint(place) / (2**bits - 1) - 0.5)
    found = MidRise(bits, PerRow())(weight)
    eps = torch.finfo(dtype).eps
    tie = np.abs(place % 1 - 0.5) < 2 ** (bits - 1) * eps  # the scale is rounded to the type of the weights
    np.testing.assert_allclose(found.double()[~tie], expected[~tie], rtol=1.5 * eps)
    assert (~tie).mean() > 0.8


@pytest.mark.parametrize("bits", [1, 3, 16])
def test_both_ends_are_levels_and_zero_is_none(bits):
    weight = torch.cat([draw(500), torch.zeros(3)])
    weight[:2] = torch.tensor([-5.0, 5.0])
    codes = MidRise(bits).encode(weight)
    assert codes.grid.bits == bits
    assert (codes.integers % 2 == 1).all()
    value = codes.decode()
    assert value[:2].tolist() == [-value.max(), value.max()]
    torch.testing.assert_close(value.max(), torch.tensor(5.0, dtype=torch.float64), rtol=1e-15, atol=0)
    assert value.abs().min() > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_sixteen_bits_in_half_precision(dtype):
    """The last level, 65,535 times the scale, is beyond float16; the scale and the value are rounded."""
    weight = draw(200, dtype=dtype)
    values = MidRise(16)(weight)
    eps = torch.finfo(dtype).eps
    step = weight.abs().max().item() / 65535
    assert (values.double() - weight.double()).abs().max() <= step + 2 * eps * weight.abs().max()
    assert Balanced(16)(weight).isfinite().all()


@pytest.mark.parametrize("quantizer", [MidRise(3, PerRow()), Balanced(3, PerRow())], ids=repr)
def test_a_group_of_zeros_stays_zero_beside_others(quantizer):
    value = quantizer(torch.tensor([[0.0, 0.0], [-1.0, 7.0]]))
    assert not value[0].any()
    assert value[1].abs().max() == 7


# --- balanced --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [1, 2, 3, 5])
@pytest.mark.parametrize("number", [32, 96, 77, 5])
def test_every_level_is_used_equally(bits, number):
    """By NumPy's ranks: level c holds the ranks from c · n / 2^bits up to the next; counts differ by one at most."""
    weight = draw(6, number, dtype=torch.float32)
    integers = Balanced(bits, PerRow()).encode(weight).integers
    for row, found in zip(weight.numpy(), integers, strict=True):
        rank = np.argsort(np.argsort(row))
        chosen = [Fraction(int(r) * 2**bits, number).__floor__() for r in rank]
        assert found.tolist() == [2 * c - (2**bits - 1) for c in chosen]
        counts = np.bincount(chosen, minlength=2**bits)
        assert counts.max() - counts.min() <= (1 if number % 2**bits else 0)


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=40), st.integers(1, 5))
def test_of_equal_weights_all_take_the_lowest_rank(numbers, bits):
    codes = Balanced(bits).encode(torch.tensor(numbers, dtype=torch.float32))
    rank = rankdata(numbers, method="min").astype(int) - 1
    assert codes.integers.tolist() == [2 * (int(r) * 2**bits // len(numbers)) - (2**bits - 1) for r in rank]


@pytest.mark.parametrize("bits", [1, 4])
def test_the_levels_are_those_of_mid_rise(bits):
    weight = draw(8, 40)
    balanced, plain = Balanced(bits, PerGate()).encode(weight), MidRise(bits, PerGate()).encode(weight)
    assert balanced.grid == plain.grid
    assert torch.equal(balanced.tables["scale"], plain.tables["scale"])
    order = weight.reshape(4, -1).argsort(1)
    assert (balanced.decode().reshape(4, -1).gather(1, order).diff(dim=1) >= 0).all()
    assert not torch.equal(balanced.integers, plain.integers)


@pytest.mark.parametrize("kind", [MidRise, Balanced])
@pytest.mark.parametrize("bits", [0, 17, 2.0, math.nan])
def test_widths_without_levels_are_refused(kind, bits):
    with pytest.raises(FewbitsError, match="a whole number"):
        kind(bits)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_range_clips_to_its_ends(bits):
    weight = torch.linspace(-3, 3, 101)
    levels = torch.linspace(-1, 1, 2**bits)
    found = MidRise(bits, range=Given(-1, 0.5))(weight)  # the larger end counts on both sides
    nearest = levels[(weight[:, None] - levels).abs().argmin(1)]
    tied = (weight[:, None] - levels).abs().sort(dim=1).values.diff(dim=1)[:, 0].abs() < 1e-6
    torch.testing.assert_close(found[~tied], nearest[~tied])


def test_the_range_of_least_error_is_never_worse_and_is_the_best_of_its_candidates():
    weight = torch.randn(1000, generator=torch.Generator().manual_seed(0)) ** 3
    largest = float(weight.abs().max())
    errors = []
    for part in range(1, 11):
        each = MidRise(2, range=Given(-largest * part / 10, largest * part / 10))
        errors.append(float((each(weight) - weight).double().square().sum()))
    found = float((MidRise(2, range=LeastError(10))(weight) - weight).double().square().sum())
    low, high = float(weight.min()), float(weight.max())
    assert found == pytest.approx(min(errors), rel=1e-6)
    assert max(-low, high) == largest
    assert found < errors[-1]
