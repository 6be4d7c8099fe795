"""The integer operations of :mod:`.scalar`, compiled by numba into NumPy functions over arrays of bit patterns.

An operation is compiled when it is first used: one version for round to nearest even without flags, in which the
compiler sees the rounding mode, and one for any mode, with flags.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba import int64, types, vectorize
from numba.extending import intrinsic, overload, register_jitable

from fewbits.formats.float16 import scalar
from fewbits.formats.rounding import RoundingMode, round_shift

Kernel = Callable[..., int]  #: a function of :mod:`.scalar`

#: What compiled code may call. The functions stay plain Python, which is how tests and readers can run them.
KERNELS: tuple[Kernel, ...] = (
    round_shift, scalar.significand, scalar.exponent, scalar.is_nan, scalar.is_finite, scalar.is_zero,
    scalar.is_signalling, scalar.round_and_pack, scalar.nan_from, scalar.signed_sum, scalar.add, scalar.sub, scalar.mul,
    scalar.div, scalar.sqrt, scalar.fma, scalar.from_float32, scalar.to_float32, scalar.order, scalar.equal,
    scalar.not_equal, scalar.less, scalar.less_equal,
)  # fmt: skip
for _kernel in KERNELS:
    register_jitable(_kernel)


def _leading_zeros(context: object, number: types.Type) -> tuple:
    def generate(context: object, builder: ir.IRBuilder, signature: object, arguments: list) -> ir.Value:
        return builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.int64), generate


_count_leading_zeros: Any = intrinsic(_leading_zeros)
overload(scalar.bit_length)(lambda number: lambda number: 64 - _count_leading_zeros(number))


@cache
def nearest_even(kernel: Kernel, operands: int) -> np.ufunc:
    """Return the NumPy function that rounds to nearest, ties to even: patterns (float32 bits) to patterns."""
    mode = RoundingMode.NEAREST_EVEN
    calls: dict[int, Kernel] = {
        1: lambda a: kernel(int64(a), mode),
        2: lambda a, b: kernel(int64(a), int64(b), mode),
        3: lambda a, b, c: kernel(int64(a), int64(b), int64(c), mode),
    }
    return _ufunc(calls[operands], types.uint16(*[_operand(kernel)] * operands))


@cache
def any_mode(kernel: Kernel, operands: int) -> np.ufunc:
    """Return the NumPy function that takes the rounding mode as its last argument and keeps the flags: int32."""
    calls: dict[int, Kernel] = {
        1: lambda a, mode: kernel(int64(a), mode),
        2: lambda a, b, mode: kernel(int64(a), int64(b), mode),
        3: lambda a, b, c, mode: kernel(int64(a), int64(b), int64(c), mode),
    }
    return _ufunc(calls[operands], types.int32(*[_operand(kernel)] * operands, types.int64))


@cache
def exact(kernel: Kernel) -> np.ufunc:
    """Return the NumPy function of an operation that never rounds: float32 bits, or whether a comparison holds."""
    if kernel is scalar.to_float32:
        return _ufunc(lambda a: kernel(int64(a)), types.uint32(types.uint16))
    return _ufunc(lambda a, b: kernel(int64(a), int64(b)), types.boolean(types.uint16, types.uint16))


def _operand(kernel: Kernel) -> types.Integer:
    return types.uint32 if kernel is scalar.from_float32 else types.uint16


def _ufunc(call: Kernel, signature: Any) -> np.ufunc:
    return cast(np.ufunc, vectorize([signature])(call))
