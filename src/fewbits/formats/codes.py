"""``Codes``: what a quantizer made of a tensor."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewbits.errors import FewbitsError
from fewbits.formats.packing import pack_bits, unpack_bits
from fewbits.formats.tiles import tilewise


class Scheme(StrEnum):
    """How integers q and the tables of their group become numbers again."""

    AFFINE = "affine"  #: scale · (q − zero_point), one of each a group; a missing table means 1 or 0
    POWERS = "powers"  #: sign(q) · scale · base^(|q| − high), 0 for q = 0; base is 2, one scale a group
    ROOT_POWERS = "root powers"  #: the same with base √2
    CODEBOOK = "codebook"  #: codebook[number of q], one row of numbers a group, as long as the grid has points
    PLANES = "planes"  #: Σ_i α_i · (2 · bit i of q − 1), one row of coefficients α a group, i = 0 the lowest bit

    @property
    def tables(self) -> tuple[tuple[str, ...], ...]:
        """The names of the tables, in each combination that there is."""
        return {
            Scheme.AFFINE: ((), ("scale",), ("scale", "zero_point")),
            Scheme.CODEBOOK: (("codebook",),),
            Scheme.PLANES: (("coefficients",),),
        }.get(self, (("scale",),))

    def takes(self, grid: "IntegerGrid") -> bool:
        """Return whether integers of ``grid`` have a meaning: −h … h for powers, 0 … 2^k − 1 for planes, else any.

        >>> Scheme.PLANES.takes(IntegerGrid(0, 7)), Scheme.PLANES.takes(IntegerGrid(0, 5))
        (True, False)
        """
        match self:
            case Scheme.POWERS | Scheme.ROOT_POWERS:
                return grid.low == -grid.high and grid.step == 1
            case Scheme.PLANES:
                return grid.low == 0 and grid.step == 1 and grid.points == 2**grid.bits
        return True


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
        """Refuse a grid without two points, one whose high is not on it, and one that int32 does not hold."""
        if not all(isinstance(number, int) for number in (self.low, self.high, self.step)):
            raise FewbitsError(f"{self} is no grid: low, high and step are whole numbers.")
        if self.step < 1 or self.high <= self.low or (self.high - self.low) % self.step:
            raise FewbitsError(f"{self} is no grid: high must be low plus a positive number of steps.")
        if not all(_holds(torch.int32, number) for number in (self.low, self.high, self.high - self.low)):
            raise FewbitsError(f"{self} is too wide: low, high and their distance must fit 32 bits.")

    @property
    def points(self) -> int:
        """How many integers there are."""
        return (self.high - self.low) // self.step + 1

    @property
    def bits(self) -> int:
        """The bits that number the points: ceil(log2 of their count)."""
        return (self.points - 1).bit_length()

    @property
    def dtype(self) -> torch.dtype:
        """The smallest signed integer type that holds every point."""
        return next(t for t in (torch.int8, torch.int16, torch.int32) if _holds(t, self.low) and _holds(t, self.high))

    def numbers(self, integers: Tensor) -> Tensor:
        """Return the numbers (integer − low) / step of the points, 0 to points − 1, as int32, flat and on the CPU.

        Raises:
            FewbitsError: If the tensor holds no integers, or one that is not on the grid.

        >>> IntegerGrid(-1, 1, step=2).numbers(torch.tensor([[-1, 1], [1, 1]])).tolist()
        [0, 1, 1, 1]
        """
        flat = integers.detach().cpu().reshape(-1)
        if flat.dtype not in (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8):
            raise FewbitsError(f"codes are {flat.dtype}; give int8 to int64 or uint8, as a quantizer's encode returns.")
        if flat.numel() and not self.low <= int(flat.min()) <= int(flat.max()) <= self.high:
            raise FewbitsError(
                f"integers from {int(flat.min())} to {int(flat.max())} do not lie on {self}; encode with this grid."
            )
        numbers = flat.to(torch.int32) - self.low
        if self.step > 1:
            if (numbers % self.step).any():
                raise FewbitsError(f"an integer lies between two points of {self}; encode with this grid.")
            numbers //= self.step
        return numbers

    def integers(self, numbers: Tensor, shape: Sequence[int]) -> Tensor:
        """Return the integers of these numbers in ``shape``, in :attr:`dtype`: the inverse of :meth:`numbers`.

        Raises:
            FewbitsError: If there are more numbers than points.
        """
        if numbers.numel() and int(numbers.max()) >= self.points:
            raise FewbitsError(f"a packed code lies outside {self}: the data is damaged or not ours.")
        table = torch.arange(self.low, self.high + 1, self.step, dtype=self.dtype)
        return table.index_select(0, numbers).reshape(tuple(shape))

    def counts(self, integers: Tensor) -> NDArray[np.int64]:
        """Return how often each point occurs, in ascending order.

        Raises:
            FewbitsError: As :meth:`numbers`.

        >>> IntegerGrid(-1, 1).counts(torch.tensor([-1, 1, 1])).tolist()
        [1, 0, 2]
        """
        numbers = self.numbers(integers).numpy()
        counts = np.zeros(self.points, np.int64)
        for start in range(0, numbers.size, 2**20):  # bincount copies its input to 8 bytes each
            counts += np.bincount(numbers[start : start + 2**20], minlength=self.points)
        return counts


def _holds(dtype: torch.dtype, value: int) -> bool:
    limits = torch.iinfo(dtype)
    return limits.min <= value <= limits.max


@dataclass(frozen=True, eq=False)
class Codes:
    """Integer codes and the tables that turn them into numbers.

    A tensor of shape S is cut into ``groups`` equal runs of its elements in row-major order (granularities say how
    many); entry or row g of a table belongs to run g.

    >>> codes = Codes(torch.tensor([[-1, 1], [1, 1]], dtype=torch.int8), IntegerGrid(-1, 1, 2),
    ...               {"scale": torch.tensor([0.5, 2.0])}, groups=2)
    >>> codes.decode().tolist()
    [[-0.5, 0.5], [2.0, 2.0]]
    >>> codes.bits, codes.nbytes             # 4 codes of 1 bit and two float32 scales; 1 byte and 8 bytes
    (68, 9)
    """

    integers: Tensor  #: the codes, in the smallest integer type, in the shape of the tensor
    grid: IntegerGrid  #: which integers they can be
    tables: Mapping[str, Tensor]  #: named tables of the scheme, each with one entry or one row a group
    groups: int  #: number of equal runs that share a table entry
    scheme: Scheme = Scheme.AFFINE  #: how integers and tables become numbers
    dtype: torch.dtype = torch.float32  #: type of the decoded numbers

    @property
    def shape(self) -> torch.Size:
        """Shape of the tensor that was quantized."""
        return self.integers.shape

    def decode(self) -> Tensor:
        """Return the numbers that the scheme says, computed in ``dtype``, in the original shape."""
        if not self.tables or not self.integers.numel():
            return self.integers.to(self.dtype)
        integers = self.integers.reshape(self.groups, -1)
        return tilewise(self._values, self.dtype, integers, *self.tables.values()).reshape(self.shape)

    def _values(self, integers: Tensor, *rows: Tensor) -> Tensor:
        known = dict(zip(self.tables, rows, strict=True))
        tables = {name: table.to(self.dtype) for name, table in known.items() if table.is_floating_point()}
        match self.scheme:
            case Scheme.CODEBOOK:
                return tables["codebook"].gather(1, ((integers.long() - self.grid.low) // self.grid.step))
            case Scheme.PLANES:
                signs = (
                    (integers >> i & 1).to(self.dtype).mul_(2).sub_(1) for i in range(tables["coefficients"].shape[1])
                )
                planes = zip(tables["coefficients"].unbind(1), signs, strict=True)
                return sum((a[:, None] * sign for a, sign in planes), start=integers.new_zeros(()))
            case Scheme.POWERS | Scheme.ROOT_POWERS:
                wide = torch.promote_types(self.dtype, torch.float32)  # a power alone may lie below float16
                power = _power(integers, self.scheme, self.grid.high, wide)
                return (power * tables["scale"].to(wide)[:, None]).to(self.dtype)
        if "zero_point" in known:
            integers = integers.to(torch.int32) - known["zero_point"].to(torch.int32)[:, None]
        return integers.to(self.dtype).mul_(tables["scale"][:, None])

    def levels(self) -> Tensor:
        """Return what each point of the grid is decoded to, in ascending order, (groups, points).

        >>> Codes(torch.tensor([1, 0]), IntegerGrid(-1, 1), {"scale": torch.tensor([0.5])}, groups=1).levels()
        tensor([[-0.5000,  0.0000,  0.5000]])
        """
        points = torch.arange(self.grid.low, self.grid.high + 1, self.grid.step, device=self.integers.device)
        return replace(self, integers=points.repeat(self.groups, 1)).decode().sort(dim=1).values

    @cached_property
    def bits(self) -> int:
        """Exact size in bits at fixed width: payload (codes × bits a code) and tables, without padding."""
        return self.integers.numel() * self.grid.bits + 8 * self._table_bytes

    @cached_property
    def nbytes(self) -> int:
        """Size in bytes once packed at fixed width: the payload padded to a whole byte, and the tables."""
        return -(-self.integers.numel() * self.grid.bits // 8) + self._table_bytes

    @property
    def _table_bytes(self) -> int:
        return sum(table.numel() * table.element_size() for table in self.tables.values())

    @property
    def entropy(self) -> float:
        """Entropy of the integers, H = Σ p · log2(1 / p) bits a code; 0 for no codes.

        No code that gives each integer its own word takes fewer bits on average (Shannon 1948); see ``Huffman``.

        >>> Codes(torch.tensor([-1, 0, 0, 1]), IntegerGrid(-1, 1), {}, groups=1).entropy
        1.5
        """
        counts = self.grid.counts(self.integers)
        counts = counts[counts > 0]
        return float((counts / counts.sum() * np.log2(counts.sum() / counts)).sum())

    def packed(self) -> Tensor:
        """Return the payload as bytes: code number (integer − low) / step, ``grid.bits`` bits each."""
        return pack_bits(self.grid.numbers(self.integers), self.grid.bits)

    @staticmethod
    def unpacked(packed: Tensor, shape: tuple[int, ...], grid: IntegerGrid) -> Tensor:
        """Return the integers that :meth:`packed` packed.

        Raises:
            FewbitsError: If the bytes are too many or too few, or name a code that the grid does not have.
        """
        return grid.integers(unpack_bits(packed, grid.bits, math.prod(shape)), shape)


def _power(integers: Tensor, scheme: Scheme, high: int, dtype: torch.dtype) -> Tensor:
    """Return sign(q) · base^(|q| − high), exact for powers of two."""
    below = integers.abs().to(torch.int32) - high
    significand = integers.sign().to(dtype)
    if scheme is Scheme.ROOT_POWERS:
        significand = torch.where(below % 2 == 1, significand * math.sqrt(2), significand)
        below = below.div(2, rounding_mode="floor")
    return torch.ldexp(significand, below)
