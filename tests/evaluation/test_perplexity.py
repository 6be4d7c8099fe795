"""Perplexity against a brute force that reads the text again for every token."""

import math
from collections import Counter

import pytest
import torch
from scipy.special import log_softmax
from torch import Tensor

from fewbits.classifiers import Softmax
from fewbits.errors import FewbitsError
from fewbits.evaluation.perplexity import accuracy, exponential, mean_nll, perplexity, unigram_perplexity
from fewbits.models import Cell, LanguageModel, RecurrentBody
from fewbits.quantize import quantize
from fewbits.quantizers import Binary, Rounding

VOCABULARY, EOS = 11, 2
TEXT = torch.randint(VOCABULARY, (23,), generator=torch.Generator().manual_seed(0), dtype=torch.int32)


def model(cell: Cell = Cell.LSTM, dropout: float = 0.5) -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(RecurrentBody(VOCABULARY, 4, 6, 2, cell, dropout, initial_range=0.8), Softmax(6, VOCABULARY))


@torch.no_grad()
def token_by_token(own: LanguageModel, tokens: Tensor, before: int) -> float:
    """The sum of −log p(token | all tokens before it), every context read from its start."""
    own.eval()
    total = 0.0
    for place in range(len(tokens)):
        context = torch.tensor([before, *tokens[:place].tolist()])[:, None]
        hidden, _ = own.body(context)
        scores = own.classifier.output(hidden[-1, 0]).double().numpy()
        total -= log_softmax(scores)[tokens[place].item()]
    own.train()
    return total


@pytest.mark.parametrize("cell", list(Cell))
def test_one_stream_is_the_text_token_by_token(cell):
    own = model(cell)
    expected = token_by_token(own, TEXT, EOS) / len(TEXT)
    assert mean_nll(own, TEXT, first=EOS, streams=1) == pytest.approx(expected, rel=1e-6)
    assert perplexity(own, TEXT, first=EOS, streams=1) == pytest.approx(math.exp(expected), rel=1e-6)


@pytest.mark.parametrize("streams", [2, 4, 5, 7, 20, 22, 23, 100])
def test_every_stream_starts_anew_after_the_token_before_it(streams):
    """Also where the text does not divide: 23 is prime."""
    own = model()
    size = math.ceil(len(TEXT) / min(streams, len(TEXT)))
    expected = sum(
        token_by_token(own, TEXT[start : start + size], TEXT[start - 1].item() if start else EOS)
        for start in range(0, len(TEXT), size)
    )
    assert mean_nll(own, TEXT, first=EOS, streams=streams) == pytest.approx(expected / len(TEXT), rel=1e-6)


@pytest.mark.parametrize("length", [1, 2, 5, 6, 1000])
def test_the_length_of_a_call_does_not_matter(length):
    own = model()
    found = mean_nll(own, TEXT, first=EOS, streams=4, length=length)
    assert found == pytest.approx(mean_nll(own, TEXT, first=EOS, streams=4), rel=1e-6)


def test_one_token_is_enough_and_none_is_refused():
    own = model()
    assert mean_nll(own, TEXT[:1], first=EOS) == pytest.approx(token_by_token(own, TEXT[:1], EOS), rel=1e-6)
    with pytest.raises(FewbitsError, match="no tokens"):
        mean_nll(own, TEXT[:0], first=EOS)


@pytest.mark.parametrize("training", [True, False])
def test_every_module_gets_its_mode_back(training):
    own = model().train(training)
    own.body.drop.train(not training)
    before = [module.training for module in own.modules()]
    mean_nll(own, TEXT, first=EOS)
    assert [module.training for module in own.modules()] == before
    with pytest.raises(IndexError):
        mean_nll(own, TEXT + VOCABULARY, first=EOS)
    assert [module.training for module in own.modules()] == before


def test_dropout_and_stochastic_quantizers_rest():
    own = quantize(model(), {"rnn.weight_*": Binary(rounding=Rounding.STOCHASTIC)})
    state = torch.get_rng_state()
    found = mean_nll(own, TEXT, first=EOS, streams=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert found == mean_nll(own, TEXT, first=EOS, streams=3)
    assert all(parameter.grad is None for parameter in own.parameters())


def test_a_uniform_model_has_the_size_of_the_vocabulary():
    own = model()
    with torch.no_grad():
        for parameter in own.classifier.parameters():
            parameter.zero_()
    assert perplexity(own, TEXT, first=EOS) == pytest.approx(VOCABULARY, rel=1e-6)


def test_unigram_perplexity_is_that_of_counted_words():
    """Words that were never seen in training count once."""
    train = torch.tensor([1, 1, 1, 4, 4, 7], dtype=torch.int32)
    counts = Counter(train.tolist())
    chances = [(counts[word] + 1) / (len(train) + VOCABULARY) for word in TEXT.tolist()]
    expected = math.prod(chances) ** (-1 / len(TEXT))
    assert unigram_perplexity(train, TEXT, VOCABULARY) == pytest.approx(expected, rel=1e-12)


def test_a_diverged_model_has_infinite_perplexity():
    assert exponential(math.log(120.45)) == pytest.approx(120.45)
    assert exponential(800.0) == math.inf


@torch.no_grad()
def test_accuracy_counts_the_tokens_that_come_first() -> None:
    own = model().eval()
    right = 0
    for place in range(len(TEXT)):
        context = torch.tensor([EOS, *TEXT[:place].tolist()])[:, None]
        right += own.classifier.output(own.body(context)[0][-1, 0]).argmax().item() == TEXT[place].item()
    assert 0 < right < len(TEXT)
    assert accuracy(own, TEXT, first=EOS, streams=1, length=4) == right / len(TEXT)


def test_accuracy_of_nothing_is_refused() -> None:
    with pytest.raises(FewbitsError, match="no tokens"):
        accuracy(model(), TEXT[:0], first=EOS)
