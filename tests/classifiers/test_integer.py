"""The integer softmax against Python's integers, one number at a time, and against the exact softmax with a bound."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax
from torch import Tensor

from fewbits.classifiers import IntegerSoftmax, integer_exp, integer_softmax
from fewbits.errors import FewbitsError

HIDDEN, VOCABULARY = 5, 13
SCALES = [2**-14, 2**-10, 1 / 100, 1 / 16, 1 / 2]


def scalar_exp(x: int, scale: float) -> int:
    """I-BERT's i-exp from the formula of the paper's code, with Python's integers."""
    x0, b, c = math.floor(-math.log(2) / scale), 0.96963238 / 0.35815147, 1 / 0.35815147
    x = max(x, 30 * x0)
    q, r = 0, x
    while r <= x0:
        q, r = q + 1, r - x0
    polynomial = r**2 + math.floor(b / scale) * r + math.floor(c / scale**2)
    return polynomial * 2 ** (30 - q)


def scalar_softmax(row: list[int], scale: float, bits: int) -> list[int]:
    exponentials = [scalar_exp(x - max(row), scale) for x in row]
    drop = len(bin(max(exponentials))) - 2 - 15
    exponentials = [e // 2**drop for e in exponentials]
    factor = 2**32 // sum(exponentials)
    return [e * factor // 2 ** (32 - bits) for e in exponentials]


@pytest.mark.parametrize("scale", SCALES)
def test_exponentials_are_those_of_single_integers(scale):
    deepest = math.ceil(31 * math.log(2) / scale)
    x = torch.unique(torch.linspace(-deepest, 0, 4001).long())
    assert integer_exp(x, scale).tolist() == [scalar_exp(v, scale) for v in x.tolist()]


@given(
    row=st.lists(st.integers(-(10**6), 10**6) | st.integers(-40, 0), min_size=1, max_size=20),
    scale=st.sampled_from(SCALES),
    bits=st.integers(1, 32),
)
def test_a_row_is_that_of_single_integers(row, scale, bits):
    assert integer_softmax(torch.tensor(row), scale, bits).tolist() == scalar_softmax(row, scale, bits)


#: of |P(r) / exp(r) − 1| on the interval of r, from 10^5 points: what the polynomial itself does
def polynomial_error(lowest: float) -> float:
    r = np.linspace(lowest, 0, 100_001)
    return float(np.abs((0.35815147 * r**2 + 0.96963238 * r + 1) / np.exp(r) - 1).max())


@pytest.mark.parametrize("scale", SCALES)
def test_exponentials_are_within_the_bound_of_the_exact_ones(scale):
    period = math.ceil(math.log(2) / scale)
    x = torch.unique(torch.linspace(-30 * period, 0, 20_001).long())
    unit = 0.35815147 * scale**2 / 2**30
    ratio = integer_exp(x, scale).double().numpy() * unit / np.exp(x.double().numpy() * scale)
    floors = 0.35815147 * scale * (scale + math.log(2)) / math.exp(-scale * period)
    slack = polynomial_error(-scale * period) + floors
    late = np.exp(-(x.numpy() // -period) * (scale * period - math.log(2)))  # 2^−q for exp(−q · period · scale)
    late = np.maximum(late, 1 / late)
    assert (ratio <= (1 + slack) * late).all()
    assert (ratio >= 1 - slack).all()


def test_the_polynomial_is_as_good_as_its_docstring_says():
    assert 0.0033 < polynomial_error(-math.log(2)) < 0.0034


@given(st.lists(st.floats(-30, 30), min_size=1, max_size=200), st.sampled_from([2**-14, 2**-10]))
def test_probabilities_are_within_the_bound_of_the_exact_ones(scores, scale):
    x = torch.round(torch.tensor(scores, dtype=torch.float64) / scale).long()
    exact = softmax(x.double().numpy() * scale)
    found = integer_softmax(x, scale, 32).double().numpy() / 2**32
    period = math.ceil(math.log(2) / scale)
    each = (1 + polynomial_error(-scale * period) + scale) * math.exp(30 * (scale * period - math.log(2))) - 1
    relative = (1 + each) / (1 - each) - 1
    rounding = 2**-14  # the greatest exponential has 15 bits, the least significant of each is lost: e and the sum's
    count = len(scores)
    assert (np.abs(found - exact) <= exact * (relative + count * (rounding + 2**-17)) + rounding + 2**-30).all()
    assert found.sum() <= 1


# --- the classifier --------------------------------------------------------------------------------------------------


@pytest.fixture
def classifier() -> IntegerSoftmax:
    torch.manual_seed(0)
    return IntegerSoftmax(HIDDEN, VOCABULARY)


@pytest.fixture
def hidden() -> Tensor:
    return 3 * torch.randn(4, 2, HIDDEN, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def target() -> Tensor:
    return torch.randint(VOCABULARY, (4, 2), generator=torch.Generator().manual_seed(2))


def logits(classifier: IntegerSoftmax, hidden: Tensor) -> np.ndarray:
    return classifier.output(hidden).detach().double().numpy()


def reading(scores: list[float], scale: float = 2**-10) -> IntegerSoftmax:
    classifier = IntegerSoftmax(1, len(scores), scale=scale)
    with torch.no_grad():
        classifier.output.weight.zero_()
        classifier.output.bias.copy_(torch.tensor(scores))
    return classifier


def test_scores_are_logarithms_of_the_integers(classifier, hidden):
    integers = np.rint(logits(classifier, hidden) * 1024).astype(int)  # ties to even
    oracle = [scalar_softmax(row, 2**-10, 16) for row in integers.reshape(-1, VOCABULARY).tolist()]
    found = classifier.scores(hidden)
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(found.view(-1, VOCABULARY), np.log(np.array(oracle) / 2**16), rtol=1e-6)
    assert found.dtype == torch.float32
    assert not classifier.is_probability
    assert found.exp().sum(-1).max() <= 1


def test_log_probabilities_sum_to_one_and_are_near_the_exact_ones(classifier, hidden, target):
    found = classifier.log_prob(hidden)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.exp().sum(-1), torch.ones(4, 2))
    exact = log_softmax(logits(classifier, hidden), axis=-1)
    np.testing.assert_allclose(found, exact, atol=0.02)
    integers = np.rint(logits(classifier, hidden) * 1024).astype(int)[1, 1].tolist()
    own = np.array([scalar_exp(x - max(integers), 2**-10) for x in integers], dtype=float)
    np.testing.assert_allclose(found[1, 1], np.log(own / own.sum()), rtol=1e-6, atol=1e-6)
    nll = -found.gather(-1, target[..., None])[..., 0]
    assert torch.equal(classifier.nll(hidden, target), nll)


def test_the_loss_is_the_exact_cross_entropy(classifier, hidden, target):
    exact = log_softmax(logits(classifier, hidden), axis=-1)
    mean = -np.take_along_axis(exact, target[..., None].numpy(), axis=-1).mean()
    assert classifier.loss(hidden, target).item() == pytest.approx(mean, rel=1e-5)
    classifier.loss(hidden, target).backward()
    assert classifier.output.weight.grad.abs().sum() > 0


def test_words_far_below_the_best_score_minus_infinity_but_have_a_probability():
    classifier = reading([0.0, -15.0, -1000.0])
    assert classifier.scores(torch.zeros(1, 1))[0, 1:].tolist() == [-math.inf, -math.inf]
    log_prob = classifier.log_prob(torch.zeros(1, 1))[0]
    assert log_prob[1].item() == pytest.approx(-15, abs=0.05)
    assert log_prob[2].item() == pytest.approx(-30 * math.log(2), abs=0.05)  # clipped


def test_equal_and_infinite_scores_and_one_word():
    torch.testing.assert_close(reading(5 * [-3.3]).log_prob(torch.zeros(1, 1)), torch.full((1, 5), -math.log(5)))
    assert reading([7.0]).log_prob(torch.zeros(2, 1)).tolist() == [[0.0], [0.0]]
    assert reading([7.0]).scores(torch.zeros(1)).item() == pytest.approx(0, abs=2**-13)
    one, masked = reading([math.inf, 0.0]), reading([0.0, -math.inf])
    for found in (one.log_prob(torch.zeros(1)), masked.log_prob(torch.zeros(1))):
        assert found.tolist() == pytest.approx([0, -30 * math.log(2)], abs=0.05)
    two = reading([math.inf, math.inf, 0.0]).scores(torch.zeros(1)).exp()
    assert two.tolist() == pytest.approx([0.5, 0.5, 0], abs=2**-12)


def test_no_scores_and_scores_that_are_not_numbers(classifier):
    assert classifier.log_prob(torch.zeros(0, HIDDEN)).shape == (0, VOCABULARY)
    with pytest.raises(FewbitsError, match="NaN"):
        classifier.scores(torch.full((1, HIDDEN), math.nan))


def test_many_equal_scores_leave_nothing_of_the_reciprocal():
    assert integer_softmax(torch.zeros(2**17, dtype=torch.int64), 2**-10, 32)[0] > 0
    assert integer_softmax(torch.zeros(2**18 + 1, dtype=torch.int64), 2**-10, 32)[0] == 0


@pytest.mark.parametrize("scale", [0.0, -1.0, 2**-15, 0.7, math.nan, math.inf])
def test_scales_out_of_range_are_refused(scale):
    with pytest.raises(FewbitsError, match="scale"):
        IntegerSoftmax(2, 3, scale=scale)


@pytest.mark.parametrize("bits", [0, 33, -1])
def test_output_bits_out_of_range_are_refused(bits):
    with pytest.raises(FewbitsError, match="output_bits"):
        IntegerSoftmax(2, 3, output_bits=bits)
