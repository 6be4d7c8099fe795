"""Uniform (linear) quantisation: equal steps."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fewbits.errors import FewbitsError
from fewbits.formats.codes import Codes, IntegerGrid
from fewbits.formats.packing import check_bits
from fewbits.formats.tiles import tilewise
from fewbits.quantizers.estimators import Estimator, StraightThrough
from fewbits.quantizers.granularity import Granularity, PerTensor
from fewbits.quantizers.quantizer import Quantizer
from fewbits.quantizers.ranges import LeastError, MinMax, MovingAverage, Range


@dataclass(frozen=True)
class Uniform(Quantizer):
    """Equal steps over the range of a group: 2^bits values, one less where symmetric (Jacob et al. 2018).

    The seminar's linear quantisation. Symmetric, over ±r with r the larger of −low and high: s = r / (2^(bits−1) − 1),
    q = s · clamp(round(w / s), ±(2^(bits−1) − 1)); the zero point is 0 and the most negative code is not used.
    Affine, over low … high widened to hold 0: s = (high − low) / (2^bits − 1), z = round(−2^(bits−1) − low / s),
    q = s · (clamp(round(w / s) + z) − z), so that 0 is exact; z is rounded, so the grid may lie up to half a step
    beside the range. Rounding is to nearest, ties to even. ``range`` gives low and high: by default the smallest and
    the largest weight. A range that holds only 0 has s = 1 and clips all weights to 0.

    >>> codes = Uniform(3).encode(torch.tensor([-0.6, 0.1, 0.9]))          # s = 0.9 / 3
    >>> codes.integers.tolist(), round(codes.tables["scale"].item(), 4)
    ([-2, 0, 3], 0.3)
    >>> codes = Uniform(2, symmetric=False).encode(torch.tensor([0.0, 1.0, 3.0]))
    >>> codes.integers.tolist(), codes.tables["zero_point"].tolist(), codes.decode().tolist()
    ([-2, -1, 1], [-2], [0.0, 1.0, 3.0])

    Raises:
        FewbitsError: If bits is not a whole number from 1 to 16, or 1 on a symmetric grid, which would hold only 0.
    """

    bits: int
    granularity: Granularity = PerTensor()
    symmetric: bool = True
    range: Range = MinMax()
    estimator: Estimator = StraightThrough()

    def __post_init__(self) -> None:
        """Refuse widths that have no grid."""
        super().__post_init__()
        if check_bits(self.bits) == 1 and self.symmetric:
            raise FewbitsError("a symmetric 1-bit grid holds only 0; use Binary() or Uniform(1, symmetric=False).")

    @property
    def minimises_error(self) -> bool:
        """Whether the range is searched for the least error."""
        return isinstance(self.range, LeastError)

    @property
    def _grid(self) -> IntegerGrid:
        half = 2 ** (self.bits - 1)
        return IntegerGrid(-half + self.symmetric, half - 1)

    def _encode(
        self, rows: Tensor, shape: torch.Size, importance: Tensor | None, generator: torch.Generator | None
    ) -> Codes:
        if rows.numel():
            low, high = self.range.ends(rows, self, importance)
        else:
            low = high = rows.new_zeros(len(rows))
        integers, tables = self._integers(rows, low, high)
        return Codes(integers.reshape(shape), self._grid, tables, len(rows), dtype=rows.dtype)

    def between(self, rows: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Return the values of ``rows`` (g, n) on the grid from ``low`` to ``high``, (g,) each."""
        integers, tables = self._integers(rows, low, high)
        return Codes(integers, self._grid, tables, len(rows), dtype=rows.dtype).decode()

    def _integers(self, rows: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        grid, wide = self._grid, torch.promote_types(rows.dtype, torch.float32)  # half precision lacks most integers
        if self.symmetric:
            scale = torch.maximum(high, -low) / grid.high
            zero_point = torch.zeros_like(scale)
        else:
            low, high = low.clamp_max(0), high.clamp_min(0)
            scale = (high - low) / (grid.high - grid.low)
            zero_point = torch.round(grid.low - low.to(wide) / _nonzero(scale)).clamp(grid.low, grid.high)
        # A range that holds only 0 clips everything to 0, also where it is not the range of all weights.
        step = torch.where(scale > 0, scale, torch.full_like(scale, torch.inf))
        room = torch.finfo(rows.dtype).max  # float16 has less than 16 bits of the steps between q and z

        def number(tile: Tensor, step: Tensor, zero_point: Tensor) -> Tensor:
            levels = torch.div(tile.to(wide), step[:, None]).round_()
            if room < grid.high - grid.low:
                levels.clamp_(-room, room)
            if not self.symmetric:
                levels.add_(zero_point[:, None])
            return levels.clamp_(grid.low, grid.high)

        integers = tilewise(number, grid.dtype, rows, step, zero_point)
        tables = {"scale": _nonzero(scale)}
        return integers, tables if self.symmetric else tables | {"zero_point": zero_point.to(grid.dtype)}


def follows(quantizer: Quantizer) -> bool:
    """Return whether the quantizer, of an activation, keeps a moving average of its range."""
    return isinstance(quantizer, Uniform) and isinstance(quantizer.range, MovingAverage)


def _nonzero(scale: Tensor) -> Tensor:
    return torch.where(scale > 0, scale, torch.ones_like(scale))
