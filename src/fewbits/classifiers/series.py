"""Softmax with its exponential, and its logarithm, cut to a few terms of their Taylor series (claim M6)."""

import math
from enum import Enum, auto

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewbits.classifiers.classifier import Classifier
from fewbits.classifiers.temperature import fit_temperature
from fewbits.errors import FewbitsError
from fewbits.kernels.precision import at_least_float32


class Logarithm(Enum):
    """How log(T(z_w) / Σ T(z_v)) is computed; the slides give a series of ln and do not say of what."""

    EXACT = auto()  #: ln(T(z_w) / Σ T)
    OF_QUOTIENT = auto()  #: L(T(z_w) / Σ T − 1): the first line of the derivation, both functions cut
    OF_SUM = auto()  #: z_w − L(Σ T − 1): its later line, ln exp(z_w) = z_w, only the sum is cut


def exponential_series(x: Tensor, order: int, first: int = 0) -> Tensor:
    """Return T(x) = Σ x^n / n! for n from ``first`` (0 or 1) to ``order``, by Horner's rule.

    With first = 0 an even order is positive everywhere: where T_m has its least value T_m' = T_{m−1} = 0, so that
    T_m(x) = x^m / m! > 0 there. An odd order rises (its slope is an even order) through one root and is negative below
    it. With first = 1 both have the root 0: an odd order is negative for all x < 0, an even one between 0 and a second
    root below 0.

    >>> exponential_series(torch.tensor([-4.0, -1.0, 0.0, 1.0]), 2).tolist()
    [5.0, 0.5, 1.0, 2.5]
    >>> exponential_series(torch.tensor([-4.0, -1.0, 0.0, 1.0]), 2, first=1).tolist()
    [4.0, -0.5, 0.0, 1.5]
    """
    inner = torch.ones_like(x)
    for n in range(order, 1, -1):
        inner = 1 + x / n * inner
    return (1 - first) + x * inner


def logarithm_series(x: Tensor, order: int) -> Tensor:
    """Return L(x) = Σ (−1)^(n+1) x^n / n for n = 1 … ``order``: ln(1 + x) for −1 < x ≤ 1, a polynomial elsewhere.

    >>> [round(v, 4) for v in logarithm_series(torch.tensor([-0.5, 1.0, 9.0]), 3).tolist()]   # ln: −0.69, 0.69, 2.30
    [-0.6667, 0.8333, 211.5]
    """
    inner = torch.zeros_like(x)
    for n in range(order, 0, -1):
        inner = 1 / n - x * inner
    return x * inner


class TaylorSoftmax(Classifier):
    """p_w = T(z_w) / Σ_v T(z_v) with T the Taylor series of exp to some order and z = W h + b; O(H·V) a word.

    Order 2 is the Taylor softmax of de Brébisson and Vincent (2015); the slides write the series from n = 1.

    A probability (``is_positive``) is the quotient for even orders with first = 0, see :func:`exponential_series`, and
    for no other. Then ``log_prob`` is its exact logarithm. In the other cases terms can be negative; what then?

    - ``loss`` is the formula and nothing else: a negative quotient has the logarithm NaN, zero has −∞. No clamp: the
      loss turns non-finite and the trainer says so. The loss can also fall below 0, since negative terms of other words
      make the quotient exceed 1.
    - ``log_prob`` is log softmax(z / ``temperature``), since T stands for exp, and this sums to 1. The one
      temperature is fitted on the validation text by :meth:`fit_temperature`; until then it is 1. It is a buffer.
    - ``scores`` are the quotients, which order words as their logarithms would and exist for negative terms too.

    Under a cut logarithm ``scores`` are that formula. They are no log-probabilities, and the loss is no cross-entropy:
    OF_QUOTIENT has Σ_n (1 − p)^n / n, at most 1 + … + 1/order for a probability; OF_SUM has no lower bound.
    ``log_prob`` is as above, whatever the logarithm.

    Edge cases: T(0) = 0 for first = 1, so scores that are all zero give 0/0 = NaN in loss and scores. In float32 |z|
    above 2·10^5 overflows at order 8, an infinite z at every order: NaN. An empty batch has the loss NaN, as in torch.

    >>> taylor = TaylorSoftmax(4, 10, order=2)
    >>> torch.allclose(taylor.log_prob(torch.randn(3, 4)).exp().sum(-1), torch.ones(3))
    True
    >>> TaylorSoftmax(4, 10, order=2).is_probability, TaylorSoftmax(4, 10, order=3).is_probability
    (True, False)

    Raises:
        FewbitsError: If order is below 1 or first is neither 0 nor 1.
    """

    temperature: Tensor

    def __init__(
        self,
        hidden_size: int,
        vocabulary_size: int,
        *,
        order: int,
        first: int = 0,
        logarithm: Logarithm = Logarithm.EXACT,
    ) -> None:
        if order < 1 or first not in (0, 1):
            raise FewbitsError(
                f"a series from n = {first} to {order} was asked for; the first n must be 0 or 1, the last 1 or more."
            )
        super().__init__(hidden_size, vocabulary_size)
        self.output = nn.Linear(hidden_size, vocabulary_size)
        self.order, self.first, self.logarithm = order, first, logarithm
        self.is_positive = first == 0 and order % 2 == 0
        self.is_probability = self.is_positive and logarithm is Logarithm.EXACT
        self.register_buffer("temperature", torch.ones(()))

    def scores(self, hidden: Tensor) -> Tensor:
        """Return the formula's value of every word; for an exact logarithm of a signed series the quotient itself."""
        z, terms, total = self._parts(hidden)
        if self.logarithm is Logarithm.EXACT and not self.is_positive:
            return terms / total
        return self._logarithm(z, terms, total)

    def log_prob(self, hidden: Tensor) -> Tensor:
        """Return ln(T(z_w) / Σ T) where no term can be negative, else log softmax(z / temperature)."""
        z, terms, total = self._parts(hidden)
        if self.is_positive:
            return (terms / total).log().float()
        return F.log_softmax(z / self.temperature, dim=-1).float()

    def loss(self, hidden: Tensor, target: Tensor) -> Tensor:
        """Return the mean of minus the formula's logarithm, not finite where the formula is not."""
        z, terms, total = self._parts(hidden)
        word = target[..., None]
        return -self._logarithm(z.gather(-1, word), terms.gather(-1, word), total).mean()

    def fit_temperature(self, hidden: Tensor, target: Tensor) -> float:
        """Fit the temperature to ``hidden`` (…, H) and ``target`` (…), keep it, and return it.

        Raises:
            FewbitsError: If the series is a probability and has no temperature, there is no target, or a score is not
                finite.
        """
        if self.is_positive:
            raise FewbitsError("a series of even order from n = 0 is a probability; it has no temperature to fit.")
        self.temperature.fill_(fit_temperature(self._logits, hidden, target))
        return self.temperature.item()

    def _logits(self, hidden: Tensor) -> Tensor:
        return at_least_float32(self.output(hidden))

    def _parts(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z = self._logits(hidden)
        terms = exponential_series(z, self.order, self.first)
        return z, terms, terms.sum(-1, keepdim=True)

    def _logarithm(self, z: Tensor, terms: Tensor, total: Tensor) -> Tensor:
        if self.logarithm is Logarithm.OF_SUM:
            return z - logarithm_series(total - 1, self.order)
        if self.logarithm is Logarithm.OF_QUOTIENT:
            return logarithm_series(terms / total - 1, self.order)
        return (terms / total).log()


class PowerSoftmax(Classifier):
    """p_w = k^z_w / Σ_v k^z_v with z = W h + b: the slides' k^x; O(H·V) a word.

    k^z = exp(z · ln k), so this is softmax with the inverse temperature ln k: always a probability, and for a trained W
    no other model, only another scale of its weights at the start. Base 2 is what shifts compute.

    >>> power = PowerSoftmax(2, 3, base=2.0)
    >>> with torch.no_grad():
    ...     _ = power.output.weight.zero_(), power.output.bias.copy_(torch.tensor([0.0, 0.0, 1.0]))
    >>> [round(p, 4) for p in power.log_prob(torch.zeros(2)).exp().tolist()]       # 1 : 1 : 2
    [0.25, 0.25, 0.5]

    Raises:
        FewbitsError: If the base is not a number above 1, where k^z would not rise with z.
    """

    is_probability = True

    def __init__(self, hidden_size: int, vocabulary_size: int, *, base: float = 2.0) -> None:
        if not 1 < base < math.inf:
            raise FewbitsError(f"the base is {base:g}; it must be a number above 1, for k^z to rise with z.")
        super().__init__(hidden_size, vocabulary_size)
        self.output, self.base = nn.Linear(hidden_size, vocabulary_size), base

    def scores(self, hidden: Tensor) -> Tensor:
        """Return log-probabilities."""
        return self.log_prob(hidden)

    def log_prob(self, hidden: Tensor) -> Tensor:
        """Return z · ln k − ln Σ k^z in nats, in float32."""
        return F.log_softmax(self._exponent(hidden), dim=-1).float()

    def loss(self, hidden: Tensor, target: Tensor) -> Tensor:
        """Return the mean cross-entropy in nats."""
        return F.cross_entropy(self._exponent(hidden).reshape(-1, self.vocabulary_size), target.reshape(-1))

    def _exponent(self, hidden: Tensor) -> Tensor:
        return math.log(self.base) * at_least_float32(self.output(hidden))
