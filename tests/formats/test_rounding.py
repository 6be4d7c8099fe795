import math
from fractions import Fraction

import numba
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fewbits.formats import RoundingMode, round_shift

IEEE = [mode for mode in RoundingMode if mode is not RoundingMode.STOCHASTIC]


def by_rationals(value: Fraction, mode: RoundingMode) -> int:
    """The neighbour that the definition names, for a signed number."""
    below, above = math.floor(value), math.ceil(value)
    if below == above:
        return below
    nearer_zero, further = (below, above) if value > 0 else (above, below)
    if mode is RoundingMode.UP:
        return above
    if mode is RoundingMode.DOWN:
        return below
    if mode is RoundingMode.TOWARD_ZERO:
        return nearer_zero
    distance = abs(value - nearer_zero)
    if distance != Fraction(1, 2):
        return nearer_zero if distance < Fraction(1, 2) else further
    if mode is RoundingMode.NEAREST_AWAY:
        return further
    return below if below % 2 == 0 else above


@pytest.mark.parametrize("mode", IEEE)
def test_all_small_numbers(mode: RoundingMode) -> None:
    for negative in (False, True):
        sign = -1 if negative else 1
        for shift in range(6):
            expected = [sign * by_rationals(Fraction(sign * m, 1 << shift), mode) for m in range(512)]
            assert [round_shift(m, shift, mode, negative) for m in range(512)] == expected


@pytest.mark.parametrize("mode", IEEE)
@given(magnitude=st.integers(0, 2**200), shift=st.integers(0, 210), negative=st.booleans())
def test_integers_of_any_size(mode: RoundingMode, magnitude: int, shift: int, negative: bool) -> None:
    sign = -1 if negative else 1
    assert sign * round_shift(magnitude, shift, mode, negative) == by_rationals(
        Fraction(sign * magnitude, 1 << shift), mode
    )


def test_nearest_even_is_pythons_and_numpys_rounding() -> None:
    numbers = np.arange(1 << 12)
    assert np.array_equal(round_shift(numbers, 3, RoundingMode.NEAREST_EVEN), np.rint(numbers / 8))
    assert [round_shift(m, 3, RoundingMode.NEAREST_EVEN) for m in range(200)] == [round(m / 8) for m in range(200)]


@pytest.mark.parametrize("mode", RoundingMode)
def test_python_numpy_torch_and_numba_agree(mode: RoundingMode) -> None:
    source = np.random.default_rng(0)
    shift = source.integers(0, 63, 20_000)
    magnitude = source.integers(0, 2**62, 20_000) >> source.integers(0, 62, 20_000)
    negative, random = source.integers(0, 2, 20_000).astype(bool), source.integers(0, 2**62, 20_000)
    expected = [
        round_shift(int(m), int(s), mode, bool(n), int(r))
        for m, s, n, r in zip(magnitude, shift, negative, random, strict=True)
    ]
    assert round_shift(magnitude, shift, mode, negative, random).tolist() == expected
    tensors = [torch.from_numpy(array) for array in (magnitude, shift, negative, random)]
    assert round_shift(tensors[0], tensors[1], mode, *tensors[2:]).tolist() == expected
    kernel = numba.njit(round_shift)
    compiled = numba.vectorize(lambda m, s, n, r: kernel(m, s, mode, n, r))
    assert compiled(magnitude, shift, negative, random).tolist() == expected


@given(magnitude=st.integers(0, 2**20), shift=st.integers(0, 10))
def test_over_all_random_bits_the_stochastic_mean_is_exact(magnitude: int, shift: int) -> None:
    every = range(1 << shift)
    total = sum(round_shift(magnitude, shift, RoundingMode.STOCHASTIC, random=bits) for bits in every)
    assert Fraction(total, len(every)) == Fraction(magnitude, 1 << shift)
    assert {round_shift(magnitude, shift, RoundingMode.STOCHASTIC, random=bits) for bits in every} <= {
        magnitude >> shift,
        -(-magnitude >> shift),
    }


def test_higher_random_bits_do_not_matter() -> None:
    assert round_shift(5, 2, RoundingMode.STOCHASTIC, random=0b1100) == round_shift(5, 2, RoundingMode.STOCHASTIC) == 2
