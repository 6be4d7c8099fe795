"""Max-shift: a classifier that subtracts the highest score instead of the logarithm of a sum of exponentials."""

from enum import Enum
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewbits.classifiers.classifier import Classifier
from fewbits.classifiers.shifts import Constant, Shift, log2_of_sum
from fewbits.classifiers.temperature import fit_temperature
from fewbits.errors import FewbitsError
from fewbits.kernels import max_shift_loss, max_shift_loss_of_logits
from fewbits.kernels.precision import at_least_float32

_ZERO = Constant(0.0)


class Gradient(Enum):
    """What "the forward softmax was replaced" means for training; s_w = z_w − max z − b, y the target, one row.

    The value of the loss is −s_y in all three. The shift b is read, never differentiated.
    """

    SOFTMAX = "softmax"
    """dL/dz_w = exp(z_w) / Σ_v exp z_v − [w = y]: only the value is max-shift, the model learns as with softmax."""

    UNNORMALISED = "unnormalised"
    """dL/dz_w = exp(s_w) − [w = y]: a program that has the gradient p − y by hand, and a new forward p. Over the words
    it sums to exp(log Σ exp z − max z − b) − 1, not to 0 as the other two: it also moves all scores together."""

    OWN = "own"
    """dL/dz_w = [w = w*] − [w = y], w* the highest word, the first of a tie: the score differentiated, which is the
    multiclass perceptron. 0 or 2 words a row; nothing where greedy decoding gives y."""


class MaxShift(Classifier):
    """s_w = z_w − max_v z_v − b(z) with z = W h + c; O(H·V) a word; `shifts` has the choices of b.

    ``scores`` are no log-probabilities: Σ_w exp s_w = exp(log Σ exp z − max z − b), and an estimate b makes that 1 only
    by chance, or where it is the exact logarithm after all (`TopMargin` of all words). The order of words does not
    depend on b, so greedy decoding is that of softmax: ``topk`` compares z itself, because rounding can make ties in s.

    ``log_prob`` is log softmax(z / τ). A model trained with `Gradient.OWN` leaves the scale of z open: fit τ by
    `fit_temperature` on validation text; it is 1 before, and saved with the model.

    A row whose maximum is not finite has scores NaN for a finite word, as log softmax has. An empty batch has a loss of
    NaN, the mean of nothing.

    >>> classifier = MaxShift(2, 3, Constant(0.5))
    >>> with torch.no_grad():
    ...     _ = classifier.output.weight.zero_(), classifier.output.bias.copy_(torch.tensor([1.0, 3.0, 2.0]))
    >>> classifier.scores(torch.zeros(2)).tolist(), classifier.loss(torch.zeros(1, 2), torch.tensor([2])).item()
    ([-2.5, -0.5, -1.5], 1.5)

    Raises:
        FewbitsError: If there is no word.
    """

    is_probability = False
    temperature: Tensor

    def __init__(
        self,
        hidden_size: int,
        vocabulary_size: int,
        shift: Shift = _ZERO,
        gradient: Gradient = Gradient.OWN,
    ) -> None:
        if vocabulary_size < 1:
            raise FewbitsError(f"vocabulary_size is {vocabulary_size}; a classifier needs at least one word.")
        super().__init__(hidden_size, vocabulary_size)
        self.output = nn.Linear(hidden_size, vocabulary_size)
        self.shift, self.gradient = shift, gradient
        self.register_buffer("temperature", torch.ones(()))

    def logits(self, hidden: Tensor) -> Tensor:
        """Return z, (…, V), in at least float32."""
        return at_least_float32(self.output(hidden))

    def scores(self, hidden: Tensor) -> Tensor:
        """Return z − max z − b."""
        z = self.logits(hidden)
        return z - z.amax(-1, keepdim=True) - self.shift(z)

    def topk(self, hidden: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Return the k highest scores and their words, (…, k) each, best first, in the order of z."""
        z = self.logits(hidden)
        values, words = torch.topk(z, k, dim=-1)
        return values - z.amax(-1, keepdim=True) - self.shift(z), words

    def log_prob(self, hidden: Tensor) -> Tensor:
        """Return log softmax(z / τ)."""
        return F.log_softmax(self.logits(hidden) / self.temperature, dim=-1)

    def nll(self, hidden: Tensor, target: Tensor) -> Tensor:
        """Return −log p(target) without keeping the log-probabilities of all words."""
        z = (self.logits(hidden) / self.temperature).reshape(-1, self.vocabulary_size)
        return F.cross_entropy(z, target.reshape(-1), reduction="none").view_as(target)

    def loss(self, hidden: Tensor, target: Tensor) -> Tensor:
        """Return the mean of max z + b − z_target, with the gradient that ``gradient`` says.

        With `Gradient.OWN` and a constant b the logits are never stored: see `fewbits.kernels.max_shift_loss`.
        """
        if self.gradient is Gradient.OWN and isinstance(self.shift, Constant):
            return max_shift_loss(hidden, self.output.weight, self.output.bias, target) + self.shift.b
        z = at_least_float32(self.output(hidden)).reshape(-1, self.vocabulary_size)
        b = self.shift(z)
        value = max_shift_loss_of_logits(z, target.reshape(-1)) + b.mean()
        if self.gradient is Gradient.OWN:
            return value
        if self.gradient is Gradient.SOFTMAX:
            surrogate = F.cross_entropy(z, target.reshape(-1))
        else:
            free = (z - z.detach().amax(-1, keepdim=True) - b).exp().sum(-1)
            surrogate = (free - z.gather(1, target.reshape(-1, 1)).squeeze(1)).mean()
        loss: Tensor = _WithGradientOf.apply(value, surrogate)
        return loss

    def fit_temperature(self, hidden: Tensor, target: Tensor) -> float:
        """Set τ to the temperature that minimises the mean of ``nll`` on ``hidden`` (…, H), ``target`` (…); return it.

        Raises:
            FewbitsError: If there are no targets, or a score is not finite.
        """
        found = fit_temperature(self.logits, hidden, target)
        self.temperature.fill_(found)
        return found


class IntegerMaxShift(MaxShift):
    """Max-shift in integers, as the slides derive it: q = round(z · 2^s), score = q_w − ⌊log2 Σ_v 2^q_v⌋, in 2^−s.

    The sum is over 2^q, with the scaled q as exponents. So 0 ≤ n − max q ≤ log2 V for its top bit n, and the larger the
    scale, the less of it is left beside the maximum: one word at a distance of 2^−s halves or doubles the sum.
    ``fraction_bits`` f more bits of the logarithm are kept (`log2_of_sum`). The scores times ln 2 · 2^s are
    log-probabilities, up to 2^−f bit, of the model 2^q / Σ 2^q, which is softmax(z) for s = 0 and z in bits.

    Rounding is to nearest, ties to even; q saturates at ±2^30. Words whose logits lie within one step of 2^−s can
    become equal: then the lowest word number comes first, and greedy decoding may differ from that of softmax.

    ``log_prob`` is log softmax(2^−s · q / τ), of the rounded logits. Training is that of `MaxShift` on the float logits
    with b = 0: rounding has no gradient of its own.

    >>> classifier = IntegerMaxShift(2, 3, scale_bits=1)
    >>> with torch.no_grad():
    ...     _ = classifier.output.weight.zero_(), classifier.output.bias.copy_(torch.tensor([1.2, 0.9, -3.0]))
    >>> classifier.integer_scores(torch.zeros(2)).tolist()                     # q = 2, 2, −6; n = 3, by the two equal
    [-1, -1, -9]
    >>> classifier.scores(torch.zeros(2)).tolist()
    [-0.5, -0.5, -4.5]

    Raises:
        FewbitsError: If scale_bits is not a whole number from −16 to 16, fraction_bits not one from 0 to 8.
    """

    def __init__(
        self,
        hidden_size: int,
        vocabulary_size: int,
        scale_bits: int = 0,
        fraction_bits: int = 0,
        gradient: Gradient = Gradient.OWN,
    ) -> None:
        for name, bits, low, high in (("scale", scale_bits, -16, 16), ("fraction", fraction_bits, 0, 8)):
            if not isinstance(bits, int) or not low <= bits <= high:
                raise FewbitsError(f"{name}_bits is {bits}; a whole number from {low} to {high} is needed.")
        super().__init__(hidden_size, vocabulary_size, gradient=gradient)
        self.scale_bits, self.fraction_bits = scale_bits, fraction_bits

    def integers(self, hidden: Tensor) -> Tensor:
        """Return q = round(z · 2^s), (…, V), int64, within ±2^30.

        Raises:
            FewbitsError: If a logit is NaN, which no integer stands for.
        """
        z = super().logits(hidden)
        if z.isnan().any():
            raise FewbitsError("a logit is NaN, which no integer stands for; the model has diverged.")
        return torch.round(z * 2.0**self.scale_bits).clamp(-(2.0**30), 2.0**30).long()

    def integer_scores(self, hidden: Tensor) -> Tensor:
        """Return (q − max q) · 2^f − ⌊2^f · log2 Σ 2^(q − max q)⌋, (…, V), int64: scores in units of 2^−(s + f)."""
        return self._integer_scores(self.integers(hidden))

    def _integer_scores(self, q: Tensor) -> Tensor:
        gaps = q.amax(-1, keepdim=True) - q
        return (-gaps << self.fraction_bits) - log2_of_sum(gaps, self.fraction_bits)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the rounded logits q · 2^−s, (…, V), in at least float32, without gradient."""
        dtype = torch.promote_types(self.output.weight.dtype, torch.float32)
        return self.integers(hidden).to(dtype) * 2.0**-self.scale_bits

    def scores(self, hidden: Tensor) -> Tensor:
        """Return the integer scores times 2^−(s + f), in float32."""
        return self.integer_scores(hidden).float() * 2.0 ** -(self.scale_bits + self.fraction_bits)

    def topk(self, hidden: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Return the k highest scores and their words, (…, k) each; of a tie the lowest word number first."""
        scores = self.integer_scores(hidden)
        numbers = torch.arange(self.vocabulary_size, device=scores.device)
        words = torch.topk(scores * self.vocabulary_size - numbers, k, dim=-1).indices
        units = 2.0 ** -(self.scale_bits + self.fraction_bits)
        return scores.gather(-1, words).float() * units, words


class _WithGradientOf(torch.autograd.Function):
    """The value of one number with the gradient of another; their difference would not do where both are infinite."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, surrogate: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        return None, grad
