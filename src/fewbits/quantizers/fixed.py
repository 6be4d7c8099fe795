"""Fixed point as a quantizer: the same steps for every tensor."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fewbits.errors import FewbitsError
from fewbits.formats.codes import Codes, IntegerGrid
from fewbits.formats.fixed_point import FixedPoint
from fewbits.formats.tiles import tilewise
from fewbits.quantizers.estimators import Estimator, StraightThrough
from fewbits.quantizers.granularity import PerTensor
from fewbits.quantizers.quantizer import Quantizer

MOST_BITS = 16  #: what every storage takes


@dataclass(frozen=True)
class Fixed(Quantizer):
    """Qm.f with two copies of the weights (Stromatias et al. 2015): clip(round(w · 2^f), ±(2^(m+f) − 1)) / 2^f.

    The rounded copy goes forward, the gradient changes the float copy: that is the straight-through estimator.
    Nothing is read from the weights, so the step is the same for all; what does not fit saturates. 1 + m + f bits with
    the sign. Q(w, k) of WAGE (Wu et al. 2018) is Fixed(0, k − 1). Ties go to even. In a type that has no room for the
    ends, what does not fit becomes the largest number of the format that the type holds: rounded weights always fit.

    >>> Fixed(0, 2).encode(torch.tensor([0.3, -0.8, 5.0])).integers.tolist(), Fixed(0, 2)(torch.tensor(0.3)).item()
    ([1, -3, 3], 0.25)

    Raises:
        FewbitsError: If the bits are no whole numbers from 0, or not 2 to 16 with the sign.
    """

    integer_bits: int  #: m, bits before the point, without the sign
    fraction_bits: int  #: f, bits after the point
    estimator: Estimator = StraightThrough()
    granularity = PerTensor()

    def __post_init__(self) -> None:
        """Refuse formats that do not exist."""
        super().__post_init__()
        if self._format.bits > MOST_BITS:
            raise FewbitsError(f"{self} has {self._format.bits} bits with its sign; codes have 2 to {MOST_BITS}.")

    @property
    def _format(self) -> FixedPoint:
        return FixedPoint(self.integer_bits, self.fraction_bits, symmetric=True)

    def _encode(
        self, rows: Tensor, shape: torch.Size, importance: Tensor | None, generator: torch.Generator | None
    ) -> Codes:
        end = 2 ** (self.integer_bits + self.fraction_bits)
        grid = IntegerGrid(1 - end, end - 1)
        largest = end - max(1, int(end * torch.finfo(rows.dtype).eps / 2))  # below a power of two numbers lie this near
        wide = torch.promote_types(rows.dtype, torch.float32)  # holds every number of the format

        def rounded(tile: Tensor) -> Tensor:
            return (tile.to(wide) * 2.0**self.fraction_bits).round_().clamp_(-largest, largest)

        integers = tilewise(rounded, grid.dtype, rows)
        scale = rows.new_full((len(rows),), self._format.unit)
        return Codes(integers.reshape(shape), grid, {"scale": scale}, len(rows), dtype=rows.dtype)
