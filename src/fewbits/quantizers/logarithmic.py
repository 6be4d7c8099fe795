"""Logarithmic quantisation: every weight a power of two, so that products are shifts."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fewbits.errors import FewbitsError
from fewbits.formats.codes import Codes, IntegerGrid, Scheme
from fewbits.formats.power_of_two import nearest_power_of_two
from fewbits.formats.tiles import tilewise
from fewbits.quantizers.estimators import Estimator, StraightThrough
from fewbits.quantizers.granularity import Granularity, PerTensor
from fewbits.quantizers.nearest import boundaries, place
from fewbits.quantizers.quantizer import Quantizer


@dataclass(frozen=True)
class Logarithmic(Quantizer):
    """0 and ±s · base^−j, j = 0, 1, …, 2^(bits−1) − 2, with s a power of two (Miyashita et al. 2016).

    s = 2^round(log2 max |w|) of the group (Shift). A weight goes to the nearest level in value, of two equally near the
    one nearer to 0; rounding log |w| instead, as Miyashita et al. do, moves the boundary between two powers from 3/2 to
    √2 of the lower one and raises the squared error. The base is 2, or √2 with ``root``, where every second level is a
    power of two and the others are √2 times one. A group of zeros has s = 1.

    With base 2 a product x · q is a shift of x by j + const bits and a sign, exact in fixed point.

    >>> codes = Logarithmic(3).encode(torch.tensor([0.9, -0.4, 0.1, 0.26]))     # s = 1; ±1, ±1/2, ±1/4, 0
    >>> codes.integers.tolist(), codes.decode().tolist()
    ([3, -2, 0, 1], [1.0, -0.5, 0.0, 0.25])

    Raises:
        FewbitsError: If bits is not a whole number from 2 to 8, or the power above the largest weight overflows.
    """

    bits: int
    root: bool = False  #: whether the base is √2
    granularity: Granularity = PerTensor()
    estimator: Estimator = StraightThrough()

    def __post_init__(self) -> None:
        """Refuse widths without levels."""
        super().__post_init__()
        if not 2 <= self.bits <= 8:
            raise FewbitsError(f"Logarithmic({self.bits!r}): bits is a whole number from 2 to 8.")

    def _encode(
        self, rows: Tensor, shape: torch.Size, importance: Tensor | None, generator: torch.Generator | None
    ) -> Codes:
        high = 2 ** (self.bits - 1) - 1
        grid = IntegerGrid(-high, high)
        scheme = Scheme.ROOT_POWERS if self.root else Scheme.POWERS
        largest = torch.maximum(rows.amax(1), -rows.amin(1)) if rows.numel() else rows.new_zeros(len(rows))
        scale = nearest_power_of_two(largest.where(largest > 0, torch.ones_like(largest)))
        steps = torch.arange(high + 1, dtype=grid.dtype, device=rows.device).expand(len(rows), -1)
        levels = Codes(steps.contiguous(), grid, {"scale": scale}, len(rows), scheme, rows.dtype).decode()
        integers = tilewise(_signed, grid.dtype, rows, boundaries(levels))
        return Codes(integers.reshape(shape), grid, {"scale": scale}, len(rows), scheme, rows.dtype)


def _signed(rows: Tensor, between: Tensor) -> Tensor:
    return rows.sign() * place(rows.abs(), between)  # at most 127, and 0 for 0
