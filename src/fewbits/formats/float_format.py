"""``FloatFormat``: any small floating-point format, and the ones that have names."""

from dataclasses import dataclass
from enum import Enum, auto

import torch
from torch import Tensor

from fewbits.errors import FewbitsError
from fewbits.formats.float_parts import FRACTION_BITS, FloatParts, check_holds, check_patterns
from fewbits.formats.rounding import RoundingMode

_MOST_LISTED_BITS = 20


class Specials(Enum):
    """Which encodings are no finite numbers; the letters are those that ml_dtypes appends to a format's name."""

    IEEE = auto()  #: the highest exponent: ±infinity (mantissa 0) and NaN (any other)
    FN = auto()  #: finite, and NaN in the encoding of all ones only (of either sign)
    FNUZ = auto()  #: finite, unsigned zero: the encoding of −0 is the only NaN
    NONE = auto()  #: every encoding is a finite number; ml_dtypes says FN here too, of formats below 8 bits


class Subnormals(Enum):
    """What the lowest exponent field, 0, means."""

    GRADUAL = auto()  #: ±0.f · 2^(1 − bias): zero and subnormals, as in IEEE 754
    FLUSH = auto()  #: ±0 whatever the mantissa; rounding never makes a nonzero mantissa there
    NORMAL = auto()  #: ±1.f · 2^(−bias), as every other exponent: the format has no zero


@dataclass(frozen=True)
class FloatFormat:
    """A floating-point format: sign, e exponent bits, m mantissa bits (IEEE 754-2019; OCP OFP8 and MX; ml_dtypes).

    With exponent field E and mantissa field f a pattern means ±(1 + f/2^m) · 2^(E − bias); E = 0 is what ``subnormals``
    says, and ``specials`` says which encodings are infinities and NaN.

    Rounding happens once, on the integers of the input, to the grid that the format would have without an upper limit
    on its exponent. Ties to even look at the mantissa; where it has no bits, the larger magnitude wins (IEEE 754-2019,
    4.3.1; 0 counts as even). With FLUSH the grid below the smallest normal number is 0 and that number, and a number
    between them goes to one of the two as the mode says. With NORMAL the smallest number takes all positive ones below
    it, in every mode.

    A result above the largest number overflows (IEEE 754, 7.4). It becomes ±infinity in NEAREST_EVEN, NEAREST_AWAY and
    STOCHASTIC, and in the modes that point away from zero there: UP for positive, DOWN for negative numbers. It becomes
    the largest number of its sign TOWARD_ZERO, in UP for negative and in DOWN for positive numbers. Where the format
    has no infinity, NaN stands for it; where it has no NaN either, and with ``saturate``, it is always the largest
    number. An infinite input is exact and stays infinite in every mode, unless ``saturate`` is set or the format has no
    infinity: then it overflows as any other number.

    NaN becomes the quiet NaN with its sign, where NaN has a sign. Zeros keep their sign where the format has −0. What a
    format has no encoding for (a negative number without a sign bit, zero with NORMAL) becomes NaN, as in ml_dtypes.
    Without NaN, these and NaN itself are an error.

    >>> x = torch.tensor([0.3, 17.0, 464.0, 465.0])
    >>> FLOAT8_E4M3FN.round(x).tolist()                                           # 464 is half way to 480, the NaN
    [0.3125, 16.0, 448.0, nan]
    >>> FLOAT8_E4M3FN.encode(x).tolist()
    [42, 88, 126, 127]
    >>> FloatFormat(2, 1, specials=Specials.NONE).values().tolist()[7:]
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]

    Raises:
        FewbitsError: If a field has the wrong type; if the format has not 2 to 32 bits, no normal number, no room for
            its specials, or numbers that float64 does not hold.
    """

    exponent_bits: int  #: e ≥ 1
    mantissa_bits: int  #: m ≥ 0, without the leading one
    bias: int | None = None  #: what the exponent field is higher than the exponent; None is 2^(e−1) − 1
    specials: Specials = Specials.IEEE  #: infinities and NaN
    subnormals: Subnormals = Subnormals.GRADUAL  #: what the exponent field 0 means
    signed: bool = True  #: whether there is a sign bit
    saturate: bool = False  #: whether overflow goes to the largest number instead of infinity or NaN

    def __post_init__(self) -> None:
        """Refuse formats that do not exist."""
        sizes = (self.exponent_bits, self.mantissa_bits, 0 if self.bias is None else self.bias)
        if any(isinstance(size, bool) or not isinstance(size, int) for size in sizes):
            raise FewbitsError(f"{self}: exponent bits, mantissa bits and bias are whole numbers.")
        if not isinstance(self.specials, Specials) or not isinstance(self.subnormals, Subnormals):
            raise FewbitsError(f"{self}: specials is one of Specials, subnormals one of Subnormals.")
        if self.exponent_bits < 1 or self.mantissa_bits < 0 or not 2 <= self.bits <= 32:
            raise FewbitsError(f"{self}: give at least 1 exponent bit, and 2 to 32 bits with the sign.")
        if self.specials is Specials.IEEE and self.mantissa_bits == 0:
            raise FewbitsError(f"{self}: infinity and NaN of IEEE 754 need a mantissa bit; use FN, FNUZ or NONE.")
        if self.specials is Specials.FNUZ and (not self.signed or self.subnormals is Subnormals.NORMAL):
            raise FewbitsError(f"{self}: without a sign or a zero there is no −0 to be NaN; use FN or NONE.")
        if self._highest_pattern < (0 if self.subnormals is Subnormals.NORMAL else 1 << self.mantissa_bits):
            raise FewbitsError(f"{self} has no normal number; give it another exponent bit, or other specials.")
        self._check_held(torch.float64)

    @property
    def bits(self) -> int:
        """Bits of an encoding."""
        return self.signed + self._magnitude_bits

    @property
    def largest(self) -> float:
        """The largest finite number."""
        return self._positive(self._highest_pattern)

    @property
    def smallest_normal(self) -> float:
        """The smallest positive normal number."""
        return 2.0**self._lowest_exponent

    @property
    def smallest_subnormal(self) -> float:
        """The smallest positive number; the smallest normal one where there are no subnormals (as NumPy says it)."""
        return self._positive(1) if self.subnormals is Subnormals.GRADUAL else self.smallest_normal

    @property
    def epsilon(self) -> float:
        """The distance of a power of two to the next larger number, relative to it: 2^−m."""
        return 2.0**-self.mantissa_bits

    def encode(
        self, x: Tensor, mode: RoundingMode = RoundingMode.NEAREST_EVEN, generator: torch.Generator | None = None
    ) -> Tensor:
        """Round to the format and return the bit patterns.

        Args:
            x: float16, bfloat16, float32 or float64, of any shape and stride, on any device; its gradient is not kept.
            mode: the rounding mode.
            generator: bit source of STOCHASTIC, 62 bits a number (see :meth:`FloatParts.round`).

        Returns:
            uint8, uint16 or uint32 (the smallest that fits), in the shape of x.

        Raises:
            FewbitsError: If x has another type, or holds something that this format has no encoding for (NaN, a
                negative number, zero); if mode is not a RoundingMode, or STOCHASTIC without a generator.
        """
        parts = FloatParts.of(x)
        pattern = self._limited(self._rounded(parts, mode, generator), parts, mode)
        zero = (parts.significand == 0) & ~parts.nan & ~parts.infinite
        undefined = parts.nan
        if not self.signed:
            undefined = undefined | (parts.negative & ~zero)
        if self.subnormals is Subnormals.NORMAL:
            undefined = undefined | zero
        if self._nan is not None:
            pattern = torch.where(undefined, self._nan, pattern)
        elif undefined.any():
            raise FewbitsError(f"NaN, or a number of the wrong sign, has no encoding in {self}; remove it first.")
        if self.signed:
            signed = parts.negative & (pattern > 0) if self.specials is Specials.FNUZ else parts.negative
            pattern = pattern | signed.to(torch.int64) << self._magnitude_bits
        return pattern.to(torch.uint8 if self.bits <= 8 else torch.uint16 if self.bits <= 16 else torch.uint32)

    def decode(self, patterns: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the numbers that bit patterns mean.

        Args:
            patterns: integers of any type, 0 … 2^bits − 1.
            dtype: type of the numbers.

        Raises:
            FewbitsError: If patterns are no integers or out of range, or dtype does not hold the whole format.
        """
        self._check_held(dtype)
        pattern = check_patterns(patterns, 0, (1 << self.bits) - 1, self)
        magnitude = pattern & (1 << self._magnitude_bits) - 1
        field, fraction = magnitude >> self.mantissa_bits, magnitude & (1 << self.mantissa_bits) - 1
        integer = fraction + (1 << self.mantissa_bits)
        if self.subnormals is Subnormals.NORMAL:
            field = field + 1
        else:
            integer = torch.where(field > 0, integer, fraction if self.subnormals is Subnormals.GRADUAL else 0)
        unit = field.clamp(min=1) - 1 + self._lowest_exponent - self.mantissa_bits
        negative = pattern > magnitude
        nan = infinite = torch.zeros_like(negative)
        match self.specials:
            case Specials.IEEE:
                infinite = magnitude == self._highest_pattern + 1
                nan = magnitude > self._highest_pattern + 1
            case Specials.FN:
                nan = magnitude > self._highest_pattern
            case Specials.FNUZ:
                nan = negative & (magnitude == 0)
        return FloatParts.from_integer(negative, integer, unit, nan, infinite).to_float(dtype)

    def round(
        self, x: Tensor, mode: RoundingMode = RoundingMode.NEAREST_EVEN, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return x rounded to the format, in its own type: ``decode(encode(x))``.

        Raises:
            FewbitsError: As :meth:`encode`; or if the type of x does not hold every number of the format.
        """
        return self.decode(self.encode(x, mode, generator), x.dtype)

    def values(self) -> Tensor:
        """Return all finite numbers of the format in float64, ascending, zero once.

        Raises:
            FewbitsError: If the format has more than 20 bits.
        """
        if self.bits > _MOST_LISTED_BITS:
            raise FewbitsError(f"{self} has 2^{self.bits} encodings; at most 2^{_MOST_LISTED_BITS} are listed.")
        numbers = self.decode(torch.arange(1 << self.bits), torch.float64)
        finite: Tensor = (numbers[numbers.isfinite()] + 0.0).unique()  # −0 + 0 is +0
        return finite

    @property
    def _magnitude_bits(self) -> int:
        return self.exponent_bits + self.mantissa_bits

    @property
    def _lowest_exponent(self) -> int:
        bias = (1 << self.exponent_bits - 1) - 1 if self.bias is None else self.bias
        return -bias if self.subnormals is Subnormals.NORMAL else 1 - bias

    @property
    def _highest_pattern(self) -> int:
        """The pattern of the largest number."""
        if self.specials is Specials.IEEE:
            return ((1 << self.exponent_bits) - 1 << self.mantissa_bits) - 1
        return (1 << self._magnitude_bits) - (2 if self.specials is Specials.FN else 1)

    @property
    def _nan(self) -> int | None:
        match self.specials:
            case Specials.IEEE:
                return self._highest_pattern + 1 | 1 << (self.mantissa_bits - 1)
            case Specials.FN:
                return self._highest_pattern + 1
            case Specials.FNUZ:
                return 1 << self._magnitude_bits
            case Specials.NONE:
                return None

    def _check_held(self, dtype: torch.dtype) -> None:
        fields_below = (self._highest_pattern >> self.mantissa_bits) - (self.subnormals is not Subnormals.NORMAL)
        lowest = self._lowest_exponent
        check_holds(dtype, self.mantissa_bits + 1, lowest - self.mantissa_bits, lowest + fields_below, self)

    def _positive(self, pattern: int) -> float:
        return float(self.decode(torch.tensor(pattern), torch.float64))

    def _rounded(self, parts: FloatParts, mode: RoundingMode, generator: torch.Generator | None) -> Tensor:
        """The pattern of |x| rounded, above the highest pattern if the exponent is too high."""
        above = (parts.exponent - self._lowest_exponent).clamp(min=0)
        below = (self._lowest_exponent - parts.exponent).clamp(min=0)
        if self.subnormals is Subnormals.FLUSH:  # below the normal numbers only whole multiples of the smallest one
            digits = torch.where(below > 0, 0, self.mantissa_bits)
        else:
            digits = torch.full_like(below, self.mantissa_bits)
        integer = parts.round(FRACTION_BITS - digits + below, mode, generator) << (self.mantissa_bits - digits)
        if self.subnormals is Subnormals.NORMAL:
            integer = integer.clamp(min=1 << self.mantissa_bits) - (1 << self.mantissa_bits)
        return integer + (above << self.mantissa_bits)

    def _limited(self, pattern: Tensor, parts: FloatParts, mode: RoundingMode) -> Tensor:
        """The pattern of the magnitude after overflow."""
        largest = self._highest_pattern
        infinity = largest + 1 if self.specials is Specials.IEEE else self._nan
        if self.saturate or infinity is None:
            return pattern.clamp(max=largest)
        stays = torch.full_like(parts.negative, mode is RoundingMode.TOWARD_ZERO)
        if mode in (RoundingMode.UP, RoundingMode.DOWN):
            stays = parts.negative == (mode is RoundingMode.UP)
        if self.specials is Specials.IEEE:
            stays = stays & ~parts.infinite
        return torch.where(pattern > largest, torch.where(stays, largest, infinity), pattern)


BINARY16 = FloatFormat(5, 10)  #: IEEE 754 half precision
BINARY32 = FloatFormat(8, 23)  #: IEEE 754 single precision
BFLOAT16 = FloatFormat(8, 7)  #: the upper half of binary32
TF32 = FloatFormat(8, 10)  #: NVIDIA's 19 bits: exponent of binary32, mantissa of binary16
FLOAT8_E3M4 = FloatFormat(3, 4)
FLOAT8_E4M3 = FloatFormat(4, 3)
FLOAT8_E4M3B11FNUZ = FloatFormat(4, 3, bias=11, specials=Specials.FNUZ)
FLOAT8_E4M3FN = FloatFormat(4, 3, specials=Specials.FN)  #: OCP OFP8 E4M3
FLOAT8_E4M3FNUZ = FloatFormat(4, 3, bias=8, specials=Specials.FNUZ)
FLOAT8_E5M2 = FloatFormat(5, 2)  #: OCP OFP8 E5M2
FLOAT8_E5M2FNUZ = FloatFormat(5, 2, bias=16, specials=Specials.FNUZ)
#: OCP MX scale: powers of two from 2^−127 to 2^127
FLOAT8_E8M0FNU = FloatFormat(8, 0, specials=Specials.FN, subnormals=Subnormals.NORMAL, signed=False)
FLOAT6_E2M3FN = FloatFormat(2, 3, specials=Specials.NONE)
FLOAT6_E3M2FN = FloatFormat(3, 2, specials=Specials.NONE)
FLOAT4_E2M1FN = FloatFormat(2, 1, specials=Specials.NONE)  #: OCP MX FP4
