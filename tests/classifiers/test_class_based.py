"""The two-level softmax against its dense formula, word by word, and against counted multiplications."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fewbits.classifiers import Classifier, ClassSoftmax, frequency_classes
from fewbits.errors import FewbitsError

HIDDEN = 5
ASSIGNMENT = [4, 0, 4, -7, 0, 4, 4, 0, 4, 9, 0]  # no class 1, a negative number, two classes of one word


def build(assignment: list[int], hidden_size: int = HIDDEN) -> ClassSoftmax:
    torch.manual_seed(0)
    return ClassSoftmax(hidden_size, torch.tensor(assignment))


@pytest.fixture
def classifier() -> ClassSoftmax:
    return build(ASSIGNMENT)


@pytest.fixture
def hidden() -> Tensor:
    return 3 * torch.randn(4, 3, HIDDEN, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def target() -> Tensor:
    return torch.randint(len(ASSIGNMENT), (4, 3), generator=torch.Generator().manual_seed(2))


def expected(classifier: ClassSoftmax, assignment: list[int], hidden: Tensor) -> np.ndarray:
    """Log-probabilities in float64; classes are in the order of their numbers, weights in that of the classes."""
    flat = hidden.detach().double().numpy()
    (u, c), (w, b) = (
        (layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy())
        for layer in (classifier.classes, classifier.words)
    )
    of_class = log_softmax(flat @ u.T + c, axis=-1)
    found, row = np.empty((*hidden.shape[:-1], len(assignment))), 0
    for rank, number in enumerate(sorted(set(assignment))):
        words = [word for word, own in enumerate(assignment) if own == number]
        rows = slice(row, row + len(words))
        found[..., words] = of_class[..., [rank]] + log_softmax(flat @ w[rows].T + b[rows], axis=-1)
        row += len(words)
    return found


def test_log_probabilities_are_those_of_the_formula(classifier, hidden):
    found = classifier.log_prob(hidden)
    assert (found.shape, found.dtype) == ((4, 3, len(ASSIGNMENT)), torch.float32)
    np.testing.assert_allclose(found.detach(), expected(classifier, ASSIGNMENT, hidden), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.exp().sum(-1), torch.ones(4, 3))
    assert classifier.is_probability
    assert torch.equal(classifier.scores(hidden), found)


@settings(max_examples=30)
@given(assignment=st.lists(st.integers(-2, 4), min_size=1, max_size=12), seed=st.integers(0, 9))
def test_the_loss_is_that_of_the_formula_for_any_assignment(assignment, seed):
    classifier, generator = build(assignment), torch.Generator().manual_seed(seed)
    hidden = 3 * torch.randn(9, HIDDEN, generator=generator)
    target = torch.randint(len(assignment), (9,), generator=generator)
    oracle = expected(classifier, assignment, hidden)
    np.testing.assert_allclose(np.exp(oracle).sum(-1), 1)
    nll = classifier.nll(hidden, target)
    np.testing.assert_allclose(nll.detach(), -oracle[range(9), target], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(Classifier.nll(classifier, hidden, target).detach(), nll.detach(), rtol=1e-5, atol=1e-5)
    assert classifier.loss(hidden, target).item() == pytest.approx(-oracle[range(9), target].mean(), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("occurring", [range(11), [0, 2, 9], [3]])
def test_gradients_are_those_of_the_dense_formula(classifier, hidden, occurring):
    classifier.double()
    target = torch.tensor([list(occurring)[n % len(occurring)] for n in range(12)]).view(4, 3)
    leaf = hidden.double().requires_grad_()
    inputs = (leaf, *classifier.parameters())
    found = torch.autograd.grad(classifier.loss(leaf, target), inputs)
    dense = torch.autograd.grad(Classifier.nll(classifier, leaf, target).mean(), inputs)  # log_prob, float32 at the end
    for mine, oracle in zip(found, dense, strict=True):
        torch.testing.assert_close(mine, oracle, rtol=1e-5, atol=1e-7)
    assert torch.autograd.gradcheck(lambda h, *_: classifier.nll(h, target), inputs, fast_mode=True)


def test_a_loss_can_be_differentiated_again(classifier, hidden, target):
    loss = classifier.loss(hidden, target)
    first = torch.autograd.grad(loss, classifier.words.weight, retain_graph=True)
    assert torch.equal(first[0], torch.autograd.grad(loss, classifier.words.weight)[0])


@pytest.mark.parametrize("k", [1, 4, len(ASSIGNMENT)])
def test_topk_is_the_head_of_a_full_sort(classifier, hidden, k):
    values, words = classifier.topk(hidden, k)
    oracle = expected(classifier, ASSIGNMENT, hidden)
    assert np.array_equal(words, np.argsort(-oracle, axis=-1)[..., :k])
    np.testing.assert_allclose(values.detach(), -np.sort(-oracle, axis=-1)[..., :k], rtol=1e-5, atol=1e-5)


def flops(classifier: Classifier, hidden: Tensor, target: Tensor) -> tuple[int, int]:
    """Multiplications and additions of the products of matrices: forward, then forward and backward."""
    with FlopCounterMode(display=False) as forward:
        loss = classifier.loss(hidden, target)
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    return forward.get_total_flops(), forward.get_total_flops() + backward.get_total_flops()


@pytest.mark.parametrize("words", [100, 1600, 10_000])
def test_the_loss_costs_the_square_root_of_the_vocabulary(words):
    root, rows = math.isqrt(words), 40
    classifier = ClassSoftmax(8, frequency_classes(torch.ones(words)))
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(rows, 8, generator=generator, requires_grad=True)
    forward, both = flops(classifier, hidden, torch.randint(words, (rows,), generator=generator))
    assert forward == 2 * rows * 8 * 2 * root
    assert both == 3 * forward


def test_the_assignment_is_part_of_the_state(classifier, hidden):
    shuffled = [ASSIGNMENT[word] for word in (3, 1, 4, 0, 5, 2, 6, 7, 8, 10, 9)]
    other = build(shuffled)
    other.load_state_dict(classifier.state_dict())
    assert torch.equal(other.log_prob(hidden), classifier.log_prob(hidden))
    target = torch.arange(12).view(4, 3) % len(ASSIGNMENT)
    assert torch.equal(other.loss(hidden, target), classifier.loss(hidden, target))


def test_half_precision_hidden_states_are_computed_in_float32(classifier, hidden, target):
    plain = classifier.nll(hidden.bfloat16().float(), target)
    with torch.autocast("cpu", torch.bfloat16):
        log_prob, nll = classifier.log_prob(hidden.bfloat16()), classifier.nll(hidden.bfloat16(), target)
    assert log_prob.dtype == nll.dtype == torch.float32
    torch.testing.assert_close(nll, plain, rtol=0, atol=0)
    torch.testing.assert_close(nll, -log_prob.gather(-1, target[..., None])[..., 0])


def test_one_word_one_class_and_one_word_a_class(hidden):
    assert build([3]).log_prob(hidden).abs().max() == 0
    assert build([3]).loss(hidden, torch.zeros(4, 3, dtype=torch.long)).item() == 0
    for assignment in ([0, 0, 0], [2, 1, 0]):
        torch.testing.assert_close(build(assignment).log_prob(hidden).exp().sum(-1), torch.ones(4, 3))


def test_a_single_hidden_state_and_none(classifier, hidden):
    alone = classifier.nll(hidden[0, 0], torch.tensor(3))
    torch.testing.assert_close(alone, classifier.nll(hidden, torch.full((4, 3), 3))[0, 0])
    nothing = torch.zeros(0, dtype=torch.long)
    assert classifier.log_prob(hidden[0, :0]).shape == (0, len(ASSIGNMENT))
    assert classifier.nll(hidden[0, :0], nothing).shape == (0,)
    assert classifier.loss(hidden[0, :0], nothing).isnan()


def test_hidden_states_that_are_not_finite_give_nan(classifier, hidden, target):
    hidden[1, 1] = math.inf
    assert classifier.nll(hidden, target).isnan()[1, 1]
    assert classifier.nll(hidden, target).isnan().sum() == 1


@pytest.mark.parametrize("word", [-1, len(ASSIGNMENT)])
def test_targets_outside_the_vocabulary_are_refused(classifier, word):
    with pytest.raises(FewbitsError, match="from 0 to 10"):
        classifier.loss(torch.zeros(1, HIDDEN), torch.tensor([word]))


@pytest.mark.parametrize("bad", [torch.zeros(3), torch.zeros(2, 2).long(), torch.zeros(0).long()])
def test_assignments_that_are_none_are_refused(bad):
    with pytest.raises(FewbitsError, match="assignment"):
        ClassSoftmax(2, bad)
