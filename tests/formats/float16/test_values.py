"""Conversions, comparisons and what surrounds them, against NumPy's own float16 and ml_dtypes."""

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewbits.formats import RoundingMode, float16
from fewbits.formats.float16 import reference, scalar

EVERY = np.arange(1 << 16, dtype=np.uint16)
IEEE = [mode for mode in RoundingMode if mode is not RoundingMode.STOCHASTIC]


def float32s(count: int, seed: int) -> np.ndarray:
    """Random bits, half of them with exponents near those of float16."""
    source = np.random.default_rng(seed)
    bits = source.integers(0, 1 << 32, count, dtype=np.uint32)
    near = (bits & 0x807FFFFF) | (source.integers(98, 146, count, dtype=np.uint32) << 23)
    return np.where(np.arange(count) % 2, bits, near).view(np.float32)


# --- to float32 ----------------------------------------------------------------------------------------------------


def test_every_pattern_decodes_as_numpys_bit_for_bit() -> None:
    expected = EVERY.view(np.float16).astype(np.float32)
    assert np.array_equal(float16.to_float32(EVERY).view(np.uint32), expected.view(np.uint32))


def test_every_pattern_survives_the_way_to_float32_and_back() -> None:
    for mode in IEEE:
        counters = float16.Counters()
        back = float16.from_float32(float16.to_float32(EVERY), mode=mode, counters=counters)
        assert np.array_equal(back, EVERY)
        assert counters == float16.Counters()


def test_every_pattern_decodes_as_the_reference_says() -> None:
    decoded = float16.to_float32(EVERY).tolist()
    expected = [float(reference.decode(pattern)) for pattern in range(1 << 16)]
    assert np.array_equal(decoded, expected, equal_nan=True)


# --- from float32 --------------------------------------------------------------------------------------------------


def test_float32s_encode_as_numpys_bit_for_bit() -> None:
    numbers = float32s(1 << 20, 0)
    with np.errstate(all="ignore"):
        expected = numbers.astype(np.float16).view(np.uint16)
    assert np.array_equal(float16.from_float32(numbers), expected)


def test_bfloat16s_encode_as_those_of_ml_dtypes() -> None:
    numbers = EVERY.view(ml_dtypes.bfloat16)
    with np.errstate(all="ignore"):
        expected = numbers.astype(np.float16).view(np.uint16)
    numbers = numbers.astype(np.float32)
    number = ~np.isnan(numbers)
    assert np.array_equal(float16.from_float32(numbers)[number], expected[number])


@pytest.mark.parametrize("mode", IEEE)
def test_float32s_encode_as_the_reference_says_flags_too(mode: RoundingMode) -> None:
    ends = [0, 1, 0x7FFFFF, 0x800000, 0x7F7FFFFF, 0x477FE000, 0x477FEFFF, 0x477FF000, 0x477FFFFF, 0x47800000]
    tiny = [0x33000000, 0x33000001, 0x33800000, 0x387FC000, 0x387FDFFF, 0x387FE000, 0x387FFFFF, 0x38800000, 0x387FF000]
    bits = np.array([*ends, *tiny], dtype=np.uint32)
    numbers = np.concatenate([bits.view(np.float32), (bits | 0x80000000).view(np.float32), float32s(2000, 1)])
    numbers = numbers[np.isfinite(numbers)]
    expected = [reference.encode(number, mode, math.copysign(1, number) < 0) for number in numbers.tolist()]
    assert [scalar.from_float32(int(n), mode) for n in numbers.view(np.uint32)] == expected
    counters = float16.Counters()
    assert float16.from_float32(numbers, mode=mode, counters=counters).tolist() == [e & 0xFFFF for e in expected]
    assert counters == float16.Counters(*(sum(e >> bit & 1 for e in expected) for bit in range(16, 21)))
    assert counters.overflow > 100
    assert counters.underflow > 100


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=2, max_size=20), st.sampled_from(IEEE))
def test_rounding_keeps_order(numbers: list[float], mode: RoundingMode) -> None:
    ordered = float16.to_float32(float16.from_float32(np.sort(np.float32(numbers)), mode=mode))
    assert (ordered[1:] >= ordered[:-1]).all()


def test_not_a_number_keeps_its_sign_and_upper_fraction() -> None:
    bits = np.array([0x7FC00000, 0xFFC00000, 0x7F802000, 0xFF800001, 0x7FFFFFFF, 0x7F801FFF], dtype=np.uint32)
    counters = float16.Counters()
    patterns = float16.from_float32(bits.view(np.float32), counters=counters)
    assert patterns.tolist() == [0x7E00, 0xFE00, 0x7C01, 0xFC01, 0x7FFF, 0x7C01]
    assert counters == float16.Counters()


# --- comparisons ---------------------------------------------------------------------------------------------------

COMPARISONS = ["equal", "not_equal", "less", "less_equal", "greater", "greater_equal"]


@pytest.mark.parametrize("name", COMPARISONS)
def test_comparisons_are_numpys(name: str) -> None:
    source = np.random.default_rng(2)
    edges = np.array([0, 1, 2, 0x3FF, 0x400, 0x3C00, 0x3C01, 0x7BFF, 0x7C00, 0x7C01, 0x7E00, 0x7FFF], dtype=np.uint16)
    some = np.concatenate([edges, edges | 0x8000, source.integers(0, 1 << 16, 500, dtype=np.uint16)])
    a, b = some[:, None], some[None]
    with np.errstate(invalid="ignore"):
        expected = getattr(np, name)(a.view(np.float16), b.view(np.float16))
    found = getattr(float16, name)(a, b)
    assert found.dtype == bool
    assert np.array_equal(found, expected)
