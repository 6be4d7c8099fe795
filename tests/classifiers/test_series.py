"""Series against exact rationals, Sturm's count of real roots, scipy and finite differences."""

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax
from torch import Tensor

from fewbits.classifiers import Logarithm, PowerSoftmax, TaylorSoftmax, exponential_series, logarithm_series
from fewbits.errors import FewbitsError

HIDDEN, VOCABULARY = 5, 13
ORDERS = range(1, 9)
VARIANTS = [(order, first) for order in ORDERS for first in (0, 1)]

Polynomial = list[Fraction]  # the coefficient of x^n at n


def exponential(order: int, first: int) -> Polynomial:
    return [Fraction(n >= first, math.factorial(n)) for n in range(order + 1)]


def logarithm(order: int) -> Polynomial:
    return [Fraction(0), *(Fraction((-1) ** (n + 1), n) for n in range(1, order + 1))]


def at(polynomial: Polynomial, x: Fraction) -> Fraction:
    return sum((c * x**n for n, c in enumerate(polynomial)), Fraction(0))


def real_roots(polynomial: Polynomial) -> int:
    """How many different real roots there are, by Sturm's theorem, in exact rationals."""
    chain = [polynomial, [n * c for n, c in enumerate(polynomial)][1:]]
    while any(chain[-1]):
        rest = list(chain[-2])
        while len(rest) >= len(chain[-1]):
            factor, shift = rest[-1] / chain[-1][-1], len(rest) - len(chain[-1])
            rest = [c - factor * (chain[-1][n - shift] if n >= shift else 0) for n, c in enumerate(rest)][:-1]
        while rest and not rest[-1]:
            rest.pop()
        chain.append([-c for c in rest])
    signs = [[(p[-1] > 0) != (end < 0 and len(p) % 2 == 0) for p in chain if p] for end in (-1, 1)]
    changes = [sum(a != b for a, b in pairwise(row)) for row in signs]
    return changes[0] - changes[1]


def build(order: int, first: int = 0, logarithm: Logarithm = Logarithm.EXACT) -> TaylorSoftmax:
    torch.manual_seed(0)
    return TaylorSoftmax(HIDDEN, VOCABULARY, order=order, first=first, logarithm=logarithm)


def reading(scores: list[float], **choice: object) -> TaylorSoftmax:
    """A classifier whose z are ``scores``, whatever the hidden state (of one unit)."""
    classifier = TaylorSoftmax(1, len(scores), **choice)
    with torch.no_grad():
        classifier.output.weight.zero_()
        classifier.output.bias.copy_(torch.tensor(scores))
    return classifier


@pytest.fixture
def hidden() -> Tensor:
    return 2 * torch.randn(4, 2, HIDDEN, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def target() -> Tensor:
    return torch.randint(VOCABULARY, (4, 2), generator=torch.Generator().manual_seed(2))


def logits(classifier: TaylorSoftmax | PowerSoftmax, hidden: Tensor) -> np.ndarray:
    weight, bias = (p.detach().double().numpy() for p in (classifier.output.weight, classifier.output.bias))
    return hidden.double().numpy() @ weight.T + bias


def terms(classifier: TaylorSoftmax, hidden: Tensor) -> np.ndarray:
    return np.polynomial.Polynomial([float(c) for c in exponential(classifier.order, classifier.first)])(
        logits(classifier, hidden)
    )


# --- the two series --------------------------------------------------------------------------------------------------


@given(x=st.floats(-20, 20), order=st.integers(1, 8), first=st.integers(0, 1))
def test_both_series_are_their_polynomials(x, order, first):
    value = torch.tensor(x, dtype=torch.float64)
    for found, polynomial in [
        (exponential_series(value, order, first), exponential(order, first)),
        (logarithm_series(value, order), logarithm(order)),
    ]:
        size = at([abs(c) for c in polynomial], abs(Fraction(x)))
        error = abs(Fraction(found.item()) - at(polynomial, Fraction(x)))
        assert error <= size * 4 * order * Fraction(2) ** -53 + Fraction(2) ** -1070  # Horner: 2·order·u, and ours 4


@pytest.mark.parametrize(("order", "first"), VARIANTS)
def test_a_series_is_a_probability_exactly_if_it_has_no_real_root(order, first):
    roots = real_roots(exponential(order, first))
    assert roots == {(0, 0): 0, (1, 0): 1, (0, 1): 2, (1, 1): 1}[order % 2, first]
    classifier = build(order, first)
    assert classifier.is_positive is classifier.is_probability is (roots == 0)
    values = exponential_series(torch.linspace(-30, 30, 6001), order, first)
    assert bool((values > 0).all()) is (roots == 0)


def test_a_cut_logarithm_is_no_probability():
    for choice in (Logarithm.OF_QUOTIENT, Logarithm.OF_SUM):
        classifier = build(2, logarithm=choice)
        assert classifier.is_positive
        assert not classifier.is_probability


# --- where the series is positive ------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [2, 4, 6, 8])
def test_log_probabilities_of_even_orders_are_the_normalised_series(order, hidden, target):
    classifier = build(order)
    oracle = terms(classifier, hidden)
    oracle = np.log(oracle / oracle.sum(-1, keepdims=True))
    found = classifier.log_prob(hidden)
    assert (found.shape, found.dtype) == ((4, 2, VOCABULARY), torch.float32)
    np.testing.assert_allclose(found.detach(), oracle, rtol=1e-4, atol=1e-5)
    assert torch.equal(classifier.scores(hidden), found)
    picked = -np.take_along_axis(oracle, target[..., None].numpy(), axis=-1)
    assert classifier.loss(hidden, target).item() == pytest.approx(picked.mean(), rel=1e-5)
    assert classifier.nll(hidden, target).mean().item() == pytest.approx(picked.mean(), rel=1e-5)


@pytest.mark.parametrize("order", [2, 4, 6, 8])
def test_probabilities_sum_to_one_also_far_outside_the_domain(order, hidden):
    for scale in (0.0, 1.0, 100.0, 1e4):
        total = build(order).log_prob(scale * hidden).exp().sum(-1)
        torch.testing.assert_close(total, torch.ones(4, 2))


def test_a_high_order_is_the_softmax_where_scores_are_small():
    z = torch.linspace(-1, 1, VOCABULARY)
    remainder = math.e / math.factorial(9)  # of T_8 on |z| ≤ 1, by Lagrange
    found = reading(z.tolist(), order=8).log_prob(torch.zeros(1)).detach()
    bound = 2 * remainder / (1 / math.e - remainder)  # of word and sum
    np.testing.assert_allclose(found, log_softmax(z.double().numpy()), atol=bound + 1e-6)
    rough = reading(z.tolist(), order=2).log_prob(torch.zeros(1)).detach()
    assert np.abs(rough.numpy() - log_softmax(z.numpy())).max() > 100 * bound


# --- where it is not -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "word", "order", "first", "expected"),
    [
        ([3.0, 1.0], 0, 1, 0, math.log(6 / 4)),  # 4 and 2 of 6
        ([3.0, -2.0], 1, 1, 0, math.nan),  # 4 and −1 of 3
        ([3.0, -2.0], 0, 1, 0, math.log(3 / 4)),  # below 0: the quotient is 4/3
        ([3.0, -1.0], 1, 1, 0, math.inf),  # T(−1) = 0
        ([0.5, -0.5], 1, 2, 1, math.nan),  # 0.625 and −0.375
        ([1.0, -3.0], 1, 2, 1, math.log(3 / 1.5)),  # left of the second root it is positive again
        ([0.0, 0.0], 1, 3, 1, math.nan),  # 0/0
    ],
)
def test_the_loss_is_the_formula_and_not_finite_where_it_is_not(scores, word, order, first, expected):
    loss = reading(scores, order=order, first=first).loss(torch.zeros(2, 1), torch.full((2,), word))
    assert loss.item() == pytest.approx(expected, rel=1e-6, nan_ok=True)


@pytest.mark.parametrize(("order", "first"), [v for v in VARIANTS if v[1] or v[0] % 2])
def test_signed_series_score_by_quotient_and_are_normalised_by_the_softmax(order, first, hidden):
    classifier = build(order, first)
    classifier.temperature.fill_(2.5)
    quotient = terms(classifier, hidden)
    quotient = quotient / quotient.sum(-1, keepdims=True)
    np.testing.assert_allclose(classifier.scores(hidden).detach(), quotient, rtol=2e-3, atol=1e-4)
    oracle = log_softmax(logits(classifier, hidden) / 2.5, axis=-1)
    np.testing.assert_allclose(classifier.log_prob(hidden).detach(), oracle, rtol=1e-5, atol=1e-5)


def test_a_temperature_is_fitted_kept_and_saved(hidden, target):
    classifier = build(3)
    target = torch.where(target < VOCABULARY / 2, classifier.scores(hidden).argmax(-1), target)  # right at times
    fitted = classifier.fit_temperature(hidden, target)

    def nll(temperature: float) -> float:
        log_prob = log_softmax(logits(classifier, hidden) / temperature, axis=-1)
        return -np.take_along_axis(log_prob, target[..., None].numpy(), axis=-1).mean()

    assert nll(fitted) < min(nll(1.01 * fitted), nll(0.99 * fitted))
    assert classifier.nll(hidden, target).mean().item() == pytest.approx(nll(fitted), rel=1e-5)
    other = build(3)
    other.load_state_dict(classifier.state_dict())
    assert other.temperature.item() == pytest.approx(fitted)
    with pytest.raises(FewbitsError, match="no temperature"):
        build(2).fit_temperature(hidden, target)


# --- the cut logarithms ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("order", "first"), VARIANTS)
def test_cut_logarithms_are_the_series_of_their_arguments(order, first, hidden, target):
    polynomial = np.polynomial.Polynomial([float(c) for c in logarithm(order)])
    for choice in (Logarithm.OF_QUOTIENT, Logarithm.OF_SUM):
        classifier = build(order, first, choice).double()
        values = terms(classifier, hidden)
        total = values.sum(-1, keepdims=True)
        if choice is Logarithm.OF_QUOTIENT:
            oracle = polynomial(values / total - 1)
        else:
            oracle = logits(classifier, hidden) - polynomial(total - 1)
        np.testing.assert_allclose(classifier.scores(hidden.double()).detach(), oracle, rtol=1e-8, atol=1e-8)
        mean = -np.take_along_axis(oracle, target[..., None].numpy(), axis=-1).mean()
        assert classifier.loss(hidden.double(), target).item() == pytest.approx(mean, rel=1e-8)


@pytest.mark.parametrize("order", [2, 4, 6, 8])
def test_a_cut_logarithm_bounds_the_loss_of_a_probability_but_not_that_of_the_sum(order):
    harmonic = sum(1 / n for n in range(1, order + 1))
    worst = [1000.0] + 9 * [0.0]
    bounded = reading(worst, order=order, logarithm=Logarithm.OF_QUOTIENT)
    assert 0.9 * harmonic < bounded.loss(torch.zeros(1, 1), torch.tensor([1])).item() <= harmonic + 1e-6
    unbounded = reading(10 * [0.0], order=order, logarithm=Logarithm.OF_SUM)
    assert unbounded.loss(torch.zeros(1, 1), torch.tensor([1])).item() < -10  # L(9) is far below 0, ln 10 is 2.3


# --- gradients, bad input --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("choice", list(Logarithm))
@pytest.mark.parametrize(("order", "first"), [(1, 0), (2, 0), (3, 0), (8, 0), (2, 1), (3, 1)])
def test_gradients_of_the_loss_agree_with_finite_differences(order, first, choice, hidden, target):
    classifier = build(order, first, choice).double()
    with torch.no_grad():
        classifier.output.bias += 2  # right of the roots
    leaf = (0.2 * hidden).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda h, *_: classifier.loss(h, target), (leaf, *classifier.output.parameters()))


def test_one_word_is_certain():
    for order, first in VARIANTS:
        classifier = reading([0.7], order=order, first=first)
        assert classifier.log_prob(torch.zeros(2, 1)).tolist() == [[0.0], [0.0]]
        assert classifier.loss(torch.zeros(2, 1), torch.zeros(2, dtype=torch.long)).item() == 0


def test_equal_infinite_and_no_scores():
    equal = reading(4 * [-0.3], order=4).log_prob(torch.zeros(1, 1))
    torch.testing.assert_close(equal, torch.full((1, 4), -math.log(4)))
    assert reading([math.inf, 0.0], order=4).log_prob(torch.zeros(1, 1)).isnan().any()
    nothing = torch.zeros(0, dtype=torch.long)
    assert build(2).log_prob(torch.zeros(0, HIDDEN)).shape == (0, VOCABULARY)
    assert build(2).loss(torch.zeros(0, HIDDEN), nothing).isnan()


@pytest.mark.parametrize("word", [-1, VOCABULARY])
def test_targets_outside_the_vocabulary_are_refused(word):
    with pytest.raises((RuntimeError, IndexError)):
        build(2).loss(torch.zeros(1, HIDDEN), torch.tensor([word]))


@pytest.mark.parametrize(("order", "first"), [(0, 0), (-1, 0), (2, 2), (2, -1)])
def test_series_that_do_not_exist_are_refused(order, first):
    with pytest.raises(FewbitsError, match="series"):
        TaylorSoftmax(2, 3, order=order, first=first)


def test_half_precision_scores_are_normalised_in_float32(hidden, target):
    for classifier in (build(2), build(3), PowerSoftmax(HIDDEN, VOCABULARY)):
        with torch.autocast("cpu", torch.bfloat16):
            log_prob, loss = classifier.log_prob(hidden), classifier.loss(hidden, target)
        assert log_prob.dtype == loss.dtype == torch.float32
        torch.testing.assert_close(log_prob.exp().sum(-1), torch.ones(4, 2))


# --- k^x -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", [1.5, 2.0, math.e, 10.0])
def test_a_power_is_normalised_and_a_softmax_of_another_temperature(base, hidden, target):
    torch.manual_seed(0)
    classifier = PowerSoftmax(HIDDEN, VOCABULARY, base=base)
    powers = base ** logits(classifier, hidden)
    oracle = np.log(powers / powers.sum(-1, keepdims=True))
    found = classifier.log_prob(hidden)
    np.testing.assert_allclose(found.detach(), oracle, rtol=1e-5, atol=1e-5)
    assert classifier.is_probability
    assert torch.equal(classifier.scores(hidden), found)
    mean = -np.take_along_axis(oracle, target[..., None].numpy(), axis=-1).mean()
    assert classifier.loss(hidden, target).item() == pytest.approx(mean, rel=1e-5)


@pytest.mark.parametrize("base", [1.0, 0.5, -2.0, math.inf, math.nan])
def test_bases_that_do_not_rise_are_refused(base):
    with pytest.raises(FewbitsError, match="base"):
        PowerSoftmax(2, 3, base=base)
