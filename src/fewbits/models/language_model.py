"""A language model: a body and a classifier."""

from torch import Tensor, nn

from fewbits.classifiers import Softmax
from fewbits.classifiers.classifier import Classifier
from fewbits.models.recurrent import Cell, RecurrentBody, State
from fewbits.quantizers.quantizer import Quantizer


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


def recurrent_language_model(
    vocabulary_size: int,
    embedding_size: int,
    hidden_size: int,
    layers: int,
    cell: Cell = Cell.LSTM,
    dropout: float = 0.0,
    initial_range: float | None = None,
    activations: Quantizer | None = None,
) -> LanguageModel:
    """Return an untrained :class:`RecurrentBody` with a softmax whose weights start uniform in ±0.1, biases at 0."""
    body = RecurrentBody(
        vocabulary_size, embedding_size, hidden_size, layers, cell, dropout, initial_range, activations
    )
    classifier = Softmax(hidden_size, vocabulary_size)
    nn.init.uniform_(classifier.output.weight, -0.1, 0.1)
    nn.init.zeros_(classifier.output.bias)
    return LanguageModel(body, classifier)
