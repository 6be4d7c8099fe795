"""Ternary weights with the threshold and scale of the least error."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fewbits.formats.codes import Codes
from fewbits.formats.tiles import tiles, tilewise
from fewbits.quantizers.estimators import Estimator, StraightThrough
from fewbits.quantizers.granularity import Granularity, PerTensor
from fewbits.quantizers.quantizer import Quantizer
from fewbits.quantizers.sorting import ascending, running_sum
from fewbits.quantizers.ternary import GRID


@dataclass(frozen=True)
class LeastSquaresTernary(Quantizer):
    """−H, 0, +H with the H and the signs t that minimise Σ d (w − H t)², exactly (Hwang and Sung 2014; Hou 2018).

    For the k largest |w| the best H is Σ d |w| / Σ d over these, and it lowers the error by (Σ d |w|)² / Σ d. The k of
    the largest gain is found by sorting; of equal gains the smallest. TWN approximates this with Δ = 0.7 · mean |w|.
    ``importance`` d makes it the output error (d = mean square of what a weight is multiplied with; Hwang and Sung, Kim
    et al. 2014), or the exact loss-aware ternarisation (d = √v of Adam; LAT of Hou and Kwok 2018). 2 bits a weight. A
    group of zeros has H = 0.

    >>> codes = LeastSquaresTernary().encode(torch.tensor([-0.9, 0.1, 0.5, 0.8]))     # gains 0.81, 1.445, 1.613, 1.32
    >>> codes.integers.tolist(), round(codes.tables["scale"].item(), 4)
    ([-1, 0, 1, 1], 0.7333)
    """

    granularity: Granularity = PerTensor()
    estimator: Estimator = StraightThrough()

    @property
    def minimises_error(self) -> bool:
        """Always."""
        return True

    def _encode(
        self, rows: Tensor, shape: torch.Size, importance: Tensor | None, generator: torch.Generator | None
    ) -> Codes:
        if not rows.numel():
            tables = {"scale": rows.new_zeros(len(rows))}
            return Codes(rows.to(GRID.dtype).reshape(shape), GRID, tables, len(rows), dtype=rows.dtype)
        if importance is None:
            falling, weights = ascending(rows.abs().neg_()).neg_(), None
        else:
            falling, order = rows.abs().sort(dim=1, descending=True)
            weights = importance.gather(1, order)
        height, smallest = _best(falling, weights)
        integers = tilewise(_signs, GRID.dtype, rows, smallest)
        return Codes(integers.reshape(shape), GRID, {"scale": height.squeeze(1)}, len(rows), dtype=rows.dtype)


def _best(falling: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return H and the smallest |w| that is kept, (g, 1) each, for |w| in descending order and their importance."""
    smallest = falling[:, :1].clone()
    unit = _unit(smallest)
    mass, moment, height, most = (torch.zeros_like(unit) for _ in range(4))
    for g, n in tiles(falling):
        shares = torch.ones_like(falling[g, n], dtype=torch.float64) if weights is None else weights[g, n].double()
        masses = running_sum(mass[g], shares)
        moments = running_sum(moment[g], shares * (falling[g, n].double() * unit[g]))
        gain = torch.where(masses > 0, moments * (moments / masses), 0)
        first = gain.argmax(1, keepdim=True)
        better = gain.gather(1, first) > most[g]
        for known, found in ((most, gain), (height, moments / masses), (smallest, falling[g, n])):
            known[g] = torch.where(better, found.gather(1, first), known[g])
        mass[g], moment[g] = masses[:, -1:], moments[:, -1:]
    return (height / unit).to(falling.dtype), smallest


def _signs(rows: Tensor, smallest: Tensor) -> Tensor:
    return rows.sign() * (rows.abs() >= smallest)


def _unit(largest: Tensor) -> Tensor:
    """Return the power of two, float64, that brings the largest weight near 1: no square under- or overflows then."""
    exponent = torch.frexp(largest.double()).exponent.clamp(-1000, 1000)
    return ((1023 - exponent.to(torch.int64)) << 52).view(torch.float64)
