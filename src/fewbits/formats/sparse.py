"""Sparse storage with relative indices: the codes that are not zero, and the distances between them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from fewbits.errors import FewbitsError
from fewbits.formats.codes import IntegerGrid
from fewbits.formats.packing import check_bits, pack_bits, unpack_bits
from fewbits.formats.storage import Payload, Storage


@dataclass(frozen=True)
class RelativeIndex(Storage):
    """The nonzero codes in row-major order, each with the number of zeros skipped since the last (Han et al. 2016, §2).

    An entry is a gap in ``gap_bits`` = b bits and a code in ``grid.bits`` bits; their number is stored in 64. A run of
    2^b or more zeros is broken by fillers: an entry with gap 2^b − 1 and code 0, which stands for 2^b zeros. The same
    holds after the last nonzero code, so that fewer than 2^b zeros are left for the shape to tell: the entries say how
    large the tensor is, and a shape that disagrees is noticed. The paper's index difference is gap + 1. Packing takes
    about 50 bytes of memory a nonzero code.

    >>> weights = torch.zeros(16, dtype=torch.int8)
    >>> weights[[1, 4, 15]] = torch.tensor([3, 1, 2], dtype=torch.int8)              # as in Figure 2 of the paper
    >>> payload = RelativeIndex(gap_bits=3).pack(weights, IntegerGrid(0, 3))
    >>> unpack_bits(payload.parts["gaps"], bits=3, count=4).tolist()                 # 1 + 2 + 7 + 2 zeros
    [1, 2, 7, 2]
    >>> unpack_bits(payload.parts["codes"], bits=2, count=4).tolist()                # and the codes after them
    [3, 1, 0, 2]
    >>> payload.bits                                                                 # 4 entries of 3 + 2 bits, and 64
    84
    """

    gap_bits: int  #: bits of a gap, 1 to 16; the paper takes 8 for convolutions and 5 for matrices
    parts: ClassVar[tuple[str, ...]] = ("codes", "gaps", "entries")

    def __post_init__(self) -> None:
        """Refuse gaps outside 1 to 16 bits."""
        check_bits(self.gap_bits)

    def pack(self, integers: Tensor, grid: IntegerGrid) -> Payload:
        """Return the codes, the gaps and their number.

        Raises:
            FewbitsError: If 0 is not on the grid, or an integer is not.
        """
        zero, span = _zero(grid), 1 << self.gap_bits
        numbers = grid.numbers(integers).numpy()
        places = np.flatnonzero(numbers != zero)
        zeros = np.diff(places, prepend=-1, append=numbers.size) - 1
        fillers = zeros >> self.gap_bits
        count = places.size + int(fillers.sum())
        entries = np.cumsum(fillers[:-1] + 1) - 1
        gaps, codes = np.full(count, span - 1, np.int32), np.full(count, zero, np.int32)
        gaps[entries], codes[entries] = zeros[:-1] & (span - 1), numbers[places]
        parts = {
            "codes": pack_bits(torch.from_numpy(codes), grid.bits),
            "gaps": pack_bits(torch.from_numpy(gaps), self.gap_bits),
            "entries": torch.tensor([count]),
        }
        return Payload(parts, count * (self.gap_bits + grid.bits) + 64)

    def _unpack(self, parts: Mapping[str, Tensor], shape: Sequence[int], grid: IntegerGrid) -> Tensor:
        zero, span, size = _zero(grid), 1 << self.gap_bits, math.prod(shape)
        if parts["entries"].dtype != torch.int64 or parts["entries"].numel() != 1:
            raise FewbitsError("the number of entries is not one 64-bit integer: the data is damaged or not ours.")
        count = int(parts["entries"])
        gaps = unpack_bits(parts["gaps"], self.gap_bits, count).numpy()
        codes = unpack_bits(parts["codes"], grid.bits, count).numpy()
        places = np.cumsum(gaps + 1, dtype=np.int64) - 1
        covered = int(places[-1]) + 1 if count else 0
        if not 0 <= size - covered < span:
            raise FewbitsError(
                f"{count} entries cover {covered} places, but the shape {tuple(shape)} has {size}: "
                "the packed data is damaged or not ours."
            )
        if (gaps[codes == zero] != span - 1).any():
            raise FewbitsError("an entry of code 0 fills no gap: the packed data is damaged or not ours.")
        numbers = np.full(size, zero, np.int32)
        numbers[places] = codes
        return grid.integers(torch.from_numpy(numbers), shape)


def _zero(grid: IntegerGrid) -> int:
    if not grid.low <= 0 <= grid.high or grid.low % grid.step:
        raise FewbitsError(f"0 is not on {grid}, so there is nothing to leave out; use FixedWidth() or Huffman().")
    return -grid.low // grid.step
