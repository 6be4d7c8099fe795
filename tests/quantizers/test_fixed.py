"""Fixed point as a quantizer against the number format and against the formula in numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fewbits.errors import FewbitsError
from fewbits.formats import FixedPoint
from fewbits.quantizers import Fixed

FORMATS = [(m, f) for m in range(16) for f in range(16) if 2 <= 1 + m + f <= 16]
formats = st.sampled_from(FORMATS)
numbers = arrays("float32", st.integers(1, 30), elements=st.floats(width=32, allow_nan=False, allow_infinity=False))
near = arrays("float32", st.integers(1, 30), elements=st.floats(-4, 4, width=32))


@given(size=formats, weight=numbers | near)
def test_it_is_the_symmetric_fixed_point_format(size, weight):
    codes, number = Fixed(*size).encode(torch.from_numpy(weight)), FixedPoint(*size, symmetric=True)
    assert torch.equal(codes.integers, number.encode(torch.from_numpy(weight)))
    assert torch.equal(codes.decode(), number.round(torch.from_numpy(weight)))
    assert codes.integers.dtype == codes.grid.dtype
    assert codes.tables["scale"].tolist() == [2.0 ** -size[1]]


@given(size=formats, weight=numbers | near)
def test_the_formula_of_dual_copy_rounding(size, weight):
    """clip(round(W · 2^f), ±(2^(m+f) − 1)) / 2^f; every step but the rounding is exact in float64."""
    integer, fraction = size
    largest = 2 ** (integer + fraction) - 1
    expected = np.clip(np.round(weight.astype(np.float64) * 2**fraction), -largest, largest) / 2**fraction
    assert np.array_equal(Fixed(*size)(torch.from_numpy(weight)).numpy(), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@settings(max_examples=40)
@given(size=st.sampled_from([size for size in FORMATS if sum(size) <= 8]), weight=near)
def test_other_types_that_hold_the_format(dtype, size, weight):
    held = torch.from_numpy(weight).to(dtype)
    assert torch.equal(Fixed(*size)(held), FixedPoint(*size, symmetric=True).round(held))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_types_that_lack_the_ends_stay_in_the_format(dtype):
    """For every number of the type: the nearest multiple of 2^-f up to the largest of the format that the type holds.

    Only the ends can be missing: with its p digits the type has every multiple of 2^-f up to 2^(p - f), and nothing but
    multiples of it above.
    """
    every = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype)
    every = every[every.isfinite()]
    for integer, fraction in FORMATS:
        ends = torch.arange(2 ** (integer + fraction)).double() / 2**fraction
        largest = ends[ends.to(dtype).double() == ends].max()
        expected = ((every.double() * 2**fraction).round() / 2**fraction).clamp(-largest, largest)
        codes = Fixed(integer, fraction).encode(every)
        assert torch.equal(codes.decode().double(), expected)
        assert torch.equal(codes.integers.double() / 2**fraction, expected)


def test_the_example_of_wage():
    assert Fixed(0, 1)(torch.tensor([-1.0, 0.2, 0.6])).tolist() == [-0.5, 0.0, 0.5]


def test_every_tensor_has_the_same_steps():
    weight = torch.randn(50, generator=torch.Generator().manual_seed(0))
    for part in (weight[:7], 0.001 * weight, weight.reshape(5, 10)):
        assert torch.equal(Fixed(1, 4)(part) * 16, (part * 16).round().clamp(-31, 31))


def test_sizes_grid_and_range():
    for size in FORMATS:
        bits, largest = 1 + sum(size), 2 ** sum(size) - 1
        codes = Fixed(*size).encode(torch.tensor([[1e30, -1e30, 0.0]]))
        assert (codes.grid.bits, codes.grid.low, codes.grid.high) == (bits, -largest, largest)
        assert codes.integers.tolist() == [[largest, -largest, 0]]
        assert codes.bits == 3 * bits + 32


@pytest.mark.parametrize("size", [(0, 0), (-1, 4), (3, -1), (0, 16), (15, 1), (8, 8), (31, 0), (1.0, 2), (True, 2)])
def test_formats_without_codes_are_refused(size):
    with pytest.raises(FewbitsError, match=r"2 to 16|whole number|2 to 32"):
        Fixed(*size)


def test_small_updates_add_up_in_the_float_copy():
    """Two copies (Stromatias et al. 2015): steps of a tenth of a unit move the rounded copy only when they add up."""
    weight = torch.zeros(1, requires_grad=True)
    seen = []
    for _ in range(16):
        value = Fixed(1, 2)(weight)
        value.backward(torch.tensor([-1.0]))
        with torch.no_grad():
            weight -= 0.025 * weight.grad
            weight.grad = None
        seen.append(value.item())
    steps = np.float32(0.025) * np.ones(16, np.float32)
    held = np.concatenate([[0], np.cumsum(steps, dtype=np.float32)[:-1]])
    assert seen == (np.round(held * 4) / 4).tolist()
    assert set(seen) == {0.0, 0.25, 0.5}
