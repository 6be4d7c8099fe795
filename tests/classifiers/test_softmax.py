"""The exact softmax against scipy, finite differences and a full sort."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from torch import Tensor

from fewbits.classifiers import Classifier, Softmax

HIDDEN, VOCABULARY = 5, 13


@pytest.fixture
def classifier() -> Softmax:
    torch.manual_seed(0)
    return Softmax(HIDDEN, VOCABULARY)


@pytest.fixture
def hidden() -> Tensor:
    return 3 * torch.randn(4, 2, HIDDEN, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def target() -> Tensor:
    return torch.randint(VOCABULARY, (4, 2), generator=torch.Generator().manual_seed(2))


def expected(classifier: Softmax, hidden: Tensor) -> np.ndarray:
    """Log-probabilities in float64 by scipy."""
    weight, bias = (p.detach().double().numpy() for p in (classifier.output.weight, classifier.output.bias))
    return log_softmax(hidden.detach().double().numpy() @ weight.T + bias, axis=-1)


def test_log_probabilities_are_those_of_scipy(classifier, hidden):
    found = classifier.log_prob(hidden)
    assert (found.shape, found.dtype) == ((4, 2, VOCABULARY), torch.float32)
    np.testing.assert_allclose(found.detach(), expected(classifier, hidden), rtol=1e-5, atol=1e-6)
    assert classifier.is_probability
    assert torch.equal(classifier.scores(hidden), found)


def test_large_scores_do_not_overflow(classifier, hidden):
    found = classifier.log_prob(1e4 * hidden).detach()
    np.testing.assert_allclose(found, expected(classifier, 1e4 * hidden), rtol=1e-5, atol=1e-2)


def test_nll_is_the_log_probability_of_the_target(classifier, hidden, target):
    oracle = -np.take_along_axis(expected(classifier, hidden), target[..., None].numpy(), axis=-1)[..., 0]
    for nll in (classifier.nll(hidden, target), Classifier.nll(classifier, hidden, target)):
        assert nll.shape == target.shape
        np.testing.assert_allclose(nll.detach(), oracle, rtol=1e-5, atol=1e-6)
    assert classifier.loss(hidden, target).item() == pytest.approx(oracle.mean(), rel=1e-5)


def test_gradients_of_the_loss_agree_with_finite_differences(classifier, hidden, target):
    classifier.double()
    leaf = hidden.double().requires_grad_()
    parameters = tuple(classifier.parameters())

    def loss(value: Tensor, *_: Tensor) -> Tensor:
        return classifier.loss(value, target)

    assert torch.autograd.gradcheck(loss, (leaf, *parameters))


@pytest.mark.parametrize("k", [1, 3, VOCABULARY])
def test_topk_is_the_head_of_a_full_sort(classifier, hidden, k):
    values, words = classifier.topk(hidden, k)
    oracle = expected(classifier, hidden)
    assert np.array_equal(words, np.argsort(-oracle, axis=-1)[..., :k])
    np.testing.assert_allclose(values.detach(), -np.sort(-oracle, axis=-1)[..., :k], rtol=1e-5, atol=1e-6)


def test_half_precision_scores_are_normalised_in_float32(classifier, hidden, target):
    with torch.autocast("cpu", torch.bfloat16):
        log_prob, nll = classifier.log_prob(hidden), classifier.nll(hidden, target)
    assert log_prob.dtype == nll.dtype == torch.float32
    torch.testing.assert_close(log_prob.exp().sum(-1), torch.ones(4, 2))
    torch.testing.assert_close(nll, -log_prob.gather(-1, target[..., None])[..., 0])


def test_ranking_differs_from_the_scores_by_one_number_a_row(classifier, hidden):
    found = classifier.ranking(hidden).detach().double().numpy() - expected(classifier, hidden)
    np.testing.assert_allclose(found, np.broadcast_to(found[..., :1], found.shape), rtol=1e-5, atol=1e-6)
