"""Float16 on a CPU that has none: arithmetic on arrays of bit patterns, in integer operations only.

The type is IEEE 754's binary16, as CUDA defines its half: 1 sign bit, 5 exponent bits, 10 mantissa bits. The pattern
``s eeeee ffffffffff`` is (−1)^s · 1.f · 2^(e − 15) for 0 < e < 31, (−1)^s · 0.f · 2^−14 for e = 0 (zeros, subnormals),
±∞ for e = 31 and f = 0, and NaN otherwise: quiet if the first bit of f is set, else signalling.

Every operation is the exact result rounded once, in one of the five rounding modes of IEEE 754.

* **Arrays.** NumPy arrays, or torch tensors on the CPU; what comes back is of the same kind. Patterns are uint16
  (``x.view(np.uint16)`` of a NumPy float16). Shapes broadcast as NumPy's do; strided, empty and 0-dimensional arrays
  are fine.
* **NaN.** An operation whose result is NaN gives 0x7FFF, CUDA's NaN, whatever its operands were. Conversions keep the
  sign and the upper bits of the fraction, as NumPy does: all 65,536 patterns survive the way to float32 and back. A
  float32 NaN whose upper 10 fraction bits are 0 becomes 0x7C01 with its sign.
* **Flags.** ``counters=Counters()`` counts the exceptions of IEEE 754. A signalling NaN is invalid in arithmetic; a
  conversion moves it as it is and counts nothing, as a comparison does. fma(0, ∞, quiet NaN) is NaN and not invalid.

Each function raises :class:`~fewbits.errors.FewbitsError` if an operand is no array, of the wrong type or on a GPU, if
arrays and tensors are mixed, if shapes do not broadcast, or if the mode is STOCHASTIC. The first use of an operation
compiles it, which takes about a second.

>>> import numpy as np
>>> from fewbits.formats import float16
>>> one, third = float16.from_float32(np.float32([1, 1 / 3]))
>>> f"{one:016b} {third:016b}", float(float16.to_float32(third))
('0011110000000000 0011010101010101', 0.333251953125)
>>> float16.to_float32(float16.mul(third, float16.from_float32(np.float32(3)))).item()    # 0.99975… is a tie
1.0
"""

import numpy as np

from fewbits.formats.float16 import scalar
from fewbits.formats.float16.arrays import Array, checked, compared, like, rounded
from fewbits.formats.float16.compiled import exact
from fewbits.formats.float16.flags import Counters
from fewbits.formats.rounding import RoundingMode

__all__ = [
    "Counters", "add", "div", "equal", "fma", "from_float32", "greater", "greater_equal", "less", "less_equal", "mul",
    "not_equal", "sqrt", "sub", "to_float32",
]  # fmt: skip


def from_float32(
    x: Array, *, mode: RoundingMode = RoundingMode.NEAREST_EVEN, counters: Counters | None = None
) -> Array:
    """Return the patterns that float32 numbers round to.

    >>> [hex(p) for p in from_float32(np.float32([1, -2, 65504, 65520, 2**-24, -(2**-25), 0.1]))]
    ['0x3c00', '0xc000', '0x7bff', '0x7c00', '0x1', '0x8000', '0x2e66']
    >>> seen = Counters()
    >>> [hex(p) for p in from_float32(np.float32([65520, 2**-25]), mode=RoundingMode.UP, counters=seen)], seen.inexact
    (['0x7c00', '0x1'], 2)
    """
    return rounded(scalar.from_float32, (x,), mode, counters, "float32")


def to_float32(a: Array) -> Array:
    """Return the float32 numbers that equal the patterns; exact.

    >>> to_float32(np.uint16([0x3C00, 0x0001, 0xFC00])).tolist()
    [1.0, 5.960464477539063e-08, -inf]
    """
    return like(a, np.asarray(exact(scalar.to_float32)(*checked((a,), "uint16"))).view(np.float32))


def add(
    a: Array, b: Array, *, mode: RoundingMode = RoundingMode.NEAREST_EVEN, counters: Counters | None = None
) -> Array:
    """Return a + b. An exact zero is +0, or −0 toward DOWN, unless both operands are zeros of one sign.

    Invalid: ∞ + −∞. A sum is never an underflow: where it is subnormal, it is exact.

    >>> hex(add(np.uint16(0x3C00), np.uint16(0x1000))[()])           # 1 + 2^−11 is a tie, and goes to 1
    '0x3c00'
    >>> hex(add(np.uint16(0x3C00), np.uint16(0x1000), mode=RoundingMode.UP)[()])
    '0x3c01'
    """
    return rounded(scalar.add, (a, b), mode, counters)


def sub(
    a: Array, b: Array, *, mode: RoundingMode = RoundingMode.NEAREST_EVEN, counters: Counters | None = None
) -> Array:
    """Return a − b, which is a + (−b); see :func:`add`.

    >>> hex(sub(np.uint16(0x3C00), np.uint16(0x3BFF))[()])           # 1 − (1 − 2^−11) = 2^−11
    '0x1000'
    """
    return rounded(scalar.sub, (a, b), mode, counters)


def mul(
    a: Array, b: Array, *, mode: RoundingMode = RoundingMode.NEAREST_EVEN, counters: Counters | None = None
) -> Array:
    """Return a · b. Invalid: 0 · ∞.

    >>> hex(mul(np.uint16(0x5C00), np.uint16(0x5C00))[()])           # 2^8 · 2^8 is beyond 65504
    '0x7c00'
    """
    return rounded(scalar.mul, (a, b), mode, counters)


def div(
    a: Array, b: Array, *, mode: RoundingMode = RoundingMode.NEAREST_EVEN, counters: Counters | None = None
) -> Array:
    """Return a / b. Invalid: 0 / 0 and ∞ / ∞; a finite number over 0 is ±∞ and a division by zero.

    >>> hex(div(np.uint16(0x3C00), np.uint16(0x4200))[()])           # 1 / 3
    '0x3555'
    """
    return rounded(scalar.div, (a, b), mode, counters)


def sqrt(a: Array, *, mode: RoundingMode = RoundingMode.NEAREST_EVEN, counters: Counters | None = None) -> Array:
    """Return √a; √−0 is −0. Invalid: a < 0.

    >>> hex(sqrt(np.uint16(0x4000))[()])                             # √2
    '0x3da8'
    """
    return rounded(scalar.sqrt, (a,), mode, counters)


def fma(
    a: Array, b: Array, c: Array, *, mode: RoundingMode = RoundingMode.NEAREST_EVEN, counters: Counters | None = None
) -> Array:
    """Return a · b + c, rounded once. Invalid: 0 · ∞ unless c is a quiet NaN, and ∞ − ∞.

    >>> hex(fma(np.uint16(0x3C01), np.uint16(0x3C01), np.uint16(0xBC02))[()])        # (1 + 2^−10)² − (1 + 2^−9) = 2^−20
    '0x10'
    """
    return rounded(scalar.fma, (a, b, c), mode, counters)


def equal(a: Array, b: Array) -> Array:
    """Return where a = b: bool. −0 equals +0; NaN equals nothing.

    >>> equal(np.uint16([0x8000, 0x7FFF]), np.uint16([0x0000, 0x7FFF])).tolist()
    [True, False]
    """
    return compared(exact(scalar.equal), a, b)


def not_equal(a: Array, b: Array) -> Array:
    """Return where a = b does not hold: bool; so also where one is NaN."""
    return compared(exact(scalar.not_equal), a, b)


def less(a: Array, b: Array) -> Array:
    """Return where a < b: bool; False where one is NaN.

    >>> less(np.uint16([0xBC00, 0x8000, 0x7FFF]), np.uint16(0x0000)).tolist()        # −1, −0 and NaN against 0
    [True, False, False]
    """
    return compared(exact(scalar.less), a, b)


def less_equal(a: Array, b: Array) -> Array:
    """Return where a ≤ b: bool; False where one is NaN."""
    return compared(exact(scalar.less_equal), a, b)


def greater(a: Array, b: Array) -> Array:
    """Return where a > b: bool; False where one is NaN."""
    return less(b, a)


def greater_equal(a: Array, b: Array) -> Array:
    """Return where a ≥ b: bool; False where one is NaN."""
    return less_equal(b, a)
