"""Ternary codes at five trits a byte."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fewbits.errors import FewbitsError
from fewbits.formats.codes import IntegerGrid
from fewbits.formats.storage import Payload, Storage

#: Worth of each trit of a byte, the first one least.
WORTH = np.array([1, 3, 9, 27, 81], np.uint8)


@dataclass(frozen=True)
class Trits(Storage):
    """Five codes of three values in a byte: Σ t_i · 3^i for i = 0 to 4, as 3^5 = 243 ≤ 256.

    1.6 bits a code; log2(3) = 1.58 is the least for three equally frequent values. The last byte of k < 5 codes takes
    2, 4, 5, 7 bits and is padded with zeros.

    >>> payload = Trits().pack(torch.tensor([-1, 0, 1, 1, 1, 0, -1]), IntegerGrid(-1, 1))    # 01222 and 10
    >>> payload.parts["codes"].tolist(), payload.bits
    ([237, 1], 12)
    """

    def pack(self, integers: Tensor, grid: IntegerGrid) -> Payload:
        """Return ceil(numel / 5) bytes.

        Raises:
            FewbitsError: If the grid has not three points, or an integer is not on it.
        """
        _check(grid)
        count = integers.numel()
        trits = np.zeros((-(-count // 5), 5), np.uint8)
        trits.reshape(-1)[:count] = grid.numbers(integers).numpy()
        last = int((3 ** (count % 5) - 1).bit_length())
        return Payload({"codes": torch.from_numpy(trits @ WORTH)}, 8 * (count // 5) + last)

    def _unpack(self, parts: Mapping[str, Tensor], shape: Sequence[int], grid: IntegerGrid) -> Tensor:
        _check(grid)
        count, packed = math.prod(shape), parts["codes"]
        if packed.dtype != torch.uint8 or packed.numel() != -(-count // 5):
            raise FewbitsError(
                f"{count} ternary codes take {-(-count // 5)} bytes, found {packed.numel()} of {packed.dtype}: "
                "the packed data is truncated or not ours."
            )
        stream = packed.detach().cpu().reshape(-1).numpy()
        if (stream >= 243).any():
            raise FewbitsError("a byte of five trits is above 242: the packed data is damaged or not ours.")
        table = np.arange(243, dtype=np.uint8)[:, None] // WORTH % 3
        trits = table[stream].reshape(-1)
        if trits[count:].any():
            raise FewbitsError("the padding after the last trit is not zero: the packed data is damaged or not ours.")
        return grid.integers(torch.from_numpy(trits[:count].astype(np.int32)), shape)


def _check(grid: IntegerGrid) -> None:
    if grid.points != 3:
        raise FewbitsError(
            f"{grid} has {grid.points} points; trits have three values, so use FixedWidth() or Huffman()."
        )
