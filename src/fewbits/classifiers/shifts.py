"""Estimates b of log Σ exp z − max z, from nothing to a few bits: what max-shift subtracts beside the maximum.

The true value lies in [0, log V]. Every estimate here is a function of the gaps max z − z_w, so that it stays when a
constant is added to all scores; and it is a number that is read, not a path for gradients.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from typing import Self

import numpy as np
import torch
from torch import Tensor

from fewbits.errors import FewbitsError
from fewbits.kernels.precision import at_least_float32

_ACCUMULATOR_BITS = 62  #: Σ2^z stays below 2^62, so that it and its comparisons fit int64
_MOST_FRACTION_BITS = 8


class Shift(ABC):
    """b(z), an estimate of log Σ exp z − max z.

    Calling it with logits (…, V), V ≥ 1, gives b in nats, (…, 1), float32 (float64 for float64 logits), without
    gradient. A row whose maximum is not finite (all −inf, a +inf, a NaN) has b = NaN, as log softmax has.
    """

    def __call__(self, logits: Tensor) -> Tensor:
        """Return b of each row of ``logits``."""
        if logits.dim() == 0 or logits.shape[-1] == 0:
            raise FewbitsError(f"logits are {tuple(logits.shape)}; a row of at least one score is needed.")
        z = at_least_float32(logits.detach())
        highest = z.amax(-1, keepdim=True)
        estimate = self._from_gaps((highest - z).nan_to_num(nan=torch.inf, posinf=torch.inf))
        return torch.where(highest.isfinite(), estimate.to(z.dtype), torch.nan)

    @abstractmethod
    def _from_gaps(self, gaps: Tensor) -> Tensor:
        """Return b, (…, 1), from max z − z_w ≥ 0, (…, V); at least one gap of a row is 0 if its maximum is finite."""


@dataclass(frozen=True)
class Constant(Shift):
    """The same b for every context; 0 is max-shift as the slides use it.

    It cannot be learned by the max-shift loss mean(max z − z_y + b): that falls with b without end (∂loss/∂b = +1).

    Raises:
        FewbitsError: If b is not finite.
    """

    b: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is no number."""
        if not math.isfinite(self.b):
            raise FewbitsError(f"b is {self.b}; a finite number is needed.")

    def _from_gaps(self, gaps: Tensor) -> Tensor:
        return torch.full_like(gaps[..., :1], self.b)


@dataclass(frozen=True)
class TopBit(Shift):
    """The position of the top bit of Σ 2^z, as in the slides' derivation, and more bits of its logarithm on request.

    b = ln 2 · ⌊2^f · log2 Σ_w 2^(−g_w)⌋ / 2^f, where g_w = round((max z − z_w) · log2 e) are whole numbers: f = 0 is
    the top bit alone. So 0 ≤ log2 Σ 2^−g − b / ln 2 < 2^−f: the slides' n ≤ log Σ ≤ n + 1, true in base 2, for the
    rounded scores. Rounding adds at most half a bit either way. A decoder needs shifts, additions and 2^f − 1
    comparisons.

    The sum is an integer below 2^62: a word counts if g ≤ R, R = 62 − (bits of V). All that fall out are together less
    than V · 2^−R of the sum: 2^−28 for 100,000 words.

    >>> two_equal, thousand_equal = torch.zeros(2), torch.zeros(1000)       # Σ is 2 and 1000 = 2^9.966
    >>> [round(TopBit(f)(z).item() / math.log(2), 4) for z in (two_equal, thousand_equal) for f in (0, 1, 4)]
    [1.0, 1.0, 1.0, 9.0, 9.5, 9.9375]

    Raises:
        FewbitsError: If fraction_bits is not a whole number from 0 to 8.
    """

    fraction_bits: int = 0

    def __post_init__(self) -> None:
        """Refuse what is no number of bits."""
        if not isinstance(self.fraction_bits, int) or not 0 <= self.fraction_bits <= _MOST_FRACTION_BITS:
            raise FewbitsError(f"fraction_bits is {self.fraction_bits}; 0 to {_MOST_FRACTION_BITS} are possible.")

    def _from_gaps(self, gaps: Tensor) -> Tensor:
        rounded = torch.round(gaps * math.log2(math.e)).clamp(max=_ACCUMULATOR_BITS)
        units: Tensor = log2_of_sum(rounded.long(), self.fraction_bits).double()
        return units.mul(math.log(2) / 2**self.fraction_bits)


def log2_of_sum(gaps: Tensor, fraction_bits: int = 0) -> Tensor:
    """Return ⌊2^f · log2 Σ_w 2^(−gap_w)⌋, (…, 1), from integer gaps ≥ 0, (…, V), one of them 0, by integers only.

    The sum is held with R = 62 − (bits of V) bits behind the point; words further below are 0. Its top bit is found by
    halving shifts; the next f bits of its logarithm are counted in 2^f − 1 thresholds ⌈2^(62 + i / 2^f)⌉.

    >>> log2_of_sum(torch.tensor([0, 1, 1]), 0).item(), log2_of_sum(torch.tensor([0, 1]), 4).item()
    (1, 9)
    >>> round(16 * math.log2(1.5), 4)
    9.3594
    """
    places = _ACCUMULATOR_BITS - gaps.shape[-1].bit_length()
    total = (gaps.new_tensor(1 << places) >> gaps.clamp(max=_ACCUMULATOR_BITS)).sum(-1, keepdim=True)
    top = torch.zeros_like(total)
    for step in (32, 16, 8, 4, 2, 1):
        top += step * (total >> (top + step) > 0)
    leading = total << (_ACCUMULATOR_BITS - top)
    thresholds = torch.tensor(_thresholds(fraction_bits), dtype=torch.int64, device=gaps.device)
    return ((top - places) << fraction_bits) + torch.bucketize(leading, thresholds, right=True)


@cache
def _thresholds(fraction_bits: int) -> tuple[int, ...]:
    """Return ⌈2^(62 + i / 2^f)⌉ for i = 1 … 2^f − 1, exactly: f square roots of whole numbers, each rounded up."""
    found = []
    for i in range(1, 2**fraction_bits):
        power = 2 ** (_ACCUMULATOR_BITS * 2**fraction_bits + i)
        for _ in range(fraction_bits):  # ⌈√⌈x⌉⌉ = ⌈√x⌉, so that rounding up at each root is exact
            power = math.isqrt(power - 1) + 1
        found.append(power)
    return tuple(found)


@dataclass(frozen=True)
class CountAbove(Shift):
    """The logarithm of the number of words within a margin of the best: b = ln #{w: max z − z_w < margin}.

    Comparisons and a count, no sum. Words at the maximum count as 1, so b ≥ 0, and b ≤ ln V.

    >>> round(CountAbove(1.0)(torch.tensor([5.0, 4.5, 4.0, 0.0])).item(), 4)           # ln 2: 4.0 is not within 1
    0.6931

    Raises:
        FewbitsError: If the margin is not above 0.
    """

    margin: float

    def __post_init__(self) -> None:
        """Refuse margins that no word is within."""
        if not self.margin > 0:
            raise FewbitsError(f"the margin is {self.margin}; it must be above 0, to count at least the best word.")

    def _from_gaps(self, gaps: Tensor) -> Tensor:
        return (gaps < self.margin).sum(-1, keepdim=True).to(gaps.dtype).log()


@dataclass(frozen=True)
class TopMargin(Shift):
    """The normaliser of the k best words alone: b = ln(1 + Σ_{i=2..k} exp(−(z_(1) − z_(i)))).

    For k = 2 this is the correction of the Jacobian logarithm; for k ≥ V it is exact; between, it grows with k. With
    so few terms an integer decoder takes each from a table over the gap; `TopBit` is what it can do without a table.

    >>> [round(TopMargin(k)(torch.tensor([2.0, 2.0, 1.0])).item(), 4) for k in (1, 2, 3)]     # 0, ln 2, ln(2 + 1/e)
    [0.0, 0.6931, 0.862]

    Raises:
        FewbitsError: If k is not a whole number of at least 1.
    """

    k: int

    def __post_init__(self) -> None:
        """Refuse what is no number of words."""
        if not isinstance(self.k, int) or self.k < 1:
            raise FewbitsError(f"k is {self.k}; a whole number of at least 1 is needed.")

    def _from_gaps(self, gaps: Tensor) -> Tensor:
        nearest = gaps.topk(min(self.k, gaps.shape[-1]), dim=-1, largest=False).values
        return nearest.neg().logsumexp(-1, keepdim=True)


@dataclass(frozen=True)
class Fitted(Shift):
    """A linear function of other estimates, fitted to the truth: b = intercept + Σ_i weight_i · feature_i(z).

    Without features it is the best constant: the mean of log Σ exp z − max z over the given rows.

    >>> logits = torch.tensor([[3.0, 3.0], [5.0, -torch.inf]])                 # log Σ exp z − max z = ln 2 and 0
    >>> round(Fitted.fit(logits).intercept, 4)
    0.3466
    >>> fitted = Fitted.fit(logits, (CountAbove(1.0),))                       # b = ln(count) says it all
    >>> abs(round(fitted.intercept, 6)), [round(w, 6) for w in fitted.weights]
    (0.0, [1.0])

    Raises:
        FewbitsError: If there are not as many weights as features.
    """

    intercept: float
    weights: tuple[float, ...] = ()
    features: tuple[Shift, ...] = ()

    def __post_init__(self) -> None:
        """Refuse weights without a feature, and features without a weight."""
        if len(self.weights) != len(self.features):
            raise FewbitsError(f"{len(self.weights)} weights for {len(self.features)} features; give one for each.")

    @classmethod
    def fit(cls, logits: Tensor, features: tuple[Shift, ...] = ()) -> Self:
        """Return the least-squares fit of b to log Σ exp z − max z over all rows of ``logits`` (…, V).

        Features that say the same get the smallest weights that fit (minimum norm).

        Raises:
            FewbitsError: If there are no rows, or a row has no finite maximum.
        """
        if logits.dim() == 0 or logits.numel() == 0:
            raise FewbitsError(f"logits are {tuple(logits.shape)}; at least one row of scores is needed to fit b.")
        z = logits.detach().double().reshape(-1, logits.shape[-1])
        highest = z.amax(-1)
        if not highest.isfinite().all():
            raise FewbitsError("a row of logits has no finite maximum, so b cannot be fitted; the model has diverged.")
        truth = z.logsumexp(-1) - highest
        columns = [torch.ones_like(truth), *(feature(z).squeeze(-1) for feature in features)]
        found = np.linalg.lstsq(torch.stack(columns, 1).cpu().numpy(), truth.cpu().numpy(), rcond=None)[0]
        return cls(float(found[0]), tuple(map(float, found[1:])), features)

    def _from_gaps(self, gaps: Tensor) -> Tensor:
        b = torch.full_like(gaps[..., :1], self.intercept)
        for weight, feature in zip(self.weights, self.features, strict=True):
            b = b + weight * feature._from_gaps(gaps)
        return b
