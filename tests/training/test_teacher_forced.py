"""Batches of pairs, their losses, and going on in the middle of an epoch."""

import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fewbits.classifiers import Softmax
from fewbits.errors import FewbitsError
from fewbits.models import ConvSeq2Seq, Transformer
from fewbits.models.seq2seq import PADDING
from fewbits.training.teacher_forced import TeacherForced

Pair = tuple[Tensor, Tensor]


def pairs(number: int, seed: int = 0, longest: int = 9) -> list[Pair]:
    source = torch.Generator().manual_seed(seed)

    def sentence() -> Tensor:
        length = int(torch.randint(0, longest, (), generator=source))
        return torch.cat([torch.randint(2, 12, (length,), generator=source), torch.tensor([1])])

    return [(sentence(), sentence()) for _ in range(number)]


def model(**settings: float) -> Transformer:
    torch.manual_seed(0)
    classifier = Softmax(8, 12, **settings)
    return Transformer(12, classifier, sos=0, eos=1, encoder_layers=1, decoder_layers=1, heads=2, dropout=0.0)


@given(st.integers(1, 60), st.integers(0, 3), st.integers(10, 60))
def test_an_epoch_is_each_pair_once_in_batches_that_are_not_too_large(number: int, seed: int, words: int) -> None:
    train = pairs(number, seed)
    task = TeacherForced(model(), train, train, words=words)
    seen: list[list[int]] = []
    for _ in range(2):
        task.loss(0)
        assert len(task.batches) == task.steps
        numbers = torch.cat(task.batches).tolist()
        assert sorted(numbers) == list(range(number))
        for batch in task.batches:
            for side in (0, 1):
                lengths = [len(train[place][side]) for place in batch.tolist()]
                assert max(lengths) * len(lengths) <= words
        seen.append(numbers)
    if number > 40:
        assert seen[0] != seen[1]


def test_pairs_of_a_batch_are_about_equally_long() -> None:
    train = pairs(300)
    task = TeacherForced(model(), train, train, words=100)
    task.loss(0)
    padded = sum(max(len(train[n][1]) for n in batch.tolist()) * len(batch) for batch in task.batches)
    mixed = sum(max(len(train[n][1]) for n in range(first, min(first + 11, 300))) * 11 for first in range(0, 300, 11))
    words = sum(len(target) for _, target in train)
    assert padded - words < (mixed - words) / 5


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_losses_are_means_over_words(smoothing: float) -> None:
    train = pairs(12)
    own = model(label_smoothing=smoothing)
    task = TeacherForced(own, train, train, words=30)
    loss = task.loss(0).item()
    total = words = smoothed = 0.0
    for number in task.batches[0].tolist():
        source, target = (side[None] for side in train[number])
        scored = own.classifier.log_prob(own(source, target))[0]
        smoothed -= smoothing * scored.mean(1).sum().item()
        total -= (1 - smoothing) * scored.gather(1, target.T).sum().item()
        words += target.numel()
    assert loss == pytest.approx((total + smoothed) / words, rel=1e-5)
    every = [(own.classifier.nll(own(s[None], t[None])[0], t), len(t)) for s, t in train]
    mean = sum(nll.sum().item() for nll, _ in every) / sum(n for _, n in every)
    assert task.validate() == pytest.approx(mean, rel=1e-5)  # without smoothing
    assert own.training


def test_an_interrupted_epoch_goes_on_with_its_batches() -> None:
    train = pairs(60)
    torch.manual_seed(3)
    task = TeacherForced(model(), train, train, words=40)
    losses = [task.loss(step).item() for step in range(task.steps)]
    other = TeacherForced(model(), train, train, words=40)
    other.restore(task.state())
    assert [other.loss(step).item() for step in range(1, task.steps)] == losses[1:]


@pytest.mark.parametrize("kind", ["transformer", "convs2s"])
def test_a_model_learns_to_turn_sentences_round(kind: str) -> None:
    source = torch.Generator().manual_seed(1)
    words = [torch.randint(2, 8, (1 + n % 4,), generator=source) for n in range(200)]
    end = torch.tensor([1])
    train = [(torch.cat([line, end]), torch.cat([line.flip(0), end])) for line in words]
    torch.manual_seed(0)
    if kind == "transformer":
        own = Transformer(8, Softmax(16, 8), sos=0, eos=1, encoder_layers=1, decoder_layers=1, heads=2, dropout=0.0)
    else:
        layers = ((16, 3),) * 2
        own = ConvSeq2Seq(
            8, Softmax(16, 8), sos=0, eos=1, embedding_size=16, encoder=layers, decoder=layers, dropout=0.0
        )
    task = TeacherForced(own, train, train[:50], words=200)
    optimizer = torch.optim.Adam(own.parameters(), lr=0.01)
    before = task.validate()
    for _ in range(25):
        for step in range(task.steps):
            optimizer.zero_grad()
            task.loss(step).backward()
            optimizer.step()
    assert before > math.log(8) / 2
    assert task.validate() < 0.4 * before


def test_what_cannot_be_trained_on_is_refused() -> None:
    few = pairs(3)
    for train, valid in (([], few), (few, [])):
        with pytest.raises(FewbitsError, match="one or more of each"):
            TeacherForced(model(), train, valid)
    long = (torch.full((31,), 3), torch.tensor([1]))
    with pytest.raises(FewbitsError, match="has 31 words, a batch 30"):
        TeacherForced(model(), [long], few, words=30)
    assert PADDING not in Counter(torch.cat([side for pair in few for side in pair]).tolist())
