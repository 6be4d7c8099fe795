"""How far the logarithm of the sum lies above the maximum on a text, and how near its estimates come (claim M7)."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from fewbits.classifiers import Fitted, TopBit

EDGES = torch.linspace(0, 1, 51)  #: of the histogram of (log Σ exp z − max z) / log V
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)  #: of the gap that are kept
FRACTION_BITS = (0, 1, 2, 3, 4)  #: f of `TopBit` whose errors are measured


def gap_statistics(logits: Iterable[Tensor], constant: float) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """Return numbers and lists on the gap log Σ exp z − max z, which lies between 0 and log V, in nats.

    The numbers: ``gap_mean``, ``gap_least``, ``gap_most``, ``gap_share`` (the mean as a share of log V), and the mean
    distance of the gap from b = 0 and from ``constant``: ``error_of_zero``, ``error_of_constant``. The lists: ``gap``,
    the counts of its histogram over `EDGES`; ``gap_quantiles`` at `QUANTILES`; ``error_by_fraction_bits``, its mean
    distance from `TopBit` with each of `FRACTION_BITS`.

    Args:
        logits: z in parts (rows, V) of one V, one row or more in all.
        constant: a b that was fitted on other text, see :func:`best_constant`.
    """
    gaps: list[Tensor] = []
    errors = torch.zeros(len(FRACTION_BITS), dtype=torch.float64)
    words = 1
    for z in logits:
        gap = z.double().logsumexp(-1) - z.amax(-1)
        gaps.append(gap)
        words = z.shape[-1]
        for place, bits in enumerate(FRACTION_BITS):
            errors[place] += (TopBit(bits)(z)[:, 0] - gap).abs().sum().item()
    gap = torch.cat(gaps).cpu()
    most = math.log(words) or 1.0  # one word has no gap, and no share of it
    arrays = {
        "gap": torch.histogram((gap / most).clamp(0, 1).float(), EDGES).hist.tolist(),
        "gap_quantiles": torch.quantile(gap, torch.tensor(QUANTILES, dtype=gap.dtype)).tolist(),
        "error_by_fraction_bits": (errors / len(gap)).tolist(),
    }
    metrics = {
        "gap_mean": gap.mean().item(),
        "gap_least": gap.min().item(),
        "gap_most": gap.max().item(),
        "gap_share": gap.mean().item() / most,
        "error_of_zero": gap.abs().mean().item(),
        "error_of_constant": (gap - constant).abs().mean().item(),
    }
    return metrics, arrays


def best_constant(logits: Iterable[Tensor]) -> float:
    """Return the b that is nearest to the gap of all rows in the least squares: their mean."""
    parts = [(len(z), Fitted.fit(z).intercept) for z in logits]
    return sum(rows * b for rows, b in parts) / sum(rows for rows, _ in parts)
