"""The adaptive softmax against its dense formula, torch's own log-probabilities and brute force."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax
from torch import Tensor

from fewbits.classifiers import AdaptiveSoftmax, Classifier, default_cutoffs
from fewbits.errors import FewbitsError

HIDDEN = 16
COUNTS = torch.tensor([3, 90, 0, 50, 7, 90, 1, 20, 5, 0, 2])
RANKED = [1, 5, 3, 7, 4, 8, 0, 10, 6, 2, 9]  # COUNTS by hand: equal counts by number
CUTOFFS = [3, 6]


@pytest.fixture
def classifier() -> AdaptiveSoftmax:
    torch.manual_seed(0)
    return AdaptiveSoftmax(HIDDEN, COUNTS, CUTOFFS)


@pytest.fixture
def hidden() -> Tensor:
    return 3 * torch.randn(4, 3, HIDDEN, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def target() -> Tensor:
    return torch.arange(12).view(4, 3) % len(COUNTS)


def expected(classifier: AdaptiveSoftmax, hidden: Tensor) -> np.ndarray:
    """Log-probabilities in float64: the head, then each tail below its entry in the head."""
    flat = hidden.detach().double().numpy()
    layer = classifier.layer
    head = log_softmax(flat @ layer.head.weight.detach().double().numpy().T, axis=-1)
    parts = [head[..., : CUTOFFS[0]]]
    for number, (project, output) in enumerate(layer.tail):
        narrow = flat @ project.weight.detach().double().numpy().T
        of_tail = log_softmax(narrow @ output.weight.detach().double().numpy().T, axis=-1)
        parts.append(head[..., [CUTOFFS[0] + number]] + of_tail)
    found = np.empty((*hidden.shape[:-1], len(COUNTS)))
    found[..., RANKED] = np.concatenate(parts, axis=-1)
    return found


def test_log_probabilities_are_those_of_the_formula_and_of_torch(classifier, hidden):
    found = classifier.log_prob(hidden)
    assert (found.shape, found.dtype) == ((4, 3, len(COUNTS)), torch.float32)
    np.testing.assert_allclose(found.detach(), expected(classifier, hidden), rtol=1e-5, atol=1e-5)
    of_torch = classifier.layer.log_prob(hidden.view(-1, HIDDEN)).view_as(found)
    assert torch.equal(found[..., RANKED], of_torch)
    torch.testing.assert_close(found.exp().sum(-1), torch.ones(4, 3))
    assert classifier.is_probability
    assert torch.equal(classifier.scores(hidden), found)


def test_tails_are_narrow(classifier):
    assert classifier.order.word.tolist() == RANKED
    assert [project.out_features for project, _ in classifier.layer.tail] == [4, 1]
    assert [output.out_features for _, output in classifier.layer.tail] == [3, 5]
    assert classifier.layer.head.out_features == 3 + 2


def test_the_loss_is_the_mean_of_the_targets(classifier, hidden, target):
    oracle = -np.take_along_axis(expected(classifier, hidden), target[..., None].numpy(), axis=-1)[..., 0]
    for nll in (classifier.nll(hidden, target), Classifier.nll(classifier, hidden, target)):
        assert nll.shape == target.shape
        np.testing.assert_allclose(nll.detach(), oracle, rtol=1e-5, atol=1e-5)
    assert classifier.loss(hidden, target).item() == pytest.approx(oracle.mean(), rel=1e-5)


def test_gradients_are_those_of_the_dense_formula(classifier, hidden, target):
    classifier.double()
    leaf = hidden.double().requires_grad_()
    inputs = (leaf, *classifier.parameters())
    found = torch.autograd.grad(classifier.loss(leaf, target), inputs)
    dense = torch.autograd.grad(Classifier.nll(classifier, leaf, target).mean(), inputs)
    for mine, oracle in zip(found, dense, strict=True):
        torch.testing.assert_close(mine, oracle, rtol=1e-5, atol=1e-7)


def test_topk_is_the_head_of_a_full_sort(classifier, hidden):
    values, words = classifier.topk(hidden, 4)
    oracle = expected(classifier, hidden)
    assert np.array_equal(words, np.argsort(-oracle, axis=-1)[..., :4])
    np.testing.assert_allclose(values.detach(), -np.sort(-oracle, axis=-1)[..., :4], rtol=1e-5, atol=1e-5)


def test_torch_fails_under_bfloat16_autocast_and_this_does_not(classifier, hidden, target):
    narrow = hidden.bfloat16()
    plain = classifier.nll(narrow.float(), target)
    with torch.autocast("cpu", torch.bfloat16):
        with pytest.raises(RuntimeError, match="same dtype"):
            classifier.layer(hidden.view(-1, HIDDEN), classifier.order.slots(target.flatten()))
        nll, log_prob = classifier.nll(narrow, target), classifier.log_prob(narrow)
        loss = classifier.loss(hidden, target)
    assert nll.dtype == log_prob.dtype == loss.dtype == torch.float32
    assert torch.equal(nll, plain)
    torch.testing.assert_close(nll, -log_prob.gather(-1, target[..., None])[..., 0])


def test_the_order_is_part_of_the_state(classifier, hidden, target):
    other = AdaptiveSoftmax(HIDDEN, COUNTS.flip(0), CUTOFFS)
    other.load_state_dict(classifier.state_dict())
    assert torch.equal(other.nll(hidden, target), classifier.nll(hidden, target))
    assert torch.equal(other.log_prob(hidden), classifier.log_prob(hidden))


# --- cut-offs --------------------------------------------------------------------------------------------------------


@given(counts=st.lists(st.integers(0, 12).map(lambda n: 2**n - 1), min_size=2, max_size=40).filter(any))
def test_default_cutoffs_are_where_the_coverage_is_reached(counts):
    ranked, total = sorted(counts, reverse=True), sum(counts)
    expected = set()
    for share in (Fraction("0.87"), Fraction("0.9831")):
        words = next(n for n in range(1, len(ranked) + 1) if Fraction(sum(ranked[:n]), total) >= share)
        expected.add(min(words, len(ranked) - 1))
    assert default_cutoffs(torch.tensor(counts)) == sorted(expected)


def test_a_classifier_takes_the_default_cutoffs(hidden):
    counts = 1000 / torch.arange(1, 101)
    classifier = AdaptiveSoftmax(HIDDEN, counts)
    assert classifier.layer.cutoffs == [*default_cutoffs(counts), 100]
    torch.testing.assert_close(classifier.log_prob(hidden).exp().sum(-1), torch.ones(4, 3))


@pytest.mark.parametrize("cutoffs", [[], [0], [11], [12], [3, 3], [6, 3], [-1, 3]])
def test_cutoffs_that_do_not_cut_are_refused(cutoffs):
    with pytest.raises(FewbitsError, match="cut-offs"):
        AdaptiveSoftmax(HIDDEN, COUNTS, cutoffs)


def test_tails_without_a_dimension_are_refused():
    with pytest.raises(FewbitsError, match="no dimension"):
        AdaptiveSoftmax(15, COUNTS, CUTOFFS)
    with pytest.raises(FewbitsError, match="divisor"):
        AdaptiveSoftmax(HIDDEN, COUNTS, CUTOFFS, divisor=0.5)


@pytest.mark.parametrize(
    ("counts", "match"),
    [([5], "two"), ([0, 0, 0], "0 times"), ([1, -1], "counts"), ([1.0, math.nan], "counts"), ([1.0, math.inf], "inf")],
)
def test_counts_of_no_text_are_refused(counts, match):
    with pytest.raises(FewbitsError, match=match):
        AdaptiveSoftmax(HIDDEN, torch.tensor(counts))


# --- bad input -------------------------------------------------------------------------------------------------------


def test_two_words_a_single_hidden_state_and_none(classifier, hidden):
    two = AdaptiveSoftmax(HIDDEN, torch.tensor([1, 4]))
    torch.testing.assert_close(two.log_prob(hidden).exp().sum(-1), torch.ones(4, 3))
    assert classifier.nll(hidden[0, 0], torch.tensor(9)).shape == ()
    nothing = torch.zeros(0, dtype=torch.long)
    assert classifier.log_prob(hidden[0, :0]).shape == (0, len(COUNTS))
    assert classifier.nll(hidden[0, :0], nothing).shape == (0,)
    assert classifier.loss(hidden[0, :0], nothing).isnan()


def test_equal_scores_are_shared_out(classifier):
    found = classifier.log_prob(torch.zeros(HIDDEN)).exp()  # there are no biases
    oracle = [1 / 5] * 3 + [1 / 5 / 3] * 3 + [1 / 5 / 5] * 5
    torch.testing.assert_close(found[RANKED], torch.tensor(oracle))


def test_hidden_states_that_are_not_finite_give_nan(classifier, hidden, target):
    hidden[1, 1] = math.inf
    assert classifier.nll(hidden, target).isnan()[1, 1]
    assert classifier.nll(hidden, target).isnan().sum() == 1


@pytest.mark.parametrize("word", [-1, 11])
def test_targets_outside_the_vocabulary_are_refused(classifier, word):
    with pytest.raises(FewbitsError, match="from 0 to 10"):
        classifier.loss(torch.zeros(1, HIDDEN), torch.tensor([word]))


def test_tied_vectors_are_the_rows_that_score_each_word():
    torch.manual_seed(0)
    tied = AdaptiveSoftmax(4, torch.tensor([3.0, 9, 1, 7, 2, 8]), cutoffs=[2, 4], divisor=1)
    tables = [tied.layer.head.weight[:2], *(tail[1].weight for tail in tied.layer.tail)]
    by_slot = torch.cat(tables)
    words = torch.tensor([[0, 1, 2], [3, 4, 5]])
    found = tied.embedded(words)
    assert torch.equal(found, by_slot[tied.order.slots(words)])
    weights = torch.randn(found.shape)
    (found * weights).sum().backward()
    wanted = torch.zeros_like(by_slot).index_put_((tied.order.slots(words).flatten(),), weights.flatten(0, 1))
    got = [tied.layer.head.weight.grad[:2], *(tail[1].weight.grad for tail in tied.layer.tail)]
    torch.testing.assert_close(torch.cat(got), wanted)


def test_narrow_tails_are_not_tied():
    with pytest.raises(FewbitsError, match="divisor=1"):
        AdaptiveSoftmax(8, torch.tensor([3.0, 2, 1]), cutoffs=[1]).embedded(torch.tensor([0]))
