"""``Codes``: what a quantizer made of a tensor."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import torch
from torch import Tensor

from fewbits.errors import FewbitsError
from fewbits.formats.packing import pack_bits, unpack_bits


class Scheme(StrEnum):
    """How integers and tables become numbers again."""

    AFFINE = "affine"  #: scale · (integer − zero_point), one of each a group; a missing table means 1 or 0


@dataclass(frozen=True)
class IntegerGrid:
    """The integers a code may take: low, low + step, …, high.

    >>> IntegerGrid(-1, 1).bits, IntegerGrid(-1, 1, step=2).bits, IntegerGrid(-127, 127).bits
    (2, 1, 8)
    """

    low: int  #: the smallest integer
    high: int  #: the largest integer
    step: int = 1  #: distance between neighbours; 2 for binary −1, +1

    def __post_init__(self) -> None:
        """Refuse a grid without two points, or one whose high is not on it."""
        if self.step < 1 or self.high <= self.low or (self.high - self.low) % self.step:
            raise FewbitsError(f"{self} is no grid: high must be low plus a positive number of steps.")

    @property
    def bits(self) -> int:
        """The bits that number the points: ceil(log2 of their count)."""
        return ((self.high - self.low) // self.step).bit_length()

    @property
    def dtype(self) -> torch.dtype:
        """The smallest signed integer type that holds every point."""
        return next(t for t in (torch.int8, torch.int16, torch.int32) if _holds(t, self.low) and _holds(t, self.high))


def _holds(dtype: torch.dtype, value: int) -> bool:
    limits = torch.iinfo(dtype)
    return limits.min <= value <= limits.max


@dataclass(frozen=True, eq=False)
class Codes:
    """Integer codes and the tables that turn them into numbers.

    A tensor of shape S is cut into ``groups`` equal runs of its elements in row-major order (granularities say how
    many); table entry g belongs to run g.

    >>> codes = Codes(torch.tensor([[-1, 1], [1, 1]], dtype=torch.int8), IntegerGrid(-1, 1, 2),
    ...               {"scale": torch.tensor([0.5, 2.0])}, groups=2)
    >>> codes.decode().tolist()
    [[-0.5, 0.5], [2.0, 2.0]]
    >>> codes.bits, codes.nbytes             # 4 codes of 1 bit and two float32 scales; 1 byte and 8 bytes
    (68, 9)
    """

    integers: Tensor  #: the codes, in the smallest integer type, in the shape of the tensor
    grid: IntegerGrid  #: which integers they can be
    tables: Mapping[str, Tensor]  #: named tables with one entry a group: scale, zero_point
    groups: int  #: number of equal runs that share a table entry
    scheme: Scheme = Scheme.AFFINE  #: how integers and tables become numbers
    dtype: torch.dtype = torch.float32  #: type of the decoded numbers

    @property
    def shape(self) -> torch.Size:
        """Shape of the tensor that was quantized."""
        return self.integers.shape

    def decode(self) -> Tensor:
        """Return the numbers: scale · (integer − zero_point), computed in ``dtype``, in the original shape."""
        if not self.tables or not self.integers.numel():
            return self.integers.to(self.dtype)
        values = self.integers.reshape(self.groups, -1)
        if "zero_point" in self.tables:
            values = values.to(torch.int32) - self.tables["zero_point"].to(torch.int32)[:, None]
        return (values.to(self.dtype) * self.tables["scale"].to(self.dtype)[:, None]).reshape(self.shape)

    @cached_property
    def bits(self) -> int:
        """Exact size in bits: payload (codes × bits a code) and tables, without padding."""
        return self.integers.numel() * self.grid.bits + 8 * self._table_bytes

    @cached_property
    def nbytes(self) -> int:
        """Size in bytes once packed: the payload padded to a whole byte, and the tables."""
        return -(-self.integers.numel() * self.grid.bits // 8) + self._table_bytes

    @property
    def _table_bytes(self) -> int:
        return sum(table.numel() * table.element_size() for table in self.tables.values())

    def packed(self) -> Tensor:
        """Return the payload as bytes: code number (integer − low) / step, ``grid.bits`` bits each."""
        return pack_bits((self.integers.to(torch.int32) - self.grid.low) // self.grid.step, self.grid.bits)

    @staticmethod
    def unpacked(packed: Tensor, shape: tuple[int, ...], grid: IntegerGrid) -> Tensor:
        """Return the integers that :meth:`packed` packed.

        Raises:
            FewbitsError: If the bytes are too many or too few, or name a code that the grid does not have.
        """
        numbers = unpack_bits(packed, grid.bits, torch.Size(shape).numel())
        if numbers.numel() and int(numbers.max()) > (grid.high - grid.low) // grid.step:
            raise FewbitsError(f"a packed code lies outside {grid}: the data is damaged or not ours.")
        return (numbers * grid.step + grid.low).to(grid.dtype).reshape(shape)
