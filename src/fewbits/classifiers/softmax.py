"""The exact softmax over the whole vocabulary."""

import torch.nn.functional as F
from torch import Tensor, nn

from fewbits.classifiers.classifier import Classifier


class Softmax(Classifier):
    """log p(w | h) = z_w − log Σ_v exp z_v with z = W h + b; O(H·V) a word.

    ``label_smoothing`` ε changes the training loss alone (Szegedy et al. 2016).

    >>> import torch
    >>> total = Softmax(hidden_size=4, vocabulary_size=10).log_prob(torch.zeros(2, 4)).exp().sum(-1)
    >>> torch.allclose(total, torch.ones(2))
    True
    """

    is_probability = True

    def __init__(self, hidden_size: int, vocabulary_size: int, *, label_smoothing: float = 0.0) -> None:
        super().__init__(hidden_size, vocabulary_size)
        self.output = nn.Linear(hidden_size, vocabulary_size)
        self.label_smoothing = label_smoothing

    def scores(self, hidden: Tensor) -> Tensor:
        """Return log-probabilities."""
        return self.log_prob(hidden)

    def ranking(self, hidden: Tensor) -> Tensor:
        """Return z."""
        logits: Tensor = self.output(hidden)
        return logits

    def log_prob(self, hidden: Tensor) -> Tensor:
        """Return z − log Σ exp z in float32."""
        return F.log_softmax(self.output(hidden).float(), dim=-1)

    def loss(self, hidden: Tensor, target: Tensor) -> Tensor:
        """Return the mean cross-entropy in nats; with label smoothing ε the target word has 1 − ε, all share ε."""
        logits = self.output(hidden).reshape(-1, self.vocabulary_size)
        return F.cross_entropy(logits, target.reshape(-1), label_smoothing=self.label_smoothing)

    def nll(self, hidden: Tensor, target: Tensor) -> Tensor:
        """Return −log p(target) without keeping the log-probabilities of all words."""
        logits = self.output(hidden).float().reshape(-1, self.vocabulary_size)
        return F.cross_entropy(logits, target.reshape(-1), reduction="none").view_as(target)
