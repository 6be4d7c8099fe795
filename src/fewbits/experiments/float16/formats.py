"""Checks of the formats beside float16: the named float formats, WAGE's Q and Shift, and stochastic rounding."""

import math
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np
import torch
from scipy import stats
from torch import Tensor

from fewbits.experiments.float16.cases import Bits, Size, every, given, some
from fewbits.experiments.float16.verification import Chunk
from fewbits.formats import FixedPoint, FloatFormat, RoundingMode, nearest_power_of_two, round_shift
from fewbits.formats import float_format as presets

#: Each named format, and the type that ml_dtypes (for binary16, NumPy) has for it.
PRESETS: dict[str, tuple[FloatFormat, Any]] = {
    "binary16": (presets.BINARY16, np.float16),
    "bfloat16": (presets.BFLOAT16, ml_dtypes.bfloat16),
    "float8_e3m4": (presets.FLOAT8_E3M4, ml_dtypes.float8_e3m4),
    "float8_e4m3": (presets.FLOAT8_E4M3, ml_dtypes.float8_e4m3),
    "float8_e4m3b11fnuz": (presets.FLOAT8_E4M3B11FNUZ, ml_dtypes.float8_e4m3b11fnuz),
    "float8_e4m3fn": (presets.FLOAT8_E4M3FN, ml_dtypes.float8_e4m3fn),
    "float8_e4m3fnuz": (presets.FLOAT8_E4M3FNUZ, ml_dtypes.float8_e4m3fnuz),
    "float8_e5m2": (presets.FLOAT8_E5M2, ml_dtypes.float8_e5m2),
    "float8_e5m2fnuz": (presets.FLOAT8_E5M2FNUZ, ml_dtypes.float8_e5m2fnuz),
    "float8_e8m0fnu": (presets.FLOAT8_E8M0FNU, ml_dtypes.float8_e8m0fnu),
    "float6_e2m3fn": (presets.FLOAT6_E2M3FN, ml_dtypes.float6_e2m3fn),
    "float6_e3m2fn": (presets.FLOAT6_E3M2FN, ml_dtypes.float6_e3m2fn),
    "float4_e2m1fn": (presets.FLOAT4_E2M1FN, ml_dtypes.float4_e2m1fn),
}

#: Python's own rounding of a float to an integer, which is exact.
_PYTHON: dict[RoundingMode, Callable[[float], int]] = {
    RoundingMode.NEAREST_EVEN: round,
    RoundingMode.NEAREST_AWAY: lambda x: (
        math.trunc(x) + (int(math.copysign(1, x)) if abs(x - math.trunc(x)) >= 0.5 else 0)
    ),
    RoundingMode.TOWARD_ZERO: math.trunc,
    RoundingMode.UP: math.ceil,
    RoundingMode.DOWN: math.floor,
}
FALSE_ALARM = 1e-6  #: chance that a sample of correct stochastic rounding is called a mismatch
WIDTHS = range(2, 17)  #: k of WAGE's Q(x, k)


def preset(name: str, size: Size) -> list[Chunk]:
    """Return the check of a named format: decoding all encodings, encoding all float16 and all bfloat16 numbers.

    NaN is left out of the inputs of a format that has none: encoding it is an error.
    """
    form, kind = PRESETS[name]
    decoding: list[Chunk] = [(draw, partial(_decode, form, kind)) for draw in every(form.bits, size.chunk)]
    numbers = np.arange(1 << 16).astype(np.uint16)
    for source in (np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)):
        allowed = numbers if _has_nan(form, kind) else numbers[~np.isnan(numbers.view(source).astype(np.float32))]
        decoding += [(draw, partial(_encode, form, kind, source)) for draw in given(size.chunk, allowed)]
    return decoding


def _has_nan(form: FloatFormat, kind: Any) -> bool:
    return bool(np.isnan(np.arange(1 << form.bits).astype(_word(kind)).view(kind).astype(np.float32)).any())


def _word(kind: Any) -> Any:
    return np.dtype(f"u{np.dtype(kind).itemsize}")


def _decode(form: FloatFormat, kind: Any, words: Bits) -> tuple[Bits, Bits]:
    got = form.decode(torch.from_numpy(words.astype(np.int64))).numpy()
    return _unless_nan(got), _unless_nan(words.astype(_word(kind)).view(kind).astype(np.float32))


def _encode(form: FloatFormat, kind: Any, source: Any, words: Bits) -> tuple[Bits, Bits]:
    x = torch.from_numpy(words).view(torch.float16 if source == np.float16 else torch.bfloat16)
    got = form.encode(x).numpy()
    expected = words.view(source).astype(kind)
    if kind == ml_dtypes.float8_e8m0fnu:
        expected = _with_small_numbers_right(words.view(source).astype(np.float32), expected)
    return _unless_nan(got.view(kind)), _unless_nan(expected)


def _with_small_numbers_right(numbers: Bits, patterns: Bits) -> Bits:
    """Correct what ml_dtypes 0.6 makes of float32's subnormal numbers above 2^−127: always the next power of two.

    It rounds rightly elsewhere, so they are multiplied by 2^64 there and back.
    """
    small = (numbers > 2.0**-127) & (numbers < 2.0**-126)
    shifted = (numbers[small] * np.float32(2**64)).astype(patterns.dtype)
    right = patterns.copy()
    right[small] = (shifted.view(np.uint8) - np.uint8(64)).view(patterns.dtype)
    return right


def _unless_nan(numbers: Bits) -> Bits:
    """Return the bit patterns of the numbers, −1 for each that is NaN."""
    return np.where(np.isnan(numbers.astype(np.float32)), -1, numbers.view(_word(numbers.dtype)).astype(np.int64))


def fixed_point(size: Size) -> list[Chunk]:
    """Return the check of Q(x, k), k = 2 … 16: all codes, all ties, and the floats next to them, in five modes.

    ``size.cases`` is how many of these are chosen at random for each width, number type and mode.
    """
    chunks: list[Chunk] = []
    for width in WIDTHS:
        for kind in (np.float32, np.float64):
            points = some(size, _points(width, kind))
            for mode in _PYTHON:
                chunks += [(draw, partial(_quantize, width, mode)) for draw in given(size.chunk, *points)]
    return chunks


def _points(width: int, kind: Any) -> Bits:
    halves = np.arange(-(1 << width) - 2, (1 << width) + 3)  # in units of σ/2, one code beyond each end
    numbers = (halves * 2.0**-width).astype(kind)
    far = np.array([np.inf, -np.inf, np.finfo(kind).max, np.finfo(kind).smallest_subnormal, -0.0], kind)
    near = [np.nextafter(numbers, kind(end)) for end in (-np.inf, np.inf)]
    return np.concatenate([numbers, *near, far]).view(np.dtype(f"u{np.dtype(kind).itemsize}"))


def _quantize(width: int, mode: RoundingMode, words: Bits) -> tuple[Bits, Bits]:
    numbers = words.view(np.dtype(f"f{words.itemsize}"))
    got = FixedPoint(0, width - 1, symmetric=True).encode(torch.from_numpy(numbers), mode).numpy()
    end = 2 ** (width - 1) - 1
    scaled = np.clip(numbers.astype(np.float64), -2, 2) * 2.0 ** (width - 1)  # exact, and |x| ≥ 1 saturates anyway
    expected = np.array([max(-end, min(end, _PYTHON[mode](x))) for x in scaled.tolist()], np.int32)
    return got.astype(np.int32), expected


def shift(size: Size) -> list[Chunk]:
    """Return the check of Shift: positive float16 numbers, those next to √2·2^e, and random float32 ones."""
    halves = np.arange(1, 0x7C00).astype(np.uint16).view(np.float16).astype(np.float32).view(np.uint32)
    turns = np.ldexp(np.float32(math.sqrt(2)), np.arange(-148, 127)).astype(np.float32).view(np.uint32)
    wide = np.ldexp(math.sqrt(2), np.arange(-1073, 1023)).view(np.uint64)
    highest = int(np.float32(math.sqrt(2) * 2.0**127).view(np.uint32)) - 1  # above it the power is no float32
    random = np.random.default_rng(size.seed).integers(1, highest, size.cases, dtype=np.uint32)
    narrow = np.concatenate([halves, turns - 1, turns, turns + 1, random])
    wide = np.concatenate([wide - 1, wide, wide + 1])
    return [(draw, _shift) for draw in given(size.chunk, narrow) + given(size.chunk, wide)]


def _shift(words: Bits) -> tuple[Bits, Bits]:
    numbers = words.view(np.dtype(f"f{words.itemsize}"))
    got = nearest_power_of_two(torch.from_numpy(numbers)).numpy()
    expected = np.array([math.ldexp(1, _nearest_exponent(x)) for x in numbers.tolist()], numbers.dtype)
    return got.view(words.dtype), expected.view(words.dtype)


def _nearest_exponent(x: float) -> int:
    numerator, denominator = x.as_integer_ratio()  # the denominator is a power of two
    exponent = numerator.bit_length() - denominator.bit_length()
    return exponent + (Fraction(numerator, denominator) ** 2 >= 2 * Fraction(4) ** exponent)


def stochastic(size: Size) -> list[Chunk]:
    """Return the check of stochastic rounding: its mean over all random bits, and over ``size.cases`` draws.

    Over all values of the random bits, the mean is exact. Of the draws of one number, those that go up must lie in the
    binomial interval; all intervals of a chunk together fail a correct rounding once in a million (Bonferroni).
    """
    magnitudes = np.arange(1 << 10)
    exact: list[Chunk] = [
        (draw, _sum_of_all) for bits in range(9) for draw in given(1 << 10, magnitudes, np.full_like(magnitudes, bits))
    ]
    sixteenths = np.concatenate([(start + np.arange(-31, 32)) / 16 for start in (0, 96)])
    sampled: list[Chunk] = [
        (given(1 << 10, (sixteenths * unit).view(np.uint64))[0], partial(_sample, form.round, size))
        for form, unit in ((FixedPoint(0, 7, symmetric=True), 2.0**-7), (presets.FLOAT8_E5M2, 2.0**-10))
    ]
    return exact + sampled


def _sum_of_all(magnitudes: Bits, bits: Bits) -> tuple[Bits, Bits]:
    """Return Σ_r round_shift(m, s, r) over all r < 2^s, which is m where the mean is m / 2^s."""
    shift = int(bits[0])
    random = np.arange(1 << shift)[:, None]
    return round_shift(magnitudes, shift, RoundingMode.STOCHASTIC, random=random).sum(0), magnitudes


def _sample(rounding: Callable[..., Tensor], size: Size, words: Bits) -> tuple[Bits, Bits]:
    assert size.cases is not None  # this check has no end of cases
    numbers, draws = torch.from_numpy(words.view(np.float64)), size.cases
    low, high = rounding(numbers, RoundingMode.DOWN), rounding(numbers, RoundingMode.UP)
    generator = torch.Generator().manual_seed(size.seed)
    rounded = rounding(numbers.expand(draws, -1), RoundingMode.STOCHASTIC, generator)
    counts = (rounded == high).sum(0).numpy()
    neighbours = ((rounded == high) | (rounded == low)).all(0).numpy()
    chance = torch.where(high > low, (numbers - low) / (high - low), 1.0).numpy()
    least, most = stats.binom.interval(1 - FALSE_ALARM / len(words), draws, chance)
    inside = neighbours & (least <= counts) & (counts <= most)
    return inside.astype(np.uint8), np.ones(len(words), np.uint8)
