"""Ternary weights with the threshold and scale of the least error."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fewbits.formats.codes import Codes
from fewbits.quantizers.estimators import Estimator, StraightThrough
from fewbits.quantizers.granularity import Granularity, PerTensor
from fewbits.quantizers.quantizer import Quantizer
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

    minimises_error: ClassVar[bool] = True

    granularity: Granularity = PerTensor()
    estimator: Estimator = StraightThrough()

    def _encode(
        self, rows: Tensor, shape: torch.Size, importance: Tensor | None, generator: torch.Generator | None
    ) -> Codes:
        if not rows.numel():
            tables = {"scale": rows.new_zeros(len(rows))}
            return Codes(rows.to(GRID.dtype).reshape(shape), GRID, tables, len(rows), dtype=rows.dtype)
        magnitude = rows.abs()
        falling, order = magnitude.sort(dim=1, descending=True)
        if importance is None:
            mass = torch.arange(1, rows.shape[1] + 1, dtype=torch.float64, device=rows.device).expand(len(rows), -1)
            moment = falling.cumsum(1, dtype=torch.float64)
        else:
            weights = importance.gather(1, order).double()
            mass, moment = weights.cumsum(1), (weights * falling).cumsum(1)
        gain = torch.where(mass > 0, moment * (moment / mass), 0)
        kept = gain.argmax(1, keepdim=True)
        scale = torch.where(gain.gather(1, kept) > 0, moment.gather(1, kept) / mass.gather(1, kept), 0).to(rows.dtype)
        smallest = falling.gather(1, kept)
        integers = torch.where(magnitude >= smallest, rows.sign(), 0).to(GRID.dtype)
        return Codes(integers.reshape(shape), GRID, {"scale": scale.squeeze(1)}, len(rows), dtype=rows.dtype)
