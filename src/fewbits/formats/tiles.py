"""Matrices by parts, so that what lies between two operations stays in the cache."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

TILE = 2**17  #: numbers, half a megabyte of float32


def tiles(matrix: Tensor) -> Iterator[tuple[slice, slice]]:
    """Yield rows and columns of the tiles of ``matrix`` (g, n), row after row, each from left to right.

    A tile has whole rows, or a part of one, and at most 2^17 numbers. On anything but a CPU it is the whole matrix: a
    launch costs more there than a pass over memory.

    >>> [(len(range(*r.indices(3))), c) for r, c in tiles(torch.zeros(3, 2**17 + 5))][:2]
    [(1, slice(0, 131072, None)), (1, slice(131072, 131077, None))]
    """
    groups, number = matrix.shape
    whole = matrix.device.type != "cpu"
    width = max(1, number if whole else min(number, TILE))
    height = max(1, groups if whole else TILE // width)
    for top in range(0, groups, height):
        for left in range(0, number, width):
            yield slice(top, min(top + height, groups)), slice(left, min(left + width, number))


def tilewise(function: Callable[..., Tensor], dtype: torch.dtype, matrix: Tensor, *tables: Tensor) -> Tensor:
    """Return ``function(matrix, *tables)`` in ``dtype``, computed tile by tile.

    The numbers are those of one call; only time and memory differ: a new array of the size of the matrix costs several
    times the arithmetic, since its pages have to be made, and here only the result is one. A table that needs a
    gradient is given in one call.

    Args:
        function: takes a tile (h, w) and the rows of the tables for it, (h, …); gives (h, w). Each of its numbers
            depends on the number at the same place and on the tables alone.
        dtype: what the result is converted to.
        matrix: (g, n).
        tables: (g, …) each.

    >>> tilewise(lambda tile, scale: tile * scale[:, None], torch.int8, torch.ones(2, 3), torch.tensor([2.0, 5.0]))
    tensor([[2, 2, 2],
            [5, 5, 5]], dtype=torch.int8)
    """
    learned = torch.is_grad_enabled() and any(table.requires_grad for table in tables)
    if learned or matrix.device.type != "cpu" or matrix.numel() <= TILE:
        return function(matrix, *tables).to(dtype)
    result = torch.empty_like(matrix, dtype=dtype)
    for rows, columns in tiles(matrix):
        result[rows, columns] = function(matrix[rows, columns], *(table[rows] for table in tables))
    return result


def blocks(matrix: Tensor, size: int = TILE) -> tuple[Tensor, ...]:
    """Return ``matrix`` (g, n) cut into runs of whole rows, of some ``size`` numbers where the rows are short.

    For what depends on a whole row. No block is one row of several: PyTorch may sum that in another order.

    >>> [tuple(block.shape) for block in blocks(torch.zeros(5, 10**5))]
    [(3, 100000), (2, 100000)]
    """
    if matrix.device.type != "cpu":
        return (matrix,)
    return matrix.tensor_split(max(1, min(matrix.numel() // size, len(matrix) // 2)))
