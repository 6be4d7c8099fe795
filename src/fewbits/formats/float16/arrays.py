"""What the operations accept: NumPy arrays, or torch tensors on the CPU; and how they get their answer back."""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewbits.errors import FewbitsError
from fewbits.formats.float16 import compiled
from fewbits.formats.float16.flags import Counters
from fewbits.formats.rounding import RoundingMode

Array = TypeVar("Array", NDArray[Any], Tensor)

_REMEDIES = {
    "float16": "view its bits: x.view(np.uint16), or x.view(torch.uint16)",
    "float32": "convert it by float16.from_float32(x)",
    "uint16": "this takes numbers, not bit patterns: float16.to_float32(a) turns patterns into numbers",
}
_CAST = "cast it: x.astype(np.{0}), or x.to(torch.{0})"


def rounded(
    kernel: compiled.Kernel,
    operands: tuple[Array, ...],
    mode: RoundingMode,
    counters: Counters | None,
    dtype: str = "uint16",
) -> Array:
    """Return the patterns of an operation that rounds.

    Raises:
        FewbitsError: If an operand is refused (see :func:`checked`) or the mode is none of the five of IEEE 754.
    """
    if not isinstance(mode, RoundingMode) or mode is RoundingMode.STOCHASTIC:
        raise FewbitsError(
            f"mode is {mode!r}; float16 rounds in the five modes of IEEE 754, so give RoundingMode.NEAREST_EVEN, "
            "NEAREST_AWAY, TOWARD_ZERO, UP or DOWN."
        )
    arrays = [array.view(np.uint32) if dtype == "float32" else array for array in checked(operands, dtype)]
    if mode is RoundingMode.NEAREST_EVEN and counters is None:
        return like(operands[0], compiled.nearest_even(kernel, len(arrays))(*arrays))
    results = compiled.any_mode(kernel, len(arrays))(*arrays, int(mode))
    if counters is not None:
        counters.add(results)
    return like(operands[0], results.astype(np.uint16))


def checked(operands: tuple[Array, ...], dtype: str) -> list[NDArray[Any]]:
    """Return the operands as NumPy arrays of type ``dtype`` whose shapes fit together.

    Raises:
        FewbitsError: If an operand is no array or tensor, of another type, or not in the computer's memory; if arrays
            and tensors are mixed; if the shapes do not broadcast.
    """
    for operand in operands:
        if not isinstance(operand, np.ndarray | np.generic | Tensor):
            raise FewbitsError(
                f"an operand is a {type(operand).__name__}; float16 works on NumPy arrays or torch tensors of type "
                f"{dtype}, so give np.array(..., dtype=np.{dtype})."
            )
        if (found := str(operand.dtype).removeprefix("torch.")) != dtype:
            remedy = _REMEDIES.get(found, _CAST.format(dtype))
            raise FewbitsError(f"an operand is of type {found}, {dtype} was expected; {remedy}.")
        if isinstance(operand, Tensor) and operand.device.type != "cpu":
            raise FewbitsError(f"an operand is on {operand.device}; float16 runs on the CPU, so give x.cpu().")
    if len({isinstance(operand, Tensor) for operand in operands}) > 1:
        raise FewbitsError("NumPy arrays and torch tensors are mixed; convert one: torch.from_numpy(a), or t.numpy().")
    try:
        np.broadcast_shapes(*(operand.shape for operand in operands))
    except ValueError:
        shapes = " and ".join(str(tuple(operand.shape)) for operand in operands)
        raise FewbitsError(f"the shapes {shapes} do not broadcast; make them equal, or 1 where they differ.") from None
    return [o.numpy(force=True) if isinstance(o, Tensor) else np.asarray(o) for o in operands]


def like(given: Array, result: NDArray[Any]) -> Array:
    """Return the result as what was given: an array, or a tensor."""
    array = np.asarray(result)  # NumPy makes a scalar of a result without dimensions
    return torch.from_numpy(array) if isinstance(given, Tensor) else array


def compared(holds: Callable[..., NDArray[Any]], a: Array, b: Array) -> Array:
    """Return where a comparison of patterns holds.

    Raises:
        FewbitsError: If an operand is refused (see :func:`checked`).
    """
    return like(a, holds(*checked((a, b), "uint16")))
