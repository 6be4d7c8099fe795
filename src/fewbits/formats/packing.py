"""Small unsigned integers to bytes and back, without a wasted bit between them."""

import numpy as np
import torch
from torch import Tensor

from fewbits.errors import FewbitsError


def check_bits(bits: int) -> int:
    """Return ``bits`` if it is a whole number from 1 to 16.

    Raises:
        FewbitsError: If it is not.
    """
    if isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= 16:
        raise FewbitsError(f"bits is {bits!r}; a code has 1 to 16 bits, so give a whole number from 1 to 16.")
    return bits


def pack_bits(values: Tensor, bits: int) -> Tensor:
    """Pack unsigned integers below 2^bits into bytes, least significant bit first, rows and bytes run through.

    Args:
        values: integers of any shape; the shape is not stored.
        bits: bits a value, 1 to 16.

    Returns:
        A uint8 tensor of ceil(numel · bits / 8) bytes on the CPU; the unused bits of the last byte are 0.

    Raises:
        FewbitsError: If ``bits`` is out of range, or a value is negative or needs more bits.

    >>> pack_bits(torch.tensor([1, 0, 2]), bits=2).tolist()      # 10 00 01 in binary, last value first
    [33]
    """
    check_bits(bits)
    flat = values.detach().cpu().reshape(-1).to(torch.int32).numpy()
    if flat.size and (flat.min() < 0 or flat.max() >> bits):
        raise FewbitsError(f"values from {flat.min()} to {flat.max()} do not fit {bits} unsigned bits.")
    planes = (flat[:, None] >> np.arange(bits)) & 1
    return torch.from_numpy(np.packbits(planes.astype(np.uint8), bitorder="little"))


def unpack_bits(packed: Tensor, bits: int, count: int) -> Tensor:
    """Return the ``count`` integers that :func:`pack_bits` packed, as int32.

    Raises:
        FewbitsError: If ``packed`` is not as long as ``count`` values of ``bits`` bits, or a padding bit is set.

    >>> unpack_bits(torch.tensor([33], dtype=torch.uint8), bits=2, count=3).tolist()
    [1, 0, 2]
    """
    check_bits(bits)
    expected = -(-count * bits // 8)
    if packed.dtype != torch.uint8 or packed.numel() != expected:
        raise FewbitsError(
            f"{count} codes of {bits} bits take {expected} bytes, found {packed.numel()} of {packed.dtype}: "
            "the packed data is truncated or not ours."
        )
    stream = np.unpackbits(packed.reshape(-1).numpy(), bitorder="little")
    if stream[count * bits :].any():
        raise FewbitsError("the padding after the last code is not zero: the packed data is damaged or not ours.")
    planes = stream[: count * bits].reshape(count, bits).astype(np.int32)
    return torch.from_numpy((planes << np.arange(bits, dtype=np.int32)).sum(axis=1, dtype=np.int32))
