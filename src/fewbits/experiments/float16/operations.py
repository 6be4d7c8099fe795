"""Checks of the software float16: conversions, arithmetic and comparisons, beside NumPy's."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from fewbits.experiments.float16 import cases, oracles
from fewbits.experiments.float16.cases import Bits, Draw, Size
from fewbits.experiments.float16.oracles import by_numpy, one_nan
from fewbits.experiments.float16.verification import Chunk
from fewbits.formats import float16

#: The operations of two operands, and NumPy's.
PAIRS: dict[str, Callable[..., Any]] = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide}
_COMPARISONS: dict[str, Callable[..., Any]] = {
    name: getattr(np, name) for name in ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")
}


def decode(size: Size) -> list[Chunk]:
    """Return the check of ``to_float32``: all 65,536 patterns, NaN to the last bit."""
    return [(draw, _decode) for draw in cases.every(16, size.chunk)]


def _decode(words: Bits) -> tuple[Bits, Bits]:
    patterns = words.astype(np.uint16)
    return float16.to_float32(patterns).view(np.uint32), oracles.to_float32(patterns)


def encode(size: Size) -> list[Chunk]:
    """Return the check of ``from_float32``: all 2^32 numbers, or the borders and random ones."""
    some = cases.given(size.chunk, cases.borders()) + cases.chance(size, 32)
    return [(draw, _encode) for draw in (cases.every(32, size.chunk) if size.cases is None else some)]


def _encode(words: Bits) -> tuple[Bits, Bits]:
    return float16.from_float32(words.view(np.float32)), oracles.from_float32(words)


def pairs(name: str, size: Size) -> list[Chunk]:
    """Return the check of an operation of :data:`PAIRS`: all 2^32 pairs, or special and random ones."""
    return [(draw, partial(_pairs, name)) for draw in _pair_draws(size)]


def _pair_draws(size: Size) -> list[Draw]:
    if size.cases is None:
        return cases.every_pair(size.chunk)
    return cases.given(size.chunk, *cases.tuples(cases.special(), 2)) + cases.chance(size, 16, 2)


def _pairs(name: str, a: Bits, b: Bits) -> tuple[Bits, Bits]:
    got = getattr(float16, name)(a, b)
    return one_nan(got), one_nan(by_numpy(PAIRS[name], a, b))


def comparisons(size: Size) -> list[Chunk]:
    """Return the check of the six comparisons, one bit of the result each: all pairs, or special and random ones."""
    return [(draw, _compare) for draw in _pair_draws(size)]


def _compare(a: Bits, b: Bits) -> tuple[Bits, Bits]:
    got = _six({name: getattr(float16, name) for name in _COMPARISONS}, a, b)
    # float32 holds every float16, and NumPy compares it at once; NumPy's own conversion has nothing of ours in it
    x, y = (oracles.to_float32(each).view(np.float32) for each in (a, b))
    return got, _six(_COMPARISONS, x, y)


def _six(comparisons: dict[str, Callable[..., Any]], a: Bits, b: Bits) -> Bits:
    result = np.zeros(len(a), np.uint8)
    for bit, compare in enumerate(comparisons.values()):
        result |= compare(a, b).view(np.uint8) << np.uint8(bit)
    return result


def sqrt(size: Size) -> list[Chunk]:
    """Return the check of ``sqrt``: all 65,536 patterns."""
    return [(draw, _sqrt) for draw in cases.every(16, size.chunk)]


def _sqrt(words: Bits) -> tuple[Bits, Bits]:
    patterns = words.astype(np.uint16)
    return one_nan(float16.sqrt(patterns)), one_nan(by_numpy(np.sqrt, patterns))


def fma(size: Size) -> list[Chunk]:
    """Return the check of ``fma`` by the error-free transformation: special triples and random ones."""
    random = [partial(cases.cancelling, draw) for draw in cases.chance(size, 16, 3)]
    return [(draw, _fma) for draw in cases.given(size.chunk, *cases.tuples(cases.special(), 3)) + random]


def _fma(a: Bits, b: Bits, c: Bits) -> tuple[Bits, Bits]:
    return one_nan(float16.fma(a, b, c)), one_nan(oracles.fma(a, b, c))
