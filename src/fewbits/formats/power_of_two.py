"""The nearest power of two, nearest in the exponent."""

import math

import torch
from torch import Tensor

from fewbits.errors import FewbitsError
from fewbits.formats.float_parts import FRACTION_BITS, FloatParts

_BELOW_ROOT_TWO = math.isqrt(2 << 2 * FRACTION_BITS)  # the largest significand s with s² ≤ 2 · 2^104


def nearest_power_of_two(x: Tensor) -> Tensor:
    """Return Shift(x) = 2^round(log2 x) (Wu et al. 2018, WAGE), exactly.

    With x = m · 2^e, 1 ≤ m < 2, the result is 2^(e+1) if m² ≥ 2, else 2^e: compared in integers. There is no tie,
    because √2 is irrational. Nearest in the exponent is not nearest in value: 1.45 goes to 2.

    WAGE applies it to max |x| of a tensor. Zero has no logarithm: a tensor of zeros has no scale, and the caller says
    what happens to it.

    Args:
        x: float16, bfloat16, float32 or float64, of any shape, on any device; positive and finite. Subnormals are
            exact.

    Returns:
        Powers of two in the type and shape of x, without gradient.

    Raises:
        FewbitsError: If x has another type, or holds zero, a negative number, an infinity or NaN; or if the power is
            above the largest number of its type (x ≥ √2 · 2^127 for float32).

    >>> nearest_power_of_two(torch.tensor([1.0, 1.4142, 1.4143, 3.0, 0.3])).tolist()
    [1.0, 1.0, 2.0, 4.0, 0.25]
    """
    parts = FloatParts.of(x)
    if (parts.negative | parts.nan | parts.infinite | (parts.significand == 0)).any():
        raise FewbitsError("log2 needs positive, finite numbers; the input holds zero, a negative number, inf or NaN.")
    exponent = parts.exponent + (parts.significand > _BELOW_ROOT_TWO)
    power = FloatParts.from_integer(parts.negative, torch.ones_like(exponent), exponent).to_float(x.dtype)
    if power.isinf().any():
        raise FewbitsError(f"the nearest power of two is above the largest number of {x.dtype}; use a wider type.")
    return power
