"""Ternary weights: −1, 0 and +1, by a fixed threshold or by the rule of ternary weight networks."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fewbits.errors import FewbitsError
from fewbits.formats.codes import Codes, IntegerGrid
from fewbits.formats.tiles import blocks, tiles, tilewise
from fewbits.quantizers.estimators import Estimator, StraightThrough
from fewbits.quantizers.granularity import Granularity, PerTensor
from fewbits.quantizers.quantizer import Quantizer

GRID = IntegerGrid(-1, 1)


@dataclass(frozen=True)
class Ternary(Quantizer):
    """The seminar's rule (its equation 7): +1 if w ≥ T, −1 if w < −T, else 0; no scale; 2 bits.

    The printed equation gives w = T two cases and w = −T none. Here w = T is +1, as the first line that matches says,
    and w = −T is 0. T = 0 leaves no zeros and equals ``Binary()``.

    >>> Ternary(0.5).encode(torch.tensor([-0.6, -0.5, 0.2, 0.5])).integers.tolist()
    [-1, 0, 0, 1]

    Raises:
        FewbitsError: If T is negative, NaN or infinite.
    """

    threshold: float = 0.5  #: the document's T
    granularity: Granularity = PerTensor()
    estimator: Estimator = StraightThrough()

    def __post_init__(self) -> None:
        """Refuse a threshold that is no distance."""
        super().__post_init__()
        if not 0 <= self.threshold < math.inf:
            raise FewbitsError(f"Ternary({self.threshold!r}): the threshold T is a finite number of at least 0.")

    def _encode(
        self, rows: Tensor, shape: torch.Size, importance: Tensor | None, generator: torch.Generator | None
    ) -> Codes:
        integers = tilewise(self._integers, GRID.dtype, rows)
        return Codes(integers.reshape(shape), GRID, {}, len(rows), dtype=rows.dtype)

    def _integers(self, rows: Tensor) -> Tensor:
        over, under = torch.empty_like(rows), torch.empty_like(rows)  # booleans would take four times as long
        return torch.ge(rows, self.threshold, out=over).sub_(torch.lt(rows, -self.threshold, out=under))


@dataclass(frozen=True)
class TWN(Quantizer):
    """Ternary weight network: −α, 0, +α with α and the threshold read from the weights (Li et al. 2016).

    Δ = 0.7 · mean |w| approximates the least-squares threshold; α = mean of |w| over |w| > Δ; q = α · sign(w) where
    |w| > Δ, else 0; all of it group by group. 2 bits a weight and one float32 a group. A group of zeros, or one whose
    |w| are all equal to 0, has α = 0.

    >>> codes = TWN().encode(torch.tensor([-0.9, 0.1, 0.2, 0.8]))          # mean |w| = 0.5, Δ = 0.35
    >>> codes.integers.tolist(), round(codes.tables["scale"].item(), 4)    # α = (0.9 + 0.8) / 2
    ([-1, 0, 0, 1], 0.85)
    """

    granularity: Granularity = PerTensor()
    estimator: Estimator = StraightThrough()

    def _encode(
        self, rows: Tensor, shape: torch.Size, importance: Tensor | None, generator: torch.Generator | None
    ) -> Codes:
        integers, scales = zip(*map(_approximated, blocks(rows)), strict=True)
        tables = {"scale": torch.cat(scales)}
        return Codes(torch.cat(integers).reshape(shape), GRID, tables, len(rows), dtype=rows.dtype)


def _approximated(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the integers (g, n) and α (g,)."""
    magnitude = rows.abs()
    threshold = 0.7 * magnitude.mean(dim=1, keepdim=True).nan_to_num()
    integers = torch.empty_like(rows, dtype=GRID.dtype)
    kept = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
    for g, n in tiles(rows):
        signs = _signs(rows[g, n], threshold[g])
        integers[g, n] = signs
        magnitude[g, n].mul_(signs.abs_())
        kept[g].add_(integers[g, n].abs().sum(dim=1))
    wide = torch.promote_types(rows.dtype, torch.float32)  # a sum may be beyond half precision where its mean is not
    return integers, (magnitude.sum(dim=1, dtype=wide) / kept.clamp_min(1)).to(rows.dtype)


def _signs(rows: Tensor, threshold: Tensor) -> Tensor:
    """Return +1 where w > Δ, −1 where w < −Δ and else 0, in the type of ``rows``."""
    over, under = torch.empty_like(rows), torch.empty_like(rows)
    return torch.gt(rows, threshold, out=over).sub_(torch.lt(rows, -threshold, out=under))
