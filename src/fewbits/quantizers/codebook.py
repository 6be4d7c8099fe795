"""Codebook quantisation: each weight is one of 2^bits numbers, found by k-means."""

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from fewbits.errors import FewbitsError
from fewbits.formats.codes import Codes, IntegerGrid, Scheme
from fewbits.formats.tiles import blocks, tiles
from fewbits.quantizers.estimators import Estimator, StraightThrough
from fewbits.quantizers.granularity import Granularity, PerTensor
from fewbits.quantizers.nearest import boundaries, nearest
from fewbits.quantizers.quantizer import Quantizer
from fewbits.quantizers.sorting import ascending, running_sum


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

    bits: int
    start: Start = Start.LINEAR
    iterations: int = 100
    seed: int = 0  #: of a random start
    granularity: Granularity = PerTensor()
    estimator: Estimator = StraightThrough()

    def __post_init__(self) -> None:
        """Refuse widths without a codebook."""
        super().__post_init__()
        if not 1 <= self.bits <= 8:
            raise FewbitsError(f"Codebook({self.bits!r}): bits is a whole number from 1 to 8.")
        if self.iterations < 0:
            raise FewbitsError(f"Codebook(iterations={self.iterations!r}): a whole number of at least 0 is needed.")

    @property
    def minimises_error(self) -> bool:
        """Always."""
        return True

    def _encode(
        self, rows: Tensor, shape: torch.Size, importance: Tensor | None, generator: torch.Generator | None
    ) -> Codes:
        grid = IntegerGrid(0, 2**self.bits - 1)
        if not rows.numel():
            tables = {"codebook": rows.new_zeros(len(rows), grid.points)}
            return Codes(rows.to(grid.dtype).reshape(shape), grid, tables, len(rows), Scheme.CODEBOOK, rows.dtype)
        shares = [None] * len(blocks(rows)) if importance is None else blocks(importance)
        codebook = torch.cat([self._codebook(*part) for part in zip(blocks(rows), shares, strict=True)])
        integers = nearest(rows, codebook).to(grid.dtype)
        return Codes(integers.reshape(shape), grid, {"codebook": codebook}, len(rows), Scheme.CODEBOOK, rows.dtype)

    def _codebook(self, rows: Tensor, importance: Tensor | None) -> Tensor:
        """Return the numbers of each group in ascending order, (g, K)."""
        if importance is None:
            ordered, weights = ascending(rows), None
        else:
            rows = _looked_at(rows, importance)
            ordered, order = rows.sort(dim=1)
            weights = importance.gather(1, order)
        mass, moment = None if weights is None else _running(weights), _running(ordered, weights)
        codebook = self._start(rows, ordered)
        for _ in range(self.iterations):
            moved = _moved(codebook, ordered, mass, moment)
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


def _moved(codebook: Tensor, ordered: Tensor, mass: Tensor | None, moment: Tensor) -> Tensor:
    """Return the codebook after one of Lloyd's rounds, ascending."""
    ends = torch.searchsorted(ordered, boundaries(codebook), right=True)
    most = torch.full_like(ends[:, :1], ordered.shape[1])
    ends = torch.cat([torch.zeros_like(most), ends, most], dim=1)
    of_mass = (ends.double() if mass is None else mass.gather(1, ends)).diff(dim=1)
    of_moment = moment.gather(1, ends).diff(dim=1)
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


def _running(numbers: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the sums of the first 0 … n numbers of each row, each times its weight, (g, n + 1), float64."""
    sums = numbers.new_zeros(len(numbers), numbers.shape[1] + 1, dtype=torch.float64)
    for g, n in tiles(numbers):
        part = numbers[g, n].double() if weights is None else weights[g, n].double() * numbers[g, n]
        sums[g, n.start + 1 : n.stop + 1] = running_sum(sums[g, n.start, None], part)
    return sums
