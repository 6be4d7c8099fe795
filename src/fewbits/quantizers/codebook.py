"""Codebook quantisation: each weight is one of 2^bits numbers, found by k-means."""

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

import torch
from torch import Tensor

from fewbits.errors import FewbitsError
from fewbits.formats.codes import Codes, IntegerGrid, Scheme
from fewbits.quantizers.estimators import Estimator, StraightThrough
from fewbits.quantizers.granularity import Granularity, PerTensor
from fewbits.quantizers.nearest import boundaries, nearest
from fewbits.quantizers.quantizer import Quantizer


class Start(Enum):
    """Where the numbers of the codebook begin (Han et al. 2016, "Deep Compression", which prefers linear)."""

    LINEAR = "linear"  #: equal steps from the smallest weight to the largest
    DENSITY = "density"  #: equal shares of the weights: the quantiles (2 i + 1) / (2 K)
    RANDOM = "random"  #: weights drawn at random

    __repr__ = Enum.__str__


@dataclass(frozen=True)
class Codebook(Quantizer):
    """w ≈ c_j with the nearest of K = 2^bits numbers c, which k-means chooses to minimise Σ d (w − c_j)².

    Lloyd's rounds on sorted weights: the boundary between neighbours is their mean, and the new number is the mean of
    the weights between two boundaries, read from a running sum. So a round costs K searches, whatever the number of
    weights, and the start and the final assignment are what takes time. Rounds end when nothing moves, or after
    ``iterations``. A number that no weight is nearest to moves to the middle of the widest group (range · Σ d), so K
    numbers hold K different weights without error. ``importance`` d weighs each weight; one of 0 is not looked at.

    >>> codes = Codebook(1).encode(torch.tensor([0.0, 0.1, 0.2, 1.0, 1.4]))
    >>> [round(c, 4) for c in codes.tables["codebook"].flatten().tolist()], codes.integers.tolist()
    ([0.1, 1.2], [0, 0, 0, 1, 1])

    Raises:
        FewbitsError: If bits is not a whole number from 1 to 8, or there are fewer than 0 iterations.
    """

    minimises_error: ClassVar[bool] = True

    bits: int
    start: Start = Start.LINEAR
    iterations: int = 100
    seed: int = 0  #: of a random start
    granularity: Granularity = PerTensor()
    estimator: Estimator = StraightThrough()

    def __post_init__(self) -> None:
        """Refuse widths without a codebook."""
        if not isinstance(self.bits, int) or isinstance(self.bits, bool) or not 1 <= self.bits <= 8:
            raise FewbitsError(f"Codebook({self.bits!r}): bits is a whole number from 1 to 8.")
        if not isinstance(self.iterations, int) or self.iterations < 0:
            raise FewbitsError(f"Codebook(iterations={self.iterations!r}): a whole number of at least 0 is needed.")

    def _encode(
        self, rows: Tensor, shape: torch.Size, importance: Tensor | None, generator: torch.Generator | None
    ) -> Codes:
        grid = IntegerGrid(0, 2**self.bits - 1)
        if not rows.numel():
            tables = {"codebook": rows.new_zeros(len(rows), grid.points)}
            return Codes(rows.to(grid.dtype).reshape(shape), grid, tables, len(rows), Scheme.CODEBOOK, rows.dtype)
        codebook = self._codebook(rows, importance)
        integers = nearest(rows, codebook).to(grid.dtype)
        return Codes(integers.reshape(shape), grid, {"codebook": codebook}, len(rows), Scheme.CODEBOOK, rows.dtype)

    def _codebook(self, rows: Tensor, importance: Tensor | None) -> Tensor:
        """Return the numbers of each group in ascending order, (g, K)."""
        if importance is None:
            ordered, weights = rows.sort(dim=1).values, None
        else:
            rows = _looked_at(rows, importance)
            ordered, order = rows.sort(dim=1)
            weights = importance.gather(1, order)
        sums = _running(ordered, weights)
        codebook = self._start(rows, ordered)
        for _ in range(self.iterations):
            moved = _moved(codebook, ordered, *sums)
            if torch.equal(moved, codebook):
                break
            codebook = moved
        return codebook

    def _start(self, rows: Tensor, ordered: Tensor) -> Tensor:
        number, points = rows.shape[1], 2**self.bits
        match self.start:
            case Start.LINEAR:
                share = torch.linspace(0, 1, points, dtype=rows.dtype, device=rows.device)
                return (ordered[:, :1] * (1 - share) + ordered[:, -1:] * share).sort(dim=1).values  # rounding
            case Start.DENSITY:
                places = (2 * torch.arange(points, device=rows.device) + 1) * number // (2 * points)
            case Start.RANDOM:
                drawn = torch.randint(number, (points,), generator=torch.Generator().manual_seed(self.seed))
                places = drawn.sort().values.to(rows.device)
        return ordered[:, places].contiguous()


def _moved(codebook: Tensor, ordered: Tensor, mass: Tensor, moment: Tensor) -> Tensor:
    """Return the codebook after one of Lloyd's rounds, ascending."""
    ends = torch.searchsorted(ordered, boundaries(codebook), right=True)
    most = torch.full_like(ends[:, :1], ordered.shape[1])
    ends = torch.cat([torch.zeros_like(most), ends, most], dim=1)
    of_mass, of_moment = (total.gather(1, ends).diff(dim=1) for total in (mass, moment))
    first = ordered.gather(1, ends[:, :-1].clamp(max=ordered.shape[1] - 1))
    last = ordered.gather(1, (ends[:, 1:] - 1).clamp(min=0))
    used = of_mass > 0
    mean = (of_moment / of_mass).to(codebook.dtype).clamp(first, last)  # the sums may be inexact
    moved = torch.where(used, mean, codebook)
    if used.all():
        return moved
    width = torch.where(used, of_mass * (last.double() - first), 0)
    place = ((~used).cumsum(1) - 1).clamp(min=0)
    widest = width.argsort(dim=1, descending=True, stable=True).gather(1, place)
    middle = boundaries(torch.stack([first, last], dim=-1).flatten(0, 1)).view_as(first)
    moved = torch.where(~used & (width.gather(1, widest) > 0), middle.gather(1, widest), moved)
    return moved.sort(1).values


def _looked_at(rows: Tensor, importance: Tensor) -> Tensor:
    """Return the weights; where the importance is 0, the largest of the others of the row, if there is one."""
    counts = importance > 0
    largest = rows.where(counts, -torch.inf).amax(1, keepdim=True)
    return rows.where(counts | largest.isinf(), largest)


def _running(ordered: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the sums of weight and of weight · value over the first 0 … n values of each row, (g, n + 1), float64."""
    mass = ordered.new_zeros(ordered.shape[0], ordered.shape[1] + 1, dtype=torch.float64)
    moment = torch.zeros_like(mass)
    if weights is None:
        mass = torch.arange(mass.shape[1], dtype=torch.float64, device=ordered.device).expand(len(ordered), -1)
        torch.cumsum(ordered, dim=1, dtype=torch.float64, out=moment[:, 1:])
    else:
        torch.cumsum(weights, dim=1, dtype=torch.float64, out=mass[:, 1:])
        torch.cumsum(weights.double() * ordered, dim=1, out=moment[:, 1:])
    return mass, moment
