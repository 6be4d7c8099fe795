"""Max-shift in integers, against exact rationals and scipy."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from torch import Tensor

from fewbits.classifiers import Gradient, IntegerMaxShift, MaxShift
from fewbits.errors import FewbitsError

HIDDEN, VOCABULARY = 5, 13
INF = float("inf")


def with_logits(classifier: MaxShift, z: list[float]) -> MaxShift:
    """The classifier whose logits are ``z`` for the hidden state 0."""
    with torch.no_grad():
        classifier.output.weight.zero_()
        classifier.output.bias.copy_(torch.tensor(z))
    return classifier


@pytest.fixture
def hidden() -> Tensor:
    return 3 * torch.randn(4, 2, HIDDEN, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture
def target() -> Tensor:
    return torch.randint(VOCABULARY, (4, 2), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("fraction_bits", [0, 1, 4])
@pytest.mark.parametrize("scale_bits", [-1, 0, 3])
def test_integer_scores_are_those_of_exact_arithmetic(scale_bits, fraction_bits, hidden):
    classifier = IntegerMaxShift(HIDDEN, VOCABULARY, scale_bits, fraction_bits)
    found = classifier.integer_scores(hidden.float())
    assert found.dtype == torch.int64
    z = classifier.output(hidden.float()).detach().view(-1, VOCABULARY)
    for row, scores in zip(z, found.view(-1, VOCABULARY), strict=True):
        q = [round(Fraction(value) * Fraction(2) ** scale_bits) for value in row.tolist()]  # ties to even
        power, top = sum((Fraction(2) ** v for v in q), Fraction(0)) ** 2**fraction_bits, max(q) * 2**fraction_bits
        while Fraction(2) ** (top + 1) <= power:
            top += 1
        assert scores.tolist() == [v * 2**fraction_bits - top for v in q]
    units = 2.0 ** -(scale_bits + fraction_bits)
    assert torch.equal(classifier.scores(hidden.float()), found * units)


def test_integer_scores_are_base_two_log_probabilities_to_their_last_bit(hidden):
    for fraction_bits in (0, 4):
        classifier = IntegerMaxShift(HIDDEN, VOCABULARY, 2, fraction_bits)
        q = classifier.integers(hidden.float()).double().numpy()
        error = classifier.integer_scores(hidden.float()).numpy() / 2**fraction_bits - log_softmax(
            q * math.log(2), axis=-1
        ) / math.log(2)
        assert error.min() >= -1e-9
        assert error.max() < 2.0**-fraction_bits


def test_ties_come_from_rounding_and_the_lowest_word_wins():
    classifier = with_logits(IntegerMaxShift(2, 5), [0.9, 1.4, 1.1, 0.6, -2.0])
    assert MaxShift.topk(with_logits(MaxShift(2, 5), [0.9, 1.4, 1.1, 0.6, -2.0]), torch.zeros(2), 1)[1].item() == 1
    values, words = classifier.topk(torch.zeros(3, 2), 5)
    assert words.tolist() == 3 * [[0, 1, 2, 3, 4]]
    assert values.tolist() == 3 * [[-2.0, -2.0, -2.0, -2.0, -5.0]]
    finer = with_logits(IntegerMaxShift(2, 5, scale_bits=3), [0.9, 1.4, 1.1, 0.6, -2.0])
    assert finer.topk(torch.zeros(2), 1)[1].item() == 1


def test_integer_probabilities_are_those_of_the_rounded_logits(hidden, target):
    classifier = IntegerMaxShift(HIDDEN, VOCABULARY, 1).double()
    z = np.round(2 * classifier.output(hidden).detach().numpy()) / 2
    np.testing.assert_allclose(classifier.log_prob(hidden), log_softmax(z, axis=-1), rtol=1e-12, atol=1e-12)
    nll = -np.take_along_axis(log_softmax(z, axis=-1), target[..., None].numpy(), -1)[..., 0]
    np.testing.assert_allclose(classifier.nll(hidden, target), nll, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("gradient", Gradient)
def test_integer_max_shift_trains_like_max_shift(gradient, hidden, target):
    plain, integer = (
        MaxShift(HIDDEN, VOCABULARY, gradient=gradient).double(),
        IntegerMaxShift(HIDDEN, VOCABULARY, 1, gradient=gradient).double(),
    )
    integer.load_state_dict(plain.state_dict())
    for each in (plain, integer):
        each.loss(hidden, target).backward()
    assert integer.loss(hidden, target).item() == plain.loss(hidden, target).item()
    assert torch.equal(integer.output.weight.grad, plain.output.weight.grad)
    assert integer.output.weight.grad.any()


def test_integers_saturate_and_nan_is_refused():
    classifier = with_logits(IntegerMaxShift(2, 4), [INF, -INF, 1e20, 0.0])
    assert classifier.integers(torch.zeros(2)).tolist() == [2**30, -(2**30), 2**30, 0]
    assert classifier.integer_scores(torch.zeros(2)).tolist() == [-1, -(2**31) - 1, -1, -(2**30) - 1]
    with pytest.raises(FewbitsError, match="NaN"):
        with_logits(IntegerMaxShift(2, 2), [float("nan"), 0.0]).scores(torch.zeros(2))


@pytest.mark.parametrize("bits", [{"scale_bits": 17}, {"scale_bits": 0.5}, {"fraction_bits": -1}, {"fraction_bits": 9}])
def test_widths_that_do_not_fit_are_refused(bits):
    with pytest.raises(FewbitsError, match="_bits is"):
        IntegerMaxShift(2, 2, **bits)
