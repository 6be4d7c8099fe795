"""Recurrent bodies on PyTorch's fused modules."""

from enum import StrEnum

from torch import Tensor, nn

State = Tensor | tuple[Tensor, Tensor]  # (layers, batch, hidden), twice for an LSTM


class Cell(StrEnum):
    """The recurrent cell."""

    LSTM = "lstm"
    GRU = "gru"


class RecurrentBody(nn.Module):
    """Embedding, dropout, LSTM or GRU layers with dropout between them, dropout (Zaremba et al. 2014).

    Embedding weights start uniform in ±0.1; recurrent weights and biases uniform in ±1/√hidden, or ±``initial_range``.
    """

    def __init__(
        self,
        vocabulary_size: int,
        embedding_size: int,
        hidden_size: int,
        layers: int,
        cell: Cell = Cell.LSTM,
        dropout: float = 0.0,
        initial_range: float | None = None,
    ) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.embedding = nn.Embedding(vocabulary_size, embedding_size)
        self.drop = nn.Dropout(dropout)
        make = nn.LSTM if cell is Cell.LSTM else nn.GRU
        self.rnn = make(embedding_size, hidden_size, layers, dropout=dropout if layers > 1 else 0.0)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        if initial_range is not None:
            for parameter in self.rnn.parameters():
                nn.init.uniform_(parameter, -initial_range, initial_range)

    def forward(self, words: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Return hidden states (time, batch, hidden) for ``words`` (time, batch), and the last state."""
        hidden, state = self.rnn(self.drop(self.embedding(words)), state)
        return self.drop(hidden), state
