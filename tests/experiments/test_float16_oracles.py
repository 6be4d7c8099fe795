"""The oracles and cases of the mass verification, against rationals and brute force."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given as examples
from hypothesis import settings
from hypothesis import strategies as st

from fewbits.experiments.float16 import cases, formats, oracles
from fewbits.formats import RoundingMode

FINITE = [pattern for pattern in range(1 << 16) if pattern & 0x7C00 != 0x7C00]
VALUES = np.arange(1 << 16).astype(np.uint16).view(np.float16)
#: The positive numbers in order, and 2^16, where the next one would be.
MAGNITUDES = [Fraction(float(VALUES[pattern])) for pattern in range(0x7C00)] + [Fraction(2**16)]


def nearest(exact: Fraction) -> int:
    """The pattern of the number nearest to ``exact``, which is not 0, ties to even: by bisection of all numbers."""
    low, high = 0, len(MAGNITUDES) - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if MAGNITUDES[middle] <= abs(exact) else (low, middle - 1)
    if low == len(MAGNITUDES) - 1:
        return (exact < 0) << 15 | 0x7C00
    half = (MAGNITUDES[low] + MAGNITUDES[low + 1]) / 2
    up = abs(exact) > half or (abs(exact) == half and low % 2 == 1)
    return (exact < 0) << 15 | low + up


def fma(*case: int) -> int:
    with np.errstate(all="ignore"):
        return int(oracles.fma(*(np.array([each], np.uint16) for each in case))[0])


def assert_fma_is_exact(a: int, b: int, c: int) -> None:
    x, y, z = (Fraction(float(VALUES[each])) for each in (a, b, c))
    if x * y + z != 0:
        assert fma(a, b, c) == nearest(x * y + z), [hex(each) for each in (a, b, c)]


finite = st.sampled_from(FINITE)


@settings(max_examples=500)
@examples(finite, finite, finite)
def test_the_fma_of_any_triple(a: int, b: int, c: int) -> None:
    assert_fma_is_exact(a, b, c)


@settings(max_examples=500)
@examples(st.integers(0, 2**16), st.integers(-3, 3), st.data())
def test_the_fma_that_cancels_or_is_nearly_a_tie(seed: int, step: int, data: st.DataObject) -> None:
    a, b = data.draw(finite), data.draw(finite)
    with np.errstate(all="ignore"):
        product = int((VALUES[[a]] * VALUES[[b]]).view(np.uint16)[0])
    c = (product ^ 0x8000) + step & 0xFFFF
    if c & 0x7C00 != 0x7C00:
        assert_fma_is_exact(a, b, c)


@pytest.mark.parametrize("sign", [0, 0x8000])
def test_a_product_far_below_the_third_operand(sign: int) -> None:
    """65504 + 2^-48 has more than the 53 bits of float64."""
    tiny = 0x0001
    for c in (0x7BFF, 0x3C00, 0x3C01, 0x0400, 0x7BFE, 0x6801):
        assert_fma_is_exact(tiny, tiny | sign, c)
        assert_fma_is_exact(0x3C01, 0x1001 | sign, c)


floats = st.floats(-(2.0**60), 2.0**60, allow_subnormal=False)


@settings(max_examples=500)
@examples(floats, floats, st.integers(-120, 0))
def test_a_sum_rounded_to_odd_is_exact_or_odd_and_next_to_it(x: float, y: float, shift: int) -> None:
    y = float(np.ldexp(y, shift))
    exact = Fraction(x) + Fraction(y)
    found = oracles.sum_to_odd(np.array([x]), np.array([y]))
    below, above = (float(np.nextafter(found[0], end)) for end in (-np.inf, np.inf))
    if Fraction(float(exact)) == exact:
        assert found[0] == exact
    else:
        assert found.view(np.int64)[0] & 1 == 1
        assert Fraction(below) < exact < Fraction(above)


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ((0x7C00, 0x3C00, 0x3C00), 0x7C00),
        ((0x7C00, 0x0000, 0x3C00), None),
        ((0x7C00, 0x3C00, 0xFC00), None),
        ((0x3C00, 0x3C00, 0xFC00), 0xFC00),
        ((0x7E00, 0x3C00, 0x3C00), None),
        ((0x3C00, 0x3C00, 0xBC00), 0x0000),  # 1 − 1
        ((0x8000, 0x3C00, 0x8000), 0x8000),  # −0 − 0
        ((0x8000, 0x3C00, 0x0000), 0x0000),
        ((0x7BFF, 0x7BFF, 0x0000), 0x7C00),
        ((0x8001, 0x0001, 0x0000), 0x8000),
    ],
)
def test_the_fma_of_special_operands(case: tuple[int, ...], expected: int | None) -> None:
    result = oracles.one_nan(np.array([fma(*case)], np.uint16))
    assert result[0] == (oracles.NAN if expected is None else expected)


def test_nan_keeps_sign_and_upper_bits_in_conversions() -> None:
    words = np.array([0x7F800001, 0xFF800001, 0x7FC00000, 0xFFFFFFFF, 0x7FA02000, 0x7F801FFF], np.uint32)
    patterns = oracles.from_float32(words)
    assert [hex(each) for each in patterns] == ["0x7c01", "0xfc01", "0x7e00", "0xffff", "0x7d01", "0x7c01"]
    nan = np.array([0x7C01, 0xFC01, 0x7E00, 0xFFFF], np.uint16)
    assert (oracles.from_float32(oracles.to_float32(nan)) == nan).all()


# --- cases -----------------------------------------------------------------------------------------------------------


def test_borders_are_where_encoding_changes() -> None:
    borders = np.unique(cases.borders())
    numbers = borders[borders < 0x7F800000].view(np.float32)
    with np.errstate(over="ignore"):
        results = numbers.astype(np.float16)
    changes = numbers[:-1][results[:-1] != results[1:]]
    assert len(changes) == 0x7C00, "every step from one result to the next, the last one to infinity"
    ups = np.nextafter(changes, np.float32(np.inf))
    assert np.isin(ups, numbers).all(), "and the two numbers of a step are neighbours in float32"


def test_random_cases_have_a_generator_for_each_chunk() -> None:
    draws = cases.chance(cases.Size(250, 100, 3), 16, 2)
    assert [len(draw()[0]) for draw in draws] == [100, 100, 50]
    drawn = [draw()[0].tolist() for draw in draws]
    assert drawn == [draw()[0].tolist() for draw in draws]
    assert drawn[0] != drawn[1]
    other = cases.chance(cases.Size(250, 100, 4), 16, 2)
    assert other[0]()[0].tolist() != drawn[0]
    words = np.concatenate([draw()[0] for draw in cases.chance(cases.Size(2**16, 2**15, 0), 32)])
    bits = np.unpackbits(words.view(np.uint8)).reshape(-1, 32).mean(0)
    assert abs(bits - 0.5).max() < 5 * 0.5 / 2**8


def test_every_second_triple_cancels() -> None:
    (draw,) = cases.chance(cases.Size(4000, 4000, 0), 16, 3)
    a, b, c = cases.cancelling(draw)
    plain = draw()
    assert (a == plain[0]).all()
    assert (b == plain[1]).all()
    assert (c[1::2] == plain[2][1::2]).all()
    with np.errstate(all="ignore"):
        product = (a.view(np.float16) * b.view(np.float16)).view(np.uint16)[::2]
    distance = (c[::2] - (product ^ np.uint16(0x8000))).astype(np.int16)
    assert sorted(set(distance.tolist())) == [-2, -1, 0, 1, 2]


def test_points_of_a_width_are_codes_ties_and_their_neighbours() -> None:
    for kind in (np.float32, np.float64):
        words = formats._points(3, kind)
        points = set(words.view(kind).tolist())
        for half in range(-10, 11):
            middle = kind(half / 8)
            assert {
                float(middle),
                float(np.nextafter(middle, kind(9))),
                float(np.nextafter(middle, kind(-9))),
            } <= points


def test_pythons_rounding_is_exact_beside_a_tie() -> None:
    below = float(np.nextafter(0.5, 0))
    away = formats._PYTHON[RoundingMode.NEAREST_AWAY]
    assert [away(x) for x in (below, -below, 0.5, -0.5, 1.5, -2.5, 2.0)] == [0, 0, 1, -1, 2, -3, 2]
    assert [formats._PYTHON[RoundingMode.NEAREST_EVEN](x) for x in (0.5, 1.5, -2.5)] == [0, 2, -2]
