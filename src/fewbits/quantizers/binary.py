"""Binary weights: −1 and +1, with or without a scale."""

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from fewbits.errors import FewbitsError
from fewbits.formats.codes import Codes, IntegerGrid
from fewbits.quantizers.estimators import Estimator, StraightThrough
from fewbits.quantizers.granularity import Granularity, PerTensor
from fewbits.quantizers.quantizer import Quantizer


class Scale(Enum):
    """What a binary code is multiplied with."""

    NONE = "none"  #: nothing: weights are −1 and +1, as in the seminar and in BinaryConnect
    MEAN_ABSOLUTE = "mean absolute"  #: α = mean |w| of the group, the least-squares choice (XNOR-Net, BWN)

    __repr__ = Enum.__str__


class Rounding(Enum):
    """How the sign is chosen in training."""

    DETERMINISTIC = "deterministic"  #: by the sign of w
    STOCHASTIC = "stochastic"  #: +1 with probability clip((w/H + 1)/2, 0, 1)

    __repr__ = Enum.__str__


@dataclass(frozen=True)
class Binary(Quantizer):
    """Two values, 1 bit (Courbariaux et al. 2015; the seminar's equations 1 and 2).

    Deterministic: q = +H if w ≥ 0, else −H (so 0 and −0 become +H).
    Stochastic: q = +H with probability clip((w/H + 1)/2, 0, 1), the hard sigmoid; with ``generator=None`` it answers
    deterministically. H is 1, mean |w| of the group, or a fixed number. ``importance`` d makes the mean
    Σ d |w| / Σ d, which minimises Σ d (w − H sign w)²: loss-aware binarisation with d = √v of Adam (Hou et al. 2017).

    >>> w = torch.tensor([-0.3, 0.0, 0.9])
    >>> Binary().encode(w).integers.tolist(), Binary().encode(w).bits
    ([-1, 1, 1], 3)
    >>> Binary(scale=Scale.MEAN_ABSOLUTE)(w)
    tensor([-0.4000,  0.4000,  0.4000])

    Raises:
        FewbitsError: If a fixed scale is not a positive, finite number.
    """

    scale: Scale | float = Scale.NONE
    rounding: Rounding = Rounding.DETERMINISTIC
    granularity: Granularity = PerTensor()
    estimator: Estimator = StraightThrough()

    def __post_init__(self) -> None:
        """Refuse a fixed scale that is none."""
        super().__post_init__()
        if not isinstance(self.scale, Scale) and not 0 < self.scale < float("inf"):
            raise FewbitsError(f"Binary(scale={self.scale!r}): a fixed scale is a positive number.")

    def _encode(
        self, rows: Tensor, shape: torch.Size, importance: Tensor | None, generator: torch.Generator | None
    ) -> Codes:
        scale = self._scale(rows, importance)
        positive = rows >= 0
        if self.rounding is Rounding.STOCHASTIC and generator is not None:
            unit = rows if scale is None else rows / scale[:, None].clamp_min(torch.finfo(scale.dtype).tiny)
            chance = torch.rand(rows.shape, generator=generator, device=rows.device, dtype=rows.dtype)
            positive = chance < ((unit + 1) / 2)
        integers = positive.to(torch.int8).mul_(2).sub_(1).reshape(shape)
        tables = {} if scale is None else {"scale": scale}
        return Codes(integers, IntegerGrid(-1, 1, 2), tables, len(rows), dtype=rows.dtype)

    @property
    def minimises_error(self) -> bool:
        """Whether H is read from the weights."""
        return self.scale is Scale.MEAN_ABSOLUTE

    def _scale(self, rows: Tensor, importance: Tensor | None) -> Tensor | None:
        if self.scale is Scale.NONE:
            return None
        if importance is not None:
            mass = importance.sum(1, dtype=torch.float64)
            moment = (importance.double() * rows.abs()).sum(1)
            return torch.where(mass > 0, moment / mass, 0).to(rows.dtype)
        if self.scale is Scale.MEAN_ABSOLUTE:
            return rows.abs().mean(dim=1) if rows.numel() else rows.new_zeros(len(rows))
        return rows.new_full((len(rows),), float(self.scale))
