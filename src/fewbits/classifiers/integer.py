"""I-BERT's softmax: a polynomial, shifts and one division, in integers all through."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewbits.classifiers.classifier import Classifier
from fewbits.errors import FewbitsError

A, B, C = 0.35815147, 0.96963238, 1.0  #: exp(r) ≈ A r² + B r + C for −ln 2 < r ≤ 0
SHIFTS = 30  #: x is clipped at −30 ln 2
MAGNITUDE = 15  #: bits of an exponential before the division: 16 with the sign
RECIPROCAL = 32  #: the reciprocal of the sum is 2^32 / sum


def integer_exp(x: Tensor, scale: float) -> Tensor:
    """Return integers in proportion to exp(scale · x) for integers x ≤ 0, as I-BERT computes it (Kim et al. 2021).

    With s = scale, all in integers: x is clipped at 30·⌊−ln 2 / s⌋; q = ⌊x / ⌊−ln 2 / s⌋⌋ and the rest r, so that
    exp(s x) = 2^−q exp(s r) with −ln 2 < s r ≤ 0, nearly; P(r) = r·(r + ⌊B/(A s)⌋) + ⌊C/(A s²)⌋ ≈ exp(s r) / (A s²);
    the result is P(r)·2^(30−q). It is positive, since x is clipped, and ⌊C/(A s²)⌋·2^30 for x = 0.

    Three errors: the polynomial's, at most 0.34 % of exp(s r); ln 2 rounded up to a multiple of s, which makes the
    result too large by a factor of at most exp(q·s); the two floors, at most A·s·(s + ln 2) of 1.

    Args:
        x: int64 of any shape, nowhere above 0.
        scale: s, the value of one unit of x: from 2^−14 to 1/2.

    Raises:
        FewbitsError: If scale is out of range: above, ln 2 is no multiple worth the name; below, int64 overflows.

    >>> units = torch.tensor([0, -1, -10])
    >>> for scale in (1 / 1024, 1 / 16):                           # exp(−1) = 0.367879, exp(−10) = 0.000045
    ...     exponentials = integer_exp((units / scale).long(), scale).double()
    ...     print([round(e, 6) for e in (exponentials / exponentials[0]).tolist()])
    [1.0, 0.36819, 4.6e-05]
    [1.0, 0.390756, 9.5e-05]
    """
    if not 2**-14 <= scale <= 0.5:
        raise FewbitsError(f"the scale is {scale:g}; one unit of the input may stand for 2^-14 to 1/2.")
    period = math.floor(-math.log(2) / scale)
    x = x.clamp(min=SHIFTS * period)
    q = torch.div(x, period, rounding_mode="floor")
    r = x - q * period
    polynomial: Tensor = r * (r + math.floor(B / (A * scale))) + math.floor(C / (A * scale**2))
    return polynomial << (SHIFTS - q)


def integer_softmax(x: Tensor, scale: float, output_bits: int = 16) -> Tensor:
    """Return softmax(scale · x) over the last dimension, in units of 2^−output_bits, from integers by integers.

    The row's maximum is subtracted; the exponentials of :func:`integer_exp` lose their low bits until the greatest has
    15; f = ⌊2^32 / Σ e⌋ and the result is ⌊e·f / 2^(32 − output_bits)⌋. These are I-BERT's steps, but its rescaling to
    16 bits has a range that is learned in training, and here it is the one that exists. Every step rounds down, so a
    row sums to 1 at most. The sum grows with V: for V equal scores f is at most 2^18 / V, and 0 from a V between 2^17
    and 2^18 on.

    Args:
        x: int64, (…, V).
        scale: s, the value of one unit of x.
        output_bits: fraction bits of the result, 1 to 32.

    Raises:
        FewbitsError: If output_bits or scale is out of range.

    >>> integer_softmax(torch.tensor([0, 0, -1024]), 1 / 1024, output_bits=8).tolist()    # 108.1, 108.1, 39.8
    [108, 108, 39]
    """
    if not 1 <= output_bits <= RECIPROCAL:
        raise FewbitsError(f"output_bits is {output_bits}; the reciprocal has 32 bits, so give 1 to 32.")
    wide = integer_exp(x - x.amax(-1, keepdim=True), scale)
    greatest = math.floor(C / (A * scale**2)).bit_length() + SHIFTS
    exponentials = wide >> (greatest - MAGNITUDE)
    factor: Tensor = 2**RECIPROCAL // exponentials.sum(-1, keepdim=True)
    return (exponentials * factor) >> (RECIPROCAL - output_bits)


class IntegerSoftmax(Classifier):
    """The softmax of I-BERT as a classifier, for comparison: z = W h + b in units of ``scale``, the rest in integers.

    ``scores`` are the logarithms of what :func:`integer_softmax` returns, −∞ where that is 0, and do not sum to 1, so
    ``is_probability`` is false. ``log_prob`` normalises the exponentials of :func:`integer_exp` exactly: they are all
    positive, at least about 2^−30 of the greatest. Integers have no gradient: ``loss`` is the exact cross-entropy of z,
    the one of :class:`~fewbits.classifiers.softmax.Softmax`, and this class another way to read the same weights.

    z is rounded to the nearest multiple of scale, ties to even, and saturates at 32 bits, infinities too. Equal scores
    share what there is; V = 1 has log p = 0. O(H·V) a word.

    >>> classifier = IntegerSoftmax(2, 3)
    >>> torch.allclose(classifier.log_prob(torch.ones(2)).exp().sum(), torch.ones(()))
    True

    Raises:
        FewbitsError: If scale or output_bits is out of range, or a score is not a number.
    """

    is_probability = False

    def __init__(self, hidden_size: int, vocabulary_size: int, *, scale: float = 2**-10, output_bits: int = 16) -> None:
        super().__init__(hidden_size, vocabulary_size)
        integer_softmax(torch.zeros(1, 1, dtype=torch.int64), scale, output_bits)
        self.output = nn.Linear(hidden_size, vocabulary_size)
        self.scale, self.output_bits = scale, output_bits

    def scores(self, hidden: Tensor) -> Tensor:
        """Return the logarithm of the integer softmax, in float32; −∞ where it is 0."""
        units = integer_softmax(self._integers(hidden), self.scale, self.output_bits)
        return (units.double() / (1 << self.output_bits)).log().float()

    def log_prob(self, hidden: Tensor) -> Tensor:
        """Return log(e_w / Σ e) of the integer exponentials, normalised in float64, in float32."""
        x = self._integers(hidden)
        exponentials = integer_exp(x - x.amax(-1, keepdim=True), self.scale).double()
        return (exponentials / exponentials.sum(-1, keepdim=True)).log().float()

    def loss(self, hidden: Tensor, target: Tensor) -> Tensor:
        """Return the mean cross-entropy of the exact softmax, in nats."""
        return F.cross_entropy(self.output(hidden).reshape(-1, self.vocabulary_size), target.reshape(-1))

    def _integers(self, hidden: Tensor) -> Tensor:
        z = self.output(hidden).detach().double()
        if z.isnan().any():
            raise FewbitsError("a score is not a number (NaN), and integers have none; look at the hidden states.")
        return torch.round(z / self.scale).clamp(-(2**31), 2**31 - 1).to(torch.int64)
