"""Small unsigned integers to bytes and back, without a wasted bit between them."""

from collections.abc import Iterator

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


def check_tensor(x: Tensor, what: str) -> Tensor:
    """Return ``x`` if it is a tensor.

    Raises:
        FewbitsError: If it is not.
    """
    if not isinstance(x, Tensor):
        raise FewbitsError(f"{what} is a {type(x).__name__}; give a torch tensor, as torch.as_tensor makes one.")
    return x


def pack_bits(values: Tensor, bits: int) -> Tensor:
    """Pack unsigned integers below 2^bits into bytes, least significant bit first, rows and bytes run through.

    Args:
        values: integers of any shape; the shape is not stored.
        bits: bits a value, 1 to 16.

    Returns:
        A uint8 tensor of ceil(numel · bits / 8) bytes on the CPU; the unused bits of the last byte are 0.

    Raises:
        FewbitsError: If ``bits`` is out of range, the values are no integers, or one is negative or needs more bits.

    >>> pack_bits(torch.tensor([1, 0, 2]), bits=2).tolist()      # 10 00 01 in binary, last value first
    [33]
    """
    check_bits(bits)
    dtype = check_tensor(values, "what is packed").dtype
    if dtype.is_floating_point or dtype.is_complex or dtype is torch.bool:
        raise FewbitsError(f"values are {values.dtype}; only integers are packed, so encode or round them first.")
    flat = values.detach().cpu().reshape(-1).numpy()
    if flat.size and (flat.min() < 0 or int(flat.max()) >> bits):
        raise FewbitsError(f"values from {flat.min()} to {flat.max()} do not fit {bits} unsigned bits.")
    octets = np.zeros((-(-flat.size // 8), 8), np.uint16)
    octets.reshape(-1)[: flat.size] = flat
    packed = np.zeros((len(octets), bits), np.uint8)
    for value, byte, shift in _overlaps(bits):
        moved = octets[:, value] << shift if shift >= 0 else octets[:, value] >> -shift
        packed[:, byte] |= moved.astype(np.uint8)
    return torch.from_numpy(packed.reshape(-1)[: -(-flat.size * bits // 8)])


def unpack_bits(packed: Tensor, bits: int, count: int) -> Tensor:
    """Return the ``count`` integers that :func:`pack_bits` packed, as int32.

    Raises:
        FewbitsError: If ``packed`` is not as long as ``count`` values of ``bits`` bits, or a padding bit is set.

    >>> unpack_bits(torch.tensor([33], dtype=torch.uint8), bits=2, count=3).tolist()
    [1, 0, 2]
    """
    check_bits(bits)
    expected = -(-count * bits // 8)
    if count < 0 or check_tensor(packed, "what is unpacked").dtype != torch.uint8 or packed.numel() != expected:
        raise FewbitsError(
            f"{count} codes of {bits} bits take {expected} bytes, found {packed.numel()} of {packed.dtype}: "
            "the packed data is truncated or not ours."
        )
    stream = packed.detach().cpu().reshape(-1).numpy()
    if (unused := 8 * expected - count * bits) and stream[-1] >> (8 - unused):
        raise FewbitsError("the padding after the last code is not zero: the packed data is damaged or not ours.")
    octets = np.zeros((-(-count // 8), bits), np.uint8)
    octets.reshape(-1)[:expected] = stream
    values = np.zeros((len(octets), 8), np.uint16)
    for value, byte, shift in _overlaps(bits):
        wide = octets[:, byte].astype(np.uint16)
        values[:, value] |= wide >> shift if shift >= 0 else wide << -shift
    values &= (1 << bits) - 1
    return torch.from_numpy(values.reshape(-1)[:count].astype(np.int32))


def _overlaps(bits: int) -> Iterator[tuple[int, int, int]]:
    """Which of 8 values lies in which of their ``bits`` bytes, and how far it is shifted left there."""
    for value in range(8):
        for byte in range(value * bits // 8, ((value + 1) * bits - 1) // 8 + 1):
            yield value, byte, value * bits - 8 * byte
