"""Rounding in all modes where float64 is exact, against a search among all values."""

import itertools

import numpy as np
import pytest

from fewbits.formats import RoundingMode, float16

IEEE = [mode for mode in RoundingMode if mode is not RoundingMode.STOCHASTIC]
EVERY = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float64)
GRID = np.append(EVERY, 2.0**16)


def nearest(numbers: np.ndarray, mode: RoundingMode) -> np.ndarray:
    """The patterns of the neighbours that the modes name; float64 holds float16s and their middles exactly."""
    size, negative = np.minimum(np.abs(numbers), 2.0**16 - 1), np.signbit(numbers)
    below = np.searchsorted(GRID, size, side="right") - 1
    middle, inexact = (GRID[below] + GRID[below + 1]) / 2, size != GRID[below]
    further = {
        RoundingMode.NEAREST_EVEN: (size > middle) | ((size == middle) & (below % 2 == 1)),
        RoundingMode.NEAREST_AWAY: size >= middle,
        RoundingMode.TOWARD_ZERO: np.zeros_like(negative),
        RoundingMode.UP: inexact & ~negative,
        RoundingMode.DOWN: inexact & negative,
    }[mode]
    return (below + further + negative * 0x8000).astype(np.uint16)


def around_every_float16() -> np.ndarray:
    """Every finite float16, every middle of two neighbours, and the float32 on both sides of each."""
    centres = np.concatenate([EVERY, (GRID[:-1] + GRID[1:]) / 2]).astype(np.float32).view(np.uint32).astype(np.int64)
    bits = np.concatenate([centres - 1, centres, centres + 1])
    bits = bits[bits >= 0].astype(np.uint32)
    return np.concatenate([bits, bits | 0x80000000]).view(np.float32)


@pytest.mark.parametrize("mode", IEEE)
def test_float32s_around_every_float16_and_every_middle(mode: RoundingMode) -> None:
    numbers = around_every_float16()
    assert np.array_equal(float16.from_float32(numbers, mode=mode), nearest(numbers.astype(np.float64), mode))


@pytest.mark.parametrize("mode", IEEE)
@pytest.mark.parametrize("name", ["add", "sub", "mul"])
def test_all_pairs_around_the_powers_of_two(name: str, mode: RoundingMode) -> None:
    """Sums and products of float16s are exact in float64."""
    corners = [e << 10 | f | s for e, f, s in itertools.product(range(31), (0, 1, 0x200, 0x3FF), (0, 0x8000))]
    a, b = (x.ravel() for x in np.meshgrid(np.array(corners, np.uint16), np.array(corners, np.uint16)))
    theirs = {"add": np.add, "sub": np.subtract, "mul": np.multiply}[name]
    exact = theirs(*(x.view(np.float16).astype(np.float64) for x in (a, b)))
    kept = exact != 0
    assert np.array_equal(getattr(float16, name)(a, b, mode=mode)[kept], nearest(exact[kept], mode))
