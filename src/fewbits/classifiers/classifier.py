"""The interface of all classifiers."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class Classifier(nn.Module, ABC):
    """Owns the output matrix of a model and answers four questions about the next word.

    Shapes: ``hidden`` is (…, H), ``target`` is (…) of word numbers, answers over words are (…, V). A score is any
    number that orders words; ``is_probability`` says whether ``scores`` are log-probabilities. ``log_prob`` always
    is one: it normalises exactly, so that perplexities of different classifiers can be compared.
    """

    is_probability: bool  #: True if ``scores`` are log-probabilities

    def __init__(self, hidden_size: int, vocabulary_size: int) -> None:
        super().__init__()
        self.hidden_size, self.vocabulary_size = hidden_size, vocabulary_size

    @abstractmethod
    def scores(self, hidden: Tensor) -> Tensor:
        """Return the score of every word, (…, V): what decoding compares."""

    def ranking(self, hidden: Tensor) -> Tensor:
        """Return numbers that order the words as the scores do, (…, V); cheaper where scores are normalised."""
        return self.scores(hidden)

    @abstractmethod
    def log_prob(self, hidden: Tensor) -> Tensor:
        """Return the exactly normalised log-probability of every word, (…, V), in nats, float32."""

    @abstractmethod
    def loss(self, hidden: Tensor, target: Tensor) -> Tensor:
        """Return the training loss, averaged over targets, in nats where it is a cross-entropy."""

    def nll(self, hidden: Tensor, target: Tensor) -> Tensor:
        """Return −log p(target) of each target, (…), in nats: what perplexity is made of."""
        return -self.log_prob(hidden).gather(-1, target[..., None]).squeeze(-1)

    def topk(self, hidden: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Return the k highest scores and their words, (…, k) each, best first."""
        values, words = torch.topk(self.scores(hidden), k, dim=-1)
        return values, words
