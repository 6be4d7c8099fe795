"""One temperature for scores that have no scale of their own."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from scipy.optimize import brentq
from torch import Tensor

from fewbits.errors import FewbitsError

#: the range of temperatures that is searched: beyond it the model is as good as uniform, or as good as certain
COLDEST, HOTTEST = 1e-3, 1e3


def fit_temperature(logits: Callable[[Tensor], Tensor], hidden: Tensor, target: Tensor, *, rows: int = 1024) -> float:
    """Return the temperature τ that minimises the mean of −log softmax(z / τ)[target].

    A training loss that does not normalise leaves the scale of z open, so its perplexity says little; one number
    fitted on the validation text (Guo et al. 2017, "On Calibration of Modern Neural Networks") makes it comparable.
    The mean is convex in β = 1 / τ; its slope, the mean of E[z] − z_target under softmax(β z), is monotone, and its
    root is found by Brent's method. Without a root between 0.001 and 1000 the better end is returned.

    Args:
        logits: from rows of hidden states (n, H) to z (n, V).
        hidden: (…, H) hidden states.
        target: (…) word numbers.
        rows: rows of z held at a time.

    Raises:
        FewbitsError: If there are no targets, or a score is not finite.

    >>> z = torch.tensor([[3.0, 0.0], [3.0, 0.0], [3.0, 0.0], [3.0, 0.0]])        # right three times in four:
    >>> round(fit_temperature(lambda h: h, z, torch.tensor([0, 0, 0, 1])), 4)     # 3 / ln 3
    2.7307
    """
    hidden, target = hidden.reshape(-1, hidden.shape[-1]), target.reshape(-1)
    if not len(target):
        raise FewbitsError("a temperature cannot be fitted to no targets; give at least one.")

    def slope(beta: float) -> float:  # of the sum, which has the root of the mean
        total = 0.0
        for part, word in zip(hidden.split(rows), target.split(rows), strict=True):
            z = logits(part).double()
            expected = (F.softmax(beta * z, dim=-1) * z).sum(-1)
            total += (expected - z.gather(-1, word[:, None])[:, 0]).sum().item()
        return total

    with torch.no_grad():
        steepest, flattest = slope(1 / COLDEST), slope(1 / HOTTEST)
        if steepest != steepest or flattest != flattest:
            raise FewbitsError("the scores are not all finite, so no temperature fits them; the model has diverged.")
        if steepest <= 0:
            return COLDEST
        if flattest >= 0:
            return HOTTEST
        return 1 / float(brentq(slope, 1 / HOTTEST, 1 / COLDEST, rtol=1e-6))
