"""Checks of the software float16 beside the scalar reference in exact rationals: results and flags, case by case."""

import math
from collections.abc import Callable
from fractions import Fraction
from functools import partial

import numpy as np

from fewbits.experiments.float16 import cases, oracles
from fewbits.experiments.float16.cases import Bits, Draw, Operands, Size
from fewbits.experiments.float16.verification import Chunk
from fewbits.formats import RoundingMode, float16
from fewbits.formats.float16 import flags, reference

OPERANDS = {"from_float32": 1, "sqrt": 1, "add": 2, "sub": 2, "mul": 2, "div": 2, "fma": 3}
OTHER_MODES = (RoundingMode.NEAREST_AWAY, RoundingMode.TOWARD_ZERO, RoundingMode.UP, RoundingMode.DOWN)


def fma(size: Size) -> list[Chunk]:
    """Return the check of ``fma``, to nearest: special triples, at most ``size.cases``, and as many random ones."""
    return _chunks("fma", RoundingMode.NEAREST_EVEN, size)


def modes(size: Size) -> list[Chunk]:
    """Return the check of each operation in the other modes: special cases, at most ``size.cases``, and random ones."""
    return [chunk for name in OPERANDS for mode in OTHER_MODES for chunk in _chunks(name, mode, size)]


def _chunks(name: str, mode: RoundingMode, size: Size) -> list[Chunk]:
    return [(draw, partial(_compare, name, mode)) for draw in _draws(name, size)]


def _draws(name: str, size: Size) -> list[Draw]:
    count = OPERANDS[name]
    random = cases.chance(size, 32 if name == "from_float32" else 16, count)
    if name == "fma":
        random = [partial(cases.cancelling, draw) for draw in random]
    return cases.given(size.chunk, *cases.some(size, *_special(name))) + random


def _special(name: str) -> Operands:
    if name == "from_float32":
        return (cases.borders(),)
    return (np.arange(1 << 16).astype(np.uint16),) if name == "sqrt" else cases.tuples(cases.special(), OPERANDS[name])


def _compare(name: str, mode: RoundingMode, *operands: Bits) -> tuple[Bits, Bits]:
    exact: Callable[..., int] = _from_float32 if name == "from_float32" else getattr(reference, name)
    expected = [exact(*case, mode) for case in zip(*(each.tolist() for each in operands), strict=True)]
    return _with_flags(name, mode, operands), np.array(expected, np.uint32)


def _from_float32(word: int, mode: RoundingMode) -> int:
    words = np.array([word], np.uint32)
    number = words.view(np.float32).item()
    if math.isnan(number):
        return int(oracles.from_float32(words)[0])
    return reference.encode(number if math.isinf(number) else Fraction(number), mode, bool(word >> 31))


def _with_flags(name: str, mode: RoundingMode, operands: Operands) -> Bits:
    """Return the patterns, and above them the flags; each case is a call, as counters add up over an array."""
    operation = getattr(float16, name)
    inputs = [each.view(np.float32) if name == "from_float32" else each for each in operands]
    results = np.zeros(len(inputs[0]), np.uint32)
    for at, case in enumerate(zip(*inputs, strict=True)):
        counters = float16.Counters()
        results[at] = int(operation(*case, mode=mode, counters=counters)) | _flags(counters)
    return results


def _flags(counters: float16.Counters) -> int:
    raised = {
        flags.INVALID: counters.invalid,
        flags.DIVIDE_BY_ZERO: counters.divide_by_zero,
        flags.OVERFLOW: counters.overflow,
        flags.UNDERFLOW: counters.underflow,
        flags.INEXACT: counters.inexact,
    }
    return sum(flag for flag, count in raised.items() if count)
