"""``FixedPoint``: integers times a fixed power of two."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fewbits.errors import FewbitsError
from fewbits.formats.float_parts import FRACTION_BITS, FloatParts, check_holds, check_patterns
from fewbits.formats.rounding import RoundingMode

_MOST_LISTED_BITS = 20


@dataclass(frozen=True)
class FixedPoint:
    """Two's complement fixed point Qm.f: k · 2^−f with −2^(m+f) ≤ k ≤ 2^(m+f) − 1; numbers outside saturate.

    The sign bit is not counted in m: the format has 1 + m + f bits and covers −2^m … 2^m − 2^−f. ``symmetric`` drops
    the most negative number, so that −x is there with every x.

    Q(x, k) = Clip(σ · round(x/σ), −1 + σ, 1 − σ), σ = 2^(1−k), of WAGE (Wu et al. 2018) is FixedPoint(0, k − 1,
    symmetric=True): its unit is σ, and its ends are ±(1 − σ). The paper leaves ties open; ``mode`` settles them.

    There is no −0, no infinity (infinite inputs saturate) and no NaN (an error).

    >>> FixedPoint(0, 1, symmetric=True).round(torch.tensor([-1.0, 0.2, 0.6])).tolist()      # WAGE's example, k = 2
    [-0.5, 0.0, 0.5]
    >>> q1_2 = FixedPoint(1, 2)
    >>> q1_2.encode(torch.tensor([0.3, -9.0, 9.0])).tolist(), q1_2.smallest, q1_2.largest
    ([1, -8, 7], -2.0, 1.75)

    Raises:
        FewbitsError: If the bits are no whole numbers from 0, or not 2 to 32 with the sign.
    """

    integer_bits: int  #: m ≥ 0, bits before the point, without the sign
    fraction_bits: int  #: f ≥ 0, bits after the point
    symmetric: bool = False  #: whether −2^m is left out

    def __post_init__(self) -> None:
        """Refuse formats that do not exist."""
        sizes = (self.integer_bits, self.fraction_bits)
        if any(isinstance(size, bool) or not isinstance(size, int) or size < 0 for size in sizes):
            raise FewbitsError(f"{self}: integer and fraction bits are whole numbers from 0.")
        if not 2 <= self.bits <= 32:
            raise FewbitsError(f"{self} has {self.bits} bits with its sign; give 2 to 32.")

    @property
    def bits(self) -> int:
        """Bits of a number, with its sign: 1 + m + f."""
        return 1 + self.integer_bits + self.fraction_bits

    @property
    def unit(self) -> float:
        """Distance between neighbours, 2^−f."""
        return 2.0**-self.fraction_bits

    @property
    def smallest(self) -> float:
        """The most negative number."""
        return self._lowest * self.unit

    @property
    def largest(self) -> float:
        """The largest number."""
        return self._highest * self.unit

    def encode(
        self, x: Tensor, mode: RoundingMode = RoundingMode.NEAREST_EVEN, generator: torch.Generator | None = None
    ) -> Tensor:
        """Round to the format and return the integers k.

        Args:
            x: float16, bfloat16, float32 or float64, of any shape and stride, on any device; its gradient is not kept.
            mode: the rounding mode.
            generator: bit source of STOCHASTIC, 62 bits a number (see :meth:`FloatParts.round`).

        Returns:
            int8, int16 or int32 (the smallest that fits), in the shape of x.

        Raises:
            FewbitsError: If x has another type or holds NaN; if mode is not a RoundingMode, or STOCHASTIC without a
                generator.
        """
        parts = FloatParts.of(x)
        if parts.nan.any():
            raise FewbitsError(f"NaN has no encoding in {self}; remove it first.")
        # A shift below 0 leaves at least 2^52 units, more than any format here has: it saturates as it should.
        magnitude = parts.round(FRACTION_BITS - self.fraction_bits - parts.exponent, mode, generator)
        integers = torch.where(parts.negative, -magnitude, magnitude)
        dtype = torch.int8 if self.bits <= 8 else torch.int16 if self.bits <= 16 else torch.int32
        return integers.clamp(self._lowest, self._highest).to(dtype)

    def decode(self, integers: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return k · 2^−f.

        Args:
            integers: of any integer type.
            dtype: type of the numbers.

        Raises:
            FewbitsError: If integers are not of the format, or dtype does not hold every number of it.
        """
        check_holds(dtype, self.bits - 1, -self.fraction_bits, self.integer_bits, self)
        wide = check_patterns(integers, self._lowest, self._highest, self)
        unit = torch.full_like(wide, -self.fraction_bits)
        return FloatParts.from_integer(wide < 0, wide.abs(), unit).to_float(dtype)

    def round(
        self, x: Tensor, mode: RoundingMode = RoundingMode.NEAREST_EVEN, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return x rounded to the format, in its own type: ``decode(encode(x))``.

        Raises:
            FewbitsError: As :meth:`encode`; or if the type of x does not hold every number of the format.
        """
        return self.decode(self.encode(x, mode, generator), x.dtype)

    def values(self) -> Tensor:
        """Return all numbers of the format in float64, ascending.

        Raises:
            FewbitsError: If the format has more than 20 bits.
        """
        if self.bits > _MOST_LISTED_BITS:
            raise FewbitsError(f"{self} has 2^{self.bits} numbers; at most 2^{_MOST_LISTED_BITS} are listed.")
        return self.decode(torch.arange(self._lowest, self._highest + 1), torch.float64)

    @property
    def _highest(self) -> int:
        return (1 << self.integer_bits + self.fraction_bits) - 1

    @property
    def _lowest(self) -> int:
        return -self._highest if self.symmetric else -self._highest - 1
