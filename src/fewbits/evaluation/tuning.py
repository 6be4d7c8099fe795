"""What a number of tries buys: the expected best of them."""

from collections.abc import Sequence

import numpy as np

from fewbits.errors import FewbitsError


def expected_best(values: Sequence[float]) -> list[float]:
    """Return the expected minimum of 1, 2, … N tries, estimated from N tries (Dodge et al. 2019).

    n tries are drawn with replacement from ``values``: with v₁ ≤ … ≤ v_N,
    E = Σ_i v_i · [((N − i + 1) / N)ⁿ − ((N − i) / N)ⁿ]. So methods that had different numbers of tries can be compared
    at equal ones. An infinite value, a try that diverged, makes the expectation infinite.

    >>> [round(each, 3) for each in expected_best([3.0, 1.0, 2.0])]
    [2.0, 1.556, 1.333]

    Raises:
        FewbitsError: If there is no value, or one is NaN.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    n = len(ordered)
    if not n or np.isnan(ordered).any():
        raise FewbitsError("the expected best needs one try at least, and a number for each (infinity if it diverged).")
    left = np.arange(n, -1, -1) / n  # share of tries that are no better than the i-th, i = 0 … N
    tries = np.arange(1, n + 1)[:, None]
    chances = left[:-1] ** tries - left[1:] ** tries
    return [float(each) for each in (chances * ordered).sum(axis=1)]
