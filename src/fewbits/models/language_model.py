"""A language model: a body and a classifier."""

from torch import Tensor, nn

from fewbits.classifiers.classifier import Classifier
from fewbits.models.recurrent import State


class LanguageModel(nn.Module):
    """Predicts each next word from the words before it."""

    def __init__(self, body: nn.Module, classifier: Classifier) -> None:
        super().__init__()
        self.body, self.classifier = body, classifier

    def forward(self, words: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Return hidden states (time, batch, H) for ``words`` (time, batch), and the state to go on from."""
        return self.body(words, state)  # type: ignore[no-any-return]

    def loss(self, words: Tensor, targets: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Return the classifier's mean training loss on ``targets`` (time, batch), and the state to go on from."""
        hidden, state = self(words, state)
        return self.classifier.loss(hidden, targets), state
