"""FloatFormat against its definition: a search in the list of all numbers, with exact rationals at the midpoints."""

import math
from bisect import bisect_right
from dataclasses import replace
from fractions import Fraction
from functools import cache

import pytest
import torch
from hypothesis import given, reject
from hypothesis import strategies as st

from fewbits.errors import FewbitsError
from fewbits.formats import (
    BFLOAT16,
    BINARY16,
    FLOAT4_E2M1FN,
    FLOAT6_E2M3FN,
    FLOAT6_E3M2FN,
    FLOAT8_E3M4,
    FLOAT8_E4M3,
    FLOAT8_E4M3B11FNUZ,
    FLOAT8_E4M3FN,
    FLOAT8_E4M3FNUZ,
    FLOAT8_E5M2,
    FLOAT8_E5M2FNUZ,
    FLOAT8_E8M0FNU,
    TF32,
    FloatFormat,
    RoundingMode,
    Specials,
    Subnormals,
)

IEEE = [mode for mode in RoundingMode if mode is not RoundingMode.STOCHASTIC]
NEAREST = (RoundingMode.NEAREST_EVEN, RoundingMode.NEAREST_AWAY)
MIRRORED = {RoundingMode.UP: RoundingMode.DOWN, RoundingMode.DOWN: RoundingMode.UP}
SMALL = [
    FLOAT4_E2M1FN,
    FLOAT6_E2M3FN,
    FLOAT6_E3M2FN,
    FLOAT8_E3M4,
    FLOAT8_E4M3,
    FLOAT8_E4M3B11FNUZ,
    FLOAT8_E4M3FN,
    FLOAT8_E4M3FNUZ,
    FLOAT8_E5M2,
    FLOAT8_E5M2FNUZ,
    FLOAT8_E8M0FNU,
]
VARIANTS = [
    replace(FLOAT8_E5M2, saturate=True),
    replace(FLOAT8_E4M3FN, saturate=True),
    replace(FLOAT8_E5M2, subnormals=Subnormals.FLUSH),
    replace(FLOAT8_E4M3FN, subnormals=Subnormals.NORMAL),
    FloatFormat(4, 0, specials=Specials.FN),
    FloatFormat(1, 3, specials=Specials.NONE),
    FloatFormat(4, 3, signed=False),
    FloatFormat(5, 3, bias=40, specials=Specials.FNUZ, subnormals=Subnormals.FLUSH),
]


def value(fmt: FloatFormat, pattern: int) -> float:
    """What the definition says about the pattern of a magnitude, as if there were no specials and no upper limit."""
    bias = 2 ** (fmt.exponent_bits - 1) - 1 if fmt.bias is None else fmt.bias
    field, fraction = divmod(pattern, 2**fmt.mantissa_bits)
    if field > 0 or fmt.subnormals is Subnormals.NORMAL:
        return math.ldexp(2**fmt.mantissa_bits + fraction, field - bias - fmt.mantissa_bits)
    return math.ldexp(fraction, 1 - bias - fmt.mantissa_bits) if fmt.subnormals is Subnormals.GRADUAL else 0.0


def count(fmt: FloatFormat) -> int:
    """How many patterns of magnitudes are finite."""
    full = 2 ** (fmt.exponent_bits + fmt.mantissa_bits)
    return {Specials.IEEE: full - 2**fmt.mantissa_bits, Specials.FN: full - 1}.get(fmt.specials, full)


@cache
def table(fmt: FloatFormat) -> tuple[list[float], list[int]]:
    """Magnitudes and their patterns, and the next one that the format would have if its exponent went on."""
    patterns = [p for p in range(count(fmt) + 1) if p == 0 or value(fmt, p) != 0]
    return [value(fmt, p) for p in patterns], patterns


def rounded(fmt: FloatFormat, x: float, mode: RoundingMode) -> int:
    """The pattern of the magnitude that x rounds to; ``count(fmt)`` for anything too large."""
    values, patterns = table(fmt)
    position = bisect_right(values, abs(x)) - 1
    if position < 0 or position == len(values) - 1 or values[position] == abs(x):
        return patterns[max(position, 0)]
    low, high = values[position : position + 2]
    middle = (Fraction(low) + Fraction(high)) / 2
    if mode in NEAREST and Fraction(abs(x)) != middle:
        up = Fraction(abs(x)) > middle
    elif mode is RoundingMode.NEAREST_EVEN:  # a last digit that is 1 is odd: every one of a format without mantissa
        up = low > 0 if fmt.mantissa_bits == 0 else patterns[position] % 2 == 1
    else:
        up = mode is RoundingMode.NEAREST_AWAY or (x > 0 and mode is RoundingMode.UP)
        up = up or (x < 0 and mode is RoundingMode.DOWN)
    return patterns[position + up]


def by_definition(fmt: FloatFormat, x: float, mode: RoundingMode) -> float:
    if math.isnan(x) or (not fmt.signed and x < 0) or (fmt.subnormals is Subnormals.NORMAL and x == 0):
        return math.nan
    pattern = rounded(fmt, x, mode)
    largest = value(fmt, count(fmt) - 1)
    if pattern < count(fmt):
        result = value(fmt, pattern)
    elif fmt.saturate or fmt.specials is Specials.NONE:
        result = largest
    elif fmt.specials is Specials.IEEE and math.isinf(x):
        result = math.inf
    elif mode is RoundingMode.TOWARD_ZERO or mode is (RoundingMode.UP if x < 0 else RoundingMode.DOWN):
        result = largest
    else:
        result = math.inf if fmt.specials is Specials.IEEE else math.nan
    keeps = fmt.signed and (result != 0 or fmt.specials is not Specials.FNUZ)
    return math.copysign(result, x) if keeps else result


def probes(fmt: FloatFormat, most: int = 300) -> list[float]:
    """Numbers, midpoints, the float64 neighbours of both, and extremes, of either sign."""
    values = table(fmt)[0]
    step = max(1, len(values) // most)
    gaps = [(values[i], values[i + 1]) for i in (*range(0, len(values) - 1, step), len(values) - 2)]
    points = [p for low, high in gaps for p in (low, (low + high) / 2, high)]
    points += [0.5 * values[0], 1e300, math.inf, math.pi * values[-1] / 3.2]
    near = [q for p in points for q in (math.nextafter(p, 0), p, math.nextafter(p, math.inf))]
    near += [5e-324, 1e-310, 2.0**-1022]
    return near + [-x for x in near]


def same(found: torch.Tensor, expected: list[float]) -> None:
    """Equal, NaN and the signs of zeros included; the sign of NaN is not looked at."""
    wanted = torch.tensor(expected, dtype=torch.float64)
    number = ~wanted.isnan()
    assert torch.equal(found.isnan(), wanted.isnan())
    assert torch.equal(found[number].view(torch.int64), wanted[number].view(torch.int64))


def in_format(x: torch.Tensor, fmt: FloatFormat) -> bool:
    finite = x[x.isfinite()]
    return bool(torch.isin(finite, fmt.values()).all())


@pytest.mark.parametrize("mode", IEEE)
@pytest.mark.parametrize("fmt", [*SMALL, *VARIANTS, BINARY16, BFLOAT16, TF32])
def test_all_modes_at_numbers_midpoints_and_their_neighbours(fmt: FloatFormat, mode: RoundingMode) -> None:
    points = probes(fmt)
    found = fmt.round(torch.tensor(points, dtype=torch.float64), mode)
    same(found, [by_definition(fmt, x, mode) for x in points])
    assert in_format(found, fmt)


@pytest.mark.parametrize("fmt", [*SMALL, *VARIANTS, BINARY16])
def test_every_encoding_means_what_the_definition_says(fmt: FloatFormat) -> None:
    width = fmt.exponent_bits + fmt.mantissa_bits
    for pattern, number in enumerate(fmt.decode(torch.arange(2**fmt.bits), torch.float64).tolist()):
        magnitude, sign = pattern % 2**width, -1.0 if pattern >> width else 1.0
        if fmt.specials is Specials.FNUZ and pattern == 2**width:
            assert math.isnan(number)
        elif magnitude < count(fmt):
            expected = math.copysign(value(fmt, magnitude), sign)
            assert (number, math.copysign(1, number)) == (expected, sign)
        elif fmt.specials is Specials.IEEE and magnitude == count(fmt):
            assert number == sign * math.inf
        else:
            assert math.isnan(number)


@pytest.mark.parametrize("fmt", [*SMALL, *VARIANTS, TF32])
def test_values_and_limits(fmt: FloatFormat) -> None:
    magnitudes = table(fmt)[0][:-1]
    everything = {s * v for v in magnitudes for s in ((1, -1) if fmt.signed else (1,))}
    assert fmt.values().tolist() == sorted(everything)
    assert fmt.values().dtype == torch.float64
    positive = [v for v in magnitudes if v > 0]
    assert (fmt.smallest_subnormal, fmt.largest) == (positive[0], positive[-1])
    first_normal = 0 if fmt.subnormals is Subnormals.NORMAL else 2**fmt.mantissa_bits
    assert fmt.smallest_normal == value(fmt, first_normal)
    assert fmt.epsilon == value(fmt, first_normal + 1) / fmt.smallest_normal - 1 or fmt.mantissa_bits == 0


formats = st.builds(
    lambda e, m, b, *rest: (e, m, None if b is None else 2 ** (e - 1) + b, *rest),
    st.integers(1, 6),
    st.integers(0, 5),
    st.none() | st.integers(-40, 40),
    st.sampled_from(Specials),
    st.sampled_from(Subnormals),
    st.booleans(),
    st.booleans(),
)


@given(fields=formats, numbers=st.lists(st.floats(), max_size=20), data=st.data())
def test_any_format_of_a_user(fields, numbers, data) -> None:
    try:
        fmt = FloatFormat(*fields)
    except FewbitsError:
        reject()
    if fmt.specials is Specials.NONE:
        numbers = [x for x in numbers if not math.isnan(by_definition(fmt, x, RoundingMode.UP))]
        near = [v * data.draw(st.floats(0.3, 3)) for v in table(fmt)[0]]
        near = [x for x in near if x != 0 or fmt.subnormals is not Subnormals.NORMAL]
    else:
        near = [v * data.draw(st.floats(-3, 3)) for v in table(fmt)[0][:40]]
    x = torch.tensor(numbers + near, dtype=torch.float64)
    for mode in IEEE:
        found = fmt.round(x, mode)
        same(found, [by_definition(fmt, number, mode) for number in x.tolist()])
        assert in_format(found, fmt)
        number = ~found.isnan()
        assert torch.equal(fmt.round(found[number], mode), found[number])


@given(x=st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=40), mode=st.sampled_from(IEEE))
@pytest.mark.parametrize("fmt", [FLOAT8_E5M2, FLOAT6_E2M3FN, BINARY16, replace(FLOAT8_E4M3FN, saturate=True)])
def test_rounding_is_monotone_and_mirrors(fmt: FloatFormat, x: list[float], mode: RoundingMode) -> None:
    numbers = torch.tensor(sorted(x), dtype=torch.float64)
    rounded_numbers = fmt.round(numbers, mode)
    assert (rounded_numbers[1:] >= rounded_numbers[:-1]).all()
    assert torch.equal(fmt.round(-numbers, MIRRORED.get(mode, mode)), -rounded_numbers)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_input_type_is_rounded_alike(dtype: torch.dtype) -> None:
    x = torch.randn(2000, generator=torch.Generator().manual_seed(2)).to(dtype)
    x = torch.cat([x, torch.tensor([math.inf, -0.0, torch.finfo(dtype).tiny, math.nan], dtype=dtype)])
    assert torch.equal(FLOAT8_E5M2.encode(x), FLOAT8_E5M2.encode(x.double()))
    found = FLOAT8_E5M2.round(x)
    assert found.dtype == dtype
    same(found.double(), FLOAT8_E5M2.round(x.double()).tolist())


@pytest.mark.parametrize(
    ("fmt", "x", "low", "high"),
    [
        (FLOAT8_E4M3FN, 1.03125, 1.0, 1.125),
        (FLOAT8_E4M3FN, -440.0, -416.0, -448.0),
        (BFLOAT16, 3.0 * 2.0**-135, 0.0, 2.0**-133),
        (FLOAT8_E5M2, 2.0**-16 / 2048, 0.0, 2.0**-16),  # a shift of 63, where a shift clamped to 62 doubles the odds
        (FLOAT8_E5M2, 2.0**-16 / 512 * 1.75, 0.0, 2.0**-16),
        (VARIANTS[2], 2.0**-15, 0.0, 2.0**-14),
        (FLOAT8_E8M0FNU, 1.25, 1.0, 2.0),
    ],
)
def test_the_stochastic_mean_is_x(fmt: FloatFormat, x: float, low: float, high: float) -> None:
    draws = 100_000
    generator = torch.Generator().manual_seed(3)
    numbers = fmt.round(torch.full((draws,), x, dtype=torch.float64), RoundingMode.STOCHASTIC, generator)
    assert set(numbers.tolist()) == {low, high}
    chance = (x - low) / (high - low)
    went = int((numbers == high).sum())
    assert abs(went - draws * chance) < 5 * math.sqrt(draws * chance * (1 - chance))  # z = 5: one in 1.7 million


def test_stochastic_rounding_keeps_what_fits_and_repeats_with_its_seed() -> None:
    values = FLOAT8_E4M3.values()
    draw = torch.Generator().manual_seed(4)
    assert torch.equal(FLOAT8_E4M3.round(values, RoundingMode.STOCHASTIC, draw), values)
    x = torch.randn(500, generator=draw)
    twice = [FLOAT8_E4M3.encode(x, RoundingMode.STOCHASTIC, torch.Generator().manual_seed(5)) for _ in range(2)]
    assert torch.equal(*twice)
    assert not torch.equal(twice[0], FLOAT8_E4M3.encode(x, RoundingMode.STOCHASTIC, draw))
    with pytest.raises(FewbitsError, match=r"needs a bit source.*torch\.Generator"):
        FLOAT8_E4M3.round(x, RoundingMode.STOCHASTIC)
