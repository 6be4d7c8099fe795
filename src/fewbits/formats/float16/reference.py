"""Float16 by its definition, in exact rationals: slow, short, and sharing no arithmetic with the integer operations.

A pattern stands for a rational number, ±∞ or NaN. An operation is done in rationals, and its result is rounded once.
Results carry the flags of :mod:`.flags` above their 16 bits, as those of :mod:`.scalar` do.

>>> third = div(0x3C00, 0x4200, RoundingMode.NEAREST_EVEN)
>>> decode(third & 0xFFFF), bool(third & INEXACT)
(Fraction(1365, 4096), True)
"""

from bisect import bisect_right
from fractions import Fraction
from functools import cache
from math import inf, isinf, isnan, isqrt, nan

from fewbits.formats.float16.flags import DIVIDE_BY_ZERO, INEXACT, INVALID, OVERFLOW, UNDERFLOW
from fewbits.formats.rounding import RoundingMode

Number = Fraction | float  #: a rational, or one of the floats inf, −inf and nan
QUIET_NAN = 0x7FFF


@cache
def decode(pattern: int) -> Number:
    """Return what the pattern stands for; 0 for both zeros."""
    sign, exponent, fraction = -1 if pattern >> 15 else 1, pattern >> 10 & 31, Fraction(pattern & 1023, 1024)
    if exponent == 31:
        return nan if fraction else sign * inf
    return sign * ((1 + fraction) * Fraction(2) ** (exponent - 15) if exponent else fraction * Fraction(2) ** -14)


@cache
def magnitudes() -> list[Fraction]:
    """Return what the patterns from 0 up stand for, in order, and 2^16: what would follow if exponents had no end."""
    return [Fraction(decode(pattern)) for pattern in range(0x7C00)] + [Fraction(2**16)]


def encode(value: Number, mode: RoundingMode, negative_zero: bool = False) -> int:
    """Return the pattern that the value rounds to, and the flags that the rounding raises."""
    negative = value < 0 or (value == 0 and negative_zero)
    if isinf(value):
        return negative << 15 | 0x7C00
    size = abs(Fraction(value))
    magnitude = min(size, Fraction(2**16 - 1))  # from there on all numbers round alike
    below = bisect_right(magnitudes(), magnitude) - 1
    lower, upper = magnitudes()[below : below + 2]
    exact, middle = magnitude == lower, (lower + upper) / 2
    further = {
        RoundingMode.NEAREST_EVEN: magnitude > middle or (magnitude == middle and below % 2 == 1),
        RoundingMode.NEAREST_AWAY: magnitude >= middle,
        RoundingMode.TOWARD_ZERO: False,
        RoundingMode.UP: not exact and not negative,
        RoundingMode.DOWN: not exact and negative,
    }
    pattern = below + further[mode]
    flags = 0 if exact else INEXACT
    if not exact and magnitude < Fraction(1, 2**14):
        flags |= UNDERFLOW
    if pattern == 0x7C00 or size >= 2**16:
        flags |= OVERFLOW
    return negative << 15 | pattern | flags


def fma(a: int, b: int, c: int, mode: RoundingMode) -> int:
    """Return a · b + c."""
    x, y, z, minus = decode(a), decode(b), decode(c), bool((a ^ b) & 0x8000)
    if isnan(x) or isnan(y) or isnan(z):
        return _quiet(a, b, c)
    if (isinf(x) and y == 0) or (x == 0 and isinf(y)):
        return QUIET_NAN | INVALID
    product = x * y
    if isinf(product) and isinf(z) and product != z:
        return QUIET_NAN | INVALID
    zeros = (minus, bool(c & 0x8000))
    return encode(product + z, mode, any(zeros) if mode is RoundingMode.DOWN else all(zeros))


def add(a: int, b: int, mode: RoundingMode) -> int:
    """Return a + b = a · 1 + b."""
    return fma(a, 0x3C00, b, mode)


def sub(a: int, b: int, mode: RoundingMode) -> int:
    """Return a − b = a + (−b)."""
    return add(a, b ^ 0x8000, mode)


def mul(a: int, b: int, mode: RoundingMode) -> int:
    """Return a · b = a · b + 0, with the zero that keeps the sign of a zero product."""
    return fma(a, b, (a ^ b) & 0x8000, mode)


def div(a: int, b: int, mode: RoundingMode) -> int:
    """Return a / b."""
    x, y, minus = decode(a), decode(b), bool((a ^ b) & 0x8000)
    if isnan(x) or isnan(y):
        return _quiet(a, b)
    if (x == 0 and y == 0) or (isinf(x) and isinf(y)):
        return QUIET_NAN | INVALID
    if y == 0 or isinf(x):
        return minus << 15 | 0x7C00 | (0 if isinf(x) else DIVIDE_BY_ZERO)
    return encode(Fraction(0) if isinf(y) else Fraction(x) / Fraction(y), mode, minus)


def sqrt(a: int, mode: RoundingMode) -> int:
    """Return √a.

    Float16s and the middles between them are multiples of 2^−25. So an irrational root, between two neighbouring
    multiples of 2^−26, rounds as the middle of these two does.
    """
    x = decode(a)
    if isnan(x):
        return _quiet(a)
    if x < 0:
        return QUIET_NAN | INVALID
    if x == 0 or isinf(x):
        return a
    scaled = int(x * 4**26)
    root = isqrt(scaled)
    return encode((root + Fraction(root * root < scaled, 2)) / 2**26, mode)


def _quiet(*operands: int) -> int:
    """Return the one quiet NaN; invalid if an operand is signalling: a NaN whose first fraction bit is 0."""
    signalling = any(isnan(decode(pattern)) and not pattern & 0x200 for pattern in operands)
    return QUIET_NAN | (INVALID if signalling else 0)
