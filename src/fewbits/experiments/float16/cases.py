"""Which cases are compared: all that there are, or special ones and then random ones.

A *draw* gives the operands of one chunk, as arrays of bit patterns, and gives the same whenever it is called.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Bits: TypeAlias = NDArray[Any]  #: an array of integers: the bit patterns of some format, or numbers of cases
Operands: TypeAlias = tuple[Bits, ...]
Draw: TypeAlias = Callable[[], Operands]


@dataclass(frozen=True)
class Size:
    """How much of a check is done."""

    cases: int | None  #: random ones, beside the special ones; ``None``: all there are
    chunk: int  #: cases at a time
    seed: int  #: of the random ones


_POSITIVE = (
    0x0000, 0x0001, 0x0002, 0x01FF, 0x0200, 0x03FE, 0x03FF,  # zero; subnormal numbers: smallest, middle, largest
    0x0400, 0x0401, 0x0800, 0x1000, 0x1400, 0x3555,  # smallest normal numbers, 2^-13, 2^-11, 2^-10, a third
    0x3800, 0x3BFF, 0x3C00, 0x3C01, 0x3C02, 0x4000, 0x4200,  # 0.5, around 1, 2, 3
    0x6800, 0x77FF, 0x7800, 0x7BFE, 0x7BFF,  # 2^11, around 2^15, largest
    0x7C00, 0x7C01, 0x7E00, 0x7FFF,  # infinity; NaN: signalling, quiet, all ones
)  # fmt: skip
_FLOAT32 = (1, 0x7FFFFF, 0x800000, 0x7F7FFFFF, 0x7F800000, 0x7F800001, 0x7FC00000, 0x7FFFFFFF)


def special() -> Bits:
    """Return the float16 patterns at which arithmetic changes its ways, both signs: ends, ties, infinity, NaN.

    >>> len(special()), len(special()) ** 2, len(special()) ** 3
    (58, 3364, 195112)
    """
    positive = np.array(_POSITIVE, np.uint16)
    return np.concatenate([positive, positive | np.uint16(0x8000)])


def borders() -> Bits:
    """Return the float32 patterns at which encoding to float16 changes its result.

    They are every float16 value, the middle between every two neighbours (where rounding turns), the float32 numbers
    next to all those, and the ends of float32 itself. Beyond the largest value, the neighbour is 65536.
    """
    values = np.arange(0x7C01, dtype=np.uint16).view(np.float16).astype(np.float32)
    values[-1] = 65536
    middles = (values[:-1] + values[1:]) / 2  # exact: 12 bits
    centers = np.concatenate([values, middles]).view(np.uint32)
    positive = np.concatenate([centers, centers + 1, centers[centers > 0] - 1, np.array(_FLOAT32, np.uint32)])
    return np.concatenate([positive, positive | np.uint32(1 << 31)])


def given(chunk: int, *operands: Bits) -> list[Draw]:
    """Return draws of these operands, ``chunk`` cases at a time."""
    return [
        partial(tuple, [each[start : start + chunk] for each in operands])
        for start in range(0, len(operands[0]), chunk)
    ]


def every(bits: int, chunk: int) -> list[Draw]:
    """Return draws of all words of so many bits in order, as ``uint32``."""
    total = 1 << bits
    return [partial(_words, start, min(start + chunk, total)) for start in range(0, total, chunk)]


def _words(start: int, stop: int) -> Operands:
    return (np.arange(start, stop, dtype=np.uint32),)


def every_pair(chunk: int) -> list[Draw]:
    """Return draws of all 2^32 pairs of float16 patterns."""
    return [partial(_halves, draw) for draw in every(32, chunk)]


def _halves(draw: Draw) -> Operands:
    (words,) = draw()
    return (words >> np.uint32(16)).astype(np.uint16), words.astype(np.uint16)


def tuples(values: Bits, length: int) -> Operands:
    """Return all tuples of so many of ``values``."""
    return tuple(each.reshape(-1) for each in np.meshgrid(*[values] * length, indexing="ij"))


def chance(size: Size, width: int, operands: int = 1) -> list[Draw]:
    """Return draws of ``size.cases`` random patterns, each bit even odds.

    Each draw has a generator of its own, seeded by ``size.seed`` and the number of the draw, so that it needs none of
    those before it.

    Args:
        size: how many cases there are, in draws of how many.
        width: bits of an operand, 16 or 32.
        operands: how many a case has.
    """
    cases = size.cases or 0
    sizes = [min(size.chunk, cases - start) for start in range(0, cases, size.chunk)]
    return [partial(_chance, (size.seed, number), (operands, many), width) for number, many in enumerate(sizes)]


def _chance(seed: tuple[int, int], shape: tuple[int, int], width: int) -> Operands:
    kind = {16: np.uint16, 32: np.uint32}[width]
    return tuple(np.random.default_rng(seed).integers(0, 1 << width, shape, dtype=kind))


def cancelling(draw: Draw) -> Operands:
    """Return the triples of ``draw``, every second with a third operand within two units of minus the product.

    Random exponents seldom meet; here they do, and what is left of the sum is what an early rounding would lose.
    """
    a, b, c = (each.copy() for each in draw())
    with np.errstate(all="ignore"):
        product = (a[::2].view(np.float16) * b[::2].view(np.float16)).view(np.uint16)
    c[::2] = (product ^ np.uint16(0x8000)) + (c[::2] % np.uint16(5)) - np.uint16(2)
    return a, b, c


def some(size: Size, *operands: Bits) -> Operands:
    """Return ``size.cases`` of the cases with these operands, at random; all if they are not more."""
    total = len(operands[0])
    if size.cases is None or size.cases >= total:
        return operands
    chosen = np.random.default_rng(size.seed).choice(total, size.cases, replace=False)
    return tuple(each[chosen] for each in operands)
