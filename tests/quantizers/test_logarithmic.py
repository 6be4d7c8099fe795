"""Logarithmic quantisation against all its levels, exact powers and integer shifts."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewbits.errors import FewbitsError
from fewbits.quantizers import Logarithmic, PerGroup, PerRow

TYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def shift(largest: float) -> Fraction:
    """2^round(log2 x) in exact rationals: the power p with x² between p²/2 and 2p²."""
    exponent = math.frexp(largest)[1]
    return next(
        power
        for power in (Fraction(2) ** (exponent - 1), Fraction(2) ** exponent)
        if power**2 <= 2 * Fraction(largest) ** 2 < 4 * power**2
    )


def levels(scale: Fraction, bits: int, root: bool) -> list[float]:
    """0 and scale · base^−j, ascending; √2 is rounded to float32, as the computation is."""
    count = 2 ** (bits - 1) - 1
    if not root:
        return [0.0, *(float(scale / 2**j) for j in reversed(range(count)))]
    two = Fraction(float(np.float32(math.sqrt(2))))
    return [0.0, *(float(scale / 2 ** ((j + 1) // 2) * (two if j % 2 else 1)) for j in reversed(range(count)))]


@pytest.mark.parametrize("root", [False, True])
@pytest.mark.parametrize("bits", range(2, 9))
def test_every_weight_goes_to_the_nearest_of_all_levels(bits, root):
    """Of two equally near ones to the one nearer to 0; seen at every boundary and its neighbours."""
    for factor in (1.0, 1.3, 1.5, 0.003):
        base = (draw(300, seed=bits) * factor).float()
        scale = shift(base.abs().max().item())
        points = np.array(levels(scale, bits, root))
        between = torch.tensor((points[1:] + points[:-1]) / 2).float()
        up, down = (torch.nextafter(between, torch.full_like(between, end)) for end in (torch.inf, -torch.inf))
        middle = torch.cat([between, up, down])
        weight = torch.cat([base, middle, -middle])
        codes = Logarithmic(bits, root).encode(weight)
        assert Fraction(codes.tables["scale"].item()) == scale
        place = np.abs(weight.double().abs().numpy()[:, None] - points).argmin(1)
        assert np.array_equal(codes.integers.abs().numpy(), place)
        assert np.array_equal(codes.decode().double().numpy(), np.sign(weight.numpy()) * points.astype("f")[place])
        assert (codes.grid.low, codes.grid.high, codes.grid.bits) == (1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1, bits)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("bits", range(2, 9))
def test_every_value_is_an_exact_power_of_two(dtype, bits):
    for spread in (2.0**-6, 1.0, 2.0**10):
        weight = (draw(500, seed=bits) * 4.0 ** -draw(500, seed=1).abs() * spread).to(dtype)
        values = Logarithmic(bits)(weight)
        assert values.dtype == dtype
        assert {math.frexp(abs(value))[0] for value in values.tolist()} <= {0.0, 0.5}
        roots = Logarithmic(bits, root=True).encode(weight)
        even = (roots.integers - roots.grid.high) % 2 == 0
        assert {math.frexp(abs(value))[0] for value in roots.decode()[even].tolist()} <= {0.0, 0.5}


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("root", [False, True])
def test_with_eight_bits_the_levels_reach_from_the_largest_power_to_the_smallest_float16(dtype, root):
    """Powers of 2^-39 relative to the scale lie below float16 on their own; with the scale they do not."""
    top = torch.tensor(torch.finfo(dtype).max, dtype=dtype).double().item()
    high = 2.0 ** (math.frexp(top)[1] - 1)
    exponents = torch.arange(-39, 1, dtype=torch.float64)
    weight = (high * 2.0**exponents).to(dtype)
    assert torch.equal(Logarithmic(8, root)(weight), weight)
    assert torch.equal(Logarithmic(8, root)(-weight), -weight)


@pytest.mark.parametrize("bits", range(2, 9))
@settings(max_examples=25)
@given(weights=st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=20), x=st.integers(-(2**20), 2**20))
def test_a_product_is_a_shift_of_an_integer(bits, weights, x):
    """x · q = ±(x << (|q| − 1)) · unit with one unit a group, the lowest level."""
    codes = Logarithmic(bits).encode(torch.tensor(weights))
    unit = Fraction(codes.tables["scale"].item()) / 2 ** (codes.grid.high - 1)
    for q, value in zip(codes.integers.tolist(), codes.decode().tolist(), strict=True):
        shifted = 0 if q == 0 else (x << (abs(q) - 1)) * (1 if q > 0 else -1)
        assert Fraction(x) * Fraction(value) == shifted * unit


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@given(largest=st.floats(2.0**-20, 2.0**14))
def test_the_scale_is_the_nearest_power_in_the_exponent(dtype, largest):
    weight = torch.tensor([0.0, -largest, largest / 3], dtype=torch.float64).to(dtype)
    if weight.any():
        scale = Logarithmic(4).encode(weight).tables["scale"]
        assert scale.dtype == dtype
        assert Fraction(scale.item()) == shift(weight.abs().max().item())


def test_groups_have_their_own_scale_and_zeros_have_one():
    weight = torch.tensor([[0.9, -0.1], [0.0, 0.0], [40.0, 3.0]])
    codes = Logarithmic(3, granularity=PerRow()).encode(weight)
    assert codes.tables["scale"].tolist() == [1.0, 1.0, 32.0]
    assert codes.decode().tolist() == [[1.0, 0.0], [0.0, 0.0], [32.0, 0.0]]
    assert codes.bits == 6 * 3 + 3 * 32
    alone = [Logarithmic(3)(row) for row in weight]
    assert torch.equal(codes.decode(), torch.stack(alone))
    assert Logarithmic(5, granularity=PerGroup(2)).encode(weight).tables["scale"].shape == (3,)


def test_the_signs_of_zeros_and_of_small_weights():
    codes = Logarithmic(3).encode(torch.tensor([1.0, 0.0, -0.0, 0.12, -0.12, -0.13]))
    assert codes.integers.tolist() == [3, 0, 0, 0, 0, -1]


def test_more_bits_never_raise_the_error():
    """The levels of one width are levels of the next."""
    weight = draw(1000)
    for root in (False, True):
        errors = [((Logarithmic(bits, root)(weight) - weight) ** 2).sum().item() for bits in range(2, 9)]
        assert errors == sorted(errors, reverse=True)
    finer, coarser = (((Logarithmic(8, root)(weight) - weight) ** 2).sum() for root in (True, False))
    assert finer < coarser


def test_a_power_above_the_type_is_named():
    with pytest.raises(FewbitsError, match=r"above the largest number of torch\.float32"):
        Logarithmic(4)(torch.tensor([3.4e38, 1.0]))
    assert Logarithmic(4)(torch.tensor([2.4e38, 1.0])).tolist() == [2.0**127, 0.0]


@pytest.mark.parametrize("bits", [1, 0, 9, True, 4.0])
def test_bits_without_levels_are_refused(bits):
    with pytest.raises(FewbitsError, match="a whole number"):
        Logarithmic(bits)
