"""The five exceptions of IEEE 754, as bits above a pattern, and their counters."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

INVALID = 1 << 16  #: no number is the answer: 0 · ∞, ∞ − ∞, 0 / 0, ∞ / ∞, √ of a negative, a signalling NaN
DIVIDE_BY_ZERO = 1 << 17  #: a finite number other than 0, divided by 0
OVERFLOW = 1 << 18  #: the result, rounded as if exponents had no end, lies beyond 65504
UNDERFLOW = 1 << 19  #: the exact result is not 0, is smaller than 2^−14, and had to be rounded
INEXACT = 1 << 20  #: the exact result had to be rounded


@dataclass
class Counters:
    """How often each exception of IEEE 754 was raised; every call that is given the counters adds to them.

    Underflow is tininess before rounding, and inexact: 0 < |exact result| < 2^−14 that is no float16. Overflow is
    always inexact too. Division by zero is exact.

    >>> Counters(overflow=1)
    Counters(invalid=0, divide_by_zero=0, overflow=1, underflow=0, inexact=0)
    """

    invalid: int = 0  #: 0 · ∞, ∞ − ∞, 0 / 0, ∞ / ∞, √ of a negative, an operation on a signalling NaN
    divide_by_zero: int = 0  #: a finite number other than 0, divided by 0
    overflow: int = 0  #: rounded as if exponents had no end, the result lies beyond 65504
    underflow: int = 0  #: 0 < |exact result| < 2^−14, and it had to be rounded
    inexact: int = 0  #: the exact result had to be rounded

    def add(self, results: NDArray[Any]) -> None:
        """Count the flags that stand above the patterns of ``results``."""
        for field, flag in zip(fields(self), (INVALID, DIVIDE_BY_ZERO, OVERFLOW, UNDERFLOW, INEXACT), strict=True):
            raised = int(np.count_nonzero(results & flag))
            setattr(self, field.name, getattr(self, field.name) + raised)
