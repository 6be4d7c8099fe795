"""The nearest of a few levels, row by row."""

import torch
from torch import Tensor

from fewbits.formats.tiles import tilewise

_COMPARED = 15  #: up to so many boundaries comparing with all of them is faster than searching


def nearest(rows: Tensor, levels: Tensor) -> Tensor:
    """Return for each number the place of the nearest level of its row, (g, n), uint8; of two equally near the lower.

    Exact in every type: no level is nearer than the one that is returned, see :func:`boundaries`.

    >>> nearest(torch.tensor([[-0.6, 0.5, 9.0]]), torch.tensor([[-1.0, 0.0, 1.0]])).tolist()
    [[0, 1, 2]]

    Args:
        rows: (g, n).
        levels: (g, k), ascending, 1 to 256 of them. Of equal ones the first is taken for numbers up to them, the last
            for numbers above.
    """
    return tilewise(place, torch.uint8, rows, boundaries(levels))


def place(rows: Tensor, between: Tensor) -> Tensor:
    """Return how many of the boundaries (g, k), in ascending order, each number (g, n) exceeds, (g, n), uint8."""
    if between.shape[1] > _COMPARED:
        return torch.searchsorted(between.contiguous(), rows, out_int32=True).to(torch.uint8)
    exceeded, exceeds = torch.zeros_like(rows), torch.empty_like(rows)  # booleans would take three times as long
    for boundary in between.unbind(1):
        exceeded += torch.gt(rows, boundary[:, None], out=exceeds)
    return exceeded.to(torch.uint8)


def boundaries(levels: Tensor) -> Tensor:
    """Return the largest number of their type that is not nearer to the upper of two levels, (g, k) → (g, k − 1).

    That is the mean (a + b) / 2 rounded down: rounded to nearest, it could be a number above the mean, which would then
    go to the lower level. Twice the distance is lost that way in bfloat16. The rounding error of the sum is found
    exactly (Knuth's TwoSum), in float64, where nothing but subnormals of float64 is lost by halving.

    >>> levels = torch.tensor([[1.0, 1.0234375]], dtype=torch.bfloat16)             # 3 units of 2^-7 apart
    >>> boundaries(levels).item(), (levels.sum(1) / 2).item()
    (1.0078125, 1.015625)
    """
    low, high = (levels.double() / 2)[:, :-1], (levels.double() / 2)[:, 1:]
    mean = low + high
    added = mean - low
    error = (low - (mean - added)) + (high - added)
    mean = torch.where(error < 0, _below(mean), mean)
    rounded = mean.to(levels.dtype)
    return torch.where(rounded > mean, _below(rounded), rounded)


def _below(numbers: Tensor) -> Tensor:
    return torch.nextafter(numbers, torch.full_like(numbers, -torch.inf))
