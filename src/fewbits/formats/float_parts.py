"""A torch float as integers (sign, significand, exponent) and back: what every format here rounds."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from fewbits.errors import FewbitsError
from fewbits.formats.packing import check_tensor
from fewbits.formats.rounding import RoundingMode, round_shift

FRACTION_BITS = 52  #: bits of a significand below its leading one: those of float64, the widest input
_LARGEST_SHIFT = 62  # what round_shift takes for int64
_ABOVE_ALL = 1024  # an exponent that no finite float64 has


class _Layout(NamedTuple):
    integer: torch.dtype
    exponent_bits: int
    mantissa_bits: int

    @property
    def width(self) -> int:
        return 1 + self.exponent_bits + self.mantissa_bits

    @property
    def lowest(self) -> int:
        return 2 - (1 << self.exponent_bits - 1)

    @property
    def highest(self) -> int:
        return (1 << self.exponent_bits - 1) - 1


_LAYOUTS = {
    torch.float16: _Layout(torch.int16, 5, 10),
    torch.bfloat16: _Layout(torch.int16, 8, 7),
    torch.float32: _Layout(torch.int32, 8, 23),
    torch.float64: _Layout(torch.int64, 11, 52),
}


def _layout(dtype: torch.dtype) -> _Layout:
    if dtype not in _LAYOUTS:
        known = ", ".join(map(str, _LAYOUTS))
        raise FewbitsError(f"{dtype} is none of {known}; convert to one of these.")
    return _LAYOUTS[dtype]


@dataclass(frozen=True, eq=False)
class FloatParts:
    """Numbers as integers: x = ±significand · 2^(exponent − 52), with 2^52 ≤ significand < 2^53, or 0 for zero.

    Only integer operations and conversions of integers, so that no flush-to-zero mode of the processor is seen.

    >>> parts = FloatParts.of(torch.tensor([-0.75]))
    >>> parts.negative.item(), parts.significand.item() / 2**52, parts.exponent.item()
    (True, 1.5, -1)
    >>> parts.to_float(torch.float16).tolist()
    [-0.75]
    """

    negative: Tensor  #: the sign bit; also of zeros and NaN
    significand: Tensor  #: int64; without meaning for NaN and infinities
    exponent: Tensor  #: int64, floor(log2 |x|); very low for zero, above every finite exponent for infinities
    nan: Tensor  #: whether x is NaN
    infinite: Tensor  #: whether x is an infinity

    @classmethod
    def of(cls, x: Tensor) -> "FloatParts":
        """Take a tensor apart; its gradient history is left behind.

        Args:
            x: float16, bfloat16, float32 or float64, of any shape and stride, on any device.

        Raises:
            FewbitsError: If x is no tensor, or of another type.
        """
        layout = _layout(check_tensor(x, "what is rounded").dtype)
        pattern = x.detach().view(layout.integer).to(torch.int64)
        magnitude = pattern & (1 << (layout.width - 1)) - 1
        field = magnitude >> layout.mantissa_bits
        fraction = magnitude & (1 << layout.mantissa_bits) - 1
        integer = fraction + ((field > 0).to(torch.int64) << layout.mantissa_bits)
        unit = field.clamp(min=1) - 1 + layout.lowest - layout.mantissa_bits
        special = field == 2 * layout.highest + 1
        unit = torch.where(special, _ABOVE_ALL, unit)  # an infinity of float16 overflows formats of any range
        return cls.from_integer(pattern < 0, integer, unit, special & (fraction > 0), special & (fraction == 0))

    @classmethod
    def from_integer(
        cls, negative: Tensor, integer: Tensor, unit: Tensor, nan: Tensor | None = None, infinite: Tensor | None = None
    ) -> "FloatParts":
        """Return the parts of ±integer · 2^unit for 0 ≤ integer < 2^53: int64 tensors, normalised here."""
        pattern = integer.to(torch.float64).view(torch.int64)  # exact, and it counts the leading zeros
        leading = 1 << FRACTION_BITS
        significand = torch.where(integer > 0, pattern & leading - 1 | leading, 0)
        exponent = (pattern >> FRACTION_BITS) - 1023 + unit
        no = torch.zeros_like(negative)
        return cls(negative, significand, exponent, no if nan is None else nan, no if infinite is None else infinite)

    def to_float(self, dtype: torch.dtype) -> Tensor:
        """Put the numbers together again; ``dtype`` must hold them exactly (:func:`check_holds`).

        >>> FloatParts.of(torch.tensor([float("inf"), -0.0])).to_float(torch.bfloat16).tolist()
        [inf, -0.0]
        """
        layout = _layout(dtype)
        below = (layout.lowest - self.exponent).clamp(min=0)
        shift = (FRACTION_BITS - layout.mantissa_bits + below).clamp(max=_LARGEST_SHIFT)
        field = (self.exponent - layout.lowest).clamp(min=0)
        pattern = torch.where(self.significand > 0, (self.significand >> shift) + (field << layout.mantissa_bits), 0)
        infinity = (2 * layout.highest + 1) << layout.mantissa_bits
        pattern = torch.where(self.infinite, infinity, pattern)
        pattern = torch.where(self.nan, infinity | 1 << (layout.mantissa_bits - 1), pattern)
        signed = pattern + self.negative * -(2 ** (layout.width - 1))
        numbers: Tensor = signed.to(layout.integer).view(dtype)
        return numbers

    def round(self, shift: Tensor, mode: RoundingMode, generator: torch.Generator | None) -> Tensor:
        """Return significand / 2^shift rounded to an integer (int64) by :func:`round_shift`; shifts below 0 count as 0.

        Beyond 62, the bits that do not fit are gathered in the lowest one. So the five modes of IEEE 754 are exact at
        any shift. STOCHASTIC draws 62 bits a number: up to a shift of 62 its mean is exact, beyond (numbers below
        2^−9 of a unit) the probability of going up is right to within 2^−62, and never 0.

        Args:
            shift: int64, in the shape of the numbers.
            mode: the rounding mode.
            generator: bit source of STOCHASTIC; may lie on another device than the numbers, and is not used otherwise.

        Raises:
            FewbitsError: If mode is not a RoundingMode, or is STOCHASTIC and there is no generator.
        """
        if not isinstance(mode, RoundingMode):
            raise FewbitsError(f"mode is {mode!r}; give a RoundingMode, as RoundingMode.NEAREST_EVEN.")
        excess = (shift - _LARGEST_SHIFT).clamp(0, _LARGEST_SHIFT)
        kept = self.significand >> excess
        magnitude = kept | (kept << excess != self.significand)
        random: Tensor | int = 0
        if mode is RoundingMode.STOCHASTIC:
            if generator is None:
                raise FewbitsError("stochastic rounding needs a bit source: give generator=torch.Generator().")
            bits = torch.randint(2**_LARGEST_SHIFT, shift.shape, generator=generator, device=generator.device)
            random = bits.to(shift.device)
        rounded: Tensor = round_shift(magnitude, shift.clamp(0, _LARGEST_SHIFT), mode, self.negative, random)
        return rounded


def check_holds(dtype: torch.dtype, digits: int, lowest: int, highest: int, name: object) -> None:
    """Check that ``dtype`` holds every ±integer · 2^lowest … below 2^(highest + 1) of so many binary digits.

    Raises:
        FewbitsError: If it does not, or is not a float type; ``name`` is what the numbers belong to.
    """
    layout = _layout(dtype)
    fits = digits <= layout.mantissa_bits + 1 and highest <= layout.highest
    if not fits or lowest < layout.lowest - layout.mantissa_bits:
        raise FewbitsError(f"{dtype} does not hold every number of {name}; use a wider type, as torch.float64.")


def check_patterns(patterns: Tensor, low: int, high: int, name: object) -> Tensor:
    """Return integer codes as int64.

    Raises:
        FewbitsError: If they are no tensor of integers, or one lies outside low … high, the codes of ``name``.
    """
    dtype = check_tensor(patterns, "what is decoded").dtype
    if dtype.is_floating_point or dtype.is_complex or dtype == torch.bool:
        raise FewbitsError(f"codes are {dtype}; {name} decodes integers, as its encode returns them.")
    wide = patterns.to(torch.int64)
    if wide.numel() and (int(wide.min()) < low or int(wide.max()) > high):
        raise FewbitsError(f"codes from {int(wide.min())} to {int(wide.max())} are not all of {low} … {high}: {name}.")
    return wide
