"""Recurrent bodies on PyTorch's fused modules."""

from enum import StrEnum

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewbits.errors import FewbitsError
from fewbits.quantizers.quantizer import Quantizer

State = Tensor | tuple[Tensor, Tensor]  # (layers, batch, hidden), twice for an LSTM


class Cell(StrEnum):
    """The recurrent cell."""

    LSTM = "lstm"
    GRU = "gru"


def lstm_step(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Return hidden and cell state of one step of an LSTM.

    c = σ(f) c₋₁ + σ(i) tanh(g) and h = σ(o) tanh(c), where ``gates`` is i, f, g, o side by side (batch, 4 hidden),
    each W x + U h₋₁ + b, and ``cell`` is c₋₁ (batch, hidden).
    """
    i, f, g, o = gates.chunk(4, dim=-1)
    cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(cell), cell


class RecurrentBody(nn.Module):
    """Embedding, dropout, LSTM or GRU layers with dropout between them, dropout (Zaremba et al. 2014).

    Embedding weights start uniform in ±0.1; recurrent weights and biases uniform in ±1/√hidden, or ±``initial_range``.
    ``activations`` quantizes each hidden state h_t when it is made: what the next step, the next layer and the output
    read is the quantized one, as in Xu et al. (2018). Then the steps are computed one by one instead of by PyTorch's
    fused module; the cell state c_t stays float. With ``projection`` the hidden state of an LSTM is P h_t, of that
    many numbers (Sak et al. 2014), and so is what the body returns.

    Raises:
        FewbitsError: If a GRU, or one with quantized hidden states, is to have a projection.
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
        activations: Quantizer | None = None,
        projection: int = 0,
    ) -> None:
        super().__init__()
        if projection and (cell is not Cell.LSTM or activations is not None):
            raise FewbitsError("a projection goes with an LSTM whose hidden states are float; leave one of them out.")
        self.hidden_size = hidden_size
        self.activations = activations
        self.embedding = nn.Embedding(vocabulary_size, embedding_size)
        self.drop = nn.Dropout(dropout)
        make = nn.LSTM if cell is Cell.LSTM else nn.GRU
        between = dropout if layers > 1 else 0.0
        narrowed = {"proj_size": projection} if projection else {}
        self.rnn = make(embedding_size, hidden_size, layers, dropout=between, **narrowed)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        if initial_range is not None:
            for parameter in self.rnn.parameters():
                nn.init.uniform_(parameter, -initial_range, initial_range)

    def forward(self, words: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Return hidden states (time, batch, hidden) for ``words`` (time, batch), and the last state."""
        inputs = self.drop(self.embedding(words))
        hidden, state = self.rnn(inputs, state) if self.activations is None else self._step_by_step(inputs, state)
        return self.drop(hidden), state

    def _step_by_step(self, inputs: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Return what ``self.rnn`` returns, with every hidden state quantized."""
        layers, ends = self.rnn.num_layers, []
        for layer in range(layers):
            first = inputs.new_zeros(inputs.shape[1], self.hidden_size)
            if state is None:
                before = (first, first)
            else:
                before = (state[0][layer], state[1][layer]) if isinstance(state, tuple) else (state[layer], first)
            inputs, end = self._layer(inputs, layer, *before)
            ends.append(end)
            if layer + 1 < layers:
                inputs = F.dropout(inputs, self.rnn.dropout, self.training)
        hidden, cell = (torch.stack(parts) for parts in zip(*ends, strict=True))
        return inputs, (hidden, cell) if isinstance(self.rnn, nn.LSTM) else hidden

    def _layer(self, inputs: Tensor, layer: int, hidden: Tensor, cell: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        assert self.activations is not None
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        from_input, recurrent, bias, recurrent_bias = (getattr(self.rnn, f"{name}_l{layer}") for name in names)
        outputs = []
        for given in F.linear(inputs, from_input, bias):
            fed_back = F.linear(hidden, recurrent, recurrent_bias)
            if isinstance(self.rnn, nn.LSTM):
                hidden, cell = lstm_step(given + fed_back, cell)
            else:
                (r, z, n), (r_back, z_back, n_back) = given.chunk(3, dim=-1), fed_back.chunk(3, dim=-1)
                update = torch.sigmoid(z + z_back)
                hidden = (1 - update) * torch.tanh(n + torch.sigmoid(r + r_back) * n_back) + update * hidden
            hidden = self.activations(hidden)
            outputs.append(hidden)
        return torch.stack(outputs), (hidden, cell)
