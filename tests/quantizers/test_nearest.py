"""The nearest of a few levels against brute force: exact in every type, ties to the lower level."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fewbits.quantizers.nearest import boundaries, nearest

TYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def brute_force(row: list[float], levels: list[float]) -> list[int]:
    """The place of the lowest level at the least distance, in exact rationals: its last place for numbers above it."""
    exact = [Fraction(level) for level in levels]
    nearest = [min(exact, key=lambda level, w=Fraction(w): abs(level - w)) for w in row]
    last = len(exact) - 1
    return [
        last - exact[::-1].index(level) if w > level else exact.index(level)
        for w, level in zip(row, nearest, strict=True)
    ]


def as_held(numbers: list[float], dtype: torch.dtype) -> torch.Tensor:
    """The numbers in ``dtype``, those that it does not hold as 0."""
    held = torch.tensor(numbers, dtype=torch.float64).to(dtype)
    return held.where(held.isfinite() & (held.double().abs() > 1e-290), torch.zeros_like(held))


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@given(
    levels=st.lists(st.floats(-1e38, 1e38), min_size=1, max_size=6),
    row=st.lists(st.floats(-1e38, 1e38), min_size=1, max_size=4),
)
def test_any_numbers_go_to_the_nearest_level(dtype, levels, row):
    """Also those that lie exactly between two levels, and their neighbours."""
    ordered = as_held(levels, dtype).sort().values
    between = [(a / 2 + b / 2).reshape(1) for a, b in itertools.pairwise(ordered)]
    centre = torch.cat([as_held(row, dtype), ordered, *between])
    up, down = (torch.nextafter(centre, torch.full_like(centre, end)) for end in (torch.inf, -torch.inf))
    numbers = torch.cat([centre, up, down])
    numbers = numbers[numbers.isfinite() & ((numbers.double().abs() > 1e-290) | (numbers == 0))]
    assert nearest(numbers[None], ordered[None])[0].tolist() == brute_force(numbers.tolist(), ordered.tolist())


@pytest.mark.parametrize("count", [1, 2, 3, 16, 17, 256])
@pytest.mark.parametrize("spread", [1.0, 2.0**-20])
def test_every_float16_goes_to_the_nearest_level(count, spread):
    """All 63 488 finite numbers of the type; differences of float16 are exact in float64."""
    every = torch.arange(-(2**15), 2**15).to(torch.int16).view(torch.float16)
    every = every[every.isfinite()]
    generator = torch.Generator().manual_seed(count)
    levels = (torch.randn(count, generator=generator) * spread).to(torch.float16).sort().values
    wide, points = every.double().numpy(), levels.double().numpy()
    expected = np.concatenate([np.abs(part[:, None] - points).argmin(1) for part in np.array_split(wide, 16)])
    place = nearest(every[None], levels[None])[0].long()
    assert np.array_equal(points[place], points[expected])


@pytest.mark.parametrize("count", [5, 40])
def test_each_row_has_its_own_levels(count):
    generator = torch.Generator().manual_seed(count)
    rows = torch.randn(3, 50, generator=generator)
    levels = torch.randn(3, count, generator=generator).sort(1).values
    levels[1, 2:4] = levels[1, 1]
    expected = [brute_force(row, own) for row, own in zip(rows.tolist(), levels.tolist(), strict=True)]
    assert nearest(rows, levels).tolist() == expected


@pytest.mark.parametrize("shape", [(1, 300_001), (3, 140_000), (700, 300)])
@pytest.mark.parametrize("count", [2, 16, 40])
def test_many_numbers_go_to_the_nearest_level(shape, count):
    generator = torch.Generator().manual_seed(count)
    rows, levels = torch.randn(shape, generator=generator), torch.randn(shape[0], count, generator=generator).sort(1)[0]
    place = nearest(rows, levels).long()
    wide = rows.double()
    least = torch.stack([(wide - level[:, None]).abs() for level in levels.double().unbind(1)]).amin(0)
    assert torch.equal((wide - levels.double().gather(1, place)).abs(), least)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_a_boundary_is_the_largest_number_that_is_not_nearer_to_the_upper_level(dtype):
    generator = torch.Generator().manual_seed(0)
    low = torch.randn(200, generator=generator, dtype=torch.float64).to(dtype)
    high = low
    for _ in range(9):  # a few units apart, where half a unit matters
        higher = torch.nextafter(high, torch.full_like(high, torch.inf))
        high = torch.where(torch.rand(200, generator=generator) < 0.7, higher, high)
    pairs = torch.stack([low, high], dim=1)
    found = boundaries(pairs)[:, 0]
    above = torch.nextafter(found, torch.full_like(found, torch.inf))
    for (a, b), last, first in zip(pairs.tolist(), found.tolist(), above.tolist(), strict=True):
        assert 2 * Fraction(last) <= Fraction(a) + Fraction(b) < 2 * Fraction(first)
