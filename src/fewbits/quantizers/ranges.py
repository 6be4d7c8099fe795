"""Ranges: between which ends a uniform grid lies."""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from fewbits.errors import FewbitsError
from fewbits.formats.tiles import TILE, tiles
from fewbits.quantizers.settings import Settings


class Steps(Protocol):
    """What a range may ask of the grid that it is for."""

    @property
    def symmetric(self) -> bool:
        """Whether the grid has the same ends on both sides of 0."""

    def between(self, rows: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Return the values of ``rows`` on the grid from ``low`` to ``high``, (g,) each."""


@runtime_checkable
class Range(Protocol):
    """Says between which two numbers a group's grid lies; what is beyond them is clipped."""

    def ends(self, rows: Tensor, grid: Steps, importance: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the lowest and the highest number, (g,) each, for ``rows`` (g, n) with n > 0."""


@dataclass(frozen=True)
class MinMax(Settings):
    """The smallest and the largest weight: nothing is clipped."""

    def ends(self, rows: Tensor, grid: Steps, importance: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return min w and max w."""
        return rows.amin(1), rows.amax(1)  # together faster than aminmax, which is not vectorised along rows


@dataclass(frozen=True)
class Percentile(Settings):
    """The range that holds ``percent`` of the weights.

    Symmetric: the smallest r such that at least this share has |w| ≤ r. Affine: half of the others may lie below the
    range and half above. A weight of the group is the end, nothing is interpolated.

    >>> from fewbits.quantizers import Uniform
    >>> Uniform(2, range=Percentile(75)).encode(torch.tensor([0.1, -0.2, 0.3, 8.0])).decode()      # 8 is clipped
    tensor([ 0.0000, -0.3000,  0.3000,  0.3000])

    Raises:
        FewbitsError: If the percentage is not above 0 and at most 100.
    """

    percent: float = 99.9

    def __post_init__(self) -> None:
        """Refuse a share that holds nothing."""
        super().__post_init__()
        if not 0 < self.percent <= 100:
            raise FewbitsError(f"Percentile({self.percent!r}): give a percentage above 0 and up to 100.")

    def ends(self, rows: Tensor, grid: Steps, importance: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the order statistics of these ranks."""
        share = Fraction(repr(float(self.percent))) / 100  # the percentage as it is written, so that ranks are exact
        if grid.symmetric:
            end = _smallest(rows.abs(), share)
            return -end, end
        share = 1 - (1 - share) / 2
        return -_smallest(-rows, share), _smallest(rows, share)


def _smallest(rows: Tensor, share: Fraction) -> Tensor:
    """Return the smallest number of each row that at least ``share`` of the row does not exceed."""
    rank = max(1, math.ceil(share * rows.shape[1]))
    return rows.kthvalue(rank, dim=1).values


@dataclass(frozen=True)
class LeastError(Settings):
    """The part i / candidates of the min-max range, i = 1, 2, …, whose grid has the least Σ d (q − w)².

    A smaller range clips the weights far out and rounds the others more finely: this finds where clipping error and
    rounding error balance, group by group. ``importance`` d weighs each weight. Of equal errors the wider range. Costs
    one quantization a candidate.

    >>> from fewbits.quantizers import Uniform
    >>> weights = torch.linspace(-1, 1, 41) ** 5                                     # most of them near 0
    >>> scales = [Uniform(3, range=range).encode(weights).tables["scale"] for range in (MinMax(), LeastError())]
    >>> [round(3 * scale.item(), 4) for scale in scales]
    [1.0, 0.8438]

    Raises:
        FewbitsError: If there is no candidate.
    """

    candidates: int = 64

    def __post_init__(self) -> None:
        """Refuse a search of nothing."""
        super().__post_init__()
        if self.candidates < 1:
            raise FewbitsError(f"LeastError({self.candidates!r}): candidates is a whole number of at least 1.")

    def ends(self, rows: Tensor, grid: Steps, importance: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the ends of the best candidate of each group."""
        low, high = MinMax().ends(rows, grid, importance)
        parts = torch.arange(self.candidates, 0, -1, device=rows.device).to(torch.float64) / self.candidates
        parts = parts.to(rows.dtype)  # in the type of the weights, as it is used below
        at_once = max(1, TILE // rows.numel())  # small weights are quantized in several ranges by one call
        totals = [_errors(rows, low, high, some, grid, importance) for some in parts.split(at_once)]
        best = parts[torch.cat(totals).argmin(0)]
        return low * best, high * best


def _errors(rows: Tensor, low: Tensor, high: Tensor, parts: Tensor, grid: Steps, importance: Tensor | None) -> Tensor:
    """Return Σ d (q − w)² for each part of the range and each group, (parts, g), float64."""
    totals = torch.zeros(len(parts), len(rows), dtype=torch.float64, device=rows.device)
    for top, left in tiles(rows):
        many = rows[top, left].repeat(len(parts), 1)
        ends = ((parts[:, None] * end[top]).flatten() for end in (low, high))
        error = grid.between(many, *ends).double().sub_(many).square_().view(len(parts), -1, rows[0, left].numel())
        totals[:, top] += (error if importance is None else error * importance[top, left]).sum(2)
    return totals


@dataclass(frozen=True)
class Given(Settings):
    """Two numbers found before, for example on calibration data; the same for every group.

    Raises:
        FewbitsError: If they are not finite or the lower one is not the smaller one.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        """Refuse a range without an inside."""
        super().__post_init__()
        if not -math.inf < self.low < self.high < math.inf:
            raise FewbitsError(f"{self}: give two finite numbers, the smaller one first.")

    def ends(self, rows: Tensor, grid: Steps, importance: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the two numbers for each group."""
        return rows.new_full((len(rows),), self.low), rows.new_full((len(rows),), self.high)


@dataclass(frozen=True)
class MovingAverage(Settings):
    """For activations: the mean of the ranges of the batches so far, the later ones with more weight.

    r ← momentum · r + (1 − momentum) · (min x, max x) with each batch in training, from the first batch's range on;
    evaluation keeps r (Jacob et al. 2018). ``quantize(model, activations={…})`` keeps r as a buffer ``output_range`` of
    the module, so it is saved with the model. A tensor by itself, such as a weight, has no past: its range is min-max.

    Raises:
        FewbitsError: If the momentum is not from 0 to below 1.
    """

    momentum: float = 0.99

    def __post_init__(self) -> None:
        """Refuse a mean that never moves."""
        super().__post_init__()
        if not 0 <= self.momentum < 1:
            raise FewbitsError(f"MovingAverage({self.momentum!r}): the momentum is at least 0 and below 1.")

    def ends(self, rows: Tensor, grid: Steps, importance: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return min and max."""
        return MinMax().ends(rows, grid, importance)

    def after(self, mean: Tensor, batch: Tensor) -> Tensor:
        """Return the range (low, high) after a batch; ``mean`` is NaN before the first."""
        now = torch.stack(batch.detach().aminmax()).to(mean)
        return torch.where(mean.isnan(), now, torch.lerp(now, mean, self.momentum))
