"""The one rounding primitive: drop low bits of an integer. Every format here rounds by it, and by nothing else."""

from enum import IntEnum
from typing import Any


class RoundingMode(IntEnum):
    """Which neighbour a number between two neighbours goes to: the five modes of IEEE 754, and by chance."""

    NEAREST_EVEN = 0  #: the nearer one; of two equally near the even one
    NEAREST_AWAY = 1  #: the nearer one; of two equally near the one further from zero
    TOWARD_ZERO = 2  #: the one nearer to zero
    UP = 3  #: the greater one
    DOWN = 4  #: the smaller one
    STOCHASTIC = 5  #: the one further from zero with probability rest / unit, so that the mean is exact


def round_shift(magnitude: Any, shift: Any, mode: RoundingMode, negative: Any = False, random: Any = 0) -> Any:
    """Return magnitude / 2^shift rounded to an integer.

    With m = q · 2^s + r, 0 ≤ r < 2^s, the result is q or q + 1; r = 0 is exact in every mode. Only integer operations,
    and no branch on data: the same lines serve Python integers of any size, NumPy arrays, torch tensors and numba.

    Args:
        magnitude: m ≥ 0, the absolute value; int64 if it is an array.
        shift: s ≥ 0, the bits to drop; at most 62 for int64.
        mode: the rounding mode.
        negative: whether the number is negative; UP and DOWN need it.
        random: bits for STOCHASTIC: a nonnegative integer whose lowest s bits are uniform.

    >>> [round_shift(m, 2, RoundingMode.NEAREST_EVEN) for m in (4, 5, 6, 7, 10)]    # 1, 1¼, 1½, 1¾, 2½
    [1, 1, 2, 2, 2]
    >>> [round_shift(5, 2, RoundingMode.STOCHASTIC, random=r) for r in range(4)]    # 1¼ goes up once in four
    [2, 1, 1, 1]
    """
    quotient = magnitude >> shift
    unit = 1 << shift
    rest = magnitude - (quotient << shift)
    if mode == RoundingMode.NEAREST_EVEN:
        further = (2 * rest > unit) | ((2 * rest == unit) & (quotient & 1 == 1))
    elif mode == RoundingMode.NEAREST_AWAY:
        further = (2 * rest >= unit) & (rest > 0)
    elif mode == RoundingMode.UP:
        further = (rest > 0) & (negative == 0)
    elif mode == RoundingMode.DOWN:
        further = (rest > 0) & (negative != 0)
    elif mode == RoundingMode.STOCHASTIC:
        further = (random & (unit - 1)) < rest
    else:
        further = rest < 0
    return quotient + further
