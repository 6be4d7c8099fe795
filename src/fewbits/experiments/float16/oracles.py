"""What the operations are compared with: NumPy's float16, and an error-free transformation for the fused one.

NumPy computes float16 arithmetic in float32 and rounds the result again. With 24 ≥ 2·11 + 2 bits the second rounding of
a sum, product, quotient or square root does no harm (Figueroa, 1995).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewbits.experiments.float16.cases import Bits

NAN = np.uint16(0x7E00)  #: stands for every NaN


def one_nan(patterns: Bits) -> Bits:
    """Return float16 ``patterns`` with every NaN the same one: IEEE 754 leaves open which one a result is."""
    return np.where((patterns & np.uint16(0x7FFF)) > 0x7C00, NAN, patterns)


def by_numpy(operation: Callable[..., Any], *operands: Bits) -> Bits:
    """Return the patterns that NumPy's ``operation`` on float16 gives."""
    result: Bits = operation(*(each.view(np.float16) for each in operands)).view(np.uint16)
    return result


def from_float32(words: Bits) -> Bits:
    """Return the float16 patterns that NumPy makes of float32 patterns; of NaN the sign and the top ten bits.

    What becomes of NaN is no matter of arithmetic, and differs between NumPy's code for one processor and another: the
    rule here is written out (a NaN whose top ten bits are 0 would be infinity, and gets a 1).
    """
    patterns = words.view(np.float32).astype(np.float16).view(np.uint16)
    nan = (words & np.uint32(0x7FFFFFFF)) > 0x7F800000
    fraction = (words[nan] >> np.uint32(13) & np.uint32(0x3FF)).astype(np.uint16)
    sign = (words[nan] >> np.uint32(16) & np.uint32(0x8000)).astype(np.uint16)
    patterns[nan] = sign | np.uint16(0x7C00) | np.maximum(fraction, np.uint16(1))
    return patterns


def to_float32(patterns: Bits) -> Bits:
    """Return the float32 patterns that NumPy makes of float16 patterns; of NaN the sign and the fraction, shifted."""
    words = patterns.view(np.float16).astype(np.float32).view(np.uint32)
    nan = (patterns & np.uint16(0x7FFF)) > 0x7C00
    wide = patterns[nan].astype(np.uint32)
    words[nan] = (
        (wide & np.uint32(0x8000)) << np.uint32(16) | np.uint32(0x7F800000) | (wide & np.uint32(0x3FF)) << np.uint32(13)
    )
    return words


def sum_to_odd(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return x + y *rounded to odd*: exact where float64 holds it, else of the two numbers beside it the odd one.

    Knuth's TwoSum gives s, the sum rounded to nearest, and e with s + e = x + y exactly. If e ≠ 0 and the last bit of s
    is even, the other number beside the sum is one step from s towards e.

    >>> sum_to_odd(np.array([1.0, 1.0, 1.0]), np.array([0.0, 2.0**-60, -(2.0**-60)])) - 1 == [0, 2.0**-52, -(2.0**-53)]
    array([ True,  True,  True])
    """
    s = x + y
    other = s - x
    e = (x - (s - other)) + (y - other)
    bits = s.view(np.int64)
    move = np.isfinite(s) & (e != 0) & (bits & 1 == 0)
    odd: NDArray[np.float64] = (bits + np.where(move, np.where((e > 0) == (s > 0), 1, -1), 0)).view(np.float64)
    return odd


def fma(a: Bits, b: Bits, c: Bits) -> Bits:
    """Return the patterns of a·b + c, rounded once to nearest, ties to even, by float64 without error.

    In float64 the product is exact (22 bits). The sum rounded to odd says "not exact" in its last bit, and so cannot be
    taken for a float16 number or the middle between two. As 53 ≥ 11 + 2, rounding it to float16 gives what rounding the
    exact sum would (Boldo and Melquiond, 2008). (The sum rounded to nearest would do for operands of float16, but only
    by an argument about their exponents.)

    >>> a, c = np.array([0x3C01], np.uint16), np.array([0xBC02], np.uint16)     # (1 + 2^-10)² - (1 + 2^-9) = 2^-20
    >>> hex(fma(a, a, c)[0]), hex(by_numpy(np.multiply, a, a)[0])               # rounded first, a² would be -c
    ('0x10', '0x3c02')
    """
    x, y, z = (each.view(np.float16).astype(np.float64) for each in (a, b, c))
    patterns: Bits = sum_to_odd(x * y, z).astype(np.float16).view(np.uint16)
    return patterns
