"""2^round(log2 x) against exact rationals: no power of two has a square between those of x and its neighbour."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fewbits.errors import FewbitsError
from fewbits.formats import nearest_power_of_two

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def check(x: torch.Tensor) -> None:
    """|log2 x − k| < 1/2 exactly if 2^(2k − 1) < x² < 2^(2k + 1)."""
    found = nearest_power_of_two(x)
    assert found.dtype == x.dtype
    assert found.shape == x.shape
    for number, power in zip(x.flatten().tolist(), found.flatten().tolist(), strict=True):
        assert math.frexp(power)[0] == 0.5
        assert Fraction(power) ** 2 / 2 < Fraction(number) ** 2 < 2 * Fraction(power) ** 2


def below_the_top(x: torch.Tensor) -> torch.Tensor:
    """Those with a power: up to √2 · 2^emax, by numbers of the type (never equal, √2 is irrational)."""
    top = math.frexp(torch.finfo(x.dtype).max)[1] - 1
    return x[x.double() < math.ldexp(math.sqrt(2), top)]


def test_all_float16() -> None:
    x = torch.arange(1, 0x7C00, dtype=torch.int16).view(torch.float16)
    check(below_the_top(x))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_neighbours_of_every_root(dtype: torch.dtype) -> None:
    bottom, top = math.frexp(torch.finfo(dtype).smallest_normal)[1] - 1, math.frexp(torch.finfo(dtype).max)[1] - 1
    roots = torch.tensor([math.ldexp(math.sqrt(2), e) for e in range(bottom, top)], dtype=torch.float64).to(dtype)
    powers = torch.tensor([math.ldexp(1.0, e) for e in range(bottom, top + 1)], dtype=torch.float64).to(dtype)
    zero, infinity = torch.tensor(0, dtype=dtype), torch.tensor(math.inf, dtype=dtype)
    near = [torch.nextafter(x, end) for x in (roots, powers) for end in (zero, infinity)]
    check(torch.cat([roots, powers, *near]))
    assert torch.equal(nearest_power_of_two(powers), powers)


@given(st.lists(st.floats(5e-324, 1.2e308), max_size=30))
def test_any_float64(numbers: list[float]) -> None:
    check(torch.tensor(numbers, dtype=torch.float64))


@given(st.lists(st.integers(1, 0x7F3504F3), max_size=30))
def test_any_float32(patterns: list[int]) -> None:
    check(torch.tensor(patterns, dtype=torch.int32).view(torch.float32))


@pytest.mark.parametrize("dtype", DTYPES)
def test_subnormals_are_exact_and_overflow_is_refused(dtype: torch.dtype) -> None:
    integer = {2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
    patterns = torch.arange(1, 65).to(integer)  # the smallest 64 numbers are 1 to 64 times the smallest
    expected = [2 ** round(math.log2(k)) for k in range(1, 65)]
    assert nearest_power_of_two(patterns.view(dtype)).view(integer).tolist() == expected
    largest = torch.finfo(dtype).max
    check(below_the_top(torch.tensor([largest, largest / 1.5], dtype=dtype)))
    with pytest.raises(FewbitsError, match="above the largest number"):
        nearest_power_of_two(torch.tensor([1.0, largest], dtype=dtype))


@pytest.mark.parametrize("bad", [0.0, -0.0, -1.0, math.inf, -math.inf, math.nan])
def test_what_has_no_logarithm_is_refused(bad: float) -> None:
    with pytest.raises(FewbitsError, match="positive, finite"):
        nearest_power_of_two(torch.tensor([1.0, bad]))


def test_types_shapes_and_gradients() -> None:
    with pytest.raises(FewbitsError, match=r"none of torch\.float16"):
        nearest_power_of_two(torch.ones(2, dtype=torch.int32))
    assert nearest_power_of_two(torch.zeros(2, 0)).shape == (2, 0)
    x = torch.rand(3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    check(x.detach().t()[::2])
    assert not nearest_power_of_two(x.abs().max()).requires_grad
