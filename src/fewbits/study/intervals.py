"""Two-sided 95 % intervals: of a mean, of differences of means and of pairs, of a ratio, of a rank correlation.

One sample a seed. With a single sample there is no interval: ``low`` and ``high`` are then the mean, and ``n`` says so.
Samples that are not finite give bounds that are not finite either, never an error.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A number, its 95 % interval, and how many samples the smaller side had."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        """Write ``mean [low, high], n = …``, without the interval where there is none."""
        bounds = f" [{self.low:.5g}, {self.high:.5g}]" if self.n > 1 else ""
        return f"{self.mean:.5g}{bounds}, n = {self.n}"


def mean(sample: Sequence[float]) -> Estimate:
    """Estimate the mean: x̄ ± t(0.975, n − 1)·s/√n (Student's interval).

    >>> print(mean([1.0, 2.0, 3.0]))
    2 [-0.48414, 4.4841], n = 3
    """
    n = len(sample)
    return _interval(float(np.mean(sample)), _squared_error(sample), n - 1, n)


def difference(left: Sequence[float], right: Sequence[float]) -> Estimate:
    """Estimate mean(left) − mean(right) for unequal variances (Welch's interval, Welch–Satterthwaite degrees)."""
    center = float(np.mean(left)) - float(np.mean(right))  # inf - inf is nan, without numpy's warning
    errors = np.array([_squared_error(left), _squared_error(right)])
    sizes = np.array([len(left), len(right)])
    degrees = 0.0
    if sizes.min() > 1 and errors.sum() > 0:
        degrees = float(errors.sum() ** 2 / (errors**2 / (sizes - 1)).sum())
    return _interval(center, float(errors.sum()), degrees, int(sizes.min()))


def paired_difference(left: Sequence[float], right: Sequence[float]) -> Estimate:
    """Estimate the mean of left − right over pairs, as of one seed: what both sides share does not widen the interval.

    >>> print(paired_difference([1.0, 12.0, 23.0], [0.0, 10.0, 20.0]))
    2 [-0.48414, 4.4841], n = 3

    Raises:
        ValueError: If there are not as many on both sides.
    """
    return mean([a - b for a, b in zip(left, right, strict=True)])


def ratio(left: Sequence[float], right: Sequence[float]) -> Estimate:
    """Estimate left / right on the log scale: exp of Welch's interval, around the quotient of the geometric means.

    Zero and negative samples have no logarithm; the bounds are then not finite.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = difference(np.log(left).tolist(), np.log(right).tolist())
        return Estimate(float(np.exp(logs.mean)), float(np.exp(logs.low)), float(np.exp(logs.high)), logs.n)


def rank_correlation(left: Sequence[float], right: Sequence[float]) -> Estimate:
    """Estimate Spearman's ρ of pairs: tanh(artanh ρ ± 1.96·√(1.06 / (n − 3))) (Fieller, Hartley and Pearson 1957).

    Below four pairs the interval is all of −1 to 1, and below two ρ is not a number. Where the ranks agree completely,
    ρ counts as half a step of its scale below 1 in the bounds, so that a few pairs prove nothing. Without a rank order
    on one side ρ is not a number.

    >>> print(rank_correlation([1, 2, 3, 4, 5, 6], [1, 2, 3, 5, 4, 6]))
    0.94286 [0.53573, 0.99429], n = 6

    Raises:
        ValueError: If there are not as many on both sides.
    """
    pairs = np.array([left, right], dtype=np.float64)
    n = pairs.shape[1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.ConstantInputWarning)
        rho = float(stats.spearmanr(*pairs).statistic) if n > 1 else math.nan
    if n < 4:
        return Estimate(rho, -1.0, 1.0, n)
    most = 1 - 3 / (n * (n**2 - 1))
    reach = float(special.ndtri((1 + LEVEL) / 2)) * (1.06 / (n - 3)) ** 0.5
    center = np.arctanh(np.clip(rho, -most, most))
    return Estimate(rho, float(np.tanh(center - reach)), float(np.tanh(center + reach)), n)


def _squared_error(sample: Sequence[float]) -> float:
    """Return the squared standard error s²/n of the mean; 0 for one sample."""
    with np.errstate(invalid="ignore"):
        return float(np.var(sample, ddof=1)) / len(sample) if len(sample) > 1 else 0.0


def _interval(center: float, squared_error: float, degrees: float, n: int) -> Estimate:
    if n == 1 or squared_error == 0:
        return Estimate(center, center, center, n)
    reach = float(special.stdtrit(degrees, (1 + LEVEL) / 2)) * squared_error**0.5
    return Estimate(center, center - reach, center + reach, n)
