"""Float16 in integer operations: one function an operation, on one pattern. :mod:`.compiled` runs them over arrays.

A finite float16 is (−1)^s · m · 2^e with an integer m < 2^11 and −24 ≤ e ≤ 5: m = fraction for subnormals (e = −24) and
1024 + fraction for normal numbers (e = exponent field − 25). Every operation makes the exact result as such a product
with a larger integer, or with one whose lowest bit says "and a little more", and rounds once, in
:func:`round_and_pack`. Results carry the flags of :mod:`.flags` above their 16 bits.

All arguments are plain integers; an operation on NaN gives the one quiet NaN, :data:`NAN`.
"""

from fewbits.formats.float16.flags import DIVIDE_BY_ZERO, INEXACT, INVALID, OVERFLOW, UNDERFLOW
from fewbits.formats.rounding import RoundingMode, round_shift

SIGN = 0x8000  #: the sign bit
INFINITY = 0x7C00  #: the pattern of +∞; greater magnitudes are NaN
LARGEST = 0x7BFF  #: the pattern of 65504
NAN = 0x7FFF  #: the NaN that operations give: CUDA's, ``CUDART_NAN_FP16``


def bit_length(number: int) -> int:
    """Return the bits that ``number`` ≥ 0 needs; 0 for 0."""
    return number.bit_length()


def significand(pattern: int) -> int:
    """Return m of a finite pattern: its fraction, with the leading one that normal numbers do not store."""
    return pattern & 0x3FF | (pattern & INFINITY != 0) << 10


def exponent(pattern: int) -> int:
    """Return e of a finite pattern: the unit of its significand is 2^e."""
    return max(pattern >> 10 & 31, 1) - 25


def is_nan(pattern: int) -> bool:
    """Return whether the pattern is NaN."""
    return pattern & 0x7FFF > INFINITY


def is_finite(pattern: int) -> bool:
    """Return whether the pattern is a number: neither infinite nor NaN."""
    return pattern & INFINITY != INFINITY


def is_zero(pattern: int) -> bool:
    """Return whether the pattern is +0 or −0."""
    return pattern & 0x7FFF == 0


def is_signalling(pattern: int) -> bool:
    """Return whether the pattern is a NaN whose first fraction bit is 0."""
    return is_nan(pattern) and pattern & 0x200 == 0


def round_and_pack(negative: int, magnitude: int, unit: int, mode: RoundingMode) -> int:
    """Return the float16 that magnitude · 2^unit rounds to, and its flags.

    The unit of the result is 2^u, u = max(unit + length − 11, −24): 11 bits, or fewer among the subnormals. The rounded
    multiple of it is added to the exponent, so that a carry lands where it belongs.

    Args:
        negative: 1 or 0.
        magnitude: an integer below 2^62, positive unless unit = −24; unit ≤ −24 or magnitude ≥ 2^10.
        unit: the exponent of its unit; u − unit ≤ 62.
        mode: one of the five modes of IEEE 754.
    """
    length = bit_length(magnitude)
    shift = max(length - 11, -24 - unit)
    rounded: int = round_shift(magnitude, shift, mode, negative)
    pattern = (unit + shift + 24 << 10) + rounded
    inexact = rounded << shift != magnitude
    flags = inexact * INEXACT | (inexact & (unit + length <= -14)) * UNDERFLOW
    if pattern >= INFINITY:  # more than halfway beyond the largest, as ¾ is beyond 0
        pattern = LARGEST + round_shift(3, 2, mode, negative)
        flags = OVERFLOW | INEXACT
    return negative << 15 | pattern | flags


def nan_from(a: int, b: int, c: int) -> int:
    """Return the result of an operation of which an operand is NaN: invalid if one is signalling."""
    return NAN | (is_signalling(a) | is_signalling(b) | is_signalling(c)) * INVALID


def signed_sum(left: int, right: int, left_sign: int, right_sign: int, unit: int, mode: RoundingMode) -> int:
    """Round (−1)^left_sign · left + (−1)^right_sign · right, in units of 2^unit.

    An exact zero is +0, or −0 toward DOWN, unless both signs agree.
    """
    total = (-left if left_sign else left) + (-right if right_sign else right)
    zero_sign = left_sign & right_sign | (left_sign | right_sign) & (mode == RoundingMode.DOWN)
    negative = zero_sign if total == 0 else int(total < 0)
    return round_and_pack(negative, abs(total), unit, mode)


def add(a: int, b: int, mode: RoundingMode) -> int:
    """Return a + b: finite float16s are multiples of 2^−24 below 2^40, so their sum is an exact integer."""
    if not (is_finite(a) and is_finite(b)):
        if is_nan(a) or is_nan(b):
            return nan_from(a, b, b)
        if is_finite(b):
            return a
        return b if is_finite(a) or a == b else NAN | INVALID
    left, right = significand(a) << exponent(a) + 24, significand(b) << exponent(b) + 24
    return signed_sum(left, right, a >> 15, b >> 15, -24, mode)


def sub(a: int, b: int, mode: RoundingMode) -> int:
    """Return a − b: a + (−b)."""
    return add(a, b ^ SIGN, mode)


def mul(a: int, b: int, mode: RoundingMode) -> int:
    """Return a · b: the product of two 11-bit significands has 22 bits."""
    negative = (a ^ b) >> 15
    if not (is_finite(a) and is_finite(b)):
        if is_nan(a) or is_nan(b):
            return nan_from(a, b, b)
        return NAN | INVALID if is_zero(a) or is_zero(b) else negative << 15 | INFINITY
    product = significand(a) * significand(b)
    if product == 0:
        return negative << 15
    return round_and_pack(negative, product, exponent(a) + exponent(b), mode)


def div(a: int, b: int, mode: RoundingMode) -> int:
    """Return a / b: an integer quotient of at least 13 bits, and a last bit that says whether a rest is left."""
    negative = (a ^ b) >> 15
    if not (is_finite(a) and is_finite(b)):
        if is_nan(a) or is_nan(b):
            return nan_from(a, b, b)
        if is_finite(a):
            return negative << 15
        return negative << 15 | INFINITY if is_finite(b) else NAN | INVALID
    if is_zero(b):
        return NAN | INVALID if is_zero(a) else negative << 15 | INFINITY | DIVIDE_BY_ZERO
    if is_zero(a):
        return negative << 15
    dividend, divisor = significand(a) << 24, significand(b)
    quotient = dividend // divisor
    rest = dividend - quotient * divisor
    return round_and_pack(negative, quotient << 1 | (rest > 0), exponent(a) - exponent(b) - 25, mode)


def sqrt(a: int, mode: RoundingMode) -> int:
    """Return √a: an integer root of 12 or 13 bits, and a last bit that says whether a rest is left; √−0 = −0."""
    if is_nan(a):
        return nan_from(a, a, a)
    if is_zero(a) or a == INFINITY:
        return a
    if a & SIGN:
        return NAN | INVALID
    shift = 24 - bit_length(significand(a))
    shift += exponent(a) - shift & 1  # so that the root of the unit is a power of two
    radicand = significand(a) << shift
    root = 0
    for bit in range(12, -1, -1):
        trial = root | 1 << bit
        root |= (trial * trial <= radicand) << bit
    return round_and_pack(0, root << 1 | (root * root < radicand), (exponent(a) - shift >> 1) - 1, mode)


def fma(a: int, b: int, c: int, mode: RoundingMode) -> int:
    """Return a · b + c, rounded once.

    The product has 22 bits and the unit 2^p, −48 ≤ p ≤ 10. Its sum with c is an exact integer below 2^62, unless the
    unit of c is more than 2^40 units of the product. There c is normal, the product is far below its last place, and
    of the lowest bits of the product only whether one is set matters.
    """
    sign = (a ^ b) >> 15
    if not (is_finite(a) and is_finite(b) and is_finite(c)):
        if is_nan(a) or is_nan(b) or is_nan(c):
            return nan_from(a, b, c)
        if is_finite(a) and is_finite(b):
            return c
        opposed = not is_finite(c) and c >> 15 != sign
        return NAN | INVALID if is_zero(a) or is_zero(b) or opposed else sign << 15 | INFINITY
    product, product_unit = significand(a) * significand(b), exponent(a) + exponent(b)
    unit = min(product_unit, -24)
    product <<= product_unit - unit
    coarser = max(exponent(c) - unit - 40, 0)
    product = product >> coarser | (product & (1 << coarser) - 1 != 0)
    unit += coarser
    return signed_sum(product, significand(c) << exponent(c) - unit, sign, c >> 15, unit, mode)


def from_float32(bits: int, mode: RoundingMode) -> int:
    """Return the float16 that the float32 with these bits rounds to; NaN keeps its sign and top 10 fraction bits."""
    negative, fraction, field = bits >> 31, bits & 0x7FFFFF, bits >> 23 & 255
    if field == 255:
        payload = fraction >> 13
        return negative << 15 | INFINITY | payload | (payload == 0 and fraction > 0)
    # Below 2^−36 only the sign and "not zero" matter: a unit of 2^−60 keeps both, and the shift short.
    return round_and_pack(negative, fraction | (field > 0) << 23, max(field - 150, -60), mode)


def to_float32(pattern: int) -> int:
    """Return the bits of the float32 that equals the float16; NaN keeps its sign and fraction."""
    magnitude = pattern & 0x7FFF
    length = bit_length(magnitude)
    normal = (magnitude << 13) + (112 << 23)
    special = (magnitude << 13) + (224 << 23)
    subnormal = (length + 101 << 23) + (magnitude << 24 - length) if magnitude else 0
    finite = normal if magnitude >= 0x400 else subnormal
    return (pattern & SIGN) << 16 | (special if magnitude >= INFINITY else finite)


def order(pattern: int) -> int:
    """Return an integer that stands to others as the number stands to theirs; NaN beyond the infinities."""
    return -(pattern & 0x7FFF) if pattern & SIGN else pattern


def equal(a: int, b: int) -> bool:
    """Return whether a = b; −0 equals +0, NaN equals nothing."""
    return order(a) == order(b) and not is_nan(a)


def not_equal(a: int, b: int) -> bool:
    """Return whether a = b does not hold."""
    return not equal(a, b)


def less(a: int, b: int) -> bool:
    """Return whether a < b; NaN is unordered."""
    return order(a) < order(b) and not (is_nan(a) or is_nan(b))


def less_equal(a: int, b: int) -> bool:
    """Return whether a ≤ b; NaN is unordered."""
    return order(a) <= order(b) and not (is_nan(a) or is_nan(b))
