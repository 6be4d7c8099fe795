"""What all models that read the words of a translation at once have in common."""

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from fewbits.classifiers.classifier import Classifier
from fewbits.errors import FewbitsError
from fewbits.models.seq2seq import PADDING

State = TypeVar("State")


class Translator(nn.Module, ABC, Generic[State]):
    """A model of the words of a translation, given a sentence and the words before them.

    Sentences are rows of int64 word numbers that end in <eos> and are padded with ``PADDING``. All words of a given
    translation are read at once, as in training; a search reads them one by one, from :meth:`start` by :meth:`step`.
    """

    classifier: Classifier  #: reads the hidden states

    def __init__(self, sos: int, eos: int) -> None:
        super().__init__()
        self.sos, self.eos = sos, eos

    @abstractmethod
    def start(self, source: Tensor) -> State:
        """Return the state before the first word of the translations of ``source`` (batch, length)."""

    @abstractmethod
    def reorder(self, state: State, rows: Tensor) -> State:
        """Return the state of the given rows, in their order; a row may come several times."""

    @abstractmethod
    def _read(self, words: Tensor, state: State) -> tuple[Tensor, State]:
        """Read ``words`` (rows, length) after those of ``state``; return (rows, length, H) and the state."""

    def step(self, words: Tensor, state: State) -> tuple[Tensor, State]:
        """Return what the classifier reads to predict the word after ``words`` (rows,), (rows, H), and the state."""
        hidden, state = self._read(words[:, None], state)
        return hidden[:, 0], state

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Return the hidden states (batch, words, H) that predict each word of ``target`` from the words before it."""
        first = target.new_full((len(target), 1), self.sos)
        before = torch.cat([first, target[:, :-1].clamp_min(0)], dim=1)
        return self._read(before, self.start(source))[0]

    def loss(self, source: Tensor, target: Tensor) -> Tensor:
        """Return the classifier's loss, averaged over the words of ``target``."""
        words = target != PADDING
        return self.classifier.loss(self(source, target)[words], target[words])


def words_of(source: Tensor) -> Tensor:
    """Return which places of ``source`` (batch, length) are words.

    Raises:
        FewbitsError: If there is no sentence, or one has no words.
    """
    words = source != PADDING
    if not len(source) or not words.any(1).all():
        raise FewbitsError("a batch needs one or more sentences, each with at least the word that ends it.")
    return words
