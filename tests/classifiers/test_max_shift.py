"""Max-shift: its scores, its three gradients, its temperature."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from torch import Tensor

from fewbits.classifiers import (
    Constant,
    CountAbove,
    Fitted,
    Gradient,
    MaxShift,
    Shift,
    Softmax,
    TopBit,
    TopMargin,
)
from fewbits.errors import FewbitsError

HIDDEN, VOCABULARY = 5, 13
INF = float("inf")
SHIFTS: list[Shift] = [Constant(), Constant(1.5), TopBit(), TopBit(4), CountAbove(2.0), TopMargin(3), Fitted(0.2)]


def made(shift: Shift = Constant(), gradient: Gradient = Gradient.OWN) -> MaxShift:  # noqa: B008
    torch.manual_seed(0)
    return MaxShift(HIDDEN, VOCABULARY, shift, gradient).double()


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


# --- scores ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", SHIFTS, ids=repr)
def test_scores_are_logits_less_maximum_less_shift(shift, hidden):
    classifier = made(shift)
    z = classifier.output(hidden).detach()
    expected = z.numpy() - z.numpy().max(-1, keepdims=True) - shift(z).numpy()
    np.testing.assert_allclose(classifier.scores(hidden).detach(), expected, rtol=1e-12, atol=1e-12)
    assert not classifier.is_probability


@pytest.mark.parametrize("shift", [*SHIFTS, Constant(-1e9), Constant(1e9)], ids=repr)
def test_greedy_decoding_is_that_of_softmax(shift):
    """In float32, where a large b swallows the scores: words are compared before it is subtracted."""
    classifier = MaxShift(HIDDEN, VOCABULARY, shift)
    softmax = Softmax(HIDDEN, VOCABULARY)
    softmax.load_state_dict({k: v for k, v in classifier.state_dict().items() if k != "temperature"})
    hidden = torch.randn(50, HIDDEN, generator=torch.Generator().manual_seed(3))
    for k in (1, 4, VOCABULARY):
        values, words = classifier.topk(hidden, k)
        assert torch.equal(words, softmax.topk(hidden, k)[1])
        assert torch.equal(values, classifier.scores(hidden).gather(-1, words))


def test_weights_start_as_those_of_softmax():
    torch.manual_seed(7)
    softmax = Softmax(HIDDEN, VOCABULARY)
    torch.manual_seed(7)
    assert torch.equal(MaxShift(HIDDEN, VOCABULARY).output.weight, softmax.output.weight)


def test_exact_shift_makes_log_probabilities(hidden):
    classifier = made(TopMargin(VOCABULARY))
    torch.testing.assert_close(classifier.scores(hidden), classifier.log_prob(hidden))
    assert made(Constant()).scores(hidden).exp().sum(-1).min() > 1


# --- the loss and its gradients --------------------------------------------------------------------------------------


@pytest.mark.parametrize("gradient", Gradient)
@pytest.mark.parametrize("shift", SHIFTS, ids=repr)
def test_the_loss_is_minus_the_score_of_the_target(shift, gradient, hidden, target):
    classifier = made(shift, gradient)
    expected = -classifier.scores(hidden).gather(-1, target[..., None]).mean()
    torch.testing.assert_close(classifier.loss(hidden, target), expected)
    assert classifier.loss(hidden[0, 0], target[0, 0]).item() == pytest.approx(
        -classifier.scores(hidden[0, 0])[target[0, 0]].item()
    )


def by_hand(z: np.ndarray, y: int, b: float, gradient: Gradient) -> np.ndarray:
    if gradient is Gradient.SOFTMAX:
        of_z = np.exp(log_softmax(z))
    elif gradient is Gradient.UNNORMALISED:
        of_z = np.exp(z - z.max() - b)
    else:
        of_z = np.eye(len(z))[z.argmax()]
    return of_z - np.eye(len(z))[y]


@pytest.mark.parametrize("gradient", Gradient)
@pytest.mark.parametrize("shift", SHIFTS, ids=repr)
def test_each_gradient_is_the_one_written_by_hand(shift, gradient, hidden, target):
    classifier = made(shift, gradient)
    leaf = hidden.requires_grad_()
    (2 * classifier.loss(leaf, target)).backward()
    z, b = classifier.output(hidden).detach(), shift(classifier.output(hidden).detach())
    rows = zip(z.view(-1, VOCABULARY).numpy(), target.flatten().tolist(), b.flatten().tolist(), strict=True)
    of_z = 2 * np.stack([by_hand(*row, gradient) for row in rows]) / 8
    weight, flat = classifier.output.weight, hidden.detach().view(-1, HIDDEN).numpy()
    np.testing.assert_allclose(weight.grad, of_z.T @ flat, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(classifier.output.bias.grad, of_z.sum(0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(leaf.grad.view(-1, HIDDEN), of_z @ weight.detach().numpy(), rtol=1e-12, atol=1e-12)


def test_softmax_gradient_is_that_of_softmax(hidden, target):
    classifier, softmax = made(gradient=Gradient.SOFTMAX), Softmax(HIDDEN, VOCABULARY).double()
    softmax.output.load_state_dict(classifier.output.state_dict())
    for each in (classifier, softmax):
        each.loss(hidden, target).backward()
    torch.testing.assert_close(classifier.output.weight.grad, softmax.output.weight.grad)
    assert classifier.loss(hidden, target).item() < softmax.loss(hidden, target).item()


def test_unnormalised_gradient_moves_all_scores_together(hidden, target):
    """Summed over words it is Σ exp s − 1, for b = 0 above 0: the biases sink together; those of the others rest."""
    for gradient in Gradient:
        classifier = made(gradient=gradient)
        classifier.loss(hidden, target).backward()
        drift = classifier.output.bias.grad.sum().item()
        expected = classifier.scores(hidden).exp().sum(-1).mean().item() - 1
        assert drift == pytest.approx(expected if gradient is Gradient.UNNORMALISED else 0.0, abs=1e-12)
    assert expected > 0.1


def test_own_gradient_rests_where_greedy_decoding_is_right():
    classifier = MaxShift(2, 3)
    classifier.loss(torch.tensor([[0.0, 0.0]]), classifier.topk(torch.zeros(1, 2), 1)[1][:, 0]).backward()
    assert not classifier.output.weight.grad.any()
    assert not classifier.output.bias.grad.any()


def test_constant_scores_are_an_optimum_of_the_own_loss_only():
    """All scores equal: the loss is 0, its least value, at −log p = ln V."""
    classifier = with_logits(MaxShift(2, 8), 8 * [1.0])
    every_word = torch.arange(8)
    assert classifier.loss(torch.zeros(8, 2), every_word).item() == 0
    assert classifier.nll(torch.zeros(8, 2), every_word).mean().item() == pytest.approx(math.log(8))


@pytest.mark.parametrize("gradient", Gradient)
def test_a_learned_constant_is_degenerate(gradient, hidden, target):
    """∂loss/∂b = +1 whatever the model is, so that gradient descent sends b, and the loss, to −∞ at constant speed."""

    def loss(b: float) -> float:
        return made(Constant(b), gradient).loss(hidden, target).item()

    for b in (-5.0, 0.0, 2.5):
        assert (loss(b + 1e-3) - loss(b)) / 1e-3 == pytest.approx(1.0, abs=1e-9)
    b = 0.0
    for _ in range(10):
        b -= 100 * (loss(b + 0.5) - loss(b - 0.5))
    assert b == pytest.approx(-1000)
    assert loss(b) == pytest.approx(loss(0.0) - 1000)


def test_training_through_its_own_gradient_learns_a_separable_rule():
    """Rows with a margin: the perceptron ends without a mistake (Novikoff)."""
    torch.manual_seed(0)
    rule, classifier = torch.randn(HIDDEN, VOCABULARY), MaxShift(HIDDEN, VOCABULARY)
    hidden = torch.randn(200, HIDDEN)
    best, words = (hidden @ rule).topk(2, -1)
    hidden, target = hidden[best[:, 0] > best[:, 1] + 1], words[best[:, 0] > best[:, 1] + 1, 0]
    optimizer = torch.optim.SGD(classifier.parameters(), lr=1.0)
    for _ in range(60):
        optimizer.zero_grad()
        classifier.loss(hidden, target).backward()
        optimizer.step()
    assert len(target) > 50
    assert torch.equal(classifier.topk(hidden, 1)[1][:, 0], target)


# --- probabilities ---------------------------------------------------------------------------------------------------


def test_log_probabilities_are_normalised_at_the_temperature(hidden, target):
    classifier = made(Constant(3.0))
    classifier.temperature.fill_(2.5)
    expected = log_softmax(classifier.output(hidden).detach().numpy() / 2.5, axis=-1)
    np.testing.assert_allclose(classifier.log_prob(hidden).detach(), expected, rtol=1e-12)
    nll = -np.take_along_axis(expected, target[..., None].numpy(), -1)[..., 0]
    np.testing.assert_allclose(classifier.nll(hidden, target).detach(), nll, rtol=1e-12)
    np.testing.assert_allclose(classifier.scores(hidden).amax(-1).detach(), -3.0)  # scores do not know it


def test_the_fitted_temperature_is_the_best_and_is_saved(hidden):
    classifier = made()
    target = torch.distributions.Categorical(logits=classifier.output(hidden) / 2).sample()
    assert classifier.temperature.item() == 1

    def mean(log_temperature: float) -> float:
        p = log_softmax(classifier.output(hidden).detach().numpy() / math.exp(log_temperature), axis=-1)
        return -np.take_along_axis(p, target[..., None].numpy(), -1).mean()

    best = math.exp(minimize_scalar(mean, bounds=(-5, 5), method="bounded", options={"xatol": 1e-9}).x)
    assert classifier.fit_temperature(hidden, target) == pytest.approx(best, rel=1e-4)
    other = made()
    other.load_state_dict(classifier.state_dict())
    assert other.temperature.item() == classifier.temperature.item() == pytest.approx(best, rel=1e-4)
    assert classifier.nll(hidden, target).mean().item() == pytest.approx(mean(math.log(best)), rel=1e-9)


def test_half_precision_is_computed_in_float32():
    classifier = MaxShift(HIDDEN, VOCABULARY, TopBit())
    hidden, target = torch.randn(4, HIDDEN), torch.tensor([0, 1, 2, 3])
    with torch.autocast("cpu", torch.bfloat16):
        found = classifier.scores(hidden), classifier.log_prob(hidden), classifier.nll(hidden, target)
        losses = [classifier.loss(hidden, target), MaxShift(HIDDEN, VOCABULARY).loss(hidden, target)]
    assert {each.dtype for each in (*found, *losses)} == {torch.float32}
    torch.testing.assert_close(found[1].exp().sum(-1), torch.ones(4))


# --- edges -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gradient", Gradient)
def test_a_single_word(gradient):
    classifier = MaxShift(2, 1, TopBit(), gradient)
    loss = classifier.loss(torch.ones(3, 2), torch.zeros(3, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0
    assert classifier.output.weight.grad.abs().max() < 1e-6
    assert classifier.scores(torch.ones(2)).tolist() == [0.0]
    assert classifier.log_prob(torch.ones(2)).tolist() == [0.0]


def test_infinite_scores():
    masked = with_logits(MaxShift(2, 3, TopBit()), [1.0, -INF, 1.0])
    assert masked.scores(torch.zeros(2)).tolist() == pytest.approx([-math.log(2), -INF, -math.log(2)])
    assert masked.loss(torch.zeros(1, 2), torch.tensor([1])).item() == INF
    assert with_logits(MaxShift(2, 3), [INF, 0.0, 1.0]).scores(torch.zeros(2)).isnan().all()


@pytest.mark.parametrize("gradient", Gradient)
def test_an_infinite_loss_stays_infinite(gradient):
    masked = with_logits(MaxShift(2, 3, gradient=gradient), [1.0, -INF, 1.0])
    assert masked.loss(torch.zeros(1, 2), torch.tensor([1])).item() == INF


def test_an_empty_batch(hidden):
    for gradient in Gradient:
        classifier = made(TopBit(), gradient)
        assert classifier.loss(hidden[:0], torch.zeros(0, 2, dtype=torch.int64)).isnan()
    assert classifier.scores(hidden[:0]).shape == (0, 2, VOCABULARY)
    assert classifier.log_prob(hidden[:0]).shape == (0, 2, VOCABULARY)
    with pytest.raises(FewbitsError, match="no targets"):
        classifier.fit_temperature(hidden[:0], torch.zeros(0, 2, dtype=torch.int64))


def test_no_words_are_refused():
    with pytest.raises(FewbitsError, match="at least one word"):
        MaxShift(4, 0)
